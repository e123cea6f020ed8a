/** Facts about the daemon as a whole: version, info, disk use. */

import { cpus, hostname, totalmem } from 'node:os';
import type { Clock } from '#common/clock';
import { errorMessage } from '#common/errors';
import type { DaemonConfig } from './config-options.ts';
import type { ContainerService } from './container/service.ts';
import type { EventBus } from './events/bus.ts';
import { hostOs } from './image/index.ts';
import type { ImageStore, RootStore } from './image/store.ts';
import { hostFacts } from './platform.ts';
import type { JailReportRow, JailSpec, KnownLimits, Runtime } from './runtime/runtime.ts';

/** What the service works with. */
export interface SystemDeps {
  version: string;
  /** Survives restarts: made from the data root's instance. */
  id: string;
  driverStatus: [string, string][];
  /** Whether the users of containers are others than the machine's. */
  remapped: boolean;
  /** The options; a reload puts others in their place. */
  live: { config: DaemonConfig };
  runtime: Runtime;
  /** The jail of a container that asks for nothing, with the daemon's own options. */
  defaultJail: JailSpec;
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

/** What containers can be limited in on this machine, in the words of `GET /info`. */
function kernelFeatures(limits: KnownLimits): Record<string, boolean> {
  return {
    MemoryLimit: limits.memoryBytes,
    SwapLimit: limits.memorySwapBytes,
    CpuCfsPeriod: limits.cpuQuotaUs,
    CpuCfsQuota: limits.cpuQuotaUs,
    CPUShares: limits.cpuShares,
    CPUSet: limits.cpusetCpus,
    PidsLimit: limits.pids,
    OomKillDisable: limits.oomKillDisable,
  };
}

/** docker's view of how registries are reached. */
function registryConfig({ insecureRegistries, registryMirrors }: DaemonConfig): object {
  const subnets = insecureRegistries.filter((entry) => entry.includes('/'));
  const hosts = insecureRegistries.filter((entry) => !entry.includes('/'));
  const index = (Name: string, Secure: boolean, Mirrors: string[], Official: boolean) => [
    Name,
    { Name, Mirrors, Secure, Official },
  ];
  // As dockerd, with a slash at the end of each.
  const mirrors = registryMirrors.map((mirror) => mirror.replace(/\/*$/, '/'));
  return {
    InsecureRegistryCIDRs: ['::1/128', '127.0.0.0/8', ...subnets],
    IndexConfigs: Object.fromEntries([
      index('docker.io', true, mirrors, true),
      ...hosts.map((host) => index(host, false, [], false)),
    ]),
    Mirrors: mirrors,
  };
}

/** A proxy without the password in it. */
function masked(proxy: string): string {
  return proxy.replace(/^(\w+:\/\/)[^@/]*@/, '$1xxxxx:xxxxx@');
}

/** A row of a report as a warning: what was asked for and is not there in full. */
function isLacking({ asked, got }: JailReportRow): boolean {
  return asked !== 'none' && got !== 'full';
}

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
      Os: hostOs(),
    };
    return {
      Platform: { Name: `Drydock ${version}` },
      Components: [{ Name: 'Engine', Version: version, Details: details }],
      Version: version,
      ApiVersion: apiMax,
      MinAPIVersion: apiMin,
      GitCommit: version,
      GoVersion: `node ${process.version}`,
      Os: hostOs(),
      Arch: arch,
      KernelVersion: host.kernelVersion,
      BuildTime: this.#startedAt,
    };
  }

  /** Which version of control groups containers are in. */
  get cgroupVersion(): '1' | '2' {
    return this.#deps.runtime.info().cgroupVersion;
  }

  /**
   * What each runtime makes of a container that asks for nothing: a row for each feature, with how, and what gets round it.
   * A runtime that would refuse it says why.
   */
  #jailReports(): Record<string, JailReportRow[]> {
    const names = Object.keys(this.#deps.runtime.info().runtimes);
    return Object.fromEntries(names.map((name) => [name, this.#report(name)]));
  }

  #report(runtime: string): JailReportRow[] {
    try {
      return this.#deps.runtime.report({ ...this.#deps.defaultJail, runtime });
    } catch (error) {
      const how = errorMessage(error);
      return [{ feature: 'container', asked: 'nothing in particular', got: 'none', how }];
    }
  }

  /** GET /info */
  async info(): Promise<Record<string, unknown>> {
    const deps = this.#deps;
    const { runtime, roots, images, containers } = deps;
    const { config } = deps.live;
    const host = await hostFacts();
    const facts = runtime.info();
    const lacking = this.#report(facts.defaultRuntime).filter(isLacking);
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
      ...kernelFeatures(facts.limits),
      // Packets of containers are forwarded by the daemon, which needs nothing of the kernel for it.
      IPv4Forwarding: true,
      Debug: config.debug,
      NFd: -1,
      NGoroutines: 0,
      SystemTime: new Date(deps.clock.wallMs()).toISOString(),
      LoggingDriver: config.logDriver,
      CgroupDriver: facts.cgroupDriver,
      CgroupVersion: facts.cgroupVersion,
      NEventsListener: deps.events.listeners,
      KernelVersion: host.kernelVersion,
      OperatingSystem: host.operatingSystem,
      OSVersion: host.osVersion,
      OSType: hostOs(),
      Architecture: host.architecture,
      IndexServerAddress: 'https://index.docker.io/v1/',
      RegistryConfig: registryConfig(config),
      NCPU: cpus().length,
      MemTotal: totalmem(),
      GenericResources: null,
      DockerRootDir: config.dataRoot,
      HttpProxy: masked(config.httpProxy),
      HttpsProxy: masked(config.httpsProxy),
      NoProxy: config.noProxy,
      Name: hostname(),
      Labels: config.labels,
      ExperimentalBuild: false,
      ServerVersion: deps.version,
      Runtimes: facts.runtimes,
      DefaultRuntime: facts.defaultRuntime,
      Swarm: NO_SWARM,
      LiveRestoreEnabled: config.liveRestore,
      Isolation: '',
      InitBinary: 'drydock',
      ContainerdCommit: { ID: '' },
      RuncCommit: { ID: '' },
      InitCommit: { ID: '' },
      SecurityOptions: [
        ...facts.securityOptions.map((option) =>
          option === 'name=seccomp,profile=builtin'
            ? `name=seccomp,profile=${config.seccompProfile}`
            : option,
        ),
        ...(deps.remapped ? ['name=userns'] : []),
      ],
      ...(config.addressPools.length > 0 && {
        DefaultAddressPools: config.addressPools.map(({ base, size }) => ({ Base: base, Size: size })),
      }),
      CDISpecDirs: [],
      Warnings: [
        ...facts.warnings,
        ...lacking.map(({ feature, got, how }) => `WARNING: ${feature}: ${got}: ${how}`),
      ],
      // Not in moby's: docker's CLI passes over it.
      JailReports: this.#jailReports(),
    };
  }
}
