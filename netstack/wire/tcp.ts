/**
 * TCP segments as bytes (RFC 9293 section 3.1), with the options that a modern stack needs: MSS, window scale and
 * timestamps (RFC 7323), SACK (RFC 2018). Checksums are the IP layer's: they cover its pseudo header and are mostly
 * left to the link's offload.
 *
 * One {@link TcpSegment} record serves a whole stack: parsing fills it, emitting reads it, and nothing is allocated per
 * packet. Sequence numbers and timestamps are kept as signed 32-bit integers, the form in which V8 holds them without a
 * heap number; compare them by `tcp/sequence.ts`, print them with `>>> 0`.
 */

export const TCP_HEADER_LEN = 20;
/** Header with all options: the data offset has four bits. */
export const TCP_HEADER_LEN_MAX = 60;
/** Where the checksum is in the header, for the offload's csum_offset. */
export const TCP_CHECKSUM_OFFSET = 16;

export const TCP_FIN = 0x01;
export const TCP_SYN = 0x02;
export const TCP_RST = 0x04;
export const TCP_PSH = 0x08;
export const TCP_ACK = 0x10;
/** RFC 3168 section 6.1: the echo of a congestion mark, and that the sender has slowed down. */
export const TCP_ECE = 0x40;
export const TCP_CWR = 0x80;

/** RFC 2018 section 3: four blocks fit in a header without timestamps, three with them. */
export const SACK_BLOCKS_MAX = 4;
/** RFC 7323 section 2.3: a larger shift is taken as 14. */
export const WINDOW_SCALE_MAX = 14;

const OPTION_END = 0;
const OPTION_NOP = 1;
const OPTION_MSS = 2;
const OPTION_WINDOW_SCALE = 3;
const OPTION_SACK_PERMITTED = 4;
const OPTION_SACK = 5;
const OPTION_TIMESTAMPS = 8;

/** One segment: header, known options, and where its payload is. */
export class TcpSegment {
  sourcePort = 0;
  destinationPort = 0;
  /** Signed 32-bit, as all sequence numbers here. */
  sequence = 0;
  acknowledgment = 0;
  /** The eight flag bits, `TCP_*`. */
  flags = 0;
  /** ECN field of the IP header (RFC 3168 section 5): not of these bytes, but of the packet that they come or go in. */
  ecn = 0;
  /** As in the header: not scaled. */
  window = 0;
  urgentPointer = 0;
  /** Maximum segment size option, 0 when absent. */
  mss = 0;
  /** Window scale option (at most 14), -1 when absent. */
  windowScale = -1;
  sackPermitted = false;
  hasTimestamps = false;
  timestamp = 0;
  timestampEcho = 0;
  /** Number of SACK blocks: block i is [sack[2i], sack[2i + 1]). */
  sackCount = 0;
  readonly sack: Int32Array = new Int32Array(2 * SACK_BLOCKS_MAX);
  /** Payload is `payload[payloadOff .. payloadEnd)`: in the frame when parsed, in the send ring when emitted. */
  payload: Uint8Array = NO_BYTES;
  payloadOff = 0;
  payloadEnd = 0;
  /**
   * When emitted: payload bytes of each segment if this is a super-segment that the link is to cut, else 0.
   * (Received super-segments need no such thing: they count by their length.)
   */
  gsoBytes = 0;

  /** Empties the record: no flags, options or payload. Ports are kept. */
  clear(): void {
    this.sequence = 0;
    this.acknowledgment = 0;
    this.flags = 0;
    this.ecn = 0;
    this.window = 0;
    this.urgentPointer = 0;
    this.gsoBytes = 0;
    this.payload = NO_BYTES;
    this.payloadOff = 0;
    this.payloadEnd = 0;
    clearOptions(this);
  }
}

const NO_BYTES: Uint8Array = new Uint8Array(0);

function clearOptions(seg: TcpSegment): void {
  seg.mss = 0;
  seg.windowScale = -1;
  seg.sackPermitted = false;
  seg.hasTimestamps = false;
  seg.timestamp = 0;
  seg.timestampEcho = 0;
  seg.sackCount = 0;
}

function read16(buf: Uint8Array, off: number): number {
  return (buf[off]! << 8) | buf[off + 1]!;
}

function read32(buf: Uint8Array, off: number): number {
  return (buf[off]! << 24) | (buf[off + 1]! << 16) | (buf[off + 2]! << 8) | buf[off + 3]!;
}

function write16(buf: Uint8Array, off: number, value: number): void {
  buf[off] = value >>> 8;
  buf[off + 1] = value;
}

function write32(buf: Uint8Array, off: number, value: number): void {
  buf[off] = value >>> 24;
  buf[off + 1] = value >>> 16;
  buf[off + 2] = value >>> 8;
  buf[off + 3] = value;
}

/**
 * Reads the segment in `buf[off .. end)` into `seg`, whose payload then points into `buf`. Returns false, with `seg`
 * undefined in part, when the bytes are no segment: cut short, or a data offset out of range. Options of a bad length end
 * the options, never the segment (RFC 9293 MUST-7); an option twice: the last one counts.
 */
export function parseTcp(buf: Uint8Array, off: number, end: number, seg: TcpSegment): boolean {
  if (end > buf.length || end - off < TCP_HEADER_LEN) return false;
  const headerLen = (buf[off + 12]! >>> 4) << 2;
  if (headerLen < TCP_HEADER_LEN || headerLen > end - off) return false;
  seg.sourcePort = read16(buf, off);
  seg.destinationPort = read16(buf, off + 2);
  seg.sequence = read32(buf, off + 4);
  seg.acknowledgment = read32(buf, off + 8);
  seg.flags = buf[off + 13]!;
  seg.window = read16(buf, off + 14);
  seg.urgentPointer = read16(buf, off + 18);
  seg.payload = buf;
  seg.payloadOff = off + headerLen;
  seg.payloadEnd = end;
  seg.ecn = 0;
  seg.gsoBytes = 0;
  clearOptions(seg);
  if (headerLen > TCP_HEADER_LEN) parseOptions(buf, off + TCP_HEADER_LEN, off + headerLen, seg);
  return true;
}

function parseOptions(buf: Uint8Array, from: number, end: number, seg: TcpSegment): void {
  let off = from;
  while (off < end) {
    const kind = buf[off]!;
    if (kind === OPTION_END) return;
    if (kind === OPTION_NOP) {
      off++;
      continue;
    }
    const len = off + 1 < end ? buf[off + 1]! : 0;
    if (len < 2 || off + len > end) return;
    parseOption(buf, off, kind, len, seg);
    off += len;
  }
}

/** Reads one option; one whose length is not the one of its kind is skipped. */
function parseOption(buf: Uint8Array, off: number, kind: number, len: number, seg: TcpSegment): void {
  switch (kind) {
    case OPTION_TIMESTAMPS:
      if (len !== 10) return;
      seg.hasTimestamps = true;
      seg.timestamp = read32(buf, off + 2);
      seg.timestampEcho = read32(buf, off + 6);
      return;
    case OPTION_SACK: {
      if ((len - 2) % 8 !== 0) return;
      seg.sackCount = Math.min((len - 2) >>> 3, SACK_BLOCKS_MAX);
      for (let i = 0; i < 2 * seg.sackCount; i++) seg.sack[i] = read32(buf, off + 2 + 4 * i);
      return;
    }
    case OPTION_MSS:
      if (len === 4) seg.mss = read16(buf, off + 2);
      return;
    case OPTION_WINDOW_SCALE:
      if (len === 3) seg.windowScale = Math.min(buf[off + 2]!, WINDOW_SCALE_MAX);
      return;
    case OPTION_SACK_PERMITTED:
      if (len === 2) seg.sackPermitted = true;
      return;
  }
}

/** Bytes that {@link emitTcp} writes: the header with its options, a multiple of four. */
export function tcpHeaderLen(seg: TcpSegment): number {
  let len = TCP_HEADER_LEN;
  if (seg.mss > 0) len += 4;
  if (seg.sackPermitted && !seg.hasTimestamps) len += 4;
  if (seg.hasTimestamps) len += 12;
  if (seg.windowScale >= 0) len += 4;
  if (seg.sackCount > 0) len += 4 + 8 * seg.sackCount;
  return len;
}

/**
 * Writes the header of `seg` at `off`, with a zero checksum, and returns its length. The caller has room for
 * {@link TCP_HEADER_LEN_MAX} bytes and gives options that fit (with timestamps at most three SACK blocks).
 */
export function emitTcp(seg: TcpSegment, buf: Uint8Array, off: number): number {
  write16(buf, off, seg.sourcePort);
  write16(buf, off + 2, seg.destinationPort);
  write32(buf, off + 4, seg.sequence);
  write32(buf, off + 8, seg.acknowledgment);
  buf[off + 13] = seg.flags;
  write16(buf, off + 14, seg.window);
  write16(buf, off + 16, 0);
  write16(buf, off + 18, seg.urgentPointer);
  let at = off + TCP_HEADER_LEN;
  if (seg.mss > 0) {
    write16(buf, at, (OPTION_MSS << 8) | 4);
    write16(buf, at + 2, seg.mss);
    at += 4;
  }
  if (seg.hasTimestamps) at = emitTimestamps(seg, buf, at);
  else if (seg.sackPermitted) {
    write16(buf, at, (OPTION_NOP << 8) | OPTION_NOP);
    write16(buf, at + 2, (OPTION_SACK_PERMITTED << 8) | 2);
    at += 4;
  }
  if (seg.windowScale >= 0) {
    write16(buf, at, (OPTION_NOP << 8) | OPTION_WINDOW_SCALE);
    write16(buf, at + 2, (3 << 8) | seg.windowScale);
    at += 4;
  }
  if (seg.sackCount > 0) {
    write16(buf, at, (OPTION_NOP << 8) | OPTION_NOP);
    write16(buf, at + 2, (OPTION_SACK << 8) | (2 + 8 * seg.sackCount));
    at += 4;
    for (let i = 0; i < 2 * seg.sackCount; i++, at += 4) write32(buf, at, seg.sack[i]!);
  }
  buf[off + 12] = (at - off) << 2;
  return at - off;
}

/** Timestamps, aligned as RFC 7323 appendix A wants; the two bytes of padding carry SACK-permitted on a SYN. */
function emitTimestamps(seg: TcpSegment, buf: Uint8Array, at: number): number {
  write16(buf, at, seg.sackPermitted ? (OPTION_SACK_PERMITTED << 8) | 2 : (OPTION_NOP << 8) | OPTION_NOP);
  write16(buf, at + 2, (OPTION_TIMESTAMPS << 8) | 10);
  write32(buf, at + 4, seg.timestamp);
  write32(buf, at + 8, seg.timestampEcho);
  return at + 12;
}

/** One line for logs and failed tests: `80 > 4000 [SA] seq 1 ack 2 win 65535 mss 1460 len 0`. */
export function formatTcp(seg: TcpSegment): string {
  const flags = [...'FSRPAUEC'].filter((_, i) => seg.flags & (1 << i)).join('');
  let text = `${seg.sourcePort} > ${seg.destinationPort} [${flags}] seq ${seg.sequence >>> 0}`;
  if (seg.flags & TCP_ACK) text += ` ack ${seg.acknowledgment >>> 0}`;
  text += ` win ${seg.window}`;
  if (seg.mss) text += ` mss ${seg.mss}`;
  if (seg.windowScale >= 0) text += ` wscale ${seg.windowScale}`;
  if (seg.sackPermitted) text += ' sackOK';
  if (seg.hasTimestamps) text += ` ts ${seg.timestamp >>> 0}/${seg.timestampEcho >>> 0}`;
  for (let i = 0; i < seg.sackCount; i++)
    text += ` sack ${seg.sack[2 * i]! >>> 0}-${seg.sack[2 * i + 1]! >>> 0}`;
  return `${text} len ${seg.payloadEnd - seg.payloadOff}`;
}
