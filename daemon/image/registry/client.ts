/**
 * A registry, as the OCI distribution specification has it: manifests and blobs of repositories, with authentication
 * and with docker's texts for what can go wrong.
 */
import type { Readable } from 'node:stream';
import { DrydockError } from '#common/errors';
import { plainText } from '#common/plain-text';
import { DOCUMENT_BYTES_MAX } from '../config-file.ts';
import { digestOf } from '../content.ts';
import { DEFAULT_DOMAIN, familiarRepository, type Reference } from '../reference.ts';
import { answerChallenge, type Credentials, parseChallenges, parseObject } from './auth.ts';
import { ACCEPTED_MANIFESTS } from './manifest.ts';
import { inSubnet } from './proxy.ts';
import {
  discard,
  type HttpAnswer,
  type HttpRequest,
  readBody,
  type Transport,
  TransportError,
} from './transport.ts';

/** docker.io is a name, not a registry. */
const HUB_HOST = 'registry-1.docker.io';
const ERROR_BYTES_MAX = 64 << 10;
/** Registries give a hundred tags or more on each. */
const TAG_PAGES_MAX = 1000;

export interface ClientParts {
  transport: Transport;
  credentials: Credentials | undefined;
  /** Base URLs to try in this order: mirrors, https, http where that is allowed. */
  endpoints: URL[];
}

/** A manifest as its bytes. */
export interface FetchedManifest {
  bytes: Buffer;
  digest: string;
  contentType: string | undefined;
}

/** The base URLs of a registry. Plain http only where that is wished, or on this machine. */
export function endpointsOf(
  domain: string,
  options: { mirrors: readonly string[]; isInsecure: boolean },
): URL[] {
  const host = domain === DEFAULT_DOMAIN ? HUB_HOST : domain;
  const endpoints = domain === DEFAULT_DOMAIN ? options.mirrors.map((mirror) => new URL(mirror)) : [];
  endpoints.push(new URL(`https://${host}`));
  if (options.isInsecure) endpoints.push(new URL(`http://${host}`));
  return endpoints;
}

/** Whether a registry may do without TLS: it was named, one of its addresses lies in a subnet that was, or it is on a loopback address, as dockerd has it. */
export function isInsecure(
  domain: string,
  insecure: readonly string[],
  addresses: readonly string[],
): boolean {
  const host = domain.replace(/:\d+$/, '');
  return (
    /^(127\.\d+\.\d+\.\d+|\[::1\]|localhost)$/.test(host) ||
    insecure.includes(domain) ||
    insecure.includes(host) ||
    insecure.some((entry) => addresses.some((address) => inSubnet(address, entry)))
  );
}

/** One repository of a registry, for one operation. */
export class RepositoryClient {
  readonly #parts: ClientParts;
  readonly #reference: Reference;
  /** The actions that tokens are asked for. */
  readonly #actions: 'pull' | 'pull,push';
  /** Repositories of the same registry whose blobs may be mounted. */
  readonly #sources: readonly string[];
  #endpoint: URL | undefined;
  #authorization: string | undefined;

  constructor(
    parts: ClientParts,
    reference: Reference,
    actions: 'pull' | 'pull,push',
    sources: readonly string[] = [],
  ) {
    this.#sources = sources;
    this.#parts = parts;
    this.#reference = reference;
    this.#actions = actions;
  }

  /** Finds out how the registry is spoken to, before several requests at a time do. @throws TransportError */
  async connect(): Promise<void> {
    let failure: unknown;
    for (const endpoint of this.#parts.endpoints) {
      try {
        discard(await this.#parts.transport.send({ method: 'GET', url: new URL('/v2/', endpoint) }));
        this.#endpoint = endpoint;
        return;
      } catch (error) {
        failure ??= error;
      }
    }
    throw failure;
  }

  /** A manifest by tag or digest, verified when it was asked for by digest. */
  async manifest(tagOrDigest: string, signal?: AbortSignal): Promise<FetchedManifest> {
    const answer = await this.#send('GET', `manifests/${tagOrDigest}`, {
      headers: { Accept: ACCEPTED_MANIFESTS },
      ...(signal && { signal }),
    });
    const bytes = await readBody(answer, DOCUMENT_BYTES_MAX);
    if (answer.status !== 200) throw this.#refusal(answer, bytes, tagOrDigest);
    const digest = digestOf(bytes);
    const expected = tagOrDigest.includes(':') ? tagOrDigest : answer.headers['docker-content-digest'];
    if (expected !== undefined && expected !== digest)
      throw new DrydockError(
        'ERR_DIGEST_MISMATCH',
        `manifest verification failed for digest ${String(expected)}: the registry sent ${digest}`,
      );
    return { bytes, digest, contentType: answer.headers['content-type'] };
  }

  /** A blob's bytes from `offset` on. The answer says (206 or 200) whether the offset was kept. */
  async blob(digest: string, offset: number, signal?: AbortSignal): Promise<HttpAnswer> {
    const answer = await this.#send('GET', `blobs/${digest}`, {
      ...(offset > 0 && { headers: { Range: `bytes=${offset}-` } }),
      ...(signal && { signal }),
    });
    if (answer.status === 200 || answer.status === 206) return answer;
    throw this.#refusal(answer, await readBody(answer, ERROR_BYTES_MAX), digest);
  }

  async hasBlob(digest: string): Promise<boolean> {
    const answer = await this.#send('HEAD', `blobs/${digest}`, {});
    discard(answer);
    if (answer.status === 200) return true;
    if (answer.status === 404) return false;
    throw this.#refusal(answer, Buffer.alloc(0), digest);
  }

  /** Takes a blob over from another repository of the registry. False: it can't; upload it. */
  async mountBlob(digest: string, from: string): Promise<boolean> {
    const query = new URLSearchParams({ mount: digest, from });
    const answer = await this.#send('POST', `blobs/uploads/?${query}`, {
      headers: { 'Content-Length': '0' },
    });
    discard(answer);
    return answer.status === 201;
  }

  /** Uploads a blob whose digest is known when its last byte is. */
  async upload(content: Readable, digest: () => string, signal?: AbortSignal): Promise<void> {
    const started = await this.#send('POST', 'blobs/uploads/', { headers: { 'Content-Length': '0' } });
    await this.#expect(started, 202, 'upload');
    const target = this.#location(started);
    const patched = await this.#raw({
      method: 'PATCH',
      url: target,
      headers: { 'Content-Type': 'application/octet-stream' },
      body: content,
      ...(signal && { signal }),
    });
    await this.#expect(patched, 202, 'upload');
    const finish = this.#location(patched);
    finish.searchParams.set('digest', digest());
    const finished = await this.#raw({ method: 'PUT', url: finish, headers: { 'Content-Length': '0' } });
    await this.#expect(finished, 201, 'upload');
  }

  async putManifest(tag: string, bytes: Buffer, mediaType: string): Promise<void> {
    const answer = await this.#send('PUT', `manifests/${tag}`, {
      headers: { 'Content-Type': mediaType, 'Content-Length': String(bytes.length) },
      body: bytes,
    });
    await this.#expect(answer, 201, tag);
  }

  /** All tags of the repository, of as many pages as the registry makes of them. @throws DrydockError ERR_REGISTRY when they never end */
  async tags(): Promise<string[]> {
    const found: string[] = [];
    let path: string | undefined = 'tags/list';
    for (let page = 0; path !== undefined; page++) {
      if (page === TAG_PAGES_MAX)
        throw new DrydockError(
          'ERR_REGISTRY',
          `the registry lists the tags of ${familiarRepository(this.#reference)} on more than ${TAG_PAGES_MAX} pages`,
        );
      const answer: HttpAnswer = await this.#send('GET', path, {});
      const bytes = await readBody(answer, DOCUMENT_BYTES_MAX);
      if (answer.status !== 200) throw this.#refusal(answer, bytes, 'tags');
      const { tags } = parseObject(bytes);
      if (Array.isArray(tags)) found.push(...tags.filter((tag) => typeof tag === 'string'));
      path = nextPage(answer);
    }
    return found;
  }

  async #send(
    method: HttpRequest['method'],
    path: string,
    options: Pick<HttpRequest, 'headers' | 'body' | 'signal'>,
  ): Promise<HttpAnswer> {
    const candidates = this.#endpoint ? [this.#endpoint] : this.#parts.endpoints;
    let failure: unknown;
    for (const endpoint of candidates) {
      try {
        const url = new URL(`/v2/${this.#reference.path}/${path}`, endpoint);
        const answer = await this.#raw({ method, url, ...options });
        // A mirror that has not got it is passed over.
        if (
          answer.status === 404 &&
          endpoint !== candidates.at(-1) &&
          !this.#endpoint &&
          this.#isMirror(endpoint)
        ) {
          discard(answer);
          continue;
        }
        this.#endpoint = endpoint;
        return answer;
      } catch (error) {
        // What https says matters more than that nothing speaks http there.
        failure ??= error;
        if (!(error instanceof TransportError) || this.#endpoint || options.signal?.aborted) throw error;
      }
    }
    throw failure;
  }

  #isMirror(endpoint: URL): boolean {
    return this.#reference.domain === DEFAULT_DOMAIN && endpoint.host !== HUB_HOST;
  }

  /** Sends with what authorisation we have; on a challenge answers it and sends again, unless the body is spent. */
  async #raw(request: HttpRequest): Promise<HttpAnswer> {
    const { transport, credentials } = this.#parts;
    // What the registry names itself, such as a place to upload to, may be elsewhere: its credentials are for it alone.
    if (request.url.origin !== (this.#endpoint ?? request.url).origin) return transport.send(request);
    const used = this.#authorization;
    const send = (authorization: string | undefined): Promise<HttpAnswer> =>
      transport.send({
        ...request,
        headers: { ...request.headers, ...(authorization !== undefined && { Authorization: authorization }) },
      });
    const answer = await send(used);
    const challenge = answer.headers['www-authenticate'];
    if (answer.status !== 401 || challenge === undefined) return answer;
    if (request.body !== undefined && !(request.body instanceof Buffer)) return answer;
    const scopes = [
      `repository:${this.#reference.path}:${this.#actions}`,
      ...this.#sources.map((path) => `repository:${path}:pull`),
    ];
    const authorization = await answerChallenge(
      transport,
      { from: answer.url, challenges: parseChallenges(challenge) },
      credentials,
      scopes,
    );
    if (authorization === undefined || authorization === used) return answer;
    discard(answer);
    this.#authorization = authorization;
    return send(authorization);
  }

  #location(answer: HttpAnswer): URL {
    const { location } = answer.headers;
    const url =
      location !== undefined && URL.canParse(location, answer.url.href)
        ? new URL(location, answer.url)
        : undefined;
    if (url?.protocol !== 'http:' && url?.protocol !== 'https:')
      throw new DrydockError(
        'ERR_REGISTRY',
        `the registry gave no place to upload to (${JSON.stringify(location)})`,
      );
    return url;
  }

  async #expect(answer: HttpAnswer, status: number, what: string): Promise<void> {
    const bytes = await readBody(answer, ERROR_BYTES_MAX);
    if (answer.status !== status) throw this.#refusal(answer, bytes, what);
  }

  /** What the registry's refusal means, in the words that docker uses. */
  #refusal(answer: HttpAnswer, bytes: Buffer, subject: string): DrydockError {
    const name = familiarRepository(this.#reference);
    const { errors } = parseObject(bytes);
    const [first] = Array.isArray(errors) ? (errors as { code?: unknown; message?: unknown }[]) : [];
    const code = typeof first?.code === 'string' ? first.code : '';
    const reason = `${plainText(code.toLowerCase().replaceAll('_', ' ')) || `status ${answer.status}`}: ${plainText(String(first?.message ?? http(answer.status)))}`;
    if (answer.status === 401 || answer.status === 403 || code === 'NAME_UNKNOWN') {
      const text =
        this.#actions === 'pull'
          ? `pull access denied for ${name}, repository does not exist or may require 'docker login': ${reason}`
          : `push access denied for ${name}, repository does not exist or may require authorization: ${reason}`;
      return new DrydockError(
        code === 'NAME_UNKNOWN' || this.#actions === 'pull' ? 'ERR_IMAGE_NOT_FOUND' : 'ERR_UNAUTHORIZED',
        text,
      );
    }
    if (answer.status === 404) {
      const at = subject.includes(':') ? '@' : ':';
      return new DrydockError(
        'ERR_IMAGE_NOT_FOUND',
        `manifest for ${name}${at}${subject} not found: ${reason}`,
      );
    }
    const temporary = answer.status >= 500 || answer.status === 429;
    return new TransportError(`${answer.url.href}: ${reason}`, temporary);
  }
}

/** The path of the next page of tags: the same list, from another tag on (OCI distribution-spec, RFC 5988). */
function nextPage({ headers, url }: HttpAnswer): string | undefined {
  const target = /<([^>]*)>\s*;\s*rel="?next"?/.exec(String(headers.link ?? ''))?.[1];
  if (target === undefined || !URL.canParse(target, url.href)) return undefined;
  return `tags/list${new URL(target, url).search}`;
}

function http(status: number): string {
  return `the registry answered ${status}`;
}

/** `docker login`: whether a registry takes the credentials. @throws ERR_UNAUTHORIZED, TransportError */
export async function checkLogin({ transport, credentials, endpoints }: ClientParts): Promise<void> {
  let failure: unknown;
  for (const endpoint of endpoints) {
    const url = new URL('/v2/', endpoint);
    try {
      const first = await transport.send({ method: 'GET', url });
      discard(first);
      const challenge = first.headers['www-authenticate'];
      if (first.status === 200) return;
      const authorization =
        challenge === undefined
          ? undefined
          : await answerChallenge(
              transport,
              { from: url, challenges: parseChallenges(challenge) },
              credentials,
              [],
            );
      const second =
        authorization === undefined
          ? first
          : await transport.send({ method: 'GET', url, headers: { Authorization: authorization } });
      discard(second);
      if (second.status === 200) return;
      throw new DrydockError(
        'ERR_UNAUTHORIZED',
        `login attempt to ${url.href} failed with status: ${second.status} ${plainText(second.body.statusMessage ?? '')}`,
      );
    } catch (error) {
      failure ??= error;
      if (!(error instanceof TransportError)) throw error;
    }
  }
  throw failure;
}
