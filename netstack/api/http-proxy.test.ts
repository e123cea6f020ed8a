import { once } from 'node:events';
import net from 'node:net';
import tls from 'node:tls';
import { afterEach, expect, test, vi } from 'vitest';
import { EgressRules } from '../service/policy.ts';
import { formatAddress, mapped } from '../wire/address.ts';
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
  expect(await say(new Uint8Array(48))).toBe('');
  expect(await say(new Uint8Array(0))).toBe('');
  expect(await say(Buffer.concat([proxy.secret, mapped(0x0a000002)]))).toMatch(
    /^HTTP\/1\.1 400 Bad Request[\s\S]*This is an HTTP proxy/,
  );
});

test("a tunnel to an address is ended when its client's TLS shows a name that the policy denies", async () => {
  const origin = net.createServer((socket) => {
    heard.push('a connection');
    socket.on('data', () => heard.push('bytes')).on('error', () => {});
  });
  const heard: string[] = [];
  origin.listen(0, '127.0.0.1');
  await once(origin, 'listening');
  const { port: originPort } = origin.address() as net.AddressInfo;
  const policy = new EgressRules(() => 0);
  policy.set({ default: 'deny', rules: [{ action: 'allow', sni: 'good.test' }] });
  proxy = new HttpProxy({ excludes: parseExcludes(''), policy, hostNames: [], helloMs: 1000 });
  const port = await proxy.listen();
  const tunnel = async (): Promise<net.Socket> => {
    const socket = net.connect(port, '127.0.0.1').on('error', () => {});
    const preface = Buffer.concat([proxy!.secret, mapped(0x0a000002)]);
    socket.write(preface);
    socket.write(`CONNECT 127.0.0.1:${originPort} HTTP/1.1\r\nHost: x\r\n\r\n`);
    const [answer] = (await once(socket, 'data')) as [Buffer];
    expect(answer.toString()).toMatch(/^HTTP\/1\.1 200/);
    return socket;
  };
  const shake = async (servername: string): Promise<tls.TLSSocket> => {
    const socket = await tunnel();
    return tls.connect({ socket, servername }).on('error', () => {});
  };
  try {
    const good = await shake('good.test');
    await vi.waitFor(() => expect(heard).toEqual(['a connection', 'bytes']));
    good.destroy();
    const bad = await shake('bad.test');
    await new Promise((resolve) => bad.on('close', resolve));
    expect(heard).toEqual(['a connection', 'bytes', 'a connection']);
    expect(policy.denied()).toMatchObject([{ guest: '10.0.0.2', name: 'bad.test', protocol: 'tcp' }]);
    // Who keeps the name to himself is ended too, without having reached anything.
    const silent = await tunnel();
    await new Promise((resolve) => silent.on('close', resolve));
    expect(heard).toEqual(['a connection', 'bytes', 'a connection', 'a connection']);
  } finally {
    origin.close();
  }
});
