/** /volumes */
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { labelMatches } from '../events/bus.ts';
import type { CreateVolumeRequest } from '../volume/service.ts';
import { pruneTest } from './containers.ts';
import type { ApiContext } from './context.ts';
import { booleanFilter, filters, flag, optionalJsonBody } from './query.ts';
import { createVolumeBody } from './schema.ts';
import { apiVersion } from './server.ts';
import { volumeView } from './system.ts';

const LIST_FILTERS: ReadonlySet<string> = new Set(['dangling', 'driver', 'label', 'name']);

/** Registers the routes. */
export function volumeRoutes(app: FastifyInstance, context: ApiContext): void {
  const { volumes, containers } = context;
  const nameOf = (request: FastifyRequest): string => (request.params as { name: string }).name;
  app.get('/volumes', async (request) => list(context, request));
  app.get('/volumes/:name', async (request) => volumeView(context, nameOf(request)));
  app.post('/volumes/create', { schema: { body: createVolumeBody } }, async (request, reply) => {
    const record = await volumes.create((optionalJsonBody(request) ?? {}) as CreateVolumeRequest);
    return reply.code(201).send(volumeView(context, record.name));
  });
  app.delete('/volumes/:name', async (request, reply) => {
    const name = nameOf(request);
    await volumes.remove(name, containers.volumeUsers(name), flag(request, 'force'));
    return reply.code(204).send();
  });
  app.post('/volumes/prune', (request) => prune(context, request));
}

function list(context: ApiContext, request: FastifyRequest): object {
  const found = filters(request, LIST_FILTERS);
  const any = (name: string, test: (value: string) => boolean): boolean =>
    found.get(name)?.some(test) ?? true;
  const dangling = booleanFilter(found, 'dangling');
  const chosen = context.volumes
    .list()
    .filter(
      (v) =>
        any('name', (value) => v.name.includes(value)) &&
        any('driver', (value) => value === 'local') &&
        (found.get('label') ?? []).every((value) => labelMatches(v.labels, value)) &&
        (dangling === undefined || dangling === (context.containers.volumeUsers(v.name).length === 0)),
    );
  return { Volumes: chosen.map((v) => volumeView(context, v.name)), Warnings: null };
}

const PRUNE_FILTERS: ReadonlySet<string> = new Set(['label', 'label!', 'all']);

async function prune(context: ApiContext, request: FastifyRequest): Promise<object> {
  const { volumes, containers, clock, events } = context;
  const matches = pruneTest(request, clock.wallMs(), PRUNE_FILTERS);
  // Since 1.42 only anonymous volumes are pruned unless `all` is asked for; before, all.
  const all = booleanFilter(filters(request, PRUNE_FILTERS), 'all') ?? apiVersion(request) < 42;
  const removed: string[] = [];
  let bytes = 0;
  for (const volume of volumes.list()) {
    if (!(all || volume.anonymous) || containers.volumeUsers(volume.name).length > 0) continue;
    if (!matches(volume.createdAt, volume.labels)) continue;
    bytes += await volumes.size(volume.name);
    await volumes.remove(volume.name, [], false);
    removed.push(volume.name);
  }
  events.emit('volume', 'prune', '', { reclaimed: String(bytes) });
  return { VolumesDeleted: removed, SpaceReclaimed: bytes };
}
