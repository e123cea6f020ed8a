/**
 * Version 1 control groups (Documentation/admin-guide/cgroup-v1): one hierarchy for each controller. A jail has a
 * group in every hierarchy that is mounted, also in those that limit nothing, so that its cgroup namespace hides the
 * host's paths in all of them.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import type { Clock } from '#common/clock';
import type { CgroupMount } from '../../launch/protocol.ts';
import type { JailBlkioLimit, JailLimits, JailReportRow, JailStats } from '../runtime.ts';
import {
  type Cgroups,
  childGroups,
  DEVICE_RULES_ALWAYS,
  type DeviceRule,
  deviceNumber,
  GroupNames,
  type Hierarchy,
  killPids,
  parsePairs,
  readNumber,
  readPids,
  readValue,
  removeGroup,
  removeGroups,
} from './cgroup.ts';
import { waitUntil } from './wait.ts';

/** What the kernel shows for "no limit": the largest multiple of the page size below 2^63. */
const UNLIMITED_MIN = 2 ** 62;
const NANOSECONDS_PER_TICK = 10_000_000;
const FREEZE_TIMEOUT_MS = 10_000;

/** Which of them there is depends on the scheduler of block requests. */
const WEIGHTS_OF_DEVICES = ['blkio.weight_device', 'blkio.bfq.weight_device'];

/** See {@link Cgroups}. */
export class CgroupsV1 implements Cgroups {
  readonly version = '1';
  readonly driver = 'cgroupfs';
  readonly keepsDevices: boolean;
  readonly #hierarchies: Hierarchy[];
  readonly #unified: string | undefined;
  readonly #group: string;
  readonly #names: GroupNames;
  readonly #clock: Clock;

  /**
   * @param unified where version 2 is mounted beside, without controllers ("hybrid"): OCI runtimes make groups there
   *   too, and runc leaves their parent.
   */
  constructor(hierarchies: Hierarchy[], unified: string | undefined, group: string, clock: Clock) {
    this.#hierarchies = hierarchies;
    this.keepsDevices = hierarchies.every(({ above }) => above === undefined);
    this.#unified = unified;
    this.#group = group;
    this.#names = new GroupNames(group);
    this.#clock = clock;
  }

  place(id: string, parent: string | undefined): void {
    this.#names.place(id, parent);
  }

  pathOf(id: string): string {
    // Where groups were given to an ordinary user they have one path, as far as OCI runtimes can say it.
    return `${this.#hierarchies[0]?.above ?? ''}/${this.#names.of(id)}`;
  }

  create(id: string, limits: JailLimits, devices: DeviceRule[] | undefined): void {
    for (const { path } of this.#hierarchies) this.#names.make(path, id);
    this.#inheritCpuset(id);
    if (devices !== undefined && this.keepsDevices)
      this.#allowDevices(id, [...DEVICE_RULES_ALWAYS, ...devices]);
    this.update(id, limits);
  }

  async add(id: string, pid: number): Promise<void> {
    await Promise.all(
      this.#hierarchies.map(({ path }) => writeFile(`${path}/${this.#names.of(id)}/cgroup.procs`, `${pid}`)),
    );
  }

  update(id: string, limits: JailLimits): void {
    this.#limitMemory(id, limits);
    this.#set(id, 'cpu', 'cpu.cfs_period_us', limits.cpuPeriodUs);
    this.#set(id, 'cpu', 'cpu.cfs_quota_us', limits.cpuQuotaUs);
    this.#set(id, 'cpu', 'cpu.shares', limits.cpuShares);
    this.#set(id, 'cpuset', 'cpuset.cpus', limits.cpusetCpus || undefined);
    this.#set(id, 'cpuset', 'cpuset.mems', limits.cpusetMems || undefined);
    if (limits.pids) this.#set(id, 'pids', 'pids.max', limits.pids < 0 ? 'max' : limits.pids);
    const weight = ['blkio.weight', 'blkio.bfq.weight'].find((file) => this.#has(id, 'blkio', file));
    if (weight) this.#set(id, 'blkio', weight, limits.blkioWeight);
    if (limits.memorySwappiness !== undefined)
      writeFileSync(this.#file(id, 'memory', 'memory.swappiness'), `${limits.memorySwappiness}`);
    if (limits.oomKillDisable) writeFileSync(this.#file(id, 'memory', 'memory.oom_control'), '1');
    this.#limitDevices(id, limits);
  }

  #limitDevices(id: string, limits: JailLimits): void {
    const weights = WEIGHTS_OF_DEVICES.find((file) => this.#has(id, 'blkio', file));
    for (const device of limits.blkioDevices ?? []) {
      const number = deviceNumber(device.hostPath);
      const set = (file: string | undefined, value: number | undefined): void => {
        if (file && value) this.#set(id, 'blkio', file, `${number} ${value}`);
      };
      set(weights, device.weight);
      set('blkio.throttle.read_bps_device', device.readBytesPerSecond);
      set('blkio.throttle.write_bps_device', device.writeBytesPerSecond);
      set('blkio.throttle.read_iops_device', device.readsPerSecond);
      set('blkio.throttle.write_iops_device', device.writesPerSecond);
    }
  }

  async freeze(id: string, frozen: boolean): Promise<void> {
    const file = this.#file(id, 'freezer', 'freezer.state');
    const state = frozen ? 'FROZEN' : 'THAWED';
    writeFileSync(file, state);
    await waitUntil(this.#clock, `cgroup ${id} to be ${state}`, FREEZE_TIMEOUT_MS, () => {
      const now = readValue(file);
      // A process that appears during freezing leaves it incomplete until asked again.
      if (frozen && now === 'FREEZING') writeFileSync(file, state);
      return now === state;
    });
  }

  pids(id: string): number[] {
    return readPids(this.#file(id, 'memory', 'cgroup.procs'));
  }

  stats(id: string): JailStats {
    const cpu = parsePairs(readValue(this.#file(id, 'cpu', 'cpu.stat')) ?? '');
    const ticks = parsePairs(readValue(this.#file(id, 'cpuacct', 'cpuacct.stat')) ?? '');
    const limit = readNumber(this.#file(id, 'memory', 'memory.limit_in_bytes'));
    const blkio = this.#blkioBytes(id);
    return {
      cpuTotalNs: readNumber(this.#file(id, 'cpuacct', 'cpuacct.usage')),
      cpuUserNs: (ticks.user ?? 0) * NANOSECONDS_PER_TICK,
      cpuSystemNs: (ticks.system ?? 0) * NANOSECONDS_PER_TICK,
      periods: cpu.nr_periods ?? 0,
      throttledPeriods: cpu.nr_throttled ?? 0,
      throttledNs: cpu.throttled_time ?? 0,
      memoryBytes: readNumber(this.#file(id, 'memory', 'memory.usage_in_bytes')),
      memoryMaxBytes: readNumber(this.#file(id, 'memory', 'memory.max_usage_in_bytes')),
      memoryLimitBytes: limit >= UNLIMITED_MIN ? 0 : limit,
      memoryStat: parsePairs(readValue(this.#file(id, 'memory', 'memory.stat')) ?? ''),
      pids: readNumber(this.#file(id, 'pids', 'pids.current')),
      pidsLimit: readNumber(this.#file(id, 'pids', 'pids.max')),
      blkioReadBytes: blkio.Read ?? 0,
      blkioWriteBytes: blkio.Write ?? 0,
    };
  }

  oomKills(id: string): number {
    return parsePairs(readValue(this.#file(id, 'memory', 'memory.oom_control')) ?? '').oom_kill ?? 0;
  }

  kill(id: string): void {
    // A frozen process does not die of SIGKILL in version 1, it first has to be thawed.
    const freezer = this.#file(id, 'freezer', 'freezer.state');
    if (readValue(freezer) !== undefined) writeFileSync(freezer, 'THAWED');
    killPids(this.pids(id));
  }

  remove(id: string): boolean {
    const paths = this.#tops.map((top) => `${top}/${this.#names.of(id)}`);
    const gone = paths.map(removeGroups).every((removed) => removed);
    if (gone) this.#names.forget(id);
    return gone;
  }

  list(): string[] {
    const elsewhere = this.#names.elsewhere.filter((id) =>
      this.#tops.some((top) => existsSync(`${top}/${this.#names.of(id)}`)),
    );
    return [...new Set([...this.#parents.flatMap(childGroups), ...elsewhere])];
  }

  close(): void {
    for (const parent of this.#parents) removeGroup(parent);
  }

  mounts(id: string): CgroupMount[] {
    return this.#hierarchies.map(({ path, controllers }) => ({
      path,
      group: `/${this.#names.of(id)}`,
      options: controllers!.some((name) => name.startsWith('name='))
        ? ['none', ...controllers!]
        : controllers,
    }));
  }

  report(limits: JailLimits): JailReportRow[] {
    const rows: JailReportRow[] = [];
    const row = (feature: string, asked: unknown, controller: string, files: string[]): void => {
      if (!asked) return;
      const hierarchy = this.#path(controller);
      const has = hierarchy && files.some((file) => readValue(`${hierarchy}/${file}`) !== undefined);
      rows.push({
        feature,
        asked: String(asked),
        got: has ? 'full' : 'none',
        how: has ? `cgroup v1, ${controller}` : `this kernel has no ${files[0]}`,
      });
    };
    row('memory limit', limits.memoryBytes, 'memory', ['memory.limit_in_bytes']);
    row('swap limit', limits.memorySwapBytes, 'memory', ['memory.memsw.limit_in_bytes']);
    row('memory reservation', limits.memoryReservationBytes, 'memory', ['memory.soft_limit_in_bytes']);
    // The root group has neither quota nor cpuset of its own to look at, so the controller stands for them.
    row('cpu quota', limits.cpuQuotaUs, 'cpu', ['cgroup.procs']);
    row('cpu shares', limits.cpuShares, 'cpu', ['cgroup.procs']);
    row('cpu set', limits.cpusetCpus, 'cpuset', ['cpuset.cpus']);
    row('memory nodes', limits.cpusetMems, 'cpuset', ['cpuset.mems']);
    row('pids limit', limits.pids, 'pids', ['cgroup.procs']);
    row('block io weight', limits.blkioWeight, 'blkio', ['blkio.weight', 'blkio.bfq.weight']);
    row('memory swappiness', limits.memorySwappiness !== undefined, 'memory', ['memory.swappiness']);
    row('oom kill disable', limits.oomKillDisable, 'memory', ['memory.oom_control']);
    const devices = limits.blkioDevices ?? [];
    row(
      'block io weight of devices',
      devices.some((d) => d.weight),
      'blkio',
      WEIGHTS_OF_DEVICES,
    );
    row('block io limits of devices', devices.some(throttles), 'blkio', ['blkio.throttle.read_bps_device']);
    return rows;
  }

  /** The daemon's group in every hierarchy that may have one. */
  get #parents(): string[] {
    return this.#tops.map((path) => `${path}/${this.#group}`);
  }

  get #tops(): string[] {
    const paths = this.#hierarchies.map(({ path }) => path);
    return this.#unified === undefined ? paths : [...paths, this.#unified];
  }

  #path(controller: string): string | undefined {
    return this.#hierarchies.find(({ controllers }) => controllers?.includes(controller))?.path;
  }

  #file(id: string, controller: string, name: string): string {
    return `${this.#path(controller)}/${this.#names.of(id)}/${name}`;
  }

  #has(id: string, controller: string, name: string): boolean {
    return readValue(this.#file(id, controller, name)) !== undefined;
  }

  #set(id: string, controller: string, name: string, value: string | number | undefined): void {
    if (value !== undefined && value !== 0) writeFileSync(this.#file(id, controller, name), `${value}`);
  }

  /** Memory plus swap may never be below memory: which of the two goes first depends on the direction. */
  #limitMemory(id: string, limits: JailLimits): void {
    const { memoryBytes, memorySwapBytes } = limits;
    this.#set(id, 'memory', 'memory.soft_limit_in_bytes', limits.memoryReservationBytes);
    const swapAccounted = this.#has(id, 'memory', 'memory.memsw.limit_in_bytes');
    const total = memorySwapBytes || (memoryBytes ? memoryBytes * 2 : 0);
    const setSwap = (): void => {
      if (swapAccounted) this.#set(id, 'memory', 'memory.memsw.limit_in_bytes', total);
    };
    const current = readNumber(this.#file(id, 'memory', 'memory.limit_in_bytes'));
    const raising = memoryBytes !== undefined && memoryBytes > current;
    if (raising || total < 0) setSwap();
    this.#set(id, 'memory', 'memory.limit_in_bytes', memoryBytes);
    if (!raising && total >= 0) setSwap();
  }

  /** A new cpuset has no processors and no memory, and then no process may enter it. */
  #inheritCpuset(id: string): void {
    const root = this.#path('cpuset');
    if (root === undefined) return;
    for (const file of ['cpuset.cpus', 'cpuset.mems']) {
      const value = readFileSync(`${root}/${file}`, 'utf8').trim();
      for (const group of withAncestors(this.#names.of(id)))
        if (readValue(`${root}/${group}/${file}`) === '') writeFileSync(`${root}/${group}/${file}`, value);
    }
  }

  #allowDevices(id: string, rules: DeviceRule[]): void {
    if (this.#path('devices') === undefined) return;
    writeFileSync(this.#file(id, 'devices', 'devices.deny'), 'a');
    for (const { type, major, minor, access } of rules)
      writeFileSync(
        this.#file(id, 'devices', 'devices.allow'),
        `${type} ${major ?? '*'}:${minor ?? '*'} ${access}`,
      );
  }

  #blkioBytes(id: string): Record<string, number> {
    const text = readValue(this.#file(id, 'blkio', 'blkio.throttle.io_service_bytes')) ?? '';
    const sums: Record<string, number> = {};
    for (const line of text.split('\n')) {
      const [, operation, bytes] = line.split(' ');
      if (operation && bytes) sums[operation] = (sums[operation] ?? 0) + Number(bytes);
    }
    return sums;
  }
}

/** Whether more than a share of a device is asked for. */
function throttles(device: JailBlkioLimit): boolean {
  const { readBytesPerSecond, writeBytesPerSecond, readsPerSecond, writesPerSecond } = device;
  return Boolean(readBytesPerSecond || writeBytesPerSecond || readsPerSecond || writesPerSecond);
}

/** `a`, `a/b`, `a/b/c` for `a/b/c`. */
function withAncestors(path: string): string[] {
  const parts = path.split('/');
  return parts.map((_part, index) => parts.slice(0, index + 1).join('/'));
}
