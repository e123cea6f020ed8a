/** Which version of control groups this machine has. */
import { readFileSync } from 'node:fs';
import type { Clock } from '#common/clock';
import { DrydockError } from '#common/errors';
import { inUserNamespace } from '#common/user-namespace';
import { type Cgroups, findHierarchies, readValue } from './cgroup.ts';
import { delegatedCgroups } from './cgroup-delegated.ts';
import { NoCgroups } from './cgroup-none.ts';
import { CgroupsV1 } from './cgroup-v1.ts';
import { CgroupsV2 } from './cgroup-v2.ts';

/**
 * Opens the control groups of a daemon: version 2 where it has the memory controller, else version 1 where that has
 * it, as runc and systemd see "unified" and "hybrid" machines. An ordinary user's has those that were given to the user, or none.
 *
 * @param instance what tells this daemon's groups from those of others.
 */
export function openCgroups(instance: string, clock: Clock): Cgroups {
  const group = `drydock-${instance}`;
  if (inUserNamespace) return delegatedCgroups(group, clock) ?? new NoCgroups();
  const hierarchies = findHierarchies(readFileSync('/proc/self/mountinfo', 'utf8'));
  const unified = hierarchies.find(({ controllers }) => controllers === undefined);
  const legacy = hierarchies.filter(({ controllers }) => controllers !== undefined);
  const offered = readValue(`${unified?.path}/cgroup.controllers`)?.split(' ') ?? [];
  if (unified && offered.includes('memory')) return new CgroupsV2(unified.path, group, clock);
  if (legacy.some(({ controllers }) => controllers?.includes('memory')))
    return new CgroupsV1(legacy, unified?.path, group, clock);
  throw new DrydockError(
    'ERR_NO_CGROUPS',
    'No cgroup hierarchy with a memory controller is mounted, and containers cannot be confined without one. ' +
      'Mount it: mount -t cgroup2 none /sys/fs/cgroup',
  );
}
