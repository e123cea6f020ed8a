/**
 * NTP packets (RFC 5905 section 7.3): 48 bytes, and extension fields or a MAC behind them that a server without keys
 * does not read. Timestamps are kept as the two 32-bit halves of the 64-bit format (section 6), so that the client's
 * transmit timestamp comes back bit for bit: clients use it as a nonce.
 */
import { get32, put32 } from './address.ts';

export const NTP_LEN = 48;
export const NTP_PORT = 123;
export const NTP_MODE_CLIENT = 3;
export const NTP_MODE_SERVER = 4;

/** Seconds from the NTP era 0 (1900) to the Unix epoch. */
const UNIX_EPOCH_S = 2_208_988_800;

/** Seconds and fraction (units of 2^-32 s) since 1900, modulo 2^32. */
export interface NtpTimestamp {
  seconds: number;
  fraction: number;
}

/** An NTP packet without extensions. */
export interface NtpPacket {
  leap: number;
  version: number;
  mode: number;
  stratum: number;
  /** log2 of the poll interval in seconds. */
  poll: number;
  /** log2 of the clock's precision in seconds, negative. */
  precision: number;
  /** Round trip to the reference clock, in units of 2^-16 s. */
  rootDelay: number;
  /** Error bound against the reference clock, in units of 2^-16 s. */
  rootDispersion: number;
  referenceId: number;
  reference: NtpTimestamp;
  origin: NtpTimestamp;
  receive: NtpTimestamp;
  transmit: NtpTimestamp;
}

function timestamp(buf: Uint8Array, off: number): NtpTimestamp {
  return { seconds: get32(buf, off), fraction: get32(buf, off + 4) };
}

function putTimestamp(buf: Uint8Array, off: number, value: NtpTimestamp): void {
  put32(buf, off, value.seconds);
  put32(buf, off + 4, value.fraction);
}

/** Parses the packet in `buf[off..end)`; what follows the 48 bytes is ignored. */
export function parseNtp(buf: Uint8Array, off: number, end: number): NtpPacket | undefined {
  if (end - off < NTP_LEN) return undefined;
  const first = buf[off]!;
  return {
    leap: first >>> 6,
    version: (first >>> 3) & 7,
    mode: first & 7,
    stratum: buf[off + 1]!,
    poll: (buf[off + 2]! << 24) >> 24,
    precision: (buf[off + 3]! << 24) >> 24,
    rootDelay: get32(buf, off + 4),
    rootDispersion: get32(buf, off + 8),
    referenceId: get32(buf, off + 12),
    reference: timestamp(buf, off + 16),
    origin: timestamp(buf, off + 24),
    receive: timestamp(buf, off + 32),
    transmit: timestamp(buf, off + 40),
  };
}

/** Writes `packet` at `off`; returns the offset behind it. */
export function emitNtp(packet: NtpPacket, buf: Uint8Array, off: number): number {
  buf[off] = (packet.leap << 6) | (packet.version << 3) | packet.mode;
  buf[off + 1] = packet.stratum;
  buf[off + 2] = packet.poll;
  buf[off + 3] = packet.precision;
  put32(buf, off + 4, packet.rootDelay);
  put32(buf, off + 8, packet.rootDispersion);
  put32(buf, off + 12, packet.referenceId);
  putTimestamp(buf, off + 16, packet.reference);
  putTimestamp(buf, off + 24, packet.origin);
  putTimestamp(buf, off + 32, packet.receive);
  putTimestamp(buf, off + 40, packet.transmit);
  return off + NTP_LEN;
}

/** The NTP timestamp of a time in milliseconds since the Unix epoch. Era 1 begins in 2036 and wraps by itself. */
export function ntpTimestamp(unixMs: number): NtpTimestamp {
  const seconds = Math.floor(unixMs / 1000);
  const fraction = Math.floor((unixMs / 1000 - seconds) * 0x1_0000_0000);
  return { seconds: (seconds + UNIX_EPOCH_S) >>> 0, fraction: fraction >>> 0 };
}

/** Milliseconds in units of 2^-16 s (the short format of section 6), saturating. */
export function ntpShort(ms: number): number {
  return Math.min(0xffff_ffff, Math.max(0, Math.round((ms / 1000) * 0x1_0000)));
}
