/**
 * The sending half of a connection: a ring of bytes from the host, and when to send which of them.
 *
 * What may be sent is bounded by the peer's window and the congestion window. Losses are found by RACK with a tail loss probe
 * (RFC 8985) when the peer does SACK, and by three duplicate ACKs (RFC 5681, RFC 6582) when it does not; the
 * retransmission timer (RFC 6298) is the last resort. One timer serves them all, and zero-window probes too, since no two are
 * ever needed at once.
 *
 * A payload is always one piece of memory: a super-segment ends before the ring's wrap, and the one segment that lies across
 * it is copied together.
 */
import type { TcpSegment } from '../wire/tcp.ts';
import { TCP_ACK, TCP_FIN, TCP_PSH } from '../wire/tcp.ts';
import { Congestion, type CongestionMark } from './congestion.ts';
import type { TcpContext } from './context.ts';
import { Ring } from './ring.ts';
import { RttEstimator } from './rtt.ts';
import { Scoreboard, type SentSegment } from './scoreboard.ts';
import { seqDiff, seqLe, seqLt } from './sequence.ts';
import type { Region } from './types.ts';

/** Sends one segment with the current acknowledgment; false: the link took nothing. */
export interface SegmentEmitter {
  emit(seq: number, flags: number, buf: Uint8Array, off: number, len: number, gsoBytes: number): boolean;
}

/** What the timer is for. */
type TimerKind = 'retransmit' | 'reorder' | 'probe' | 'persist';

/** RFC 8985 section 7.2: a probe is not sent sooner, whatever the round trip; guests are not scheduled finer. */
const PROBE_MS_MIN = 10;
/** RFC 8985 section 7.2: the peer may delay the ACK of a lone segment this long (TLP.max_ack_delay). */
const PEER_ACK_DELAY_MS = 200;
/** RFC 5681 section 3.2 step 2. */
const DUPLICATE_THRESHOLD = 3;

const NO_BYTES: Uint8Array = new Uint8Array(0);
/** Where a segment across the wrap is put together; its size is that of the largest IP packet. */
const scratch: Uint8Array = new Uint8Array(0x10000);

export class Sender {
  readonly #context: TcpContext;
  readonly #ring: Ring;
  readonly rtt: RttEstimator;
  readonly #board = new Scoreboard();
  readonly #congestion: Congestion;

  /** SND.UNA, SND.NXT. */
  una: number;
  nxt: number;
  /** After the last byte from the host. A FIN has this number. */
  #end: number;
  #finQueued = false;
  /** SND.WND, SND.WL1, SND.WL2, Max(SND.WND). */
  #window = 0;
  #windowSeq = 0;
  #windowAck = 0;
  windowMax = 0;
  #shift = 0;
  #mss: number;
  #superBytes = 0;
  #sack = false;
  #capacity: number;

  /** `recovery` after a detected loss, `loss` after a time-out, until everything sent before is acknowledged. */
  #phase: 'open' | 'recovery' | 'loss' = 'open';
  #recoverSeq = 0;
  /** The first retransmission of a recovery goes out whatever the window says. */
  #forceOne = false;
  #duplicateAcks = 0;
  /** Sending stopped for want of congestion window: only then may it grow (RFC 9438 section 4.1.1). */
  #windowLimited = false;
  readonly #mark: CongestionMark = { cwnd: 0, ssthresh: 0, wMax: 0 };
  /** When the first retransmission of this phase went out, as a timestamp, and what it ends at. */
  #undoStampMs = 0;
  #undoEnd = 0;
  #undoStamped = false;
  #undoPossible = false;
  readonly #stampOffset: number;

  /** When the timer goes off, or Infinity. */
  timerAtMs: number = Number.POSITIVE_INFINITY;
  #timerKind: TimerKind = 'retransmit';
  /** Base of the retransmission timer: last progress, or when the first outstanding segment went out. */
  #rtoBaseMs = 0;
  #lastSentMs = Number.NaN;
  #reorderWaitMs: number = Number.POSITIVE_INFINITY;
  /** End of the data when a tail loss probe went out, until that is resolved. */
  #probeEnd = 0;
  #probeOut = false;
  #probeWasResend = false;
  #probeDue = false;
  #persistDue = false;
  #persistBackoff = 0;
  /** SND.NXT plus one when a zero-window probe has sent a byte ahead of it. */
  #persistEnd: number;
  /** Bytes that a tail loss probe may send beyond the congestion window. */
  #allowance = 0;

  constructor(context: TcpContext, mss: number, isn: number) {
    this.#context = context;
    this.#ring = new Ring(context.pool);
    this.rtt = new RttEstimator(context.config);
    this.#mss = mss;
    this.#congestion = new Congestion(mss);
    this.#capacity = context.config.sendBytesInitial;
    this.una = isn;
    this.nxt = (isn + 1) | 0;
    this.#end = this.nxt;
    this.#persistEnd = this.nxt;
    this.#board.start(this.nxt);
    // RFC 7323 section 7.1: a random offset per connection hides for how long the machine has been up.
    this.#stampOffset = Math.imul(isn, 0x9e3779b1);
  }

  /** Our timestamp clock: milliseconds (RFC 7323 section 5.4). */
  stamp(now: number): number {
    return (Math.floor(now) + this.#stampOffset) | 0;
  }

  /** The handshake is done: our SYN is acknowledged and the options are known. */
  established(now: number, seg: TcpSegment, shift: number, sack: boolean): void {
    this.una = seg.acknowledgment;
    this.#shift = shift;
    this.#sack = sack;
    this.#setWindow(seg, seg.window << (seg.flags & 2 ? 0 : shift));
    this.#rtoBaseMs = now;
    this.#recoverSeq = this.una;
  }

  /** A SYN was sent more than once (RFC 6298 rule 5.7, RFC 5681 section 3.1). */
  handshakeWasLossy(): void {
    this.rtt.handshakeWasLossy();
    this.#congestion.handshakeWasLossy();
  }

  /** Largest payload per segment, and per super-segment (0: the link does not cut). */
  setSegmentSize(mss: number, superBytes: number, fresh: boolean): void {
    const narrower = mss < this.#mss;
    this.#mss = mss;
    this.#superBytes = superBytes;
    this.#congestion.setMss(mss, fresh);
    if (!narrower || fresh) return;
    // RFC 1191 section 6.5: what was too large is sent again at once, and it is no sign of congestion.
    this.#board.markAllLost();
    this.#forceOne = this.#board.lostBytes > 0;
  }

  get mss(): number {
    return this.#mss;
  }

  get cwnd(): number {
    return this.#congestion.cwnd;
  }

  get outstandingBytes(): number {
    return seqDiff(this.nxt, this.una);
  }

  /** Bytes in the buffer, sent or not. */
  get bufferedBytes(): number {
    return seqDiff(this.#end, this.una);
  }

  get finQueued(): boolean {
    return this.#finQueued;
  }

  /** Our FIN has been acknowledged. */
  get finAcknowledged(): boolean {
    return this.#finQueued && this.una === ((this.#end + 1) | 0);
  }

  /** Highest number that the peer may acknowledge. */
  get acknowledgeable(): number {
    return seqLt(this.nxt, this.#persistEnd) ? this.#persistEnd : this.nxt;
  }

  /** RFC 6675's pipe: what is believed to be on the wire. */
  get #pipe(): number {
    let pipe = seqDiff(this.nxt, this.una) - this.#board.sackedBytes - this.#board.lostBytes;
    // Without SACK each duplicate ACK says that one segment has left the wire (RFC 5681 section 3.2 step 4).
    if (!this.#sack) pipe -= this.#duplicateAcks * this.#mss;
    return Math.max(pipe, 0);
  }

  // --- Bytes from the host ---

  /** Free part of the ring. */
  writable(region: Region): Region {
    region.len = 0;
    region.buf = NO_BYTES;
    if (this.#finQueued) return region;
    const used = this.bufferedBytes;
    if (this.#ring.capacity > 0 && used >= this.#ring.capacity) this.#enlarge(used);
    if (used >= this.#capacity || !this.#ring.reserve(this.#capacity, this.una, used)) return region;
    region.buf = this.#ring.block;
    region.off = this.#ring.at(this.#end);
    region.len = this.#ring.contiguous(this.#end, this.#ring.capacity - used);
    return region;
  }

  /** The buffer is full; if it is what limits the throughput, it becomes larger. */
  #enlarge(used: number): void {
    const wanted = Math.min(this.#congestion.cwnd, this.#window);
    if (wanted * 2 <= used || this.#context.pool.scarce) return;
    this.#capacity = Math.min(this.#capacity * 2, this.#context.config.sendBytesMax);
  }

  get hasRoom(): boolean {
    if (this.#finQueued) return false;
    const used = this.bufferedBytes;
    return used <= this.#capacity - (this.#capacity >> 2) || this.#mayEnlarge(used);
  }

  #mayEnlarge(used: number): boolean {
    return (
      this.#capacity < this.#context.config.sendBytesMax &&
      Math.min(this.#congestion.cwnd, this.#window) * 2 > used &&
      !this.#context.pool.scarce
    );
  }

  produced(count: number): void {
    this.#end = (this.#end + count) | 0;
    this.#releaseIfEmpty();
  }

  #releaseIfEmpty(): void {
    if (seqLe(this.#end, this.una)) this.#ring.release();
  }

  finish(): void {
    this.#finQueued = true;
  }

  // --- ACKs from the peer ---

  #setWindow(seg: TcpSegment, window: number): void {
    if (this.#window === 0 && window > 0 && this.#board.lostBytes > 0) {
      // A peer that closed its window over bytes in flight has opened it: no need to sit out a long back-off.
      this.#forceOne = true;
      this.rtt.progress();
    }
    this.#window = window;
    this.#windowSeq = seg.sequence;
    this.#windowAck = seg.acknowledgment;
    if (window > this.windowMax) this.windowMax = window;
  }

  /** Processes the ACK, window and SACK of an acceptable segment (una - windowMax <= SEG.ACK <= acknowledgeable). */
  receiveAck(now: number, seg: TcpSegment, stamps: boolean): void {
    const ack = seg.acknowledgment;
    const board = this.#board;
    const advanced = seqLt(this.una, ack);
    const window = seg.window << this.#shift;
    const duplicate =
      ack === this.una &&
      window === this.#window &&
      seg.payloadOff === seg.payloadEnd &&
      !board.isEmpty &&
      (seg.flags & TCP_FIN) === 0;
    // RFC 9293 section 3.10.7.4: only a newer segment updates the window.
    if (
      seqLe(this.una, ack) &&
      (seqLt(this.#windowSeq, seg.sequence) ||
        (this.#windowSeq === seg.sequence && seqLe(this.#windowAck, ack)))
    )
      this.#setWindow(seg, window);
    if (!advanced && !duplicate && seg.sackCount === 0) return;
    const echoMs = stamps && seg.hasTimestamps ? (seg.timestampEcho - this.#stampOffset) | 0 : undefined;
    board.begin(this.rtt.minMs, echoMs);
    if (advanced) this.#advance(now, ack);
    if (this.#sack) this.#takeSacks(now, seg);
    if (!Number.isNaN(board.rttMs)) this.rtt.sample(now, board.rttMs);
    // RFC 7323 section 4.1: an echo measures even what was sent twice, if coarsely.
    else if (advanced && echoMs !== undefined)
      this.rtt.sample(now, Math.max((Math.floor(now) | 0) - echoMs, 1));
    if (this.#undoPossible && advanced && echoMs !== undefined) this.#undoIfNeedless(echoMs);
    this.#react(now, advanced, duplicate);
    this.#arm(now);
  }

  /** SEG.ACK moves SND.UNA. */
  #advance(now: number, ack: number): void {
    this.#board.acknowledge(now, ack);
    this.una = ack;
    // The byte of a zero-window probe was taken.
    if (seqLt(this.nxt, ack)) this.nxt = ack;
    if (this.#persistBackoff > 0) {
      this.#persistBackoff = 0;
      this.timerAtMs = Number.POSITIVE_INFINITY;
    }
    if (!this.#board.deliveredRetransmit) this.rtt.progress();
    this.#rtoBaseMs = now;
    this.#releaseIfEmpty();
  }

  #takeSacks(now: number, seg: TcpSegment): void {
    const { sack, sackCount } = seg;
    for (let i = 0; i < sackCount; i++) {
      const start = sack[2 * i]!;
      const end = sack[2 * i + 1]!;
      if (i === 0 && this.#isDuplicateReport(seg, start, end)) {
        this.#board.duplicateReported();
        continue;
      }
      // A block outside of what is outstanding is a lie or old.
      if (!seqLe(this.una, start) || !seqLt(start, end) || !seqLe(end, this.nxt)) continue;
      this.#board.sack(now, start, end, this.#mss);
    }
  }

  /** RFC 2883 section 4: the first block is a D-SACK if it is below the ACK, or within the second block. */
  #isDuplicateReport(seg: TcpSegment, start: number, end: number): boolean {
    if (!seqLt(start, end)) return false;
    if (seqLe(end, seg.acknowledgment)) return true;
    return seg.sackCount > 1 && seqLe(seg.sack[2]!, start) && seqLe(end, seg.sack[3]!);
  }

  /** Loss detection, recovery and growth after an ACK. */
  #react(now: number, advanced: boolean, duplicate: boolean): void {
    const board = this.#board;
    const lostBefore = board.lostBytes;
    let delivered = board.deliveredBytes;
    if (this.#sack) {
      this.#reorderWaitMs = board.detect(now, this.#mss, this.rtt.srttMs, this.#phase !== 'open');
    } else delivered = this.#renoAck(advanced, duplicate);
    this.#resolveProbe();
    if (this.#phase !== 'open' && seqLe(this.#recoverSeq, this.una)) this.#endRecovery();
    if (this.#phase === 'open' && board.lostBytes > 0) this.#enterRecovery();
    if (this.#phase === 'recovery') {
      const progress = advanced && board.lostBytes <= lostBefore;
      this.#congestion.recoveryAck(delivered, this.#pipe, progress);
    } else if (this.#windowLimited && board.deliveredBytes > 0) {
      this.#congestion.acknowledged(now, board.deliveredBytes, this.rtt.srttMs);
    }
  }

  /**
   * Without SACK: RFC 5681 section 3.2 and RFC 6582 (NewReno). Returns the bytes that this ACK says have arrived: a segment
   * for a duplicate, and for an advance what duplicates have not told before (RFC 9937 section 6).
   */
  #renoAck(advanced: boolean, duplicate: boolean): number {
    const head = this.#board.head;
    const mss = this.#mss;
    if (advanced) {
      const acked = this.#board.deliveredBytes;
      const told = this.#duplicateAcks;
      // The hole itself was told by no duplicate.
      this.#duplicateAcks = Math.max(told - Math.max(Math.ceil(acked / mss) - 1, 0), 0);
      // RFC 6582 section 3.2: a partial acknowledgment tells of the next hole, which is sent at once.
      const partial = this.#phase === 'recovery' && seqLt(this.una, this.#recoverSeq);
      if (partial && head && !head.retransmitted) {
        this.#loseFirst(head);
        this.#forceOne = true;
      }
      return Math.max(acked - told * mss, 0);
    }
    if (!duplicate || !head) return 0;
    this.#duplicateAcks++;
    // RFC 6582 section 3.2 step 2: duplicates of what was sent again are no news.
    const news = seqLt(this.#recoverSeq, this.una) || !head.retransmitted;
    if (this.#phase === 'open' && this.#duplicateAcks === DUPLICATE_THRESHOLD && news) this.#loseFirst(head);
    return mss;
  }

  /** Marks the first segment of the first record as lost. */
  #loseFirst(head: SentSegment): void {
    if (seqDiff(head.end, head.start) > this.#mss) this.#board.split(head, (head.start + this.#mss) | 0);
    this.#board.markLost(head);
  }

  #enterRecovery(): void {
    this.#phase = 'recovery';
    this.#recoverSeq = this.nxt;
    this.#congestion.save(this.#mark);
    this.#congestion.enterRecovery(this.outstandingBytes);
    this.#forceOne = true;
    this.#undoPossible = true;
    this.#undoStamped = false;
    this.#probeOut = false;
    this.#context.counters.fastRecoveries++;
  }

  #endRecovery(): void {
    if (this.#phase === 'recovery') {
      this.#congestion.exitRecovery();
      this.#board.recoveryEnded();
    }
    this.#phase = 'open';
    this.#undoPossible = false;
    this.#duplicateAcks = 0;
  }

  /**
   * Eifel (RFC 3522, RFC 4015): the ACK that first covers what was sent again echoes a timestamp from before that, so the
   * original had arrived.
   */
  #undoIfNeedless(echoMs: number): void {
    if (!this.#undoStamped || seqLt(this.una, this.#undoEnd)) return;
    this.#undoPossible = false;
    if (!seqLt(echoMs, this.#undoStampMs)) return;
    this.#board.unmarkLost();
    this.#congestion.undo(this.#mark);
    this.#phase = 'open';
    this.#context.counters.spuriousRecoveries++;
  }

  /** RFC 8985 section 7.4: whether a tail loss probe has repaired a loss that nobody else saw. */
  #resolveProbe(): void {
    if (!this.#probeOut || !seqLe(this.#probeEnd, this.una)) return;
    this.#probeOut = false;
    if (!this.#probeWasResend || this.#board.duplicateSeen || this.#phase !== 'open') return;
    this.#congestion.enterRecovery(this.outstandingBytes + this.#mss);
    this.#congestion.exitRecovery();
  }

  // --- The timer ---

  /** The timer has gone off: prepares what the next output sends. */
  expire(now: number): void {
    const kind = this.#timerKind;
    this.timerAtMs = Number.POSITIVE_INFINITY;
    switch (kind) {
      case 'persist':
        this.#persistDue = true;
        return;
      case 'probe':
        this.#probeDue = true;
        return;
      case 'reorder':
        this.#reorderWaitMs = this.#board.detect(now, this.#mss, this.rtt.srttMs, this.#phase !== 'open');
        if (this.#phase === 'open' && this.#board.lostBytes > 0) this.#enterRecovery();
        this.#arm(now);
        return;
      case 'retransmit':
        this.#timeOut(now);
    }
  }

  /** RFC 6298 section 5.4 to 5.6, RFC 5681 section 3.1 (4). */
  #timeOut(now: number): void {
    const board = this.#board;
    const head = board.head;
    if (!head) return;
    this.#context.counters.timeouts++;
    const first = !(this.#phase === 'loss' && head.retransmitted);
    if (this.#phase === 'open') this.#congestion.save(this.#mark);
    this.#congestion.timedOut(this.outstandingBytes, first);
    // RFC 2018 section 8: a SACKed first segment means that the peer has dropped what it had.
    if (head.sacked) board.forgetSacks();
    board.markAllLost();
    this.#undoPossible = first;
    this.#undoStamped = false;
    this.#phase = 'loss';
    this.#recoverSeq = this.nxt;
    this.#forceOne = true;
    this.#duplicateAcks = 0;
    this.#probeOut = false;
    this.#reorderWaitMs = Number.POSITIVE_INFINITY;
    this.rtt.backOff();
    this.#rtoBaseMs = now;
    this.#arm(now);
  }

  /** Sets the timer for what is outstanding. */
  #arm(now: number): void {
    if (this.#board.isEmpty) {
      if (this.#timerKind !== 'persist') this.timerAtMs = Number.POSITIVE_INFINITY;
      return;
    }
    if (this.#reorderWaitMs !== Number.POSITIVE_INFINITY) {
      this.#timerKind = 'reorder';
      this.timerAtMs = now + this.#reorderWaitMs;
      return;
    }
    const rtoAtMs = this.#rtoBaseMs + this.rtt.rtoMs;
    const probeAtMs = this.#probeAt(now);
    this.#timerKind = probeAtMs < rtoAtMs ? 'probe' : 'retransmit';
    this.timerAtMs = Math.min(probeAtMs, rtoAtMs);
  }

  /** RFC 8985 section 7.2: when to probe for a lost tail. */
  #probeAt(now: number): number {
    if (!this.#sack || this.#phase !== 'open' || this.#probeOut || this.#probeDue)
      return Number.POSITIVE_INFINITY;
    if (this.#board.sackedBytes > 0 || this.rtt.srttMs === 0 || this.rtt.backoffs > 0)
      return Number.POSITIVE_INFINITY;
    let delayMs = Math.max(2 * this.rtt.srttMs, PROBE_MS_MIN);
    if (this.outstandingBytes <= this.#mss) delayMs += PEER_ACK_DELAY_MS;
    return now + delayMs;
  }

  // --- Output ---

  /** Sends what windows and timers allow. Returns false when the link took no more. */
  output(now: number, emitter: SegmentEmitter): boolean {
    this.#windowLimited = false;
    if (this.#probeDue && !this.#sendProbe(now, emitter)) return false;
    if (this.#board.lostBytes > 0 && !this.#resendLost(now, emitter)) return false;
    if (this.#hasUnsent() && !this.#sendNew(now, emitter)) return false;
    if (this.#persistDue && !this.#sendPersist(now, emitter)) return false;
    this.#considerPersist(now);
    return true;
  }

  #hasUnsent(): boolean {
    const unsent = seqDiff(this.#end, this.nxt);
    return unsent > 0 || (unsent === 0 && this.#finQueued);
  }

  /** Most payload in one segment or super-segment. */
  get #burstBytes(): number {
    return this.#superBytes >= 2 * this.#mss ? this.#superBytes - (this.#superBytes % this.#mss) : this.#mss;
  }

  #resendLost(now: number, emitter: SegmentEmitter): boolean {
    for (;;) {
      const record = this.#board.firstLost();
      if (!record) return true;
      let len = seqDiff(record.end, record.start);
      const room = this.#congestion.cwnd - this.#pipe;
      if (room < Math.min(len, this.#mss) && !this.#forceOne) {
        this.#windowLimited = true;
        return true;
      }
      const most = this.#forceOne && room < this.#mss ? this.#mss : Math.max(room, 1);
      if (len > most) len = Math.max(most - (most % this.#mss), Math.min(this.#mss, len));
      len = Math.min(len, this.#burstBytes);
      if (!this.#resend(now, emitter, record, len)) return false;
      this.#forceOne = false;
    }
  }

  /** Sends the first `len` numbers of a record again; the rest becomes a record of its own. */
  #resend(now: number, emitter: SegmentEmitter, record: SentSegment, len: number): boolean {
    const start = record.start;
    let payload = Math.min(len, seqDiff(this.#end, start));
    if (payload > 0) payload = this.#together(start, payload);
    let end = (start + payload) | 0;
    const fin = end === this.#end && seqLt(end, record.end);
    if (fin) end = record.end;
    if (seqLt(end, record.end) && !this.#board.split(record, end)) return true;
    const push = payload > 0 && ((start + payload) | 0) === this.#end;
    const flags = TCP_ACK | (fin ? TCP_FIN : 0) | (push ? TCP_PSH : 0);
    if (!this.#emit(emitter, start, flags, payload)) return false;
    if (record === this.#board.head) this.#rtoBaseMs = now;
    if (this.#undoPossible && !this.#undoStamped) {
      this.#undoStamped = true;
      this.#undoStampMs = Math.floor(now) | 0;
      this.#undoEnd = record.end;
    }
    this.#board.resent(record, now);
    this.#context.counters.retransmits++;
    this.#sent(now, seqDiff(end, start));
    return true;
  }

  /** Accounts for something that has just gone out. */
  #sent(now: number, bytes: number): void {
    if (this.#phase === 'recovery') this.#congestion.recoverySent(bytes);
    this.#lastSentMs = now;
    this.#arm(now);
  }

  #sendNew(now: number, emitter: SegmentEmitter): boolean {
    // RFC 5681 section 4.1: after idling, the window is what it was at the start.
    if (this.#board.isEmpty && now - this.#lastSentMs > this.rtt.rtoMs) this.#congestion.restartAfterIdle();
    while (this.#hasUnsent()) {
      const unsent = seqDiff(this.#end, this.nxt);
      const usable = seqDiff((this.una + this.#window) | 0, this.nxt);
      const len = this.#sendable(unsent, usable);
      if (len < 0) return true;
      const fin = this.#finQueued && len === unsent && usable > len;
      if (len === 0 && !fin) return true;
      const flags = TCP_ACK | (fin ? TCP_FIN : 0) | (len === unsent ? TCP_PSH : 0);
      if (!this.#emit(emitter, this.nxt, flags, len)) return false;
      if (this.#board.isEmpty) this.#rtoBaseMs = now;
      const end = (this.nxt + len + (fin ? 1 : 0)) | 0;
      this.#board.push(this.nxt, end, now);
      this.nxt = end;
      this.#sent(now, len);
    }
    return true;
  }

  /** How many of `unsent` bytes make the next segment, when `usable` fit the peer's window; -1: wait. */
  #sendable(unsent: number, usable: number): number {
    if (this.#board.isFull) return -1;
    if (unsent === 0) return 0;
    const mss = this.#mss;
    const room = this.#congestion.cwnd - this.#pipe + this.#allowance;
    let len = Math.min(unsent, usable, this.#burstBytes);
    if (len > room) {
      this.#windowLimited = true;
      if (room < Math.min(len, mss)) return -1;
      len = room;
    }
    if (len <= 0) return -1;
    if (len < unsent && len >= mss) len -= len % mss;
    // Sender's silly window avoidance, RFC 9293 section 3.8.6.2.1.
    if (len < mss && len < unsent && 2 * len < this.windowMax) return -1;
    if (len < mss && this.#context.config.nagle && !this.#board.isEmpty && !this.#finQueued) return -1;
    return this.#together(this.nxt, len);
  }

  /** How many of `len` bytes from `seq` make one piece of memory, without runts: whole segments before the wrap, or one across. */
  #together(seq: number, len: number): number {
    const before = this.#ring.contiguous(seq, len);
    if (before === len) return len;
    return before >= this.#mss ? before - (before % this.#mss) : Math.min(len, this.#mss);
  }

  /** Emits `len` bytes of the ring from `seq`, at most one segment of them across the wrap. */
  #emit(emitter: SegmentEmitter, seq: number, flags: number, len: number): boolean {
    if (len === 0) return emitter.emit(seq, flags, NO_BYTES, 0, 0, 0);
    const gso = len > this.#mss ? this.#mss : 0;
    if (this.#ring.contiguous(seq, len) === len)
      return emitter.emit(seq, flags, this.#ring.block, this.#ring.at(seq), len, gso);
    this.#ring.copyOut(seq, len, scratch);
    return emitter.emit(seq, flags, scratch, 0, len, gso);
  }

  /** RFC 8985 section 7.3: a new segment if there is one, else the last one again. */
  #sendProbe(now: number, emitter: SegmentEmitter): boolean {
    this.#probeDue = false;
    const tail = this.#board.tail;
    if (!tail || this.#phase !== 'open') return true;
    this.#probeOut = true;
    this.#rtoBaseMs = now;
    this.#context.counters.tailLossProbes++;
    const before = this.nxt;
    this.#allowance = this.#mss;
    const sent = this.#sendNew(now, emitter);
    this.#allowance = 0;
    this.#probeWasResend = this.nxt === before;
    this.#probeEnd = this.nxt;
    if (!sent || !this.#probeWasResend) return sent;
    const size = seqDiff(tail.end, tail.start);
    const keep = Math.floor((size - 1) / this.#mss) * this.#mss;
    if (keep > 0 && this.#board.split(tail, (tail.start + keep) | 0))
      return this.#resend(now, emitter, this.#board.tail!, size - keep);
    return this.#resend(now, emitter, tail, Math.min(size, this.#mss));
  }

  /** Nothing is on the wire and the window forbids sending: probe it now and then (RFC 9293 section 3.8.6.1). */
  #considerPersist(now: number): void {
    if (!this.#board.isEmpty) return;
    if (!this.#hasUnsent()) {
      this.timerAtMs = Number.POSITIVE_INFINITY;
      this.#persistBackoff = 0;
      return;
    }
    if (this.#timerKind === 'persist' && this.timerAtMs !== Number.POSITIVE_INFINITY) return;
    this.#timerKind = 'persist';
    const delayMs = this.rtt.rtoMs * 2 ** this.#persistBackoff;
    this.timerAtMs = now + Math.min(delayMs, this.#context.config.rtoMsMax);
  }

  /**
   * Sends what a small window lets through (the override time-out of section 3.8.6.2.1), or one byte beyond a closed one.
   * That byte is not outstanding: only its acknowledgment moves SND.NXT.
   */
  #sendPersist(now: number, emitter: SegmentEmitter): boolean {
    this.#persistDue = false;
    if (!this.#board.isEmpty || !this.#hasUnsent()) return true;
    const unsent = seqDiff(this.#end, this.nxt);
    const usable = seqDiff((this.una + this.#window) | 0, this.nxt);
    this.#context.counters.windowProbes++;
    this.#persistBackoff++;
    if (unsent > 0 && usable > 0) {
      const len = Math.min(unsent, usable, this.#mss);
      if (!this.#emit(emitter, this.nxt, TCP_ACK | TCP_PSH, len)) return false;
      this.#rtoBaseMs = now;
      this.#board.push(this.nxt, (this.nxt + len) | 0, now);
      this.nxt = (this.nxt + len) | 0;
      this.#sent(now, len);
      return true;
    }
    this.#persistEnd = (this.nxt + 1) | 0;
    return this.#emit(emitter, this.nxt, unsent > 0 ? TCP_ACK : TCP_ACK | TCP_FIN, Math.min(unsent, 1));
  }

  /** Gives all memory back. */
  release(): void {
    this.#board.clear();
    this.#ring.release();
    this.una = this.nxt;
    this.#end = this.nxt;
    this.timerAtMs = Number.POSITIVE_INFINITY;
  }
}
