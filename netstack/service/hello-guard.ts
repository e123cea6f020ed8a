/**
 * Holds the first bytes that a guest sends on a connection until they tell which TLS server name it wants, and resets
 * the connection when the policy denies that. Nothing is held of what the server sends; a guest that waits for a server that
 * speaks first is not stuck.
 */
import type { HostError, HostIcmpError, HostStream, StreamSink } from '../flow/host.ts';
import { CLIENT_HELLO_BYTES_MAX, readClientHello } from '../wire/tls.ts';

/** What a guard asks. */
export interface HelloJudge {
  /** May the connection go on, to this server name (undefined: it names none)? */
  allows(name: string | undefined): boolean;
  /** Calls `later` from the host's loop, not from within the core's call. */
  defer(later: () => void): void;
}

/** A stream before its guest has said whom it wants; the sink of the stream that it wraps. */
export class GuardedStream implements HostStream, StreamSink {
  readonly #sink: StreamSink;
  readonly #judge: HelloJudge;
  #inner: HostStream | undefined;
  #held: Uint8Array | undefined = new Uint8Array(1024);
  #heldLen = 0;
  /** Bytes of the held ones that the socket has taken, once the connection may go on. */
  #flushed = -1;
  #isBlocked = false;
  #isOver = false;
  #isEnding = false;

  constructor(sink: StreamSink, judge: HelloJudge) {
    this.#sink = sink;
    this.#judge = judge;
  }

  attach(inner: HostStream): void {
    this.#inner = inner;
  }

  connected(): void {
    this.#sink.connected();
  }

  readable(): void {
    this.#sink.readable();
  }

  writable(): void {
    if (this.#held && this.#flushed >= 0) this.#flush();
    if (this.#held || !this.#isBlocked) return;
    this.#isBlocked = false;
    this.#sink.writable();
  }

  failed(error: HostError, icmp?: HostIcmpError): void {
    this.#isOver = true;
    this.#sink.failed(error, icmp);
  }

  read(buf: Uint8Array, off: number, len: number): number {
    return this.#isOver ? 0 : this.#inner!.read(buf, off, len);
  }

  write(buf: Uint8Array, off: number, len: number): number {
    if (this.#isOver) return 0;
    if (!this.#held) {
      const taken = this.#inner!.write(buf, off, len);
      if (taken < len) this.#isBlocked = true;
      return taken;
    }
    if (this.#flushed >= 0) {
      this.#isBlocked = true;
      return 0;
    }
    const count = this.#hold(buf, off, len);
    const hello = readClientHello(this.#held, this.#heldLen);
    if (hello !== 'more') this.#decide(hello.name);
    else if (this.#heldLen === CLIENT_HELLO_BYTES_MAX) this.#decide(undefined);
    if (count < len) this.#isBlocked = true;
    return count;
  }

  #hold(buf: Uint8Array, off: number, len: number): number {
    const count = Math.min(len, CLIENT_HELLO_BYTES_MAX - this.#heldLen);
    if (this.#heldLen + count > this.#held!.length) {
      const larger = new Uint8Array(CLIENT_HELLO_BYTES_MAX);
      larger.set(this.#held!);
      this.#held = larger;
    }
    this.#held!.set(buf.subarray(off, off + count), this.#heldLen);
    this.#heldLen += count;
    return count;
  }

  #decide(name: string | undefined): void {
    if (this.#judge.allows(name)) {
      this.#flushed = 0;
      this.#flush();
      // What did not fit behind the hello may come now.
      this.#judge.defer(() => this.writable());
      return;
    }
    this.#isOver = true;
    this.#inner!.reset();
    this.#judge.defer(() => this.#sink.failed('ECONNRESET'));
  }

  #flush(): void {
    const left = this.#heldLen - this.#flushed;
    this.#flushed += this.#inner!.write(this.#held!, this.#flushed, left);
    if (this.#flushed < this.#heldLen) return;
    this.#held = undefined;
    if (this.#isEnding) this.#inner!.shutdown();
  }

  shutdown(): void {
    if (this.#isOver) return;
    this.#isEnding = true;
    // The guest has said all that it will say.
    if (this.#held && this.#flushed < 0) this.#decide(undefined);
    else if (!this.#held) this.#inner!.shutdown();
  }

  reset(): void {
    if (!this.#isOver) this.#inner!.reset();
    this.#isOver = true;
  }

  close(): void {
    if (!this.#isOver) this.#inner!.close();
    this.#isOver = true;
  }

  setTrafficClass(trafficClass: number): void {
    if (!this.#isOver) this.#inner!.setTrafficClass?.(trafficClass);
  }
}
