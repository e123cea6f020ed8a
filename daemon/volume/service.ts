/**
 * Volumes of the `local` driver: folders under the data root that outlive containers. Their files are on this host
 * already, so they are mounted as they are, without the file server that host folders go through. A volume with options
 * is a file system that is mounted on its folder while somebody uses it.
 */
import { lookup } from 'node:dns/promises';
import { chown, mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '#common/clock';
import { DrydockError, errorMessage } from '#common/errors';
import type { UserMaps } from '#common/id-map';
import type { Rng } from '#common/rng';
import { checkExported } from '#fsbridge';
import { newId } from '../container/names.ts';
import { Turns } from '../container/turns.ts';
import type { EventBus } from '../events/bus.ts';
import { ownerOnDisk, ROOT } from '../image/owners.ts';
import { mountFilesystem, unmountAll } from '../mounts/host-mounts.ts';
import { VOLUME_NAME } from '../mounts/parse.ts';
import type { RecordFolder } from '../store/record-folder.ts';
import { FLAG, record, type Shape, TEXT, TEXTS_BY_KEY, TIME } from '../store/shape.ts';
import { folderBytes } from '../store/size.ts';
import {
  boundFolder,
  checkVolumeOptions,
  needsMount,
  withoutPassword,
  withServerAddress,
} from './options.ts';

/** What is kept of a volume. */
export interface VolumeRecord {
  name: string;
  createdAt: string;
  labels: Record<string, string>;
  options: Record<string, string>;
  /** Nobody named it: `docker volume prune` removes it without --all. */
  anonymous: boolean;
}

/** See {@link VolumeRecord}. */
export const VOLUME_SHAPE: Shape = record({
  name: TEXT,
  createdAt: TIME,
  labels: TEXTS_BY_KEY,
  options: TEXTS_BY_KEY,
  anonymous: FLAG,
});

/** The body of POST /volumes/create. */
export interface CreateVolumeRequest {
  Name?: string;
  Driver?: string;
  DriverOpts?: Record<string, string> | null;
  Labels?: Record<string, string> | null;
  ClusterVolumeSpec?: object;
}

/** What the service works with. */
export interface VolumeDeps {
  records: RecordFolder<VolumeRecord>;
  /** Folders of the host that may be mounted; none: all. */
  exports: readonly string[];
  /** How the users of containers are those of the machine, when they are others. */
  userMaps: UserMaps | undefined;
  events: EventBus;
  clock: Clock;
  rng: Rng;
}

/** Docker's volumes. */
export class VolumeService {
  readonly #deps: VolumeDeps;
  #volumes: Map<string, VolumeRecord> = new Map();
  /** Who uses a volume that must be mounted, by its name. */
  readonly #holders = new Map<string, Set<string | symbol>>();
  readonly #turns = new Turns();

  constructor(deps: VolumeDeps) {
    this.#deps = deps;
  }

  /**
   * Loads what is on disk. A volume whose record was lost gets a new one: its data is kept. One that was just being made is not.
   * What a killed daemon left mounted is unmounted.
   */
  async open(): Promise<void> {
    const { records, unfinished, damaged } = await this.#deps.records.load();
    this.#volumes = records;
    for (const { name, options } of records.values())
      if (needsMount(options)) await unmountAll(this.dataPath(name));
    for (const name of [...unfinished, ...damaged]) {
      const holdsData = (await readdir(this.dataPath(name)).catch(() => [])).length > 0;
      if (holdsData || damaged.includes(name)) await this.#save({ ...this.#fresh(name), anonymous: false });
      else await this.#deps.records.remove(name);
    }
  }

  #fresh(name: string): VolumeRecord {
    return {
      name,
      createdAt: new Date(this.#deps.clock.wallMs()).toISOString(),
      labels: {},
      options: {},
      anonymous: true,
    };
  }

  async #save(record: VolumeRecord): Promise<void> {
    this.#volumes.set(record.name, record);
    const made = await mkdir(this.dataPath(record.name), { recursive: true, mode: 0o755 });
    const { userMaps } = this.#deps;
    if (made !== undefined && userMaps) {
      const { uid, gid } = ownerOnDisk(ROOT, userMaps);
      await chown(this.dataPath(record.name), uid, gid);
    }
    await this.#deps.records.save(record.name, record);
  }

  /** The folder with a volume's files. */
  dataPath(name: string): string {
    return join(this.#deps.records.pathOf(name), '_data');
  }

  /** All volumes by name. */
  list(): VolumeRecord[] {
    return [...this.#volumes.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** @throws ERR_VOLUME_NOT_FOUND */
  get(name: string): VolumeRecord {
    const record = this.#volumes.get(name);
    if (!record) throw new DrydockError('ERR_VOLUME_NOT_FOUND', `get ${name}: no such volume`);
    return record;
  }

  /** Makes a volume, or returns the one that has this name. @throws ERR_BAD_PARAMETER, ERR_CONFLICT, ERR_PLUGIN_NOT_FOUND, ERR_NOT_SWARM */
  async create(request: CreateVolumeRequest): Promise<VolumeRecord> {
    const driver = request.Driver || 'local';
    if (request.ClusterVolumeSpec)
      throw new DrydockError(
        'ERR_NOT_SWARM',
        'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.',
      );
    if (driver !== 'local')
      throw new DrydockError(
        'ERR_PLUGIN_NOT_FOUND',
        `create ${request.Name ?? ''}: error looking up volume plugin ${driver}: plugin "${driver}" not found`,
      );
    const options = { ...request.DriverOpts };
    const name = request.Name || newId(this.#deps.rng);
    if (name.length === 1)
      throw new DrydockError(
        'ERR_BAD_PARAMETER',
        `create ${name}: volume name is too short, names should be at least two alphanumeric characters`,
      );
    if (!VOLUME_NAME.test(name))
      throw new DrydockError(
        'ERR_BAD_PARAMETER',
        `create ${name}: "${name}" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path`,
      );
    const existing = this.#volumes.get(name);
    if (existing) {
      if (Object.keys(options).some((key) => existing.options[key] !== options[key]))
        throw new DrydockError('ERR_CONFLICT', `create ${name}: volume already exists with other options`);
      return existing;
    }
    await this.#checkOptions(name, options);
    const record = { ...this.#fresh(name), labels: { ...request.Labels }, options, anonymous: !request.Name };
    await this.#save(record);
    this.#deps.events.emit('volume', 'create', name, { driver: 'local' });
    return record;
  }

  async #checkOptions(name: string, options: Record<string, string>): Promise<void> {
    try {
      checkVolumeOptions(options);
      const folder = boundFolder(options);
      if (folder !== undefined) await checkExported(folder, this.#deps.exports);
    } catch (error) {
      throw new DrydockError('ERR_BAD_PARAMETER', `create ${name}: ${errorMessage(error)}`, { cause: error });
    }
  }

  /**
   * Mounts a volume that is a file system of its own, for as long as it has holders.
   * @returns the folder with its files
   * @throws ERR_MOUNT with what mount(8) says
   */
  async hold(name: string, holder: string | symbol): Promise<string> {
    const { options } = this.get(name);
    const path = this.dataPath(name);
    if (!needsMount(options)) return path;
    return this.#turns.take(async () => {
      const holders = this.#holders.get(name) ?? new Set();
      if (holders.size === 0) await this.#mount(path, options);
      this.#holders.set(name, holders.add(holder));
      return path;
    });
  }

  /** Remembers a hold of an earlier daemon, whose mount is still there. */
  holdAgain(name: string, holder: string): void {
    if (!needsMount(this.get(name).options)) return;
    this.#holders.set(name, (this.#holders.get(name) ?? new Set()).add(holder));
  }

  async #mount(path: string, options: Record<string, string>): Promise<void> {
    try {
      const { device, words } = await withServerAddress(
        options,
        async (name) => (await lookup(name)).address,
      );
      await mountFilesystem(options.type ?? '', device, words, path);
    } catch (error) {
      throw new DrydockError(
        'ERR_MOUNT',
        `error while mounting volume '${path}': failed to mount local volume: ${withoutPassword(errorMessage(error))}`,
      );
    }
  }

  /** Takes back a {@link hold}. Idempotent. */
  async release(name: string, holder: string | symbol): Promise<void> {
    await this.#turns.take(async () => {
      const holders = this.#holders.get(name);
      if (!holders?.delete(holder) || holders.size > 0) return;
      this.#holders.delete(name);
      await unmountAll(this.dataPath(name));
    });
  }

  /** Removes a volume. @param users containers that mount it @throws ERR_CONFLICT when in use */
  async remove(name: string, users: string[], force: boolean): Promise<void> {
    if (!this.#volumes.has(name) && force) return;
    const record = this.get(name);
    if (users.length > 0)
      throw new DrydockError('ERR_CONFLICT', `remove ${name}: volume is in use - [${users.join(', ')}]`);
    this.#volumes.delete(record.name);
    // Its files are removed: what is mounted there is not this volume's to remove.
    if (needsMount(record.options)) await unmountAll(this.dataPath(name));
    await this.#deps.records.remove(name);
    this.#deps.events.emit('volume', 'destroy', name, { driver: 'local' });
  }

  /** Bytes on disk. */
  size(name: string): Promise<number> {
    return folderBytes(this.dataPath(name));
  }

  /** Whether nothing was ever put into it. */
  async isEmpty(name: string): Promise<boolean> {
    return (await readdir(this.dataPath(name))).length === 0;
  }
}
