/** What the operating system's errors mean, for a person at a terminal: what could not be done to what, why, and what to do. */
import { errorCode, errorMessage } from './errors.ts';

/** By errno(3): why, and what to do. */
const MEANINGS: Readonly<Record<string, readonly [why: string, remedy: string]>> = {
  EACCES: ['this user may not', 'Use sudo, or a place of your own.'],
  EDQUOT: ["this user's share of the disk is used up", 'Free some space, or use another place.'],
  EISDIR: ['it is a folder', 'Name a file.'],
  EMFILE: ['this process has too many files open', 'Raise the limit (ulimit -n) and start again.'],
  ENFILE: ['the machine has too many files open', 'End what opens them, or raise fs.file-max.'],
  ENOENT: ['there is no such file or folder', 'Make it, or correct the path.'],
  ENOSPC: [
    'the disk is full, or has no inodes left',
    'Free some space (df and df -i tell where), or use another place.',
  ],
  ENOTDIR: ['a part of its path is no folder', 'Correct the path.'],
  EPERM: ['this user may not', 'Use sudo, or a place of your own.'],
  EROFS: ['its disk can only be read', 'Use a place that can be written.'],
};

/** mkdir(2) of a folder whose parent is there, as below /proc. */
const NO_FOLDER = ['no folder can be made there', 'Use another place.'] as const;

/** The whole of an operating system's error in words, or undefined of any other error. */
export function systemErrorText(error: unknown): string | undefined {
  const code = errorCode(error);
  const { syscall, path } = (error ?? {}) as { syscall?: string; path?: string };
  const [why, remedy] = (code === 'ENOENT' && syscall === 'mkdir' ? NO_FOLDER : MEANINGS[code ?? '']) ?? [];
  if (why === undefined) return undefined;
  const what = path === undefined ? errorMessage(error) : `${syscall ?? 'using'} ${path} failed`;
  return `${what}: ${why}. ${remedy}`;
}
