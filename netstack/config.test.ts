import { describe, expect, test } from 'vitest';
import { mergeFlags } from './cli.ts';
import { resolveNetConfig } from './config.ts';
import { parseNetFile, parsePolicyFile } from './config-file.ts';
import { parseVpnkitHttp } from './config-vpnkit.ts';
import { requireDhcpExtras } from './plan.ts';

const FILE = `
listen: [unix:///run/net.sock]
log-level: debug
stack:
  mtu: 4000
  subnet: 10.1.0.0/24
  gatewayMacAddress: 5a:94:ef:e4:0c:dd
  dns:
    - name: testing.
      records:
        - { name: api, ip: 10.1.0.9 }
        - { regexp: ^x.*, ip: 10.1.0.10 }
      defaultIP: 10.1.0.11
  dnsSearchDomains: [a.test]
  forwards:
    127.0.0.1:2222: 10.1.0.2:22
    udp:127.0.0.1:53: 10.1.0.2:53
  dhcpStaticLeases: { 10.1.0.2: 5a:94:ef:e4:0c:ee }
  policy:
    default: deny
    rules: [{ action: allow, name: example.com, port: 443 }]
`;

test("a file of gvproxy's keys is taken in full", () => {
  expect(resolveNetConfig(parseNetFile(FILE))).toMatchObject({
    listen: ['unix:///run/net.sock'],
    logLevel: 'debug',
    mtuBytes: 4000,
    subnet: '10.1.0.0/24',
    gatewayIp: '10.1.0.1',
    gatewayMac: '5a:94:ef:e4:0c:dd',
    zones: [{ name: 'testing.', records: [{ name: 'api' }, { regexp: '^x.*' }], defaultIP: '10.1.0.11' }],
    searchDomains: ['a.test'],
    forwards: { '127.0.0.1:2222': '10.1.0.2:22', 'udp:127.0.0.1:53': '10.1.0.2:53' },
    staticLeases: { '10.1.0.2': '5a:94:ef:e4:0c:ee' },
    policy: {
      default: 'deny',
      rules: [{ action: 'allow', name: 'example.com', port: '443' }],
      metadata: false,
    },
  });
});

test.each([
  ['Trace', 'debug'],
  ['WARNING', 'warn'],
  ['fatal', 'error'],
])("gvproxy's log level %s is %s", (name, level) => {
  expect(resolveNetConfig(parseNetFile(`log-level: ${name}`)).logLevel).toBe(level);
});

test("a network as lima describes it: the gateway stands for the host's loopback, and is among the leases", () => {
  const file = parseNetFile(`
    stack:
      subnet: 192.168.104.0/24
      gatewayIP: 192.168.104.2
      gatewayMacAddress: 5A:94:EF:E4:0C:DD
      dhcpStaticLeases: { 192.168.104.2: 5a:94:ef:e4:0c:dd, 192.168.104.5: 52:55:55:00:00:01 }
      dns: []
      nat: { 192.168.104.2: 127.0.0.1 }
      gatewayVirtualIPs: [192.168.104.2]
  `);
  expect(resolveNetConfig(file)).toMatchObject({
    hostAddresses: {},
    staticLeases: { '192.168.104.5': '52:55:55:00:00:01' },
    zones: [],
  });
});

test('what DHCP tells besides is read, and refused by its place', () => {
  const stack =
    '{ dhcpRoutes: { 10.0.0.0/8: 192.168.127.9 }, ipv6OnlyWait: 1800s, proxyAutoConfigUrl: "http://wpad/" }';
  const { dhcpExtras } = resolveNetConfig(parseNetFile(`stack: ${stack}`));
  expect(requireDhcpExtras(dhcpExtras)).toEqual({
    routes: [{ network: 0x0a000000, prefixLength: 8, router: 0xc0a87f09 }],
    ipv6OnlyWaitMs: 1_800_000,
    proxyAutoConfigUrl: 'http://wpad/',
  });
  expect(() => resolveNetConfig(parseNetFile('stack: { ipv6OnlyWait: 1800 }'))).toThrow(
    /stack\.ipv6OnlyWait is "1800"/,
  );
  for (const cidr of ['10.0.0.0', '10.0.0.0/33', 'x/8', '10.0.0.0/8/8'])
    expect(() => requireDhcpExtras({ dhcpRoutes: { [cidr]: '192.168.127.9' } })).toThrow(
      /is no subnet that a route/,
    );
});

test('JSON is taken too', () => {
  expect(resolveNetConfig(parseNetFile('{"stack": {"mtu": 1400}}')).mtuBytes).toBe(1400);
});

test("nothing at all is gvproxy's network", () => {
  expect(resolveNetConfig(parseNetFile(''))).toMatchObject({
    subnet: '192.168.127.0/24',
    gatewayIp: '192.168.127.1',
    mtuBytes: 1500,
    policy: { default: 'allow', rules: [], metadata: false },
  });
});

describe('what is wrong is named by its place', () => {
  test.each([
    ['listen: unix:///x', /^listen must be a list/],
    ['listne: []', /^listne is not known here\. Known are: listen, /],
    ['stack: {mtu: big}', /^stack\.mtu must be a whole number/],
    ['stack: {subnet: 10.0.0.0}', /^stack\.subnet is "10\.0\.0\.0", no IPv4 subnet/],
    ['stack: {subnet: 10.0.0.0/31}', /up to \/29/],
    [
      'stack: {subnet: 10.0.0.0/24, gatewayIP: 10.1.0.1}',
      /^stack\.gatewayIP is "10\.1\.0\.1", no address of a host in/,
    ],
    ['stack: {hostIP: 192.168.127.255}', /^stack\.hostIP is "192\.168\.127\.255", no address of a host in/],
    [
      'forwards: [{socket: "npipe:////./pipe/x", dest: /a, user: u, identity: /k}]',
      /^forwards\[0\]\.socket is "npipe:.*not the path of a unix socket/,
    ],
    [
      'stack: {dhcpStaticLeases: {192.168.127.9: x}}',
      /^stack\.dhcpStaticLeases\.192\.168\.127\.9 is "x", no MAC/,
    ],
    ['stack: {dns: [{records: []}]}', /^stack\.dns\[0\] has no name/],
    ['stack: {dns: [{name: a., records: [{ip: 1.2.3.4}]}]}', /records\[0\] needs either a name or a regexp/],
    ['stack: {dns: [{name: a., records: [{regexp: "(", ip: 1.2.3.4}]}]}', /regexp that is none/],
    ['stack: {policy: {rules: [{name: x}]}}', /^stack\.policy\.rules\[0\] has no action/],
    ['stack: {policy: {rules: [{action: deny, cidr: x}]}}', /^stack\.policy: Rule 0: "x" is no network/],
    ['log-level: loud', /^log-level must be one of debug/],
    ['[', /is no YAML/],
    ['['.repeat(20_000), /nests too deeply/],
    ['{"a":'.repeat(20_000), /nests too deeply/],
    ['- '.repeat(20_000), /nests too deeply/],
    ['- a', /must be a mapping/],
  ])('%s', (content, message) => {
    expect(() => resolveNetConfig(parseNetFile(content))).toThrow(
      expect.objectContaining({ code: 'ERR_NET_CONFIG_INVALID', message: expect.stringMatching(message) }),
    );
  });

  test('a key of the prototype is a key that is not known', () => {
    expect(() => parseNetFile('constructor: 1')).toThrow(/constructor is not known/);
    expect(() => parseNetFile('"__proto__": {listen: []}')).toThrow(/not known/);
  });
});

test("a file of VPNKit's --http leads ports 80 and 443, and others if it says so", () => {
  expect(parseVpnkitHttp('{"http":"h:3128","https":"http://u:p@h:3128","exclude":"*.local"}')).toEqual({
    port: 3128,
    http: 'h:3128',
    https: 'http://u:p@h:3128',
    exclude: '*.local',
    transparentHttpPorts: [80],
    transparentHttpsPorts: [443],
  });
  expect(parseVpnkitHttp('{"http":"h:3128","transparent_http_ports":[8080]}')).toEqual({
    port: 3128,
    http: 'h:3128',
    transparentHttpPorts: [8080],
  });
  expect(parseVpnkitHttp('{"allow_enabled": true, "allow": ["*.example.com"]}')).toMatchObject({
    port: 3128,
    transparentHttpPorts: [80],
    transparentHttpsPorts: [443],
    allow: ['*.example.com'],
    allowMessage: expect.stringMatching(/^Connections to %s are forbidden/),
  });
  expect(() => parseVpnkitHttp('{"alow": []}')).toThrow(/alow is not known/);
});

test('flags win over the file; its other forwards stay', () => {
  const merged = mergeFlags(parseNetFile(FILE), {
    mtu: '1500',
    listen: ['unix:///other'],
    forward: ['127.0.0.1:80=10.1.0.2:80'],
    ec2MetadataAccess: true,
    gatewayIp: '10.1.0.7',
    hostIp: '10.1.0.8',
    serverMacaddr: 'f6:16:36:bc:f9:c6',
    ethernet: '/run/e.sock',
  });
  expect(resolveNetConfig(merged)).toMatchObject({
    mtuBytes: 1500,
    listen: ['unix:///other'],
    gatewayIp: '10.1.0.7',
    hostAddresses: { '10.1.0.8': '127.0.0.1' },
    gatewayMac: 'f6:16:36:bc:f9:c6',
    links: [{ protocol: 'vpnkit', url: 'unix:///run/e.sock' }],
    subnet: '10.1.0.0/24',
    forwards: { '127.0.0.1:2222': '10.1.0.2:22', '127.0.0.1:80': '10.1.0.2:80' },
    policy: { metadata: true },
  });
  const ssh = { forwardSock: ['/s'], forwardDest: ['/d'], forwardUser: ['u'], forwardIdentity: ['/i'] };
  expect(resolveNetConfig(mergeFlags({}, ssh)).sshForwards).toEqual([
    { socket: '/s', dest: '/d', user: 'u', identity: '/i' },
  ]);
  expect(() => mergeFlags({}, { ...ssh, forwardUser: [] })).toThrow(/go together/);
  expect(() => mergeFlags({}, { forward: ['8080'] })).toThrow(/is no forward/);
});

describe('bad wires', () => {
  test('are made by flags, which win over the file', () => {
    const file = parseNetFile('stack: {faults: {drop: 0.5, delay: 1s, seed: 7}}');
    expect(resolveNetConfig(file).faults).toEqual({ drop: 0.5, delayMs: 1000, seed: 7 });
    const flags = {
      drop: '5%',
      jitter: '500us',
      reorder: '0.01',
      duplicate: '1%',
      corrupt: '0.1%',
      faultSeed: '42',
    };
    expect(resolveNetConfig(mergeFlags(file, flags)).faults).toEqual({
      drop: 0.05,
      delayMs: 1000,
      jitterMs: 0.5,
      reorder: 0.01,
      duplicate: 0.01,
      corrupt: 0.001,
      seed: 42,
    });
  });

  test('that do nothing are none', () => {
    expect(resolveNetConfig(mergeFlags({}, {})).faults).toBeUndefined();
    expect(
      resolveNetConfig(mergeFlags({}, { drop: '0', delay: '0', faultSeed: '1' })).faults,
    ).toBeUndefined();
  });

  test.each([
    [{ drop: '5' }, /^stack\.faults\.drop \(--drop\) is "5", no chance from 0 to 1 like 5% or 0\.05\.$/],
    [{ corrupt: 'often' }, /--corrupt\) is "often"/],
    [{ delay: '20' }, /--delay\) is "20", no duration like 20ms/],
    [{ jitter: '-1ms' }, /--jitter\) is "-1ms"/],
    [{ delay: '61s' }, /"delayMs" is 61000, not from 0 to 60000 milliseconds/],
    [{ drop: '1%', faultSeed: '4294967296' }, /The seed is 4294967296, no whole number from 0 to 4294967295/],
    [{ drop: '1%', faultSeed: 'x' }, /The seed is NaN/],
    [{ faultSeed: '1' }, /--fault-seed\) does nothing by itself/],
  ])('are refused as %j', (flags, message) => {
    expect(() => resolveNetConfig(mergeFlags({}, flags))).toThrow(
      expect.objectContaining({ code: 'ERR_NET_CONFIG_INVALID', message: expect.stringMatching(message) }),
    );
  });
});

describe('a capture', () => {
  test('is filtered and rotated by flags and file', () => {
    const flags = { pcap: ['/tmp/x.pcap'], pcapFilter: 'udp port 53', pcapSize: '10M', pcapFiles: '3' };
    const wanted = { path: '/tmp/x.pcap', filter: 'udp port 53', rotateBytes: 10_485_760, files: 3 };
    expect(resolveNetConfig(mergeFlags({}, flags)).capture).toEqual(wanted);
    const file =
      'stack: {capture-file: /tmp/x.pcap, capture-filter: udp port 53, capture-size: 10M, capture-files: 3}';
    expect(resolveNetConfig(parseNetFile(file)).capture).toEqual(wanted);
    expect(resolveNetConfig(mergeFlags({}, { pcap: ['/tmp/x.pcap'] })).capture).toEqual({
      path: '/tmp/x.pcap',
    });
    expect(resolveNetConfig({}).capture).toBeUndefined();
  });

  test.each([
    [{ pcapFilter: 'arp' }, 'ERR_NET_CONFIG_INVALID', /do nothing without stack\.capture-file/],
    [{ pcap: ['x'], pcapFiles: '3' }, 'ERR_NET_CONFIG_INVALID', /does nothing without a size/],
    [{ pcap: ['x'], pcapSize: '10MB' }, 'ERR_NET_CONFIG_INVALID', /--pcap-size\) is "10MB", no size like/],
    [{ pcap: ['x'], pcapSize: '1K' }, 'ERR_CAPTURE_OPTIONS', /rotates at 65536 bytes or more/],
    [{ pcap: ['x'], pcapSize: '1M', pcapFiles: '0' }, 'ERR_CAPTURE_OPTIONS', /keeps 1 to 1000 files/],
    [{ pcap: ['x'], pcapFilter: 'tcp prt 1' }, 'ERR_FILTER_INVALID', /prt/],
  ])('is refused as %j', (flags, code, message) => {
    expect(() => resolveNetConfig(mergeFlags({}, flags))).toThrow(
      expect.objectContaining({ code, message: expect.stringMatching(message) }),
    );
  });
});

test('multicast is relayed by name, by number, or all that has a name', () => {
  const multicast = (groups: string[]): string[] =>
    resolveNetConfig(mergeFlags({}, { multicast: groups })).multicast;
  expect(multicast(['mdns'])).toEqual(['mdns']);
  expect(multicast(['all', 'ssdp', '239.1.2.3:5000'])).toEqual(['mdns', 'ssdp', '239.1.2.3:5000']);
  expect(resolveNetConfig(parseNetFile('stack: {multicast: [ssdp]}')).multicast).toEqual(['ssdp']);
  expect(resolveNetConfig({}).multicast).toEqual([]);
  expect(() => multicast(['bonjour'])).toThrow(/"bonjour" is no multicast group\. Give mdns, ssdp/);
});

test('the file of --policy is as stack.policy of the configuration', () => {
  const policy = parsePolicyFile('{"default": "deny", "rules": [{"action": "allow", "port": 443}]}');
  expect(resolveNetConfig({ stack: { policy } }).policy).toEqual({
    default: 'deny',
    rules: [{ action: 'allow', port: '443' }],
    metadata: false,
  });
  expect(() => parsePolicyFile('stack: {policy: {}}')).toThrow(
    /stack is not known here\. Known are: default/,
  );
});

test('a namespace is a pid, a path, or a name as of ip netns', () => {
  const namespaces = (...netns: string[]): unknown => resolveNetConfig(mergeFlags({}, { netns })).namespaces;
  expect(namespaces('4711', '/proc/1/ns/net', 'blue')).toEqual([
    { pid: 4711 },
    { namespacePath: '/proc/1/ns/net' },
    { namespacePath: '/run/netns/blue' },
  ]);
  expect(() => namespaces('..')).toThrow(/no pid, name or path of a network namespace/);
});
