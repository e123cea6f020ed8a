/**
 * From what people write to the addresses of a network, with errors that say what to write instead. Also which IPv6
 * address goes with a guest's IPv4 address: the one with the same host part, so that there is one pool and not two.
 */
import { DrydockError } from '#common/errors';
import { TAP_MTU_MAX } from '#common/native/tap';
import type { SocketForward } from './config-vpnkit.ts';
import type { MulticastGroup } from './flow/inside.ts';
import type { DhcpExtras, NetworkOptions } from './index.ts';
import type { DhcpServerExtras } from './service/dhcp-server.ts';
import type { SocketForwardRule } from './service/socket-forwards.ts';
import {
  ADDRESS_LEN,
  formatIpv4,
  formatIpv6,
  get32,
  isLinkLocalIpv6,
  isMapped,
  isMulticastIpv4,
  isMulticastIpv6,
  netmask,
  parseAddress,
  parseIpv4,
  parseIpv6,
  parseMac,
  put32,
  samePrefix,
} from './wire/address.ts';
import { IPV6_MTU_MIN } from './wire/ipv6.ts';

/** Addresses of a network, as its thread uses them. */
export interface NetworkPlan {
  network: number;
  prefixLength: number;
  gateway: number;
  /** Guests in namespaces have IPv4 addresses; else they are numbered by them, and have IPv6 addresses alone. */
  guestsHaveIpv4: boolean;
  ipv6: PlanIpv6 | undefined;
}

/** The gateway's IPv6 address and the subnet's prefix length. */
export interface PlanIpv6 {
  address: Uint8Array;
  prefixLength: number;
}

/** Largest MTU of a TAP is 65521; a multiple of 8 keeps fragments and segments even. */
const MTU_BYTES_DEFAULT = 65520;
/** IPv4 needs 68 (RFC 791); less than 576 serves nobody. */
const MTU_BYTES_MIN = 576;

/** Bits of an address. */
const BITS_IPV4 = 32;
const BITS_IPV6 = 128;

/** Where a network without IPv4 numbers its guests: addresses that nobody sees, of those for benchmarks (RFC 2544). */
const UNSEEN_SUBNET = '198.18.0.0';
const UNSEEN_HOST_BITS_MAX = 16;

/** The subnet of a network whose guests have no IPv4: as large as its IPv6 subnet, within bounds. */
function unseenSubnet(subnet6: string | undefined): string {
  if (subnet6 === undefined) throw invalidAddress('A network needs a subnet: give subnet, subnet6 or both.');
  const hostBits = BITS_IPV6 - Number(subnet6.split('/')[1]);
  return `${UNSEEN_SUBNET}/${BITS_IPV4 - Math.min(UNSEEN_HOST_BITS_MAX, hostBits)}`;
}

/** @throws DrydockError ERR_ADDRESS_INVALID */
export function planNetwork(options: NetworkOptions): NetworkPlan {
  const subnet = parseSubnet(options.subnet ?? unseenSubnet(options.subnet6));
  const gateway =
    options.gateway === undefined ? subnet.network + 1 : requireIpv4(options.gateway, 'gateway');
  if ((gateway & netmask(subnet.prefixLength)) >>> 0 !== subnet.network)
    throw invalidAddress(`Gateway ${options.gateway} is not in the subnet ${options.subnet}.`);
  if (options.subnet6 === undefined && options.gateway6 !== undefined)
    throw invalidAddress(`Gateway ${options.gateway6} needs an IPv6 subnet: give subnet6 too.`);
  const ipv6 =
    options.subnet6 === undefined
      ? undefined
      : planIpv6(options.subnet6, options.gateway6, BITS_IPV4 - subnet.prefixLength);
  return { ...subnet, gateway, guestsHaveIpv4: options.subnet !== undefined, ipv6 };
}

function parseSubnet(cidr: string): { network: number; prefixLength: number } {
  const [text, length, ...rest] = cidr.split('/');
  const address = parseIpv4(text ?? '');
  const prefixLength = Number(length);
  if (
    address === undefined ||
    !/^\d{1,2}$/.test(length ?? '') ||
    prefixLength > 30 ||
    prefixLength < 1 ||
    rest.length > 0
  )
    throw invalidAddress(`"${cidr}" is no IPv4 subnet. Give one like 172.17.0.0/16, up to /30.`);
  return { network: (address & netmask(prefixLength)) >>> 0, prefixLength };
}

/** @param hostBits of the IPv4 subnet: as many must be left to a guest's IPv6 address. */
function planIpv6(cidr: string, gateway: string | undefined, hostBits: number): PlanIpv6 {
  const [text, length, ...rest] = cidr.split('/');
  const address = parseIpv6(text ?? '');
  const prefixLength = Number(length);
  const unicast = address && !isMulticastIpv6(address, 0) && !isLinkLocalIpv6(address, 0);
  if (!unicast || isMapped(address, 0) || !/^\d{1,3}$/.test(length ?? '') || rest.length > 0)
    throw invalidAddress(`"${cidr}" is no IPv6 subnet for guests. Give one like fd00:1::/64.`);
  if (prefixLength < 1 || prefixLength > BITS_IPV6 - hostBits)
    throw invalidAddress(
      `The IPv6 subnet ${cidr} has not as many addresses as the IPv4 subnet. Give one of /64, or up to /${BITS_IPV6 - hostBits}.`,
    );
  const first = withHostPart(maskIpv6(address, prefixLength), 1);
  const own = gateway === undefined ? first : parseIpv6(gateway);
  if (!own || !samePrefix(own, 0, address, 0, prefixLength))
    throw invalidAddress(`Gateway ${gateway} is no address of the subnet ${cidr}.`);
  return { address: own, prefixLength };
}

function maskIpv6(address: Uint8Array, prefixLength: number): Uint8Array {
  return address.map((byte, i) => byte & (0xff00 >> Math.min(8, Math.max(0, prefixLength - i * 8))));
}

/** An address of a subnet whose host part is zero, with the low 32 bits of its host part set. */
function withHostPart(network: Uint8Array, hostPart: number): Uint8Array {
  const address = network.slice();
  put32(address, ADDRESS_LEN - 4, (get32(address, ADDRESS_LEN - 4) | hostPart) >>> 0);
  return address;
}

/** The IPv6 address of the guest that has `address`: the same host part in the IPv6 subnet. */
export function guestIpv6(plan: NetworkPlan, address: number): Uint8Array | undefined {
  if (!plan.ipv6) return undefined;
  const hostPart = (address & ~netmask(plan.prefixLength)) >>> 0;
  return withHostPart(maskIpv6(plan.ipv6.address, plan.ipv6.prefixLength), hostPart);
}

/**
 * IPv4 addresses that guests cannot have because the IPv6 address that goes with them is the gateway's: none or one.
 */
export function shadowedIpv4(plan: NetworkPlan): number[] {
  if (!plan.ipv6) return [];
  const hostPart = get32(plan.ipv6.address, ADDRESS_LEN - 4) & ~netmask(plan.prefixLength);
  const candidate = (plan.network | hostPart) >>> 0;
  const own = formatIpv6(plan.ipv6.address, 0);
  return formatIpv6(guestIpv6(plan, candidate)!, 0) === own ? [candidate] : [];
}

/** @throws DrydockError ERR_ADDRESS_INVALID when it is none, or not one that a guest of this network can have */
export function requireGuestIpv6(plan: NetworkPlan, text: string): Uint8Array {
  if (!plan.ipv6)
    throw invalidAddress(`A guest cannot have the address ${text}: the network has no IPv6 subnet.`);
  const address = parseIpv6(text);
  const { address: gateway, prefixLength } = plan.ipv6;
  if (!address || !samePrefix(address, 0, gateway, 0, prefixLength))
    throw invalidAddress(
      `"${text}" is no address of the subnet ${formatIpv6(maskIpv6(gateway, prefixLength), 0)}/${prefixLength}.`,
    );
  return address;
}

export function invalidAddress(message: string): DrydockError {
  return new DrydockError('ERR_ADDRESS_INVALID', message);
}

/** @throws DrydockError ERR_ADDRESS_INVALID */
export function requireIpv4(text: string, what: string): number {
  const address = parseIpv4(text);
  if (address === undefined)
    throw invalidAddress(
      `"${text}" is no IPv4 address for a ${what}. Give one like ${formatIpv4(0xac110001)}.`,
    );
  return address;
}

/** @throws DrydockError ERR_ADDRESS_INVALID */
export function requireAddress(text: string, what: string): Uint8Array {
  const address = parseAddress(text);
  if (address === undefined) throw invalidAddress(`"${text}" is no IP address for a ${what}.`);
  return address;
}

/** Groups that people know by name (RFC 6762 section 3; UPnP Device Architecture 1.1 section 1.2.2). */
const GROUPS: Readonly<Record<string, readonly string[]>> = {
  mdns: ['224.0.0.251:5353', '[ff02::fb]:5353'],
  ssdp: ['239.255.255.250:1900', '[ff02::c]:1900'],
};

/**
 * The groups of a name, or the one of an address and port. IPv6 groups are of link-local scope: they go one hop.
 * @throws DrydockError ERR_ADDRESS_INVALID
 */
export function requireGroups(text: string): MulticastGroup[] {
  return (GROUPS[text] ?? [text]).map((each) => {
    const [, group6, group4 = '', port = ''] = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(each) ?? [];
    const addr = parseAddress(group6 ?? group4);
    const number = Number(port);
    if (
      !addr ||
      (group6 === undefined) !== isMapped(addr, 0) ||
      !isRelayable(addr) ||
      number < 1 ||
      number > 65_535
    )
      throw invalidAddress(
        `"${text}" is no multicast group. Give mdns, ssdp, or one like 239.1.2.3:5000 or [ff02::1234]:5000.`,
      );
    return { addr, port: number };
  });
}

function isRelayable(addr: Uint8Array): boolean {
  return isMapped(addr, 0) ? isMulticastIpv4(get32(addr, 12)) : addr[0] === 0xff && (addr[1]! & 0xf) === 2;
}

/** @throws DrydockError ERR_ADDRESS_INVALID */
export function requireMac(text: string): number {
  const mac = parseMac(text);
  if (mac === undefined || Math.floor(mac / 2 ** 40) & 1)
    throw invalidAddress(
      `"${text}" is no MAC address of a single interface. Give one like 02:42:ac:11:00:02.`,
    );
  return mac;
}

/** A destination and the socket to which it leads. @throws DrydockError ERR_ADDRESS_INVALID */
export function requireSocketForward({ prefix, port, path }: SocketForward): SocketForwardRule {
  const [text = '', length, ...rest] = prefix.split('/');
  const address = parseAddress(text);
  const bits = text.includes(':') ? 128 : 32;
  const prefixLength = length === undefined ? bits : /^\d{1,3}$/.test(length) ? Number(length) : Number.NaN;
  if (!address || rest.length > 0 || !(prefixLength <= bits))
    throw invalidAddress(`"${prefix}" is no destination of a forward. Give one like 10.0.0.0/8.`);
  if (!Number.isInteger(port) || port < 0 || port > 65_535 || !path.startsWith('/'))
    throw invalidAddress(
      `The forward of ${prefix} needs a port from 0 to 65535 (0: all) and the path of a unix socket.`,
    );
  return { address, prefixLength: 128 - bits + prefixLength, port, path };
}

/** @throws DrydockError ERR_MTU_INVALID */
export function requireMtu(mtuBytes: number = MTU_BYTES_DEFAULT, hasIpv6: boolean): number {
  if (!Number.isInteger(mtuBytes) || mtuBytes < MTU_BYTES_MIN || mtuBytes > TAP_MTU_MAX)
    throw new DrydockError(
      'ERR_MTU_INVALID',
      `An MTU of ${mtuBytes} bytes is out of range. Give one from ${MTU_BYTES_MIN} to ${TAP_MTU_MAX}.`,
    );
  if (hasIpv6 && mtuBytes < IPV6_MTU_MIN)
    throw new DrydockError(
      'ERR_MTU_INVALID',
      `IPv6 needs an MTU of ${IPV6_MTU_MIN} bytes or more, not ${mtuBytes}.`,
    );
  return mtuBytes;
}

/** What DHCP tells besides addresses. @throws DrydockError ERR_ADDRESS_INVALID */
export function requireDhcpExtras(options: DhcpExtras): DhcpServerExtras {
  const { dhcpRoutes, ipv6OnlyWaitMs, proxyAutoConfigUrl } = options;
  return {
    ...(dhcpRoutes && {
      routes: Object.entries(dhcpRoutes).map(([cidr, router]) => {
        const [text = '', length = '', ...rest] = cidr.split('/');
        const network = parseIpv4(text);
        const prefixLength = /^\d{1,2}$/.test(length) ? Number(length) : Number.NaN;
        if (network === undefined || rest.length > 0 || !(prefixLength <= BITS_IPV4))
          throw invalidAddress(`"${cidr}" is no subnet that a route leads to. Give one like 10.0.0.0/8.`);
        return {
          network: (network & netmask(prefixLength)) >>> 0,
          prefixLength,
          router: requireIpv4(router, 'router'),
        };
      }),
    }),
    ...(ipv6OnlyWaitMs !== undefined && { ipv6OnlyWaitMs }),
    ...(proxyAutoConfigUrl !== undefined && { proxyAutoConfigUrl }),
  };
}
