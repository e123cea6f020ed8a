/** What is mounted now, by this process or another. */
import { spawn } from 'node:child_process';
import { DrydockError } from '#common/errors';
import { FS_TYPE } from './mount.ts';
import { mountEntries } from './mountinfo.ts';

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

/** All mounts of ours that this process can see. Takes a second at most, whatever has become of their servers. */
export async function mountStatus(): Promise<MountStatus[]> {
  if (process.platform !== 'linux')
    throw new DrydockError('ERR_FS_STATUS', 'Mounts can be listed on Linux only; see mount(8) here.');
  const entries = await mountEntries();
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

/**
 * Has another process ask: who waits for a server that never answers can neither go on nor end, not even by a signal.
 * Such a process is left to itself; it ends with the mount.
 */
function stateOf(target: string): Promise<MountStatus['state']> {
  return new Promise((resolve) => {
    const asking = spawn('stat', ['-f', '-c', '', '--', target], {
      env: { ...process.env, LC_ALL: 'C' },
      stdio: ['ignore', 'ignore', 'pipe'],
      detached: true,
    });
    let complaint = '';
    asking.stderr.on('data', (text) => {
      complaint += text;
    });
    const late = setTimeout(() => {
      asking.kill('SIGKILL');
      asking.stderr.destroy();
      asking.unref();
      resolve('busy');
    }, ANSWER_MS);
    const answered = (): void => {
      clearTimeout(late);
      resolve(complaint.includes('not connected') ? 'dead' : 'served');
    };
    asking.once('close', answered);
    asking.once('error', answered);
  });
}
