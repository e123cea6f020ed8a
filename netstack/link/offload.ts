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
import { GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, get16le, NEEDS_CSUM } from '../wire/virtio.ts';
import { Coalescer } from './coalesce.ts';
import { FRAME_BYTES_MAX, type FrameSink, type Link, VNET_HDR_LEN } from './link.ts';

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
const UDP_CHECKSUM_OFFSET = 6;
/** virtio_net_hdr, Ethernet with a tag, and the longest IP and TCP headers. */
const HEADERS_LEN_MAX: number = VNET_HDR_LEN + 18 + 60 + 60;

/** Where the headers of a frame are, all from the start of the virtio_net_hdr. */
interface Layout {
  ipv4: boolean;
  ip: number;
  transport: number;
  payload: number;
  protocol: number;
}

/**
 * A link that accepts super-frames and incomplete checksums for one that does not, and makes received segments super-frames where
 * the link's batches allow it.
 */
export class SoftwareOffload implements Link {
  readonly offload = true;
  readonly mtuBytes: number;
  readonly #inner: Link;
  /** Where a frame is put together whose headers are not all in its head. */
  readonly #frame: Uint8Array = new Uint8Array(FRAME_BYTES_MAX);
  /** The headers of what is being sent, and those of the super-frame from which it is cut. */
  readonly #head: Uint8Array = new Uint8Array(HEADERS_LEN_MAX);
  readonly #first: Uint8Array = new Uint8Array(HEADERS_LEN_MAX);

  constructor(inner: Link) {
    this.#inner = inner;
    this.mtuBytes = inner.mtuBytes;
  }

  start(sink: FrameSink): void {
    this.#inner.start(this.#inner.batches ? new Coalescer(sink) : sink);
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
    const gsoSize = gsoType === GSO_NONE ? 0 : get16le(head, headOff + 4);
    // Headers in the head and payload in the body, or all of it in the head: what there mostly is needs no joining.
    if (gsoSize > 0) {
      const layout = parseLayout(head, headOff, headLen);
      if (layout && bodyLen === 0)
        return this.#cut(
          layout,
          head,
          headOff,
          gsoType,
          gsoSize,
          head,
          headOff + layout.payload,
          headLen - layout.payload,
        );
      if (layout?.payload === headLen)
        return this.#cut(layout, head, headOff, gsoType, gsoSize, body!, bodyOff, bodyLen);
    } else if (headLen <= HEADERS_LEN_MAX) {
      const checksum = VNET_HDR_LEN + get16le(head, headOff + 6) + get16le(head, headOff + 8);
      if (checksum + 2 <= headLen) return this.#complete(head, headOff, headLen, body, bodyOff, bodyLen);
    }
    const frame = this.#frame;
    frame.set(head.subarray(headOff, headOff + headLen));
    if (body && bodyLen > 0) frame.set(body.subarray(bodyOff, bodyOff + bodyLen), headLen);
    if (gsoSize === 0) return this.#completeWhole(frame, end);
    const layout = parseLayout(frame, 0, end);
    if (!layout) return false;
    return this.#cut(layout, frame, 0, gsoType, gsoSize, frame, layout.payload, end - layout.payload);
  }

  /** Finishes the checksum whose pseudo header's sum is in place already. */
  #completeWhole(frame: Uint8Array, end: number): boolean {
    const start = VNET_HDR_LEN + get16le(frame, 6);
    if (start + get16le(frame, 8) + 2 > end) return false;
    putSum(frame, start, sum(frame, start, end - start));
    return this.#inner.send(frame, 0, end, undefined, 0, 0);
  }

  /** The same for a frame in two pieces with a small head, in which the checksum is. */
  #complete(
    from: Uint8Array,
    fromOff: number,
    headLen: number,
    body: Uint8Array | undefined,
    bodyOff: number,
    bodyLen: number,
  ): boolean {
    const head = this.#head;
    copyHead(head, from, fromOff, headLen);
    const start = VNET_HDR_LEN + get16le(head, 6);
    let total = sum(head, start, headLen - start);
    if (body && bodyLen > 0) {
      const rest = sum(body, bodyOff, bodyLen);
      // Behind an odd number of bytes the halves of all words are exchanged (RFC 1071 section 2 (B)).
      total += (headLen - start) & 1 ? ((rest & 0xff) << 8) | (rest >>> 8) : rest;
    }
    putSum(head, start, total);
    return this.#inner.send(head, 0, headLen, body, bodyOff, bodyLen);
  }

  /** Cuts a super-frame. `payload` is all that comes after the headers at `from`. */
  #cut(
    layout: Layout,
    from: Uint8Array,
    fromOff: number,
    gsoType: number,
    gsoSize: number,
    payload: Uint8Array,
    off: number,
    len: number,
  ): boolean {
    const tcp = gsoType === GSO_TCPV4 || gsoType === GSO_TCPV6;
    if (!tcp && gsoType !== GSO_UDP_L4) return false;
    if (layout.protocol !== (tcp ? PROTOCOL_TCP : PROTOCOL_UDP) || layout.payload > HEADERS_LEN_MAX)
      return false;
    const head = this.#head;
    copyHead(head, from, fromOff, layout.payload);
    head.fill(0, 0, VNET_HDR_LEN);
    const first = this.#first;
    copyHead(first, head, 0, layout.payload);
    let taken = false;
    for (let at = 0, index = 0; at < len; at += gsoSize, index++) {
      const length = Math.min(gsoSize, len - at);
      if (tcp) writeTcp(head, first, layout, at, index === 0, at + length === len);
      writeLengths(head, first, layout, length, index);
      writeChecksums(head, layout, sum(payload, off + at, length), length);
      // One lost segment is lost; the others may still arrive, as on any wire.
      if (this.#inner.send(head, 0, layout.payload, payload, off + at, length)) taken = true;
    }
    return taken;
  }
}

/** Writes the complement of a sum where the virtio_net_hdr wants it, and makes the frame a plain one. */
function putSum(frame: Uint8Array, start: number, total: number): void {
  const offset = get16le(frame, 8);
  const value = complement(total);
  // RFC 768: a computed zero is sent as all ones, since zero means none.
  put16(frame, start + offset, offset === UDP_CHECKSUM_OFFSET && value === 0 ? 0xffff : value);
  frame.fill(0, 0, VNET_HDR_LEN);
}

/** Small: a loop is faster than making a view for set(). */
function copyHead(to: Uint8Array, from: Uint8Array, off: number, len: number): void {
  for (let i = 0; i < len; i++) to[i] = from[off + i]!;
}

/** Finds the headers of the frame whose first `end` bytes are at `off`; undefined when they are not all in these. */
function parseLayout(frame: Uint8Array, off: number, end: number): Layout | undefined {
  const ip = VNET_HDR_LEN + ETHERNET_HEADER_LEN;
  if (end < ip + IPV4_HEADER_LEN_MIN) return undefined;
  const etherType = get16(frame, off + VNET_HDR_LEN + 12);
  let transport: number;
  let protocol: number;
  if (etherType === ETHERTYPE_IPV4) {
    const headerLen = (frame[off + ip]! & 15) * 4;
    if (headerLen < IPV4_HEADER_LEN_MIN) return undefined;
    transport = ip + headerLen;
    protocol = frame[off + ip + 9]!;
  } else if (etherType === ETHERTYPE_IPV6) {
    // The kernel gives no extension headers with a super-frame that it asks us to cut.
    transport = ip + IPV6_HEADER_LEN;
    protocol = frame[off + ip + 6]!;
  } else return undefined;
  if (end < transport + TCP_HEADER_LEN_MIN && protocol === PROTOCOL_TCP) return undefined;
  if (end < transport + UDP_HEADER_LEN) return undefined;
  const headerLen = protocol === PROTOCOL_TCP ? (frame[off + transport + 12]! >>> 4) * 4 : UDP_HEADER_LEN;
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

/** @param payloadSum of the segment's payload, which begins at an even place. */
function writeChecksums(segment: Uint8Array, layout: Layout, payloadSum: number, length: number): void {
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
  const value = complement(pseudo + sum(segment, transport, payload - transport) + payloadSum);
  put16(segment, at, protocol === PROTOCOL_UDP && value === 0 ? 0xffff : value);
}
