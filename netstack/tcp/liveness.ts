/** Whether the peer is still there: keep-alive probes (RFC 9293 section 3.8.4), the user time-out (section 3.8.3, RFC 5482). */
import type { TcpConfig } from './config.ts';

export class Liveness {
  readonly #config: TcpConfig;
  /** Since when the peer does not answer; NaN: it does. */
  #silentSinceMs: number = Number.NaN;
  #probes = 0;
  /** When to ask an idle peer, or Infinity. */
  keepAliveAtMs: number = Number.POSITIVE_INFINITY;

  constructor(config: TcpConfig) {
    this.#config = config;
  }

  /** A segment that can only be the peer's has come. */
  heard(now: number): void {
    this.#silentSinceMs = Number.NaN;
    this.#probes = 0;
    if (this.#config.keepAliveMs > 0) this.keepAliveAtMs = now + this.#config.keepAliveMs;
  }

  /** A timer went off because an answer is missing. True when it has been missing for the user time-out. */
  tooLongSilent(now: number): boolean {
    if (Number.isNaN(this.#silentSinceMs)) this.#silentSinceMs = now;
    return now - this.#silentSinceMs >= this.#config.userTimeoutMs;
  }

  /** What an idle peer is due: nothing yet, a probe, or no more of them. `isAsked`: another timer asks the same question. */
  due(now: number, isAsked: boolean): 'nothing' | 'ask' | 'give-up' {
    if (now < this.keepAliveAtMs) return 'nothing';
    if (isAsked) {
      this.#postpone(now);
      return 'nothing';
    }
    return this.#probes >= this.#config.keepAliveProbes ? 'give-up' : 'ask';
  }

  probed(now: number): void {
    this.#probes++;
    this.#postpone(now);
  }

  #postpone(now: number): void {
    this.keepAliveAtMs = now + this.#config.keepAliveIntervalMs;
  }

  stop(): void {
    this.keepAliveAtMs = Number.POSITIVE_INFINITY;
  }
}
