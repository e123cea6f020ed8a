/** ICMP (RFC 792, 1191, 1812). */
import { get32, put16, put32 } from './address.ts';
import { complement, sum } from './checksum.ts';

/** Length of type, code, checksum and the word that differs by type. */
export const ICMP_LEN = 8;

export const ICMP_ECHO_REPLY = 0;
export const ICMP_UNREACHABLE = 3;
export const ICMP_ECHO_REQUEST = 8;
export const ICMP_TIME_EXCEEDED = 11;
export const ICMP_PARAMETER_PROBLEM = 12;

/** Codes of {@link ICMP_UNREACHABLE}. */
export const UNREACHABLE_NET = 0;
export const UNREACHABLE_HOST = 1;
export const UNREACHABLE_PROTOCOL = 2;
export const UNREACHABLE_PORT = 3;
export const UNREACHABLE_FRAGMENTATION = 4;
/** Communication administratively prohibited (RFC 1812 section 5.2.7.1). */
export const UNREACHABLE_PROHIBITED = 13;
/** Codes of {@link ICMP_TIME_EXCEEDED}. */
export const EXCEEDED_TTL = 0;
export const EXCEEDED_REASSEMBLY = 1;

export interface IcmpRepr {
  type: number;
  code: number;
  /** Bytes 4 to 7: identifier and sequence number of an echo, next-hop MTU of "fragmentation needed", a pointer. */
  rest: number;
}

/** Parses a message from `off` to `end`; undefined when it is short or its checksum is wrong. */
export function parseIcmp(buf: Uint8Array, off: number, end: number): IcmpRepr | undefined {
  if (end - off < ICMP_LEN || sum(buf, off, end - off) !== 0xffff) return undefined;
  return { type: buf[off]!, code: buf[off + 1]!, rest: get32(buf, off + 4) };
}

/**
 * Writes the first 8 bytes with the checksum over them and `bodyLen` bytes of body, which may lie elsewhere.
 */
export function emitIcmp(
  repr: IcmpRepr,
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
  put16(buf, off + 2, complement(sum(buf, off, ICMP_LEN) + sum(body, bodyOff, bodyLen)));
}

/** True for messages that report an error about another packet; they never cause errors themselves (RFC 1122 section 3.2.2). */
export function isIcmpError(type: number): boolean {
  return type === 3 || type === 4 || type === 5 || type === 11 || type === 12;
}

export function formatIcmp(repr: IcmpRepr): string {
  if (repr.type === ICMP_ECHO_REQUEST || repr.type === ICMP_ECHO_REPLY)
    return `icmp echo ${repr.type === ICMP_ECHO_REQUEST ? 'request' : 'reply'} id ${repr.rest >>> 16} seq ${repr.rest & 0xffff}`;
  return `icmp type ${repr.type} code ${repr.code}`;
}
