/** The daemon's services over their parts: what touches the host is given, so that tests give doubles. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '#common/clock';
import { DrydockError, errorMessage } from '#common/errors';
import type { UserMaps } from '#common/id-map';
import type { Log } from '#common/log';
import type { Rng } from '#common/rng';
import type { BridgeMount, BridgeMountOptions } from '#fsbridge';
import type { ApiContext } from './api/context.ts';
import { API_MINOR_MIN } from './api/versions.ts';
import { ArchiveThreads } from './archive/threads.ts';
import { SessionBuilds } from './build/buildkit/build.ts';
import { controlServer } from './build/buildkit/control.ts';
import { Solver } from './build/buildkit/solver.ts';
import { CacheCollector } from './build/collector.ts';
import { containerRunner, type StepRunner } from './build/runner.ts';
import type { Builds } from './build/service.ts';
import type { DaemonConfig } from './config-options.ts';
import type { RuntimeProgram } from './config-values.ts';
import type { ContainerDefaults } from './container/create.ts';
import { ExecService } from './container/exec.ts';
import { CONTAINER_SHAPE } from './container/record-shape.ts';
import { ContainerService } from './container/service.ts';
import { seccompOf } from './container/spec.ts';
import type { ContainerRecord, HostConfig } from './container/types.ts';
import type { EventBus } from './events/bus.ts';
import type { RegistryOptions } from './image/registry/index.ts';
import type { ImageStore, ImageUsers, RootStore } from './image/store.ts';
import { VOLUME_NAME } from './mounts/parse.ts';
import { MountService } from './mounts/service.ts';
import { defaultNetwork } from './network/defaults.ts';
import type { CreateNetwork } from './network/engine-network.ts';
import { NETWORK_SHAPE, type NetworkRecord } from './network/record.ts';
import { NetworkService } from './network/service.ts';
import { defaultSpec } from './runtime/defaults.ts';
import type { JailSpec, Runtime } from './runtime/runtime.ts';
import { ID_KEY, RecordFolder } from './store/record-folder.ts';
import { SystemService } from './system.ts';
import { VOLUME_SHAPE, type VolumeRecord, VolumeService } from './volume/service.ts';

/** A runtime that can be told of others while it runs. */
export type ReloadableRuntime = Runtime & {
  reload(programs: Record<string, RuntimeProgram>, defaultName: string): void;
};

/** What the services are made of. */
export interface ServiceParts {
  config: DaemonConfig;
  version: string;
  id: string;
  images: ImageStore;
  roots: RootStore;
  builds: Builds;
  driverStatus: [string, string][];
  /** How the users of containers are those of the machine, when they are others. */
  userMaps: UserMaps | undefined;
  reloadRegistries: (options: Partial<RegistryOptions>) => void;
  containerDefaults: ContainerDefaults;
  runtime: ReloadableRuntime;
  createNetstack: CreateNetwork;
  hostSubnets: () => Promise<string[]>;
  cutConnections: (pid: number, spared: (address: string) => boolean) => Promise<void>;
  mountFolder: (options: BridgeMountOptions) => Promise<BridgeMount>;
  /** Runtimes bind host folders themselves: nothing can serve them here. */
  bindsFolders?: boolean;
  /** Where host folders are mounted for containers. */
  mountsFolder: string;
  events: EventBus;
  clock: Clock;
  rng: Rng;
  log: Log;
}

/** The opened services. */
export interface Services {
  id: string;
  context: ApiContext;
  /** What was cleaned up of containers that a killed daemon left. */
  recovered: string[];
  /** Takes over what may change while the daemon runs. @throws ERR_BAD_CONFIG; then nothing has changed */
  reload(config: DaemonConfig): void;
}

/** What the options give to containers. @throws ERR_BAD_CONFIG when the seccomp profile can't be read */
export async function containerDefaults(config: DaemonConfig): Promise<ContainerDefaults> {
  const { seccompProfile, ulimits, init, noNewPrivileges, cgroupParent } = config;
  const isName = seccompProfile === 'builtin' || seccompProfile === 'unconfined';
  try {
    return {
      ...reloadedDefaults(config),
      ulimits,
      init,
      noNewPrivileges,
      cgroupParent,
      seccomp: seccompOf(isName ? seccompProfile : await readFile(seccompProfile, 'utf8')),
      networkMode: config.bridge === 'none' ? 'none' : 'bridge',
    };
  } catch (error) {
    throw new DrydockError('ERR_BAD_CONFIG', `seccomp-profile ${seccompProfile}: ${errorMessage(error)}`);
  }
}

/** Those that SIGHUP takes over. */
function reloadedDefaults({ shmBytes, ipcMode, cgroupnsMode }: DaemonConfig) {
  return { shmBytes, ipcMode, cgroupnsMode };
}

/** The jail of a container that asks for nothing. */
function defaultJail({ userMaps, containerDefaults: { seccomp, noNewPrivileges } }: ServiceParts): JailSpec {
  const spec = defaultSpec('0'.repeat(64), '/');
  return {
    ...spec,
    ...(userMaps && { userMaps }),
    ...(seccomp && { seccomp }),
    process: { ...spec.process, noNewPrivileges },
  };
}

/** How registries are reached, in their own terms. */
export function registryOptions(config: DaemonConfig): Partial<RegistryOptions> {
  return {
    mirrors: config.registryMirrors,
    insecure: config.insecureRegistries,
    downloadsMax: config.downloadsMax,
    downloadAttemptsMax: config.downloadAttemptsMax,
    uploadsMax: config.uploadsMax,
    proxies: { http: config.httpProxy, https: config.httpsProxy, none: config.noProxy },
  };
}

/** Volumes and networks with what is on disk of them, and the containers over them, not yet opened. */
async function openStores(parts: ServiceParts): Promise<{
  volumes: VolumeService;
  networks: NetworkService;
  containers: ContainerService;
  mounts: MountService;
}> {
  const { config, images, roots, runtime, events, clock, rng, log } = parts;
  const folder = (name: string): string => join(config.dataRoot, name);
  const volumes = new VolumeService({
    records: new RecordFolder<VolumeRecord>(folder('volumes'), 'volume.json', {
      key: VOLUME_NAME,
      shape: VOLUME_SHAPE,
      keyOf: ({ name }) => name,
      log,
    }),
    exports: config.fileSharing,
    userMaps: parts.userMaps,
    events,
    clock,
    rng,
  });
  await volumes.open();
  const networks = new NetworkService({
    records: new RecordFolder<NetworkRecord>(folder('networks'), 'network.json', {
      key: ID_KEY,
      shape: NETWORK_SHAPE,
      keyOf: ({ id }) => id,
      log,
    }),
    createNetstack: parts.createNetstack,
    hostSubnets: parts.hostSubnets,
    cutConnections: parts.cutConnections,
    mtuBytes: config.mtu,
    defaultNetwork: defaultNetwork(config),
    pools: config.addressPools,
    optionsByDriver: config.networkOpts,
    events,
    clock,
    rng,
    log,
  });
  await networks.open();
  const mounts = new MountService({
    folder: parts.mountsFolder,
    mountFolder: parts.mountFolder,
    exports: config.fileSharing,
    direct: config.liveRestore || parts.bindsFolders === true,
    volumes,
    images,
    roots,
    log,
  });
  const containers = new ContainerService({
    records: new RecordFolder<ContainerRecord>(folder('containers'), 'config.json', {
      key: ID_KEY,
      shape: CONTAINER_SHAPE,
      keyOf: ({ id }) => id,
      log,
    }),
    runtime,
    images,
    roots,
    mounts,
    networks,
    volumes,
    userMaps: parts.userMaps,
    events,
    clock,
    rng,
    log,
    logConfig: { Type: config.logDriver, Config: config.logOpts },
    dns: { servers: config.dns, search: config.dnsSearch, options: config.dnsOpts },
    hostGateways: config.hostGateways,
    defaults: parts.containerDefaults,
    liveRestore: config.liveRestore,
  });
  return { volumes, networks, containers, mounts };
}

/** Makes the services and loads their state. */
export async function createServices(parts: ServiceParts): Promise<Services> {
  const { config, version, id, images, roots, runtime, events, clock, rng, log } = parts;
  const { volumes, networks, containers, mounts } = await openStores(parts);
  const recovered = await containers.open();
  const live = { config };
  const system = new SystemService({
    version,
    id,
    driverStatus: parts.driverStatus,
    remapped: parts.userMaps !== undefined,
    live,
    runtime,
    defaultJail: defaultJail(parts),
    images,
    roots,
    containers,
    events,
    clock,
  });
  const sessionBuilds = new SessionBuilds(parts.builds, clock);
  const { sessions } = sessionBuilds;
  const imageUsers: ImageUsers = (imageId) => containers.imageUsers(imageId);
  const runnerFor = (hostConfig: HostConfig): StepRunner => containerRunner(containers, roots, hostConfig);
  const collector = new CacheCollector({
    ...{
      cache: parts.builds.cache,
      rules: config.gcRules,
      users: imageUsers,
      results: parts.builds.results,
      clock,
      log,
    },
  });
  parts.builds.onIdle = () => void collector.collect();
  const solver = new Solver({ builds: parts.builds, sessions, clock, runnerFor });
  const context: ApiContext = {
    version,
    minorMin: Number(config.minApiVersion.split('.')[1] ?? API_MINOR_MIN),
    builderVersion: () => (live.config.features.buildkit === true ? '2' : '1'),
    images,
    roots,
    builds: parts.builds,
    sessionBuilds,
    buildKit: controlServer({
      ...{ solver, builds: parts.builds, sessions, users: imageUsers, version, id },
      nowMs: () => clock.wallMs(),
    }),
    archiveThreads: new ArchiveThreads(clock),
    containers,
    execs: new ExecService(containers.supervisor, clock, rng),
    networks,
    volumes,
    mounts,
    system,
    events,
    clock,
    log,
    imageUsers,
  };
  return {
    id,
    context,
    recovered,
    reload(next) {
      // The one step that may fail comes first.
      runtime.reload(next.runtimes, next.defaultRuntime);
      parts.reloadRegistries(registryOptions(next));
      Object.assign(parts.containerDefaults, reloadedDefaults(next));
      live.config = next;
    },
  };
}
