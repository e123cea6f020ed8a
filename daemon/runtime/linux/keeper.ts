/**
 * Makes the namespaces of a jail whose users are not the machine's. They must belong to the jail's user namespace, for
 * its root to have power over them, and only a process with one thread can enter a user namespace; so a tiny program
 * makes both, and keeps them until the launcher has joined them. The launcher stays outside of the user namespace, with
 * the rights to prepare the jail and out of reach of what runs in it, and crosses over with its last step
 * (daemon/launch/crossing.ts).
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, writeFileSync } from 'node:fs';
import { DrydockError, errorMessage } from '#common/errors';
import { mapText, type UserMaps } from '#common/id-map';
import { type Instruction, machineProgram, thisMachine } from '#common/native/machine-code';
import {
  CLONE_NEWCGROUP,
  CLONE_NEWIPC,
  CLONE_NEWNET,
  CLONE_NEWNS,
  CLONE_NEWUSER,
  CLONE_NEWUTS,
} from '#common/native/namespace';
import { fillMemory, memoryFile, sealMemory } from '#common/native/process';
import type { JailSpec } from '../runtime.ts';

/** Where a keeper finds the user namespace that it is to join. */
const USER_FD = 3;

/** The program: says when it is in its user namespace, and again when it has the others; then waits until it is let go. */
function keeperProgram(flags: number, joins: boolean): Uint8Array {
  const must = (what: string): Instruction['failures'] => [{ fd: 2, text: what, status: 1 }];
  const tell: Instruction = { call: 'write', operands: [1, 'argv', 1] };
  const wait: Instruction = { call: 'read', operands: [0, 'scratch', 1], failures: must('read') };
  return machineProgram(thisMachine(), [
    joins
      ? { call: 'setns', operands: [USER_FD, CLONE_NEWUSER], failures: must('join the user namespace') }
      : { call: 'unshare', operands: [CLONE_NEWUSER], failures: must('make a user namespace') },
    tell,
    wait,
    { call: 'setgroups', operands: [0, 0], failures: must('leave all groups') },
    { call: 'setresgid', operands: [0, 0, 0], failures: must('become the group of root') },
    { call: 'setresuid', operands: [0, 0, 0], failures: must('become root') },
    { call: 'unshare', operands: [flags], failures: must('make namespaces') },
    tell,
    wait,
  ]);
}

/** Namespaces by the flag that makes them; one for mounts is always made. */
const FLAGS = [
  ['network', CLONE_NEWNET],
  ['ipc', CLONE_NEWIPC],
  ['uts', CLONE_NEWUTS],
  ['cgroup', CLONE_NEWCGROUP],
] as const;

/** The first process, if any, whose namespace is to be joined: its user namespace must be, too. */
export function joinedProcess(namespaces: JailSpec['namespaces']): number | undefined {
  for (const mode of Object.values(namespaces)) if (typeof mode === 'object') return mode.pid;
  return undefined;
}

/** See the module's head. */
export class Keeper {
  readonly pid: number;
  readonly #child: ChildProcess;
  readonly #exited: Promise<number | null>;
  #ended = false;
  #errors = '';
  #told = 0;
  #wake: () => void = () => {};

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.pid = child.pid!;
    this.#exited = new Promise((resolve) => {
      child.once('close', (code) => {
        this.#ended = true;
        this.#wake();
        resolve(code);
      });
    });
    child.stdin!.on('error', () => {});
    child.stdout!.on('data', (bytes: Buffer) => {
      this.#told += bytes.length;
      this.#wake();
    });
    child.stderr!.on('data', (bytes: Buffer) => {
      this.#errors += bytes.toString();
    });
  }

  /**
   * Makes the namespaces.
   *
   * @param placed called with the process's number before it makes its namespaces, for what they depend on (cgroups).
   * @throws DrydockError ERR_JAIL naming the step
   */
  static async start(
    namespaces: JailSpec['namespaces'],
    maps: UserMaps,
    placed: (pid: number) => Promise<void>,
  ): Promise<Keeper> {
    let flags = CLONE_NEWNS;
    for (const [kind, flag] of FLAGS) if (namespaces[kind] === 'private') flags |= flag;
    const target = joinedProcess(namespaces);
    const program = memoryFile('drydock-keeper');
    let userFd: number | undefined;
    let keeper: Keeper;
    try {
      fillMemory(program, keeperProgram(flags, target !== undefined));
      sealMemory(program);
      if (target !== undefined) userFd = openSync(`/proc/${target}/ns/user`, 'r');
      const child = spawn(`/proc/self/fd/${program}`, [], {
        argv0: 'drydock-keeper',
        cwd: '/',
        env: {},
        detached: true,
        stdio: ['pipe', 'pipe', 'pipe', ...(userFd === undefined ? [] : [userFd])],
      });
      child.on('error', () => {});
      if (child.pid === undefined)
        throw new DrydockError('ERR_JAIL', 'no process can be started: see that the machine has memory left');
      keeper = new Keeper(child);
    } finally {
      closeSync(program);
      if (userFd !== undefined) closeSync(userFd);
    }
    try {
      await keeper.#heard(1);
      if (target === undefined) keeper.#writeMaps(maps);
      await placed(keeper.pid);
      keeper.#child.stdin!.write('.');
      await keeper.#heard(2);
      return keeper;
    } catch (error) {
      await keeper.end();
      throw error;
    }
  }

  #writeMaps(maps: UserMaps): void {
    for (const [file, ranges] of [
      ['uid_map', maps.uids],
      ['gid_map', maps.gids],
    ] as const) {
      try {
        writeFileSync(`/proc/${this.pid}/${file}`, mapText(ranges));
      } catch (error) {
        throw new DrydockError('ERR_JAIL', `the ${file} of a user namespace: ${errorMessage(error)}`);
      }
    }
  }

  async #heard(count: number): Promise<void> {
    while (this.#told < count && !this.#ended)
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    if (this.#told < count)
      throw new DrydockError(
        'ERR_JAIL',
        `user namespace: ${this.#errors || 'the process that makes it has ended'}: see user.max_user_namespaces (sysctl)`,
      );
  }

  /** Ends the process; namespaces that others have joined stay. */
  async end(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#exited;
  }
}
