/** UDP headers (RFC 768). The checksum needs the IP addresses and is the caller's. */
import { get16, put16 } from './address.ts';

export const UDP_LEN = 8;
/** Place of the checksum in the header: the virtio_net_hdr's csum_offset. */
export const UDP_CHECKSUM_OFFSET = 6;

export interface UdpRepr {
  srcPort: number;
  dstPort: number;
  /** Length of header and payload. */
  len: number;
  /** 0: the sender made none (RFC 768; not allowed over IPv6, RFC 8200 section 8.1). */
  checksum: number;
}

/** Parses a header; undefined when it is short or says more than there is (RFC 1122 section 4.1.3.4 leaves no other reading). */
export function parseUdp(buf: Uint8Array, off: number, end: number): UdpRepr | undefined {
  if (end - off < UDP_LEN) return undefined;
  const len = get16(buf, off + 4);
  if (len < UDP_LEN || off + len > end) return undefined;
  return {
    srcPort: get16(buf, off),
    dstPort: get16(buf, off + 2),
    len,
    checksum: get16(buf, off + 6),
  };
}

export function emitUdp(repr: UdpRepr, buf: Uint8Array, off: number): void {
  put16(buf, off, repr.srcPort);
  put16(buf, off + 2, repr.dstPort);
  put16(buf, off + 4, repr.len);
  put16(buf, off + 6, repr.checksum);
}

export function formatUdp(repr: UdpRepr): string {
  return `udp ${repr.srcPort} > ${repr.dstPort} length ${repr.len - UDP_LEN}`;
}
