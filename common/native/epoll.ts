/**
 * epoll(7) and eventfd(2): how one thread waits for all of its descriptors at once, and how another wakes it.
 * Linux only; darwin/kqueue.ts is its twin.
 */
import { arch } from 'node:process';
import { cFunction, check, errno } from './libc.ts';
import { NativeMemory } from './memory.ts';
import type { Readiness } from './readiness.ts';

export { EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP } from './readiness.ts';

const epollCreate1 = cFunction('epoll_create1', 'int', ['int']);
const epollCtl = cFunction('epoll_ctl', 'int', ['int', 'int', 'int', 'int64']);
const epollWait = cFunction('epoll_wait', 'int', ['int', 'int64', 'int', 'int']);
const eventfd = cFunction('eventfd', 'int', ['uint', 'int']);
const closeFd = cFunction('close', 'int', ['int']);
const readFd = cFunction('read', 'int', ['int', 'int64', 'size_t']);
const writeFd = cFunction('write', 'int', ['int', 'int64', 'size_t']);

// Linux include/uapi/linux/eventpoll.h
const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;
const EPOLL_CTL_MOD = 3;
const EPOLL_CLOEXEC = 0o2000000;
const EFD_CLOEXEC_NONBLOCK = 0o2004000;
const EINTR = 4;

/** struct epoll_event is packed on x86-64 only (eventpoll.h, EPOLL_PACKED). */
const PACKED = arch === 'x64';
const EVENT_LEN = PACKED ? 12 : 16;
const DATA_OFF = PACKED ? 4 : 8;

/** An epoll instance. */
export class Epoll implements Readiness {
  readonly #fd: number;
  readonly #capacity: number;
  readonly #events: NativeMemory;
  readonly #change: NativeMemory = new NativeMemory(EVENT_LEN);

  /** @param capacity most events that one wait returns. @throws SyscallError */
  constructor(capacity: number) {
    this.#fd = check(epollCreate1(EPOLL_CLOEXEC), 'epoll_create1');
    this.#capacity = capacity;
    this.#events = new NativeMemory(capacity * EVENT_LEN);
  }

  add(fd: number, events: number, tag: number): void {
    this.#control(EPOLL_CTL_ADD, fd, events, tag);
  }

  modify(fd: number, events: number, tag: number): void {
    this.#control(EPOLL_CTL_MOD, fd, events, tag);
  }

  remove(fd: number): void {
    this.#control(EPOLL_CTL_DEL, fd, 0, 0);
  }

  #control(operation: number, fd: number, events: number, tag: number): void {
    const { view, address } = this.#change;
    view.setUint32(0, events, true);
    view.setInt32(DATA_OFF, fd, true);
    view.setUint32(DATA_OFF + 4, tag, true);
    check(epollCtl(this.#fd, operation, fd, address), 'epoll_ctl', `fd ${fd}`);
  }

  wait(timeoutMs: number): number {
    const count = epollWait(this.#fd, this.#events.address, this.#capacity, timeoutMs);
    if (count < 0 && errno() === EINTR) return 0;
    return check(count, 'epoll_wait');
  }

  eventFd(index: number): number {
    return this.#events.view.getInt32(index * EVENT_LEN + DATA_OFF, true);
  }

  eventTag(index: number): number {
    return this.#events.view.getUint32(index * EVENT_LEN + DATA_OFF + 4, true);
  }

  eventMask(index: number): number {
    return this.#events.view.getUint32(index * EVENT_LEN, true);
  }

  close(): void {
    closeFd(this.#fd);
  }
}

const counter = new NativeMemory(8);

/** An eventfd(2): readable once somebody has kicked it. Any thread of the process may kick by its number. */
export function openEventFd(): number {
  return check(eventfd(0, EFD_CLOEXEC_NONBLOCK), 'eventfd');
}

/** Makes an eventfd readable. Never blocks: a full counter is readable already. */
export function kickEventFd(fd: number): void {
  counter.view.setUint32(0, 1, true);
  counter.view.setUint32(4, 0, true);
  writeFd(fd, counter.address, 8);
}

/** Makes an eventfd unreadable again. */
export function clearEventFd(fd: number): void {
  readFd(fd, counter.address, 8);
}

export function closeEventFd(fd: number): void {
  closeFd(fd);
}
