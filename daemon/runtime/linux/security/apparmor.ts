/**
 * The AppArmor profile of containers that name none (apparmor.d(5)): what namespaces and masks keep, kept once more by
 * path, and no mounts. It is loaded by apparmor_parser(8), which also compiles it.
 */
import { spawnSync } from 'node:child_process';
import { readValue } from '../cgroup.ts';
import { type SecurityModules, thisMachinesModules } from './modules.ts';

/** Its name; dockerd's on the same machine is another. */
export const DEFAULT_PROFILE = 'drydock-default';

const LOADED = '/sys/kernel/security/apparmor/profiles';

/** Its text. */
export const DEFAULT_PROFILE_TEXT: string = `#include <tunables/global>

profile ${DEFAULT_PROFILE} flags=(attach_disconnected,mediate_deleted) {
  #include <abstractions/base>

  network,
  capability,
  file,
  umount,
  deny mount,

  # Signals and traces stay among containers; the daemon may send them.
  signal (receive) peer=unconfined,
  signal (send, receive) peer=${DEFAULT_PROFILE},
  ptrace (trace, read, tracedby, readby) peer=${DEFAULT_PROFILE},

  # Of /proc only processes and what has a namespace may be written.
  deny @{PROC}/* w,
  deny @{PROC}/{[^1-9],[^1-9][^0-9],[^1-9s][^0-9y][^0-9s],[^1-9][^0-9][^0-9][^0-9/]*}/** w,
  deny @{PROC}/sys/[^kn]** w,
  deny @{PROC}/sys/kernel/{?,??,[^sm][^he][^mgs]*} w,
  deny @{PROC}/sysrq-trigger rwklx,
  deny @{PROC}/kcore rwklx,

  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/fs/cg[^r]*/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/kernel/security/** rwklx,
}
`;

/** How a profile gets into the kernel. Tests say what became of it. */
export interface ProfileLoader {
  /** Names of loaded profiles, a line each with its mode; undefined where securityfs is not mounted, as in containers. */
  loaded(): string | undefined;
  /** Whether the kernel took it. */
  load(text: string): boolean;
}

const parser: ProfileLoader = {
  loaded: () => readValue(LOADED),
  load: (text) =>
    spawnSync('apparmor_parser', ['--replace', '--skip-cache'], {
      input: text,
      stdio: ['pipe', 'ignore', 'ignore'],
    }).status === 0,
};

/** This machine's modules, with the default profile in place. */
export function ownModules(): SecurityModules {
  const modules = thisMachinesModules();
  return modules.apparmor === undefined ? modules : { ...modules, apparmor: loadDefaultProfile() };
}

/** Has the default profile in the kernel, once for all daemons. @returns its name, or `''` when it can't be had */
export function loadDefaultProfile(loader: ProfileLoader = parser): string {
  const loaded = loader.loaded();
  if (loaded === undefined) return '';
  const isLoaded = loaded.split('\n').some((line) => line.startsWith(`${DEFAULT_PROFILE} (`));
  return isLoaded || loader.load(DEFAULT_PROFILE_TEXT) ? DEFAULT_PROFILE : '';
}
