/**
 * The kernel's device as a channel: one thread that reads a request, handles it and writes the reply. Between requests
 * it stays awake for a moment (common/alertness.ts) and then sleeps in poll(2).
 *
 * Nothing here returns to the event loop: a promise or a hop to another thread for each request would cost more than
 * the request. So whoever wants something of this thread sends it a request through the mount (notify/exchange.ts), or
 * cuts the connection.
 */

import { Alertness } from '#common/alertness';
import type { Clock } from '#common/clock';
import { readRequest, waitRequest, writeReply } from '#common/native/fuse';
import type { Memory } from '../memory.ts';
import type { Session } from '../session.ts';
import { EAGAIN, EINTR, ENODEV, ENOENT } from '../wire/errno.ts';

export interface LoopOptions {
  fd: number;
  session: Session;
  clock: Clock;
  request: Memory;
  reply: Memory;
  /** How long at most to stay awake for the next request; 0 with one processor, which a client waits for. */
  alertMsMax: number;
  /** Asked between requests; true ends the loop. */
  stopped: () => boolean;
  /** Called once when the session has started. */
  onStart: () => void;
}

/** Serves until the file system is unmounted (undefined), or until the device fails (its error, negative). */
export function serve(options: LoopOptions): number | undefined {
  const { fd, session, clock, request, reply, stopped } = options;
  const size = request.bytes.length;
  const alertness = new Alertness(options.alertMsMax);
  const send = (length: number): void => {
    // -ENOENT: nobody waits for it any more. Anything else of a kind that matters ends the next read too.
    if (writeReply(fd, reply.address, length) === -ENOENT) session.undeliverable();
  };
  let started = false;
  while (!stopped()) {
    const atMs = session.pollAt();
    if (atMs !== Number.POSITIVE_INFINITY) {
      const now = clock.now();
      if (now < atMs) waitRequest(fd, Math.ceil(atMs - now));
      session.poll(clock.now(), reply, send);
      if (!waitRequest(fd, 0)) continue;
    }
    let count = readRequest(fd, request.address, size);
    if (count === -EAGAIN && atMs === Number.POSITIVE_INFINITY) count = next(options, alertness);
    if (count < 0) {
      if (count === -ENODEV) return undefined;
      // -ENOENT: the request was interrupted before it was read.
      if (count === -EINTR || count === -EAGAIN || count === -ENOENT) continue;
      return count;
    }
    const length = session.handle(request, count, reply);
    if (length > 0) send(length);
    if (!started && session.started) {
      started = true;
      options.onStart();
    }
  }
  return undefined;
}

/** Waits for the next request and reads it: a count, or a negative error, of which -EAGAIN means nothing. */
function next({ fd, clock, request }: LoopOptions, alertness: Alertness): number {
  const sinceMs = clock.now();
  let count = -EAGAIN;
  while (count === -EAGAIN && clock.now() - sinceMs < alertness.ms)
    count = readRequest(fd, request.address, request.bytes.length);
  if (count === -EAGAIN) {
    waitRequest(fd, -1);
    count = readRequest(fd, request.address, request.bytes.length);
  }
  alertness.waited(clock.now() - sinceMs);
  return count;
}
