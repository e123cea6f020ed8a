/**
 * Two whole stacks and a wire between them, each the other's guest, all from one seed and in virtual time.
 *
 * Clients of a published port of one stack are relayed over the wire to the other stack, which takes them for a guest's connections
 * to its own address and connects them to a server of its host. So every part takes part: ARP or NDP, fragments, flows, both kinds of
 * opening, the hosts' sockets with their back-pressure. The wire loses, repeats, delays, reorders and corrupts.
 */
import { nullLog } from '#common/log';
import { below, type Rng, seededRng, uniform } from '#common/rng';
import type {
  DatagramSink,
  Host,
  HostDatagram,
  HostError,
  HostPing,
  HostStream,
  PingSink,
  StreamSink,
} from '../../netstack/flow/host.ts';
import { type FrameSink, type Link, VNET_HDR_LEN } from '../../netstack/link/link.ts';
import { Stack } from '../../netstack/stack.ts';
import { parseAddress, parseIpv4, putMac } from '../../netstack/wire/address.ts';
import { ETHERNET_LEN } from '../../netstack/wire/ethernet.ts';

/** How bad the wire is. Probabilities are per frame. */
export interface WireOptions {
  loss: number;
  duplicate: number;
  reorder: number;
  /** A bit is flipped behind the Ethernet header, which a real wire's frame check sequence covers. */
  corrupt: number;
  delayMs: number;
  jitterMs: number;
}

export interface SimOptions {
  wire: WireOptions;
  ipv6: boolean;
  mtuBytes: number;
  /** The wire carries super-frames and incomplete checksums as a TAP does; it must not corrupt then. */
  offload: boolean;
  /** Clients that go from a to b, and from b to a. */
  connections: number;
  /** Most bytes in each direction of a connection. */
  bytesMax: number;
  /** Datagrams that are echoed by the other host. */
  datagrams: number;
}

/** Byte `i` of a stream with this salt. */
function streamByte(salt: number, i: number): number {
  return ((Math.imul(i ^ (i >>> 11), 0x9e3779b1) >>> 24) ^ salt) & 0xff;
}

interface Event {
  atMs: number;
  order: number;
  run(): void;
}

/** What will happen, by time and then in the order in which it was planned: a binary heap. */
class Agenda {
  readonly #heap: Event[] = [];
  #order = 0;

  get size(): number {
    return this.#heap.length;
  }

  nextAt(): number {
    return this.#heap[0]?.atMs ?? Number.POSITIVE_INFINITY;
  }

  add(atMs: number, run: () => void): void {
    const heap = this.#heap;
    const event = { atMs, order: this.#order++, run };
    let at = heap.push(event) - 1;
    for (let parent = (at - 1) >> 1; at > 0 && before(event, heap[parent]!); parent = (at - 1) >> 1) {
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = event;
  }

  /** Takes out the first event if its time has come. */
  pop(now: number): Event | undefined {
    const heap = this.#heap;
    const first = heap[0];
    if (!first || first.atMs > now) return undefined;
    const last = heap.pop()!;
    let at = 0;
    for (let child = 1; child < heap.length; child = at * 2 + 1) {
      if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child++;
      if (!before(heap[child]!, last)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    if (heap.length > 0) heap[at] = last;
    return first;
  }
}

function before(x: Event, y: Event): boolean {
  return x.atMs < y.atMs || (x.atMs === y.atMs && x.order < y.order);
}

/** A socket whose other end sends a known stream at its own pace and checks every byte that it gets. */
class SimSocket implements HostStream {
  sink: StreamSink | undefined;
  received = 0;
  gotEnd = false;
  closed = false;
  failure: string | undefined;
  /** For a client: connects again when nobody was reached, as a person would. */
  retry: (() => void) | undefined;
  readonly #sim: StackSim;
  readonly #salt: number;
  readonly #peerSalt: number;
  readonly #bytes: number;
  readonly #expected: number;
  #available = 0;
  #sent = 0;
  #room = 0;
  #waiting = false;

  constructor(sim: StackSim, salt: number, peerSalt: number, bytes: number, expected: number) {
    this.#sim = sim;
    this.#salt = salt;
    this.#peerSalt = peerSalt;
    this.#bytes = bytes;
    this.#expected = expected;
    this.#room = below(sim.rng, 20_000);
  }

  /** The other end begins to send. */
  begin(): void {
    const step = (): void => {
      if (this.closed) return;
      const left = this.#bytes - this.#available;
      this.#available += Math.min(left, 1 + below(this.#sim.rng, 20_000));
      this.sink?.readable();
      if (this.#available < this.#bytes) this.#sim.after(below(this.#sim.rng, 5), step);
    };
    this.#sim.after(0, step);
  }

  read(buf: Uint8Array, off: number, len: number): number {
    const count = Math.min(len, this.#available - this.#sent);
    for (let i = 0; i < count; i++) buf[off + i] = streamByte(this.#salt, this.#sent + i);
    this.#sent += count;
    if (count > 0) return count;
    return this.#sent === this.#bytes ? -1 : 0;
  }

  write(buf: Uint8Array, off: number, len: number): number {
    if (this.gotEnd) this.failure ??= 'bytes after the end';
    const count = Math.min(len, this.#room);
    for (let i = 0; i < count; i++)
      if (buf[off + i] !== streamByte(this.#peerSalt, this.received + i))
        this.failure ??= `byte ${this.received + i} is wrong`;
    this.received += count;
    this.#room -= count;
    if (count < len && !this.#waiting) {
      this.#waiting = true;
      this.#sim.after(below(this.#sim.rng, 10), () => {
        this.#waiting = false;
        this.#room += 1 + below(this.#sim.rng, 30_000);
        if (!this.closed) this.sink?.writable();
      });
    }
    return count;
  }

  shutdown(): void {
    this.gotEnd = true;
  }

  reset(): void {
    // Three questions for the neighbour were lost in a row: nothing has been sent or taken, so the client can ask again.
    if (this.retry && this.#sent === 0 && this.received === 0 && !this.gotEnd) this.retry();
    else {
      this.failure ??= 'was reset';
      this.closed = true;
    }
  }

  close(): void {
    this.closed = true;
  }

  verify(name: string): void {
    if (this.failure) throw new Error(`${name}: ${this.failure}`);
    if (this.received !== this.#expected)
      throw new Error(`${name}: got ${this.received} of ${this.#expected} bytes`);
    if (!this.gotEnd) throw new Error(`${name}: no end of stream`);
    if (!this.closed) throw new Error(`${name}: is still open`);
  }
}

/** A server's end of a connection that is to come. */
interface ServerSocket extends HostStream {
  sink: StreamSink | undefined;
  closed: boolean;
  /** The connection is there. */
  begin(): void;
}

/** The world on the other side of a stack: servers that answer by port, an echo for datagrams and pings. */
class SimHost implements Host {
  readonly servers: Map<number, ServerSocket> = new Map();
  openSockets = 0;
  readonly #sim: StackSim;

  constructor(sim: StackSim) {
    this.#sim = sim;
  }

  connect(
    _addr: Uint8Array,
    _addrOff: number,
    port: number,
    _ttl: number,
    _trafficClass: number,
    sink: StreamSink,
  ): HostStream | HostError {
    const socket = this.servers.get(port);
    if (!socket || socket.sink) return 'ECONNREFUSED';
    socket.sink = sink;
    this.#sim.after(below(this.#sim.rng, 30), () => {
      if (socket.closed) return;
      sink.connected();
      socket.begin();
    });
    return socket;
  }

  listen(): HostError {
    return 'EADDRINUSE';
  }

  openDatagram(
    _family: 4 | 6,
    _addr: Uint8Array | undefined,
    _addrOff: number,
    port: number,
    sink: DatagramSink,
  ): HostDatagram | HostError {
    this.openSockets++;
    let open = true;
    return {
      port: port || 1,
      send: (buf, off, len, addr, addrOff, toPort, ttl, trafficClass) => {
        const payload = buf.slice(off, off + len);
        const from = addr.slice(addrOff, addrOff + 16);
        this.#sim.after(1, () => open && sink.datagram(payload, 0, len, from, 0, toPort, ttl, trafficClass));
        return undefined;
      },
      close: () => {
        open = false;
        this.openSockets--;
      },
    };
  }

  openPing(_family: 4 | 6, _sink: PingSink): HostPing | HostError {
    return 'EACCES';
  }

  openGroup(): HostError {
    return 'EACCES';
  }
}

/** One stack and its end of the wire. */
class Side implements Link {
  readonly mtuBytes: number;
  readonly offload: boolean;
  readonly host: SimHost;
  readonly stack: Stack;
  other: Side | undefined;
  readonly #sim: StackSim;

  constructor(sim: StackSim, index: number, options: SimOptions) {
    this.#sim = sim;
    this.mtuBytes = options.mtuBytes;
    this.offload = options.offload;
    this.host = new SimHost(sim);
    const mac = new Uint8Array(6);
    putMac(mac, 0, 0x020000000000 + index);
    this.stack = new Stack({
      host: this.host,
      link: this,
      rng: seededRng(below(sim.rng, 1 << 30)),
      log: nullLog,
      mac,
      ipv4: { address: parseIpv4(`10.0.2.${index}`)!, prefixLength: 24 },
      ...(options.ipv6 ? { ipv6: { address: parseAddress(`fd00::${index}`)!, prefixLength: 64 } } : {}),
      // The wire is bad for minutes, but it is never cut.
      tcp: {
        handshakeMsMax: 3_600_000,
        userTimeoutMs: 3_600_000,
        rtoMsMax: 5000,
        receiveBytesInitial: 16 * 1024,
        receiveBytesMax: 64 * 1024,
      },
    });
  }

  send(
    head: Uint8Array,
    headOff: number,
    headLen: number,
    body: Uint8Array | undefined,
    bodyOff: number,
    bodyLen: number,
  ): boolean {
    const frame = new Uint8Array(headLen + bodyLen);
    frame.set(head.subarray(headOff, headOff + headLen));
    if (body) frame.set(body.subarray(bodyOff, bodyOff + bodyLen), headLen);
    this.#sim.launch(this.other!, frame);
    return true;
  }

  flush(): void {}
  start(_sink: FrameSink): void {}
  close(): void {}
}

export class StackSim {
  readonly rng: Rng;
  now = 0;
  frames = 0;
  readonly sides: readonly [Side, Side];
  readonly sockets: { name: string; socket: SimSocket }[] = [];
  echoes = 0;
  /** Connections that began anew because the neighbour was not found. */
  retries = 0;
  readonly #options: SimOptions;
  readonly #events = new Agenda();

  constructor(seed: number, options: SimOptions) {
    this.rng = seededRng(seed);
    this.#options = options;
    const [a, b] = [new Side(this, 1, options), new Side(this, 2, options)];
    a.other = b;
    b.other = a;
    this.sides = [a, b];
  }

  after(ms: number, run: () => void): void {
    this.#events.add(this.now + ms, run);
  }

  /** Puts a frame on the wire. */
  launch(to: Side, frame: Uint8Array): void {
    const { rng } = this;
    const { wire } = this.#options;
    this.frames++;
    if (uniform(rng) < wire.loss) return;
    const copies = uniform(rng) < wire.duplicate ? 2 : 1;
    for (let copy = 0; copy < copies; copy++) {
      let delay = wire.delayMs + wire.jitterMs * uniform(rng);
      if (uniform(rng) < wire.reorder) delay += wire.delayMs * (1 + 3 * uniform(rng)) + 1;
      const bytes = frame.slice();
      if (uniform(rng) < wire.corrupt) {
        const at = VNET_HDR_LEN + ETHERNET_LEN;
        bytes[at + below(rng, bytes.length - at)]! ^= 1 << below(rng, 8);
      }
      this.after(delay, () => to.stack.receive(this.now, bytes, 0, bytes.length));
    }
  }

  /** A client of `from` that is relayed to a server of the other side. */
  #client(from: Side, index: number, port: number): void {
    const to = from.other!;
    const toIndex = 3 - index;
    const up = below(this.rng, this.#options.bytesMax);
    const down = below(this.rng, this.#options.bytesMax);
    const client = new SimSocket(this, port & 0xff, ~port & 0xff, up, down);
    const server = new SimSocket(this, ~port & 0xff, port & 0xff, down, up);
    to.host.servers.set(port, server);
    this.sockets.push({ name: `client ${port}`, socket: client }, { name: `server ${port}`, socket: server });
    const target = parseAddress(
      this.#options.ipv6 && below(this.rng, 2) ? `fd00::${toIndex}` : `10.0.2.${toIndex}`,
    )!;
    const connect = (): void => {
      client.sink = from.stack.relay(client, target, 0, port);
    };
    client.retry = () => {
      this.retries++;
      this.after(1000, connect);
    };
    this.after(below(this.rng, 50), () => {
      connect();
      client.begin();
    });
  }

  /** Datagrams of all sizes to the other side's echo; what comes back must be what was sent. */
  #datagrams(from: Side, index: number): void {
    const target = parseAddress(`10.0.2.${3 - index}`)!;
    const salt = index * 17;
    const socket = from.stack.bindUdp(
      { port: 4000 },
      {
        datagram: (_now, buf, off, len) => {
          for (let i = 0; i < len; i++)
            if (buf[off + i] !== streamByte(salt, i + len))
              throw new Error(`echo of ${len}: byte ${i} is wrong`);
          this.echoes++;
        },
      },
    );
    if (typeof socket === 'string') throw new Error(socket);
    // The checksum finds every single flipped bit, but two in two fragments can cancel each other.
    const most = this.#options.wire.corrupt > 0 ? 1200 : 9000;
    for (let i = 0; i < this.#options.datagrams; i++) {
      const len = below(this.rng, most);
      const payload = Uint8Array.from({ length: len }, (_, at) => streamByte(salt, at + len));
      this.after(below(this.rng, 1000), () => socket.send(payload, 0, len, target, 0, 4001));
    }
  }

  /** Runs until nothing is left to do but to wait for minutes, and then those. */
  run(): void {
    for (const [at, side] of this.sides.entries()) {
      for (let i = 0; i < this.#options.connections; i++) this.#client(side, at + 1, 100 + at * 50 + i);
      this.#datagrams(side, at + 1);
    }
    const done = (): boolean => this.sockets.every(({ socket }) => socket.closed);
    this.#until(() => done() && this.#events.size === 0, 3_600_000);
    // Mappings, neighbours and unfinished reassemblies time out.
    const end = this.now + 1_200_000;
    this.#until(() => this.now >= end, end);
  }

  /** Lets what was planned by {@link after} happen until a moment. */
  runUntil(ms: number): void {
    this.#until(() => this.now >= ms, ms, Number.POSITIVE_INFINITY);
  }

  #until(finished: () => boolean, limitMs: number, stepsMax = 500_000): void {
    for (let steps = 0; !finished(); steps++) {
      if (steps > stepsMax) throw new Error('the simulation does not come to an end');
      const [a, b] = this.sides;
      let next = Math.min(a.stack.pollAt(), b.stack.pollAt());
      next = Math.min(next, this.#events.nextAt());
      if (next > limitMs) {
        this.now = limitMs;
        return;
      }
      this.now = Math.max(this.now, next);
      for (let due = this.#events.pop(this.now); due; due = this.#events.pop(this.now)) due.run();
      for (const side of this.sides) side.stack.poll(this.now);
    }
  }

  /** Throws unless every byte arrived, everything was closed in order, and nothing is left anywhere. */
  verify(): void {
    for (const { name, socket } of this.sockets) socket.verify(name);
    for (const [at, side] of this.sides.entries()) {
      const { counters } = side.stack;
      for (const gauge of ['tcpFlows', 'tcpBufferBytes', 'udpMappings', 'pings', 'guests', 'reassemblyBytes'])
        if (counters[gauge] !== 0) throw new Error(`stack ${at}: ${gauge} is ${counters[gauge]}`);
      if (side.host.openSockets !== 0)
        throw new Error(`host ${at}: ${side.host.openSockets} sockets are still open`);
    }
  }
}
