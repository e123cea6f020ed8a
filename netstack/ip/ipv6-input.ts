/**
 * IPv6 from guests: judged like IPv4, extension headers walked, fragments put together.
 *
 * A guest has a link-local address and addresses of the prefix, of its own making (SLAAC). Link-local ones stay on the link.
 */
import type { StackContext } from '../flow/context.ts';
import { isLinkLocalIpv6, isUnspecifiedIpv6 } from '../wire/address.ts';
import { PROTOCOL_TCP, PROTOCOL_UDP } from '../wire/ipv4.ts';
import {
  type Extensions,
  emitIpv6,
  FRAGMENT_LEN,
  type FragmentRepr,
  IPV6_DST,
  IPV6_LEN,
  IPV6_SRC,
  NEXT_ICMPV6,
  PROBLEM_FIELD,
  parseFragment,
  parseIpv6Header,
  walkExtensions,
} from '../wire/ipv6.ts';
import type { DestinationKind } from './addressing.ts';
import type { Deliver } from './ipv4-input.ts';
import type { Packet } from './packet.ts';
import { type Assembly, Reassembly } from './reassembly.ts';

/** RFC 7112 section 6: the first fragment lacks part of the header chain. */
const PROBLEM_HEADER_CHAIN = 3;
/** Largest payload of a packet without jumbo payload option. */
const PAYLOAD_BYTES_MAX = 65_535;

/** Bytes of an upper-layer header that the first fragment must have. */
function upperLenMin(protocol: number): number {
  if (protocol === PROTOCOL_TCP) return 20;
  return protocol === PROTOCOL_UDP || protocol === NEXT_ICMPV6 ? 8 : 0;
}

export class Ipv6Input {
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
    const { counters, addressing } = this.#context;
    const { buf, ipOff } = packet;
    const ip = parseIpv6Header(buf, ipOff, end);
    if (!ip) {
      counters.ipMalformed++;
      return;
    }
    packet.setIpv6(buf, ipOff + IPV6_SRC, ipOff + IPV6_DST);
    packet.payloadOff = ipOff + IPV6_LEN;
    packet.end = ipOff + IPV6_LEN + ip.payloadLen;
    packet.protocol = ip.nextHeader;
    packet.ttl = ip.hopLimit;
    packet.trafficClass = ip.trafficClass;
    const kind = addressing.kindIpv6(packet.dst, 0);
    const upper = walkExtensions(buf, ipOff, packet.payloadOff, packet.end, ip.nextHeader);
    if (upper.kind === 'upper') packet.protocol = upper.protocol;
    if (!this.#sourceAllowed(packet) || !this.#destinationAllowed(packet, kind)) return;
    if (upper.kind === 'fragment') this.#fragment(packet, upper, kind);
    else this.#upper(packet, upper, kind);
  }

  poll(now: number): void {
    this.#reassembly.poll(now);
  }

  pollAt(): number {
    return this.#reassembly.pollAt();
  }

  #upper(packet: Packet, upper: Extensions, kind: DestinationKind): void {
    const { counters, errors, now } = this.#context;
    if (upper.kind === 'upper') {
      packet.protocol = upper.protocol;
      packet.protocolOff = upper.nextOff - packet.ipOff;
      packet.payloadOff = upper.off;
      this.#deliver(packet, kind);
    } else if (upper.kind === 'problem') {
      counters.ipOptionsRefused++;
      errors.answer(now, packet, 'parameter', upper.pointer - packet.ipOff, upper.code, upper.evenMulticast);
    } else if (upper.kind !== 'none') counters.ipOptionsRefused++;
  }

  #sourceAllowed(packet: Packet): boolean {
    const { addressing, counters, neighbours } = this.#context;
    if (addressing.isGuestIpv6(packet.src, 0)) {
      if (neighbours.mayUse(packet.src, 0, packet.srcMac)) return true;
      counters.ipSpoofed++;
      return false;
    }
    // A guest that has no address yet looks for duplicates and routers, and says nothing else (RFC 4862 section 5.4.2).
    if (isUnspecifiedIpv6(packet.src, 0) && packet.protocol === NEXT_ICMPV6) return true;
    counters.ipMartianSource++;
    return false;
  }

  #destinationAllowed(packet: Packet, kind: DestinationKind): boolean {
    const { counters, errors, now } = this.#context;
    if (kind === 'group') return true;
    if (packet.group || kind === 'martian' || kind === 'neighbour') {
      counters.ipMartianDestination++;
      if (kind === 'neighbour') errors.answer(now, packet, 'host-unreachable');
      return false;
    }
    if (kind === 'own') return true;
    if (isLinkLocalIpv6(packet.src, 0) || isUnspecifiedIpv6(packet.src, 0)) {
      // RFC 4007 section 9: it would leave the zone of its source.
      counters.ipMartianSource++;
      errors.answer(now, packet, 'net-unreachable');
      return false;
    }
    if (packet.ttl <= 1) {
      counters.ipTtlExceeded++;
      errors.answer(now, packet, 'ttl-exceeded');
      return false;
    }
    return true;
  }

  #fragment(packet: Packet, upper: Extensions, kind: DestinationKind): void {
    const { counters, errors, now } = this.#context;
    const fragment = parseFragment(packet.buf, upper.off);
    packet.payloadOff = upper.off + FRAGMENT_LEN;
    packet.protocol = fragment.nextHeader;
    const len = packet.end - packet.payloadOff;
    // RFC 8200 section 4.5 names both answers.
    if (fragment.more && (len & 7) !== 0) {
      counters.ipReassemblyRefused++;
      errors.answer(now, packet, 'parameter', 4, PROBLEM_FIELD);
      return;
    }
    if (fragment.offset + len > PAYLOAD_BYTES_MAX) {
      counters.ipReassemblyRefused++;
      errors.answer(now, packet, 'parameter', upper.off + 2 - packet.ipOff, PROBLEM_FIELD);
      return;
    }
    if (fragment.offset === 0 && !this.#chainComplete(packet, fragment)) return;
    if (fragment.offset === 0 && !fragment.more) {
      // RFC 6946: an atomic fragment is a packet of its own, whatever others have its identification.
      const rest = walkExtensions(
        packet.buf,
        packet.ipOff,
        packet.payloadOff,
        packet.end,
        fragment.nextHeader,
      );
      this.#upper(packet, rest, kind);
      return;
    }
    const assembly = this.#reassembly.add(now, packet, {
      ident: fragment.ident,
      offset: fragment.offset,
      more: fragment.more,
      protocol: fragment.nextHeader,
    });
    if (!assembly) return;
    this.#adopt(packet, assembly, assembly.len);
    const whole = walkExtensions(packet.buf, packet.ipOff, packet.payloadOff, packet.end, assembly.protocol);
    // A fragment header within a fragment is nothing that a sane sender makes.
    if (whole.kind === 'fragment') counters.ipReassemblyRefused++;
    else this.#upper(packet, whole, kind);
  }

  /** RFC 7112: all headers are in the first fragment, so that it can be judged. */
  #chainComplete(packet: Packet, fragment: FragmentRepr): boolean {
    const { counters, errors, now } = this.#context;
    const { buf, ipOff, payloadOff, end } = packet;
    const upper = walkExtensions(buf, ipOff, payloadOff, end, fragment.nextHeader);
    const cut = upper.kind === 'problem' && upper.code === PROBLEM_FIELD;
    if (!cut && (upper.kind !== 'upper' || end - upper.off >= upperLenMin(upper.protocol))) return true;
    counters.ipReassemblyRefused++;
    errors.answer(now, packet, 'parameter', 0, PROBLEM_HEADER_CHAIN);
    return false;
  }

  /** Makes `packet` the datagram that was put together, with a header of its own before the payload. */
  #adopt(packet: Packet, assembly: Assembly, len: number): void {
    packet.buf = assembly.buf;
    packet.payloadOff = assembly.payloadOff;
    packet.ipOff = assembly.payloadOff - IPV6_LEN;
    packet.end = assembly.payloadOff + len;
    packet.trafficClass = assembly.trafficClass;
    packet.trusted = false;
    packet.gsoType = 0;
    packet.gsoSize = 0;
    const header = {
      trafficClass: assembly.trafficClass,
      flowLabel: 0,
      payloadLen: len,
      nextHeader: assembly.protocol,
      hopLimit: packet.ttl,
    };
    emitIpv6(header, packet.src, 0, packet.dst, 0, packet.buf, packet.ipOff);
  }

  /** RFC 8200 section 4.5: time exceeded in reassembly, if the first fragment has come. */
  #expired(assembly: Assembly): void {
    if (!assembly.hasStart) return;
    const packet = this.#timedOut;
    packet.buf = assembly.near;
    packet.setIpv6(assembly.near, 0, 0);
    packet.dst.set(assembly.far);
    packet.ttl = 1;
    packet.srcMac = assembly.srcMac;
    packet.group = assembly.group;
    packet.protocol = assembly.protocol;
    this.#adopt(packet, assembly, assembly.ranges[1]!);
    this.#context.errors.answer(this.#context.now, packet, 'reassembly-exceeded');
  }
}
