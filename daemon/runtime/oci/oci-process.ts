/**
 * The runtime in the foreground, and the process that it has started: its child, whose end it tells by its own. With live
 * restore a warden is the runtime's parent instead of the daemon, and a later daemon finds all three again.
 */
import { spawn } from 'node:child_process';
import { closeSync, existsSync, readFileSync } from 'node:fs';
import { constants } from 'node:os';
import type { Clock } from '#common/clock';
import { errorCode } from '#common/errors';
import type { ProcessEnd } from '#common/native/child';
import { pidfdGetFd, pidfdOpen, pidfdSignal } from '#common/native/process';
import { openHostTerminal, setWindowSize } from '#common/native/tty';
import { linuxStreams } from '../linux/stream-system.ts';
import { openTerminalStreams, PipeSet, type ProcessStreams } from '../linux/streams.ts';
import type { Survivor } from '../linux/survivor.ts';
import { waitUntil } from '../linux/wait.ts';
import { type Holder, markOf, type Warden, type WardenPrograms } from '../linux/warden.ts';
import type { ExitStatus, ProcessSpec, Survival } from '../runtime.ts';
import type { Command } from './oci-command.ts';

const START_TIMEOUT_MS = 60_000;

/** What a process of a container needs of its runtime. */
export interface ProcessContext {
  command: Command;
  clock: Clock;
  /** What starts those that are to outlive the daemon; undefined: none is. */
  wardens: WardenPrograms | undefined;
  /** How often the container's memory was not enough. */
  oomKills(): number;
}

/** The runtime's process, however it was started. */
interface Runner {
  streams: ProcessStreams;
  ended: Promise<ProcessEnd>;
  warden?: Warden | undefined;
  /** Keeps the terminal or the input for later daemons. */
  holder?: Holder | undefined;
  /** Ends the runtime where it has not started anything yet. */
  kill(): void;
}

/** See the module's head. */
export class OciProcess {
  readonly streams: ProcessStreams;
  readonly exited: Promise<ExitStatus>;
  readonly #runner: Runner;
  #ended = false;
  #pid = 0;
  #pidfd = -1;
  #isLeft = false;

  private constructor(runner: Runner, oomKills: () => number) {
    this.#runner = runner;
    this.streams = runner.streams;
    this.exited = runner.ended.then(({ code, signal }) => {
      this.#ended = true;
      if (this.#pidfd >= 0) closeSync(this.#pidfd);
      const shown = signal === null ? (code ?? 0) : 128 + signal;
      const name = Object.entries(constants.signals).find(([, number]) => number === shown - 128)?.[0];
      return { code: shown, signal: name, oomKilled: oomKills() > 0 };
    });
  }

  /** Runs the runtime with arguments. @param isKept whether the process is to outlive the daemon, where any can */
  static start(args: string[], spec: ProcessSpec, isKept: boolean, context: ProcessContext): OciProcess {
    const wardens = isKept ? context.wardens : undefined;
    const start = spec.terminal ? startOnTerminal : startOnPipes;
    const process = new OciProcess(start(args, spec, wardens, context), context.oomKills);
    // Else the program would never read the end of its input.
    if (!spec.terminal) process.streams.stdin?.once('close', () => process.#inputEnded());
    return process;
  }

  /** Goes on with one that an earlier daemon has started. */
  static takeUp(main: Survivor, spec: ProcessSpec, context: ProcessContext): OciProcess {
    const streams = main.openStreams(spec.terminal, context.clock);
    const { exited: ended, warden, holder } = main;
    const process = new OciProcess({ streams, ended, warden, holder, kill: () => {} }, context.oomKills);
    process.#pid = main.pid;
    process.#pidfd = main.pidfd;
    if (!spec.terminal) streams.stdin?.once('close', () => process.#inputEnded());
    return process;
  }

  get ended(): boolean {
    return this.#ended;
  }

  get pid(): number {
    return this.#pid;
  }

  /** By what a later daemon takes it up again. */
  get survival(): Survival | undefined {
    const { warden, holder } = this.#runner;
    if (!warden) return undefined;
    return {
      main: markOf(this.#pid),
      warden: warden.process.mark,
      ...(holder && { holder: holder.process.mark }),
    };
  }

  /** The numbers of those who mind it. */
  get minders(): number[] {
    const { warden, holder } = this.#runner;
    return [warden, holder].flatMap((minder) => minder?.process.mark.pid ?? []);
  }

  /** Says which process the runtime has started. */
  identify(pid: number): void {
    this.#pid = pid;
    // It is a child of the runtime, which reaps it only when it ends itself: the number is still its own.
    if (!this.#ended) this.#pidfd = tryPidfd(pid);
  }

  signal(signal: number): void {
    if (this.#ended || this.#pidfd < 0) return;
    try {
      pidfdSignal(this.#pidfd, signal);
    } catch (error) {
      // A runtime below a warden reaps before its end is heard of here.
      if (!this.#runner.warden || errorCode(error) !== 'ESRCH') throw error;
    }
  }

  resize(rows: number, columns: number): void {
    this.streams.resize(rows, columns);
    // The runtime would have to be told, and crun is deaf: the container's own terminal is set here.
    if (!this.#ended && this.#pidfd >= 0) resizeInside(this.#pidfd, rows, columns);
  }

  /** Takes back a start that came to nothing. */
  async abandon(): Promise<void> {
    this.#runner.kill();
    await this.exited;
    this.streams.destroy();
    this.free();
  }

  /** Frees those who mind it, after its end. */
  free(): void {
    this.#runner.warden?.process.dismiss();
    this.#runner.holder?.process.dismiss();
  }

  /** Frees what this daemon has of it; it goes on. */
  leave(): void {
    this.#isLeft = true;
    this.streams.destroy();
    this.#runner.warden?.process.leave();
    this.#runner.holder?.process.leave();
    if (this.#pidfd >= 0 && !this.#ended) closeSync(this.#pidfd);
  }

  /** Closed by a client or by the program, but not by a daemon that leaves. */
  #inputEnded(): void {
    if (!this.#isLeft) this.#runner.holder?.process.dismiss();
  }
}

function startOnTerminal(
  args: string[],
  spec: ProcessSpec,
  wardens: WardenPrograms | undefined,
  { command, clock }: ProcessContext,
): Runner {
  const { master, slave } = openHostTerminal();
  try {
    if (spec.consoleSize) setWindowSize(master, spec.consoleSize.rows, spec.consoleSize.columns);
    const runner = startRuntime(command, args, [slave, slave, slave], wardens);
    const holder = runner.warden && wardens?.hold(master);
    return { ...runner, holder, streams: openTerminalStreams(master, clock, linuxStreams) };
  } finally {
    closeSync(slave);
  }
}

function startOnPipes(
  args: string[],
  spec: ProcessSpec,
  wardens: WardenPrograms | undefined,
  { command }: ProcessContext,
): Runner {
  const pipes = new PipeSet(linuxStreams);
  try {
    const runner = startRuntime(command, args, pipes.childEnds, wardens, pipes.outputs);
    const holder = runner.warden && spec.stdin ? wardens?.hold(pipes.input) : undefined;
    return { ...runner, holder, streams: pipes.open(spec.stdin) };
  } finally {
    pipes.closeChildEnds();
  }
}

/** @param outputs what a warden keeps for later daemons, if the output goes into pipes */
function startRuntime(
  [program, ...before]: Command,
  args: string[],
  stdio: [number, number, number],
  wardens: WardenPrograms | undefined,
  outputs?: readonly [number, number],
): Omit<Runner, 'streams'> {
  if (wardens) {
    const { child, warden } = wardens.startProgram(program, [...before, ...args], stdio, outputs);
    if (warden) {
      child.unref();
      return { warden, ended: warden.ended, kill: () => killRuntime(warden) };
    }
    return { ended: Promise.resolve({ code: 255, signal: null }), kill: () => {} };
  }
  const child = spawn(program, [...before, ...args], {
    stdio,
    detached: true,
    cwd: '/',
    env: { PATH: process.env.PATH },
  });
  const ended = new Promise<ProcessEnd>((resolve) => {
    child.once('exit', (code, signal) =>
      resolve({ code, signal: signal === null ? null : constants.signals[signal] }),
    );
    child.once('error', () => resolve({ code: 255, signal: null }));
  });
  return { ended, kill: () => void child.kill('SIGKILL') };
}

/** Ends the runtime below a warden, which tells it then. */
function killRuntime(warden: Warden): void {
  try {
    process.kill(warden.childPid, 'SIGKILL');
  } catch (error) {
    if (errorCode(error) !== 'ESRCH') throw error;
  }
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

export async function waitForPid(clock: Clock, pidFile: string): Promise<number> {
  await waitUntil(
    clock,
    'the OCI runtime to start the container',
    START_TIMEOUT_MS,
    () => existsSync(pidFile) && readFileSync(pidFile, 'utf8') !== '',
  );
  return Number(readFileSync(pidFile, 'utf8'));
}
