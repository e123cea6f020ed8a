/**
 * What ACKs say about the path: how long a round trip takes, what was lost, how much may be on the wire. Losses are found by
 * RACK (RFC 8985) when the peer does SACK, by three duplicate ACKs (RFC 5681, RFC 6582) when it does not, and by the
 * retransmission timer as the last resort; a reduction that a timestamp proves needless is taken back (RFC 4015).
 */
import type { TcpSegment } from '../wire/tcp.ts';
import { Congestion, type CongestionMark } from './congestion.ts';
import type { TcpContext } from './context.ts';
import { RttEstimator } from './rtt.ts';
import { Scoreboard, type SentSegment } from './scoreboard.ts';
import { seqDiff, seqLe, seqLt } from './sequence.ts';

/** RFC 5681 section 3.2 step 2. */
const DUPLICATE_THRESHOLD = 3;

/** An ACK that is worth a look: what the sending half has found out about it. */
export interface AckNews {
  /** It moved SND.UNA. */
  advanced: boolean;
  /** It is a duplicate in the sense of RFC 5681 section 2. */
  duplicate: boolean;
  /** The time of ours that it echoes, as a signed 32-bit integer, or undefined without timestamps. */
  echoMs: number | undefined;
}

export class Recovery {
  readonly #context: TcpContext;
  readonly rtt: RttEstimator;
  readonly board: Scoreboard = new Scoreboard();
  readonly congestion: Congestion;
  #mss: number;
  #sack = false;

  /** `recovery` after a detected loss, `loss` after a time-out, until everything sent before is acknowledged. */
  #phase: 'open' | 'recovery' | 'loss' = 'open';
  #recoverSeq: number;
  /** The first retransmission of a recovery goes out whatever the window says. */
  forceOne = false;
  /** The next new segment tells a peer that does ECN that the window was reduced (RFC 3168 section 6.1.2). */
  reductionUntold = false;
  /** Reductions for congestion marks: once per window, which ends here. */
  #markedSeq: number;
  #duplicateAcks = 0;
  /** Sending stopped for want of congestion window: only then may it grow (RFC 9438 section 4.1.1). */
  windowLimited = false;
  /** Segments of this connection that went out more than once. */
  retransmits = 0;
  /** How long until segments that may just be late are lost, or Infinity. */
  reorderWaitMs: number = Number.POSITIVE_INFINITY;

  readonly #mark: CongestionMark = { cwnd: 0, ssthresh: 0, wMax: 0 };
  /** When the first retransmission of this phase went out, as a timestamp (NaN: none yet), and what it ends at. */
  #undoStampMs: number = Number.NaN;
  #undoEnd = 0;
  #undoPossible = false;

  /** A tail loss probe is out, the end of the data then, and whether it was old data. */
  #probeOut = false;
  #probeEnd = 0;
  #probeWasResend = false;

  constructor(context: TcpContext, mss: number, start: number) {
    this.#context = context;
    this.rtt = new RttEstimator(context.config);
    this.congestion = new Congestion(mss);
    this.#mss = mss;
    this.#recoverSeq = start;
    this.#markedSeq = start;
    this.board.start(start);
  }

  /** Whether the peer does SACK is known. */
  negotiated(sack: boolean): void {
    this.#sack = sack;
  }

  /** A SYN was sent more than once (RFC 6298 rule 5.7, RFC 5681 section 3.1). */
  handshakeWasLossy(): void {
    this.rtt.handshakeWasLossy();
    this.congestion.handshakeWasLossy();
  }

  /**
   * The segment size is another. When it became smaller, what was too large is sent again at once, and that is no sign of
   * congestion (RFC 1191 section 6.5).
   */
  setMss(mss: number, fresh: boolean): void {
    const narrower = mss < this.#mss;
    this.#mss = mss;
    this.congestion.setMss(mss, fresh);
    if (!narrower || fresh) return;
    this.board.markAllLost();
    this.forceOne = this.board.lostBytes > 0;
  }

  /** RFC 6675's pipe: how many of the outstanding bytes are believed to be on the wire. */
  pipe(outstanding: number): number {
    let pipe = outstanding - this.board.sackedBytes - this.board.lostBytes;
    // Without SACK each duplicate ACK says that one segment has left the wire (RFC 5681 section 3.2 step 4).
    if (!this.#sack) pipe -= this.#duplicateAcks * this.#mss;
    return Math.max(pipe, 0);
  }

  /** A tail loss probe would make sense: nothing else is going on (RFC 8985 section 7.2). */
  get mayProbe(): boolean {
    return (
      this.#sack &&
      this.#phase === 'open' &&
      !this.#probeOut &&
      this.board.sackedBytes === 0 &&
      this.rtt.srttMs > 0 &&
      this.rtt.backoffs === 0
    );
  }

  /** The peer echoes a congestion mark (RFC 3168 section 6.1.2): a reduction like for a loss, but once per window. */
  congestionEchoed(una: number, nxt: number): void {
    if (this.#phase !== 'open' || seqLt(una, this.#markedSeq)) return;
    this.#markedSeq = nxt;
    this.congestion.marked(seqDiff(nxt, una));
    this.reductionUntold = true;
    this.#context.counters.congestionMarksOut++;
  }

  // --- ACKs ---

  /** Processes an ACK up to `una`, with `nxt` the next number to send. Its SACK blocks are in `seg`. */
  receive(now: number, seg: TcpSegment, una: number, nxt: number, news: AckNews): void {
    const { board, rtt } = this;
    const { advanced, echoMs } = news;
    board.begin(rtt.minMs, echoMs);
    if (advanced) {
      board.acknowledge(now, una);
      if (!board.deliveredRetransmit) rtt.progress();
    }
    if (this.#sack) this.#takeSacks(now, seg, una, nxt);
    if (!Number.isNaN(board.rttMs)) rtt.sample(now, board.rttMs);
    else if (advanced && echoMs !== undefined) this.#sampleEcho(now, echoMs);
    if (this.#undoPossible && advanced && echoMs !== undefined) this.#undoIfNeedless(una, echoMs);
    this.#react(now, una, nxt, news);
  }

  /** RFC 7323 section 4.1: an echo measures even what was sent twice, if coarsely. One from the blue measures nothing. */
  #sampleEcho(now: number, echoMs: number): void {
    const rttMs = seqDiff(Math.floor(now) | 0, echoMs);
    if (rttMs >= 0 && rttMs <= this.#context.config.rtoMsMax) this.rtt.sample(now, Math.max(rttMs, 1));
  }

  #takeSacks(now: number, seg: TcpSegment, una: number, nxt: number): void {
    const { sack, sackCount } = seg;
    for (let i = 0; i < sackCount; i++) {
      const start = sack[2 * i]!;
      const end = sack[2 * i + 1]!;
      if (i === 0 && isDuplicateReport(seg, start, end)) {
        this.board.duplicateReported();
        continue;
      }
      // A block outside of what is outstanding is a lie or old.
      if (!seqLe(una, start) || !seqLt(start, end) || !seqLe(end, nxt)) continue;
      this.board.sack(now, start, end, this.#mss);
    }
  }

  /** Loss detection, recovery and growth after an ACK. */
  #react(now: number, una: number, nxt: number, news: AckNews): void {
    const { board, congestion } = this;
    const lostBefore = board.lostBytes;
    let delivered = board.deliveredBytes;
    if (this.#sack) this.#detect(now);
    else delivered = this.#renoAck(una, news);
    this.#resolveProbe(una, nxt);
    if (this.#phase !== 'open' && seqLe(this.#recoverSeq, una)) this.#endRecovery();
    if (this.#phase === 'open' && board.lostBytes > 0) this.#enterRecovery(una, nxt);
    if (this.#phase === 'recovery') {
      const progress = news.advanced && board.lostBytes <= lostBefore;
      congestion.recoveryAck(delivered, this.pipe(seqDiff(nxt, una)), progress);
    } else if (this.windowLimited && board.deliveredBytes > 0) {
      congestion.acknowledged(now, board.deliveredBytes, this.rtt.srttMs);
    }
  }

  #detect(now: number): void {
    this.reorderWaitMs = this.board.detect(now, this.#mss, this.rtt.srttMs, this.#phase !== 'open');
  }

  /**
   * Without SACK: RFC 5681 section 3.2 and RFC 6582 (NewReno). Returns the bytes that this ACK says have arrived: a segment
   * for a duplicate, and for an advance what duplicates have not told before (RFC 9937 section 6).
   */
  #renoAck(una: number, news: AckNews): number {
    const head = this.board.head;
    const mss = this.#mss;
    if (news.advanced) {
      const acked = this.board.deliveredBytes;
      const told = this.#duplicateAcks;
      // The hole itself was told by no duplicate.
      this.#duplicateAcks = Math.max(told - Math.max(Math.ceil(acked / mss) - 1, 0), 0);
      // RFC 6582 section 3.2: a partial acknowledgment tells of the next hole, which is sent at once.
      const partial = this.#phase === 'recovery' && seqLt(una, this.#recoverSeq);
      if (partial && head && !head.retransmitted) {
        this.#loseFirst(head);
        this.forceOne = true;
      }
      return Math.max(acked - told * mss, 0);
    }
    if (!news.duplicate || !head) return 0;
    this.#duplicateAcks++;
    // RFC 6582 section 3.2 step 2: duplicates of what was sent again are no news.
    const fresh = seqLt(this.#recoverSeq, una) || !head.retransmitted;
    if (this.#phase === 'open' && this.#duplicateAcks === DUPLICATE_THRESHOLD && fresh) this.#loseFirst(head);
    return mss;
  }

  /** Marks the first segment of the first record as lost. */
  #loseFirst(head: SentSegment): void {
    if (seqDiff(head.end, head.start) > this.#mss) this.board.split(head, (head.start + this.#mss) | 0);
    this.board.markLost(head);
  }

  #enterRecovery(una: number, nxt: number): void {
    this.#phase = 'recovery';
    this.#recoverSeq = nxt;
    this.congestion.save(this.#mark);
    this.congestion.enterRecovery(seqDiff(nxt, una));
    this.forceOne = true;
    this.#undoPossible = true;
    this.#undoStampMs = Number.NaN;
    this.#probeOut = false;
    this.reductionUntold = true;
    this.#context.counters.fastRecoveries++;
  }

  #endRecovery(): void {
    if (this.#phase === 'recovery') {
      this.congestion.exitRecovery();
      this.board.recoveryEnded();
    }
    this.#phase = 'open';
    this.#undoPossible = false;
    this.#duplicateAcks = 0;
  }

  /**
   * Eifel (RFC 3522, RFC 4015): the ACK that first covers what was sent again echoes a timestamp from before that, so the
   * original had arrived.
   */
  #undoIfNeedless(una: number, echoMs: number): void {
    if (Number.isNaN(this.#undoStampMs) || seqLt(una, this.#undoEnd)) return;
    this.#undoPossible = false;
    if (!seqLt(echoMs, this.#undoStampMs)) return;
    this.board.unmarkLost();
    this.congestion.undo(this.#mark);
    this.#phase = 'open';
    this.#context.counters.spuriousRecoveries++;
  }

  // --- Probes, time-outs and retransmissions ---

  /** A tail loss probe has gone out; `end` is the next number to send. */
  probeSent(end: number, wasResend: boolean): void {
    this.#probeOut = true;
    this.#probeEnd = end;
    this.#probeWasResend = wasResend;
    this.#context.counters.tailLossProbes++;
  }

  /** RFC 8985 section 7.4: whether a tail loss probe has repaired a loss that nobody else saw. */
  #resolveProbe(una: number, nxt: number): void {
    if (!this.#probeOut || seqLt(una, this.#probeEnd)) return;
    this.#probeOut = false;
    if (!this.#probeWasResend || this.board.duplicateSeen || this.#phase !== 'open') return;
    this.congestion.enterRecovery(seqDiff(nxt, una) + this.#mss);
    this.congestion.exitRecovery();
  }

  /** The time for mere reordering is over. */
  reorderExpired(now: number, una: number, nxt: number): void {
    this.#detect(now);
    if (this.#phase === 'open' && this.board.lostBytes > 0) this.#enterRecovery(una, nxt);
  }

  /** The retransmission timer has gone off (RFC 6298 section 5.4 to 5.6, RFC 5681 section 3.1 (4)). */
  timedOut(una: number, nxt: number): void {
    const { board } = this;
    const head = board.head;
    if (!head) return;
    this.#context.counters.timeouts++;
    const first = !(this.#phase === 'loss' && head.retransmitted);
    if (this.#phase === 'open') this.congestion.save(this.#mark);
    this.congestion.timedOut(seqDiff(nxt, una), first);
    // RFC 2018 section 8: a SACKed first segment means that the peer has dropped what it had.
    if (head.sacked) board.forgetSacks();
    board.markAllLost();
    this.#undoPossible = first;
    this.#undoStampMs = Number.NaN;
    this.#phase = 'loss';
    this.#recoverSeq = nxt;
    this.forceOne = true;
    this.#duplicateAcks = 0;
    this.#probeOut = false;
    this.reductionUntold = true;
    this.reorderWaitMs = Number.POSITIVE_INFINITY;
    this.rtt.backOff();
  }

  /** A peer that had closed its window over bytes in flight has opened it: no need to sit out a long back-off. */
  windowOpened(): void {
    if (this.board.lostBytes === 0) return;
    this.forceOne = true;
    this.rtt.progress();
  }

  /** `record` has gone out again. */
  resent(now: number, record: SentSegment): void {
    if (this.#undoPossible && Number.isNaN(this.#undoStampMs)) {
      this.#undoStampMs = Math.floor(now) | 0;
      this.#undoEnd = record.end;
    }
    this.board.resent(record, now);
    this.#context.counters.retransmits++;
    this.retransmits++;
  }

  /** Bytes have gone out, new or again. */
  sent(bytes: number): void {
    if (this.#phase === 'recovery') this.congestion.recoverySent(bytes);
  }
}

/** RFC 2883 section 4: the first block is a D-SACK if it is below the ACK, or within the second block. */
function isDuplicateReport(seg: TcpSegment, start: number, end: number): boolean {
  if (!seqLt(start, end)) return false;
  if (seqLe(end, seg.acknowledgment)) return true;
  return seg.sackCount > 1 && seqLe(seg.sack[2]!, start) && seqLe(end, seg.sack[3]!);
}
