/** What this runtime gives for a specification: one row for each wish. */
import { outsideId } from '#common/id-map';
import type { JailLimits, JailReportRow, JailSpec, KnownLimits, NamespaceMode } from '../runtime.ts';
import type { Cgroups } from './cgroup.ts';

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

/** See Runtime.report. */
export function reportSpec(spec: JailSpec, cgroups: Cgroups): JailReportRow[] {
  const rows: JailReportRow[] = [];
  for (const [kind, mode] of Object.entries(spec.namespaces)) {
    rows.push({
      feature: `${kind} namespace`,
      asked: describe(mode),
      got: 'full',
      how: mode === 'private' ? 'unshare' : mode === 'host' ? 'none of its own, as asked' : 'setns',
    });
  }
  rows.push(
    {
      feature: 'root file system',
      asked: spec.readOnlyRoot ? 'read-only' : 'writable',
      got: 'full',
      how: 'mount namespace, pivot_root, old root detached',
    },
    userRow(spec),
    {
      feature: 'capabilities',
      asked: spec.privileged ? 'all' : String(spec.process.capabilities.length),
      got: 'full',
      how: 'bounding set; inheritable and ambient empty',
    },
    {
      feature: 'devices',
      asked: spec.privileged ? 'all' : String(spec.devices.length),
      got: 'full',
      how:
        cgroups.version === '2'
          ? 'nodes on a tmpfs, eBPF device program'
          : 'nodes on a tmpfs, devices cgroup',
    },
  );
  const unconfined = spec.privileged || spec.seccomp === 'unconfined';
  rows.push({
    feature: 'system calls',
    asked: unconfined ? 'unconfined' : spec.seccomp ? 'custom profile' : 'default profile',
    got: 'full',
    how: unconfined ? 'no filter, as asked' : 'seccomp filter; x32 and 32-bit ARM programs are not possible',
  });
  if (spec.init)
    rows.push({
      feature: 'init',
      asked: 'reaping process 1',
      got: 'full',
      how: 'the kernel reaps for it; signals go to the program directly, not through process 1',
    });
  return [...rows, ...cgroups.report(spec.limits)];
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
