/** ICMPv6 (RFC 4443). The checksum covers a pseudo header of the IPv6 addresses. */
import { get32, put16, put32 } from './address.ts';
import { complement, fold, pseudoIpv6, sum } from './checksum.ts';
import { NEXT_ICMPV6 } from './ipv6.ts';

/** Length of type, code, checksum and the word that differs by type. */
export const ICMPV6_LEN = 8;

export const ICMPV6_UNREACHABLE = 1;
export const ICMPV6_TOO_BIG = 2;
export const ICMPV6_TIME_EXCEEDED = 3;
export const ICMPV6_PARAMETER_PROBLEM = 4;
export const ICMPV6_ECHO_REQUEST = 128;
export const ICMPV6_ECHO_REPLY = 129;

/** Codes of {@link ICMPV6_UNREACHABLE}. */
export const UNREACHABLE6_NO_ROUTE = 0;
export const UNREACHABLE6_PROHIBITED = 1;
export const UNREACHABLE6_ADDRESS = 3;
export const UNREACHABLE6_PORT = 4;

export interface Icmpv6Repr {
  type: number;
  code: number;
  /** Bytes 4 to 7: identifier and sequence number of an echo, MTU of "packet too big", a pointer. */
  rest: number;
}

/** Parses a message from `off` to `end`; undefined when it is short or its checksum is wrong. Addresses are 16 bytes at an offset. */
export function parseIcmpv6(
  buf: Uint8Array,
  off: number,
  end: number,
  src: Uint8Array,
  srcOff: number,
  dst: Uint8Array,
  dstOff: number,
): Icmpv6Repr | undefined {
  const len = end - off;
  if (len < ICMPV6_LEN) return undefined;
  const total = pseudoIpv6(src, srcOff, dst, dstOff, NEXT_ICMPV6, len) + sum(buf, off, len);
  if (fold(total) !== 0xffff) return undefined;
  return { type: buf[off]!, code: buf[off + 1]!, rest: get32(buf, off + 4) };
}

/** Writes the first 8 bytes with the checksum over the pseudo header, them and a body, which may lie elsewhere. */
export function emitIcmpv6(
  repr: Icmpv6Repr,
  src: Uint8Array,
  srcOff: number,
  dst: Uint8Array,
  dstOff: number,
  body: Uint8Array,
  bodyOff: number,
  bodyLen: number,
  buf: Uint8Array,
  off: number,
): void {
  buf[off] = repr.type;
  buf[off + 1] = repr.code;
  put16(buf, off + 2, 0);
  put32(buf, off + 4, repr.rest);
  const header = pseudoIpv6(src, srcOff, dst, dstOff, NEXT_ICMPV6, ICMPV6_LEN + bodyLen);
  put16(buf, off + 2, complement(header + sum(buf, off, ICMPV6_LEN) + sum(body, bodyOff, bodyLen)));
}

/** True for messages that report an error about another packet (RFC 4443 section 2.1: the high bit is clear). */
export function isIcmpv6Error(type: number): boolean {
  return type < 128;
}

export function formatIcmpv6(repr: Icmpv6Repr): string {
  if (repr.type === ICMPV6_ECHO_REQUEST || repr.type === ICMPV6_ECHO_REPLY)
    return `icmp6 echo ${repr.type === ICMPV6_ECHO_REQUEST ? 'request' : 'reply'} id ${repr.rest >>> 16} seq ${repr.rest & 0xffff}`;
  return `icmp6 type ${repr.type} code ${repr.code}`;
}
