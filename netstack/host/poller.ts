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

  /** Waits up to `timeoutMs` for events. @throws SyscallError */
  wait(timeoutMs: number): void {
    this.#count = this.#epoll.wait(timeoutMs);
  }

  /** Hands out what the last wait brought. */
  dispatch(): void {
    for (let i = 0; i < this.#count; i++) {
      const registration = this.#registrations[this.#epoll.eventFd(i)];
      if (registration?.tag === this.#epoll.eventTag(i)) registration.handler(this.#epoll.eventMask(i));
    }
    this.#count = 0;
  }

  close(): void {
    this.#epoll.close();
  }
}
