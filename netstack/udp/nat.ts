/**
 * UDP from guests to the world: a mapping per guest address and port, each with a socket of the host of its own, whatever
 * the destinations (RFC 4787 REQ-1, endpoint-independent mapping), and answers from anywhere reach the guest (REQ-8,
 * endpoint-independent filtering), so that STUN and games work.
 *
 * A mapping lives while packets pass in either direction: five minutes, two before there was an answer (REQ-5), and a short
 * while after a mapping was used for DNS only, which opens one per question. What the host's socket learns by ICMP goes to the
 * guest as ICMP about its packet.
 */
import type { StackContext } from '../flow/context.ts';
import { type Endpoint, GuestSocket, GuestSockets } from '../flow/guest-sockets.ts';
import type { DatagramSink, HostDatagram, HostError, HostIcmpError } from '../flow/host.ts';
import type { FlowInfo } from '../flow/inside.ts';
import { errorKindOf } from '../ip/errors.ts';
import { Route, TTL_DEFAULT } from '../ip/output.ts';
import type { Packet } from '../ip/packet.ts';
import { UDP_MAPPINGS_MAX, UDP_MAPPINGS_PER_GUEST } from '../limits.ts';
import { copyAddress, isLinkLocalIpv6, sameAddress } from '../wire/address.ts';
import { PROTOCOL_UDP } from '../wire/ipv4.ts';
import { emitUdp, UDP_CHECKSUM_OFFSET, UDP_LEN, type UdpRepr } from '../wire/udp.ts';
import { GSO_UDP_L4 } from '../wire/virtio.ts';

/** RFC 4787 REQ-5: two minutes at least, five recommended; ports below 1024 may have less. */
const IDLE_MS = 300_000;
const IDLE_UNANSWERED_MS = 120_000;
const IDLE_DNS_MS = 15_000;
const DNS_PORT = 53;

/** One guest endpoint and its socket. */
class UdpMapping extends GuestSocket<HostDatagram> implements DatagramSink {
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
  readonly #nat: UdpNat;

  constructor(nat: UdpNat, endpoint: Endpoint, loopback: Uint8Array) {
    super(endpoint);
    this.#nat = nat;
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
  readonly #sockets: GuestSockets<HostDatagram, UdpMapping>;
  readonly #route = new Route();
  readonly #header: UdpRepr = { srcPort: 0, dstPort: 0, len: 0, checksum: 0 };

  constructor(context: StackContext) {
    this.#context = context;
    const { addressing, counters, host } = context;
    this.#sockets = new GuestSockets(context, {
      holding: 'mappings',
      max: UDP_MAPPINGS_MAX,
      perGuest: UDP_MAPPINGS_PER_GUEST,
      make: (endpoint) => new UdpMapping(this, endpoint, addressing.sourceFor(endpoint.guest.near, 0)),
      open: (mapping) => {
        const socket = host.openDatagram(mapping.ipv4 ? 4 : 6, undefined, 0, 0, mapping);
        if (typeof socket !== 'string') counters.udpMappingsOpened++;
        return socket;
      },
      evicted: () => counters.udpMappingsEvicted++,
    });
  }

  get size(): number {
    return this.#sockets.size;
  }

  /** Forwards a datagram (or a super-frame of several) from a guest; `own`: to an address of ours, which stands for loopback. */
  forward(packet: Packet, header: UdpRepr, own: boolean): void {
    const { now, addressing, counters } = this.#context;
    const mapping = this.#sockets.of(packet.src, header.srcPort, packet.srcMac);
    if (typeof mapping === 'string') {
      counters.udpHostErrors++;
      return;
    }
    if (!mapping.socket) return;
    const target = (own && addressing.toHost(packet.dst, 0)) || packet.dst;
    if (!this.#allowed(mapping, packet, target, header.dstPort)) {
      counters.egressDenied++;
      this.#context.errors.answer(now, packet, 'prohibited');
      return;
    }
    mapping.mac = packet.srcMac;
    if (header.dstPort !== DNS_PORT) mapping.onlyDns = false;
    this.#sockets.used(mapping);
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
    const { addressing, counters, output } = this.#context;
    const local = mapping.asksGroups && !mapping.ipv4 && isLinkLocalIpv6(addr, addrOff);
    const shown = local ? addressing.linkLocal : addressing.fromHost(addr, addrOff, mapping.loopback);
    if (shown === null) {
      counters.ipMartianSource++;
      return;
    }
    mapping.answered = true;
    mapping.bytesToGuest += len;
    this.#sockets.used(mapping);
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
    this.#sockets.close(mapping);
  }

  forget(addr: Uint8Array, off: number): void {
    this.#sockets.forget(addr, off);
  }

  close(): void {
    this.#sockets.closeAll();
  }

  *describe(): Generator<FlowInfo, void> {
    const { now } = this.#context;
    for (const mapping of this.#sockets)
      yield mapping.describe(now, 'udp', mapping.answered ? 'answered' : 'unanswered');
  }

  poll(now: number): void {
    this.#context.counters.udpMappingsExpired += this.#sockets.poll(now);
  }

  pollAt(): number {
    return this.#sockets.pollAt();
  }

  /** Frees a socket for another use; false when there is none. */
  shed(): boolean {
    return this.#sockets.shed();
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
}
