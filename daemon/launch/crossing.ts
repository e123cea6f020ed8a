/**
 * The last steps of a launch into a user namespace. Only a process with one thread may enter one, which Node never is.
 * So the launcher, already with the numbers that the wanted user has on the machine, becomes a tiny program that
 * enters the namespace, gives up what power it got by that, and becomes the wanted program.
 *
 * Entering gives all capabilities in the new namespace, and a full bounding set (user_namespaces(7)): they are limited
 * there and not before.
 */
import { constants } from 'node:os';
import { strerror } from '#common/native/libc';
import {
  type Instruction,
  machineProgram,
  type OnFailure,
  type Pointing,
  thisMachine,
} from '#common/native/machine-code';
import { SECCOMP_FILTER_FLAG_SPEC_ALLOW, SECCOMP_SET_MODE_FILTER } from '#common/native/seccomp';
import type { Walls } from './plain.ts';
import { CONTROL_FD } from './protocol.ts';
import type { System } from './system.ts';

/** What a shell user reads as "could not be executed after all"; runc's exit status for it. */
export const EXEC_FAILED_STATUS = 255;

/** How far a launcher goes in the user namespace. */
export interface Crossing {
  /** The open user namespace. */
  userFd: number;
  /** What the bounding set keeps. */
  bounding: ReadonlySet<number>;
  /** Effective and permitted until execve. */
  capabilities: bigint;
  /** Classic BPF; undefined for none. */
  filter: Uint8Array | undefined;
  /** Raised right before, with the one capability that they want. */
  walls?: Walls;
}

/** Capabilities of the kernels to come included: dropping one that is not known fails, and is not looked at. */
const CAPABILITIES_MAX = 64;
const CLOSE_RANGE_CLOEXEC = 4;
const ALL_DESCRIPTORS = 0xffff_ffff;

/** What execve(2) says of a program that was found; other errors are told by number. */
const EXEC_ERRORS = [
  'ENOENT',
  'ENOEXEC',
  'EACCES',
  'EPERM',
  'ELOOP',
  'E2BIG',
  'ENOMEM',
  'EIO',
  'EINVAL',
  'ETXTBSY',
] as const;

function must(step: string): OnFailure[] {
  const message = { type: 'failed', kind: 'step', step, code: '', message: 'refused by the kernel' };
  return [{ fd: CONTROL_FD, text: `${JSON.stringify(message)}\n`, status: 1 }];
}

function filterInstructions(filter: Uint8Array | undefined): Instruction[] {
  if (filter === undefined) return [];
  // struct sock_fprog: the number of instructions, and at 8 where they are.
  const program = Buffer.alloc(16);
  program.writeUInt16LE(filter.length / 8, 0);
  const pointing: Pointing = { bytes: program, at: 8, to: filter };
  return [
    {
      call: 'seccomp',
      operands: [SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, pointing],
      failures: must('filter system calls'),
    },
  ];
}

function enterInstructions(system: System, crossing: Crossing, forever: boolean): Instruction[] {
  const { userFd, bounding, capabilities, filter } = crossing;
  const drops = Array.from({ length: CAPABILITIES_MAX }, (_, capability) => capability)
    .filter((capability) => !bounding.has(capability))
    .map(
      (capability): Instruction => ({
        call: 'prctl',
        operands: [system.PR_CAPBSET_DROP, capability, 0, 0, 0],
        ...(capability < system.CAPABILITIES.length &&
          system.boundingHas(capability) && { failures: must('limit capabilities') }),
      }),
    );
  return [
    { call: 'setns', operands: [userFd, system.CLONE_NEWUSER], failures: must('enter the user namespace') },
    ...drops,
    {
      call: 'capset',
      operands: system.capabilityStructs(capabilities, 0n),
      failures: must('drop capabilities'),
    },
    // A program closes them by starting; what only waits must do it now, which also tells the daemon of it.
    { call: 'close_range', operands: [3, ALL_DESCRIPTORS, forever ? 0 : CLOSE_RANGE_CLOEXEC] },
    ...filterInstructions(filter),
  ];
}

function become(
  system: System,
  crossing: Crossing,
  last: Instruction,
  forever: boolean,
  args: string[],
  env: string[],
): never {
  const instructions = [...enterInstructions(system, crossing, forever), last];
  const memory = system.memoryFile('drydock-cross');
  system.fillMemory(memory, machineProgram(thisMachine(), instructions, forever));
  system.sealMemory(memory);
  // Without this one the new process could not enter; entering takes it away again.
  system.carryCapability(system.CAPABILITIES.indexOf('CAP_SYS_ADMIN'));
  crossing.walls?.raise();
  system.closeOnExecFrom(3);
  system.clearCloseOnExec(crossing.userFd);
  system.clearCloseOnExec(CONTROL_FD);
  return system.execveFd(memory, args, env);
}

/** Becomes a program in a user namespace. What execve says against it goes where docker says so, as runc's status. */
export function crossInto(
  system: System,
  crossing: Crossing,
  path: string,
  args: string[],
  env: string[],
): never {
  const failed = (text: string, code?: number): OnFailure => ({
    ...(code !== undefined && { code }),
    fd: 2,
    text: `exec ${path}: ${text}\n`,
    status: EXEC_FAILED_STATUS,
  });
  const failures = [
    ...EXEC_ERRORS.map((name) => failed(strerror(name), constants.errno[name])),
    failed('the kernel refused it'),
  ];
  const program: Instruction = {
    call: 'execve',
    operands: [Buffer.from(`${path}\0`), 'argv', 'envp'],
    failures,
  };
  return become(system, crossing, program, false, args, env);
}

/** Becomes, in a user namespace, a process that only waits. */
export function crossAndWait(system: System, crossing: Crossing, wait: Instruction, args: string[]): never {
  return become(system, crossing, wait, true, args, []);
}
