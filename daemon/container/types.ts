/**
 * A container's configuration as the Engine API spells it (swagger definitions ContainerConfig, HostConfig,
 * NetworkingConfig, 1.51), and the record that is kept on disk. Clients leave any field out, so all are optional here;
 * normalise.ts fills what has a default.
 */
import type { ImageConfig } from '../image/store.ts';
import type { Attached } from '../network/attached.ts';
import type { Survival } from '../runtime/runtime.ts';

/** Healthcheck; times are nanoseconds, 0 inherits. */
export interface HealthConfig {
  Test?: string[];
  Interval?: number;
  Timeout?: number;
  StartPeriod?: number;
  StartInterval?: number;
  Retries?: number;
}

/** What the image decides and `docker run` may override. */
export interface ContainerConfig extends Omit<ImageConfig, 'Healthcheck'> {
  Hostname?: string;
  Domainname?: string;
  AttachStdin?: boolean;
  AttachStdout?: boolean;
  AttachStderr?: boolean;
  Tty?: boolean;
  OpenStdin?: boolean;
  StdinOnce?: boolean;
  Image?: string;
  StopTimeout?: number;
  Healthcheck?: HealthConfig;
  NetworkDisabled?: boolean;
  MacAddress?: string;
}

/** `{"HostIp":"127.0.0.1","HostPort":"8080"}`; HostPort may be a range `8000-8010` or ''. */
export interface PortBinding {
  HostIp?: string;
  HostPort?: string;
}

/** HostConfig.Mounts: the `--mount` form. */
export interface MountRequest {
  Type?: string;
  Source?: string;
  Target?: string;
  ReadOnly?: boolean;
  Consistency?: string;
  BindOptions?: {
    Propagation?: string;
    NonRecursive?: boolean;
    CreateMountpoint?: boolean;
    ReadOnlyNonRecursive?: boolean;
    ReadOnlyForceRecursive?: boolean;
  };
  VolumeOptions?: {
    NoCopy?: boolean;
    Labels?: Record<string, string>;
    DriverConfig?: { Name?: string; Options?: Record<string, string> };
    Subpath?: string;
  };
  TmpfsOptions?: { SizeBytes?: number; Mode?: number; Options?: string[][] };
  ImageOptions?: { Subpath?: string };
}

/** How fast a block device of the host may be used: bytes or operations per second. */
export interface ThrottleDevice {
  Path?: string;
  Rate?: number;
}

/** What the host grants. */
export interface HostConfig {
  Binds?: string[] | null;
  ContainerIDFile?: string;
  LogConfig?: { Type?: string; Config?: Record<string, string> };
  NetworkMode?: string;
  PortBindings?: Record<string, PortBinding[] | null> | null;
  RestartPolicy?: { Name?: string; MaximumRetryCount?: number };
  AutoRemove?: boolean;
  VolumeDriver?: string;
  VolumesFrom?: string[] | null;
  Mounts?: MountRequest[] | null;
  ConsoleSize?: [number, number];
  Annotations?: Record<string, string>;
  CapAdd?: string[] | null;
  CapDrop?: string[] | null;
  CgroupnsMode?: string;
  Dns?: string[] | null;
  DnsOptions?: string[] | null;
  DnsSearch?: string[] | null;
  ExtraHosts?: string[] | null;
  GroupAdd?: string[] | null;
  IpcMode?: string;
  Cgroup?: string;
  Links?: string[] | null;
  OomScoreAdj?: number;
  PidMode?: string;
  Privileged?: boolean;
  PublishAllPorts?: boolean;
  ReadonlyRootfs?: boolean;
  SecurityOpt?: string[] | null;
  StorageOpt?: Record<string, string> | null;
  Tmpfs?: Record<string, string> | null;
  UTSMode?: string;
  UsernsMode?: string;
  ShmSize?: number;
  Sysctls?: Record<string, string> | null;
  Runtime?: string;
  Isolation?: string;
  CpuShares?: number;
  Memory?: number;
  NanoCpus?: number;
  CgroupParent?: string;
  BlkioWeight?: number;
  BlkioWeightDevice?: { Path?: string; Weight?: number }[] | null;
  BlkioDeviceReadBps?: ThrottleDevice[] | null;
  BlkioDeviceWriteBps?: ThrottleDevice[] | null;
  BlkioDeviceReadIOps?: ThrottleDevice[] | null;
  BlkioDeviceWriteIOps?: ThrottleDevice[] | null;
  CpuPeriod?: number;
  CpuQuota?: number;
  CpuRealtimePeriod?: number;
  CpuRealtimeRuntime?: number;
  CpusetCpus?: string;
  CpusetMems?: string;
  Devices?: { PathOnHost?: string; PathInContainer?: string; CgroupPermissions?: string }[] | null;
  DeviceCgroupRules?: string[] | null;
  DeviceRequests?: { Driver?: string; Capabilities?: string[][] | null }[] | null;
  MemoryReservation?: number;
  MemorySwap?: number;
  MemorySwappiness?: number | null;
  KernelMemory?: number;
  KernelMemoryTCP?: number;
  OomKillDisable?: boolean | null;
  PidsLimit?: number | null;
  Ulimits?: { Name?: string; Soft?: number; Hard?: number }[] | null;
  CpuCount?: number;
  CpuPercent?: number;
  IOMaximumIOps?: number;
  IOMaximumBandwidth?: number;
  MaskedPaths?: string[] | null;
  ReadonlyPaths?: string[] | null;
  Init?: boolean | null;
}

/** How a container is on one network: what was asked, and while it runs what it got. */
export interface EndpointSettings {
  IPAMConfig?: { IPv4Address?: string; IPv6Address?: string; LinkLocalIPs?: string[] } | null;
  Links?: string[] | null;
  Aliases?: string[] | null;
  MacAddress?: string;
  DriverOpts?: Record<string, string> | null;
  GwPriority?: number;
  NetworkID?: string;
  EndpointID?: string;
  Gateway?: string;
  IPAddress?: string;
  IPPrefixLen?: number;
  IPv6Gateway?: string;
  GlobalIPv6Address?: string;
  GlobalIPv6PrefixLen?: number;
  DNSNames?: string[] | null;
}

/** The body of POST /containers/create. */
export interface CreateRequest extends ContainerConfig {
  HostConfig?: HostConfig;
  NetworkingConfig?: { EndpointsConfig?: Record<string, EndpointSettings | null> | null };
}

/** A mount of a container, as in `inspect`'s Mounts, with what we need to make it. */
export interface MountPoint {
  Type: 'bind' | 'volume' | 'tmpfs' | 'image';
  /** Volume name; for an image how it was asked for. */
  Name?: string;
  /** Host path; for a volume its data folder, for an image where its files are while the container runs. */
  Source: string;
  Destination: string;
  Driver?: string;
  Mode: string;
  RW: boolean;
  Propagation: string;
  /** How strongly host and container see each other's changes (binds). */
  consistency?: 'consistent' | 'cached' | 'delegated';
  /** Don't fill the empty volume from the image (volumes). */
  noCopy?: boolean;
  /** Options of a tmpfs, `size=64m` and so on. */
  tmpfsOptions?: string[];
  /** Folder inside the volume or image. */
  subpath?: string;
  /** Of an image that is mounted: `sha256:...` */
  imageId?: string;
  /** Of an image that is mounted: the root file system that was made of it. */
  rootId?: string;
  /** Came from HostConfig.Mounts: these are left out of Binds and fail when the source is missing. */
  spec?: MountRequest;
  /** Source is a path of the daemon's own, bound as it is (binds). Clients can't ask for it. */
  isOwn?: true;
  /** Volume that nobody named: removed by `docker rm -v` and `--rm`. */
  anonymous?: boolean;
}

/** Status names of the Engine API. */
export type Status = 'created' | 'running' | 'paused' | 'restarting' | 'removing' | 'exited' | 'dead';

/** Never-happened, as Go prints its zero time. */
export const ZERO_TIME = '0001-01-01T00:00:00Z';

/** Where a container is in its life. Times are RFC 3339. */
export interface ContainerState {
  status: Status;
  pid: number;
  /** Field 22 of /proc/PID/stat: tells a container's process from a later one with the same number. */
  pidStartTime: string;
  exitCode: number;
  error: string;
  oomKilled: boolean;
  startedAt: string;
  finishedAt: string;
  restartCount: number;
  /** A user stopped it: `unless-stopped` and `always` leave it alone until it is started or the daemon restarts. */
  stoppedByUser: boolean;
  health?: HealthState;
  /** Of a container that can outlive the daemon, while it runs. */
  survival?: Survival;
  /** The same: what it has on its networks. */
  attached?: Attached;
  /** The same: how it ended is known, what it held may not be free yet. */
  hasEnded?: true;
}

/** State of a healthcheck. */
export interface HealthState {
  Status: 'starting' | 'healthy' | 'unhealthy';
  FailingStreak: number;
  Log: { Start: string; End: string; ExitCode: number; Output: string }[];
}

/** All that is kept of a container. */
export interface ContainerRecord {
  id: string;
  /** Without a slash. */
  name: string;
  /** RFC 3339 with nanoseconds. */
  created: string;
  /** `sha256:...` */
  imageId: string;
  /** Effective: the image's configuration with the request's laid over it. */
  config: ContainerConfig;
  hostConfig: HostConfig;
  /** Entrypoint and command, resolved. */
  args: string[];
  mounts: MountPoint[];
  /** By network name. */
  networks: Record<string, EndpointSettings>;
  state: ContainerState;
}
