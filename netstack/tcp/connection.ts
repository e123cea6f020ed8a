/**
 * One TCP connection (RFC 9293), from the stack's side: the guest is the peer, and the bytes go to and come from a socket
 * of the host.
 *
 * It is a machine without I/O: segments go in by {@link TcpConnection.receive}, come out by {@link TcpConnection.poll},
 * and {@link TcpConnection.pollAt} says when it next has something to do. It knows ports but no addresses. Nothing is called
 * back except the sink and the taker that are passed in; what has changed is read from the getters afterwards.
 *
 * What is here is the states and their order; its parts judge segments (acceptance.ts), keep received bytes and bytes to be
 * sent (receiver.ts, sender.ts), and build segments (transmitter.ts).
 *
 * How the stack drives it:
 * - A guest's SYN makes a connection that stays silent ({@link TcpConnection.listen}) until the host's connect is known: then
 *   {@link TcpConnection.accept}, {@link TcpConnection.refuse} or {@link TcpConnection.discard}.
 * - For a published port, {@link TcpConnection.connect} opens towards the guest.
 * - Each batch of frames: receive() for every segment, then for each touched connection move bytes (readable/consumed,
 *   writable/produced) and poll() once. One poll per batch gives one ACK per batch.
 */
import { TCP_ACK, TCP_FIN, TCP_HEADER_LEN, TCP_RST, TCP_SYN, type TcpSegment } from '../wire/tcp.ts';
import { Acceptance } from './acceptance.ts';
import type { TcpContext } from './context.ts';
import { Handshake } from './handshake.ts';
import { Liveness } from './liveness.ts';
import { PathSize } from './path-size.ts';
import { PeerStamps } from './peer-stamps.ts';
import { Receiver } from './receiver.ts';
import { Sender } from './sender.ts';
import { seqAdd } from './sequence.ts';
import { Transmitter } from './transmitter.ts';
import type { ByteTaker, Region, SegmentSink, TcpFailure, TcpPath, TcpState } from './types.ts';

export type { ByteTaker, Region, SegmentSink, TcpFailure, TcpPath, TcpState } from './types.ts';

/** How long to wait when the link took nothing. */
const LINK_RETRY_MS = 1;
const region: Region = { buf: new Uint8Array(0), off: 0, len: 0 };

export class TcpConnection {
  readonly localPort: number;
  readonly remotePort: number;
  readonly #context: TcpContext;
  readonly #path: PathSize;
  readonly #tx: Sender;
  readonly #rx: Receiver;
  readonly #handshake: Handshake;
  readonly #stamps = new PeerStamps();
  readonly #liveness: Liveness;
  readonly #acceptance: Acceptance;
  readonly #out: Transmitter;
  #state: TcpState = 'closed';
  #failure: TcpFailure | undefined;
  #now = 0;
  /** Something may have to be sent at once. */
  #dirty = false;
  /** When to try again after the link took nothing, or Infinity. */
  #blockedUntilMs: number = Number.POSITIVE_INFINITY;
  #timeWaitEndMs: number = Number.POSITIVE_INFINITY;
  /** The peer's FIN has moved the state. */
  #finHandled = false;

  /** @param isn initial sequence number, from {@link InitialSequence} */
  constructor(context: TcpContext, path: TcpPath, localPort: number, remotePort: number, isn: number) {
    this.#context = context;
    this.localPort = localPort;
    this.remotePort = remotePort;
    const handshake = new Handshake(context.config, isn);
    const liveness = new Liveness(context.config);
    const tx = new Sender(context, path.segmentBytesMax - TCP_HEADER_LEN, isn);
    const rx = new Receiver(context);
    const parts = { context, handshake, stamps: this.#stamps, liveness, rx, tx };
    [this.#handshake, this.#liveness, this.#tx, this.#rx] = [handshake, liveness, tx, rx];
    this.#path = new PathSize(path, parts);
    this.#acceptance = new Acceptance(parts);
    this.#out = new Transmitter(localPort, remotePort, parts);
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
    const state = this.#state;
    return state !== 'closed' && state !== 'pending' && state !== 'syn-sent' && state !== 'syn-received';
  }

  /** Nothing is left: nothing to send, to wait for or to hand over. The stack forgets the connection. */
  get isDead(): boolean {
    return this.#state === 'closed' && !this.#out.owesReset && this.#rx.readableBytes === 0;
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
    this.#out.resetDue = true;
    this.#dirty = true;
  }

  /** Forgets everything without a word to the peer (the stack answers by ICMP, or the guest is gone). */
  discard(): void {
    this.#fail('aborted');
    this.#out.forgetResets();
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
    this.#out.resetDue = !silent;
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
    this.#path.use(path, !this.isOpen);
    this.#dirty = true;
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
    this.#rx.negotiated(this.#handshake.receiveShift, this.#path.receiveBytes);
    this.#path.apply(true);
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
      if (!(seg.flags & TCP_RST)) this.#out.strayReset(seg.acknowledgment);
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
    if (!this.#acceptance.stamps(now, seg)) return;
    if (!this.#acceptance.sequence(now, seg, this.#state)) {
      // The peer's FIN again: it has not heard our ACK.
      const isLastFin = this.#state === 'time-wait' && (seg.flags & (TCP_FIN | TCP_RST)) === TCP_FIN;
      if (isLastFin) this.#enterTimeWait(now);
      return;
    }
    if (seg.flags & TCP_RST) {
      this.#receiveReset(now, seg);
      return;
    }
    this.#liveness.heard(now);
    const synAgain = this.#state === 'syn-received' && seg.sequence === this.#handshake.irs;
    if (seg.flags & TCP_SYN && !synAgain) {
      // RFC 5961 section 4.2: whatever its sequence number.
      this.#acceptance.challenge(now);
      return;
    }
    if (!(seg.flags & TCP_ACK) || !this.#receiveAck(now, seg) || synAgain) return;
    this.#stamps.update(now, seg);
    this.#receiveText(now, seg.sequence, seg, taker);
  }

  #receiveReset(now: number, seg: TcpSegment): void {
    if (!this.#acceptance.reset(now, seg)) return;
    this.#context.counters.resetsIn++;
    // Both sides have finished, and a peer that is through with its TIME-WAIT answers so: an end, not a failure.
    if (this.#state === 'time-wait' || this.#state === 'last-ack' || this.#state === 'closing') this.#close();
    else this.#fail('reset');
  }

  /** Fifth check: the ACK field. Returns false when the segment ends here. */
  #receiveAck(now: number, seg: TcpSegment): boolean {
    const tx = this.#tx;
    if (this.#state === 'syn-received') {
      const isOfSyn = seg.acknowledgment === tx.nxt;
      if (isOfSyn) this.#establish(now, seg);
      else this.#out.strayReset(seg.acknowledgment);
      return isOfSyn;
    }
    if (!this.#acceptance.acknowledgment(now, seg)) return false;
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
    if (this.#handshake.ecn) this.#out.receiveMark(seg);
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

  #enterTimeWait(now: number): void {
    this.#state = 'time-wait';
    this.#timeWaitEndMs = now + this.#context.config.timeWaitMs;
    this.#tx.release();
  }

  /** In TIME-WAIT a SYN that is clearly newer may take the place of this connection (RFC 9293 section 3.6.1, RFC 6191). */
  mayBeReplacedBy(seg: TcpSegment): boolean {
    return this.#state === 'time-wait' && this.#acceptance.renews(seg);
  }

  // --- Segments to the peer ---

  /** Sends what there is to send. */
  poll(now: number, sink: SegmentSink): void {
    this.#now = now;
    this.#out.begin(now, sink);
    this.#dirty = false;
    this.#blockedUntilMs = this.#output(now) ? Number.POSITIVE_INFINITY : now + LINK_RETRY_MS;
    this.#out.end();
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
    if (!this.#out.sendStrayReset()) return false;
    switch (this.#state) {
      case 'closed':
        return this.#out.sendReset();
      case 'pending':
        return true;
      case 'syn-sent':
      case 'syn-received':
        return this.#outputHandshake(now);
      case 'time-wait':
        if (!this.#out.sendAck(now)) return false;
        if (now >= this.#timeWaitEndMs) this.#close();
        return true;
      default:
        return this.#outputOpen(now);
    }
  }

  #outputHandshake(now: number): boolean {
    if (now < this.#handshake.dueAtMs) return true;
    if (!this.#handshake.isOver(now))
      return this.#out.sendSyn(now, this.#state === 'syn-received', this.#path.ownMss);
    this.#timedOut();
    return this.#out.sendReset();
  }

  #outputOpen(now: number): boolean {
    const tx = this.#tx;
    const rx = this.#rx;
    if (now >= tx.timerAtMs) {
      if (this.#liveness.tooLongSilent(now)) {
        this.#timedOut();
        return this.#out.sendReset();
      }
      tx.expire(now);
      if (tx.isStarved) {
        this.#context.counters.blackHoles++;
        this.#path.narrow(now);
      }
    }
    this.#path.poll(now);
    if (!this.#outputKeepAlive(now)) return false;
    if (this.#state === 'closed') return this.#out.sendReset();
    // SACK blocks go on an ACK of their own: on data they would take room that the segment size does not allow for.
    if (rx.ackNow && this.#handshake.sack && rx.hasSack && !this.#out.sendAck(now)) return false;
    if (!tx.output(now, this.#out)) return false;
    return this.#out.sendAck(now);
  }

  /** The peer has not answered for too long. */
  #timedOut(): void {
    const known = this.#state !== 'syn-sent';
    this.#fail('timed-out');
    this.#out.resetDue = known;
  }

  /** RFC 9293 section 3.8.4: asks an idle peer whether it is still there, by a number that it has acknowledged. */
  #outputKeepAlive(now: number): boolean {
    // The retransmission or persist timer asks the same question.
    const isAsked = this.#tx.outstandingBytes > 0 || this.#tx.timerAtMs !== Number.POSITIVE_INFINITY;
    const due = this.#liveness.due(now, isAsked);
    if (due === 'give-up') this.#timedOut();
    if (due !== 'ask') return true;
    if (!this.#out.sendKeepAlive()) return false;
    this.#liveness.probed(now);
    this.#context.counters.keepAliveProbes++;
    return true;
  }
}
