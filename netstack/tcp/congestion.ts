/**
 * Congestion window: slow start and the reactions of RFC 5681, growth by CUBIC (RFC 9438), sending during recovery
 * by proportional rate reduction (RFC 9937), initial window of RFC 6928. Windows are in bytes.
 */

/** RFC 9438 section 5: C in segments per second cubed, and the multiplicative decrease. */
const CUBIC_C = 0.4;
const CUBIC_BETA = 0.7;
/** RFC 9438 section 4.3: additive increase that is fair to Reno with our decrease. */
const RENO_ALPHA: number = (3 * (1 - CUBIC_BETA)) / (1 + CUBIC_BETA);

export class Congestion {
  #mss: number;
  #cwnd: number;
  #ssthresh: number = Number.POSITIVE_INFINITY;
  /** Window before the last reduction, after fast convergence. */
  #wMax = 0;
  #cwndPrior = 0;
  /** Start of the current epoch of congestion avoidance, NaN when none has begun. */
  #epochMs: number = Number.NaN;
  #kSeconds: number = Number.NaN;
  #wOrigin: number = Number.NaN;
  #wReno: number = Number.NaN;
  // Proportional rate reduction.
  #prrDelivered = 0;
  #prrOut = 0;
  #recoverFlight = 0;

  constructor(mss: number) {
    this.#mss = mss;
    this.#cwnd = initialWindow(mss);
  }

  get cwnd(): number {
    return this.#cwnd;
  }

  get ssthresh(): number {
    return this.#ssthresh;
  }

  /** The segment size is known (handshake), or has changed (path MTU); before data is sent the window starts anew. */
  setMss(mss: number, fresh: boolean): void {
    this.#mss = mss;
    if (fresh) this.#cwnd = initialWindow(mss);
    else this.#cwnd = Math.max(this.#cwnd, mss);
  }

  /** RFC 6298 (5.7) and RFC 5681 section 3.1: after a lost SYN the window is one segment. */
  handshakeWasLossy(): void {
    this.#cwnd = this.#mss;
  }

  /** Bytes were delivered while the window was the limit, outside of recovery. */
  acknowledged(now: number, bytes: number, srttMs: number): void {
    let left = bytes;
    if (this.#cwnd < this.#ssthresh) {
      const grown = Math.min(this.#cwnd + left, Math.max(this.#ssthresh, this.#cwnd));
      left -= grown - this.#cwnd;
      this.#cwnd = grown;
    }
    if (left > 0) this.#avoid(now, left, srttMs);
  }

  /** Congestion avoidance, RFC 9438 sections 4.2 to 4.5. */
  #avoid(now: number, bytes: number, srttMs: number): void {
    const mss = this.#mss;
    if (Number.isNaN(this.#epochMs)) {
      this.#epochMs = now;
      this.#wReno = this.#cwnd;
      if (this.#cwnd < this.#wMax) {
        this.#kSeconds = Math.cbrt((this.#wMax - this.#cwnd) / mss / CUBIC_C);
        this.#wOrigin = this.#wMax;
      } else {
        this.#kSeconds = 0;
        this.#wOrigin = this.#cwnd;
      }
    }
    const alpha = this.#wReno < this.#cwndPrior ? RENO_ALPHA : 1;
    this.#wReno += (alpha * mss * bytes) / this.#cwnd;
    const elapsed = (now - this.#epochMs) / 1000;
    const cubicNow = CUBIC_C * (elapsed - this.#kSeconds) ** 3 * mss + this.#wOrigin;
    if (cubicNow < this.#wReno) {
      this.#cwnd = Math.max(this.#cwnd, this.#wReno);
      return;
    }
    const t = elapsed + srttMs / 1000 - this.#kSeconds;
    const wanted = CUBIC_C * t ** 3 * mss + this.#wOrigin;
    const target = Math.min(Math.max(wanted, this.#cwnd), 1.5 * this.#cwnd);
    this.#cwnd += ((target - this.#cwnd) / this.#cwnd) * bytes;
  }

  /** RFC 9438 sections 4.6 and 4.7: the reduction that any sign of congestion brings. */
  #reduce(flight: number): void {
    this.#cwndPrior = this.#cwnd;
    this.#wMax = this.#cwnd < this.#wMax ? (this.#cwnd * (1 + CUBIC_BETA)) / 2 : this.#cwnd;
    this.#ssthresh = Math.max(flight * CUBIC_BETA, 2 * this.#mss);
    this.#epochMs = Number.NaN;
  }

  /** A loss was detected without time-out: recovery begins with `flight` bytes outstanding. */
  enterRecovery(flight: number): void {
    this.#reduce(flight);
    this.#prrDelivered = 0;
    this.#prrOut = 0;
    this.#recoverFlight = Math.max(flight, 1);
  }

  /** RFC 3168 section 6.1.2: a packet was marked instead of dropped. There is nothing to repair. */
  marked(flight: number): void {
    this.#reduce(flight);
    this.#cwnd = Math.max(this.#ssthresh, this.#mss);
  }

  /**
   * RFC 9937 section 6: an ACK in recovery delivered `bytes`; `pipe` is what is believed to be on the wire. `progress`: the
   * cumulative ACK moved and no further loss was seen, so growth as in slow start is safe.
   */
  recoveryAck(bytes: number, pipe: number, progress: boolean): void {
    this.#prrDelivered += bytes;
    let sendable: number;
    if (pipe > this.#ssthresh) {
      sendable = Math.ceil((this.#prrDelivered * this.#ssthresh) / this.#recoverFlight) - this.#prrOut;
    } else {
      let limit = Math.max(this.#prrDelivered - this.#prrOut, bytes);
      if (progress) limit += this.#mss;
      sendable = Math.min(this.#ssthresh - pipe, limit);
    }
    // The first retransmission always goes out.
    if (this.#prrOut === 0) sendable = Math.max(sendable, this.#mss);
    this.#cwnd = pipe + Math.max(sendable, 0);
  }

  /** Bytes were sent in recovery. */
  recoverySent(bytes: number): void {
    this.#prrOut += bytes;
  }

  /** Everything outstanding at the start of recovery is delivered. */
  exitRecovery(): void {
    this.#cwnd = this.#ssthresh;
  }

  /** RFC 5681 (4): a retransmission time-out. `first`: not one more for the same segment. */
  timedOut(flight: number, first: boolean): void {
    if (first) this.#reduce(flight);
    this.#cwnd = this.#mss;
  }

  /** RFC 5681 section 4.1: after an idle time longer than the time-out, the window is the restart window. */
  restartAfterIdle(): void {
    this.#cwnd = Math.min(this.#cwnd, initialWindow(this.#mss));
    this.#epochMs = Number.NaN;
  }

  /** What {@link undo} needs to take a reduction back. */
  save(into: CongestionMark): void {
    into.cwnd = this.#cwnd;
    into.ssthresh = this.#ssthresh;
    into.wMax = this.#wMax;
  }

  /** The reduction was for nothing (RFC 4015): the window of before. */
  undo(mark: CongestionMark): void {
    this.#cwnd = Math.max(this.#cwnd, mark.cwnd);
    this.#ssthresh = mark.ssthresh;
    this.#wMax = mark.wMax;
    this.#epochMs = Number.NaN;
  }
}

/** State before a reduction. */
export interface CongestionMark {
  cwnd: number;
  ssthresh: number;
  wMax: number;
}

/** RFC 6928: min(10 * MSS, max(2 * MSS, 14600)). */
function initialWindow(mss: number): number {
  return Math.min(10 * mss, Math.max(2 * mss, 14_600));
}
