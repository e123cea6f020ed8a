/** What all connections of one stack share: settings, memory, counters, and the budget of challenge ACKs. */
import type { Buffers } from './buffer-pool.ts';
import type { TcpConfig } from './config.ts';
import { CHALLENGE_ACKS_PER_SECOND } from './limits.ts';

/** Counters of a stack's TCP, for metrics. Each only grows. */
export interface TcpCounters {
  segmentsIn: number;
  segmentsOut: number;
  bytesIn: number;
  bytesOut: number;
  /** Segments sent again, for whatever reason. */
  retransmits: number;
  /** Retransmission time-outs. */
  timeouts: number;
  fastRecoveries: number;
  /** Recoveries and time-outs that turned out to be needless and were undone. */
  spuriousRecoveries: number;
  tailLossProbes: number;
  /** Times that connections have slowed down for the peer's echo of a congestion mark. */
  congestionMarksOut: number;
  /** Segments that came with a congestion mark (RFC 3168), which are echoed. */
  congestionMarksIn: number;
  /** Paths taken for black holes: large segments vanish there without an ICMP error. */
  blackHoles: number;
  windowProbes: number;
  keepAliveProbes: number;
  resetsIn: number;
  resetsOut: number;
  challengeAcks: number;
  /** Challenge ACKs not sent because of the limits. */
  challengeAcksSuppressed: number;
  outOfWindow: number;
  pawsDropped: number;
  outOfOrder: number;
  /** Segments dropped at a limit of reassembly or memory. */
  reassemblyDropped: number;
  duplicateBytes: number;
}

export function newTcpCounters(): TcpCounters {
  return {
    segmentsIn: 0,
    segmentsOut: 0,
    bytesIn: 0,
    bytesOut: 0,
    retransmits: 0,
    timeouts: 0,
    fastRecoveries: 0,
    spuriousRecoveries: 0,
    tailLossProbes: 0,
    congestionMarksOut: 0,
    congestionMarksIn: 0,
    blackHoles: 0,
    windowProbes: 0,
    keepAliveProbes: 0,
    resetsIn: 0,
    resetsOut: 0,
    challengeAcks: 0,
    challengeAcksSuppressed: 0,
    outOfWindow: 0,
    pawsDropped: 0,
    outOfOrder: 0,
    reassemblyDropped: 0,
    duplicateBytes: 0,
  };
}

/** RFC 5961 section 10, for a stack and for each of its connections: so many challenge ACKs in each second, and no more. */
export class ChallengeBudget {
  readonly #perSecond: number;
  #secondStartMs = Number.NEGATIVE_INFINITY;
  #left = 0;

  constructor(perSecond: number = CHALLENGE_ACKS_PER_SECOND) {
    this.#perSecond = perSecond;
  }

  /** Takes one from the budget if there is one. */
  take(now: number): boolean {
    if (now - this.#secondStartMs >= 1000) {
      this.#secondStartMs = now;
      this.#left = this.#perSecond;
    }
    if (this.#left === 0) return false;
    this.#left--;
    return true;
  }
}

/** Made once per stack and given to every connection. */
export interface TcpContext {
  config: TcpConfig;
  pool: Buffers;
  counters: TcpCounters;
  challenges: ChallengeBudget;
}
