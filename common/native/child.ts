/**
 * Children that Node does not know of, on Linux: one is born of a launcher, which then goes, and is adopted. libuv waits
 * for its own children by number and so leaves these alone.
 */
import { constants } from 'node:os';
import { SyscallError } from '../errors.ts';
import { cFunction, check, errnoName } from './libc.ts';
import { systemCall } from './syscall.ts';

const rawSpawn = cFunction('posix_spawn', 'int', [
  'void *',
  'str',
  'void *',
  'void *',
  'const char **',
  'const char **',
]);
const rawAttributesInit = cFunction('posix_spawnattr_init', 'int', ['void *']);
const rawAttributesFlags = cFunction('posix_spawnattr_setflags', 'int', ['void *', 'short']);
const rawPrctl = cFunction('prctl', 'int', ['int', 'ulong', 'ulong', 'ulong', 'ulong']);
const rawIoctl = cFunction('ioctl', 'int', ['int', 'ulong', '...']);
const rawWaitid = systemCall<[number, number, Uint8Array, number, number]>('waitid', [
  'int',
  'int',
  'void *',
  'int',
  'int64',
]);

/** posix_spawnattr_t has 336 bytes with glibc and with musl. */
const ATTRIBUTES_BYTES = 336;
const POSIX_SPAWN_SETSID = 0x80;

/**
 * Starts a program in a session of its own as a child of this process, with all that the calling thread is: identity,
 * capabilities, folders, namespaces, filters. Memory is not copied (the C library uses vfork's kind of clone).
 *
 * @returns the child's number in this process's pid namespace
 * @throws SyscallError also for what execve answers
 */
export function spawnProgram(path: string, args: string[], env: string[]): number {
  const attributes = new Uint8Array(ATTRIBUTES_BYTES);
  rawAttributesInit(attributes);
  rawAttributesFlags(attributes, POSIX_SPAWN_SETSID);
  const pid = new Int32Array(1);
  const number = rawSpawn(
    new Uint8Array(pid.buffer),
    path,
    null,
    attributes,
    [...args, null],
    [...env, null],
  );
  if (number !== 0) throw new SyscallError('posix_spawn', errnoName(number), number, path);
  return pid[0]!;
}

const PR_SET_CHILD_SUBREAPER = 36;

/** Whether orphans among this process's descendants, of its own pid namespace, become its children (prctl(2)). */
export function adoptOrphans(adopt: boolean): void {
  check(rawPrctl(PR_SET_CHILD_SUBREAPER, adopt ? 1 : 0, 0, 0, 0), 'prctl', 'PR_SET_CHILD_SUBREAPER');
}

/** How a process ended: one of both is null. */
export interface ProcessEnd {
  code: number | null;
  signal: number | null;
}

const P_PIDFD = 3;
const WNOHANG = 1;
const WEXITED = 4;
const CLD_EXITED = 1;

/** Reaps a child that has ended; undefined while it runs. */
export function reap(pidfd: number): ProcessEnd | undefined {
  // siginfo_t: si_signo, si_errno, si_code, then at 16 si_pid, si_uid, si_status.
  const info = new Int32Array(32);
  rawWaitid(P_PIDFD, pidfd, new Uint8Array(info.buffer), WNOHANG | WEXITED, 0);
  if (info[0] !== constants.signals.SIGCHLD) return undefined;
  const status = info[6]!;
  return info[2] === CLD_EXITED ? { code: status, signal: null } : { code: null, signal: status };
}

/** _IOWR(0xff, 11, struct pidfd_info) with the 64 bytes of its first version (include/uapi/linux/pidfd.h). */
const PIDFD_GET_INFO = 0xc040ff0b;
const PIDFD_INFO_EXIT = 8n;
const INFO_BYTES = 64;

/** How a process that somebody else reaped has ended; undefined on kernels before 6.15, which do not tell. */
export function endOf(pidfd: number): ProcessEnd | undefined {
  const info = Buffer.alloc(INFO_BYTES);
  info.writeBigUInt64LE(PIDFD_INFO_EXIT, 0);
  if (rawIoctl(pidfd, PIDFD_GET_INFO, 'void *', info) < 0) return undefined;
  if ((info.readBigUInt64LE(0) & PIDFD_INFO_EXIT) === 0n) return undefined;
  return endOfStatus(info.readInt32LE(INFO_BYTES - 4));
}

/** What wait(2) tells: the signal in the low seven bits, else the code in the byte above. */
export function endOfStatus(status: number): ProcessEnd {
  const signal = status & 0x7f;
  return signal ? { code: null, signal } : { code: (status >> 8) & 0xff, signal: null };
}
