/**
 * One blocking wait for everything that a network's thread attends to. Descriptors come and go while a batch of events is
 * dispatched, and the kernel gives a closed number to the next socket at once; so every registration has a tag, and an
 * event that was collected for an earlier holder of the number is dropped.
 *
 * To fall asleep and be woken takes longer than most answers take to come: it looks for them for a moment before it sleeps,
 * as long as that pays (common/alertness.ts).
 */
import { ALERT_MS_MAX, Alertness } from '#common/alertness';
import { Epoll } from '#common/native/epoll';
import type { Readiness } from '#common/native/readiness';

/** Most events that one wait brings. */
const EVENTS_MAX = 256;
/** Most things read from one descriptor in one turn, so that a busy one cannot starve the others. */
const BURST_MAX = 64;

/**
 * How many things to read from a level-triggered descriptor before the kernel must be asked whether there are more. To read
 * on until it says no costs one call in vain each time; where one thing comes at a time, as in a conversation, that is every
 * second call. So as many are read as came last time, and more if that was all that were asked for: of several at once, and of one at a
 * time when the very next look finds another.
 */
export class Burst {
  readonly #poller: Poller;
  #expected = 1;
  /** The turn in which all that was expected came; -1 when it did not, last time. */
  #metAt = -1;

  constructor(poller: Poller) {
    this.#poller = poller;
  }

  /** How many to read now. */
  expected(): number {
    const met = this.#metAt >= 0 && (this.#expected > 1 || this.#metAt === this.#poller.turn - 1);
    if (met) this.#expected = Math.min(BURST_MAX, this.#expected * 2);
    return this.#expected;
  }

  /** That many came; fewer than were expected: there are no more. */
  came(count: number): void {
    this.#metAt = count < this.#expected ? -1 : this.#poller.turn;
    if (count < this.#expected) this.#expected = Math.max(1, count);
  }
}

/** Called with the EPOLL* bits. */
export type EventHandler = (mask: number) => void;

interface Registration {
  tag: number;
  events: number;
  handler: EventHandler;
}

/** Watches descriptors and dispatches their events. */
export class Poller {
  readonly #readiness: Readiness;
  readonly #registrations: (Registration | undefined)[] = [];
  #nextTag = 1;
  #count = 0;
  #turn = 0;
  readonly #alertness: Alertness;
  #deferred: (() => void)[] = [];
  #resting: { fd: number; registration: Registration; until: number }[] = [];

  /**
   * @param readiness how the kernel is asked: epoll, or what stands in for it.
   * @param alertMsMax for how long at most it looks before it sleeps.
   */
  constructor(readiness: Readiness = new Epoll(EVENTS_MAX), alertMsMax: number = ALERT_MS_MAX) {
    this.#readiness = readiness;
    this.#alertness = new Alertness(alertMsMax);
  }

  /** @throws SyscallError */
  watch(fd: number, events: number, handler: EventHandler): void {
    const tag = this.#nextTag;
    this.#nextTag = (tag + 1) >>> 0;
    this.#readiness.add(fd, events, tag);
    this.#registrations[fd] = { tag, events, handler };
  }

  /** How many waits there have been. */
  get turn(): number {
    return this.#turn;
  }

  /** Changes the events of a watched descriptor. @throws SyscallError */
  modify(fd: number, events: number): void {
    const registration = this.#registrations[fd];
    if (!registration) return;
    registration.events = events;
    this.#readiness.modify(fd, events, registration.tag);
  }

  /**
   * Does not look at a watched descriptor for a while: at a listener when no descriptor is left to accept with, of which the
   * kernel would tell without end.
   */
  rest(fd: number, restMs: number): void {
    const registration = this.#registrations[fd];
    if (!registration) return;
    this.#readiness.modify(fd, 0, registration.tag);
    this.#resting.push({ fd, registration, until: performance.now() + restMs });
  }

  /** Call before closing a descriptor that has no duplicate: the kernel then stops watching by itself. */
  forget(fd: number): void {
    this.#registrations[fd] = undefined;
  }

  /** Stops watching a descriptor that stays open. */
  unwatch(fd: number): void {
    if (!this.#registrations[fd]) return;
    this.#registrations[fd] = undefined;
    this.#readiness.remove(fd);
  }

  /** Runs `action` after the events of this turn or the next: for what must not happen within the present call. */
  defer(action: () => void): void {
    this.#deferred.push(action);
  }

  /** Waits up to `timeoutMs` for events, and not at all when something was deferred. @throws SyscallError */
  wait(timeoutMs: number): void {
    if (!this.look()) this.sleep(timeoutMs);
  }

  /** True when there is something to dispatch already. @throws SyscallError */
  look(): boolean {
    this.#turn++;
    this.#count = this.#readiness.wait(0);
    return this.#count > 0 || this.#deferred.length > 0;
  }

  /** Waits up to `timeoutMs` for events after a look in vain. @throws SyscallError */
  sleep(timeoutMs: number): void {
    if (timeoutMs <= 0) return;
    const sinceMs = performance.now();
    let elapsedMs = 0;
    while (this.#count === 0 && elapsedMs < this.#alertness.ms) {
      this.#count = this.#readiness.wait(0);
      elapsedMs = performance.now() - sinceMs;
    }
    if (this.#count === 0) {
      this.#count = this.#readiness.wait(timeoutMs);
      elapsedMs = performance.now() - sinceMs;
    }
    this.#alertness.waited(elapsedMs);
  }

  /** Hands out what the last wait brought, and does what was deferred. */
  dispatch(): void {
    for (let i = 0; i < this.#count; i++) {
      const registration = this.#registrations[this.#readiness.eventFd(i)];
      if (registration?.tag === this.#readiness.eventTag(i))
        registration.handler(this.#readiness.eventMask(i));
    }
    this.#count = 0;
    if (this.#resting.length > 0) this.#wake(performance.now());
    if (this.#deferred.length === 0) return;
    const actions = this.#deferred;
    this.#deferred = [];
    for (const action of actions) action();
  }

  /** Looks again at what has rested; what was closed meanwhile, and its number given to another, is left alone. */
  #wake(now: number): void {
    this.#resting = this.#resting.filter(({ fd, registration, until }) => {
      if (this.#registrations[fd] !== registration) return false;
      if (now < until) return true;
      this.#readiness.modify(fd, registration.events, registration.tag);
      return false;
    });
  }

  close(): void {
    this.#readiness.close();
  }
}
