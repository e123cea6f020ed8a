/**
 * The sending half of a connection: what of the send buffer goes out when. It is bounded by the peer's window and by the
 * congestion window; what was lost goes before what is new.
 *
 * One timer serves retransmission, reordering, tail loss probes and zero-window probes, since no two are ever needed at
 * once.
 */
import type { TcpSegment } from '../wire/tcp.ts';
import { TCP_ACK, TCP_ECE, TCP_FIN, TCP_PSH, TCP_SYN } from '../wire/tcp.ts';
import type { TcpContext } from './context.ts';
import { BLACK_HOLE_SEGMENT_BYTES, BLACK_HOLE_TIMEOUTS, MSS_BYTES_MIN } from './limits.ts';
import { type AckNews, Recovery } from './recovery.ts';
import type { SentSegment } from './scoreboard.ts';
import { type SegmentEmitter, SendBuffer } from './send-buffer.ts';
import { seqDiff, seqLe, seqLt } from './sequence.ts';
import type { Region } from './types.ts';

/** What the timer is for. */
type TimerKind = 'retransmit' | 'reorder' | 'probe' | 'persist';

/** RFC 8985 section 7.2: a probe is not sent sooner, whatever the round trip; guests are not scheduled finer. */
const PROBE_MS_MIN = 10;
/** RFC 8985 section 7.2: the peer may delay the ACK of a lone segment this long (TLP.max_ack_delay). */
const PEER_ACK_DELAY_MS = 200;

/** What the current ACK says; one record for all connections, since ACKs are processed one after the other. */
const news: AckNews = { advanced: false, duplicate: false, echoMs: undefined };

export class Sender {
  readonly #context: TcpContext;
  readonly #buffer: SendBuffer;
  readonly #recovery: Recovery;

  /** SND.UNA, SND.NXT. */
  una: number;
  nxt: number;
  /** SND.WND, SND.WL1, SND.WL2, Max(SND.WND). */
  #window = 0;
  #windowSeq = 0;
  #windowAck = 0;
  windowMax = 0;
  /** End of the last segment that went out with PSH. */
  #pushed: number;
  #shift = 0;
  #mss: number;
  #superBytes = 0;
  readonly #stampOffset: number;
  /** Both sides do explicit congestion notification. */
  #ecn = false;

  /** When the timer goes off, or Infinity. */
  timerAtMs: number = Number.POSITIVE_INFINITY;
  #timerKind: TimerKind = 'retransmit';
  /** Base of the retransmission timer: last progress, or when the first outstanding segment went out. */
  #rtoBaseMs = 0;
  #lastSentMs: number = Number.NaN;
  #probeDue = false;
  /** Bytes that a tail loss probe may send beyond the congestion window. */
  #allowance = 0;
  #persistDue = false;
  #persistBackoff = 0;
  /** 1 when a zero-window probe has sent the number SND.NXT ahead of time. */
  #persistAhead = 0;

  constructor(context: TcpContext, mss: number, isn: number) {
    this.#context = context;
    this.una = isn;
    this.nxt = (isn + 1) | 0;
    this.#pushed = this.nxt;
    this.#mss = mss;
    this.#buffer = new SendBuffer(context, this.nxt);
    this.#recovery = new Recovery(context, mss, this.nxt);
    // RFC 7323 section 7.1: a random offset per connection hides for how long the machine has been up.
    this.#stampOffset = Math.imul(isn, 0x9e3779b1);
  }

  /** Our timestamp clock: milliseconds (RFC 7323 section 5.4). */
  stamp(now: number): number {
    return (Math.floor(now) + this.#stampOffset) | 0;
  }

  /** The handshake is done: our SYN is acknowledged and the options are known. `rttMs` is NaN if it can't be told. */
  established(now: number, seg: TcpSegment, shift: number, sack: boolean, ecn: boolean, rttMs: number): void {
    this.#ecn = ecn;
    this.una = seg.acknowledgment;
    this.#shift = shift;
    this.#recovery.negotiated(sack);
    this.#setWindow(seg, seg.window << (seg.flags & TCP_SYN ? 0 : shift));
    this.#rtoBaseMs = now;
    if (Number.isNaN(rttMs)) this.#recovery.handshakeWasLossy();
    else this.#recovery.rtt.sample(now, rttMs);
  }

  /** Largest payload per segment, and per super-segment (0: the link does not cut). `fresh`: nothing was sent yet. */
  setSegmentSize(mss: number, superBytes: number, fresh: boolean): void {
    this.#mss = mss;
    this.#superBytes = superBytes;
    this.#recovery.setMss(mss, fresh);
  }

  /** Smoothed round-trip time, 0 before the first measurement. */
  get srttMs(): number {
    return this.#recovery.rtt.srttMs;
  }

  /** Segments that went out more than once. */
  get retransmits(): number {
    return this.#recovery.retransmits;
  }

  get outstandingBytes(): number {
    return seqDiff(this.nxt, this.una);
  }

  get finQueued(): boolean {
    return this.#buffer.finished;
  }

  /** Our FIN has been acknowledged. */
  get finAcknowledged(): boolean {
    return this.#buffer.finished && this.una === ((this.#buffer.end + 1) | 0);
  }

  /** Highest number that the peer may acknowledge. */
  get acknowledgeable(): number {
    return (this.nxt + this.#persistAhead) | 0;
  }

  // --- Bytes from the host ---

  /** What the windows would let out at once. */
  #openBytes(): number {
    return Math.min(this.#recovery.congestion.cwnd, this.#window);
  }

  writable(region: Region): Region {
    return this.#buffer.writable(region, this.una, this.#openBytes());
  }

  get hasRoom(): boolean {
    return this.#buffer.hasRoom(this.una, this.#openBytes());
  }

  produced(count: number): void {
    this.#buffer.produced(count, this.una);
  }

  finish(): void {
    this.#buffer.finished = true;
  }

  // --- ACKs from the peer ---

  #setWindow(seg: TcpSegment, window: number): void {
    if (this.#window === 0 && window > 0) this.#recovery.windowOpened();
    this.#window = window;
    this.#windowSeq = seg.sequence;
    this.#windowAck = seg.acknowledgment;
    if (window > this.windowMax) this.windowMax = window;
  }

  /** Processes the ACK, window and SACK of an acceptable segment (una - windowMax <= SEG.ACK <= acknowledgeable). */
  receiveAck(now: number, seg: TcpSegment, stamps: boolean): void {
    const ack = seg.acknowledgment;
    const recovery = this.#recovery;
    const window = seg.window << this.#shift;
    if (this.#ecn && seg.flags & TCP_ECE) recovery.congestionEchoed(this.una, this.nxt);
    news.advanced = seqLt(this.una, ack);
    news.duplicate =
      ack === this.una &&
      window === this.#window &&
      seg.payloadOff === seg.payloadEnd &&
      !recovery.board.isEmpty &&
      (seg.flags & TCP_FIN) === 0;
    // RFC 9293 section 3.10.7.4: only a newer segment updates the window.
    if (
      seqLe(this.una, ack) &&
      (seqLt(this.#windowSeq, seg.sequence) ||
        (this.#windowSeq === seg.sequence && seqLe(this.#windowAck, ack)))
    )
      this.#setWindow(seg, window);
    if (!news.advanced && !news.duplicate && seg.sackCount === 0) return;
    news.echoMs = stamps && seg.hasTimestamps ? (seg.timestampEcho - this.#stampOffset) | 0 : undefined;
    if (news.advanced) this.#advance(now, ack);
    recovery.receive(now, seg, this.una, this.nxt, news);
    this.#arm(now);
  }

  /** SEG.ACK moves SND.UNA. */
  #advance(now: number, ack: number): void {
    this.una = ack;
    if (seqLt(this.nxt, ack)) {
      // The byte of a zero-window probe was taken.
      this.nxt = ack;
      this.#persistAhead = 0;
    }
    if (this.#persistBackoff > 0) {
      this.#persistBackoff = 0;
      this.timerAtMs = Number.POSITIVE_INFINITY;
    }
    this.#rtoBaseMs = now;
    this.#buffer.acknowledged(ack);
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
        this.#recovery.reorderExpired(now, this.una, this.nxt);
        this.#arm(now);
        return;
      case 'retransmit':
        this.#recovery.timedOut(this.una, this.nxt);
        this.#rtoBaseMs = now;
        this.#arm(now);
    }
  }

  /** Sets the timer for what is outstanding. */
  #arm(now: number): void {
    const recovery = this.#recovery;
    if (recovery.board.isEmpty) {
      if (this.#timerKind !== 'persist') this.timerAtMs = Number.POSITIVE_INFINITY;
      return;
    }
    if (recovery.reorderWaitMs !== Number.POSITIVE_INFINITY) {
      this.#timerKind = 'reorder';
      this.timerAtMs = now + recovery.reorderWaitMs;
      return;
    }
    const rtoAtMs = this.#rtoBaseMs + recovery.rtt.rtoMs;
    const probeAtMs = this.#probeAt(now);
    this.#timerKind = probeAtMs < rtoAtMs ? 'probe' : 'retransmit';
    this.timerAtMs = Math.min(probeAtMs, rtoAtMs);
  }

  /** RFC 8985 section 7.2: when to probe for a lost tail. */
  #probeAt(now: number): number {
    if (this.#probeDue || !this.#recovery.mayProbe) return Number.POSITIVE_INFINITY;
    const delayMs = Math.max(2 * this.srttMs, PROBE_MS_MIN);
    return now + (this.outstandingBytes <= this.#mss ? delayMs + PEER_ACK_DELAY_MS : delayMs);
  }

  // --- Output ---

  /** The next new segment has to carry CWR (RFC 3168 section 6.1.2). */
  get owesReduction(): boolean {
    return this.#ecn && this.#recovery.reductionUntold;
  }

  /** It has gone out. */
  reductionTold(): void {
    this.#recovery.reductionUntold = false;
  }

  /** A segment of this size is new data, which may be marked; not sent again, and no probe of a closed window (RFC 3168 section 6.1.5). */
  isNew(seq: number, len: number): boolean {
    return len > 0 && seq === this.nxt && this.#persistAhead === 0;
  }

  /** Nothing large gets through any more, again and again (RFC 4821 section 7.7, RFC 2923 section 2.1). */
  get isStarved(): boolean {
    const { board, rtt } = this.#recovery;
    const head = board.head;
    if (!head || rtt.backoffs !== BLACK_HOLE_TIMEOUTS) return false;
    return Math.min(seqDiff(head.end, head.start), this.#mss) > BLACK_HOLE_SEGMENT_BYTES;
  }

  /** Sends what windows and timers allow. Returns false when the link took no more. */
  output(now: number, emitter: SegmentEmitter): boolean {
    this.#recovery.windowLimited = false;
    if (this.#probeDue) {
      const sent = this.#sendProbe(now, emitter);
      this.#arm(now);
      if (!sent) return false;
    }
    if (this.#recovery.board.lostBytes > 0 && !this.#resendLost(now, emitter)) return false;
    if (this.#hasUnsent() && !this.#sendNew(now, emitter)) return false;
    if (this.#persistDue && !this.#sendPersist(now, emitter)) return false;
    this.#considerPersist(now);
    return true;
  }

  #hasUnsent(): boolean {
    const unsent = seqDiff(this.#buffer.end, this.nxt);
    return unsent > 0 || (unsent === 0 && this.#buffer.finished);
  }

  /**
   * Most payload in one segment or super-segment. A segment larger than half the peer's window would make it stop and wait: it
   * acknowledges the second.
   */
  #burstBytes(): number {
    const mss = this.#mss;
    if (mss > this.windowMax >> 1) return Math.max(this.windowMax >> 1, Math.min(mss, MSS_BYTES_MIN));
    return this.#superBytes >= 2 * mss ? this.#superBytes - (this.#superBytes % mss) : mss;
  }

  #resendLost(now: number, emitter: SegmentEmitter): boolean {
    const recovery = this.#recovery;
    const mss = this.#mss;
    for (let record = recovery.board.firstLost(); record; record = recovery.board.firstLost()) {
      // A peer that has closed its window over it gets the one segment of a time-out, as a probe (RFC 9293 section 3.8.6.1).
      if (!recovery.forceOne && seqLe((this.una + this.#window) | 0, record.start)) return true;
      let len = seqDiff(record.end, record.start);
      const room = recovery.congestion.cwnd - recovery.pipe(this.outstandingBytes);
      if (room < Math.min(len, mss)) {
        if (!recovery.forceOne) {
          recovery.windowLimited = true;
          return true;
        }
        len = Math.min(len, mss);
      } else if (len > room) len = room - (room % mss);
      if (!this.#resend(now, emitter, record, Math.min(len, this.#burstBytes()))) return false;
      recovery.forceOne = false;
    }
    return true;
  }

  /** Sends the first `len` numbers of a record again; the rest becomes a record of its own. */
  #resend(now: number, emitter: SegmentEmitter, record: SentSegment, len: number): boolean {
    const buffer = this.#buffer;
    const start = record.start;
    let payload = Math.min(len, seqDiff(buffer.end, start));
    if (payload > 0) payload = buffer.together(start, payload, this.#mss);
    let end = (start + payload) | 0;
    const last = end === buffer.end;
    // A FIN has a number of its own.
    const fin = last && seqLt(end, record.end);
    if (fin) end = record.end;
    else if (seqLt(end, record.end)) this.#recovery.board.split(record, end);
    const flags = TCP_ACK | (fin ? TCP_FIN : 0) | (last && payload > 0 ? TCP_PSH : 0);
    if (!buffer.emit(emitter, start, flags, payload, this.#mss)) return false;
    if (record === this.#recovery.board.head) this.#rtoBaseMs = now;
    this.#recovery.resent(now, record);
    this.#sent(now, seqDiff(end, start));
    return true;
  }

  /** Accounts for something that has just gone out. */
  #sent(now: number, bytes: number): void {
    this.#recovery.sent(bytes);
    this.#lastSentMs = now;
    this.#arm(now);
  }

  #sendNew(now: number, emitter: SegmentEmitter): boolean {
    const { board, congestion, rtt } = this.#recovery;
    // RFC 5681 section 4.1: after idling, the window is what it was at the start.
    if (board.isEmpty && now - this.#lastSentMs > rtt.rtoMs) congestion.restartAfterIdle();
    while (this.#hasUnsent()) {
      const unsent = seqDiff(this.#buffer.end, this.nxt);
      const usable = seqDiff((this.una + this.#window) | 0, this.nxt);
      const len = this.#sendable(unsent, usable);
      if (len < 0) return true;
      const fin = this.#buffer.finished && len === unsent && usable > len;
      if (len === 0 && !fin) return true;
      const push = len > 0 && (len === unsent || this.#mustPush(len));
      const flags = TCP_ACK | (fin ? TCP_FIN : 0) | (push ? TCP_PSH : 0);
      if (!this.#emitNew(now, emitter, flags, len)) return false;
    }
    return true;
  }

  /** Half a window without PSH: a kernel delays the ACK of what is not pushed, and we would wait for it. */
  #mustPush(len: number): boolean {
    return seqDiff((this.nxt + len) | 0, this.#pushed) > this.windowMax >> 1;
  }

  #emitNew(now: number, emitter: SegmentEmitter, flags: number, len: number): boolean {
    const { board } = this.#recovery;
    if (!this.#buffer.emit(emitter, this.nxt, flags, len, this.#mss)) return false;
    if (board.isEmpty) this.#rtoBaseMs = now;
    const end = (this.nxt + len + (flags & TCP_FIN ? 1 : 0)) | 0;
    board.push(this.nxt, end, now);
    this.nxt = end;
    if (flags & TCP_PSH) this.#pushed = end;
    this.#persistAhead = 0;
    this.#sent(now, len);
    return true;
  }

  /** How many of `unsent` bytes make the next segment, when `usable` fit the peer's window; -1: wait. */
  #sendable(unsent: number, usable: number): number {
    const recovery = this.#recovery;
    if (recovery.board.isFull) return -1;
    if (unsent === 0) return 0;
    const mss = this.#mss;
    const room = recovery.congestion.cwnd - recovery.pipe(this.outstandingBytes) + this.#allowance;
    // What says that the window was reduced is a segment of its own: where a super-segment is cut, all parts would say so.
    const burst = this.owesReduction ? Math.min(this.#burstBytes(), mss) : this.#burstBytes();
    let len = Math.min(unsent, usable, burst);
    if (len > room) {
      recovery.windowLimited = true;
      if (room < Math.min(len, mss)) return -1;
      len = room;
    }
    if (len <= 0) return -1;
    if (len < unsent && len >= mss) len -= len % mss;
    // Sender's silly window avoidance, RFC 9293 section 3.8.6.2.1.
    if (len < mss && len < unsent && len < this.windowMax >> 1) return -1;
    if (len < mss && this.#mustGather()) return -1;
    return this.#buffer.together(this.nxt, len, mss);
  }

  /** Nagle's algorithm (RFC 9293 section 3.7.4): a small segment waits for the ACK of what is outstanding. */
  #mustGather(): boolean {
    return this.#context.config.nagle && !this.#recovery.board.isEmpty && !this.#buffer.finished;
  }

  /** RFC 8985 section 7.3: a new segment if there is one, else the last one again. */
  #sendProbe(now: number, emitter: SegmentEmitter): boolean {
    this.#probeDue = false;
    const recovery = this.#recovery;
    const tail = recovery.board.tail;
    if (!tail || !recovery.mayProbe) return true;
    this.#rtoBaseMs = now;
    const before = this.nxt;
    this.#allowance = this.#mss;
    const sent = this.#sendNew(now, emitter);
    this.#allowance = 0;
    const resend = this.nxt === before;
    recovery.probeSent(this.nxt, resend);
    if (!sent || !resend) return sent;
    const size = seqDiff(tail.end, tail.start);
    const keep = Math.floor((size - 1) / this.#mss) * this.#mss;
    if (keep > 0) recovery.board.split(tail, (tail.start + keep) | 0);
    return this.#resend(now, emitter, recovery.board.tail!, size - keep);
  }

  /** Nothing is on the wire and the window forbids sending: probe it now and then (RFC 9293 section 3.8.6.1). */
  #considerPersist(now: number): void {
    if (!this.#recovery.board.isEmpty) return;
    if (!this.#hasUnsent()) {
      this.timerAtMs = Number.POSITIVE_INFINITY;
      this.#persistBackoff = 0;
      return;
    }
    if (this.#timerKind === 'persist' && this.timerAtMs !== Number.POSITIVE_INFINITY) return;
    this.#timerKind = 'persist';
    const delayMs = this.#recovery.rtt.rtoMs * 2 ** this.#persistBackoff;
    this.timerAtMs = now + Math.min(delayMs, this.#context.config.rtoMsMax);
  }

  /**
   * Sends what a small window lets through (the override time-out of section 3.8.6.2.1), or one byte beyond a closed one.
   * That byte is not outstanding: only its acknowledgment moves SND.NXT.
   */
  #sendPersist(now: number, emitter: SegmentEmitter): boolean {
    this.#persistDue = false;
    if (!this.#recovery.board.isEmpty || !this.#hasUnsent()) return true;
    const unsent = seqDiff(this.#buffer.end, this.nxt);
    const usable = seqDiff((this.una + this.#window) | 0, this.nxt);
    this.#context.counters.windowProbes++;
    this.#persistBackoff++;
    if (unsent > 0 && usable > 0)
      return this.#emitNew(now, emitter, TCP_ACK | TCP_PSH, Math.min(unsent, usable, this.#mss));
    this.#persistAhead = 1;
    const flags = unsent > 0 ? TCP_ACK : TCP_ACK | TCP_FIN;
    return this.#buffer.emit(emitter, this.nxt, flags, Math.min(unsent, 1), this.#mss);
  }

  /** Gives all memory back. */
  release(): void {
    this.#recovery.board.clear();
    this.#buffer.release();
    this.#buffer.end = this.nxt;
    this.una = this.nxt;
    this.timerAtMs = Number.POSITIVE_INFINITY;
  }
}
