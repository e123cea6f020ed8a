/**
 * The explicit HTTP proxy that a network offers its guests (RFC 9110 section 7.7, RFC 9112 section 3.2): `CONNECT` tunnels and
 * requests in absolute form. It goes on directly, or by an upstream proxy with a password where one is configured,
 * and the network's egress policy holds for it as for any flow.
 *
 * It listens on a loopback port of the host, to which the network's thread leads guests; a connection must begin with a
 * secret, or it is somebody else's.
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
import { DrydockError, errorCode, errorMessage } from '#common/errors';
import type { EgressRules } from '../service/policy.ts';
import { isExcluded, type ProxyExcludes } from '../service/proxied-host.ts';
import { mapped, parseAddress } from '../wire/address.ts';
import { joinStreams } from './forwarder.ts';

/** Most guests' connections at once. */
export const PROXY_CONNECTIONS_MAX = 1024;
const SECRET_LEN = 32;
const SECRET_MS_MAX = 5000;
const CONNECT_MS_MAX = 30_000;

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
  policy: EgressRules;
  /** Names that mean the host itself, such as host.docker.internal. */
  hostNames: readonly string[];
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
  const credentials = `${decodeURIComponent(url.username)}:${decodeURIComponent(url.password)}`;
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

  constructor(options: HttpProxyOptions) {
    this.#options = options;
    this.#server = createServer({ allowHalfOpen: true }, (socket) => this.#accept(socket));
    this.#http.on('request', (asked, response) => void this.#forward(asked, response));
    this.#http.on('connect', (asked: IncomingMessage, socket: Socket, head: Buffer) => {
      socket.unshift(head);
      void this.#tunnel(asked, socket);
    });
  }

  /** Starts on a free port of the loopback, and returns it. */
  async listen(): Promise<number> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject).listen(0, '127.0.0.1', resolve);
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
    const end = (): void => void socket.destroy();
    const look = (): void => {
      const secret = socket.read(SECRET_LEN) as Buffer | null;
      if (!secret) return;
      socket.off('readable', look).off('error', end).off('end', end).setTimeout(0);
      if (secret.length === SECRET_LEN && timingSafeEqual(secret, this.secret))
        this.#http.emit('connection', socket);
      else socket.destroy();
    };
    socket.setTimeout(SECRET_MS_MAX, end);
    socket.on('readable', look).on('error', end).on('end', end);
  }

  async #tunnel(asked: IncomingMessage, socket: Socket): Promise<void> {
    socket.on('error', () => socket.destroy());
    try {
      const { host, port } = splitAuthority(asked.url ?? '');
      const upstream = this.#upstream(this.#options.https, host);
      const target = upstream
        ? await this.#connectBy(upstream, host, port)
        : await this.#connectDirectly(host, port);
      socket.write('HTTP/1.1 200 Connection established\r\n\r\n');
      joinStreams(socket, target);
    } catch (error) {
      const { status, text } = explain(error);
      socket.end(`HTTP/1.1 ${status}\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n${text}\n`);
    }
  }

  #upstream(upstream: UpstreamProxy | undefined, host: string): UpstreamProxy | undefined {
    const isDirect =
      this.#options.hostNames.includes(host) ||
      isExcluded(this.#options.excludes, host, parseAddress(host), 0);
    if (!upstream || isDirect) return undefined;
    this.#checkName(host);
    return upstream;
  }

  #checkName(host: string): void {
    const { policy } = this.#options;
    const address = parseAddress(host);
    const allowed = address ? true : policy.allowsName(host);
    if (!allowed) throw new DrydockError('ERR_POLICY_DENIED', `The network's policy denies ${host}.`);
  }

  /** Resolves a name, asks the policy, and connects. */
  async #connectDirectly(host: string, port: number): Promise<Socket> {
    const { policy, hostNames } = this.#options;
    if (hostNames.includes(host)) return connected(connect({ host: '127.0.0.1', port, allowHalfOpen: true }));
    this.#checkName(host);
    const literal = parseAddress(host);
    const found = literal ? [{ address: host }] : await lookup(host, { all: true });
    const addresses = found.map(({ address }) => ({ text: address, bytes: parseAddress(address) }));
    if (!literal)
      policy.learn(
        host,
        addresses.flatMap(({ bytes }) => (bytes ? [bytes] : [])),
        60,
      );
    let failure: unknown;
    for (const { text, bytes } of addresses) {
      if (!bytes || !policy.allows(6, mapped(0), 0, bytes, 0, port)) {
        failure ??= new DrydockError(
          'ERR_POLICY_DENIED',
          `The network's policy denies ${host} port ${port}.`,
        );
        continue;
      }
      try {
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
      const upstream = this.#upstream(this.#options.http, host);
      // RFC 9112 section 3.2.2: the target's host, whatever the client says.
      const headers = ['Host', url.host, ...endToEndHeaders(asked, 'host')];
      // A body of unknown length must stay delimited, whatever the method.
      if (asked.headers['transfer-encoding'] !== undefined) headers.push('Transfer-Encoding', 'chunked');
      if (upstream?.authorization !== undefined) headers.push('Proxy-Authorization', upstream.authorization);
      const socket = upstream
        ? await connected(connect({ host: upstream.host, port: upstream.port }))
        : await this.#connectDirectly(host, port);
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
