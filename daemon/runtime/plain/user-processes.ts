/**
 * Who belongs to a jail, where there is no namespace and no control group to ask: the processes of its user. The user is
 * nobody else's and can't be changed from inside, so that membership has no races.
 */
import { execFile } from 'node:child_process';
import type { JailStats } from '../runtime.ts';

/** What processes have used so far. */
export interface ProcessUsage {
  cpuUserNs: number;
  cpuSystemNs: number;
  /** Memory that would be free without them. */
  memoryBytes: number;
  readBytes: number;
  writeBytes: number;
}

/** The processes of users, as a platform tells of them. */
export interface UserProcesses {
  /** Process numbers, zombies left out. */
  list(owner: number): number[];
  /** What one process has used; undefined when it is gone. */
  usage(pid: number): ProcessUsage | undefined;
  /** Sends a signal to all processes of a user at once, so that none can be born meanwhile (kill(2) with -1). */
  signalAll(owner: number, signal: string): Promise<void>;
  /** Has the kernel hold one process to a limit, where it can. @returns whether it does */
  limitMemory?(pid: number, bytes: number): boolean;
}

/** See {@link UserProcesses.signalAll}: by a shell that is that user for a moment. */
export function signalAllOf(owner: number, signal: string): Promise<void> {
  // It reaches all that it may signal but itself: its own processes, and no others.
  return new Promise((resolve) => {
    execFile(
      '/bin/sh',
      ['-c', `kill -s ${signal} -- -1`],
      { uid: owner, gid: owner, cwd: '/', env: {} },
      // It fails when there is nobody to signal; what is left is for the caller to see.
      () => resolve(),
    );
  });
}

const NOTHING: ProcessUsage = { cpuUserNs: 0, cpuSystemNs: 0, memoryBytes: 0, readBytes: 0, writeBytes: 0 };

/** The sum over all processes of a user that run now. What ended before is not in it. */
export function totalUsage(processes: UserProcesses, owner: number): ProcessUsage & { pids: number } {
  const total = { ...NOTHING, pids: 0 };
  for (const pid of processes.list(owner)) {
    const usage = processes.usage(pid);
    if (!usage) continue;
    total.pids++;
    for (const key of Object.keys(NOTHING) as (keyof ProcessUsage)[]) total[key] += usage[key];
  }
  return total;
}

/** The same as the Engine API has it. */
export function userStats(
  usage: ProcessUsage & { pids: number },
  limits: { memoryBytes?: number; pids?: number },
  memoryMaxBytes: number,
): JailStats {
  return {
    cpuTotalNs: usage.cpuUserNs + usage.cpuSystemNs,
    cpuUserNs: usage.cpuUserNs,
    cpuSystemNs: usage.cpuSystemNs,
    throttledPeriods: 0,
    throttledNs: 0,
    periods: 0,
    memoryBytes: usage.memoryBytes,
    memoryMaxBytes,
    memoryLimitBytes: limits.memoryBytes ?? 0,
    memoryStat: {},
    pids: usage.pids,
    pidsLimit: limits.pids ?? 0,
    blkioReadBytes: usage.readBytes,
    blkioWriteBytes: usage.writeBytes,
  };
}
