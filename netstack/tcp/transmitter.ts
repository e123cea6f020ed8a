/**
 * What leaves a connection, segment by segment: SYNs, data, acknowledgments and resets, each with the acknowledgment, window,
 * timestamps and congestion marks of its moment. When something is due is the connection's to say; false means that the link
 * took nothing.
 */
import { TCP_ACK, TCP_CWR, TCP_ECE, TCP_RST, TCP_SYN, TcpSegment } from '../wire/tcp.ts';
import type { TcpContext } from './context.ts';
import type { Handshake } from './handshake.ts';
import type { PeerStamps } from './peer-stamps.ts';
import type { Receiver } from './receiver.ts';
import type { SegmentEmitter } from './send-buffer.ts';
import type { Sender } from './sender.ts';
import { seqAdd } from './sequence.ts';
import type { SegmentSink } from './types.ts';

/** RFC 3168 section 5: ECN-capable transport, and congestion experienced. */
const ECN_CAPABLE = 2;
const ECN_MARKED = 3;
const NO_BYTES: Uint8Array = new Uint8Array(0);
/** The record in which every connection builds what it sends: all calls are synchronous. */
const out: TcpSegment = new TcpSegment();

/** The parts of a connection that a segment speaks of. */
export interface TransmitterParts {
  context: TcpContext;
  handshake: Handshake;
  stamps: PeerStamps;
  rx: Receiver;
  tx: Sender;
}

export class Transmitter implements SegmentEmitter {
  readonly #localPort: number;
  readonly #remotePort: number;
  readonly #context: TcpContext;
  readonly #handshake: Handshake;
  readonly #stamps: PeerStamps;
  readonly #rx: Receiver;
  readonly #tx: Sender;
  #now = 0;
  #sink: SegmentSink | undefined;
  /** A RST for the connection, or one for a single segment (with its sequence number), is due. */
  resetDue = false;
  #strayResetDue = false;
  #strayResetSeq = 0;
  /** A congestion mark has come, and is echoed until the peer says that it has slowed down (RFC 3168 section 6.1.3). */
  #echoesMark = false;

  constructor(
    localPort: number,
    remotePort: number,
    { context, handshake, stamps, rx, tx }: TransmitterParts,
  ) {
    this.#localPort = localPort;
    this.#remotePort = remotePort;
    this.#context = context;
    this.#handshake = handshake;
    this.#stamps = stamps;
    this.#rx = rx;
    this.#tx = tx;
  }

  /** Until {@link end}, segments go to `sink`. */
  begin(now: number, sink: SegmentSink): void {
    this.#now = now;
    this.#sink = sink;
  }

  end(): void {
    this.#sink = undefined;
  }

  /** A RST of any kind is due. */
  get owesReset(): boolean {
    return this.resetDue || this.#strayResetDue;
  }

  /** A segment that acknowledges what was never sent is answered by a RST with that number. */
  strayReset(seq: number): void {
    this.#strayResetDue = true;
    this.#strayResetSeq = seq;
  }

  forgetResets(): void {
    this.resetDue = false;
    this.#strayResetDue = false;
  }

  /** RFC 3168 section 6.1.3: a mark on the peer's data, or its word that it has slowed down. */
  receiveMark(seg: TcpSegment): void {
    if (seg.flags & TCP_CWR) this.#echoesMark = false;
    if (seg.ecn !== ECN_MARKED || seg.payloadOff === seg.payloadEnd) return;
    this.#context.counters.congestionMarksIn++;
    this.#echoesMark = true;
    this.#rx.ackNow = true;
  }

  /** Sends the RST for a single segment, if one is due. */
  sendStrayReset(): boolean {
    if (!this.#strayResetDue) return true;
    if (!this.#emitReset(this.#strayResetSeq, false)) return false;
    this.#strayResetDue = false;
    return true;
  }

  /** Sends the connection's RST, if it is due. */
  sendReset(): boolean {
    if (!this.resetDue) return true;
    // Nothing of ours was sent before: as if there were no connection (RFC 9293 section 3.10.7.1).
    const seq = this.#handshake.isSilent ? 0 : this.#tx.nxt;
    if (!this.#emitReset(seq, true)) return false;
    this.resetDue = false;
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

  /** Sends our SYN, or our SYN-ACK. */
  sendSyn(now: number, passive: boolean, mss: number): boolean {
    const handshake = this.#handshake;
    this.#fill(handshake.isn, passive ? TCP_SYN | TCP_ACK : TCP_SYN);
    out.mss = mss;
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

  /** RFC 9293 section 3.8.4: asks by a number that the peer has acknowledged. */
  sendKeepAlive(): boolean {
    return this.emit(seqAdd(this.#tx.nxt, -1), TCP_ACK, NO_BYTES, 0, 0, 0);
  }

  /** Sends the ACK that is due, if no segment has carried it. */
  sendAck(now: number): boolean {
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
    out.sourcePort = this.#localPort;
    out.destinationPort = this.#remotePort;
    out.sequence = seq;
    out.flags = flags;
  }

  #fillEcn(seq: number, len: number): void {
    if (this.#echoesMark) out.flags |= TCP_ECE;
    if (!this.#tx.isNew(seq, len)) return;
    out.ecn = ECN_CAPABLE;
    if (this.#tx.owesReduction) out.flags |= TCP_CWR;
  }

  /** Sends one segment with the current acknowledgment, window and timestamps. */
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
