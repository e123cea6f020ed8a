/**
 * Makes a container's mounts. Host folders are served by fsbridge on a mount of their own under the exec root, which the
 * jail then binds; volumes, and things a file server can't stand in for (sockets, devices), are bound as they are.
 *
 * Folders under the exec root are only ever removed with rmdir and unlink: were one still mounted, a recursive removal
 * would reach into the host's own files.
 */
import { execFile } from 'node:child_process';
import { lstat, mkdir, readdir, rmdir, stat, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { DrydockError, errorCode, errorMessage } from '#common/errors';
import type { Log } from '#common/log';
import { type BridgeMount, type BridgeMountOptions, checkExported } from '#fsbridge';
import type { ContainerRecord, MountPoint } from '../container/types.ts';
import type { JailMount } from '../runtime/runtime.ts';
import type { VolumeService } from '../volume/service.ts';
import { resolveInRoot } from './rootpath.ts';

const run = promisify(execFile);

/** What the service works with. */
export interface MountDeps {
  /** Folder for the mounts of host folders. */
  folder: string;
  mountFolder: (options: BridgeMountOptions) => Promise<BridgeMount>;
  /** Folders of the host that may be mounted; none: all. */
  exports: readonly string[];
  volumes: VolumeService;
  log: Log;
}

/** Mounts of containers. */
export class MountService {
  readonly #deps: MountDeps;
  readonly #mounted = new Map<string, BridgeMount[]>();

  constructor(deps: MountDeps) {
    this.#deps = deps;
  }

  /**
   * Gives a new container's mounts their volumes: anonymous ones are made, named ones too when missing.
   * @throws ERR_BAD_PARAMETER `bind source path does not exist` for `--mount type=bind`, and `Mounts denied` for host
   *   folders that aren't shared
   */
  async create(points: MountPoint[]): Promise<void> {
    for (const point of points) {
      if (point.Type === 'bind') await this.#requireShared(point.Source);
      if (point.Type === 'bind' && point.spec && !point.spec.BindOptions?.CreateMountpoint)
        await requireSource(point);
      if (point.Type !== 'volume') continue;
      const volume = await this.#deps.volumes.create({
        ...(point.Name && { Name: point.Name }),
        ...(point.Driver && { Driver: point.Driver }),
        Labels: point.spec?.VolumeOptions?.Labels ?? {},
        DriverOpts: point.spec?.VolumeOptions?.DriverConfig?.Options ?? {},
      });
      point.Name = volume.name;
      point.Source = this.#deps.volumes.dataPath(volume.name);
    }
  }

  /** Whether an image's files should be copied into some of these volumes, so that the root must be mounted at create. */
  async wantsCopy(points: MountPoint[]): Promise<boolean> {
    for (const point of points) if (await this.#wantsCopy(point)) return true;
    return false;
  }

  async #wantsCopy(point: MountPoint): Promise<boolean> {
    return (
      point.Type === 'volume' &&
      !point.noCopy &&
      !point.subpath &&
      (await this.#deps.volumes.isEmpty(point.Name!))
    );
  }

  /** Copies what the image has at a volume's place into the volume, while it is empty. */
  async copyUp(points: MountPoint[], rootPath: string): Promise<void> {
    for (const point of points) {
      if (!(await this.#wantsCopy(point))) continue;
      const from = await resolveInRoot(rootPath, point.Destination);
      const found = await stat(from).catch(() => undefined);
      if (!found?.isDirectory()) continue;
      // cp keeps owners, times, links, devices and extended attributes, of the folder itself too.
      await run('cp', ['-a', '--', `${from}/.`, point.Source]);
    }
  }

  /** Makes the mounts of a container that is about to run, in order of depth. On failure nothing is left. */
  async start(record: ContainerRecord): Promise<JailMount[]> {
    this.#mounted.set(record.id, []);
    try {
      const mounts: JailMount[] = [];
      for (const [index, point] of record.mounts.entries())
        mounts.push(await this.#mount(record.id, point, index));
      return mounts;
    } catch (error) {
      await this.stop(record.id);
      throw error;
    }
  }

  async #mount(containerId: string, point: MountPoint, index: number): Promise<JailMount> {
    const readOnly = !point.RW;
    if (point.Type === 'tmpfs')
      return { kind: 'tmpfs', target: point.Destination, readOnly, options: point.tmpfsOptions ?? [] };
    if (point.Type === 'volume') {
      const source = point.subpath ? await resolveInRoot(point.Source, point.subpath) : point.Source;
      if (point.subpath && !(await stat(source).catch(() => undefined)))
        throw new DrydockError(
          'ERR_BAD_PARAMETER',
          `cannot access path ${source}: the volume ${point.Name} has no folder ${point.subpath}`,
        );
      return { kind: 'bind', source, target: point.Destination, readOnly, options: [] };
    }
    return this.#bind(containerId, point, index, readOnly);
  }

  async #bind(containerId: string, point: MountPoint, index: number, readOnly: boolean): Promise<JailMount> {
    const source = await this.#bindSource(point);
    const found = await stat(source);
    const options = [point.Propagation];
    if (!found.isDirectory() && !found.isFile())
      return { kind: 'bind', source, target: point.Destination, readOnly, options };
    const folder = join(this.#deps.folder, containerId);
    const target = join(folder, String(index));
    await mkdir(folder, { recursive: true, mode: 0o710 });
    if (found.isDirectory()) await mkdir(target, { recursive: true });
    else await writeFile(target, '');
    const mount = await this.#deps.mountFolder({
      source,
      target,
      readOnly,
      consistency: point.consistency ?? 'consistent',
      exports: this.#deps.exports,
      log: this.#deps.log.child({ container: containerId, mount: point.Destination }),
    });
    this.#mounted.get(containerId)!.push(mount);
    return { kind: 'bind', source: target, target: point.Destination, readOnly, options };
  }

  async #requireShared(path: string): Promise<void> {
    await checkExported(path, this.#deps.exports).catch((error) => {
      throw new DrydockError('ERR_BAD_PARAMETER', errorMessage(error), { cause: error });
    });
  }

  /** `-v` makes a missing host folder, `--mount` does not. What is not shared is neither made nor mounted. */
  async #bindSource(point: MountPoint): Promise<string> {
    await this.#requireShared(point.Source);
    if (point.spec && !point.spec.BindOptions?.CreateMountpoint) await requireSource(point);
    else if ((await stat(point.Source).catch(() => undefined)) === undefined)
      await mkdir(point.Source, { recursive: true }).catch((error) => {
        throw new DrydockError(
          'ERR_MOUNT',
          `error while creating mount source path '${point.Source}': mkdir ${point.Source}: ${errorMessage(error)}`,
        );
      });
    return point.Source;
  }

  /** Unmounts what start() mounted. Idempotent; troubles are logged, since a container must be able to end. */
  async stop(containerId: string): Promise<void> {
    const mounts = this.#mounted.get(containerId) ?? [];
    this.#mounted.delete(containerId);
    for (const mount of mounts.reverse())
      await mount
        .unmount()
        .catch((error) =>
          this.#deps.log.warn({ container: containerId, error }, 'host folder could not be unmounted'),
        );
    if (mounts.length > 0) await removeMountPoints(join(this.#deps.folder, containerId));
  }

  /** Removes the mount points that a killed daemon left. What is mounted there must have been unmounted before. */
  async sweep(): Promise<string[]> {
    const done: string[] = [];
    for (const name of await readdir(this.#deps.folder).catch(() => [])) {
      await removeMountPoints(join(this.#deps.folder, name));
      done.push(`removed the mount points of container ${name.slice(0, 12)}`);
    }
    return done;
  }
}

async function requireSource(point: MountPoint): Promise<void> {
  if ((await stat(point.Source).catch(() => undefined)) === undefined)
    throw new DrydockError(
      'ERR_BAD_PARAMETER',
      `invalid mount config for type "bind": bind source path does not exist: ${point.Source}`,
    );
}

async function removeMountPoints(folder: string): Promise<void> {
  for (const name of await readdir(folder).catch(() => [])) {
    const path = join(folder, name);
    const found = await lstat(path).catch(() => undefined);
    await (found?.isDirectory() ? rmdir(path) : unlink(path)).catch(ignoreBusy);
  }
  await rmdir(folder).catch(ignoreBusy);
}

/** A mount that is still there keeps its mount point; the next start tries again. */
function ignoreBusy(error: unknown): void {
  if (!['EBUSY', 'ENOTEMPTY', 'ENOENT', 'ENOTCONN'].includes(errorCode(error) ?? '')) throw error;
}
