/**
 * The server thread of one mount by FUSE-T. Its requests come over a socket, so it has an event loop like any other, in
 * which also the host's changes arrive: from FSEvents, which is what fs.watch is on macOS.
 */
import { watch, writeSync } from 'node:fs';
import { chmod } from 'node:fs/promises';
import { join } from 'node:path';
import { parentPort, workerData } from 'node:worker_threads';
import { systemClock } from '#common/clock';
import { DrydockError, errorCode, errorMessage } from '#common/errors';
import { addressOf, errnoName } from '#common/native/libc';
import type { HostFs } from '../backing/host-fs.ts';
import { serveFuseT } from '../channel/fuse-t.ts';
import { allocate } from '../memory.ts';
import { Refresher } from '../notify/refresher.ts';
import type { Policy } from '../policy/options.ts';
import { Session } from '../session.ts';
import { traceLine } from '../trace.ts';
import { darwinLayout } from '../wire/layout-darwin.ts';
import { control } from './control.ts';

/** What the owner gives. */
export interface FuseTInput {
  source: string;
  target: string;
  /** From findFuseT(). */
  helper: string;
  volumeName: string;
  policy: Policy;
  shared: SharedArrayBuffer;
  /** Where each request is written, -1 for nowhere. */
  traceFd: number;
}

/** What the thread tells. The owner's only message, of any kind, asks it to unmount. */
export type FuseTMessage =
  | { kind: 'started' }
  | { kind: 'refused'; code: string; message: string }
  | { kind: 'bug'; operation: string; error: string };

/** Room for the request at hand; data are in the channel's own memory. */
const REQUEST_BYTES = 1 << 16;

/** The folder at `path` as a file system, by this system's calls. */
async function hostAt(path: string): Promise<HostFs> {
  if (process.platform === 'darwin') return new (await import('../backing/posix-darwin.ts')).DarwinFs(path);
  const { PosixFs, openRoot } = await import('../backing/posix-linux.ts');
  return new PosixFs(openRoot(path));
}

async function run(input: FuseTInput, tell: (message: FuseTMessage) => void): Promise<void> {
  const { source, target, policy, traceFd } = input;
  const host = await hostAt(source);
  if (host.root < 0)
    throw new DrydockError('ERR_FS_SOURCE', `${source} can't be opened (${errnoName(-host.root)}).`);
  const session = new Session({
    host,
    layout: darwinLayout,
    policy,
    clock: systemClock,
    addressOf,
    uid: process.geteuid?.() ?? 0,
    gid: process.getegid?.() ?? 0,
    request: allocate(REQUEST_BYTES, addressOf),
    statistics: control(input.shared).statistics,
    onBug: (error, operation) => tell({ kind: 'bug', operation, error: errorMessage(error) }),
    ...(traceFd >= 0 && {
      onRequest: (request, path, result, elapsedMs) =>
        void writeSync(traceFd, traceLine(request, path, result, elapsedMs, systemClock.wallMs())),
    }),
  });
  const refresher = new Refresher(session.server, (path, mode) => chmod(join(target, path), mode));
  const watcher = watch(source, { recursive: true }, (_kind, name) => refresher.changed(name ?? '.'));
  // Without events the system's memory ends by itself, a second later.
  watcher.on('error', (error) => tell({ kind: 'bug', operation: 'watch', error: errorMessage(error) }));
  try {
    const { helper, volumeName } = input;
    const readOnly = policy.readOnly;
    const mount = await serveFuseT({ helper, target, volumeName, session, addressOf, readOnly });
    parentPort?.once('message', () => void mount.unmount());
    tell({ kind: 'started' });
    await mount.ended;
  } finally {
    watcher.close();
    host.close(host.root);
  }
}

const port = parentPort;
if (port !== null) {
  const tell = (message: FuseTMessage): void => port.postMessage(message);
  run(workerData as FuseTInput, tell)
    .catch((error) =>
      tell({ kind: 'refused', code: errorCode(error) ?? 'ERR_FS_SERVER', message: errorMessage(error) }),
    )
    .finally(() => port.close());
}
