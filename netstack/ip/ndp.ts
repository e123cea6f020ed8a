/**
 * The gateway's neighbour discovery (RFC 4861): it answers for its own addresses, defends them (RFC 4862), learns and asks, and as the
 * router of the link advertises prefix, MTU and DNS (RFC 8106) so that guests configure themselves.
 *
 * The gateway uses its addresses at once and looks for duplicates at the same time (RFC 4429): it was there first.
 */
import { below } from '#common/rng';
import type { StackContext } from '../flow/context.ts';
import {
  isLinkLocalIpv6,
  isMulticastIpv6,
  isUnspecifiedIpv6,
  parseIpv6,
  sameAddress,
} from '../wire/address.ts';
import { emitIcmpv6, ICMPV6_LEN, type Icmpv6Repr } from '../wire/icmpv6.ts';
import { NEXT_ICMPV6 } from '../wire/ipv6.ts';
import {
  emitNeighbor,
  emitRouter,
  multicastMac,
  NA_OVERRIDE,
  NA_ROUTER,
  NA_SOLICITED,
  NDP_HOP_LIMIT,
  NDP_NEIGHBOR_ADVERTISEMENT,
  NDP_NEIGHBOR_SOLICITATION,
  NDP_ROUTER_ADVERTISEMENT,
  NDP_ROUTER_SOLICITATION,
  NEIGHBOR_LEN,
  parseNeighbor,
  parseRouterSolicitation,
  putSolicitedNode,
  type RouterRepr,
  routerWord,
  sizeNeighbor,
  sizeRouter,
} from '../wire/ndp.ts';
import { Route, TTL_DEFAULT } from './output.ts';
import type { Packet } from './packet.ts';

/** What the router advertisements say besides the prefix. */
export interface RouterOptions {
  /** Recursive DNS servers; default: the gateway. */
  dnsServers?: Uint8Array[];
  searchDomains?: string[];
  /** Guests ask DHCPv6 for addresses (M), or for other settings only (O). */
  managed?: boolean;
  other?: boolean;
}

const ALL_NODES: Uint8Array = parseIpv6('ff02::1')!;
const UNSPECIFIED: Uint8Array = new Uint8Array(16);

/** RFC 4861 section 6.2.1: MaxRtrAdvInterval and MinRtrAdvInterval. */
const ADVERTISE_MS_MAX = 600_000;
const ADVERTISE_MS_MIN = 200_000;
/** Section 10: the first few come faster, so that waiting guests need not ask. */
const INITIAL_ADVERTISEMENTS = 3;
const INITIAL_ADVERTISE_MS = 16_000;
/** Multicast advertisements are at least this far apart (MIN_DELAY_BETWEEN_RAS). */
const ADVERTISE_GAP_MS = 3000;
const LIFETIME_SECONDS = 1800;
/** Prefix lifetimes: a day and four hours, as common routers have them; renewed with every advertisement. */
const VALID_SECONDS = 86_400;
const PREFERRED_SECONDS = 14_400;
/** SLAAC works with prefixes of this length only (RFC 4862 section 5.5.3 with RFC 4291). */
const SLAAC_PREFIX_LENGTH = 64;
const DEFEND_INTERVAL_MS = 10_000;

export class Ndp {
  readonly #context: StackContext;
  readonly #mac: number;
  readonly #router: RouterRepr | undefined;
  readonly #route = new Route();
  readonly #body: Uint8Array;
  readonly #group = new Uint8Array(16);
  #started = false;
  #advertiseAt: number = Number.NEGATIVE_INFINITY;
  #advertisedAt: number = Number.NEGATIVE_INFINITY;
  #advertisements = 0;
  #defendedAt: number = Number.NEGATIVE_INFINITY;

  constructor(context: StackContext, mac: number, options: RouterOptions = {}) {
    this.#context = context;
    this.#mac = mac;
    const { ownIpv6, prefixLengthIpv6 } = context.addressing;
    if (ownIpv6)
      this.#router = {
        hopLimit: TTL_DEFAULT,
        managed: options.managed ?? false,
        other: options.other ?? false,
        lifetimeSeconds: LIFETIME_SECONDS,
        mac,
        mtuBytes: context.output.mtuBytes,
        prefix: maskPrefix(ownIpv6, prefixLengthIpv6),
        prefixLength: prefixLengthIpv6,
        autonomous: prefixLengthIpv6 === SLAAC_PREFIX_LENGTH,
        validSeconds: VALID_SECONDS,
        preferredSeconds: PREFERRED_SECONDS,
        dnsServers: options.dnsServers ?? [ownIpv6],
        searchDomains: options.searchDomains ?? [],
      };
    this.#body = new Uint8Array(Math.max(NEIGHBOR_LEN, this.#router ? sizeRouter(this.#router) : 0));
  }

  /** Takes a neighbour discovery message whose checksum is right. */
  input(packet: Packet, icmp: Icmpv6Repr): void {
    const { counters } = this.#context;
    // Packets that came through a router are forged (RFC 4861 sections 6.1 and 7.1).
    if (packet.ttl !== NDP_HOP_LIMIT || icmp.code !== 0) {
      counters.ndpMalformed++;
      return;
    }
    const valid =
      icmp.type === NDP_NEIGHBOR_SOLICITATION
        ? this.#solicitation(packet)
        : icmp.type === NDP_NEIGHBOR_ADVERTISEMENT
          ? this.#advertisement(packet, icmp)
          : icmp.type !== NDP_ROUTER_SOLICITATION || this.#routerSolicitation(packet);
    if (!valid) counters.ndpMalformed++;
  }

  /** Asks who has `addr`: everybody, or the station that had it. */
  solicit(addr: Uint8Array, mac: number): void {
    putSolicitedNode(addr, 0, this.#group, 0);
    const to = mac < 0 ? this.#group : addr;
    const source = this.#context.addressing.sourceFor(addr, 0);
    const repr = { target: addr, mac: this.#mac };
    emitNeighbor(repr, true, this.#body, 0);
    const toMac = mac < 0 ? multicastMac(this.#group, 0) : mac;
    this.#send(toMac, source, to, NDP_NEIGHBOR_SOLICITATION, 0, sizeNeighbor(repr));
  }

  poll(now: number): void {
    if (!this.#router) return;
    if (!this.#started) {
      this.#started = true;
      this.#advertiseAt = now;
      this.#probe(this.#context.addressing.linkLocal);
      this.#probe(this.#context.addressing.ownIpv6!);
    }
    if (now >= this.#advertiseAt) this.#advertise(now);
  }

  pollAt(): number {
    if (!this.#router) return Number.POSITIVE_INFINITY;
    return this.#started ? this.#advertiseAt : Number.NEGATIVE_INFINITY;
  }

  /** Duplicate address detection: who has this already? (RFC 4862 section 5.4.2) */
  #probe(addr: Uint8Array): void {
    putSolicitedNode(addr, 0, this.#group, 0);
    const repr = { target: addr, mac: -1 };
    emitNeighbor(repr, true, this.#body, 0);
    const mac = multicastMac(this.#group, 0);
    this.#send(mac, UNSPECIFIED, this.#group, NDP_NEIGHBOR_SOLICITATION, 0, sizeNeighbor(repr));
  }

  #solicitation(packet: Packet): boolean {
    const { addressing, counters, neighbours, now } = this.#context;
    const repr = parseNeighbor(packet.buf, packet.payloadOff + ICMPV6_LEN, packet.end, true);
    if (!repr) return false;
    const probing = isUnspecifiedIpv6(packet.src, 0);
    // A probe has no source to give, and goes to the solicited-node group (RFC 4861 section 7.1.1).
    if (probing && (repr.mac >= 0 || !isMulticastIpv6(packet.dst, 0))) return false;
    counters.ndpSolicitations++;
    if (!addressing.isOwn(repr.target, 0)) return true;
    if (probing) {
      this.#answer(packet.srcMac, ALL_NODES, repr.target, NA_ROUTER | NA_OVERRIDE);
      return true;
    }
    // Like ARP: a station speaks for itself.
    if (repr.mac >= 0 && repr.mac !== packet.srcMac) return false;
    if (!neighbours.learn(now, packet.src, 0, packet.srcMac, false)) return true;
    this.#answer(packet.srcMac, packet.src, repr.target, NA_ROUTER | NA_SOLICITED | NA_OVERRIDE);
    return true;
  }

  #advertisement(packet: Packet, icmp: Icmpv6Repr): boolean {
    const { addressing, counters, neighbours, now } = this.#context;
    const repr = parseNeighbor(packet.buf, packet.payloadOff + ICMPV6_LEN, packet.end, false);
    const solicited = (icmp.rest & NA_SOLICITED) !== 0;
    // An answer to one who asked is not sent to a group (RFC 4861 section 7.1.2).
    if (!repr || (solicited && isMulticastIpv6(packet.dst, 0))) return false;
    const mac = repr.mac < 0 ? packet.srcMac : repr.mac;
    if (mac !== packet.srcMac) return false;
    counters.ndpAdvertisementsIn++;
    if (addressing.isOwn(repr.target, 0)) this.#conflict(repr.target);
    else if (addressing.isGuestIpv6(repr.target, 0)) {
      if (solicited) neighbours.answer(now, repr.target, 0, mac);
      else neighbours.learn(now, repr.target, 0, mac, false);
    }
    return true;
  }

  #routerSolicitation(packet: Packet): boolean {
    const mac = parseRouterSolicitation(packet.buf, packet.payloadOff + ICMPV6_LEN, packet.end);
    const unspecified = isUnspecifiedIpv6(packet.src, 0);
    if (mac === undefined || (unspecified && mac >= 0)) return false;
    if (!this.#router) return true;
    const { now, neighbours } = this.#context;
    if (!unspecified && isLinkLocalIpv6(packet.src, 0)) {
      neighbours.learn(now, packet.src, 0, packet.srcMac, false);
      this.#sendRouter(packet.srcMac, packet.src);
    }
    // To all, but not more often than the gap allows (RFC 4861 section 6.2.6).
    else
      this.#advertiseAt = Math.min(this.#advertiseAt, Math.max(now, this.#advertisedAt + ADVERTISE_GAP_MS));
    return true;
  }

  #conflict(target: Uint8Array): void {
    const { counters, log, now } = this.#context;
    counters.arpConflicts++;
    if (now - this.#defendedAt < DEFEND_INTERVAL_MS) return;
    this.#defendedAt = now;
    log.warn({}, 'another station claims the IPv6 address of the gateway; defending it');
    this.#answer(multicastMac(ALL_NODES, 0), ALL_NODES, target, NA_ROUTER | NA_OVERRIDE);
  }

  #advertise(now: number): void {
    const { rng } = this.#context;
    const initial = ++this.#advertisements < INITIAL_ADVERTISEMENTS;
    const interval = ADVERTISE_MS_MIN + below(rng, ADVERTISE_MS_MAX - ADVERTISE_MS_MIN);
    this.#advertisedAt = now;
    this.#advertiseAt = now + (initial ? INITIAL_ADVERTISE_MS : interval);
    this.#sendRouter(multicastMac(ALL_NODES, 0), ALL_NODES);
  }

  #sendRouter(mac: number, to: Uint8Array): void {
    const router = this.#router!;
    this.#context.counters.routerAdvertisements++;
    emitRouter(router, this.#body, 0);
    const { linkLocal } = this.#context.addressing;
    this.#send(mac, linkLocal, to, NDP_ROUTER_ADVERTISEMENT, routerWord(router), sizeRouter(router));
  }

  #answer(mac: number, to: Uint8Array, target: Uint8Array, flags: number): void {
    const repr = { target, mac: this.#mac };
    emitNeighbor(repr, false, this.#body, 0);
    const group = sameAddress(to, 0, ALL_NODES, 0);
    const toMac = group ? multicastMac(ALL_NODES, 0) : mac;
    this.#send(toMac, target, to, NDP_NEIGHBOR_ADVERTISEMENT, flags >>> 0, sizeNeighbor(repr));
  }

  /** Sends a message whose body is in {@link #body}. */
  #send(mac: number, src: Uint8Array, dst: Uint8Array, type: number, rest: number, bodyLen: number): void {
    const { output } = this.#context;
    const route = this.#route;
    route.mac = mac;
    route.ipv4 = false;
    route.src = src;
    route.dst = dst;
    route.ttl = NDP_HOP_LIMIT;
    const upper = output.upperOff(false);
    emitIcmpv6({ type, code: 0, rest }, src, 0, dst, 0, this.#body, 0, bodyLen, output.head, upper);
    output.packet(route, NEXT_ICMPV6, ICMPV6_LEN, -1, this.#body, 0, bodyLen);
  }
}

function maskPrefix(addr: Uint8Array, length: number): Uint8Array {
  return addr.map((byte, i) => byte & (0xff00 >> Math.min(8, Math.max(0, length - i * 8))));
}
