/** The virtio_net_hdr before every frame (Virtual I/O Device 1.2, section 5.1.6; linux/virtio_net.h): see link/link.ts. */

/** In flags: the transport checksum is still to be completed. */
export const NEEDS_CSUM = 1;

/** gso_type, without the ECN bit. */
export const GSO_NONE = 0;
export const GSO_TCPV4 = 1;
export const GSO_TCPV6 = 4;
export const GSO_UDP_L4 = 5;
/** In gso_type: the sender had ECN's CWR in the super-frame. */
export const GSO_ECN = 0x80;

/** The header is little endian. */
export function get16le(buf: Uint8Array, off: number): number {
  return buf[off]! | (buf[off + 1]! << 8);
}

export function put16le(buf: Uint8Array, off: number, value: number): void {
  buf[off] = value;
  buf[off + 1] = value >>> 8;
}
