import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { inputs } from '../../../../test/support/fuzz/inputs.ts';
import { DEFAULT_CAPABILITIES } from '../../defaults.ts';
import type { SeccompArgument, SeccompProfile, SeccompRule } from '../../runtime.ts';
import { type CompileContext, compileSeccomp } from './compile.ts';
import { DEFAULT_SECCOMP_PROFILE, parseSeccompProfile } from './profile.ts';
import { SYSCALLS, SYSCALLS_BY_NAME } from './syscalls.ts';

const ALLOW = 0x7fff0000;
const ERRNO = 0x50000;
const X86_64 = 0xc000003e;
const X86 = 0x40000003;

interface Call {
  arch: number;
  number: number;
  args: bigint[];
}

/** The kernel's machine, as far as our programs use it. */
function run(program: Uint8Array, call: Call): number {
  const view = new DataView(program.buffer, program.byteOffset);
  const data = new DataView(new ArrayBuffer(64));
  data.setUint32(0, call.number, true);
  data.setUint32(4, call.arch, true);
  for (const [index, value] of call.args.entries()) data.setBigUint64(16 + index * 8, value, true);
  let accumulator = 0;
  for (let at = 0, steps = 0; ; at++, steps++) {
    expect(steps).toBeLessThan(4096);
    const [code, jt, jf, k] = [
      view.getUint16(at * 8, true),
      view.getUint8(at * 8 + 2),
      view.getUint8(at * 8 + 3),
      view.getUint32(at * 8 + 4, true),
    ];
    switch (code) {
      case 0x20:
        accumulator = data.getUint32(k, true);
        break;
      case 0x54:
        accumulator = (accumulator & k) >>> 0;
        break;
      case 0x05:
        at += k;
        break;
      case 0x15:
        at += accumulator === k ? jt : jf;
        break;
      case 0x25:
        at += accumulator > k ? jt : jf;
        break;
      case 0x35:
        at += accumulator >= k ? jt : jf;
        break;
      case 0x06:
        return k;
      default:
        throw new Error(`instruction ${code} at ${at}`);
    }
  }
}

const usual: CompileContext = {
  machine: 'x86_64',
  kernel: '6.1',
  capabilities: new Set(DEFAULT_CAPABILITIES),
};
const number = (name: string): number => SYSCALLS_BY_NAME.get(name)!.numbers.x86_64!;
const call = (name: string, ...args: (number | bigint)[]): Call => ({
  arch: X86_64,
  number: number(name),
  args: args.map((value) => BigInt.asUintN(64, BigInt(value))),
});

describe('the default profile', () => {
  const program = compileSeccomp(DEFAULT_SECCOMP_PROFILE, usual);
  it.each([
    ['read', [], ALLOW],
    ['openat', [], ALLOW],
    ['execve', [], ALLOW],
    ['ptrace', [], ALLOW],
    ['chroot', [], ALLOW],
    ['mount', [], ERRNO | 1],
    ['umount2', [], ERRNO | 1],
    ['unshare', [], ERRNO | 1],
    ['setns', [], ERRNO | 1],
    ['bpf', [], ERRNO | 1],
    ['keyctl', [], ERRNO | 1],
    ['add_key', [], ERRNO | 1],
    ['kexec_load', [], ERRNO | 1],
    ['io_uring_setup', [], ERRNO | 1],
    ['userfaultfd', [], ERRNO | 1],
    ['open_by_handle_at', [], ERRNO | 1],
    ['perf_event_open', [], ERRNO | 1],
    ['pivot_root', [], ERRNO | 1],
    ['clone', [0x11], ALLOW],
    ['clone', [0x10000000 | 0x11], ERRNO | 1],
    ['clone', [0x20000], ERRNO | 1],
    ['clone3', [], ERRNO | 38],
    ['socket', [1], ALLOW],
    ['socket', [2], ALLOW],
    ['socket', [16], ALLOW],
    ['socket', [17], ALLOW],
    ['socket', [12], ERRNO | 1],
    ['socket', [38], ERRNO | 1],
    ['socket', [40], ERRNO | 1],
    ['socket', [46], ERRNO | 1],
    ['personality', [0], ALLOW],
    ['personality', [0xffffffff], ALLOW],
    ['personality', [0x0040000], ERRNO | 1],
  ] as const)('%s%j', (name, args, answer) => expect(run(program, call(name, ...args))).toBe(answer));

  it('opens what a capability is for', () => {
    const admin = compileSeccomp(DEFAULT_SECCOMP_PROFILE, {
      ...usual,
      capabilities: new Set(['CAP_SYS_ADMIN', 'CAP_SYSLOG']),
    });
    for (const name of ['mount', 'unshare', 'clone3', 'bpf', 'syslog', 'open_tree'])
      expect(run(admin, call(name)), name).toBe(ALLOW);
    expect(run(admin, call('clone', 0x10000000))).toBe(ALLOW);
    for (const name of ['chroot', 'keyctl', 'reboot']) expect(run(admin, call(name)), name).toBe(ERRNO | 1);
  });

  it('knows the other architecture of the machine, and kills on any third', () => {
    const args: bigint[] = [];
    // 2 is fork for i386 and open for x86-64; 21 is mount for i386 and access for x86-64.
    expect(run(program, { arch: X86, number: 2, args })).toBe(ALLOW);
    expect(run(program, { arch: X86, number: 21, args })).toBe(ERRNO | 1);
    expect(run(program, { arch: X86_64, number: 21, args })).toBe(ALLOW);
    expect(run(program, { arch: 0xc00000b7, number: 63, args })).toBe(0x80000000);
    expect(run(program, { arch: X86_64, number: 0x40000000, args })).toBe(ERRNO | 38);
    expect(run(program, { arch: X86_64, number: 9999, args })).toBe(ERRNO | 38);
    expect(run(program, { arch: X86_64, number: 0xffffffff, args })).toBe(ERRNO | 38);
    const arm = compileSeccomp(DEFAULT_SECCOMP_PROFILE, { ...usual, machine: 'aarch64' });
    expect(run(arm, { arch: 0xc00000b7, number: 63, args })).toBe(ALLOW);
    expect(run(arm, { arch: 0xc00000b7, number: 40, args })).toBe(ERRNO | 1);
  });

  it('is short', () => expect(program.length / 8).toBeLessThan(800));
});

/** What a profile says, read naively. */
function decide(profile: SeccompProfile, name: string, args: bigint[]): number {
  const value = (action: string, errno = 1): number => (action === 'SCMP_ACT_ALLOW' ? ALLOW : ERRNO | errno);
  for (const rule of profile.syscalls ?? []) {
    if (rule.names.includes(name) && (rule.args ?? []).every((argument) => holds(argument, args)))
      return value(rule.action, rule.errnoRet);
  }
  return value(profile.defaultAction, profile.defaultErrnoRet);
}

function holds({ index, op, value, valueTwo }: SeccompArgument, args: bigint[]): boolean {
  const actual = args[index] ?? 0n;
  const wanted = BigInt.asUintN(64, BigInt(value));
  switch (op) {
    case 'SCMP_CMP_NE':
      return actual !== wanted;
    case 'SCMP_CMP_LT':
      return actual < wanted;
    case 'SCMP_CMP_LE':
      return actual <= wanted;
    case 'SCMP_CMP_EQ':
      return actual === wanted;
    case 'SCMP_CMP_GE':
      return actual >= wanted;
    case 'SCMP_CMP_GT':
      return actual > wanted;
    case 'SCMP_CMP_MASKED_EQ':
      return (actual & wanted) === BigInt.asUintN(64, BigInt(valueTwo ?? 0));
  }
}

describe('a compiled profile', () => {
  const names = SYSCALLS.filter(({ numbers }) => numbers.x86_64 !== undefined).map(({ name }) => name);
  const value = fc.oneof(fc.constantFrom(0, 1, 2, 0xffffffff, 0x1_0000_0000, 0x1_0000_0001), fc.maxSafeNat());
  const argument = fc.record({
    index: fc.nat(5),
    op: fc.constantFrom<SeccompArgument['op'][]>(
      'SCMP_CMP_NE',
      'SCMP_CMP_LT',
      'SCMP_CMP_LE',
      'SCMP_CMP_EQ',
      'SCMP_CMP_GE',
      'SCMP_CMP_GT',
      'SCMP_CMP_MASKED_EQ',
    ),
    value,
    valueTwo: value,
  });
  const rule: fc.Arbitrary<SeccompRule> = fc.record({
    names: fc.array(fc.constantFrom(...names.slice(0, 40)), { minLength: 1, maxLength: 20 }),
    action: fc.constantFrom('SCMP_ACT_ALLOW' as const, 'SCMP_ACT_ERRNO' as const),
    errnoRet: fc.integer({ min: 1, max: 100 }),
    args: fc.array(argument, { maxLength: 3 }),
  });
  const profile: fc.Arbitrary<SeccompProfile> = fc.record({
    defaultAction: fc.constantFrom('SCMP_ACT_ALLOW' as const, 'SCMP_ACT_ERRNO' as const),
    syscalls: fc.array(rule, { maxLength: 30 }),
  });

  it('decides as its rules say', () => {
    const actual = fc.tuple(
      fc.constantFrom(...names.slice(0, 50)),
      fc.array(value, { minLength: 6, maxLength: 6 }),
    );
    fc.assert(
      fc.property(profile, fc.array(actual, { minLength: 30, maxLength: 30 }), (rules, calls) => {
        const program = compileSeccomp(rules, usual);
        for (const [name, numbers] of calls) {
          const args = numbers.map(BigInt);
          expect(run(program, { arch: X86_64, number: number(name), args })).toBe(decide(rules, name, args));
        }
      }),
      { numRuns: inputs(200) },
    );
  });
});

describe('a user’s profile', () => {
  it('is read in docker’s form, also the old one with single names', () => {
    const json = JSON.stringify({
      defaultAction: 'SCMP_ACT_ALLOW',
      archMap: [{ architecture: 'SCMP_ARCH_X86_64', subArchitectures: ['SCMP_ARCH_X86'] }],
      syscalls: [
        { name: 'mkdir', action: 'SCMP_ACT_ERRNO', args: [] },
        { names: ['chmod'], action: 'SCMP_ACT_ERRNO', errnoRet: 13, args: null },
      ],
    });
    const program = compileSeccomp(parseSeccompProfile(json), usual);
    expect(run(program, call('mkdir'))).toBe(ERRNO | 1);
    expect(run(program, call('chmod'))).toBe(ERRNO | 13);
    expect(run(program, call('read'))).toBe(ALLOW);
    expect(run(program, { arch: X86, number: 39, args: [] })).toBe(ERRNO | 1);
  });

  it.each([
    ['{', 'JSON'],
    ['null', 'instead of object'],
    ['{}', 'defaultAction'],
    ['{"defaultAction":"SCMP_ACT_NOTIFY"}', 'SCMP_ACT_NOTIFY'],
    ['{"defaultAction":"SCMP_ACT_ALLOW","syscalls":{}}', 'syscalls is object instead of array'],
    ['{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"action":"SCMP_ACT_ERRNO"}]}', 'names no system call'],
    ['{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["x"],"action":"NO"}]}', 'unknown action'],
    [
      '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["x"],"action":"SCMP_ACT_LOG","args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}]}',
      'no argument 6',
    ],
    [
      '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["x"],"action":"SCMP_ACT_LOG","args":[{"index":0,"value":0,"op":"=="}]}]}',
      'unknown operator',
    ],
    ['{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/x"}', 'listeners'],
  ])('%s is refused', (json, why) => {
    expect(() => parseSeccompProfile(json)).toThrow(
      expect.objectContaining({ code: 'ERR_BAD_SECCOMP', message: expect.stringMatching(why) }),
    );
  });
});
