/** ARP for IPv4 over Ethernet (RFC 826). */
import { formatIpv4, formatMac, get16, get32, getMac, put16, put32, putMac } from './address.ts';

export const ARP_LEN = 28;
export const ARP_REQUEST = 1;
export const ARP_REPLY = 2;

export interface ArpRepr {
  op: number;
  senderMac: number;
  senderIp: number;
  targetMac: number;
  targetIp: number;
}

/** Parses an ARP packet; undefined when it is short or not IPv4 over Ethernet, or neither request nor reply. */
export function parseArp(buf: Uint8Array, off: number, end: number): ArpRepr | undefined {
  if (end - off < ARP_LEN) return undefined;
  // Hardware type 1 (Ethernet), protocol 0x0800, lengths 6 and 4.
  if (get32(buf, off) !== 0x0001_0800 || get16(buf, off + 4) !== 0x0604) return undefined;
  const op = get16(buf, off + 6);
  if (op !== ARP_REQUEST && op !== ARP_REPLY) return undefined;
  return {
    op,
    senderMac: getMac(buf, off + 8),
    senderIp: get32(buf, off + 14),
    targetMac: getMac(buf, off + 18),
    targetIp: get32(buf, off + 24),
  };
}

export function emitArp(repr: ArpRepr, buf: Uint8Array, off: number): void {
  put32(buf, off, 0x0001_0800);
  put16(buf, off + 4, 0x0604);
  put16(buf, off + 6, repr.op);
  putMac(buf, off + 8, repr.senderMac);
  put32(buf, off + 14, repr.senderIp);
  putMac(buf, off + 18, repr.targetMac);
  put32(buf, off + 24, repr.targetIp);
}

export function formatArp(repr: ArpRepr): string {
  return repr.op === ARP_REQUEST
    ? `who-has ${formatIpv4(repr.targetIp)} tell ${formatIpv4(repr.senderIp)} (${formatMac(repr.senderMac)})`
    : `${formatIpv4(repr.senderIp)} is-at ${formatMac(repr.senderMac)}`;
}
