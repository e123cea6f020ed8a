import { expect, test } from 'vitest';
import { mergeFlags } from './cli.ts';
import { resolveNetConfig, withMachineDefaults } from './config.ts';
import { parseNetFile } from './config-file.ts';

const resolve = (yaml: string): ReturnType<typeof resolveNetConfig> => resolveNetConfig(parseNetFile(yaml));

test("gvproxy's defaults: the last address leads to the host's loopback", () => {
  const loopback = { '192.168.127.254': '127.0.0.1' };
  expect(resolve('{}').hostAddresses).toEqual(loopback);
  expect(resolve('stack: { nat: {}, gatewayVirtualIPs: [] }').hostAddresses).toEqual(loopback);
  expect(
    resolve('stack: { nat: { 192.168.127.254: 127.0.0.1 }, gatewayVirtualIPs: [192.168.127.254] }')
      .hostAddresses,
  ).toEqual(loopback);
});

test('nat leads addresses to hosts; virtual addresses without a rule lead to themselves', () => {
  const stack = `
stack:
  nat: { 192.168.127.10: 10.9.9.9, 10.50.0.1: 127.0.0.1 }
  gatewayVirtualIPs: [192.168.127.1, 192.168.127.10, 192.168.127.11]`;
  expect(resolve(stack).hostAddresses).toEqual({
    '192.168.127.10': '10.9.9.9',
    '10.50.0.1': '127.0.0.1',
    '192.168.127.11': '192.168.127.11',
  });
});

test.each([
  ['stack: { nat: { x: 127.0.0.1 } }', /stack\.nat has "x"/],
  ['stack: { nat: { 10.0.0.1: "::1" } }', /stack\.nat\.10\.0\.0\.1 has "::1"/],
  ['stack: { nat: { 10.0.0.1: 224.0.0.1 } }', /has "224\.0\.0\.1"/],
  ['stack: { nat: { 192.168.127.1: 127.0.0.2 } }', /address of the gateway/],
  ['stack: { gatewayVirtualIPs: [nowhere] }', /stack\.gatewayVirtualIPs has "nowhere"/],
  ['stack: { deviceIP: 10.0.0.1 }', /stack\.deviceIP is "10\.0\.0\.1"/],
  ['notification: tcp://127.0.0.1:1', /notification is "tcp:/],
])('%s is refused', (yaml, message) => {
  expect(() => resolve(yaml)).toThrow(message);
});

test('a notification socket is a URL or a path; the flag wins', () => {
  expect(resolve('{}').notification).toBeUndefined();
  expect(resolve('notification: /run/a').notification).toBe('/run/a');
  const merged = mergeFlags(parseNetFile('notification: /run/a'), { notification: 'unix:///run/b' });
  expect(resolveNetConfig(merged).notification).toBe('/run/b');
});

test("the first machine's address is where its lease, its ssh and its sockets are", () => {
  const file = withMachineDefaults(mergeFlags({}, { deviceIP: '192.168.127.9' }), 2222);
  expect(resolveNetConfig(file)).toMatchObject({
    machineIp: '192.168.127.9',
    staticLeases: { '192.168.127.9': '5a:94:ef:e4:0c:ee' },
    forwards: { '127.0.0.1:2222': '192.168.127.9:22' },
  });
});
