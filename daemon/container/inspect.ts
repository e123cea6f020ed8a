/** What the Engine API shows of a container: inspect, the list's summary, states in words. Pure. */
import { hostOs } from '../image/index.ts';
import { parseLink } from './links.ts';
import type { ContainerRecord, EndpointSettings, MountPoint } from './types.ts';

/** What is known only while the daemon runs. */
export interface LiveView {
  networks: Record<string, EndpointSettings>;
  ports: Record<string, { HostIp: string; HostPort: string }[]>;
  execIds: string[] | null;
  paths: { resolv: string; hostname: string; hosts: string; log: string };
  driver: string;
  /** Folders of its root. */
  places: Record<string, string> | null;
  sizes?: { writableBytes: number; rootBytes: number } | undefined;
}

/** A container's labels as the kernel's security modules have them; empty: none. */
export interface SecurityLabels {
  apparmor: string;
  process: string;
  mount: string;
}

/** `20 minutes` the way docker says it (go-units HumanDuration). */
export function humanDuration(seconds: number): string {
  const minutes = Math.floor(seconds / 60);
  const hours = Math.round(seconds / 3600);
  if (seconds < 1) return 'Less than a second';
  if (seconds < 2) return '1 second';
  if (seconds < 60) return `${Math.floor(seconds)} seconds`;
  if (minutes === 1) return 'About a minute';
  if (minutes < 60) return `${minutes} minutes`;
  if (hours === 1) return 'About an hour';
  if (hours < 48) return `${hours} hours`;
  if (hours < 24 * 7 * 2) return `${Math.floor(hours / 24)} days`;
  if (hours < 24 * 30 * 2) return `${Math.floor(hours / 24 / 7)} weeks`;
  if (hours < 24 * 365 * 2) return `${Math.floor(hours / 24 / 30)} months`;
  return `${Math.floor(hours / 24 / 365)} years`;
}

/** `Up 2 minutes (healthy)`, `Exited (0) 3 seconds ago`. */
export function statusText(record: ContainerRecord, wallMs: number): string {
  const { state } = record;
  const since = (time: string): string => humanDuration((wallMs - Date.parse(time)) / 1000);
  switch (state.status) {
    case 'running': {
      const health = state.health
        ? ` (${state.health.Status === 'starting' ? 'health: starting' : state.health.Status})`
        : '';
      return `Up ${since(state.startedAt)}${health}`;
    }
    case 'paused':
      return `Up ${since(state.startedAt)} (Paused)`;
    case 'restarting':
      return `Restarting (${state.exitCode}) ${since(state.finishedAt)} ago`;
    case 'removing':
      return 'Removal In Progress';
    case 'dead':
      return 'Dead';
    case 'created':
      return 'Created';
    default:
      return `Exited (${state.exitCode}) ${since(state.finishedAt)} ago`;
  }
}

function mountView(point: MountPoint): object {
  const { Type, Name, Source, Destination, Driver, Mode, RW, Propagation } = point;
  return {
    Type,
    ...((Type === 'volume' || Type === 'image') && { Name }),
    Source,
    Destination,
    ...(Type === 'volume' && { Driver }),
    Mode,
    RW,
    Propagation,
  };
}

/** What `--tmpfs` asked for is shown by HostConfig.Tmpfs alone. */
function mountsView(record: ContainerRecord): object[] {
  return record.mounts.filter(({ Type, spec }) => Type !== 'tmpfs' || spec).map(mountView);
}

function endpointView(settings: EndpointSettings): object {
  return {
    IPAMConfig: settings.IPAMConfig ?? null,
    Links: settings.Links ?? null,
    Aliases: settings.Aliases ?? null,
    MacAddress: settings.MacAddress ?? '',
    DriverOpts: settings.DriverOpts ?? null,
    GwPriority: settings.GwPriority ?? 0,
    NetworkID: settings.NetworkID ?? '',
    EndpointID: settings.EndpointID ?? '',
    Gateway: settings.Gateway ?? '',
    IPAddress: settings.IPAddress ?? '',
    IPPrefixLen: settings.IPPrefixLen ?? 0,
    IPv6Gateway: settings.IPv6Gateway ?? '',
    GlobalIPv6Address: settings.GlobalIPv6Address ?? '',
    GlobalIPv6PrefixLen: settings.GlobalIPv6PrefixLen ?? 0,
    DNSNames: settings.DNSNames ?? null,
  };
}

function networksView(networks: Record<string, EndpointSettings>): Record<string, object> {
  return Object.fromEntries(Object.entries(networks).map(([name, s]) => [name, endpointView(s)]));
}

/** NetworkSettings.Ports: exposed ports that are not published are null; a stopped container has none. */
function portsView(record: ContainerRecord, live: LiveView): Record<string, object | null> {
  if (record.state.pid === 0) return {};
  const exposed = Object.keys(record.config.ExposedPorts ?? {});
  return Object.fromEntries(
    [...new Set([...exposed, ...Object.keys(live.ports)])].map((p) => [p, live.ports[p] ?? null]),
  );
}

/** GET /containers/ID/json */
export function inspectView(record: ContainerRecord, live: LiveView, labels: SecurityLabels): object {
  const { state, config, hostConfig } = record;
  // The default network's address is shown at the top too, for clients of before 1.21.
  const top = live.networks.bridge;
  return {
    Id: record.id,
    Created: record.created,
    Path: record.args[0] ?? '',
    Args: record.args.slice(1),
    State: stateView(record),
    Image: record.imageId,
    ResolvConfPath: live.paths.resolv,
    HostnamePath: live.paths.hostname,
    HostsPath: live.paths.hosts,
    LogPath: live.paths.log,
    Name: `/${record.name}`,
    RestartCount: state.restartCount,
    Driver: live.driver,
    Platform: hostOs(),
    MountLabel: labels.mount,
    ProcessLabel: labels.process,
    AppArmorProfile: labels.apparmor,
    ExecIDs: live.execIds,
    HostConfig: hostConfigView(record),
    GraphDriver: { Name: live.driver, Data: live.places },
    ...(live.sizes && { SizeRw: live.sizes.writableBytes, SizeRootFs: live.sizes.rootBytes }),
    Mounts: mountsView(record),
    Config: { ...configView(record), Hostname: config.Hostname ?? '', Domainname: config.Domainname ?? '' },
    NetworkSettings: {
      Bridge: '',
      SandboxID: state.pid > 0 ? record.id : '',
      SandboxKey: state.pid > 0 && hostConfig.NetworkMode !== 'host' ? `/proc/${state.pid}/ns/net` : '',
      HairpinMode: false,
      LinkLocalIPv6Address: '',
      LinkLocalIPv6PrefixLen: 0,
      SecondaryIPAddresses: null,
      SecondaryIPv6Addresses: null,
      Ports: portsView(record, live),
      EndpointID: top?.EndpointID ?? '',
      Gateway: top?.Gateway ?? '',
      GlobalIPv6Address: '',
      GlobalIPv6PrefixLen: 0,
      IPAddress: top?.IPAddress ?? '',
      IPPrefixLen: top?.IPPrefixLen ?? 0,
      IPv6Gateway: '',
      MacAddress: top?.MacAddress ?? '',
      Networks: networksView(live.networks),
    },
  };
}

function stateView(record: ContainerRecord): object {
  const { state } = record;
  return {
    Status: state.status,
    Running: ['running', 'paused', 'restarting'].includes(state.status),
    Paused: state.status === 'paused',
    Restarting: state.status === 'restarting',
    OOMKilled: state.oomKilled,
    Dead: state.status === 'dead',
    Pid: state.pid,
    ExitCode: state.exitCode,
    Error: state.error,
    StartedAt: state.startedAt,
    FinishedAt: state.finishedAt,
    ...(state.health && { Health: state.health }),
  };
}

/** Fields that a dockerd always prints, with its defaults; what was set comes over them. */
function configView(record: ContainerRecord): object {
  const { config } = record;
  return {
    AttachStdin: false,
    AttachStdout: false,
    AttachStderr: false,
    ...(config.ExposedPorts &&
      Object.keys(config.ExposedPorts).length > 0 && { ExposedPorts: config.ExposedPorts }),
    Tty: false,
    OpenStdin: false,
    StdinOnce: false,
    ...Object.fromEntries(Object.entries(config).filter(([key]) => key !== 'ExposedPorts')),
    User: config.User ?? '',
    Env: config.Env ?? [],
    Cmd: config.Cmd ?? null,
    Image: config.Image ?? '',
    Volumes: config.Volumes && Object.keys(config.Volumes).length > 0 ? config.Volumes : null,
    WorkingDir: config.WorkingDir ?? '',
    Entrypoint: config.Entrypoint ?? null,
    OnBuild: config.OnBuild ?? null,
    Labels: config.Labels ?? {},
  };
}

function hostConfigView(record: ContainerRecord): object {
  return {
    Binds: null,
    ContainerIDFile: '',
    AutoRemove: false,
    VolumeDriver: '',
    VolumesFrom: null,
    ConsoleSize: [0, 0],
    CapAdd: null,
    CapDrop: null,
    Dns: [],
    DnsOptions: [],
    DnsSearch: [],
    ExtraHosts: null,
    GroupAdd: null,
    Cgroup: '',
    Links: null,
    OomScoreAdj: 0,
    PidMode: '',
    Privileged: false,
    PublishAllPorts: false,
    ReadonlyRootfs: false,
    SecurityOpt: null,
    UTSMode: '',
    UsernsMode: '',
    Isolation: '',
    CpuShares: 0,
    Memory: 0,
    NanoCpus: 0,
    CgroupParent: '',
    BlkioWeight: 0,
    BlkioWeightDevice: [],
    BlkioDeviceReadBps: [],
    BlkioDeviceWriteBps: [],
    BlkioDeviceReadIOps: [],
    BlkioDeviceWriteIOps: [],
    CpuPeriod: 0,
    CpuQuota: 0,
    CpuRealtimePeriod: 0,
    CpuRealtimeRuntime: 0,
    CpusetCpus: '',
    CpusetMems: '',
    Devices: [],
    DeviceCgroupRules: null,
    DeviceRequests: null,
    MemoryReservation: 0,
    MemorySwap: 0,
    MemorySwappiness: null,
    OomKillDisable: null,
    PidsLimit: null,
    Ulimits: [],
    CpuCount: 0,
    CpuPercent: 0,
    IOMaximumIOps: 0,
    IOMaximumBandwidth: 0,
    ...record.hostConfig,
    ...(record.hostConfig.Links?.length && {
      Links: record.hostConfig.Links.map((text) => {
        const { name, alias } = parseLink(text);
        return `/${name}:/${record.name}/${alias}`;
      }),
    }),
  };
}

/** One line of GET /containers/json */
export function summaryView(
  record: ContainerRecord,
  live: LiveView,
  { wallMs, linkNames }: { wallMs: number; linkNames: string[] },
): object {
  const ports = Object.entries(portsView(record, live)).flatMap(([key, bindings]) => {
    const [port = '', type = ''] = key.split('/');
    const base = { PrivatePort: Number(port), Type: type };
    const list = bindings as { HostIp: string; HostPort: string }[] | null;
    return list ? list.map((b) => ({ IP: b.HostIp, ...base, PublicPort: Number(b.HostPort) })) : [base];
  });
  return {
    Id: record.id,
    Names: [`/${record.name}`, ...linkNames],
    Image: record.config.Image ?? '',
    ImageID: record.imageId,
    Command: record.args.map((arg) => (/[\s"]/.test(arg) ? `'${arg}'` : arg)).join(' '),
    Created: Math.floor(Date.parse(record.created) / 1000),
    Ports: ports,
    ...(live.sizes && { SizeRw: live.sizes.writableBytes, SizeRootFs: live.sizes.rootBytes }),
    Labels: record.config.Labels ?? {},
    State: record.state.status,
    Status: statusText(record, wallMs),
    HostConfig: { NetworkMode: record.hostConfig.NetworkMode },
    NetworkSettings: { Networks: networksView(live.networks) },
    Mounts: mountsView(record),
  };
}
