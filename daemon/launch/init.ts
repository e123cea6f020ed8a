/**
 * Process 1 of a container with `--init`. All that an init must do here is to exist and to leave no zombies: the
 * container's program is started beside it by the daemon, which also passes signals on and ends the container when
 * the program ends. Zombies are the kernel's business when SIGCHLD is ignored, and that survives execve. What is left
 * is a program that waits for ever: a few instructions in an ELF header, run from sealed memory, instead of a Node of
 * 40 MB or a binary to ship.
 */
import { writeSync } from 'node:fs';
import type { System } from './system.ts';

const HEADER_BYTES = 64;
const SEGMENT_BYTES = 56;
const LOAD_ADDRESS = 0x400000;

/** x86-64: push 34 (pause); pop rax; syscall; jmp to the start. */
const CODE_X64 = Uint8Array.of(0x6a, 0x22, 0x58, 0x0f, 0x05, 0xeb, 0xf9);

/** arm64, which has no pause: ppoll(0, 0, 0, 0, 0) (73) for ever. */
const CODE_ARM64 = new Uint8Array(
  Uint32Array.of(
    0xd2800000, // mov x0, #0
    0xd2800001, // mov x1, #0
    0xd2800002, // mov x2, #0
    0xd2800003, // mov x3, #0
    0xd2800004, // mov x4, #0
    0xd2800928, // mov x8, #73
    0xd4000001, // svc #0
    0x17fffff9, // b to the start
  ).buffer,
);

/** The program as an ELF file (elf(5)) with one segment. */
export function initProgram(machine: 'x64' | 'arm64'): Uint8Array {
  const code = machine === 'arm64' ? CODE_ARM64 : CODE_X64;
  const size = HEADER_BYTES + SEGMENT_BYTES + code.length;
  const file = new Uint8Array(size);
  const view = new DataView(file.buffer);
  const u16 = (offset: number, value: number): void => view.setUint16(offset, value, true);
  const u32 = (offset: number, value: number): void => view.setUint32(offset, value, true);
  const u64 = (offset: number, value: number): void => view.setBigUint64(offset, BigInt(value), true);
  // e_ident: magic, 64 bits, little-endian, version 1.
  file.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  u16(16, 2); // e_type: ET_EXEC
  u16(18, machine === 'arm64' ? 183 : 62); // e_machine
  u32(20, 1); // e_version
  u64(24, LOAD_ADDRESS + HEADER_BYTES + SEGMENT_BYTES); // e_entry
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
  u64(HEADER_BYTES + 48, 0x1000); // p_align
  file.set(code, HEADER_BYTES + SEGMENT_BYTES);
  return file;
}

/** Becomes process 1, without any power. */
export function becomeInit(system: System): never {
  const memory = system.memoryFile('drydock-init');
  writeSync(memory, initProgram(process.arch === 'arm64' ? 'arm64' : 'x64'));
  system.sealMemory(memory);
  system.resetSignals();
  system.ignoreChildren();
  system.setNoNewPrivileges();
  system.limitBoundingSet(new Set());
  system.setCapabilities(0n);
  system.closeOnExecFrom(3);
  return system.execveFd(memory, ['/sbin/docker-init'], []);
}
