/**
 * HTTP proxies with curl in a namespace: the network's own, explicit one, and an upstream one with a password that
 * connections go by without the guest's knowing.
 */
import { once } from 'node:events';
import http from 'node:http';
import net from 'node:net';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { createNetstack, type Network } from '#netstack';
import { Netns } from '../support/netns.ts';
import { lacking } from '../support/requirements.ts';

const GATEWAY = '10.216.0.1';
const PROXY = `http://${GATEWAY}:3128`;
/** TEST-NET-3 (RFC 5737): nobody is there, only a proxy can say otherwise. */
const OUTSIDE = '203.0.113.7';

async function listen(server: net.Server): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return (server.address() as net.AddressInfo).port;
}

describe.skipIf(lacking('root', '/dev/net/tun', 'ip', 'curl'))('HTTP proxies', () => {
  let guest: Netns;
  let network: Network;
  let originPort: number;
  let upstreamPort: number;
  /** What the upstream proxy was asked for, and with which password. */
  const asked: string[] = [];
  let origin: http.Server;
  let upstream: http.Server;

  beforeAll(async () => {
    guest = new Netns();
    origin = http.createServer((request, response) => {
      let body = '';
      request.on('data', (chunk) => {
        body += chunk;
      });
      request.on('end', () => {
        response.setHeader('X-Seen', JSON.stringify(request.headers));
        response.end(`${request.method} ${request.url} ${body}`);
      });
    });
    originPort = await listen(origin);
    upstream = http.createServer((request, response) => {
      asked.push(`${request.method} ${request.url} ${request.headers['proxy-authorization']}`);
      request.resume();
      response.end('by the upstream proxy');
    });
    upstream.on('connect', (request: http.IncomingMessage, socket: net.Socket) => {
      asked.push(`CONNECT ${request.url} ${request.headers['proxy-authorization']}`);
      socket.on('error', () => socket.destroy());
      if (request.url!.startsWith('denied.test')) {
        socket.end('HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n');
        return;
      }
      const target = net.connect(originPort, '127.0.0.1', () => {
        socket.write('HTTP/1.1 200 OK\r\nVia: test\r\n\r\n');
        target.pipe(socket).pipe(target);
      });
      target.on('error', () => socket.destroy());
    });
    upstreamPort = await listen(upstream);
    network = await createNetstack({ name: 'proxy', subnet: '10.216.0.0/24', dnsUpstreams: ['127.0.0.1#9'] });
    await network.attach({ namespacePath: guest.path, interfaceName: 'eth0', names: ['guest'] });
  });
  beforeEach(() => {
    asked.length = 0;
  });
  afterEach(async () => {
    await network.useHttpProxy(undefined);
    await network.setPolicy({ default: 'allow', rules: [] });
  });
  afterAll(async () => {
    await network?.close();
    await guest?.remove();
    for (const server of [origin, upstream]) {
      server?.closeAllConnections();
      server?.close();
    }
  });

  const curl = (...args: string[]) => guest.run('curl', '-sS', '-m', '8', ...args);
  const withAuth = (): string => `http://user:pass%40word@127.0.0.1:${upstreamPort}`;
  const BASIC = `Basic ${Buffer.from('user:pass@word').toString('base64')}`;

  describe('the explicit one', () => {
    test('takes a request in absolute form to its origin, without the fields of its own hop', async () => {
      await network.useHttpProxy({ port: 3128 });
      const { stdout } = await curl(
        '-i',
        '-x',
        PROXY,
        '-d',
        'body',
        '-H',
        'Connection: X-Secret',
        '-H',
        'X-Secret: 1',
        '-H',
        'Proxy-Authorization: x',
        `http://host.docker.internal:${originPort}/path?q=1`,
      );
      expect(stdout).toMatch(/POST \/path\?q=1 body$/);
      const seen = JSON.parse(/^x-seen: (.*)$/im.exec(stdout)![1]!) as Record<string, string>;
      expect(seen).toMatchObject({ host: `host.docker.internal:${originPort}`, 'content-length': '4' });
      expect(seen).not.toHaveProperty('x-secret');
      expect(seen).not.toHaveProperty('proxy-authorization');
    });

    test('keeps a body of unknown length delimited', async () => {
      await network.useHttpProxy({ port: 3128 });
      const { stdout } = await curl(
        '-x',
        PROXY,
        '-X',
        'GET',
        '-H',
        'Transfer-Encoding: chunked',
        '-d',
        'chunks',
        `http://host.docker.internal:${originPort}/x`,
      );
      expect(stdout).toBe('GET /x chunks');
    });

    test('makes tunnels', async () => {
      await network.useHttpProxy({ port: 3128 });
      const { stdout } = await curl('-p', '-x', PROXY, `http://host.docker.internal:${originPort}/tunnelled`);
      expect(stdout).toBe('GET /tunnelled ');
    });

    test('goes on by the upstream proxy with its password, except to what is excluded', async () => {
      await network.useHttpProxy({
        port: 3128,
        http: withAuth(),
        https: withAuth(),
        exclude: 'direct.test, *.local, 10.0.0.0/8',
      });
      expect((await curl('-x', PROXY, 'http://www.example.test/a?b')).stdout).toBe('by the upstream proxy');
      expect((await curl('-p', '-x', PROXY, 'http://www.example.test:443/')).stdout).toBe('GET / ');
      const direct = await curl(
        '-o',
        '/dev/null',
        '-w',
        '%{http_code}',
        '-x',
        PROXY,
        'http://nosuch.direct.local/',
      );
      expect(direct.stdout).toBe('502');
      expect(asked).toEqual([
        `GET http://www.example.test/a?b ${BASIC}`,
        `CONNECT www.example.test:443 ${BASIC}`,
      ]);
    });

    test('obeys the policy', async () => {
      await network.useHttpProxy({ port: 3128, https: withAuth() });
      await network.setPolicy({
        default: 'allow',
        rules: [
          { action: 'deny', name: '*.evil.test' },
          { action: 'deny', cidr: '198.51.100.0/24' },
        ],
      });
      const code = async (url: string, ...more: string[]): Promise<string> =>
        (await curl('-o', '/dev/null', '-w', '%{http_code} %{http_connect}', '-x', PROXY, ...more, url))
          .stdout;
      expect(await code('http://www.evil.test/', '-p')).toBe('000 403');
      expect(await code('http://198.51.100.9/')).toBe('403 000');
      expect(await code('http://169.254.169.254/latest/meta-data')).toBe('403 000');
      expect(await code('http://169.254.169.254/latest/meta-data', '-p')).toBe('000 403');
      expect(asked).toEqual([]);
      const denied = await network.denied();
      expect(denied.map(({ guest, target }) => `${guest} ${target}`)).toEqual([
        '10.216.0.2 www.evil.test:80',
        '10.216.0.2 198.51.100.9:80',
        '10.216.0.2 169.254.169.254:80',
      ]);
    });

    test('says what it is to those who take it for a server', async () => {
      await network.useHttpProxy({ port: 3128 });
      const { stdout } = await curl('-w', '%{http_code}', `${PROXY}/`);
      expect(stdout).toMatch(/This is an HTTP proxy[\s\S]*400$/);
    });

    test('ends when it is taken back', async () => {
      await network.useHttpProxy({ port: 3128 });
      const { stdout } = await curl('-x', PROXY, `http://host.docker.internal:${originPort}/`);
      expect(stdout).toBe('GET / ');
      await network.useHttpProxy(undefined);
      expect((await curl('-x', PROXY, 'http://host.docker.internal/')).code).toBe(7);
    });
  });

  describe('an upstream one, transparently', () => {
    beforeEach(async () => {
      await network.useHttpProxy({
        http: withAuth(),
        https: withAuth(),
        exclude: '203.0.113.128/25',
        transparentHttpPorts: [80],
        transparentHttpsPorts: [443],
      });
    });

    test('carries connections to its ports, and none to others or to what is excluded', async () => {
      expect((await curl(`http://${OUTSIDE}/x`)).stdout).toBe('GET /x ');
      expect((await curl(`http://${OUTSIDE}:443/y`)).stdout).toBe('GET /y ');
      expect(asked).toEqual([`CONNECT ${OUTSIDE}:80 ${BASIC}`, `CONNECT ${OUTSIDE}:443 ${BASIC}`]);
      await curl('-m', '1', `http://${OUTSIDE}:81/`);
      await curl('-m', '1', 'http://203.0.113.200/');
      expect(asked).toHaveLength(2);
    });

    test("does not take the way to the host's own servers", async () => {
      await network.useHttpProxy({ http: withAuth(), transparentHttpPorts: [originPort] });
      expect((await curl(`http://${GATEWAY}:${originPort}/own`)).stdout).toBe('GET /own ');
      expect(asked).toEqual([]);
    });
  });

  test.each([
    [{ port: 3128, http: 'ftp://x' }, 'ERR_PROXY_INVALID'],
    [{ port: 3128, http: 'http://x/path' }, 'ERR_PROXY_INVALID'],
    [{ transparentHttpPorts: [80] }, 'ERR_PROXY_INVALID'],
    [{ http: 'nosuch.invalid:3128', transparentHttpPorts: [80] }, 'ERR_PROXY_UNKNOWN'],
  ])('%j is refused', async (config, code) => {
    await expect(network.useHttpProxy(config)).rejects.toThrow(expect.objectContaining({ code }));
  });
});
