/** Loading BPF programs and attaching them to cgroups (bpf(2)). Linux only. */
import { closeSync } from 'node:fs';
import { addressOf } from './libc.ts';
import { systemCall } from './syscall.ts';

const rawBpf = systemCall<[number, Uint8Array, number]>('bpf', ['int', 'void *', 'uint']);

const BPF_PROG_LOAD = 5;
const BPF_PROG_ATTACH = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE = 15;
const BPF_CGROUP_DEVICE = 6;
/** Programs of groups above and below all run, and all must agree. */
const BPF_F_ALLOW_MULTI = 2;
/** union bpf_attr up to what is used here; the kernel takes what lacks as zero. */
const ATTR_BYTES = 128;

/**
 * Loads a device program and attaches it to a group of version 2. It lives as long as the group.
 *
 * @param program eBPF instructions of 8 bytes each.
 * @param groupFd an open folder of the hierarchy.
 */
export function attachDeviceProgram(program: Uint8Array, groupFd: number): void {
  // The kernel only asks for the licence of programs that call helpers reserved to GPL programs; this one calls none.
  const license = Buffer.from('Apache-2.0\0');
  const load = Buffer.alloc(ATTR_BYTES);
  load.writeUInt32LE(BPF_PROG_TYPE_CGROUP_DEVICE, 0);
  load.writeUInt32LE(program.length / 8, 4);
  load.writeBigUInt64LE(BigInt(addressOf(program)), 8);
  load.writeBigUInt64LE(BigInt(addressOf(license)), 16);
  const programFd = rawBpf(BPF_PROG_LOAD, load, ATTR_BYTES);
  try {
    const attach = Buffer.alloc(ATTR_BYTES);
    attach.writeUInt32LE(groupFd, 0);
    attach.writeUInt32LE(programFd, 4);
    attach.writeUInt32LE(BPF_CGROUP_DEVICE, 8);
    attach.writeUInt32LE(BPF_F_ALLOW_MULTI, 12);
    rawBpf(BPF_PROG_ATTACH, attach, ATTR_BYTES);
  } finally {
    closeSync(programFd);
  }
}
