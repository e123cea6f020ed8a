/**
 * Linux programs on a Mac, by an OCI runtime that brings their kernel along as a library, such as runu.
 *
 * It gets a bundle, as runc does on Linux, and stays in the foreground as the container. What it does not get is what a Mac has not:
 * namespaces, control groups, a network device. The library kernel is the only wall, and the report says so. The
 * runtime leads a process group of its own, which is what is stopped and killed.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { constants } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import type { Clock } from '#common/clock';
import { DrydockError, errorCode, errorMessage } from '#common/errors';
import { signalName, signalNumber } from '../linux/signals.ts';
import { stringify } from '../oci/bundle.ts';
import { type Command, ociError, requireRuntime, runToEnd } from '../oci/oci-command.ts';
import type { OciCommand, RuntimeOptions } from '../platform.ts';
import {
  type Jail,
  type JailProcess,
  type JailReportRow,
  type JailSpec,
  type JailStats,
  NO_LIMITS,
  type ProcessSpec,
  type Runtime,
} from '../runtime.ts';
import { bundleConfig, bundleProcess, bundleReport, checkBundle } from './bundle-plan.ts';

/** How long a runtime may take to know a container, and how often it is asked. */
const BEGIN_MS_MAX = 10_000;
const BEGIN_POLL_MS = 20;

/** See {@link Runtime}. */
export class BundleRuntime implements Runtime {
  readonly name: string;
  readonly #command: Command;
  readonly #root: string;
  readonly #clock: Clock;
  readonly #jails = new Map<string, BundleJail>();

  constructor(
    { name, command, args = [] }: OciCommand,
    { execRoot, clock }: Pick<RuntimeOptions, 'execRoot' | 'clock'>,
  ) {
    this.name = name;
    this.#command = [command, ...args];
    this.#root = join(execRoot, `oci-${name}`);
    this.#clock = clock;
  }

  async open(): Promise<void> {
    await requireRuntime(this.#command);
    await mkdir(this.#state, { recursive: true, mode: 0o700 });
  }

  async create(spec: JailSpec): Promise<Jail> {
    checkBundle(spec);
    const bundle = join(this.#root, 'bundles', spec.id);
    await mkdir(bundle, { recursive: true, mode: 0o700 });
    await writeFile(join(bundle, 'config.json'), stringify(bundleConfig(spec)));
    const jail = new BundleJail(spec, bundle, {
      command: [...this.#command, '--root', this.#state],
      clock: this.#clock,
      forgotten: () => this.#jails.delete(spec.id),
    });
    this.#jails.set(spec.id, jail);
    return jail;
  }

  report(spec: JailSpec): JailReportRow[] {
    checkBundle(spec);
    return bundleReport(spec);
  }

  info(): ReturnType<Runtime['info']> {
    return {
      cgroupVersion: '2',
      cgroupDriver: 'none',
      securityOptions: [],
      warnings: [],
      runtimes: {},
      defaultRuntime: this.name,
      limits: NO_LIMITS,
    };
  }

  async sweep(): Promise<string[]> {
    const done: string[] = [];
    for (const id of await readdir(this.#state).catch(() => [])) {
      if (this.#jails.has(id)) continue;
      const { code } = await runToEnd(this.#command, ['--root', this.#state, 'delete', '--force', id]);
      if (code === 0) done.push(`deleted what ${this.name} had of container ${id.slice(0, 12)}`);
      await rm(join(this.#root, 'bundles', id), { recursive: true, force: true });
    }
    return done;
  }

  async close(): Promise<void> {
    await Promise.all([...this.#jails.values()].map((jail) => jail.destroy()));
    await rm(this.#root, { recursive: true, force: true });
  }

  get #state(): string {
    return join(this.#root, 'state');
  }
}

/** What a jail needs of its runtime. */
interface JailParts {
  command: Command;
  clock: Clock;
  /** Called when nothing is left of the jail. */
  forgotten(): void;
}

class BundleJail implements Jail {
  readonly id: string;
  /** Nothing outlives its daemon by this. */
  readonly startTime = '';
  readonly #spec: JailSpec;
  readonly #bundle: string;
  readonly #parts: JailParts;
  readonly #children = new Set<ChildProcess>();
  #main: ChildProcess | undefined;
  #begun: Promise<void> | undefined;
  #execs = 0;
  #destruction: Promise<void> | undefined;

  constructor(spec: JailSpec, bundle: string, parts: JailParts) {
    this.id = spec.id;
    this.#spec = spec;
    this.#bundle = bundle;
    this.#parts = parts;
  }

  get pid(): number {
    return this.#main?.pid ?? 0;
  }

  async start(): Promise<JailProcess> {
    const [child, process] = await this.#spawn(
      ['run', '--bundle', this.#bundle, this.id],
      this.#spec.process,
    );
    this.#main = child;
    // What the container's end leaves of its further processes ends with it.
    child.once('exit', () => this.#signal('SIGKILL'));
    return process;
  }

  async exec(process: ProcessSpec): Promise<JailProcess> {
    this.#begun ??= this.#waitForBegin();
    await this.#begun;
    if (this.#hasEnded()) throw new DrydockError('ERR_NOT_RUNNING', `container ${this.id} is not running`);
    const file = join(this.#bundle, `exec-${this.#execs++}.json`);
    await writeFile(file, stringify(bundleProcess(process)));
    const [, running] = await this.#spawn(['exec', '--process', file, this.id], process);
    return running;
  }

  #hasEnded(): boolean {
    return !this.#main || this.#main.exitCode !== null || this.#main.signalCode !== null;
  }

  /** Waits until the runtime can run something more in the container: `run` does not say when that is, `state` does. */
  async #waitForBegin(): Promise<void> {
    const { command, clock } = this.#parts;
    const deadline = clock.now() + BEGIN_MS_MAX;
    while (!this.#hasEnded() && clock.now() < deadline) {
      const { code } = await runToEnd(command, ['state', this.id]);
      if (code === 0) return;
      await new Promise<void>((resolve) => clock.arm(clock.now() + BEGIN_POLL_MS, resolve));
    }
  }

  async #spawn(args: string[], { stdin }: ProcessSpec): Promise<[ChildProcess, JailProcess]> {
    const [program, ...before] = this.#parts.command;
    const child = spawn(program, [...before, ...args], {
      cwd: '/',
      detached: true,
      stdio: [stdin ? 'pipe' : 'ignore', 'pipe', 'pipe'],
    });
    try {
      await new Promise<void>((resolve, reject) => {
        child.once('spawn', resolve);
        child.once('error', reject);
      });
    } catch (error) {
      throw ociError(errorMessage(error), 'failed to create task for container');
    }
    this.#children.add(child);
    const exited = new Promise<Awaited<JailProcess['exited']>>((resolve) => {
      child.once('exit', (code, signal) => {
        this.#children.delete(child);
        const number = signal === null ? undefined : constants.signals[signal];
        resolve({
          code: number === undefined ? (code ?? 0) : 128 + number,
          signal: number === undefined ? undefined : signalName(number),
          oomKilled: false,
        });
      });
    });
    const process: JailProcess = {
      pid: child.pid!,
      stdin: child.stdin ?? undefined,
      // Paused until read, as jails' streams are.
      stdout: child.stdout!.pipe(new PassThrough()),
      stderr: child.stderr!.pipe(new PassThrough()),
      exited,
      resize: () => {},
      kill: (signal) => signalGroup(child, signalNumber(signal)),
    };
    return [child, process];
  }

  async pause(): Promise<void> {
    this.#signal('SIGSTOP');
  }

  async resume(): Promise<void> {
    this.#signal('SIGCONT');
  }

  async update(): Promise<void> {}

  async pids(): Promise<number[]> {
    return [...this.#children].map(({ pid }) => pid!);
  }

  async stats(): Promise<JailStats> {
    return { ...NO_STATS, pids: this.#children.size };
  }

  destroy(): Promise<void> {
    this.#destruction ??= this.#destroy();
    return this.#destruction;
  }

  async #destroy(): Promise<void> {
    const ended = [...this.#children].map((child) => new Promise((resolve) => child.once('exit', resolve)));
    this.#signal('SIGKILL');
    await Promise.all(ended);
    await runToEnd(this.#parts.command, ['delete', '--force', this.id]);
    await rm(this.#bundle, { recursive: true, force: true });
    this.#parts.forgotten();
  }

  #signal(name: 'SIGSTOP' | 'SIGCONT' | 'SIGKILL'): void {
    for (const child of this.#children) signalGroup(child, constants.signals[name]);
  }
}

/** The runtime, and what it has started. */
function signalGroup({ pid }: ChildProcess, number: number): void {
  try {
    process.kill(-pid!, number);
  } catch (error) {
    if (errorCode(error) !== 'ESRCH') throw error;
  }
}

/** Nobody counts for such a container. */
const NO_STATS: JailStats = {
  cpuTotalNs: 0,
  cpuUserNs: 0,
  cpuSystemNs: 0,
  throttledPeriods: 0,
  throttledNs: 0,
  periods: 0,
  memoryBytes: 0,
  memoryMaxBytes: 0,
  memoryLimitBytes: 0,
  memoryStat: {},
  pids: 0,
  pidsLimit: 0,
  blkioReadBytes: 0,
  blkioWriteBytes: 0,
};
