/**
 * Multicast groups of the host's network for guests: which are wanted, and their datagrams.
 *
 * Where groups are relayed the gateway is the link's multicast router: it asks who wants what (IGMPv3, MLDv2), so that switches
 * that look into reports, in a guest's own bridges for one, pass the groups on. A relayed group that a guest wants is joined on the
 * host; what comes goes to the link as it is. What guests send to a group goes out by their own mappings (udp/nat.ts).
 *
 * Nothing is remembered of groups that are not relayed, whatever guests report.
 */
import type { StackContext } from '../flow/context.ts';
import type { DatagramSink, HostGroup } from '../flow/host.ts';
import type { MulticastGroup } from '../flow/inside.ts';
import { Route } from '../ip/output.ts';
import type { Packet } from '../ip/packet.ts';
import {
  get32,
  isLinkLocalIpv6,
  isMapped,
  multicastMacIpv4,
  parseIpv6,
  sameAddress,
} from '../wire/address.ts';
import { PROTOCOL_UDP } from '../wire/ipv4.ts';
import { igmpQuery, type MembershipSink, mldQuery, readIgmp, readMld } from '../wire/membership.ts';
import { multicastMac } from '../wire/ndp.ts';
import { emitUdp, UDP_CHECKSUM_OFFSET, UDP_LEN } from '../wire/udp.ts';

/** RFC 3376 section 8: query interval, query response interval, and what follows from them. */
const QUERY_SECONDS = 125;
const QUERY_MS: number = QUERY_SECONDS * 1000;
const RESPONSE_MS = 10_000;
/** Section 8.6 and 8.7: the first queries, and how many. */
const STARTUP_MS: number = QUERY_MS / 4;
const STARTUP_QUERIES = 2;
/** Section 8.4: a group that nobody has asked for for so long is wanted no more. */
const MEMBERSHIP_MS: number = 2 * QUERY_MS + RESPONSE_MS;
/** Section 8.5: another querier that was silent for so long is gone. */
const OTHER_QUERIER_MS: number = 2 * QUERY_MS + RESPONSE_MS / 2;
/** Section 8.8: after somebody has left, others have so long to say that they stay. */
const LEAVE_MS = 1000;

const ALL_HOSTS_MAC: number = multicastMacIpv4(0xe000_0001);
const ALL_NODES: Uint8Array = parseIpv6('ff02::1')!;

interface Membership {
  readonly group: MulticastGroup;
  /** -Infinity: nobody wants it. */
  until: number;
  socket: HostGroup | undefined;
}

/** One family's querier. */
interface Querier {
  readonly ipv4: boolean;
  readonly mac: number;
  readonly query: Uint8Array;
  /** The same with the short response time of a question after somebody has left. */
  readonly check: Uint8Array;
  at: number;
  sent: number;
}

export class Groups {
  readonly #context: StackContext;
  readonly #memberships: Membership[];
  readonly #queriers: Querier[] = [];
  readonly #route = new Route();
  readonly #sink: MembershipSink;
  #packet: Packet | undefined;

  constructor(context: StackContext) {
    this.#context = context;
    const { relayedGroups, addressing } = context;
    this.#memberships = relayedGroups.map((group) => ({
      group,
      until: Number.NEGATIVE_INFINITY,
      socket: undefined,
    }));
    const at = Number.NEGATIVE_INFINITY;
    if (relayedGroups.some(({ addr }) => isMapped(addr, 0)))
      this.#queriers.push({
        ...{ ipv4: true, mac: ALL_HOSTS_MAC, at, sent: 0 },
        query: igmpQuery(addressing.ipv4, QUERY_SECONDS, RESPONSE_MS),
        check: igmpQuery(addressing.ipv4, QUERY_SECONDS, LEAVE_MS),
      });
    if (addressing.hasIpv6 && relayedGroups.some(({ addr }) => !isMapped(addr, 0)))
      this.#queriers.push({
        ...{ ipv4: false, mac: multicastMac(ALL_NODES, 0), at, sent: 0 },
        query: mldQuery(addressing.linkLocal, ALL_NODES, QUERY_SECONDS, RESPONSE_MS),
        check: mldQuery(addressing.linkLocal, ALL_NODES, QUERY_SECONDS, LEAVE_MS),
      });
    this.#sink = {
      wanted: (group) => this.#wanted(group),
      unwanted: (group) => this.#unwanted(group),
      query: () => this.#heardQuery(),
    };
  }

  /** Groups that are joined on the host. */
  get size(): number {
    return this.#memberships.filter(({ socket }) => socket).length;
  }

  /** True when datagrams to this group and port go out. */
  isRelayed(addr: Uint8Array, port: number): boolean {
    return this.#memberships.some(({ group }) => group.port === port && sameAddress(group.addr, 0, addr, 0));
  }

  /** Takes an IGMP packet to a group. */
  igmp(packet: Packet): void {
    const { counters } = this.#context;
    this.#packet = packet;
    // It is never routed (RFC 3376 section 4).
    if (packet.ttl === 1 && readIgmp(packet.buf, packet.payloadOff, packet.end, this.#sink))
      counters.groupMessagesIn++;
    else counters.groupMalformed++;
  }

  /** Takes an MLD message whose checksum is right. */
  mld(packet: Packet): void {
    const { counters } = this.#context;
    this.#packet = packet;
    // RFC 3810 sections 5.1.14 and 5.2.13: from the link itself.
    const local = packet.ttl === 1 && isLinkLocalIpv6(packet.src, 0);
    if (local && readMld(packet.buf, packet.payloadOff, packet.end, this.#sink)) counters.groupMessagesIn++;
    else counters.groupMalformed++;
  }

  #wanted(addr: Uint8Array): void {
    for (const membership of this.#memberships) {
      if (!sameAddress(membership.group.addr, 0, addr, 0)) continue;
      membership.until = this.#context.now + MEMBERSHIP_MS;
      if (membership.socket) membership.socket.refresh();
      else this.#join(membership);
    }
  }

  #join(membership: Membership): void {
    const { host, counters, log } = this.#context;
    const { addr, port } = membership.group;
    const sink: DatagramSink = {
      datagram: (buf, off, len, from, fromOff, fromPort, ttl, trafficClass) =>
        this.#fromHost(membership.group, buf, off, len, from, fromOff, fromPort, ttl, trafficClass),
      icmpError() {},
      failed: () => this.#leave(membership),
    };
    const socket = host.openGroup(addr, 0, port, sink);
    if (typeof socket === 'string') {
      counters.udpHostErrors++;
      log.warn({ error: socket, port }, 'a multicast group could not be joined on the host');
    } else membership.socket = socket;
  }

  #leave(membership: Membership): void {
    membership.until = Number.NEGATIVE_INFINITY;
    membership.socket?.close();
    membership.socket = undefined;
  }

  #unwanted(addr: Uint8Array): void {
    const { now } = this.#context;
    let asked = false;
    for (const membership of this.#memberships) {
      if (!membership.socket || !sameAddress(membership.group.addr, 0, addr, 0)) continue;
      if (membership.until <= now + 2 * LEAVE_MS) continue;
      membership.until = now + 2 * LEAVE_MS;
      asked = true;
    }
    const querier = this.#queriers.find(({ ipv4 }) => ipv4 === isMapped(addr, 0));
    if (asked && querier) this.#send(querier, querier.check);
  }

  /** RFC 3376 section 6.6.2: the querier with the lowest address asks, others listen. 0.0.0.0 is a switch that only looks. */
  #heardQuery(): void {
    const { addressing, now } = this.#context;
    const packet = this.#packet!;
    const own = packet.ipv4 ? addressing.ownIpv4 : addressing.linkLocal;
    if (packet.ipv4 && packet.srcIpv4 === 0) return;
    if (!isLower(packet.src, own)) return;
    const querier = this.#queriers.find(({ ipv4 }) => ipv4 === packet.ipv4);
    if (querier) querier.at = now + OTHER_QUERIER_MS;
  }

  #send(querier: Querier, query: Uint8Array): void {
    const { output, counters } = this.#context;
    if (output.ready(querier.mac, querier.ipv4, query)) counters.groupQueries++;
  }

  /** A datagram of the host's network for all guests that listen. */
  #fromHost(
    group: MulticastGroup,
    buf: Uint8Array,
    off: number,
    len: number,
    addr: Uint8Array,
    addrOff: number,
    port: number,
    ttl: number,
    trafficClass: number,
  ): void {
    const { addressing, counters, output } = this.#context;
    const ipv4 = isMapped(group.addr, 0);
    const shown = addressing.fromNetwork(addr, addrOff);
    if (isMapped(addr, addrOff) !== ipv4 || !shown) {
      counters.ipMartianSource++;
      return;
    }
    const route = this.#route;
    route.mac = ipv4 ? multicastMacIpv4(get32(group.addr, 12)) : multicastMac(group.addr, 0);
    route.ipv4 = ipv4;
    route.src = shown;
    route.dst = group.addr;
    // As it came: what is meant for a link says so by its TTL (RFC 6762 section 11), and this is the same link to a guest.
    route.ttl = Math.max(1, ttl);
    route.trafficClass = trafficClass;
    const header = { srcPort: port, dstPort: group.port, len: UDP_LEN + len, checksum: 0 };
    emitUdp(header, output.head, output.upperOff(ipv4));
    if (output.packet(route, PROTOCOL_UDP, UDP_LEN, UDP_CHECKSUM_OFFSET, buf, off, len))
      counters.groupDatagramsIn++;
  }

  poll(now: number): void {
    for (const querier of this.#queriers) {
      if (now < querier.at) continue;
      this.#send(querier, querier.query);
      querier.sent++;
      querier.at = now + (querier.sent < STARTUP_QUERIES ? STARTUP_MS : QUERY_MS);
    }
    for (const membership of this.#memberships)
      if (membership.socket && now >= membership.until) this.#leave(membership);
  }

  pollAt(): number {
    let at = Number.POSITIVE_INFINITY;
    for (const querier of this.#queriers) at = Math.min(at, querier.at);
    for (const { socket, until } of this.#memberships) if (socket) at = Math.min(at, until);
    return at;
  }

  close(): void {
    for (const membership of this.#memberships) this.#leave(membership);
  }
}

/** Addresses as numbers. */
function isLower(a: Uint8Array, b: Uint8Array): boolean {
  for (let i = 0; i < 16; i++) if (a[i] !== b[i]) return a[i]! < b[i]!;
  return false;
}
