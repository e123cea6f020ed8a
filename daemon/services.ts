/** The daemon's services over their parts: what touches the host is given, so that tests give doubles. */
import { join } from 'node:path';
import type { Clock } from '#common/clock';
import type { UserMaps } from '#common/id-map';
import type { Log } from '#common/log';
import type { Rng } from '#common/rng';
import type { BridgeMount, BridgeMountOptions } from '#fsbridge';
import type { Network, NetworkOptions } from '#netstack';
import type { ApiContext } from './api/context.ts';
import { durationNs } from './api/query.ts';
import { SessionBuilds } from './build/buildkit/build.ts';
import { controlServer } from './build/buildkit/control.ts';
import { Solver } from './build/buildkit/solver.ts';
import { containerRunner, type StepRunner } from './build/runner.ts';
import type { Builds } from './build/service.ts';
import type { DaemonConfig } from './config.ts';
import { ExecService } from './container/exec.ts';
import { ContainerService } from './container/service.ts';
import type { ContainerRecord, HostConfig } from './container/types.ts';
import type { EventBus } from './events/bus.ts';
import type { ImageStore, ImageUsers, RootStore } from './image/store.ts';
import { MountService } from './mounts/service.ts';
import type { NetworkRecord } from './network/record.ts';
import { NetworkService } from './network/service.ts';
import type { Runtime } from './runtime/runtime.ts';
import { RecordFolder } from './store/record-folder.ts';
import { SystemService } from './system.ts';
import { type VolumeRecord, VolumeService } from './volume/service.ts';

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
  runtime: Runtime;
  createNetwork: (options: NetworkOptions) => Promise<Network>;
  hostSubnets: () => Promise<string[]>;
  mountFolder: (options: BridgeMountOptions) => Promise<BridgeMount>;
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
  /** Takes over labels and debug. */
  reload(config: DaemonConfig): void;
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
    records: new RecordFolder<VolumeRecord>(folder('volumes'), 'volume.json'),
    exports: config.fileSharing,
    userMaps: parts.userMaps,
    events,
    clock,
    rng,
  });
  await volumes.open();
  const networks = new NetworkService({
    records: new RecordFolder<NetworkRecord>(folder('networks'), 'network.json'),
    createNetwork: parts.createNetwork,
    hostSubnets: parts.hostSubnets,
    mtuBytes: config.mtu,
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
    volumes,
    images,
    roots,
    log,
  });
  const containers = new ContainerService({
    records: new RecordFolder<ContainerRecord>(folder('containers'), 'config.json'),
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
  });
  return { volumes, networks, containers, mounts };
}

/** Makes the services and loads their state. */
export async function createServices(parts: ServiceParts): Promise<Services> {
  const { config, version, id, images, roots, runtime, events, clock, rng, log } = parts;
  const { volumes, networks, containers, mounts } = await openStores(parts);
  const recovered = await containers.open();
  const settings = { labels: config.labels, debug: config.debug };
  const system = new SystemService({
    version,
    id,
    dataRoot: config.dataRoot,
    driverStatus: parts.driverStatus,
    logDriver: config.logDriver,
    remapped: parts.userMaps !== undefined,
    settings,
    runtime,
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
  const solver = new Solver({ builds: parts.builds, sessions, clock, runnerFor });
  const context: ApiContext = {
    version,
    images,
    roots,
    builds: parts.builds,
    sessionBuilds,
    buildKit: controlServer({
      ...{ solver, builds: parts.builds, sessions, users: imageUsers, version, id },
      nowMs: () => clock.wallMs(),
      durationNs,
    }),
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
    reload: (next) => void Object.assign(settings, { labels: next.labels, debug: next.debug }),
  };
}
