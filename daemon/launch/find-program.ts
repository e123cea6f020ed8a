/** Which file a container's command is, and what is in its environment: the same on every platform. */
import { accessSync, constants, statSync } from 'node:fs';
import { errorCode } from '#common/errors';
import { strerror } from '#common/native/libc';
import { LaunchFailure } from './failure.ts';

/** Older docker CLIs know exit code 126 by the words "permission denied" only. */
const NOT_PERMITTED: Record<string, string> = { EISDIR: 'is a directory: permission denied' };

/**
 * Finds the program as runc does (Go's exec.LookPath).
 *
 * @throws LaunchFailure `program-not-found` or `program-not-permitted`, worded as runc does.
 */
export function findProgram(name: string, env: string[]): string {
  if (name.includes('/')) {
    const code = whyNotExecutable(name);
    if (code === undefined) return name;
    const missing = code === 'ENOENT' || code === 'ENOTDIR';
    const reason = missing ? `stat ${name}: ${strerror(code)}` : (NOT_PERMITTED[code] ?? strerror(code));
    throw new LaunchFailure(
      missing ? 'program-not-found' : 'program-not-permitted',
      'find the program',
      code,
      `exec: ${JSON.stringify(name)}: ${reason}`,
    );
  }
  const path = env.findLast((entry) => entry.startsWith('PATH='))?.slice('PATH='.length) ?? '';
  for (const folder of path.split(':')) {
    const candidate = `${folder}/${name}`;
    // An empty entry means the working folder, which Go refuses for safety.
    if (folder !== '' && name !== '' && whyNotExecutable(candidate) === undefined) return candidate;
  }
  throw new LaunchFailure(
    'program-not-found',
    'find the program',
    'ENOENT',
    `exec: ${JSON.stringify(name)}: executable file not found in $PATH`,
  );
}

/** The errno that executing a file would meet, or undefined. */
function whyNotExecutable(path: string): string | undefined {
  try {
    if (statSync(path).isDirectory()) return 'EISDIR';
    accessSync(path, constants.X_OK);
    return undefined;
  } catch (error) {
    return errorCode(error) ?? 'EACCES';
  }
}

/** The program's environment: HOME is the user's unless it was given. */
export function environment(env: string[], identity: { home: string }): string[] {
  if (env.some((entry) => entry.startsWith('HOME=') && entry !== 'HOME=')) return env;
  return [...env.filter((entry) => entry !== 'HOME='), `HOME=${identity.home}`];
}
