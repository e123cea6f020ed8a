/**
 * Processes that a launcher has started into a jail and left to the daemon. A launcher that was started ahead of time
 * cannot move into another pid namespace itself, only its children are born there; so it starts the program and goes,
 * and the daemon, as the nearest subreaper (prctl(2)), becomes the program's parent.
 *
 * The daemon is a subreaper only while a launcher goes: else it would inherit, and never reap, what programs in
 * containers with the host's pid namespace leave behind.
 */
import { closeSync } from 'node:fs';
import { adoptOrphans, type ProcessEnd, reap } from '#common/native/child';
import { pidfdOpen, pidfdSignal } from '#common/native/process';
import type { Launcher } from './launcher.ts';

let adoptions = 0;
const awaited = new Map<number, (end: ProcessEnd) => void>();

function reapAll(): void {
  for (const [pidfd, tell] of awaited) {
    const end = reap(pidfd);
    if (!end) continue;
    awaited.delete(pidfd);
    tell(end);
  }
  if (awaited.size === 0) process.off('SIGCHLD', reapAll);
}

/** One such process. */
export class Adopted {
  readonly pid: number;
  /** Means this process for as long as it is open. */
  readonly pidfd: number;
  readonly exited: Promise<ProcessEnd>;

  /** Takes a launcher's child over, and ends the launcher. Until then the number is the child's for sure. */
  constructor(launcher: Launcher, pid: number) {
    this.pid = pid;
    this.pidfd = pidfdOpen(pid);
    if (adoptions++ === 0) adoptOrphans(true);
    this.exited = launcher.end().then(() => {
      if (--adoptions === 0) adoptOrphans(false);
      return new Promise((resolve) => {
        if (awaited.size === 0) process.on('SIGCHLD', reapAll);
        awaited.set(this.pidfd, resolve);
        // It may have ended before anybody listened.
        reapAll();
      });
    });
  }

  signal(signal: number): void {
    pidfdSignal(this.pidfd, signal);
  }

  close(): void {
    closeSync(this.pidfd);
  }
}
