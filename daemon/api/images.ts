/** Routes of images: /images/... of the Engine API (moby, api/server/router/image). */
import type { Readable } from 'node:stream';
import { Readable as ReadableStream } from 'node:stream';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { DrydockError, errorMessage } from '#common/errors';
import { hasLabel, historyOf, isDangling, selectImages } from '../image/listing.ts';
import type { Image, Progress } from '../image/store.ts';
import type { ApiContext } from './context.ts';
import { badParameter } from './errors.ts';
import { booleanFilter, filters, flag, text, texts, timestampNano } from './query.ts';
import { type ApiPlugin, apiVersion } from './server.ts';
import { JsonLines } from './stream.ts';

const LIST_FILTERS = new Set(['dangling', 'label', 'before', 'since', 'reference', 'until']);
const PRUNE_FILTERS = new Set(['dangling', 'label', 'label!', 'until']);
/** Since this version an image without names has empty lists, before it had `<none>:<none>`. */
const EMPTY_NAMES_MINOR = 43;
/** VirtualSize left the API with this version. */
const NO_VIRTUAL_SIZE_MINOR = 44;

/** The image's name of a route like /images/NAME/json: names contain slashes. */
function nameBefore(request: FastifyRequest, suffix: string): string | undefined {
  const path = (request.params as Record<string, string>)['*'] ?? '';
  return path.endsWith(`/${suffix}`) ? path.slice(0, -suffix.length - 1) : undefined;
}

function nanoToIso(nano: bigint): string {
  return new Date(Number(nano / 1_000_000n)).toISOString();
}

function summary(image: Image, minor: number): object {
  const none = minor < EMPTY_NAMES_MINOR && isDangling(image);
  return {
    Containers: -1,
    Created: Math.floor(Date.parse(image.created) / 1000),
    Id: image.id,
    Labels: image.config.Labels ?? null,
    ParentId: image.parent ?? '',
    RepoDigests: none ? ['<none>@<none>'] : image.digests,
    RepoTags: none ? ['<none>:<none>'] : image.tags,
    SharedSize: -1,
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
  const selected = selectImages(await images.list(), {
    all: flag(request, 'all'),
    dangling: booleanFilter(found, 'dangling'),
    labels: found.get('label') ?? [],
    references: found.get('reference') ?? [],
    createdBefore: (await createdOf('before')) ?? untilIso,
    createdAfter: await createdOf('since'),
  });
  return selected.map((image) => summary(image, apiVersion(request)));
}

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
    Config: image.config,
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

/** Answers with progress lines; whatever goes wrong is told as the last of them. */
export async function withProgress(
  reply: FastifyReply,
  work: (progress: (line: Progress) => void, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const lines = new JsonLines(reply);
  try {
    await work((line) => void lines.write(line), lines.gone);
    lines.end();
  } catch (error) {
    lines.fail(error);
  }
}

/** Where `docker import` reads from: the body, or a URL. */
async function importSource(request: FastifyRequest, source: string): Promise<Readable> {
  if (source === '-') return bodyStream(request);
  const url = URL.canParse(source) ? new URL(source) : undefined;
  if (url?.protocol !== 'http:' && url?.protocol !== 'https:')
    throw badParameter(`invalid source ${JSON.stringify(source)}: give -, or an http or https URL`);
  const answer = await fetch(url);
  if (!answer.ok || !answer.body)
    throw new DrydockError('ERR_DOWNLOAD', `got status ${answer.status} while downloading ${source}`);
  return ReadableStream.fromWeb(answer.body as import('node:stream/web').ReadableStream);
}

async function importImage(request: FastifyRequest, reply: FastifyReply, context: ApiContext): Promise<void> {
  const repository = text(request, 'repo');
  const tag = text(request, 'tag');
  const platform = text(request, 'platform');
  const archive = await importSource(request, text(request, 'fromSrc'));
  await withProgress(reply, async (progress) => {
    await context.images.importRoot(
      archive,
      {
        ...(repository !== '' && { reference: tag === '' ? repository : `${repository}:${tag}` }),
        ...(platform !== '' && { platform }),
        message: text(request, 'message') || `Imported from ${text(request, 'fromSrc')}`,
        changes: texts(request, 'changes').filter((line) => line !== ''),
      },
      progress,
    );
  });
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
    const quiet = flag(request, 'quiet');
    await withProgress(reply, async (progress) => {
      await images.load(archive, (line) => (quiet && line.progressDetail ? undefined : progress(line)));
    });
  });
  app.post('/images/create', async (request, reply) => {
    if (text(request, 'fromSrc') !== '') return importImage(request, reply, context);
    if (text(request, 'fromImage') === '') throw badParameter('neither fromImage nor fromSrc is given');
    throw new DrydockError(
      'ERR_NOT_IMPLEMENTED',
      `cannot pull ${text(request, 'fromImage')}: registries are not supported yet. Use docker load or docker import.`,
    );
  });
  app.post('/images/prune', (request) => prune(request, context));
  app.post('/images/*', async (request, reply) => {
    const tagged = nameBefore(request, 'tag');
    if (tagged === undefined) return reply.callNotFound();
    const tag = text(request, 'tag');
    await images.tag(tagged, tag === '' ? text(request, 'repo') : `${text(request, 'repo')}:${tag}`);
    return reply.code(201).send();
  });
  app.delete('/images/*', (request) => remove(request, context));
};
