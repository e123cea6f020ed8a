/**
 * What a security module of the kernel makes of the next program (proc_pid_attr(5)): an AppArmor profile, a SELinux
 * label. It is written by the thread that will be the program, into a file of its own, which is opened as long as the
 * host's /proc can be seen.
 */
import { existsSync, openSync, writeSync } from 'node:fs';

/** A module that labels programs. */
export type LabelModule = 'apparmor' | 'selinux';

const FOLDER = '/proc/thread-self/attr';

/** Opens where a module is told; write to it by {@link setExecLabel}. */
export function openExecLabel(module: LabelModule): number {
  // AppArmor has a file of its own beside other modules (Linux 5.8); SELinux has the one that all shared before.
  const own = `${FOLDER}/${module}/exec`;
  return openSync(existsSync(own) ? own : `${FOLDER}/exec`, 'r+');
}

/** Says under which label the next execve happens. */
export function setExecLabel(fd: number, module: LabelModule, label: string): void {
  writeSync(fd, module === 'apparmor' ? `exec ${label}` : label);
}
