/**
 * Two whole stacks and a wire between them that loses, doubles, delays, reorders and damages frames, from one seed and in
 * virtual time: ARP, IP, TCP, flows and their users all take part. Users of the one dial the other, both send, both close, and
 * every byte is accounted for.
 */
import { nullLog } from '#common/log';
import { below, type Rng, seededRng, uniform } from '#common/rng';
import type { HostError, HostStream, StreamSink } from '../../netstack/flow/host.ts';
import type { Link } from '../../netstack/link/link.ts';
import { Stack } from '../../netstack/stack.ts';
import { tcpDefaults } from '../../netstack/tcp/config.ts';
import { parseIpv4, parseMac } from '../../netstack/wire/address.ts';
import { address, macBytes } from '../support/netstack/bench.ts';
import { ScriptedHost } from '../support/netstack/scripted-host.ts';

const ETHERTYPE_AT = 22;
const IP_AT = 24;
const PORT = 7;
/** The diallers' own ports, so that the accepting side knows which user is meant. */
const FIRST_PORT = 50_000;
/** Virtual time after which something counts as stuck. */
export const LIMIT_MS = 3_600_000;

export interface Wire {
  loss: number;
  duplicate: number;
  reorder: number;
  damage: number;
  delayMs: number;
  jitterMs: number;
}

/** Byte `i` of the stream with this salt. */
function streamByte(salt: number, i: number): number {
  return (Math.imul(i ^ (i >>> 11) ^ salt, 0x9e3779b1) >>> 24) & 0xff;
}

/** One user of a stream: sends so many bytes, checks what it gets, ends. */
class User implements StreamSink {
  stream: HostStream | undefined;
  readonly #sends: number;
  readonly #salt: number;
  readonly #peerSalt: number;
  readonly #chunk: number;
  sent = 0;
  received = 0;
  ended = false;
  error: HostError | undefined;
  /** The other user's bytes and end have come, and ours are sent. */
  get isDone(): boolean {
    return this.ended && this.sent === this.#sends;
  }

  constructor(sends: number, salt: number, peerSalt: number, chunk: number) {
    this.#sends = sends;
    this.#salt = salt;
    this.#peerSalt = peerSalt;
    this.#chunk = chunk;
  }

  connected(): void {
    this.writable();
    this.readable();
  }

  readable(): void {
    const buf = new Uint8Array(this.#chunk);
    while (this.stream && !this.ended) {
      const got = this.stream.read(buf, 0, buf.length);
      if (got === 0) return;
      if (got < 0) {
        this.ended = true;
        this.#closeIfDone();
        return;
      }
      for (let i = 0; i < got; i++, this.received++) {
        if (buf[i] !== streamByte(this.#peerSalt, this.received))
          throw new Error(`byte ${this.received} is wrong`);
      }
    }
  }

  writable(): void {
    while (this.stream && this.sent < this.#sends) {
      const part = Math.min(this.#chunk, this.#sends - this.sent);
      const buf = Uint8Array.from({ length: part }, (_, i) => streamByte(this.#salt, this.sent + i));
      const took = this.stream.write(buf, 0, part);
      this.sent += took;
      if (took < part) return;
    }
    if (this.stream) {
      this.stream.shutdown();
      this.#closeIfDone();
    }
  }

  #closeIfDone(): void {
    if (!this.isDone) return;
    this.stream?.close();
    this.stream = undefined;
  }

  failed(error: HostError): void {
    this.error = error;
  }
}

interface Flight {
  atMs: number;
  order: number;
  to: 0 | 1;
  frame: Uint8Array;
}

export class TwoStacks {
  readonly rng: Rng;
  readonly wire: Wire;
  readonly stacks: readonly [Stack, Stack];
  now = 0;
  frames = 0;
  readonly #flights: Flight[] = [];
  #order = 0;
  readonly #pairs: { dialler: User; accepter: User; sends: [number, number] }[] = [];

  constructor(seed: number) {
    this.rng = seededRng(Math.imul(seed, 7919));
    const { rng } = this;
    this.wire = {
      loss: uniform(rng) < 0.3 ? 0 : uniform(rng) * 0.2,
      duplicate: uniform(rng) * 0.1,
      reorder: uniform(rng) < 0.5 ? 0 : uniform(rng) * 0.3,
      damage: uniform(rng) * 0.05,
      delayMs: uniform(rng) * 20,
      jitterMs: uniform(rng) < 0.5 ? 0 : uniform(rng) * 10,
    };
    const offload = below(rng, 3) === 0;
    const mtu = below(rng, 4) === 0 ? 576 : 1500;
    this.stacks = [this.#stack(0, offload, mtu), this.#stack(1, offload, mtu)];
    this.stacks[1].listenTcp(PORT, {
      accepted: (stream, _addr, port) => {
        const { accepter } = this.#pairs[port - FIRST_PORT]!;
        accepter.stream = stream;
        accepter.writable();
        return accepter;
      },
    });
  }

  #stack(index: 0 | 1, offload: boolean, mtuBytes: number): Stack {
    const link: Link = {
      mtuBytes,
      offload,
      send: (head, headOff, headLen, body, bodyOff, bodyLen) => {
        const frame = new Uint8Array(headLen + bodyLen);
        frame.set(head.subarray(headOff, headOff + headLen));
        if (body) frame.set(body.subarray(bodyOff, bodyOff + bodyLen), headLen);
        this.#launch(frame, index === 0 ? 1 : 0);
        return true;
      },
      flush() {},
      start() {},
      close() {},
    };
    const { rng } = this;
    return new Stack({
      host: new ScriptedHost(),
      link,
      rng,
      log: nullLog,
      mac: macBytes(parseMac(`02:00:00:00:00:0${index + 1}`)!),
      ipv4: { address: parseIpv4(`10.0.2.${index + 1}`)!, prefixLength: 24 },
      tcp: {
        sack: below(rng, 4) > 0,
        timestamps: below(rng, 3) > 0,
        windowScaling: below(rng, 4) > 0,
        receiveBytesInitial: 4096 << below(rng, 7),
        userTimeoutMs: LIMIT_MS,
        handshakeMsMax: LIMIT_MS,
        rtoMsMax: Math.min(10_000, tcpDefaults.rtoMsMax),
      },
    });
  }

  #launch(frame: Uint8Array, to: 0 | 1): void {
    const { rng, wire } = this;
    this.frames++;
    if (uniform(rng) < wire.loss) return;
    const copies = uniform(rng) < wire.duplicate ? 2 : 1;
    for (let i = 0; i < copies; i++) {
      let atMs = this.now + wire.delayMs + wire.jitterMs * uniform(rng);
      if (uniform(rng) < wire.reorder) atMs += wire.delayMs * (1 + 3 * uniform(rng)) + 1;
      this.#flights.push({ atMs, order: this.#order++, to, frame: this.#damaged(frame) });
    }
  }

  /** A frame with a flipped bit, now and then: only where a checksum covers it, as Ethernet's own covers everything. */
  #damaged(frame: Uint8Array): Uint8Array {
    const covered = frame[0] === 0 && frame[ETHERTYPE_AT] === 0x08 && frame[ETHERTYPE_AT + 1] === 0x00;
    if (!covered || uniform(this.rng) >= this.wire.damage) return frame;
    const broken = frame.slice();
    const at = IP_AT + below(this.rng, frame.length - IP_AT);
    broken[at] = broken[at]! ^ (1 << below(this.rng, 8));
    return broken;
  }

  /** Opens a connection from the first stack to the second; both send. */
  connect(sends: [number, number]): void {
    const salts = [this.rng.uint32(), this.rng.uint32()] as const;
    const chunk = 1 + below(this.rng, 8000);
    const dialler = new User(sends[0], salts[0], salts[1], chunk);
    const accepter = new User(sends[1], salts[1], salts[0], chunk);
    this.#dial(this.#pairs.push({ dialler, accepter, sends }) - 1);
  }

  #dial(index: number): void {
    const { dialler } = this.#pairs[index]!;
    dialler.error = undefined;
    const sourcePort = FIRST_PORT + index;
    const stream = this.stacks[0].dial(address('10.0.2.2'), 0, PORT, dialler, { sourcePort });
    if (typeof stream === 'string') throw new Error(`dial: ${stream}`);
    dialler.stream = stream;
  }

  #deliver(): void {
    const due = this.#flights.filter((flight) => flight.atMs <= this.now);
    if (due.length === 0) return;
    due.sort((x, y) => x.atMs - y.atMs || x.order - y.order);
    const rest = this.#flights.filter((flight) => flight.atMs > this.now);
    this.#flights.length = 0;
    this.#flights.push(...rest);
    for (const { to, frame } of due) this.stacks[to].receive(this.now, frame, 0, frame.length);
  }

  /** Runs until every connection is over and forgotten. */
  run(): void {
    for (let steps = 0; steps < 1_000_000; steps++) {
      for (const stack of this.stacks) stack.poll(this.now);
      // With its ARP question lost the whole wire is silent: dial again, as a program would.
      this.#pairs.forEach(({ dialler }, i) => {
        if (dialler.error === 'EHOSTUNREACH') this.#dial(i);
      });
      if (this.#isOver()) return;
      let next = Math.min(this.stacks[0].pollAt(), this.stacks[1].pollAt());
      for (const flight of this.#flights) next = Math.min(next, flight.atMs);
      if (next > LIMIT_MS) throw new Error(`stuck: ${this.#describe()}`);
      this.now = Math.max(this.now, next);
      this.#deliver();
    }
    throw new Error('does not come to an end');
  }

  #isOver(): boolean {
    const done = this.#pairs.every(({ dialler, accepter }) => dialler.isDone && accepter.isDone);
    return done && this.stacks.every((stack) => stack.flows().next().done === true);
  }

  #describe(): string {
    const flows = this.stacks.map((stack) => [...stack.flows()].map((flow) => flow.state).join());
    return `${flows.join(' | ')} at ${this.now}`;
  }

  /** Throws unless every byte has arrived in order and no stack holds anything. */
  verify(): void {
    for (const { dialler, accepter, sends } of this.#pairs) {
      const got = [dialler.received, accepter.received];
      if (dialler.error || accepter.error) throw new Error(`failed: ${dialler.error ?? accepter.error}`);
      if (got[0] !== sends[1] || got[1] !== sends[0]) throw new Error(`got ${got} of ${sends}`);
    }
    for (const stack of this.stacks) {
      const { tcpFlows, tcpBufferBytes, guests } = stack.counters;
      if (tcpFlows || tcpBufferBytes || guests)
        throw new Error(`left: ${tcpFlows} flows, ${tcpBufferBytes} bytes, ${guests} guests`);
    }
  }
}
