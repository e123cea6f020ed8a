/**
 * Takes stock of what a daemon could leave on a machine, so that tests can prove that it left nothing. Only things that carry the
 * daemon's mark count: its folder in a mount or a command line, its instance's cgroups, and the processes in those.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { instanceOf } from '../../../daemon/config.ts';
import type { DaemonAddress } from './daemon.ts';

function* walk(folder: string, depth: number): Generator<string> {
  if (depth === 0) return;
  let entries: string[];
  try {
    entries = readdirSync(folder);
  } catch {
    return;
  }
  for (const entry of entries) {
    const path = join(folder, entry);
    try {
      if (!statSync(path).isDirectory()) continue;
    } catch {
      continue;
    }
    yield path;
    yield* walk(path, depth - 1);
  }
}

function mounts(folder: string): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => line.includes(folder))
    .map((line) => `mount ${line.split(' ')[4]}`);
}

function cgroups(instance: string): string[] {
  return [...walk('/sys/fs/cgroup', 4)]
    .filter((path) => path.includes(instance))
    .map((path) => `cgroup ${path}`);
}

/** Processes by folder on the command line or in the environment, or by cgroup; each holds its namespaces. */
function processes(folder: string, instance: string): string[] {
  const found: string[] = [];
  for (const pid of readdirSync('/proc')) {
    if (!/^\d+$/.test(pid) || Number(pid) === process.pid) continue;
    try {
      const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim();
      const marks = command + readFileSync(`/proc/${pid}/cgroup`, 'utf8');
      if (marks.includes(folder) || marks.includes(instance)) found.push(`process ${pid} ${command}`);
    } catch {
      // Ended.
    }
  }
  return found;
}

/** Network interfaces of the host whose names could be ours: a container's live in its own namespace. */
function interfaces(): string[] {
  return readdirSync('/sys/class/net')
    .filter((name) => /^(tap|tun|dd|drydock|docker|br-)/.test(name))
    .map((name) => `interface ${name}`);
}

/** What carries the mark of the daemon at `address`. */
export function litterOf(address: DaemonAddress): string[] {
  const folder = dirname(address.dataRoot);
  const instance = instanceOf(address.dataRoot);
  return [...mounts(folder), ...cgroups(instance), ...processes(folder, instance), ...interfaces()];
}

/** The same without processes: a launcher that waits for the next container is no litter while the daemon runs. */
export function litterBesidesProcesses(address: DaemonAddress): string[] {
  return litterOf(address).filter((thing) => !thing.startsWith('process'));
}
