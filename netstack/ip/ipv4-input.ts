/**
 * IPv4 from guests: decides whether a packet may be, puts fragments together, and hands on what is whole.
 *
 * A source must be an address that the guest can have, since everything else is spoofed or a mistake (RFC 2827); a destination must
 * be the gateway, a group, or something outside.
 */
import type { StackContext } from '../flow/context.ts';
import { get16, isMulticastIpv4 } from '../wire/address.ts';
import {
  emitIpv4,
  IPV4_LEN,
  type Ipv4Repr,
  ipv4OptionsAllowed,
  PROTOCOL_ICMP,
  PROTOCOL_UDP,
  parseIpv4Header,
} from '../wire/ipv4.ts';
import { PROTOCOL_IGMP } from '../wire/membership.ts';
import type { DestinationKind } from './addressing.ts';
import type { Packet } from './packet.ts';
import { type Assembly, Reassembly } from './reassembly.ts';

/** The port to which a client without an address may speak (RFC 2131 section 4.1). */
const DHCP_SERVER_PORT = 67;

/** Takes whole packets. */
export type Deliver = (packet: Packet, kind: DestinationKind) => void;

export class Ipv4Input {
  readonly #context: StackContext;
  readonly #deliver: Deliver;
  readonly #reassembly: Reassembly;
  readonly #timedOut: Packet;

  /** @param scratch a packet record of this part's own. */
  constructor(context: StackContext, deliver: Deliver, scratch: Packet) {
    this.#context = context;
    this.#deliver = deliver;
    this.#timedOut = scratch;
    this.#reassembly = new Reassembly(context.rng, context.counters, (assembly) => this.#expired(assembly));
  }

  /** Memory held by unfinished datagrams. */
  get reassemblyBytes(): number {
    return this.#reassembly.bytes;
  }

  /** Takes the IP packet at `packet.ipOff`, which ends at `end` or before. */
  input(packet: Packet, end: number): void {
    const { counters } = this.#context;
    const { buf, ipOff } = packet;
    const ip = parseIpv4Header(buf, ipOff, end);
    if (!ip) {
      counters.ipMalformed++;
      return;
    }
    if (ip.headerLen > IPV4_LEN && !ipv4OptionsAllowed(buf, ipOff, ip.headerLen)) {
      counters.ipOptionsRefused++;
      return;
    }
    packet.setIpv4(ip.src, ip.dst);
    packet.payloadOff = ipOff + ip.headerLen;
    packet.end = ipOff + ip.totalLen;
    packet.protocol = ip.protocol;
    packet.ttl = ip.ttl;
    packet.trafficClass = ip.tos;
    const kind = this.#context.addressing.kindIpv4(ip.dst);
    if (!this.#sourceAllowed(packet, ip) || !this.#destinationAllowed(packet, ip, kind)) return;
    if (ip.moreFragments || ip.fragmentOffset > 0) this.#fragment(packet, ip, kind);
    else this.#deliver(packet, kind);
  }

  poll(now: number): void {
    this.#reassembly.poll(now);
  }

  pollAt(): number {
    return this.#reassembly.pollAt();
  }

  #sourceAllowed(packet: Packet, ip: Ipv4Repr): boolean {
    const { addressing, counters, neighbours } = this.#context;
    if (addressing.isGuestIpv4(ip.src)) {
      if (neighbours.mayUse(packet.src, 0, packet.srcMac)) return true;
      counters.ipSpoofed++;
      return false;
    }
    // A DHCP client has no address yet, and says nothing else.
    const dhcp =
      ip.src === 0 &&
      ip.protocol === PROTOCOL_UDP &&
      packet.end - packet.payloadOff >= 8 &&
      ip.fragmentOffset === 0 &&
      get16(packet.buf, packet.payloadOff + 2) === DHCP_SERVER_PORT;
    if (!dhcp) counters.ipMartianSource++;
    return dhcp;
  }

  #destinationAllowed(packet: Packet, ip: Ipv4Repr, kind: DestinationKind): boolean {
    const { counters, errors, now } = this.#context;
    if (packet.group && kind !== 'group') {
      // RFC 1122 section 3.3.6: a unicast packet in a broadcast frame is dropped.
      counters.ipMartianDestination++;
      return false;
    }
    if (kind === 'group') {
      if (!isMulticastIpv4(ip.dst) || ip.protocol === PROTOCOL_UDP || ip.protocol === PROTOCOL_IGMP)
        return true;
      counters.ipMulticastDropped++;
      return false;
    }
    if (kind === 'martian' || kind === 'neighbour') {
      counters.ipMartianDestination++;
      // Guests reach each other on the link: one that asks us for another has no way there.
      if (kind === 'neighbour' && ip.fragmentOffset === 0) errors.answer(now, packet, 'host-unreachable');
      return false;
    }
    if (kind === 'outside' && ip.ttl <= 1) {
      counters.ipTtlExceeded++;
      if (ip.fragmentOffset === 0) errors.answer(now, packet, 'ttl-exceeded');
      return false;
    }
    return true;
  }

  #fragment(packet: Packet, ip: Ipv4Repr, kind: DestinationKind): void {
    const assembly = this.#reassembly.add(this.#context.now, packet, {
      ident: ip.ident,
      offset: ip.fragmentOffset,
      more: ip.moreFragments,
      protocol: ip.protocol,
    });
    if (!assembly) return;
    this.#adopt(packet, assembly, assembly.len);
    this.#deliver(packet, kind);
  }

  /** Makes `packet` the datagram that was put together, with a header of its own before the payload. */
  #adopt(packet: Packet, assembly: Assembly, len: number): void {
    packet.buf = assembly.buf;
    packet.payloadOff = assembly.payloadOff;
    packet.ipOff = assembly.payloadOff - IPV4_LEN;
    packet.end = assembly.payloadOff + len;
    packet.trafficClass = assembly.trafficClass;
    packet.trusted = false;
    packet.gsoType = 0;
    packet.gsoSize = 0;
    const header = {
      headerLen: IPV4_LEN,
      totalLen: IPV4_LEN + len,
      tos: assembly.trafficClass,
      ident: assembly.ident,
      dontFragment: false,
      moreFragments: false,
      fragmentOffset: 0,
      ttl: packet.ttl,
      protocol: assembly.protocol,
      src: packet.srcIpv4,
      dst: packet.dstIpv4,
    };
    emitIpv4(header, packet.buf, packet.ipOff);
  }

  /** RFC 792: time exceeded in reassembly, if the first fragment has come; it quotes that one. */
  #expired(assembly: Assembly): void {
    if (!assembly.hasStart) return;
    const packet = this.#timedOut;
    const read = (addr: Uint8Array): number => get16(addr, 12) * 0x1_0000 + get16(addr, 14);
    packet.setIpv4(read(assembly.near), read(assembly.far));
    packet.ttl = 1;
    packet.srcMac = assembly.srcMac;
    packet.group = assembly.group;
    packet.protocol = assembly.protocol;
    this.#adopt(packet, assembly, Math.min(assembly.ranges[1]!, 64));
    if (assembly.protocol === PROTOCOL_ICMP && packet.end === packet.payloadOff) return;
    this.#context.errors.answer(this.#context.now, packet, 'reassembly-exceeded');
  }
}
