/** ICMPv6 from guests: as icmp-input.ts, and neighbour discovery. */
import type { StackContext } from '../flow/context.ts';
import type { HostIcmpError } from '../flow/host.ts';
import type { Pings } from '../flow/pings.ts';
import type { Groups } from '../udp/groups.ts';
import { copyAddress, get16, isUnspecifiedIpv6, sameAddress } from '../wire/address.ts';
import {
  emitIcmpv6,
  ICMPV6_ECHO_REPLY,
  ICMPV6_ECHO_REQUEST,
  ICMPV6_LEN,
  ICMPV6_TIME_EXCEEDED,
  ICMPV6_TOO_BIG,
  ICMPV6_UNREACHABLE,
  isIcmpv6Error,
  parseIcmpv6,
  UNREACHABLE6_NO_ROUTE,
  UNREACHABLE6_PORT,
  UNREACHABLE6_PROHIBITED,
} from '../wire/icmpv6.ts';
import { IPV6_DST, IPV6_LEN, IPV6_SRC, NEXT_ICMPV6, parseIpv6Header, walkExtensions } from '../wire/ipv6.ts';
import { MLD_DONE, MLD_QUERY, MLD_REPORT_2 } from '../wire/membership.ts';
import { NDP_NEIGHBOR_ADVERTISEMENT, NDP_ROUTER_SOLICITATION } from '../wire/ndp.ts';
import type { DestinationKind } from './addressing.ts';
import { deliverError, type ErrorTargets } from './icmp-input.ts';
import type { Ndp } from './ndp.ts';
import { Route, TTL_DEFAULT } from './output.ts';
import type { Packet } from './packet.ts';

/** The shared meaning of an ICMPv6 error, or undefined for one that means nothing here. */
function kindOf(type: number, code: number): HostIcmpError['kind'] | undefined {
  if (type === ICMPV6_TOO_BIG) return 'too-big';
  if (type === ICMPV6_TIME_EXCEEDED) return 'ttl-exceeded';
  if (type !== ICMPV6_UNREACHABLE) return undefined;
  switch (code) {
    case UNREACHABLE6_PORT:
      return 'port-unreachable';
    case UNREACHABLE6_NO_ROUTE:
      return 'net-unreachable';
    case UNREACHABLE6_PROHIBITED:
      return 'prohibited';
    default:
      return 'host-unreachable';
  }
}

export class Icmpv6Input {
  readonly #context: StackContext;
  readonly #ndp: Ndp;
  readonly #pings: Pings;
  readonly #groups: Groups;
  readonly #targets: ErrorTargets;
  readonly #route = new Route();
  readonly #quotedSrc = new Uint8Array(16);
  readonly #quotedDst = new Uint8Array(16);

  constructor(context: StackContext, ndp: Ndp, pings: Pings, groups: Groups, targets: ErrorTargets) {
    this.#groups = groups;
    this.#context = context;
    this.#ndp = ndp;
    this.#pings = pings;
    this.#targets = targets;
  }

  input(packet: Packet, kind: DestinationKind): void {
    const { counters } = this.#context;
    const { buf, payloadOff, end, src, dst } = packet;
    const icmp = parseIcmpv6(buf, payloadOff, end, src, 0, dst, 0);
    if (!icmp) {
      counters.icmpMalformed++;
      return;
    }
    if (icmp.type >= NDP_ROUTER_SOLICITATION && icmp.type <= NDP_NEIGHBOR_ADVERTISEMENT)
      this.#ndp.input(packet, icmp);
    else if ((icmp.type >= MLD_QUERY && icmp.type <= MLD_DONE) || icmp.type === MLD_REPORT_2)
      this.#groups.mld(packet);
    else if (isUnspecifiedIpv6(src, 0)) counters.ipMartianSource++;
    else if (icmp.type === ICMPV6_ECHO_REQUEST) {
      if (kind === 'own') this.#answer(packet, icmp.rest);
      else if (kind === 'outside') this.#pings.forward(packet, icmp.rest);
    } else if (isIcmpv6Error(icmp.type) && kind !== 'group')
      this.#error(packet, icmp.type, icmp.code, icmp.rest);
  }

  #answer(packet: Packet, rest: number): void {
    const { output, counters } = this.#context;
    const bodyOff = packet.payloadOff + ICMPV6_LEN;
    const bodyLen = packet.end - bodyOff;
    const route = this.#route;
    route.mac = packet.srcMac;
    route.ipv4 = false;
    route.src = packet.dst;
    route.dst = packet.src;
    route.ttl = TTL_DEFAULT;
    const repr = { type: ICMPV6_ECHO_REPLY, code: 0, rest };
    const upper = output.upperOff(false);
    emitIcmpv6(repr, packet.dst, 0, packet.src, 0, packet.buf, bodyOff, bodyLen, output.head, upper);
    output.packet(route, NEXT_ICMPV6, ICMPV6_LEN, -1, packet.buf, bodyOff, bodyLen);
    counters.icmpEchoAnswered++;
  }

  #error(packet: Packet, type: number, code: number, rest: number): void {
    this.#context.counters.icmpErrorsIn++;
    const kind = kindOf(type, code);
    const { buf, end } = packet;
    const quote = packet.payloadOff + ICMPV6_LEN;
    // The quoted packet may be cut, so its length says nothing about the end of the quotation.
    const header =
      end - quote >= IPV6_LEN ? parseIpv6Header(buf, quote, quote + IPV6_LEN + 0xffff) : undefined;
    if (!kind || !header || !sameAddress(buf, quote + IPV6_DST, packet.src, 0)) return;
    const upper = walkExtensions(buf, quote, quote + IPV6_LEN, end, header.nextHeader);
    if (upper.kind !== 'upper' || end - upper.off < 8) return;
    copyAddress(buf, quote + IPV6_SRC, this.#quotedSrc, 0);
    copyAddress(buf, quote + IPV6_DST, this.#quotedDst, 0);
    const error: HostIcmpError = {
      kind,
      mtuBytes: kind === 'too-big' ? rest : 0,
      offender: packet.src.slice(),
    };
    const ownPort = get16(buf, upper.off);
    const guestPort = get16(buf, upper.off + 2);
    deliverError(this.#targets, error, upper.protocol, this.#quotedSrc, ownPort, this.#quotedDst, guestPort);
  }
}
