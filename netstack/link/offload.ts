/**
 * Does in software what a link's other side cannot: cuts super-frames into segments and completes checksums. It stands
 * before links of virtual machines, whose framings carry plain frames only.
 *
 * Segmentation follows what the kernel's GSO does (Documentation/networking/segmentation-offloads.rst): every segment
 * gets the headers of the super-frame; IPv4 identification and TCP sequence numbers advance; FIN and PSH go with the last
 * segment, CWR with the first. UDP super-frames become datagrams of their own.
 */
import { get16, get32, put16, put32 } from '../wire/address.ts';
import { complement, pseudoIpv4, pseudoIpv6, sum } from '../wire/checksum.ts';
import { FRAME_BYTES_MAX, type FrameSink, type Link, VNET_HDR_LEN } from './link.ts';

// virtio_net_hdr (Virtual I/O Device 1.2, section 5.1.6)
const NEEDS_CSUM = 1;
const GSO_NONE = 0;
const GSO_TCPV4 = 1;
const GSO_TCPV6 = 4;
const GSO_UDP_L4 = 5;
/** The sender had ECN's CWR in the super-frame. */
const GSO_ECN = 0x80;

const ETHERTYPE_IPV4 = 0x0800;
const ETHERTYPE_IPV6 = 0x86dd;
const ETHERNET_HEADER_LEN = 14;
const IPV4_HEADER_LEN_MIN = 20;
const IPV6_HEADER_LEN = 40;
const PROTOCOL_TCP = 6;
const PROTOCOL_UDP = 17;
const UDP_HEADER_LEN = 8;
const TCP_HEADER_LEN_MIN = 20;
const TCP_FIN_PSH = 0x09;
const TCP_CWR = 0x80;

const get16le = (buf: Uint8Array, off: number): number => buf[off]! | (buf[off + 1]! << 8);

/** Where the headers of a frame are, all from the start of the virtio_net_hdr. */
interface Layout {
  ipv4: boolean;
  ip: number;
  transport: number;
  payload: number;
  protocol: number;
}

/** A link that accepts super-frames and incomplete checksums for one that does not. It passes received frames as they are. */
export class SoftwareOffload implements Link {
  readonly offload = true;
  readonly mtuBytes: number;
  readonly #inner: Link;
  readonly #frame: Uint8Array = new Uint8Array(FRAME_BYTES_MAX);
  readonly #segment: Uint8Array = new Uint8Array(FRAME_BYTES_MAX);

  constructor(inner: Link) {
    this.#inner = inner;
    this.mtuBytes = inner.mtuBytes;
  }

  start(sink: FrameSink): void {
    this.#inner.start(sink);
  }

  flush(): void {
    this.#inner.flush();
  }

  close(): void {
    this.#inner.close();
  }

  send(
    head: Uint8Array,
    headOff: number,
    headLen: number,
    body: Uint8Array | undefined,
    bodyOff: number,
    bodyLen: number,
  ): boolean {
    const flags = head[headOff]!;
    const gsoType = head[headOff + 1]! & ~GSO_ECN;
    if ((flags & NEEDS_CSUM) === 0 && gsoType === GSO_NONE)
      return this.#inner.send(head, headOff, headLen, body, bodyOff, bodyLen);
    const end = headLen + bodyLen;
    if (end > FRAME_BYTES_MAX) return false;
    const frame = this.#frame;
    frame.set(head.subarray(headOff, headOff + headLen));
    if (body && bodyLen > 0) frame.set(body.subarray(bodyOff, bodyOff + bodyLen), headLen);
    const gsoSize = get16le(frame, 4);
    if (gsoType === GSO_NONE || gsoSize === 0) return this.#complete(frame, end);
    return this.#cut(frame, end, gsoType, gsoSize);
  }

  /** Finishes the checksum whose pseudo header's sum is in place already. */
  #complete(frame: Uint8Array, end: number): boolean {
    const start = VNET_HDR_LEN + get16le(frame, 6);
    const at = start + get16le(frame, 8);
    if (at + 2 > end) return false;
    const udp = get16le(frame, 8) === 6;
    const value = complement(sum(frame, start, end - start));
    // RFC 768: a computed zero is sent as all ones, since zero means none.
    put16(frame, at, udp && value === 0 ? 0xffff : value);
    frame.fill(0, 0, VNET_HDR_LEN);
    return this.#inner.send(frame, 0, end, undefined, 0, 0);
  }

  #cut(frame: Uint8Array, end: number, gsoType: number, gsoSize: number): boolean {
    const layout = parseLayout(frame, end);
    if (!layout) return false;
    const tcp = gsoType === GSO_TCPV4 || gsoType === GSO_TCPV6;
    if (!tcp && gsoType !== GSO_UDP_L4) return false;
    if (layout.protocol !== (tcp ? PROTOCOL_TCP : PROTOCOL_UDP)) return false;
    const segment = this.#segment;
    segment.set(frame.subarray(0, layout.payload));
    segment.fill(0, 0, VNET_HDR_LEN);
    let taken = false;
    for (let at = layout.payload, index = 0; at < end; at += gsoSize, index++) {
      const length = Math.min(gsoSize, end - at);
      segment.set(frame.subarray(at, at + length), layout.payload);
      const last = at + length === end;
      if (tcp) writeTcp(segment, frame, layout, at - layout.payload, index === 0, last);
      writeLengths(segment, frame, layout, length, index);
      writeChecksums(segment, layout, length);
      // One lost segment is lost; the others may still arrive, as on any wire.
      if (this.#inner.send(segment, 0, layout.payload + length, undefined, 0, 0)) taken = true;
    }
    return taken;
  }
}

function parseLayout(frame: Uint8Array, end: number): Layout | undefined {
  const ip = VNET_HDR_LEN + ETHERNET_HEADER_LEN;
  if (end < ip + IPV4_HEADER_LEN_MIN) return undefined;
  const etherType = get16(frame, VNET_HDR_LEN + 12);
  let transport: number;
  let protocol: number;
  if (etherType === ETHERTYPE_IPV4) {
    const headerLen = (frame[ip]! & 15) * 4;
    if (headerLen < IPV4_HEADER_LEN_MIN) return undefined;
    transport = ip + headerLen;
    protocol = frame[ip + 9]!;
  } else if (etherType === ETHERTYPE_IPV6) {
    // The kernel gives no extension headers with a super-frame that it asks us to cut.
    transport = ip + IPV6_HEADER_LEN;
    protocol = frame[ip + 6]!;
  } else return undefined;
  if (end < transport + TCP_HEADER_LEN_MIN && protocol === PROTOCOL_TCP) return undefined;
  if (end < transport + UDP_HEADER_LEN) return undefined;
  const headerLen = protocol === PROTOCOL_TCP ? (frame[transport + 12]! >>> 4) * 4 : UDP_HEADER_LEN;
  if (protocol === PROTOCOL_TCP && headerLen < TCP_HEADER_LEN_MIN) return undefined;
  const payload = transport + headerLen;
  if (payload > end) return undefined;
  return { ipv4: etherType === ETHERTYPE_IPV4, ip, transport, payload, protocol };
}

function writeTcp(
  segment: Uint8Array,
  frame: Uint8Array,
  { transport }: Layout,
  advance: number,
  first: boolean,
  last: boolean,
): void {
  put32(segment, transport + 4, (get32(frame, transport + 4) + advance) >>> 0);
  let flags = frame[transport + 13]!;
  if (!last) flags &= ~TCP_FIN_PSH;
  if (!first) flags &= ~TCP_CWR;
  segment[transport + 13] = flags;
}

function writeLengths(
  segment: Uint8Array,
  frame: Uint8Array,
  layout: Layout,
  length: number,
  index: number,
): void {
  const { ip, transport, payload } = layout;
  if (layout.ipv4) {
    put16(segment, ip + 2, payload - ip + length);
    put16(segment, ip + 4, (get16(frame, ip + 4) + index) & 0xffff);
  } else put16(segment, ip + 4, payload - transport + length);
  if (layout.protocol === PROTOCOL_UDP) put16(segment, transport + 4, UDP_HEADER_LEN + length);
}

function writeChecksums(segment: Uint8Array, layout: Layout, length: number): void {
  const { ip, transport, payload, protocol } = layout;
  const transportLen = payload - transport + length;
  let pseudo: number;
  if (layout.ipv4) {
    put16(segment, ip + 10, 0);
    put16(segment, ip + 10, complement(sum(segment, ip, transport - ip)));
    pseudo = pseudoIpv4(get32(segment, ip + 12), get32(segment, ip + 16), protocol, transportLen);
  } else pseudo = pseudoIpv6(segment, ip + 8, segment, ip + 24, protocol, transportLen);
  const at = transport + (protocol === PROTOCOL_TCP ? 16 : 6);
  put16(segment, at, 0);
  const value = complement(pseudo + sum(segment, transport, transportLen));
  put16(segment, at, protocol === PROTOCOL_UDP && value === 0 ? 0xffff : value);
}
