/**
 * DHCP and DHCPv6 by themselves, over ordinary UDP sockets.
 *
 * DHCP: without a link of its own the server cannot send to a client that has no address yet but by broadcast (RFC 2131
 * section 4.1 allows it); relays and clients with an address are answered directly. With an interface named, broadcasts
 * come from there and go there alone.
 *
 * DHCPv6: clients on the link speak to the group ff02::1:2 of an interface, from a link-local address that can be
 * answered at once; relays speak to an address of the server's (RFC 8415 section 19). No frame is seen, so clients are
 * known by their DUID.
 */
import type { RemoteInfo } from 'node:dgram';
import { networkInterfaces } from 'node:os';
import { systemClock } from '#common/clock';
import { DrydockError } from '#common/errors';
import { DhcpServer, type DhcpServerOptions } from '../service/dhcp-server.ts';
import { Dhcpv6Server, type Dhcpv6ServerOptions } from '../service/dhcpv6-server.ts';
import { LeasePool, type LeaseRecord } from '../service/lease-pool.ts';
import {
  formatIpv4,
  formatIpv6,
  get32,
  isMapped,
  parseAddress,
  parseIpv4,
  parseMac,
  put32,
  samePrefix,
} from '../wire/address.ts';
import { bindUdp, closeUdp, type RunningService } from './standalone-socket.ts';

/** All DHCP relay agents and servers of a link (RFC 8415 section 7.1). */
const ALL_SERVERS = 'ff02::1:2';
/** The pool counts in at most so many bits of an address. */
const HOST_BITS_MAX = 24;
/** Host parts that are given out where there is room and nobody says otherwise. */
const HOST_FIRST = 0x1000;
const HOST_LAST = 0xffff;

/**
 * Serves DHCP at `address`, by `interface` alone if one is named.
 * @throws DrydockError ERR_SERVICE_BIND
 */
export async function serveDhcp(
  options: Omit<DhcpServerOptions, 'relays'> & { address: string; port: number; interface?: string },
): Promise<RunningService> {
  const server = new DhcpServer({ ...options, relays: true });
  const socket = await bindUdp('DHCP', options.address, options.port, options.interface);
  socket.setBroadcast(true);
  socket.on('message', (request: Buffer) => {
    const reply = server.receive(systemClock.now(), request, 0, request.length);
    if (!reply) return;
    socket.send(reply.bytes, reply.port, reply.mac ? '255.255.255.255' : formatIpv4(reply.address));
  });
  return { port: socket.address().port, close: () => closeUdp(socket) };
}

/** How a DHCPv6 server by itself is made. */
export interface ServeDhcp6Options
  extends Pick<Dhcpv6ServerOptions, 'dnsServers' | 'ntpServers' | 'searchDomains' | 'leaseMs'> {
  /** Clients on the link of this interface are served, by their multicasts. */
  interface?: string;
  /** Relays are served at this address. Either this or `interface` is given, or both. */
  address?: string;
  /** 547, but for tests. */
  port: number;
  /** The network of which addresses are given, such as `fd00:1::/64`. */
  prefix: string;
  /** First and last address to give; default: `…::1000` to `…::ffff`, or all of a smaller network. */
  first?: string;
  last?: string;
  /** Parameters only, no addresses. */
  stateless?: boolean;
}

/** A DHCPv6 server by itself. */
export interface RunningDhcp6 extends RunningService {
  /** Leases in force, to be kept between runs; `clientId` is the DUID. */
  keepLeases(): LeaseRecord[];
  /** Takes kept leases back; those that ran out or do not fit are left out. Returns how many it took. */
  restoreLeases(records: readonly LeaseRecord[]): number;
}

/** A network of which a table of 32-bit numbers gives out the host parts. */
interface Prefix {
  /** Its first address. */
  address: Uint8Array;
  length: number;
  hostBits: number;
}

function invalid(message: string): DrydockError {
  return new DrydockError('ERR_ADDRESS_INVALID', message);
}

function requirePrefix(text: string): Prefix {
  const [addressText = '', lengthText = ''] = text.split('/');
  const address = addressText.includes(':') ? parseAddress(addressText) : undefined;
  const length = /^\d{1,3}$/.test(lengthText) ? Number(lengthText) : 0;
  if (!address || isMapped(address, 0) || length < 1 || length > 126)
    throw invalid(`"${text}" is no IPv6 network. Give one like fd00:1::/64, up to /126.`);
  for (let i = 0; i < 16; i++) address[i]! &= 0xff00 >> Math.min(8, Math.max(0, length - i * 8));
  return { address, length, hostBits: Math.min(HOST_BITS_MAX, 128 - length) };
}

/** The number by which the table knows an address of the network, or undefined. */
function hostPart({ address, hostBits }: Prefix, text: string): number | undefined {
  const bytes = text.includes(':') ? parseAddress(text) : undefined;
  if (!bytes || !samePrefix(bytes, 0, address, 0, 128 - hostBits)) return undefined;
  return get32(bytes, 12) & (2 ** hostBits - 1);
}

function addressText({ address }: Prefix, host: number): string {
  const bytes = address.slice();
  put32(bytes, 12, (get32(bytes, 12) | host) >>> 0);
  return formatIpv6(bytes, 0);
}

function makePool(prefix: Prefix, options: ServeDhcp6Options, own: readonly string[]): LeasePool {
  const bound = (text: string | undefined, fallback: number): number | undefined => {
    if (text === undefined) return prefix.hostBits > 16 ? fallback : undefined;
    const host = hostPart(prefix, text);
    if (host === undefined)
      throw invalid(
        `"${text}" is no address that ${options.prefix} can give: of it, the last ${prefix.hostBits} bits are counted.`,
      );
    return host;
  };
  const first = bound(options.first, HOST_FIRST);
  const last = bound(options.last, HOST_LAST);
  return new LeasePool({
    network: 0,
    prefixLength: 32 - prefix.hostBits,
    ...(first !== undefined && { first }),
    ...(last !== undefined && { last }),
    excluded: own.flatMap((text) => hostPart(prefix, text) ?? []),
  });
}

/**
 * Serves DHCPv6, stateful and stateless.
 * @throws DrydockError ERR_SERVICE_BIND, ERR_ADDRESS_INVALID, ERR_INVALID_ADDRESS_POOL
 */
export async function serveDhcp6(options: ServeDhcp6Options): Promise<RunningDhcp6> {
  const { interface: name, address, port } = options;
  const own = networkInterfaces()[name ?? ''] ?? [];
  if (name === undefined ? address === undefined : own.length === 0)
    throw new DrydockError(
      'ERR_SERVICE_BIND',
      name === undefined
        ? 'DHCPv6 needs an interface whose clients to serve, or an address at which relays reach it.'
        : `DHCPv6 cannot serve ${name}: there is no such interface, or it is down and has no address.`,
    );
  const prefix = requirePrefix(options.prefix);
  const pool = options.stateless
    ? undefined
    : makePool(
        prefix,
        options,
        own.map((entry) => entry.address),
      );
  const server = new Dhcpv6Server({
    ...options,
    ...(pool && { pool }),
    // Who is served by relays alone may have any identifier that stays the same.
    mac: parseMac(own[0]?.mac ?? '') || 1,
    prefix: prefix.address,
    prefixLength: prefix.length,
    ipv4: { address: 0, prefixLength: 32 - prefix.hostBits },
    relays: true,
  });
  const group = name === undefined ? undefined : await bindUdp('DHCPv6', `${ALL_SERVERS}%${name}`, port);
  group?.addMembership(ALL_SERVERS, `::%${name}`);
  const direct =
    address === undefined
      ? undefined
      : await bindUdp('DHCPv6', address, group?.address().port ?? port).catch(async (error: unknown) => {
          if (group) await closeUdp(group);
          throw error;
        });
  const sockets = [group, direct].filter((socket) => socket !== undefined);
  for (const socket of sockets)
    socket.on('message', (request: Buffer, from: RemoteInfo) => {
      const now = systemClock.now();
      const reply = server.receive(now, request, 0, request.length, undefined, socket === group);
      if (reply) socket.send(reply, from.port, from.address);
    });
  return {
    port: sockets[0]!.address().port,
    keepLeases: () =>
      (pool?.snapshot(systemClock.now(), systemClock.wallMs()) ?? []).map((record) => ({
        ...record,
        address: addressText(prefix, parseIpv4(record.address)!),
      })),
    restoreLeases: (records) => {
      const known = records.flatMap((record) => {
        const host = hostPart(prefix, String(record.address));
        return host === undefined ? [] : [{ ...record, address: formatIpv4(host) }];
      });
      return pool?.restore(known, systemClock.now(), systemClock.wallMs()) ?? 0;
    },
    close: async () => {
      await Promise.all(sockets.map(closeUdp));
    },
  };
}
