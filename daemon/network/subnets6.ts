/** IPv6 subnets of networks: just what choosing and checking them needs. Pure. */
import { BlockList, isIPv6 } from 'node:net';
import { DrydockError } from '#common/errors';
import type { Rng } from '#common/rng';
import type { AddressPool } from '../config-values.ts';

/** The 16 bytes of an address as text without compression, as `fd00:0:0:1:0:0:0:1`. */
function groups(address: string): number[] {
  // The URL parser writes any IPv6 address in its one canonical form.
  const canonical = new URL(`http://[${address}]`).hostname.slice(1, -1);
  const [head = '', tail] = canonical.split('::');
  const left = head === '' ? [] : head.split(':');
  const right = tail === undefined || tail === '' ? [] : tail.split(':');
  const zeros = tail === undefined ? 0 : 8 - left.length - right.length;
  return [...left, ...Array<string>(zeros).fill('0'), ...right].map((group) => Number.parseInt(group, 16));
}

/** Canonical text of an address. */
export function canonicalAddress6(address: string): string {
  return new URL(`http://[${address}]`).hostname.slice(1, -1);
}

/** Parses `fd00:1::/64` and clears the host bits. @throws ERR_BAD_PARAMETER */
export function parseSubnet6(text: string): { subnet: string; prefix: number; first: string } {
  return parseCidr6(text, 96);
}

/** The same for a part of a subnet, which may be a single address. */
export function parseRange6(text: string): { subnet: string; prefix: number } {
  return parseCidr6(text, 128);
}

function parseCidr6(text: string, prefixMax: number): ReturnType<typeof parseSubnet6> {
  const [address = '', bits = ''] = text.split('/');
  const prefix = Number(bits);
  if (!isIPv6(address) || !/^\d{1,3}$/.test(bits) || prefix < 8 || prefix > prefixMax)
    throw new DrydockError(
      'ERR_BAD_PARAMETER',
      `invalid subnet ${text}: an IPv6 subnet of /8 to /${prefixMax} is needed`,
    );
  const masked = groups(address).map((group, i) => {
    const keep = Math.min(16, Math.max(0, prefix - i * 16));
    return group & (0xffff << (16 - keep)) & 0xffff;
  });
  const write = (parts: number[]): string => canonicalAddress6(parts.map((p) => p.toString(16)).join(':'));
  return {
    subnet: `${write(masked)}/${prefix}`,
    prefix,
    first: write([...masked.slice(0, 7), masked[7]! | 1]),
  };
}

/** Whether an address lies in a subnet. */
export function contains6(subnet: string, address: string): boolean {
  const [base = '', bits = ''] = subnet.split('/');
  const list = new BlockList();
  list.addSubnet(base, Number(bits), 'ipv6');
  return list.check(address, 'ipv6');
}

/** Whether two subnets share an address. */
export function overlaps6(a: string, b: string): boolean {
  return contains6(a, b.split('/')[0]!) || contains6(b, a.split('/')[0]!);
}

/** The first subnet of the pools of IPv6 that overlaps none of `used`; undefined when there are none, or all are taken. */
export function chooseSubnet6(used: readonly string[], pools: readonly AddressPool[]): string | undefined {
  for (const { base, size } of pools) {
    if (!base.includes(':')) continue;
    const { subnet, prefix } = parseSubnet6(base);
    const first = numberOf(subnet.split('/')[0]!);
    // More subnets than can be in use need not be looked at.
    const count = Math.min(2 ** (size - prefix), used.length + 1);
    for (let i = 0; i < count; i++) {
      const candidate = parseSubnet6(
        `${addressOf(first + (BigInt(i) << BigInt(128 - size)))}/${size}`,
      ).subnet;
      if (!used.some((other) => overlaps6(other, candidate))) return candidate;
    }
  }
  return undefined;
}

/** Addresses of a subnet, in order. */
export function* addressesOf6({ subnet, prefix }: { subnet: string; prefix: number }): Generator<string> {
  const first = numberOf(subnet.split('/')[0]!);
  const end = first + (1n << BigInt(128 - prefix));
  for (let address = first; address < end; address++) yield canonicalAddress6(addressOf(address));
}

function numberOf(address: string): bigint {
  return groups(address).reduce((sum, group) => (sum << 16n) | BigInt(group), 0n);
}

function addressOf(number: bigint): string {
  return number.toString(16).padStart(32, '0').match(/.{4}/g)!.join(':');
}

/** A unique local /64 that nobody else has (RFC 4193, 3.2.2: 40 random bits and a subnet). */
export function randomSubnet6(rng: Rng): string {
  const bytes = rng.fill(new Uint8Array(7));
  const hex = Buffer.from(bytes).toString('hex');
  return parseSubnet6(`fd${hex.slice(0, 2)}:${hex.slice(2, 6)}:${hex.slice(6, 10)}:${hex.slice(10, 14)}::/64`)
    .subnet;
}
