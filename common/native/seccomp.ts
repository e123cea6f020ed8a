/** Filters on system calls (seccomp(2)). Linux only. */
import { addressOf } from './libc.ts';
import { systemCall } from './syscall.ts';

const rawSeccomp = systemCall<[number, number, Uint8Array]>('seccomp', ['uint', 'uint', 'void *']);

export const SECCOMP_SET_MODE_FILTER = 1;
/** Without this flag older kernels also turn speculation mitigations on, which runc does not want either. */
export const SECCOMP_FILTER_FLAG_SPEC_ALLOW = 4;

/**
 * Confines the calling thread and all that it starts, for good. Needs CAP_SYS_ADMIN or no_new_privs.
 *
 * @param filter classic BPF instructions of 8 bytes each.
 */
export function installSeccompFilter(filter: Uint8Array): void {
  const program = Buffer.alloc(16);
  program.writeUInt16LE(filter.length / 8, 0);
  program.writeBigUInt64LE(BigInt(addressOf(filter)), 8);
  rawSeccomp(SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, program);
}
