/** What is mounted now, by this process or another. */
import { readFile, statfs } from 'node:fs/promises';
import { errorCode } from '#common/errors';
import { FS_TYPE } from './mount.ts';
import { parseMountInfo } from './mountinfo.ts';

/** A server that takes longer to answer counts as busy. */
const ANSWER_MS = 1000;

/** A mount of ours. */
export interface MountStatus {
  source: string;
  target: string;
  readOnly: boolean;
  /** `dead`: its server is gone, and the next daemon's start or umount(8) removes it. `busy`: no answer in a second. */
  state: 'served' | 'busy' | 'dead';
}

/** All mounts of ours that this process can see. Must not be called by the thread that serves one. */
export async function mountStatus(): Promise<MountStatus[]> {
  const entries = parseMountInfo(await readFile('/proc/self/mountinfo', 'utf8'));
  return Promise.all(
    entries
      .filter(({ type }) => type === FS_TYPE)
      .map(async ({ source, target, readOnly }) => ({
        source,
        target,
        readOnly,
        state: await stateOf(target),
      })),
  );
}

async function stateOf(target: string): Promise<MountStatus['state']> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<'busy'>((resolve) => {
    timer = setTimeout(resolve, ANSWER_MS, 'busy');
  });
  const answered = statfs(target).then(
    () => 'served' as const,
    (error) => (errorCode(error) === 'ENOTCONN' ? ('dead' as const) : ('served' as const)),
  );
  const state = await Promise.race([answered, late]);
  clearTimeout(timer);
  return state;
}
