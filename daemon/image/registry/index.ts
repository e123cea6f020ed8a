/** Registries: pull, push and login, by references. */

import { lookup } from 'node:dns/promises';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import tls from 'node:tls';
import type { Clock } from '#common/clock';
import { DrydockError } from '#common/errors';
import type { Library } from '../library.ts';
import { hostPlatform, parsePlatform } from '../platform.ts';
import {
  DEFAULT_TAG,
  familiarRepository,
  formatFamiliar,
  formatNormal,
  parseReference,
  type Reference,
  repositoryOf,
} from '../reference.ts';
import type { RegistryRequest } from '../store.ts';
import type { Credentials } from './auth.ts';
import { checkLogin, endpointsOf, isInsecure, RepositoryClient } from './client.ts';
import { describeRemote, type FetchedDescriptor } from './distribution.ts';
import { NO_PROXIES, type ProxyOptions } from './proxy.ts';
import { pullImage } from './pull.ts';
import { pushImage } from './push.ts';
import { Transport } from './transport.ts';

/** Repositories that are tried for a mount, and named in the request for a token: dockerd tries as many. */
const SOURCES_MAX = 4;

/** How registries are reached, as dockerd's options of these names. */
export interface RegistryOptions {
  /** Base URLs that are tried before docker.io. */
  mirrors: readonly string[];
  /** Hosts that may do without TLS or with a certificate that nobody signed. */
  insecure: readonly string[];
  /** Where `HOST/*.crt` are the certificates that a registry's is trusted by. */
  certsDir: string;
  /** Layers of one pull at a time, and attempts for each. */
  downloadsMax: number;
  downloadAttemptsMax: number;
  /** Layers of one push at a time. */
  uploadsMax: number;
  proxies: ProxyOptions;
}

const DEFAULT_REGISTRY_OPTIONS: RegistryOptions = {
  mirrors: [],
  insecure: [],
  certsDir: '/etc/docker/certs.d',
  downloadsMax: 3,
  downloadAttemptsMax: 5,
  uploadsMax: 5,
  proxies: NO_PROXIES,
};

/** Addresses of a name; none when it has none, which the attempt to reach it then tells. */
async function addressesOf(host: string): Promise<string[]> {
  const found = await lookup(host, { all: true }).catch(() => []);
  return found.map(({ address }) => address);
}

/** See the module's head. */
export class Registries {
  readonly #library: Library;
  readonly #clock: Clock;
  #options: RegistryOptions;

  constructor(library: Library, clock: Clock, options: Partial<RegistryOptions> = {}) {
    this.#library = library;
    this.#clock = clock;
    this.#options = { ...DEFAULT_REGISTRY_OPTIONS, ...options };
  }

  /** How registries are reached from now on; what is under way goes on as it began. */
  reload(options: Partial<RegistryOptions>): void {
    this.#options = { ...this.#options, ...options };
  }

  /** @param text a reference; @param allTags pulls all of the repository. Returns the ids. */
  async pull(
    text: string,
    request: RegistryRequest & { platform?: string; allTags?: boolean },
  ): Promise<string[]> {
    const reference = parseReference(text);
    const platform = request.platform ? parsePlatform(request.platform) : hostPlatform();
    return this.#with(reference, 'pull', request, async (client) => {
      const tags =
        reference.digest !== undefined
          ? [undefined]
          : request.allTags
            ? await client.tags()
            : [reference.tag ?? DEFAULT_TAG];
      const ids: string[] = [];
      for (const tag of tags) {
        const one: Reference =
          reference.digest === undefined ? { ...reference, tag } : { ...reference, tag: undefined };
        const parts = {
          ...request,
          client,
          library: this.#library,
          clock: this.#clock,
          platform,
          limits: this.#options,
        };
        const id = await pullImage(parts, one);
        ids.push(id);
        this.#library.emit('pull', formatFamiliar(one), familiarRepository(one));
      }
      return ids;
    });
  }

  /** Pushes one tag, or all that the repository has here when the reference has none and `allTags`. */
  async push(text: string, request: RegistryRequest & { allTags?: boolean }): Promise<void> {
    const reference = parseReference(text);
    const names = this.#names(reference, request.allTags === true);
    request.progress({ status: `The push refers to repository [${repositoryOf(reference)}]` });
    await this.#with(reference, 'pull,push', request, async (client) => {
      await client.connect();
      for (const [one, id] of names) {
        const sources = (diffId: string): string[] => this.#sources(reference, diffId);
        const { uploadsMax } = this.#options;
        await pushImage(
          { client, sources, library: this.#library, clock: this.#clock, uploadsMax, ...request },
          id,
          one,
        );
        this.#library.emit('push', formatFamiliar(one), familiarRepository(one));
      }
    });
  }

  /** `docker login`. @throws ERR_UNAUTHORIZED */
  async login(domain: string, credentials: Credentials): Promise<void> {
    const { transport, isInsecure } = await this.#reach(domain);
    try {
      await checkLogin({
        transport,
        credentials,
        endpoints: endpointsOf(domain, { isInsecure, mirrors: [] }),
      });
    } finally {
      transport.close();
    }
  }

  /** What a registry has under a name: `GET /distribution/NAME/json`. */
  async describe(
    text: string,
    { credentials, signal }: Pick<RegistryRequest, 'credentials' | 'signal'>,
  ): Promise<FetchedDescriptor> {
    const reference = parseReference(text);
    const request = { credentials, signal, progress: () => {} };
    return this.#with(reference, 'pull', request, (client) =>
      describeRemote(client, reference.digest ?? reference.tag ?? DEFAULT_TAG, signal),
    );
  }

  async #with<T>(
    reference: Reference,
    actions: 'pull' | 'pull,push',
    { credentials }: RegistryRequest,
    work: (client: RepositoryClient) => Promise<T>,
  ): Promise<T> {
    const { transport, isInsecure } = await this.#reach(reference.domain);
    const endpoints = endpointsOf(reference.domain, {
      isInsecure,
      mirrors: actions === 'pull' ? this.#options.mirrors : [],
    });
    const sources = actions === 'pull' ? [] : this.#sources(reference);
    try {
      return await work(
        new RepositoryClient({ transport, credentials, endpoints }, reference, actions, sources),
      );
    } finally {
      transport.close();
    }
  }

  /** Other repositories of a registry from or to which images (with this layer) went. */
  #sources({ domain, path }: Reference, diffId?: string): string[] {
    const { records } = this.#library.parts;
    const paths = records.references().flatMap(([name, id]) => {
      const each = parseReference(name);
      if (each.digest === undefined || each.domain !== domain || each.path === path) return [];
      const hasLayer =
        diffId === undefined || records.get(id)?.layers.some((layer) => layer.diffId === diffId);
      return hasLayer ? [each.path] : [];
    });
    return [...new Set(paths)].slice(0, SOURCES_MAX);
  }

  #names(reference: Reference, allTags: boolean): [Reference, string][] {
    const { records } = this.#library.parts;
    if (reference.digest !== undefined)
      throw new DrydockError('ERR_BAD_REFERENCE', 'cannot push a digest reference');
    const repository = repositoryOf(reference);
    const local = records.references().flatMap(([name, id]): [Reference, string][] => {
      const each = parseReference(name);
      return each.tag !== undefined && each.digest === undefined && repositoryOf(each) === repository
        ? [[each, id]]
        : [];
    });
    const wanted = formatNormal({ ...reference, tag: reference.tag ?? DEFAULT_TAG });
    const chosen = allTags ? local : local.filter(([each]) => formatNormal(each) === wanted);
    if (chosen.length > 0) return chosen;
    throw new DrydockError(
      'ERR_IMAGE_NOT_FOUND',
      local.length === 0 || allTags
        ? `An image does not exist locally with the tag: ${familiarRepository(reference)}`
        : `tag does not exist: ${formatFamiliar(parseReference(wanted))}`,
    );
  }

  /** A way to a registry, and whether it may do without TLS. */
  async #reach(domain: string): Promise<{ transport: Transport; isInsecure: boolean }> {
    const ca = this.#certificates(domain);
    const { insecure, proxies } = this.#options;
    const host = new URL(`http://${domain}`).hostname.replace(/^\[|\]$/g, '');
    // Names are looked up for subnets only, as dockerd does it.
    const addresses = insecure.some((entry) => entry.includes('/')) ? await addressesOf(host) : [];
    const found = isInsecure(domain, insecure, addresses);
    const transport = new Transport(
      {
        rejectUnauthorized: !found || ca.length > 0,
        ...(ca.length > 0 && { ca: [...tls.rootCertificates, ...ca] }),
      },
      proxies,
    );
    return { transport, isInsecure: found };
  }

  #certificates(domain: string): string[] {
    const folder = `${this.#options.certsDir}/${domain}`;
    if (!existsSync(folder)) return [];
    return readdirSync(folder)
      .filter((name) => name.endsWith('.crt'))
      .map((name) => readFileSync(`${folder}/${name}`, 'utf8'));
  }
}
