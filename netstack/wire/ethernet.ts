/**
 * Ethernet II frames (IEEE 802.3 clause 3), without preamble and frame check sequence, as virtual links carry them. An
 * 802.1Q tag is parsed; what to do with a tagged frame is the caller's decision.
 */
import { formatMac, get16, getMac, MAC_LEN, put16, putMac } from './address.ts';

/** Length of the header without a tag. */
export const ETHERNET_LEN = 14;
/** Length of an 802.1Q tag. */
export const VLAN_LEN = 4;
export const ETHERTYPE_IPV4 = 0x0800;
export const ETHERTYPE_ARP = 0x0806;
export const ETHERTYPE_VLAN = 0x8100;
export const ETHERTYPE_IPV6 = 0x86dd;
/** Smaller values of the type field are lengths of an 802.3 frame (clause 3.2.6). */
const ETHERTYPE_MIN = 0x0600;

export interface EthernetRepr {
  dst: number;
  src: number;
  /** EtherType of the payload, behind a tag if there is one. */
  type: number;
  /** Tag control information (priority, DEI, VLAN id) or -1 without a tag. */
  tag: number;
}

/** Parses the header of the frame from `off` to `end`; undefined for runts and for 802.3 length-typed frames. */
export function parseEthernet(buf: Uint8Array, off: number, end: number): EthernetRepr | undefined {
  if (end - off < ETHERNET_LEN) return undefined;
  let type = get16(buf, off + 12);
  let tag = -1;
  if (type === ETHERTYPE_VLAN) {
    if (end - off < ETHERNET_LEN + VLAN_LEN) return undefined;
    tag = get16(buf, off + 14);
    type = get16(buf, off + 16);
  }
  if (type < ETHERTYPE_MIN) return undefined;
  return { dst: getMac(buf, off), src: getMac(buf, off + MAC_LEN), type, tag };
}

/** Bytes of the header. */
export function sizeEthernet(repr: EthernetRepr): number {
  return repr.tag < 0 ? ETHERNET_LEN : ETHERNET_LEN + VLAN_LEN;
}

/** Writes the header. */
export function emitEthernet(repr: EthernetRepr, buf: Uint8Array, off: number): void {
  putMac(buf, off, repr.dst);
  putMac(buf, off + MAC_LEN, repr.src);
  let at = off + 12;
  if (repr.tag >= 0) {
    put16(buf, at, ETHERTYPE_VLAN);
    put16(buf, at + 2, repr.tag);
    at += VLAN_LEN;
  }
  put16(buf, at, repr.type);
}

export function formatEthernet(repr: EthernetRepr): string {
  const vlan = repr.tag < 0 ? '' : ` vlan ${repr.tag & 0xfff}`;
  return `${formatMac(repr.src)} > ${formatMac(repr.dst)}${vlan} type 0x${repr.type.toString(16).padStart(4, '0')}`;
}
