/**
 * Containers by any OCI runtime, as dockerd's `runtimes`: runc, crun, runsc, youki.
 *
 * The runtime's `run` stays in the foreground as the container's parent and passes its exit code on, which is what a
 * shim does for dockerd. The network namespace is made here first, by a launcher that only holds it, so that the
 * network can be attached before anything of the image runs. Control groups have the same names as with our own
 * runtime, so that pause, statistics and update are the same code.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, constants as fsConstants, openSync, readFileSync } from 'node:fs';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { constants } from 'node:os';
import { join } from 'node:path';
import type { Clock } from '#common/clock';
import { DrydockError, errorMessage } from '#common/errors';
import type { Log } from '#common/log';
import { O_PATH, openResolved, RESOLVE_IN_ROOT } from '#common/native/mount';
import { pidfdGetFd, pidfdOpen, pidfdSignal } from '#common/native/process';
import { openHostTerminal, setWindowSize } from '#common/native/tty';
import type { ProgramLabels } from '../../launch/protocol.ts';
import {
  type Identity,
  parseGroup,
  parsePasswd,
  readRegularFile,
  resolveIdentity,
} from '../../launch/users.ts';
import type { Cgroups } from '../linux/cgroup.ts';
import { openCgroups } from '../linux/cgroup-open.ts';
import { hostDevices } from '../linux/devices.ts';
import { type Launcher, LauncherProgram } from '../linux/launcher.ts';
import { effectiveSpec } from '../linux/plan.ts';
import { processStartTime } from '../linux/proc-stat.ts';
import { knownLimits, limitWarnings, reportSpec } from '../linux/report.ts';
import { compileContext, profileOf } from '../linux/seccomp/filter.ts';
import { ownModules } from '../linux/security/apparmor.ts';
import {
  moduleOptions,
  moduleWarnings,
  programLabels,
  type SecurityModules,
} from '../linux/security/modules.ts';
import { signalNumber } from '../linux/signals.ts';
import { linuxStreams } from '../linux/stream-system.ts';
import { openTerminalStreams, PipeSet, type ProcessStreams, releaseStreams } from '../linux/streams.ts';
import { waitUntil } from '../linux/wait.ts';
import type { OciCommand, RuntimeOptions } from '../platform.ts';
import type {
  ExitStatus,
  Jail,
  JailLimits,
  JailProcess,
  JailReportRow,
  JailSpec,
  JailStats,
  ProcessSpec,
  Runtime,
} from '../runtime.ts';
import { ociConfig, ociProcess, stringify } from './bundle.ts';

const START_TIMEOUT_MS = 60_000;
const DELETE_TIMEOUT_MS = 30_000;

/** See {@link Runtime}. */
export class OciRuntime implements Runtime {
  readonly name: string;
  readonly #command: Command;
  readonly #options: RuntimeOptions;
  readonly #jails = new Map<string, OciJail>();
  #cgroups: Cgroups | undefined;
  #program: LauncherProgram | undefined;
  #ownPidNamespace = -1;
  #modules: SecurityModules | undefined;

  constructor(oci: OciCommand, options: RuntimeOptions) {
    this.name = oci.name;
    this.#command = [oci.command, ...(oci.args ?? [])];
    this.#options = options;
  }

  async open(): Promise<void> {
    const { code, output } = await runToEnd(this.#command, ['--version']);
    if (code !== 0)
      throw new DrydockError(
        'ERR_OCI_RUNTIME',
        `The OCI runtime ${this.#command[0]} cannot be run (${output.trim()}): install it or correct its path.`,
      );
    this.#ownPidNamespace = openSync('/proc/self/ns/pid', 'r');
    this.#program = new LauncherProgram(this.#ownPidNamespace, this.#options.instance);
    await mkdir(this.#stateRoot, { recursive: true, mode: 0o700 });
  }

  async create(wish: JailSpec): Promise<Jail> {
    refuseUserMaps(wish);
    const labels = programLabels(wish, this.#requireModules());
    const spec = effectiveSpec(wish, hostDevices);
    const cgroups = this.#requireCgroups();
    cgroups.place(spec.id, spec.cgroupParent);
    const holder = this.#requireProgram().start({ kind: 'host' });
    try {
      holder.channel.send({
        type: 'hold',
        namespaces: { ...HOST_NAMESPACES, network: spec.namespaces.network },
      });
      await holder.channel.expect('unshared');
      const seccomp = profileOf(spec);
      const config = ociConfig(spec, {
        identity: identityIn(spec.rootPath, spec.process),
        labels,
        networkPath: `/proc/${holder.pid}/ns/net`,
        cgroupsPath: cgroups.driver === 'none' ? undefined : cgroups.pathOf(spec.id),
        seccomp: seccomp && { profile: seccomp, context: compileContext(spec) },
      });
      const bundle = join(this.#stateRoot, 'bundles', spec.id);
      await mkdir(bundle, { recursive: true, mode: 0o700 });
      await writeFile(join(bundle, 'config.json'), stringify(config));
      const jail = new OciJail(spec, holder, bundle, {
        labels,
        command: this.#command,
        stateRoot: join(this.#stateRoot, 'state'),
        cgroups,
        clock: this.#options.clock,
        log: this.#options.log,
        destroyed: () => void this.#jails.delete(spec.id),
      });
      this.#jails.set(spec.id, jail);
      return jail;
    } catch (error) {
      await holder.abandon();
      throw ociError(errorMessage(error), 'failed to create task for container');
    }
  }

  report(spec: JailSpec): JailReportRow[] {
    refuseUserMaps(spec);
    const rows = reportSpec(spec, this.#requireCgroups(), this.#requireModules());
    return rows.map((row) => {
      if (row.feature === 'Landlock')
        return { feature: row.feature, asked: 'none', got: 'none', how: 'OCI runtimes know nothing of it' };
      if (row.feature === 'init')
        return { ...row, got: 'none', how: 'an OCI runtime has no init of its own' };
      return { ...row, how: `${row.how} (by ${this.name})` };
    });
  }

  info(): ReturnType<Runtime['info']> {
    return {
      cgroupVersion: this.#requireCgroups().version,
      cgroupDriver: 'cgroupfs',
      securityOptions: [...moduleOptions(this.#requireModules()), 'name=seccomp,profile=builtin'],
      warnings: [...limitWarnings(this.#requireCgroups()), ...moduleWarnings(this.#requireModules())],
      limits: knownLimits(this.#requireCgroups()),
      runtimes: {},
      defaultRuntime: this.name,
    };
  }

  async sweep(): Promise<string[]> {
    const state = join(this.#stateRoot, 'state');
    const done: string[] = [];
    for (const id of await readdir(state).catch(() => [])) {
      if (this.#jails.has(id)) continue;
      const { code } = await runToEnd(this.#command, ['--root', state, 'delete', '--force', id]);
      if (code === 0) done.push(`deleted what ${this.name} had of container ${id.slice(0, 12)}`);
      await rm(join(this.#stateRoot, 'bundles', id), { recursive: true, force: true });
    }
    return done;
  }

  async close(): Promise<void> {
    await Promise.all([...this.#jails.values()].map((jail) => jail.destroy()));
    this.#program?.close();
    this.#cgroups?.close();
    if (this.#ownPidNamespace >= 0) closeSync(this.#ownPidNamespace);
    this.#ownPidNamespace = -1;
    await rm(this.#stateRoot, { recursive: true, force: true });
  }

  get #stateRoot(): string {
    return join(this.#options.execRoot, `oci-${this.name}`);
  }

  /** Opened when first asked for: report() comes before open(). */
  #requireCgroups(): Cgroups {
    this.#cgroups ??= openCgroups(this.#options.instance, this.#options.clock);
    return this.#cgroups;
  }

  #requireModules(): SecurityModules {
    this.#modules ??= { ...ownModules(), landlock: 0 };
    return this.#modules;
  }

  #requireProgram(): LauncherProgram {
    if (!this.#program) throw new Error('the runtime is not open');
    return this.#program;
  }
}

/** The namespaces are made here, before the runtime starts, and belong to no user namespace of its making. */
function refuseUserMaps({ userMaps }: JailSpec): void {
  if (!userMaps) return;
  throw new DrydockError(
    'ERR_JAIL_PROMISE',
    'userns-remap is for the runtime drydock: give --userns=host with another --runtime',
  );
}

const HOST_NAMESPACES: JailSpec['namespaces'] = {
  network: 'host',
  pid: 'host',
  ipc: 'host',
  uts: 'host',
  cgroup: 'host',
};

/** Names the files of a container's first process. */
const MAIN = 'main';

/** The program, and what comes before its subcommand. */
type Command = readonly [string, ...string[]];

interface OciContext {
  labels: ProgramLabels;
  command: Command;
  stateRoot: string;
  cgroups: Cgroups;
  clock: Clock;
  log: Log;
  destroyed(): void;
}

/** One container of an OCI runtime. */
class OciJail implements Jail {
  readonly id: string;
  readonly #spec: JailSpec;
  readonly #holder: Launcher;
  readonly #bundle: string;
  readonly #context: OciContext;
  readonly #processes = new Set<OciProcess>();
  #main: OciProcess | undefined;
  #holding = true;
  #execs = 0;
  #destruction: Promise<void> | undefined;

  constructor(spec: JailSpec, holder: Launcher, bundle: string, context: OciContext) {
    this.id = spec.id;
    this.#spec = spec;
    this.#holder = holder;
    this.#bundle = bundle;
    this.#context = context;
  }

  get pid(): number {
    return this.#main?.pid ?? this.#holder.pid;
  }

  get startTime(): string {
    return processStartTime(this.pid);
  }

  async start(): Promise<JailProcess> {
    const args = ['run', '--bundle', this.#bundle];
    try {
      this.#main = await this.#launch(MAIN, this.#spec.process, args, [this.id]);
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

  async exec(process: ProcessSpec): Promise<JailProcess> {
    if (!this.#main || this.#main.ended)
      throw new DrydockError('ERR_NOT_RUNNING', `container ${this.id} is not running`);
    const name = `exec-${this.#execs++}`;
    const file = join(this.#bundle, `${name}.json`);
    try {
      await writeFile(
        file,
        stringify(ociProcess(process, identityIn(this.#spec.rootPath, process), this.#context.labels)),
      );
      const started = await this.#launch(name, process, ['exec', '--process', file], [this.id]);
      return this.#expose(started, process);
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
    }
    await runToEnd(command, ['--root', stateRoot, 'delete', '--force', this.id]);
    await waitUntil(clock, `the cgroups of ${this.id} to be free`, DELETE_TIMEOUT_MS, () => {
      if (!cgroups.list().includes(this.id)) return true;
      cgroups.kill(this.id);
      return cgroups.remove(this.id);
    });
    await rm(this.#bundle, { recursive: true, force: true });
    this.#context.destroyed();
  }

  /** The container has the network namespace now, or will not. */
  async #release(): Promise<void> {
    if (!this.#holding) return;
    this.#holding = false;
    await this.#holder.abandon();
  }

  /** Runs the runtime in the foreground, and waits until it says which process it has started. */
  async #launch(name: string, spec: ProcessSpec, before: string[], after: string[]): Promise<OciProcess> {
    const { command, stateRoot, clock, cgroups } = this.#context;
    const pidFile = join(this.#bundle, `${name}.pid`);
    const logFile = join(this.#bundle, `${name}.log`);
    const options = ['--root', stateRoot, '--log', logFile, '--log-format', 'json'];
    const args = [...options, ...before, '--pid-file', pidFile, ...after];
    const process = startForeground(command, args, spec, clock, () => this.#oomKills());
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
      process.child.kill('SIGKILL');
      await process.exited;
      process.streams.destroy();
      throw error;
    }
  }

  #expose(process: OciProcess, spec: ProcessSpec): JailProcess {
    const { streams, exited, pid } = process;
    return {
      pid,
      stdin: spec.stdin ? streams.stdin : undefined,
      stdout: streams.stdout,
      stderr: streams.stderr,
      exited,
      resize: (rows, columns) => process.resize(rows, columns),
      kill: (signal) => process.signal(signalNumber(signal)),
    };
  }

  #oomKills(): number {
    return this.#context.cgroups.list().includes(this.id) ? this.#context.cgroups.oomKills(this.id) : 0;
  }
}

/** The runtime in the foreground, and the process that it has started. */
interface OciProcess {
  child: ChildProcess;
  streams: ProcessStreams;
  exited: Promise<ExitStatus>;
  ended: boolean;
  pid: number;
  identify(pid: number): void;
  signal(signal: number): void;
  resize(rows: number, columns: number): void;
}

function startForeground(
  [program, ...before]: Command,
  args: string[],
  spec: ProcessSpec,
  clock: Clock,
  oomKills: () => number,
): OciProcess {
  const start = (stdio: [number, number, number]): ChildProcess =>
    spawn(program, [...before, ...args], {
      stdio,
      detached: true,
      cwd: '/',
      env: { PATH: process.env.PATH },
    });
  let child: ChildProcess;
  let streams: ProcessStreams;
  if (spec.terminal) {
    const { master, slave } = openHostTerminal();
    if (spec.consoleSize) setWindowSize(master, spec.consoleSize.rows, spec.consoleSize.columns);
    child = start([slave, slave, slave]);
    closeSync(slave);
    streams = openTerminalStreams(master, clock, linuxStreams);
  } else {
    const pipes = new PipeSet(linuxStreams);
    child = start(pipes.childEnds);
    pipes.closeChildEnds();
    streams = pipes.open(spec.stdin);
  }
  let pidfd = -1;
  const started: OciProcess = {
    child,
    streams,
    ended: false,
    pid: 0,
    exited: new Promise((resolve) => {
      const end = (code: number): void => {
        if (started.ended) return;
        started.ended = true;
        if (pidfd >= 0) closeSync(pidfd);
        const signal = Object.entries(constants.signals).find(([, number]) => number === code - 128)?.[0];
        resolve({ code, signal, oomKilled: oomKills() > 0 });
      };
      child.once('exit', (code, signal) => end(signal === null ? (code ?? 0) : 128 + signalNumber(signal)));
      child.once('error', () => end(255));
    }),
    identify(pid) {
      started.pid = pid;
      // It is a child of the runtime, which reaps it only when it ends itself: the number is still its own.
      if (!started.ended) pidfd = tryPidfd(pid);
    },
    signal(signal) {
      if (!started.ended && pidfd >= 0) pidfdSignal(pidfd, signal);
    },
    resize(rows, columns) {
      streams.resize(rows, columns);
      // The runtime would have to be told, and crun is deaf: the container's own terminal is set here.
      if (!started.ended && pidfd >= 0) resizeInside(pidfd, rows, columns);
    },
  };
  return started;
}

/** Sets the size of the terminal that a process has as its input, if that is one. */
function resizeInside(pidfd: number, rows: number, columns: number): void {
  let fd: number;
  try {
    fd = pidfdGetFd(pidfd, 0);
  } catch {
    return;
  }
  try {
    setWindowSize(fd, rows, columns);
  } catch {
    // It has something else there now; that is its own affair.
  } finally {
    closeSync(fd);
  }
}

function tryPidfd(pid: number): number {
  try {
    return pidfdOpen(pid);
  } catch {
    return -1;
  }
}

async function waitForPid(clock: Clock, pidFile: string): Promise<number> {
  await waitUntil(
    clock,
    'the OCI runtime to start the container',
    START_TIMEOUT_MS,
    () => existsSync(pidFile) && readFileSync(pidFile, 'utf8') !== '',
  );
  return Number(readFileSync(pidFile, 'utf8'));
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

/** The runtime's own words with docker's prefix and the codes of our own runtime. */
function ociError(message: string, prefix: string): DrydockError {
  const text = message
    .replace(/^(runc|crun|exec|run|create)[a-z ]* failed: /, '')
    .replace(/^unable to start container process: /, '')
    // crun's wording, which docker's CLI would not know for exit code 127.
    .replace(
      /executable file `(.*)` not found in \$PATH.*/,
      'exec: "$1": executable file not found in $$PATH',
    );
  const full = `${prefix}: ${text}: unknown`;
  if (/unable to find (user|group) /.test(message)) return new DrydockError('ERR_USER_NOT_FOUND', message);
  if (/executable file not found|no such file or directory/i.test(text))
    return new DrydockError('ERR_EXEC_NOT_FOUND', full);
  if (/permission denied|is a directory/i.test(text)) return new DrydockError('ERR_EXEC_PERMISSION', full);
  return new DrydockError('ERR_JAIL', full);
}

/** Looks the user up in the image's files, which are opened without leaving its root. */
function identityIn(rootPath: string, process: ProcessSpec): Identity {
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

/** Runs a short command of the runtime. */
function runToEnd([program, ...before]: Command, args: string[]): Promise<{ code: number; output: string }> {
  return new Promise((resolve) => {
    const child = spawn(program, [...before, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    child.stdout.on('data', (chunk) => (output += chunk));
    child.stderr.on('data', (chunk) => (output += chunk));
    child.on('error', (error) => resolve({ code: 127, output: error.message }));
    child.on('close', (code) => resolve({ code: code ?? 255, output }));
  });
}
