/**
 * Makes what RUN --mount asks for, for one step: folders of the context, of stages and images, cache folders, memory,
 * secrets and agents of the client. All of it but the cache folders is gone when the step ends.
 */
import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import {
  chmod,
  chown,
  lstat,
  mkdir,
  realpath,
  rm,
  rmdir,
  stat,
  unlink,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { DrydockError, errorCode } from '#common/errors';
import type { MountPoint } from '../container/types.ts';
import type { Images } from '../image/images.ts';
import { ownerOnDisk } from '../image/owners.ts';
import type { LayerRecord } from '../image/records.ts';
import type { Roots } from '../image/roots.ts';
import { resolveInRoot } from '../mounts/rootpath.ts';
import type { CacheMounts } from './cache-mounts.ts';
import { mountTarget, type RunMount, secretName } from './mounts.ts';

const run = promisify(execFile);

/** What the client of a build gives to its steps. */
export interface StepClient {
  /** A secret's bytes; undefined when the client has none of this name. */
  secret(id: string, signal: AbortSignal): Promise<Uint8Array | undefined>;
  /** Serves the client's ssh agent at a socket, which goes with `close`; undefined when it forwards none of this name. */
  agent(id: string, socketPath: string, signal: AbortSignal): Promise<{ close(): Promise<void> } | undefined>;
}

/** Files to mount: layers of a stage or an image, or a folder of the host that is only for this build. */
export type MountFiles = { layers: readonly LayerRecord[] } | { folder: string };

export interface RunMountParts {
  images: Images;
  roots: Roots;
  cacheMounts: CacheMounts;
  client: StepClient | undefined;
  /** For what should not reach a disk. */
  secretsFolder: string;
  /** A folder of the build's own. */
  scratchPath: string;
  /** What `from` names; the context for undefined. */
  filesOf(from: string | undefined): Promise<MountFiles>;
  /** Set before the names of cache folders, by BUILDKIT_CACHE_MOUNT_NS. */
  cacheNamespace: string;
  workdir: string;
  signal: AbortSignal;
}

/** The mounts of a step. */
export interface PreparedMounts {
  points: MountPoint[];
  env: string[];
  release(): Promise<void>;
}

type Undo = () => Promise<unknown>;

const notFound = (path: string): DrydockError =>
  new DrydockError(
    'ERR_BUILD',
    `failed to compute cache key: failed to calculate checksum of ref: ${JSON.stringify(path)}: not found`,
  );

/** What the mounts of a step depend on, for the cache: what bind mounts show. */
export async function mountsKey(parts: RunMountParts, mounts: readonly RunMount[]): Promise<string> {
  const keys: string[] = [];
  for (const mount of mounts) {
    if (mount.type !== 'bind') continue;
    const files = await parts.filesOf(mount.from);
    if ('layers' in files)
      keys.push(JSON.stringify([mount.source, files.layers.map((layer) => layer.diffId)]));
    else {
      const source = Buffer.from(await existing(files.folder, mount.source)).toString('latin1');
      keys.push(await parts.images.library.parts.workers.hash({ items: [{ source, target: '' }] }));
    }
  }
  return keys.join(' ');
}

/** cp keeps owners, times, links and extended attributes. */
async function copyTree(from: string, to: string): Promise<void> {
  await run('cp', ['-a', '--', from, to]);
}

async function existing(root: string, path: string): Promise<string> {
  const found = await resolveInRoot(root, path);
  if (!(await stat(found).catch(() => undefined))) throw notFound(path);
  return found;
}

/** Prepares the mounts. @throws ERR_BUILD for what is not there; nothing is left then */
export async function prepareMounts(
  parts: RunMountParts,
  mounts: readonly RunMount[],
): Promise<PreparedMounts> {
  const prepared = new Preparation(parts);
  try {
    for (const mount of mounts) await prepared.add(mount);
    return prepared;
  } catch (error) {
    await prepared.release();
    throw error;
  }
}

class Preparation implements PreparedMounts {
  readonly points: MountPoint[] = [];
  readonly env: string[] = [];
  readonly #parts: RunMountParts;
  readonly #undo: Undo[] = [];

  constructor(parts: RunMountParts) {
    this.#parts = parts;
  }

  async release(): Promise<void> {
    for (const undo of this.#undo.splice(0).reverse()) await undo();
  }

  async add(mount: RunMount): Promise<void> {
    const target = mountTarget(mount, this.#parts.workdir);
    switch (mount.type) {
      case 'tmpfs':
        return this.#addPoint({
          target,
          readOnly: false,
          tmpfs: ['nosuid', ...(mount.sizeBytes ? [`size=${mount.sizeBytes}`] : [])],
        });
      case 'bind':
        return this.#addPoint({ target, readOnly: mount.readOnly, source: await this.#files(mount) });
      case 'cache':
        return this.#cache(mount, target);
      case 'secret':
        return this.#secret(mount, target);
      default:
        return this.#agent(mount, target);
    }
  }

  #addPoint(point: { target: string; readOnly: boolean; source?: string; tmpfs?: string[] }): void {
    this.points.push({
      Type: point.tmpfs ? 'tmpfs' : 'bind',
      Source: point.source ?? '',
      Destination: point.target,
      Mode: '',
      RW: !point.readOnly,
      Propagation: point.tmpfs ? '' : 'rprivate',
      ...(point.tmpfs ? { tmpfsOptions: point.tmpfs } : { isOwn: true }),
    });
  }

  /** A path with the files of a bind mount: what a step writes there is nobody else's. */
  async #files(mount: RunMount): Promise<string> {
    const files = await this.#parts.filesOf(mount.from);
    if ('layers' in files) return existing(await this.#root(files.layers), mount.source);
    const source = await existing(files.folder, mount.source);
    if (mount.readOnly) return source;
    const copy = join(this.#parts.scratchPath, randomUUID());
    this.#undo.push(() => rm(copy, { recursive: true, force: true }));
    await copyTree(source, copy);
    return copy;
  }

  async #root(layers: readonly LayerRecord[]): Promise<string> {
    const { roots } = this.#parts;
    const id = `build-${randomUUID()}`;
    this.#undo.push(() => roots.remove(id));
    await roots.createOn(id, '', layers);
    return roots.mount(id);
  }

  async #cache(mount: RunMount, target: string): Promise<void> {
    const { cacheMounts, cacheNamespace, signal } = this.#parts;
    const { from } = mount;
    const { path, release } = await cacheMounts.acquire({
      name: `${cacheNamespace}${mount.id ?? target}`,
      sharing: mount.sharing,
      owner: this.#ownerOf(mount),
      mode: mount.mode ?? 0o755,
      signal,
      ...(from !== undefined && {
        seed: async (data) => {
          await copyTree(`${await this.#files({ ...mount, readOnly: true })}/.`, data);
        },
      }),
    });
    this.#undo.push(release);
    this.#addPoint({ target, readOnly: mount.readOnly, source: path });
  }

  async #own(): Promise<string> {
    const folder = join(this.#parts.secretsFolder, randomUUID());
    this.#undo.push(() => rm(folder, { recursive: true, force: true }));
    await mkdir(folder, { recursive: true, mode: 0o711 });
    return folder;
  }

  async #secret(mount: RunMount, target: string): Promise<void> {
    const { client, signal } = this.#parts;
    const name = secretName(mount);
    const value = await client?.secret(name, signal);
    if (value === undefined) {
      if (mount.required) throw new DrydockError('ERR_BUILD', `secret ${name}: not found`);
      return;
    }
    if (mount.env !== undefined) this.env.push(`${mount.env}=${Buffer.from(value).toString()}`);
    // With env alone there is no file.
    if (mount.env !== undefined && mount.target === undefined) return;
    const path = join(await this.#own(), 'secret');
    await writeFile(path, value, { mode: 0o600 });
    await this.#give(path, mount, 0o400);
    this.#addPoint({ target, readOnly: true, source: path });
  }

  /** As the disk has it. */
  #ownerOf({ uid = 0, gid = 0 }: RunMount): { uid: number; gid: number } {
    return ownerOnDisk({ uid, gid }, this.#parts.roots.maps);
  }

  async #give(path: string, mount: RunMount, mode: number): Promise<void> {
    const { uid, gid } = this.#ownerOf(mount);
    await chown(path, uid, gid);
    await chmod(path, mount.mode ?? mode);
  }

  async #agent(mount: RunMount, target: string): Promise<void> {
    const { client, signal } = this.#parts;
    const id = mount.id ?? 'default';
    const path = join(await this.#own(), 'agent');
    const agent = await client?.agent(id, path, signal);
    if (!agent) {
      if (mount.required)
        throw new DrydockError('ERR_BUILD', `no SSH key ${JSON.stringify(id)} forwarded from the client`);
      return;
    }
    this.#undo.push(() => agent.close());
    await this.#give(path, mount, 0o600);
    const number = this.points.filter(({ Destination }) =>
      Destination.startsWith('/run/buildkit/ssh_agent'),
    ).length;
    const place = mount.target === undefined ? `${target}.${number}` : target;
    this.#addPoint({ target: place, readOnly: true, source: path });
    if (!this.env.some((entry) => entry.startsWith('SSH_AUTH_SOCK=')))
      this.env.push(`SSH_AUTH_SOCK=${place}`);
  }
}

/** Removes the empty files and folders that only were there to mount on, and gives their folders' times back. */
export class MountPlaces {
  readonly #made: { path: string; isFolder: boolean }[] = [];
  readonly #parents: { path: string; atime: Date; mtime: Date }[] = [];

  /** Notes which places are not there yet. @param mounted a tree in which nothing runs */
  async note(mounted: string, points: readonly MountPoint[]): Promise<void> {
    // Links on the way to the root are the machine's own, and no others are followed in clean().
    const root = await realpath(mounted);
    for (const { Destination, Source, Type } of points) {
      const isFolder = Type === 'tmpfs' || (await stat(Source)).isDirectory();
      const path = await resolveInRoot(root, Destination);
      const parts = path.slice(root.length + 1).split('/');
      for (let depth = parts.length; depth > 0; depth--) {
        const place = join(root, ...parts.slice(0, depth));
        const found = await stat(place).catch(() => undefined);
        if (found) {
          if (depth < parts.length)
            this.#parents.push({ path: place, atime: found.atime, mtime: found.mtime });
          break;
        }
        this.#made.push({ path: place, isFolder: isFolder || depth < parts.length });
      }
    }
  }

  /** Removes them. The tree must be mounted where it was, and nothing run in it any more. */
  async clean(): Promise<void> {
    for (const { path, isFolder } of this.#made) {
      // The step may have put a link in place of a folder above, which leads out of the tree (CVE-2024-23652).
      if (!(await isReal(dirname(path)))) continue;
      const found = await lstat(path).catch(() => undefined);
      if (isFolder && found?.isDirectory()) await rmdir(path).catch(keepFilled);
      else if (!isFolder && found?.isFile() && found.size === 0) await unlink(path);
    }
    for (const { path, atime, mtime } of this.#parents)
      if (await isReal(path)) await utimes(path, atime, mtime).catch(keepFilled);
  }
}

/** Whether a path is there, without any link on its way. */
async function isReal(path: string): Promise<boolean> {
  return (await realpath(path).catch(() => undefined)) === path;
}

/** What the step itself has put there stays; what it has removed is gone. */
function keepFilled(error: unknown): void {
  if (!['ENOTEMPTY', 'ENOENT'].includes(errorCode(error) ?? '')) throw error;
}
