/**
 * HTTP to registries: one request in, status, headers and a body stream out. Redirects are followed for reads only,
 * a few times, never to another scheme than http and https and never from https down to http; credentials stay with
 * the host that asked for them. A server that says nothing for a while is given up.
 */
import http, { type IncomingMessage } from 'node:http';
import https from 'node:https';
import { isIP } from 'node:net';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import tls from 'node:tls';
import { DrydockError, errorCode, errorMessage } from '#common/errors';
import { NO_PROXIES, type ProxyOptions, proxyFor, proxyHeaders, tunnel } from './proxy.ts';

/** Registries redirect blobs once, to their storage. */
const REDIRECTS_MAX = 5;
const IDLE_MS_MAX = 60_000;
/** A manifest or a token that comes byte by byte is no better than none. */
const BODY_MS_MAX = 120_000;
/** Of a body that nobody wants. */
const DISCARDED_BYTES_MAX = 64 << 10;
const DISCARDED_MS_MAX = 10_000;

export interface HttpRequest {
  method: 'GET' | 'HEAD' | 'POST' | 'PATCH' | 'PUT';
  url: URL;
  headers?: Record<string, string>;
  /** A stream is sent as it comes; its length goes into the headers when it is known. */
  body?: Buffer | Readable;
  signal?: AbortSignal;
}

export interface HttpAnswer {
  status: number;
  headers: IncomingMessage['headers'];
  /** Must be read to its end or destroyed. */
  body: IncomingMessage;
  /** Where the answer came from, after redirects. */
  url: URL;
}

/** How to trust TLS servers. */
export interface TlsTrust {
  /** PEM certificates that are trusted besides the usual ones. */
  ca?: string[];
  rejectUnauthorized: boolean;
}

/** Trouble on the way to the registry; `temporary` when another attempt may help. */
export class TransportError extends DrydockError {
  readonly temporary: boolean;
  constructor(message: string, temporary: boolean, options?: ErrorOptions) {
    super('ERR_REGISTRY_UNREACHABLE', message, options);
    this.temporary = temporary;
  }
}

/** What fails before a byte was exchanged and will fail again: no TLS there, no trust, nobody listening. */
const LASTING = /^(ECONNREFUSED|ENOTFOUND|EPROTO|CERT_|ERR_TLS|ERR_SSL|DEPTH_|SELF_SIGNED|UNABLE_TO|HPE_)/;

export class Transport {
  readonly #trust: TlsTrust;
  readonly #proxies: ProxyOptions;
  readonly #plain = new http.Agent({ keepAlive: true });
  readonly #secure: https.Agent;

  constructor(trust: TlsTrust, proxies: ProxyOptions = NO_PROXIES) {
    this.#trust = trust;
    this.#proxies = proxies;
    this.#secure = new https.Agent({
      keepAlive: true,
      rejectUnauthorized: trust.rejectUnauthorized,
      ...(trust.ca && { ca: trust.ca }),
    });
  }

  /** Closes idle connections. */
  close(): void {
    this.#plain.destroy();
    this.#secure.destroy();
  }

  /** @throws TransportError */
  async send(request: HttpRequest): Promise<HttpAnswer> {
    let { url } = request;
    const headers: Record<string, string> = { 'User-Agent': 'drydock', ...request.headers };
    for (let redirects = 0; ; redirects++) {
      const answer = await this.#once({ ...request, url, headers });
      const location = answer.headers.location;
      const isRead = request.method === 'GET' || request.method === 'HEAD';
      if (!isRead || location === undefined || answer.status < 300 || answer.status > 399) return answer;
      discard(answer);
      if (redirects === REDIRECTS_MAX)
        throw new TransportError(`${request.url} redirects in circles (${REDIRECTS_MAX} times)`, false);
      const next = this.follow(url, location);
      if (next.origin !== url.origin) delete headers.Authorization;
      url = next;
    }
  }

  /** Where `from` sends us to. @throws TransportError for another scheme than http and https, and from https down to http */
  follow(from: URL, location: string): URL {
    const next = URL.canParse(location, from.href) ? new URL(location, from) : undefined;
    const isDowngrade =
      from.protocol === 'https:' && next?.protocol === 'http:' && this.#trust.rejectUnauthorized;
    if ((next?.protocol !== 'http:' && next?.protocol !== 'https:') || isDowngrade)
      throw new TransportError(
        `${from.href} redirects to ${JSON.stringify(location)}, which is not followed`,
        false,
      );
    return next;
  }

  /** How a request reaches its host: with an agent of ours, or through a proxy. */
  async #way(url: URL, signal: AbortSignal | undefined): Promise<http.RequestOptions> {
    const proxy = proxyFor(url, this.#proxies);
    if (url.protocol === 'https:') {
      if (!proxy) return { agent: this.#secure };
      const socket = await tunnel(proxy, url, signal);
      const secure = tls.connect({
        socket,
        servername: isIP(url.hostname) === 0 ? url.hostname : '',
        rejectUnauthorized: this.#trust.rejectUnauthorized,
        ...(this.#trust.ca && { ca: this.#trust.ca }),
      });
      return { agent: false, createConnection: () => secure };
    }
    if (!proxy) return { agent: this.#plain };
    // RFC 9112, 3.2.2: a proxy is told the whole URL.
    return {
      agent: this.#plain,
      hostname: proxy.hostname.replace(/^\[|\]$/g, ''),
      port: proxy.port || 80,
      path: url.href,
      headers: { Host: url.host, ...proxyHeaders(proxy) },
    };
  }

  async #once(wish: HttpRequest): Promise<HttpAnswer> {
    const { method, url, signal } = wish;
    try {
      return await this.#exchange(wish, await this.#way(url, signal));
    } catch (error) {
      if (error instanceof TransportError) throw error;
      throw new TransportError(`${method} "${url.href}": ${errorMessage(error)}`, false, { cause: error });
    }
  }

  #exchange(
    { method, url, headers, body, signal }: HttpRequest,
    way: http.RequestOptions,
  ): Promise<HttpAnswer> {
    return new Promise((resolve, reject) => {
      const isSecure = url.protocol === 'https:';
      const fail = (error: Error): void => {
        const lasting = LASTING.test(errorCode(error) ?? '') || signal?.aborted === true;
        reject(
          new TransportError(`${method} "${url.href}": ${errorMessage(error)}`, !lasting, { cause: error }),
        );
      };
      const request = (isSecure ? https : http).request(url, {
        method,
        ...way,
        headers: { ...headers, ...(way.headers as Record<string, string> | undefined) },
        ...(signal && { signal }),
      });
      request.setTimeout(IDLE_MS_MAX, () =>
        request.destroy(new Error(`no answer for ${IDLE_MS_MAX / 1000} seconds`)),
      );
      request.on('error', fail);
      request.on('response', (answer) => {
        resolve({ status: answer.statusCode ?? 0, headers: answer.headers, body: answer, url });
      });
      if (body === undefined || body instanceof Buffer) request.end(body);
      else pipeline(body, request).catch(fail);
    });
  }
}

/** Lets go of a body that says nothing of interest. A short one is read, so that its connection can be used again. */
export function discard({ body }: HttpAnswer): void {
  let length = 0;
  body.on('data', (part: Buffer) => {
    length += part.length;
    if (length > DISCARDED_BYTES_MAX) body.destroy();
  });
  const timer = setTimeout(() => body.destroy(), DISCARDED_MS_MAX);
  body.once('close', () => clearTimeout(timer));
  body.on('error', () => {});
}

/** A body as bytes. @throws DrydockError ERR_REGISTRY when it is longer than `bytesMax`, or never comes to its end */
export async function readBody(answer: HttpAnswer, bytesMax: number): Promise<Buffer> {
  const parts: Buffer[] = [];
  let length = 0;
  const late = new DrydockError(
    'ERR_REGISTRY',
    `the answer of ${answer.url.href} did not end within ${BODY_MS_MAX / 1000} seconds`,
  );
  const timer = setTimeout(() => answer.body.destroy(late), BODY_MS_MAX);
  answer.body.once('close', () => clearTimeout(timer));
  for await (const part of answer.body as AsyncIterable<Buffer>) {
    length += part.length;
    if (length > bytesMax) {
      answer.body.destroy();
      throw new DrydockError(
        'ERR_REGISTRY',
        `the answer of ${answer.url.href} has more than ${bytesMax} bytes`,
      );
    }
    parts.push(part);
  }
  return Buffer.concat(parts);
}
