/**
 * Mounts of the host's own kernel that stand behind containers' mounts, made by mount(8) and umount(8): clones of folders
 * without what is mounted below them, and the file systems of volumes.
 */
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import { DrydockError, errorCode, errorMessage } from '#common/errors';
import { type MountEntry, parseMountInfo } from '#fsbridge';

const run = promisify(execFile);

/** What is mounted where; a host without such a list has none of these mounts. */
export async function hostMounts(): Promise<MountEntry[]> {
  try {
    return parseMountInfo(await readFile('/proc/self/mountinfo', 'utf8'));
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return [];
    throw error;
  }
}

/** Whether `path` is `folder` or below it. */
function isWithin(path: string, folder: string): boolean {
  return folder === '/' || path === folder || path.startsWith(`${folder}/`);
}

/** Places at or below a folder where something is mounted, the earliest first; once for each mount. */
export async function mountsWithin(folder: string): Promise<string[]> {
  return (await hostMounts()).map(({ target }) => target).filter((target) => isWithin(target, folder));
}

/** Places below a folder where something is mounted, outermost first, each once. */
export async function mountsBelow(folder: string): Promise<string[]> {
  return [...new Set(await mountsWithin(folder))].filter((target) => target !== folder).sort();
}

/**
 * Checks that mounts made below a path can reach a container, or come from it.
 * @throws ERR_MOUNT in dockerd's words
 */
export async function requirePropagation(path: string, propagation: string): Promise<void> {
  const holder = (await hostMounts())
    .filter(({ target }) => isWithin(path, target))
    .reduce<MountEntry | undefined>(
      (best, entry) => (best && best.target.length > entry.target.length ? best : entry),
      undefined,
    );
  const shared = holder?.shared === true;
  const wantsShared = propagation.endsWith('shared');
  if (shared || (!wantsShared && holder?.slave)) return;
  throw new DrydockError(
    'ERR_MOUNT',
    `path ${path} is mounted on ${holder?.target ?? '/'} but it is not a ${wantsShared ? 'shared' : 'shared or slave'} mount`,
  );
}

/** Shows a folder or file at `target` without what is mounted below it; mounts made later do not appear either. */
export async function bindAlone(source: string, target: string): Promise<void> {
  await mount(['--bind', '--make-private', '--', source, target]);
}

/**
 * Mounts a file system as mount(2) would, without helper programs.
 * @param options as after `-o`; may be empty
 */
export async function mountFilesystem(
  type: string,
  device: string,
  options: string,
  target: string,
): Promise<void> {
  await mount(['-i', '-t', type, ...(options === '' ? [] : ['-o', options]), '--', device, target]);
}

async function mount(args: string[]): Promise<void> {
  try {
    await run('mount', args);
  } catch (error) {
    const { stderr } = error as { stderr?: string };
    throw new DrydockError('ERR_MOUNT', stderr?.trim().replace(/^mount: /, '') || errorMessage(error), {
      cause: error,
    });
  }
}

/** Takes away all that is mounted at `target`, at once from sight; nothing to do when that is nothing. */
export async function unmountAll(target: string): Promise<void> {
  for (const { target: found } of await hostMounts())
    if (found === target) await run('umount', ['-l', '--', target]);
}
