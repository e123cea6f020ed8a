/**
 * Conversations with TCP, written as packetdrill scripts are: one event per line, time in milliseconds. They are played
 * against a TcpConnection alone, and as raw frames against a whole stack.
 *
 *     < S 0:0(0) win 65535 <mss 1460>          from the peer; sequence numbers count from its ISN, ack from ours
 *     <& . 1:1001(1000) ack 1 win 65535        the same, and more of the batch follows before the poll
 *     > S. 0:0(0) ack 1 win 65535 <mss 1460>   must be what is sent next, at this very time; fields left out are not compared
 *     +200 > . 1:1001(1000) ack 1              200 ms after the line before, and nothing until then
 *     +5000 silence                            nothing is sent for 5 s
 *     accept, refuse, discard, connect, finish, abort, write N, read N, path BYTES
 *     state S, failure F, eof, open, dead, room, unread N, count NAME N, memory N; with `no` for the contrary
 *
 * Flags are F S R P U, E for ECE, W for CWR, and `.` for ACK; `ecn N` is the ECN field of the packet. The peer's initial sequence number lies 32 KiB before a wrap of 2^32. A payload byte follows
 * from its sequence number, so that contents are compared everywhere. Timestamps of ours count from 0 at time 0.
 */
import type { TcpConfig } from '../../../../netstack/tcp/config.ts';
import type { TcpPath } from '../../../../netstack/tcp/connection.ts';
import { TCP_ACK, TCP_RST, TCP_SYN, TcpSegment } from '../../../../netstack/wire/tcp.ts';

const PEER_ISN = 0xffff8000 | 0;
export const PORT = 80;
export const PEER_PORT = 6000;
/** How far from the written time something may be sent. */
const TOLERANCE_MS = 1.5;
const FLAG_LETTERS = 'FSRP.UEW';

export interface ScriptOptions {
  config?: Partial<TcpConfig>;
  path?: TcpPath;
  /** Bytes that the memory pool has. */
  poolBytes?: number;
  /** The link takes nothing before this time. */
  linkBlockedUntilMs?: number;
  /** The host's socket takes this many bytes directly from a frame. */
  takes?: number;
  /** Why the script is only for a connection alone, not for one within a stack. */
  aloneBecause?: string;
}

/** What a script is played against. */
export interface Subject {
  /** Milliseconds since the start. */
  now: number;
  receive(seg: TcpSegment, more: boolean): void;
  poll(): void;
  pollAt(): number;
  /** Does what a command says. */
  command(name: string, argument: string): void;
  /** Holds a statement against the facts; one that the subject can't see it lets pass. */
  check(name: string, argument: string, rest: string): void;
}

/** How a subject hands over what it sends. */
export type Sent = (seg: TcpSegment, payload: Uint8Array) => void;
export type SubjectMaker = (options: ScriptOptions, sent: Sent) => Subject;

/** The byte at a relative sequence number of our stream, or of the peer's. */
export function byteAt(relative: number, ours: boolean): number {
  return (Math.imul(relative, 0x9e3779b1) >>> 24) ^ (ours ? 0x55 : 0);
}

interface Noted {
  atMs: number;
  flags: number;
  seq: number;
  ack: number;
  window: number;
  len: number;
  gso: number;
  ecn: number;
  options: string;
}

class Script {
  readonly subject: Subject;
  readonly queue: Noted[] = [];
  /** Known from our first SYN. */
  #ourIsn: number | undefined;
  #stampZero: number | undefined;

  constructor(make: SubjectMaker, options: ScriptOptions) {
    this.subject = make(options, (seg, payload) => this.#sent(seg, payload));
  }

  #sent(seg: TcpSegment, payload: Uint8Array): void {
    if (seg.flags & TCP_SYN) this.#ourIsn ??= seg.sequence;
    const { now } = this.subject;
    const bare = (seg.flags & TCP_RST) !== 0 && seg.sequence === 0;
    const seq = bare ? 0 : (seg.sequence - (this.#ourIsn ?? 0)) | 0;
    if (seg.hasTimestamps) this.#stampZero ??= (seg.timestamp - Math.floor(now)) | 0;
    payload.forEach((byte, i) => {
      if (byte !== byteAt(seq + i, true)) throw new Error(`byte ${seq + i} that was sent is wrong`);
    });
    this.queue.push({
      atMs: now,
      flags: seg.flags,
      seq,
      ack: seg.flags & TCP_ACK ? (seg.acknowledgment - PEER_ISN) | 0 : 0,
      window: seg.window,
      len: payload.length,
      gso: seg.gsoBytes,
      ecn: seg.ecn,
      options: this.#optionsText(seg),
    });
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

  /** Moves the clock, running the subject whenever it asks to. */
  advance(ms: number): void {
    const { subject } = this;
    const end = subject.now + ms;
    for (let i = 0; i < 100_000; i++) {
      const at = subject.pollAt();
      if (at > end) break;
      subject.now = Math.max(subject.now, at);
      subject.poll();
    }
    subject.now = end;
  }

  parse(text: string): TcpSegment {
    return parseSegment(text, this.#ourIsn ?? 0, this.#stampZero ?? 0);
  }

  expectSent(text: string): void {
    if (this.queue.length === 0) this.subject.poll();
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
    compare('ecn', want.ecn, sent.ecn);
    compare('options', want.options, sent.options);
    const { now } = this.subject;
    if (Math.abs(sent.atMs - now) > TOLERANCE_MS) problems.push(`time ${now}`);
    if (problems.length) throw new Error(`sent ${format(sent)}, wanted ${problems.join(', ')}`);
  }

  expectNothingMore(): void {
    const sent = this.queue[0];
    if (sent) throw new Error(`sent, but not in the script: ${format(sent)}`);
  }
}

function format(s: Noted): string {
  const flags = [...FLAG_LETTERS].filter((_, i) => s.flags & (1 << i)).join('');
  const ack = s.flags & TCP_ACK ? ` ack ${s.ack}` : '';
  const gso = s.gso ? ` gso ${s.gso}` : '';
  const range = `${s.seq}:${s.seq + s.len}(${s.len})`;
  return `${flags} ${range}${ack} win ${s.window}${gso} ecn ${s.ecn} <${s.options}> at ${s.atMs.toFixed(1)}`;
}

const SEGMENT =
  /^([FSRPU.EW]+) (\d+):(\d+)\((\d+)\)(?: ack (\d+))?(?: win (\d+))?(?: urg (\d+))?(?: gso (\d+))?(?: ecn (\d))?(?: <(.*)>)?$/;

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

/** A segment of the peer, with numbers relative to both initial ones. */
export function parseSegment(text: string, ourIsn: number, stampZero: number): TcpSegment {
  const [, letters = '', start = '', , len = '', ack, window = '0', urgent, , ecn, options] =
    matchSegment(text);
  const seg = new TcpSegment();
  seg.sourcePort = PEER_PORT;
  seg.destinationPort = PORT;
  seg.flags = flagsOf(letters);
  seg.sequence = (PEER_ISN + Number(start)) | 0;
  if (ack !== undefined) seg.acknowledgment = (ourIsn + Number(ack)) | 0;
  seg.window = Number(window);
  if (ecn) seg.ecn = Number(ecn);
  if (urgent) seg.urgentPointer = Number(urgent);
  seg.payload = Uint8Array.from({ length: Number(len) }, (_, i) => byteAt(Number(start) + i, false));
  seg.payloadEnd = seg.payload.length;
  for (const option of options ? options.split(',') : []) parseOption(option.trim(), seg, ourIsn, stampZero);
  return seg;
}

function parseOption(option: string, seg: TcpSegment, ourIsn: number, stampZero: number): void {
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
        seg.sack[2 * seg.sackCount] = (ourIsn + Number(from)) | 0;
        seg.sack[2 * seg.sackCount + 1] = (ourIsn + Number(to)) | 0;
        seg.sackCount++;
      }
      return;
    default:
      throw new Error(`not an option: ${option}`);
  }
}

function parseExpectation(text: string) {
  const [, letters = '', start = '', , len = '', ack, window, , gso, ecn, options] = matchSegment(text);
  const number = (value: string | undefined) => (value === undefined ? undefined : Number(value));
  return {
    flags: flagsOf(letters),
    seq: Number(start),
    len: Number(len),
    ack: number(ack),
    window: number(window),
    gso: number(gso),
    ecn: number(ecn),
    options,
  };
}

const COMMANDS = new Set([
  'accept',
  'refuse',
  'discard',
  'connect',
  'finish',
  'abort',
  'write',
  'read',
  'path',
]);
const CHECKS = new Set(
  ['state', 'failure', 'eof', 'open', 'dead', 'room', 'unread', 'count', 'memory'].concat('replaced', 'kept'),
);

function runLine(script: Script, line: string): void {
  const [, delay, rest = ''] = /^(?:\+([\d.]+) )?(.*)$/.exec(line)!;
  if (delay) script.advance(Number(delay));
  const [word = '', argument = ''] = rest.split(' ');
  const { subject } = script;
  if (word === '>') {
    script.expectSent(rest.slice(2));
    return;
  }
  if (CHECKS.has(word)) {
    subject.check(word, argument, rest.split(' ').slice(2).join(' '));
    return;
  }
  script.expectNothingMore();
  if (word === '<' || word === '<&')
    subject.receive(script.parse(rest.slice(word.length + 1)), word === '<&');
  else if (COMMANDS.has(word)) {
    subject.command(word, argument);
    subject.poll();
  } else if (word !== 'silence') throw new Error('not a command');
}

/** Plays a script, and at its end lets nothing be sent that it does not name. */
export function play(make: SubjectMaker, text: string, options: ScriptOptions = {}): void {
  const script = new Script(make, options);
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

/** A table of conversations: name (the RFC's section first) and script, with options where needed. */
export type Cases = { [name: string]: string | [string, ScriptOptions] };

/** Tables by topic. */
export type Topics = { [topic: string]: Cases };

/** Each case of a table: its name, script and options. */
export function casesOf(table: Cases): [string, string, ScriptOptions][] {
  return Object.entries(table).map(([name, value]) =>
    typeof value === 'string' ? [name, value, {}] : [name, value[0], value[1]],
  );
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

/** SACK on a wire with a round trip of 20 ms: the time-out is 220 ms, the tail loss probe comes after 40. */
export const ACCEPTED_FAR = `
  < S 0:0(0) win 65535 <mss 1460,sackOK,wscale 7>
  accept
  > S. 0:0(0) ack 1 win 65535 <mss 1460,sackOK,wscale 7>
  +20 < . 1:1(0) ack 1 win 10000
`;
