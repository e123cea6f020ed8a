/**
 * A FUSE session: bytes of a request in, bytes of a reply out, no I/O of its own but what the host does for an
 * operation. A channel (the kernel's device, FUSE-T's socket, a test) carries both.
 *
 * Life: INIT first and once, then requests in any order, each answered before the next is taken. Only a lock that must
 * wait stays unanswered; pollAt() says when to ask poll() for such answers.
 */

import type { Memory } from './memory.ts';
import { NO_REPLY, Server, type ServerOptions } from './ops/server.ts';
import { operations } from './ops/table.ts';
import { Statistics } from './statistics.ts';
import { EINVAL, EIO, ENOSYS, ERRNO_MAX } from './wire/errno.ts';
import { BATCH_FORGET, FORGET, INIT, INTERRUPT } from './wire/opcode.ts';
import { OUT_HEADER_BYTES, Request } from './wire/request.ts';
import { putUint64 } from './wire/stat.ts';

/**
 * Told of a request that was handled: the path of its node before, bytes of the reply or a negative error, and the time
 * that it took. The request is only good during the call.
 */
export type OnRequest = (request: Request, path: string, result: number, elapsedMs: number) => void;

export class Session {
  readonly server: Server;
  /** Requests taken, by operation. */
  readonly statistics: Statistics;
  readonly #request: Request;
  readonly #onBug: (error: unknown, operation: string) => void;
  readonly #onRequest: OnRequest | undefined;
  #started = false;

  /**
   * @param onBug told of an exception in an operation, which its caller sees as EIO
   * @param onRequest told of each request after it was handled
   */
  constructor(
    options: ServerOptions & {
      request: Memory;
      statistics?: Statistics;
      onBug: (error: unknown, operation: string) => void;
      onRequest?: OnRequest;
    },
  ) {
    this.server = new Server(options);
    this.#request = new Request(options.request);
    this.statistics = options.statistics ?? new Statistics();
    this.#onBug = options.onBug;
    this.#onRequest = options.onRequest;
  }

  /** Whether INIT was answered. */
  get started(): boolean {
    return this.#started;
  }

  /** Handles the request of `length` bytes in `memory`; the bytes of the reply put into `reply`, 0 for none. */
  handle(memory: Memory, length: number, reply: Memory): number {
    const request = this.#request;
    const { server } = this;
    server.givenNode = undefined;
    server.givenHandle = undefined;
    if (!request.parse(memory, length)) return 0;
    const { opcode } = request;
    server.callerUid = request.uid;
    server.callerGid = request.gid;
    const onRequest = this.#onRequest;
    const path = onRequest === undefined ? '' : server.nodes.pathOf(request.nodeId);
    const startMs = server.clock.now();
    const result = this.#run(request, reply);
    const elapsedMs = server.clock.now() - startMs;
    this.statistics.record(opcode, elapsedMs);
    onRequest?.(request, path, result, elapsedMs);
    return result === NO_REPLY || unanswered(opcode) ? 0 : this.#header(reply, request.unique, result);
  }

  /** The last reply could not be delivered. */
  undeliverable(): void {
    this.server.takeBack();
  }

  /** When poll() is due on the session's clock: Infinity unless a lock waits. */
  pollAt(): number {
    return this.server.answers.length > 0 ? 0 : this.server.locks.pollAt();
  }

  /** Sends the answers to requests that waited and are through. */
  poll(now: number, reply: Memory, send: (length: number) => void): void {
    const { answers, locks } = this.server;
    locks.poll(now, (unique, result) => answers.push({ unique, result }));
    for (const { unique, result } of answers.splice(0)) send(this.#header(reply, unique, result));
  }

  close(): void {
    this.server.close();
  }

  #run(request: Request, reply: Memory): number {
    const operation = operations[request.opcode];
    if (operation === undefined) return -ENOSYS;
    if (this.#started === (request.opcode === INIT)) return -EIO;
    if (request.length < 40 + operation.bytesMin) return -EINVAL;
    try {
      const repeated = this.server.notifier?.answer(request, reply);
      const result = repeated ?? operation.run(this.server, request, reply);
      if (request.opcode === INIT) this.#started = result > 0;
      return result;
    } catch (error) {
      this.#onBug(error, operation.name);
      return -EIO;
    }
  }

  /** Writes struct fuse_out_header for a body of `result` bytes or a negative error; the reply's length. */
  #header(reply: Memory, unique: number, result: number): number {
    const words = reply.words;
    const length = OUT_HEADER_BYTES + Math.max(0, result);
    words[0] = length;
    words[1] = 0;
    if (result < 0) {
      const error = this.server.layout.errno(-result);
      words[1] = -(error <= ERRNO_MAX ? error : EIO);
    }
    putUint64(words, 2, unique);
    return length;
  }
}

/** Requests for which the protocol has no reply, not even an error. */
function unanswered(opcode: number): boolean {
  return opcode === FORGET || opcode === BATCH_FORGET || opcode === INTERRUPT;
}
