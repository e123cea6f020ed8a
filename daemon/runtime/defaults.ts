/** What a container gets unless told otherwise: the choices of dockerd (moby/oci/defaults.go, oci/caps/defaults.go). */
import { CAPABILITIES } from '#common/native/capabilities';
import { inUserNamespace, isSingleUser } from '#common/user-namespace';
import type { JailDevice, JailMount, JailSpec } from './runtime.ts';

/** Capabilities of a container's root. */
export const DEFAULT_CAPABILITIES: readonly string[] = [
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_FSETID',
  'CAP_FOWNER',
  'CAP_MKNOD',
  'CAP_NET_RAW',
  'CAP_SETGID',
  'CAP_SETUID',
  'CAP_SETFCAP',
  'CAP_SETPCAP',
  'CAP_NET_BIND_SERVICE',
  'CAP_SYS_CHROOT',
  'CAP_KILL',
  'CAP_AUDIT_WRITE',
];

/**
 * Every capability there is, for privileged containers and `--cap-add ALL`. A container gets those of them that the
 * daemon itself has.
 */
export const ALL_CAPABILITIES: readonly string[] = CAPABILITIES;

/** Paths that tell about or reach into the host; hidden. */
export const DEFAULT_MASKED_PATHS: readonly string[] = [
  '/proc/acpi',
  '/proc/asound',
  '/proc/interrupts',
  '/proc/kcore',
  '/proc/keys',
  '/proc/latency_stats',
  '/proc/sched_debug',
  '/proc/scsi',
  '/proc/timer_list',
  '/proc/timer_stats',
  '/sys/devices/virtual/powercap',
  '/sys/firmware',
];

/** Paths that would change the host's kernel; read-only. */
export const DEFAULT_READONLY_PATHS: readonly string[] = [
  '/proc/bus',
  '/proc/fs',
  '/proc/irq',
  '/proc/sys',
  '/proc/sysrq-trigger',
];

/** Sysctls of a private network namespace that dockerd changes. */
export const DEFAULT_NETWORK_SYSCTLS: Readonly<Record<string, string>> = {
  'net.ipv4.ip_unprivileged_port_start': '0',
  // In a user namespace most of those groups are nobody's, and the kernel refuses them.
  ...(!inUserNamespace && { 'net.ipv4.ping_group_range': '0 2147483647' }),
};

/** Bytes of /dev/shm without HostConfig.ShmSize. */
export const DEFAULT_SHM_BYTES: number = 64 << 20;

/** What the default file systems depend on. */
export interface DefaultMountOptions {
  /** /sys and the control groups are writable. */
  privileged: boolean;
  shmBytes: number;
  /** HostConfig.IpcMode: with `none` there is no /dev/shm, with `host` it is the host's. */
  ipc: 'private' | 'none' | 'host';
}

/** The file systems of every container, in order. /dev is filled by the runtime. */
export function defaultMounts(options: DefaultMountOptions): JailMount[] {
  const { privileged, shmBytes, ipc } = options;
  const locked = ['nosuid', 'noexec', 'nodev'];
  const mount = (
    kind: JailMount['kind'],
    target: string,
    options: string[],
    readOnly = false,
  ): JailMount => ({ kind, target, readOnly, options });
  const mounts = [
    mount('proc', '/proc', locked),
    mount('tmpfs', '/dev', ['nosuid', 'strictatime', 'mode=755', 'size=65536k']),
    mount('devpts', '/dev/pts', [
      'nosuid',
      'noexec',
      'ptmxmode=0666',
      'mode=0620',
      ...(isSingleUser() ? [] : ['gid=5']),
    ]),
    mount('sysfs', '/sys', locked, !privileged),
    mount('cgroup', '/sys/fs/cgroup', locked, !privileged),
    mount('mqueue', '/dev/mqueue', locked),
  ];
  if (ipc === 'private')
    mounts.push(mount('tmpfs', '/dev/shm', [...locked, 'mode=1777', `size=${shmBytes}`]));
  if (ipc === 'host')
    mounts.push({ kind: 'bind', source: '/dev/shm', target: '/dev/shm', readOnly: false, options: locked });
  return mounts;
}

/** The device nodes of every container. */
export const DEFAULT_DEVICES: readonly JailDevice[] = [
  'null',
  'zero',
  'full',
  'random',
  'urandom',
  'tty',
].map((name) => ({ hostPath: `/dev/${name}`, path: `/dev/${name}`, access: 'rwm' }));

/** The jail of a container that asks for nothing, on the root at `rootPath`. */
export function defaultSpec(id: string, rootPath: string): JailSpec {
  return {
    id,
    rootPath,
    readOnlyRoot: false,
    hostname: id.slice(0, 12),
    domainname: '',
    namespaces: { network: 'private', pid: 'private', ipc: 'private', uts: 'private', cgroup: 'private' },
    network: { attached: true, ports: [] },
    mounts: defaultMounts({ privileged: false, shmBytes: DEFAULT_SHM_BYTES, ipc: 'private' }),
    devices: [...DEFAULT_DEVICES],
    privileged: false,
    maskedPaths: [...DEFAULT_MASKED_PATHS],
    readonlyPaths: [...DEFAULT_READONLY_PATHS],
    sysctls: { ...DEFAULT_NETWORK_SYSCTLS },
    limits: {},
    init: false,
    process: {
      args: ['sh'],
      env: [],
      cwd: '/',
      makeCwd: true,
      user: '',
      groups: [],
      terminal: false,
      stdin: false,
      capabilities: [...DEFAULT_CAPABILITIES],
      noNewPrivileges: false,
      rlimits: [],
    },
  };
}
