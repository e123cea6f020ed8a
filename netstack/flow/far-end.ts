/**
 * The two kinds of far end of a TCP flow: a socket of the host, and a user inside the stack (a service, or whoever dialled).
 *
 * The near end is always the guest's TcpConnection. A flow tells its far end what happened there and lets it move bytes once per
 * batch; a far end that got news from its own side touches the flow, so that it gets its turn.
 */
import type { TcpConnection, TcpFailure } from '../tcp/connection.ts';
import type { HostError, HostIcmpError, HostStream, StreamSink } from './host.ts';

/** What a far end may ask of its flow. */
export interface FlowHandle {
  readonly conn: TcpConnection;
  /** Gives the flow a turn in this batch. */
  touch(): void;
  /** The far side is connected: the guest's SYN can be answered. */
  farConnected(): void;
  /** The far side could not be connected. */
  farRefused(error: HostError, icmp: HostIcmpError | undefined): void;
  countFromGuest(bytes: number): void;
  countToGuest(bytes: number): void;
}

export interface FarEnd {
  /** The guest's handshake is complete. */
  opened(): void;
  /** Takes bytes right out of a frame; returns how many. Called only when none are queued before them. */
  take(buf: Uint8Array, off: number, len: number): number;
  /** Moves bytes both ways, as many as fit. */
  pump(): void;
  /** The guest marks its packets with other differentiated services from now on. */
  setTrafficClass(trafficClass: number): void;
  /** The guest's connection is over. `failure` undefined: in good order. */
  closed(failure: TcpFailure | undefined): void;
}

/** A socket of the host. */
export class HostEnd implements FarEnd, StreamSink {
  readonly #flow: FlowHandle;
  #stream: HostStream | undefined;
  #connected: boolean;
  /** The socket may have bytes. */
  #readable = false;
  /** The socket took fewer bytes than it was given. */
  #blocked = false;
  /** End of stream came from the socket; was sent to it. */
  #eof = false;
  #shut = false;

  readonly #opened: (() => void) | undefined;

  /**
   * @param connected the stream is connected already: a client of a published port.
   * @param opened called when the guest's side is established, before any byte of it moves.
   */
  constructor(flow: FlowHandle, connected: boolean, opened?: () => void) {
    this.#flow = flow;
    this.#opened = opened;
    this.#connected = connected;
    this.#readable = connected;
  }

  /** Gives the end its socket, once connect() has returned it. */
  attach(stream: HostStream): void {
    this.#stream = stream;
  }

  connected(): void {
    this.#connected = true;
    this.#flow.farConnected();
    this.#flow.touch();
  }

  readable(): void {
    this.#readable = true;
    this.#flow.touch();
  }

  writable(): void {
    this.#blocked = false;
    this.#flow.touch();
  }

  failed(error: HostError, icmp?: HostIcmpError): void {
    this.#stream = undefined;
    if (this.#connected) this.#flow.conn.abort();
    else this.#flow.farRefused(error, icmp);
    this.#flow.touch();
  }

  opened(): void {
    this.#opened?.();
  }

  take(buf: Uint8Array, off: number, len: number): number {
    if (!this.#connected || this.#blocked || !this.#stream) return 0;
    const taken = this.#stream.write(buf, off, len);
    if (taken < len) this.#blocked = true;
    this.#flow.countFromGuest(taken);
    return taken;
  }

  setTrafficClass(trafficClass: number): void {
    this.#stream?.setTrafficClass?.(trafficClass);
  }

  pump(): void {
    if (!this.#connected) return;
    this.#toHost();
    this.#toGuest();
    // Nothing is left to move: the socket's kernel does the rest, while our side may linger in TIME-WAIT.
    if (this.#eof && this.#shut) this.#close();
  }

  #toHost(): void {
    const { conn } = this.#flow;
    while (this.#stream && !this.#blocked) {
      const region = conn.readable();
      if (region.len === 0) break;
      const { len } = region;
      const taken = this.#stream.write(region.buf, region.off, len);
      if (taken < len) this.#blocked = true;
      if (taken === 0) break;
      conn.consumed(taken);
      this.#flow.countFromGuest(taken);
    }
    if (this.#stream && !this.#shut && conn.endOfStream) {
      this.#shut = true;
      this.#stream.shutdown();
    }
  }

  #toGuest(): void {
    const { conn } = this.#flow;
    while (this.#stream && this.#readable && !this.#eof && conn.hasRoom) {
      const region = conn.writable();
      if (region.len === 0) break;
      const got = this.#stream.read(region.buf, region.off, region.len);
      conn.produced(Math.max(0, got));
      if (got > 0) {
        this.#flow.countToGuest(got);
        continue;
      }
      this.#readable = false;
      if (got === 0) break;
      this.#eof = true;
      conn.finish();
    }
  }

  closed(failure: TcpFailure | undefined): void {
    if (failure === undefined || failure === 'aborted') this.#close();
    else {
      // The guest's RST goes on as a RST; so does a guest that is gone.
      this.#stream?.reset();
      this.#stream = undefined;
    }
  }

  #close(): void {
    this.#stream?.close();
    this.#stream = undefined;
  }
}

/** A user inside the stack, who holds this as a HostStream and gets events by a sink. */
export class InsideEnd implements FarEnd, HostStream {
  readonly #flow: FlowHandle;
  #sink: StreamSink | undefined;
  readonly #accept: ((stream: HostStream) => StreamSink | undefined) | undefined;
  #opened = false;
  /** The user wants to know when there is something to read, or room to write. */
  #wantsRead = true;
  #wantsWrite = false;
  #eofSeen = false;

  /**
   * @param sink the user's events, for one who dialled; @param accept who accepts the connection when it is open, for a listener.
   */
  constructor(
    flow: FlowHandle,
    sink: StreamSink | undefined,
    accept?: (stream: HostStream) => StreamSink | undefined,
  ) {
    this.#flow = flow;
    this.#sink = sink;
    this.#accept = accept;
  }

  opened(): void {
    this.#opened = true;
    if (!this.#accept) {
      this.#sink?.connected();
      return;
    }
    this.#sink = this.#accept(this);
    if (!this.#sink) this.#flow.conn.abort();
  }

  take(): number {
    return 0;
  }

  /** It goes no further than the stack. */
  setTrafficClass(): void {}

  pump(): void {
    const { conn } = this.#flow;
    if (!this.#opened || !this.#sink) return;
    if (this.#wantsRead && (conn.readable().len > 0 || (conn.endOfStream && !this.#eofSeen))) {
      this.#wantsRead = false;
      this.#sink.readable();
    }
    if (this.#wantsWrite && conn.hasRoom) {
      this.#wantsWrite = false;
      this.#sink?.writable();
    }
  }

  closed(failure: TcpFailure | undefined): void {
    const sink = this.#sink;
    this.#sink = undefined;
    if (failure === 'refused') sink?.failed('ECONNREFUSED');
    else if (failure === 'reset') sink?.failed('ECONNRESET');
    else if (failure === 'timed-out') sink?.failed('ETIMEDOUT');
  }

  /** The guest could not be reached at all. */
  unreachable(): void {
    const sink = this.#sink;
    this.#sink = undefined;
    sink?.failed('EHOSTUNREACH');
  }

  read(buf: Uint8Array, off: number, len: number): number {
    const { conn } = this.#flow;
    let copied = 0;
    while (copied < len) {
      const region = conn.readable();
      const part = Math.min(region.len, len - copied);
      if (part === 0) break;
      buf.set(region.buf.subarray(region.off, region.off + part), off + copied);
      conn.consumed(part);
      copied += part;
    }
    if (copied > 0) {
      this.#flow.countFromGuest(copied);
      this.#flow.touch();
      return copied;
    }
    if (conn.endOfStream) {
      this.#eofSeen = true;
      return -1;
    }
    this.#wantsRead = true;
    return 0;
  }

  write(buf: Uint8Array, off: number, len: number): number {
    const { conn } = this.#flow;
    let copied = 0;
    while (this.#opened && copied < len) {
      const region = conn.writable();
      const part = Math.min(region.len, len - copied);
      if (part === 0) break;
      region.buf.set(buf.subarray(off + copied, off + copied + part), region.off);
      conn.produced(part);
      copied += part;
    }
    if (copied < len) this.#wantsWrite = true;
    this.#flow.countToGuest(copied);
    this.#flow.touch();
    return copied;
  }

  shutdown(): void {
    this.#flow.conn.finish();
    this.#flow.touch();
  }

  reset(): void {
    this.#sink = undefined;
    this.#flow.conn.abort();
    this.#flow.touch();
  }

  close(): void {
    this.#sink = undefined;
    // As a kernel does: unread bytes make the close a RST (RFC 2525 section 2.17), else the stream ends in order.
    if (this.#flow.conn.readable().len > 0) this.#flow.conn.abort();
    else this.#flow.conn.finish();
    this.#flow.touch();
  }
}
