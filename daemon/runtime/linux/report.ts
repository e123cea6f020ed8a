/** What this runtime gives for a specification: one row for each wish. */
import type { JailReportRow, JailSpec, NamespaceMode } from '../runtime.ts';
import type { Cgroups } from './cgroup.ts';

function describe(mode: NamespaceMode): string {
  return typeof mode === 'object' ? `that of process ${mode.pid}` : mode;
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
    {
      feature: 'user namespace',
      asked: 'none',
      got: 'none',
      how: 'uid 0 in the container is uid 0 of the host, confined by capabilities',
    },
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
