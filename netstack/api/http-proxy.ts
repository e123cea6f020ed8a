/**
 * The explicit HTTP proxy that a network offers its guests (RFC 9110 section 7.7, RFC 9112 section 3.2): `CONNECT` tunnels and
 * requests in absolute form. It goes on directly, or by an upstream proxy with a password where one is configured,
 * and the network's egress policy holds for it as for any flow.
 *
 * Of a network it listens on a loopback port of the host, to which the network's thread leads guests; a connection must begin
 * with a secret, or it is somebody else's, and with the guest's address. By itself it listens where it is told, and whoever
 * can connect is served.
 */
import { randomBytes, timingSafeEqual } from 'node:crypto';
import { lookup } from 'node:dns/promises';
import {
  createServer as createHttpServer,
  type IncomingMessage,
  request,
  type ServerResponse,
} from 'node:http';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import querystring from 'node:querystring';
import type { Duplex } from 'node:stream';
import { DrydockError, errorCode, errorMessage } from '#common/errors';
import type { EgressRules } from '../service/policy.ts';
import { isExcluded, type ProxyExcludes } from '../service/proxied-host.ts';
import { ADDRESS_LEN, formatAddress, mapped, parseAddress } from '../wire/address.ts';
import { CLIENT_HELLO_BYTES_MAX, readClientHello } from '../wire/tls.ts';
import { joinStreams } from './forwarder.ts';
import { bindError } from './standalone-socket.ts';

/** Most guests' connections at once. */
export const PROXY_CONNECTIONS_MAX = 1024;
const SECRET_LEN = 32;
const PREFACE_LEN = SECRET_LEN + ADDRESS_LEN;
const SECRET_MS_MAX = 5000;
const CONNECT_MS_MAX = 30_000;
/** How long a tunnel waits for its TLS name where the policy asks for it; what is open longer is not TLS. */
const HELLO_MS_MAX = 30_000;
const TCP = 6;

/** A proxy to go on by. */
export interface UpstreamProxy {
  host: string;
  port: number;
  /** `Basic …`. */
  authorization: string | undefined;
}

/** How the proxy goes on. */
export interface HttpProxyOptions {
  /** For requests in absolute form. */
  http?: UpstreamProxy;
  /** For tunnels. */
  https?: UpstreamProxy;
  excludes: ProxyExcludes;
  /** Nothing else is reached; default: all. */
  allow?: ProxyExcludes;
  /** What is said of the rest, `%s` stands for it. */
  allowMessage?: string;
  policy: EgressRules;
  /** Names that mean the host itself, such as host.docker.internal. */
  hostNames: readonly string[];
  /** How long a tunnel may leave open which name it is for, where the policy decides by it. Default: half a minute. */
  helloMs?: number;
}

/**
 * Reads `host:3128` or `http://user:password@host:3128`.
 * @throws DrydockError ERR_PROXY_INVALID
 */
export function parseUpstreamProxy(text: string): UpstreamProxy {
  let url: URL;
  try {
    url = new URL(text.includes('://') ? text : `http://${text}`);
  } catch {
    url = new URL('about:blank');
  }
  if (url.protocol !== 'http:' || url.hostname === '' || (url.pathname !== '/' && url.pathname !== ''))
    throw new DrydockError(
      'ERR_PROXY_INVALID',
      `"${text.replace(/\/\/.*@/, '//…@')}" is no proxy. Give one like http://user:password@proxy.example:3128.`,
    );
  const credentials = `${querystring.unescape(url.username)}:${querystring.unescape(url.password)}`;
  return {
    host: url.hostname.replace(/^\[|\]$/g, ''),
    port: Number(url.port || 80),
    authorization:
      url.username === '' ? undefined : `Basic ${Buffer.from(credentials, 'utf8').toString('base64')}`,
  };
}

/**
 * Reads VPNKit's list of exclusions: names, `*.suffix` or `.suffix`, addresses and networks, with commas or blanks between.
 */
export function parseExcludes(text: string): ProxyExcludes {
  const excludes: ProxyExcludes = { names: [], networks: [] };
  for (const item of text.split(/[\s,]+/).filter(Boolean)) {
    const [address, length] = item.split('/');
    const bytes = parseAddress(address!);
    if (bytes) {
      const bits = address!.includes(':') ? 128 : 32;
      excludes.networks.push({ address: bytes, prefixLength: Number(length ?? bits) + 128 - bits });
    } else excludes.names.push(item.toLowerCase().replace(/^\*\./, '.'));
  }
  return excludes;
}

/** The proxy, listening. */
export class HttpProxy {
  /** What a connection must begin with. */
  readonly secret: Buffer = randomBytes(SECRET_LEN);
  readonly #options: HttpProxyOptions;
  readonly #server: Server;
  readonly #http = createHttpServer({ headersTimeout: CONNECT_MS_MAX });
  readonly #open = new Set<Socket>();
  /** Who is at the other end of a connection, 16 bytes. */
  readonly #clients = new WeakMap<Duplex, Uint8Array>();
  #isGuarded = true;

  constructor(options: HttpProxyOptions) {
    this.#options = options;
    this.#server = createServer({ allowHalfOpen: true }, (socket) => this.#accept(socket));
    this.#http.on('request', (asked, response) => void this.#forward(asked, response));
    this.#http.on('connect', (asked: IncomingMessage, socket: Socket, head: Buffer) => {
      socket.unshift(head);
      void this.#tunnel(asked, socket);
    });
  }

  /**
   * Starts on a free port of the loopback, for the network's thread, or at an address for everybody; returns the port.
   * @throws DrydockError ERR_SERVICE_BIND
   */
  async listen(open?: { address: string; port: number }): Promise<number> {
    this.#isGuarded = open === undefined;
    const { address, port } = open ?? { address: '127.0.0.1', port: 0 };
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject).listen(port, address, resolve);
    }).catch((error: unknown) => {
      throw bindError('The proxy', address, port, error);
    });
    return (this.#server.address() as AddressInfo).port;
  }

  async close(): Promise<void> {
    await new Promise((resolve) => {
      this.#server.close(resolve);
      for (const socket of this.#open) socket.destroy();
    });
  }

  #accept(socket: Socket): void {
    if (this.#open.size >= PROXY_CONNECTIONS_MAX) {
      socket.destroy();
      return;
    }
    this.#open.add(socket);
    socket.on('close', () => this.#open.delete(socket));
    if (!this.#isGuarded) {
      this.#clients.set(socket, parseAddress(socket.remoteAddress ?? '') ?? mapped(0));
      this.#http.emit('connection', socket);
      return;
    }
    const end = (): void => void socket.destroy();
    const look = (): void => {
      const preface = socket.read(PREFACE_LEN) as Buffer | null;
      if (!preface) return;
      socket.off('readable', look).off('error', end).off('end', end).setTimeout(0);
      const isOurs =
        preface.length === PREFACE_LEN && timingSafeEqual(preface.subarray(0, SECRET_LEN), this.secret);
      if (!isOurs) {
        socket.destroy();
        return;
      }
      this.#clients.set(socket, Uint8Array.from(preface.subarray(SECRET_LEN)));
      this.#http.emit('connection', socket);
    };
    socket.setTimeout(SECRET_MS_MAX, end);
    socket.on('readable', look).on('error', end).on('end', end);
  }

  async #tunnel(asked: IncomingMessage, socket: Socket): Promise<void> {
    socket.on('error', () => socket.destroy());
    try {
      const { host, port } = splitAuthority(asked.url ?? '');
      this.#checkListed(host);
      const client = this.#clientOf(asked);
      const upstream = this.#upstream(this.#options.https, client, host, port);
      const target = upstream
        ? await this.#connectBy(upstream, host, port)
        : await this.#connectDirectly(client, host, port);
      socket.write('HTTP/1.1 200 Connection established\r\n\r\n');
      const address = parseAddress(host);
      if (address && this.#options.policy.awaitsHello(address, 0, port)) {
        const { name, held } = await readHello(socket, this.#options.helloMs ?? HELLO_MS_MAX);
        if (!this.#options.policy.allowsHello(client, address, 0, port, name)) {
          target.destroy();
          socket.resetAndDestroy();
          return;
        }
        target.write(held);
      }
      joinStreams(socket, target);
    } catch (error) {
      const { status, text } = explain(error);
      socket.end(`HTTP/1.1 ${status}\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n${text}\n`);
    }
  }

  #clientOf(asked: IncomingMessage): Uint8Array {
    return this.#clients.get(asked.socket) ?? mapped(0);
  }

  #upstream(
    upstream: UpstreamProxy | undefined,
    client: Uint8Array,
    host: string,
    port: number,
  ): UpstreamProxy | undefined {
    const { hostNames, excludes } = this.#options;
    const address = parseAddress(host);
    if (!upstream || hostNames.includes(host) || isExcluded(excludes, host, address, 0)) return undefined;
    this.#check(client, host, port, address);
    return upstream;
  }

  /** Asks the list of what may be reached, if there is one, about a target as it was asked for. */
  #checkListed(host: string): void {
    const { allow, allowMessage = 'Connections to %s are not allowed.' } = this.#options;
    if (allow && !isExcluded(allow, host, parseAddress(host), 0))
      throw new DrydockError('ERR_POLICY_DENIED', allowMessage.replaceAll('%s', host));
  }

  /** Asks the policy about a target that was asked for by name or by address. */
  #check(client: Uint8Array, host: string, port: number, address: Uint8Array | undefined): void {
    const { policy } = this.#options;
    const allowed = parseAddress(host)
      ? address !== undefined && policy.allows(TCP, client, 0, address, 0, port)
      : policy.allowsNamed(client, host, port, address);
    if (!allowed)
      throw new DrydockError('ERR_POLICY_DENIED', `The network's policy denies ${host} port ${port}.`);
  }

  /** What is no TLS shows no server's name. */
  #checkPlain(client: Uint8Array, host: string, port: number): void {
    const { policy } = this.#options;
    const address = parseAddress(host);
    if (
      address &&
      policy.awaitsHello(address, 0, port) &&
      !policy.allowsHello(client, address, 0, port, undefined)
    )
      throw new DrydockError('ERR_POLICY_DENIED', `The network's policy denies ${host} port ${port}.`);
  }

  /** Resolves a name, asks the policy, and connects. */
  async #connectDirectly(client: Uint8Array, host: string, port: number): Promise<Socket> {
    const { policy, hostNames } = this.#options;
    if (hostNames.includes(host)) {
      this.#check(client, host, port, mapped(0x7f000001));
      return connected(connect({ host: '127.0.0.1', port, allowHalfOpen: true }));
    }
    const isLiteral = parseAddress(host) !== undefined;
    if (!isLiteral && !policy.allowsName(host, formatAddress(client, 0)))
      throw new DrydockError('ERR_POLICY_DENIED', `The network's policy denies ${host}.`);
    const found = isLiteral ? [{ address: host }] : await lookup(host, { all: true });
    let failure: unknown;
    for (const { address: text } of found) {
      try {
        this.#check(client, host, port, parseAddress(text));
        return await connected(connect({ host: text, port, allowHalfOpen: true }));
      } catch (error) {
        failure = error;
      }
    }
    throw failure;
  }

  /** A tunnel through the upstream proxy. */
  async #connectBy(upstream: UpstreamProxy, host: string, port: number): Promise<Socket> {
    const authority = `${host.includes(':') ? `[${host}]` : host}:${port}`;
    const asked = request({
      host: upstream.host,
      port: upstream.port,
      method: 'CONNECT',
      path: authority,
      agent: false,
      timeout: CONNECT_MS_MAX,
      headers: {
        Host: authority,
        ...(upstream.authorization !== undefined && { 'Proxy-Authorization': upstream.authorization }),
      },
    });
    return new Promise((resolve, reject) => {
      asked.on('connect', (answer, socket: Socket, head) => {
        if (answer.statusCode !== 200) {
          socket.destroy();
          reject(
            new DrydockError(
              'ERR_PROXY_REFUSED',
              `The upstream proxy answered ${answer.statusCode} for ${authority}.`,
            ),
          );
          return;
        }
        socket.unshift(head);
        socket.setTimeout(0);
        socket.allowHalfOpen = true;
        resolve(socket);
      });
      asked.on('response', (answer) => {
        answer.destroy();
        reject(
          new DrydockError(
            'ERR_PROXY_REFUSED',
            `The upstream proxy answered ${answer.statusCode} for ${authority}.`,
          ),
        );
      });
      asked.on('timeout', () => asked.destroy(new Error('the upstream proxy does not answer')));
      asked.on('error', reject);
      asked.end();
    });
  }

  /** A request in absolute form goes on in origin form, or as it is to the upstream proxy. */
  async #forward(asked: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      const url = /^http:\/\//i.test(asked.url ?? '') ? new URL(asked.url!) : undefined;
      if (!url)
        throw new DrydockError(
          'ERR_PROXY_REQUEST',
          'This is an HTTP proxy. Ask it for an absolute http:// URL, or CONNECT.',
        );
      const host = url.hostname.replace(/^\[|\]$/g, '');
      const port = Number(url.port || 80);
      this.#checkListed(host);
      const client = this.#clientOf(asked);
      const upstream = this.#upstream(this.#options.http, client, host, port);
      this.#checkPlain(client, host, port);
      // RFC 9112 section 3.2.2: the target's host, whatever the client says.
      const headers = ['Host', url.host, ...endToEndHeaders(asked, 'host')];
      // A body of unknown length must stay delimited, whatever the method.
      if (asked.headers['transfer-encoding'] !== undefined) headers.push('Transfer-Encoding', 'chunked');
      if (upstream?.authorization !== undefined) headers.push('Proxy-Authorization', upstream.authorization);
      const socket = upstream
        ? await connected(connect({ host: upstream.host, port: upstream.port }))
        : await this.#connectDirectly(client, host, port);
      const onward = request({
        createConnection: () => socket,
        method: asked.method,
        path: upstream ? url.href : `${url.pathname}${url.search}`,
        headers: Object.fromEntries(pairs(headers)),
        setHost: false,
      });
      onward.on('response', (answer) => {
        response.writeHead(answer.statusCode!, answer.statusMessage, endToEndHeaders(answer));
        answer.pipe(response);
        answer.on('error', () => response.destroy());
      });
      onward.on('error', (error) => fail(response, error));
      response.on('close', () => onward.destroy());
      asked.pipe(onward);
    } catch (error) {
      fail(response, error);
    }
  }
}

/** The name that a tunnel's client asks for by TLS, none when it has not said so in time, and what was read to know it. */
function readHello(socket: Socket, msMax: number): Promise<{ name: string | undefined; held: Buffer }> {
  let held = Buffer.alloc(0);
  return new Promise((resolve) => {
    const settle = (name: string | undefined): void => {
      clearTimeout(timer);
      socket.off('readable', look).off('end', over).off('close', over);
      resolve({ name, held });
    };
    const over = (): void => settle(undefined);
    const timer = setTimeout(over, msMax);
    const look = (): void => {
      for (let chunk = socket.read(); chunk; chunk = socket.read())
        held = Buffer.concat([held, chunk as Buffer]);
      const read = readClientHello(held, held.length);
      if (read !== 'more') settle(read.name);
      else if (held.length > CLIENT_HELLO_BYTES_MAX) over();
    };
    socket.on('readable', look).on('end', over).on('close', over);
    look();
  });
}

/** Fields of one hop (RFC 9110 section 7.6.1), which a proxy does not pass on. */
const HOP_FIELDS: ReadonlySet<string> = new Set([
  'connection',
  'proxy-connection',
  'keep-alive',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'proxy-authorization',
  'proxy-authenticate',
]);

function* pairs(raw: readonly string[]): Iterable<[string, string | string[]]> {
  const joined = new Map<string, string[]>();
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i]!;
    const key = [...joined.keys()].find((other) => other.toLowerCase() === name.toLowerCase()) ?? name;
    joined.set(key, [...(joined.get(key) ?? []), raw[i + 1]!]);
  }
  for (const [name, values] of joined) yield [name, values.length === 1 ? values[0]! : values];
}

/** A message's header fields that are meant for the other end, as they were written. */
function endToEndHeaders(message: IncomingMessage, besides?: string): string[] {
  const named = (message.headers.connection ?? '').toLowerCase().split(/[\s,]+/);
  const kept: string[] = [];
  for (let i = 0; i < message.rawHeaders.length; i += 2) {
    const name = message.rawHeaders[i]!.toLowerCase();
    if (name !== besides && !HOP_FIELDS.has(name) && !named.includes(name))
      kept.push(message.rawHeaders[i]!, message.rawHeaders[i + 1]!);
  }
  return kept;
}

function splitAuthority(authority: string): { host: string; port: number } {
  const match = /^(?:\[(?<v6>[^\]]+)\]|(?<name>[^:]+)):(?<port>\d{1,5})$/.exec(authority);
  const port = Number(match?.groups?.port);
  if (!match || port < 1 || port > 65535)
    throw new DrydockError('ERR_PROXY_REQUEST', `"${authority}" is no host and port.`);
  return { host: (match.groups?.v6 ?? match.groups?.name ?? '').toLowerCase(), port };
}

function connected(socket: Socket): Promise<Socket> {
  return new Promise((resolve, reject) => {
    socket.setTimeout(CONNECT_MS_MAX, () => socket.destroy(new Error('the connection timed out')));
    socket.once('error', reject).once('connect', () => {
      socket.setTimeout(0);
      socket.off('error', reject);
      resolve(socket);
    });
  });
}

/** The status line and text for what went wrong. */
function explain(error: unknown): { status: string; text: string } {
  switch (errorCode(error)) {
    case 'ERR_POLICY_DENIED':
      return { status: '403 Forbidden', text: errorMessage(error) };
    case 'ERR_PROXY_REQUEST':
      return { status: '400 Bad Request', text: errorMessage(error) };
    default:
      return { status: '502 Bad Gateway', text: errorMessage(error) };
  }
}

function fail(response: ServerResponse, error: unknown): void {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  const { status, text } = explain(error);
  response.writeHead(Number(status.slice(0, 3)), { 'Content-Type': 'text/plain', Connection: 'close' });
  response.end(`${text}\n`);
}
