/**
 * One container's world on Linux. The launcher that prepared it becomes its process 1; further processes are
 * launchers of their own, born into its pid namespace and joined to the rest through a pidfd, so that no process
 * number is trusted twice. With `init`, process 1 only reaps, and the container's program is such a further process.
 */
import { closeSync } from 'node:fs';
import type { Clock } from '#common/clock';
import { assert, DrydockError, errorCode, SyscallError } from '#common/errors';
import type { Log } from '#common/log';
import type { ProcessEnd } from '#common/native/child';
import { terminalNumber } from '#common/native/tty';
import type { LandlockRules, ProgramLabels, SeccompFilter, ToLauncher } from '../../launch/protocol.ts';
import { LauncherFailed, launchError } from '../launcher-channel.ts';
import type {
  ExitStatus,
  Jail,
  JailLimits,
  JailProcess,
  JailSpec,
  JailStats,
  ProcessSpec,
  Survival,
} from '../runtime.ts';
import { Adopted } from './adopted.ts';
import type { Cgroups } from './cgroup.ts';
import type { Birthplace, Launcher, LauncherProgram } from './launcher.ts';
import { processStartTime } from './proc-stat.ts';
import { signalName, signalNumber } from './signals.ts';
import { linuxStreams } from './stream-system.ts';
import { openTerminalStreams, type PipeSet, type ProcessStreams, releaseStreams } from './streams.ts';
import type { Survivor } from './survivor.ts';
import { waitUntil } from './wait.ts';
import { type Holder, markOf, type Warden } from './warden.ts';

const DESTROY_TIMEOUT_MS = 30_000;
const CREATE_PREFIX =
  'failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process';
const EXEC_PREFIX = 'OCI runtime exec failed: exec failed: unable to start container process';

/** What a jail needs of its runtime. */
export interface JailContext {
  /** For processes that join. */
  filter: SeccompFilter;
  labels: ProgramLabels;
  /** For its main program only: see landlockOf. */
  landlock: LandlockRules | undefined;
  cgroups: Cgroups;
  program: LauncherProgram;
  /** A launcher outside of the jail's pid namespace, if one is ready. */
  takeJoiner(): Launcher | undefined;
  clock: Clock;
  log: Log;
  /** Called when the jail has started or will not, and when a further process has. */
  settled(): void;
  /** Called once, when nothing is left of it, or it goes on by itself. */
  forgotten(): void;
}

/** A process of a jail, however it came to be. */
interface Launched {
  readonly pid: number;
  readonly pidfd: number;
  readonly exited: Promise<ProcessEnd>;
  /** What it outlives the daemon by. */
  readonly warden?: Warden | undefined;
  signal(signal: number): void;
  close(): void;
}

/** A first process that is still to become a program, and the master of its terminal. */
interface Unstarted {
  launcher: Launcher;
  terminal: number | undefined;
}

/** See {@link Jail}. */
export class LinuxJail implements Jail {
  readonly id: string;
  readonly pid: number;
  readonly startTime: string;
  readonly #spec: JailSpec;
  readonly #context: JailContext;
  readonly #first: Launched;
  readonly #unstarted: Unstarted | undefined;
  #warden: Warden | undefined;
  #holder: Holder | undefined;
  readonly #processes = new Set<Running>();
  #limits: JailLimits;
  #state: 'ready' | 'running' | 'destroyed' = 'ready';
  #destruction: Promise<void> | undefined;

  /** @param unstarted undefined for a jail that goes on from an earlier daemon */
  constructor(spec: JailSpec, first: Launched, context: JailContext, unstarted?: Unstarted) {
    this.id = spec.id;
    this.pid = first.pid;
    this.startTime = processStartTime(first.pid);
    this.#spec = spec;
    this.#limits = spec.limits;
    this.#first = first;
    this.#unstarted = unstarted;
    this.#context = context;
  }

  /** Whether its users are others than the machine's. */
  get isMapped(): boolean {
    return this.#spec.userMaps !== undefined;
  }

  /** A descriptor of process 1, for those who join its namespaces. */
  get pidfd(): number {
    return this.#first.pidfd;
  }

  /** The numbers of those who mind the program. */
  get minders(): number[] {
    return [this.#warden, this.#holder].flatMap((minder) => minder?.process.mark.pid ?? []);
  }

  async start(): Promise<JailProcess> {
    assert(this.#state === 'ready' && this.#unstarted, 'a jail starts once');
    this.#state = 'running';
    try {
      return await this.#launch(this.#unstarted);
    } catch (error) {
      throw launchError(error, CREATE_PREFIX);
    } finally {
      this.#context.settled();
    }
  }

  async #launch({ launcher, terminal }: Unstarted): Promise<JailProcess> {
    const { init, process } = this.#spec;
    try {
      // Not earlier: the launcher that becomes this jail's process needs more memory than the smallest limit.
      const isLimited = this.#limit();
      launcher.channel.send({ type: 'run' });
      await launcher.channel.expect('executing');
      await launcher.channel.gone();
      // The launcher's memory went with its program.
      if (!isLimited) this.#context.cgroups.update(this.id, this.#limits);
    } catch (error) {
      launcher.pipes.closeOwnEnds();
      if (terminal !== undefined) closeSync(terminal);
      throw error;
    }
    if (!init) return this.#track(launcher, launcher.pipes, process, terminal, true);
    launcher.pipes.closeOwnEnds();
    try {
      return await this.#join(process, true, terminal);
    } catch (error) {
      if (terminal !== undefined) closeSync(terminal);
      throw error;
    }
  }

  /** Sets the limits, if the launcher fits into them: cgroup v1 takes no memory limit that is below what is used. */
  #limit(): boolean {
    try {
      this.#context.cgroups.update(this.id, this.#limits);
      return true;
    } catch (error) {
      if (errorCode(error) !== 'EBUSY') throw error;
      return false;
    }
  }

  async exec(process: ProcessSpec): Promise<JailProcess> {
    if (this.#state !== 'running') throw this.#notRunning();
    try {
      return await this.#join(process, false);
    } catch (error) {
      throw launchError(error, EXEC_PREFIX);
    } finally {
      this.#context.settled();
    }
  }

  async pause(): Promise<void> {
    await this.#context.cgroups.freeze(this.id, true);
  }

  async resume(): Promise<void> {
    await this.#context.cgroups.freeze(this.id, false);
  }

  async update(limits: JailLimits): Promise<void> {
    this.#limits = { ...this.#limits, ...limits };
    this.#context.cgroups.update(this.id, limits);
  }

  async pids(): Promise<number[]> {
    return this.#context.cgroups.pids(this.id);
  }

  async stats(): Promise<JailStats> {
    return this.#context.cgroups.stats(this.id);
  }

  destroy(): Promise<void> {
    this.#destruction ??= this.#destroy();
    return this.#destruction;
  }

  async #destroy(): Promise<void> {
    const started = this.#state === 'running';
    this.#state = 'destroyed';
    const { cgroups, clock } = this.#context;
    if (!started && this.#unstarted) {
      const { launcher, terminal } = this.#unstarted;
      if (terminal !== undefined) closeSync(terminal);
      await launcher.abandon();
    }
    await waitUntil(clock, `the processes of ${this.id} to end`, DESTROY_TIMEOUT_MS, () => {
      cgroups.kill(this.id);
      return cgroups.pids(this.id).length === 0;
    });
    for (const process of this.#processes) {
      await process.exited;
      releaseStreams(process.streams);
    }
    if (started) {
      await this.#first.exited;
      this.#first.close();
    }
    this.#holder?.process.dismiss();
    await waitUntil(clock, `the cgroups of ${this.id} to be free`, DESTROY_TIMEOUT_MS, () =>
      cgroups.remove(this.id),
    );
    if (!started) this.#context.settled();
    this.#context.forgotten();
  }

  /** Launches a further process into the jail. @param given the master of the terminal that it is to have */
  async #join(spec: ProcessSpec, main: boolean, given?: number): Promise<JailProcess> {
    // The program of a container with an init needs a warden too, which a launcher that is there already has not.
    const isMinded = main && this.#first.warden !== undefined;
    const outside = !isMinded && this.#canJoinFromOutside(spec) ? this.#context.takeJoiner() : undefined;
    if (outside) {
      try {
        return await this.#joinFromOutside(outside, spec, main);
      } catch (error) {
        if (!(error instanceof LauncherFailed && error.failure.kind === 'no-room')) throw error;
      }
    }
    const launcher = this.#startInside(isMinded);
    try {
      await this.#context.cgroups.add(this.id, launcher.pid);
      const maps = this.#spec.userMaps;
      launcher.channel.send({
        ...this.#joining(spec, main),
        ...(given !== undefined && { terminal: terminalNumber(given) }),
        ...(maps && { user: { pid: this.pid, maps } }),
      });
      const { terminalFd } = await launcher.channel.expect('ready');
      // The launcher took process 1 by its number: it is still the same one.
      if (maps && processStartTime(this.pid) !== this.startTime) throw this.#notRunning();
      const terminal = terminalFd === undefined ? given : launcher.takeDescriptor(terminalFd);
      launcher.channel.send({ type: 'run' });
      await launcher.channel.expect('executing');
      await launcher.channel.gone();
      return this.#track(launcher, launcher.pipes, spec, terminal, main);
    } catch (error) {
      await launcher.abandon();
      throw error;
    }
  }

  /** What every launcher that joins is told. */
  #joining(process: ProcessSpec, main: boolean): ToLauncher & { type: 'join' } {
    const { filter, labels, landlock } = this.#context;
    return { type: 'join', process, filter, labels, ...(main && landlock && { landlock }) };
  }

  /**
   * A terminal must be taken by the leader of its session, and limits or a filter of the user's could forbid the one more
   * process that a launcher outside is. Into a user namespace a program enters by itself, which a child cannot be told.
   */
  #canJoinFromOutside(spec: ProcessSpec): boolean {
    const { seccomp, userMaps } = this.#spec;
    if (userMaps) return false;
    return !spec.terminal && spec.rlimits.length === 0 && (seccomp === undefined || seccomp === 'unconfined');
  }

  async #joinFromOutside(launcher: Launcher, spec: ProcessSpec, main: boolean): Promise<JailProcess> {
    try {
      await this.#context.cgroups.add(this.id, launcher.pid);
      launcher.channel.send({ ...this.#joining(spec, main), target: this.pid });
      await launcher.channel.expect('ready');
      // The launcher took process 1 by its number: it is still the same one.
      if (processStartTime(this.pid) !== this.startTime) throw this.#notRunning();
      launcher.channel.send({ type: 'run' });
      const { pid } = await launcher.channel.expect('executing');
      // The kernel did not take the program: the launcher says so in its place, and ends.
      if (pid === undefined) return this.#track(launcher, launcher.pipes, spec, undefined, main);
      return this.#track(new Adopted(launcher, pid), launcher.pipes, spec, undefined, main);
    } catch (error) {
      await launcher.abandon();
      throw processStartTime(this.pid) === this.startTime ? error : this.#notRunning();
    }
  }

  #startInside(isMinded: boolean): Launcher {
    const { program } = this.#context;
    const birthplace: Birthplace = { kind: 'inside', pidfd: this.#first.pidfd };
    try {
      return isMinded ? program.startMinded(birthplace) : program.start(birthplace);
    } catch (error) {
      // A pid namespace whose process 1 has ended takes no more processes.
      if (processStartTime(this.pid) !== this.startTime || error instanceof SyscallError)
        throw this.#notRunning();
      throw error;
    }
  }

  #notRunning(): DrydockError {
    return new DrydockError('ERR_NOT_RUNNING', `container ${this.id} is not running`);
  }

  #track(
    launched: Launched,
    pipes: PipeSet,
    spec: ProcessSpec,
    terminal: number | undefined,
    main: boolean,
  ): JailProcess {
    // Before the streams take over what it is to hold.
    const held = terminal ?? (spec.stdin ? pipes.input : undefined);
    if (main && launched.warden && held !== undefined)
      this.#holder = this.#context.program.wardens.hold(held);
    if (terminal === undefined) return this.#follow(launched, pipes.open(spec.stdin), spec, main);
    pipes.closeOwnEnds();
    const streams = openTerminalStreams(terminal, this.#context.clock, linuxStreams);
    return this.#follow(launched, streams, spec, main);
  }

  /** Goes on with the program that an earlier daemon has started. */
  takeUp(main: Survivor): JailProcess {
    this.#state = 'running';
    const { process } = this.#spec;
    this.#holder = main.holder;
    return this.#follow(main, main.openStreams(process.terminal, this.#context.clock), process, true);
  }

  leave(): void {
    this.#state = 'destroyed';
    this.#destruction = Promise.resolve();
    for (const { streams } of this.#processes) streams.destroy();
    this.#warden?.process.leave();
    this.#holder?.process.leave();
    this.#context.forgotten();
  }

  #follow(launched: Launched, streams: ProcessStreams, spec: ProcessSpec, main: boolean): JailProcess {
    const { warden } = launched;
    if (main) {
      this.#warden = warden;
      // Else the program would never read the end.
      if (!spec.terminal) streams.stdin?.once('close', () => this.#inputEnded());
    }
    const survival = main && warden ? this.#survival(launched.pid, warden) : undefined;
    const exited = launched.exited.then(({ code, signal }): ExitStatus => {
      const oomKilled = this.#oomKills() > 0;
      running.ended = true;
      // The end of the first process is the end of the others; where they share no pid namespace, or process 1 is an
      // init, that does not happen by itself.
      if (main && this.#state === 'running') this.#context.cgroups.kill(this.id);
      if (launched !== this.#first) launched.close();
      return {
        code: signal === null ? (code ?? 0) : 128 + signal,
        signal: signal === null ? undefined : signalName(signal),
        oomKilled,
      };
    });
    const running: Running = { exited, streams, ended: false };
    this.#processes.add(running);
    if (!main) void this.#forget(running);
    return {
      pid: launched.pid,
      stdin: spec.stdin ? streams.stdin : undefined,
      stdout: streams.stdout,
      stderr: streams.stderr,
      exited,
      resize: streams.resize,
      kill(signal) {
        const number = signalNumber(signal);
        if (!running.ended) launched.signal(number);
      },
      ...(survival && { survival }),
    };
  }

  #survival(pid: number, warden: Warden): Survival {
    const main = pid === this.pid ? { pid, startTime: this.startTime } : markOf(pid);
    const holder = this.#holder && { holder: this.#holder.process.mark };
    return { main, warden: warden.process.mark, ...holder };
  }

  /** Closed by a client or by the program, but not by a daemon that leaves. */
  #inputEnded(): void {
    if (this.#state === 'running') this.#holder?.process.dismiss();
  }

  /** A further process that has ended, with its output read, is nothing to remember. */
  async #forget(running: Running): Promise<void> {
    await running.exited;
    const { stdout, stderr } = running.streams;
    const ended = (stream: typeof stderr): boolean => stream === undefined || stream.closed;
    const check = (): void => {
      if (!ended(stdout) || !ended(stderr)) return;
      running.streams.destroy();
      this.#processes.delete(running);
    };
    stdout.once('close', check);
    stderr?.once('close', check);
    check();
  }

  #oomKills(): number {
    try {
      return this.#context.cgroups.oomKills(this.id);
    } catch {
      return 0;
    }
  }
}

interface Running {
  exited: Promise<ExitStatus>;
  streams: ProcessStreams;
  ended: boolean;
}
