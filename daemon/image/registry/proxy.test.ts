import { createServer, type IncomingMessage } from 'node:http';
import { type AddressInfo, connect, createServer as createTcp } from 'node:net';
import { text } from 'node:stream/consumers';
import { afterEach, describe, expect, it } from 'vitest';
import { isInsecure } from './client.ts';
import { inSubnet, NO_PROXIES, proxyFor, tunnel } from './proxy.ts';
import { Transport } from './transport.ts';

const OPTIONS = {
  http: 'http://plain.test:3128',
  https: 'http://secure.test:3128',
  none: 'near.test, .inner.test,10.0.0.0/8,192.168.1.2,port.test:8443',
};

describe('the proxy of a registry', () => {
  it.each([
    ['https://registry.test/v2/', 'secure.test'],
    ['http://registry.test/v2/', 'plain.test'],
    ['https://near.test/', undefined],
    ['https://a.near.test/', undefined],
    ['https://nearer.test/', 'secure.test'],
    ['https://inner.test/', 'secure.test'],
    ['https://a.inner.test/', undefined],
    ['https://10.1.2.3/', undefined],
    ['https://11.1.2.3/', 'secure.test'],
    ['https://192.168.1.2:5000/', undefined],
    ['https://port.test:8443/', undefined],
    ['https://port.test:8444/', 'secure.test'],
    ['http://127.0.0.1:5000/', undefined],
    ['http://localhost:5000/', undefined],
    ['http://[::1]:5000/', undefined],
  ])('%s: %s', (url, host) => expect(proxyFor(new URL(url), OPTIONS)?.hostname).toBe(host));

  it('is not asked when there is none, or all are exempt', () => {
    expect(proxyFor(new URL('https://registry.test'), NO_PROXIES)).toBeUndefined();
    expect(proxyFor(new URL('https://registry.test'), { ...OPTIONS, none: '*' })).toBeUndefined();
  });
});

describe('subnets of registries without TLS', () => {
  it.each([
    ['10.1.2.3', '10.0.0.0/8', true],
    ['11.1.2.3', '10.0.0.0/8', false],
    ['fd00::1', 'fd00::/8', true],
    ['10.1.2.3', 'registry.test', false],
    ['10.1.2.3', '10.0.0.0/99', false],
  ])('%s in %s: %s', (address, subnet, expected) => expect(inSubnet(address, subnet)).toBe(expected));

  it('let a registry do without it whose address lies in one', () => {
    expect(isInsecure('registry.test:5000', ['10.0.0.0/8'], ['11.0.0.1', '10.0.0.1'])).toBe(true);
    expect(isInsecure('registry.test:5000', ['10.0.0.0/8'], ['11.0.0.1'])).toBe(false);
  });
});

describe('through a proxy', () => {
  const undo: (() => void)[] = [];
  afterEach(() => {
    for (const step of undo.splice(0)) step();
  });

  /** A proxy that takes everything to one place; it notes what it was asked. */
  async function proxy(target: number, status = 200): Promise<{ url: string; asked: IncomingMessage[] }> {
    const asked: IncomingMessage[] = [];
    const server = createServer((request, response) => {
      asked.push(request);
      response.end('by proxy');
    });
    server.on('connect', (request, socket) => {
      asked.push(request);
      socket.write(`HTTP/1.1 ${status} Answered\r\n\r\n`);
      if (status !== 200) socket.end();
      else socket.pipe(connect(target, '127.0.0.1')).pipe(socket);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    undo.push(() => server.close());
    const { port } = server.address() as AddressInfo;
    return { url: `http://user:pa%20ss@127.0.0.1:${port}`, asked };
  }

  it('a request without TLS names the whole URL and who asks', async () => {
    const { url, asked } = await proxy(0);
    const transport = new Transport({ rejectUnauthorized: true }, { ...NO_PROXIES, http: url });
    undo.push(() => transport.close());
    const answer = await transport.send({ method: 'GET', url: new URL('http://registry.test:5000/v2/') });
    expect(await text(answer.body)).toBe('by proxy');
    expect(asked[0]!.url).toBe('http://registry.test:5000/v2/');
    expect(asked[0]!.headers.host).toBe('registry.test:5000');
    expect(asked[0]!.headers['proxy-authorization']).toBe(
      `Basic ${Buffer.from('user:pa ss').toString('base64')}`,
    );
  });

  it('a tunnel reaches the host that it names, and a refusal is told', async () => {
    const echo = createTcp((socket) => socket.end('from behind')).listen(0, '127.0.0.1');
    await new Promise((resolve) => echo.once('listening', resolve));
    undo.push(() => echo.close());
    const { url, asked } = await proxy((echo.address() as AddressInfo).port);
    const socket = await tunnel(new URL(url), new URL('https://registry.test/'));
    expect(await text(socket)).toBe('from behind');
    expect(asked[0]!.url).toBe('registry.test:443');
    const refusing = await proxy(0, 403);
    await expect(tunnel(new URL(refusing.url), new URL('https://registry.test/'))).rejects.toThrow(
      /refused: 403/,
    );
  });
});
