import { describe, expect, it } from 'vitest';
import { effectiveConfig, instanceOf, parseConfigFile, parseHost } from './config.ts';

describe('the daemon’s options', () => {
  it('flags and file patch the defaults', () => {
    expect(
      effectiveConfig({ dataRoot: '/d' }, parseConfigFile('{"labels":["a=b"],"shutdown-timeout":3}')),
    ).toMatchObject({
      dataRoot: '/d',
      labels: ['a=b'],
      shutdownTimeoutS: 3,
      hosts: ['unix:///run/drydock/docker.sock'],
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
