/**
 * What there is instead of control groups for the daemon of an ordinary user, who may not make any: the processes of a
 * jail are those of its pid namespace, they are stopped by signals, and nothing is limited, which is told.
 */
import { readdirSync, readlinkSync } from 'node:fs';
import type { CgroupMount } from '../../launch/protocol.ts';
import type { JailLimits, JailReportRow, JailStats } from '../runtime.ts';
import { type Cgroups, killPids } from './cgroup.ts';
import { procStat } from './proc-stat.ts';

/** USER_HZ, the same on x86-64 and arm64. */
const NANOSECONDS_PER_TICK = 10_000_000;
const PAGE_BYTES = 4096;

/** A jail's processes: those that were put into it, and all of the pid namespaces that they are in. */
interface Members {
  pids: Set<number>;
  namespaces: Set<string>;
}

/** The wishes of a jail that need a control group, by what they are called in a report. */
const LIMITS: readonly [feature: string, wish: (limits: JailLimits) => unknown][] = [
  ['memory limit', (l) => l.memoryBytes],
  ['swap limit', (l) => l.memorySwapBytes],
  ['memory reservation', (l) => l.memoryReservationBytes],
  ['cpu quota', (l) => l.cpuQuotaUs],
  ['cpu shares', (l) => l.cpuShares],
  ['cpuset', (l) => l.cpusetCpus],
  ['memory nodes', (l) => l.cpusetMems],
  ['pids limit', (l) => l.pids],
  ['block io weight', (l) => l.blkioWeight],
  ['block io limits of devices', (l) => l.blkioDevices?.length],
  ['memory swappiness', (l) => l.memorySwappiness !== undefined],
  ['oom kill disable', (l) => l.oomKillDisable],
];

function pidNamespace(pid: number): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/pid`);
  } catch {
    return undefined;
  }
}

/** See {@link Cgroups}. */
export class NoCgroups implements Cgroups {
  readonly version = '2';
  readonly driver = 'none';
  readonly keepsDevices = false;
  readonly #jails = new Map<string, Members>();
  readonly #own = pidNamespace(process.pid);

  place(): void {}

  pathOf(): string {
    return '/';
  }

  create(id: string): void {
    this.#jails.set(id, { pids: new Set(), namespaces: new Set() });
  }

  async add(id: string, pid: number): Promise<void> {
    const members = this.#jails.get(id);
    if (!members) throw new Error(`there is no jail ${id}`);
    members.pids.add(pid);
    const namespace = pidNamespace(pid);
    if (namespace !== undefined && namespace !== this.#own) members.namespaces.add(namespace);
  }

  update(): void {}

  async freeze(id: string, frozen: boolean): Promise<void> {
    for (const pid of this.pids(id)) process.kill(pid, frozen ? 'SIGSTOP' : 'SIGCONT');
  }

  pids(id: string): number[] {
    const members = this.#jails.get(id);
    if (!members) return [];
    const isThere = (pid: number): boolean => {
      const state = procStat(pid)?.(3);
      return state !== undefined && state !== 'Z' && state !== 'X';
    };
    return readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .map(Number)
      .filter((pid) => members.pids.has(pid) || members.namespaces.has(pidNamespace(pid) ?? ''))
      .filter(isThere);
  }

  stats(id: string): JailStats {
    const all = this.pids(id).map(procStat);
    // utime, stime and rss are fields 14, 15 and 24.
    const sum = (field: number): number => all.reduce((total, stat) => total + Number(stat?.(field) ?? 0), 0);
    const cpuUserNs = sum(14) * NANOSECONDS_PER_TICK;
    const cpuSystemNs = sum(15) * NANOSECONDS_PER_TICK;
    return {
      cpuTotalNs: cpuUserNs + cpuSystemNs,
      cpuUserNs,
      cpuSystemNs,
      throttledPeriods: 0,
      throttledNs: 0,
      periods: 0,
      memoryBytes: sum(24) * PAGE_BYTES,
      memoryMaxBytes: 0,
      memoryLimitBytes: 0,
      memoryStat: {},
      pids: all.length,
      pidsLimit: 0,
      blkioReadBytes: 0,
      blkioWriteBytes: 0,
    };
  }

  oomKills(): number {
    return 0;
  }

  kill(id: string): void {
    killPids(this.pids(id));
  }

  remove(id: string): boolean {
    if (this.pids(id).length > 0) return false;
    this.#jails.delete(id);
    return true;
  }

  list(): string[] {
    return [...this.#jails.keys()];
  }

  close(): void {}

  mounts(): CgroupMount[] {
    return [];
  }

  report(limits: JailLimits): JailReportRow[] {
    return LIMITS.filter(([, wish]) => wish(limits)).map(([feature, wish]) => ({
      feature,
      asked: String(wish(limits)),
      got: 'none',
      how: 'the daemon was not started in a control group of its user’s: run it as that user’s service, or by systemd-run --user --scope -p Delegate=yes, or as root',
    }));
  }
}
