import { beforeEach, describe, expect, test } from 'vitest';
import type { Host, HostError, HostStream, StreamSink } from '../flow/host.ts';
import { formatEndpoint, parseAddress } from '../wire/address.ts';
import type { EgressRules } from './policy.ts';
import { isExcluded, ProxiedHost } from './proxied-host.ts';

const TARGET = parseAddress('203.0.113.7')!;
const LOOPBACK = parseAddress('127.0.0.1')!;
const text = (bytes: Iterable<number>): string => String.fromCharCode(...bytes);

/** A host that keeps what was connected to, and a guest's side that keeps what it is told. */
class Bench {
  readonly connected: {
    to: string;
    sink: StreamSink;
    stream: HostStream;
    written: number[];
    incoming: number[];
    isClosed: boolean;
  }[] = [];
  readonly told: string[] = [];
  room = Number.POSITIVE_INFINITY;
  readonly host = new ProxiedHost(
    {
      connect: (
        addr: Uint8Array,
        off: number,
        port: number,
        _ttl: number,
        _class: number,
        sink: StreamSink,
      ) => {
        const entry = {
          to: formatEndpoint(addr, off, port),
          sink,
          written: [] as number[],
          incoming: [] as number[],
          isClosed: false,
        };
        const stream: HostStream = {
          read: (buf, at, len) => {
            const chunk = entry.incoming.splice(0, len);
            buf.set(chunk, at);
            return chunk.length;
          },
          write: (buf, at, len) => {
            const taken = Math.min(len, this.room);
            this.room -= taken;
            entry.written.push(...buf.subarray(at, at + taken));
            return taken;
          },
          shutdown: () => {},
          reset: () => {
            entry.isClosed = true;
          },
          close: () => {
            entry.isClosed = true;
          },
        };
        this.connected.push({ ...entry, stream, written: entry.written, incoming: entry.incoming });
        return stream;
      },
    } as Partial<Host> as Host,
    { nameOf: () => this.name, awaitsHello: () => false } as Partial<EgressRules> as EgressRules,
  );
  name: string | undefined;

  connect(addr: Uint8Array, port: number, guest?: Uint8Array): HostStream | HostError {
    const sink: StreamSink = {
      connected: () => this.told.push('connected'),
      readable: () => this.told.push('readable'),
      writable: () => this.told.push('writable'),
      failed: (error) => this.told.push(error),
    };
    return this.host.connect(addr, 0, port, 0, 0, sink, guest);
  }

  /** The upstream proxy says something. */
  say(words: string): void {
    const [entry] = this.connected;
    entry!.incoming.push(...words.split('').map((char) => char.charCodeAt(0)));
    entry!.sink.readable();
  }
}

let bench: Bench;
beforeEach(() => {
  bench = new Bench();
  bench.host.setRoutes({
    transparent: [
      { ports: [443], address: parseAddress('192.0.2.1')!, port: 3128, authorization: 'Basic eA==' },
    ],
    excludes: { names: ['.local'], networks: [] },
    explicit: { guestPort: 3128, hostPort: 40_000, secret: Uint8Array.of(0x73, 0x65, 0x63) },
  });
});

describe('a transparent connection', () => {
  test('is established when the proxy has said so, with what the proxy sent behind its answer', () => {
    const stream = bench.connect(TARGET, 443) as HostStream;
    expect(bench.connected[0]!.to).toBe('192.0.2.1:3128');
    bench.connected[0]!.sink.connected();
    expect(text(bench.connected[0]!.written)).toBe(
      'CONNECT 203.0.113.7:443 HTTP/1.1\r\nHost: 203.0.113.7:443\r\nProxy-Authorization: Basic eA==\r\n\r\n',
    );
    for (const piece of ['HTTP/1.1 2', '00 OK\r\nVia: x\r', '\n\r']) bench.say(piece);
    expect(bench.told).toEqual([]);
    bench.say('\nhello');
    expect(bench.told).toEqual(['connected', 'readable']);
    const buf = new Uint8Array(10);
    expect(stream.read(buf, 0, 3)).toBe(3);
    expect(stream.read(buf, 3, 7)).toBe(2);
    expect(text(buf.subarray(0, 5))).toBe('hello');
    expect(stream.read(buf, 0, 10)).toBe(0);
    bench.say('more');
    expect(bench.told).toEqual(['connected', 'readable', 'readable']);
  });

  test('is asked for by the name under which the guest knows the address', () => {
    bench.name = 'www.example.com';
    bench.connect(TARGET, 443);
    bench.connected[0]!.sink.connected();
    expect(text(bench.connected[0]!.written)).toMatch(/^CONNECT www\.example\.com:443 /);
  });

  test('to an IPv6 address has brackets', () => {
    bench.connect(parseAddress('2001:db8::7')!, 443);
    bench.connected[0]!.sink.connected();
    expect(text(bench.connected[0]!.written)).toMatch(/^CONNECT \[2001:db8::7\]:443 /);
  });

  test.each(['HTTP/1.1 403 Forbidden\r\n\r\n', 'HTTP/1.1 200', 'SSH-2.0-x\r\n\r\n', 'x'.repeat(9000)])(
    'is refused when the proxy does not agree: %.20s',
    (answer) => {
      bench.connect(TARGET, 443);
      bench.connected[0]!.sink.connected();
      bench.say(answer);
      if (answer === 'HTTP/1.1 200') bench.connected[0]!.stream.read = () => -1;
      if (bench.told.length === 0) bench.connected[0]!.sink.readable();
      expect(bench.told).toEqual(['ECONNREFUSED']);
      expect(bench.host.counters.proxy_refused).toBe(1);
    },
  );

  test('is said in pieces when the socket takes no more', () => {
    bench.room = 10;
    bench.connect(TARGET, 443);
    bench.connected[0]!.sink.connected();
    expect(bench.connected[0]!.written).toHaveLength(10);
    bench.room = 1000;
    bench.connected[0]!.sink.writable();
    expect(text(bench.connected[0]!.written)).toMatch(/\r\n\r\n$/);
    expect(bench.told).toEqual([]);
  });

  test('that fails before fails as it would without a proxy', () => {
    bench.connect(TARGET, 443);
    bench.connected[0]!.sink.failed('EHOSTUNREACH');
    expect(bench.told).toEqual(['EHOSTUNREACH']);
  });
});

test("what is excluded, on another port, or the host's own goes directly", () => {
  bench.name = 'printer.local';
  bench.connect(TARGET, 443);
  bench.name = undefined;
  bench.connect(TARGET, 80);
  bench.connect(LOOPBACK, 443);
  expect(bench.connected.map(({ to }) => to)).toEqual(['203.0.113.7:443', '203.0.113.7:80', '127.0.0.1:443']);
});

test('the explicit proxy is reached by its secret, with the address of the guest, and at once', () => {
  bench.connect(LOOPBACK, 3128, parseAddress('10.0.0.2'));
  expect(bench.connected[0]!.to).toBe('127.0.0.1:40000');
  bench.connected[0]!.sink.connected();
  expect(text(bench.connected[0]!.written)).toBe('sec\0\0\0\0\0\0\0\0\0\0\xff\xff\n\0\0\x02');
  expect(bench.told).toEqual(['connected']);
  bench.connected[0]!.sink.writable();
  expect(bench.told).toEqual(['connected', 'writable']);
});

test.each([
  ['example.com', undefined, true],
  ['www.example.com', undefined, false],
  ['a.b.local', undefined, true],
  ['local', undefined, false],
  [undefined, '10.1.2.3', true],
  [undefined, '11.1.2.3', false],
  [undefined, '2001:db8::1', false],
])('the exclusion of %s %s is %s', (name, address, expected) => {
  const excludes = {
    names: ['example.com', '.local'],
    networks: [{ address: parseAddress('10.0.0.0')!, prefixLength: 104 }],
  };
  expect(isExcluded(excludes, name, address === undefined ? undefined : parseAddress(address), 0)).toBe(
    expected,
  );
});
