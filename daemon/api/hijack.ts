/**
 * Taking a connection over from HTTP, for attach and exec: as raw bytes, or as a WebSocket (RFC 6455).
 *
 * A client asks with `Connection: Upgrade`, `Upgrade: tcp`; the answer is `101 UPGRADED` and then raw bytes both ways.
 * Without those headers it is `200 OK` and the same bytes, towards the client only.
 *
 * Node's parser stops at the headers of an upgrade request, so a JSON body that comes with it (exec start has one) is
 * left in the socket: {@link serveUpgrades} reads it first and then sends the request through fastify's router like any
 * other, so that routes, errors and hooks are the same. The socket is half-open: the client's end of stream is the end
 * of the container's input, while output keeps flowing.
 */
import { type IncomingMessage, type Server, ServerResponse } from 'node:http';
import type { Duplex, Readable, Writable } from 'node:stream';
import { Readable as ReadableStream, Writable as WritableStream } from 'node:stream';
import { StringDecoder } from 'node:string_decoder';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { createWebSocketStream, WebSocketServer } from 'ws';
import { JSON_BODY_BYTES_MAX, WEBSOCKET_MESSAGE_BYTES_MAX } from '../limits.ts';
import { HeldBody } from './bodies.ts';
import { badParameter } from './errors.ts';

/** A connection that is no longer HTTP. */
export interface Hijacked {
  /** Bytes from the client; undefined when it did not ask for an upgrade. */
  readonly input: Readable | undefined;
  /** Bytes to the client. */
  readonly output: Writable;
}

/** What the router is given instead of a parsed request: the fields that fastify reads. */
type ReplayedRequest = IncomingMessage & { [UPGRADE]?: Duplex };

const UPGRADE: unique symbol = Symbol('upgrade');

/** Makes a server answer upgrade requests through the application's routes. */
export function serveUpgrades(server: Server, app: FastifyInstance): void {
  server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    // Node leaves the socket without an error listener: a client's reset must not end the daemon.
    socket.on('error', () => socket.destroy());
    takeBody(request, socket, head)
      .then((body) => replay(app, request, socket, body))
      .catch((error: Error) => {
        const text = JSON.stringify({ message: error.message });
        socket.end(
          `HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(text)}\r\nConnection: close\r\n\r\n${text}`,
        );
      });
  });
}

function replay(app: FastifyInstance, request: IncomingMessage, socket: Duplex, body: Buffer): void {
  const { method, url, headers, rawHeaders, httpVersion, httpVersionMajor, httpVersionMinor } = request;
  const replayed = Object.assign(ReadableStream.from(body.length > 0 ? [body] : []), {
    method,
    url,
    headers,
    rawHeaders,
    httpVersion,
    httpVersionMajor,
    httpVersionMinor,
    socket,
    connection: socket,
    [UPGRADE]: socket,
  }) as unknown as ReplayedRequest;
  const response = new ServerResponse(replayed);
  response.shouldKeepAlive = false;
  response.assignSocket(socket as never);
  response.once('finish', () => {
    response.detachSocket(socket as never);
    socket.end();
  });
  app.routing(replayed, response);
}

/** Reads the request's body of Content-Length bytes; what follows it is the client's stream and goes back to the socket. */
async function takeBody(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<Buffer> {
  if (request.headers['transfer-encoding'] !== undefined)
    throw new Error('a request that upgrades its connection must give its body a Content-Length');
  const length = Number(request.headers['content-length'] ?? 0);
  if (!(length >= 0 && length <= JSON_BODY_BYTES_MAX)) throw new Error('the request body is too large');
  const held = new HeldBody();
  try {
    held.add(head);
    while (held.length < length) {
      const chunk = await nextChunk(socket);
      if (chunk === undefined) throw new Error('unexpected EOF in the request body');
      held.add(chunk);
    }
  } catch (error) {
    held.take();
    throw error;
  }
  const all = held.take();
  if (all.length > length) socket.unshift(all.subarray(length));
  return all.subarray(0, length);
}

function nextChunk(socket: Duplex): Promise<Buffer | undefined> {
  return new Promise((resolve) => {
    const settle = (): void => {
      const chunk = socket.read() as Buffer | null;
      if (chunk === null && !socket.readableEnded && !socket.destroyed) return;
      for (const event of ['readable', 'end', 'close']) socket.off(event, settle);
      resolve(chunk ?? undefined);
    };
    for (const event of ['readable', 'end', 'close']) socket.on(event, settle);
    settle();
  });
}

/**
 * Ends HTTP/1 on this connection for another protocol, in which either side may speak first.
 * @throws ERR_BAD_PARAMETER when the client did not ask for just that protocol
 */
export function switchProtocol(request: FastifyRequest, reply: FastifyReply, protocol: string): Duplex {
  const socket = (request.raw as ReplayedRequest)[UPGRADE];
  const asked = request.headers.upgrade ?? '';
  if (socket === undefined || asked.toLowerCase() !== protocol)
    throw badParameter(asked === '' ? 'no upgrade proto in request' : `protocol ${asked} not supported`);
  reply.hijack();
  reply.raw.detachSocket(socket as never);
  socket.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${protocol}\r\n\r\n`);
  return socket;
}

/** Ends HTTP on this connection and answers with the stream's type. No error can be answered after it. */
export function hijack(request: FastifyRequest, reply: FastifyReply, contentType: string): Hijacked {
  reply.hijack();
  const socket = (request.raw as ReplayedRequest)[UPGRADE];
  if (socket === undefined) {
    // Without Transfer-Encoding the end of the connection is the end of the body, as dockerd does it.
    reply.raw.removeHeader('Transfer-Encoding');
    reply.raw.writeHead(200, 'OK', { 'Content-Type': contentType, Connection: 'close' });
    reply.raw.flushHeaders();
    return { input: undefined, output: reply.raw };
  }
  reply.raw.detachSocket(socket as never);
  socket.write(
    `HTTP/1.1 101 UPGRADED\r\nContent-Type: ${contentType}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n`,
  );
  return { input: socket, output: socket };
}

const webSockets = new WebSocketServer({
  noServer: true,
  clientTracking: false,
  maxPayload: WEBSOCKET_MESSAGE_BYTES_MAX,
});

/**
 * Ends HTTP on this connection with a WebSocket's handshake. What the client sends, in frames of either type, is its input;
 * output goes in binary frames, or in text frames. @throws ERR_BAD_PARAMETER when the request is no such handshake
 */
export function hijackWebSocket(request: FastifyRequest, reply: FastifyReply, asText: boolean): Hijacked {
  const { raw } = request;
  const socket = (raw as ReplayedRequest)[UPGRADE];
  const header = (name: string): string => String(raw.headers[name] ?? '');
  if (!socket || header('upgrade').toLowerCase() !== 'websocket')
    throw badParameter('not websocket protocol: send Upgrade: websocket');
  if (header('sec-websocket-version') !== '13') throw badParameter('missing or bad WebSocket Version');
  if (!/^[+/0-9A-Za-z]{22}==$/.test(header('sec-websocket-key')))
    throw badParameter('mismatch challenge/response: send a Sec-WebSocket-Key of 16 bytes');
  reply.hijack();
  reply.raw.detachSocket(socket as never);
  let stream: Duplex | undefined;
  webSockets.handleUpgrade(raw, socket, Buffer.alloc(0), (client) => {
    stream = createWebSocketStream(client, { decodeStrings: false });
    // A client that breaks the protocol, or goes away.
    stream.on('error', () => stream?.destroy());
  });
  if (!stream) throw badParameter('the WebSocket handshake failed');
  return { input: stream, output: asText ? textInto(stream) : stream };
}

/** Bytes in, UTF-8 text out: a character that is cut by the end of a chunk waits for its rest. */
function textInto(stream: Duplex): Writable {
  const decoder = new StringDecoder('utf8');
  return new WritableStream({
    write(chunk: Buffer, _encoding, done) {
      const text = decoder.write(chunk);
      if (text === '') done();
      else stream.write(text, () => done());
    },
    final(done) {
      stream.end(decoder.end() || undefined);
      done();
    },
    destroy(error, done) {
      stream.destroy();
      done(error);
    },
  });
}
