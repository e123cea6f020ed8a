import { describe, expect, it } from 'vitest';
import { guestIpv6, planNetwork, requireGroups, requireGuestIpv6, shadowedIpv4 } from './plan.ts';
import { formatEndpoint, formatIpv4, formatIpv6, parseIpv4 } from './wire/address.ts';

const base = { name: 'n', subnet: '172.17.0.0/16' };

describe('a network by its subnets', () => {
  it('has the first address of each for its gateway', () => {
    const plan = planNetwork({ ...base, subnet6: 'fd00:1::/64' });
    expect(formatIpv4(plan.gateway)).toBe('172.17.0.1');
    expect(formatIpv6(plan.ipv6!.address, 0)).toBe('fd00:1::1');
    expect(planNetwork(base).ipv6).toBeUndefined();
  });

  it('gives a guest the same host part in both', () => {
    const plan = planNetwork({ ...base, subnet6: 'fd00:1::/64' });
    expect(formatIpv6(guestIpv6(plan, parseIpv4('172.17.3.4')!)!, 0)).toBe('fd00:1::304');
    expect(guestIpv6(planNetwork(base), plan.gateway)).toBeUndefined();
  });

  it('keeps the IPv4 address back whose companion is the gateway', () => {
    const plan = planNetwork({ ...base, subnet6: 'fd00:1::/64', gateway6: 'fd00:1::ff' });
    expect(shadowedIpv4(plan).map(formatIpv4)).toEqual(['172.17.0.255']);
    const far = planNetwork({ ...base, subnet6: 'fd00:1::/64', gateway6: 'fd00:1::1:0:1' });
    expect(shadowedIpv4(far)).toEqual([]);
  });

  it.each([
    [{ subnet6: 'fd00:1::' }, /no IPv6 subnet/],
    [{ subnet6: '10.0.0.0/8' }, /no IPv6 subnet/],
    [{ subnet6: 'ff02::/16' }, /no IPv6 subnet/],
    [{ subnet6: 'fe80::/64' }, /no IPv6 subnet/],
    [{ subnet6: '::ffff:10.0.0.0/104' }, /no IPv6 subnet/],
    [{ subnet6: 'fd00:1::/113' }, /up to \/112/],
    [{ subnet6: 'fd00:1::/0' }, /up to \/112/],
    [{ subnet6: 'fd00:1::/64', gateway6: 'fd00:2::1' }, /no address of the subnet/],
    [{ subnet6: 'fd00:1::/64', gateway6: '172.17.0.1' }, /no address of the subnet/],
    [{ gateway6: 'fd00:1::1' }, /needs an IPv6 subnet/],
    [{ gateway: '10.0.0.1' }, /not in the subnet/],
    [{ subnet: '10.0.0.0/31' }, /no IPv4 subnet/],
  ])('refuses %j', (wish, message) => {
    expect(() => planNetwork({ ...base, ...wish })).toThrow(message);
  });

  it('knows multicast groups by name and by number', () => {
    const known = (text: string): string[] =>
      requireGroups(text).map(({ addr, port }) => formatEndpoint(addr, 0, port));
    expect(known('mdns')).toEqual(['224.0.0.251:5353', '[ff02::fb]:5353']);
    expect(known('239.1.2.3:5000')).toEqual(['239.1.2.3:5000']);
    expect(known('[ff12::1234]:5000')).toEqual(['[ff12::1234]:5000']);
    for (const bad of [
      '',
      'mdns:1',
      '10.0.0.1:5000',
      '239.1.2.3',
      '239.1.2.3:0',
      '239.1.2.3:70000',
      'ff02::fb:5353',
      '[ff05::c]:1900',
      '[fe80::1]:5000',
      '[239.1.2.3]:5000',
    ])
      expect(() => requireGroups(bad), bad).toThrow(/no multicast group/);
  });

  it("takes a guest's own wish within the subnet only", () => {
    const plan = planNetwork({ ...base, subnet6: 'fd00:1::/64' });
    expect(formatIpv6(requireGuestIpv6(plan, 'fd00:1::abc'), 0)).toBe('fd00:1::abc');
    expect(() => requireGuestIpv6(plan, 'fd00:2::abc')).toThrow(/no address of the subnet fd00:1::\/64/);
    expect(() => requireGuestIpv6(planNetwork(base), 'fd00:1::abc')).toThrow(/no IPv6 subnet/);
  });
});
