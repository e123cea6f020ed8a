/**
 * Seccomp profiles in docker's JSON form (`--security-opt seccomp=FILE`), and the default one.
 *
 * The default is docker's in effect: a container may make every system call that is of use to programs, those that
 * administer the machine only with the capability for them, and those that nobody but the machine's owner needs not at
 * all. It is derived from the table of system calls, so that each call has one line that says who may make it.
 */
import { DrydockError, errorMessage } from '#common/errors';
import { misfit, NUMBER, record, type Shape, TEXT } from '../../../store/shape.ts';
import type { SeccompArgument, SeccompProfile, SeccompRule } from '../../runtime.ts';
import { SYSCALLS } from './syscalls.ts';

const EPERM = 1;
const ENOSYS = 38;

/** CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET: making namespaces is for CAP_SYS_ADMIN. */
const CLONE_NAMESPACES = 0x7e020000;

/** Families below 12 are old and plain. Not in the rest: kernel crypto (38), virtual machines' (40), and dead ones. */
const SOCKET_FAMILIES_BELOW = 12;
const SOCKET_FAMILIES = [
  13, 14, 15, 16, 17, 18, 21, 22, 24, 26, 27, 28, 29, 30, 31, 32, 33, 35, 36, 39, 41, 42, 43, 44, 45,
];

/** PER_LINUX, PER_LINUX32, each with and without UNAME26, and asking for the present one. */
const PERSONALITIES = [0x0, 0x8, 0x20000, 0x20008, 0xffffffff];

const allow = (names: string[], extra: Partial<SeccompRule> = {}): SeccompRule => ({
  names,
  action: 'SCMP_ACT_ALLOW',
  ...extra,
});

const argument = (
  index: number,
  op: SeccompArgument['op'],
  value: number,
  valueTwo = 0,
): SeccompArgument => ({
  index,
  op,
  value,
  valueTwo,
});

/** The profile of every container unless told otherwise. */
export const DEFAULT_SECCOMP_PROFILE: SeccompProfile = {
  defaultAction: 'SCMP_ACT_ERRNO',
  defaultErrnoRet: EPERM,
  architectures: ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86', 'SCMP_ARCH_X32', 'SCMP_ARCH_AARCH64', 'SCMP_ARCH_ARM'],
  syscalls: [
    allow(SYSCALLS.filter(({ gate }) => gate === '').map(({ name }) => name)),
    ...SYSCALLS.filter(({ gate }) => /^[A-Z]/.test(gate)).flatMap(({ name, gate }) =>
      gate.split('|').map((capability) => allow([name], { includes: { caps: [`CAP_${capability}`] } })),
    ),
    allow(['socket'], { args: [argument(0, 'SCMP_CMP_LT', SOCKET_FAMILIES_BELOW)] }),
    ...SOCKET_FAMILIES.map((family) => allow(['socket'], { args: [argument(0, 'SCMP_CMP_EQ', family)] })),
    ...PERSONALITIES.map((value) => allow(['personality'], { args: [argument(0, 'SCMP_CMP_EQ', value)] })),
    allow(['clone', 'clone3'], { includes: { caps: ['CAP_SYS_ADMIN'] } }),
    allow(['clone'], { args: [argument(0, 'SCMP_CMP_MASKED_EQ', CLONE_NAMESPACES, 0)] }),
    // Its flags are behind a pointer, which a filter cannot follow: "not implemented" makes libraries use clone.
    { names: ['clone3'], action: 'SCMP_ACT_ERRNO', errnoRet: ENOSYS },
  ],
};

const NAMES: Shape = { type: ['array', 'null'], items: TEXT };
const CONDITION: Shape = {
  type: ['object', 'null'],
  properties: { caps: NAMES, arches: NAMES, minKernel: { type: ['string', 'null'] } },
};
const ARGUMENT: Shape = record({ index: NUMBER, op: TEXT, value: NUMBER }, { valueTwo: NUMBER });
const RULE: Shape = record(
  { action: TEXT },
  {
    names: NAMES,
    name: TEXT,
    args: { type: ['array', 'null'], items: ARGUMENT },
    includes: CONDITION,
    excludes: CONDITION,
    errnoRet: { type: ['number', 'null'] },
  },
);
/** What Go's decoder would take for a profile. */
const PROFILE_SHAPE: Shape = record(
  { defaultAction: TEXT },
  {
    defaultErrnoRet: { type: ['number', 'null'] },
    architectures: NAMES,
    archMap: {
      type: ['array', 'null'],
      items: record({ architecture: TEXT }, { subArchitectures: NAMES }),
    },
    syscalls: { type: ['array', 'null'], items: RULE },
  },
);

/** A system call has no more. */
const ARGUMENTS_MAX = 6;

const ACTIONS: ReadonlySet<string> = new Set([
  'SCMP_ACT_KILL',
  'SCMP_ACT_KILL_PROCESS',
  'SCMP_ACT_KILL_THREAD',
  'SCMP_ACT_TRAP',
  'SCMP_ACT_ERRNO',
  'SCMP_ACT_TRACE',
  'SCMP_ACT_ALLOW',
  'SCMP_ACT_LOG',
]);
const OPERATORS: ReadonlySet<string> = new Set(
  ['NE', 'LT', 'LE', 'EQ', 'GE', 'GT', 'MASKED_EQ'].map((name) => `SCMP_CMP_${name}`),
);

/**
 * Reads a profile that a user wrote.
 *
 * @throws DrydockError ERR_BAD_SECCOMP that says what is wrong with it.
 */
export function parseSeccompProfile(json: string): SeccompProfile {
  const bad = (why: string): DrydockError =>
    new DrydockError('ERR_BAD_SECCOMP', `Decoding seccomp profile failed: ${why}`);
  let profile: Partial<SeccompProfile> & { flags?: unknown[]; listenerPath?: string };
  try {
    profile = JSON.parse(json);
  } catch (error) {
    throw bad(errorMessage(error));
  }
  const why = misfit(profile, PROFILE_SHAPE);
  if (why !== undefined) throw bad(why);
  if (profile.listenerPath || (profile.flags?.length ?? 0) > 0)
    throw bad('flags and listeners are not supported');
  if (!ACTIONS.has(profile.defaultAction ?? '')) throw bad(`unknown defaultAction ${profile.defaultAction}`);
  const syscalls = profile.syscalls ?? [];
  const rules = syscalls.map((rule): SeccompRule => {
    // Until docker 1.12 a rule had one name.
    const names = rule.names ?? [(rule as { name?: string }).name];
    if (names[0] === undefined && rule.names === undefined) throw bad('a rule names no system call');
    if (!ACTIONS.has(rule.action)) throw bad(`unknown action ${rule.action}`);
    if ((rule.args?.length ?? 0) > ARGUMENTS_MAX)
      throw bad(`a rule has more than ${ARGUMENTS_MAX} arguments`);
    for (const { index, op, value } of rule.args ?? []) {
      if (!Number.isInteger(index) || index < 0 || index > 5) throw bad(`there is no argument ${index}`);
      if (!OPERATORS.has(op)) throw bad(`unknown operator ${op}`);
      if (!Number.isInteger(value)) throw bad(`${value} is not a value`);
    }
    return { ...rule, names };
  });
  return { ...profile, defaultAction: profile.defaultAction!, syscalls: rules };
}
