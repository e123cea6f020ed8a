/**
 * From a profile to a filter program of the classic BPF machine (Documentation/userspace-api/seccomp_filter.rst).
 *
 * The program first looks at the architecture of the call, since numbers mean different things on each. Then it finds
 * the number by bisection: neighbouring numbers with the same fixed answer are one interval. Rules with arguments are
 * tried in the profile's order, and the first that matches decides. The kernel caches numbers whose answer is always
 * "allow", so that those do not run the program at all.
 */
import { DrydockError } from '#common/errors';
import type { SeccompArgument, SeccompProfile, SeccompRule } from '../../runtime.ts';
import { type Machine, NEWEST_SYSCALL, SYSCALLS_BY_NAME } from './syscalls.ts';

const LOAD = 0x20;
const AND = 0x54;
const JUMP = 0x05;
const JUMP_EQUAL = 0x15;
const JUMP_GREATER = 0x25;
const JUMP_NOT_LESS = 0x35;
const RETURN = 0x06;

/** struct seccomp_data: int nr; u32 arch; u64 instruction_pointer; u64 args[6], all little-endian here. */
const DATA_NUMBER = 0;
const DATA_ARCH = 4;
const DATA_ARGUMENTS = 16;

const RET_KILL_PROCESS = 0x8000_0000;
const RET_KILL_THREAD = 0;
const RET_TRAP = 0x0003_0000;
const RET_ERRNO = 0x0005_0000;
const RET_TRACE = 0x7ff0_0000;
const RET_LOG = 0x7ffc_0000;
const RET_ALLOW = 0x7fff_0000;

const EPERM = 1;
const ENOSYS = 38;
/** Largest errno that the kernel passes on (MAX_ERRNO). */
const ERRNO_MAX = 4095;
const PROGRAM_INSTRUCTIONS_MAX = 4096;
/** A conditional jump has 8 bits. */
const NEAR_MAX = 255;

/** AUDIT_ARCH_ of include/uapi/linux/audit.h. */
const AUDIT_ARCH: Record<Machine, number> = {
  x86_64: 0xc000_003e,
  x86: 0x4000_0003,
  aarch64: 0xc000_00b7,
};
const SCMP_ARCH: Record<Machine, string> = {
  x86_64: 'SCMP_ARCH_X86_64',
  x86: 'SCMP_ARCH_X86',
  aarch64: 'SCMP_ARCH_AARCH64',
};
/** Names of Go, in the conditions of docker's profiles. */
const GO_ARCH: Record<Machine, string> = { x86_64: 'amd64', x86: 'x86', aarch64: 'arm64' };
/** The x32 ABI marks its numbers with this bit under the architecture of x86-64. */
const X32_BIT = 0x4000_0000;

/** What a profile's conditions are about. */
export interface CompileContext {
  capabilities: ReadonlySet<string>;
  machine: 'x86_64' | 'aarch64';
  /** Such as `6.1`. */
  kernel: string;
}

/** One instruction; jumps are relative to the next one. */
interface Instruction {
  code: number;
  jt: number;
  jf: number;
  k: number;
}

const instruction = (code: number, k: number, jt = 0, jf = 0): Instruction => ({ code, jt, jf, k: k >>> 0 });
const answer = (value: number): Instruction => instruction(RETURN, value);

/** A filter, as the kernel takes it: 8 bytes for each instruction. */
export function compileSeccomp(profile: SeccompProfile, context: CompileContext): Uint8Array {
  const program = [instruction(LOAD, DATA_ARCH)];
  for (const machine of machinesOf(profile, context)) {
    const body = [instruction(LOAD, DATA_NUMBER), ...bodyFor(profile, machine, context)];
    program.push(...unless(JUMP_EQUAL, AUDIT_ARCH[machine], body));
  }
  program.push(answer(RET_KILL_PROCESS));
  if (program.length > PROGRAM_INSTRUCTIONS_MAX)
    throw new DrydockError(
      'ERR_BAD_SECCOMP',
      `The seccomp profile is too long: ${program.length} instructions.`,
    );
  const bytes = new Uint8Array(program.length * 8);
  const view = new DataView(bytes.buffer);
  program.forEach(({ code, jt, jf, k }, index) => {
    view.setUint16(index * 8, code, true);
    view.setUint8(index * 8 + 2, jt);
    view.setUint8(index * 8 + 3, jf);
    view.setUint32(index * 8 + 4, k, true);
  });
  return bytes;
}

/** `body`, which is passed over unless the comparison holds. */
function unless(comparison: number, value: number, body: Instruction[]): Instruction[] {
  if (body.length <= NEAR_MAX) return [instruction(comparison, value, 0, body.length), ...body];
  return [instruction(comparison, value, 1, 0), instruction(JUMP, body.length), ...body];
}

function machinesOf(profile: SeccompProfile, { machine }: CompileContext): Machine[] {
  const listed = new Set(profile.architectures ?? []);
  for (const { architecture, subArchitectures } of profile.archMap ?? []) {
    if (architecture !== SCMP_ARCH[machine]) continue;
    for (const name of subArchitectures ?? []) listed.add(name);
  }
  return machine === 'x86_64' && listed.has(SCMP_ARCH.x86) ? ['x86_64', 'x86'] : [machine];
}

/** The rules of a profile whose conditions hold. */
export function applicableRules(profile: SeccompProfile, context: CompileContext): SeccompRule[] {
  return (profile.syscalls ?? []).filter((rule) => applies(rule, context.machine, context));
}

/** The rules of one system call, and what happens when none matches. */
function bodyFor(profile: SeccompProfile, machine: Machine, context: CompileContext): Instruction[] {
  const fallback = answer(actionValue(profile.defaultAction, profile.defaultErrnoRet));
  const byNumber = new Map<number, Instruction[]>();
  const closed = new Set<number>();
  for (const rule of profile.syscalls ?? []) {
    if (!applies(rule, machine, context)) continue;
    const block = compileRule(rule);
    for (const name of rule.names) {
      const number = SYSCALLS_BY_NAME.get(name)?.numbers[machine];
      if (number === undefined || closed.has(number)) continue;
      byNumber.set(number, [...(byNumber.get(number) ?? []), ...block]);
      if (!rule.args?.length) closed.add(number);
    }
  }
  for (const [number, block] of byNumber) if (!closed.has(number)) block.push(fallback);
  // What is newer than the table: "not implemented" lets programs fall back, as runc does.
  const unknown = profile.defaultAction === 'SCMP_ACT_ERRNO' ? answer(RET_ERRNO | ENOSYS) : fallback;
  if (machine === 'x86_64') byNumber.set(X32_BIT, [answer(RET_ERRNO | ENOSYS)]);
  return bisect(intervals(byNumber, fallback, unknown, machine));
}

interface Interval {
  from: number;
  block: Instruction[];
}

function intervals(
  byNumber: Map<number, Instruction[]>,
  fallback: Instruction,
  unknown: Instruction,
  machine: Machine,
): Interval[] {
  const list: Interval[] = [];
  const add = (from: number, block: Instruction[]): void => {
    const last = list.at(-1);
    const same = last && last.block.length === 1 && block.length === 1 && last.block[0]!.k === block[0]!.k;
    if (!same) list.push({ from, block });
  };
  for (let number = 0; number <= NEWEST_SYSCALL; number++) add(number, byNumber.get(number) ?? [fallback]);
  add(NEWEST_SYSCALL + 1, [unknown]);
  const marked = machine === 'x86_64' ? byNumber.get(X32_BIT) : undefined;
  if (marked) add(X32_BIT, marked);
  return list;
}

/** A tree of comparisons with the answers as leaves. */
function bisect(list: Interval[]): Instruction[] {
  if (list.length === 1) return list[0]!.block;
  const middle = list.length >> 1;
  const below = bisect(list.slice(0, middle));
  const above = bisect(list.slice(middle));
  const { from } = list[middle]!;
  if (below.length <= NEAR_MAX)
    return [instruction(JUMP_NOT_LESS, from, below.length, 0), ...below, ...above];
  return [instruction(JUMP_NOT_LESS, from, 0, 1), instruction(JUMP, below.length), ...below, ...above];
}

function applies(rule: SeccompRule, machine: Machine, context: CompileContext): boolean {
  const { includes, excludes } = rule;
  const isMachine = (names: string[]): boolean =>
    names.includes(GO_ARCH[context.machine]) || names.includes(GO_ARCH[machine]);
  const has = (name: string): boolean => context.capabilities.has(name);
  if (includes?.caps?.length && !includes.caps.every(has)) return false;
  if (includes?.arches?.length && !isMachine(includes.arches)) return false;
  if (includes?.minKernel && !kernelAtLeast(context.kernel, includes.minKernel)) return false;
  if (excludes?.caps?.some(has)) return false;
  if (excludes?.arches?.length && isMachine(excludes.arches)) return false;
  return !(excludes?.minKernel && kernelAtLeast(context.kernel, excludes.minKernel));
}

function kernelAtLeast(kernel: string, wanted: string): boolean {
  const [major = 0, minor = 0] = kernel.split('.').map((part) => Number.parseInt(part, 10));
  const [wantedMajor = 0, wantedMinor = 0] = wanted.split('.').map((part) => Number.parseInt(part, 10));
  return major > wantedMajor || (major === wantedMajor && minor >= wantedMinor);
}

/** The conditions of a rule, then its answer; what does not match goes on after it. */
function compileRule(rule: SeccompRule): Instruction[] {
  let code = [answer(actionValue(rule.action, rule.errnoRet))];
  // From the end, so that each condition knows how far its failure has to jump.
  for (const condition of [...(rule.args ?? [])].reverse())
    code = [...compileCondition(condition, code.length), ...code];
  return code;
}

/**
 * Compares a 64-bit argument in two halves. The code falls through when the comparison holds, and else jumps past the
 * `rest` instructions that follow it.
 */
function compileCondition({ index, op, value, valueTwo }: SeccompArgument, rest: number): Instruction[] {
  const low = DATA_ARGUMENTS + index * 8;
  const high = low + 4;
  const halves = (number: number): [high: number, low: number] => {
    const wide = BigInt.asUintN(64, BigInt(number));
    return [Number(wide >> 32n), Number(wide & 0xffff_ffffn)];
  };
  const [valueHigh, valueLow] = halves(op === 'SCMP_CMP_MASKED_EQ' ? (valueTwo ?? 0) : value);
  const [maskHigh, maskLow] = halves(value);
  const equal = (yes: number, no: number): Instruction => instruction(JUMP_EQUAL, valueLow, yes, no);
  /** High half above: `above`; below: `below`; equal: compares the low half. Jumps count from the end of the code. */
  const ordered = (comparison: number, holds: number, fails: number): Instruction[] => [
    instruction(LOAD, high),
    instruction(JUMP_GREATER, valueHigh, holds + 3, 0),
    instruction(JUMP_EQUAL, valueHigh, 0, fails + 2),
    instruction(LOAD, low),
    instruction(comparison, valueLow, holds, fails),
  ];
  switch (op) {
    case 'SCMP_CMP_EQ':
      return [
        instruction(LOAD, high),
        instruction(JUMP_EQUAL, valueHigh, 0, rest + 2),
        instruction(LOAD, low),
        equal(0, rest),
      ];
    case 'SCMP_CMP_NE':
      return [
        instruction(LOAD, high),
        instruction(JUMP_EQUAL, valueHigh, 0, 2),
        instruction(LOAD, low),
        equal(rest, 0),
      ];
    case 'SCMP_CMP_MASKED_EQ':
      return [
        instruction(LOAD, high),
        instruction(AND, maskHigh),
        instruction(JUMP_EQUAL, valueHigh, 0, rest + 3),
        instruction(LOAD, low),
        instruction(AND, maskLow),
        equal(0, rest),
      ];
    case 'SCMP_CMP_GE':
      return ordered(JUMP_NOT_LESS, 0, rest);
    case 'SCMP_CMP_GT':
      return ordered(JUMP_GREATER, 0, rest);
    case 'SCMP_CMP_LT':
      return ordered(JUMP_NOT_LESS, rest, 0);
    case 'SCMP_CMP_LE':
      return ordered(JUMP_GREATER, rest, 0);
  }
}

function actionValue(action: SeccompRule['action'], errnoRet: number | undefined): number {
  const data = Math.min(errnoRet ?? EPERM, ERRNO_MAX);
  switch (action) {
    case 'SCMP_ACT_ALLOW':
      return RET_ALLOW;
    case 'SCMP_ACT_LOG':
      return RET_LOG;
    case 'SCMP_ACT_ERRNO':
      return RET_ERRNO | data;
    case 'SCMP_ACT_TRACE':
      return RET_TRACE | data;
    case 'SCMP_ACT_TRAP':
      return RET_TRAP;
    case 'SCMP_ACT_KILL':
    case 'SCMP_ACT_KILL_THREAD':
      return RET_KILL_THREAD;
    case 'SCMP_ACT_KILL_PROCESS':
      return RET_KILL_PROCESS;
  }
}
