/**
 * Bodies that are held in memory until they are whole: those of JSON. Each has a limit, and all together have one, so that many
 * clients at once end in a refusal instead of the daemon's memory.
 */
import type { IncomingMessage } from 'node:http';
import type { Readable } from 'node:stream';
import { DrydockError } from '#common/errors';
import { BODIES_BYTES_MAX, JSON_BODY_BYTES_MAX } from '../limits.ts';

/** Bytes that are held of all bodies: one number, since they share the memory of one process. */
let heldBytes = 0;

/** What is held of one body. */
export class HeldBody {
  #parts: Buffer[] = [];
  #length = 0;

  get length(): number {
    return this.#length;
  }

  /** @throws ERR_BODY_TOO_LARGE, ERR_BUSY */
  add(part: Buffer): void {
    this.#parts.push(part);
    this.#length += part.length;
    heldBytes += part.length;
    if (this.#length > JSON_BODY_BYTES_MAX) throw tooLarge();
    if (heldBytes > BODIES_BYTES_MAX)
      throw new DrydockError(
        'ERR_BUSY',
        'the daemon holds as many bytes of request bodies as it may: send the request again later',
      );
  }

  /** Gives the body out, or lets go of what there is of it. */
  take(): Buffer {
    heldBytes -= this.#length;
    this.#length = 0;
    return Buffer.concat(this.#parts.splice(0));
  }
}

function tooLarge(): DrydockError {
  return new DrydockError(
    'ERR_BODY_TOO_LARGE',
    `the request body is too large: it may have ${JSON_BODY_BYTES_MAX} bytes`,
  );
}

/** Reads the body of a request. @throws ERR_BODY_TOO_LARGE, ERR_BUSY, and what ended the stream */
export function readText(request: IncomingMessage, payload: Readable): Promise<string> {
  const body = new HeldBody();
  return new Promise<void>((resolve, reject) => {
    if (Number(request.headers['content-length'] ?? 0) > JSON_BODY_BYTES_MAX) throw tooLarge();
    payload.on('data', (part: Buffer) => {
      try {
        body.add(part);
      } catch (error) {
        // What follows is let by until the answer has ended the connection.
        payload.removeAllListeners('data').resume();
        reject(error);
      }
    });
    payload.once('end', resolve);
    payload.once('error', reject);
  }).then(
    () => body.take().toString('utf8'),
    (error) => {
      body.take();
      throw error;
    },
  );
}
