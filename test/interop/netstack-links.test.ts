/** Virtual machines on a network, by every protocol that they speak; captures of their traffic; bad wires. */
import { execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { createNetstack, type Network } from '#netstack';
import { type MachineWire, startMachine } from '../support/machine.ts';
import { Netns } from '../support/netns.ts';
import { lacking } from '../support/requirements.ts';

const GATEWAY = '10.220.0.1';
const MTU = 1500;
const BULK_BYTES = 20 << 20;

const run = promisify(execFile);
const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

async function httpServer(handler: http.RequestListener): Promise<number> {
  const server = http.createServer(handler);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  closers.push(() => {
    server.closeAllConnections();
    server.close();
  });
  return (server.address() as net.AddressInfo).port;
}

const sha256 = (data: Buffer): string => createHash('sha256').update(data).digest('hex');

/** A machine with a fixed address on the network. */
async function machine(wire: Omit<MachineWire, 'mtuBytes'>, address: string): Promise<Netns> {
  const netns = new Netns();
  closers.push(() => netns.remove());
  await startMachine(netns, { ...wire, mtuBytes: MTU });
  await netns.run('ip', 'addr', 'add', `${address}/24`, 'dev', 'eth0');
  await netns.run('ip', 'route', 'add', 'default', 'via', GATEWAY);
  return netns;
}

describe.skipIf(lacking('root', '/dev/net/tun', 'ip', 'curl', 'ping', 'tcpdump'))('machines', () => {
  let network: Network;
  let folder: string;
  const stations: { mac: string; present: boolean }[] = [];

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'dd-links-'));
    network = await createNetstack({
      name: 'links',
      subnet: '10.220.0.0/24',
      mtuBytes: MTU,
      onStation: (event) => stations.push(event),
    });
  });

  afterAll(async () => {
    await network?.close();
    rmSync(folder, { recursive: true });
  });

  test.each([
    ['qemu', 'unix'],
    ['hyperkit', 'unix'],
    ['connect', 'unix'],
    ['vpnkit', 'unix'],
    ['bess', 'unixpacket'],
    ['vfkit', 'unixgram'],
  ] as const)('reach the host by %s: ping, 20 MB down and up, whole', async (protocol, scheme) => {
    const path = join(folder, `${protocol}.sock`);
    const listening = await network.listenLink(protocol, `${scheme}://${path}`);
    closers.push(() => listening.close());
    const vm = await machine({ protocol, path }, '10.220.0.50');
    const ping = await vm.run('ping', '-c', '1', '-W', '5', GATEWAY);
    expect([ping.code, ping.stdout]).toEqual([0, expect.stringContaining('1 received')]);
    const body = randomBytes(BULK_BYTES);
    const hash = createHash('sha256');
    const port = await httpServer((request, response) => {
      if (request.method === 'GET') response.end(body);
      else request.on('data', (chunk: Buffer) => hash.update(chunk)).on('end', () => response.end());
    });
    const url = `http://${GATEWAY}:${port}/`;
    const down = await vm.run('sh', '-c', `curl -sS --max-time 30 ${url} | sha256sum`);
    expect(down.stdout.slice(0, 64)).toBe(sha256(body));
    const file = join(folder, 'upload');
    const up = await vm.run(
      'sh',
      '-c',
      `head -c ${BULK_BYTES} /dev/urandom > ${file} && sha256sum < ${file} && curl -sS --max-time 30 -T ${file} ${url}`,
    );
    expect(up.stdout.slice(0, 64)).toBe(hash.digest('hex'));
    await listening.close();
    expect(existsSync(path)).toBe(false);
  });

  test('reach a container on the same network, by 1500-byte frames', async () => {
    const path = join(folder, 'mixed.sock');
    const listening = await network.listenLink('qemu', `unix://${path}`);
    closers.push(() => listening.close());
    const vm = await machine({ protocol: 'qemu', path }, '10.220.0.51');
    const netns = new Netns();
    closers.push(() => netns.remove());
    const guest = await network.attach({ namespacePath: netns.path, interfaceName: 'eth0', names: [] });
    closers.push(() => guest.detach());
    const server = netns.start(
      process.execPath,
      '-e',
      `require('net').createServer((s) => s.end(Buffer.alloc(${BULK_BYTES}, 'drydock'))).listen(80, () => console.log('up'))`,
    );
    await server.line(/up/);
    const received = await vm.node(`
      const h = require('crypto').createHash('sha256');
      require('net').connect(80, '${guest.address}').on('data', (d) => h.update(d)).on('end', () => console.log(h.digest('hex')));`);
    expect(received).toBe(sha256(Buffer.alloc(BULK_BYTES, 'drydock')));
  });

  test('plug in over TCP, and over a stream that is open already; what goes is told', async () => {
    const listening = await network.listenLink('qemu', 'tcp://127.0.0.1:0');
    closers.push(() => listening.close());
    const port = Number(/:(\d+)$/.exec(listening.url)![1]);
    expect(port).toBeGreaterThan(0);
    const client = net.connect(port, '127.0.0.1');
    await once(client, 'connect');
    await vi.waitFor(async () => expect((await network.stats()).machines).toBe(1));
    const server = net.createServer({ allowHalfOpen: true });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    closers.push(() => server.close());
    const far = net.connect((server.address() as net.AddressInfo).port, '127.0.0.1');
    const [near] = (await once(server, 'connection')) as [net.Socket];
    const plugged = await network.plugStream('hyperkit', near);
    expect((await network.stats()).machines).toBe(2);
    // ARP: who has the gateway? In one piece with a frame that is cut.
    const arp = Buffer.from(
      `ffffffffffff02500000000a08060001080006040001${'02500000000a'}0adc000a0000000000000adc0001`,
      'hex',
    );
    far.write(Buffer.concat([Buffer.of(arp.length, 0), arp, Buffer.of(60)]));
    const [answer] = (await once(far, 'data')) as [Buffer];
    expect(answer.toString('hex', 2, 8)).toBe('02500000000a');
    expect(answer.readUInt16BE(2 + 20)).toBe(2);
    far.destroy();
    client.destroy();
    await plugged.gone;
    await vi.waitFor(async () => expect((await network.stats()).machines).toBe(0));
    expect(stations.filter(({ mac }) => mac === '02:50:00:00:00:0a').map(({ present }) => present)).toEqual([
      true,
      false,
    ]);
  });

  test('a socket that another serves is not taken away; one left behind is replaced', async () => {
    const path = join(folder, 'taken.sock');
    const server = net.createServer();
    server.listen(path);
    await once(server, 'listening');
    await expect(network.listenLink('qemu', `unix://${path}`)).rejects.toMatchObject({
      code: 'ERR_LINK_SOCKET_IN_USE',
    });
    server.close();
    await run(process.execPath, [
      '-e',
      `require('net').createServer().listen('${path}', () => process.kill(process.pid, 9))`,
    ]).catch(() => {});
    expect(existsSync(path)).toBe(true);
    const listening = await network.listenLink('qemu', `unix://${path}`);
    await listening.close();
    await expect(network.listenLink('vfkit', 'tcp://127.0.0.1:1')).rejects.toMatchObject({
      code: 'ERR_LINK_URL_INVALID',
    });
  });

  test('a machine that does not read does not hold others up', async () => {
    const path = join(folder, 'stalled.sock');
    const listening = await network.listenLink('qemu', `unix://${path}`);
    closers.push(() => listening.close());
    const vm = await machine({ protocol: 'qemu', path }, '10.220.0.52');
    const stalled = net.connect(path);
    await once(stalled, 'connect');
    closers.push(() => stalled.destroy());
    stalled.pause();
    const arp = (mac: string): Buffer =>
      Buffer.from(`ffffffffffff${mac}08060001080006040001${mac}0adc00630000000000000adc0063`, 'hex');
    const frame = arp('02500000000b');
    const header = Buffer.alloc(4);
    header.writeUInt32BE(frame.length);
    stalled.write(Buffer.concat([header, frame]));
    const before = (await network.stats()).link_dropped ?? 0;
    await vm.node(`
      const s = require('dgram').createSocket('udp4');
      let left = 1800;
      s.bind(() => { s.setBroadcast(true);
        const next = () => (left-- > 0 ? s.send(Buffer.alloc(1400), 9, '10.220.0.255', next) : s.close());
        next(); });`);
    expect((await network.stats()).link_dropped).toBeGreaterThan(before);
    const ping = await vm.run('ping', '-c', '3', '-i', '0.2', '-W', '3', GATEWAY);
    expect(ping.stdout).toContain('3 received');
  });

  test('are captured, filtered, as tcpdump reads it, without a bad checksum', async () => {
    const path = join(folder, 'capture.sock');
    const listening = await network.listenLink('qemu', `unix://${path}`);
    closers.push(() => listening.close());
    const vm = await machine({ protocol: 'qemu', path }, '10.220.0.53');
    const file = join(folder, 'trace.pcap');
    const capture = await network.capture({ path: file, filter: 'tcp and host 10.220.0.53' });
    const port = await httpServer((_request, response) => response.end('x'.repeat(100_000)));
    await vm.run('ping', '-c', '1', '-W', '3', GATEWAY);
    await vm.run('curl', '-sS', `http://${GATEWAY}:${port}/`);
    const { frames, dropped, failed } = await capture.close();
    expect(dropped).toBe(0);
    expect(failed).toBeUndefined();
    expect(frames).toBeGreaterThan(8);
    const { stdout } = await run('tcpdump', ['-r', file, '-nn', '-v']);
    expect(stdout.split('\n').filter((line) => /^\d\d:/.test(line))).toHaveLength(frames);
    expect(stdout).not.toMatch(/\b(incorrect|bad|ICMP)\b/);
    expect(statSync(file).mode & 0o777).toBe(0o600);
  });
});

describe.skipIf(lacking('root', '/dev/net/tun', 'ip', 'curl'))('a bad wire', () => {
  test('loses, delays, reorders, doubles and damages, and 5 MB arrive whole both ways', async () => {
    const network = await createNetstack({
      name: 'bad',
      subnet: '10.221.0.0/24',
      mtuBytes: MTU,
      faults: { drop: 0.01, delayMs: 1, jitterMs: 1, reorder: 0.01, duplicate: 0.01, corrupt: 0.002 },
    });
    closers.push(() => network.close());
    const netns = new Netns();
    closers.push(() => netns.remove());
    await network.attach({ namespacePath: netns.path, interfaceName: 'eth0', names: [] });
    const body = randomBytes(5 << 20);
    const hash = createHash('sha256');
    const port = await httpServer((request, response) => {
      if (request.method === 'GET') response.end(body);
      else request.on('data', (chunk: Buffer) => hash.update(chunk)).on('end', () => response.end());
    });
    const url = `http://10.221.0.1:${port}/`;
    const down = await netns.run('sh', '-c', `curl -sS --max-time 40 ${url} | sha256sum`);
    expect(down.stdout.slice(0, 64)).toBe(sha256(body));
    const up = await netns.run(
      'sh',
      '-c',
      `f=$(mktemp) && head -c 5000000 /dev/urandom > $f && sha256sum < $f && curl -sS --max-time 40 -T $f ${url}; rm $f`,
    );
    expect(up.stdout.slice(0, 64)).toBe(hash.digest('hex'));
    const stats = await network.stats();
    expect(stats.tcpRetransmits).toBeGreaterThan(0);
  });
});
