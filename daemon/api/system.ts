/** /_ping, /version, /info, /events, /system/df, and what a node without swarm and plugins answers. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { DrydockError } from '#common/errors';
import type { CacheUsage } from '../build/cache-usage.ts';
import { summaryView } from '../container/inspect.ts';
import { EVENT_FILTER_NAMES, eventPredicate } from '../events/bus.ts';
import { EVENTS_WAITING_MAX } from '../limits.ts';
import type { ApiContext } from './context.ts';
import { badParameter } from './errors.ts';
import { NO_VIRTUAL_SIZE_MINOR } from './images.ts';
import { filters, text, texts, timestampNano } from './query.ts';
import { apiVersion } from './server.ts';
import { JsonLines } from './stream.ts';
import { API_MINOR_MAX } from './versions.ts';
import { liveView } from './views.ts';

/** Registers the routes. */
export function systemRoutes(app: FastifyInstance, context: ApiContext): void {
  app.get('/_ping', async (_request, reply) => {
    void reply.headers({
      'Builder-Version': context.builderVersion(),
      Swarm: 'inactive',
      'Cache-Control': 'no-cache, no-store, must-revalidate',
      Pragma: 'no-cache',
      'Content-Type': 'text/plain; charset=utf-8',
    });
    return 'OK';
  });
  app.get('/version', () => context.system.version(`1.${API_MINOR_MAX}`, `1.${context.minorMin}`));
  app.get('/info', async (request) => infoFor(await context.system.info(), apiVersion(request)));
  app.get('/events', (request, reply) => events(context, request, reply));
  app.get('/system/df', (request) => diskUse(context, request));
  absentRoutes(app);
}

/** With the fields that left the answer since the client's version (moby: system_routes.go). */
function infoFor(info: Record<string, unknown>, minor: number): object {
  const registry = { AllowNondistributableArtifactsCIDRs: [], AllowNondistributableArtifactsHostnames: [] };
  return {
    ...info,
    ...(minor < 47 && { RegistryConfig: { ...registry, ...(info.RegistryConfig as object) } }),
    ...(minor < 50 && { BridgeNfIptables: false, BridgeNfIp6tables: false }),
  };
}

async function events(context: ApiContext, request: FastifyRequest, reply: FastifyReply): Promise<void> {
  const wanted = eventPredicate(filters(request, EVENT_FILTER_NAMES));
  const nowMs = context.clock.wallMs();
  const bound = (name: string): number | undefined => {
    const value = text(request, name);
    return value === '' ? undefined : Number(timestampNano(value, nowMs));
  };
  const since = bound('since');
  const until = bound('until');
  if (since !== undefined && until !== undefined && until < since)
    throw badParameter(
      `\`since\` time (${text(request, 'since')}) cannot be after \`until\` time (${text(request, 'until')})`,
    );
  const lines = new JsonLines(reply);
  const past =
    since === undefined ? [] : context.events.past(since, until ?? Number.MAX_SAFE_INTEGER * 1e3, wanted);
  // Subscribed before the past is written, so that nothing falls between; order is kept since nothing awaits.
  let waiting = Promise.resolve();
  let waitingCount = 0;
  const write = (event: object): void => {
    if (++waitingCount > EVENTS_WAITING_MAX) {
      lines.abandon();
      return;
    }
    waiting = waiting
      .then(() => lines.write(event))
      .finally(() => {
        waitingCount--;
      });
  };
  const unsubscribe = context.events.subscribe((event) => {
    if (wanted(event) && (until === undefined || event.timeNano <= until)) write(event);
  });
  for (const event of past) write(event);
  const untilMs = until === undefined ? undefined : until / 1e6 - nowMs;
  const timer =
    untilMs === undefined
      ? undefined
      : context.clock.arm(
          context.clock.now() + Math.max(0, untilMs),
          () => void waiting.then(() => lines.end()),
        );
  lines.gone.addEventListener('abort', () => {
    unsubscribe();
    timer?.cancel();
  });
}

async function diskUse(context: ApiContext, request: FastifyRequest): Promise<object> {
  const minor = apiVersion(request);
  // Before 1.42 everything is told, whatever is asked for.
  const types = minor < 42 ? [] : texts(request, 'type');
  for (const type of types)
    if (!['container', 'image', 'volume', 'build-cache'].includes(type))
      throw new DrydockError('ERR_BAD_PARAMETER', `unknown object type: ${type}`);
  const wants = (type: string): boolean => types.length === 0 || types.includes(type);
  const { images, containers, volumes, clock } = context;
  const all = await images.list();
  const layers = new Map(
    all.flatMap((image) => image.diffIds.map((id, i) => [id, image.layerBytes[i] ?? 0] as const)),
  );
  const result: Record<string, unknown> = {};
  if (wants('image')) {
    result.LayersSize = [...layers.values()].reduce((sum, bytes) => sum + bytes, 0);
    result.Images = all.map((image) => ({
      Id: image.id,
      ParentId: image.parent ?? '',
      RepoTags: image.tags,
      RepoDigests: image.digests,
      Created: Math.floor(Date.parse(image.created) / 1000),
      Size: image.sizeBytes,
      ...(minor < NO_VIRTUAL_SIZE_MINOR && { VirtualSize: image.sizeBytes }),
      SharedSize: sharedBytes(image, all),
      Labels: image.config.Labels ?? null,
      Containers: context.imageUsers(image.id).length,
    }));
  }
  if (wants('container')) {
    const linkNames = containers.memberships.linkNames();
    result.Containers = await Promise.all(
      containers.list().map(async (c) =>
        summaryView(c.record, await liveView(context, c, true), {
          wallMs: clock.wallMs(),
          linkNames: linkNames(c),
        }),
      ),
    );
  }
  if (wants('volume'))
    result.Volumes = await Promise.all(
      volumes.list().map(async (volume) => ({
        ...volumeView(context, volume.name),
        UsageData: {
          Size: await volumes.size(volume.name),
          RefCount: containers.volumeUsers(volume.name).length,
        },
      })),
    );
  if (wants('build-cache')) {
    const usages = await context.builds.cache.list(context.imageUsers);
    result.BuildCache = usages.map((usage) => cacheView(usage, minor));
    if (minor < 42) result.BuilderSize = usages.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  }
  return result;
}

/** A part of the build cache as the API shows it. */
function cacheView(usage: CacheUsage, minor: number): object {
  const time = (ms: number): string => new Date(ms).toISOString();
  return {
    ID: usage.id,
    ...(minor < 42 ? { Parent: usage.parents[0] ?? '' } : { Parents: usage.parents }),
    Type: usage.type,
    Description: usage.description,
    InUse: usage.inUse,
    Shared: usage.shared,
    Size: usage.sizeBytes,
    CreatedAt: time(usage.createdMs),
    LastUsedAt: usage.lastUsedMs === undefined ? null : time(usage.lastUsedMs),
    UsageCount: usage.usageCount,
  };
}

function sharedBytes(
  image: { id: string; diffIds: string[]; layerBytes: number[] },
  all: { id: string; diffIds: string[] }[],
): number {
  const others = new Set(all.filter((other) => other.id !== image.id).flatMap((other) => other.diffIds));
  return image.diffIds.reduce((sum, id, i) => sum + (others.has(id) ? (image.layerBytes[i] ?? 0) : 0), 0);
}

/** A volume as the API shows it. */
export function volumeView(context: ApiContext, name: string): object {
  const record = context.volumes.get(name);
  return {
    CreatedAt: record.createdAt,
    Driver: 'local',
    Labels: record.anonymous ? { 'com.docker.volume.anonymous': '', ...record.labels } : record.labels,
    Mountpoint: context.volumes.dataPath(name),
    Name: name,
    Options: Object.keys(record.options).length > 0 ? record.options : null,
    Scope: 'local',
  };
}

const NOT_A_MANAGER =
  'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.';

/** Swarm, plugins, checkpoints: answered the way dockerd answers on a node that has none of them. */
function absentRoutes(app: FastifyInstance): void {
  const notSwarm = async (): Promise<never> => {
    throw new DrydockError('ERR_NOT_SWARM', NOT_A_MANAGER);
  };
  for (const kind of ['services', 'tasks', 'nodes', 'secrets', 'configs']) {
    app.get(`/${kind}`, notSwarm);
    app.post(`/${kind}/create`, notSwarm);
    for (const method of ['GET', 'DELETE'] as const)
      app.route({ method, url: `/${kind}/:id`, handler: notSwarm });
    app.post(`/${kind}/:id/update`, notSwarm);
    app.get(`/${kind}/:id/logs`, notSwarm);
  }
  app.get('/swarm', notSwarm);
  app.get('/swarm/unlockkey', notSwarm);
  for (const verb of ['update', 'unlock']) app.post(`/swarm/${verb}`, notSwarm);
  app.post('/swarm/leave', async () => {
    throw new DrydockError('ERR_NOT_SWARM', 'This node is not part of a swarm');
  });
  for (const verb of ['init', 'join'])
    app.post(`/swarm/${verb}`, async () => {
      throw new DrydockError('ERR_NOT_IMPLEMENTED', 'this daemon can not be part of a swarm');
    });
  app.get('/plugins', async () => []);
  const noPlugin = async (request: FastifyRequest): Promise<never> => {
    const { name } = request.params as { name: string };
    throw new DrydockError('ERR_PLUGIN_NOT_FOUND', `plugin ${JSON.stringify(name)} not found`);
  };
  app.get('/plugins/:name/json', noPlugin);
  app.delete('/plugins/:name', noPlugin);
  for (const verb of ['enable', 'disable', 'upgrade', 'push', 'set'])
    app.post(`/plugins/:name/${verb}`, noPlugin);
  app.put('/volumes/:name', notSwarm);
  app.get('/plugins/privileges', async () => {
    throw new DrydockError('ERR_NOT_IMPLEMENTED', 'this daemon does not install plugins');
  });
  for (const verb of ['pull', 'create'])
    app.post(`/plugins/${verb}`, async () => {
      throw new DrydockError('ERR_NOT_IMPLEMENTED', 'this daemon does not install plugins');
    });
  for (const method of ['GET', 'POST'] as const)
    app.route({
      method,
      url: '/containers/:id/checkpoints',
      handler: async () => {
        throw new DrydockError('ERR_NOT_IMPLEMENTED', 'checkpoints are not supported by this runtime');
      },
    });
}
