/**
 * The containers that exist: made, found, renamed, updated, removed. Running them is the supervisor's, their further
 * processes are the exec service's.
 */
import { join } from 'node:path';
import type { Clock } from '#common/clock';
import { DrydockError, errorCode, errorMessage } from '#common/errors';
import type { UserMaps } from '#common/id-map';
import type { Log } from '#common/log';
import type { Rng } from '#common/rng';
import type { EventBus } from '../events/bus.ts';
import type { Image, ImageStore, RootStore } from '../image/store.ts';
import { collectMounts, inheritedMounts } from '../mounts/parse.ts';
import type { MountService } from '../mounts/service.ts';
import type { NetworkService } from '../network/service.ts';
import type { JailReportRow, Runtime } from '../runtime/runtime.ts';
import { Stamps } from '../stamps.ts';
import { DAMAGED_RECORD, type RecordFolder } from '../store/record-folder.ts';
import type { VolumeService } from '../volume/service.ts';
import { Container } from './container.ts';
import { type ContainerDefaults, createRecord } from './create.ts';
import type { DnsDefaults } from './files.ts';
import { isAlive, permit, startsWithDaemon } from './lifecycle.ts';
import { parseLink } from './links.ts';
import { newLog } from './log-options.ts';
import { Memberships } from './memberships.ts';
import { newId, randomName } from './names.ts';
import { Neighbours } from './neighbours.ts';
import { jailLimits, jailSpec, knownJail, NO_PLACES } from './spec.ts';
import { Supervisor } from './supervisor.ts';
import type { ContainerRecord, CreateRequest, HostConfig, MountPoint } from './types.ts';
import { updatedHostConfig } from './update.ts';
import { checkHostConfig, checkName } from './validate.ts';

/** What the service works with. */
export interface ContainerDeps {
  records: RecordFolder<ContainerRecord>;
  runtime: Runtime;
  images: ImageStore;
  roots: RootStore;
  mounts: MountService;
  networks: NetworkService;
  volumes: VolumeService;
  /** How the users of containers are those of the machine, when they are others. */
  userMaps: UserMaps | undefined;
  events: EventBus;
  clock: Clock;
  rng: Rng;
  log: Log;
  /** Log driver of containers that name none. */
  logConfig: { Type: string; Config: Record<string, string> };
  /** Resolver settings of containers that name none. */
  dns: DnsDefaults;
  /** Addresses of `host-gateway`; none: that of the container's network. */
  hostGateways: readonly string[];
  /** Changed in place by a reload. */
  defaults: ContainerDefaults;
  /** Containers go on while no daemon runs. */
  liveRestore: boolean;
}

/** Docker's containers. */
export class ContainerService {
  readonly supervisor: Supervisor;
  readonly memberships: Memberships;
  readonly #deps: ContainerDeps;
  readonly #neighbours: Neighbours;
  readonly #containers = new Map<string, Container>();
  /** Names that a create is about to use. */
  readonly #reserved = new Map<string, string>();
  readonly #stamps: Stamps;
  readonly #creating = new Set<Promise<unknown>>();

  constructor(deps: ContainerDeps) {
    this.#deps = deps;
    this.#stamps = new Stamps(deps.clock);
    this.#neighbours = new Neighbours({
      networks: deps.networks,
      dns: deps.dns,
      userMaps: deps.userMaps,
      hostGateways: deps.hostGateways,
      folderOf: (id) => this.folderOf(id),
      find: (reference) => this.find(reference),
      all: () => this.list(),
    });
    this.supervisor = new Supervisor({
      runtime: deps.runtime,
      roots: deps.roots,
      mounts: deps.mounts,
      networks: deps.networks,
      userMaps: deps.userMaps,
      events: deps.events,
      clock: deps.clock,
      log: deps.log,
      neighbours: this.#neighbours,
      defaults: deps.defaults,
      liveRestore: deps.liveRestore,
      save: (container) => this.#save(container),
      find: (reference) => this.find(reference),
      removeAfterExit: (container) => this.remove(container, { force: false, volumes: true }),
    });
    this.memberships = new Memberships({
      networks: deps.networks,
      neighbours: this.#neighbours,
      all: () => this.list(),
      save: (container) => this.#save(container),
      assertWorking: () => this.supervisor.assertWorking(),
    });
  }

  async #save(container: Container): Promise<void> {
    if (container.removed) return;
    const { record } = container;
    if (record.state.survival) record.state.attached = this.#deps.networks.attached(record);
    await this.#deps.records.save(container.id, record);
  }

  /**
   * Loads what is on disk after the daemon's start: takes up the containers that have gone on, frees what else a killed
   * daemon left, and says so.
   * @returns what was done, for the log
   */
  async open(): Promise<string[]> {
    const { records, runtime, roots, mounts } = this.#deps;
    const { records: found, unfinished, damaged } = await records.load();
    const done: string[] = [];
    for (const key of unfinished) {
      await records.remove(key);
      done.push(`removed container ${key.slice(0, 12)}, which was being created`);
    }
    for (const record of found.values())
      try {
        this.#containers.set(record.id, this.#adopt(record));
      } catch (error) {
        const path = records.pathOf(record.id);
        this.#deps.log.error({ path, reason: errorMessage(error) }, DAMAGED_RECORD);
        found.delete(record.id);
        damaged.push(record.id);
      }
    const alive = this.list().filter((container) => isAlive(container.record.state.status));
    const restored: Container[] = [];
    for (const container of alive) if (await this.supervisor.restore(container)) restored.push(container);
    const going = new Set(restored.map((c) => c.id));
    done.push(
      ...(await runtime.sweep(
        alive.filter((c) => !c.jail).map((c) => knownJail(c.record)),
        going,
      )),
    );
    const rootIds = (records: Iterable<ContainerRecord>): string[] =>
      [...records].flatMap((r) => [r.id, ...r.mounts.flatMap((m) => m.rootId ?? [])]);
    const running = new Set(rootIds(restored.map((c) => c.record)));
    done.push(...(await roots.sweep(new Set([...rootIds(found.values()), ...damaged]), running)));
    done.push(...(await mounts.sweep(running)));
    for (const container of restored) {
      await this.supervisor.reconnect(container);
      done.push(`took up container ${container.name} again`);
    }
    for (const record of found.values())
      if (!restored.some((c) => c.record === record)) await this.#recover(record, done);
    return done;
  }

  #adopt(record: ContainerRecord): Container {
    const { clock, log } = this.#deps;
    return new Container(record, newLog(record, this.logPath(record.id), clock, log));
  }

  /** A container that ran when the last daemon ended without order is over; --rm is done now. */
  async #recover(record: ContainerRecord, done: string[]): Promise<void> {
    const { state } = record;
    const container = this.#containers.get(record.id)!;
    if (isAlive(state.status) || state.status === 'restarting') {
      if (!state.hasEnded) {
        state.exitCode = 137;
        state.error = 'the daemon was killed while the container ran';
      }
      Object.assign(state, { status: 'exited', pid: 0, pidStartTime: '' });
      for (const key of ['survival', 'attached', 'hasEnded'] as const) delete state[key];
      state.finishedAt = this.#stamps.text();
      await this.#save(container);
      done.push(`marked container ${record.name} as exited`);
    }
    const unfinished =
      state.status === 'removing' || (record.hostConfig.AutoRemove && state.status !== 'created');
    if (!unfinished) return;
    state.status = 'exited';
    await this.remove(container, { force: true, volumes: true });
    done.push(`removed container ${record.name}`);
  }

  /** Starts what restart policies want running after the daemon's start. */
  async startByPolicy(): Promise<void> {
    for (const container of this.list()) {
      if (!startsWithDaemon(container.record.hostConfig.RestartPolicy, container.record.state)) continue;
      await this.supervisor
        .start(container)
        .catch((error) =>
          this.#deps.log.warn({ container: container.id, error }, 'container could not be started'),
        );
    }
  }

  /** All containers, newest first. */
  list(): Container[] {
    return [...this.#containers.values()].sort((a, b) => (a.record.created > b.record.created ? -1 : 1));
  }

  /** Finds by id, name with or without slash, or unique id prefix. @throws ERR_CONTAINER_NOT_FOUND, ERR_AMBIGUOUS_ID */
  find(reference: string): Container {
    const exact = this.#containers.get(reference) ?? this.#byName(reference.replace(/^\//, ''));
    if (exact) return exact;
    const matches = /^[0-9a-f]+$/.test(reference)
      ? [...this.#containers.values()].filter((c) => c.id.startsWith(reference))
      : [];
    if (matches.length === 1) return matches[0]!;
    if (matches.length > 1)
      throw new DrydockError('ERR_AMBIGUOUS_ID', `multiple IDs found with provided prefix: ${reference}`);
    throw new DrydockError('ERR_CONTAINER_NOT_FOUND', `No such container: ${reference}`);
  }

  #byName(name: string): Container | undefined {
    for (const container of this.#containers.values()) if (container.name === name) return container;
    return undefined;
  }

  /** A container's folder under the data root. */
  folderOf(id: string): string {
    return this.#deps.records.pathOf(id);
  }

  /** Where a container's log is. */
  logPath(id: string): string {
    return join(this.folderOf(id), `${id}-json.log`);
  }

  /** Takes a name. @throws ERR_CONFLICT with docker's text */
  #reserve(name: string, id: string): void {
    const owner = this.#byName(name)?.id ?? this.#reserved.get(name);
    if (owner !== undefined)
      throw new DrydockError(
        'ERR_CONFLICT',
        `Conflict. The container name "/${name}" is already in use by container "${owner}". You have to remove (or rename) that container to be able to reuse that name.`,
      );
    this.#reserved.set(name, id);
  }

  /**
   * Makes a container. @param own mounts of the daemon's, besides those of the request
   * @returns it and warnings for the client @throws ERR_SHUTTING_DOWN and what the request deserves
   */
  async create(
    wishedName: string,
    request: CreateRequest,
    own: readonly MountPoint[] = [],
  ): Promise<{ container: Container; warnings: string[] }> {
    this.supervisor.assertWorking();
    const creating = this.#create(wishedName, request, own);
    this.#creating.add(creating);
    try {
      return await creating;
    } finally {
      this.#creating.delete(creating);
    }
  }

  async #create(
    wishedName: string,
    request: CreateRequest,
    own: readonly MountPoint[],
  ): Promise<{ container: Container; warnings: string[] }> {
    const { rng } = this.#deps;
    const id = newId(rng);
    const name =
      wishedName === ''
        ? randomName(rng, (n) => this.#byName(n) !== undefined || this.#reserved.has(n))
        : checkName(wishedName);
    const image = await this.#image(request.Image ?? '');
    const { record, warnings } = createRecord(request, {
      id,
      name,
      created: this.#stamps.text(),
      image,
      logConfig: this.#deps.logConfig,
      defaultRuntime: this.#deps.runtime.info().defaultRuntime,
      defaults: this.#deps.defaults,
    });
    this.#checkNamed(record);
    const points = collectMounts(
      record.hostConfig,
      record.config.Volumes,
      inheritedMounts(record.hostConfig, (reference) => this.#named(reference).record.mounts),
      own,
    );
    record.mounts = points;
    warnings.push(...this.#checkJail(record));
    this.#reserve(name, id);
    try {
      await this.#build(record, image);
      const container = this.#adopt(record);
      this.#containers.set(id, container);
      this.supervisor.event(container, 'create');
      return { container, warnings };
    } finally {
      this.#reserved.delete(name);
    }
  }

  async #image(reference: string): Promise<Image> {
    try {
      return await this.#deps.images.get(reference);
    } catch (error) {
      if (errorCode(error) !== 'ERR_IMAGE_NOT_FOUND') throw error;
      throw new DrydockError('ERR_IMAGE_NOT_FOUND', `No such image: ${withTag(reference)}`);
    }
  }

  /** Another container that a new one names. Not found is a bad request, as in dockerd: 404 makes the CLI pull the image. */
  #named(reference: string): Container {
    try {
      return this.find(reference);
    } catch (error) {
      throw new DrydockError('ERR_BAD_PARAMETER', errorMessage(error), { cause: error });
    }
  }

  /** Containers to share namespaces with, or to link to, must exist; a network need not before the start. */
  #checkNamed(record: ContainerRecord): void {
    const { NetworkMode, PidMode, IpcMode, Links } = record.hostConfig;
    for (const mode of [NetworkMode, PidMode, IpcMode])
      if (mode?.startsWith('container:')) this.#named(mode.slice('container:'.length));
    if (NetworkMode !== 'bridge') return;
    for (const { name } of (Links ?? []).map(parseLink))
      try {
        this.find(name);
      } catch (error) {
        throw new DrydockError(
          'ERR_BAD_PARAMETER',
          `could not get container for ${name}: ${errorMessage(error)}`,
          { cause: error },
        );
      }
  }

  /** What a container gets of what it asks for. @throws what its runtime refuses */
  report(record: ContainerRecord): JailReportRow[] {
    const spec = jailSpec(record, {
      ...NO_PLACES,
      userMaps: this.#deps.userMaps,
      seccomp: this.#deps.defaults.seccomp,
    });
    return this.#deps.runtime.report(spec);
  }

  /** Compiles the jail once at create, so that what can't be had is said now and not at the first start. */
  #checkJail(record: ContainerRecord): string[] {
    return this.report(record)
      .filter((row) => row.got !== 'full' && row.asked !== 'none')
      .map(
        ({ feature, asked, got, how, bypass }) =>
          `${feature}: asked ${asked}, got ${got}: ${how}${bypass ? `; what gets round it: ${bypass}` : ''}`,
      );
  }

  /** Makes all that a container has on disk; on failure nothing is left. */
  async #build(record: ContainerRecord, image: Image): Promise<void> {
    const { mounts, roots, records } = this.#deps;
    try {
      await mounts.create(record.id, record.mounts);
      await roots.create(record.id, image.id);
      if (await mounts.wantsCopy(record.mounts)) {
        await mounts.copyUp(record.mounts, await roots.mount(record.id));
        await roots.unmount(record.id);
      }
      await records.save(record.id, record);
    } catch (error) {
      await roots.unmount(record.id).catch(() => {});
      await roots.remove(record.id).catch(() => {});
      await records.remove(record.id).catch(() => {});
      await mounts.remove(record.mounts).catch(() => {});
      await this.#removeAnonymous(record);
      throw error;
    }
  }

  async #removeAnonymous(record: ContainerRecord): Promise<void> {
    for (const point of record.mounts) {
      if (!point.anonymous || !point.Name || this.volumeUsers(point.Name, record.id).length > 0) continue;
      await this.#deps.volumes
        .remove(point.Name, [], true)
        .catch((error) =>
          this.#deps.log.warn({ volume: point.Name, error }, 'anonymous volume could not be removed'),
        );
    }
  }

  /** Ids of containers that mount a volume, but for one. */
  volumeUsers(name: string, except = ''): string[] {
    return [...this.#containers.values()]
      .filter((c) => c.id !== except && c.record.mounts.some((p) => p.Type === 'volume' && p.Name === name))
      .map((c) => c.id);
  }

  /** Gives `work` the host path of what a container that does not run has mounted, its subpath not yet applied. */
  withMount<T>(point: MountPoint, work: (path: string) => Promise<T>): Promise<T> {
    return this.#deps.mounts.withSource(point, work);
  }

  /** The containers that were made from an image, or mount it. */
  imageUsers(imageId: string): { id: string; running: boolean }[] {
    return [...this.#containers.values()]
      .filter(({ record }) => record.imageId === imageId || record.mounts.some((m) => m.imageId === imageId))
      .map((c) => ({ id: c.id, running: c.up }));
  }

  /** Removes a container. @throws ERR_CONFLICT unless it is stopped or `force` */
  async remove(container: Container, options: { force: boolean; volumes: boolean }): Promise<void> {
    const { record } = container;
    if (options.force && container.up) await this.supervisor.kill(container, 'SIGKILL').catch(ignoreEnded);
    await container.turns.take(async () => {
      if (container.removed) return;
      permit('remove', record.state.status, container.id, container.name);
      const before = record.state.status;
      record.state.status = 'removing';
      try {
        // Off the books first: of a crash from here on no container is left that has lost its files.
        await this.#deps.records.doom(container.id);
        try {
          await this.#deps.roots.remove(container.id);
          await this.#deps.mounts.remove(record.mounts);
        } catch (error) {
          await this.#deps.records.restore(container.id);
          throw error;
        }
        this.#containers.delete(container.id);
        container.removed = true;
        await container.log?.settled;
        await this.#deps.records.remove(container.id);
      } catch (error) {
        record.state.status = before === 'created' ? before : 'dead';
        throw error;
      }
      if (options.volumes) await this.#removeAnonymous(record);
      this.supervisor.event(container, 'destroy');
      container.notifyRemoved();
    });
  }

  async rename(container: Container, wishedName: string): Promise<void> {
    const name = checkName(wishedName);
    const oldName = container.name;
    this.#reserve(name, container.id);
    try {
      container.record.name = name;
      await this.#save(container);
      await this.#deps.networks.renamed(container.record);
    } finally {
      this.#reserved.delete(name);
    }
    this.supervisor.event(container, 'rename', { oldName: `/${oldName}` });
  }

  /** Changes limits and restart policy, of a running container too. @returns warnings */
  async update(container: Container, changes: HostConfig): Promise<string[]> {
    permit('update', container.record.state.status, container.id, container.name);
    const next = updatedHostConfig(container.record.hostConfig, changes);
    const warnings = checkHostConfig(next);
    await container.turns.take(async () => {
      if (isAlive(container.record.state.status)) await container.jail!.update(jailLimits(next));
      container.record.hostConfig = next;
      await this.#save(container);
    });
    this.supervisor.event(container, 'update');
    return warnings;
  }

  /** Stops everything, all at once, when the daemon ends. */
  async shutdown(timeoutS: number): Promise<void> {
    // What is under way ends first, well or not; a start that has waited for its turn is refused when it comes.
    this.supervisor.refuseWork();
    await Promise.allSettled(this.#creating);
    await this.#idle();
    const running = this.list().filter((c) => c.up);
    await Promise.allSettled(
      running.map(async (container) => {
        if (await this.supervisor.leave(container)) return;
        const asked = container.record.config.StopTimeout ?? timeoutS;
        await this.supervisor.stop(container, { timeoutS: Math.min(asked, timeoutS) });
        // The end of the daemon is not the user's wish for this container: its policy starts it again.
        container.record.state.stoppedByUser = false;
        await this.#save(container);
      }),
    );
    await this.#idle();
  }

  /** Resolves when no container has an operation under way. */
  async #idle(): Promise<void> {
    await Promise.allSettled(this.list().map((c) => c.turns.take(async () => {})));
  }
}

function ignoreEnded(error: unknown): void {
  if (errorCode(error) !== 'ERR_CONFLICT') throw error;
}

/** `alpine` as `alpine:latest`, the way docker names what it does not find. */
function withTag(reference: string): string {
  return /[@:][^/]*$/.test(reference) ? reference : `${reference}:latest`;
}
