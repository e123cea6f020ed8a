/**
 * One TCP connection (RFC 9293), from the stack's side: the guest is the peer, and the bytes go to and come from a socket
 * of the host.
 *
 * It is a machine without I/O: segments go in by {@link TcpConnection.receive}, come out by {@link TcpConnection.poll},
 * and {@link TcpConnection.pollAt} says when it next has something to do. It knows ports but no addresses: the stack finds the
 * connection for a segment, writes IP headers and checksums. Nothing is called back except the sink and the taker that are
 * passed in; what has changed is read from the getters after receive() and poll().
 *
 * How the stack drives it:
 * - A guest's SYN makes a connection that stays silent ({@link TcpConnection.listen}) until the host's connect is known: then
 *   {@link TcpConnection.accept}, {@link TcpConnection.refuse} or {@link TcpConnection.discard}.
 * - For a published port, {@link TcpConnection.connect} opens towards the guest.
 * - Each batch of frames: receive() for every segment, then for each touched connection move bytes (readable/consumed,
 *   writable/produced) and poll() once. One poll per batch gives one ACK per batch.
 */
import {
  TCP_ACK,
  TCP_CWR,
  TCP_ECE,
  TCP_FIN,
  TCP_HEADER_LEN,
  TCP_RST,
  TCP_SYN,
  TcpSegment,
} from '../wire/tcp.ts';
import { ChallengeBudget, type TcpContext } from './context.ts';
import { Handshake } from './handshake.ts';
import {
  BLACK_HOLE_RAISE_MS,
  BLACK_HOLE_SEGMENT_BYTES,
  CHALLENGE_ACKS_PER_CONNECTION,
  MSS_BYTES_MIN,
} from './limits.ts';
import { Liveness } from './liveness.ts';
import { PeerStamps } from './peer-stamps.ts';
import { Receiver } from './receiver.ts';
import type { SegmentEmitter } from './send-buffer.ts';
import { Sender } from './sender.ts';
import { seqAdd, seqLt } from './sequence.ts';
import type { ByteTaker, Region, SegmentSink, TcpFailure, TcpPath, TcpState } from './types.ts';

export type { ByteTaker, Region, SegmentSink, TcpFailure, TcpPath, TcpState } from './types.ts';

/** How long to wait when the link took nothing. */
const LINK_RETRY_MS = 1;
/** Bytes of the timestamps option in every segment. */
const STAMPS_LEN = 12;
/** RFC 3168 section 5: ECN-capable transport, and congestion experienced. */
const ECN_CAPABLE = 2;
const ECN_MARKED = 3;

const NO_BYTES: Uint8Array = new Uint8Array(0);
/** The record in which every connection builds what it sends: all calls are synchronous. */
const out: TcpSegment = new TcpSegment();
const region: Region = { buf: NO_BYTES, off: 0, len: 0 };

export class TcpConnection implements SegmentEmitter {
  readonly localPort: number;
  readonly remotePort: number;
  readonly #context: TcpContext;
  #path: TcpPath;
  readonly #tx: Sender;
  readonly #rx: Receiver;
  readonly #handshake: Handshake;
  readonly #stamps = new PeerStamps();
  readonly #liveness: Liveness;
  readonly #challenges = new ChallengeBudget(CHALLENGE_ACKS_PER_CONNECTION);
  #state: TcpState = 'closed';
  #failure: TcpFailure | undefined;
  #now = 0;
  #sink: SegmentSink | undefined;

  /** A RST for this connection, or one for a single segment (with its sequence number), is due. */
  #resetDue = false;
  #strayResetDue = false;
  #strayResetSeq = 0;
  /** Something may have to be sent at once. */
  #dirty = false;
  /** When to try again after the link took nothing, or Infinity. */
  #blockedUntilMs: number = Number.POSITIVE_INFINITY;
  #timeWaitEndMs: number = Number.POSITIVE_INFINITY;
  /** A congestion mark has come, and is echoed until the peer says that it has slowed down (RFC 3168 section 6.1.3). */
  #echoesMark = false;
  /** The path before it was taken for a black hole, and when to try it again. */
  #widePath: TcpPath | undefined;
  #widenAtMs: number = Number.POSITIVE_INFINITY;
  /** The peer's FIN has moved the state. */
  #finHandled = false;

  /** @param isn initial sequence number, from {@link InitialSequence} */
  constructor(context: TcpContext, path: TcpPath, localPort: number, remotePort: number, isn: number) {
    this.#context = context;
    this.#path = path;
    this.localPort = localPort;
    this.remotePort = remotePort;
    this.#handshake = new Handshake(context.config, isn);
    this.#liveness = new Liveness(context.config);
    this.#tx = new Sender(context, path.segmentBytesMax - TCP_HEADER_LEN, isn);
    this.#rx = new Receiver(context);
  }

  get state(): TcpState {
    return this.#state;
  }

  /** Why the connection failed; undefined while it lives and after an orderly end. */
  get failure(): TcpFailure | undefined {
    return this.#failure;
  }

  /** The handshake is done, and the connection not closed. */
  get isOpen(): boolean {
    switch (this.#state) {
      case 'closed':
      case 'pending':
      case 'syn-sent':
      case 'syn-received':
        return false;
      default:
        return true;
    }
  }

  /** Nothing is left: nothing to send, to wait for or to hand over. The stack forgets the connection. */
  get isDead(): boolean {
    return (
      this.#state === 'closed' && !this.#resetDue && !this.#strayResetDue && this.#rx.readableBytes === 0
    );
  }

  /** Segments that were sent again. */
  get retransmits(): number {
    return this.#tx.retransmits;
  }

  /** Smoothed round-trip time, 0 when unknown. */
  get srttMs(): number {
    return this.#tx.srttMs;
  }

  /** Bytes that the host has not taken yet. */
  get readableBytes(): number {
    return this.#rx.readableBytes;
  }

  // --- Opening and closing ---

  /** Passive open: takes a guest's SYN and says nothing yet. Returns false if `seg` is no acceptable SYN. */
  listen(now: number, seg: TcpSegment): boolean {
    if ((seg.flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) !== TCP_SYN) return false;
    this.#now = now;
    this.#takeSyn(now, seg);
    this.#state = 'pending';
    return true;
  }

  /** The host's side is connected: SYN-ACK goes out with the next poll. Only in `pending`. */
  accept(now: number): void {
    if (this.#state !== 'pending') return;
    this.#state = 'syn-received';
    this.#handshake.dueAtMs = now;
    this.#dirty = true;
  }

  /** The host's side refused: RST goes out with the next poll. Only in `pending`. */
  refuse(): void {
    if (this.#state !== 'pending') return;
    this.#fail('aborted');
    this.#resetDue = true;
    this.#dirty = true;
  }

  /** Forgets everything without a word to the peer (the stack answers by ICMP, or the guest is gone). */
  discard(): void {
    this.#fail('aborted');
    this.#resetDue = false;
    this.#strayResetDue = false;
  }

  /** Active open: SYN goes out with the next poll. */
  connect(now: number): void {
    this.#now = now;
    this.#state = 'syn-sent';
    this.#handshake.dueAtMs = now;
    this.#dirty = true;
  }

  /** No more bytes: FIN goes out after those in the buffer. */
  finish(): void {
    if (this.#tx.finQueued || this.#state === 'closed') return;
    this.#tx.finish();
    this.#dirty = true;
    this.#finSideClosed();
  }

  /** CLOSE of RFC 9293 section 3.10.4, once the handshake is done. */
  #finSideClosed(): void {
    if (this.#state === 'established') this.#state = 'fin-wait-1';
    else if (this.#state === 'close-wait') this.#state = 'last-ack';
  }

  /** Ends at once: RST goes out with the next poll, unless the peer knows nothing of us (RFC 9293 section 3.10.5). */
  abort(): void {
    const silent = this.#state === 'closed' || this.#state === 'syn-sent' || this.#state === 'time-wait';
    this.#fail('aborted');
    this.#resetDue = !silent;
    this.#dirty = true;
  }

  #fail(failure: TcpFailure): void {
    if (this.#state !== 'closed') this.#failure = failure;
    // What came before the peer's RST may still be taken, as from a kernel's socket; RFC 9293 would throw it away.
    if (failure === 'reset') this.#rx.forgetGaps();
    else this.#rx.release();
    this.#close();
  }

  /** Nothing more to send or to wait for. Bytes that the host has not taken stay. */
  #close(): void {
    this.#state = 'closed';
    this.#tx.release();
    this.#timeWaitEndMs = Number.POSITIVE_INFINITY;
    this.#liveness.stop();
    this.#handshake.dueAtMs = Number.POSITIVE_INFINITY;
    this.#rx.acknowledged();
  }

  // --- Bytes ---

  /** Received bytes in order, the longest contiguous part; len 0: none. Valid until the next call on any connection. */
  readable(): Region {
    return this.#rx.readable(region);
  }

  /** The host took `count` of them. */
  consumed(count: number): void {
    this.#rx.consumed(this.#now, count);
    if (this.#rx.ackNow) this.#dirty = true;
  }

  /** The peer's FIN has come and every byte before it was consumed: the host's socket may be shut for writing. */
  get endOfStream(): boolean {
    return this.#failure === undefined && this.#rx.finReached && this.#rx.readableBytes === 0;
  }

  /** Room for bytes to send, the longest contiguous part; len 0: none now (full, finished or not open). */
  writable(): Region {
    if (this.isOpen) return this.#tx.writable(region);
    region.len = 0;
    return region;
  }

  /** `count` bytes were written there; 0 gives an unused buffer back. */
  produced(count: number): void {
    this.#tx.produced(count);
    if (count > 0) this.#dirty = true;
  }

  /** There is room worth a read from the host's socket: a good part of the buffer, not a few bytes. */
  get hasRoom(): boolean {
    return this.isOpen && this.#tx.hasRoom;
  }

  /** The largest TCP segment, header included, that the path takes as far as is known. */
  get pathSegmentBytes(): number {
    return this.#path.segmentBytesMax;
  }

  /** The path got narrower (ICMP) or wider. What was too large for it is cut anew and sent again. */
  setPath(path: TcpPath): void {
    this.#usePath(path);
    this.#dirty = true;
  }

  #usePath(path: TcpPath): void {
    this.#widePath = undefined;
    this.#widenAtMs = Number.POSITIVE_INFINITY;
    this.#path = path;
    this.#applyMss(!this.isOpen);
  }

  #applyMss(fresh: boolean): void {
    const options = this.#stamps.inUse ? STAMPS_LEN : 0;
    const mss = Math.min(this.#handshake.peerMss, this.#path.segmentBytesMax - TCP_HEADER_LEN) - options;
    const superBytes = Math.max(this.#path.superSegmentBytesMax - TCP_HEADER_LEN - options, 0);
    this.#tx.setSegmentSize(Math.max(mss, MSS_BYTES_MIN), superBytes, fresh);
  }

  /** RFC 6691: what we say in our MSS option counts neither IP nor TCP options. */
  get #ownMss(): number {
    return Math.min(this.#path.segmentBytesMax - TCP_HEADER_LEN, 0xffff);
  }

  // --- Segments from the peer ---

  /** Processes one segment that belongs to this connection and whose checksum is right. */
  receive(now: number, seg: TcpSegment, taker?: ByteTaker): void {
    this.#now = now;
    this.#dirty = true;
    this.#context.counters.segmentsIn++;
    switch (this.#state) {
      case 'closed':
        return;
      case 'pending':
        this.#receivePending(now, seg);
        return;
      case 'syn-sent':
        this.#receiveSynSent(now, seg, taker);
        return;
      default:
        this.#receiveSynchronized(now, seg, taker);
    }
  }

  /** The peer's SYN: initial sequence number and options. */
  #takeSyn(now: number, seg: TcpSegment): void {
    const stamps = this.#handshake.takeSyn(seg);
    this.#stamps.start(now, seg, stamps);
    this.#liveness.heard(now);
    this.#rx.start(now, seg.sequence);
    this.#rx.negotiated(this.#handshake.receiveShift, this.#ownMss - (stamps ? STAMPS_LEN : 0));
    this.#applyMss(true);
  }

  /** While the host's connect is under way. */
  #receivePending(now: number, seg: TcpSegment): void {
    if (seg.flags & TCP_RST) {
      // The guest has given up.
      if (seg.sequence === this.#rx.nextSeq || seg.sequence === this.#handshake.irs) this.#fail('reset');
      return;
    }
    // The same SYN again: the answer will come. Another one: the guest has started anew from this port.
    if ((seg.flags & (TCP_SYN | TCP_ACK)) === TCP_SYN && seg.sequence !== this.#handshake.irs)
      this.#takeSyn(now, seg);
  }

  /** RFC 9293 section 3.10.7.3. */
  #receiveSynSent(now: number, seg: TcpSegment, taker: ByteTaker | undefined): void {
    const acked = (seg.flags & TCP_ACK) !== 0;
    if (acked && seg.acknowledgment !== this.#tx.nxt) {
      if (!(seg.flags & TCP_RST)) this.#strayReset(seg.acknowledgment);
      return;
    }
    if (seg.flags & TCP_RST) {
      if (!acked) return;
      this.#context.counters.resetsIn++;
      this.#fail('refused');
      return;
    }
    if (!(seg.flags & TCP_SYN)) return;
    this.#takeSyn(now, seg);
    if (!acked) {
      // Simultaneous open (section 3.5, figure 8).
      this.#state = 'syn-received';
      this.#handshake.dueAtMs = now;
      return;
    }
    this.#rx.ackNow = true;
    this.#establish(now, seg);
    this.#receiveText(now, seqAdd(seg.sequence, 1), seg, taker);
  }

  /** Our SYN was acknowledged. */
  #establish(now: number, seg: TcpSegment): void {
    const { sack, sendShift, ecn } = this.#handshake;
    this.#tx.established(now, seg, sendShift, sack, ecn, this.#handshake.finished(now));
    this.#state = 'established';
    if (this.#tx.finQueued) this.#finSideClosed();
  }

  /** RFC 9293 section 3.10.7.4, with RFC 7323 and RFC 5961. */
  #receiveSynchronized(now: number, seg: TcpSegment, taker: ByteTaker | undefined): void {
    if (this.#stamps.inUse && !this.#stampsAcceptable(now, seg)) return;
    if (!this.#sequenceAcceptable(now, seg)) return;
    if (seg.flags & TCP_RST) {
      this.#receiveReset(now, seg);
      return;
    }
    this.#liveness.heard(now);
    const synAgain = this.#state === 'syn-received' && seg.sequence === this.#handshake.irs;
    if (seg.flags & TCP_SYN && !synAgain) {
      // RFC 5961 section 4.2: whatever its sequence number.
      this.#challenge(now);
      return;
    }
    if (!(seg.flags & TCP_ACK)) return;
    if (!this.#receiveAck(now, seg)) return;
    if (synAgain) return;
    this.#stamps.update(now, seg);
    this.#receiveText(now, seg.sequence, seg, taker);
  }

  /** PAWS (RFC 7323 section 5.3, R1) and segments without a timestamp (section 3.2). RSTs are exempt. */
  #stampsAcceptable(now: number, seg: TcpSegment): boolean {
    if (seg.flags & TCP_RST) return true;
    if (!seg.hasTimestamps) {
      this.#context.counters.pawsDropped++;
      return false;
    }
    if (this.#stamps.acceptable(now, seg)) return true;
    this.#context.counters.pawsDropped++;
    this.#challenge(now);
    return false;
  }

  /** First check: sequence number. What is not acceptable is answered by an ACK, except a RST. */
  #sequenceAcceptable(now: number, seg: TcpSegment): boolean {
    const payload = seg.payloadEnd - seg.payloadOff;
    const len = payload + (seg.flags & TCP_SYN ? 1 : 0) + (seg.flags & TCP_FIN ? 1 : 0);
    if (this.#rx.acceptable(seg.sequence, len)) return true;
    if (this.#state === 'syn-received' && seg.flags & TCP_SYN && seg.sequence === this.#handshake.irs) {
      // Our SYN-ACK was lost, or crossed the other SYN-ACK of a simultaneous open.
      if (seg.flags & TCP_ACK && seg.acknowledgment === this.#tx.nxt) return true;
      this.#handshake.dueAtMs = now;
      return false;
    }
    this.#context.counters.outOfWindow++;
    if (seg.flags & TCP_RST) return false;
    this.#liveness.heard(now);
    if (seg.flags & TCP_FIN && this.#state === 'time-wait') this.#enterTimeWait(now);
    if (payload > 0 && seqLt(seg.sequence, this.#rx.nextSeq)) {
      // Sent again because our ACK was lost: say so at once, and say that it was in vain (RFC 2883).
      this.#rx.noteDuplicate(seg.sequence, seqAdd(seg.sequence, payload));
    } else if (seg.flags & TCP_FIN) this.#rx.ackNow = true;
    else this.#challenge(now);
    return false;
  }

  /** Second check: RFC 5961 section 3.2. */
  #receiveReset(now: number, seg: TcpSegment): void {
    if (seg.sequence !== this.#rx.nextSeq) {
      this.#challenge(now);
      return;
    }
    this.#context.counters.resetsIn++;
    // Both sides have finished, and a peer that is through with its TIME-WAIT answers so: an end, not a failure.
    if (this.#state === 'time-wait' || this.#state === 'last-ack' || this.#state === 'closing') this.#close();
    else this.#fail('reset');
  }

  /** Fifth check: the ACK field. Returns false when the segment ends here. */
  #receiveAck(now: number, seg: TcpSegment): boolean {
    const ack = seg.acknowledgment;
    const tx = this.#tx;
    if (this.#state === 'syn-received') {
      if (ack !== tx.nxt) {
        this.#strayReset(ack);
        return false;
      }
      this.#establish(now, seg);
      return true;
    }
    // RFC 5961 section 5.2.
    if (seqLt(tx.acknowledgeable, ack) || seqLt(ack, seqAdd(tx.una, -tx.windowMax))) {
      this.#challenge(now);
      return false;
    }
    if (this.#state === 'time-wait') return true;
    tx.receiveAck(now, seg, this.#stamps.inUse);
    if (tx.finAcknowledged) {
      if (this.#state === 'fin-wait-1') this.#state = 'fin-wait-2';
      else if (this.#state === 'closing') this.#enterTimeWait(now);
      else if (this.#state === 'last-ack') {
        this.#close();
        return false;
      }
    }
    return true;
  }

  /** Seventh and eighth check: text and FIN. Urgent data is data: what is urgent about it the host's socket can't say. */
  #receiveText(now: number, seq: number, seg: TcpSegment, taker: ByteTaker | undefined): void {
    if (this.#finHandled) return;
    if (this.#handshake.ecn) this.#receiveMark(seg);
    const fin = (seg.flags & TCP_FIN) !== 0;
    if (seg.payloadEnd > seg.payloadOff || fin) {
      this.#rx.setSrtt(this.#tx.srttMs);
      this.#rx.receive(now, seq, seg, fin, taker);
    }
    if (!this.#rx.finReached) return;
    this.#finHandled = true;
    this.#rx.ackNow = true;
    if (this.#state === 'established') this.#state = 'close-wait';
    else if (this.#state === 'fin-wait-1') this.#state = 'closing';
    else if (this.#state === 'fin-wait-2') this.#enterTimeWait(now);
  }

  /** RFC 3168 section 6.1.3. */
  #receiveMark(seg: TcpSegment): void {
    if (seg.flags & TCP_CWR) this.#echoesMark = false;
    if (seg.ecn !== ECN_MARKED || seg.payloadOff === seg.payloadEnd) return;
    this.#context.counters.congestionMarksIn++;
    this.#echoesMark = true;
    this.#rx.ackNow = true;
  }

  #enterTimeWait(now: number): void {
    this.#state = 'time-wait';
    this.#timeWaitEndMs = now + this.#context.config.timeWaitMs;
    this.#tx.release();
  }

  /** In TIME-WAIT a SYN that is clearly newer may take the place of this connection (RFC 9293 section 3.6.1, RFC 6191). */
  mayBeReplacedBy(seg: TcpSegment): boolean {
    if (this.#state !== 'time-wait' || (seg.flags & (TCP_SYN | TCP_ACK | TCP_RST)) !== TCP_SYN) return false;
    const { inUse, recent } = this.#stamps;
    if (inUse && seg.hasTimestamps && seqLt(recent, seg.timestamp)) return true;
    return seqLt(this.#rx.nextSeq, seg.sequence);
  }

  /** A segment that proves nothing is answered by the plain state of things, within limits (RFC 5961 section 10). */
  #challenge(now: number): void {
    const { counters, challenges } = this.#context;
    if (!this.#challenges.take(now) || !challenges.take(now)) {
      counters.challengeAcksSuppressed++;
      return;
    }
    counters.challengeAcks++;
    this.#rx.ackNow = true;
  }

  #strayReset(seq: number): void {
    this.#strayResetDue = true;
    this.#strayResetSeq = seq;
  }

  // --- Segments to the peer ---

  /** Sends what there is to send. */
  poll(now: number, sink: SegmentSink): void {
    this.#now = now;
    this.#sink = sink;
    this.#dirty = false;
    this.#blockedUntilMs = this.#output(now) ? Number.POSITIVE_INFINITY : now + LINK_RETRY_MS;
    this.#sink = undefined;
  }

  /** When poll() has something to do: a time in the past for at once, Infinity for never. */
  pollAt(): number {
    if (this.#blockedUntilMs !== Number.POSITIVE_INFINITY) return this.#blockedUntilMs;
    if (this.#dirty) return Number.NEGATIVE_INFINITY;
    switch (this.#state) {
      case 'closed':
      case 'pending':
        return Number.POSITIVE_INFINITY;
      case 'syn-sent':
      case 'syn-received':
        return this.#handshake.dueAtMs;
      case 'time-wait':
        return Math.min(this.#timeWaitEndMs, this.#rx.ackAtMs);
      default:
        return Math.min(this.#tx.timerAtMs, this.#rx.ackAtMs, this.#liveness.keepAliveAtMs);
    }
  }

  /** Returns false when the link took no more. */
  #output(now: number): boolean {
    if (this.#strayResetDue) {
      if (!this.#emitReset(this.#strayResetSeq, false)) return false;
      this.#strayResetDue = false;
    }
    switch (this.#state) {
      case 'closed':
        return this.#outputReset();
      case 'pending':
        return true;
      case 'syn-sent':
      case 'syn-received':
        return this.#outputHandshake(now);
      case 'time-wait':
        if (!this.#outputAck(now)) return false;
        if (now >= this.#timeWaitEndMs) this.#close();
        return true;
      default:
        return this.#outputOpen(now);
    }
  }

  #outputReset(): boolean {
    if (!this.#resetDue) return true;
    // Nothing of ours was sent before: as if there were no connection (RFC 9293 section 3.10.7.1).
    const seq = this.#handshake.isSilent ? 0 : this.#tx.nxt;
    if (!this.#emitReset(seq, true)) return false;
    this.#resetDue = false;
    return true;
  }

  #emitReset(seq: number, withAck: boolean): boolean {
    this.#fill(seq, withAck ? TCP_RST | TCP_ACK : TCP_RST);
    if (withAck) out.acknowledgment = this.#rx.nextSeq;
    if (!this.#sink!.segment(out)) return false;
    this.#context.counters.resetsOut++;
    this.#context.counters.segmentsOut++;
    return true;
  }

  #outputHandshake(now: number): boolean {
    const handshake = this.#handshake;
    if (now < handshake.dueAtMs) return true;
    if (handshake.isOver(now)) {
      this.#timedOut();
      return this.#outputReset();
    }
    const passive = this.#state === 'syn-received';
    this.#fill(handshake.isn, passive ? TCP_SYN | TCP_ACK : TCP_SYN);
    out.mss = this.#ownMss;
    if (passive) {
      out.acknowledgment = this.#rx.nextSeq;
      out.window = this.#rx.offer(true);
    }
    handshake.fill(out, this.#stamps.inUse);
    if (out.hasTimestamps) {
      out.timestamp = this.#tx.stamp(now);
      out.timestampEcho = this.#stamps.recent;
    }
    if (!this.#sink!.segment(out)) return false;
    this.#context.counters.segmentsOut++;
    handshake.sent(now);
    return true;
  }

  #outputOpen(now: number): boolean {
    const tx = this.#tx;
    const rx = this.#rx;
    if (now >= tx.timerAtMs) {
      if (this.#liveness.tooLongSilent(now)) {
        this.#timedOut();
        return this.#outputReset();
      }
      tx.expire(now);
      if (tx.isStarved) this.#narrow(now);
    }
    if (now >= this.#widenAtMs) this.#widen();
    if (now >= this.#liveness.keepAliveAtMs && !this.#outputKeepAlive(now)) return false;
    if (this.#state === 'closed') return this.#outputReset();
    // SACK blocks go on an ACK of their own: on data they would take room that the segment size does not allow for.
    if (rx.ackNow && this.#handshake.sack && rx.hasSack && !this.#outputAck(now)) return false;
    if (!tx.output(now, this)) return false;
    return this.#outputAck(now);
  }

  /** Large segments vanish on the way and nobody says why: smaller ones, for a while (RFC 8899 section 5.1.1). */
  #narrow(now: number): void {
    this.#context.counters.blackHoles++;
    const path = this.#path;
    this.#usePath({ ...path, segmentBytesMax: BLACK_HOLE_SEGMENT_BYTES + TCP_HEADER_LEN });
    this.#widePath = path;
    this.#widenAtMs = now + BLACK_HOLE_RAISE_MS;
  }

  #widen(): void {
    this.#usePath(this.#widePath ?? this.#path);
  }

  /** The peer has not answered for too long. */
  #timedOut(): void {
    const known = this.#state !== 'syn-sent';
    this.#fail('timed-out');
    this.#resetDue = known;
  }

  /** RFC 9293 section 3.8.4: asks an idle peer whether it is still there, by a number that it has acknowledged. */
  #outputKeepAlive(now: number): boolean {
    const liveness = this.#liveness;
    if (this.#tx.outstandingBytes > 0 || this.#tx.timerAtMs !== Number.POSITIVE_INFINITY) {
      // The retransmission or persist timer is at work on the same question.
      liveness.postpone(now);
      return true;
    }
    if (liveness.probesExhausted) {
      this.#timedOut();
      return true;
    }
    if (!this.emit(seqAdd(this.#tx.nxt, -1), TCP_ACK, NO_BYTES, 0, 0, 0)) return false;
    liveness.probed(now);
    this.#context.counters.keepAliveProbes++;
    return true;
  }

  /** Sends the ACK that is due, if no segment has carried it. */
  #outputAck(now: number): boolean {
    const rx = this.#rx;
    if (!rx.ackNow && now < rx.ackAtMs) return true;
    // A peer without SACK counts duplicate ACKs to find a loss; one that does SACK reads the blocks.
    for (let more = this.#handshake.sack ? 1 : Math.max(1, rx.duplicateAcks); more > 0; more--) {
      if (!this.emit(this.#tx.nxt, TCP_ACK, NO_BYTES, 0, 0, 0)) return false;
    }
    return true;
  }

  #fill(seq: number, flags: number): void {
    out.clear();
    out.sourcePort = this.localPort;
    out.destinationPort = this.remotePort;
    out.sequence = seq;
    out.flags = flags;
  }

  #fillEcn(seq: number, len: number): void {
    if (this.#echoesMark) out.flags |= TCP_ECE;
    if (!this.#tx.isNew(seq, len)) return;
    out.ecn = ECN_CAPABLE;
    if (this.#tx.owesReduction) out.flags |= TCP_CWR;
  }

  /** Sends one segment with the current acknowledgment, window and timestamps. Called by the sending half. */
  emit(seq: number, flags: number, buf: Uint8Array, off: number, len: number, gsoBytes: number): boolean {
    this.#fill(seq, flags);
    const rx = this.#rx;
    if (this.#handshake.ecn) this.#fillEcn(seq, len);
    out.acknowledgment = rx.nextSeq;
    out.window = rx.offer(false);
    out.payload = buf;
    out.payloadOff = off;
    out.payloadEnd = off + len;
    out.gsoBytes = gsoBytes;
    if (this.#stamps.inUse) {
      out.hasTimestamps = true;
      out.timestamp = this.#tx.stamp(this.#now);
      out.timestampEcho = this.#stamps.recent;
    }
    if (len === 0 && this.#handshake.sack && rx.hasSack) rx.fillSack(out);
    if (!this.#sink!.segment(out)) return false;
    if (out.flags & TCP_CWR) this.#tx.reductionTold();
    this.#stamps.acknowledged(out.acknowledgment);
    rx.acknowledged();
    this.#context.counters.segmentsOut += gsoBytes > 0 ? Math.ceil(len / gsoBytes) : 1;
    this.#context.counters.bytesOut += len;
    return true;
  }
}
