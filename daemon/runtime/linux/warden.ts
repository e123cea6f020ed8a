/**
 * What keeps a container going while no daemon does (live restore). A warden is the parent of the container's program:
 * it starts the launcher, keeps the reading ends of its output, and when the program has ended, how. So a daemon that
 * is stopped, killed or replaced costs the container nothing, and the next one finds all it needs at the warden, by its
 * number and start time. A holder keeps one more descriptor: the terminal, or the writing end of the input, which has
 * to be let go of while the program still runs.
 *
 * Both are tiny programs that make a few system calls and wait; what they keep is fetched with pidfd_getfd(2). They run
 * until they are dismissed, and strays of a daemon that died in between are known by their name and environment.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, constants, openSync, readdirSync, readFileSync, readSync } from 'node:fs';
import { Socket } from 'node:net';
import { constants as osConstants } from 'node:os';
import { errorCode } from '#common/errors';
import { endOfStatus, type ProcessEnd } from '#common/native/child';
import { type Instruction, machineProgram, type OnFailure, thisMachine } from '#common/native/machine-code';
import { CLONE_NEWPID } from '#common/native/namespace';
import {
  fillMemory,
  memoryFile,
  pidfdGetFd,
  pidfdOpen,
  pidfdSignal,
  pipe,
  sealMemory,
} from '#common/native/process';
import { TARGET_FD } from '../../launch/protocol.ts';
import type { ProcessMark } from '../runtime.ts';
import { processStartTime } from './proc-stat.ts';
import type { PipeSet } from './streams.ts';

/** What processes of this kind are called (at most 15 bytes, PR_SET_NAME in prctl(2)). */
const NAME = 'drydock-warden';
/** The variable that tells whose they are. */
const INSTANCE_VARIABLE = 'DRYDOCK_INSTANCE';

/** Descriptors of a warden; those before are the launcher's. This one is closed when the program has ended. */
const WAKE_FD = TARGET_FD + 1;
/** A file in memory with what wait4(2) told, once it did. */
const STATUS_FD = WAKE_FD + 1;
const STDOUT_FD = STATUS_FD + 1;
const STDERR_FD = STDOUT_FD + 1;
const NODE_FD = STDERR_FD + 1;
/** The one descriptor of a holder. */
const HELD_FD = 3;

const PR_SET_NAME = 15;
const CLONE_PARENT_SETTID = 0x100000;
const CLOSE_RANGE_CLOEXEC = 4;
const NUMBER_BYTES = 4;
const SIGKILL = 9;

const text = (value: string): Uint8Array => Buffer.from(`${value}\0`);
const INTRODUCE: Instruction = { call: 'prctl', operands: [PR_SET_NAME, text(NAME), 0, 0, 0] };
const WAIT: Instruction = { call: 'ppoll', operands: [0, 0, 0, 0, 0] };

/** What a descriptor of a process that is started can be. */
type Stdio = number | 'pipe' | 'ignore';

/** Where the program that a warden starts is born. */
export type WardenKind = 'host' | 'new' | 'inside';

/** @param path the program; by default Node, at a descriptor */
function wardenInstructions(kind: WardenKind, path = `/proc/self/fd/${NODE_FD}`): Instruction[] {
  const must = (what: string): OnFailure[] => [{ fd: 2, text: what, status: 1 }];
  const place: Record<WardenKind, Instruction[]> = {
    host: [],
    new: [{ call: 'unshare', operands: [CLONE_NEWPID], failures: must('no pid namespace can be made') }],
    inside: [
      {
        call: 'setns',
        operands: [TARGET_FD, CLONE_NEWPID],
        failures: must('the pid namespace takes no more processes'),
      },
    ],
  };
  return [
    INTRODUCE,
    ...place[kind],
    {
      call: 'clone',
      operands: [CLONE_PARENT_SETTID + osConstants.signals.SIGCHLD, 0, 'scratch', 0, 0],
      failures: must('no process can be made'),
      parent: [
        { call: 'write', operands: [WAKE_FD, 'scratch', NUMBER_BYTES] },
        // The launcher's own: what it closes must read as ended.
        { call: 'close_range', operands: [0, TARGET_FD, 0] },
        { call: 'close_range', operands: [NODE_FD, NODE_FD, 0] },
      ],
      afterwards: [
        { call: 'write', operands: [STATUS_FD, 'scratch', NUMBER_BYTES] },
        { call: 'close_range', operands: [WAKE_FD, WAKE_FD, 0] },
        WAIT,
      ],
    },
    // To be able to take a terminal.
    { call: 'setsid', operands: [] },
    { call: 'close_range', operands: [WAKE_FD, STDERR_FD, 0] },
    { call: 'close_range', operands: [NODE_FD, NODE_FD, CLOSE_RANGE_CLOEXEC] },
    {
      call: 'execve',
      operands: [text(path), 'argv', 'envp'],
      failures: must(`${path} cannot be started`),
    },
  ];
}

function sealedProgram(instructions: Instruction[], forever = false): number {
  const fd = memoryFile(NAME);
  fillMemory(fd, machineProgram(thisMachine(), instructions, forever));
  sealMemory(fd);
  return fd;
}

/** The programs of one daemon, each made when it is first wanted. */
export class WardenPrograms {
  readonly #instance: string;
  /** By kind, or by the path of what they start. */
  readonly #made = new Map<string, number>();
  /** Processes that this daemon has started itself. */
  readonly #started = new Set<number>();

  /** @param instance what tells this daemon's processes from those of others */
  constructor(instance: string) {
    this.#instance = instance;
  }

  /** Where the program is that `key` names. */
  #path(key: string, make: () => number): string {
    const fd = this.#made.get(key) ?? make();
    this.#made.set(key, fd);
    return `/proc/self/fd/${fd}`;
  }

  /**
   * Starts a warden, and by it the launcher, whose channel is descriptor 3 of the process that is returned.
   *
   * @param launcher its program and arguments @param target a pidfd for `inside`
   * @returns undefined for the warden where it could make no launcher: the pipe for errors tells why
   */
  start(
    kind: WardenKind,
    launcher: { nodeFd: number; args: string[]; argv0: string },
    pipes: PipeSet,
    target: number | undefined,
  ): { child: ChildProcess; warden: Warden | undefined } {
    return this.#begin({
      path: this.#path(kind, () => sealedProgram(wardenInstructions(kind))),
      ...launcher,
      env: {},
      first: [...pipes.childEnds, 'pipe', target ?? 'ignore'],
      last: [...pipes.outputs, launcher.nodeFd],
    });
  }

  /**
   * Starts a warden, and by it a program of the host.
   *
   * @param path absolute @param stdio the program's own
   * @param outputs what the warden keeps: the reading ends of its output, where that are pipes
   */
  startProgram(
    path: string,
    args: string[],
    stdio: readonly [number, number, number],
    outputs?: readonly [number, number],
  ): { child: ChildProcess; warden: Warden | undefined } {
    const kept: Stdio[] = outputs ? [...outputs] : ['ignore', 'ignore'];
    return this.#begin({
      path: this.#path(path, () => sealedProgram(wardenInstructions('host', path))),
      args,
      argv0: path,
      env: { PATH: process.env.PATH },
      first: [...stdio, 'ignore', 'ignore'],
      last: [...kept, 'ignore'],
    });
  }

  #begin(program: {
    path: string;
    args: string[];
    argv0: string;
    env: NodeJS.ProcessEnv;
    /** Descriptors before and after the warden's own. */
    first: Stdio[];
    last: Stdio[];
  }): { child: ChildProcess; warden: Warden | undefined } {
    const wake = pipe();
    const status = memoryFile(NAME);
    const child = spawn(program.path, program.args, {
      argv0: program.argv0,
      cwd: '/',
      env: { ...program.env, [INSTANCE_VARIABLE]: this.#instance },
      detached: true,
      stdio: [...program.first, wake.write, status, ...program.last],
    });
    this.#remember(child);
    closeSync(wake.write);
    const number = Buffer.alloc(NUMBER_BYTES);
    // It comes with the first breath of a program of a few instructions.
    if (child.pid !== undefined && readSync(wake.read, number, 0, NUMBER_BYTES, null) === NUMBER_BYTES) {
      const pidfd = pidfdOpen(child.pid);
      return {
        child,
        warden: new Warden(markOf(child.pid), pidfd, number.readInt32LE(0), wake.read, status),
      };
    }
    closeSync(wake.read);
    closeSync(status);
    return { child, warden: undefined };
  }

  /** Starts a holder of a descriptor, which stays open here too. */
  hold(fd: number): Holder {
    const program = (): number => sealedProgram([INTRODUCE, WAIT], true);
    const child = spawn(this.#path('holder', program), [], {
      argv0: NAME,
      cwd: '/',
      env: { [INSTANCE_VARIABLE]: this.#instance },
      detached: true,
      stdio: ['ignore', 'ignore', 'ignore', fd],
    });
    this.#remember(child);
    if (child.pid === undefined)
      throw new Error('no process can be made that holds the terminal or the input');
    child.unref();
    return new Holder(markOf(child.pid), pidfdOpen(child.pid));
  }

  #remember(child: ChildProcess): void {
    child.on('error', () => {});
    const { pid } = child;
    if (pid === undefined) return;
    this.#started.add(pid);
    child.once('exit', () => this.#started.delete(pid));
  }

  /** Ends those of earlier daemons that nobody knows. */
  endStrays(known: ReadonlySet<number>): void {
    for (const name of readdirSync('/proc')) {
      const pid = Number(name);
      if (!(pid > 0) || known.has(pid) || this.#started.has(pid) || !this.#isOurs(pid)) continue;
      try {
        process.kill(pid, SIGKILL);
      } catch {
        // It has ended.
      }
    }
  }

  #isOurs(pid: number): boolean {
    try {
      if (readFileSync(`/proc/${pid}/comm`, 'utf8').trim() !== NAME) return false;
      const environment = readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0');
      return environment.includes(`${INSTANCE_VARIABLE}=${this.#instance}`);
    } catch {
      return false;
    }
  }

  close(): void {
    for (const fd of this.#made.values()) closeSync(fd);
    this.#made.clear();
  }
}

/** How a process is found again. */
export function markOf(pid: number): ProcessMark {
  return { pid, startTime: processStartTime(pid) };
}

/** A descriptor of the process with this number and start time; undefined when that has ended. */
export function openProcess({ pid, startTime }: ProcessMark): number | undefined {
  if (pid <= 0 || startTime === '') return undefined;
  let pidfd: number;
  try {
    pidfd = pidfdOpen(pid);
  } catch {
    return undefined;
  }
  // The descriptor pins the process; only then does its start time prove who it is.
  if (processStartTime(pid) === startTime) return pidfd;
  closeSync(pidfd);
  return undefined;
}

/** One of these processes, by a descriptor of it. */
class Minder {
  readonly mark: ProcessMark;
  readonly #pidfd: number;
  readonly #freed: () => void;
  #isLeft = false;

  /** @param freed frees what else this daemon has of it; called once */
  constructor(mark: ProcessMark, pidfd: number, freed: () => void) {
    this.mark = mark;
    this.#pidfd = pidfd;
    this.#freed = freed;
  }

  /** A copy of one of its descriptors. */
  take(fd: number): number {
    return pidfdGetFd(this.#pidfd, fd);
  }

  /** Ends it. Idempotent. */
  dismiss(): void {
    if (this.#isLeft) return;
    try {
      pidfdSignal(this.#pidfd, SIGKILL);
    } catch {
      // Somebody else has ended it.
    }
    this.leave();
  }

  /** Frees what this daemon has of it; it goes on. Idempotent. */
  leave(): void {
    if (this.#isLeft) return;
    this.#isLeft = true;
    closeSync(this.#pidfd);
    this.#freed();
  }
}

/** See the module's head. */
export class Warden {
  readonly process: Minder;
  /** The number of the process that it watches over, which it reaps. */
  readonly childPid: number;
  readonly ended: Promise<ProcessEnd>;

  /** @param wake tells by its end that the program has ended; undefined: it has */
  constructor(mark: ProcessMark, pidfd: number, childPid: number, wake: number | undefined, status: number) {
    const socket = wake === undefined ? undefined : new Socket({ fd: wake, readable: true, writable: false });
    this.childPid = childPid;
    this.process = new Minder(mark, pidfd, () => {
      socket?.destroy();
      closeSync(status);
    });
    this.ended = new Promise((resolve) => {
      const tell = (): void => resolve(endIn(status));
      if (!socket) return tell();
      socket.once('end', tell);
      socket.on('error', () => {});
      socket.resume();
    });
  }

  /** Finds a warden of an earlier daemon. */
  static find(mark: ProcessMark, childPid: number): Warden | undefined {
    const pidfd = openProcess(mark);
    if (pidfd === undefined) return undefined;
    try {
      return new Warden(mark, pidfd, childPid, openWake(mark.pid), pidfdGetFd(pidfd, STATUS_FD));
    } catch {
      closeSync(pidfd);
      return undefined;
    }
  }

  /** Copies of the reading ends of the program's output. */
  takeOutputs(): { stdout: number; stderr: number } {
    return { stdout: this.process.take(STDOUT_FD), stderr: this.process.take(STDERR_FD) };
  }
}

/** A reading end of the pipe that a warden closes when its program has ended; undefined when it has. */
function openWake(pid: number): number | undefined {
  try {
    return openSync(`/proc/${pid}/fd/${WAKE_FD}`, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** What a warden has noted. One that was killed leaves nobody who knows: that counts as the same end for its program. */
function endIn(status: number): ProcessEnd {
  const bytes = Buffer.alloc(NUMBER_BYTES);
  if (readSync(status, bytes, 0, NUMBER_BYTES, 0) < NUMBER_BYTES) return { code: null, signal: SIGKILL };
  return endOfStatus(bytes.readInt32LE(0));
}

/** See the module's head. */
export class Holder {
  readonly process: Minder;

  constructor(mark: ProcessMark, pidfd: number) {
    this.process = new Minder(mark, pidfd, () => {});
  }

  /** Finds a holder of an earlier daemon. */
  static find(mark: ProcessMark): Holder | undefined {
    const pidfd = openProcess(mark);
    return pidfd === undefined ? undefined : new Holder(mark, pidfd);
  }

  /** A copy of what it holds. */
  take(): number {
    return this.process.take(HELD_FD);
  }
}
