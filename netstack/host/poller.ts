/**
 * One blocking wait for everything that a network's thread attends to. Descriptors come and go while a batch of events is
 * dispatched, and the kernel gives a closed number to the next socket at once; so every registration has a tag, and an
 * event that was collected for an earlier holder of the number is dropped.
 */
import { Epoll } from '#common/native/epoll';

/** Most events that one wait brings. */
const EVENTS_MAX = 256;

/** Called with the EPOLL* bits. */
export type EventHandler = (mask: number) => void;

interface Registration {
  tag: number;
  handler: EventHandler;
}

/** Watches descriptors and dispatches their events. */
export class Poller {
  readonly #epoll: Epoll = new Epoll(EVENTS_MAX);
  readonly #registrations: (Registration | undefined)[] = [];
  #nextTag = 1;
  #count = 0;
  #deferred: (() => void)[] = [];

  /** @throws SyscallError */
  watch(fd: number, events: number, handler: EventHandler): void {
    const tag = this.#nextTag;
    this.#nextTag = (tag + 1) >>> 0;
    this.#epoll.add(fd, events, tag);
    this.#registrations[fd] = { tag, handler };
  }

  /** Changes the events of a watched descriptor. @throws SyscallError */
  modify(fd: number, events: number): void {
    const registration = this.#registrations[fd];
    if (registration) this.#epoll.modify(fd, events, registration.tag);
  }

  /** Call before closing the descriptor. */
  unwatch(fd: number): void {
    if (!this.#registrations[fd]) return;
    this.#registrations[fd] = undefined;
    this.#epoll.remove(fd);
  }

  /** Runs `action` after the events of this turn or the next: for what must not happen within the present call. */
  defer(action: () => void): void {
    this.#deferred.push(action);
  }

  /** Waits up to `timeoutMs` for events, and not at all when something was deferred. @throws SyscallError */
  wait(timeoutMs: number): void {
    this.#count = this.#epoll.wait(this.#deferred.length > 0 ? 0 : timeoutMs);
  }

  /** Hands out what the last wait brought, and does what was deferred. */
  dispatch(): void {
    for (let i = 0; i < this.#count; i++) {
      const registration = this.#registrations[this.#epoll.eventFd(i)];
      if (registration?.tag === this.#epoll.eventTag(i)) registration.handler(this.#epoll.eventMask(i));
    }
    this.#count = 0;
    if (this.#deferred.length === 0) return;
    const actions = this.#deferred;
    this.#deferred = [];
    for (const action of actions) action();
  }

  close(): void {
    this.#epoll.close();
  }
}
