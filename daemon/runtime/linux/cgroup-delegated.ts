/**
 * The groups that an ordinary user may make: those below one that the machine has given to the user ("delegated"), in which
 * the daemon was started. systemd gives one to each service of a user with `Delegate=yes`; with version 1 root can give some by
 * chown(1). Programs of the kernel that decide about devices are for root alone, and so are the lists of version 1.
 */
import { accessSync, constants, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import type { Clock } from '#common/clock';
import { type Cgroups, findHierarchies, type Hierarchy, readPids, readValue } from './cgroup.ts';
import { CgroupsV1 } from './cgroup-v1.ts';
import { CgroupsV2 } from './cgroup-v2.ts';

/** Where the daemon goes, since in version 2 a group with processes can hand no controllers down. */
const DAEMON_GROUP = 'drydock-daemon';
/** Without these a jail can be neither found nor stopped. */
const NEEDED = ['memory', 'freezer', 'pids'];

/** Where a process is in each hierarchy: paths by controller, '' for version 2 (cgroups(7), /proc/PID/cgroup). */
export function parseGroups(text: string): Map<string, string> {
  const groups = new Map<string, string>();
  for (const line of text.split('\n')) {
    const [, controllers, path] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    if (path === undefined) continue;
    for (const name of controllers!.split(',')) groups.set(name, path);
  }
  return groups;
}

function isOurs(path: string): boolean {
  try {
    for (const file of [path, join(path, 'cgroup.procs')]) accessSync(file, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

/** The hierarchies of this machine, and where this process is in them. */
function look(): { hierarchies: Hierarchy[]; groups: Map<string, string> } {
  return {
    hierarchies: findHierarchies(readFileSync('/proc/self/mountinfo', 'utf8')),
    groups: parseGroups(readFileSync('/proc/self/cgroup', 'utf8')),
  };
}

/** The group of version 2 that was given to the user of this process, and whether it has been left for the one below. */
interface GivenGroup {
  mount: string;
  group: string;
  hasRoom: boolean;
}

/** What was given, if it can limit memory. The group below says nothing of that: it gets its controllers with the first jail. */
function ownUnified({ hierarchies, groups }: ReturnType<typeof look>): GivenGroup | undefined {
  const mount = hierarchies.find(({ controllers }) => controllers === undefined)?.path;
  const at = groups.get('') ?? '/';
  const hasRoom = basename(at) === DAEMON_GROUP;
  const group = hasRoom ? dirname(at) : at;
  if (mount === undefined || group === '/') return undefined;
  const controllers = readValue(join(mount, group, 'cgroup.controllers'))?.split(' ') ?? [];
  return controllers.includes('memory') && isOurs(join(mount, group)) ? { mount, group, hasRoom } : undefined;
}

/**
 * Moves the command into a group below its own, where that was given to the user and holds nobody but the command and those who
 * started it: then what is left of it can hand its controllers to the groups of jails. Called before the daemon has a user
 * namespace, in which those who started it cannot be named.
 */
export function makeRoomForJails(): void {
  const own = ownUnified(look());
  if (!own || own.hasRoom) return;
  const path = join(own.mount, own.group);
  const pids = readPids(join(path, 'cgroup.procs'));
  const ancestry = new Set(ancestors(process.pid));
  if (pids.some((pid) => !ancestry.has(pid))) return;
  const leaf = join(path, DAEMON_GROUP);
  mkdirSync(leaf, { recursive: true });
  for (const pid of pids) writeFileSync(join(leaf, 'cgroup.procs'), `${pid}`);
}

/** A process and those that it descends from. */
function ancestors(pid: number): number[] {
  const found = [pid];
  for (let at = pid; at > 1; ) {
    const stat = readValue(`/proc/${at}/stat`) ?? '';
    // proc_pid_stat(5): the parent comes after the state, which comes after the name in parentheses.
    at = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]) || 0;
    found.push(at);
  }
  return found;
}

/** The groups of a daemon that was started in one of its user's own; undefined where it was not. */
export function delegatedCgroups(name: string, clock: Clock): Cgroups | undefined {
  const seen = look();
  const own = ownUnified(seen);
  if (own)
    return own.hasRoom
      ? new CgroupsV2(join(own.mount, own.group), name, clock, { above: own.group })
      : undefined;
  const ours = seen.hierarchies.flatMap(({ path, controllers }): Hierarchy[] => {
    const group = seen.groups.get(controllers?.[0] ?? '');
    if (!controllers || group === undefined || group === '/' || !isOurs(join(path, group))) return [];
    return [{ path: join(path, group), controllers, above: group }];
  });
  const has = new Set(ours.flatMap(({ controllers }) => controllers ?? []));
  return NEEDED.every((controller) => has.has(controller))
    ? new CgroupsV1(ours, undefined, name, clock)
    : undefined;
}
