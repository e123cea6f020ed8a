/**
 * Launchers that are started ahead of time, since starting Node is the longest part of a launch: one that is process 1
 * of a new pid namespace, for the next container, and, while containers run, one in the daemon's own pid namespace, for
 * the next process that joins a container.
 */
import { writeFileSync } from 'node:fs';
import { setPriority } from 'node:os';
import type { Clock, Timer } from '#common/clock';
import { errorCode, errorMessage } from '#common/errors';
import type { Log } from '#common/log';
import { inUserNamespace } from '#common/user-namespace';
import type { Launcher, LauncherProgram } from './launcher.ts';

/** How long the launcher for joining is kept after the last container: scripts start the next one soon. */
const JOINER_IDLE_MS = 60_000;

/** A spare starts while others work, and must not be in their way. */
const WAITING_NICENESS = 15;

/**
 * Sets the niceness of a process, and of its session where the kernel schedules by sessions (sched(7), autogroup): there
 * that of the process counts only within the session.
 */
function setNiceness(pid: number, niceness: number): void {
  // Nobody but the machine's root may take a niceness back.
  if (inUserNamespace) return;
  try {
    setPriority(pid, niceness);
    writeFileSync(`/proc/${pid}/autogroup`, String(niceness));
  } catch (error) {
    // Only a kernel without autogroups, or a process that has ended, which whoever takes the spare will notice.
    if (!['ENOENT', 'ERR_SYSTEM_ERROR'].includes(errorCode(error) ?? '')) throw error;
  }
}

type Kind = 'new' | 'host';

/** Launchers in waiting. */
export class Spares {
  readonly #program: LauncherProgram;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #isMinded: boolean;
  readonly #waiting = new Map<Kind, Launcher>();
  #idle: Timer | undefined;
  #closed = false;

  /** @param isMinded whether launchers for containers are below a warden */
  constructor(program: LauncherProgram, clock: Clock, log: Log, isMinded: boolean) {
    this.#isMinded = isMinded;
    this.#program = program;
    this.#clock = clock;
    this.#log = log;
  }

  /** A spare, if there is one. */
  take(kind: Kind): Launcher | undefined {
    const spare = this.#waiting.get(kind);
    this.#waiting.delete(kind);
    if (!spare) return undefined;
    spare.channel.ref();
    setNiceness(spare.pid, 0);
    return spare;
  }

  /** Starts what is missing. Called when a launch is over, so as not to compete with it. */
  refill(containers: number): void {
    this.#ensure('new');
    this.#idle?.cancel();
    this.#idle = undefined;
    if (containers > 0) this.#ensure('host');
    else if (this.#waiting.has('host'))
      this.#idle = this.#clock.arm(
        this.#clock.now() + JOINER_IDLE_MS,
        () => void this.take('host')?.abandon(),
      );
  }

  #ensure(kind: Kind): void {
    if (this.#closed || this.#waiting.has(kind)) return;
    try {
      const isMinded = this.#isMinded && kind === 'new';
      const spare = isMinded ? this.#program.startMinded({ kind }) : this.#program.start({ kind });
      spare.channel.unref();
      setNiceness(spare.pid, WAITING_NICENESS);
      this.#waiting.set(kind, spare);
      void spare.exited.then(({ code, signal }) => {
        if (this.#waiting.get(kind) !== spare) return;
        this.#waiting.delete(kind);
        this.#log.warn({ code, signal }, 'a spare launcher ended');
        void spare.abandon();
      });
    } catch (error) {
      // The next launch starts its launcher itself, and reports what is wrong.
      this.#log.warn({ error: errorMessage(error) }, 'no spare launcher');
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#idle?.cancel();
    await Promise.all([this.take('new')?.abandon(), this.take('host')?.abandon()]);
  }
}
