/** IPv4 subnets as numbers: which one a new network gets, and whether two overlap. Pure. */
import { isIPv4 } from 'node:net';
import { DrydockError } from '#common/errors';
import type { AddressPool } from '../config-values.ts';

/** An IPv4 subnet; `base` has its host bits cleared. */
export interface Subnet {
  base: number;
  prefix: number;
}

/** `a.b.c.d` as a number, or undefined. */
export function parseAddress(text: string): number | undefined {
  if (!isIPv4(text)) return undefined;
  return text.split('.').reduce((sum, part) => sum * 256 + Number(part), 0);
}

/** A number as `a.b.c.d`. */
export function formatAddress(address: number): string {
  return [24, 16, 8, 0].map((shift) => (address >>> shift) & 0xff).join('.');
}

/** `a.b.c.d/n`. */
export function formatSubnet({ base, prefix }: Subnet): string {
  return `${formatAddress(base)}/${prefix}`;
}

function size(prefix: number): number {
  return 2 ** (32 - prefix);
}

/** Parses `a.b.c.d/n` and clears the host bits. @throws ERR_BAD_PARAMETER */
export function parseSubnet(text: string): Subnet {
  return parseCidr(text, 30);
}

/** The same for a part of a subnet, which may be a single address. */
export function parseRange(text: string): Subnet {
  return parseCidr(text, 32);
}

/** Addresses of a subnet, in order. */
export function* addressesOf({ base, prefix }: Subnet): Generator<string> {
  for (let address = base; address < base + size(prefix); address++) yield formatAddress(address);
}

function parseCidr(text: string, prefixMax: number): Subnet {
  const [address = '', bits = ''] = text.split('/');
  const number = parseAddress(address);
  const prefix = Number(bits);
  if (number === undefined || !/^\d{1,2}$/.test(bits) || prefix > prefixMax || prefix < 1)
    throw new DrydockError(
      'ERR_BAD_PARAMETER',
      `invalid network config:\ninvalid subnet ${text}: invalid CIDR block notation: an IPv4 subnet of /1 to /30 is needed`,
    );
  return { base: Math.floor(number / size(prefix)) * size(prefix), prefix };
}

/** Whether an address lies in a subnet. */
export function contains(subnet: Subnet, address: number): boolean {
  return address >= subnet.base && address < subnet.base + size(subnet.prefix);
}

/** Whether two subnets share an address. */
export function overlaps(a: Subnet, b: Subnet): boolean {
  return contains(a, b.base) || contains(b, a.base);
}

/** The subnet's first usable address: where a network's gateway is unless asked otherwise. */
export function firstAddress(subnet: Subnet): string {
  return formatAddress(subnet.base + 1);
}

/** dockerd's default address pools: 172.17.0.0/16 to 172.31.0.0/16, then 192.168.0.0/20 and on. */
const DEFAULT_POOLS: readonly AddressPool[] = [
  ...Array.from({ length: 15 }, (_, i) => ({ base: `172.${17 + i}.0.0/16`, size: 16 })),
  { base: '192.168.0.0/16', size: 20 },
];

/** The first subnet of the pools (docker's own when there are none of IPv4) that overlaps none of `used`. @throws ERR_FORBIDDEN when all are taken, as moby */
export function chooseSubnet(used: readonly Subnet[], pools: readonly AddressPool[] = []): Subnet {
  const own = pools.filter(({ base }) => !base.includes(':'));
  for (const { base: text, size: prefix } of own.length > 0 ? own : DEFAULT_POOLS) {
    const pool = parseCidr(text, 30);
    const end = pool.base + size(pool.prefix);
    for (let base = pool.base; base < end; ) {
      const subnet = { base, prefix };
      const other = used.find((each) => overlaps(each, subnet));
      if (!other) return subnet;
      // The next subnet of this size behind what is in the way.
      const last = Math.max(base, other.base + size(other.prefix) - 1);
      base = (Math.floor(last / size(prefix)) + 1) * size(prefix);
    }
  }
  throw new DrydockError(
    'ERR_FORBIDDEN',
    'all predefined address pools have been fully subnetted: remove unused networks (docker network prune), or give --subnet',
  );
}
