/**
 * Round-trip time and the retransmission time-out (RFC 6298). Times are in milliseconds with a fraction: on a wire inside one
 * machine a round trip takes tens of microseconds.
 */
import type { TcpConfig } from './config.ts';

/** How long a minimum counts (as in RFC 8985 section 6.1, "a windowed min"). */
const MIN_WINDOW_MS = 300_000;

export class RttEstimator {
  readonly #config: TcpConfig;
  /** Smoothed round-trip time, 0 before the first sample. */
  srttMs = 0;
  #rttvarMs = 0;
  /** Smallest recent sample, Infinity before the first. */
  minMs: number = Number.POSITIVE_INFINITY;
  #minAtMs = Number.NEGATIVE_INFINITY;
  #baseRtoMs: number;
  #backoff = 0;

  constructor(config: TcpConfig) {
    this.#config = config;
    this.#baseRtoMs = config.rtoMsInitial;
  }

  /** The time-out with its back-off. */
  get rtoMs(): number {
    if (this.#backoff === 0) return this.#baseRtoMs;
    return Math.min(this.#baseRtoMs * 2 ** this.#backoff, this.#config.rtoMsMax);
  }

  /** How often the timer has gone off in a row. */
  get backoffs(): number {
    return this.#backoff;
  }

  /** Takes a measurement of something that was sent once only (Karn's algorithm is the caller's). */
  sample(now: number, rttMs: number): void {
    if (rttMs <= this.minMs || now - this.#minAtMs > MIN_WINDOW_MS) {
      this.minMs = rttMs;
      this.#minAtMs = now;
    }
    if (this.srttMs === 0) {
      // RFC 6298 (2.2): SRTT <- R, RTTVAR <- R/2
      this.srttMs = Math.max(rttMs, Number.EPSILON);
      this.#rttvarMs = rttMs / 2;
    } else {
      // RFC 6298 (2.3): beta = 1/4, alpha = 1/8, RTTVAR first.
      this.#rttvarMs += (Math.abs(this.srttMs - rttMs) - this.#rttvarMs) / 4;
      this.srttMs += (rttMs - this.srttMs) / 8;
    }
    // The lower bound is for the variance, as in Linux: so the time-out always outlasts an ACK that is delayed by that much.
    const rto = this.srttMs + Math.max(this.#config.rtoMsMin, 4 * this.#rttvarMs);
    this.#baseRtoMs = Math.min(rto, this.#config.rtoMsMax);
    this.#backoff = 0;
  }

  /** RFC 6298 (5.5): RTO <- RTO * 2. */
  backOff(): void {
    if (this.#baseRtoMs * 2 ** this.#backoff < this.#config.rtoMsMax) this.#backoff++;
  }

  /** New data was acknowledged: the back-off is over even if nothing could be measured. */
  progress(): void {
    this.#backoff = 0;
  }

  /** RFC 6298 (5.7): a SYN was lost, so the first time-out for data is 3 seconds. */
  handshakeWasLossy(): void {
    this.#baseRtoMs = Math.max(this.#baseRtoMs, 3000);
    this.#backoff = 0;
  }
}
