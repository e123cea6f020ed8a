import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { seededRng } from '#common/rng';
import { DEFAULTS } from '../config-options.ts';
import { defaultNetwork } from './defaults.ts';
import { restrictedAddress } from './endpoint.ts';
import { portWishes } from './ports.ts';
import { newNetwork } from './record.ts';
import {
  chooseSubnet,
  formatAddress,
  formatSubnet,
  overlaps,
  parseAddress,
  parseSubnet,
  type Subnet,
} from './subnets.ts';
import { chooseSubnet6, randomSubnet6 } from './subnets6.ts';

describe('subnets', () => {
  it('an address survives formatting and parsing', () => {
    fc.assert(fc.property(fc.nat(0xffffffff), (n) => parseAddress(formatAddress(n)) === n));
  });

  it.each(['10.0.0.0', '10.0.0.0/33', '10.0.0/8', 'x/8', '::/64', '10.0.0.0/31'])('%s is refused', (text) => {
    expect(() => parseSubnet(text)).toThrow(/invalid subnet/);
  });

  it('host bits are cleared', () => {
    expect(formatSubnet(parseSubnet('172.17.3.4/16'))).toBe('172.17.0.0/16');
  });

  it('the default network gets docker’s subnet, the next ones follow, around what is used', () => {
    const used: Subnet[] = [];
    const next = (): string => {
      const subnet = chooseSubnet(used);
      used.push(subnet);
      return formatSubnet(subnet);
    };
    expect(next()).toBe('172.17.0.0/16');
    used.push(parseSubnet('172.18.5.0/24'));
    expect(next()).toBe('172.19.0.0/16');
    // One of the 31 pools overlaps what is used.
    while (used.length < 31) next();
    expect(next).toThrow(/all predefined address pools have been fully subnetted/);
    for (const [i, a] of used.entries())
      for (const b of used.slice(i + 1))
        expect(overlaps(a, b), `${formatSubnet(a)} ${formatSubnet(b)}`).toBe(false);
  });
});

describe('published ports', () => {
  it.each([
    [{ '80/tcp': [{ HostIp: '127.0.0.1', HostPort: '8080' }] }, [['127.0.0.1', 8080, 8080, 80, 'tcp']]],
    [{ '80': [{}] }, [['', 0, 0, 80, 'tcp']]],
    [{ '53/udp': null }, [['', 0, 0, 53, 'udp']]],
    [{ '80/tcp': [{ HostPort: '8000-8010' }] }, [['', 8000, 8010, 80, 'tcp']]],
    [
      { '80/tcp': [{ HostPort: '1' }, { HostIp: '::1', HostPort: '2' }] },
      [
        ['', 1, 1, 80, 'tcp'],
        ['::1', 2, 2, 80, 'tcp'],
      ],
    ],
  ])('%j', (bindings, expected) => {
    const wishes = portWishes(bindings, undefined, false);
    expect(
      wishes.map((w) => [w.hostAddress, w.hostFirst, w.hostLast, w.guest.port, w.guest.protocol]),
    ).toEqual(expected);
  });

  it('publish-all adds exposed ports that have no binding', () => {
    const wishes = portWishes({ '80/tcp': [{ HostPort: '8080' }] }, { '80/tcp': {}, '53/udp': {} }, true);
    expect(wishes.map((w) => [w.hostFirst, w.guest.port])).toEqual([
      [8080, 80],
      [0, 53],
    ]);
  });

  it.each([
    [{ '0/tcp': [] }, /invalid port/],
    [{ '80/icmp': [] }, /invalid proto: icmp/],
    [{ '80/sctp': [] }, /sctp is not supported/],
    [{ '80/tcp': [{ HostPort: '70000' }] }, /invalid port/],
    [{ '80/tcp': [{ HostPort: '9-8' }] }, /invalid port/],
    [{ '80/tcp': [{ HostIp: 'localhost' }] }, /invalid IP address: localhost/],
  ])('%j is refused', (bindings, message) => {
    expect(() => portWishes(bindings, undefined, false)).toThrow(message);
  });
});

describe('a new network', () => {
  const facts = {
    id: 'i',
    created: 'c',
    used: [parseSubnet('172.17.0.0/16')],
    used6: ['fd00:9::/64'],
    pools: [],
    freshSubnet6: () => randomSubnet6(seededRng(1)),
  };

  it('gets the next free subnet and its first address as gateway', () => {
    expect(newNetwork({ Name: 'n' }, facts)).toMatchObject({
      driver: 'bridge',
      userSubnet: false,
      ipam: { Config: [{ Subnet: '172.18.0.0/16', Gateway: '172.18.0.1' }] },
    });
  });

  it('takes a subnet and gateway that are asked for', () => {
    expect(
      newNetwork({ Name: 'n', IPAM: { Config: [{ Subnet: '10.9.8.0/24', Gateway: '10.9.8.254' }] } }, facts),
    ).toMatchObject({
      userSubnet: true,
      ipam: { Config: [{ Subnet: '10.9.8.0/24', Gateway: '10.9.8.254' }] },
    });
  });

  it('with IPv6 gets a subnet of its own, or the one that is asked for', () => {
    const [, own] = newNetwork({ Name: 'n', EnableIPv6: true }, facts).ipam.Config;
    expect(own!.Subnet).toMatch(/^fd[0-9a-f:]+::\/64$/);
    expect(own!.Gateway).toBe(own!.Subnet.replace('/64', '1'));
    const asked = { Subnet: 'FD00:1:0:0:5::/64' };
    expect(newNetwork({ Name: 'n', EnableIPv6: true, IPAM: { Config: [asked] } }, facts).ipam.Config).toEqual(
      [
        { Subnet: '172.18.0.0/16', Gateway: '172.18.0.1' },
        { Subnet: 'fd00:1::/64', Gateway: 'fd00:1::1' },
      ],
    );
  });

  it('without IPv4 has IPv6 alone, whether the request says so or an option of the driver', () => {
    const options = {
      'com.docker.network.enable_ipv4': 'false',
      'com.docker.network.enable_ipv6': 'true',
    };
    for (const request of [{ EnableIPv4: false, EnableIPv6: true }, { Options: options }]) {
      const record = newNetwork({ Name: 'n', ...request }, facts);
      expect(record).toMatchObject({ withoutIPv4: true, enableIPv6: true });
      expect(record.ipam.Config.map(({ Subnet }) => Subnet)).toEqual([expect.stringContaining(':')]);
    }
  });

  it('that is isolated has no gateway, unless one is named', () => {
    const isolated = { 'com.docker.network.bridge.gateway_mode_ipv4': 'isolated' };
    const request = { Name: 'n', Internal: true, Options: isolated };
    expect(newNetwork(request, facts).ipam.Config).toEqual([{ Subnet: '172.18.0.0/16' }]);
    const Config = [{ Subnet: '10.1.0.0/24', Gateway: '10.1.0.9' }];
    expect(newNetwork({ ...request, IPAM: { Config } }, facts).ipam.Config).toEqual(Config);
  });

  it('gives out no address of a family that is outside of its range, reserved, or taken', () => {
    const Config = [
      { Subnet: '10.1.0.0/24', IPRange: '10.1.0.0/30', AuxiliaryAddresses: { printer: '10.1.0.2' } },
      { Subnet: 'fd00:1::/64', IPRange: 'fd00:1::4/126', AuxiliaryAddresses: { printer: 'fd00:1:0::4' } },
    ];
    const network = newNetwork({ Name: 'n', EnableIPv6: true, IPAM: { Config } }, facts);
    expect(restrictedAddress(network, 4, [])).toBe('10.1.0.3');
    expect(restrictedAddress(network, 6, ['fd00:1::5'])).toBe('fd00:1::6');
    expect(() => restrictedAddress(network, 4, ['10.1.0.3'])).toThrow(/no available IPv4 addresses/);
  });

  it.each([
    [{ Name: 'n', EnableIPv4: false }, /IPv4 or IPv6 must be enabled/],
    [
      { Name: 'n', Options: { 'com.docker.network.bridge.gateway_mode_ipv4': 'isolated' } },
      /gateway mode 'isolated' can only be used for an internal network/,
    ],
    [{ Name: 'n', Options: { 'com.docker.network.enable_ipv6': 'x' } }, /is not a valid bool/],
    [
      { Name: 'n', IPAM: { Config: [{ Subnet: 'fd00:1::/64', IPRange: 'fd00:2::/96' }] } },
      /doesn't contain ip-range/,
    ],
    [{ Name: '' }, /invalid network name/],
    [{ Name: 'a/b' }, /invalid network name/],
    [{ Name: 'n', Driver: 'macvlan' }, /plugin "macvlan" not found/],
    [{ Name: 'n', Driver: 'overlay' }, /not a swarm manager/],
    [{ Name: 'n', Driver: 'host' }, /only one instance of "host" network is allowed/],
    [{ Name: 'n', IPAM: { Config: [{ Subnet: '172.17.5.0/24' }] } }, /Pool overlaps/],
    [
      { Name: 'n', IPAM: { Config: [{ Subnet: '10.0.0.0/24', Gateway: '10.0.1.1' }] } },
      /invalid gateway 10.0.1.1: parent subnet .* doesn't contain this address/,
    ],
    [{ Name: 'n', IPAM: { Config: [{ Subnet: '10.0.0.9/24' }] } }, /it should be 10.0.0.0\/24/],
    [{ Name: 'n', ConfigOnly: true, Internal: true }, /can only contain network specific fields/],
    [{ Name: 'n', IPAM: { Config: [{ Gateway: '10.0.1.1' }] } }, /needs a subnet/],
    [{ Name: 'n', EnableIPv6: true, IPAM: { Config: [{ Subnet: 'fd00:9:0:0:1::/80' }] } }, /Pool overlaps/],
    [
      { Name: 'n', EnableIPv6: true, IPAM: { Config: [{ Subnet: 'fd00:1::/64', Gateway: 'fd00:2::1' }] } },
      /invalid gateway fd00:2::1: parent subnet/,
    ],
    [{ Name: 'n', EnableIPv6: true, IPAM: { Config: [{ Subnet: 'fd00:1::/127' }] } }, /invalid subnet/],
  ])('%j is refused', (request, message) => {
    expect(() => newNetwork(request, facts)).toThrow(message);
  });
});

describe('pools of subnets', () => {
  const pools = [
    { base: '10.10.0.0/16', size: 24 },
    { base: 'fd00:10::/62', size: 64 },
    { base: '10.20.0.0/30', size: 30 },
  ];

  it('give the first subnets that are free, around larger and smaller ones, then those of the next pool', () => {
    const used = [parseSubnet('10.10.0.0/25'), parseSubnet('10.10.2.0/23'), parseSubnet('10.10.128.0/17')];
    const next = (): string => {
      const subnet = chooseSubnet(used, pools);
      used.push(subnet);
      return formatSubnet(subnet);
    };
    expect([next(), next()]).toEqual(['10.10.1.0/24', '10.10.4.0/24']);
    used.push(parseSubnet('10.10.0.0/17'));
    expect(next()).toBe('10.20.0.0/30');
    expect(next).toThrow(/all predefined address pools/);
  });

  it('give subnets of IPv6 too, and nothing when all are taken', () => {
    const used: string[] = [];
    for (let i = 0; i < 4; i++) used.push(chooseSubnet6(used, pools)!);
    expect(used).toEqual(['fd00:10::/64', 'fd00:10:0:1::/64', 'fd00:10:0:2::/64', 'fd00:10:0:3::/64']);
    expect(chooseSubnet6(used, pools)).toBeUndefined();
    expect(chooseSubnet6([], [])).toBeUndefined();
  });
});

describe('the default network from the daemon’s options', () => {
  const configs = (options: object) => defaultNetwork({ ...DEFAULTS, ...options })?.IPAM?.Config;

  it('is plain without them, and not there with bridge=none', () => {
    expect(defaultNetwork(DEFAULTS)).toEqual({ Name: 'bridge', Driver: 'bridge', Options: {} });
    expect(defaultNetwork({ ...DEFAULTS, bridge: 'none' })).toBeUndefined();
  });

  it.each([
    [{ bip: '10.1.2.3/24' }, [{ Subnet: '10.1.2.0/24', Gateway: '10.1.2.3' }]],
    [{ fixedCidr: '10.1.2.0/25' }, [{ Subnet: '10.1.2.0/25', Gateway: '10.1.2.1' }]],
    [
      { bip: '10.1.2.3/24', fixedCidr: '10.1.2.128/25' },
      [{ Subnet: '10.1.2.0/24', Gateway: '10.1.2.3', IPRange: '10.1.2.128/25' }],
    ],
    [
      { bip: '10.1.2.3/24', defaultGateway: '10.1.2.9' },
      [
        {
          Subnet: '10.1.2.0/24',
          Gateway: '10.1.2.9',
          AuxiliaryAddresses: { DefaultGatewayIPv4: '10.1.2.3' },
        },
      ],
    ],
    [{ ipv6: true, fixedCidr6: 'fd00:5::/64' }, [{ Subnet: 'fd00:5::/64', Gateway: 'fd00:5::1' }]],
    [{ ipv6: true, bip6: 'fd00:5::7/64' }, [{ Subnet: 'fd00:5::/64', Gateway: 'fd00:5::7' }]],
    [
      { ipv6: true, fixedCidr6: 'fd00:5::/64', defaultGateway6: 'fd00:5::0:99' },
      [{ Subnet: 'fd00:5::/64', Gateway: 'fd00:5::99' }],
    ],
  ])('%j', (options, expected) => expect(configs(options)).toEqual(expected));

  it.each([
    [{ bip: '10.1.2.3' }, /invalid bip "10.1.2.3"/],
    [{ bip: '10.1.2.0/24' }, /is the network itself/],
    [{ bip: '10.1.2.3/24', fixedCidr: '10.1.3.0/25' }, /fixed-cidr 10.1.3.0\/25 is not a part of/],
    [{ bip: '10.1.2.3/24', defaultGateway: '10.1.3.1' }, /default-gateway 10.1.3.1 is not in/],
    [{ defaultGateway: '10.1.3.1' }, /default-gateway needs bip/],
    [{ fixedCidr6: 'fd00:5::/64' }, /fixed-cidr-v6 needs ipv6/],
    [{ ipv6: true, bip6: 'fd00:5::7/64', fixedCidr6: 'fd00:6::/64' }, /must be the subnet of bip6/],
    [{ ipv6: true, defaultGateway6: 'fd00:5::1' }, /needs bip6 or fixed-cidr-v6/],
  ])('%j is refused', (options, message) => expect(() => configs(options)).toThrow(message));
});
