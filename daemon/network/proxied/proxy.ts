/**
 * The proxy of one jail: SOCKS 5 (RFC 1928, with the password of RFC 1929) and HTTP (CONNECT, and requests with a whole
 * address) on one port of the loopback, told apart by the first byte. A password keeps everybody else of the machine out.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { createServer as createHttpServer, type IncomingMessage, request, type Server } from 'node:http';
import { createServer, isIPv6, type Socket } from 'node:net';
import { errorCode, errorMessage } from '#common/errors';
import { PROXY_CONNECTIONS_MAX, PROXY_GREETING_MS_MAX } from '../../limits.ts';
import { join } from './join.ts';

/** Connects to where a client wants to go. */
export type Dial = (host: string, port: number) => Promise<Socket>;

const SOCKS_VERSION = 5;
const METHOD_PASSWORD = 2;
const METHOD_NONE = 0xff;
const COMMAND_CONNECT = 1;
const ADDRESS_IPV4 = 1;
const ADDRESS_NAME = 3;
const ADDRESS_IPV6 = 4;
const UNSUPPORTED_COMMAND = 7;
const UNSUPPORTED_ADDRESS = 8;
/** RFC 1928, section 6. */
const REPLIES: Readonly<Record<string, number>> = {
  ERR_PROXY_REFUSED: 2,
  ENETUNREACH: 3,
  EHOSTUNREACH: 4,
  ENOTFOUND: 4,
  ECONNREFUSED: 5,
};
const GENERAL_FAILURE = 1;
/** Those that end at a proxy (RFC 9110, section 7.6.1). */
const HOP_BY_HOP = /^(connection|keep-alive|te|trailer|transfer-encoding|upgrade|proxy-.*)$/i;

/** Listens on a free port of the loopback. @param secret the password; the user's name does not matter */
export async function serveProxy(
  secret: string,
  dial: Dial,
): Promise<{ port: number; close(): Promise<void> }> {
  const sockets = new Set<Socket>();
  const http = httpProxy(secret, dial);
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.on('error', () => socket.destroy());
    socket.once('close', () => sockets.delete(socket));
    socket.setTimeout(PROXY_GREETING_MS_MAX, () => socket.destroy());
    socket.once('readable', () => {
      const first = socket.read(1) as Buffer | null;
      if (!first) return void socket.destroy();
      socket.unshift(first);
      if (first[0] === SOCKS_VERSION) new Reader(socket).run((reader) => socks(socket, reader, secret, dial));
      else http.emit('connection', socket);
    });
  });
  server.maxConnections = PROXY_CONNECTIONS_MAX;
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', resolve);
  });
  const address = server.address();
  return {
    port: typeof address === 'object' && address ? address.port : 0,
    close: () => {
      for (const socket of sockets) socket.destroy();
      return new Promise((closed) => server.close(() => closed()));
    },
  };
}

/** Whether a client has the password, without telling by the time it takes how near a wrong one comes. */
function isSecret(given: Uint8Array, secret: string): boolean {
  const digest = (bytes: Uint8Array | string): Buffer => createHash('sha256').update(bytes).digest();
  return timingSafeEqual(digest(given), digest(secret));
}

/** Bytes of a stream, so many at a time. */
class Reader {
  readonly #socket: Socket;
  #held: Buffer = Buffer.alloc(0);

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  run(talk: (reader: Reader) => Promise<void>): void {
    talk(this).catch(() => this.#socket.destroy());
  }

  /** @throws Error when the stream ends before */
  async take(length: number): Promise<Buffer> {
    while (this.#held.length < length) {
      // All that there is: a stream that keeps something tells of it again and again.
      const bytes = this.#socket.read() as Buffer | null;
      if (bytes) this.#held = Buffer.concat([this.#held, bytes]);
      else if (this.#socket.readableEnded || this.#socket.destroyed) throw new Error('the client has gone');
      else await this.#change();
    }
    const taken = this.#held.subarray(0, length);
    this.#held = this.#held.subarray(length);
    return taken;
  }

  #change(): Promise<void> {
    return new Promise((resolve) => {
      const events = ['readable', 'end', 'close'];
      const go = (): void => {
        for (const event of events) this.#socket.off(event, go);
        resolve();
      };
      for (const event of events) this.#socket.on(event, go);
    });
  }

  /** Gives back what came after what was taken. */
  giveBack(): void {
    if (this.#held.length > 0) this.#socket.unshift(this.#held);
    this.#held = Buffer.alloc(0);
  }

  async byte(): Promise<number> {
    return (await this.take(1))[0]!;
  }
}

async function socks(socket: Socket, reader: Reader, secret: string, dial: Dial): Promise<void> {
  await reader.byte();
  const methods = await reader.take(await reader.byte());
  if (!methods.includes(METHOD_PASSWORD)) return void socket.end(Buffer.from([SOCKS_VERSION, METHOD_NONE]));
  socket.write(Buffer.from([SOCKS_VERSION, METHOD_PASSWORD]));
  await reader.byte();
  await reader.take(await reader.byte());
  const password = await reader.take(await reader.byte());
  const known = isSecret(password, secret);
  socket.write(Buffer.from([1, known ? 0 : 1]));
  if (!known) return void socket.end();
  const [, command, , kind] = await reader.take(4);
  const answer = (code: number): Buffer =>
    Buffer.from([SOCKS_VERSION, code, 0, ADDRESS_IPV4, 0, 0, 0, 0, 0, 0]);
  const host = await socksHost(reader, kind!);
  const port = (await reader.take(2)).readUInt16BE();
  if (host === undefined) return void socket.end(answer(UNSUPPORTED_ADDRESS));
  if (command !== COMMAND_CONNECT) return void socket.end(answer(UNSUPPORTED_COMMAND));
  try {
    const target = await dial(host, port);
    socket.write(answer(0));
    socket.setTimeout(0);
    reader.giveBack();
    join(socket, target);
  } catch (error) {
    socket.end(answer(REPLIES[errorCode(error) ?? ''] ?? GENERAL_FAILURE));
  }
}

async function socksHost(reader: Reader, kind: number): Promise<string | undefined> {
  if (kind === ADDRESS_IPV4) return (await reader.take(4)).join('.');
  if (kind === ADDRESS_NAME) return (await reader.take(await reader.byte())).toString('latin1');
  if (kind !== ADDRESS_IPV6) return undefined;
  const bytes = await reader.take(16);
  return Array.from({ length: 8 }, (_, index) => bytes.readUInt16BE(2 * index).toString(16)).join(':');
}

function httpProxy(secret: string, dial: Dial): Server {
  const server = createHttpServer({ requestTimeout: 0, headersTimeout: PROXY_GREETING_MS_MAX });
  const isKnown = ({ headers }: IncomingMessage): boolean => {
    const [scheme, code = ''] = (headers['proxy-authorization'] ?? '').split(' ');
    const [, password = ''] = Buffer.from(code, 'base64').toString().split(':');
    return scheme?.toLowerCase() === 'basic' && isSecret(Buffer.from(password), secret);
  };
  const statusOf = (error: unknown): number => (errorCode(error) === 'ERR_PROXY_REFUSED' ? 403 : 502);
  server.on('connect', (asked, socket, head) => {
    const end = (status: string, text: string): void => {
      socket.end(
        `HTTP/1.1 ${status}\r\nconnection: close\r\ncontent-length: ${Buffer.byteLength(text)}\r\n\r\n${text}`,
      );
    };
    if (!isKnown(asked)) return end('407 Proxy Authentication Required\r\nproxy-authenticate: Basic', '');
    const target = parseTarget(asked.url ?? '');
    if (!target) return end('400 Bad Request', 'an address and a port are needed\n');
    dial(target.host, target.port).then(
      (reached) => {
        socket.write('HTTP/1.1 200 Connection established\r\n\r\n');
        if (head.length > 0) socket.unshift(head);
        asked.socket.setTimeout(0);
        join(socket, reached);
      },
      (error: unknown) => end(`${statusOf(error)} Not reached`, `${errorMessage(error)}\n`),
    );
  });
  server.on('request', (asked, response) => {
    const fail = (status: number, text: string): void => {
      if (response.headersSent) return void response.destroy();
      if (status === 407) response.setHeader('proxy-authenticate', 'Basic');
      response.writeHead(status, { connection: 'close' }).end(text);
    };
    if (!isKnown(asked)) return fail(407, '');
    const url = URL.canParse(asked.url ?? '') ? new URL(asked.url!) : undefined;
    if (url?.protocol !== 'http:') return fail(400, 'a request with a whole http:// address is needed\n');
    asked.socket.setTimeout(0);
    const host = url.hostname.replace(/^\[|\]$/g, '');
    dial(host, Number(url.port || 80)).then(
      (reached) => {
        const headers = Object.fromEntries(
          Object.entries(asked.headers).filter(([name]) => !HOP_BY_HOP.test(name)),
        );
        const onward = request(
          { createConnection: () => reached, method: asked.method, path: url.pathname + url.search, headers },
          (answer) => {
            const kept = Object.entries(answer.headers).filter(([name]) => !HOP_BY_HOP.test(name));
            response.writeHead(answer.statusCode ?? 502, Object.fromEntries(kept));
            answer.pipe(response);
          },
        );
        onward.on('error', (error) => fail(502, `${errorMessage(error)}\n`));
        response.once('close', () => onward.destroy());
        asked.pipe(onward);
      },
      (error: unknown) => fail(statusOf(error), `${errorMessage(error)}\n`),
    );
  });
  return server;
}

/** `host:port` and `[host]:port`. */
function parseTarget(text: string): { host: string; port: number } | undefined {
  const [, bracketed, plain, digits] = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(text) ?? [];
  const port = Number(digits);
  if (bracketed !== undefined && !isIPv6(bracketed)) return undefined;
  const host = bracketed ?? plain;
  return host !== undefined && port > 0 && port < 65_536 ? { host, port } : undefined;
}
