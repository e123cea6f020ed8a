/**
 * Waiting for many descriptors at once, whatever the kernel's way: epoll(7) on Linux, kqueue(2) on Darwin. What is waited for and
 * what has come is told in epoll's bits (Linux include/uapi/linux/eventpoll.h), which can say all that kqueue can.
 */

export const EPOLLIN = 0x1;
export const EPOLLOUT = 0x4;
export const EPOLLERR = 0x8;
export const EPOLLHUP = 0x10;
export const EPOLLRDHUP = 0x2000;
/** Edge-triggered: an event is told once, when it comes about. */
export const EPOLLET: number = 0x80000000;

/** Every descriptor carries a `tag` that comes back with its events. */
export interface Readiness {
  /** Watches `fd` for `events`. `tag` is the caller's, 32 bits; `fd` comes back beside it. @throws SyscallError */
  add(fd: number, events: number, tag: number): void;
  /** Changes what is watched. @throws SyscallError */
  modify(fd: number, events: number, tag: number): void;
  /** Stops watching. Closing the last descriptor of a file does the same. @throws SyscallError */
  remove(fd: number): void;
  /**
   * Waits up to `timeoutMs` (0: only looks; -1: for ever) and returns how many events there are. A signal ends the
   * wait with none. @throws SyscallError
   */
  wait(timeoutMs: number): number;
  /** The descriptor of event `index` of the last wait. */
  eventFd(index: number): number;
  /** The tag of event `index`. */
  eventTag(index: number): number;
  /** The EPOLL* bits of event `index`. */
  eventMask(index: number): number;
  close(): void;
}
