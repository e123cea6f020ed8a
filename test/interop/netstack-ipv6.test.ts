/** A network that speaks both families, against the kernel's own stack in two namespaces. */
import { createHash, randomBytes } from 'node:crypto';
import dgram from 'node:dgram';
import { once } from 'node:events';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import net from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { type Attachment, createNetstack, type Network } from '#netstack';
import { Netns } from '../support/netns.ts';
import { lacking } from '../support/requirements.ts';

const SUBNET = '10.214.0.0/24';
const SUBNET6 = 'fd00:214::/64';
const GATEWAY6 = 'fd00:214::1';
const BULK_BYTES = 20 << 20;

const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0)) await close();
});

async function httpServer(handler: http.RequestListener): Promise<number> {
  const server = http.createServer(handler);
  server.listen(0, '::1');
  await once(server, 'listening');
  closers.push(() => {
    server.closeAllConnections();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

describe.skipIf(lacking('root', '/dev/net/tun', 'ip', 'curl', 'ping', 'dig'))('a network with IPv6', () => {
  let network: Network;
  let a: Netns;
  let b: Netns;
  let guestA: Attachment;
  let guestB: Attachment;

  beforeAll(async () => {
    network = await createNetstack({
      name: 'interop6',
      subnet: SUBNET,
      subnet6: SUBNET6,
      dnsUpstreams: ['127.0.0.1#9'],
    });
    a = new Netns();
    b = new Netns();
    guestA = await network.attach({ namespacePath: a.path, interfaceName: 'eth0', names: ['alpha'] });
    guestB = await network.attach({
      namespacePath: b.path,
      interfaceName: 'eth0',
      names: ['beta'],
      address6: 'fd00:214::beef',
    });
  });

  afterAll(async () => {
    await network?.close();
    await a?.remove();
    await b?.remove();
  });

  test('gives each guest an address of both families', () => {
    expect(guestA.ipv6).toEqual({ address: 'fd00:214::2', prefixLength: 64, gateway: GATEWAY6 });
    expect(guestB.ipv6?.address).toBe('fd00:214::beef');
  });

  test('refuses an address that is taken, and leaves nothing of the attempt', async () => {
    const wish = { namespacePath: a.path, interfaceName: 'eth1', names: [], address6: 'fd00:214::beef' };
    await expect(network.attach(wish)).rejects.toMatchObject({ code: 'ERR_ADDRESS_IN_USE' });
    expect((await a.run('ip', 'link', 'show', 'eth1')).code).not.toBe(0);
  });

  test("20 MB come down whole from the host's loopback", async () => {
    const body = randomBytes(BULK_BYTES);
    const port = await httpServer((_request, response) => response.end(body));
    const { stdout } = await a.run('sh', '-c', `curl -sS -g 'http://[${GATEWAY6}]:${port}/' | sha256sum`);
    expect(stdout.slice(0, 64)).toBe(createHash('sha256').update(body).digest('hex'));
  });

  test('20 MB go up whole', async () => {
    const hash = createHash('sha256');
    const port = await httpServer((request, response) => {
      request.on('data', (chunk: Buffer) => hash.update(chunk));
      request.on('end', () => response.end(hash.digest('hex')));
    });
    const script =
      `f=$(mktemp) && head -c ${BULK_BYTES} /dev/urandom > $f && sha256sum < $f && ` +
      `curl -sS -g -H Expect: --data-binary @$f 'http://[${GATEWAY6}]:${port}/'; rm $f`;
    const [sent, received] = (await a.run('sh', '-c', script)).stdout.split('\n');
    expect(received).toBe(sent!.slice(0, 64));
  });

  test('a closed port is refused', async () => {
    const server = net.createServer().listen(0, '::1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    server.close();
    await once(server, 'close');
    const { stderr } = await a.run('curl', '-sS', '-g', `http://[${GATEWAY6}]:${port}/`);
    expect(stderr).toMatch(/refused|Couldn't connect/);
  });

  test('UDP is answered, small and in fragments, and a closed port is told', async () => {
    const echo = dgram.createSocket('udp6');
    echo.on('message', (message, from) => echo.send(message, from.port, from.address));
    echo.bind(0, '::1');
    await once(echo, 'listening');
    closers.push(() => echo.close());
    const result = await a.node(`
      const socket = require('node:dgram').createSocket('udp6');
      const sizes = [1, 1000, 60000];
      const got = [];
      socket.on('message', (message) => {
        got.push(message.length);
        if (got.length === sizes.length) { console.log(JSON.stringify(got)); socket.close(); }
      });
      for (const size of sizes) socket.send(Buffer.alloc(size), ${echo.address().port}, '${GATEWAY6}');
    `);
    expect(JSON.parse(result).sort((x: number, y: number) => x - y)).toEqual([1, 1000, 60_000]);
  });

  test('ping reaches the gateway and the other guest, small and in fragments', async () => {
    for (const target of [GATEWAY6, 'fd00:214::beef'])
      for (const size of ['56', '4000']) {
        const { stdout, code } = await a.run('ping', '-6', '-c', '1', '-W', '5', '-s', size, target);
        expect(code, stdout).toBe(0);
      }
  });

  test('names have addresses of both families', async () => {
    const server = `@${guestA.gateway}`;
    const dig = async (...args: string[]): Promise<string> =>
      (await a.run('dig', '+short', server, ...args)).stdout.trim();
    expect(await dig('beta', 'AAAA')).toBe('fd00:214::beef');
    expect(await dig('beta', 'A')).toBe(guestB.address);
    expect(await dig('host.docker.internal', 'AAAA')).toBe(GATEWAY6);
    expect(await dig('-x', 'fd00:214::beef')).toMatch(/^beta/);
    expect((await a.run('dig', '+short', `@${GATEWAY6}`, 'alpha', 'AAAA')).stdout.trim()).toBe('fd00:214::2');
  });

  test('a published port leads to the IPv6 address of a guest', async () => {
    const listening = b.start(
      process.execPath,
      '-e',
      `require('node:net').createServer((socket) => socket.end('from ' + socket.localAddress))
        .listen(8080, '::', () => console.log('ready'))`,
    );
    await listening.line(/ready/);
    const published = await network.publish({
      protocol: 'tcp',
      hostAddress: '::1',
      hostPort: 0,
      guestAddress: 'fd00:214::beef',
      guestPort: 8080,
    });
    closers.push(() => published.close());
    const socket = net.connect(published.hostPort, '::1');
    let text = '';
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString();
    });
    await once(socket, 'close');
    expect(text).toBe('from fd00:214::beef');
    listening.kill();
  });

  test("a guest with a neighbour's address gets nowhere", async () => {
    const port = await httpServer((_request, response) => response.end('ok'));
    await a.run('ip', '-6', 'addr', 'add', 'fd00:214::bad/64', 'dev', 'eth0', 'nodad');
    const url = `http://[${GATEWAY6}]:${port}/`;
    const spoofed = await a.run('curl', '-sS', '-g', '--max-time', '2', '--interface', 'fd00:214::bad', url);
    const honest = await a.run('curl', '-sS', '-g', '--max-time', '5', '--interface', 'fd00:214::2', url);
    await a.run('ip', '-6', 'addr', 'del', 'fd00:214::bad/64', 'dev', 'eth0');
    expect(spoofed.code).not.toBe(0);
    expect(honest.stdout).toBe('ok');
  });
});
