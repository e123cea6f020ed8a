import * as dnsPacket from 'dns-packet';
import { beforeEach, describe, expect, test } from 'vitest';
import { ManualClock } from '#common/clock';
import { nullLog } from '#common/log';
import { seededRng } from '#common/rng';
import type { DatagramSink, Host, HostError, HostStream, StreamSink } from '../flow/host.ts';
import type { InsideListener, UdpService, UdpSocket } from '../flow/inside.ts';
import type { StackSurface } from '../stack.ts';
import { formatAddress, mapped, parseAddress, parseIpv4, putMac } from '../wire/address.ts';
import { BOOT_REQUEST, DHCP_OPTION, DHCP_TYPE, encodeDhcp, parseDhcp } from '../wire/dhcp.ts';
import { emitNtp, NTP_LEN, parseNtp } from '../wire/ntp.ts';
import { ATTEMPT_MS } from './dns/resolver.ts';
import { DNS_CONNECTIONS_PER_CLIENT_MAX, DNS_IDLE_MS } from './dns/stream.ts';
import { parseUpstream } from './dns/upstreams.ts';
import { LeasePool } from './lease-pool.ts';
import { attachServices, type Services } from './services.ts';

const GATEWAY = parseIpv4('172.17.0.1')!;
const GUEST = parseAddress('172.17.0.2')!;
const UPSTREAM = parseUpstream('192.0.2.53')!;

interface Datagram {
  bytes: Uint8Array;
  to: string;
  port: number;
  mac: Uint8Array | undefined;
}

/** A stream whose other end is the test. */
class TestStream implements HostStream {
  readonly written: number[] = [];
  incoming: number[] = [];
  ended = false;
  closed = false;
  room = Number.POSITIVE_INFINITY;

  read(buf: Uint8Array, off: number, len: number): number {
    expect(this.closed).toBe(false);
    if (this.incoming.length === 0) return this.ended ? -1 : 0;
    const chunk = this.incoming.splice(0, len);
    buf.set(chunk, off);
    return chunk.length;
  }
  write(buf: Uint8Array, off: number, len: number): number {
    expect(this.closed).toBe(false);
    const taken = Math.min(len, this.room);
    this.room -= taken;
    this.written.push(...buf.subarray(off, off + taken));
    return taken;
  }
  shutdown(): void {}
  reset(): void {
    this.closed = true;
  }
  close(): void {
    this.closed = true;
  }
}

function framed(message: Uint8Array): number[] {
  return [message.length >> 8, message.length & 255, ...message];
}

/** The stack's and the host's sides, played by the test. */
class Bench {
  readonly clock = new ManualClock(1000);
  readonly services = new Map<number, UdpService>();
  readonly sent: Datagram[] = [];
  listener: InsideListener | undefined;
  readonly upstream: { sink: DatagramSink; message: Uint8Array; closed: boolean }[] = [];
  readonly streams: { sink: StreamSink; stream: TestStream }[] = [];
  hostError: HostError | undefined;
  readonly pool = new LeasePool({ network: GATEWAY, prefixLength: 16, excluded: [GATEWAY] });
  readonly running: Services;

  constructor() {
    const stack = {
      bindUdp: ({ port }: { port: number }, service: UdpService): UdpSocket | HostError => {
        if (this.services.has(port)) return 'EADDRINUSE';
        this.services.set(port, service);
        return {
          port,
          send: (buf, off, len, addr, addrOff, toPort, mac) => {
            this.sent.push({
              bytes: buf.slice(off, off + len),
              to: formatAddress(addr, addrOff),
              port: toPort,
              mac,
            });
            return true;
          },
          close: () => void this.services.delete(port),
        };
      },
      listenTcp: (port: number, listener: InsideListener) => {
        expect(port).toBe(53);
        this.listener = listener;
        return {
          close: () => {
            this.listener = undefined;
          },
        };
      },
    } as Partial<StackSurface> as StackSurface;
    const host = {
      openDatagram: (_family, _addr, _off, _port, sink) => {
        if (this.hostError) return this.hostError;
        const socket = { sink, message: new Uint8Array(0), closed: false };
        this.upstream.push(socket);
        return {
          port: 40_000,
          send: (buf, off, len) => {
            socket.message = buf.slice(off, off + len);
            return undefined;
          },
          close: () => {
            socket.closed = true;
          },
        };
      },
      connect: (_addr, _off, _port, _ttl, _class, sink) => {
        const stream = new TestStream();
        this.streams.push({ sink, stream });
        return stream;
      },
    } as Partial<Host> as Host;
    this.running = attachServices(stack, host, {
      clock: this.clock,
      rng: seededRng(1),
      log: nullLog,
      ipv4: { address: GATEWAY, prefixLength: 16 },
      pool: this.pool,
      mac: 0x020000000001,
      domain: 'lan.test',
      mtuBytes: 1500,
    });
    this.running.setUpstreams([UPSTREAM]);
  }

  guestSends(port: number, bytes: Uint8Array, mac = new Uint8Array(6)): void {
    const from = { addr: GUEST, port: 5000, toAddr: mapped(GATEWAY), mac, ttl: 64, trafficClass: 0 };
    this.services.get(port)!.datagram(this.clock.now(), bytes, 0, bytes.length, from);
  }

  poll(): void {
    this.running.poll(this.clock.now());
  }
}

function query(name: string, id = 7): Uint8Array {
  return dnsPacket.encode({
    id,
    type: 'query',
    flags: dnsPacket.RECURSION_DESIRED,
    questions: [{ type: 'A', name }],
  });
}

function response(message: Uint8Array, flags = 0): Uint8Array {
  const { id, questions } = dnsPacket.decode(Buffer.from(message));
  const answers = [{ type: 'A' as const, name: questions![0]!.name, data: '192.0.2.80', ttl: 60 }];
  return dnsPacket.encode({
    type: 'response',
    id: id!,
    flags,
    questions: questions!,
    answers: flags ? [] : answers,
  });
}

let bench: Bench;
beforeEach(() => {
  bench = new Bench();
});

describe("over the stack's UDP", () => {
  test("DNS answers a guest's name to the asker", () => {
    bench.running.setNames(GUEST, ['web']);
    bench.guestSends(53, query('web'));
    expect(bench.sent).toMatchObject([{ to: '172.17.0.2', port: 5000 }]);
    expect(dnsPacket.decode(Buffer.from(bench.sent[0]!.bytes)).answers).toMatchObject([
      { data: '172.17.0.2' },
    ]);
  });

  test("DNS knows the host by docker's and podman's names", () => {
    for (const name of ['host.docker.internal', 'gateway.docker.internal', 'host.containers.internal'])
      bench.guestSends(53, query(name));
    for (const { bytes } of bench.sent)
      expect(dnsPacket.decode(Buffer.from(bytes)).answers).toMatchObject([{ data: '172.17.0.1' }]);
    expect(bench.sent).toHaveLength(3);
  });

  test('a host name that DHCP learnt is a name for DNS', () => {
    bench.pool.bind(0, { mac: 5 }, parseIpv4('172.17.0.9')!, 1e6, 'pc');
    bench.guestSends(53, query('pc.lan.test'));
    expect(dnsPacket.decode(Buffer.from(bench.sent[0]!.bytes)).answers).toMatchObject([
      { data: '172.17.0.9' },
    ]);
  });

  test('DHCP answers to the MAC of a client without an address', () => {
    const mac = new Uint8Array(6);
    putMac(mac, 0, 0x0242ac110002);
    const discover = encodeDhcp({
      op: BOOT_REQUEST,
      hardwareType: 1,
      hops: 0,
      transactionId: 1,
      seconds: 0,
      flags: 0,
      clientAddress: 0,
      yourAddress: 0,
      nextServer: 0,
      relayAddress: 0,
      hardwareAddress: mac,
      options: new Map([[DHCP_OPTION.messageType as number, Uint8Array.of(DHCP_TYPE.discover)]]),
    });
    bench.guestSends(67, discover, mac);
    expect(bench.sent).toMatchObject([{ to: '172.17.0.2', port: 68, mac }]);
    const { options } = parseDhcp(bench.sent[0]!.bytes, 0, bench.sent[0]!.bytes.length)!;
    expect([...options.get(DHCP_OPTION.dnsServers)!]).toEqual([172, 17, 0, 1]);
    expect([...options.get(DHCP_OPTION.mtu)!]).toEqual([5, 220]);
  });

  test("NTP answers with the clock's time", () => {
    const zero = { seconds: 0, fraction: 0 };
    const bytes = new Uint8Array(NTP_LEN);
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
        transmit: zero,
      },
      bytes,
      0,
    );
    bench.guestSends(123, bytes);
    const reply = parseNtp(bench.sent[0]!.bytes, 0, NTP_LEN)!;
    expect(reply.transmit.seconds).toBe(Math.floor(bench.clock.wallMs() / 1000) + 2_208_988_800);
  });
});

describe("upstream queries by the host's sockets", () => {
  test('a query has a socket of its own, which is closed when the answer has come', () => {
    bench.guestSends(53, query('example.com'));
    const [socket] = bench.upstream;
    const answer = response(socket!.message);
    socket!.sink.datagram(answer, 0, answer.length, UPSTREAM.address, 0, 53, 64, 0);
    expect(socket!.closed).toBe(true);
    expect(dnsPacket.decode(Buffer.from(bench.sent[0]!.bytes))).toMatchObject({
      id: 7,
      answers: [{ data: '192.0.2.80' }],
    });
  });

  test('a port unreachable ends the wait at once', () => {
    bench.guestSends(53, query('example.com'));
    bench.upstream[0]!.sink.failed('ECONNREFUSED');
    expect(dnsPacket.decode(Buffer.from(bench.sent[0]!.bytes))).toMatchObject({ rcode: 'SERVFAIL' });
  });

  test('a host without sockets to give is SERVFAIL at the next turn, never a throw', () => {
    bench.hostError = 'EMFILE';
    bench.guestSends(53, query('example.com'));
    expect(bench.running.pollAt()).toBe(Number.NEGATIVE_INFINITY);
    bench.poll();
    expect(dnsPacket.decode(Buffer.from(bench.sent[0]!.bytes))).toMatchObject({ rcode: 'SERVFAIL' });
  });

  test('a silent server is asked again when poll() is due', () => {
    bench.guestSends(53, query('example.com'));
    expect(bench.running.pollAt()).toBe(1000 + ATTEMPT_MS);
    bench.clock.advance(ATTEMPT_MS);
    bench.poll();
    expect(bench.upstream).toHaveLength(2);
  });

  test('a truncated answer goes on over TCP, in whatever pieces it comes', () => {
    bench.guestSends(53, query('example.com'));
    const truncated = response(bench.upstream[0]!.message, dnsPacket.TRUNCATED_RESPONSE);
    bench.upstream[0]!.sink.datagram(truncated, 0, truncated.length, UPSTREAM.address, 0, 53, 64, 0);
    const { sink, stream } = bench.streams[0]!;
    stream.room = 5;
    sink.connected();
    expect(stream.written).toHaveLength(5);
    stream.room = 1000;
    sink.writable();
    const asked = Uint8Array.from(stream.written.slice(2));
    expect((stream.written[0]! << 8) | stream.written[1]!).toBe(asked.length);
    for (const byte of framed(response(asked))) {
      expect(stream.closed).toBe(false);
      stream.incoming.push(byte);
      sink.readable();
    }
    expect(stream.closed).toBe(true);
    expect(dnsPacket.decode(Buffer.from(bench.sent[0]!.bytes)).answers).toMatchObject([
      { data: '192.0.2.80' },
    ]);
  });
});

describe("DNS over the stack's TCP (RFC 7766)", () => {
  function connect(addr = GUEST): { stream: TestStream; sink: StreamSink | undefined } {
    const stream = new TestStream();
    return { stream, sink: bench.listener!.accepted(stream, addr, 6000) };
  }
  const repliesOf = (stream: TestStream): dnsPacket.DecodedPacket[] => {
    const replies: dnsPacket.DecodedPacket[] = [];
    for (let at = 0; at + 2 <= stream.written.length; ) {
      const end = at + 2 + (stream.written[at]! << 8) + stream.written[at + 1]!;
      replies.push(dnsPacket.decode(Buffer.from(stream.written.slice(at + 2, end))));
      at = end;
    }
    return replies;
  };

  test('6.2.1.1: several queries on one connection are answered as answers come', () => {
    bench.running.setNames(GUEST, ['web']);
    const { stream, sink } = connect();
    stream.incoming.push(...framed(query('example.com', 1)), ...framed(query('web', 2)));
    sink!.readable();
    expect(repliesOf(stream).map((reply) => reply.id)).toEqual([2]);
    const upstream = bench.streams[0]!;
    upstream.sink.connected();
    upstream.stream.incoming.push(...framed(response(Uint8Array.from(upstream.stream.written.slice(2)))));
    upstream.sink.readable();
    expect(repliesOf(stream).map((reply) => reply.id)).toEqual([2, 1]);
  });

  test('a client that ends its side still gets what it asked for, then the end', () => {
    const { stream, sink } = connect();
    stream.incoming.push(...framed(query('example.com', 1)));
    stream.ended = true;
    sink!.readable();
    expect(stream.closed).toBe(false);
    const upstream = bench.streams[0]!;
    upstream.sink.connected();
    upstream.stream.incoming.push(...framed(response(Uint8Array.from(upstream.stream.written.slice(2)))));
    upstream.sink.readable();
    expect(repliesOf(stream)).toHaveLength(1);
    expect(stream.closed).toBe(true);
  });

  test('6.2.3: a connection that says nothing is closed', () => {
    const { stream } = connect();
    expect(bench.running.pollAt()).toBe(1000 + DNS_IDLE_MS);
    bench.clock.advance(DNS_IDLE_MS);
    bench.poll();
    expect(stream.closed).toBe(true);
    expect(bench.running.pollAt()).toBe(Number.POSITIVE_INFINITY);
  });

  test('a client that does not read its answers is cut off', () => {
    bench.running.setNames(GUEST, ['web']);
    const { stream, sink } = connect();
    stream.room = 0;
    for (let i = 0; i < 10_000 && !stream.closed; i++) {
      stream.incoming.push(...framed(query('web', 2)));
      sink!.readable();
    }
    expect(stream.closed).toBe(true);
  });

  test('one client has a bounded number of connections', () => {
    for (let i = 0; i < DNS_CONNECTIONS_PER_CLIENT_MAX; i++) expect(connect().sink).toBeDefined();
    expect(connect().sink).toBeUndefined();
    expect(connect(parseAddress('172.17.0.3')!).sink).toBeDefined();
  });
});

test('closing frees the ports, the connections and the sockets', () => {
  const stream = new TestStream();
  bench.listener!.accepted(stream, GUEST, 6000);
  bench.guestSends(53, query('example.com'));
  bench.running.close();
  expect(bench.services.size).toBe(0);
  expect(bench.listener).toBeUndefined();
  expect(stream.closed).toBe(true);
  expect(bench.upstream[0]!.closed).toBe(true);
});
