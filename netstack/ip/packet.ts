/**
 * The packet in hand. One record serves the whole stack: input fills it on the way up, and handlers read it. Its bytes
 * and addresses are valid until the next packet.
 */
import { putMapped } from '../wire/address.ts';

const NO_BYTES: Uint8Array = new Uint8Array(0);

export class Packet {
  buf: Uint8Array = NO_BYTES;
  /** Sender's MAC address. */
  srcMac = 0;
  /** The frame came to a group address: no ICMP error may answer it (RFC 1122 section 3.2.2). */
  group = false;
  ipv4 = true;
  /** Start of the IP header. */
  ipOff = 0;
  /** Start and end of the upper layer. */
  payloadOff = 0;
  end = 0;
  protocol = 0;
  /** Place in the packet of the field that names the protocol. */
  protocolOff = 0;
  ttl = 0;
  /** Differentiated services and ECN (RFC 2474, RFC 3168). */
  trafficClass = 0;
  /** Addresses as 16 bytes, IPv4 mapped. */
  readonly src: Uint8Array = new Uint8Array(16);
  readonly dst: Uint8Array = new Uint8Array(16);
  /** The addresses as numbers, when `ipv4`. */
  srcIpv4 = 0;
  dstIpv4 = 0;
  /** The upper layer's checksum is vouched for by the link (NEEDS_CSUM) and is not to be verified. */
  trusted = false;
  gsoType = 0;
  gsoSize = 0;

  setIpv4(src: number, dst: number): void {
    this.ipv4 = true;
    this.srcIpv4 = src;
    this.dstIpv4 = dst;
    putMapped(this.src, 0, src);
    putMapped(this.dst, 0, dst);
  }

  setIpv6(buf: Uint8Array, srcOff: number, dstOff: number): void {
    this.ipv4 = false;
    for (let i = 0; i < 16; i++) {
      this.src[i] = buf[srcOff + i]!;
      this.dst[i] = buf[dstOff + i]!;
    }
  }
}
