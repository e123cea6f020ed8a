/**
 * Control groups: what a jail may use, and which processes are in it. Version 2 when its hierarchy has controllers,
 * else version 1 with one hierarchy for each controller; both put a jail in `/drydock-INSTANCE/ID`, so that several
 * daemons run side by side and each finds only its own.
 *
 * Files of cgroupfs are read and written synchronously (they are memory of the kernel). The exception is moving a
 * process, which may wait for all processors: that goes through the thread pool.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, statSync } from 'node:fs';
import { dirname, posix } from 'node:path';
import { errorCode } from '#common/errors';
import type { CgroupMount } from '../../launch/protocol.ts';
import type { JailLimits, JailReportRow, JailStats } from '../runtime.ts';
import { splitDevice } from './device-number.ts';

/** The groups of one daemon. Methods on an id that has no group throw SyscallErrors or Node's errors. */
export interface Cgroups {
  readonly version: '1' | '2';
  /** For `docker info`. */
  readonly driver: 'cgroupfs' | 'none';
  /** Whether it decides which devices a jail may use. */
  readonly keepsDevices: boolean;
  /** Says where a group is, before anything is done with it. @param parent path of another group; undefined: our own. */
  place(id: string, parent: string | undefined): void;
  /** The path of a group from the top of its hierarchy. */
  pathOf(id: string): string;
  /** Makes a group. @param devices what may be used; undefined for everything. */
  create(id: string, limits: JailLimits, devices: DeviceRule[] | undefined): void;
  /** Moves a process, with all its threads, into a group. */
  add(id: string, pid: number): Promise<void>;
  update(id: string, limits: JailLimits): void;
  /** Stops all processes, or lets them go on; resolves when the kernel has done it. */
  freeze(id: string, frozen: boolean): Promise<void>;
  pids(id: string): number[];
  stats(id: string): JailStats;
  /** How many processes the kernel has killed because the group's memory ran out. */
  oomKills(id: string): number;
  /** Sends SIGKILL to every process. They may not be gone yet. */
  kill(id: string): void;
  /** Removes an empty group; false when it still has processes. */
  remove(id: string): boolean;
  /** The groups that are there. */
  list(): string[];
  /** Removes the common parent, when it is empty; the next create() makes it again. */
  close(): void;
  /** What a launcher needs to show a jail its own groups. */
  mounts(id: string): CgroupMount[];
  /** Which limits can be kept. */
  report(limits: JailLimits): JailReportRow[];
}

/** Where the groups of jails are in a hierarchy: below the daemon's own group, or below the one that was asked for. */
export class GroupNames {
  readonly #own: string;
  readonly #parents = new Map<string, string>();
  /** Folders that were made on the way to a group elsewhere, outermost first. */
  readonly #made: string[] = [];

  constructor(own: string) {
    this.#own = own;
  }

  place(id: string, parent: string | undefined): void {
    // As runc does it: a path from the top of the hierarchy, out of which nothing leads.
    if (parent) this.#parents.set(id, posix.join('/', parent).slice(1));
    else this.#parents.delete(id);
  }

  /** The path of a group from the top of its hierarchy, without a slash before. */
  of(id: string): string {
    return posix.join(this.#parents.get(id) ?? this.#own, id);
  }

  /** Groups that are not below the daemon's own. */
  get elsewhere(): string[] {
    return [...this.#parents.keys()];
  }

  /** Makes a group with the ones above it. */
  make(top: string, id: string): void {
    const path = `${top}/${this.of(id)}`;
    const first = mkdirSync(path, { recursive: true });
    if (first === undefined || !this.#parents.has(id)) return;
    const made: string[] = [];
    for (let above = dirname(path); above.length >= first.length; above = dirname(above)) made.unshift(above);
    this.#made.push(...made);
  }

  /** Forgets a group that is gone, and takes away those above it that were made for it alone. */
  forget(id: string): void {
    if (!this.#parents.delete(id)) return;
    for (const path of this.#made.splice(0).reverse()) if (!removeGroup(path)) this.#made.unshift(path);
  }
}

/** `major:minor` of a device file. */
export function deviceNumber(path: string): string {
  const { major, minor } = splitDevice(statSync(path).rdev);
  return `${major}:${minor}`;
}

/** A mounted hierarchy: `controllers` is undefined for version 2. */
export interface Hierarchy {
  path: string;
  controllers: string[] | undefined;
  /** With a group that was given to an ordinary user: its path from the top; `path` is then that group's. */
  above?: string;
}

/** Finds the mounted hierarchies in the text of /proc/self/mountinfo (proc_pid_mountinfo(5)). */
export function findHierarchies(mountinfo: string): Hierarchy[] {
  const found: Hierarchy[] = [];
  for (const line of mountinfo.split('\n')) {
    const [before, after] = line.split(' - ');
    const path = before?.split(' ')[4];
    const [type, , options] = after?.split(' ') ?? [];
    if (path === undefined || found.some((other) => other.path === path)) continue;
    if (type === 'cgroup2') found.push({ path, controllers: undefined });
    if (type !== 'cgroup') continue;
    const names = (options ?? '').split(',').filter((option) => !NOT_CONTROLLERS.has(option));
    found.push({ path, controllers: names });
  }
  return found;
}

const NOT_CONTROLLERS: ReadonlySet<string> = new Set([
  'rw',
  'ro',
  'noprefix',
  'xattr',
  'clone_children',
  'cpuset_v2_mode',
  'favordynmods',
  'none',
]);

/** Lines of `name value` pairs, as in memory.stat. */
export function parsePairs(text: string): Record<string, number> {
  const pairs: Record<string, number> = {};
  for (const line of text.split('\n')) {
    const [name, value] = line.split(' ');
    if (name && value !== undefined) pairs[name] = Number(value);
  }
  return pairs;
}

/** A file of a group, trimmed; undefined when the kernel does not have it. */
export function readValue(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return undefined;
  }
}

/** A number of a file; `max` and a missing file are 0. */
export function readNumber(path: string): number {
  return Number(readValue(path)) || 0;
}

/** The names of the groups below a folder. */
export function childGroups(path: string): string[] {
  if (!existsSync(path)) return [];
  return readdirSync(path, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => entry.name);
}

/** The process ids of a file such as cgroup.procs. */
export function readPids(path: string): number[] {
  const text = readValue(path);
  return text ? text.split('\n').map(Number) : [];
}

/** Devices that every jail may use: making any node, terminals, and the usual six are in the list of the jail. */
export const DEVICE_RULES_ALWAYS: readonly DeviceRule[] = [
  { type: 'c', major: undefined, minor: undefined, access: 'm' },
  { type: 'b', major: undefined, minor: undefined, access: 'm' },
  // /dev/console, /dev/ptmx, /dev/pts/*
  { type: 'c', major: 5, minor: 1, access: 'rwm' },
  { type: 'c', major: 5, minor: 2, access: 'rwm' },
  { type: 'c', major: 136, minor: undefined, access: 'rwm' },
];

/** A device that may be used; undefined numbers mean all. */
export interface DeviceRule {
  type: 'c' | 'b';
  major: number | undefined;
  minor: number | undefined;
  access: string;
}

/** Sends SIGKILL to processes, some of which may be gone already. */
export function killPids(pids: number[]): void {
  for (const pid of pids) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch (error) {
      if (errorCode(error) !== 'ESRCH') throw error;
    }
  }
}

/** Removes a group and the groups that a container may have made in it. */
export function removeGroups(path: string): boolean {
  for (const child of childGroups(path)) removeGroups(`${path}/${child}`);
  return removeGroup(path);
}

/** Removes one group; false when it still has processes or groups. */
export function removeGroup(path: string): boolean {
  try {
    rmdirSync(path);
    return true;
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return true;
    if (errorCode(error) === 'EBUSY' || errorCode(error) === 'ENOTEMPTY') return false;
    throw error;
  }
}
