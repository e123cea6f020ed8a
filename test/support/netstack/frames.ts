/** Frames as tests write and read them: addresses as text, payload as bytes, checksums made unless asked to be wrong. */
import { VNET_HDR_LEN } from '../../../netstack/link/link.ts';
import { formatAddress, get16, isMapped, parseAddress, put16 } from '../../../netstack/wire/address.ts';
import { ARP_LEN, type ArpRepr, emitArp, parseArp } from '../../../netstack/wire/arp.ts';
import { complement, fold, pseudo, sum } from '../../../netstack/wire/checksum.ts';
import {
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  type EthernetRepr,
  emitEthernet,
  parseEthernet,
  sizeEthernet,
} from '../../../netstack/wire/ethernet.ts';
import { emitIcmp, ICMP_LEN, type IcmpRepr, parseIcmp } from '../../../netstack/wire/icmp.ts';
import { emitIcmpv6, type Icmpv6Repr, parseIcmpv6 } from '../../../netstack/wire/icmpv6.ts';
import {
  emitIpv4,
  IPV4_LEN,
  type Ipv4Repr,
  PROTOCOL_ICMP,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  parseIpv4Header,
} from '../../../netstack/wire/ipv4.ts';
import {
  emitIpv6,
  IPV6_DST,
  IPV6_LEN,
  IPV6_SRC,
  type Ipv6Repr,
  NEXT_ICMPV6,
  parseIpv6Header,
} from '../../../netstack/wire/ipv6.ts';
import {
  emitTcp,
  parseTcp,
  TCP_CHECKSUM_OFFSET,
  TcpSegment,
  tcpHeaderLen,
} from '../../../netstack/wire/tcp.ts';
import { emitUdp, parseUdp, UDP_LEN, type UdpRepr } from '../../../netstack/wire/udp.ts';

/** Bytes of text, for payloads. */
export function bytes(text: string): Uint8Array {
  return Uint8Array.from(text, (char) => char.charCodeAt(0));
}

/** Bytes with a pattern that shows misplaced ones. */
export function pattern(len: number): Uint8Array {
  return Uint8Array.from({ length: len }, (_, i) => (i * 7 + (i >> 8)) & 0xff);
}

export function concat(...parts: Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((len, part) => len + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** 16 bytes from text. */
export function addr(text: string): Uint8Array {
  const parsed = parseAddress(text);
  if (!parsed) throw new Error(`no address: ${text}`);
  return parsed;
}

/** A frame with an empty virtio_net_hdr before it. */
export function frame(ethernet: EthernetRepr, payload: Uint8Array): Uint8Array {
  const off = VNET_HDR_LEN + sizeEthernet(ethernet);
  const buf = new Uint8Array(off + payload.length);
  emitEthernet(ethernet, buf, VNET_HDR_LEN);
  buf.set(payload, off);
  return buf;
}

export function arpFrame(dst: number, src: number, arp: ArpRepr): Uint8Array {
  const payload = new Uint8Array(ARP_LEN);
  emitArp(arp, payload, 0);
  return frame({ dst, src, type: ETHERTYPE_ARP, tag: -1 }, payload);
}

/** What an IP packet says besides its payload; the rest has sane defaults. */
export interface IpFields {
  ttl?: number;
  /** Differentiated services and ECN. */
  trafficClass?: number;
  ident?: number;
  dontFragment?: boolean;
  moreFragments?: boolean;
  fragmentOffset?: number;
}

/** An IP packet of the addresses' family. */
export function ipPacket(
  src: string,
  dst: string,
  protocol: number,
  payload: Uint8Array,
  fields: IpFields = {},
): Uint8Array {
  const from = addr(src);
  const to = addr(dst);
  const ttl = fields.ttl ?? 64;
  if (!isMapped(from, 0)) {
    const packet = new Uint8Array(IPV6_LEN + payload.length);
    const header = {
      trafficClass: fields.trafficClass ?? 0,
      flowLabel: 0,
      payloadLen: payload.length,
      nextHeader: protocol,
      hopLimit: ttl,
    };
    emitIpv6(header, from, 0, to, 0, packet, 0);
    packet.set(payload, IPV6_LEN);
    return packet;
  }
  const packet = new Uint8Array(IPV4_LEN + payload.length);
  emitIpv4(
    {
      headerLen: IPV4_LEN,
      totalLen: packet.length,
      tos: fields.trafficClass ?? 0,
      ident: fields.ident ?? 0,
      dontFragment: fields.dontFragment ?? false,
      moreFragments: fields.moreFragments ?? false,
      fragmentOffset: fields.fragmentOffset ?? 0,
      ttl,
      protocol,
      src: get16(from, 12) * 0x1_0000 + get16(from, 14),
      dst: get16(to, 12) * 0x1_0000 + get16(to, 14),
    },
    packet,
    0,
  );
  packet.set(payload, IPV4_LEN);
  return packet;
}

/** A UDP datagram with a right checksum, or with the one given. */
export function udpDatagram(
  src: string,
  srcPort: number,
  dst: string,
  dstPort: number,
  payload: Uint8Array,
  checksum?: number,
): Uint8Array {
  const len = UDP_LEN + payload.length;
  const datagram = new Uint8Array(len);
  emitUdp({ srcPort, dstPort, len, checksum: 0 }, datagram, 0);
  datagram.set(payload, UDP_LEN);
  const from = addr(src);
  const header = pseudo(isMapped(from, 0), from, 0, addr(dst), 0, PROTOCOL_UDP, len);
  put16(datagram, 6, checksum ?? (complement(header + sum(datagram, 0, len)) || 0xffff));
  return datagram;
}

/** A TCP segment with a right checksum; `fields` are those of TcpSegment. */
export function tcpSegment(
  src: string,
  dst: string,
  fields: Partial<TcpSegment>,
  payload: Uint8Array = new Uint8Array(0),
): Uint8Array {
  const seg = Object.assign(new TcpSegment(), { window: 65535 }, fields);
  const headerLen = tcpHeaderLen(seg);
  const segment = new Uint8Array(headerLen + payload.length);
  emitTcp(seg, segment, 0);
  segment.set(payload, headerLen);
  const from = addr(src);
  const header = pseudo(isMapped(from, 0), from, 0, addr(dst), 0, PROTOCOL_TCP, segment.length);
  put16(segment, TCP_CHECKSUM_OFFSET, complement(header + sum(segment, 0, segment.length)));
  return segment;
}

export function icmpMessage(repr: IcmpRepr, body: Uint8Array): Uint8Array {
  const message = new Uint8Array(ICMP_LEN + body.length);
  emitIcmp(repr, body, 0, body.length, message, 0);
  message.set(body, ICMP_LEN);
  return message;
}

export function icmpv6Message(src: string, dst: string, repr: Icmpv6Repr, body: Uint8Array): Uint8Array {
  const message = new Uint8Array(ICMP_LEN + body.length);
  emitIcmpv6(repr, addr(src), 0, addr(dst), 0, body, 0, body.length, message, 0);
  message.set(body, ICMP_LEN);
  return message;
}

/** A frame taken apart. What is not there is undefined. */
export interface Decoded {
  ethernet: EthernetRepr;
  arp?: ArpRepr;
  ipv4?: Ipv4Repr;
  ipv6?: Ipv6Repr;
  src: string;
  dst: string;
  protocol: number;
  /** The IP payload. */
  ipPayload: Uint8Array;
  udp?: UdpRepr;
  icmp?: IcmpRepr;
  icmpv6?: Icmpv6Repr;
  tcp?: TcpSegment;
  /** The upper layer's payload. */
  payload: Uint8Array;
  /** The transport checksum is right, or rightly left to the link (NEEDS_CSUM). */
  checksumRight: boolean;
  gsoType: number;
  gsoSize: number;
}

/** Takes apart a frame that has its virtio_net_hdr. Throws when a header is wrong: what we send must be right. */
export function decode(whole: Uint8Array): Decoded {
  const ethernet = parseEthernet(whole, VNET_HDR_LEN, whole.length);
  if (!ethernet) throw new Error('no Ethernet frame');
  const at = VNET_HDR_LEN + sizeEthernet(ethernet);
  const decoded: Decoded = {
    ethernet,
    src: '',
    dst: '',
    protocol: -1,
    ipPayload: new Uint8Array(0),
    payload: new Uint8Array(0),
    checksumRight: true,
    gsoType: whole[1]!,
    gsoSize: whole[4]! | (whole[5]! << 8),
  };
  if (ethernet.type === ETHERTYPE_ARP) decoded.arp = parseArp(whole, at, whole.length)!;
  else if (ethernet.type === ETHERTYPE_IPV4) decodeIpv4(decoded, whole, at);
  else if (ethernet.type === ETHERTYPE_IPV6) decodeIpv6(decoded, whole, at);
  return decoded;
}

function decodeIpv4(decoded: Decoded, whole: Uint8Array, at: number): void {
  const ipv4 = parseIpv4Header(whole, at, whole.length);
  if (!ipv4) throw new Error('bad IPv4 header');
  decoded.ipv4 = ipv4;
  decoded.protocol = ipv4.protocol;
  const src = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ...whole.subarray(at + 12, at + 16));
  const dst = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ...whole.subarray(at + 16, at + 20));
  decoded.ipPayload = whole.subarray(at + ipv4.headerLen, at + ipv4.totalLen);
  const fragment = ipv4.moreFragments || ipv4.fragmentOffset > 0;
  decodeUpper(decoded, whole, src, dst, fragment);
}

function decodeIpv6(decoded: Decoded, whole: Uint8Array, at: number): void {
  const ipv6 = parseIpv6Header(whole, at, whole.length);
  if (!ipv6) throw new Error('bad IPv6 header');
  decoded.ipv6 = ipv6;
  decoded.protocol = ipv6.nextHeader;
  decoded.ipPayload = whole.subarray(at + IPV6_LEN, at + IPV6_LEN + ipv6.payloadLen);
  const src = whole.slice(at + IPV6_SRC, at + IPV6_SRC + 16);
  const dst = whole.slice(at + IPV6_DST, at + IPV6_DST + 16);
  decodeUpper(decoded, whole, src, dst, false);
}

function decodeUpper(
  decoded: Decoded,
  whole: Uint8Array,
  src: Uint8Array,
  dst: Uint8Array,
  fragment: boolean,
): void {
  decoded.src = formatAddress(src, 0);
  decoded.dst = formatAddress(dst, 0);
  const upper = decoded.ipPayload;
  decoded.payload = upper;
  if (fragment) return;
  if (decoded.protocol === PROTOCOL_UDP) {
    const udp = parseUdp(upper, 0, upper.length);
    if (!udp) throw new Error('bad UDP header');
    decoded.udp = udp;
    decoded.payload = upper.subarray(UDP_LEN, udp.len);
    decoded.checksumRight = transportRight(decoded, whole, src, dst, 6);
  } else if (decoded.protocol === PROTOCOL_TCP) {
    const tcp = new TcpSegment();
    if (!parseTcp(upper, 0, upper.length, tcp)) throw new Error('bad TCP header');
    decoded.tcp = tcp;
    decoded.payload = upper.subarray(tcp.payloadOff);
    decoded.checksumRight = transportRight(decoded, whole, src, dst, TCP_CHECKSUM_OFFSET);
  } else if (decoded.protocol === PROTOCOL_ICMP) {
    const icmp = parseIcmp(upper, 0, upper.length);
    if (!icmp) throw new Error('bad ICMP message');
    decoded.icmp = icmp;
    decoded.payload = upper.subarray(ICMP_LEN);
  } else if (decoded.protocol === NEXT_ICMPV6) {
    const icmpv6 = parseIcmpv6(upper, 0, upper.length, src, 0, dst, 0);
    if (!icmpv6) throw new Error('bad ICMPv6 message');
    decoded.icmpv6 = icmpv6;
    decoded.payload = upper.subarray(ICMP_LEN);
  }
}

/** With NEEDS_CSUM the field holds the pseudo header's sum, and csum_start and csum_offset point to it. */
function transportRight(
  decoded: Decoded,
  whole: Uint8Array,
  src: Uint8Array,
  dst: Uint8Array,
  fieldOff: number,
): boolean {
  const upper = decoded.ipPayload;
  const header = pseudo(isMapped(src, 0), src, 0, dst, 0, decoded.protocol, upper.length);
  if ((whole[0]! & 1) === 0) return fold(header + sum(upper, 0, upper.length)) === 0xffff;
  const start = whole[6]! | (whole[7]! << 8);
  const offset = whole[8]! | (whole[9]! << 8);
  return (
    offset === fieldOff &&
    start === upper.byteOffset - whole.byteOffset - VNET_HDR_LEN &&
    get16(upper, fieldOff) === fold(header)
  );
}
