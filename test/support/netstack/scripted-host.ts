/**
 * A host whose sockets do what a test says, and remember what was asked of them. Nothing happens by itself: a connect stays
 * open until the test accepts or fails it, unless `onConnect` decides.
 */
import type {
  Closable,
  DatagramSink,
  Host,
  HostDatagram,
  HostError,
  HostGroup,
  HostIcmpError,
  HostPing,
  HostStream,
  ListenSink,
  PingSink,
  StreamSink,
} from '../../../netstack/flow/host.ts';
import { formatAddress, parseAddress } from '../../../netstack/wire/address.ts';

function address(text: string): Uint8Array {
  const bytes = parseAddress(text);
  if (!bytes) throw new Error(`no address: ${text}`);
  return bytes;
}

/** A stream socket. */
export class ScriptedStream implements HostStream {
  readonly address: string;
  readonly port: number;
  readonly ttl: number;
  trafficClass: number;
  sink: StreamSink;
  /** What was written, in order. */
  written: number[] = [];
  /** How many bytes write() takes before it is full. */
  room: number = Number.POSITIVE_INFINITY;
  isShutdown = false;
  isReset = false;
  isClosed = false;
  readonly #incoming: Uint8Array[] = [];
  #eof = false;

  constructor(address: string, port: number, ttl: number, trafficClass: number, sink: StreamSink) {
    this.address = address;
    this.port = port;
    this.ttl = ttl;
    this.trafficClass = trafficClass;
    this.sink = sink;
  }

  /** The host's peer accepts the connection. */
  accept(): void {
    this.sink.connected();
  }

  fail(error: HostError, icmp?: HostIcmpError): void {
    this.isClosed = true;
    this.sink.failed(error, icmp);
  }

  /** Bytes come from the host's peer. */
  push(bytes: Uint8Array): void {
    this.#incoming.push(bytes);
    this.sink.readable();
  }

  /** The host's peer ends its stream. */
  end(): void {
    this.#eof = true;
    this.sink.readable();
  }

  /** The socket takes `bytes` more. */
  drain(bytes: number): void {
    this.room += bytes;
    this.sink.writable();
  }

  read(buf: Uint8Array, off: number, len: number): number {
    const first = this.#incoming[0];
    if (!first) return this.#eof ? -1 : 0;
    const part = Math.min(len, first.length);
    buf.set(first.subarray(0, part), off);
    if (part === first.length) this.#incoming.shift();
    else this.#incoming[0] = first.subarray(part);
    return part;
  }

  write(buf: Uint8Array, off: number, len: number): number {
    const part = Math.min(len, this.room);
    for (let i = 0; i < part; i++) this.written.push(buf[off + i]!);
    this.room -= part;
    return part;
  }

  shutdown(): void {
    this.isShutdown = true;
  }

  setTrafficClass(trafficClass: number): void {
    this.trafficClass = trafficClass;
  }

  reset(): void {
    this.isReset = true;
  }

  close(): void {
    this.isClosed = true;
  }

  /** What was written, as text. */
  get text(): string {
    return String.fromCharCode(...this.written);
  }
}

/** One datagram that was sent. */
export interface SentDatagram {
  address: string;
  port: number;
  ttl: number;
  trafficClass: number;
  payload: Uint8Array;
}

/** A UDP socket. */
export class ScriptedDatagram implements HostDatagram {
  readonly port: number;
  readonly sent: SentDatagram[] = [];
  /** What send() returns. */
  error: HostError | undefined;
  isClosed = false;
  readonly sink: DatagramSink;

  constructor(port: number, sink: DatagramSink) {
    this.port = port;
    this.sink = sink;
  }

  send(
    buf: Uint8Array,
    off: number,
    len: number,
    addr: Uint8Array,
    addrOff: number,
    port: number,
    ttl: number,
    trafficClass: number,
  ): HostError | undefined {
    if (this.error) return this.error;
    this.sent.push({
      address: formatAddress(addr, addrOff),
      port,
      ttl,
      trafficClass,
      payload: buf.slice(off, off + len),
    });
    return undefined;
  }

  /** A datagram comes in. */
  receive(from: string, port: number, payload: Uint8Array, ttl = 0, trafficClass = 0): void {
    this.sink.datagram(payload, 0, payload.length, address(from), 0, port, ttl, trafficClass);
  }

  /** An ICMP error comes for a datagram sent to `to`, of which `payload` is known. */
  icmp(error: HostIcmpError, to: string, port: number, payload: Uint8Array = new Uint8Array(0)): void {
    this.sink.icmpError(error, address(to), 0, port, payload, 0, payload.length);
  }

  close(): void {
    this.isClosed = true;
  }
}

/** One echo request that was sent. */
export interface SentPing {
  sequence: number;
  address: string;
  ttl: number;
  payload: Uint8Array;
}

/** A ping socket. */
export class ScriptedPing implements HostPing {
  readonly sent: SentPing[] = [];
  error: HostError | undefined;
  isClosed = false;
  readonly sink: PingSink;

  constructor(sink: PingSink) {
    this.sink = sink;
  }

  send(
    sequence: number,
    buf: Uint8Array,
    off: number,
    len: number,
    addr: Uint8Array,
    addrOff: number,
    ttl: number,
  ): HostError | undefined {
    if (this.error) return this.error;
    this.sent.push({
      sequence,
      address: formatAddress(addr, addrOff),
      ttl,
      payload: buf.slice(off, off + len),
    });
    return undefined;
  }

  reply(sequence: number, from: string, payload: Uint8Array, ttl = 0): void {
    this.sink.reply(sequence, payload, 0, payload.length, address(from), 0, ttl);
  }

  icmp(error: HostIcmpError, sequence: number, to: string, payload: Uint8Array = new Uint8Array(0)): void {
    this.sink.icmpError(error, sequence, address(to), 0, payload, 0, payload.length);
  }

  close(): void {
    this.isClosed = true;
  }
}

/** A multicast group that was joined. */
export class ScriptedGroup implements HostGroup {
  readonly address: string;
  readonly port: number;
  readonly sink: DatagramSink;
  refreshes = 0;
  isClosed = false;

  constructor(address: string, port: number, sink: DatagramSink) {
    this.address = address;
    this.port = port;
    this.sink = sink;
  }

  /** Somebody of the host's networks sends to it. */
  receive(from: string, port: number, payload: Uint8Array, ttl = 1): void {
    this.sink.datagram(payload, 0, payload.length, address(from), 0, port, ttl, 0);
  }

  refresh(): void {
    this.refreshes++;
  }

  close(): void {
    this.isClosed = true;
  }
}

/** A listening socket. */
export class ScriptedListener implements Closable {
  readonly port: number;
  isClosed = false;
  readonly sink: ListenSink;

  constructor(port: number, sink: ListenSink) {
    this.port = port;
    this.sink = sink;
  }

  /** A client connects. */
  connect(from: string, port: number): ScriptedStream {
    const quiet: StreamSink = { connected() {}, readable() {}, writable() {}, failed() {} };
    const stream = new ScriptedStream(from, port, 0, 0, quiet);
    stream.sink = this.sink.accepted(stream, address(from), 0, port);
    return stream;
  }

  close(): void {
    this.isClosed = true;
  }
}

export class ScriptedHost implements Host {
  readonly streams: ScriptedStream[] = [];
  readonly datagrams: ScriptedDatagram[] = [];
  readonly pings: ScriptedPing[] = [];
  readonly listeners: ScriptedListener[] = [];
  readonly groups: ScriptedGroup[] = [];
  /** Called for every connect: returns an error to fail at once, `accept` to succeed at once, or undefined to wait. */
  onConnect: ((address: string, port: number) => HostError | 'accept' | undefined) | undefined;
  /** When set, no socket can be opened. */
  exhausted: HostError | undefined;
  /** Most sockets open at once. */
  socketsMax: number = Number.POSITIVE_INFINITY;
  #nextPort = 40_000;

  connect(
    addr: Uint8Array,
    addrOff: number,
    port: number,
    ttl: number,
    trafficClass: number,
    sink: StreamSink,
  ): HostStream | HostError {
    const trouble = this.#trouble();
    if (trouble) return trouble;
    const stream = new ScriptedStream(formatAddress(addr, addrOff), port, ttl, trafficClass, sink);
    this.streams.push(stream);
    const decision = this.onConnect?.(stream.address, port);
    if (decision && decision !== 'accept') return decision;
    // Events never come from within a call: a test that wants to accept at once polls settle().
    if (decision === 'accept') this.#accepting.push(stream);
    return stream;
  }

  readonly #accepting: ScriptedStream[] = [];

  #trouble(): HostError | undefined {
    if (this.exhausted) return this.exhausted;
    return this.socketsMax < Number.POSITIVE_INFINITY && this.open >= this.socketsMax ? 'EMFILE' : undefined;
  }

  /** Delivers the accepts that onConnect decided on. */
  settle(): void {
    for (const stream of this.#accepting.splice(0)) stream.accept();
  }

  listen(
    _addr: Uint8Array,
    _addrOff: number,
    port: number,
    sink: ListenSink,
  ): (Closable & { readonly port: number }) | HostError {
    const trouble = this.#trouble();
    if (trouble) return trouble;
    const listener = new ScriptedListener(port || this.#nextPort++, sink);
    this.listeners.push(listener);
    return listener;
  }

  openDatagram(
    _family: 4 | 6,
    _addr: Uint8Array | undefined,
    _addrOff: number,
    port: number,
    sink: DatagramSink,
  ): HostDatagram | HostError {
    const trouble = this.#trouble();
    if (trouble) return trouble;
    const datagram = new ScriptedDatagram(port || this.#nextPort++, sink);
    this.datagrams.push(datagram);
    return datagram;
  }

  openPing(_family: 4 | 6, sink: PingSink): HostPing | HostError {
    const trouble = this.#trouble();
    if (trouble) return trouble;
    const ping = new ScriptedPing(sink);
    this.pings.push(ping);
    return ping;
  }

  openGroup(addr: Uint8Array, addrOff: number, port: number, sink: DatagramSink): HostGroup | HostError {
    const trouble = this.#trouble();
    if (trouble) return trouble;
    const group = new ScriptedGroup(formatAddress(addr, addrOff), port, sink);
    this.groups.push(group);
    return group;
  }

  /** Sockets that are still open. */
  get open(): number {
    const streams = this.streams.filter((stream) => !stream.isClosed && !stream.isReset).length;
    return (
      streams +
      this.datagrams.filter((datagram) => !datagram.isClosed).length +
      this.pings.filter((ping) => !ping.isClosed).length
    );
  }
}
