/** Locks: GETLK, SETLK, SETLKW, INTERRUPT (struct fuse_lk_in, and node/locks.ts for how they hold). */
import { F_UNLCK, type RangeLock } from '../backing/host-fs.ts';
import type { Memory } from '../memory.ts';
import * as E from '../wire/errno.ts';
import { IN_HEADER_BYTES, type Request } from '../wire/request.ts';
import { putUint64 } from '../wire/stat.ts';
import { BODY, NO_REPLY, type Server } from './server.ts';

/** Offsets in struct fuse_lk_in. */
const OWNER = 8;
const START = 16;
const END = 24;
const TYPE = 32;
const PID = 36;
const FLAGS = 40;

const LK_FLOCK = 1;
/** OFFSET_MAX, the end of a lock without one, as two words. */
const END_LOW = 0xffffffff;
const END_HIGH = 0x7fffffff;

/** The lock owner at `offset`: 64 bits without order, as a key. */
export function ownerKey(request: Request, offset: number): string {
  const at = (IN_HEADER_BYTES + offset) >> 2;
  return `${request.words[at + 1]}:${request.words[at]}`;
}

function decodeLock(request: Request): RangeLock | undefined {
  const start = request.u64(START);
  const last = request.u64(END);
  const type = request.u32(TYPE);
  if (start > Number.MAX_SAFE_INTEGER || type > F_UNLCK || last < start) return undefined;
  return { type, start, length: last > Number.MAX_SAFE_INTEGER ? 0 : last - start + 1, pid: 0 };
}

export function getlk(server: Server, request: Request, reply: Memory): number {
  const handle = server.handles.get(request.u64(0));
  if (handle === undefined) return -E.EBADF;
  const lock = decodeLock(request);
  if (lock === undefined) return -E.EINVAL;
  const result = server.locks.testRange(handle, ownerKey(request, OWNER), lock);
  if (result < 0) return result;
  const words = reply.words;
  putUint64(words, BODY, lock.start);
  if (lock.length === 0) {
    words[BODY + 2] = END_LOW;
    words[BODY + 3] = END_HIGH;
  } else putUint64(words, BODY + 2, lock.start + lock.length - 1);
  words[BODY + 4] = lock.type;
  words[BODY + 5] = lock.pid;
  return 24;
}

/** One try of the request's lock, for now or for later. */
function attempt(server: Server, request: Request): (() => number) | number {
  const handle = server.handles.get(request.u64(0));
  if (handle === undefined) return -E.EBADF;
  if ((request.u32(FLAGS) & LK_FLOCK) !== 0) {
    const type = request.u32(TYPE);
    return type > F_UNLCK ? -E.EINVAL : () => server.locks.lockFile(handle, type);
  }
  const lock = decodeLock(request);
  if (lock === undefined) return -E.EINVAL;
  const key = ownerKey(request, OWNER);
  const pid = request.u32(PID);
  return () => server.locks.lockRange(handle, key, pid, lock);
}

export function setlk(server: Server, request: Request): number {
  const lock = attempt(server, request);
  return typeof lock === 'number' ? lock : lock();
}

export function setlkw(server: Server, request: Request): number {
  const lock = attempt(server, request);
  if (typeof lock === 'number') return lock;
  const result = lock();
  if (result !== -E.EAGAIN) return result;
  const handle = server.handles.get(request.u64(0))!;
  return server.locks.wait(request.unique, handle, lock) ?? NO_REPLY;
}

/** The number of the request to interrupt; all but waiting locks are answered already. It gets no reply of its own. */
export function interrupt(server: Server, request: Request): number {
  const unique = request.u64(0);
  const answer = server.locks.cancel(unique);
  if (answer !== undefined) server.answers.push({ unique, result: answer });
  return NO_REPLY;
}
