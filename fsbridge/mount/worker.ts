/**
 * The server thread of one mount. It gets the device and the root already open, serves until the file system is
 * unmounted or it is told to stop, and frees everything. It never returns to its event loop in between.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { systemClock } from '#common/clock';
import { errorMessage } from '#common/errors';
import { close, takeOwnUmask } from '#common/native/fs';
import { closeBacking, closeFd, openBacking } from '#common/native/fuse';
import { addressOf } from '#common/native/libc';
import { PosixFs } from '../backing/posix-linux.ts';
import { serve } from '../channel/fd-linux.ts';
import { allocate } from '../memory.ts';
import { WRITE_BYTES_MAX } from '../ops/init.ts';
import type { Policy } from '../policy/options.ts';
import { Session } from '../session.ts';
import { linuxLayout } from '../wire/layout-linux.ts';
import { control } from './control.ts';

/** What the owner gives. */
export interface WorkerInput {
  fuseFd: number;
  rootFd: number;
  shared: SharedArrayBuffer;
  policy: Policy;
}

/** What the thread tells. */
export type WorkerMessage =
  | { kind: 'started' }
  | { kind: 'bug'; operation: string; error: string }
  | { kind: 'failed'; errno: number };

/** Headers beside the data of the largest request; the kernel wants room for a page. */
const HEADER_ROOM = 8192;

function run(input: WorkerInput, tell: (message: WorkerMessage) => void): void {
  const shared = control(input.shared);
  takeOwnUmask();
  const request = allocate(WRITE_BYTES_MAX + HEADER_ROOM, addressOf);
  const session = new Session({
    host: new PosixFs(input.rootFd),
    layout: linuxLayout,
    policy: input.policy,
    clock: systemClock,
    addressOf,
    backing: {
      open: (fd) => openBacking(input.fuseFd, fd),
      close: (id) => closeBacking(input.fuseFd, id),
    },
    uid: process.geteuid?.() ?? 0,
    gid: process.getegid?.() ?? 0,
    request,
    counts: shared.counts,
    onBug: (error, operation) => tell({ kind: 'bug', operation, error: errorMessage(error) }),
  });
  try {
    const failure = serve({
      fd: input.fuseFd,
      session,
      clock: systemClock,
      request,
      reply: allocate(WRITE_BYTES_MAX + HEADER_ROOM, addressOf),
      stopped: shared.stopped,
      onStart: () => tell({ kind: 'started' }),
    });
    if (failure !== undefined) tell({ kind: 'failed', errno: -failure });
  } finally {
    session.close();
    shared.close();
    closeFd(input.fuseFd);
    close(input.rootFd);
  }
}

const port = parentPort;
if (port !== null) run(workerData as WorkerInput, (message) => port.postMessage(message));
