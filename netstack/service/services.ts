/**
 * The services of one network, put together: DHCP, DNS and NTP on the stack's own sockets, one table of addresses, one
 * table of names. The owner of the stack calls {@link Services.poll} in its loop and tells about guests that come and go;
 * everything else happens by the stack's and the host's events.
 */
import type { Clock } from '#common/clock';
import { DrydockError } from '#common/errors';
import type { Log } from '#common/log';
import type { Rng } from '#common/rng';
import type { Host } from '../flow/host.ts';
import type { UdpOrigin, UdpSocket } from '../flow/inside.ts';
import type { StackSurface } from '../stack.ts';
import {
  formatAddress,
  get32,
  getMac,
  isMapped,
  isMulticastIpv6,
  mapped,
  samePrefix,
} from '../wire/address.ts';
import { DHCP_SERVER_PORT } from '../wire/dhcp.ts';
import { DHCPV6_SERVER_PORT } from '../wire/dhcpv6.ts';
import { DNS_PORT } from '../wire/dns.ts';
import { NTP_PORT } from '../wire/ntp.ts';
import { DhcpServer, type DhcpServerExtras } from './dhcp-server.ts';
import { Dhcpv6Server } from './dhcpv6-server.ts';
import { HostDnsDriver } from './dns/driver.ts';
import { type NameSource, NameTable, type Zone } from './dns/names.ts';
import { DnsQueryLog } from './dns/query-log.ts';
import { type ClientView, DnsResolver } from './dns/resolver.ts';
import { DnsStreamServer } from './dns/stream.ts';
import type { Upstream } from './dns/upstreams.ts';
import type { Lease, LeasePool } from './lease-pool.ts';
import { type ClockQuality, NtpServer } from './ntp-server.ts';
import type { EgressRules } from './policy.ts';

/** How the services of a network are made. */
export interface ServicesOptions {
  clock: Clock;
  rng: Rng;
  log: Log;
  /** The gateway, at which the services answer. */
  ipv4: { address: number; prefixLength: number };
  ipv6?: { address: Uint8Array; prefixLength: number };
  /** The gateway's MAC address. */
  mac: number;
  /** Who holds which address; its owner attaches guests to it. */
  pool: LeasePool;
  /** Largest packet on the guests' links, told by DHCP. */
  mtuBytes?: number;
  /** Guests are known under this domain besides their bare names. */
  domain?: string;
  searchDomains?: readonly string[];
  /** Extra names at fixed addresses; default: {@link defaultHostNames} at the gateway. */
  hostNames?: Record<string, readonly Uint8Array[]>;
  leaseMs?: number;
  /** What DHCP tells besides. */
  dhcp?: DhcpServerExtras;
  /** What is known of the host's clock; default: nothing. */
  clockQuality?: () => ClockQuality;
  /** Learns the addresses that names are answered with, and says which names may be asked for. */
  policy?: EgressRules;
}

/** The services, running. */
export interface Services {
  readonly dns: DnsResolver;
  readonly dnsLog: DnsQueryLog;
  readonly names: NameTable;
  /** Replaces the names of the guest at `address` (16 bytes); none: forgets it. */
  setNames(address: Uint8Array, names: readonly string[]): void;
  /** Replaces what the DNS tells the guest at `address` alone; undefined: nothing. */
  setResolving(address: Uint8Array, view: ClientView | undefined): void;
  /** Replaces the names of the host's side. */
  setHostNames(names: Record<string, readonly Uint8Array[]>): void;
  addZone(zone: Zone): void;
  setUpstreams(upstreams: readonly Upstream[]): void;
  /** DHCP's leases and attached guests. */
  leases(): Lease[];
  /** Does what is due; call it where the stack's poll() is called. */
  poll(now: number): void;
  /** When poll() has something to do, or Infinity. */
  pollAt(): number;
  /** Counters by name, live. */
  counters(): Record<string, number>;
  close(): void;
}

/** Names by which guests know the host, in docker's and podman's way. */
export const DEFAULT_HOST_NAMES: readonly string[] = [
  'host.docker.internal',
  'gateway.docker.internal',
  'host.containers.internal',
  'gateway.containers.internal',
];

const CLOCK_UNKNOWN: ClockQuality = { synchronised: false, errorMaxMs: 0 };

/** The names of a pool's leases, as the DNS wants them. */
function poolNames(pool: LeasePool): NameSource {
  return {
    addressOf(now, label) {
      const address = pool.addressOf(now, label);
      return address === undefined ? undefined : mapped(address);
    },
    nameOf: (now, address) => (isMapped(address, 0) ? pool.nameOf(now, get32(address, 12)) : undefined),
  };
}

function makeNames(options: ServicesOptions): NameTable {
  const { ipv4, ipv6, pool } = options;
  const gateway = mapped(ipv4.address);
  const names = new NameTable({
    ...(options.domain !== undefined && { domain: options.domain }),
    isLocal: (address) =>
      samePrefix(address, 0, gateway, 0, 96 + ipv4.prefixLength) ||
      (ipv6 !== undefined && samePrefix(address, 0, ipv6.address, 0, ipv6.prefixLength)),
    sources: [poolNames(pool)],
  });
  const addresses = ipv6 ? [gateway, ipv6.address] : [gateway];
  const hostNames =
    options.hostNames ?? Object.fromEntries(DEFAULT_HOST_NAMES.map((name) => [name, addresses]));
  names.setHostNames(Object.entries(hostNames));
  return names;
}

function makeDhcp(options: ServicesOptions): DhcpServer {
  const { address, prefixLength } = options.ipv4;
  return new DhcpServer({
    pool: options.pool,
    serverAddress: address,
    prefixLength,
    routers: [address],
    dnsServers: [address],
    ntpServers: [address],
    relays: false,
    log: options.log,
    ...options.dhcp,
    ...(options.leaseMs !== undefined && { leaseMs: options.leaseMs }),
    ...(options.mtuBytes !== undefined && { mtuBytes: options.mtuBytes }),
    ...(options.domain !== undefined && { domainName: options.domain }),
    ...(options.searchDomains && { searchDomains: options.searchDomains }),
  });
}

function makeDhcpv6(options: ServicesOptions): Dhcpv6Server | undefined {
  const { ipv4, ipv6, pool, mac } = options;
  if (!ipv6) return undefined;
  return new Dhcpv6Server({
    pool,
    mac,
    prefix: ipv6.address,
    prefixLength: ipv6.prefixLength,
    ipv4,
    dnsServers: [ipv6.address],
    ntpServers: [ipv6.address],
    ...(options.leaseMs !== undefined && { leaseMs: options.leaseMs }),
    ...(options.searchDomains && { searchDomains: options.searchDomains }),
  });
}

/** Binds a service to a port of the stack, or says that somebody has it. */
function bindUdp(
  stack: StackSurface,
  port: number,
  datagram: (
    socket: UdpSocket,
    now: number,
    buf: Uint8Array,
    off: number,
    len: number,
    from: UdpOrigin,
  ) => void,
): UdpSocket {
  const socket = stack.bindUdp(
    { port },
    { datagram: (now, buf, off, len, from) => datagram(socket as UdpSocket, now, buf, off, len, from) },
  );
  if (typeof socket !== 'string') return socket;
  throw new DrydockError(
    'ERR_SERVICE_PORT_IN_USE',
    `UDP port ${port} of the gateway is taken (${socket}). Start the services before anything else is bound there.`,
  );
}

/**
 * Starts the services on a stack, with upstream queries going out by `host`.
 * @throws DrydockError ERR_SERVICE_PORT_IN_USE
 */
export function attachServices(stack: StackSurface, host: Host, options: ServicesOptions): Services {
  const { clock, rng, pool, policy } = options;
  const now = (): number => clock.now();
  const names = makeNames(options);
  const driver = new HostDnsDriver(host, now);
  const dnsLog = new DnsQueryLog(now);
  const dns = new DnsResolver({
    names,
    driver,
    rng,
    log: dnsLog,
    ...(policy && {
      observer: (name, addresses, ttlSeconds) => policy.learn(name, addresses, ttlSeconds),
      mayAsk: (name, { id }) => policy.allowsName(name, id),
    }),
  });
  driver.attach(dns);
  const streams = new DnsStreamServer(dns, now);
  const dhcp = makeDhcp(options);
  const dhcpv6 = makeDhcpv6(options);
  const ntp = new NtpServer({
    wallMs: () => clock.wallMs(),
    quality: options.clockQuality ?? (() => CLOCK_UNKNOWN),
    referenceId: options.ipv4.address,
  });

  const sockets = [
    bindUdp(stack, DNS_PORT, (socket, at, buf, off, len, from) => {
      const addr = from.addr.slice();
      const { port } = from;
      dns.receive(at, buf, off, off + len, {
        transport: 'udp',
        id: formatAddress(addr, 0),
        reply: (message) => void socket.send(message, 0, message.length, addr, 0, port),
      });
    }),
    bindUdp(stack, DHCP_SERVER_PORT, (socket, at, buf, off, len, from) => {
      const reply = dhcp.receive(at, buf, off, off + len, from.mac);
      if (reply)
        socket.send(reply.bytes, 0, reply.bytes.length, mapped(reply.address), 0, reply.port, reply.mac);
    }),
    ...(dhcpv6
      ? [
          bindUdp(stack, DHCPV6_SERVER_PORT, (socket, at, buf, off, len, from) => {
            const mac = getMac(from.mac, 0);
            const reply = dhcpv6.receive(at, buf, off, off + len, mac, isMulticastIpv6(from.toAddr, 0));
            if (reply) socket.send(reply, 0, reply.length, from.addr, 0, from.port, from.mac);
          }),
        ]
      : []),
    bindUdp(stack, NTP_PORT, (socket, _at, buf, off, len, from) => {
      const reply = ntp.receive(buf, off, off + len);
      if (reply) socket.send(reply, 0, reply.length, from.addr, 0, from.port);
    }),
  ];
  const listener = stack.listenTcp(DNS_PORT, {
    accepted: (stream, addr) => streams.accepted(stream, addr, 0),
  });
  if (typeof listener === 'string') {
    for (const socket of sockets) socket.close();
    throw new DrydockError(
      'ERR_SERVICE_PORT_IN_USE',
      `TCP port ${DNS_PORT} of the gateway is taken (${listener}). Start the services before anything else is bound there.`,
    );
  }

  return {
    dns,
    dnsLog,
    names,
    setNames: (address, own) => names.setGuest(formatAddress(address, 0), own, [address.slice()]),
    setResolving: (address, view) => dns.setClient(formatAddress(address, 0), view),
    setHostNames: (own) => names.setHostNames(Object.entries(own)),
    addZone: (zone) => names.addZone(zone),
    setUpstreams: (upstreams) => dns.setUpstreams(upstreams),
    leases: () => pool.leases(now()),
    poll(at) {
      driver.poll(at);
      dns.poll(at);
      streams.poll(at);
    },
    pollAt: () => Math.min(driver.pollAt(), dns.pollAt(), streams.pollAt()),
    counters: () => ({
      ...dhcp.counters,
      ...dhcpv6?.counters,
      ...dns.counters,
      ...streams.counters,
      ...ntp.counters,
    }),
    close() {
      streams.close();
      dns.close();
      for (const socket of sockets) socket.close();
      listener.close();
    },
  };
}
