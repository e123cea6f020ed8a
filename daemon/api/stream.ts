/**
 * Answers that last: JSON lines (progress, events, stats), wait's early headers.
 * Their status is out before their work is done, so a later failure is told inside the stream.
 */
import type { ServerResponse } from 'node:http';
import type { FastifyReply } from 'fastify';
import { errorMessage } from '#common/errors';

/** Sends status and headers now and leaves the body to the caller. */
export function openStream(reply: FastifyReply, contentType: string): ServerResponse {
  reply.hijack();
  const { raw } = reply;
  raw.on('error', () => raw.destroy());
  raw.writeHead(200, { ...(reply.getHeaders() as Record<string, string>), 'Content-Type': contentType });
  raw.flushHeaders();
  return raw;
}

/** Resolves when `stream` takes bytes again, or has closed. */
export function drained(stream: NodeJS.WritableStream): Promise<void> {
  return new Promise((resolve) => {
    const settle = (): void => {
      stream.off('drain', settle);
      stream.off('close', settle);
      resolve();
    };
    stream.on('drain', settle);
    stream.on('close', settle);
  });
}

/** A stream of JSON lines to one client. */
export class JsonLines {
  readonly #response: ServerResponse;
  readonly #gone = new AbortController();

  constructor(reply: FastifyReply) {
    this.#response = openStream(reply, 'application/json');
    this.#response.once('close', () => this.#gone.abort());
  }

  /** Aborted when the client has hung up, and after end(). */
  get gone(): AbortSignal {
    return this.#gone.signal;
  }

  /** Writes one line. Resolves when the client keeps up. */
  async write(line: object): Promise<void> {
    if (this.#gone.signal.aborted) return;
    if (!this.#response.write(`${JSON.stringify(line)}\r\n`)) await drained(this.#response);
  }

  /** Tells of a failure in mid-stream as docker's JSON messages do, and ends. */
  fail(error: unknown): void {
    const message = errorMessage(error);
    // The exit code of a build's RUN: the CLI ends with it.
    const code = (error as { exitCode?: unknown } | null)?.exitCode;
    const errorDetail = { ...(typeof code === 'number' && { code }), message };
    this.#response.end(`${JSON.stringify({ errorDetail, error: message })}\r\n`);
  }

  /** Hangs up on a client that does not read. */
  abandon(): void {
    this.#response.destroy();
  }

  end(): void {
    this.#response.end();
  }
}
