/**
 * Conversations with a TcpConnection, written as packetdrill scripts are: one event per line, time in milliseconds.
 *
 *     passive                                  the connection takes the first SYN (default: `active` by a `connect` line)
 *     < S 0:0(0) win 65535 <mss 1460>          from the peer; sequence numbers count from its ISN, ack from ours
 *     <& . 1:1001(1000) ack 1 win 65535        the same, and more of the batch follows before the poll
 *     > S. 0:0(0) ack 1 win 65535 <mss 1460>   must be what is sent next, at this very time; fields left out are not compared
 *     +200 > . 1:1001(1000) ack 1              200 ms after the line before, and nothing until then
 *     +5000 silence                            nothing is sent for 5 s
 *     accept, refuse, discard, connect, finish, abort, write N, read N, path MTU, batch-write N
 *     state S, failure F, eof, open, dead, room, no-room, unread N, count NAME N, cwnd N, memory N
 *
 * Flags are F S R P U and `.` for ACK. The initial sequence numbers lie 32 KiB before a wrap, of the sign and of 2^32. A payload byte
 * follows from its sequence number, so that contents are compared everywhere. Timestamps of ours count from 0 at time 0.
 */
import { expect } from 'vitest';
import { BufferPool } from '../../../netstack/tcp/buffer-pool.ts';
import { type TcpConfig, tcpDefaults } from '../../../netstack/tcp/config.ts';
import { TcpConnection, type TcpPath } from '../../../netstack/tcp/connection.ts';
import { ChallengeBudget, newTcpCounters, type TcpContext } from '../../../netstack/tcp/context.ts';
import { TCP_ACK, TcpSegment } from '../../../netstack/wire/tcp.ts';

const OUR_ISN = 0x7fff8000 | 0;
const PEER_ISN = 0xffff8000 | 0;
/** How far from the written time something may be sent. */
const TOLERANCE_MS = 1.5;
const FLAG_LETTERS = 'FSRP.U';

export interface ScriptOptions {
  config?: Partial<TcpConfig>;
  path?: TcpPath;
  /** Bytes that the memory pool has. */
  poolBytes?: number;
  /** The link takes nothing before this time. */
  linkBlockedUntilMs?: number;
  /** The host's socket takes this many bytes directly from a frame. */
  takes?: number;
}

interface Sent {
  atMs: number;
  flags: number;
  seq: number;
  ack: number;
  window: number;
  len: number;
  gso: number;
  options: string;
  raw: string;
}

/** The byte at a relative sequence number of the stream of peer or ourselves. */
function byteAt(relative: number, ours: boolean): number {
  return (Math.imul(relative, 0x9e3779b1) >>> 24) ^ (ours ? 0x55 : 0);
}

class Script {
  now = 0;
  readonly conn: TcpConnection;
  readonly context: TcpContext;
  readonly pool: BufferPool;
  readonly options: ScriptOptions;
  readonly queue: Sent[] = [];
  #written = 1;
  #read = 1;
  #stampZero: number | undefined;
  #listening = false;

  constructor(options: ScriptOptions) {
    this.options = options;
    const poolBytes = options.poolBytes ?? 256 << 20;
    this.pool = new BufferPool({ bytesMax: poolBytes, keptBytesMax: poolBytes });
    this.context = {
      config: { ...tcpDefaults, ...options.config },
      pool: this.pool,
      counters: newTcpCounters(),
      challenges: new ChallengeBudget(),
    };
    const path = options.path ?? { segmentBytesMax: 1480, superSegmentBytesMax: 0 };
    this.conn = new TcpConnection(this.context, path, 80, 4000, OUR_ISN);
  }

  #takeOut(seg: TcpSegment): boolean {
    if (this.now < (this.options.linkBlockedUntilMs ?? 0)) return false;
    const seq = (seg.sequence - OUR_ISN) | 0;
    if (seg.hasTimestamps) this.#stampZero ??= (seg.timestamp - Math.floor(this.now)) | 0;
    const isReset = (seg.flags & 4) !== 0;
    for (let i = 0; i < seg.payloadEnd - seg.payloadOff; i++) {
      if (seg.payload[seg.payloadOff + i] !== byteAt(seq + i, true))
        throw new Error(`byte ${seq + i} that was sent is wrong`);
    }
    const sent: Sent = {
      atMs: this.now,
      flags: seg.flags,
      seq: isReset && seg.sequence === 0 ? 0 : seq,
      ack: seg.flags & TCP_ACK ? (seg.acknowledgment - PEER_ISN) | 0 : 0,
      window: seg.window,
      len: seg.payloadEnd - seg.payloadOff,
      gso: seg.gsoBytes,
      options: this.#optionsText(seg),
      raw: '',
    };
    sent.raw = this.#format(sent);
    this.queue.push(sent);
    return true;
  }

  #optionsText(seg: TcpSegment): string {
    const parts: string[] = [];
    if (seg.mss) parts.push(`mss ${seg.mss}`);
    if (seg.sackPermitted) parts.push('sackOK');
    if (seg.hasTimestamps)
      parts.push(`TS val ${(seg.timestamp - this.#stampZero!) | 0} ecr ${seg.timestampEcho}`);
    if (seg.windowScale >= 0) parts.push(`wscale ${seg.windowScale}`);
    const blocks: string[] = [];
    for (let i = 0; i < seg.sackCount; i++)
      blocks.push(`${(seg.sack[2 * i]! - PEER_ISN) | 0}:${(seg.sack[2 * i + 1]! - PEER_ISN) | 0}`);
    if (blocks.length) parts.push(`sack ${blocks.join(' ')}`);
    return parts.join(',');
  }

  #format(s: Sent): string {
    const flags = [...FLAG_LETTERS].filter((_, i) => s.flags & (1 << i)).join('');
    const ack = s.flags & TCP_ACK ? ` ack ${s.ack}` : '';
    const gso = s.gso ? ` gso ${s.gso}` : '';
    return `${flags} ${s.seq}:${s.seq + s.len}(${s.len})${ack} win ${s.window}${gso} <${s.options}> at ${s.atMs.toFixed(1)}`;
  }

  poll(): void {
    this.conn.poll(this.now, { segment: (seg) => this.#takeOut(seg) });
  }

  /** Moves the clock, running the connection whenever it asks to. */
  advance(ms: number): void {
    const end = this.now + ms;
    for (let i = 0; i < 100_000; i++) {
      const at = this.conn.pollAt();
      if (at > end) break;
      this.now = Math.max(this.now, at);
      this.poll();
    }
    this.now = end;
  }

  receive(line: string, more: boolean): void {
    const seg = parseSegment(line, this.#stampZero);
    if (!this.#listening && this.conn.state === 'closed' && !this.conn.failure) {
      this.#listening = true;
      if (!this.conn.listen(this.now, seg)) throw new Error('listen() refused the SYN');
    } else {
      const takes = this.options.takes;
      const taker =
        takes === undefined
          ? undefined
          : {
              take: (buf: Uint8Array, off: number, len: number) => this.#take(buf, off, Math.min(len, takes)),
            };
      this.conn.receive(this.now, seg, taker);
    }
    if (!more) this.poll();
  }

  #take(buf: Uint8Array, off: number, len: number): number {
    for (let i = 0; i < len; i++) {
      if (buf[off + i] !== byteAt(this.#read + i, false)) throw new Error(`byte ${this.#read + i} is wrong`);
    }
    this.#read += len;
    return len;
  }

  write(count: number): void {
    let left = count;
    while (left > 0) {
      const region = this.conn.writable();
      const part = Math.min(left, region.len);
      if (part === 0) throw new Error(`no room for the last ${left} bytes`);
      for (let i = 0; i < part; i++) region.buf[region.off + i] = byteAt(this.#written + i, true);
      this.#written += part;
      this.conn.produced(part);
      left -= part;
    }
  }

  read(count: number): void {
    let left = count;
    while (left > 0) {
      const region = this.conn.readable();
      const part = Math.min(left, region.len);
      if (part === 0) throw new Error(`the last ${left} bytes are not there`);
      this.#take(region.buf, region.off, part);
      this.conn.consumed(part);
      left -= part;
    }
  }

  expectSent(text: string): void {
    if (this.queue.length === 0) this.poll();
    const sent = this.queue.shift();
    if (!sent) throw new Error('nothing was sent');
    const want = parseExpectation(text);
    const problems: string[] = [];
    const compare = (what: string, wanted: unknown, got: unknown): void => {
      if (wanted !== undefined && wanted !== got) problems.push(`${what} ${wanted}`);
    };
    // PSH is compared only where the script names it.
    compare('flags', want.flags, sent.flags & ~(want.flags & 8 ? 0 : 8));
    compare('seq', want.seq, sent.seq);
    compare('len', want.len, sent.len);
    compare('ack', want.ack, sent.flags & TCP_ACK ? sent.ack : undefined);
    compare('win', want.window, sent.window);
    compare('gso', want.gso, sent.gso);
    compare('options', want.options, sent.options);
    if (Math.abs(sent.atMs - this.now) > TOLERANCE_MS) problems.push(`time ${this.now}`);
    if (problems.length) throw new Error(`sent ${sent.raw}, wanted ${problems.join(', ')}`);
  }

  expectNothingMore(): void {
    const sent = this.queue[0];
    if (sent) throw new Error(`sent, but not in the script: ${sent.raw}`);
  }
}

const SEGMENT =
  /^([FSRPU.]+) (\d+):(\d+)\((\d+)\)(?: ack (\d+))?(?: win (\d+))?(?: urg (\d+))?(?: gso (\d+))?(?: <(.*)>)?$/;

function matchSegment(text: string): RegExpExecArray {
  const match = SEGMENT.exec(text);
  if (!match) throw new Error(`not a segment: ${text}`);
  if (Number(match[3]) - Number(match[2]) !== Number(match[4])) throw new Error(`length is wrong: ${text}`);
  return match;
}

function flagsOf(letters: string): number {
  let flags = 0;
  for (const letter of letters) flags |= 1 << FLAG_LETTERS.indexOf(letter);
  return flags;
}

function parseSegment(text: string, stampZero = 0): TcpSegment {
  const [, letters = '', start = '', , len = '', ack, window = '0', urgent, , options] = matchSegment(text);
  const seg = new TcpSegment();
  seg.sourcePort = 4000;
  seg.destinationPort = 80;
  seg.flags = flagsOf(letters);
  seg.sequence = (PEER_ISN + Number(start)) | 0;
  if (ack !== undefined) seg.acknowledgment = (OUR_ISN + Number(ack)) | 0;
  seg.window = Number(window);
  if (urgent) seg.urgentPointer = Number(urgent);
  seg.payload = Uint8Array.from({ length: Number(len) }, (_, i) => byteAt(Number(start) + i, false));
  seg.payloadEnd = seg.payload.length;
  for (const option of options ? options.split(',') : []) parseOption(option.trim(), seg, stampZero);
  return seg;
}

function parseOption(option: string, seg: TcpSegment, stampZero: number): void {
  const words = option.split(' ');
  switch (words[0]) {
    case 'mss':
      seg.mss = Number(words[1]);
      return;
    case 'sackOK':
      seg.sackPermitted = true;
      return;
    case 'wscale':
      seg.windowScale = Number(words[1]);
      return;
    case 'TS':
      seg.hasTimestamps = true;
      seg.timestamp = Number(words[2]) | 0;
      seg.timestampEcho = (stampZero + Number(words[4])) | 0;
      return;
    case 'sack':
      for (const block of words.slice(1)) {
        const [from, to] = block.split(':');
        seg.sack[2 * seg.sackCount] = (OUR_ISN + Number(from)) | 0;
        seg.sack[2 * seg.sackCount + 1] = (OUR_ISN + Number(to)) | 0;
        seg.sackCount++;
      }
      return;
    default:
      throw new Error(`not an option: ${option}`);
  }
}

function parseExpectation(text: string) {
  const [, letters = '', start = '', , len = '', ack, window, , gso, options] = matchSegment(text);
  const number = (value: string | undefined) => (value === undefined ? undefined : Number(value));
  return {
    flags: flagsOf(letters),
    seq: Number(start),
    len: Number(len),
    ack: number(ack),
    window: number(window),
    gso: number(gso),
    options,
  };
}

const COMMANDS: Record<string, (s: Script, argument: string, second: string) => void> = {
  accept: (s) => s.conn.accept(s.now),
  refuse: (s) => s.conn.refuse(),
  discard: (s) => s.conn.discard(),
  connect: (s) => s.conn.connect(s.now),
  finish: (s) => s.conn.finish(),
  abort: (s) => s.conn.abort(),
  write: (s, n) => s.write(Number(n)),
  read: (s, n) => s.read(Number(n)),
  path: (s, bytes) => s.conn.setPath({ segmentBytesMax: Number(bytes), superSegmentBytesMax: 0 }),
};

const CHECKS: Record<string, (s: Script, argument: string, second: string) => void> = {
  state: (s, state) => expect(s.conn.state).toBe(state),
  failure: (s, failure) => expect(s.conn.failure ?? 'none').toBe(failure),
  eof: (s, yes) => expect(s.conn.endOfStream).toBe(yes !== 'no'),
  open: (s, yes) => expect(s.conn.isOpen).toBe(yes !== 'no'),
  dead: (s, yes) => expect(s.conn.isDead).toBe(yes !== 'no'),
  room: (s, yes) => expect(s.conn.hasRoom).toBe(yes !== 'no'),
  unread: (s, n) => expect(s.conn.readableBytes).toBe(Number(n)),
  count: (s, name, n) =>
    expect([name, s.context.counters[name as keyof TcpContext['counters']]]).toEqual([name, Number(n)]),
  memory: (s, n) => expect(s.pool.usedBytes).toBe(Number(n)),
  replaced: (s, segment, rest) =>
    expect(s.conn.mayBeReplacedBy(parseSegment(`${segment} ${rest}`))).toBe(true),
  kept: (s, segment, rest) => expect(s.conn.mayBeReplacedBy(parseSegment(`${segment} ${rest}`))).toBe(false),
};

function runLine(script: Script, line: string): void {
  const [, delay, rest = ''] = /^(?:\+([\d.]+) )?(.*)$/.exec(line)!;
  if (delay) script.advance(Number(delay));
  const [word = '', argument = ''] = rest.split(' ');
  const tail = rest.split(' ').slice(2).join(' ');
  if (word === '>') {
    script.expectSent(rest.slice(2));
    return;
  }
  const check = CHECKS[word];
  if (check) {
    check(script, argument, tail);
    return;
  }
  script.expectNothingMore();
  if (word === '<' || word === '<&') script.receive(rest.slice(word.length + 1), word === '<&');
  else if (word !== 'silence') {
    const command = COMMANDS[word];
    if (!command) throw new Error('not a command');
    command(script, argument, tail);
    script.poll();
  }
}

/** Runs a script, and at its end lets nothing be sent that it does not name. */
export function play(text: string, options: ScriptOptions = {}): void {
  const script = new Script(options);
  const lines = text
    .split('\n')
    .map((line) => line.replace(/\s*\/\/.*$/, '').trim())
    .filter((line) => line !== '');
  for (const line of lines) {
    try {
      runLine(script, line);
    } catch (error) {
      throw new Error(`at "${line}": ${error instanceof Error ? error.message : String(error)}`, {
        cause: error,
      });
    }
  }
  script.expectNothingMore();
}

/** A passive handshake without options but the MSS; then ours is 1, the peer's 1. */
export const ACCEPTED = `
  < S 0:0(0) win 65535 <mss 1460>
  accept
  > S. 0:0(0) ack 1
  < . 1:1(0) ack 1 win 65535
`;

/** The same with SACK and a window scale of 7. */
export const ACCEPTED_SACK = `
  < S 0:0(0) win 65535 <mss 1460,sackOK,wscale 7>
  accept
  > S. 0:0(0) ack 1 win 65535 <mss 1460,sackOK,wscale 7>
  < . 1:1(0) ack 1 win 10000
`;

/** With timestamps too: one segment carries 1448 bytes. */
export const ACCEPTED_STAMPS = `
  < S 0:0(0) win 65535 <mss 1460,sackOK,TS val 100 ecr 0,wscale 7>
  accept
  > S. 0:0(0) ack 1 win 65535 <mss 1460,sackOK,TS val 0 ecr 100,wscale 7>
  < . 1:1(0) ack 1 win 10000 <TS val 100 ecr 0>
`;

/** A table of conversations: name (the RFC's section first) and script, with options where needed. */
export type Cases = Record<string, string | [string, ScriptOptions]>;

/** Each case of the table as arguments for {@link play}. */
export function casesOf(table: Cases): [string, string, ScriptOptions][] {
  return Object.entries(table).map(([name, value]) =>
    typeof value === 'string' ? [name, value, {}] : [name, value[0], value[1]],
  );
}

/** SACK on a wire with a round trip of 20 ms: the time-out is 200 ms, the tail loss probe comes after 40. */
export const ACCEPTED_FAR = `
  < S 0:0(0) win 65535 <mss 1460,sackOK,wscale 7>
  accept
  > S. 0:0(0) ack 1 win 65535 <mss 1460,sackOK,wscale 7>
  +20 < . 1:1(0) ack 1 win 10000
`;
