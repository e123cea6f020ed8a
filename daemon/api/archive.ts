/** /containers/ID/{archive,export,changes}: files of a container, whether it runs or not. */
import { readFile } from 'node:fs/promises';
import { posix } from 'node:path';
import { Readable } from 'node:stream';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { DrydockError, errorCode } from '#common/errors';
import { type Place, readArchive, statPath, writeArchive } from '../archive/archive.ts';
import type { Container } from '../container/container.ts';
import { isAlive } from '../container/lifecycle.ts';
import { resolveInRoot } from '../mounts/rootpath.ts';
import { containerOf } from './containers.ts';
import type { ApiContext } from './context.ts';
import { badParameter } from './errors.ts';
import { flag, text } from './query.ts';

/** Registers the routes. */
export function archiveRoutes(app: FastifyInstance, context: ApiContext): void {
  const { roots } = context;
  const url = '/containers/:id/archive';
  app.head(url, async (request, reply) => {
    const { container, path } = target(context, request);
    await withPlace(context, container, path, async (place) => {
      void reply.header(
        'X-Docker-Container-Path-Stat',
        statHeader(await statPath(place, notFound(container, path))),
      );
    });
    return reply.send();
  });
  app.get(url, { exposeHeadRoute: false }, (request, reply) => get(context, request, reply));
  app.put(url, async (request, reply) => {
    await put(context, request);
    return reply.code(200).send();
  });
  app.get('/containers/:id/export', (request, reply) => exportRoot(context, request, reply));
  app.get('/containers/:id/changes', async (request) => {
    const changes = await roots.changes(containerOf(context, request).id);
    return changes.map(({ path, kind }) => ({ Path: path, Kind: kind }));
  });
}

function target(context: ApiContext, request: FastifyRequest): { container: Container; path: string } {
  const path = text(request, 'path');
  if (path === '') throw badParameter("bad parameter: 'path' cannot be empty");
  const container = containerOf(context, request);
  // Cleaned, but what the end says about following a link is kept.
  const clean = posix.join('/', path.replace(/\/\.?$/, ''));
  return { container, path: /\/\.$/.test(path) ? `${clean}/.` : /.\/$/.test(path) ? `${clean}/` : clean };
}

function notFound(container: Container, path: string): string {
  return `Could not find the file ${path} in container ${container.name}`;
}

function statHeader(stat: object): string {
  return Buffer.from(JSON.stringify(stat)).toString('base64');
}

/**
 * Gives `work` the place of a path. A running container is seen from inside, with its mounts; one that does not run is
 * mounted meanwhile, and can't be started before the work is done.
 */
async function withPlace<T>(
  context: ApiContext,
  container: Container,
  path: string,
  work: (place: Place) => Promise<T>,
): Promise<T> {
  const { state, mounts } = container.record;
  const { maps } = context.roots;
  if (isAlive(state.status)) return work({ root: `/proc/${state.pid}/root`, path, maps });
  return container.turns.take(async () => {
    if (isAlive(container.record.state.status))
      return work({ root: `/proc/${container.record.state.pid}/root`, path, maps });
    const inside = mounts.findLast(
      (m) => m.Type !== 'tmpfs' && (path === m.Destination || path.startsWith(`${m.Destination}/`)),
    );
    if (inside)
      return context.containers.withMount(inside, (root) =>
        work({
          root,
          path: posix.join('/', inside.subpath ?? '', path.slice(inside.Destination.length)),
          maps,
        }),
      );
    const root = await context.roots.mount(container.id);
    try {
      return await work({ root, path, maps });
    } finally {
      await context.roots.unmount(container.id);
    }
  });
}

async function get(context: ApiContext, request: FastifyRequest, reply: FastifyReply): Promise<void> {
  const { container, path } = target(context, request);
  await withPlace(context, container, path, async (place) => {
    const stat = await statPath(place, notFound(container, path));
    void reply.header('X-Docker-Container-Path-Stat', statHeader(stat));
    await sendArchive(reply, readArchive(context.archiveThreads, place));
  });
  context.containers.supervisor.event(container, 'archive-path');
}

/** Sends an archive; resolves when it is out, so that what it is read from can be released. */
async function sendArchive(reply: FastifyReply, archive: Readable): Promise<void> {
  const done = new Promise<void>((resolve) => archive.once('close', resolve));
  reply.raw.once('close', () => archive.destroy());
  await reply.type('application/x-tar').send(archive);
  await done;
}

async function put(context: ApiContext, request: FastifyRequest): Promise<void> {
  const { container, path } = target(context, request);
  const { body } = request;
  if (!(body instanceof Readable))
    throw badParameter('the request has no archive: send a tar archive as its body');
  refuseReadOnly(container, path);
  await withPlace(context, container, path, async (place) => {
    const folder = { ...place, path: place.path.endsWith('/') ? place.path : `${place.path}/` };
    await statPath(folder, notFound(container, path)).catch((error) => {
      if (errorCode(error) !== 'ERR_NOT_A_FOLDER') throw error;
      throw badParameter('extraction point is not a directory');
    });
    const running = isAlive(container.record.state.status);
    const replace = !flag(request, 'noOverwriteDirNonDir') && !running;
    const owner = flag(request, 'copyUIDGID') ? await ownerOf(container, place.root) : undefined;
    await writeArchive(context.archiveThreads, folder, body, { replace, owner });
  });
  context.containers.supervisor.event(container, 'extract-to-dir', { path });
}

/** What a container may not change itself, `docker cp` may not either. */
function refuseReadOnly(container: Container, path: string): void {
  const { mounts, hostConfig } = container.record;
  const inside = mounts.findLast((m) => path === m.Destination || path.startsWith(`${m.Destination}/`));
  if (inside && !inside.RW) throw new DrydockError('ERR_FORBIDDEN', 'mounted volume is marked read-only');
  if (!inside && hostConfig.ReadonlyRootfs)
    throw new DrydockError('ERR_FORBIDDEN', 'container rootfs is marked read-only');
}

/** Numbers of the container's user: as they are, or from its /etc/passwd. */
async function ownerOf(container: Container, root: string): Promise<{ uid: number; gid: number }> {
  const [user = '', group = ''] = (container.record.config.User ?? '').split(':');
  if (user === '' || user === '0') return { uid: 0, gid: /^\d+$/.test(group) ? Number(group) : 0 };
  const passwd = await readFile(await resolveInRoot(root, '/etc/passwd'), 'utf8').catch(() => '');
  const fields = passwd
    .split('\n')
    .map((line) => line.split(':'))
    .find(([name, , uid]) => name === user || uid === user);
  const uid = Number(fields?.[2] ?? user);
  if (Number.isNaN(uid))
    throw badParameter(`unable to find user ${user}: no matching entries in passwd file`);
  return { uid, gid: /^\d+$/.test(group) ? Number(group) : Number(fields?.[3] ?? 0) };
}

async function exportRoot(context: ApiContext, request: FastifyRequest, reply: FastifyReply): Promise<void> {
  const container = containerOf(context, request);
  const { roots } = context;
  const send = async (): Promise<void> => {
    const place = { root: await roots.mount(container.id), path: '/', maps: roots.maps };
    await sendArchive(reply, readArchive(context.archiveThreads, place));
  };
  if (isAlive(container.record.state.status)) await send();
  else
    await container.turns.take(async () => {
      try {
        await send();
      } finally {
        if (!isAlive(container.record.state.status)) await roots.unmount(container.id);
      }
    });
  context.containers.supervisor.event(container, 'export');
}
