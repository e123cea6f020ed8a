/**
 * Version 2 control groups (Documentation/admin-guide/cgroup-v2.rst): one hierarchy, controllers handed down from the
 * root, devices by an eBPF program.
 */
import { closeSync, constants, existsSync, openSync, writeFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Clock } from '#common/clock';
import { DrydockError, errorCode, errorMessage } from '#common/errors';
import { attachDeviceProgram } from '#common/native/bpf';
import type { CgroupMount } from '../../launch/protocol.ts';
import type { JailBlkioLimit, JailLimits, JailReportRow, JailStats } from '../runtime.ts';
import {
  type Cgroups,
  childGroups,
  DEVICE_RULES_ALWAYS,
  type DeviceRule,
  deviceNumber,
  GroupNames,
  killPids,
  parsePairs,
  readNumber,
  readPids,
  readValue,
  removeGroup,
  removeGroups,
} from './cgroup.ts';
import { deviceProgram } from './device-program.ts';
import { waitUntil } from './wait.ts';

/** What a jail's limits need; others of the machine are left alone. */
const CONTROLLERS = ['cpu', 'cpuset', 'io', 'memory', 'pids'];
const FREEZE_TIMEOUT_MS = 10_000;
const CPU_PERIOD_DEFAULT_US = 100_000;

/** cpu.shares 2..262144 to cpu.weight 1..10000, as runc converts them. */
export function sharesToWeight(shares: number): number {
  const bounded = Math.min(Math.max(shares, 2), 262_144);
  return 1 + Math.floor(((bounded - 2) * 9999) / 262_142);
}

/** blkio.weight 10..1000 to io.weight 1..10000, as runc converts them. */
export function blkioToIoWeight(weight: number): number {
  return 1 + Math.floor(((weight - 10) * 9999) / 990);
}

/** See {@link Cgroups}. */
export class CgroupsV2 implements Cgroups {
  readonly version = '2';
  readonly driver = 'cgroupfs';
  readonly keepsDevices: boolean;
  readonly #above: string;
  readonly #root: string;
  readonly #base: string;
  readonly #names: GroupNames;
  readonly #clock: Clock;
  readonly #attachDevices: (program: Uint8Array, groupFd: number) => void;

  /**
   * @param above with a root that is a group given to an ordinary user: its path from the top
   * @param attachDevices replaced in tests, whose groups are plain folders
   */
  constructor(
    root: string,
    group: string,
    clock: Clock,
    {
      above,
      attachDevices = attachDeviceProgram,
    }: { above?: string; attachDevices?: (program: Uint8Array, groupFd: number) => void } = {},
  ) {
    this.#root = root;
    this.#above = above ?? '';
    this.keepsDevices = above === undefined;
    this.#names = new GroupNames(group);
    this.#base = `${root}/${group}`;
    this.#clock = clock;
    this.#attachDevices = attachDevices;
  }

  place(id: string, parent: string | undefined): void {
    this.#names.place(id, parent);
  }

  pathOf(id: string): string {
    return `${this.#above}/${this.#names.of(id)}`;
  }

  create(id: string, limits: JailLimits, devices: DeviceRule[] | undefined): void {
    this.#names.make(this.#root, id);
    let above = this.#root;
    for (const part of dirname(this.#names.of(id)).split('/')) {
      this.#handDown(above);
      if (part !== '.') above += `/${part}`;
    }
    this.#handDown(above);
    if (devices !== undefined && this.keepsDevices) {
      const fd = openSync(this.#path(id), constants.O_RDONLY | constants.O_DIRECTORY);
      try {
        this.#attachDevices(deviceProgram([...DEVICE_RULES_ALWAYS, ...devices]), fd);
      } finally {
        closeSync(fd);
      }
    }
    this.update(id, limits);
  }

  async add(id: string, pid: number): Promise<void> {
    await writeFile(`${this.#path(id)}/cgroup.procs`, `${pid}`);
  }

  update(id: string, limits: JailLimits): void {
    const { memoryBytes, memorySwapBytes } = limits;
    this.#set(id, 'memory.max', memoryBytes);
    this.#set(id, 'memory.low', limits.memoryReservationBytes);
    if (memorySwapBytes === -1) this.#setIfThere(id, 'memory.swap.max', 'max');
    // What docker calls memory plus swap is two separate limits here; without a wish as much swap as memory.
    else if (memoryBytes)
      this.#setIfThere(id, 'memory.swap.max', memorySwapBytes ? memorySwapBytes - memoryBytes : memoryBytes);
    if (limits.cpuQuotaUs)
      this.#set(
        id,
        'cpu.max',
        `${limits.cpuQuotaUs < 0 ? 'max' : limits.cpuQuotaUs} ${limits.cpuPeriodUs || CPU_PERIOD_DEFAULT_US}`,
      );
    if (limits.cpuShares) this.#set(id, 'cpu.weight', sharesToWeight(limits.cpuShares));
    this.#set(id, 'cpuset.cpus', limits.cpusetCpus);
    this.#set(id, 'cpuset.mems', limits.cpusetMems);
    if (limits.pids) this.#set(id, 'pids.max', limits.pids < 0 ? 'max' : limits.pids);
    if (limits.blkioWeight) {
      if (readValue(`${this.#path(id)}/io.bfq.weight`) !== undefined)
        this.#set(id, 'io.bfq.weight', limits.blkioWeight);
      else this.#setIfThere(id, 'io.weight', blkioToIoWeight(limits.blkioWeight));
    }
    for (const device of limits.blkioDevices ?? []) this.#limitDevice(id, device);
  }

  #limitDevice(id: string, device: JailBlkioLimit): void {
    const number = deviceNumber(device.hostPath);
    if (device.weight) {
      const bfq = readValue(`${this.#path(id)}/io.bfq.weight`) !== undefined;
      if (bfq) this.#set(id, 'io.bfq.weight', `${number} ${device.weight}`);
      else this.#setIfThere(id, 'io.weight', `${number} ${blkioToIoWeight(device.weight)}`);
    }
    const limits = Object.entries({
      rbps: device.readBytesPerSecond,
      wbps: device.writeBytesPerSecond,
      riops: device.readsPerSecond,
      wiops: device.writesPerSecond,
    }).filter(([, value]) => value);
    if (limits.length > 0)
      this.#set(id, 'io.max', [number, ...limits.map(([name, value]) => `${name}=${value}`)].join(' '));
  }

  async freeze(id: string, frozen: boolean): Promise<void> {
    const wanted = frozen ? 1 : 0;
    writeFileSync(`${this.#path(id)}/cgroup.freeze`, `${wanted}`);
    const done = (): boolean =>
      parsePairs(readValue(`${this.#path(id)}/cgroup.events`) ?? '').frozen === wanted;
    await waitUntil(
      this.#clock,
      `cgroup ${id} to be ${frozen ? 'frozen' : 'thawed'}`,
      FREEZE_TIMEOUT_MS,
      done,
    );
  }

  pids(id: string): number[] {
    return readPids(`${this.#path(id)}/cgroup.procs`);
  }

  stats(id: string): JailStats {
    const path = this.#path(id);
    const cpu = parsePairs(readValue(`${path}/cpu.stat`) ?? '');
    const io = sumIo(readValue(`${path}/io.stat`) ?? '');
    return {
      cpuTotalNs: (cpu.usage_usec ?? 0) * 1000,
      cpuUserNs: (cpu.user_usec ?? 0) * 1000,
      cpuSystemNs: (cpu.system_usec ?? 0) * 1000,
      periods: cpu.nr_periods ?? 0,
      throttledPeriods: cpu.nr_throttled ?? 0,
      throttledNs: (cpu.throttled_usec ?? 0) * 1000,
      memoryBytes: readNumber(`${path}/memory.current`),
      memoryMaxBytes: readNumber(`${path}/memory.peak`),
      memoryLimitBytes: readNumber(`${path}/memory.max`),
      memoryStat: parsePairs(readValue(`${path}/memory.stat`) ?? ''),
      pids: readNumber(`${path}/pids.current`),
      pidsLimit: readNumber(`${path}/pids.max`),
      blkioReadBytes: io.rbytes ?? 0,
      blkioWriteBytes: io.wbytes ?? 0,
    };
  }

  oomKills(id: string): number {
    return parsePairs(readValue(`${this.#path(id)}/memory.events`) ?? '').oom_kill ?? 0;
  }

  kill(id: string): void {
    try {
      // Since Linux 5.14; it leaves no gap in which a new process could escape.
      const fd = openSync(`${this.#path(id)}/cgroup.kill`, constants.O_WRONLY);
      writeFileSync(fd, '1');
      closeSync(fd);
    } catch (error) {
      if (errorCode(error) !== 'ENOENT') throw error;
      killPids(this.pids(id));
    }
  }

  remove(id: string): boolean {
    const gone = removeGroups(this.#path(id));
    if (gone) this.#names.forget(id);
    return gone;
  }

  list(): string[] {
    return [...childGroups(this.#base), ...this.#names.elsewhere.filter((id) => existsSync(this.#path(id)))];
  }

  close(): void {
    removeGroup(this.#base);
  }

  mounts(id: string): CgroupMount[] {
    return [{ path: this.#root, group: `/${this.#names.of(id)}`, options: undefined }];
  }

  report(limits: JailLimits): JailReportRow[] {
    const offered = readValue(`${this.#root}/cgroup.controllers`)?.split(' ') ?? [];
    const wishes: [feature: string, asked: unknown, controller: string][] = [
      ['memory limit', limits.memoryBytes, 'memory'],
      ['swap limit', limits.memorySwapBytes, 'memory'],
      ['memory reservation', limits.memoryReservationBytes, 'memory'],
      ['cpu quota', limits.cpuQuotaUs, 'cpu'],
      ['cpu shares', limits.cpuShares, 'cpu'],
      ['cpu set', limits.cpusetCpus, 'cpuset'],
      ['memory nodes', limits.cpusetMems, 'cpuset'],
      ['pids limit', limits.pids, 'pids'],
      ['block io weight', limits.blkioWeight, 'io'],
      ['block io limits of devices', limits.blkioDevices?.length, 'io'],
    ];
    const missing: [feature: string, asked: boolean, file: string][] = [
      ['memory swappiness', limits.memorySwappiness !== undefined, 'memory.swappiness'],
      ['oom kill disable', limits.oomKillDisable === true, 'memory.oom_control'],
    ];
    const absent = missing
      .filter(([, asked]) => asked)
      .map(
        ([feature, , file]): JailReportRow => ({
          feature,
          asked: 'true',
          got: 'none',
          how: `cgroup v2 has no ${file}`,
        }),
      );
    const rows: JailReportRow[] = wishes
      .filter(([, asked]) => asked)
      .map(([feature, asked, controller]) => ({
        feature,
        asked: String(asked),
        got: offered.includes(controller) ? 'full' : 'none',
        how: offered.includes(controller) ? `cgroup v2, ${controller}` : `no ${controller} controller here`,
      }));
    return [...rows, ...absent];
  }

  #path(id: string): string {
    return `${this.#root}/${this.#names.of(id)}`;
  }

  /** Enables what there is for the groups below. */
  #handDown(path: string): void {
    const offered = readValue(`${path}/cgroup.controllers`)?.split(' ') ?? [];
    const enabled = readValue(`${path}/cgroup.subtree_control`)?.split(' ') ?? [];
    const missing = CONTROLLERS.filter((name) => offered.includes(name) && !enabled.includes(name));
    if (missing.length === 0) return;
    try {
      writeFileSync(`${path}/cgroup.subtree_control`, missing.map((name) => `+${name}`).join(' '));
    } catch (error) {
      throw new DrydockError(
        'ERR_CGROUP_DELEGATION',
        `The controllers ${missing.join(', ')} cannot be enabled in ${path} (${errorMessage(error)}). ` +
          'If Drydock itself runs in a container, move the processes of that group into a group below it first.',
        { cause: error },
      );
    }
  }

  #set(id: string, file: string, value: string | number | undefined): void {
    if (value) writeFileSync(`${this.#path(id)}/${file}`, `${value}`);
  }

  /** Swap accounting and io weights are a matter of the kernel's configuration; report() tells. */
  #setIfThere(id: string, file: string, value: string | number): void {
    if (readValue(`${this.#path(id)}/${file}`) !== undefined)
      writeFileSync(`${this.#path(id)}/${file}`, `${value}`);
  }
}

function sumIo(text: string): Record<string, number> {
  const sums: Record<string, number> = {};
  for (const line of text.split('\n'))
    for (const field of line.split(' ').slice(1)) {
      const [name, value] = field.split('=');
      if (name && value) sums[name] = (sums[name] ?? 0) + Number(value);
    }
  return sums;
}
