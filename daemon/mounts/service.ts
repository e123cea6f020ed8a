/**
 * Makes a container's mounts. Host folders are served by fsbridge on a mount of their own under the exec root, which the
 * jail then binds; volumes, and what a file server can't stand in for (sockets, devices, mounts that propagate), are bound
 * as they are. An image is a root file system of its own that nobody writes to.
 *
 * Folders under the exec root are only ever removed with rmdir and unlink: were one still mounted, a recursive removal
 * would reach into the host's own files.
 */
import { execFile } from 'node:child_process';
import { lstat, mkdir, readdir, rmdir, stat, unlink, writeFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { promisify } from 'node:util';
import { DrydockError, errorCode, errorMessage } from '#common/errors';
import type { Log } from '#common/log';
import { makeFolders } from '#common/make-folders';
import { type BridgeMount, type BridgeMountOptions, checkExported } from '#fsbridge';
import type { ContainerRecord, MountPoint } from '../container/types.ts';
import type { ImageStore, RootStore } from '../image/store.ts';
import { SUBMOUNTS_MAX } from '../limits.ts';
import type { JailMount } from '../runtime/runtime.ts';
import type { VolumeService } from '../volume/service.ts';
import { bindAlone, mountFilesystem, mountsBelow, requirePropagation, unmountAll } from './host-mounts.ts';
import { spreads } from './parse.ts';
import { resolveInRoot } from './rootpath.ts';

const run = promisify(execFile);

/** What the service works with. */
export interface MountDeps {
  /** Folder for the mounts of host folders. */
  folder: string;
  mountFolder: (options: BridgeMountOptions) => Promise<BridgeMount>;
  /** Folders of the host that may be mounted; none: all. */
  exports: readonly string[];
  /** Host folders are bound by the kernel: a server would end with the daemon, and containers are to outlive it. */
  direct: boolean;
  volumes: VolumeService;
  images: Pick<ImageStore, 'get'>;
  roots: Pick<RootStore, 'create' | 'mount' | 'unmount' | 'remove'>;
  log: Log;
}

/** A mount of a container that starts, and how it will be taken back. */
interface MountWish {
  containerId: string;
  point: MountPoint;
  /** Of the container's mounts. */
  index: number;
  undo: (() => Promise<unknown>)[];
}

/** A folder of the host while it is served to a container. */
export interface ServedFolder {
  containerId: string;
  /** Where the container has it. */
  destination: string;
  mount: BridgeMount;
}

/** Where a container has its POSIX shared memory. */
const SHM = '/dev/shm';

/** Mounts of containers. */
export class MountService {
  readonly #deps: MountDeps;
  /** By container: how what start() made is taken back, in order. */
  readonly #undo = new Map<string, (() => Promise<unknown>)[]>();
  readonly #served = new Set<ServedFolder>();

  constructor(deps: MountDeps) {
    this.#deps = deps;
  }

  /** Folders of the host that are served now. */
  served(): ServedFolder[] {
    return [...this.#served];
  }

  /**
   * Gives a new container's mounts their volumes and images: anonymous volumes are made, named ones too when missing.
   * On failure {@link remove} takes back what was made.
   * @throws ERR_BAD_PARAMETER `bind source path does not exist` for `--mount type=bind`, and `Mounts denied` for host
   *   folders that aren't shared; ERR_IMAGE_NOT_FOUND
   */
  async create(containerId: string, points: MountPoint[]): Promise<void> {
    for (const [index, point] of points.entries()) {
      if (point.isOwn) continue;
      if (point.Type === 'bind') await this.#requireShared(point.Source);
      if (point.Type === 'bind' && point.spec && !point.spec.BindOptions?.CreateMountpoint)
        await requireSource(point);
      if (point.Type === 'image') await this.#createImage(`${containerId}-image-${index}`, point);
      if (point.Type === 'volume') await this.#createVolume(point);
    }
  }

  async #createVolume(point: MountPoint): Promise<void> {
    const volume = await this.#deps.volumes.create({
      ...(point.Name && { Name: point.Name }),
      ...(point.Driver && { Driver: point.Driver }),
      Labels: point.spec?.VolumeOptions?.Labels ?? {},
      DriverOpts: point.spec?.VolumeOptions?.DriverConfig?.Options ?? {},
    });
    point.Name = volume.name;
    point.Source = this.#deps.volumes.dataPath(volume.name);
  }

  async #createImage(rootId: string, point: MountPoint): Promise<void> {
    const { images, roots } = this.#deps;
    const image = await images.get(point.Name!);
    await roots.create(rootId, image.id);
    point.rootId = rootId;
    point.imageId = image.id;
    // Where it will be is shown by inspect from the start, as by dockerd.
    point.Source = await roots.mount(rootId);
    await roots.unmount(rootId);
  }

  /** Removes what create() made for this container alone; volumes stay. Idempotent. */
  async remove(points: MountPoint[]): Promise<void> {
    for (const { rootId } of points) if (rootId !== undefined) await this.#deps.roots.remove(rootId);
  }

  /** Gives `work` the host path of what is mounted, its subpath not yet applied, while the container does not run. */
  async withSource<T>(point: MountPoint, work: (path: string) => Promise<T>): Promise<T> {
    const { volumes, roots } = this.#deps;
    if (point.Type === 'volume') {
      const holder = Symbol(point.Destination);
      try {
        return await work(await volumes.hold(point.Name!, holder));
      } finally {
        await volumes.release(point.Name!, holder);
      }
    }
    if (point.rootId === undefined) return work(point.Source);
    try {
      return await work(await roots.mount(point.rootId));
    } finally {
      await roots.unmount(point.rootId);
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
      (await this.withSource(point, async () => this.#deps.volumes.isEmpty(point.Name!)))
    );
  }

  /** Copies what the image has at a volume's place into the volume, while it is empty. */
  async copyUp(points: MountPoint[], rootPath: string): Promise<void> {
    for (const point of points) {
      if (!(await this.#wantsCopy(point))) continue;
      const from = await resolveInRoot(rootPath, point.Destination);
      const found = await stat(from).catch(() => undefined);
      if (!found?.isDirectory()) continue;
      await this.withSource(point, async (path) => {
        // cp keeps owners, times, links, devices and extended attributes, of the folder itself too.
        await run('cp', ['-a', '--', `${from}/.`, path]);
      });
    }
  }

  /**
   * Makes the mounts of a container that is about to run, in order of depth. On failure nothing is left.
   * @param ipcDonor the container whose shared memory this one uses
   */
  async start(record: ContainerRecord, ipcDonor?: ContainerRecord): Promise<JailMount[]> {
    const undo: (() => Promise<unknown>)[] = [];
    this.#undo.set(record.id, undo);
    try {
      const mounts: JailMount[] = [];
      for (const [index, point] of record.mounts.entries())
        mounts.push(...(await this.#mount({ containerId: record.id, point, index, undo })));
      if (mounts.some(({ target }) => target === SHM)) return mounts;
      if (record.hostConfig.IpcMode === 'shareable') await this.#makeShm(record, undo);
      const owner = record.hostConfig.IpcMode === 'shareable' ? record : ipcDonor;
      return owner ? [this.#shm(owner), ...mounts] : mounts;
    } catch (error) {
      await this.stop(record.id);
      throw error;
    }
  }

  #shmPath(containerId: string): string {
    return join(this.#deps.folder, containerId, 'shm');
  }

  /** Shared memory that others can mount too must be made outside of the container's own mounts. */
  async #makeShm(record: ContainerRecord, undo: (() => Promise<unknown>)[]): Promise<void> {
    const path = this.#shmPath(record.id);
    await mkdir(path, { recursive: true, mode: 0o710 });
    undo.push(() => unmountAll(path));
    await mountFilesystem(
      'tmpfs',
      'shm',
      `nosuid,nodev,noexec,mode=1777,size=${record.hostConfig.ShmSize}`,
      path,
    );
  }

  #shm(owner: ContainerRecord): JailMount {
    const options = ['nosuid', 'nodev', 'noexec'];
    return { kind: 'bind', source: this.#shmPath(owner.id), target: SHM, readOnly: false, options };
  }

  async #mount(wish: MountWish): Promise<JailMount[]> {
    const { point, containerId, undo } = wish;
    const readOnly = !point.RW;
    if (point.Type === 'tmpfs')
      return [{ kind: 'tmpfs', target: point.Destination, readOnly, options: point.tmpfsOptions ?? [] }];
    if (point.isOwn) {
      const options = [point.Propagation, 'rbind'];
      return [{ kind: 'bind', source: point.Source, target: point.Destination, readOnly, options }];
    }
    if (point.Type === 'bind') return this.#bind(wish);
    const { volumes, roots } = this.#deps;
    const { rootId } = point;
    undo.push(
      rootId === undefined ? () => volumes.release(point.Name!, containerId) : () => roots.unmount(rootId),
    );
    const base =
      rootId === undefined ? await volumes.hold(point.Name!, containerId) : await roots.mount(rootId);
    const source = point.subpath ? await resolveInRoot(base, point.subpath) : base;
    if (point.subpath && !(await stat(source).catch(() => undefined)))
      throw new DrydockError(
        'ERR_BAD_PARAMETER',
        `cannot access path ${source}: the ${point.Type} ${point.Name} has no folder ${point.subpath}`,
      );
    return [{ kind: 'bind', source, target: point.Destination, readOnly, options: [] }];
  }

  async #bind(wish: MountWish): Promise<JailMount[]> {
    const { point } = wish;
    const readOnly = !point.RW;
    const { NonRecursive = false, ReadOnlyNonRecursive = false } = point.spec?.BindOptions ?? {};
    const source = await this.#bindSource(point);
    const found = await stat(source);
    const target = point.Destination;
    if (spreads(point.Propagation)) await requirePropagation(source, point.Propagation);
    const { direct } = this.#deps;
    if (direct && readOnly && ReadOnlyNonRecursive)
      throw new DrydockError(
        'ERR_NOT_IMPLEMENTED',
        `bind mount ${source}: with live-restore a read-only mount is read-only as a whole: leave ReadOnlyNonRecursive out`,
      );
    const served = !direct && !spreads(point.Propagation) && (found.isDirectory() || found.isFile());
    if (!served)
      return [
        {
          kind: 'bind',
          source,
          target,
          readOnly,
          options: [point.Propagation, NonRecursive ? 'bind' : 'rbind'],
        },
      ];
    const alone = found.isDirectory() && (NonRecursive || (readOnly && ReadOnlyNonRecursive));
    const mounts = [await this.#serve(wish, { source, target, readOnly, alone })];
    if (!alone || NonRecursive) return mounts;
    // Read-only at its top alone: what is mounted below is served beside it, with leave to write.
    const below = await mountsBelow(source);
    if (below.length > SUBMOUNTS_MAX)
      throw new DrydockError(
        'ERR_MOUNT',
        `${below.length} file systems are mounted below ${source}, more than the ${SUBMOUNTS_MAX} that one mount may have`,
      );
    for (const path of below)
      if (await stat(path).catch(() => undefined))
        mounts.push(
          await this.#serve(wish, {
            source: path,
            target: join(target, relative(source, path)),
            readOnly: false,
            alone: true,
          }),
        );
    return mounts;
  }

  /** Serves one host folder or file. @param part `alone`: without what is mounted below it */
  async #serve(
    { containerId, point, index, undo }: MountWish,
    part: { source: string; target: string; readOnly: boolean; alone: boolean },
  ): Promise<JailMount> {
    const folder = join(this.#deps.folder, containerId);
    const place = join(folder, `${index}-${undo.length}`);
    await mkdir(folder, { recursive: true, mode: 0o710 });
    const isFolder = (await stat(part.source)).isDirectory();
    const make = (path: string): Promise<unknown> =>
      isFolder ? mkdir(path, { recursive: true }) : writeFile(path, '');
    await make(place);
    let { source } = part;
    if (part.alone) {
      source = `${place}-source`;
      await make(source);
      undo.push(() => unmountAll(source));
      await bindAlone(part.source, source);
    }
    const mount = await this.#deps.mountFolder({
      source,
      target: place,
      readOnly: part.readOnly,
      consistency: point.consistency ?? 'consistent',
      // Of what stands in for it, the path says nothing; the original was checked.
      exports: part.alone ? [] : this.#deps.exports,
      log: this.#deps.log.child({ container: containerId, mount: part.target }),
    });
    undo.push(() => mount.unmount());
    const served = { containerId, destination: part.target, mount };
    this.#served.add(served);
    void mount.ended.finally(() => this.#served.delete(served));
    return {
      kind: 'bind',
      source: place,
      target: part.target,
      readOnly: part.readOnly,
      options: [point.Propagation],
    };
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
      await makeFolders(point.Source).catch((error) => {
        throw new DrydockError(
          'ERR_MOUNT',
          `error while creating mount source path '${point.Source}': mkdir ${point.Source}: ${errorMessage(error)}`,
        );
      });
    return point.Source;
  }

  /** Knows again what an earlier daemon has mounted for a container that goes on. */
  async restore(record: ContainerRecord): Promise<void> {
    const { volumes, roots } = this.#deps;
    const undo: (() => Promise<unknown>)[] = [];
    this.#undo.set(record.id, undo);
    for (const { Type, Name, rootId } of record.mounts) {
      if (rootId !== undefined) undo.push(() => roots.unmount(rootId));
      if (Type !== 'volume') continue;
      volumes.holdAgain(Name!, record.id);
      undo.push(() => volumes.release(Name!, record.id));
    }
    for (const path of await mountsBelow(join(this.#deps.folder, record.id)))
      undo.push(() => unmountAll(path));
  }

  /** Unmounts what start() mounted. Idempotent; troubles are logged, since a container must be able to end. */
  async stop(containerId: string): Promise<void> {
    const undo = this.#undo.get(containerId) ?? [];
    this.#undo.delete(containerId);
    for (const step of undo.reverse())
      await step().catch((error) =>
        this.#deps.log.warn({ container: containerId, error }, 'a mount could not be taken back'),
      );
    if (undo.length > 0) await removeMountPoints(join(this.#deps.folder, containerId));
  }

  /**
   * Removes the mount points that a killed daemon left, but for those of containers that still run. What fsbridge mounted
   * there must have been unmounted before.
   */
  async sweep(running: ReadonlySet<string>): Promise<string[]> {
    const done: string[] = [];
    for (const name of await readdir(this.#deps.folder).catch(() => [])) {
      if (running.has(name)) continue;
      for (const path of (await mountsBelow(join(this.#deps.folder, name))).reverse()) await unmountAll(path);
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
