import dgram from 'node:dgram';
import { once } from 'node:events';
import net from 'node:net';
import type { NetworkInterfaceInfoIPv4 } from 'node:os';
import { setImmediate as turn } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { nullLog } from '#common/log';
import type { DatagramSink, HostError, HostIcmpError, HostStream, StreamSink } from '../flow/host.ts';
import { parseAddress } from '../wire/address.ts';
import { HostNetworks } from './multicast.ts';
import { NativeHost } from './native.ts';
import { Poller } from './poller.ts';
import { BATCH_FRAMES, receiveBatch } from './receive-batch.ts';

const LOOPBACK = parseAddress('127.0.0.1')!;

let poller: Poller;
let host: NativeHost;
const cleanups: (() => void)[] = [];

beforeEach(() => {
  poller = new Poller();
  host = new NativeHost(poller, nullLog, () => performance.now());
});

afterEach(() => {
  for (const cleanup of cleanups.splice(0)) cleanup();
  poller.close();
});

/** Runs both loops, ours and Node's, until `condition` holds. */
async function until(condition: () => boolean): Promise<void> {
  const deadline = performance.now() + 5000;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error('the awaited condition did not come about');
    poller.wait(1);
    poller.dispatch();
    await turn();
  }
}

class Recorder implements StreamSink {
  connects = 0;
  readables = 0;
  writables = 0;
  error: HostError | undefined;
  connected(): void {
    this.connects++;
  }
  readable(): void {
    this.readables++;
  }
  writable(): void {
    this.writables++;
  }
  failed(error: HostError): void {
    this.error = error;
  }
}

async function server(onConnection: (socket: net.Socket) => void, address = '127.0.0.1'): Promise<number> {
  const listening = net.createServer({ allowHalfOpen: true }, onConnection);
  listening.listen(0, address);
  await once(listening, 'listening');
  cleanups.push(() => listening.close());
  return (listening.address() as net.AddressInfo).port;
}

function connect(port: number, sink: StreamSink, address = LOOPBACK): HostStream {
  const stream = host.connect(address, 0, port, 0, 0, sink);
  if (typeof stream === 'string') throw new Error(stream);
  cleanups.push(() => stream.close());
  return stream;
}

/** Reads all there is; `end` tells whether the stream ended. */
function drain(stream: HostStream): { bytes: Buffer; end: boolean } {
  const parts: Buffer[] = [];
  const buf = new Uint8Array(4096);
  for (;;) {
    const count = stream.read(buf, 0, buf.length);
    if (count <= 0) return { bytes: Buffer.concat(parts), end: count < 0 };
    parts.push(Buffer.from(buf.subarray(0, count)));
  }
}

describe('streams', () => {
  test.each(['127.0.0.1', '::1'])(
    'connect to %s, exchange bytes, and end each direction by itself',
    async (address) => {
      let got = '';
      const port = await server((socket) => {
        socket.write('welcome');
        socket.on('data', (data) => {
          got += data;
        });
        socket.on('end', () => socket.end('bye'));
      }, address);
      const sink = new Recorder();
      const stream = connect(port, sink, parseAddress(address)!);
      await until(() => sink.connects === 1 && sink.readables > 0);
      let received = drain(stream).bytes.toString();
      const text = new TextEncoder().encode('..hello');
      expect(stream.write(text, 2, 5)).toBe(5);
      stream.shutdown();
      let ended = false;
      await until(() => {
        const { bytes, end } = drain(stream);
        received += bytes;
        ended ||= end;
        return ended;
      });
      expect([got, received]).toEqual(['hello', 'welcomebye']);
      expect(sink.error).toBeUndefined();
    },
  );

  test('a refused connection fails with ECONNREFUSED', async () => {
    const port = await server(() => {});
    cleanups.pop()!();
    const sink = new Recorder();
    const stream = host.connect(LOOPBACK, 0, port, 0, 0, sink);
    if (typeof stream === 'string') expect(stream).toBe('ECONNREFUSED');
    else {
      await until(() => sink.error !== undefined);
      expect(sink.error).toBe('ECONNREFUSED');
    }
  });

  test('a full socket takes less, and tells when it takes more; no byte is lost', async () => {
    const total = 8 << 20;
    let got = 0;
    let accepted: net.Socket | undefined;
    const port = await server((socket) => {
      socket.pause();
      accepted = socket;
      socket.on('data', (data) => {
        got += data.length;
      });
      // Registering a data handler does not resume a socket that was paused on purpose.
      socket.pause();
    });
    const sink = new Recorder();
    const stream = connect(port, sink);
    await until(() => sink.connects === 1 && accepted !== undefined);
    const chunk = new Uint8Array(1 << 20);
    let sent = 0;
    const push = (): void => {
      while (sent < total) {
        const want = Math.min(chunk.length, total - sent);
        const count = stream.write(chunk, 0, want);
        sent += count;
        if (count < want) return;
      }
    };
    push();
    expect(sent).toBeLessThan(total);
    expect(stream.write(chunk, 0, 10)).toBe(0);
    expect(stream.read(new Uint8Array(1), 0, 1)).toBe(0);
    expect(sink.writables).toBe(0);
    accepted!.resume();
    let seen = 0;
    await until(() => {
      if (sink.writables > seen) {
        seen = sink.writables;
        push();
      }
      return got === total;
    });
    expect(sink.writables).toBeGreaterThan(0);
    expect(sink.error).toBeUndefined();
  });

  test('reset() reaches the peer as a RST', async () => {
    let error: NodeJS.ErrnoException | undefined;
    const port = await server((socket) => {
      socket.on('error', (caught) => {
        error = caught;
      });
      socket.resume();
    });
    const sink = new Recorder();
    const stream = connect(port, sink);
    await until(() => sink.connects === 1);
    stream.reset();
    await until(() => error !== undefined);
    expect(error!.code).toBe('ECONNRESET');
  });

  test("the peer's RST fails the stream with ECONNRESET, and nothing is told after close", async () => {
    const sockets: net.Socket[] = [];
    const port = await server((socket) => sockets.push(socket));
    const sink = new Recorder();
    connect(port, sink);
    const closed = new Recorder();
    const second = connect(port, closed);
    await until(() => sink.connects === 1 && closed.connects === 1 && sockets.length === 2);
    second.close();
    for (const socket of sockets) socket.resetAndDestroy();
    await until(() => sink.error !== undefined);
    expect(sink.error).toBe('ECONNRESET');
    expect(closed.error).toBeUndefined();
  });

  test('a write to a stream whose peer has gone fails it after the call, not within', async () => {
    const sockets: net.Socket[] = [];
    const port = await server((socket) => sockets.push(socket));
    const sink = new Recorder();
    const stream = connect(port, sink);
    await until(() => sink.connects === 1 && sockets.length === 1);
    sockets[0]!.resetAndDestroy();
    await turn();
    await turn();
    const chunk = new Uint8Array(10);
    stream.write(chunk, 0, 10);
    expect(sink.error).toBeUndefined();
    await until(() => sink.error !== undefined);
    expect(['ECONNRESET', 'EPIPE']).toContain(sink.error);
  });
});

describe('writes from the receive batch', () => {
  const PIECE = 60_000;

  /** Writes `count` pieces from slots of the batch, each filled with its number, as a TAP's frames would. */
  function writePieces(stream: HostStream, first: number, count: number): number {
    let taken = 0;
    for (let i = 0; i < count; i++) {
      if (i > 0 && i % BATCH_FRAMES === 0) receiveBatch.flush();
      const at = receiveBatch.slot(i % BATCH_FRAMES);
      receiveBatch.bytes.fill(first + i, at, at + PIECE);
      const written = stream.write(receiveBatch.bytes, at, PIECE);
      taken += written;
      if (written < PIECE) break;
    }
    receiveBatch.flush();
    return taken;
  }

  test('arrive whole and in order, however many batches there are in a turn', async () => {
    const parts: Buffer[] = [];
    const port = await server((accepted) => accepted.on('data', (data) => parts.push(data)));
    const sink = new Recorder();
    const stream = connect(port, sink);
    await until(() => sink.connects === 1);
    expect(writePieces(stream, 1, 20)).toBe(20 * PIECE);
    await until(() => parts.reduce((sum, part) => sum + part.length, 0) === 20 * PIECE);
    const all = Buffer.concat(parts);
    for (let i = 0; i < 20; i++) {
      const piece = all.subarray(i * PIECE, (i + 1) * PIECE);
      expect(piece.every((byte) => byte === 1 + i)).toBe(true);
    }
  });

  test.each(['shutdown', 'close'] as const)(
    'that a full socket refused go before %s(), and no more is taken meanwhile',
    async (how) => {
      let accepted: net.Socket | undefined;
      const parts: Buffer[] = [];
      let ended = false;
      const port = await server((socket) => {
        accepted = socket.pause();
        socket.on('data', (data) => parts.push(data));
        socket.on('end', () => {
          ended = true;
        });
        socket.pause();
      });
      const sink = new Recorder();
      const stream = connect(port, sink);
      await until(() => sink.connects === 1 && accepted !== undefined);
      let total = 0;
      let number = 1;
      for (;;) {
        const taken = writePieces(stream, number, 4);
        total += taken;
        number = ((number + 3) % 128) + 1;
        if (taken === 0) break;
      }
      expect(stream.write(new Uint8Array(10), 0, 10)).toBe(0);
      stream[how]();
      accepted!.resume();
      await until(() => ended);
      expect(parts.reduce((sum, part) => sum + part.length, 0)).toBe(total);
      const all = Buffer.concat(parts);
      for (let piece = 0; piece * PIECE < total; piece++) expect(all[piece * PIECE]).toBe((piece % 128) + 1);
    },
  );

  test('of a stream that is reset are forgotten', async () => {
    let received = 0;
    const port = await server((socket) => {
      socket.on('data', (data) => {
        received += data.length;
      });
      socket.on('error', () => {});
    });
    const sink = new Recorder();
    const stream = connect(port, sink);
    await until(() => sink.connects === 1);
    const at = receiveBatch.slot(0);
    stream.write(receiveBatch.bytes, at, PIECE);
    stream.reset();
    receiveBatch.flush();
    const other = new Recorder();
    connect(port, other);
    await until(() => other.connects === 1);
    expect(received).toBe(0);
  });
});

describe('listeners', () => {
  test('accept clients with their address, and a taken port is said at once', async () => {
    const sink = new Recorder();
    let stream: HostStream | undefined;
    let from = 0;
    const listener = host.listen(LOOPBACK, 0, 0, {
      accepted(accepted, addr, off, port) {
        stream = accepted;
        from = port;
        expect([...addr.subarray(off, off + 16)]).toEqual([...LOOPBACK]);
        return sink;
      },
    });
    if (typeof listener === 'string') throw new Error(listener);
    cleanups.push(() => listener.close());
    expect(host.listen(LOOPBACK, 0, listener.port, { accepted: () => sink })).toBe('EADDRINUSE');
    const client = net.connect(listener.port, '127.0.0.1');
    client.end('question');
    await until(() => stream !== undefined && sink.readables > 0);
    expect(from).toBe(client.localPort);
    let text = '';
    await until(() => {
      const { bytes, end } = drain(stream!);
      text += bytes;
      return end;
    });
    expect(text).toBe('question');
    stream!.close();
    await once(client, 'close');
  });

  test('an address that no interface has is told apart', () => {
    const addr = parseAddress('192.0.2.77')!;
    expect(host.listen(addr, 0, 0, { accepted: () => new Recorder() })).toBe('EADDRNOTAVAIL');
  });
});

describe('datagrams', () => {
  class DatagramRecorder implements DatagramSink {
    readonly got: { text: string; port: number; ttl: number; trafficClass: number }[] = [];
    readonly errors: { error: HostIcmpError; port: number; payload: string }[] = [];
    datagram(
      buf: Uint8Array,
      off: number,
      len: number,
      _addr: Uint8Array,
      _addrOff: number,
      port: number,
      ttl: number,
      trafficClass: number,
    ): void {
      this.got.push({ text: Buffer.from(buf.subarray(off, off + len)).toString(), port, ttl, trafficClass });
    }
    icmpError(
      error: HostIcmpError,
      _addr: Uint8Array,
      _addrOff: number,
      port: number,
      buf: Uint8Array,
      off: number,
      len: number,
    ): void {
      this.errors.push({ error, port, payload: Buffer.from(buf.subarray(off, off + len)).toString() });
    }
    failed(): void {}
  }

  function open(sink: DatagramSink, family: 4 | 6 = 4) {
    const socket = host.openDatagram(family, undefined, 0, 0, sink);
    if (typeof socket === 'string') throw new Error(socket);
    cleanups.push(() => socket.close());
    return socket;
  }

  const bytes = new TextEncoder().encode('ping');

  test('go out with the wished TTL and come back with origin and TTL', async () => {
    const echo = dgram.createSocket('udp4', (message, { port, address }) => {
      echo.setTTL(33);
      echo.send(message, port, address);
    });
    echo.bind(0, '127.0.0.1');
    await once(echo, 'listening');
    cleanups.push(() => echo.close());
    const sink = new DatagramRecorder();
    const socket = open(sink);
    const { port } = echo.address();
    expect(socket.send(bytes, 0, 4, LOOPBACK, 0, port, 7, 0)).toBeUndefined();
    await until(() => sink.got.length === 1);
    expect(sink.got).toEqual([{ text: 'ping', port, ttl: 33, trafficClass: 0 }]);
  });

  test('take the default TTL again after one with a wish', async () => {
    const sink = new DatagramRecorder();
    const socket = open(sink);
    const other = open(new DatagramRecorder());
    const receiver = new DatagramRecorder();
    const target = open(receiver);
    other.send(bytes, 0, 4, LOOPBACK, 0, target.port, 0, 0);
    socket.send(bytes, 0, 4, LOOPBACK, 0, target.port, 9, 0);
    socket.send(bytes, 0, 4, LOOPBACK, 0, target.port, 0, 0);
    await until(() => receiver.got.length === 3);
    const [standard, wished, again] = receiver.got.map(({ ttl }) => ttl);
    expect([wished, again]).toEqual([9, standard]);
  });

  test.each(['127.0.0.1', '::1'])('to %s carry differentiated services and ECN', async (text) => {
    const address = parseAddress(text)!;
    const family = text === '::1' ? 6 : 4;
    const receiver = new DatagramRecorder();
    const target = open(receiver, family);
    const socket = open(new DatagramRecorder(), family);
    for (const trafficClass of [0xb9, 0xb9, 0])
      socket.send(bytes, 0, 4, address, 0, target.port, 0, trafficClass);
    await until(() => receiver.got.length === 3);
    expect(receiver.got.map(({ trafficClass }) => trafficClass)).toEqual([0xb9, 0xb9, 0]);
  });

  test('to a closed port bring its ICMP error, also when another is sent meanwhile', async () => {
    const taken = dgram.createSocket('udp4');
    taken.bind(0, '127.0.0.1');
    await once(taken, 'listening');
    const { port } = taken.address();
    taken.close();
    await once(taken, 'close');
    const sink = new DatagramRecorder();
    const socket = open(sink);
    expect(socket.send(bytes, 0, 4, LOOPBACK, 0, port, 0, 0)).toBeUndefined();
    expect(socket.send(bytes, 0, 4, LOOPBACK, 0, port, 0, 0)).toBeUndefined();
    await until(() => sink.errors.length === 2);
    for (const { error, port: where, payload } of sink.errors) {
      expect(payload).toBe('ping');
      expect(error.kind).toBe('port-unreachable');
      expect([...error.offender!]).toEqual([...LOOPBACK]);
      expect(where).toBe(port);
    }
  });

  test('to a group reach those who joined it, but not the guests of the network that sent them', async () => {
    // Loopback stands for a network: it is one on which multicast can be had everywhere.
    const entry = { address: '127.0.0.1', family: 'IPv4', internal: false } as NetworkInterfaceInfoIPv4;
    const networks = new HostNetworks(
      () => 0,
      () => ({ lo: [entry] }),
    );
    const here = new NativeHost(poller, nullLog, () => 0, networks);
    const elsewhere = new NativeHost(
      poller,
      nullLog,
      () => 0,
      new HostNetworks(
        () => 0,
        () => ({ lo: [entry] }),
      ),
    );
    const group = parseAddress('239.255.77.1')!;
    const probe = dgram.createSocket('udp4').bind(0, '127.0.0.1');
    await once(probe, 'listening');
    const { port } = probe.address();
    probe.close();
    const recorders = [new DatagramRecorder(), new DatagramRecorder()];
    for (const [i, each] of [here, elsewhere].entries()) {
      const joined = each.openGroup(group, 0, port, recorders[i]!);
      if (typeof joined === 'string') throw new Error(joined);
      joined.refresh();
      cleanups.push(() => joined.close());
    }
    const guest = here.openDatagram(4, undefined, 0, 0, new DatagramRecorder());
    const other = elsewhere.openDatagram(4, undefined, 0, 0, new DatagramRecorder());
    if (typeof guest === 'string' || typeof other === 'string') throw new Error('no socket');
    cleanups.push(() => guest.close());
    cleanups.push(() => other.close());
    guest.send(new TextEncoder().encode('from here'), 0, 9, group, 0, port, 0, 0);
    other.send(new TextEncoder().encode('elsewhere'), 0, 9, group, 0, port, 0, 0);
    await until(() => recorders.every(({ got }) => got.length > 0));
    expect(recorders.map(({ got }) => got.map(({ text }) => text))).toEqual([['elsewhere'], ['from here']]);
  });

  test('of 64 KiB and more are refused with EMSGSIZE', () => {
    const socket = open(new DatagramRecorder());
    expect(socket.send(new Uint8Array(70_000), 0, 70_000, LOOPBACK, 0, 9, 0, 0)).toBe('EMSGSIZE');
  });
});
