/**
 * How long a server stays awake for the next request. To wake a sleeping thread on another processor takes the kernel
 * longer than most requests take to handle (some 15 us on a virtual machine, where it is an interrupt between two
 * virtual processors), and a program that works on files, or talks over a network, asks again within that time. A server that
 * looks for the next request for a moment before it sleeps answers such a program twice as fast.
 *
 * It must not cost anything else: the time is short; it is spent only while it is likely to pay, as in the kernel's
 * haltpoll governor, after which this is modelled: a time spent in vain is halved until it is nothing, and nothing
 * becomes the longest time when a request came soon after all.
 */
import { availableParallelism } from 'node:os';

/** Longest time to stay awake: a client wakes, thinks and asks again well within it. A single processor is left to the client. */
export const ALERT_MS_MAX: number = availableParallelism() > 1 ? 0.05 : 0;
const ALERT_MS_MIN = 0.01;

export class Alertness {
  readonly #limitMs: number;
  #ms = 0;

  /** @param limitMs never stay awake longer. */
  constructor(limitMs: number) {
    this.#limitMs = limitMs;
  }

  /** How long to look for a request before sleeping. */
  get ms(): number {
    return this.#ms;
  }

  /** A request came after so long. */
  waited(waitedMs: number): void {
    // To be woken took its share of the wait that a server awake would have had.
    const soon = this.#ms > 0 ? this.#ms : 2 * this.#limitMs;
    if (waitedMs <= soon) this.#ms = this.#limitMs;
    else this.#ms = this.#ms / 2 < ALERT_MS_MIN ? 0 : this.#ms / 2;
  }
}
