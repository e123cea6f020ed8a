/** POST /build, /commit and /build/prune (moby, api/server/router/build and container). */
import type { FastifyReply, FastifyRequest } from 'fastify';
import { errorCode, errorMessage } from '#common/errors';
import { openRemote } from '../build/buildkit/context.ts';
import { checkOutput, type OutputRequest } from '../build/buildkit/export.ts';
import { CACHE_FILTERS, cacheFilter } from '../build/cache-filters.ts';
import { fetchGit, parseGitUrl } from '../build/git.ts';
import { NO_WISHES } from '../build/options.ts';
import { containerRunner } from '../build/runner.ts';
import { type BuildRequest, type BuildSource, readDockerfile } from '../build/service.ts';
import type { ContainerConfig, HostConfig } from '../container/types.ts';
import { DEFAULT_DOMAIN } from '../image/reference.ts';
import { type Credentials, credentialsOf, parseObject } from '../image/registry/auth.ts';
import type { ImageConfig } from '../image/store.ts';
import type { ApiContext } from './context.ts';
import { badParameter } from './errors.ts';
import { switchProtocol } from './hijack.ts';
import { bodyStream, withProgress } from './images.ts';
import { filters, flag, integer, optionalJsonBody, text, texts } from './query.ts';
import type { ApiPlugin } from './server.ts';

/** Docker Hub's name in clients' files. */
const HUB_KEYS = ['https://index.docker.io/v1/', 'index.docker.io', DEFAULT_DOMAIN];

/** A parameter that is a JSON object; null values stay. */
function jsonParameter(request: FastifyRequest, name: string): Record<string, unknown> {
  const raw = text(request, name);
  if (raw === '') return {};
  try {
    const value: unknown = JSON.parse(raw);
    if (typeof value === 'object' && value !== null && !Array.isArray(value))
      return value as Record<string, unknown>;
  } catch {
    // told below
  }
  throw badParameter(`error reading ${name}: it is not a JSON object`);
}

function listParameter(request: FastifyRequest, name: string): string[] {
  const raw = text(request, name);
  if (raw === '' || raw === 'null') return [];
  try {
    const value: unknown = JSON.parse(raw);
    if (Array.isArray(value) && value.every((item) => typeof item === 'string')) return value;
  } catch {
    // told below
  }
  throw badParameter(`error reading ${name}: it is not a JSON list of texts`);
}

/** X-Registry-Config: credentials by registry, for images that the build pulls. */
function credentialsByRegistry(request: FastifyRequest): (domain: string) => Credentials | undefined {
  const header = request.headers['x-registry-config'];
  const registries = typeof header === 'string' ? parseObject(Buffer.from(header, 'base64')) : {};
  return (domain) => {
    const keys = domain === DEFAULT_DOMAIN ? HUB_KEYS : [domain, `https://${domain}`, `http://${domain}`];
    const entry = keys
      .map((key) => registries[key])
      .find((each) => typeof each === 'object' && each !== null);
    return entry ? credentialsOf(entry as Record<string, unknown>) : undefined;
  };
}

/** What the client wishes for the containers of RUN. */
function runHostConfig(request: FastifyRequest): HostConfig {
  const ulimits = text(request, 'ulimits');
  return {
    NetworkMode: text(request, 'networkmode') || 'default',
    Memory: integer(request, 'memory', 0),
    MemorySwap: integer(request, 'memswap', 0),
    CpuShares: integer(request, 'cpushares', 0),
    CpuPeriod: integer(request, 'cpuperiod', 0),
    CpuQuota: integer(request, 'cpuquota', 0),
    CpusetCpus: text(request, 'cpusetcpus'),
    CpusetMems: text(request, 'cpusetmems'),
    ShmSize: integer(request, 'shmsize', 0),
    ExtraHosts: texts(request, 'extrahosts')
      .flatMap((hosts) => hosts.split(','))
      .filter((host) => host !== ''),
    ...(ulimits !== '' && { Ulimits: ulimitsOf(ulimits) }),
  };
}

function ulimitsOf(text: string): NonNullable<HostConfig['Ulimits']> {
  try {
    return JSON.parse(text) as NonNullable<HostConfig['Ulimits']>;
  } catch (error) {
    throw badParameter(`error reading ulimit settings: ${errorMessage(error)}`);
  }
}

/** dockerd's own text: --squash is of its experimental mode. */
function refuseSquash(request: FastifyRequest): void {
  if (flag(request, 'squash')) throw badParameter('squash is only supported with experimental mode');
}

/** The context and the Dockerfile of a classic build: in the request, or at an address. */
function contextSource(
  request: FastifyRequest,
  { builds }: ApiContext,
  dockerfile: string,
): (scratchPath: string, signal: AbortSignal) => Promise<BuildSource> {
  const remote = text(request, 'remote');
  if (remote === '' || remote === 'client-session') {
    const body = bodyStream(request);
    return (scratchPath, signal) => builds.receive(body, dockerfile, scratchPath, signal);
  }
  const git = parseGitUrl(remote);
  if (!git && !/^https?:\/\//.test(remote))
    throw badParameter(`the context ${JSON.stringify(remote)} can't be fetched: use http, https or git`);
  return async (scratchPath, signal) => {
    if (!git)
      return builds.receive(await openRemote(new URL(remote), signal), dockerfile, scratchPath, signal);
    const contextPath = await fetchGit(git, `${scratchPath}/context`, { keepGitDir: false, signal });
    return { contextPath, dockerfile: await readDockerfile(contextPath, dockerfile) };
  };
}

/** The client speaks BuildKit's protocol: files and credentials come by its session, progress as a trace. */
const isBuildKit = (request: FastifyRequest): boolean => text(request, 'version') === '2';

/** --output, of which there may be one; an image of this daemon is what comes of a build anyway. */
function output(request: FastifyRequest): OutputRequest | undefined {
  const raw = text(request, 'outputs');
  const value: unknown = raw === '' ? [] : JSON.parse(raw);
  if (!Array.isArray(value)) throw badParameter('error reading outputs: it is not a JSON list');
  if (value.length > 1) throw badParameter('multiple outputs not supported');
  const [each] = value as ({ Type?: unknown; Attrs?: Record<string, string> | null } | null)[];
  if (!each || each.Type === 'moby' || each.Type === 'image') return undefined;
  const wish = { type: String(each.Type), options: new Map(Object.entries(each.Attrs ?? {})), index: 0 };
  checkOutput(wish);
  return wish;
}

/** The prefix of a build's id when the request brings only that build's context. */
const UPLOAD_PREFIX = 'upload-request:';

async function build(request: FastifyRequest, reply: FastifyReply, context: ApiContext): Promise<void> {
  const buildId = text(request, 'buildid');
  if (isBuildKit(request) && buildId.startsWith(UPLOAD_PREFIX)) {
    await context.sessionBuilds.upload(buildId.slice(UPLOAD_PREFIX.length), bodyStream(request));
    return void reply.code(200).send();
  }
  const sessionId = text(request, 'session');
  // As dockerd does, also before a refusal: a client that hears of one before it serves its session waits for ever.
  if (isBuildKit(request)) await context.sessionBuilds.sessions.get(sessionId, request.signal);
  refuseSquash(request);
  const options = buildOptions(request);
  const runner = containerRunner(context.containers, context.roots, runHostConfig(request));
  const dockerfile = text(request, 'dockerfile') || 'Dockerfile';
  if (isBuildKit(request)) {
    const remote = text(request, 'remote');
    const wish = output(request);
    return withProgress(request, reply, async (progress, signal) => {
      const isUploaded = remote === 'upload-request';
      await context.sessionBuilds.build({
        ...{ sessionId, buildId, isUploaded, dockerfile, options, runner, progress, signal, output: wish },
        remote: /^(client-session|upload-request|)$/.test(remote) ? undefined : remote,
      });
    });
  }
  const sourceOf = contextSource(request, context, dockerfile);
  await withProgress(request, reply, async (progress, signal) => {
    const credentialsFor = credentialsByRegistry(request);
    const source = (scratchPath: string): Promise<BuildSource> => sourceOf(scratchPath, signal);
    await context.builds.build({ options, source, runner, credentialsFor, progress, signal });
  });
}

function buildOptions(request: FastifyRequest): BuildRequest['options'] {
  const entries = (name: string): [string, unknown][] => Object.entries(jsonParameter(request, name));
  return {
    ...NO_WISHES,
    mode: isBuildKit(request) ? 'buildkit' : 'classic',
    tags: texts(request, 't').filter((tag) => tag !== ''),
    target: text(request, 'target'),
    buildArgs: new Map(
      entries('buildargs').map(([key, value]) => [key, value === null ? undefined : String(value)]),
    ),
    labels: Object.fromEntries(entries('labels').map(([key, value]) => [key, String(value)])),
    noCache: flag(request, 'nocache'),
    pull: flag(request, 'pull'),
    cacheFrom: listParameter(request, 'cachefrom'),
    platform: text(request, 'platform'),
    removeContainers: flag(request, 'rm', true),
    forceRemove: flag(request, 'forcerm'),
    quiet: flag(request, 'q'),
    entitlements: new Set(text(request, 'networkmode') === 'host' ? ['network.host'] : []),
  };
}

/** POST /build/prune */
async function prune(request: FastifyRequest, { builds, clock, imageUsers }: ApiContext): Promise<object> {
  const nowMs = clock.wallMs();
  const matches = cacheFilter(filters(request, CACHE_FILTERS), nowMs);
  for (const name of ['max-used-space', 'min-free-space'])
    if (integer(request, name, 0) !== 0)
      throw badParameter(`${name} is not supported: use reserved-space, or keep-storage of older clients`);
  const keepBytes = integer(request, 'reserved-space', 0) || integer(request, 'keep-storage', 0);
  const wish = { matches, all: flag(request, 'all'), keepBytes, users: imageUsers };
  const { removed, reclaimedBytes } = await builds.cache.prune(wish);
  return { CachesDeleted: removed.map(({ id }) => id), SpaceReclaimed: reclaimedBytes };
}

function ignoreConflict(error: unknown): false {
  if (errorCode(error) !== 'ERR_CONFLICT') throw error;
  return false;
}

/** POST /commit: the container is paused meanwhile, unless the client wishes otherwise. */
async function commit(request: FastifyRequest, context: ApiContext): Promise<object> {
  const { containers, images } = context;
  const container = containers.find(text(request, 'container'));
  const body = optionalJsonBody(request) as ContainerConfig | undefined;
  const repository = text(request, 'repo');
  const tag = text(request, 'tag');
  const { record } = container;
  const mustPause = flag(request, 'pause', true) && record.state.status === 'running';
  // It may end before it is paused, which serves as well.
  const paused = mustPause && (await containers.supervisor.pause(container).then(() => true, ignoreConflict));
  try {
    const image = await images.commit({
      containerId: container.id,
      parentId: record.imageId,
      config: imageConfigOf({ ...record.config, ...withoutEmpty(body ?? {}) }),
      changes: texts(request, 'changes').filter((line) => line !== ''),
      createdBy: (record.config.Cmd ?? []).join(' '),
      comment: text(request, 'comment'),
      author: text(request, 'author'),
      ...(repository !== '' && { reference: tag === '' ? repository : `${repository}:${tag}` }),
    });
    context.events.emit('container', 'commit', container.id, {
      comment: text(request, 'comment'),
      imageID: image.id,
      imageRef: image.tags[0] ?? '',
    });
    return { Id: image.id };
  } finally {
    if (paused) await containers.supervisor.unpause(container).catch(ignoreConflict);
  }
}

/** The fields of a container's configuration that belong to an image. */
function imageConfigOf(config: ContainerConfig): ImageConfig {
  const image: ImageConfig = {};
  const keys = [
    'User',
    'ExposedPorts',
    'Env',
    'Entrypoint',
    'Cmd',
    'Volumes',
    'WorkingDir',
    'Labels',
    'StopSignal',
    'Shell',
    'OnBuild',
    'ArgsEscaped',
  ] as const;
  for (const key of keys)
    if (config[key] !== undefined && config[key] !== null) Object.assign(image, { [key]: config[key] });
  if (config.Healthcheck?.Test) Object.assign(image, { Healthcheck: config.Healthcheck });
  return image;
}

function withoutEmpty(config: ContainerConfig): ContainerConfig {
  const isEmpty = (value: unknown): boolean =>
    value === null ||
    value === '' ||
    value === false ||
    (typeof value === 'object' && Object.keys(value as object).length === 0);
  return Object.fromEntries(Object.entries(config).filter(([, value]) => !isEmpty(value)));
}

/** /build, /commit, /build/prune, /grpc, /session */
export const buildRoutes: ApiPlugin = (app, context) => {
  app.post('/build', (request, reply) => build(request, reply, context));
  app.post('/commit', async (request, reply) => reply.code(201).send(await commit(request, context)));
  app.post('/build/prune', (request) => prune(request, context));
  // A classic build ends when its client hangs up.
  app.post('/build/cancel', async (request, reply) => {
    context.sessionBuilds.cancel(text(request, 'id'));
    return reply.code(204).send();
  });
  app.post('/grpc', async (request, reply) => {
    context.buildKit.serve(switchProtocol(request, reply, 'h2c'));
  });
  app.post('/session', async (request, reply) => {
    const header = (name: string): string[] =>
      [request.headers[`x-docker-expose-session-${name}`] ?? ''].flat();
    const [id = ''] = header('uuid');
    if (id === '') throw badParameter('missing X-Docker-Expose-Session-Uuid: the session has no id');
    // Node joins the values of a header that occurs several times.
    const methods = header('grpc-method').flatMap((value) => value.split(/,\s*/));
    context.sessionBuilds.sessions.add(id, methods, switchProtocol(request, reply, 'h2c'));
  });
};
