/** What the two SYNs say (RFC 9293 section 3.5, RFC 7323, RFC 2018, RFC 6691), and when ours is sent again. */
import { TCP_ACK, TCP_CWR, TCP_ECE, TCP_SYN, type TcpSegment } from '../wire/tcp.ts';
import type { TcpConfig } from './config.ts';
import { MSS_BYTES_DEFAULT } from './limits.ts';

/** Rcv.Wind.Shift with which the 16-bit field can say `bytes`. */
function shiftFor(bytes: number): number {
  let shift = 0;
  while (0xffff << shift < bytes) shift++;
  return shift;
}

export class Handshake {
  readonly #config: TcpConfig;
  /** Initial sequence number of ours and of the peer. */
  readonly isn: number;
  irs = 0;
  peerMss: number = MSS_BYTES_DEFAULT;
  /** Both sides do SACK. */
  sack = false;
  /** Both sides do explicit congestion notification. */
  ecn = false;
  #ecnAsked = false;
  /** The peer's shift, -1 when windows are not scaled. */
  #peerShift = -1;

  /** When the next SYN or SYN-ACK is due, or Infinity. */
  dueAtMs: number = Number.POSITIVE_INFINITY;
  #count = 0;
  #firstMs: number = Number.NaN;
  #lastMs: number = Number.NaN;

  constructor(config: TcpConfig, isn: number) {
    this.#config = config;
    this.isn = isn;
  }

  /** The peer's SYN. Returns whether both sides do timestamps. */
  takeSyn(seg: TcpSegment): boolean {
    this.irs = seg.sequence;
    this.peerMss = seg.mss > 0 ? seg.mss : MSS_BYTES_DEFAULT;
    this.ecn = this.#agreesOnEcn(seg.flags);
    this.sack = this.#config.sack && seg.sackPermitted;
    this.#peerShift = this.#config.windowScaling ? seg.windowScale : -1;
    return this.#config.timestamps && seg.hasTimestamps;
  }

  /** RFC 3168 section 6.1.1: both bits in a SYN ask, the first alone in its answer agrees. */
  #agreesOnEcn(flags: number): boolean {
    if (flags & TCP_ACK) return this.#ecnAsked && (flags & (TCP_ECE | TCP_CWR)) === TCP_ECE;
    // In a simultaneous open each side has said already what it wants.
    const maySay = this.isSilent ? this.#config.ecn !== 'off' : this.#ecnAsked;
    return maySay && (flags & (TCP_ECE | TCP_CWR)) === (TCP_ECE | TCP_CWR);
  }

  /** Snd.Wind.Shift and Rcv.Wind.Shift: both or none (RFC 7323 section 2.2). */
  get sendShift(): number {
    return Math.max(this.#peerShift, 0);
  }

  get receiveShift(): number {
    return this.#peerShift >= 0 ? shiftFor(this.#config.receiveBytesMax) : 0;
  }

  /** Nothing of ours was sent yet. */
  get isSilent(): boolean {
    return this.#count === 0;
  }

  /** The peer has had long enough to answer. */
  isOver(now: number): boolean {
    return now - this.#firstMs >= this.#config.handshakeMsMax;
  }

  /** Adds to our SYN what it offers, or to our SYN-ACK what it agrees to. */
  fill(seg: TcpSegment, stamps: boolean): void {
    const config = this.#config;
    seg.sequence = this.isn;
    if (seg.flags & TCP_ACK) {
      seg.windowScale = this.#peerShift >= 0 ? this.receiveShift : -1;
      seg.sackPermitted = this.sack;
      seg.hasTimestamps = stamps;
      if (this.ecn) seg.flags |= TCP_ECE;
    } else {
      seg.window = Math.min(config.receiveBytesInitial, 0xffff);
      seg.windowScale = config.windowScaling ? shiftFor(config.receiveBytesMax) : -1;
      seg.sackPermitted = config.sack;
      seg.hasTimestamps = config.timestamps;
      // Section 6.1.1.1: a network that drops such SYNs gets a plain one.
      if (config.ecn === 'request' && this.isSilent) {
        this.#ecnAsked = true;
        seg.flags |= TCP_ECE | TCP_CWR;
      }
    }
    seg.flags |= TCP_SYN;
  }

  /** Our SYN or SYN-ACK has gone out. */
  sent(now: number): void {
    const { rtoMsInitial, rtoMsMax } = this.#config;
    if (this.#count === 0) this.#firstMs = now;
    this.#lastMs = now;
    this.dueAtMs = now + Math.min(rtoMsInitial * 2 ** this.#count, rtoMsMax);
    this.#count++;
  }

  /** Our SYN was acknowledged. Returns the round-trip time; NaN by Karn's algorithm if it went out twice. */
  finished(now: number): number {
    this.dueAtMs = Number.POSITIVE_INFINITY;
    return this.#count === 1 ? now - this.#lastMs : Number.NaN;
  }
}
