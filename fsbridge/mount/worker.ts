/**
 * The server thread of one mount. It gets the device and the root already open, serves until the file system is
 * unmounted or it is told to stop, and frees everything. It never returns to its event loop in between.
 */
import { writeSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { ALERT_MS_MAX } from '#common/alertness';
import { systemClock } from '#common/clock';
import { errorMessage } from '#common/errors';
import { threadId } from '#common/native/fanotify';
import { close, takeOwnUmask } from '#common/native/fs';
import { closeBacking, closeFd, openBacking } from '#common/native/fuse';
import { addressOf } from '#common/native/libc';
import { Jobs } from '../aside/jobs.ts';
import { PosixFs } from '../backing/posix-linux.ts';
import { serve } from '../channel/fd-linux.ts';
import { allocate } from '../memory.ts';
import { parseEvents } from '../notify/events.ts';
import { Exchange } from '../notify/exchange.ts';
import { Notifier } from '../notify/notifier.ts';
import { FanotifyWatch } from '../notify/watch-linux.ts';
import { WRITE_BYTES_MAX } from '../ops/init.ts';
import type { Policy } from '../policy/options.ts';
import { type OnRequest, Session } from '../session.ts';
import { traceLine } from '../trace.ts';
import { linuxLayout } from '../wire/layout-linux.ts';
import { control } from './control.ts';

/** What the owner gives. */
export interface WorkerInput {
  fuseFd: number;
  rootFd: number;
  shared: SharedArrayBuffer;
  policy: Policy;
  /** Where each request is written, -1 for nowhere. The thread closes it. */
  traceFd: number;
  /** Where calls that may take long are left (aside/jobs.ts). */
  jobs: SharedArrayBuffer;
  /** For events of the host, where they can be had. */
  watch: { fd: number; shared: SharedArrayBuffer } | undefined;
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
  const jobs = new Jobs(input.jobs);
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
    aside: { put: (call, unique, ...operands) => jobs.put(input.fuseFd, call, unique, ...operands) },
    uid: process.geteuid?.() ?? 0,
    gid: process.getegid?.() ?? 0,
    request,
    statistics: shared.statistics,
    onBug: (error, operation) => tell({ kind: 'bug', operation, error: errorMessage(error) }),
    ...(input.traceFd >= 0 && { onRequest: tracer(input.traceFd, tell) }),
  });
  if (input.watch !== undefined) listen(session, input.watch);
  try {
    const failure = serve({
      fd: input.fuseFd,
      session,
      clock: systemClock,
      request,
      reply: allocate(WRITE_BYTES_MAX + HEADER_ROOM, addressOf),
      alertMsMax: ALERT_MS_MAX,
      stopped: shared.stopped,
      onStart: () => tell({ kind: 'started' }),
    });
    if (failure !== undefined) tell({ kind: 'failed', errno: -failure });
  } finally {
    jobs.drain(input.fuseFd);
    session.close();
    shared.close();
    closeFd(input.fuseFd);
    close(input.rootFd);
    // Not closeSync: Node warns of a number that another thread opened.
    if (input.traceFd >= 0) close(input.traceFd);
  }
}

/** Writes each request to `fd`; after a failure, such as a full disk, no more. */
function tracer(fd: number, tell: (message: WorkerMessage) => void): OnRequest {
  let broken = false;
  return (request, path, result, elapsedMs) => {
    if (broken) return;
    try {
      writeSync(fd, traceLine(request, path, result, elapsedMs, systemClock.wallMs()));
    } catch (error) {
      broken = true;
      tell({ kind: 'bug', operation: 'trace', error: errorMessage(error) });
    }
  };
}

/** Makes the session work with the watching thread. */
function listen(session: Session, watch: { fd: number; shared: SharedArrayBuffer }): void {
  const exchange = new Exchange(watch.shared);
  exchange.serverTid = threadId();
  const turn = (): void => {
    const events = exchange.takeEvents();
    if (events !== undefined) exchange.putActions(notifier.plan(parseEvents(events)));
  };
  const notifier = new Notifier(session.server, new FanotifyWatch(watch.fd), () => exchange.watcherTid, turn);
  session.server.watched(notifier);
}

const port = parentPort;
if (port !== null) run(workerData as WorkerInput, (message) => port.postMessage(message));
