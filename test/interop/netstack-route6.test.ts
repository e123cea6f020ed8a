/**
 * IPv6 through the stack and out to a server beyond a router:
 *
 *     guest --TAP-- [edge: drydock net] --veth-- [router] --veth, MTU 1400-- [server]
 *
 * Routers, MTUs and closed ports are real, in namespaces of this test's own.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { compiledEntry } from '#common/entry';
import { Netns } from '../support/netns.ts';
import { lacking } from '../support/requirements.ts';

const GATEWAY = 'fd00:216::1';
const ROUTER = 'fd00:216:1::2';
const SERVER = 'fd00:216:2::2';
/** Nobody has this address of the server's network, and nobody knows a way to the other. */
const NOBODY = 'fd00:216:2::9';
const NOWHERE = 'fd00:216:3::1';
const BULK_BYTES = 5 << 20;

const NEEDS = ['root', '/dev/net/tun', 'ip', 'sysctl', 'curl', 'ping', 'traceroute', 'tracepath'] as const;

const ip = (...args: string[]): void => void execFileSync('ip', args);

/** A veth pair between two namespaces, with an address at each end. */
function wire(a: Netns, addressA: string, b: Netns, addressB: string, mtu: number): void {
  const [nameA, nameB] = [`to-${b.name.slice(-6)}`, `to-${a.name.slice(-6)}`];
  const peer = ['peer', 'name', nameB, 'netns', b.name, 'mtu', `${mtu}`];
  ip('-n', a.name, 'link', 'add', nameA, 'mtu', `${mtu}`, 'type', 'veth', ...peer);
  for (const [ns, name, address] of [
    [a, nameA, addressA],
    [b, nameB, addressB],
  ] as const) {
    ip('-n', ns.name, 'addr', 'add', address, 'dev', name, 'nodad');
    ip('-n', ns.name, 'link', 'set', name, 'up');
    ip('-n', ns.name, 'link', 'set', 'lo', 'up');
  }
}

describe.skipIf(lacking(...NEEDS))('through the stack by IPv6 to a server beyond a router', () => {
  const guest = new Netns();
  const edge = new Netns();
  const router = new Netns();
  const server = new Netns();
  const folder = mkdtempSync(join(tmpdir(), 'netstack-route6-'));

  beforeAll(async () => {
    wire(edge, 'fd00:216:1::1/64', router, `${ROUTER}/64`, 1500);
    wire(router, 'fd00:216:2::1/64', server, `${SERVER}/64`, 1400);
    ip('-n', edge.name, '-6', 'route', 'add', 'fd00:216:2::/64', 'via', ROUTER);
    ip('-n', server.name, '-6', 'route', 'add', 'default', 'via', 'fd00:216:2::1');
    ip('-n', guest.name, 'link', 'set', 'lo', 'up');
    await router.run('sysctl', '-qw', 'net.ipv6.conf.all.forwarding=1');
    await edge.run('sysctl', '-qw', 'net.ipv4.ping_group_range=0 2147483647');
    const pid = join(folder, 'pid');
    const network = edge.start(
      process.execPath,
      compiledEntry('daemon/bin'),
      'net',
      ...['--subnet', '10.216.0.0/24', '--subnet6', 'fd00:216::/64', '--mtu', '1500'],
      ...['--netns', guest.path, '--interface', 'eth0', '--pid-file', pid],
      ...['--log-file', join(folder, 'log')],
    );
    let ended: string | undefined;
    void network.ended.then(({ stderr }) => {
      ended = stderr;
    });
    await vi.waitFor(() => expect(existsSync(pid) || ended !== undefined).toBe(true), { timeout: 30_000 });
    expect(ended && `${ended}${readFileSync(join(folder, 'log'))}`).toBeUndefined();
    const web = server.start(
      process.execPath,
      '-e',
      `require('node:http').createServer((request, response) => {
        if (request.method === 'GET') return response.end(Buffer.alloc(${BULK_BYTES}, 'x'));
        let bytes = 0;
        request.on('data', (chunk) => { bytes += chunk.length; }).on('end', () => response.end(String(bytes)));
      }).listen(80, '::', () => console.log('listening'));
      const echo = require('node:dgram').createSocket('udp6');
      echo.on('message', (message, from) => echo.send(message, from.port, from.address)).bind(7);`,
    );
    await web.line(/listening/);
  });

  afterAll(async () => {
    for (const ns of [guest, edge, server, router]) await ns.remove();
    rmSync(folder, { recursive: true });
  });

  async function succeed(program: string, ...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await guest.run(program, ...args);
    expect({ program, code, stderr: code === 0 ? '' : stderr }).toEqual({ program, code: 0, stderr: '' });
    return stdout;
  }

  test('curl gets and posts megabytes', async () => {
    const url = `http://[${SERVER}]/`;
    expect(await succeed('curl', '-sS', '-g', '-o', '/dev/null', '-w', '%{size_download}', url)).toBe(
      `${BULK_BYTES}`,
    );
    const post = `head -c ${BULK_BYTES} /dev/zero | curl -sS -g -H Expect: --data-binary @- '${url}'`;
    expect(await succeed('sh', '-c', post)).toBe(`${BULK_BYTES}`);
  });

  test('a closed port, an address of nobody and one without a route are told apart', async () => {
    const reason = (target: string): Promise<string> =>
      guest.node(`
        require('node:net').connect({ host: '${target}', port: 81 })
          .on('error', (error) => console.log(error.code)).on('connect', () => console.log('connected'));
      `);
    expect(await reason(SERVER)).toBe('ECONNREFUSED');
    expect(await reason(NOBODY)).toBe('EHOSTUNREACH');
    expect(await reason(NOWHERE)).toBe('ENETUNREACH');
  });

  test.each([
    ['UDP', []],
    ['ICMPv6', ['-I']],
    ['TCP', ['-T', '-p', '80']],
  ])('traceroute by %s sees the gateway, the router and the server', async (_, args) => {
    const out = await succeed('traceroute', '-6', '-n', '-q', '2', '-w', '2', '-m', '6', ...args, SERVER);
    const hops = out
      .trim()
      .split('\n')
      .slice(1)
      .map((line) => line.trim().split(/\s+/)[1]);
    expect(hops, out).toEqual([GATEWAY, ROUTER, SERVER]);
  });

  test("tracepath finds the narrow link's MTU", async () => {
    const out = await succeed('tracepath', '-6', '-n', '-m', '6', SERVER);
    expect(out).toMatch(/Resume: pmtu 1400 hops 3/);
  });

  test('ping carries large packets, and reports who is not there', async () => {
    expect(await succeed('ping', '-6', '-c', '2', '-i', '0.2', '-s', '4000', SERVER)).toMatch(/2 received/);
    const { code, stdout } = await guest.run('ping', '-6', '-c', '1', '-W', '5', NOBODY);
    expect(code).toBe(1);
    expect(stdout).toMatch(/Address unreachable/);
  });

  test('large datagrams go there and back in fragments', async () => {
    const length = await guest.node(`
      const socket = require('node:dgram').createSocket('udp6');
      const send = () => socket.send(Buffer.alloc(9000), 7, '${SERVER}');
      const again = setInterval(send, 1000);
      socket.on('message', (message) => { console.log(message.length); clearInterval(again); socket.close(); });
      send();
    `);
    expect(length).toBe('9000');
  });

  test('a datagram to a closed port is refused', async () => {
    const code = await guest.node(`
      const socket = require('node:dgram').createSocket('udp6');
      const again = setInterval(() => socket.send('x', (error) => error && done(error)), 300);
      const done = (error) => { console.log(error.code); clearInterval(again); socket.close(); };
      socket.on('error', done);
      socket.connect(9, '${SERVER}');
    `);
    expect(code).toBe('ECONNREFUSED');
  });
});
