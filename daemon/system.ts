/** Facts about the daemon as a whole: version, info, disk use. */
import { cpus, hostname, totalmem } from 'node:os';
import type { Clock } from '#common/clock';
import type { ContainerService } from './container/service.ts';
import type { EventBus } from './events/bus.ts';
import type { ImageStore, RootStore } from './image/store.ts';
import { hostFacts } from './platform.ts';
import type { Runtime } from './runtime/runtime.ts';

/** What the service works with. */
export interface SystemDeps {
  version: string;
  /** Survives restarts: made from the data root's instance. */
  id: string;
  dataRoot: string;
  driverStatus: [string, string][];
  logDriver: string;
  /** Whether the users of containers are others than the machine's. */
  remapped: boolean;
  /** Changed in place by a reload. */
  settings: { labels: string[]; debug: boolean };
  runtime: Runtime;
  images: ImageStore;
  roots: RootStore;
  containers: ContainerService;
  events: EventBus;
  clock: Clock;
}

const ARCHITECTURES: Record<string, string> = { x64: 'amd64', arm64: 'arm64' };

/** `amd64` */
function architecture(): string {
  return ARCHITECTURES[process.arch] ?? process.arch;
}

/** A node that is in no swarm. */
const NO_SWARM = {
  NodeID: '',
  NodeAddr: '',
  LocalNodeState: 'inactive',
  ControlAvailable: false,
  Error: '',
  RemoteManagers: null,
};

/** What the runtime uses of the kernel; without it the daemon would not have started. */
const KERNEL_FEATURES = {
  MemoryLimit: true,
  SwapLimit: true,
  CpuCfsPeriod: true,
  CpuCfsQuota: true,
  CPUShares: true,
  CPUSet: true,
  PidsLimit: true,
  IPv4Forwarding: true,
};

/** The daemon about itself. */
export class SystemService {
  readonly #deps: SystemDeps;
  readonly #startedAt: string;

  constructor(deps: SystemDeps) {
    this.#deps = deps;
    this.#startedAt = new Date(deps.clock.wallMs()).toISOString();
  }

  /** GET /version */
  async version(apiMax: string, apiMin: string): Promise<object> {
    const { version } = this.#deps;
    const host = await hostFacts();
    const arch = architecture();
    const details = {
      ApiVersion: apiMax,
      Arch: arch,
      BuildTime: this.#startedAt,
      Experimental: 'false',
      GitCommit: version,
      GoVersion: `node ${process.version}`,
      KernelVersion: host.kernelVersion,
      MinAPIVersion: apiMin,
      Os: 'linux',
    };
    return {
      Platform: { Name: `Drydock ${version}` },
      Components: [{ Name: 'Engine', Version: version, Details: details }],
      Version: version,
      ApiVersion: apiMax,
      MinAPIVersion: apiMin,
      GitCommit: version,
      GoVersion: `node ${process.version}`,
      Os: 'linux',
      Arch: arch,
      KernelVersion: host.kernelVersion,
      BuildTime: this.#startedAt,
    };
  }

  /** Which version of control groups containers are in. */
  get cgroupVersion(): '1' | '2' {
    return this.#deps.runtime.info().cgroupVersion;
  }

  /** GET /info */
  async info(): Promise<object> {
    const { runtime, roots, images, containers, deps } = { ...this.#deps, deps: this.#deps };
    const host = await hostFacts();
    const facts = runtime.info();
    const states = containers.list().map((c) => c.record.state.status);
    const count = (...wanted: string[]): number => states.filter((s) => wanted.includes(s)).length;
    return {
      ID: deps.id,
      Containers: states.length,
      ContainersRunning: count('running', 'restarting'),
      ContainersPaused: count('paused'),
      ContainersStopped: count('created', 'exited', 'dead', 'removing'),
      Images: (await images.list()).length,
      Driver: roots.driver,
      DriverStatus: deps.driverStatus,
      Plugins: {
        Volume: ['local'],
        Network: ['bridge', 'host', 'null'],
        Authorization: null,
        Log: ['json-file', 'local', 'none'],
      },
      ...KERNEL_FEATURES,
      Debug: deps.settings.debug,
      NFd: -1,
      OomKillDisable: false,
      NGoroutines: 0,
      SystemTime: new Date(deps.clock.wallMs()).toISOString(),
      LoggingDriver: deps.logDriver,
      CgroupDriver: facts.cgroupDriver,
      CgroupVersion: facts.cgroupVersion,
      NEventsListener: deps.events.listeners,
      KernelVersion: host.kernelVersion,
      OperatingSystem: host.operatingSystem,
      OSVersion: host.osVersion,
      OSType: 'linux',
      Architecture: host.architecture,
      IndexServerAddress: 'https://index.docker.io/v1/',
      RegistryConfig: {
        InsecureRegistryCIDRs: ['127.0.0.0/8'],
        IndexConfigs: { 'docker.io': { Name: 'docker.io', Mirrors: [], Secure: true, Official: true } },
        Mirrors: [],
      },
      NCPU: cpus().length,
      MemTotal: totalmem(),
      GenericResources: null,
      DockerRootDir: deps.dataRoot,
      HttpProxy: process.env.HTTP_PROXY ?? '',
      HttpsProxy: process.env.HTTPS_PROXY ?? '',
      NoProxy: process.env.NO_PROXY ?? '',
      Name: hostname(),
      Labels: deps.settings.labels,
      ExperimentalBuild: false,
      ServerVersion: deps.version,
      Runtimes: facts.runtimes,
      DefaultRuntime: facts.defaultRuntime,
      Swarm: NO_SWARM,
      LiveRestoreEnabled: false,
      Isolation: '',
      InitBinary: 'drydock',
      ContainerdCommit: { ID: '' },
      RuncCommit: { ID: '' },
      InitCommit: { ID: '' },
      SecurityOptions: [...facts.securityOptions, ...(deps.remapped ? ['name=userns'] : [])],
      CDISpecDirs: [],
      Warnings: facts.warnings,
    };
  }
}
