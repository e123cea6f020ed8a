import { once } from 'node:events';
import net from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { EgressRules } from '../service/policy.ts';
import { formatAddress } from '../wire/address.ts';
import { HttpProxy, parseExcludes, parseUpstreamProxy } from './http-proxy.ts';

let proxy: HttpProxy | undefined;
afterEach(async () => {
  await proxy?.close();
  proxy = undefined;
});

test.each([
  ['host:3128', 'host', 3128, undefined],
  ['http://host', 'host', 80, undefined],
  ['http://[2001:db8::1]:8080', '2001:db8::1', 8080, undefined],
  ['http://user:p%40ss@host:3128/', 'host', 3128, 'user:p@ss'],
])('%s is a proxy', (text, host, port, credentials) => {
  const authorization = credentials && `Basic ${Buffer.from(credentials).toString('base64')}`;
  expect(parseUpstreamProxy(text)).toEqual({ host, port, authorization });
});

test.each(['', 'https://host', 'socks5://host', 'http://host/path', 'http://'])('"%s" is none', (text) => {
  expect(() => parseUpstreamProxy(text)).toThrow(expect.objectContaining({ code: 'ERR_PROXY_INVALID' }));
});

test('a password does not get into an error', () => {
  expect(() => parseUpstreamProxy('ftp://user:secret@host')).toThrow(
    expect.objectContaining({ message: expect.not.stringContaining('secret') }),
  );
});

test('exclusions are names, suffixes, addresses and networks', () => {
  const excludes = parseExcludes('*.Local, .corp  host.test,10.0.0.0/8 192.0.2.1 2001:db8::/32');
  expect(excludes.names).toEqual(['.local', '.corp', 'host.test']);
  expect(excludes.networks.map((net) => `${formatAddress(net.address, 0)}/${net.prefixLength}`)).toEqual([
    '10.0.0.0/104',
    '192.0.2.1/128',
    '2001:db8::/32',
  ]);
});

test('whoever does not know the secret is not served', async () => {
  proxy = new HttpProxy({ excludes: parseExcludes(''), policy: new EgressRules(() => 0), hostNames: [] });
  const port = await proxy.listen();
  const say = async (preface: Uint8Array): Promise<string> => {
    const socket = net.connect(port, '127.0.0.1').on('error', () => {});
    socket.write(
      Buffer.concat([preface, Buffer.from('GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')]),
    );
    let heard = '';
    socket.on('data', (chunk) => {
      heard += chunk;
    });
    await once(socket, 'close');
    return heard;
  };
  expect(await say(new Uint8Array(32))).toBe('');
  expect(await say(new Uint8Array(0))).toBe('');
  expect(await say(proxy.secret)).toMatch(/^HTTP\/1\.1 400 Bad Request[\s\S]*This is an HTTP proxy/);
});
