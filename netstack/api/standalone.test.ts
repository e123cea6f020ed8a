import { createSocket } from 'node:dgram';
import { Resolver } from 'node:dns/promises';
import { once } from 'node:events';
import net from 'node:net';
import * as dnsPacket from 'dns-packet';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { nullLog } from '#common/log';
import { NameTable } from '../service/dns/names.ts';
import { parseUpstream } from '../service/dns/upstreams.ts';
import { LeasePool } from '../service/lease-pool.ts';
import { mapped, parseIpv4 } from '../wire/address.ts';
import { BOOT_REQUEST, DHCP_OPTION, DHCP_TYPE, encodeDhcp } from '../wire/dhcp.ts';
import { emitNtp, NTP_LEN, parseNtp } from '../wire/ntp.ts';
import { serveDhcp, serveDns, serveNtp } from './standalone.ts';

const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

async function udpClient(): Promise<{
  port: number;
  ask: (message: Uint8Array, port: number) => Promise<Buffer>;
}> {
  const socket = createSocket('udp4');
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  closers.push(() => socket.close());
  return {
    port: socket.address().port,
    ask: async (message, port) => {
      socket.send(message, port, '127.0.0.1');
      const [reply] = (await once(socket, 'message')) as [Buffer];
      return reply;
    },
  };
}

describe('DNS by itself', () => {
  const names = (): NameTable => {
    const table = new NameTable({ domain: 'lan.test', isLocal: () => false });
    table.setGuest('web', ['web'], [mapped(parseIpv4('10.0.0.2')!)]);
    return table;
  };

  async function serve(upstreamPort: number): ReturnType<typeof serveDns> {
    const server = await serveDns({
      address: '127.0.0.1',
      port: 0,
      names: names(),
      upstreams: [parseUpstream(`127.0.0.1#${upstreamPort}`)!],
    });
    closers.push(() => server.close());
    return server;
  }

  test('answers its own names, forwards others to another of its kind, over UDP and over TCP', async () => {
    const upstreamNames = new NameTable({ isLocal: () => false });
    upstreamNames.addZone({
      name: 'example.test',
      records: [{ name: 'www', address: mapped(parseIpv4('192.0.2.80')!) }],
    });
    const upstream = await serveDns({ address: '127.0.0.1', port: 0, names: upstreamNames, upstreams: [] });
    closers.push(() => upstream.close());
    const { port } = await serve(upstream.port);
    const resolver = new Resolver();
    resolver.setServers([`127.0.0.1:${port}`]);
    expect(await resolver.resolve4('web.lan.test')).toEqual(['10.0.0.2']);
    expect(await resolver.resolve4('www.example.test')).toEqual(['192.0.2.80']);
    await expect(resolver.resolve4('no.example.test')).rejects.toMatchObject({ code: 'ENOTFOUND' });

    const socket = net.connect(port, '127.0.0.1');
    closers.push(() => socket.destroy());
    const query = (id: number, name: string): Buffer =>
      dnsPacket.streamEncode({
        type: 'query',
        id,
        flags: dnsPacket.RECURSION_DESIRED,
        questions: [{ type: 'A', name }],
      });
    socket.write(Buffer.concat([query(1, 'www.example.test'), query(2, 'web')]));
    let heard = Buffer.alloc(0);
    socket.on('data', (chunk) => {
      heard = Buffer.concat([heard, chunk]);
    });
    await vi.waitFor(() => {
      const ids: number[] = [];
      for (let at = 0; at + 2 <= heard.length; at += 2 + heard.readUInt16BE(at))
        ids.push(heard.readUInt16BE(at + 2));
      expect(ids.sort()).toEqual([1, 2]);
    });
  });

  test('a server that is not there is SERVFAIL at once', async () => {
    const gone = net.createServer().listen(0, '127.0.0.1');
    await once(gone, 'listening');
    const { port: closed } = gone.address() as net.AddressInfo;
    gone.close();
    const { port } = await serve(closed);
    const client = await udpClient();
    const query = dnsPacket.encode({ type: 'query', id: 9, questions: [{ type: 'A', name: 'x.example' }] });
    const started = performance.now();
    expect(dnsPacket.decode(await client.ask(query, port))).toMatchObject({ id: 9, rcode: 'SERVFAIL' });
    expect(performance.now() - started).toBeLessThan(1400);
  });

  test('a port in use is told with the remedy', async () => {
    const { port } = await serve(9);
    await expect(serveDns({ address: '127.0.0.1', port, names: names(), upstreams: [] })).rejects.toThrow(
      expect.objectContaining({
        code: 'ERR_SERVICE_BIND',
        message: expect.stringMatching(/EADDRINUSE.*root/),
      }),
    );
  });
});

test("NTP by itself tells this host's time", async () => {
  const server = await serveNtp({
    address: '127.0.0.1',
    port: 0,
    quality: () => ({ synchronised: true, errorMaxMs: 1 }),
  });
  closers.push(() => server.close());
  const zero = { seconds: 0, fraction: 0 };
  const request = new Uint8Array(NTP_LEN);
  emitNtp(
    {
      leap: 0,
      version: 4,
      mode: 3,
      stratum: 0,
      poll: 0,
      precision: 0,
      rootDelay: 0,
      rootDispersion: 0,
      referenceId: 0,
      reference: zero,
      origin: zero,
      receive: zero,
      transmit: { seconds: 1, fraction: 2 },
    },
    request,
    0,
  );
  const reply = parseNtp(await (await udpClient()).ask(request, server.port), 0, NTP_LEN)!;
  expect(reply.origin).toEqual({ seconds: 1, fraction: 2 });
  expect(Math.abs(reply.transmit.seconds - 2_208_988_800 - Date.now() / 1000)).toBeLessThan(5);
});

test('DHCP by itself answers a client that has its address, directly', async () => {
  const pool = new LeasePool({ network: parseIpv4('127.0.0.0')!, prefixLength: 24 });
  const server = await serveDhcp({
    address: '127.0.0.1',
    port: 0,
    pool,
    serverAddress: parseIpv4('127.0.0.1')!,
    prefixLength: 24,
    log: nullLog,
  });
  closers.push(() => server.close());
  const renew = encodeDhcp({
    op: BOOT_REQUEST,
    hardwareType: 1,
    hops: 0,
    transactionId: 1,
    seconds: 0,
    flags: 0,
    clientAddress: parseIpv4('127.0.0.1')!,
    yourAddress: 0,
    nextServer: 0,
    relayAddress: 0,
    hardwareAddress: Uint8Array.of(2, 0, 0, 0, 0, 1),
    options: new Map([[DHCP_OPTION.messageType as number, Uint8Array.of(DHCP_TYPE.request)]]),
  });
  // Answers go to port 68 of the client's address, which takes root and a free port: what is seen here is the table.
  const client = createSocket('udp4');
  closers.push(() => client.close());
  client.send(renew, server.port, '127.0.0.1');
  await vi.waitFor(() =>
    expect(pool.leases(0)).toMatchObject([{ address: parseIpv4('127.0.0.1')!, state: 'bound' }]),
  );
});
