/**
 * A connection whose peer is mad or hostile: segments with random flags, numbers near and far, SACK blocks that lie, windows
 * that jump, while the host writes, reads, closes and the path changes. Whatever comes, nothing is thrown, no byte is wrong,
 * memory stays bounded, and poll() leaves nothing undone that would make its caller spin.
 */
import { expect, test } from 'vitest';
import { below, type Rng, seededRng, uniform } from '#common/rng';
import { BufferPool } from '../../netstack/tcp/buffer-pool.ts';
import { tcpDefaults } from '../../netstack/tcp/config.ts';
import { TcpConnection } from '../../netstack/tcp/connection.ts';
import { ChallengeBudget, newTcpCounters, type TcpContext } from '../../netstack/tcp/context.ts';
import { SENT_SEGMENTS_MAX } from '../../netstack/tcp/limits.ts';
import { TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, TcpSegment } from '../../netstack/wire/tcp.ts';

const SEEDS = 2000;
const STEPS = 150;
const BUFFER_BYTES = 256 * 1024;
/** A send and a receive ring, each rounded up to a power of two and, while it grows, held twice. */
const MEMORY_MAX = 4 * BUFFER_BYTES;

function byteAt(seq: number, ours: boolean): number {
  return (Math.imul(seq, 0x9e3779b1) >>> 24) ^ (ours ? 0x55 : 0);
}

class Fuzz {
  readonly rng: Rng;
  readonly context: TcpContext;
  readonly pool = new BufferPool({ bytesMax: 16 << 20, keptBytesMax: 16 << 20 });
  readonly conn: TcpConnection;
  readonly isn: number;
  readonly irs: number;
  readonly seg = new TcpSegment();
  now = 0;
  written: number;
  read: number;
  /** Highest number that we have sent, and what we have acknowledged last. */
  sentEnd: number;
  ackSent: number;

  constructor(seed: number) {
    this.rng = seededRng(seed);
    const { rng } = this;
    this.context = {
      config: {
        ...tcpDefaults,
        receiveBytesMax: BUFFER_BYTES,
        sendBytesMax: BUFFER_BYTES,
        directBytesMin: 1 + below(rng, 3000),
        userTimeoutMs: 60_000,
        keepAliveMs: 30_000,
      },
      pool: this.pool,
      counters: newTcpCounters(),
      challenges: new ChallengeBudget(),
    };
    const offload = below(rng, 2) ? 65_515 : 0;
    this.isn = rng.uint32() | 0;
    this.irs = rng.uint32() | 0;
    const path = { segmentBytesMax: 1480, superSegmentBytesMax: offload };
    this.conn = new TcpConnection(this.context, path, 80, 4000, this.isn);
    this.written = this.read = 0;
    this.sentEnd = (this.isn + 1) | 0;
    this.ackSent = (this.irs + 1) | 0;
  }

  open(): void {
    const { conn, seg, rng } = this;
    if (below(rng, 2)) {
      conn.connect(0);
      this.poll();
      this.#syn(TCP_SYN | TCP_ACK);
      seg.acknowledgment = (this.isn + 1) | 0;
      conn.receive(0, seg);
    } else {
      this.#syn(TCP_SYN);
      if (!conn.listen(0, seg)) throw new Error('no SYN');
      conn.accept(0);
      this.poll();
    }
  }

  #syn(flags: number): void {
    const { seg, rng } = this;
    seg.clear();
    seg.flags = flags;
    seg.sequence = this.irs;
    seg.window = 65_535;
    seg.mss = below(rng, 4) ? 1460 : below(rng, 3000);
    seg.sackPermitted = below(rng, 4) > 0;
    seg.windowScale = below(rng, 16) - 1;
    seg.hasTimestamps = below(rng, 2) > 0;
  }

  /** A number near `base`, now and then anywhere. */
  #near(base: number, spread: number): number {
    const kind = below(this.rng, 10);
    if (kind === 0) return this.rng.uint32() | 0;
    if (kind < 5) return base;
    return (base + below(this.rng, 2 * spread) - spread) | 0;
  }

  segment(): void {
    const { seg, rng } = this;
    seg.clear();
    seg.flags = below(rng, 150) === 0 ? below(rng, 64) : TCP_ACK | (below(rng, 25) === 0 ? TCP_FIN : 0);
    if (below(rng, 500) === 0) seg.flags |= TCP_RST;
    if (below(rng, 100) === 0) seg.flags |= TCP_SYN;
    seg.sequence = this.#near(this.ackSent, 5000);
    seg.acknowledgment = this.#near(this.sentEnd, 20_000);
    seg.window = below(rng, 4) === 0 ? 0 : below(rng, 65_536);
    seg.hasTimestamps = below(rng, 5) > 0;
    seg.timestamp = Math.floor(this.now) + below(rng, 100) - 20;
    seg.timestampEcho = rng.uint32() | 0;
    seg.sackCount = below(rng, 4);
    for (let i = 0; i < seg.sackCount; i++) {
      const from = this.#near(this.sentEnd, 20_000);
      seg.sack[2 * i] = from;
      seg.sack[2 * i + 1] = (from + below(rng, 10_000) - 500) | 0;
    }
    const len = below(rng, 3) === 0 ? 0 : below(rng, below(rng, 60) === 0 ? 65_000 : 2000);
    const { sequence } = seg;
    seg.payload = Uint8Array.from({ length: len }, (_, i) => byteAt((sequence + i) | 0, false));
    seg.payloadEnd = len;
    const start = (this.irs + 1) | 0;
    this.conn.receive(this.now, seg, {
      take: (buf, off, most) => {
        const count = below(rng, most + 1);
        this.#check(buf, off, count, (start + this.read) | 0, false);
        this.read += count;
        return count;
      },
    });
  }

  #check(buf: Uint8Array, off: number, len: number, seq: number, ours: boolean): void {
    for (let i = 0; i < len; i++) {
      if (buf[off + i] !== byteAt((seq + i) | 0, ours)) throw new Error(`byte ${seq + i} is wrong`);
    }
  }

  write(): void {
    const region = this.conn.writable();
    const count = below(this.rng, region.len + 1);
    const start = (this.isn + 1 + this.written) | 0;
    for (let i = 0; i < count; i++) region.buf[region.off + i] = byteAt((start + i) | 0, true);
    this.written += count;
    this.conn.produced(count);
  }

  take(): void {
    const region = this.conn.readable();
    const count = below(this.rng, region.len + 1);
    this.#check(region.buf, region.off, count, (this.irs + 1 + this.read) | 0, false);
    this.read += count;
    this.conn.consumed(count);
  }

  poll(): void {
    let count = 0;
    this.conn.poll(this.now, {
      segment: (seg) => {
        if (below(this.rng, 50) === 0) return false;
        if (++count > 2 * SENT_SEGMENTS_MAX) throw new Error('poll() does not end');
        const len = seg.payloadEnd - seg.payloadOff;
        this.#check(seg.payload, seg.payloadOff, len, seg.sequence, true);
        if (!(seg.flags & TCP_RST)) {
          const end = (seg.sequence + len) | 0;
          if (((end - this.sentEnd) | 0) > 0) this.sentEnd = end;
          if (seg.flags & TCP_ACK) this.ackSent = seg.acknowledgment;
        }
        return true;
      },
    });
    if (this.conn.pollAt() <= this.now) throw new Error('poll() leaves something that is due');
  }

  step(): void {
    const { rng, conn } = this;
    switch (below(rng, 8)) {
      case 0:
        this.write();
        break;
      case 1:
        this.take();
        break;
      case 2: {
        // Sometimes exactly to the next timer, sometimes far beyond.
        const at = conn.pollAt();
        if (at !== Number.POSITIVE_INFINITY && below(rng, 2)) this.now = Math.max(this.now, at);
        else this.now += uniform(rng) ** 4 * 100_000;
        break;
      }
      case 3:
        if (below(rng, 30) === 0) conn.finish();
        else if (below(rng, 20) === 0)
          conn.setPath({ segmentBytesMax: 60 + below(rng, 3000), superSegmentBytesMax: 0 });
        break;
      default:
        this.segment();
    }
    if (below(rng, 3) > 0) this.poll();
    if (this.pool.usedBytes > MEMORY_MAX) throw new Error(`holds ${this.pool.usedBytes} bytes`);
  }
}

test(`${SEEDS} mad peers: nothing thrown, no byte wrong, no growth, no spin`, () => {
  const only = process.env.SEED;
  const [first, last] = only ? [Number(only), Number(only)] : [1, SEEDS];
  let delivered = 0;
  let ended = 0;
  for (let seed = first; seed <= last; seed++) {
    const fuzz = new Fuzz(seed);
    try {
      fuzz.open();
      for (let i = 0; i < STEPS && fuzz.conn.state !== 'closed'; i++) fuzz.step();
      delivered += fuzz.read;
      if (fuzz.conn.state === 'closed') ended++;
      fuzz.conn.discard();
      expect([fuzz.pool.usedBytes, fuzz.conn.isDead]).toEqual([0, true]);
    } catch (error) {
      throw new Error(`seed ${seed}: ${String(error)}`, { cause: error });
    }
  }
  // The fuzz reaches deep enough to mean something.
  if (!only) {
    expect(delivered).toBeGreaterThan(SEEDS * 1000);
    expect(ended).toBeLessThan(SEEDS / 2);
  }
}, 120_000);
