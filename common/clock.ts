/**
 * Time as an argument. Protocol code never asks the operating system what time it is: it is given a {@link Clock}
 * or a `now`, so that a test can run hours in milliseconds and replay them exactly.
 */

/** A timer that was armed; cancelling one that has fired or was cancelled does nothing. */
export interface Timer {
  cancel(): void;
}

/** A source of time. Monotonic time is for durations, wall time for what people and protocols read. */
export interface Clock {
  /** Monotonic time in milliseconds, from an arbitrary start. */
  now(): number;
  /** Milliseconds since the Unix epoch. May jump. */
  wallMs(): number;
  /** Calls `wake` once at or after monotonic time `atMs`. */
  arm(atMs: number, wake: () => void): Timer;
}

/** setTimeout wraps around above this many milliseconds, and would fire at once. */
const TIMEOUT_MS_MAX = 0x7fffffff;

/** The operating system's clock. Its timers do not keep the process alive. */
export const systemClock: Clock = {
  now: () => performance.now(),
  wallMs: () => Date.now(),
  arm(atMs, wake) {
    let handle: NodeJS.Timeout;
    const schedule = (): void => {
      const delayMs = atMs - performance.now();
      handle = setTimeout(
        delayMs > TIMEOUT_MS_MAX ? schedule : wake,
        Math.min(Math.max(0, Math.ceil(delayMs)), TIMEOUT_MS_MAX),
      );
      handle.unref();
    };
    schedule();
    return { cancel: () => clearTimeout(handle) };
  },
};

interface Armed {
  atMs: number;
  order: number;
  wake: () => void;
}

/** A clock that moves only when told to, for tests and simulations. */
export class ManualClock implements Clock {
  #nowMs: number;
  #epochMs: number;
  #order = 0;
  readonly #armed = new Set<Armed>();

  constructor(startMs = 0, epochMs: number = Date.UTC(2026, 0, 1)) {
    this.#nowMs = startMs;
    this.#epochMs = epochMs - startMs;
  }

  now(): number {
    return this.#nowMs;
  }

  wallMs(): number {
    return this.#epochMs + this.#nowMs;
  }

  arm(atMs: number, wake: () => void): Timer {
    const armed: Armed = { atMs, order: this.#order++, wake };
    this.#armed.add(armed);
    return { cancel: () => void this.#armed.delete(armed) };
  }

  /** When the next timer fires, or Infinity. */
  nextAt(): number {
    let next = Number.POSITIVE_INFINITY;
    for (const armed of this.#armed) next = Math.min(next, armed.atMs);
    return next;
  }

  /** Sets the wall clock forward or back, as an administrator or NTP does: no time passes. */
  setWall(wallMs: number): void {
    this.#epochMs = wallMs - this.#nowMs;
  }

  /** Moves time forward by `ms`, firing every timer that falls due, in order of time and then of arming. */
  advance(ms: number): void {
    const endMs = this.#nowMs + ms;
    for (;;) {
      let next: Armed | undefined;
      for (const armed of this.#armed) {
        if (armed.atMs > endMs) continue;
        if (!next || armed.atMs < next.atMs || (armed.atMs === next.atMs && armed.order < next.order))
          next = armed;
      }
      if (!next) break;
      this.#armed.delete(next);
      this.#nowMs = Math.max(this.#nowMs, next.atMs);
      next.wake();
    }
    this.#nowMs = endMs;
  }
}
