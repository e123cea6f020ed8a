import { expect, test } from 'vitest';
import { mergeFlags } from './cli.ts';
import { mergeVpnkitFlags, type VpnkitFlags } from './cli-vpnkit.ts';
import { resolveNetConfig } from './config.ts';
import { parseNetFile } from './config-file.ts';
import {
  parseGatewayForwards,
  parseHostsFile,
  parsePortForwards,
  parseSocketForwards,
  parseVpnkitDhcp,
  parseVpnkitDns,
} from './config-vpnkit.ts';
import { formatAddress } from './wire/address.ts';

test("lines of VPNKit's DNS file belong to the server before them, and a later zone line replaces", () => {
  const { upstreams, search } = parseVpnkitDns(`# resolvers
nameserver 10.0.0.1#5353
zone a.example
zone corp.example internal.example
timeout 5000
order 1
nameserver 2001:db8::1
search lan.test home.test
assume-offline-after 6
`);
  expect(upstreams.map((upstream) => ({ ...upstream, address: formatAddress(upstream.address, 0) }))).toEqual(
    [
      {
        address: '10.0.0.1',
        port: 5353,
        domains: ['corp.example', 'internal.example'],
        order: 1,
        timeoutMs: 5000,
      },
      { address: '2001:db8::1', port: 53, domains: [], order: 0 },
    ],
  );
  expect(search).toEqual(['lan.test', 'home.test']);
});

test.each(['zone x', 'nameserver', 'nameserver x', 'nameserver 10.0.0.1\norder x', 'nonsense 1'])(
  'the DNS file %j is refused by its line',
  (text) => {
    expect(() => parseVpnkitDns(text)).toThrow(/^Line \d of the DNS file is wrong/);
  },
);

test('files of forwards, DHCP and hosts are read', () => {
  const json = '[{"protocol":"udp","external_port":123,"internal_ip":"127.0.0.1","internal_port":1123}]';
  const expected = { protocol: 'udp', port: 123, address: '127.0.0.1', targetPort: 1123 };
  expect(parseGatewayForwards(json)).toEqual([expected]);
  expect(parsePortForwards('udp', '123:127.0.0.1:1123')).toEqual([expected]);
  expect(
    parseSocketForwards('[{"protocol":"tcp","dst_prefix":"10.0.0.0/8","dst_port":0,"path":"/run/t.sock"}]'),
  ).toEqual([{ prefix: '10.0.0.0/8', port: 0, path: '/run/t.sock' }]);
  expect(() => parsePortForwards('tcp', '123:127.0.0.1')).toThrow(/--tcpv4-forwards/);
  expect(parseVpnkitDhcp('{"searchDomains":["a.example"],"domainName":"example"}')).toEqual({
    searchDomains: ['a.example'],
    domainName: 'example',
  });
  const names = parseHostsFile('10.0.0.1 Web web.lan # x\n::1 web\nnonsense\n');
  expect(names.map(([name, list]) => [name, list.map((bytes) => formatAddress(bytes, 0))])).toEqual([
    ['web', ['10.0.0.1', '::1']],
    ['web.lan', ['10.0.0.1']],
  ]);
});

test("gvproxy's gatewayIPv6 makes a network of 64 bits with the gateway there", () => {
  const config = resolveNetConfig(parseNetFile('stack: { gatewayIPv6: "fd00::1" }'));
  expect(config).toMatchObject({ subnet6: 'fd00::/64', gatewayIp6: 'fd00::1' });
  expect(() => resolveNetConfig(parseNetFile('stack: { gatewayIPv6: "x" }'))).toThrow(/gatewayIPv6/);
});

test("--pcap is gvproxy's file, and VPNKit's socket beside --ethernet or by its form", async () => {
  const of = async (flags: VpnkitFlags) =>
    resolveNetConfig(await mergeVpnkitFlags(mergeFlags({}, flags), flags));
  expect(await of({ pcap: ['/tmp/x.pcap', 'unix:///run/live', 'fd:7'] })).toMatchObject({
    capture: { path: '/tmp/x.pcap' },
    vpnkitSockets: { pcap: ['/run/live', 'fd:7'] },
  });
  expect(await of({ ethernet: 'fd:3', pcap: ['/run/live'], pcapSnaplen: '96' })).toMatchObject({
    capture: undefined,
    links: [{ protocol: 'vpnkit', url: 'fd:3' }],
    vpnkitSockets: { pcap: ['/run/live'], snapLen: 96 },
  });
});
