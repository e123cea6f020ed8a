/**
 * FUSE over a byte stream, where a request may come in any pieces: the header first, which tells the length, then the
 * rest. The kernel's device has none of this, since each read there is one request.
 */
import { allocate, type Memory } from '../memory.ts';
import type { Session } from '../session.ts';
import { IN_HEADER_BYTES } from '../wire/request.ts';

/** Puts a stream's pieces together and has each whole request handled. */
export class StreamServer {
  readonly #session: Session;
  readonly #request: Memory;
  readonly #reply: Memory;
  readonly #send: (bytes: Buffer) => void;
  #filled = 0;

  /**
   * @param bytesMax the largest request; a peer that announces more is broken.
   * @param send takes a whole reply, a copy of its own.
   */
  constructor(
    session: Session,
    bytesMax: number,
    addressOf: (view: Uint8Array) => number,
    send: (bytes: Buffer) => void,
  ) {
    this.#session = session;
    this.#request = allocate(bytesMax, addressOf);
    this.#reply = allocate(bytesMax, addressOf);
    this.#send = send;
  }

  /** Takes what came. False when the stream can't be understood and must be closed. */
  receive(chunk: Uint8Array): boolean {
    const { bytes, words } = this.#request;
    for (let at = 0; at < chunk.length; ) {
      const whole = this.#filled < IN_HEADER_BYTES ? IN_HEADER_BYTES : words[0]!;
      const count = Math.min(whole - this.#filled, chunk.length - at);
      bytes.set(chunk.subarray(at, at + count), this.#filled);
      this.#filled += count;
      at += count;
      if (this.#filled < IN_HEADER_BYTES) continue;
      const length = words[0]!;
      if (length < IN_HEADER_BYTES || length > bytes.length) return false;
      if (this.#filled < length) continue;
      this.#filled = 0;
      const reply = this.#session.handle(this.#request, length, this.#reply);
      if (reply > 0) this.#send(Buffer.from(this.#reply.bytes.subarray(0, reply)));
    }
    return true;
  }
}
