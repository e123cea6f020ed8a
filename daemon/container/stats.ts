/** `docker stats`: one sample in the Engine API's form. The CLI computes percentages from two of them. */

import { readFile } from 'node:fs/promises';
import { cpus, totalmem } from 'node:os';
import type { Container } from './container.ts';

/** The parts of a sample that the next one repeats as its `precpu_stats`. */
export interface StatsSample {
  read: string;
  cpu_stats: object;
  [field: string]: unknown;
}

const NEVER = '0001-01-01T00:00:00Z';

/** CPU time of the whole host, nanoseconds: the first line of /proc/stat, in ticks of 10 ms. */
async function hostCpuNs(): Promise<number> {
  const line = (await readFile('/proc/stat', 'utf8')).split('\n', 1)[0]!;
  // user nice system idle iowait irq softirq steal; guest time is part of user's.
  return line
    .split(/\s+/)
    .slice(1, 9)
    .reduce((sum, ticks) => sum + Number(ticks) * 1e7, 0);
}

/** Takes a sample. A container that does not run has zeros, as in dockerd. */
export async function statsView(
  container: Container,
  wallMs: number,
  previous: StatsSample | undefined,
): Promise<StatsSample> {
  const base = {
    id: container.id,
    name: `/${container.name}`,
    preread: previous?.read ?? NEVER,
    precpu_stats: previous?.cpu_stats ?? emptyCpu(),
    num_procs: 0,
    storage_stats: {},
  };
  const { jail } = container;
  if (!jail || !container.process)
    return {
      ...base,
      read: NEVER,
      cpu_stats: emptyCpu(),
      pids_stats: {},
      memory_stats: {},
      blkio_stats: blkio([]),
    };
  const [stats, systemNs, networks] = await Promise.all([
    jail.stats(),
    hostCpuNs(),
    interfaceStats(jail.pid),
  ]);
  return {
    ...base,
    read: new Date(wallMs).toISOString(),
    cpu_stats: {
      cpu_usage: {
        total_usage: stats.cpuTotalNs,
        usage_in_kernelmode: stats.cpuSystemNs,
        usage_in_usermode: stats.cpuUserNs,
      },
      system_cpu_usage: systemNs,
      online_cpus: cpus().length,
      throttling_data: {
        periods: stats.periods,
        throttled_periods: stats.throttledPeriods,
        throttled_time: stats.throttledNs,
      },
    },
    pids_stats: { current: stats.pids, ...(stats.pidsLimit > 0 && { limit: stats.pidsLimit }) },
    memory_stats: {
      usage: stats.memoryBytes,
      max_usage: stats.memoryMaxBytes,
      // Without a limit the host's memory is the bound, as dockerd shows it.
      limit: stats.memoryLimitBytes > 0 ? Math.min(stats.memoryLimitBytes, totalmem()) : totalmem(),
      stats: stats.memoryStat,
    },
    blkio_stats: blkio([
      ['read', stats.blkioReadBytes],
      ['write', stats.blkioWriteBytes],
    ]),
    ...(networks && { networks }),
  };
}

function emptyCpu(): object {
  return {
    cpu_usage: { total_usage: 0, usage_in_kernelmode: 0, usage_in_usermode: 0 },
    throttling_data: { periods: 0, throttled_periods: 0, throttled_time: 0 },
  };
}

function blkio(rows: [string, number][]): object {
  return {
    io_service_bytes_recursive: rows.map(([op, value]) => ({ major: 0, minor: 0, op, value })),
    io_serviced_recursive: null,
    io_queue_recursive: null,
    io_service_time_recursive: null,
    io_wait_time_recursive: null,
    io_merged_recursive: null,
    io_time_recursive: null,
    sectors_recursive: null,
  };
}

/** Counters of the interfaces in a process's network namespace, but for loopback: proc(5), /proc/PID/net/dev. */
async function interfaceStats(pid: number): Promise<Record<string, object> | undefined> {
  const text = await readFile(`/proc/${pid}/net/dev`, 'utf8').catch(() => '');
  const rows = text
    .split('\n')
    .slice(2)
    .flatMap((line) => {
      const [name = '', rest = ''] = line.split(':');
      if (rest === '' || name.trim() === 'lo') return [];
      const n = rest.trim().split(/\s+/).map(Number);
      return [
        [
          name.trim(),
          {
            rx_bytes: n[0],
            rx_packets: n[1],
            rx_errors: n[2],
            rx_dropped: n[3],
            tx_bytes: n[8],
            tx_packets: n[9],
            tx_errors: n[10],
            tx_dropped: n[11],
          },
        ] as const,
      ];
    });
  return rows.length > 0 ? Object.fromEntries(rows) : undefined;
}
