/**
 * A hostile machine floods a network of real sockets. What it can make the stack hold is bounded, and a well-behaved guest
 * beside it is served all the while.
 */
import dgram from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import * as native from '#common/native/socket';
import { createNetstack, type Network } from '#netstack';
import { VNET_HDR_LEN } from '../../netstack/link/link.ts';
import { MAC_BROADCAST, parseIpv4, parseMac } from '../../netstack/wire/address.ts';
import { ETHERTYPE_IPV4 } from '../../netstack/wire/ethernet.ts';
import { PROTOCOL_TCP, PROTOCOL_UDP } from '../../netstack/wire/ipv4.ts';
import { TCP_SYN } from '../../netstack/wire/tcp.ts';
import { Netns } from '../support/netns.ts';
import {
  addr,
  arpFrame,
  bytes,
  frame,
  ipPacket,
  pattern,
  tcpSegment,
  udpDatagram,
} from '../support/netstack/frames.ts';
import { lacking } from '../support/requirements.ts';

const GATEWAY = '10.221.0.1';
const HOSTILE = '10.221.0.66';
const HOSTILE_MAC = 0x020000000066;
const MTU = 1500;
/** Frames per write to the machine's wire. */
const BATCH = 500;
/** What a flood may add to the memory of the process: buffers of the test's own included. */
const GROWTH_BYTES_MAX = 300 << 20;

/** The wire of the hostile machine: qemu's framing, a length before each frame. */
class HostileWire {
  readonly #socket: net.Socket;
  readonly #gatewayMac: number;

  constructor(socket: net.Socket, gatewayMac: number) {
    this.#socket = socket;
    this.#gatewayMac = gatewayMac;
    // It reads what it is sent, and does not care.
    socket.resume();
  }

  introduce(): Promise<void> {
    const arp = {
      op: 1,
      senderMac: HOSTILE_MAC,
      senderIp: parseIpv4(HOSTILE)!,
      targetMac: 0,
      targetIp: parseIpv4(GATEWAY)!,
    };
    return this.#write([arpFrame(MAC_BROADCAST, HOSTILE_MAC, arp)]);
  }

  /** Sends `count` IP packets, as fast as they are taken. */
  async flood(count: number, packet: (i: number) => Uint8Array): Promise<void> {
    for (let sent = 0; sent < count; sent += BATCH) {
      const frames: Uint8Array[] = [];
      for (let i = sent; i < Math.min(count, sent + BATCH); i++)
        frames.push(
          frame({ dst: this.#gatewayMac, src: HOSTILE_MAC, type: ETHERTYPE_IPV4, tag: -1 }, packet(i)),
        );
      await this.#write(frames);
    }
  }

  async #write(frames: Uint8Array[]): Promise<void> {
    const parts = frames.flatMap((each) => {
      const length = Buffer.alloc(4);
      length.writeUInt32BE(each.length - VNET_HDR_LEN);
      return [length, each.subarray(VNET_HDR_LEN)];
    });
    if (!this.#socket.write(Buffer.concat(parts))) await once(this.#socket, 'drain');
  }

  close(): void {
    this.#socket.destroy();
  }
}

/** A server of the host whose queue is full: to connect to it takes for ever. */
function blackHole(): { port: number; close(): void } {
  const loopback = addr('127.0.0.1');
  const listener = native.openSocket(4, 'stream');
  native.bind(listener, loopback, 0, 0);
  native.listen(listener, 0);
  const port = native.localPort(listener);
  const fillers = [0, 1].map(() => {
    const fd = native.openSocket(4, 'stream');
    native.connect(fd, loopback, 0, port);
    return fd;
  });
  return {
    port,
    close: () => {
      for (const fd of [...fillers, listener]) native.close(fd);
    },
  };
}

describe.skipIf(lacking('root', '/dev/net/tun', 'ip', 'curl'))('a hostile machine', () => {
  let network: Network;
  let folder: string;
  let wire: HostileWire;
  let guest: Netns;
  let echo: dgram.Socket;
  let web: http.Server;
  let rssBefore: number;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'dd-floods-'));
    network = await createNetstack({ name: 'floods', subnet: '10.221.0.0/24', mtuBytes: MTU });
    const url = `unix://${join(folder, 'machine.sock')}`;
    await network.listenLink('qemu', url);
    const socket = net.connect(join(folder, 'machine.sock'));
    await once(socket, 'connect');
    wire = new HostileWire(socket, parseMac(network.gatewayMac)!);
    await wire.introduce();
    guest = new Netns();
    await network.attach({ namespacePath: guest.path, interfaceName: 'eth0', names: [] });
    echo = dgram.createSocket('udp4');
    echo.on('message', (message, from) => echo.send(message, from.port, from.address));
    echo.bind(0, '127.0.0.1');
    await once(echo, 'listening');
    web = http.createServer((_request, response) => response.end('served'));
    web.listen(0, '127.0.0.1');
    await once(web, 'listening');
    rssBefore = process.memoryUsage.rss();
  });

  afterAll(async () => {
    wire?.close();
    await network?.close();
    await guest?.remove();
    echo?.close();
    web?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  /** The guest connects, and gets a large datagram there and back. */
  async function guestIsServed(): Promise<void> {
    const { port } = web.address() as net.AddressInfo;
    const curl = await guest.run('curl', '-sS', '--max-time', '10', `http://${GATEWAY}:${port}/`);
    expect(curl.stdout, curl.stderr).toBe('served');
    const length = await guest.node(`
      const socket = require('node:dgram').createSocket('udp4');
      const send = () => socket.send(Buffer.alloc(4000), ${echo.address().port}, '${GATEWAY}');
      const again = setInterval(send, 1000);
      socket.on('message', (message) => { console.log(message.length); clearInterval(again); socket.close(); });
      send();
    `);
    expect(length).toBe('4000');
  }

  /** Waits until the stack has seen `frames` more than `before`, and returns its counters. */
  async function settled(before: Record<string, number>, frames: number): Promise<Record<string, number>> {
    return vi.waitFor(
      async () => {
        const stats = await network.stats();
        expect(stats.framesIn! - before.framesIn!).toBeGreaterThanOrEqual(frames);
        return stats;
      },
      { timeout: 50_000, interval: 200 },
    );
  }

  test('with 100,000 SYNs to a black hole holds at most its 1024 pending connections', async () => {
    const before = await network.stats();
    const { port, close } = blackHole();
    try {
      const flooding = wire.flood(100_000, (i) => {
        const fields = {
          sourcePort: 1024 + (i % 60_000),
          destinationPort: port,
          sequence: i,
          flags: TCP_SYN,
        };
        return ipPacket(HOSTILE, GATEWAY, PROTOCOL_TCP, tcpSegment(HOSTILE, GATEWAY, fields));
      });
      await guestIsServed();
      await flooding;
      const stats = await settled(before, 100_000);
      await guestIsServed();
      expect(stats.tcpFlows).toBeLessThanOrEqual(1024 + 16);
      // The same port asked twice is a flow already, as long as it is pending.
      expect(stats.tcpPendingEvicted).toBeGreaterThan(90_000);
    } finally {
      close();
    }
  });

  test('with 50,000 UDP ports holds at most its 4096 sockets', async () => {
    const before = await network.stats();
    const { port } = echo.address();
    const flooding = wire.flood(50_000, (i) =>
      ipPacket(HOSTILE, GATEWAY, PROTOCOL_UDP, udpDatagram(HOSTILE, 1024 + i, GATEWAY, port, bytes('flood'))),
    );
    await guestIsServed();
    await flooding;
    const stats = await settled(before, 50_000);
    await guestIsServed();
    expect(stats.udpMappings).toBeLessThanOrEqual(4096 + 16);
    expect(stats.udpMappingsEvicted! - before.udpMappingsEvicted!).toBeGreaterThan(40_000);
  });

  test('with 50,000 first fragments holds at most its 2 MiB of them', async () => {
    const before = await network.stats();
    const flooding = wire.flood(50_000, (i) =>
      ipPacket(HOSTILE, GATEWAY, PROTOCOL_UDP, pattern(64), { ident: i & 0xffff, moreFragments: true }),
    );
    await guestIsServed();
    await flooding;
    const stats = await settled(before, 50_000);
    await guestIsServed();
    expect(stats.reassemblyBytes).toBeLessThanOrEqual((2 << 20) + 8192);
  });

  test('makes the process grow by a bounded amount', () => {
    expect(process.memoryUsage.rss() - rssBefore).toBeLessThan(GROWTH_BYTES_MAX);
  });
});
