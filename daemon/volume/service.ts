/**
 * Volumes of the `local` driver: folders under the data root that outlive containers. Their files are on this host
 * already, so they are mounted as they are, without the file server that host folders go through.
 */
import { mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '#common/clock';
import { DrydockError } from '#common/errors';
import type { Rng } from '#common/rng';
import { newId } from '../container/names.ts';
import type { EventBus } from '../events/bus.ts';
import { VOLUME_NAME } from '../mounts/parse.ts';
import type { RecordFolder } from '../store/atomic.ts';
import { folderBytes } from '../store/size.ts';

/** What is kept of a volume. */
export interface VolumeRecord {
  name: string;
  createdAt: string;
  labels: Record<string, string>;
  options: Record<string, string>;
  /** Nobody named it: `docker volume prune` removes it without --all. */
  anonymous: boolean;
}

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
  events: EventBus;
  clock: Clock;
  rng: Rng;
}

/** Docker's volumes. */
export class VolumeService {
  readonly #deps: VolumeDeps;
  #volumes: Map<string, VolumeRecord> = new Map();

  constructor(deps: VolumeDeps) {
    this.#deps = deps;
  }

  /** Loads what is on disk. A folder without a record is a volume whose record was lost: its data is kept. */
  async open(): Promise<void> {
    const { records, broken } = await this.#deps.records.load();
    this.#volumes = records;
    for (const name of broken) await this.#save({ ...this.#fresh(name), anonymous: false });
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
    await mkdir(this.dataPath(record.name), { recursive: true, mode: 0o755 });
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
    if (Object.keys(options).length > 0)
      throw new DrydockError(
        'ERR_NOT_IMPLEMENTED',
        `create ${name}: options of the local driver (${Object.keys(options).join(', ')}) are not supported: mount the file system on the host and use a bind mount`,
      );
    const record = { ...this.#fresh(name), labels: { ...request.Labels }, options, anonymous: !request.Name };
    await this.#save(record);
    this.#deps.events.emit('volume', 'create', name, { driver: 'local' });
    return record;
  }

  /** Removes a volume. @param users containers that mount it @throws ERR_CONFLICT when in use */
  async remove(name: string, users: string[], force: boolean): Promise<void> {
    if (!this.#volumes.has(name) && force) return;
    const record = this.get(name);
    if (users.length > 0)
      throw new DrydockError('ERR_CONFLICT', `remove ${name}: volume is in use - [${users.join(', ')}]`);
    this.#volumes.delete(record.name);
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
