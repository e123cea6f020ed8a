/**
 * The daemon's side of a launcher: starting one in the right pid namespace and speaking with it over its channel.
 * See daemon/launch/protocol.ts for what is said.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync } from 'node:fs';
import type { Socket } from 'node:net';
import { constants as osConstants } from 'node:os';
import { compiledEntry } from '#common/entry';
import { DrydockError, errorCode } from '#common/errors';
import { endOf, type ProcessEnd } from '#common/native/child';
import { AT_FDCWD, cloneTree, MOUNT_ATTR_RDONLY, setMountAttributes } from '#common/native/mount';
import { withPidNamespace } from '#common/native/namespace';
import { pidfdGetFd, pidfdOpen, pidfdSignal } from '#common/native/process';
import { LauncherChannel } from '../launcher-channel.ts';
import { linuxStreams } from './stream-system.ts';
import { PipeSet } from './streams.ts';
import { type Warden, WardenPrograms } from './warden.ts';

/** What a launcher that died may have said about it. */
const LAST_WORDS_BYTES_MAX = 4096;

/** Where a launcher is started. */
export type Birthplace = { kind: 'host' } | { kind: 'new' } | { kind: 'inside'; pidfd: number };

/**
 * The program that launchers run: Node, seen through a read-only mount that is attached nowhere. A launcher works
 * inside containers, and a container's root could otherwise write to the host's Node through /proc/PID/exe or an
 * interpreter line `#!/proc/self/exe` (as with runc, CVE-2019-5736).
 */
export class LauncherProgram {
  readonly #nodeFd: number;
  readonly #ownPidNamespace: number;
  /** What starts those launchers whose programs are to outlive the daemon. */
  readonly wardens: WardenPrograms;

  /**
   * @param ownPidNamespace an open /proc/self/ns/pid.
   * @param instance what tells this daemon's processes from those of others
   */
  constructor(ownPidNamespace: number, instance: string) {
    this.#ownPidNamespace = ownPidNamespace;
    this.wardens = new WardenPrograms(instance);
    this.#nodeFd = cloneTree(AT_FDCWD, process.execPath, false);
    setMountAttributes(this.#nodeFd, { set: MOUNT_ATTR_RDONLY, clear: 0, propagation: 0 }, false);
  }

  close(): void {
    closeSync(this.#nodeFd);
    this.wardens.close();
  }

  /** Starts a launcher, which waits, below a warden of its own. */
  startMinded(birthplace: Birthplace): Launcher {
    const pipes = new PipeSet(linuxStreams);
    const target = birthplace.kind === 'inside' ? birthplace.pidfd : undefined;
    const program = { nodeFd: this.#nodeFd, args: launcherArgs(), argv0: LAUNCHER_NAME };
    try {
      const { child, warden } = this.wardens.start(birthplace.kind, program, pipes, target);
      if (!warden) throw noLauncher(pipes.lastWords(LAST_WORDS_BYTES_MAX));
      return new Launcher(child, pipes, warden);
    } catch (error) {
      pipes.closeOwnEnds();
      throw error;
    } finally {
      pipes.closeChildEnds();
    }
  }

  /** Starts a launcher, which waits. Synchronous: see withPidNamespace. */
  start(birthplace: Birthplace): Launcher {
    const pipes = new PipeSet(linuxStreams);
    const target = birthplace.kind === 'inside' ? [birthplace.pidfd] : [];
    const start = (): ChildProcess =>
      spawn(`/proc/self/fd/${this.#nodeFd}`, launcherArgs(), {
        argv0: LAUNCHER_NAME,
        cwd: '/',
        env: {},
        // A session of its own: a Ctrl-C at the daemon's terminal is not for containers.
        detached: true,
        stdio: [...pipes.childEnds, 'pipe', ...target],
      });
    try {
      const child =
        birthplace.kind === 'host'
          ? start()
          : withPidNamespace(
              birthplace.kind === 'new' ? undefined : birthplace.pidfd,
              this.#ownPidNamespace,
              start,
            );
      return new Launcher(child, pipes);
    } catch (error) {
      pipes.closeOwnEnds();
      throw error;
    } finally {
      pipes.closeChildEnds();
    }
  }
}

const LAUNCHER_NAME = 'drydock-launch';

function launcherArgs(): string[] {
  return ['--no-warnings', compiledEntry('daemon/launch/main')];
}

function noLauncher(words: string): DrydockError {
  return new DrydockError(
    'ERR_JAIL',
    `The launcher cannot be started${words && ` (${words})`}: see that the machine has memory and processes left.`,
  );
}

/** One launcher, until it has become the container's program and after. */
export class Launcher {
  readonly pid: number;
  /** Means this process for as long as it is open, whatever becomes of its number. */
  readonly pidfd: number;
  readonly pipes: PipeSet;
  /** When the process has ended, as launcher or as the program. */
  readonly exited: Promise<ProcessEnd>;
  readonly channel: LauncherChannel;
  /** What the program will outlive the daemon by. */
  readonly warden: Warden | undefined;

  /** @param warden its parent, where that is not this process but `child` */
  constructor(child: ChildProcess, pipes: PipeSet, warden?: Warden) {
    child.on('error', () => {});
    if (child.pid === undefined) throw noLauncher('');
    this.pid = warden?.childPid ?? child.pid;
    this.warden = warden;
    this.pipes = pipes;
    // Not yet reaped, since Node reaps in its event loop: the number cannot have been given away.
    this.pidfd = pidfdOpen(this.pid);
    this.exited =
      warden?.ended ??
      new Promise((resolve) => {
        child.once('exit', (code, signal) => resolve(this.#endOf(code, signal)));
      });
    this.channel = new LauncherChannel(child.stdio[3] as Socket, () => this.#died());
  }

  /** Node has no names for real-time signals, and takes a death by one for an exit with code 0. */
  #endOf(code: number | null, signal: NodeJS.Signals | null): ProcessEnd {
    if (signal !== null) return { code: null, signal: osConstants.signals[signal] };
    return (code === 0 ? endOf(this.pidfd) : undefined) ?? { code, signal: null };
  }

  /** A descriptor of the launcher, copied here. */
  takeDescriptor(fd: number): number {
    return pidfdGetFd(this.pidfd, fd);
  }

  signal(signal: number): void {
    try {
      pidfdSignal(this.pidfd, signal);
    } catch (error) {
      // A warden reaps at once, so that the end may not have been heard of here yet.
      if (!this.warden || errorCode(error) !== 'ESRCH') throw error;
    }
  }

  /** Ends a launcher that has not become a program, and frees what belongs to it. */
  async abandon(): Promise<void> {
    await this.end();
    this.pipes.closeOwnEnds();
  }

  /** The same for one whose pipes go on, since it has started its program as a child. */
  async end(): Promise<void> {
    try {
      this.signal(osConstants.signals.SIGKILL);
    } catch {
      // It is gone already.
    }
    await this.exited;
    this.channel.destroy();
    this.close();
  }

  /** Frees what belongs to it, after the end of the process. */
  close(): void {
    closeSync(this.pidfd);
    this.warden?.process.dismiss();
  }

  async #died(): Promise<DrydockError> {
    const { code, signal } = await this.exited;
    const words = this.pipes.lastWords(LAST_WORDS_BYTES_MAX);
    return new DrydockError(
      'ERR_JAIL',
      `The launcher ended before its time (${signal === null ? `exit code ${code}` : `signal ${signal}`})${words && `: ${words}`}. ` +
        'See that the machine has memory left and that the memory limit is at least 6 MB.',
    );
  }
}
