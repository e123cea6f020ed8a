/** /containers: life cycle, list, inspect. Streams (attach, logs, stats) are in container-streams.ts. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { DrydockError } from '#common/errors';
import type { Container, WaitCondition } from '../container/container.ts';
import { inspectView, type LiveView, summaryView } from '../container/inspect.ts';
import { containerPredicate, LIST_FILTERS } from '../container/list.ts';
import { processTable } from '../container/top.ts';
import type { CreateRequest, HostConfig } from '../container/types.ts';
import { type Platform, parsePlatform, selectsPlatform } from '../image/platform.ts';
import { PREDEFINED } from '../network/record.ts';
import type { ApiContext } from './context.ts';
import { badParameter, explained } from './errors.ts';
import { forVersion } from './old-clients.ts';
import { filters, flag, integer, jsonBody, text, timestampNano } from './query.ts';
import { createContainerBody, updateContainerBody } from './schema.ts';
import { apiVersion } from './server.ts';
import { openStream } from './stream.ts';
import { liveView, securityLabels } from './views.ts';

/** The container that a route names. */
export function containerOf(context: ApiContext, request: FastifyRequest): Container {
  return context.containers.find((request.params as { id: string }).id);
}

/** No JSON that means something is shorter (moby: postContainersStart). */
const START_BODY_BYTES_MAX = 7;

/** Registers the routes. */
export function containerRoutes(app: FastifyInstance, context: ApiContext): void {
  app.get('/containers/json', (request) => list(context, request));
  app.post('/containers/create', { schema: { body: createContainerBody } }, (request, reply) =>
    create(context, request, reply),
  );
  app.get('/containers/:id/json', async (request) => {
    const container = containerOf(context, request);
    const live = await liveView(context, container, flag(request, 'size'));
    return inspectView(
      container.record,
      apiVersion(request) < NAMES_MINOR ? withShortId(container, live) : live,
      securityLabels(context, container),
    );
  });
  lifeRoutes(app, context);
  app.post('/containers/:id/wait', (request, reply) => wait(context, request, reply));
  app.post('/containers/:id/rename', async (request, reply) => {
    const name = text(request, 'name');
    if (name === '') throw badParameter('Neither old nor new names may be empty');
    const container = containerOf(context, request);
    if (name.replace(/^\//, '') === container.name)
      throw badParameter('Renaming a container with the same name as its current name');
    await explained('Error when allocating new name', () => context.containers.rename(container, name));
    return reply.code(204).send();
  });
  app.post('/containers/:id/update', { schema: { body: updateContainerBody } }, async (request) => ({
    Warnings: await context.containers.update(containerOf(context, request), jsonBody(request) as HostConfig),
  }));
  app.delete('/containers/:id', async (request, reply) => {
    if (flag(request, 'link'))
      throw badParameter('Conflict, cannot remove the default link name of the container');
    await context.containers.remove(containerOf(context, request), {
      force: flag(request, 'force'),
      volumes: flag(request, 'v'),
    });
    return reply.code(204).send();
  });
  // `docker rm --link web/db`: the name that one container has for another.
  app.delete('/containers/:id/:alias', async (request, reply) => {
    const { alias } = request.params as { alias: string };
    const container = containerOf(context, request);
    if (!flag(request, 'link'))
      throw new DrydockError('ERR_CONTAINER_NOT_FOUND', `No such container: ${container.name}/${alias}`);
    await context.containers.memberships.unlink(container, alias);
    return reply.code(204).send();
  });
  app.post('/containers/prune', (request) => prune(context, request));
  app.get('/containers/:id/top', async (request) => {
    return processTable(containerOf(context, request), text(request, 'ps_args') || '-ef');
  });
}

/** Since 1.45 the short id is among the names of DNSNames alone. */
const NAMES_MINOR = 45;

/** With the short id and the host name among the aliases on user networks. */
function withShortId({ id, record }: Container, live: LiveView): LiveView {
  const networks = Object.entries(live.networks).map(([name, settings]) => {
    if (Object.hasOwn(PREDEFINED, name)) return [name, settings] as const;
    const Aliases = [...(settings.Aliases ?? []), id.slice(0, 12), record.config.Hostname ?? ''];
    return [name, { ...settings, Aliases: [...new Set(Aliases)].filter((alias) => alias !== '') }] as const;
  });
  return { ...live, networks: Object.fromEntries(networks) };
}

function lifeRoutes(app: FastifyInstance, context: ApiContext): void {
  const { supervisor } = context.containers;
  const action = (
    verb: string,
    work: (container: Container, request: FastifyRequest) => Promise<void>,
  ): void => {
    app.post(`/containers/:id/${verb}`, async (request, reply) => {
      await work(containerOf(context, request), request);
      return reply.code(204).send();
    });
  };
  const stopOptions = (request: FastifyRequest): { signal?: string; timeoutS: number | undefined } => ({
    ...(text(request, 'signal') !== '' && { signal: text(request, 'signal') }),
    timeoutS: integer(request, 't'),
  });
  app.post('/containers/:id/start', async (request, reply) => {
    if (
      Number(request.headers['content-length'] ?? 0) > START_BODY_BYTES_MAX ||
      request.headers['transfer-encoding']
    )
      throw badParameter(
        'starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24',
      );
    await supervisor.start(containerOf(context, request));
    return reply.code(204).send();
  });
  action('stop', (container, request) => supervisor.stop(container, stopOptions(request)));
  action('restart', (container, request) => supervisor.restart(container, stopOptions(request)));
  app.post('/containers/:id/kill', async (request, reply) => {
    const signal = text(request, 'signal') || 'SIGKILL';
    await explained(`cannot kill container: ${(request.params as { id: string }).id}`, async () =>
      supervisor.kill(containerOf(context, request), signal),
    );
    return reply.code(204).send();
  });
  action('pause', (container) => supervisor.pause(container));
  action('unpause', (container) => supervisor.unpause(container));
}

async function create(context: ApiContext, request: FastifyRequest, reply: FastifyReply): Promise<object> {
  const platform = text(request, 'platform');
  if (platform !== '' && !/^linux(\/|$)/.test(platform))
    throw badParameter(
      `"${platform}": unknown operating system or architecture: this daemon runs linux containers`,
    );
  const body = request.body === null ? {} : (jsonBody(request) as CreateRequest);
  if (Object.keys(body).every((name) => name === 'HostConfig' || name === 'NetworkingConfig'))
    throw badParameter('config cannot be empty in order to create a container');
  if (platform !== '') await requirePlatform(context, body.Image ?? '', parsePlatform(platform));
  const { container, warnings } = await context.containers.create(
    text(request, 'name'),
    forVersion(body, apiVersion(request), context.system.cgroupVersion),
  );
  void reply.code(201);
  return { Id: container.id, Warnings: warnings };
}

/** An image of another platform is as good as none: the CLI pulls the right one then. One that is not there is told of later. */
async function requirePlatform({ images }: ApiContext, name: string, asked: Platform): Promise<void> {
  const image = await images.get(name).catch(() => undefined);
  if (!image || selectsPlatform(asked)(image)) return;
  const written = ({ os, architecture, variant }: Platform): string =>
    [os, architecture, ...(variant ? [variant] : [])].join('/');
  throw new DrydockError(
    'ERR_IMAGE_NOT_FOUND',
    `image with reference ${name} was found but does not match the specified platform: wanted ${written(asked)}, actual: ${written(image)}`,
  );
}

async function list(context: ApiContext, request: FastifyRequest): Promise<object[]> {
  const { containers, networks, images, clock } = context;
  const found = filters(request, LIST_FILTERS);
  const limit = integer(request, 'limit', 0);
  const test = await containerPredicate(found, {
    find: (reference) => containers.find(reference),
    imageIds: async (reference) => {
      const image = await images.get(reference).catch(() => undefined);
      if (!image) return undefined;
      const all = await images.list();
      // Descendants: images whose layers begin with this one's.
      return new Set(
        all
          .filter((other) => image.diffIds.every((id, i) => other.diffIds[i] === id))
          .map((other) => other.id),
      );
    },
    networkId: (name) => networks.list().find((n) => n.name === name)?.id ?? '',
  });
  // A filter on the state implies --all, as in moby's reducePsContainer.
  const all = flag(request, 'all') || limit > 0 || found.has('status') || found.has('exited');
  const chosen = containers.list().filter((c) => (all || c.up) && test(c.record));
  const limited = limit > 0 ? chosen.slice(0, limit) : chosen;
  const sizes = flag(request, 'size');
  const linkNames = containers.memberships.linkNames();
  return Promise.all(
    limited.map(async (c) =>
      summaryView(c.record, await liveView(context, c, sizes), {
        wallMs: clock.wallMs(),
        linkNames: linkNames(c),
      }),
    ),
  );
}

async function wait(context: ApiContext, request: FastifyRequest, reply: FastifyReply): Promise<void> {
  const condition = text(request, 'condition') || 'not-running';
  if (!['not-running', 'next-exit', 'removed'].includes(condition))
    throw badParameter(`invalid condition: "${condition}"`);
  const container = containerOf(context, request);
  const gone = new AbortController();
  const waiting = container.wait(condition as WaitCondition, gone.signal);
  if (apiVersion(request) < 30) {
    const { StatusCode } = await waiting;
    return reply.send({ StatusCode });
  }
  // The CLI starts the container only when it has seen these headers.
  const stream = openStream(reply, 'application/json');
  stream.once('close', () => gone.abort());
  stream.end(`${JSON.stringify(await waiting)}\n`);
}

const PRUNE_FILTERS: ReadonlySet<string> = new Set(['until', 'label', 'label!']);

async function prune(context: ApiContext, request: FastifyRequest): Promise<object> {
  const { containers, roots, clock } = context;
  const matches = pruneTest(request, clock.wallMs());
  const removed: string[] = [];
  let bytes = 0;
  for (const container of containers.list()) {
    const { record } = container;
    if (!['created', 'exited', 'dead'].includes(record.state.status)) continue;
    if (!matches(record.created, record.config.Labels ?? {})) continue;
    const { writableBytes } = await roots.sizes(container.id).catch(() => ({ writableBytes: 0 }));
    await containers.remove(container, { force: false, volumes: false });
    removed.push(container.id);
    bytes += writableBytes;
  }
  context.events.emit('container', 'prune', '', { reclaimed: String(bytes) });
  return { ContainersDeleted: removed, SpaceReclaimed: bytes };
}

/** What the filters of a prune request select, by creation time and labels. */
export function pruneTest(
  request: FastifyRequest,
  nowMs: number,
  accepted: ReadonlySet<string> = PRUNE_FILTERS,
): (created: string, labels: Record<string, string>) => boolean {
  const found = filters(request, accepted);
  const untils = found.get('until') ?? [];
  if (untils.length > 1) throw badParameter('more than one until filter specified');
  const untilMs =
    untils[0] === undefined ? Number.POSITIVE_INFINITY : Number(timestampNano(untils[0], nowMs) / 1_000_000n);
  const has = (labels: Record<string, string>, wanted: string): boolean => {
    const [key = '', ...rest] = wanted.split('=');
    return Object.hasOwn(labels, key) && (rest.length === 0 || labels[key] === rest.join('='));
  };
  return (created, labels) =>
    Date.parse(created) < untilMs &&
    (found.get('label') ?? []).every((wanted) => has(labels, wanted)) &&
    !(found.get('label!') ?? []).some((unwanted) => has(labels, unwanted));
}
