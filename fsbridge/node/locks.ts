/**
 * Locks of the container, taken on the host's files, so that they hold against host processes and against other
 * mounts of the same folder.
 *
 * flock(2) locks belong to an open file, and each open file of the container has one descriptor here: they map one to
 * one, and end with it. POSIX record locks belong to a process; the kernel names it by an opaque owner. Each pair of
 * file and owner gets a descriptor of its own with open file description locks (fcntl(2), F_OFD_SETLK), closed when
 * the owner closes any descriptor of the file, as POSIX demands (the kernel tells by FLUSH).
 *
 * A lock that must wait is tried again: at once when the container frees a lock, else after a time that doubles up to
 * a limit, because a host process may hold it. Waiting costs no thread, and an interrupt just takes it off the list.
 */
import type { Clock } from '#common/clock';
import { F_UNLCK, type HostFs, O_RDWR, type RangeLock } from '../backing/host-fs.ts';
import { EACCES, EAGAIN, EINTR, ENOLCK, EROFS, ETXTBSY } from '../wire/errno.ts';
import type { Handle } from './handles.ts';
import type { Node } from './node.ts';

/** Locks that wait at one time, per mount: one thread of the container each. */
export const WAITING_MAX = 4096;
const RETRY_MS_MIN = 1;
const RETRY_MS_MAX = 50;

interface Owner {
  fd: number;
  pid: number;
  /** The open files it asked through. */
  handles: Set<Handle>;
  /** Ranges held, to tell who is in the way. */
  ranges: { start: number; end: number; type: number }[];
}

interface Waiting {
  unique: number;
  handle: Handle;
  attempt: () => number;
}

export class Locks {
  readonly #host: HostFs;
  readonly #clock: Clock;
  readonly #owners = new Map<Node, Map<string, Owner>>();
  #waiting: Waiting[] = [];
  #retryMs = RETRY_MS_MIN;
  #retryAt = Number.POSITIVE_INFINITY;

  constructor(host: HostFs, clock: Clock) {
    this.#host = host;
    this.#clock = clock;
  }

  /** When poll() is due, or Infinity. */
  pollAt(): number {
    return this.#retryAt;
  }

  /** Tries the waiting locks again and reports those that have an answer. */
  poll(now: number, answer: (unique: number, result: number) => void): void {
    if (now < this.#retryAt) return;
    const still: Waiting[] = [];
    for (const waiting of this.#waiting) {
      const result = waiting.attempt();
      if (result === -EAGAIN) still.push(waiting);
      else answer(waiting.unique, result);
    }
    this.#waiting = still;
    this.#retryMs = Math.min(this.#retryMs * 2, RETRY_MS_MAX);
    this.#retryAt = still.length > 0 ? now + this.#retryMs : Number.POSITIVE_INFINITY;
  }

  /** Waits with `attempt` until it isn't refused; undefined if it waits, else the error. */
  wait(unique: number, handle: Handle, attempt: () => number): number | undefined {
    if (this.#waiting.length >= WAITING_MAX) return -ENOLCK;
    this.#waiting.push({ unique, handle, attempt });
    this.#retrySoon();
    return undefined;
  }

  /** Ends the wait of a request; its answer, or undefined if it doesn't wait. */
  cancel(unique: number): number | undefined {
    const at = this.#waiting.findIndex((waiting) => waiting.unique === unique);
    if (at < 0) return undefined;
    this.#waiting.splice(at, 1);
    if (this.#waiting.length === 0) this.#retryAt = Number.POSITIVE_INFINITY;
    return -EINTR;
  }

  /** Takes or frees the lock of an open file. */
  lockFile(handle: Handle, type: number): number {
    const result = this.#host.lockFile(handle.fd, type);
    if (type === F_UNLCK) this.#retrySoon();
    return result;
  }

  /** Takes or frees a range for an owner; `pid` is told to those it keeps out. */
  lockRange(handle: Handle, ownerKey: string, pid: number, lock: RangeLock): number {
    if (lock.type === F_UNLCK && this.#owners.get(handle.node)?.get(ownerKey) === undefined) return 0;
    const owner = this.#owner(handle, ownerKey);
    if (typeof owner === 'number') return owner;
    const result = this.#host.lockRange(owner.fd, lock);
    if (result === 0) {
      owner.pid = pid;
      owner.handles.add(handle);
      note(owner, lock);
      if (lock.type !== F_UNLCK) return 0;
      this.#retrySoon();
    }
    if (owner.ranges.length === 0) this.#drop(handle.node, ownerKey, owner);
    return result;
  }

  /** Finds a lock that is in the way of `lock`, and its holder if it is one of ours. */
  testRange(handle: Handle, ownerKey: string, lock: RangeLock): number {
    const owner = this.#owner(handle, ownerKey);
    if (typeof owner === 'number') return owner;
    const result = this.#host.testRange(owner.fd, lock);
    if (result === 0 && lock.type !== F_UNLCK) {
      const end = endOf(lock);
      for (const [key, other] of this.#owners.get(handle.node) ?? []) {
        if (key !== ownerKey && other.ranges.some((range) => range.start < end && lock.start < range.end))
          lock.pid = other.pid;
      }
    }
    if (owner.ranges.length === 0) this.#drop(handle.node, ownerKey, owner);
    return result;
  }

  /** The owner closed a descriptor of the file: its range locks there end. */
  release(node: Node, ownerKey: string): void {
    const owner = this.#owners.get(node)?.get(ownerKey);
    if (owner !== undefined) this.#drop(node, ownerKey, owner);
  }

  /** Whether anybody has a range lock on the file. */
  has(node: Node): boolean {
    return this.#owners.has(node);
  }

  /**
   * The open file is closed: a lock that went with it may let others in, and nothing of it waits. Range locks taken
   * through it end too: the locks of an open file (F_OFD_SETLK) have no other end, for their owner never comes with a
   * FLUSH, and a process has closed a descriptor of the file.
   */
  closed(handle: Handle): void {
    for (const [key, owner] of this.#owners.get(handle.node) ?? [])
      if (owner.handles.has(handle)) this.#drop(handle.node, key, owner);
    if (this.#waiting.length === 0) return;
    this.#waiting = this.#waiting.filter((waiting) => waiting.handle !== handle);
    this.#retrySoon();
  }

  close(): void {
    for (const owners of this.#owners.values())
      for (const owner of owners.values()) this.#host.close(owner.fd);
    this.#owners.clear();
    this.#waiting = [];
  }

  #owner(handle: Handle, key: string): Owner | number {
    let owners = this.#owners.get(handle.node);
    const known = owners?.get(key);
    if (known !== undefined) return known;
    // A read lock needs a readable descriptor and a write lock a writable one, whatever the container opened.
    let fd = this.#host.open(handle.fd, '', O_RDWR);
    if (fd === -EACCES || fd === -EROFS || fd === -ETXTBSY) fd = this.#host.open(handle.fd, '', 0);
    if (fd < 0) return fd;
    const owner: Owner = { fd, pid: 0, handles: new Set(), ranges: [] };
    if (owners === undefined) {
      owners = new Map();
      this.#owners.set(handle.node, owners);
    }
    owners.set(key, owner);
    return owner;
  }

  #drop(node: Node, key: string, owner: Owner): void {
    this.#host.close(owner.fd);
    const owners = this.#owners.get(node);
    owners?.delete(key);
    if (owners?.size === 0) this.#owners.delete(node);
    this.#retrySoon();
  }

  #retrySoon(): void {
    if (this.#waiting.length === 0) return;
    this.#retryMs = RETRY_MS_MIN;
    this.#retryAt = this.#clock.now();
  }
}

function endOf(lock: RangeLock): number {
  return lock.length === 0 ? Number.POSITIVE_INFINITY : lock.start + lock.length;
}

/** Keeps an owner's ranges as the host does: the new one replaces what it covers. */
function note(owner: Owner, lock: RangeLock): void {
  const { start, type } = lock;
  const end = endOf(lock);
  const ranges: Owner['ranges'] = [];
  for (const range of owner.ranges) {
    if (range.start < start) ranges.push({ ...range, end: Math.min(range.end, start) });
    if (range.end > end) ranges.push({ ...range, start: Math.max(range.start, end) });
  }
  if (type !== F_UNLCK) ranges.push({ start, end, type });
  owner.ranges = ranges;
}
