/**
 * UDP sockets inside the stack: the services at the gateway's address (DHCP, DNS, NTP), and published ports, which stand for a
 * client outside.
 */
import type { StackContext } from '../flow/context.ts';
import type { HostError, HostIcmpError } from '../flow/host.ts';
import type { UdpBinding, UdpOrigin, UdpService, UdpSocket } from '../flow/inside.ts';
import { type Entry, keyAddress, NO_ADDRESS, Table } from '../flow/table.ts';
import { Route, TTL_DEFAULT } from '../ip/output.ts';
import type { Packet } from '../ip/packet.ts';
import {
  copyAddress,
  get32,
  getMac,
  IPV4_BROADCAST,
  isMapped,
  isMulticastIpv4,
  isMulticastIpv6,
  MAC_BROADCAST,
  multicastMacIpv4,
  putMac,
} from '../wire/address.ts';
import { PROTOCOL_UDP } from '../wire/ipv4.ts';
import { multicastMac } from '../wire/ndp.ts';
import { emitUdp, UDP_CHECKSUM_OFFSET, UDP_LEN, type UdpRepr } from '../wire/udp.ts';

/** Ports of sockets that ask for any (RFC 6335 section 6). */
const PORT_FIRST = 49_152;
const PORT_LAST = 65_535;

class InsideSocket implements Entry, UdpSocket {
  readonly near: Uint8Array;
  readonly nearPort: number;
  readonly far: Uint8Array = NO_ADDRESS;
  readonly farPort = 0;
  nextInBucket: Entry | undefined;
  readonly service: UdpService;
  /** Undefined: the gateway's address of the family asked for. */
  readonly addr: Uint8Array | undefined;
  readonly #owner: InsideUdp;

  constructor(owner: InsideUdp, binding: UdpBinding, port: number, service: UdpService) {
    this.#owner = owner;
    this.addr = binding.addr && keyAddress(binding.addr, 0);
    this.near = this.addr ?? NO_ADDRESS;
    this.nearPort = port;
    this.service = service;
  }

  get port(): number {
    return this.nearPort;
  }

  send(
    buf: Uint8Array,
    off: number,
    len: number,
    addr: Uint8Array,
    addrOff: number,
    port: number,
    mac?: Uint8Array,
    trafficClass = 0,
  ): boolean {
    return this.#owner.send(
      this,
      buf,
      off,
      len,
      addr,
      addrOff,
      port,
      mac ? getMac(mac, 0) : -1,
      trafficClass,
    );
  }

  close(): void {
    this.#owner.closed(this);
  }
}

export class InsideUdp {
  readonly #context: StackContext;
  readonly #table: Table<InsideSocket>;
  readonly #route = new Route();
  readonly #header: UdpRepr = { srcPort: 0, dstPort: 0, len: 0, checksum: 0 };
  readonly #originAddr = new Uint8Array(16);
  readonly #originTo = new Uint8Array(16);
  readonly #originMac = new Uint8Array(6);

  constructor(context: StackContext) {
    this.#context = context;
    this.#table = new Table(context.rng);
  }

  bind(binding: UdpBinding, service: UdpService): UdpSocket | HostError {
    const addr = binding.addr ?? NO_ADDRESS;
    let { port } = binding;
    if (port === 0) {
      port = PORT_FIRST;
      while (port <= PORT_LAST && this.#table.find(addr, 0, port)) port++;
      if (port > PORT_LAST) return 'EADDRNOTAVAIL';
    } else if (this.#table.find(addr, 0, port)) return 'EADDRINUSE';
    const socket = new InsideSocket(this, binding, port, service);
    this.#table.add(socket);
    return socket;
  }

  closed(socket: InsideSocket): void {
    this.#table.remove(socket);
  }

  /** Gives a datagram to the socket that it is for; false when there is none. `own` covers the gateway's address and groups. */
  deliver(packet: Packet, header: UdpRepr, own: boolean): boolean {
    if (this.#table.size === 0) return false;
    const socket =
      this.#table.find(packet.dst, 0, header.dstPort) ??
      (own ? this.#table.find(NO_ADDRESS, 0, header.dstPort) : undefined);
    if (!socket) return false;
    copyAddress(packet.src, 0, this.#originAddr, 0);
    copyAddress(packet.dst, 0, this.#originTo, 0);
    putMac(this.#originMac, 0, packet.srcMac);
    const origin: UdpOrigin = {
      addr: this.#originAddr,
      port: header.srcPort,
      toAddr: this.#originTo,
      mac: this.#originMac,
      ttl: packet.ttl,
      trafficClass: packet.trafficClass,
    };
    this.#context.counters.udpIn++;
    socket.service.datagram(
      this.#context.now,
      packet.buf,
      packet.payloadOff + UDP_LEN,
      header.len - UDP_LEN,
      origin,
    );
    return true;
  }

  /** A guest's ICMP error about a datagram of ours, from `own`:`ownPort` to `guest`:`guestPort`. */
  icmpError(
    error: HostIcmpError,
    own: Uint8Array,
    ownPort: number,
    guest: Uint8Array,
    guestPort: number,
  ): void {
    const socket =
      this.#table.find(own, 0, ownPort) ??
      (this.#context.addressing.isOwn(own, 0) ? this.#table.find(NO_ADDRESS, 0, ownPort) : undefined);
    socket?.service.icmpError?.(error, guest, guestPort);
  }

  send(
    socket: InsideSocket,
    buf: Uint8Array,
    off: number,
    len: number,
    addr: Uint8Array,
    addrOff: number,
    port: number,
    givenMac: number,
    trafficClass: number,
  ): boolean {
    const { neighbours, now, addressing } = this.#context;
    let mac = givenMac >= 0 ? givenMac : this.#groupMac(addr, addrOff);
    if (mac < 0) {
      if (!addressing.isGuest(addr, addrOff)) return false;
      mac = neighbours.lookup(now, addr, addrOff);
    }
    if (mac >= 0) return this.#emit(socket, mac, buf, off, len, addr, addrOff, port, trafficClass);
    // Nobody knows the station yet: keep a copy until it answers.
    const payload = buf.slice(off, off + len);
    const target = keyAddress(addr, addrOff);
    neighbours.resolve(now, addr, addrOff, {
      bytes: Math.max(1, len),
      resolved: (found) => {
        if (found >= 0) this.#emit(socket, found, payload, 0, len, target, 0, port, trafficClass);
        else
          socket.service.icmpError?.(
            { kind: 'host-unreachable', mtuBytes: 0, offender: undefined },
            target,
            port,
          );
      },
    });
    return true;
  }

  /** The MAC address of a group, or -1 for a unicast address. */
  #groupMac(addr: Uint8Array, off: number): number {
    if (!isMapped(addr, off)) return isMulticastIpv6(addr, off) ? multicastMac(addr, off) : -1;
    const address = get32(addr, off + 12);
    if (address === IPV4_BROADCAST || address === this.#context.addressing.broadcastIpv4)
      return MAC_BROADCAST;
    return isMulticastIpv4(address) ? multicastMacIpv4(address) : -1;
  }

  #emit(
    socket: InsideSocket,
    mac: number,
    buf: Uint8Array,
    off: number,
    len: number,
    addr: Uint8Array,
    addrOff: number,
    port: number,
    trafficClass: number,
  ): boolean {
    const { output, addressing, counters } = this.#context;
    const route = this.#route;
    route.mac = mac;
    route.ipv4 = isMapped(addr, addrOff);
    route.src = socket.addr ?? addressing.sourceFor(addr, addrOff);
    if (isMapped(route.src, 0) !== route.ipv4) return false;
    route.dst = addr;
    route.dstOff = addrOff;
    route.ttl = TTL_DEFAULT;
    route.trafficClass = trafficClass;
    const header = this.#header;
    header.srcPort = socket.port;
    header.dstPort = port;
    header.len = UDP_LEN + len;
    emitUdp(header, output.head, output.upperOff(route.ipv4));
    const sent = output.packet(route, PROTOCOL_UDP, UDP_LEN, UDP_CHECKSUM_OFFSET, buf, off, len);
    if (sent) counters.udpOut++;
    return sent;
  }
}
