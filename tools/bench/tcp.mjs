/**
 * What the TCP machine costs per segment, without link and sockets: two connections, segments passed as bytes through
 * emitTcp and parseTcp. Prints nanoseconds of CPU and bytes of garbage per segment. `npm run build` first.
 *
 *     node --expose-gc tools/bench/tcp.mjs [--json]
 */
import { BufferPool } from '../../dist/netstack/tcp/buffer-pool.js';
import { tcpDefaults } from '../../dist/netstack/tcp/config.js';
import { TcpConnection } from '../../dist/netstack/tcp/connection.js';
import { ChallengeBudget, newTcpCounters } from '../../dist/netstack/tcp/context.js';
import { emitTcp, parseTcp, TcpSegment } from '../../dist/netstack/wire/tcp.js';

const plain = { segmentBytesMax: 1480, superSegmentBytesMax: 0 };
const offload = { segmentBytesMax: 1480, superSegmentBytesMax: 65515 };

function makeContext(config = {}) {
  return {
    config: { ...tcpDefaults, ...config },
    pool: new BufferPool({ bytesMax: 1 << 30, keptBytesMax: 1 << 30 }),
    counters: newTcpCounters(),
    challenges: new ChallengeBudget(),
  };
}

/** Two connections and a queue of frames each way; frames are slots of a few big buffers, so that the bench makes no garbage. */
class Pair {
  now = 0;
  constructor(path, { timestamps = true, direct = false, lose = 0 } = {}) {
    this.lose = lose;
    this.untilLoss = lose;
    this.a = new TcpConnection(makeContext({ timestamps }), path, 1, 2, 1000);
    this.b = new TcpConnection(makeContext({ timestamps }), path, 2, 1, 2000);
    this.slots = new Uint8Array(66_000 * 128);
    this.ends = new Int32Array(128);
    this.count = 0;
    this.seg = new TcpSegment();
    this.received = 0;
    this.segments = 0;
    this.taker = direct
      ? {
          take: (_buf, _off, len) => {
            this.received += len;
            return len;
          },
        }
      : undefined;
    this.sink = { segment: (seg) => this.#push(seg) };
    this.a.connect(0);
    this.#flush(this.a);
    parseTcp(this.slots, 0, this.ends[0], this.seg);
    this.b.listen(0, this.seg);
    this.b.accept(0);
    this.count = 0;
    for (let i = 0; i < 3; i++) this.turn();
    if (this.a.state !== 'established' || this.b.state !== 'established') throw new Error('no handshake');
  }

  #push(seg) {
    if (this.count === 128) return false;
    if (this.lose && seg.payloadEnd > seg.payloadOff && --this.untilLoss === 0) {
      this.untilLoss = this.lose;
      return true;
    }
    const off = this.count * 66_000;
    const head = emitTcp(seg, this.slots, off);
    const len = seg.payloadEnd - seg.payloadOff;
    if (len > 0) this.slots.set(seg.payload.subarray(seg.payloadOff, seg.payloadEnd), off + head);
    this.ends[this.count++] = off + head + len;
    this.segments++;
    return true;
  }

  #flush(conn) {
    this.count = 0;
    if (conn.pollAt() <= this.now) conn.poll(this.now, this.sink);
  }

  #deliver(conn, taker) {
    for (let i = 0; i < this.count; i++) {
      if (!parseTcp(this.slots, i * 66_000, this.ends[i], this.seg)) throw new Error('bad segment');
      conn.receive(this.now, this.seg, taker);
    }
  }

  /** One batch from a to b and back. */
  turn() {
    this.now += 0.05;
    this.#flush(this.a);
    this.#deliver(this.b, this.taker);
    for (let r = this.b.readable(); r.len > 0; r = this.b.readable()) {
      this.received += r.len;
      this.b.consumed(r.len);
    }
    this.#flush(this.b);
    this.#deliver(this.a);
  }

  fill() {
    for (let r = this.a.writable(); r.len > 0; r = this.a.writable()) this.a.produced(r.len);
  }
}

function measure(name, unit, run) {
  run(0.2);
  globalThis.gc?.();
  const heap = process.memoryUsage().heapUsed;
  const cpu = process.cpuUsage();
  const { count, bytes } = run(0.5);
  const spent = process.cpuUsage(cpu);
  const garbage = process.memoryUsage().heapUsed - heap;
  const ns = ((spent.user + spent.system) * 1000) / count;
  return {
    name,
    unit,
    ns: Math.round(ns),
    heapBytes: Math.round(garbage / count),
    gbps: bytes ? (8 * bytes) / ns / count : undefined,
  };
}

function bulk(path, options) {
  const pair = new Pair(path, options);
  return (seconds) => {
    const until = process.hrtime.bigint() + BigInt(seconds * 1e9);
    const [segments, received] = [pair.segments, pair.received];
    while (process.hrtime.bigint() < until) {
      for (let i = 0; i < 20; i++) {
        pair.fill();
        pair.turn();
      }
    }
    return { count: pair.segments - segments, bytes: pair.received - received };
  };
}

function requestResponse(path) {
  const pair = new Pair(path);
  return (seconds) => {
    const until = process.hrtime.bigint() + BigInt(seconds * 1e9);
    let count = 0;
    while (process.hrtime.bigint() < until) {
      for (let i = 0; i < 100; i++, count++) {
        pair.a.writable();
        pair.a.produced(1);
        pair.turn();
      }
    }
    return { count, bytes: 0 };
  };
}

function connections() {
  return (seconds) => {
    const until = process.hrtime.bigint() + BigInt(seconds * 1e9);
    const context = makeContext();
    const seg = new TcpSegment();
    let count = 0;
    while (process.hrtime.bigint() < until) {
      for (let i = 0; i < 100; i++, count++) {
        const conn = new TcpConnection(context, plain, 80, i, i);
        seg.clear();
        seg.flags = 2;
        seg.mss = 1460;
        conn.listen(0, seg);
        conn.accept(0);
        conn.poll(0, { segment: () => true });
        conn.discard();
      }
    }
    return { count, bytes: 0 };
  };
}

/** Heap and buffers of connections that are open and idle. */
function idleMemory(count) {
  globalThis.gc?.();
  const before = process.memoryUsage();
  const context = makeContext();
  const seg = new TcpSegment();
  const sink = { segment: () => true };
  const kept = [];
  for (let i = 0; i < count; i++) {
    const conn = new TcpConnection(context, plain, 80, i & 0xffff, i);
    seg.clear();
    seg.flags = 2;
    seg.mss = 1460;
    seg.sackPermitted = true;
    seg.windowScale = 7;
    conn.listen(0, seg);
    conn.accept(0);
    conn.poll(0, sink);
    seg.clear();
    seg.flags = 16;
    seg.sequence = 1;
    seg.acknowledgment = (i + 1) | 0;
    seg.window = 1000;
    conn.receive(1, seg);
    // One exchange each, so that every part of the machine has been used.
    conn.writable();
    conn.produced(1);
    conn.poll(1, sink);
    seg.acknowledgment = (i + 2) | 0;
    conn.receive(2, seg);
    conn.poll(2, sink);
    if (conn.state !== 'established') throw new Error('not established');
    kept.push(conn);
  }
  globalThis.gc?.();
  const after = process.memoryUsage();
  const bytes = (after.heapUsed + after.arrayBuffers - before.heapUsed - before.arrayBuffers) / count;
  return {
    name: `memory of one of ${count} idle connections`,
    unit: 'bytes',
    bytes: Math.round(bytes),
    held: context.pool.usedBytes,
    kept: kept.length,
  };
}

const rows = [
  measure('bulk, 1460-byte segments, buffered', 'segment', bulk(plain)),
  measure('the same, every 100th lost', 'segment', bulk(plain, { lose: 100 })),
  measure('bulk, super-segments, buffered', 'segment', bulk(offload)),
  measure('bulk, super-segments, taken from the frame', 'segment', bulk(offload, { direct: true })),
  measure('one byte there, ACK back', 'exchange', requestResponse(plain)),
  measure('SYN, SYN-ACK, gone', 'connection', connections()),
  idleMemory(10_000),
];
if (process.argv.includes('--json')) console.log(JSON.stringify(rows, null, 2));
else
  for (const row of rows)
    console.log(
      row.ns === undefined
        ? `${row.name.padEnd(46)} ${row.bytes} bytes, ${row.held} in buffers`
        : `${row.name.padEnd(46)} ${String(row.ns).padStart(6)} ns per ${row.unit}, ${row.heapBytes} bytes of garbage${row.gbps ? `, ${row.gbps.toFixed(1)} Gbit/s` : ''}`,
    );
