/**
 * Which devices a jail may use, as an eBPF program: the form in which version 2 of control groups wants to know
 * (Documentation/admin-guide/cgroup-v2.rst, "Device controller"). The kernel runs it for every open and mknod.
 *
 * The program is a list of rules in order; the first that matches allows, the end denies:
 *
 *   r2 = type, r3 = access, r4 = major, r5 = minor
 *   for each rule: skip unless the type is the rule's, the access within the rule's, and the numbers the rule's
 *   r0 = 1; exit
 */
import type { DeviceRule } from './cgroup.ts';

/** struct bpf_cgroup_dev_ctx: u32 access_type (access << 16 | type), u32 major, u32 minor. */
const CONTEXT_ACCESS_TYPE = 0;
const CONTEXT_MAJOR = 4;
const CONTEXT_MINOR = 8;

const TYPES = { b: 1, c: 2 };
const ACCESS: Record<string, number> = { m: 1, r: 2, w: 4 };

const LDX_WORD = 0x61;
const MOV32_REG = 0xbc;
const MOV32_IMM = 0xb4;
const AND32_IMM = 0x54;
const RSH32_IMM = 0x74;
const JNE_IMM = 0x55;
const JNE_REG = 0x5d;
const EXIT = 0x95;

type Instruction = [code: number, registers: number, offset: number, immediate: number];

/** Assembles the program. A jump goes past the end of its own rule. */
export function deviceProgram(rules: readonly DeviceRule[]): Uint8Array {
  const program: Instruction[] = [
    [LDX_WORD, 0x12, CONTEXT_ACCESS_TYPE, 0],
    [MOV32_REG, 0x23, 0, 0],
    [AND32_IMM, 0x02, 0, 0xffff],
    [RSH32_IMM, 0x03, 0, 16],
    [LDX_WORD, 0x14, CONTEXT_MAJOR, 0],
    [LDX_WORD, 0x15, CONTEXT_MINOR, 0],
  ];
  for (const rule of rules) program.push(...compileRule(rule));
  program.push([MOV32_IMM, 0x00, 0, 0], [EXIT, 0, 0, 0]);
  const bytes = new Uint8Array(program.length * 8);
  const view = new DataView(bytes.buffer);
  program.forEach(([code, registers, offset, immediate], index) => {
    view.setUint8(index * 8, code);
    view.setUint8(index * 8 + 1, registers);
    view.setInt16(index * 8 + 2, offset, true);
    view.setInt32(index * 8 + 4, immediate, true);
  });
  return bytes;
}

function compileRule({ type, major, minor, access }: DeviceRule): Instruction[] {
  const allowed = [...access].reduce((bits, letter) => bits | (ACCESS[letter] ?? 0), 0);
  const body: Instruction[] = [
    [JNE_IMM, 0x02, 0, TYPES[type]],
    // r1 = access & allowed; it must be all of the access.
    [MOV32_REG, 0x31, 0, 0],
    [AND32_IMM, 0x01, 0, allowed],
    [JNE_REG, 0x31, 0, 0],
  ];
  if (major !== undefined) body.push([JNE_IMM, 0x04, 0, major]);
  if (minor !== undefined) body.push([JNE_IMM, 0x05, 0, minor]);
  body.push([MOV32_IMM, 0x00, 0, 1], [EXIT, 0, 0, 0]);
  body.forEach((instruction, index) => {
    if (instruction[0] === JNE_IMM || instruction[0] === JNE_REG) instruction[2] = body.length - index - 1;
  });
  return body;
}
