/**
 * One client on a process's streams: what `attach` and `exec start` do once the connection has been hijacked. It
 * follows moby's container/stream/attach.go: a terminal's client can type the detach keys; the end of the client's
 * input ends the process's input when that was asked for, else it ends the attachment.
 */
import type { Readable, Writable } from 'node:stream';
import { DrydockError } from '#common/errors';
import type { OutputSink, ProcessIo, StreamNumber } from './io.ts';

/** What a client wants of a process's streams. */
export interface AttachRequest {
  input: Readable | undefined;
  output: Writable;
  stdin: boolean;
  stdout: boolean;
  stderr: boolean;
  /** The process has a terminal: detach keys work, and the end of input is not the process's. */
  terminal: boolean;
  /** Each chunk gets docker's 8-byte frame header. */
  framed: boolean;
  /** The client's end of input is the process's. */
  closeStdin: boolean;
  detachKeys: Uint8Array;
  /** Written to the client before anything else, such as the log so far; new output waits meanwhile. */
  prologue?: () => Promise<void>;
}

/** Why an attachment is over. */
export type AttachEnd = 'ended' | 'detached' | 'hung-up';

/** `ctrl-p,ctrl-q` */
const DETACH_KEYS_DEFAULT = Uint8Array.of(16, 17);

/** Parses `ctrl-a,x` (moby/term ascii.go). @throws ERR_BAD_PARAMETER */
export function parseDetachKeys(text: string): Uint8Array {
  if (text === '') return DETACH_KEYS_DEFAULT;
  const codes: number[] = [];
  for (const key of text.split(',')) {
    if (/^ctrl-[a-zA-Z@[\\\]^_]$/.test(key)) codes.push(key.toUpperCase().charCodeAt(5) & 0x1f);
    else if (key.length === 1 && key.charCodeAt(0) < 128) codes.push(key.charCodeAt(0));
    else
      throw new DrydockError(
        'ERR_BAD_PARAMETER',
        `Invalid detach keys (${text}) provided: write them as in "ctrl-p,ctrl-q" or "a"`,
      );
  }
  return Uint8Array.from(codes);
}

/** Finds the detach keys in what a terminal's client types. Bytes of a sequence that was begun are held back until it is clear that it is none. */
export class DetachScanner {
  readonly #keys: Uint8Array;
  #matched = 0;

  constructor(keys: Uint8Array) {
    this.#keys = keys;
  }

  /** Returns the bytes to pass on, and whether the keys were completed. */
  scan(chunk: Uint8Array): { pass: Buffer; detach: boolean } {
    const pass: number[] = [];
    for (const byte of chunk) {
      if (byte === this.#keys[this.#matched]) {
        this.#matched++;
        if (this.#matched === this.#keys.length) {
          this.#matched = 0;
          return { pass: Buffer.from(pass), detach: true };
        }
        continue;
      }
      for (let i = 0; i < this.#matched; i++) pass.push(this.#keys[i]!);
      this.#matched = 0;
      if (byte === this.#keys[0]) this.#matched = 1;
      else pass.push(byte);
    }
    return { pass: Buffer.from(pass), detach: false };
  }
}

/** Writes output to a client. */
class ClientSink implements OutputSink {
  drained?: () => void;
  readonly #request: AttachRequest;
  readonly #onEnd: () => void;
  #held: [StreamNumber, Buffer][] | undefined;
  #ended = false;

  constructor(request: AttachRequest, onEnd: () => void) {
    this.#request = request;
    this.#onEnd = onEnd;
    request.output.on('drain', () => this.drained?.());
    if (request.prologue) this.#held = [];
  }

  /** Lets output through that waited for the prologue. */
  release(): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const [stream, chunk] of held) this.write(stream, chunk);
    if (this.#ended) this.#onEnd();
    else this.drained?.();
  }

  write(stream: StreamNumber, chunk: Buffer): boolean {
    const { output, framed, stdout, stderr } = this.#request;
    if (!(stream === 1 ? stdout : stderr) || output.destroyed) return true;
    if (this.#held) {
      this.#held.push([stream, chunk]);
      return false;
    }
    if (!framed) return output.write(chunk);
    output.cork();
    output.write(frameHeader(stream, chunk.length));
    const room = output.write(chunk);
    output.uncork();
    return room;
  }

  end(): void {
    if (this.#held) this.#ended = true;
    else this.#onEnd();
  }
}

/** The 8-byte header of a multiplexed frame: stream, three zero bytes, length (big endian). */
export function frameHeader(stream: number, length: number): Buffer {
  const header = Buffer.alloc(8);
  header[0] = stream;
  header.writeUInt32BE(length, 4);
  return header;
}

/**
 * Attaches a client until the process ends, the client detaches or hangs up. The client's connection is ended then.
 * What happens is decided by whichever comes first.
 */
export function attach(io: ProcessIo, request: AttachRequest): Promise<AttachEnd> {
  const { input, output } = request;
  return new Promise((resolve) => {
    let over = false;
    const finish = (why: AttachEnd): void => {
      if (over) return;
      over = true;
      io.delete(sink);
      input?.removeAllListeners('data');
      // What the client still sends must be read, or its end would never be seen.
      input?.resume();
      output.end();
      resolve(why);
    };
    const sink = new ClientSink(request, () => finish('ended'));
    io.add(sink);
    void request.prologue?.().then(
      () => sink.release(),
      () => finish('hung-up'),
    );
    output.once('close', () => finish('hung-up'));
    output.on('error', () => finish('hung-up'));
    if (input === undefined) return;
    if (request.stdin) void pumpInput(io, request, input, finish);
    else input.resume();
  });
}

async function pumpInput(
  io: ProcessIo,
  request: AttachRequest,
  input: Readable,
  finish: (why: AttachEnd) => void,
): Promise<void> {
  const scanner = request.terminal ? new DetachScanner(request.detachKeys) : undefined;
  // An input without a byte ends while the process is still to start.
  input.once('end', () => {
    if (request.closeStdin && !request.terminal) io.endInput();
    else finish('ended');
  });
  const target = await io.input();
  input.on('data', (chunk: Buffer) => {
    const { pass, detach } = scanner?.scan(chunk) ?? { pass: chunk, detach: false };
    if (pass.length > 0 && target?.writable && !target.write(pass)) {
      input.pause();
      const go = (): void => {
        target.off('drain', go);
        target.off('close', go);
        input.resume();
      };
      target.on('drain', go);
      target.on('close', go);
    }
    if (detach) finish('detached');
  });
}
