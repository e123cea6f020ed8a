/**
 * Two TcpConnections and a wire between them that loses, repeats, delays and reorders, all from one seed and in virtual
 * time. Segments cross as bytes, so that parsing and emitting take part. Each end sends a stream whose every byte is known
 * from its place, and checks every byte that it gets.
 */
import { below, type Rng, seededRng, uniform } from '#common/rng';
import { BufferPool } from '../../netstack/tcp/buffer-pool.ts';
import { type TcpConfig, tcpDefaults } from '../../netstack/tcp/config.ts';
import { type ByteTaker, TcpConnection, type TcpPath } from '../../netstack/tcp/connection.ts';
import { ChallengeBudget, newTcpCounters, type TcpContext } from '../../netstack/tcp/context.ts';
import { resetFor } from '../../netstack/tcp/reset.ts';
import { emitTcp, parseTcp, TCP_HEADER_LEN_MAX, TCP_SYN, TcpSegment } from '../../netstack/wire/tcp.ts';

/** How bad a wire is, in one direction. Probabilities are per segment. */
export interface WireOptions {
  loss: number;
  /** Congestion marks on segments of a transport that knows them. */
  mark: number;
  duplicate: number;
  reorder: number;
  delayMs: number;
  jitterMs: number;
  /** Bytes per millisecond, Infinity for none to wait for. */
  rate: number;
  /** Bytes that may wait for the rate; more are dropped. */
  queueBytes: number;
}

export const perfectWire: WireOptions = {
  loss: 0,
  mark: 0,
  duplicate: 0,
  reorder: 0,
  delayMs: 0.05,
  jitterMs: 0,
  rate: Number.POSITIVE_INFINITY,
  queueBytes: Number.POSITIVE_INFINITY,
};

export interface EndOptions {
  bytes: number;
  config: Partial<TcpConfig>;
  path: TcpPath;
  /** The application takes at most so many bytes at a time, at random times; Infinity: all at once. */
  takeBytes: number;
  /** Use the zero-copy path. */
  direct: boolean;
}

interface Flight {
  atMs: number;
  order: number;
  to: SimEnd;
  bytes: Uint8Array;
  ecn: number;
}

/** Byte `i` of the stream of the end with this salt. */
function streamByte(salt: number, i: number): number {
  return (Math.imul(i ^ (i >>> 11), 0x9e3779b1) >>> 24) ^ salt;
}

export class SimEnd {
  readonly name: string;
  readonly conn: TcpConnection;
  readonly context: TcpContext;
  readonly pool: BufferPool;
  readonly options: EndOptions;
  readonly #salt: number;
  readonly #peerSalt: number;
  sent = 0;
  received = 0;
  finished = false;
  gotEnd = false;
  /** Time before which the application does not read. */
  readAtMs = 0;
  readonly taker: ByteTaker;

  constructor(name: string, salt: number, peerSalt: number, options: EndOptions, rng: Rng) {
    this.name = name;
    this.#salt = salt;
    this.#peerSalt = peerSalt;
    this.options = options;
    this.pool = new BufferPool({ bytesMax: 64 << 20, keptBytesMax: 64 << 20 });
    this.context = {
      config: { ...tcpDefaults, ...options.config },
      pool: this.pool,
      counters: newTcpCounters(),
      challenges: new ChallengeBudget(),
    };
    const [local, remote] = name === 'a' ? [1000, 2000] : [2000, 1000];
    this.conn = new TcpConnection(this.context, options.path, local, remote, rng.uint32() | 0);
    this.taker = {
      take: (buf, off, len) => {
        const count = Math.min(len, options.takeBytes);
        this.check(buf, off, count);
        return count;
      },
    };
  }

  check(buf: Uint8Array, off: number, len: number): void {
    for (let i = 0; i < len; i++) {
      if (buf[off + i] !== streamByte(this.#peerSalt, this.received + i))
        throw new Error(`end ${this.name}: byte ${this.received + i} is wrong`);
    }
    this.received += len;
  }

  /** Moves bytes between application and connection. */
  pump(now: number, rng: Rng): void {
    const { conn, options } = this;
    while (now >= this.readAtMs) {
      const region = conn.readable();
      if (region.len === 0) break;
      const count = Math.min(region.len, options.takeBytes);
      this.check(region.buf, region.off, count);
      conn.consumed(count);
      if (options.takeBytes !== Number.POSITIVE_INFINITY) this.readAtMs = now + below(rng, 20);
    }
    while (this.sent < options.bytes) {
      const region = conn.writable();
      const count = Math.min(region.len, options.bytes - this.sent);
      if (count === 0) break;
      for (let i = 0; i < count; i++) region.buf[region.off + i] = streamByte(this.#salt, this.sent + i);
      conn.produced(count);
      this.sent += count;
    }
    if (conn.endOfStream) this.gotEnd = true;
    if (this.sent === options.bytes && !this.finished && conn.isOpen) {
      this.finished = true;
      conn.finish();
    }
  }

  /** When the application wants to run again. */
  wakeAt(): number {
    return this.conn.readable().len > 0 ? this.readAtMs : Number.POSITIVE_INFINITY;
  }
}

export class TcpSim {
  readonly rng: Rng;
  readonly a: SimEnd;
  readonly b: SimEnd;
  now = 0;
  segments = 0;
  dropped = 0;
  readonly #wireAB: WireOptions;
  readonly #wireBA: WireOptions;
  readonly #flights: Flight[] = [];
  #order = 0;
  readonly #busyUntil = new Map<SimEnd, number>();
  readonly #head = new Uint8Array(TCP_HEADER_LEN_MAX);
  readonly #seg = new TcpSegment();
  readonly #reply = new TcpSegment();

  constructor(seed: number, wire: WireOptions, a: EndOptions, b: EndOptions, wireBack: WireOptions = wire) {
    this.rng = seededRng(seed);
    this.#wireAB = wire;
    this.#wireBA = wireBack;
    this.a = new SimEnd('a', 0x5a, 0xc3, a, this.rng);
    this.b = new SimEnd('b', 0xc3, 0x5a, b, this.rng);
  }

  #send(from: SimEnd, seg: TcpSegment): void {
    const headLen = emitTcp(seg, this.#head, 0);
    const len = seg.payloadEnd - seg.payloadOff;
    const cut = seg.gsoBytes > 0 ? seg.gsoBytes : Math.max(len, 1);
    const sequence = seg.sequence;
    for (let off = 0; off === 0 || off < len; off += cut) {
      const part = Math.min(cut, len - off);
      const last = off + part === len;
      const bytes = new Uint8Array(headLen + part);
      seg.sequence = (sequence + off) | 0;
      const flags = seg.flags;
      // A super-segment's FIN and PSH belong to its last part.
      if (!last) seg.flags &= ~0x09;
      emitTcp(seg, bytes, 0);
      seg.flags = flags;
      bytes.set(seg.payload.subarray(seg.payloadOff + off, seg.payloadOff + off + part), headLen);
      this.#launch(from, bytes, seg.ecn);
    }
    seg.sequence = sequence;
  }

  #launch(from: SimEnd, bytes: Uint8Array, sentEcn: number): void {
    const wire = from === this.a ? this.#wireAB : this.#wireBA;
    const to = from === this.a ? this.b : this.a;
    this.segments++;
    if (uniform(this.rng) < wire.loss) {
      this.dropped++;
      return;
    }
    const ecn = sentEcn !== 0 && uniform(this.rng) < wire.mark ? 3 : sentEcn;
    let atMs = this.now;
    if (wire.rate !== Number.POSITIVE_INFINITY) {
      const busy = Math.max(this.#busyUntil.get(to) ?? 0, this.now);
      if ((busy - this.now) * wire.rate > wire.queueBytes) {
        this.dropped++;
        return;
      }
      atMs = busy + bytes.length / wire.rate;
      this.#busyUntil.set(to, atMs);
    }
    const copies = uniform(this.rng) < wire.duplicate ? 2 : 1;
    for (let i = 0; i < copies; i++) {
      let arrives = atMs + wire.delayMs + wire.jitterMs * uniform(this.rng);
      if (uniform(this.rng) < wire.reorder) arrives += wire.delayMs * (1 + 3 * uniform(this.rng)) + 1;
      this.#flights.push({ atMs: arrives, order: this.#order++, to, bytes, ecn });
    }
  }

  /** Delivers what has arrived, in order of time. */
  #deliver(): void {
    const due = this.#flights.filter((flight) => flight.atMs <= this.now);
    if (due.length === 0) return;
    due.sort((x, y) => x.atMs - y.atMs || x.order - y.order);
    const rest = this.#flights.filter((flight) => flight.atMs > this.now);
    this.#flights.length = 0;
    this.#flights.push(...rest);
    for (const { to, bytes, ecn } of due) {
      if (!parseTcp(bytes, 0, bytes.length, this.#seg)) throw new Error('an emitted segment does not parse');
      this.#seg.ecn = ecn;
      if (to === this.b && to.conn.state === 'closed' && !to.finished && this.#seg.flags & TCP_SYN) {
        if (to.conn.listen(this.now, this.#seg)) to.conn.accept(this.now);
        continue;
      }
      if (to.conn.isDead) {
        // TIME-WAIT is over: what is still under way meets no connection.
        if (resetFor(this.#seg, this.#reply)) this.#send(to, this.#reply);
        continue;
      }
      to.conn.receive(this.now, this.#seg, to.options.direct ? to.taker : undefined);
      to.pump(this.now, this.rng);
    }
  }

  #nextAt(): number {
    let next = Math.min(this.a.conn.pollAt(), this.b.conn.pollAt(), this.a.wakeAt(), this.b.wakeAt());
    for (const flight of this.#flights) if (flight.atMs < next) next = flight.atMs;
    return next;
  }

  /** Runs until both connections are gone, nothing more can happen, or `limitMs` has passed. */
  run(limitMs: number, stepsMax = 2_000_000): void {
    this.a.conn.connect(this.now);
    for (let steps = 0; ; steps++) {
      if (steps > stepsMax) throw new Error('the simulation does not come to an end');
      const next = this.#nextAt();
      if (next === Number.POSITIVE_INFINITY || next > limitMs) return;
      this.now = Math.max(this.now, next);
      this.#deliver();
      for (const end of [this.a, this.b]) {
        end.pump(this.now, this.rng);
        if (end.conn.pollAt() <= this.now)
          end.conn.poll(this.now, {
            segment: (seg) => {
              this.#send(end, seg);
              return true;
            },
          });
      }
      if (this.a.conn.isDead && this.b.conn.isDead && (this.b.finished || this.b.conn.failure)) return;
    }
  }

  /** Throws unless both streams arrived whole, both ends closed in order, and nothing is left. */
  verify(): void {
    for (const [end, peer] of [
      [this.a, this.b],
      [this.b, this.a],
    ] as const) {
      const what = `end ${end.name} at ${this.now.toFixed(1)} ms (${end.conn.state})`;
      if (end.conn.failure) throw new Error(`${what}: failed: ${end.conn.failure}`);
      if (end.received !== peer.options.bytes)
        throw new Error(`${what}: got ${end.received} of ${peer.options.bytes} bytes`);
      if (!end.gotEnd) throw new Error(`${what}: no end of stream`);
      if (!end.conn.isDead) throw new Error(`${what}: is still there`);
      if (end.pool.usedBytes !== 0) throw new Error(`${what}: holds ${end.pool.usedBytes} bytes`);
    }
  }
}

export const ethernetPath: TcpPath = { segmentBytesMax: 1480, superSegmentBytesMax: 0 };
export const tapPath: TcpPath = { segmentBytesMax: 1480, superSegmentBytesMax: 65515 };

export const plainEnd: EndOptions = {
  bytes: 0,
  config: {},
  path: ethernetPath,
  takeBytes: Number.POSITIVE_INFINITY,
  direct: false,
};
