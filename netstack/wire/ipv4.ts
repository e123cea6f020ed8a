/** IPv4 headers (RFC 791), with differentiated services and ECN in the old type of service octet (RFC 2474, 3168). */
import { formatIpv4, get16, get32, put16, put32 } from './address.ts';
import { complement, sum } from './checksum.ts';

/** Length of a header without options. */
export const IPV4_LEN = 20;
/** Largest total length. */
export const IPV4_BYTES_MAX = 65535;
export const PROTOCOL_ICMP = 1;
export const PROTOCOL_TCP = 6;
export const PROTOCOL_UDP = 17;

const FLAG_DF = 0x4000;
const FLAG_MF = 0x2000;

/** Option types that would have us route for the sender (RFC 791 section 3.1); refused as RFC 7126 sections 4.3, 4.4 advise. */
const OPTION_LSRR = 131;
const OPTION_SSRR = 137;

export interface Ipv4Repr {
  /** Length of the header with its options. */
  headerLen: number;
  /** Length of header and payload; what follows in the frame is padding. */
  totalLen: number;
  tos: number;
  ident: number;
  dontFragment: boolean;
  moreFragments: boolean;
  /** Place of this fragment's payload in the datagram, in bytes. */
  fragmentOffset: number;
  ttl: number;
  protocol: number;
  src: number;
  dst: number;
}

/**
 * Parses a header; undefined when it is short, not version 4, longer than the frame, or its checksum is wrong.
 * Options are skipped: {@link ipv4OptionsAllowed} judges them.
 */
export function parseIpv4Header(buf: Uint8Array, off: number, end: number): Ipv4Repr | undefined {
  if (end - off < IPV4_LEN || buf[off]! >>> 4 !== 4) return undefined;
  const headerLen = (buf[off]! & 0xf) * 4;
  const totalLen = get16(buf, off + 2);
  if (headerLen < IPV4_LEN || totalLen < headerLen || off + totalLen > end) return undefined;
  if (sum(buf, off, headerLen) !== 0xffff) return undefined;
  const fragment = get16(buf, off + 6);
  return {
    headerLen,
    totalLen,
    tos: buf[off + 1]!,
    ident: get16(buf, off + 4),
    dontFragment: (fragment & FLAG_DF) !== 0,
    moreFragments: (fragment & FLAG_MF) !== 0,
    fragmentOffset: (fragment & 0x1fff) * 8,
    ttl: buf[off + 8]!,
    protocol: buf[off + 9]!,
    src: get32(buf, off + 12),
    dst: get32(buf, off + 16),
  };
}

/** True when the options are well formed and none asks for source routing. */
export function ipv4OptionsAllowed(buf: Uint8Array, off: number, headerLen: number): boolean {
  const end = off + headerLen;
  let at = off + IPV4_LEN;
  while (at < end) {
    const type = buf[at]!;
    if (type === 0) return true;
    if (type === 1) {
      at++;
      continue;
    }
    if (type === OPTION_LSRR || type === OPTION_SSRR || at + 1 >= end) return false;
    const len = buf[at + 1]!;
    if (len < 2 || at + len > end) return false;
    at += len;
  }
  return true;
}

/** Writes a header without options, with its checksum; `headerLen` of the repr must be {@link IPV4_LEN}. */
export function emitIpv4(repr: Ipv4Repr, buf: Uint8Array, off: number): void {
  buf[off] = 0x45;
  buf[off + 1] = repr.tos;
  put16(buf, off + 2, repr.totalLen);
  put16(buf, off + 4, repr.ident);
  const flags = (repr.dontFragment ? FLAG_DF : 0) | (repr.moreFragments ? FLAG_MF : 0);
  put16(buf, off + 6, flags | (repr.fragmentOffset >>> 3));
  buf[off + 8] = repr.ttl;
  buf[off + 9] = repr.protocol;
  put16(buf, off + 10, 0);
  put32(buf, off + 12, repr.src);
  put32(buf, off + 16, repr.dst);
  put16(buf, off + 10, complement(sum(buf, off, IPV4_LEN)));
}

export function formatIpv4Header(repr: Ipv4Repr): string {
  const fragment =
    repr.moreFragments || repr.fragmentOffset > 0
      ? ` fragment ${repr.fragmentOffset}${repr.moreFragments ? '+' : ''}`
      : '';
  return `${formatIpv4(repr.src)} > ${formatIpv4(repr.dst)} protocol ${repr.protocol} ttl ${repr.ttl} length ${repr.totalLen}${fragment}`;
}
