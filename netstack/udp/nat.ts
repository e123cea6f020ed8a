/**
 * UDP from guests to the world: a mapping per guest address and port, each with a socket of the host of its own, whatever
 * the destinations (RFC 4787 REQ-1, endpoint-independent mapping), and answers from anywhere reach the guest (REQ-8,
 * endpoint-independent filtering), so that STUN and games work.
 *
 * A mapping lives while packets pass in either direction: five minutes, two before there was an answer (REQ-5), and a short
 * while after a mapping was used for DNS only, which opens one per question. What the host's socket learns by ICMP goes to the
 * guest as ICMP about its packet.
 */
import type { Aged } from '../flow/age-list.ts';
import type { StackContext } from '../flow/context.ts';
import type { Guest } from '../flow/guests.ts';
import type { DatagramSink, HostDatagram, HostError, HostIcmpError } from '../flow/host.ts';
import type { FlowInfo } from '../flow/inside.ts';
import { type Entry, NO_ADDRESS, Table } from '../flow/table.ts';
import { type Timed, Timers } from '../flow/timers.ts';
import { errorKindOf } from '../ip/errors.ts';
import { Route, TTL_DEFAULT } from '../ip/output.ts';
import { GSO_UDP_L4, type Packet } from '../ip/packet.ts';
import { UDP_MAPPINGS_MAX, UDP_MAPPINGS_PER_GUEST } from '../limits.ts';
import { copyAddress, formatEndpoint, isLinkLocalIpv6, isMapped, sameAddress } from '../wire/address.ts';
import { PROTOCOL_UDP } from '../wire/ipv4.ts';
import { emitUdp, UDP_CHECKSUM_OFFSET, UDP_LEN, type UdpRepr } from '../wire/udp.ts';

/** RFC 4787 REQ-5: two minutes at least, five recommended; ports below 1024 may have less. */
const IDLE_MS = 300_000;
const IDLE_UNANSWERED_MS = 120_000;
const IDLE_DNS_MS = 15_000;
const DNS_PORT = 53;

/** One guest endpoint and its socket. */
class UdpMapping implements Entry, Timed, Aged, DatagramSink {
  readonly id: number;
  readonly near: Uint8Array;
  readonly nearPort: number;
  readonly far: Uint8Array = NO_ADDRESS;
  readonly farPort = 0;
  readonly guest: Guest;
  readonly ipv4: boolean;
  mac: number;
  socket: HostDatagram | undefined;
  readonly openedAt: number;
  lastAt: number;
  answered = false;
  /** Every destination so far was a DNS server. */
  onlyDns = true;
  /** It has sent to a group: answers may come from link-local addresses of the host's networks. */
  asksGroups = false;
  /** The last destination that the policy allowed: it is not asked again for the next packet. */
  readonly allowed: Uint8Array = new Uint8Array(16);
  allowedPort = -1;
  /** The address of ours by which the guest last reached the host's loopback. */
  readonly loopback: Uint8Array;
  bytesFromGuest = 0;
  bytesToGuest = 0;
  readonly #nat: UdpNat;

  nextInBucket: Entry | undefined;
  dueAt: number = Number.POSITIVE_INFINITY;
  heapIndex = -1;
  heapAt = 0;
  older: Aged | undefined;
  newer: Aged | undefined;

  constructor(
    nat: UdpNat,
    id: number,
    guest: Guest,
    port: number,
    mac: number,
    now: number,
    loopback: Uint8Array,
  ) {
    this.#nat = nat;
    this.id = id;
    this.guest = guest;
    this.near = guest.near;
    this.nearPort = port;
    this.ipv4 = isMapped(guest.near, 0);
    this.mac = mac;
    this.openedAt = now;
    this.lastAt = now;
    this.loopback = loopback.slice();
  }

  get idleMs(): number {
    if (!this.answered) return IDLE_UNANSWERED_MS;
    return this.onlyDns ? IDLE_DNS_MS : IDLE_MS;
  }

  datagram(
    buf: Uint8Array,
    off: number,
    len: number,
    addr: Uint8Array,
    addrOff: number,
    port: number,
    ttl: number,
    trafficClass: number,
  ): void {
    this.#nat.fromHost(this, buf, off, len, addr, addrOff, port, ttl, trafficClass);
  }

  icmpError(
    error: HostIcmpError,
    addr: Uint8Array,
    addrOff: number,
    port: number,
    buf: Uint8Array,
    off: number,
    len: number,
  ): void {
    this.#nat.hostIcmp(this, error, addr, addrOff, port, buf, off, len);
  }

  failed(_error: HostError): void {
    this.#nat.failed(this);
  }
}

export class UdpNat {
  readonly #context: StackContext;
  readonly #table: Table<UdpMapping>;
  readonly #timers = new Timers<UdpMapping>();
  readonly #route = new Route();
  readonly #header: UdpRepr = { srcPort: 0, dstPort: 0, len: 0, checksum: 0 };
  #nextId = 1;

  constructor(context: StackContext) {
    this.#context = context;
    this.#table = new Table(context.rng);
  }

  get size(): number {
    return this.#table.size;
  }

  /** Forwards a datagram (or a super-frame of several) from a guest; `own`: to an address of ours, which stands for loopback. */
  forward(packet: Packet, header: UdpRepr, own: boolean): void {
    const mapping = this.#mappingOf(packet, header);
    if (!mapping?.socket) return;
    const { now, addressing, counters } = this.#context;
    const target = (own && addressing.toHost(packet.dst, 0)) || packet.dst;
    if (!this.#allowed(mapping, packet, target, header.dstPort)) {
      counters.egressDenied++;
      this.#context.errors.answer(now, packet, 'prohibited');
      return;
    }
    mapping.lastAt = now;
    mapping.mac = packet.srcMac;
    if (header.dstPort !== DNS_PORT) mapping.onlyDns = false;
    mapping.guest.mappings.touch(mapping);
    this.#timers.schedule(mapping, now + mapping.idleMs);
    if (packet.group) mapping.asksGroups = true;
    if (own) copyAddress(packet.dst, 0, mapping.loopback, 0);
    // To loopback and to a group it is the host's own: a group's datagram goes one hop (IP_MULTICAST_TTL).
    const ttl = own || packet.group ? 0 : packet.ttl - 1;
    const end = packet.payloadOff + header.len;
    const step = packet.gsoType === GSO_UDP_L4 && packet.gsoSize > 0 ? packet.gsoSize : header.len;
    let at = packet.payloadOff + UDP_LEN;
    // An empty datagram is one too.
    do {
      const len = Math.min(step, end - at);
      counters.udpIn++;
      mapping.bytesFromGuest += len;
      const error = mapping.socket.send(
        packet.buf,
        at,
        len,
        target,
        0,
        header.dstPort,
        ttl,
        packet.trafficClass,
      );
      if (error) {
        this.#sendFailed(packet, error);
        return;
      }
      at += step;
    } while (at < end && mapping.socket);
  }

  /** A datagram for a mapping's guest. */
  fromHost(
    mapping: UdpMapping,
    buf: Uint8Array,
    off: number,
    len: number,
    addr: Uint8Array,
    addrOff: number,
    port: number,
    ttl: number,
    trafficClass: number,
  ): void {
    const { addressing, counters, output, now } = this.#context;
    const local = mapping.asksGroups && !mapping.ipv4 && isLinkLocalIpv6(addr, addrOff);
    const shown = local ? addressing.linkLocal : addressing.fromHost(addr, addrOff, mapping.loopback);
    if (shown === null) {
      counters.ipMartianSource++;
      return;
    }
    mapping.answered = true;
    mapping.lastAt = now;
    mapping.bytesToGuest += len;
    mapping.guest.mappings.touch(mapping);
    this.#timers.schedule(mapping, now + mapping.idleMs);
    const route = this.#route;
    route.mac = mapping.mac;
    route.ipv4 = mapping.ipv4;
    route.src = shown ?? addr;
    route.srcOff = shown ? 0 : addrOff;
    route.dst = mapping.near;
    // We are a router on its way; its last hop must not make it 0.
    route.trafficClass = trafficClass;
    route.ttl = ttl > 0 ? Math.max(1, ttl - 1) : TTL_DEFAULT;
    const header = this.#header;
    header.srcPort = port;
    header.dstPort = mapping.nearPort;
    header.len = UDP_LEN + len;
    emitUdp(header, output.head, output.upperOff(route.ipv4));
    if (output.packet(route, PROTOCOL_UDP, UDP_LEN, UDP_CHECKSUM_OFFSET, buf, off, len)) counters.udpOut++;
  }

  /** An ICMP error for a datagram that a guest sent through its mapping. */
  hostIcmp(
    mapping: UdpMapping,
    error: HostIcmpError,
    addr: Uint8Array,
    addrOff: number,
    port: number,
    buf: Uint8Array,
    off: number,
    len: number,
  ): void {
    const { addressing, counters, errors, now } = this.#context;
    counters.udpHostErrors++;
    const shown = addressing.fromHost(addr, addrOff, mapping.loopback);
    if (shown === null) return;
    errors.relay(
      now,
      error,
      mapping.mac,
      mapping.ipv4,
      PROTOCOL_UDP,
      mapping.near,
      mapping.nearPort,
      shown ?? addr,
      shown ? 0 : addrOff,
      port,
      // Length and checksum of the quoted UDP header: without a checksum, which nobody could verify in a quotation.
      ((UDP_LEN + len) << 16) >>> 0,
      buf,
      off,
      len,
    );
  }

  failed(mapping: UdpMapping): void {
    this.#context.counters.udpHostErrors++;
    this.#close(mapping);
  }

  forget(addr: Uint8Array, off: number): void {
    for (const mapping of [...this.#table]) if (sameAddress(mapping.near, 0, addr, off)) this.#close(mapping);
  }

  close(): void {
    for (const mapping of [...this.#table]) this.#close(mapping);
  }

  *describe(): Generator<FlowInfo, void> {
    const { now } = this.#context;
    for (const mapping of this.#table)
      yield {
        id: mapping.id,
        protocol: 'udp',
        initiator: 'guest',
        guest: formatEndpoint(mapping.near, 0, mapping.nearPort),
        target: '*',
        state: mapping.answered ? 'answered' : 'unanswered',
        ageMs: now - mapping.openedAt,
        idleMs: now - mapping.lastAt,
        bytesFromGuest: mapping.bytesFromGuest,
        bytesToGuest: mapping.bytesToGuest,
        rttMs: undefined,
        retransmits: undefined,
      };
  }

  poll(now: number): void {
    for (let due = this.#timers.pop(now); due; due = this.#timers.pop(now)) {
      this.#context.counters.udpMappingsExpired++;
      this.#close(due);
    }
  }

  pollAt(): number {
    return this.#timers.nextAt();
  }

  #allowed(mapping: UdpMapping, packet: Packet, target: Uint8Array, port: number): boolean {
    if (mapping.allowedPort === port && sameAddress(mapping.allowed, 0, target, 0)) return true;
    if (!this.#context.egress.allows(PROTOCOL_UDP, packet.src, 0, target, 0, port)) return false;
    copyAddress(target, 0, mapping.allowed, 0);
    mapping.allowedPort = port;
    return true;
  }

  #sendFailed(packet: Packet, error: HostError): void {
    this.#context.counters.udpHostErrors++;
    const kind = errorKindOf(error);
    if (kind) this.#context.errors.answer(this.#context.now, packet, kind);
  }

  #mappingOf(packet: Packet, header: UdpRepr): UdpMapping | undefined {
    const known = this.#table.find(packet.src, 0, header.srcPort);
    if (known) return known;
    const { counters, guests, shed } = this.#context;
    const holder = guests.of(packet.src, 0);
    if (holder.mappings.size >= UDP_MAPPINGS_PER_GUEST) this.#evict(holder.mappings.oldest as UdpMapping);
    else if (this.#table.size >= UDP_MAPPINGS_MAX)
      this.#evict(guests.oldestOfHeaviest('mappings') as UdpMapping);
    let mapping = this.#open(packet, header);
    if (mapping === 'EMFILE' && shed()) mapping = this.#open(packet, header);
    if (typeof mapping !== 'string') return mapping;
    counters.udpHostErrors++;
    return undefined;
  }

  #open(packet: Packet, header: UdpRepr): UdpMapping | HostError {
    const { addressing, counters, guests, host, now } = this.#context;
    const guest = guests.of(packet.src, 0);
    const mapping = new UdpMapping(
      this,
      this.#nextId++,
      guest,
      header.srcPort,
      packet.srcMac,
      now,
      addressing.sourceFor(packet.src, 0),
    );
    const socket = host.openDatagram(packet.ipv4 ? 4 : 6, undefined, 0, 0, mapping);
    if (typeof socket === 'string') {
      guests.release(guest);
      return socket;
    }
    mapping.socket = socket;
    guest.mappings.add(mapping);
    this.#table.add(mapping);
    counters.udpMappingsOpened++;
    return mapping;
  }

  /** Gives up the least recently used mapping of the guest that has the most; false when there is none. */
  shed(): boolean {
    const mapping = this.#context.guests.oldestOfHeaviest('mappings') as UdpMapping | undefined;
    if (mapping) this.#evict(mapping);
    return mapping !== undefined;
  }

  #evict(mapping: UdpMapping): void {
    this.#context.counters.udpMappingsEvicted++;
    this.#close(mapping);
  }

  #close(mapping: UdpMapping): void {
    if (!mapping.socket) return;
    mapping.socket.close();
    mapping.socket = undefined;
    this.#table.remove(mapping);
    this.#timers.cancel(mapping);
    mapping.guest.mappings.remove(mapping);
    this.#context.guests.release(mapping.guest);
  }
}
