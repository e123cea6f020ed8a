/** Takes stock of what a daemon could leave on a machine, so that tests can prove that it left nothing. */
import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { join } from 'node:path';

/** Things on this machine, each as a line that says what it is. */
export type Inventory = Set<string>;

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

function mounts(): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter(Boolean)
    .map((line) => {
      const fields = line.split(' ');
      return `mount ${fields[4]} (${fields[fields.indexOf('-') + 1]})`;
    });
}

function cgroups(): string[] {
  return [...walk('/sys/fs/cgroup', 4)]
    .filter((path) => path.includes('drydock'))
    .map((path) => `cgroup ${path}`);
}

function interfaces(): string[] {
  return readdirSync('/sys/class/net').map((name) => `interface ${name}`);
}

/** Namespaces of other processes than this one's descendants' parents: any that is not ours. */
function namespaces(): string[] {
  const found = new Set<string>();
  for (const pid of readdirSync('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    for (const kind of ['mnt', 'net', 'pid', 'ipc', 'uts', 'cgroup']) {
      try {
        found.add(`namespace ${readlinkSync(`/proc/${pid}/ns/${kind}`)}`);
      } catch {
        // The process ended, or is a kernel thread.
      }
    }
  }
  return [...found];
}

/** Processes of ours: those that run something from a dist/ folder of Drydock or carry its mark. */
function processes(): string[] {
  const found: string[] = [];
  for (const pid of readdirSync('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    try {
      const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim();
      if (command.includes('dist/daemon/')) found.push(`process ${pid} ${command}`);
    } catch {
      // Ended.
    }
  }
  return found;
}

/** Everything that is there now. */
export function takeInventory(): Inventory {
  return new Set([...mounts(), ...cgroups(), ...interfaces(), ...namespaces(), ...processes()]);
}

/** What is there now and was not in `before`. */
export function litterSince(before: Inventory): string[] {
  return [...takeInventory()].filter((thing) => !before.has(thing));
}
