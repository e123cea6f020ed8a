/** What this runtime gives for a specification: one row for each wish. */
import { outsideId } from '#common/id-map';
import type { JailLimits, JailReportRow, JailSpec, KnownLimits, NamespaceMode } from '../runtime.ts';
import type { Cgroups } from './cgroup.ts';
import { labelRows, type SecurityModules } from './security/modules.ts';

function describe(mode: NamespaceMode): string {
  return typeof mode === 'object' ? `that of process ${mode.pid}` : mode;
}

/** Whose numbers the users of the jail have. */
function userRow({ userMaps }: JailSpec): JailReportRow {
  const feature = 'user namespace';
  if (userMaps)
    return {
      feature,
      asked: 'users of its own',
      got: 'full',
      how: `uid 0 in the container is uid ${outsideId(userMaps.uids, 0)} of the host, and all its namespaces but that for processes belong to its user namespace`,
      bypass:
        'programs of the host that run as that uid, and a fault of the kernel in what user namespaces open to it',
    };
  return {
    feature,
    asked: 'none',
    got: 'none',
    how: 'uid 0 in the container is uid 0 of the host, confined by capabilities',
    bypass: 'a fault of the kernel that lets a process out of its namespaces leaves it with the uid of root',
  };
}

/** What a namespace of the host's lets a jail do. */
const SHARED_WITH_HOST: Record<keyof JailSpec['namespaces'], string> = {
  network: 'it listens and connects as the host does, abstract sockets of the host included',
  pid: 'it sees the processes of the host, and as root may signal them',
  ipc: 'it may use shared memory and queues of the host',
  uts: 'as root with CAP_SYS_ADMIN it may rename the host',
  cgroup: 'it sees in which control groups the host runs things',
};

function namespaceRow(kind: keyof JailSpec['namespaces'], mode: NamespaceMode): JailReportRow {
  return {
    feature: `${kind} namespace`,
    asked: describe(mode),
    got: 'full',
    how: mode === 'private' ? 'unshare' : mode === 'host' ? 'none of its own, as asked' : 'setns',
    ...(mode === 'host' && { bypass: SHARED_WITH_HOST[kind] }),
  };
}

const HOW_DEVICES: Record<Cgroups['version'] | 'none', string> = {
  '1': 'nodes on a tmpfs, devices cgroup',
  '2': 'nodes on a tmpfs, eBPF device program',
  none: 'nodes of the host on a tmpfs; root of a user namespace can make none',
};

/** What the process may do to the kernel: capabilities, devices, system calls, paths of /proc and /sys. */
function powerRows(spec: JailSpec, { version, keepsDevices }: Cgroups): JailReportRow[] {
  const { privileged, maskedPaths, readonlyPaths, process } = spec;
  const unconfined = privileged || spec.seccomp === 'unconfined';
  const unmasked = maskedPaths.length === 0 && readonlyPaths.length === 0;
  const full = 'full' as const;
  return [
    {
      feature: 'capabilities',
      asked: privileged ? 'all' : String(process.capabilities.length),
      got: full,
      how: 'bounding set; inheritable and ambient empty',
      ...(privileged && { bypass: 'with all of them it can do what root of the host can' }),
    },
    {
      feature: 'new privileges',
      asked: process.noNewPrivileges ? 'forbidden' : 'none',
      got: process.noNewPrivileges ? full : 'none',
      how: process.noNewPrivileges
        ? 'no_new_privs'
        : 'setuid programs of the image work, within the bounding set',
    },
    {
      feature: 'devices',
      asked: privileged ? 'all' : String(spec.devices.length),
      got: full,
      how: HOW_DEVICES[keepsDevices ? version : 'none'],
      ...(privileged && { bypass: 'disks and memory of the host can be written' }),
    },
    {
      feature: 'kernel settings',
      asked: unmasked ? 'none' : `${maskedPaths.length} paths hidden, ${readonlyPaths.length} read-only`,
      got: unmasked ? 'none' : full,
      how: unmasked
        ? '/proc and /sys as the kernel shows them, as asked'
        : 'mounts over them; who may mount could take them off',
    },
    {
      feature: 'system calls',
      asked: unconfined ? 'unconfined' : spec.seccomp ? 'custom profile' : 'default profile',
      got: full,
      how: unconfined
        ? 'no filter, as asked'
        : 'seccomp filter; x32 and 32-bit ARM programs are not possible',
      ...(unconfined && { bypass: 'every fault of the kernel that any system call reaches' }),
    },
  ];
}

/** See Runtime.report. @throws DrydockError ERR_JAIL_PROMISE */
export function reportSpec(spec: JailSpec, cgroups: Cgroups, modules: SecurityModules): JailReportRow[] {
  const namespaces = Object.entries(spec.namespaces) as [keyof JailSpec['namespaces'], NamespaceMode][];
  return [
    ...namespaces.map(([kind, mode]) => namespaceRow(kind, mode)),
    {
      feature: 'root file system',
      asked: spec.readOnlyRoot ? 'read-only' : 'writable',
      got: 'full',
      how: 'mount namespace, pivot_root, old root detached',
    },
    userRow(spec),
    ...powerRows(spec, cgroups),
    ...labelRows(spec, modules),
    ...(spec.init
      ? [
          {
            feature: 'init',
            asked: 'reaping process 1',
            got: 'full' as const,
            how: 'the kernel reaps for it; signals go to the program directly, not through process 1',
          },
        ]
      : []),
    ...cgroups.report(spec.limits),
  ];
}

/** The limits whose absence dockerd tells of, too, to see which of them this machine knows. */
const ALL_LIMITS: JailLimits = {
  memoryBytes: 1,
  memorySwapBytes: 1,
  memoryReservationBytes: 1,
  cpuQuotaUs: 1,
  cpuPeriodUs: 1,
  cpuShares: 1,
  cpusetCpus: '0',
  cpusetMems: '0',
  pids: 1,
  blkioWeight: 1,
};

/** Which limits containers can have here. */
export function knownLimits(cgroups: Cgroups): KnownLimits {
  const { cpuPeriodUs: _withQuota, ...others } = ALL_LIMITS;
  const known = Object.entries({ ...others, oomKillDisable: true }).map(([name, value]) => {
    const rows = cgroups.report({ [name]: value });
    return [name, rows.length > 0 && rows.every(({ got }) => got === 'full')];
  });
  return Object.fromEntries(known) as KnownLimits;
}

/** For `docker info`: the limits that no container can have here, as dockerd words it. */
export function limitWarnings(cgroups: Cgroups): string[] {
  return cgroups
    .report(ALL_LIMITS)
    .filter(({ got }) => got !== 'full')
    .map(({ feature }) => `WARNING: No ${feature} support`);
}
