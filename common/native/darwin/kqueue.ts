/**
 * kqueue(2) in epoll's terms. Each direction of a descriptor is a filter of its own there, so what epoll tells with one event comes as
 * two. Nothing here has run on a Mac: numbers and layouts are those of abi.ts, which are held against Apple's headers.
 */
import { SyscallError } from '../../errors.ts';
import { errnoName, type NativeFunction } from '../libc.ts';
import { NativeMemory } from '../memory.ts';
import { EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP, type Readiness } from '../readiness.ts';
import { CONSTANTS, STRUCTS } from './abi.ts';
import { type DarwinLibrary, systemLibrary } from './library.ts';

const { EVFILT_READ, EVFILT_WRITE, EV_ADD, EV_DELETE, EV_CLEAR, EV_ERROR, EV_EOF } = CONSTANTS['sys/event.h'];
const { EINTR, ENOENT } = CONSTANTS['errno.h'];
const { size: EVENT_LEN, fields: EVENT } = STRUCTS['struct kevent'];
const { size: TIMESPEC_LEN, fields: TIMESPEC } = STRUCTS['struct timespec'];

/** A kqueue. */
export class Kqueue implements Readiness {
  readonly #library: DarwinLibrary;
  readonly #kevent: NativeFunction;
  readonly #fd: number;
  readonly #capacity: number;
  readonly #change = new NativeMemory(EVENT_LEN);
  readonly #events: NativeMemory;
  readonly #timeout = new NativeMemory(TIMESPEC_LEN);

  /** @param capacity most events that one wait returns. @throws SyscallError */
  constructor(capacity: number, library: DarwinLibrary = systemLibrary()) {
    this.#library = library;
    this.#kevent = library.function('kevent');
    this.#capacity = capacity;
    this.#events = new NativeMemory(capacity * EVENT_LEN);
    this.#fd = library.function('kqueue')();
    if (this.#fd < 0) throw this.#failure('kqueue');
  }

  add(fd: number, events: number, tag: number): void {
    const clear = events & EPOLLET ? EV_CLEAR : 0;
    if (events & (EPOLLIN | EPOLLRDHUP)) this.#control(fd, EVFILT_READ, EV_ADD | clear, tag);
    if (events & EPOLLOUT) this.#control(fd, EVFILT_WRITE, EV_ADD | clear, tag);
  }

  modify(fd: number, events: number, tag: number): void {
    if (!(events & (EPOLLIN | EPOLLRDHUP))) this.#control(fd, EVFILT_READ, EV_DELETE, 0);
    if (!(events & EPOLLOUT)) this.#control(fd, EVFILT_WRITE, EV_DELETE, 0);
    this.add(fd, events, tag);
  }

  remove(fd: number): void {
    this.modify(fd, 0, 0);
  }

  #control(fd: number, filter: number, flags: number, tag: number): void {
    const { view: change, bytes } = this.#change;
    change.setBigUint64(EVENT.ident, BigInt(fd), true);
    change.setInt16(EVENT.filter, filter, true);
    change.setUint16(EVENT.flags, flags, true);
    change.setUint32(EVENT.udata, tag, true);
    if (this.#kevent(this.#fd, bytes, 1, null, 0, null) >= 0) return;
    // What was not watched in this direction need not be forgotten.
    if (flags === EV_DELETE && this.#library.errno() === ENOENT) return;
    throw this.#failure('kevent', `fd ${fd}`);
  }

  wait(timeoutMs: number): number {
    const { view: timeout, bytes } = this.#timeout;
    timeout.setBigInt64(TIMESPEC.tv_sec, BigInt(Math.max(0, Math.floor(timeoutMs / 1000))), true);
    timeout.setBigInt64(TIMESPEC.tv_nsec, BigInt(Math.round(Math.max(0, timeoutMs % 1000) * 1e6)), true);
    const limit = timeoutMs < 0 ? null : bytes;
    const count = this.#kevent(this.#fd, null, 0, this.#events.bytes, this.#capacity, limit);
    if (count >= 0) return count;
    if (this.#library.errno() === EINTR) return 0;
    throw this.#failure('kevent');
  }

  eventFd(index: number): number {
    return this.#events.view.getUint32(index * EVENT_LEN + EVENT.ident, true);
  }

  eventTag(index: number): number {
    return this.#events.view.getUint32(index * EVENT_LEN + EVENT.udata, true);
  }

  eventMask(index: number): number {
    const at = index * EVENT_LEN;
    const flags = this.#events.view.getUint16(at + EVENT.flags, true);
    if (flags & EV_ERROR) return EPOLLERR;
    const reading = this.#events.view.getInt16(at + EVENT.filter, true) === EVFILT_READ;
    const mask = reading ? EPOLLIN : EPOLLOUT;
    if (!(flags & EV_EOF)) return mask;
    // At the end of a socket `fflags` is the error that it died of, if any (kqueue(2), EVFILT_READ).
    const failed = this.#events.view.getUint32(at + EVENT.fflags, true) !== 0;
    return mask | (reading ? EPOLLRDHUP : EPOLLHUP) | (failed ? EPOLLERR : 0);
  }

  close(): void {
    this.#library.function('close')(this.#fd);
  }

  #failure(call: string, detail?: string): SyscallError {
    const number = this.#library.errno();
    return new SyscallError(call, errnoName(number), number, detail);
  }
}
