/**
 * A whole stack as what a script is played against: the peer's segments come as Ethernet frames from a guest, ours are taken
 * from frames, with every checksum verified; the other side is a scripted socket of the host, or one who dials into the guest.
 */
import { expect } from 'vitest';
import type { HostStream } from '../../../../netstack/flow/host.ts';
import { ICMP_UNREACHABLE } from '../../../../netstack/wire/icmp.ts';
import { PROTOCOL_ICMP } from '../../../../netstack/wire/ipv4.ts';
import type { TcpSegment } from '../../../../netstack/wire/tcp.ts';
import { address, Bench, GATEWAY, GUEST, SERVER } from '../bench.ts';
import { type Decoded, icmpMessage, ipPacket } from '../frames.ts';
import type { ScriptedStream } from '../scripted-host.ts';
import { byteAt, PEER_PORT, PORT, type ScriptOptions, type Sent, type Subject } from './script.ts';

/** Destination unreachable: fragmentation needed (RFC 1191). */
const CODE_FRAGMENTATION_NEEDED = 4;
const IPV4_HEADER_LEN = 20;

class ThroughStack implements Subject {
  readonly #bench: Bench;
  readonly #startMs: number;
  readonly #sent: Sent;
  readonly #options: ScriptOptions;
  /** Who dialled into the guest, if the script opens actively. */
  #dialled: HostStream | undefined;
  #remote = SERVER;
  #written = 1;
  #read = 1;
  #lastSent: Decoded | undefined;

  constructor(options: ScriptOptions, sent: Sent) {
    this.#options = options;
    this.#sent = sent;
    const path = options.path ?? { segmentBytesMax: 1480, superSegmentBytesMax: 0 };
    this.#bench = new Bench({
      mtuBytes: path.segmentBytesMax + IPV4_HEADER_LEN,
      offload: path.superSegmentBytesMax > 0,
      stack: { tcp: options.config ?? {} },
    });
    this.#bench.introduce();
    this.#startMs = this.#bench.now;
  }

  get now(): number {
    return this.#bench.now - this.#startMs;
  }

  set now(ms: number) {
    this.#bench.now = this.#startMs + ms;
  }

  get #stream(): ScriptedStream {
    const stream = this.#bench.host.streams[0];
    if (!stream) throw new Error('the host was not asked to connect');
    return stream;
  }

  receive(seg: TcpSegment, more: boolean): void {
    const { payload, ...fields } = seg;
    this.#bench.deliver(
      this.#bench.tcp(this.#remote, { ...fields, gsoBytes: 0 }, payload, { trafficClass: seg.ecn }),
    );
    const stream = this.#bench.host.streams[0];
    // The script says when the host takes bytes.
    if (stream && stream.room === Number.POSITIVE_INFINITY) stream.room = this.#options.takes ?? 0;
    if (!more) this.poll();
  }

  poll(): void {
    const bench = this.#bench;
    bench.link.full = this.now < (this.#options.linkBlockedUntilMs ?? 0);
    for (const decoded of bench.turn()) {
      const { tcp } = decoded;
      if (!tcp) continue;
      expect(decoded).toMatchObject({ src: this.#remote, dst: GUEST, checksumRight: true });
      this.#lastSent = decoded;
      tcp.ecn = decoded.ipv4!.tos & 3;
      tcp.gsoBytes = decoded.gsoType === 0 ? 0 : decoded.gsoSize;
      this.#sent(tcp, decoded.payload);
    }
  }

  pollAt(): number {
    return this.#bench.stack.pollAt() - this.#startMs;
  }

  command(name: string, argument: string): void {
    const count = Number(argument);
    const actions: { [name: string]: () => void } = {
      accept: () => this.#stream.accept(),
      refuse: () => this.#stream.fail('ECONNREFUSED'),
      connect: () => this.#dial(),
      finish: () => (this.#dialled ? this.#dialled.shutdown() : this.#stream.end()),
      abort: () => (this.#dialled ? this.#dialled.reset() : this.#stream.fail('ECONNRESET')),
      write: () => this.#write(count),
      read: () => this.#readBytes(count),
      path: () => this.#narrow(count),
    };
    actions[name]!();
  }

  #dial(): void {
    this.#remote = GATEWAY;
    const quiet = { connected() {}, readable() {}, writable() {}, failed() {} };
    const stream = this.#bench.stack.dial(address(GUEST), 0, PEER_PORT, quiet, { sourcePort: PORT });
    if (typeof stream === 'string') throw new Error(`dial: ${stream}`);
    this.#dialled = stream;
  }

  #write(count: number): void {
    const bytes = Uint8Array.from({ length: count }, (_, i) => byteAt(this.#written + i, true));
    this.#written += count;
    if (!this.#dialled) this.#stream.push(bytes);
    else if (this.#dialled.write(bytes, 0, count) < count) throw new Error('no room for all bytes');
  }

  #readBytes(count: number): void {
    const stream = this.#stream;
    const before = stream.written.length;
    if (this.#options.takes === undefined) stream.drain(count);
    this.poll();
    for (; this.#read - 1 < stream.written.length; this.#read++) {
      if (stream.written[this.#read - 1] !== byteAt(this.#read, false))
        throw new Error(`byte ${this.#read} is wrong`);
    }
    if (this.#options.takes === undefined) expect(stream.written.length - before).toBe(count);
  }

  /** A router between us and the guest has a link that carries no more than this (RFC 1191). */
  #narrow(segmentBytesMax: number): void {
    const last = this.#lastSent;
    if (!last) throw new Error('nothing was sent that could have been too large');
    const quoted = ipPacket(last.src, last.dst, last.protocol, last.ipPayload.subarray(0, 8));
    const repr = {
      type: ICMP_UNREACHABLE,
      code: CODE_FRAGMENTATION_NEEDED,
      rest: segmentBytesMax + IPV4_HEADER_LEN,
    };
    const message = icmpMessage(repr, quoted);
    this.#bench.deliver(this.#bench.ip(ipPacket(GUEST, this.#remote, PROTOCOL_ICMP, message)));
  }

  check(name: string, argument: string, rest: string): void {
    const [flow] = this.#bench.stack.flows();
    const yes = argument !== 'no';
    if (name === 'state') expect(flow?.state ?? 'closed').toBe(argument);
    else if (name === 'dead') expect(flow === undefined).toBe(yes);
    else if (name === 'memory' && !yes) expect(this.#bench.count('tcpBufferBytes')).toBe(Number(argument));
    else if (name === 'count') {
      const counter = `tcp${argument[0]!.toUpperCase()}${argument.slice(1)}`;
      expect([counter, this.#bench.count(counter)]).toEqual([counter, Number(rest)]);
    } else if (name === 'eof' && !this.#dialled) expect(this.#stream.isShutdown).toBe(yes);
    else if (name === 'failure' && argument === 'reset' && this.#bench.host.streams[0])
      expect(this.#stream.isReset || this.#stream.isClosed).toBe(true);
  }
}

export function throughStack(options: ScriptOptions, sent: Sent): Subject {
  return new ThroughStack(options, sent);
}
