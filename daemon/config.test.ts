import { describe, expect, it } from 'vitest';
import { effectiveConfig, instanceOf, parseConfigFile, parseHost } from './config.ts';
import { valueOfFlag } from './config-values.ts';
import { PLACES } from './places.ts';

describe('the daemon’s options', () => {
  it('flags and file patch the defaults', () => {
    expect(
      effectiveConfig({ dataRoot: '/d' }, parseConfigFile('{"labels":["a=b"],"shutdown-timeout":3}')),
    ).toMatchObject({
      dataRoot: '/d',
      labels: ['a=b'],
      shutdownTimeoutS: 3,
      hosts: [`unix://${PLACES.run}/docker.sock`],
    });
  });

  it('daemon.json in the shapes that dockerd takes', () => {
    const file = {
      'default-ulimits': { nofile: { Name: 'nofile', Soft: 1, Hard: 2 } },
      'default-shm-size': '1M',
      'default-address-pools': [{ base: '10.0.0.0/16', size: 24 }],
      'default-network-opts': { bridge: { 'com.docker.network.driver.mtu': '1400' } },
      runtimes: { crun: { path: '/bin/crun', runtimeArgs: ['--debug'] } },
      proxies: { 'https-proxy': 'http://p:1', 'no-proxy': 'x' },
      features: { buildkit: true },
      'host-gateway-ip': '1.2.3.4',
      'live-restore': true,
      'userns-remap': '',
      'authorization-plugins': [],
    };
    expect(parseConfigFile(`\uFEFF${JSON.stringify(file)}`)).toEqual({
      ulimits: file['default-ulimits'],
      shmBytes: 1 << 20,
      addressPools: file['default-address-pools'],
      networkOpts: file['default-network-opts'],
      runtimes: file.runtimes,
      httpsProxy: 'http://p:1',
      noProxy: 'x',
      features: file.features,
      hostGateways: ['1.2.3.4'],
      liveRestore: true,
      usernsRemap: '',
    });
  });

  it.each([
    ['flag', '--icc', ['false'], false],
    ['flag', '--icc', ['T'], true],
    ['size', '--size', ['2g'], 2 * 1024 ** 3],
    [
      'ulimits',
      '--u',
      ['nofile=1:2', 'core=3'],
      {
        nofile: { Name: 'nofile', Soft: 1, Hard: 2 },
        core: { Name: 'core', Soft: 3, Hard: 3 },
      },
    ],
    [
      'pools',
      '--p',
      ['base=10.0.0.0/8,size=24', 'base=fd00::/48,size=64'],
      [
        { base: '10.0.0.0/8', size: 24 },
        { base: 'fd00::/48', size: 64 },
      ],
    ],
    ['driver-options', '--o', ['bridge=a=b=c', 'bridge=d=e'], { bridge: { a: 'b=c', d: 'e' } }],
    ['switches', '--f', ['buildkit', 'cdi=false'], { buildkit: true, cdi: false }],
    ['programs', '--r', ['a=/b'], { a: { path: '/b' } }],
  ] as const)('a flag of the kind %s: %s %j', (kind, flags, written, expected) => {
    let value: unknown;
    for (const each of written) value = valueOfFlag(kind, flags, each, value);
    expect(value).toEqual(expected);
  });

  it.each([
    ['flag', 'maybe'],
    ['number', 'x'],
    ['size', 'x'],
    ['ulimits', 'nofile'],
    ['pools', 'base=10.0.0.0/8'],
  ] as const)('a flag of the kind %s is not %s', (kind, written) => {
    expect(() => valueOfFlag(kind, '--name', written, undefined)).toThrow(/^--name: /);
  });

  it('the environment counts where neither flag nor file says it', () => {
    const environment = { HTTPS_PROXY: 'http://e:1', no_proxy: 'near', DOCKER_MIN_API_VERSION: '1.40' };
    expect(effectiveConfig({}, { noProxy: 'file' }, environment)).toMatchObject({
      httpsProxy: 'http://e:1',
      noProxy: 'file',
      minApiVersion: '1.40',
    });
  });

  it('a key in both is an error, as in dockerd', () => {
    expect(() => effectiveConfig({ debug: true }, { debug: false })).toThrow(
      'the following directives are specified both as a flag and in the configuration file: debug: (from flag: true, from file: false)',
    );
  });

  it.each([
    ['[]', /must hold a JSON object/],
    ['{"debug":"yes"}', /debug must be true or false/],
    ['{"hosts":"unix:///x"}', /hosts must be a list of strings/],
    ['{"log-opts":{"max-size":1}}', /log-opts must be an object of strings/],
    ['{"planet":1,"moon":2}', /don't match any configuration option: planet, moon/],
    ['{"selinux-enabled":true,"iptables":false}', /^selinux-enabled is not supported/],
    ['{', /JSON/],
    ['{"default-ulimits":{"nofile":5}}', /default-ulimits must be an object of objects with Name/],
    ['{"default-shm-size":"large"}', /default-shm-size must be a number of bytes/],
    [
      '{"default-address-pools":[{"base":"10.0.0.0/16","size":8}]}',
      /invalid address pool 10.0.0.0\/16 of \/8/,
    ],
    ['{"runtimes":{"x":{"runtimeType":"y","path":"z"}}}', /runtimeType is not supported/],
    ['{"proxies":7}', /proxies must be an object/],
    ['{"features":{"buildkit":"yes"}}', /features must be an object of true and false/],
    ['{"host-gateway-ip":"1.2.3.4","host-gateway-ips":[]}', /must not both be specified/],
  ])('daemon.json %s is refused', (text, message) => {
    expect(() => parseConfigFile(text)).toThrow(message);
  });

  it.each([
    [{ logLevel: 'shouting' }, /invalid log level shouting/],
    [{ hosts: ['ftp://x'] }, /invalid bind address \(ftp:\/\/x\)/],
    [{ labels: ['x'] }, /write labels as key=value/],
    [{ dns: ['example.org'] }, /not an ip address/],
    [{ mtu: 1 }, /invalid mtu 1/],
    [{ tlsVerify: true, tlsCert: 'c', tlsKey: 'k' }, /--tlscacert/],
    [{ storageDriver: 'zfs' }, /unknown storage driver zfs/],
    [{ ipcMode: 'host' }, /IPC mode "host" is not supported as default/],
    [{ cgroupnsMode: 'x' }, /default cgroup namespace mode "x" is invalid/],
    [{ bridge: 'br0' }, /not made of kernel bridges/],
    [{ execOpts: ['native.cgroupdriver=systemd'] }, /write cgroupfs/],
    [{ execOpts: ['isolation=x'] }, /unknown option: 'isolation'/],
    [{ downloadsMax: 0 }, /invalid max concurrent downloads: 0/],
    [{ ulimits: { x: { Name: 'x', Soft: 1, Hard: 1 } } }, /invalid ulimit type: x/],
    [{ ulimits: { nofile: { Name: 'nofile', Soft: 2, Hard: 1 } } }, /soft limit must be less/],
    [{ registryMirrors: ['mirror.test'] }, /not a URL/],
    [{ registryMirrors: ['https://u:p@mirror.test'] }, /username\/password not allowed/],
    [{ httpsProxy: 'socks5://x' }, /invalid proxy/],
    [{ hostGateways: ['1.2.3.4', '1.2.3.5'] }, /one address of each family/],
    [{ minApiVersion: 'v1.30' }, /without "v" prefix/],
    [{ minApiVersion: '1.20' }, /minimum supported API version is 1.24: 1.20/],
    [{ minApiVersion: '1.99' }, /maximum supported API version is 1.51: 1.99/],
  ])('%j is refused', (flags, message) => {
    expect(() => effectiveConfig(flags, {})).toThrow(message);
  });

  it.each([
    ['unix:///run/x.sock', { kind: 'unix', path: '/run/x.sock' }],
    ['tcp://127.0.0.1:2375', { kind: 'tcp', host: '127.0.0.1', port: 2375 }],
    ['tcp://:0', { kind: 'tcp', host: '127.0.0.1', port: 0 }],
    ['tcp://[::1]:2376', { kind: 'tcp', host: '::1', port: 2376 }],
  ])('listens on %s', (text, expected) => {
    expect(parseHost(text)).toEqual(expected);
  });

  it.each([
    'unix://',
    'unix://relative',
    'tcp://1.2.3.4',
    'tcp://1.2.3.4:99999',
    `unix:///${'x'.repeat(104)}`,
  ])('%s is no address', (text) => {
    expect(() => parseHost(text)).toThrow();
  });

  it('data roots have instances of their own', () => {
    expect(instanceOf('/a')).toMatch(/^[0-9a-f]{8}$/);
    expect(instanceOf('/a')).not.toBe(instanceOf('/b'));
  });
});
