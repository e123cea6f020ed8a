/** A TcpConnection alone, as what a script is played against. */
import { expect } from 'vitest';
import { BufferPool } from '../../../../netstack/tcp/buffer-pool.ts';
import { tcpDefaults } from '../../../../netstack/tcp/config.ts';
import { type ByteTaker, TcpConnection } from '../../../../netstack/tcp/connection.ts';
import { ChallengeBudget, newTcpCounters, type TcpContext } from '../../../../netstack/tcp/context.ts';
import type { TcpSegment } from '../../../../netstack/wire/tcp.ts';
import {
  byteAt,
  PEER_PORT,
  PORT,
  parseSegment,
  type ScriptOptions,
  type Sent,
  type Subject,
} from './script.ts';

/** 32 KiB before the sign changes. */
const OUR_ISN = 0x7fff8000 | 0;

class Alone implements Subject {
  now = 0;
  readonly #conn: TcpConnection;
  readonly #context: TcpContext;
  readonly #options: ScriptOptions;
  readonly #sent: Sent;
  readonly #taker: ByteTaker | undefined;
  #written = 1;
  #read = 1;
  #listening = false;

  constructor(options: ScriptOptions, sent: Sent) {
    this.#options = options;
    this.#sent = sent;
    const bytesMax = options.poolBytes ?? 256 << 20;
    this.#context = {
      config: { ...tcpDefaults, ...options.config },
      pool: new BufferPool({ bytesMax, keptBytesMax: bytesMax }),
      counters: newTcpCounters(),
      challenges: new ChallengeBudget(),
    };
    const path = options.path ?? { segmentBytesMax: 1480, superSegmentBytesMax: 0 };
    this.#conn = new TcpConnection(this.#context, path, PORT, PEER_PORT, OUR_ISN);
    const { takes } = options;
    if (takes !== undefined)
      this.#taker = { take: (buf, off, len) => this.#take(buf, off, Math.min(len, takes)) };
  }

  receive(seg: TcpSegment, more: boolean): void {
    const conn = this.#conn;
    if (!this.#listening && conn.state === 'closed' && !conn.failure) {
      this.#listening = true;
      if (!conn.listen(this.now, seg)) throw new Error('listen() refused the SYN');
    } else conn.receive(this.now, seg, this.#taker);
    if (!more) this.poll();
  }

  poll(): void {
    this.#conn.poll(this.now, {
      segment: (seg) => {
        if (this.now < (this.#options.linkBlockedUntilMs ?? 0)) return false;
        this.#sent(seg, seg.payload.subarray(seg.payloadOff, seg.payloadEnd));
        return true;
      },
    });
  }

  pollAt(): number {
    return this.#conn.pollAt();
  }

  command(name: string, argument: string): void {
    const conn = this.#conn;
    const count = Number(argument);
    const actions: { [name: string]: () => void } = {
      accept: () => conn.accept(this.now),
      refuse: () => conn.refuse(),
      discard: () => conn.discard(),
      connect: () => conn.connect(this.now),
      finish: () => conn.finish(),
      abort: () => conn.abort(),
      write: () => this.#write(count),
      read: () => this.#readBytes(count),
      path: () => conn.setPath({ segmentBytesMax: count, superSegmentBytesMax: 0 }),
    };
    actions[name]!();
  }

  #write(count: number): void {
    for (let left = count; left > 0; ) {
      const region = this.#conn.writable();
      const part = Math.min(left, region.len);
      if (part === 0) throw new Error(`no room for the last ${left} bytes`);
      for (let i = 0; i < part; i++) region.buf[region.off + i] = byteAt(this.#written + i, true);
      this.#written += part;
      this.#conn.produced(part);
      left -= part;
    }
  }

  #readBytes(count: number): void {
    for (let left = count; left > 0; ) {
      const region = this.#conn.readable();
      const part = Math.min(left, region.len);
      if (part === 0) throw new Error(`the last ${left} bytes are not there`);
      this.#take(region.buf, region.off, part);
      this.#conn.consumed(part);
      left -= part;
    }
  }

  #take(buf: Uint8Array, off: number, len: number): number {
    for (let i = 0; i < len; i++) {
      if (buf[off + i] !== byteAt(this.#read + i, false)) throw new Error(`byte ${this.#read + i} is wrong`);
    }
    this.#read += len;
    return len;
  }

  check(name: string, argument: string, rest: string): void {
    const conn = this.#conn;
    const yes = argument !== 'no';
    const counter = (): number => this.#context.counters[argument as keyof TcpContext['counters']];
    const segment = (): TcpSegment => parseSegment(`${argument} ${rest}`, OUR_ISN, 0);
    const facts: { [name: string]: () => void } = {
      state: () => expect(conn.state).toBe(argument),
      failure: () => expect(conn.failure ?? 'none').toBe(argument),
      eof: () => expect(conn.endOfStream).toBe(yes),
      open: () => expect(conn.isOpen).toBe(yes),
      dead: () => expect(conn.isDead).toBe(yes),
      room: () => expect(conn.hasRoom).toBe(yes),
      unread: () => expect(conn.readableBytes).toBe(Number(argument)),
      count: () => expect([argument, counter()]).toEqual([argument, Number(rest)]),
      memory: () => expect(this.#context.pool.usedBytes).toBe(Number(argument)),
      replaced: () => expect(conn.mayBeReplacedBy(segment())).toBe(true),
      kept: () => expect(conn.mayBeReplacedBy(segment())).toBe(false),
    };
    facts[name]!();
  }
}

export function connectionAlone(options: ScriptOptions, sent: Sent): Subject {
  return new Alone(options, sent);
}
