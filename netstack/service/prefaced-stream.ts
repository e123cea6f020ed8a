/** A stream on which something is said, and may be answered, before it is the guest's. */
import type { HostError, HostIcmpError, HostStream, StreamSink } from '../flow/host.ts';

/** Longest answer. */
const ANSWER_BYTES_MAX = 8192;

/**
 * Reads an answer as far as it has come: where it ends when it is a yes, -1 when it is a no, undefined when there must be
 * more of it.
 */
export type ReadAnswer = (bytes: Uint8Array) => number | undefined;

export class PrefacedStream implements HostStream, StreamSink {
  readonly #preface: Uint8Array;
  readonly #answer: ReadAnswer | undefined;
  readonly #sink: StreamSink;
  readonly #refused: () => void;
  #inner: HostStream | undefined;
  #sent = 0;
  #isOpen = false;
  #isOver = false;
  /** The answer while it comes; then what came behind it, not yet read. */
  #buffer: Uint8Array = new Uint8Array(0);

  /** @param answer reads what the other side says to the preface; undefined: it says nothing. @param refused it has said no */
  constructor(preface: Uint8Array, answer: ReadAnswer | undefined, sink: StreamSink, refused: () => void) {
    this.#preface = preface;
    this.#answer = answer;
    this.#sink = sink;
    this.#refused = refused;
  }

  attach(inner: HostStream): void {
    this.#inner = inner;
  }

  connected(): void {
    this.#speak();
  }

  writable(): void {
    if (this.#isOpen) this.#sink.writable();
    else this.#speak();
  }

  #speak(): void {
    const left = this.#preface.length - this.#sent;
    if (left > 0) this.#sent += this.#inner!.write(this.#preface, this.#sent, left);
    if (this.#sent < this.#preface.length || this.#answer || this.#isOpen) return;
    this.#open();
  }

  #open(): void {
    this.#isOpen = true;
    this.#sink.connected();
    // Bytes behind the answer are here already, and the stream was not read to its end: say so once.
    if (this.#answer && !this.#isOver) this.#sink.readable();
  }

  readable(): void {
    if (this.#isOpen) this.#sink.readable();
    else if (this.#answer) this.#listen();
  }

  /** Reads the answer. */
  #listen(): void {
    const chunk = new Uint8Array(1024);
    for (;;) {
      const count = this.#inner!.read(chunk, 0, chunk.length);
      if (count === 0) return;
      if (count < 0) {
        this.#refuse();
        return;
      }
      const joined = new Uint8Array(this.#buffer.length + count);
      joined.set(this.#buffer);
      joined.set(chunk.subarray(0, count), this.#buffer.length);
      this.#buffer = joined;
      const end = this.#answer!(joined);
      if (end === undefined && joined.length <= ANSWER_BYTES_MAX) continue;
      if (end !== undefined && end >= 0) {
        this.#buffer = joined.slice(end);
        this.#open();
      } else this.#refuse();
      return;
    }
  }

  #refuse(): void {
    this.#isOver = true;
    this.#refused();
    this.#inner!.close();
    this.#sink.failed('ECONNREFUSED');
  }

  failed(error: HostError, icmp?: HostIcmpError): void {
    this.#isOver = true;
    this.#sink.failed(error, icmp);
  }

  read(buf: Uint8Array, off: number, len: number): number {
    const kept = Math.min(len, this.#buffer.length);
    if (kept === 0) return this.#inner!.read(buf, off, len);
    buf.set(this.#buffer.subarray(0, kept), off);
    this.#buffer = this.#buffer.subarray(kept);
    return kept;
  }

  write(buf: Uint8Array, off: number, len: number): number {
    return this.#inner!.write(buf, off, len);
  }

  shutdown(): void {
    this.#inner!.shutdown();
  }

  reset(): void {
    this.#isOver = true;
    this.#inner!.reset();
  }

  close(): void {
    this.#isOver = true;
    this.#inner!.close();
  }

  setTrafficClass(trafficClass: number): void {
    this.#inner!.setTrafficClass?.(trafficClass);
  }
}
