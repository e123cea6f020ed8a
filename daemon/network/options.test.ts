import { describe, expect, it } from 'vitest';
import { bridgeOptions, endpointOptions, ignoredOptions } from './options.ts';

const bridge = (name: string, value: string): Record<string, string> => ({
  [`com.docker.network.bridge.${name}`]: value,
});

describe('options of a network', () => {
  it('mean what they mean to dockerd', () => {
    expect(
      bridgeOptions({
        ...bridge('enable_icc', 'false'),
        ...bridge('host_binding_ipv4', '127.0.0.1'),
        'com.docker.network.driver.mtu': '1400',
        'com.docker.network.container_iface_prefix': 'net',
      }),
    ).toEqual({
      apart: true,
      hostAddress: '127.0.0.1',
      mtuBytes: 1400,
      interfacePrefix: 'net',
      isolated: new Set(),
    });
    expect(bridgeOptions(bridge('host_binding_ipv4', '0.0.0.0'))).toEqual({
      apart: false,
      hostAddress: undefined,
      mtuBytes: 0,
      interfacePrefix: 'eth',
      isolated: new Set(),
    });
    expect(bridgeOptions(bridge('gateway_mode_ipv6', 'isolated')).isolated).toEqual(new Set([6]));
  });

  it.each([
    [bridge('enable_icc', 'maybe'), /failed to parse com.docker.network.bridge.enable_icc/],
    [bridge('host_binding_ipv4', 'lo'), /is no address/],
    [{ 'com.docker.network.driver.mtu': 'big' }, /failed to parse com.docker.network.driver.mtu/],
    [bridge('gateway_mode_ipv4', 'routed'), /gateway_mode_ipv4=routed is not supported/],
    [bridge('gateway_mode_ipv6', 'open'), /\(unknown gateway mode open\)/],
  ])('%j is refused', (options, message) => {
    expect(() => bridgeOptions(options)).toThrow(message);
  });

  it('what needs a kernel bridge is told', () => {
    expect(ignoredOptions({ ...bridge('enable_icc', 'true'), ...bridge('name', 'br0') })).toBe(
      'options without effect here: com.docker.network.bridge.name',
    );
    expect(ignoredOptions(null)).toBe('');
  });
});

describe('options of an endpoint', () => {
  const read = (options: Record<string, string>): ReturnType<typeof endpointOptions> =>
    endpointOptions({
      DriverOpts: Object.fromEntries(
        Object.entries(options).map(([name, value]) => [`com.docker.network.endpoint.${name}`, value]),
      ),
    });

  it('name its interface and change its settings', () => {
    const { interfaceName, sysctls } = read({
      ifname: 'lan0',
      sysctls: 'net.ipv4.conf.IFNAME.log_martians=1,net.ipv4.conf.IFNAME.rp_filter=2',
    });
    expect(interfaceName).toBe('lan0');
    expect(sysctls!('lan0')).toEqual({
      'net/ipv4/conf/lan0/log_martians': '1',
      'net/ipv4/conf/lan0/rp_filter': '2',
    });
  });

  it.each([
    [{ sysctls: 'kernel.core_pattern=x' }, /invalid sysctl/],
    [{ sysctls: 'net.ipv4.conf.all.forwarding=1' }, /invalid sysctl/],
    [{ ifname: 'a/b' }, /invalid interface name/],
    [{ other: '1' }, /"com.docker.network.endpoint.other" is not known/],
  ])('%j is refused', (options, message) => {
    expect(() => read(options as Record<string, string>)).toThrow(message);
  });
});
