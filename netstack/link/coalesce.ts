/**
 * Puts consecutive TCP segments of one connection together before anything else sees them, as the kernel's generic receive
 * offload does: what a machine sends in frames of 1500 bytes then costs the stack as little as one frame of 64 KiB.
 *
 * Only what could be cut again into the very same frames is merged: same headers but for length, identification and checksums,
 * next sequence number, full segments but for the last, checksums right. All else passes as it came. What is being put together waits
 * until the link says that its batch is over, and no longer.
 */
import { get16, get32, put16 } from '../wire/address.ts';
import { complement, fold, pseudoIpv4, pseudoIpv6, sum } from '../wire/checksum.ts';
import { ETHERTYPE_IPV4, ETHERTYPE_IPV6 } from '../wire/ethernet.ts';
import { IPV4_BYTES_MAX, IPV4_LEN, PROTOCOL_TCP } from '../wire/ipv4.ts';
import { IPV6_LEN } from '../wire/ipv6.ts';
import { TCP_ACK, TCP_CHECKSUM_OFFSET, TCP_HEADER_LEN, TCP_PSH } from '../wire/tcp.ts';
import { GSO_TCPV4, GSO_TCPV6, NEEDS_CSUM, put16le } from '../wire/virtio.ts';
import { FRAME_BYTES_MAX, type FrameSink, VNET_HDR_LEN } from './link.ts';

const ETHERNET_LEN = 14;
/** Where Ethernet and IP headers of the frame in hand begin. */
const ETHERNET = VNET_HDR_LEN;
const IP = ETHERNET + ETHERNET_LEN;
/** Version 4 and no options. */
const IPV4_PLAIN = 0x45;
const IPV4_DONT_FRAGMENT = 0x4000;
const IPV6_VERSION = 6;

/** Stands before a sink and hands it merged frames. */
export class Coalescer implements FrameSink {
  readonly #sink: FrameSink;
  /** The frame in hand, from its virtio_net_hdr on; where its TCP header and payload are, and its end. */
  readonly #held: Uint8Array = new Uint8Array(new ArrayBuffer(FRAME_BYTES_MAX));
  #ipv4 = true;
  #tcp = 0;
  #payload = 0;
  #end = 0;
  /** How many frames it is made of; 0: none is in hand. */
  #segments = 0;
  /** Payload of its first. */
  #mss = 0;
  #nextSeq = 0;

  // What parse() found in the latest frame.
  #newIpv4 = true;
  #newTcp = 0;
  #newPayload = 0;

  constructor(sink: FrameSink) {
    this.#sink = sink;
  }

  frame(buf: Uint8Array, off: number, end: number): void {
    if (!this.#parse(buf, off, end)) {
      this.flush();
      this.#sink.frame(buf, off, end);
      return;
    }
    if (this.#segments > 0 && this.#append(buf, off, end)) return;
    this.flush();
    if (buf[this.#newTcp + 13] !== TCP_ACK) this.#sink.frame(buf, off, end);
    else this.#hold(buf, off, end);
  }

  #hold(buf: Uint8Array, off: number, end: number): void {
    this.#held.set(buf.subarray(off, end));
    this.#end = end - off;
    this.#ipv4 = this.#newIpv4;
    this.#tcp = this.#newTcp - off;
    this.#payload = this.#newPayload - off;
    this.#segments = 1;
    this.#mss = this.#end - this.#payload;
    this.#nextSeq = (get32(this.#held, this.#tcp + 4) + this.#mss) | 0;
  }

  /** Hands on what is in hand: the batch is over. */
  flush(): void {
    if (this.#segments === 0) return;
    if (this.#segments > 1) this.#finish();
    this.#segments = 0;
    this.#sink.frame(this.#held, 0, this.#end);
  }

  /** True for a TCP segment with payload that may be merged: nothing special about it. */
  #parse(buf: Uint8Array, off: number, end: number): boolean {
    const ip = off + VNET_HDR_LEN + ETHERNET_LEN;
    if (end < ip + IPV4_LEN + TCP_HEADER_LEN) return false;
    const type = get16(buf, ip - 2);
    if (type === ETHERTYPE_IPV4) {
      if (buf[ip] !== IPV4_PLAIN || buf[ip + 9] !== PROTOCOL_TCP) return false;
      if (get16(buf, ip + 2) !== end - ip || (get16(buf, ip + 6) & ~IPV4_DONT_FRAGMENT) !== 0) return false;
      this.#newIpv4 = true;
      this.#newTcp = ip + IPV4_LEN;
    } else if (type === ETHERTYPE_IPV6) {
      if (end < ip + IPV6_LEN + TCP_HEADER_LEN || buf[ip]! >>> 4 !== IPV6_VERSION) return false;
      if (buf[ip + 6] !== PROTOCOL_TCP || get16(buf, ip + 4) !== end - ip - IPV6_LEN) return false;
      this.#newIpv4 = false;
      this.#newTcp = ip + IPV6_LEN;
    } else return false;
    const headerLen = (buf[this.#newTcp + 12]! >>> 4) * 4;
    this.#newPayload = this.#newTcp + headerLen;
    return (
      headerLen >= TCP_HEADER_LEN &&
      this.#newPayload < end &&
      (buf[this.#newTcp + 13]! & ~TCP_PSH) === TCP_ACK
    );
  }

  /** Merges the frame that was parsed with the one in hand; false: it does not belong there. */
  #append(buf: Uint8Array, off: number, end: number): boolean {
    const held = this.#held;
    const len = end - this.#newPayload;
    if (len > this.#mss || (get32(buf, this.#newTcp + 4) | 0) !== this.#nextSeq) return false;
    if (this.#end + len - IP > IPV4_BYTES_MAX || !this.#sameHeaders(buf, off)) return false;
    if (this.#segments === 1 && !checksumsRight(held, this.#ipv4, this.#tcp, this.#end)) return false;
    if (!checksumsRight(buf, this.#ipv4, this.#newTcp, end)) return false;
    held.set(buf.subarray(this.#newPayload, end), this.#end);
    this.#end += len;
    this.#segments++;
    this.#nextSeq = (this.#nextSeq + len) | 0;
    const pushed = buf[this.#newTcp + 13] !== TCP_ACK;
    if (pushed) held[this.#tcp + 13] = TCP_ACK | TCP_PSH;
    if (pushed || len < this.#mss) this.flush();
    return true;
  }

  #sameHeaders(buf: Uint8Array, off: number): boolean {
    const held = this.#held;
    const tcp = this.#tcp;
    const newTcp = this.#newTcp;
    if (this.#ipv4 !== this.#newIpv4 || this.#payload - tcp !== this.#newPayload - newTcp) return false;
    if (!same(held, ETHERNET, buf, off + ETHERNET, ETHERNET_LEN)) return false;
    const ip = off + IP;
    if (this.#ipv4) {
      // Not the length, the identification and the checksum.
      if (held[IP + 1] !== buf[ip + 1] || !same(held, IP + 6, buf, ip + 6, 4)) return false;
      if (!same(held, IP + 12, buf, ip + 12, 8)) return false;
    } else if (!same(held, IP, buf, ip, 4) || !same(held, IP + 6, buf, ip + 6, 34)) return false;
    // Ports; acknowledgment and data offset; window; options. Flags were looked at, urgent pointers say nothing without theirs.
    return (
      same(held, tcp, buf, newTcp, 4) &&
      same(held, tcp + 8, buf, newTcp + 8, 5) &&
      same(held, tcp + 14, buf, newTcp + 14, 2) &&
      same(held, tcp + TCP_HEADER_LEN, buf, newTcp + TCP_HEADER_LEN, this.#payload - tcp - TCP_HEADER_LEN)
    );
  }

  /** Makes the headers those of a super-frame. */
  #finish(): void {
    const held = this.#held;
    const len = this.#end - this.#tcp;
    let pseudo: number;
    if (this.#ipv4) {
      put16(held, IP + 2, this.#end - IP);
      put16(held, IP + 10, 0);
      put16(held, IP + 10, complement(sum(held, IP, IPV4_LEN)));
      pseudo = pseudoIpv4(get32(held, IP + 12), get32(held, IP + 16), PROTOCOL_TCP, len);
    } else {
      put16(held, IP + 4, len);
      pseudo = pseudoIpv6(held, IP + 8, held, IP + 24, PROTOCOL_TCP, len);
    }
    put16(held, this.#tcp + TCP_CHECKSUM_OFFSET, fold(pseudo));
    held[0] = NEEDS_CSUM;
    held[1] = this.#ipv4 ? GSO_TCPV4 : GSO_TCPV6;
    put16le(held, 2, this.#payload - ETHERNET);
    put16le(held, 4, this.#mss);
    put16le(held, 6, this.#tcp - ETHERNET);
    put16le(held, 8, TCP_CHECKSUM_OFFSET);
  }
}

function same(a: Uint8Array, aOff: number, b: Uint8Array, bOff: number, len: number): boolean {
  for (let i = 0; i < len; i++) if (a[aOff + i] !== b[bOff + i]) return false;
  return true;
}

function checksumsRight(buf: Uint8Array, ipv4: boolean, tcp: number, end: number): boolean {
  const len = end - tcp;
  const bytes = sum(buf, tcp, len);
  if (!ipv4) return fold(pseudoIpv6(buf, tcp - 32, buf, tcp - 16, PROTOCOL_TCP, len) + bytes) === 0xffff;
  if (sum(buf, tcp - IPV4_LEN, IPV4_LEN) !== 0xffff) return false;
  return fold(pseudoIpv4(get32(buf, tcp - 8), get32(buf, tcp - 4), PROTOCOL_TCP, len) + bytes) === 0xffff;
}
