/**
 * From a container's record to the specification of its jail. Pure: what depends on the host (the mounted root, mounts,
 * pids of other containers) comes in as {@link Places}.
 */
import { DrydockError } from '#common/errors';
import type { UserMaps } from '#common/id-map';
import { formatGuestPort, parseGuestPort } from '../network/ports.ts';
import {
  ALL_CAPABILITIES,
  DEFAULT_CAPABILITIES,
  DEFAULT_DEVICES,
  DEFAULT_MASKED_PATHS,
  DEFAULT_NETWORK_SYSCTLS,
  DEFAULT_READONLY_PATHS,
  defaultMounts,
  parseSeccompProfile,
} from '../runtime/index.ts';
import type {
  JailBlkioLimit,
  JailDevice,
  JailLabels,
  JailLimits,
  JailMount,
  JailSpec,
  KnownJail,
  NamespaceMode,
  ProcessSpec,
} from '../runtime/runtime.ts';
import { ETC_FILES } from './files.ts';
import type { ContainerRecord, HostConfig } from './types.ts';
import { ULIMITS } from './ulimits.ts';
import { parseDeviceRule } from './validate.ts';

/** What the world gives to a container that is about to run. */
export interface Places {
  rootPath: string;
  /** Host paths of /etc/hostname, hosts and resolv.conf. */
  etc: Record<keyof typeof ETC_FILES, string>;
  /** The container's own mounts, in order. */
  mounts: JailMount[];
  /** Processes of the containers that network, pid and ipc mode name. */
  pids: { network?: number; pid?: number; ipc?: number };
  /** How the users of containers are those of the machine, when they are others. */
  userMaps: UserMaps | undefined;
  /** Variables that come from links. */
  linkEnvironment: string[];
  /** Profile of containers that name none; undefined for docker's own. */
  seccomp: JailSpec['seccomp'];
}

/** Of a jail that is only asked about, or is there already. */
export const NO_PLACES: Omit<Places, 'userMaps' | 'seccomp'> = {
  rootPath: '/',
  etc: { hostname: '', hosts: '', 'resolv.conf': '' },
  mounts: [],
  pids: {},
  linkEnvironment: [],
};

/** Where programs are looked up when the image says nothing. */
const PATH_DEFAULT = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const CPU_PERIOD_US_DEFAULT = 100_000;

/** Compiles a record. @throws ERR_BAD_PARAMETER for capabilities, security options and ulimits that are not known */
export function jailSpec(record: ContainerRecord, places: Places): JailSpec {
  const { config, hostConfig: host } = record;
  const privileged = host.Privileged === true;
  const security = parseSecurity(host.SecurityOpt ?? [], places.seccomp);
  const network = namespace(host.NetworkMode, places.pids.network);
  const userMaps = host.UsernsMode === 'host' ? undefined : places.userMaps;
  if (userMaps) checkMapped(host);
  const ownNetwork = network === 'private';
  const masks = privileged || security.unmasked;
  return {
    id: record.id,
    ...(host.Runtime && { runtime: host.Runtime }),
    rootPath: places.rootPath,
    ...(userMaps && { userMaps }),
    readOnlyRoot: host.ReadonlyRootfs === true,
    hostname: host.UTSMode === 'host' ? '' : (config.Hostname ?? ''),
    domainname: config.Domainname ?? '',
    namespaces: {
      network,
      pid: namespace(host.PidMode, places.pids.pid),
      ipc: namespace(host.IpcMode, places.pids.ipc),
      uts: host.UTSMode === 'host' ? 'host' : 'private',
      cgroup: host.CgroupnsMode === 'host' ? 'host' : 'private',
    },
    network: { attached: host.NetworkMode !== 'none', ports: listeningPorts(record) },
    mounts: allMounts(record, places, privileged),
    devices: [...DEFAULT_DEVICES, ...(host.Devices ?? []).map(device)],
    deviceRules: (host.DeviceCgroupRules ?? []).map(parseDeviceRule),
    privileged,
    maskedPaths: masks ? [] : [...(host.MaskedPaths ?? DEFAULT_MASKED_PATHS)],
    readonlyPaths: masks ? [] : [...(host.ReadonlyPaths ?? DEFAULT_READONLY_PATHS)],
    sysctls: { ...(ownNetwork && DEFAULT_NETWORK_SYSCTLS), ...host.Sysctls },
    limits: jailLimits(host),
    ...(host.CgroupParent && { cgroupParent: host.CgroupParent }),
    ...(host.Annotations && { annotations: host.Annotations }),
    ...(privileged || security.seccomp === 'unconfined'
      ? { seccomp: 'unconfined' as const }
      : security.seccomp && { seccomp: security.seccomp }),
    ...(Object.keys(security.labels).length > 0 && { labels: security.labels }),
    init: host.Init === true,
    process: {
      args: record.args,
      env: environment(record, places.linkEnvironment),
      cwd: config.WorkingDir || '/',
      makeCwd: true,
      user: config.User ?? '',
      groups: host.GroupAdd ?? [],
      terminal: config.Tty === true,
      ...consoleSize(host.ConsoleSize),
      stdin: config.OpenStdin === true,
      capabilities: capabilities(host, privileged),
      noNewPrivileges: security.noNewPrivileges,
      rlimits: rlimits(host),
      ...(host.OomScoreAdj && { oomScoreAdj: host.OomScoreAdj }),
    },
  };
}

/** What root in a user namespace has no power over. @throws ERR_BAD_PARAMETER in dockerd's words */
function checkMapped(host: HostConfig): void {
  const refuse = (message: string): never => {
    throw new DrydockError('ERR_BAD_PARAMETER', message);
  };
  if (host.Privileged === true)
    refuse(
      'privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode',
    );
  if (host.NetworkMode === 'host')
    refuse("cannot share the host's network namespace when user namespaces are enabled");
  if (host.PidMode === 'host') refuse('cannot share the host PID namespace when user namespaces are enabled');
}

function namespace(mode: string | undefined, pid: number | undefined): NamespaceMode {
  if (mode === 'host') return 'host';
  return mode?.startsWith('container:') && pid !== undefined ? { pid } : 'private';
}

/** EXPOSE and `-p` together, each port once. */
function listeningPorts({ config, hostConfig }: ContainerRecord): JailSpec['network']['ports'] {
  const names = [...Object.keys(config.ExposedPorts ?? {}), ...Object.keys(hostConfig.PortBindings ?? {})];
  return [...new Set(names.map((name) => formatGuestPort(parseGuestPort(name))))].map(parseGuestPort);
}

/** The runtime's own mounts, then docker's files in /etc, then what the user asked for: the later one wins. */
function allMounts(record: ContainerRecord, places: Places, privileged: boolean): JailMount[] {
  const host = record.hostConfig;
  const taken = new Set(places.mounts.map((mount) => mount.target));
  const ipc = host.IpcMode === 'none' || host.IpcMode === 'host' ? host.IpcMode : 'private';
  const own = defaultMounts({ privileged, shmBytes: host.ShmSize ?? 0, ipc });
  const etc = Object.entries(ETC_FILES).map(
    ([name, target]): JailMount => ({
      kind: 'bind',
      source: places.etc[name as keyof typeof ETC_FILES],
      target,
      readOnly: host.ReadonlyRootfs === true,
      options: ['rprivate'],
    }),
  );
  return [...own, ...etc].filter((mount) => !taken.has(mount.target)).concat(places.mounts);
}

function device(wish: NonNullable<HostConfig['Devices']>[number]): JailDevice {
  const hostPath = wish.PathOnHost ?? '';
  return { hostPath, path: wish.PathInContainer || hostPath, access: wish.CgroupPermissions || 'rwm' };
}

/** Limits in the runtime's terms. */
export function jailLimits(host: HostConfig): JailLimits {
  const limits: JailLimits = {};
  const set = <K extends keyof JailLimits>(name: K, value: JailLimits[K] | null | '' | 0): void => {
    if (value) limits[name] = value;
  };
  set('memoryBytes', host.Memory);
  set('memorySwapBytes', host.MemorySwap);
  set('memoryReservationBytes', host.MemoryReservation);
  if (host.NanoCpus) {
    set('cpuPeriodUs', CPU_PERIOD_US_DEFAULT);
    set('cpuQuotaUs', Math.floor((host.NanoCpus * CPU_PERIOD_US_DEFAULT) / 1e9));
  } else {
    set('cpuPeriodUs', host.CpuPeriod);
    set('cpuQuotaUs', host.CpuQuota);
  }
  set('cpuShares', host.CpuShares);
  set('cpusetCpus', host.CpusetCpus);
  set('cpusetMems', host.CpusetMems);
  set('pids', host.PidsLimit);
  set('blkioWeight', host.BlkioWeight);
  const devices = blkioDevices(host);
  if (devices.length > 0) limits.blkioDevices = devices;
  if (host.MemorySwappiness != null && host.MemorySwappiness >= 0)
    limits.memorySwappiness = host.MemorySwappiness;
  if (host.OomKillDisable) limits.oomKillDisable = true;
  return limits;
}

/** One entry for each device that some option names. */
function blkioDevices(host: HostConfig): JailBlkioLimit[] {
  const found = new Map<string, JailBlkioLimit>();
  const at = (hostPath = ''): JailBlkioLimit => {
    const limit = found.get(hostPath) ?? { hostPath };
    found.set(hostPath, limit);
    return limit;
  };
  for (const { Path, Weight = 0 } of host.BlkioWeightDevice ?? []) at(Path).weight = Weight;
  for (const { Path, Rate = 0 } of host.BlkioDeviceReadBps ?? []) at(Path).readBytesPerSecond = Rate;
  for (const { Path, Rate = 0 } of host.BlkioDeviceWriteBps ?? []) at(Path).writeBytesPerSecond = Rate;
  for (const { Path, Rate = 0 } of host.BlkioDeviceReadIOps ?? []) at(Path).readsPerSecond = Rate;
  for (const { Path, Rate = 0 } of host.BlkioDeviceWriteIOps ?? []) at(Path).writesPerSecond = Rate;
  return [...found.values()];
}

/** PATH, HOSTNAME and TERM first, so that the container's own entries win. */
function environment(record: ContainerRecord, links: string[] = []): string[] {
  const { config } = record;
  const own = config.Env ?? [];
  const missing = [
    ...links,
    PATH_DEFAULT,
    `HOSTNAME=${config.Hostname ?? ''}`,
    ...(config.Tty ? ['TERM=xterm'] : []),
  ].filter((entry) => !own.some((o) => o.startsWith(entry.slice(0, entry.indexOf('=') + 1))));
  // `NAME` without a value removes the variable (docker run -e NAME where the CLI's own environment lacks it).
  return [...missing, ...own].filter((entry) => entry.includes('='));
}

/** The capability set after --cap-add and --cap-drop (moby: oci/caps TweakCapabilities). */
export function capabilities(host: HostConfig, privileged: boolean): string[] {
  if (privileged) return [...ALL_CAPABILITIES];
  const names = (field: 'CapAdd' | 'CapDrop'): string[] =>
    (host[field] ?? []).map((entry) => {
      const upper = entry.toUpperCase();
      if (upper === 'ALL') return 'ALL';
      const name = upper.startsWith('CAP_') ? upper : `CAP_${upper}`;
      if (!ALL_CAPABILITIES.includes(name))
        throw new DrydockError('ERR_BAD_PARAMETER', `invalid ${field}: unknown capability: "${name}"`);
      return name;
    });
  const added = names('CapAdd');
  const dropped = names('CapDrop');
  const start = added.includes('ALL')
    ? ALL_CAPABILITIES
    : dropped.includes('ALL')
      ? []
      : DEFAULT_CAPABILITIES;
  const set = new Set(start.filter((name) => !dropped.includes(name)));
  for (const name of added) if (name !== 'ALL') set.add(name);
  return [...set];
}

/** What SecurityOpt asks for. */
interface Security {
  noNewPrivileges: boolean;
  unmasked: boolean;
  /** Undefined: docker's default profile. */
  seccomp: JailSpec['seccomp'];
  labels: JailLabels;
}

/** A profile is the text of its file: the CLI reads it. @throws ERR_BAD_SECCOMP */
export function seccompOf(value: string): JailSpec['seccomp'] {
  if (value === 'unconfined') return 'unconfined';
  return value === 'builtin' ? undefined : parseSeccompProfile(value);
}

/** Reads SecurityOpt. @throws ERR_BAD_PARAMETER for what nobody could keep */
export function parseSecurity(options: string[], seccomp?: JailSpec['seccomp']): Security {
  const result: Security = { noNewPrivileges: false, unmasked: false, seccomp, labels: {} };
  for (const option of options) {
    const [, name = '', value = ''] = /^([^=:]+)[=:]?(.*)$/.exec(option) ?? [];
    if (name === 'no-new-privileges' && ['', 'true', 'false'].includes(value))
      result.noNewPrivileges = value !== 'false';
    else if (name === 'systempaths' && value === 'unconfined') result.unmasked = true;
    else if (name === 'seccomp' && value !== '') result.seccomp = seccompOf(value);
    else if (name === 'apparmor' && value !== '') result.labels.apparmor = value;
    else if (name === 'label' && /^(disable|(user|role|type|level):.+)$/.test(value))
      result.labels.selinux = [...(result.labels.selinux ?? []), value];
    else if (name === 'landlock' && value === 'unconfined') result.labels.landlock = value;
    else
      throw new DrydockError(
        'ERR_BAD_PARAMETER',
        `invalid --security-opt ${JSON.stringify(option)}: supported are no-new-privileges, systempaths=unconfined, seccomp=unconfined|builtin|PROFILE, apparmor=unconfined|PROFILE, label=disable|user:USER|role:ROLE|type:TYPE|level:LEVEL and landlock=unconfined`,
      );
  }
  return result;
}

/** A terminal's first size; 0x0 is no wish. */
function consoleSize(size: [number, number] | undefined): {
  consoleSize?: { rows: number; columns: number };
} {
  const [rows = 0, columns = 0] = size ?? [];
  return rows > 0 && columns > 0 ? { consoleSize: { rows, columns } } : {};
}

function rlimits(host: HostConfig): ProcessSpec['rlimits'] {
  return (host.Ulimits ?? []).map(({ Name = '', Soft = 0, Hard = 0 }) => {
    if (!ULIMITS.has(Name)) throw new DrydockError('ERR_BAD_PARAMETER', `invalid ulimit type: ${Name}`);
    if (Hard !== -1 && (Soft === -1 || Soft > Hard))
      throw new DrydockError(
        'ERR_BAD_PARAMETER',
        `ulimit soft limit must be less than or equal to hard limit: ${Soft} > ${Hard}`,
      );
    return { name: Name, soft: Soft, hard: Hard };
  });
}

/** A further process of a running container: exec's options over the container's. */
export function execProcess(
  record: ContainerRecord,
  wish: {
    args: string[];
    env: string[];
    cwd: string;
    user: string;
    terminal: boolean;
    stdin: boolean;
    privileged: boolean;
    consoleSize?: [number, number] | undefined;
  },
): ProcessSpec {
  const { hostConfig: host, config } = record;
  const own = environment(record);
  const nameOf = (entry: string): string => entry.split('=', 1)[0]!;
  const given = new Set(wish.env.map(nameOf));
  const env = [
    ...own.filter((entry) => !given.has(nameOf(entry))),
    ...wish.env.filter((e) => e.includes('=')),
  ];
  if (wish.terminal && !env.some((e) => e.startsWith('TERM='))) env.push('TERM=xterm');
  const privileged = wish.privileged || host.Privileged === true;
  return {
    args: wish.args,
    env,
    cwd: wish.cwd || config.WorkingDir || '/',
    makeCwd: false,
    user: wish.user || config.User || '',
    groups: host.GroupAdd ?? [],
    terminal: wish.terminal,
    ...consoleSize(wish.consoleSize),
    stdin: wish.stdin,
    capabilities: capabilities(host, privileged),
    noNewPrivileges: parseSecurity(host.SecurityOpt ?? []).noNewPrivileges,
    rlimits: rlimits(host),
    ...(host.OomScoreAdj && { oomScoreAdj: host.OomScoreAdj }),
  };
}

/** How a runtime knows a container that an earlier daemon has started. */
export function knownJail({ id, state, hostConfig }: ContainerRecord): KnownJail {
  return {
    id,
    pid: state.pid,
    startTime: state.pidStartTime,
    ...(hostConfig.CgroupParent && { cgroupParent: hostConfig.CgroupParent }),
    ...(state.survival && { survival: state.survival }),
  };
}
