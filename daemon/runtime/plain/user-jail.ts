/**
 * A jail whose processes are known by their user: kill, pause, statistics and limits for all of them, the same on every
 * platform. How a process is started and confined is the platform's ({@link JailHost}).
 */
import type { Clock } from '#common/clock';
import { assert, DrydockError } from '#common/errors';
import type { ProcessEnd } from '#common/native/child';
import { signalName, signalNumber } from '../linux/signals.ts';
import { type ProcessStreams, releaseStreams } from '../linux/streams.ts';
import { waitUntil } from '../linux/wait.ts';
import type {
  ExitStatus,
  Jail,
  JailLimits,
  JailProcess,
  JailSpec,
  JailStats,
  ProcessSpec,
} from '../runtime.ts';
import { totalUsage, type UserProcesses, userStats } from './user-processes.ts';

const DESTROY_TIMEOUT_MS = 30_000;
/** How often memory is looked at while there is a limit. */
const MEMORY_LOOK_MS = 200;

/** A process that is confined and waits to become the program. */
export interface PreparedProcess {
  readonly pid: number;
  /** Becomes the program. @throws DrydockError as Jail.start() */
  run(): Promise<RunningProcess>;
  /** Ends it and frees what it has, also after run() has thrown. */
  abandon(): Promise<void>;
}

/** A program that runs. */
export interface RunningProcess {
  readonly streams: ProcessStreams;
  readonly exited: Promise<ProcessEnd>;
  /** Only before `exited`. */
  signal(number: number): void;
  /** Frees what the daemon holds of it, after `exited`. */
  close(): void;
}

/** What a platform does for one jail. */
export interface JailHost {
  readonly processes: UserProcesses;
  startTime(pid: number): string;
  /** Starts a further process. @throws DrydockError */
  prepare(process: ProcessSpec): Promise<PreparedProcess>;
  /** Frees mounts and names of the jail, when none of its processes is left. */
  release(): Promise<void>;
}

/** See the module's head. */
export class UserJail implements Jail {
  readonly id: string;
  readonly pid: number;
  readonly startTime: string;
  readonly #spec: JailSpec;
  readonly #owner: number;
  readonly #first: PreparedProcess;
  readonly #host: JailHost;
  readonly #clock: Clock;
  readonly #running = new Set<RunningProcess>();
  #limits: JailLimits;
  #state: 'ready' | 'running' | 'destroyed' = 'ready';
  #firstEnded = false;
  #overLimit = false;
  #memoryMaxBytes = 0;
  #look: { cancel(): void } | undefined;
  #destruction: Promise<void> | undefined;

  constructor(spec: JailSpec, owner: number, first: PreparedProcess, host: JailHost, clock: Clock) {
    this.id = spec.id;
    this.pid = first.pid;
    this.startTime = host.startTime(first.pid);
    this.#spec = spec;
    this.#limits = spec.limits;
    this.#owner = owner;
    this.#first = first;
    this.#host = host;
    this.#clock = clock;
  }

  async start(): Promise<JailProcess> {
    assert(this.#state === 'ready', 'a jail starts once');
    this.#state = 'running';
    const running = await this.#runOrAbandon(this.#first);
    const process = this.#track(this.#first.pid, running, this.#spec.process, true);
    this.#watchMemory();
    return process;
  }

  async exec(process: ProcessSpec): Promise<JailProcess> {
    if (this.#state !== 'running' || this.#firstEnded) throw this.#notRunning();
    const prepared = await this.#host.prepare(process);
    // Born into a jail that has ended meanwhile, it would be nobody's.
    if (this.#firstEnded) {
      await prepared.abandon();
      throw this.#notRunning();
    }
    return this.#track(prepared.pid, await this.#runOrAbandon(prepared), process, false);
  }

  async pause(): Promise<void> {
    await this.#host.processes.signalAll(this.#owner, 'STOP');
  }

  async resume(): Promise<void> {
    await this.#host.processes.signalAll(this.#owner, 'CONT');
  }

  async update(limits: JailLimits): Promise<void> {
    this.#limits = { ...this.#limits, ...limits };
    if (this.#state === 'running' && !this.#firstEnded) this.#watchMemory();
  }

  async pids(): Promise<number[]> {
    return this.#host.processes.list(this.#owner);
  }

  async stats(): Promise<JailStats> {
    const usage = totalUsage(this.#host.processes, this.#owner);
    this.#memoryMaxBytes = Math.max(this.#memoryMaxBytes, usage.memoryBytes);
    return userStats(usage, this.#limits, this.#memoryMaxBytes);
  }

  destroy(): Promise<void> {
    this.#destruction ??= this.#destroy();
    return this.#destruction;
  }

  async #destroy(): Promise<void> {
    const started = this.#state === 'running';
    this.#state = 'destroyed';
    this.#look?.cancel();
    if (!started) await this.#first.abandon();
    await killAll(this.#host.processes, this.#owner, this.#clock, this.id);
    for (const running of this.#running) {
      await running.exited;
      releaseStreams(running.streams);
    }
    await this.#host.release();
  }

  #notRunning(): DrydockError {
    return new DrydockError('ERR_NOT_RUNNING', `container ${this.id} is not running`);
  }

  async #runOrAbandon(prepared: PreparedProcess): Promise<RunningProcess> {
    try {
      return await prepared.run();
    } catch (error) {
      await prepared.abandon();
      throw error;
    }
  }

  #track(pid: number, running: RunningProcess, spec: ProcessSpec, main: boolean): JailProcess {
    const { streams } = running;
    let ended = false;
    const exited = running.exited.then(async ({ code, signal }): Promise<ExitStatus> => {
      ended = true;
      running.close();
      if (main) await this.#mainEnded();
      else if (!streams.stdout.readable) this.#running.delete(running);
      return {
        code: signal === null ? (code ?? 0) : 128 + signal,
        signal: signal === null ? undefined : signalName(signal),
        oomKilled: this.#overLimit,
      };
    });
    this.#running.add(running);
    return {
      pid,
      stdin: spec.stdin ? streams.stdin : undefined,
      stdout: streams.stdout,
      stderr: streams.stderr,
      exited,
      resize: streams.resize,
      kill(signal) {
        const number = signalNumber(signal);
        if (!ended) running.signal(number);
      },
    };
  }

  /** The end of the first process is the end of all. */
  async #mainEnded(): Promise<void> {
    this.#firstEnded = true;
    this.#look?.cancel();
    await this.#host.processes.signalAll(this.#owner, 'KILL');
  }

  /** Looks at the memory of all, now and for as long as there is a limit and a program. */
  #watchMemory(): void {
    this.#look?.cancel();
    const { memoryBytes } = this.#limits;
    if (!memoryBytes) return;
    if (this.#isOverMemory(memoryBytes)) {
      this.#overLimit = true;
      void this.#host.processes.signalAll(this.#owner, 'KILL');
      return;
    }
    this.#look = this.#clock.arm(this.#clock.now() + MEMORY_LOOK_MS, () => this.#watchMemory());
  }

  #isOverMemory(memoryBytes: number): boolean {
    const { processes } = this.#host;
    try {
      if (processes.limitMemory)
        for (const pid of processes.list(this.#owner)) processes.limitMemory(pid, memoryBytes);
      const usage = totalUsage(processes, this.#owner);
      this.#memoryMaxBytes = Math.max(this.#memoryMaxBytes, usage.memoryBytes);
      return usage.memoryBytes > memoryBytes;
    } catch {
      // A system that does not answer now may at the next look.
      return false;
    }
  }
}

/** Kills the processes of a user until none is left. By number a process could be mistaken for another. */
export async function killAll(
  processes: UserProcesses,
  owner: number,
  clock: Clock,
  id: string,
): Promise<void> {
  if (processes.list(owner).length === 0) return;
  await processes.signalAll(owner, 'KILL');
  await waitUntil(
    clock,
    `the processes of ${id} to end`,
    DESTROY_TIMEOUT_MS,
    () => processes.list(owner).length === 0,
  );
}
