/** The processes of a user on Linux, from /proc. */
import { readdirSync, readFileSync } from 'node:fs';
import { procStat } from '../linux/proc-stat.ts';
import { type ProcessUsage, signalAllOf, type UserProcesses } from './user-processes.ts';

/** sysconf(_SC_CLK_TCK) is 100 on every Linux that Node runs on. */
const TICK_NS = 10_000_000;
const KILOBYTE = 1024;

function read(pid: number, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'latin1');
  } catch {
    return '';
  }
}

/** From /proc/PID/status: the owner of the folder is root's when a process has made itself undumpable. */
function field(status: string, name: string): string {
  return new RegExp(`^${name}:\\s*(\\S+)`, 'm').exec(status)?.[1] ?? '';
}

/** See {@link UserProcesses}. */
export const linuxUserProcesses: UserProcesses = {
  list(owner) {
    const found: number[] = [];
    for (const name of readdirSync('/proc')) {
      if (!/^\d+$/.test(name)) continue;
      const status = read(Number(name), 'status');
      if (field(status, 'Uid') === String(owner) && field(status, 'State') !== 'Z') found.push(Number(name));
    }
    return found;
  },

  usage(pid): ProcessUsage | undefined {
    const stat = procStat(pid);
    const status = read(pid, 'status');
    if (!stat || status === '') return undefined;
    const io = read(pid, 'io');
    const own = ['RssAnon', 'RssShmem'].map((name) => Number(field(status, name)) * KILOBYTE);
    return {
      // utime and stime
      cpuUserNs: Number(stat(14)) * TICK_NS,
      cpuSystemNs: Number(stat(15)) * TICK_NS,
      memoryBytes: own.reduce((sum, bytes) => sum + bytes, 0),
      readBytes: Number(field(io, 'read_bytes')),
      writeBytes: Number(field(io, 'write_bytes')),
    };
  },

  signalAll: signalAllOf,
};
