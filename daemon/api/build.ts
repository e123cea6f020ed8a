/** POST /build, /commit and /build/prune (moby, api/server/router/build and container). */
import { Readable } from 'node:stream';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { DrydockError, errorCode } from '#common/errors';
import { containerRunner } from '../build/runner.ts';
import type { BuildRequest } from '../build/service.ts';
import type { ContainerConfig, HostConfig } from '../container/types.ts';
import { DEFAULT_DOMAIN } from '../image/reference.ts';
import { type Credentials, credentialsOf, parseObject } from '../image/registry/auth.ts';
import type { ImageConfig } from '../image/store.ts';
import type { ApiContext } from './context.ts';
import { badParameter } from './errors.ts';
import { switchProtocol } from './hijack.ts';
import { bodyStream, withProgress } from './images.ts';
import { flag, integer, optionalJsonBody, text, texts } from './query.ts';
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
    ...(ulimits !== '' && { Ulimits: JSON.parse(ulimits) as NonNullable<HostConfig['Ulimits']> }),
  };
}

function refuse(request: FastifyRequest): void {
  const [output] = isBuildKit(request) ? outputs(request) : [];
  if (output !== undefined)
    throw badParameter(
      `--output type=${output} is not supported: this daemon builds into its own images. Use docker save or docker export`,
    );
  if (flag(request, 'squash'))
    throw badParameter('squash is only supported with experimental mode, which this daemon has not');
}

async function contextSource(request: FastifyRequest): Promise<Readable> {
  const remote = text(request, 'remote');
  if (remote === '' || remote === 'client-session') return bodyStream(request);
  if (!/^https?:\/\//.test(remote) || /\.git(#.*)?$/.test(remote))
    throw badParameter(
      `the context ${JSON.stringify(remote)} can't be fetched: clone it, and build from the folder`,
    );
  const answer = await fetch(remote);
  if (!answer.ok || !answer.body)
    throw new DrydockError(
      'ERR_DOWNLOAD',
      `error downloading remote context ${remote}: status ${answer.status}`,
    );
  return Readable.fromWeb(answer.body as import('node:stream/web').ReadableStream);
}

/** The client speaks BuildKit's protocol: files and credentials come by its session, progress as a trace. */
const isBuildKit = (request: FastifyRequest): boolean => text(request, 'version') === '2';

/** The types of --output. */
function outputs(request: FastifyRequest): string[] {
  const raw = text(request, 'outputs');
  const value: unknown = raw === '' ? [] : JSON.parse(raw);
  if (!Array.isArray(value)) throw badParameter('error reading outputs: it is not a JSON list');
  return value.map((each: { Type?: unknown } | null) => String(each?.Type));
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
  refuse(request);
  const entries = (name: string): [string, unknown][] => Object.entries(jsonParameter(request, name));
  const options: BuildRequest['options'] = {
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
  };
  const runner = containerRunner(context.containers, runHostConfig(request));
  const dockerfile = text(request, 'dockerfile') || 'Dockerfile';
  if (isBuildKit(request)) {
    const remote = text(request, 'remote');
    const fetched = /^(client-session|upload-request|)$/.test(remote)
      ? undefined
      : await contextSource(request);
    return withProgress(request, reply, async (progress, signal) => {
      const isUploaded = remote === 'upload-request';
      await context.sessionBuilds.build({
        ...{ sessionId, buildId, isUploaded, fetched, dockerfile, options, runner, progress, signal },
      });
    });
  }
  const body = await contextSource(request);
  await withProgress(request, reply, async (progress, signal) => {
    await context.builds.build({
      options,
      source: (scratchPath) => context.builds.receive(body, dockerfile, scratchPath),
      runner,
      credentialsFor: credentialsByRegistry(request),
      progress,
      signal,
    });
  });
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

/** /build, /commit, /build/prune */
export const buildRoutes: ApiPlugin = (app, context) => {
  app.post('/build', (request, reply) => build(request, reply, context));
  app.post('/commit', async (request, reply) => reply.code(201).send(await commit(request, context)));
  app.post('/build/prune', () => context.builds.prune(context.imageUsers));
  // A classic build ends when its client hangs up.
  app.post('/build/cancel', async (request, reply) => {
    context.sessionBuilds.cancel(text(request, 'id'));
    return reply.code(204).send();
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
