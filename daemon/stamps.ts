/**
 * Times as the Engine API writes them: RFC 3339 with nanoseconds. The wall clock has milliseconds, so things of one
 * millisecond are told apart by counting on: clients resume logs and events by `since`, and would else see one of two twice
 * or never.
 */
import type { Clock } from '#common/clock';

/** Apart by this much: a double, which JSON has, can't tell nanoseconds since the epoch apart by less than 256. */
const STEP_NANO = 1000n;

/** A wall clock that is behind by more was set back: what happens from then on happens then. */
const SET_BACK_NANO = 1_000_000_000n;

/** Strictly growing times, unless the wall clock is set back. */
export class Stamps {
  readonly #clock: Clock;
  #last = 0n;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Nanoseconds since the epoch, never twice the same while the clock goes forward. */
  nano(): bigint {
    const now = BigInt(Math.floor(this.#clock.wallMs())) * 1_000_000n;
    const isSetBack = this.#last - now > SET_BACK_NANO;
    this.#last = now > this.#last || isSetBack ? now : this.#last + STEP_NANO;
    return this.#last;
  }

  /** The same as text. */
  text(): string {
    return nanoToRfc3339(this.nano());
  }
}

/** RFC 3339 with nine digits of fraction. */
export function nanoToRfc3339(nano: bigint): string {
  const ms = Number(nano / 1_000_000n);
  return `${new Date(ms).toISOString().slice(0, -1)}${String(nano % 1_000_000n).padStart(6, '0')}Z`;
}

/** Nanoseconds since the epoch of RFC 3339 with any fraction; 0 for other texts. */
export function rfc3339ToNano(text: string): bigint {
  const match = /^(.*?T\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?(Z|[+-]\d\d:\d\d)$/.exec(text);
  if (!match) return 0n;
  return BigInt(Date.parse(match[1]! + match[3]!)) * 1_000_000n + BigInt((match[2] ?? '').padEnd(9, '0'));
}
