/**
 * gRPC over connections that were taken over from HTTP/1. As a client: `/session` turns the roles around, so that the
 * daemon calls services of its client. As a server: `/grpc`. HTTP/2 is Node's; on top of it are frames of one flag byte,
 * a length and a message, and a status in the trailers (grpc/grpc, doc/PROTOCOL-HTTP2.md).
 */
import {
  type ClientHttp2Session,
  connect,
  createServer,
  type Http2Server,
  type Http2Stream,
  type IncomingHttpHeaders,
  type ServerHttp2Stream,
} from 'node:http2';
import type { Duplex } from 'node:stream';
import { DrydockError, errorCode, errorMessage } from '#common/errors';

const FRAME_HEADER_BYTES = 5;
/** gRPC's own limit is 4 MiB; BuildKit raises it to this. */
const MESSAGE_BYTES_MAX = 16 << 20;
/** What the peer may send before it is read: one stream at a time carries much. */
const WINDOW_BYTES = 4 << 20;

/** A status other than OK that the peer has answered. */
export class GrpcError extends DrydockError {
  /** grpc/grpc, doc/statuscodes.md. */
  readonly status: number;
  constructor(status: number, message: string) {
    super('ERR_SESSION', message);
    this.status = status;
  }
}

/** Metadata of a call; a name may have several values. */
export type Metadata = Record<string, string | string[]>;

/** A call under way, with messages both ways. */
export interface GrpcCall {
  /** Resolves when the peer takes more. */
  send(message: Uint8Array): Promise<void>;
  /** No more messages from here. */
  end(): void;
  /** The peer's messages. @throws GrpcError for a status other than OK */
  messages(): AsyncGenerator<Buffer>;
  cancel(): void;
}

/** Calls services of the peer. */
export class GrpcClient {
  readonly #session: ClientHttp2Session;

  constructor(socket: Duplex) {
    this.#session = connect('http://session', {
      createConnection: () => socket,
      settings: { initialWindowSize: WINDOW_BYTES, enablePush: false },
    });
    this.#session.on('error', () => this.#session.destroy());
    this.#session.once('connect', () => {
      if (!this.#session.destroyed) this.#session.setLocalWindowSize(WINDOW_BYTES);
    });
  }

  /** Told once the peer has shown, by its SETTINGS (RFC 9113 section 3.4), that it serves the connection. */
  onServed(served: () => void): void {
    this.#session.once('remoteSettings', served);
  }

  onClose(gone: () => void): void {
    this.#session.once('close', gone);
  }

  close(): void {
    this.#session.destroy();
  }

  /** Begins a call. @param path `/package.Service/Method` */
  call(path: string, metadata: Metadata, signal: AbortSignal): GrpcCall {
    signal.throwIfAborted();
    if (this.#session.closed || this.#session.destroyed)
      throw new DrydockError('ERR_SESSION', 'the session of the client has ended');
    const stream = this.#session.request(
      {
        ...metadata,
        ':method': 'POST',
        ':path': path,
        'content-type': 'application/grpc',
        te: 'trailers',
      },
      { signal },
    );
    // Told by whoever reads.
    stream.on('error', () => {});
    return {
      send: (message) => sendFrame(stream, message),
      end: () => void stream.end(),
      messages: () => readFrames(stream),
      cancel: () => stream.close(),
    };
  }

  /** A call with one message each way. */
  async unary(path: string, message: Uint8Array, signal: AbortSignal): Promise<Buffer> {
    const call = this.call(path, {}, signal);
    await call.send(message);
    call.end();
    let answer: Buffer | undefined;
    for await (const each of call.messages()) answer = each;
    if (!answer) throw new GrpcError(13, `${path} was answered without a message`);
    return answer;
  }
}

/** One frame of a message. */
export function frame(message: Uint8Array): Buffer {
  const head = Buffer.alloc(FRAME_HEADER_BYTES);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

async function sendFrame(stream: Http2Stream, message: Uint8Array): Promise<void> {
  if (stream.destroyed || stream.writableEnded) throw new GrpcError(1, 'the call has ended');
  if (stream.write(frame(message))) return;
  await new Promise<void>((resolve) => {
    const settle = (): void => {
      stream.off('drain', settle);
      stream.off('close', settle);
      resolve();
    };
    stream.on('drain', settle);
    stream.on('close', settle);
  });
}

/** Cuts chunks into messages. Pure but for what it keeps between chunks. */
export class FrameReader {
  #rest: Buffer = Buffer.alloc(0);

  /** @throws GrpcError for a compressed or an oversized message, of which none was agreed */
  push(chunk: Buffer): Buffer[] {
    this.#rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    const messages: Buffer[] = [];
    let at = 0;
    while (this.#rest.length - at >= FRAME_HEADER_BYTES) {
      if (this.#rest[at] !== 0) throw new GrpcError(12, 'the message is compressed, which was not agreed');
      const length = this.#rest.readUInt32BE(at + 1);
      if (length > MESSAGE_BYTES_MAX)
        throw new GrpcError(8, `a message of ${length} bytes is larger than ${MESSAGE_BYTES_MAX}`);
      if (this.#rest.length - at < FRAME_HEADER_BYTES + length) break;
      messages.push(this.#rest.subarray(at + FRAME_HEADER_BYTES, at + FRAME_HEADER_BYTES + length));
      at += FRAME_HEADER_BYTES + length;
    }
    this.#rest = this.#rest.subarray(at);
    return messages;
  }
}

async function* readMessages(stream: Http2Stream): AsyncGenerator<Buffer> {
  const reader = new FrameReader();
  // Who has read enough has not ended the call.
  for await (const chunk of stream.iterator({ destroyOnReturn: false })) yield* reader.push(chunk as Buffer);
}

async function* readFrames(stream: Http2Stream): AsyncGenerator<Buffer> {
  let status: IncomingHttpHeaders = {};
  const take = (headers: IncomingHttpHeaders): void => {
    if (headers['grpc-status'] !== undefined) status = headers;
  };
  stream.on('response', take);
  stream.on('trailers', take);
  try {
    yield* readMessages(stream);
  } catch (error) {
    if (status['grpc-status'] === undefined) throw error;
  }
  const code = Number(status['grpc-status'] ?? 14);
  if (code === 0) return;
  const text = String(status['grpc-message'] ?? 'the session of the client has ended');
  throw new GrpcError(code, decodeMessage(text));
}

/** grpc-message is percent-encoded. */
function decodeMessage(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** A call of a client, as its handler sees it. */
export interface ServerCall {
  readonly metadata: IncomingHttpHeaders;
  /** Aborted when the client cancels, or has gone. */
  readonly signal: AbortSignal;
  messages(): AsyncGenerator<Buffer>;
  /** Resolves when the client takes more. */
  send(message: Uint8Array): Promise<void>;
}

/** Answers one method. A status other than OK is what it throws. */
export type GrpcHandler = (call: ServerCall) => Promise<void>;

/** A method with one message each way. @throws GrpcError for a call without a message */
export function unaryHandler(
  handle: (request: Buffer, call: ServerCall) => Promise<Uint8Array> | Uint8Array,
): GrpcHandler {
  return async (call) => {
    for await (const request of call.messages()) return call.send(await handle(request, call));
    throw new GrpcError(13, 'the call has no message');
  };
}

/** Serves methods by path, `/package.Service/Method`, on connections that are handed to it. */
export class GrpcServer {
  readonly #server: Http2Server;
  readonly #methods: ReadonlyMap<string, GrpcHandler>;

  constructor(methods: ReadonlyMap<string, GrpcHandler>) {
    this.#methods = methods;
    this.#server = createServer({ settings: { initialWindowSize: WINDOW_BYTES } });
    this.#server.on('session', (session) => {
      session.on('error', () => session.destroy());
    });
    this.#server.on('stream', (stream, headers) => void this.#answer(stream, headers));
  }

  /** Takes a connection over. */
  serve(socket: Duplex): void {
    this.#server.emit('connection', socket);
  }

  async #answer(stream: ServerHttp2Stream, headers: IncomingHttpHeaders): Promise<void> {
    // Told to whoever reads; and by the end of the stream.
    stream.on('error', () => {});
    const gone = new AbortController();
    stream.once('close', () => gone.abort(new DrydockError('ERR_CANCELED', 'context canceled')));
    let status: Record<string, string>;
    stream.once('wantTrailers', () => {
      if (!stream.destroyed) stream.sendTrailers(status);
    });
    stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
    try {
      const path = headers[':path'] ?? '';
      const handler = this.#methods.get(path);
      if (!handler) throw new GrpcError(12, `unknown method ${path}`);
      await handler({
        metadata: headers,
        signal: gone.signal,
        messages: () => readMessages(stream),
        send: (message) => sendFrame(stream, message),
      });
      status = { 'grpc-status': '0' };
    } catch (error) {
      status = statusOf(error);
    }
    stream.end();
  }
}

/** The status of an error in trailers. */
function statusOf(error: unknown): Record<string, string> {
  const code = error instanceof GrpcError ? error.status : (STATUS_OF_CODE[errorCode(error) ?? ''] ?? 2);
  // By way of bytes: half of a surrogate pair can't be percent-encoded.
  const text = Buffer.from(errorMessage(error)).toString();
  return { 'grpc-status': String(code), 'grpc-message': encodeURIComponent(text) };
}

const STATUS_OF_CODE: Record<string, number> = {
  ERR_CANCELED: 1,
  ERR_BAD_PARAMETER: 3,
  ERR_IMAGE_NOT_FOUND: 5,
  ERR_PATH_NOT_FOUND: 5,
  ERR_NOT_IMPLEMENTED: 12,
};
