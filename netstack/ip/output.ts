/**
 * Frames on their way to the guest: Ethernet and IP headers, fragments, and the virtio_net_hdr for links with offload.
 *
 * A frame is built in one scratch head and leaves with its payload as a separate piece, so that payload is never copied.
 * The upper layer writes its header into the head at {@link upperOff} and calls; the head is free again when the call returns.
 * Offsets are such that IP and TCP headers are aligned to four bytes.
 */
import type { Rng } from '#common/rng';
import { VNET_HDR_LEN } from '../link/link.ts';
import { get32, isMapped, put16, putMac } from '../wire/address.ts';
import { complement, fold, pseudo, sum } from '../wire/checksum.ts';
import { ETHERNET_LEN, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6 } from '../wire/ethernet.ts';
import { emitIpv4, IPV4_BYTES_MAX, IPV4_LEN, type Ipv4Repr, PROTOCOL_TCP } from '../wire/ipv4.ts';
import { emitFragment, emitIpv6, FRAGMENT_LEN, IPV6_LEN, NEXT_FRAGMENT } from '../wire/ipv6.ts';
import { emitTcp, TCP_CHECKSUM_OFFSET, TCP_HEADER_LEN_MAX, type TcpSegment } from '../wire/tcp.ts';
import { GSO_TCPV4, GSO_TCPV6, NEEDS_CSUM, put16le } from '../wire/virtio.ts';
import type { StackCounters } from './counters.ts';

/** TTL and hop limit of what the gateway itself sends (RFC 1700's assigned default). */
export const TTL_DEFAULT = 64;

const ETHERNET_OFF = VNET_HDR_LEN;
const IP_OFF = ETHERNET_OFF + ETHERNET_LEN;
const UPPER_OFF_IPV4 = IP_OFF + IPV4_LEN;
const UPPER_OFF_IPV6 = IP_OFF + IPV6_LEN;
/** Enough for all headers; also for ARP. */
const HEAD_BYTES = UPPER_OFF_IPV6 + FRAGMENT_LEN + TCP_HEADER_LEN_MAX;

/** The part of a link that output needs. */
export interface FrameLink {
  readonly offload: boolean;
  send(
    head: Uint8Array,
    headOff: number,
    headLen: number,
    body: Uint8Array | undefined,
    bodyOff: number,
    bodyLen: number,
  ): boolean;
}

/** What is the same in every TCP segment of a flow. */
export interface TcpTemplate {
  /** Everything before the TCP header. */
  readonly head: Uint8Array;
  readonly ipv4: boolean;
  /** Sum of the pseudo header without the length, and of the IPv4 header without total length. */
  readonly pseudoSum: number;
  readonly headerSum: number;
}

/** How a datagram is to travel. One record is reused by each user. */
export class Route {
  /** Destination MAC address. */
  mac = 0;
  ipv4 = true;
  /** Own and guest's address, 16 bytes at an offset. */
  src: Uint8Array = new Uint8Array(16);
  srcOff = 0;
  dst: Uint8Array = new Uint8Array(16);
  dstOff = 0;
  ttl: number = TTL_DEFAULT;
  /** Differentiated services and ECN. */
  trafficClass = 0;
}

export class Output {
  /** Scratch of the frame being built; the upper layer's header goes to {@link upperOff}. */
  readonly head: Uint8Array = new Uint8Array(HEAD_BYTES);
  readonly mtuBytes: number;
  readonly #link: FrameLink;
  readonly #mac: number;
  readonly #counters: StackCounters;
  #ident: number;
  readonly #ipv4: Ipv4Repr = {
    headerLen: IPV4_LEN,
    totalLen: 0,
    tos: 0,
    ident: 0,
    dontFragment: false,
    moreFragments: false,
    fragmentOffset: 0,
    ttl: 0,
    protocol: 0,
    src: 0,
    dst: 0,
  };

  constructor(link: FrameLink, rng: Rng, counters: StackCounters, mac: number, mtuBytes: number) {
    this.#link = link;
    this.#counters = counters;
    this.#mac = mac;
    this.mtuBytes = Math.min(mtuBytes, IPV4_BYTES_MAX);
    this.#ident = rng.uint32();
  }

  get offload(): boolean {
    return this.#link.offload;
  }

  /** Where in {@link head} the upper layer's header goes. */
  upperOff(ipv4: boolean): number {
    return ipv4 ? UPPER_OFF_IPV4 : UPPER_OFF_IPV6;
  }

  /** Sends an ARP packet whose 28 bytes the caller has written to {@link arpOff}. */
  arp(dstMac: number, len: number): void {
    this.#begin(dstMac, ETHERTYPE_ARP);
    this.#send(IP_OFF + len, undefined, 0, 0);
  }

  /** Where in {@link head} an ARP packet goes. */
  readonly arpOff: number = IP_OFF;

  /**
   * Sends an IP packet: upper header of `upperLen` bytes (a multiple of 8) from the head, then `bodyLen` bytes of body. Cut
   * into fragments when it does not fit the MTU. `checksumOff` is the place of a transport checksum in the upper header, whose field
   * is zero: it is filled in here; -1 when there is none to fill in. Returns false when the packet was dropped.
   */
  packet(
    route: Route,
    protocol: number,
    upperLen: number,
    checksumOff: number,
    body: Uint8Array,
    bodyOff: number,
    bodyLen: number,
  ): boolean {
    const len = upperLen + bodyLen;
    const headerLen = route.ipv4 ? IPV4_LEN : IPV6_LEN;
    if (len + (route.ipv4 ? headerLen : 0) > IPV4_BYTES_MAX) {
      this.#counters.ipTooLarge++;
      return false;
    }
    const whole = headerLen + len <= this.mtuBytes;
    this.#begin(route.mac, route.ipv4 ? ETHERTYPE_IPV4 : ETHERTYPE_IPV6);
    if (checksumOff >= 0)
      this.#checksum(route, protocol, upperLen, checksumOff, body, bodyOff, bodyLen, whole);
    if (!whole) return this.#fragments(route, protocol, upperLen, body, bodyOff, bodyLen);
    if (route.ipv4) this.#headerIpv4(route, protocol, len, 0, 0, false);
    else this.#headerIpv6(route, protocol, len);
    return this.#send(IP_OFF + headerLen + upperLen, body, bodyOff, bodyLen);
  }

  /** Sends an IP packet that is complete. Returns false when the link did not take it. */
  ready(dstMac: number, ipv4: boolean, packet: Uint8Array): boolean {
    this.#begin(dstMac, ipv4 ? ETHERTYPE_IPV4 : ETHERTYPE_IPV6);
    return this.#send(IP_OFF, packet, 0, packet.length);
  }

  /** Prepares the headers of a flow's segments from us (`src`) to the guest. */
  template(mac: number, src: Uint8Array, dst: Uint8Array): TcpTemplate {
    const ipv4 = isMapped(dst, 0);
    this.#begin(mac, ipv4 ? ETHERTYPE_IPV4 : ETHERTYPE_IPV6);
    const route = new Route();
    route.ipv4 = ipv4;
    route.src = src;
    route.dst = dst;
    // Segments fit the MTU, so they are atomic: identification 0 and "don't fragment" (RFC 6864 section 4.1).
    if (ipv4) this.#headerIpv4(route, PROTOCOL_TCP, -IPV4_LEN, 0, 0, true);
    else this.#headerIpv6(route, PROTOCOL_TCP, 0);
    const end = this.upperOff(ipv4);
    const head = this.head.slice(0, end);
    if (ipv4) put16(head, IP_OFF + 10, 0);
    if (this.#link.offload) {
      head[0] = NEEDS_CSUM;
      put16le(head, 6, end - ETHERNET_OFF);
      put16le(head, 8, TCP_CHECKSUM_OFFSET);
    }
    return {
      head,
      ipv4,
      pseudoSum: fold(pseudo(ipv4, src, 0, dst, 0, PROTOCOL_TCP, 0)),
      headerSum: ipv4 ? sum(head, IP_OFF, IPV4_LEN) : 0,
    };
  }

  /** Sends one segment or super-segment. Returns false when the link did not take it. */
  segment(template: TcpTemplate, seg: TcpSegment): boolean {
    const head = this.head;
    const upper = template.head.length;
    head.set(template.head);
    const headerLen = emitTcp(seg, head, upper);
    const payloadLen = seg.payloadEnd - seg.payloadOff;
    const len = headerLen + payloadLen;
    if (template.ipv4) {
      head[IP_OFF + 1] = seg.ecn;
      put16(head, IP_OFF + 2, IPV4_LEN + len);
      put16(head, IP_OFF + 10, complement(template.headerSum + seg.ecn + IPV4_LEN + len));
    } else {
      head[IP_OFF + 1] = seg.ecn << 4;
      put16(head, IP_OFF + 4, len);
    }
    const checksumAt = upper + TCP_CHECKSUM_OFFSET;
    if (this.#link.offload) {
      put16(head, checksumAt, fold(template.pseudoSum + len));
      if (seg.gsoBytes > 0 && payloadLen > seg.gsoBytes) {
        head[1] = template.ipv4 ? GSO_TCPV4 : GSO_TCPV6;
        put16le(head, 2, upper + headerLen - ETHERNET_OFF);
        put16le(head, 4, seg.gsoBytes);
      }
    } else {
      const total =
        template.pseudoSum +
        len +
        sum(head, upper, headerLen) +
        (payloadLen > 0 ? sum(seg.payload, seg.payloadOff, payloadLen) : 0);
      put16(head, checksumAt, complement(total));
    }
    return this.#send(
      upper + headerLen,
      payloadLen > 0 ? seg.payload : undefined,
      seg.payloadOff,
      payloadLen,
    );
  }

  #begin(dstMac: number, type: number): void {
    const head = this.head;
    head.fill(0, 0, VNET_HDR_LEN);
    putMac(head, ETHERNET_OFF, dstMac);
    putMac(head, ETHERNET_OFF + 6, this.#mac);
    put16(head, ETHERNET_OFF + 12, type);
  }

  #send(headLen: number, body: Uint8Array | undefined, bodyOff: number, bodyLen: number): boolean {
    if (!this.#link.send(this.head, 0, headLen, body, bodyOff, bodyLen)) {
      this.#counters.linkFull++;
      return false;
    }
    this.#counters.framesOut++;
    this.#counters.bytesOut += headLen - VNET_HDR_LEN + bodyLen;
    return true;
  }

  /** Fills in the checksum, or leaves it to the link: only its pseudo header then (virtio 1.2 section 5.1.6.2). */
  #checksum(
    route: Route,
    protocol: number,
    upperLen: number,
    checksumOff: number,
    body: Uint8Array,
    bodyOff: number,
    bodyLen: number,
    whole: boolean,
  ): void {
    const head = this.head;
    const upper = this.upperOff(route.ipv4);
    const { ipv4, src, srcOff, dst, dstOff } = route;
    const header = pseudo(ipv4, src, srcOff, dst, dstOff, protocol, upperLen + bodyLen);
    if (whole && this.#link.offload) {
      put16(head, upper + checksumOff, fold(header));
      head[0] = NEEDS_CSUM;
      put16le(head, 6, upper - ETHERNET_OFF);
      put16le(head, 8, checksumOff);
      return;
    }
    const value = complement(header + sum(head, upper, upperLen) + sum(body, bodyOff, bodyLen));
    // A UDP checksum of zero would say that there is none (RFC 768).
    put16(head, upper + checksumOff, value === 0 ? 0xffff : value);
  }

  #headerIpv4(
    route: Route,
    protocol: number,
    len: number,
    ident: number,
    fragmentOffset: number,
    dontFragment: boolean,
    moreFragments = false,
  ): void {
    const repr = this.#ipv4;
    repr.totalLen = IPV4_LEN + len;
    repr.tos = route.trafficClass;
    repr.ident = ident;
    repr.dontFragment = dontFragment;
    repr.moreFragments = moreFragments;
    repr.fragmentOffset = fragmentOffset;
    repr.ttl = route.ttl;
    repr.protocol = protocol;
    repr.src = get32(route.src, route.srcOff + 12);
    repr.dst = get32(route.dst, route.dstOff + 12);
    emitIpv4(repr, this.head, IP_OFF);
  }

  #headerIpv6(route: Route, nextHeader: number, payloadLen: number): void {
    emitIpv6(
      { trafficClass: route.trafficClass, flowLabel: 0, payloadLen, nextHeader, hopLimit: route.ttl },
      route.src,
      route.srcOff,
      route.dst,
      route.dstOff,
      this.head,
      IP_OFF,
    );
  }

  /** Cuts a packet into fragments (RFC 791 section 3.2, RFC 8200 section 4.5). False when the link took not all of them. */
  #fragments(
    route: Route,
    protocol: number,
    upperLen: number,
    body: Uint8Array,
    bodyOff: number,
    bodyLen: number,
  ): boolean {
    const headersLen = route.ipv4 ? IPV4_LEN : IPV6_LEN + FRAGMENT_LEN;
    const step = (this.mtuBytes - headersLen) & ~7;
    const len = upperLen + bodyLen;
    this.#ident = (this.#ident + 1) >>> 0;
    const ident = this.#ident;
    // The upper header travels in the first fragment, behind the fragment header of IPv6.
    if (!route.ipv4)
      this.head.copyWithin(UPPER_OFF_IPV6 + FRAGMENT_LEN, UPPER_OFF_IPV6, UPPER_OFF_IPV6 + upperLen);
    for (let offset = 0; offset < len; offset += step) {
      const part = Math.min(step, len - offset);
      const more = offset + part < len;
      if (route.ipv4) this.#headerIpv4(route, protocol, part, ident & 0xffff, offset, false, more);
      else {
        this.#headerIpv6(route, NEXT_FRAGMENT, FRAGMENT_LEN + part);
        emitFragment({ nextHeader: protocol, offset, more, ident }, this.head, UPPER_OFF_IPV6);
      }
      const inHead = offset === 0 ? upperLen : 0;
      const from = bodyOff + (offset === 0 ? 0 : offset - upperLen);
      this.#counters.ipFragmentsOut++;
      if (!this.#send(IP_OFF + headersLen + inHead, body, from, part - inHead)) return false;
    }
    return true;
  }
}
