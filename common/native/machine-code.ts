/**
 * Tiny programs that make system calls, one after the other, as ELF files for x86-64 and arm64. For what Node cannot
 * do itself: the kernel lets only a process with one thread into another user namespace, and an init should not be a
 * Node of 40 MB. Such a program runs from sealed memory, so there is no binary to ship and none to replace.
 *
 * A call that fails says what it was told to on a descriptor and ends the program; there are no other branches.
 */
import { callNumber, type SystemCallName } from './syscall.ts';

/** Machines that programs can be made for: values of `process.arch`. */
export type Machine = 'x64' | 'arm64';

/** `process.arch` as a {@link Machine}; nothing else runs Linux containers here. */
export function thisMachine(): Machine {
  return process.arch === 'arm64' ? 'arm64' : 'x64';
}

/** Bytes that hold the address of other bytes. */
export interface Pointing {
  bytes: Uint8Array;
  /** Where in them the address is. */
  at: number;
  to: Uint8Array;
}

/**
 * An argument: a number, the address of bytes, the program's own arguments or environment as execve(2) takes them, or
 * the address of 8 bytes to scribble on.
 */
export type Operand = number | Uint8Array | Pointing | 'argv' | 'envp' | 'scratch';

/** What to say where, and the exit status, when a call fails; `code`: only with this errno. */
export interface OnFailure {
  code?: number;
  fd: number;
  text: string;
  status: number;
}

/** One system call. Without `failures` its result does not matter. */
export interface Instruction {
  call: SystemCallName;
  operands: readonly Operand[];
  failures?: readonly OnFailure[];
  /** For `clone`: what the parent does, while the child goes on; then it ends as the child has ended. */
  parent?: readonly Instruction[];
  /** For `clone`: what the parent does once the child has ended; scratch memory holds how, as wait4(2) tells it. */
  afterwards?: readonly Instruction[];
}

const HEADER_BYTES = 64;
const SEGMENT_BYTES = 56;
const LOAD_ADDRESS = 0x400000;
const CODE_ADDRESS = LOAD_ADDRESS + HEADER_BYTES + SEGMENT_BYTES;
const PAGE_BYTES = 0x1000;

/** Where operands that are addresses are kept while the program runs; no system call changes those registers. */
type Kept = 'argv' | 'envp' | 'scratch';

/** What differs between machines. */
interface Assembler {
  elfMachine: number;
  /** Fills the registers of {@link Kept} from the stack as execve leaves it (the System V ABI: argc, argv, 0, envp). */
  start: number[];
  /** Loads operand `index`, or the call's number for -1. Always the same length. */
  load(index: number, value: bigint): number[];
  loadKept(index: number, kept: Kept): number[];
  enter: number[];
  /** Skips so many bytes unless the result is negative. */
  unlessFailed(bytes: number): number[];
  /** Skips so many bytes unless the result is `-errno`. */
  unlessErrno(errno: number, bytes: number): number[];
  /** Skips so many bytes if the result is 0. */
  ifZero(bytes: number): number[];
  /** Makes the first operand of what wait4(2) has put into scratch memory: the exit status, or the signal's number. */
  loadEnd: number[];
  /** Goes so many bytes back, from its own start. */
  back(bytes: number): number[];
}

const little = (value: bigint | number, bytes: number): number[] =>
  Array.from({ length: bytes }, (_, index) => Number((BigInt(value) >> BigInt(8 * index)) & 0xffn));

/** rdi rsi rdx r10 r8 r9: the prefix and opcode of `mov r, imm64`, and the last byte of `mov r, r13` with its prefix. */
const X64_OPERANDS: readonly { move: number[]; prefix: number; register: number }[] = [
  { move: [0x48, 0xbf], prefix: 0x4c, register: 7 },
  { move: [0x48, 0xbe], prefix: 0x4c, register: 6 },
  { move: [0x48, 0xba], prefix: 0x4c, register: 2 },
  { move: [0x49, 0xba], prefix: 0x4d, register: 2 },
  { move: [0x49, 0xb8], prefix: 0x4d, register: 0 },
  { move: [0x49, 0xb9], prefix: 0x4d, register: 1 },
];

/** r13, r14, r15 in bits 3 to 5 of a ModRM byte, with the mode for registers. */
const X64_KEPT: Readonly<Record<Kept, number>> = { argv: 0xe8, envp: 0xf0, scratch: 0xf8 };

const X64: Assembler = {
  elfMachine: 62,
  start: [
    [0x48, 0x8b, 0x04, 0x24], // mov rax, [rsp]
    [0x4c, 0x8d, 0x6c, 0x24, 0x08], // lea r13, [rsp+8]
    [0x4c, 0x8d, 0x74, 0xc4, 0x10], // lea r14, [rsp+rax*8+16]
    [0x4c, 0x8d, 0x7c, 0x24, 0x80], // lea r15, [rsp-128]
  ].flat(),
  load: (index, value) => [...(X64_OPERANDS[index]?.move ?? [0x48, 0xb8]), ...little(value, 8)],
  loadKept: (index, kept) => {
    const { prefix, register } = X64_OPERANDS[index]!;
    return [prefix, 0x89, X64_KEPT[kept] | register];
  },
  enter: [0x0f, 0x05],
  unlessFailed: (bytes) => [0x48, 0x85, 0xc0, 0x0f, 0x89, ...little(bytes, 4)], // test rax, rax; jns
  unlessErrno: (errno, bytes) => [0x48, 0x3d, ...little(-errno, 4), 0x0f, 0x85, ...little(bytes, 4)], // cmp; jne
  ifZero: (bytes) => [0x48, 0x85, 0xc0, 0x0f, 0x84, ...little(bytes, 4)], // test rax, rax; je
  loadEnd: [
    [0x41, 0x8b, 0x07], // mov eax, [r15]
    [0x89, 0xc7], // mov edi, eax
    [0xc1, 0xef, 0x08], // shr edi, 8
    [0x83, 0xe0, 0x7f], // and eax, 127
    [0x09, 0xc7], // or edi, eax
  ].flat(),
  back: (bytes) => [0xe9, ...little(-bytes - 5, 4)],
};

const word = (value: number): number[] => little(value >>> 0, 4);

/** x19, x20, x21 */
const ARM64_KEPT: Readonly<Record<Kept, number>> = { argv: 19, envp: 20, scratch: 21 };

const ARM64: Assembler = {
  elfMachine: 183,
  start: [
    0xf94003e9, // ldr x9, [sp]
    0x910023f3, // add x19, sp, #8
    0x8b090e74, // add x20, x19, x9, lsl #3
    0x91002294, // add x20, x20, #8
    0xd10203f5, // sub x21, sp, #128
  ].flatMap(word),
  // movz, then movk for the three higher quarters; the number of the call is in x8
  load: (index, value) =>
    [0, 1, 2, 3].flatMap((quarter) => {
      const bits = Number((value >> BigInt(16 * quarter)) & 0xffffn);
      const opcode = quarter === 0 ? 0xd2800000 : 0xf2800000;
      return word(opcode + quarter * 0x200000 + bits * 32 + (index < 0 ? 8 : index));
    }),
  loadKept: (index, kept) => word(0xaa0003e0 + ARM64_KEPT[kept] * 0x10000 + index), // mov
  enter: word(0xd4000001), // svc #0
  unlessFailed: (bytes) => word(0xb6f80000 + ((bytes + 4) / 4) * 32), // tbz x0, #63
  unlessErrno: (errno, bytes) => [
    ...word(0xb100001f + errno * 0x400), // cmn x0, #errno
    ...word(0x54000001 + ((bytes + 4) / 4) * 32), // b.ne
  ],
  ifZero: (bytes) => word(0xb4000000 + ((bytes + 4) / 4) * 32), // cbz x0
  loadEnd: [
    0xb94002a9, // ldr w9, [x21]
    0x53087d20, // lsr w0, w9, #8
    0x12001929, // and w9, w9, #127
    0x2a090000, // orr w0, w0, w9
  ].flatMap(word),
  back: (bytes) => word(0x14000000 | ((-bytes / 4) & 0x3ffffff)),
};

/**
 * Makes a program.
 *
 * @param forever the last instruction is made again and again; else the program ends after it with status 0.
 */
export function machineProgram(
  machine: Machine,
  instructions: readonly Instruction[],
  forever = false,
): Uint8Array {
  const assembler = machine === 'arm64' ? ARM64 : X64;
  // The length of the code does not depend on the addresses in it: once to learn it, once for good.
  const { code } = assemble(assembler, machine, instructions, forever, 0);
  const data = CODE_ADDRESS + code.length;
  const final = assemble(assembler, machine, instructions, forever, data);
  return elfFile(assembler.elfMachine, [...final.code, ...final.data]);
}

function assemble(
  assembler: Assembler,
  machine: Machine,
  instructions: readonly Instruction[],
  forever: boolean,
  dataAddress: number,
): { code: number[]; data: number[] } {
  const code = [...assembler.start];
  const data: number[] = [];
  const place = (bytes: Uint8Array): bigint => {
    while (data.length % 8 !== 0) data.push(0);
    const address = dataAddress + data.length;
    for (const byte of bytes) data.push(byte);
    return BigInt(address);
  };
  const call = (name: SystemCallName, operands: readonly Operand[]): number[] => [
    ...operands.flatMap((operand, index) => {
      if (typeof operand === 'string') return assembler.loadKept(index, operand);
      if (typeof operand === 'number') return assembler.load(index, BigInt(operand));
      if (operand instanceof Uint8Array) return assembler.load(index, place(operand));
      const bytes = Buffer.from(operand.bytes);
      bytes.writeBigUInt64LE(place(operand.to), operand.at);
      return assembler.load(index, place(bytes));
    }),
    ...assembler.load(-1, BigInt(callNumber(name, machine))),
    ...assembler.enter,
  ];
  const failure = ({ fd, text, status }: OnFailure): number[] => {
    const bytes = Buffer.from(text);
    return [...call('write', [fd, bytes, bytes.length]), ...call('exit_group', [status])];
  };
  const emit = ({ call: name, operands, failures = [], parent, afterwards = [] }: Instruction): void => {
    code.push(...call(name, operands));
    for (const wanted of failures) {
      const block = failure(wanted);
      code.push(
        ...(wanted.code === undefined
          ? assembler.unlessFailed(block.length)
          : assembler.unlessErrno(wanted.code, block.length)),
        ...block,
      );
    }
    if (!parent) return;
    const before = code.splice(0);
    for (const instruction of parent) emit(instruction);
    code.push(...call('wait4', [-1, 'scratch', 0, 0]));
    for (const instruction of afterwards) emit(instruction);
    const ending = [
      ...assembler.loadEnd,
      ...assembler.load(-1, BigInt(callNumber('exit_group', machine))),
      ...assembler.enter,
    ];
    const block = [...code.splice(0), ...ending];
    code.push(...before, ...assembler.ifZero(block.length), ...block);
  };
  for (const [index, instruction] of instructions.entries()) {
    const start = code.length;
    emit(instruction);
    if (forever && index === instructions.length - 1) code.push(...assembler.back(code.length - start));
  }
  if (!forever) code.push(...call('exit_group', [0]));
  return { code, data };
}

/** An ELF file (elf(5)) with one segment. */
function elfFile(elfMachine: number, content: number[]): Uint8Array {
  const size = HEADER_BYTES + SEGMENT_BYTES + content.length;
  const file = new Uint8Array(size);
  const view = new DataView(file.buffer);
  const u16 = (offset: number, value: number): void => view.setUint16(offset, value, true);
  const u32 = (offset: number, value: number): void => view.setUint32(offset, value, true);
  const u64 = (offset: number, value: number): void => view.setBigUint64(offset, BigInt(value), true);
  // e_ident: magic, 64 bits, little-endian, version 1.
  file.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  u16(16, 2); // e_type: ET_EXEC
  u16(18, elfMachine); // e_machine
  u32(20, 1); // e_version
  u64(24, CODE_ADDRESS); // e_entry
  u64(32, HEADER_BYTES); // e_phoff
  u16(52, HEADER_BYTES); // e_ehsize
  u16(54, SEGMENT_BYTES); // e_phentsize
  u16(56, 1); // e_phnum
  u32(HEADER_BYTES, 1); // p_type: PT_LOAD
  u32(HEADER_BYTES + 4, 5); // p_flags: read, execute
  u64(HEADER_BYTES + 16, LOAD_ADDRESS); // p_vaddr
  u64(HEADER_BYTES + 24, LOAD_ADDRESS); // p_paddr
  u64(HEADER_BYTES + 32, size); // p_filesz
  u64(HEADER_BYTES + 40, size); // p_memsz
  u64(HEADER_BYTES + 48, PAGE_BYTES); // p_align
  file.set(content, HEADER_BYTES + SEGMENT_BYTES);
  return file;
}
