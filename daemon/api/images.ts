/** Routes of images: /images/... of the Engine API (moby, api/server/router/image). */
import type { Readable } from 'node:stream';
import { Readable as ReadableStream } from 'node:stream';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { DrydockError, errorMessage } from '#common/errors';
import { hasLabel, historyOf, isDangling, selectImages, sharedBytes } from '../image/listing.ts';
import { DEFAULT_DOMAIN, parseReference } from '../image/reference.ts';
import { type Credentials, credentialsOf, parseAuthHeader } from '../image/registry/auth.ts';
import type { Image, Progress } from '../image/store.ts';
import type { ApiContext } from './context.ts';
import { badParameter } from './errors.ts';
import { booleanFilter, filters, flag, jsonBody, text, texts, timestampNano } from './query.ts';
import { type ApiPlugin, apiVersion } from './server.ts';
import { JsonLines } from './stream.ts';

const LIST_FILTERS = new Set(['dangling', 'label', 'before', 'since', 'reference', 'until']);
const PRUNE_FILTERS = new Set(['dangling', 'label', 'label!', 'until']);
/** Since this version an image without names has empty lists, before it had `<none>:<none>`. */
const EMPTY_NAMES_MINOR = 43;
/** VirtualSize left the API with this version. */
export const NO_VIRTUAL_SIZE_MINOR = 44;
/** The field Container left the API with this version. */
const NO_CONTAINER_MINOR = 45;

/** The image's name of a route like /images/NAME/json: names contain slashes. */
function nameBefore(request: FastifyRequest, suffix: string): string | undefined {
  const path = (request.params as Record<string, string>)['*'] ?? '';
  return path.endsWith(`/${suffix}`) ? path.slice(0, -suffix.length - 1) : undefined;
}

function nanoToIso(nano: bigint): string {
  return new Date(Number(nano / 1_000_000n)).toISOString();
}

function summary(image: Image, minor: number, shared: number): object {
  const none = minor < EMPTY_NAMES_MINOR && isDangling(image);
  return {
    Containers: -1,
    Created: Math.floor(Date.parse(image.created) / 1000),
    Id: image.id,
    Labels: image.config.Labels ?? null,
    ParentId: image.parent ?? '',
    RepoDigests: none ? ['<none>@<none>'] : image.digests,
    RepoTags: none ? ['<none>:<none>'] : image.tags,
    SharedSize: shared,
    Size: image.sizeBytes,
    ...(minor < NO_VIRTUAL_SIZE_MINOR && { VirtualSize: image.sizeBytes }),
  };
}

async function list(request: FastifyRequest, { images, clock }: ApiContext): Promise<object[]> {
  const found = filters(request, LIST_FILTERS);
  const createdOf = async (name: string): Promise<string | undefined> => {
    const reference = found.get(name)?.[0];
    return reference === undefined ? undefined : (await images.get(reference)).created;
  };
  const until = found.get('until')?.[0];
  const untilIso = until === undefined ? undefined : nanoToIso(timestampNano(until, clock.wallMs()));
  const all = await images.list();
  // Only when it is asked for: clients read -1 as not counted.
  const shared = flag(request, 'shared-size') ? sharedBytes(all) : undefined;
  const selected = selectImages(all, {
    all: flag(request, 'all'),
    dangling: booleanFilter(found, 'dangling'),
    labels: found.get('label') ?? [],
    references: found.get('reference') ?? [],
    createdBefore: (await createdOf('before')) ?? untilIso,
    createdAfter: await createdOf('since'),
  });
  return selected.map((image) => summary(image, apiVersion(request), shared?.get(image.id) ?? -1));
}

/** Fields of a configuration that are there also when the image says nothing of them (moby: inspect_response.go). */
const IMAGE_FIELDS = {
  Cmd: null,
  Entrypoint: null,
  Env: null,
  Labels: null,
  OnBuild: null,
  User: '',
  Volumes: null,
  WorkingDir: '',
};

/** Until 1.50 it was a container's. */
const OCI_CONFIG_MINOR = 50;
const CONTAINER_FIELDS = {
  AttachStderr: false,
  AttachStdin: false,
  AttachStdout: false,
  Domainname: '',
  Hostname: '',
  Image: '',
  OpenStdin: false,
  StdinOnce: false,
  Tty: false,
};

function inspect(image: Image, { images, roots }: ApiContext, minor: number): object {
  const paths = images.layerPaths(image.id).reverse();
  const data: Record<string, string> = {};
  if (paths.length > 0 && roots.driver === 'overlay2') {
    data.UpperDir = paths[0]!;
    if (paths.length > 1) data.LowerDir = paths.slice(1).join(':');
  }
  return {
    Id: image.id,
    RepoTags: image.tags,
    RepoDigests: image.digests,
    Parent: image.parent ?? '',
    Comment: image.comment ?? '',
    Created: image.created,
    DockerVersion: '',
    Author: image.author ?? '',
    Config: {
      ...(minor < OCI_CONFIG_MINOR ? { ...CONTAINER_FIELDS, ...IMAGE_FIELDS } : IMAGE_FIELDS),
      ...image.config,
    },
    // It left the API with 1.45, but docker-compose 1.x speaks the newest version and still reads it.
    ContainerConfig: image.config,
    ...(minor < NO_CONTAINER_MINOR && { Container: '' }),
    Architecture: image.architecture,
    ...(image.variant !== undefined && { Variant: image.variant }),
    Os: image.os,
    Size: image.sizeBytes,
    ...(minor < NO_VIRTUAL_SIZE_MINOR && { VirtualSize: image.sizeBytes }),
    GraphDriver: { Data: data, Name: roots.driver },
    RootFS: { Type: 'layers', ...(image.diffIds.length > 0 && { Layers: image.diffIds }) },
    Metadata: {
      LastTagTime:
        image.lastTaggedMs === undefined
          ? '0001-01-01T00:00:00Z'
          : new Date(image.lastTaggedMs).toISOString(),
    },
  };
}

async function history(image: Image, context: ApiContext): Promise<object[]> {
  const byId = new Map((await context.images.list()).map((each) => [each.id, each]));
  return historyOf(image, (child) => (child.parent === undefined ? undefined : byId.get(child.parent)));
}

/** The body as a stream. @throws ERR_BAD_PARAMETER when there is none */
export function bodyStream(request: FastifyRequest): Readable {
  const { body } = request;
  if (!(body instanceof ReadableStream))
    throw badParameter('the request has no body: an archive was expected');
  return body;
}

/**
 * Answers with progress lines. The status is sent with the first of them: what goes wrong before is an ordinary
 * error, and what goes wrong later is told as the last line.
 */
export async function withProgress(
  request: FastifyRequest,
  reply: FastifyReply,
  work: (progress: (line: Progress) => void, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  let lines: JsonLines | undefined;
  const progress = (line: Progress): void => {
    lines ??= new JsonLines(reply);
    void lines.write(line);
  };
  try {
    await work(progress, goneSignal(request));
  } catch (error) {
    if (!lines) throw error;
    lines.fail(error);
    return;
  }
  lines ??= new JsonLines(reply);
  lines.end();
}

/** Where `docker import` reads from: the body, or a URL. */
async function importSource(request: FastifyRequest, source: string, signal: AbortSignal): Promise<Readable> {
  if (source === '-') return bodyStream(request);
  const url = URL.canParse(source) ? new URL(source) : undefined;
  if (url?.protocol !== 'http:' && url?.protocol !== 'https:')
    throw badParameter(`invalid source ${JSON.stringify(source)}: give -, or an http or https URL`);
  const answer = await fetch(url, { signal });
  if (!answer.ok || !answer.body)
    throw new DrydockError('ERR_DOWNLOAD', `got status ${answer.status} while downloading ${source}`);
  return ReadableStream.fromWeb(answer.body as import('node:stream/web').ReadableStream);
}

async function importImage(request: FastifyRequest, reply: FastifyReply, context: ApiContext): Promise<void> {
  const repository = text(request, 'repo');
  const tag = text(request, 'tag');
  const platform = text(request, 'platform');
  const signal = goneSignal(request);
  const archive = await importSource(request, text(request, 'fromSrc'), signal);
  await withProgress(request, reply, async (progress) => {
    await context.images.importRoot(
      archive,
      {
        ...(repository !== '' && { reference: tag === '' ? repository : `${repository}:${tag}` }),
        ...(platform !== '' && { platform }),
        message: text(request, 'message') || `Imported from ${text(request, 'fromSrc')}`,
        changes: texts(request, 'changes').filter((line) => line !== ''),
        signal,
      },
      progress,
    );
  });
}

function credentials(request: FastifyRequest): Credentials | undefined {
  return parseAuthHeader(request.headers['x-registry-auth']);
}

function goneSignal(request: FastifyRequest): AbortSignal {
  const gone = new AbortController();
  request.raw.socket.once('close', () => gone.abort());
  return gone.signal;
}

/** `tag` may be a digest, and the name may hold either. */
function withTag(name: string, tag: string): string {
  if (tag === '') return name;
  return tag.includes(':') ? `${name}@${tag}` : `${name}:${tag}`;
}

async function pull(request: FastifyRequest, reply: FastifyReply, { images }: ApiContext): Promise<void> {
  const name = text(request, 'fromImage');
  if (name === '') throw badParameter('neither fromImage nor fromSrc is given');
  const reference = withTag(name, text(request, 'tag'));
  const { tag, digest } = parseReference(reference);
  const platform = text(request, 'platform');
  await withProgress(request, reply, async (progress, signal) => {
    await images.pull(reference, {
      credentials: credentials(request),
      progress,
      signal,
      ...(platform !== '' && { platform }),
      // The CLI always names a tag, but for --all-tags.
      allTags: tag === undefined && digest === undefined,
    });
  });
}

async function push(
  request: FastifyRequest,
  reply: FastifyReply,
  { images }: ApiContext,
  name: string,
): Promise<void> {
  const tag = text(request, 'tag');
  await withProgress(request, reply, (progress, signal) =>
    images.push(withTag(name, tag), {
      credentials: credentials(request),
      progress,
      signal,
      allTags: tag === '' && parseReference(name).tag === undefined,
    }),
  );
}

/** POST /auth: docker.io goes by its old address in clients' files. */
async function login(request: FastifyRequest, { images }: ApiContext): Promise<object> {
  const body = jsonBody(request);
  const address = typeof body.serveraddress === 'string' ? body.serveraddress : '';
  const host = address.replace(/^https?:\/\//, '').replace(/\/.*$/, '');
  const given = credentialsOf(body);
  if (!given) throw badParameter('the request has no credentials: username and password are needed');
  await images.login(host === '' || host === 'index.docker.io' ? DEFAULT_DOMAIN : host, given);
  return { Status: 'Login Succeeded', IdentityToken: '' };
}

async function remove(request: FastifyRequest, context: ApiContext): Promise<object[]> {
  return context.images.remove((request.params as Record<string, string>)['*'] ?? '', {
    force: flag(request, 'force'),
    prune: !flag(request, 'noprune'),
    users: context.imageUsers,
  });
}

async function prune(request: FastifyRequest, { images, imageUsers, clock }: ApiContext): Promise<object> {
  const found = filters(request, PRUNE_FILTERS);
  const danglingOnly = booleanFilter(found, 'dangling') ?? true;
  const until = found.get('until')?.[0];
  const untilMs =
    until === undefined
      ? Number.POSITIVE_INFINITY
      : Number(timestampNano(until, clock.wallMs()) / 1_000_000n);
  const { removed, reclaimedBytes } = await images.prune(
    (image) =>
      (!danglingOnly || isDangling(image)) &&
      Date.parse(image.created) < untilMs &&
      (found.get('label') ?? []).every((label) => hasLabel(image, label)) &&
      !(found.get('label!') ?? []).some((label) => hasLabel(image, label)),
    imageUsers,
  );
  return { ImagesDeleted: removed.length > 0 ? removed : null, SpaceReclaimed: reclaimedBytes };
}

async function save(reply: FastifyReply, context: ApiContext, names: string[]): Promise<FastifyReply> {
  if (names.length === 0) throw badParameter('no image is named: give names=');
  const archive = await context.images.save(names);
  archive.on('error', (error) => context.log.error({ error: errorMessage(error) }, 'saving images failed'));
  return reply.type('application/x-tar').send(archive);
}

/** /images/... */
export const imageRoutes: ApiPlugin = (app, context) => {
  const { images } = context;

  app.get('/images/json', (request) => list(request, context));
  app.get('/images/get', (request, reply) => save(reply, context, texts(request, 'names')));
  app.get('/images/search', async () => {
    throw new DrydockError(
      'ERR_NOT_IMPLEMENTED',
      'searching asks the service of Docker Hub, which this daemon does not use. Look on hub.docker.com, and pull by name.',
    );
  });
  app.get('/images/*', async (request, reply) => {
    const inspected = nameBefore(request, 'json');
    if (inspected !== undefined) return inspect(await images.get(inspected), context, apiVersion(request));
    const old = nameBefore(request, 'history');
    if (old !== undefined) return history(await images.get(old), context);
    const saved = nameBefore(request, 'get');
    if (saved !== undefined) return save(reply, context, [saved]);
    return reply.callNotFound();
  });
  app.post('/images/load', async (request, reply) => {
    const archive = bodyStream(request);
    const quiet = flag(request, 'quiet', true);
    await withProgress(request, reply, async (progress) => {
      await images.load(archive, (line) => (quiet && line.progressDetail ? undefined : progress(line)));
    });
  });
  app.post('/images/create', async (request, reply) => {
    if (text(request, 'fromSrc') !== '') return importImage(request, reply, context);
    return pull(request, reply, context);
  });
  app.post('/images/prune', (request) => prune(request, context));
  app.post('/images/*', async (request, reply) => {
    const pushed = nameBefore(request, 'push');
    if (pushed !== undefined) return push(request, reply, context, pushed);
    const tagged = nameBefore(request, 'tag');
    if (tagged === undefined) return reply.callNotFound();
    const tag = text(request, 'tag');
    await images.tag(tagged, tag === '' ? text(request, 'repo') : `${text(request, 'repo')}:${tag}`);
    return reply.code(201).send();
  });
  app.post('/auth', (request) => login(request, context));
  app.get('/distribution/*', (request, reply) => {
    const name = nameBefore(request, 'json');
    if (name === undefined) return reply.callNotFound();
    return images.describeRemote(name, { credentials: credentials(request), signal: goneSignal(request) });
  });
  app.delete('/images/*', (request) => remove(request, context));
};
