/**
 * Solves what BuildKit's clients ask for: a Dockerfile by the built-in frontend, whether the client names it in Solve or
 * runs it by the gateway, and lone sources. What becomes of the result is said by the exporters.
 */
import { createWriteStream } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import type { Clock } from '#common/clock';
import { DrydockError } from '#common/errors';
import type { HostConfig } from '../../container/types.ts';
import { formatFamiliar, formatNormal, parseTagged } from '../../image/reference.ts';
import type { NamedContext } from '../options.ts';
import type { StepRunner } from '../runner.ts';
import type { Builds } from '../service.ts';
import { cleanPath } from '../sources.ts';
import { cacheImport, checkCacheExport, type FrontendWishes, readAttributes } from './attributes.ts';
import {
  fetchClientFolder,
  fetchNamedFolder,
  fetchRemote,
  fetchSource,
  openRemote,
  type SourceParts,
} from './context.ts';
import type { Definition, SolveRequest, TypedOptions } from './control-messages.ts';
import { checkOutput, exportResult } from './export.ts';
import { Job, type JobResult, Jobs } from './jobs.ts';
import { imageOfSource, sourceOf } from './llb.ts';
import { sessionStepClient } from './session-client.ts';
import { credentialsOfSession, type Sessions } from './sessions.ts';
import { inBuildKitsWords, traceSteps } from './steps.ts';

/** The only frontend, and the names that clients have for it. */
const FRONTEND = 'dockerfile.v0';
/** Exporters that make an image of this daemon: `moby` is what the docker driver of buildx asks for. */
const IMAGE_EXPORTERS = new Set(['moby', 'image']);
const IMAGE_OPTIONS = new Set(['name', 'push', 'unpack', 'dangling-name-prefix']);

/** A Dockerfile to build. */
export interface FrontendRequest {
  frontend: string;
  attributes: ReadonlyMap<string, string>;
  /** Results of other builds, by name. */
  inputs: ReadonlyMap<string, Definition | undefined>;
}

export interface SolverParts {
  builds: Builds;
  sessions: Sessions;
  clock: Clock;
  /** Runs commands with these limits. */
  runnerFor: (hostConfig: HostConfig) => StepRunner;
}

/** See the module's head. */
export class Solver {
  readonly jobs: Jobs;
  readonly #parts: SolverParts;
  #folders = 0;

  constructor(parts: SolverParts) {
    this.#parts = parts;
    this.jobs = new Jobs(parts.clock);
  }

  /** Control/Solve: a whole build. Returns what the exporters tell. @throws DrydockError */
  async solve(request: SolveRequest, signal: AbortSignal): Promise<Map<string, string>> {
    const outputs = outputsOf(request);
    try {
      checkRequest(request, outputs);
    } catch (error) {
      this.jobs.refuse(request.Ref);
      throw error;
    }
    const { builds, sessions, clock } = this.#parts;
    const session = await sessions.get(request.Session, signal);
    const { library } = builds.images;
    const failed = new AbortController();
    try {
      return await builds.withScratch((scratchPath) =>
        library.lease(async (lease) => {
          const job = new Job(
            {
              ...{ ref: request.Ref, session, scratchPath, lease },
              signal: AbortSignal.any([signal, failed.signal]),
              entitlements: new Set(request.Entitlements),
            },
            clock,
          );
          this.jobs.add(job);
          try {
            const result = await this.#result(job, request);
            return await this.#export(job, result, outputs);
          } finally {
            this.jobs.end(job);
          }
        }),
      );
    } finally {
      // Calls of the gateway that are still under way have nobody to tell.
      failed.abort(new DrydockError('ERR_CANCELED', 'context canceled'));
    }
  }

  async #result(job: Job, request: SolveRequest): Promise<JobResult | undefined> {
    if (request.Frontend !== '') {
      const { Frontend, FrontendAttrs, FrontendInputs, Cache } = request;
      const attributes = withCacheImports(FrontendAttrs, Cache?.Imports ?? []);
      return this.frontend(job, { frontend: Frontend, attributes, inputs: FrontendInputs });
    }
    if (request.Definition && request.Definition.def.length > 0)
      return this.definition(job, request.Definition);
    return new Promise((resolve, reject) => {
      job.signal.addEventListener('abort', () => reject(job.signal.reason as Error), { once: true });
      job.returned.then(resolve, reject);
    });
  }

  async #export(
    job: Job,
    result: JobResult | undefined,
    outputs: TypedOptions[],
  ): Promise<Map<string, string>> {
    const told = new Map<string, string>();
    for (const [index, { Type, Attrs }] of outputs.entries()) {
      if (result?.kind !== 'image') throw new DrydockError('ERR_BUILD', 'the build has no image to export');
      if (IMAGE_EXPORTERS.has(Type)) await this.#exportImage(job, result.imageId, Attrs, told);
      else
        await exportResult(this.#parts.builds, {
          ...{ imageId: result.imageId, session: job.session, trace: job.trace, signal: job.signal },
          output: { type: Type, options: Attrs, index },
        });
    }
    return told;
  }

  /** The image is here already: it gets its names. */
  async #exportImage(
    { trace }: Job,
    imageId: string,
    options: ReadonlyMap<string, string>,
    told: Map<string, string>,
  ): Promise<void> {
    const { library } = this.#parts.builds.images;
    const names = (options.get('name') ?? '').split(',').filter((name) => name !== '');
    const references = names.map(parseTagged);
    await trace.run('exporting to image', async (step) => {
      step.status({ status: `writing image ${imageId}` });
      for (const name of references) {
        await library.setName(imageId, formatNormal(name));
        library.emit('tag', imageId, formatFamiliar(name));
        step.status({ status: `naming to ${formatNormal(name)}` });
      }
    });
    told.set('containerimage.digest', imageId);
    told.set('containerimage.config.digest', imageId);
    if (names.length > 0) told.set('image.name', references.map(formatNormal).join(','));
  }

  /** Builds a Dockerfile. @throws DrydockError in BuildKit's words */
  async frontend(job: Job, request: FrontendRequest): Promise<JobResult> {
    if (request.frontend !== FRONTEND)
      throw new DrydockError(
        'ERR_BUILD',
        `the frontend ${request.attributes.get('source') ?? request.frontend} can't be run: only ${FRONTEND} is built in`,
      );
    const wishes = readAttributes(request.attributes);
    if (wishes.requestId !== '')
      throw new DrydockError('ERR_NOT_IMPLEMENTED', `unsupported request ${wishes.requestId}`);
    try {
      const imageId = await this.#build(job, wishes, request);
      const { library } = this.#parts.builds.images;
      for (const digest of library.digestsOf(library.parts.records.get(imageId)!)) job.lease.add(digest);
      return { kind: 'image', imageId };
    } catch (error) {
      throw inBuildKitsWords(error);
    }
  }

  #build(job: Job, wishes: FrontendWishes, { inputs }: FrontendRequest): Promise<string> {
    const { session, signal, trace } = job;
    const { builds, runnerFor } = this.#parts;
    // Of its own: a client may build several things in one job.
    const shared = { builds, session, trace, signal };
    const contexts = new Map<string, NamedContext>();
    if (wishes.options.buildArgs.has('SOURCE_DATE_EPOCH'))
      trace.begin('[warning] SOURCE_DATE_EPOCH is not supported: times stay what they are').end();
    return builds.build({
      options: { ...wishes.options, namedContexts: contexts, entitlements: job.entitlements },
      source: async (scratchPath) => {
        const parts: SourceParts = { ...shared, scratchPath };
        // `name::platform` is for builds of several platforms, of which there is one.
        for (const [name, text] of wishes.contexts)
          contexts.set(name.replace(/::.*$/, ''), this.#namedContext(parts, name, text, inputs));
        return fetchSource(parts, wishes.sources);
      },
      runner: runnerFor(wishes.hostConfig),
      client: sessionStepClient(session),
      credentialsFor: (domain) => credentialsOfSession(session, domain, signal),
      progress: () => {},
      observer: traceSteps(trace),
      signal,
    });
  }

  #namedContext(
    parts: SourceParts,
    name: string,
    text: string,
    inputs: FrontendRequest['inputs'],
  ): NamedContext {
    const [scheme = '', rest = ''] = text.split(/:(.*)/s);
    const as = `named-${this.#folders++}`;
    if (scheme === 'docker-image') return { kind: 'image', reference: rest.replace(/^\/\//, '') };
    if (scheme === 'input') {
      const definition = inputs.get(rest);
      const imageId = definition && imageOfSource(sourceOf(definition));
      if (imageId === undefined) throw new DrydockError('ERR_BUILD', `invalid input ${rest} for ${name}`);
      return { kind: 'image', reference: imageId };
    }
    const isLocal = scheme === 'local';
    if (!isLocal && !/^(git|https?)$/.test(scheme) && !text.startsWith('git@'))
      throw new DrydockError(
        'ERR_BUILD',
        `the context ${name} can't be had: ${text} is none of a folder, docker-image://, target:, http, https and git`,
      );
    let fetching: Promise<string> | undefined;
    const fetch = (): Promise<string> =>
      parts.trace.run(`[context ${name}] load from ${isLocal ? 'client' : text}`, () =>
        isLocal ? fetchNamedFolder(parts, as, rest) : fetchRemote(parts, text, as),
      );
    return { kind: 'folder', fetch: () => (fetching ??= fetch()) };
  }

  /** A lone source: files for the client to read, or the result of another build. @throws ERR_NOT_IMPLEMENTED */
  async definition(job: Job, definition: Definition): Promise<JobResult> {
    const source = sourceOf(definition);
    const imageId = imageOfSource(source);
    if (imageId !== undefined) return { kind: 'image', imageId };
    const { session, trace, scratchPath, signal } = job;
    const parts: SourceParts = { builds: this.#parts.builds, session, trace, scratchPath, signal };
    const as = `source-${this.#folders++}`;
    const list = (name: string): string[] => {
      const text = source.attributes.get(name);
      const value: unknown = text === undefined ? [] : JSON.parse(text);
      return Array.isArray(value) ? value.map(String) : [];
    };
    if (source.scheme === 'local') {
      const path = await fetchClientFolder(parts, as, {
        name: source.rest,
        excludes: list('local.excludepatterns'),
        followPaths: list('local.followpaths'),
      });
      return { kind: 'folder', path };
    }
    if (source.scheme === 'git' || source.scheme === 'http' || source.scheme === 'https') {
      const url = source.attributes.get('git.fullurl');
      const fragment = source.rest.replace(/^[^#]*/, '');
      return {
        kind: 'folder',
        path: await this.#remote(parts, url ? url + fragment : source.identifier, source.attributes, as),
      };
    }
    throw new DrydockError(
      'ERR_NOT_IMPLEMENTED',
      `the source ${source.identifier} can't be had by this daemon`,
    );
  }

  /** A repository as a folder; a file of http alone in one. */
  async #remote(
    parts: SourceParts,
    address: string,
    attributes: ReadonlyMap<string, string>,
    as: string,
  ): Promise<string> {
    if (address.startsWith('git://') || attributes.has('git.fullurl')) return fetchRemote(parts, address, as);
    const name = attributes.get('http.filename') ?? new URL(address).pathname.split('/').at(-1)!;
    const folder = join(parts.scratchPath, as);
    await mkdir(folder);
    const stream = await openRemote(new URL(address), parts.signal);
    await pipeline(stream, createWriteStream(join(folder, cleanPath(name).split('/').at(-1) || 'index')));
    return folder;
  }
}

/** The exporters, in the newer form or in the older one. */
function outputsOf({ Exporters, Exporter, ExporterAttrs }: SolveRequest): TypedOptions[] {
  if (Exporters.length > 0) return Exporters;
  return Exporter === '' ? [] : [{ Type: Exporter, Attrs: ExporterAttrs }];
}

/** Refuses early what can't be done late. */
function checkRequest({ Cache, Entitlements }: SolveRequest, outputs: TypedOptions[]): void {
  for (const each of Cache?.Exports ?? []) checkCacheExport(each);
  for (const each of Cache?.Imports ?? []) cacheImport(each);
  for (const name of Entitlements)
    if (name !== 'network.host')
      throw new DrydockError(
        'ERR_BAD_PARAMETER',
        `granting entitlement ${name} is not allowed by build daemon configuration`,
      );
  for (const [index, { Type, Attrs }] of outputs.entries()) {
    if (!IMAGE_EXPORTERS.has(Type)) checkOutput({ type: Type, options: Attrs, index });
    else
      for (const [name, value] of Attrs)
        if (!IMAGE_OPTIONS.has(name) && value !== '' && value !== 'false')
          throw new DrydockError(
            'ERR_BAD_PARAMETER',
            `the option ${name} of --output type=image is not supported`,
          );
  }
}

function withCacheImports(
  attributes: ReadonlyMap<string, string>,
  imports: TypedOptions[],
): Map<string, string> {
  const references = imports.map(cacheImport);
  const given = attributes.get('cache-from');
  if (references.length === 0 || attributes.has('cache-imports')) return new Map(attributes);
  return new Map([...attributes, ['cache-from', [...(given ? [given] : []), ...references].join(',')]]);
}
