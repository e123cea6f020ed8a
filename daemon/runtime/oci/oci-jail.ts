/** One container of an OCI runtime. */
import { closeSync, constants as fsConstants, openSync } from 'node:fs';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '#common/clock';
import { DrydockError, errorMessage } from '#common/errors';
import type { Log } from '#common/log';
import { O_PATH, openResolved, RESOLVE_IN_ROOT } from '#common/native/mount';
import type { ProgramLabels } from '../../launch/protocol.ts';
import {
  type Identity,
  parseGroup,
  parsePasswd,
  readRegularFile,
  resolveIdentity,
} from '../../launch/users.ts';
import type { Cgroups } from '../linux/cgroup.ts';
import type { Launcher } from '../linux/launcher.ts';
import { processStartTime } from '../linux/proc-stat.ts';
import { signalNumber } from '../linux/signals.ts';
import { releaseStreams } from '../linux/streams.ts';
import type { Survivor } from '../linux/survivor.ts';
import { waitUntil } from '../linux/wait.ts';
import type { WardenPrograms } from '../linux/warden.ts';
import type { Jail, JailLimits, JailProcess, JailSpec, JailStats, ProcessSpec } from '../runtime.ts';
import { ociProcess, stringify } from './bundle.ts';
import { type Command, ociError, runToEnd } from './oci-command.ts';
import { OciProcess, type ProcessContext, waitForPid } from './oci-process.ts';

const DELETE_TIMEOUT_MS = 30_000;
/** Names the files of a container's first process. */
const MAIN = 'main';

/** What a jail needs of its runtime. */
export interface OciContext {
  labels: ProgramLabels;
  command: Command;
  stateRoot: string;
  cgroups: Cgroups;
  clock: Clock;
  log: Log;
  /** What starts containers that are to outlive the daemon; undefined: none is. */
  wardens: WardenPrograms | undefined;
  /** Called once, when nothing is left of it, or it goes on by itself. */
  forgotten(): void;
}

/** See the module's head. */
export class OciJail implements Jail {
  readonly id: string;
  readonly #spec: JailSpec;
  /** Holds the network namespace until the container has it. */
  #holder: Launcher | undefined;
  readonly #bundle: string;
  readonly #context: OciContext;
  readonly #processes = new Set<OciProcess>();
  #main: OciProcess | undefined;
  #execs = 0;
  #destruction: Promise<void> | undefined;

  /** @param holder undefined for a jail that goes on from an earlier daemon */
  constructor(spec: JailSpec, holder: Launcher | undefined, bundle: string, context: OciContext) {
    this.id = spec.id;
    this.#spec = spec;
    this.#holder = holder;
    this.#bundle = bundle;
    this.#context = context;
  }

  get pid(): number {
    return this.#main?.pid ?? this.#holder?.pid ?? 0;
  }

  get startTime(): string {
    return processStartTime(this.pid);
  }

  /** The numbers of those who mind its program. */
  get minders(): number[] {
    return this.#main?.minders ?? [];
  }

  async start(): Promise<JailProcess> {
    const args = ['run', '--bundle', this.#bundle];
    try {
      this.#main = await this.#launch(MAIN, this.#spec.process, args);
      return this.#expose(this.#main, this.#spec.process);
    } catch (error) {
      throw ociError(
        errorMessage(error),
        'failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process',
      );
    } finally {
      await this.#release();
    }
  }

  /** Goes on with the program that an earlier daemon has started. */
  takeUp(main: Survivor): JailProcess {
    this.#main = OciProcess.takeUp(main, this.#spec.process, this.#processContext());
    this.#processes.add(this.#main);
    return this.#expose(this.#main, this.#spec.process);
  }

  leave(): void {
    this.#destruction = Promise.resolve();
    for (const process of this.#processes) process.leave();
    this.#context.forgotten();
  }

  async exec(process: ProcessSpec): Promise<JailProcess> {
    if (!this.#main || this.#main.ended)
      throw new DrydockError('ERR_NOT_RUNNING', `container ${this.id} is not running`);
    // An earlier daemon has made files of the same kind.
    const name = `exec-${globalThis.process.pid}-${this.#execs++}`;
    const file = join(this.#bundle, `${name}.json`);
    try {
      await writeFile(
        file,
        stringify(ociProcess(process, identityIn(this.#spec.rootPath, process), this.#context.labels)),
      );
      return this.#expose(await this.#launch(name, process, ['exec', '--process', file]), process);
    } catch (error) {
      throw ociError(
        errorMessage(error),
        'OCI runtime exec failed: exec failed: unable to start container process',
      );
    }
  }

  async pause(): Promise<void> {
    await this.#context.cgroups.freeze(this.id, true);
  }

  async resume(): Promise<void> {
    await this.#context.cgroups.freeze(this.id, false);
  }

  async update(limits: JailLimits): Promise<void> {
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
    const { command, stateRoot, cgroups, clock } = this.#context;
    await this.#release();
    if (cgroups.list().includes(this.id)) cgroups.kill(this.id);
    for (const process of this.#processes) {
      await process.exited;
      releaseStreams(process.streams);
      process.free();
    }
    await runToEnd(command, ['--root', stateRoot, 'delete', '--force', this.id]);
    await waitUntil(clock, `the cgroups of ${this.id} to be free`, DELETE_TIMEOUT_MS, () => {
      if (!cgroups.list().includes(this.id)) return true;
      cgroups.kill(this.id);
      return cgroups.remove(this.id);
    });
    await rm(this.#bundle, { recursive: true, force: true });
    this.#context.forgotten();
  }

  /** The container has the network namespace now, or will not. */
  async #release(): Promise<void> {
    const holder = this.#holder;
    this.#holder = undefined;
    await holder?.abandon();
  }

  /** Runs the runtime in the foreground, and waits until it says which process it has started. */
  async #launch(name: string, spec: ProcessSpec, subcommand: string[]): Promise<OciProcess> {
    const { stateRoot, clock, cgroups } = this.#context;
    const pidFile = join(this.#bundle, `${name}.pid`);
    const logFile = join(this.#bundle, `${name}.log`);
    const options = ['--root', stateRoot, '--log', logFile, '--log-format', 'json'];
    const args = [...options, ...subcommand, '--pid-file', pidFile, this.id];
    const process = OciProcess.start(args, spec, name === MAIN, this.#processContext());
    try {
      const pid = await Promise.race([
        waitForPid(clock, pidFile),
        process.exited.then(async () => {
          // A program that ends at once may be quicker than our look.
          const text = await readFile(pidFile, 'utf8').catch(() => '');
          return text === '' ? Promise.reject(new Error(await lastError(logFile))) : Number(text);
        }),
      ]);
      process.identify(pid);
      if (cgroups.driver === 'none') {
        // The runtime makes none either: what belongs to the jail is what shares its namespace of processes.
        if (name === MAIN) cgroups.create(this.id, {}, undefined);
        await cgroups.add(this.id, pid);
      }
      this.#processes.add(process);
      return process;
    } catch (error) {
      await process.abandon();
      throw error;
    }
  }

  #processContext(): ProcessContext {
    const { command, clock, wardens, cgroups } = this.#context;
    const oomKills = (): number => (cgroups.list().includes(this.id) ? cgroups.oomKills(this.id) : 0);
    return { command, clock, wardens, oomKills };
  }

  #expose(process: OciProcess, spec: ProcessSpec): JailProcess {
    const { streams, exited, pid, survival } = process;
    return {
      pid,
      stdin: spec.stdin ? streams.stdin : undefined,
      stdout: streams.stdout,
      stderr: streams.stderr,
      exited,
      resize: (rows, columns) => process.resize(rows, columns),
      kill: (signal) => process.signal(signalNumber(signal)),
      ...(survival && { survival }),
    };
  }
}

/** What the runtime has logged last as an error. */
async function lastError(logFile: string): Promise<string> {
  const text = await readFile(logFile, 'utf8').catch(() => '');
  const errors = text
    .split('\n')
    .filter(Boolean)
    .map((line): { level?: string; msg?: string } => JSON.parse(line))
    .filter(({ level }) => level === 'error' || level === 'fatal');
  return errors.at(-1)?.msg ?? 'the OCI runtime ended without saying why';
}

/** Looks the user up in the image's files, which are opened without leaving its root. */
export function identityIn(rootPath: string, process: ProcessSpec): Identity {
  const rootFd = openSync(rootPath, O_PATH);
  const read = (path: string): string =>
    readRegularFile(path, () => openResolved(rootFd, path, fsConstants.O_NONBLOCK, RESOLVE_IN_ROOT));
  try {
    return resolveIdentity(
      process.user,
      process.groups,
      parsePasswd(read('/etc/passwd')),
      parseGroup(read('/etc/group')),
    );
  } finally {
    closeSync(rootFd);
  }
}
