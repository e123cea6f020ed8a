/**
 * Processes on Linux: identity, capabilities, limits, signals, descriptors, and execve. Calls act on the calling
 * thread only, which is what the launcher wants: execve leaves no other.
 */
import { writeSync } from 'node:fs';
import { constants } from 'node:os';
import { isSingleUser } from '../user-namespace.ts';
import { cFunction, check } from './libc.ts';
import { systemCall } from './syscall.ts';

const rawExecve = cFunction('execve', 'int', ['str', 'const char **', 'const char **']);
const rawExecveat = systemCall<[number, string, (string | null)[], (string | null)[], number]>('execveat', [
  'int',
  'str',
  'const char **',
  'const char **',
  'int',
]);
const rawPrctl = cFunction('prctl', 'int', ['int', 'ulong', 'ulong', 'ulong', 'ulong']);
const rawCapset = systemCall<[Uint8Array, Uint8Array]>('capset', ['void *', 'void *']);
const rawSetgroups = systemCall<[number, Uint8Array]>('setgroups', ['int', 'void *']);
const rawSetresuid = systemCall<[number, number, number]>('setresuid', ['uint', 'uint', 'uint']);
const rawSetresgid = systemCall<[number, number, number]>('setresgid', ['uint', 'uint', 'uint']);
const rawSetfsuid = systemCall<[number]>('setfsuid', ['uint']);
const rawSetfsgid = systemCall<[number]>('setfsgid', ['uint']);
const rawPrlimit = systemCall<[number, number, Uint8Array, number]>('prlimit64', [
  'int',
  'int',
  'void *',
  'int64',
]);
const rawCloseRange = systemCall<[number, number, number]>('close_range', ['uint', 'uint', 'uint']);
const rawKeyctl = systemCall<[number, string]>('keyctl', ['int', 'str']);
const rawSigprocmask = systemCall<[number, Uint8Array, number, number]>('rt_sigprocmask', [
  'int',
  'void *',
  'int64',
  'size_t',
]);
const rawPidfdOpen = systemCall<[number, number]>('pidfd_open', ['int', 'uint']);
const rawPidfdGetfd = systemCall<[number, number, number]>('pidfd_getfd', ['int', 'int', 'uint']);
const rawPidfdSendSignal = systemCall<[number, number, number, number]>('pidfd_send_signal', [
  'int',
  'int',
  'int64',
  'uint',
]);
const rawMemfdCreate = systemCall<[string, number]>('memfd_create', ['str', 'uint']);
const rawSignal = cFunction('signal', 'int64', ['int', 'int64']);
const rawPipe2 = cFunction('pipe2', 'int', ['void *', 'int']);
const rawDup2 = cFunction('dup2', 'int', ['int', 'int']);
const rawFcntl = cFunction('fcntl', 'int', ['int', 'int', '...']);

/** Replaces the process. Returns only by throwing. */
export function execve(path: string, args: string[], env: string[]): never {
  check(rawExecve(path, [...args, null], [...env, null]), 'execve', path);
  throw new Error('execve returned');
}

const AT_EMPTY_PATH = 0x1000;

/** Replaces the process by the program that `fd` holds. */
export function execveFd(fd: number, args: string[], env: string[]): never {
  rawExecveat(fd, '', [...args, null], [...env, null], AT_EMPTY_PATH);
  throw new Error('execveat returned');
}

const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;
const F_ADD_SEALS = 1033;
const SEAL_ALL = 0x1 | 0x2 | 0x4 | 0x8;

/** An unnamed file in memory, to be filled and then sealed with {@link sealMemory}. */
export function memoryFile(name: string): number {
  return rawMemfdCreate(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
}

/** Puts bytes into a memory file. */
export function fillMemory(fd: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done);
}

/** Makes a memory file unchangeable for good. */
export function sealMemory(fd: number): void {
  check(rawFcntl(fd, F_ADD_SEALS, 'int', SEAL_ALL), 'fcntl', 'F_ADD_SEALS');
}

const PR_SET_DUMPABLE = 4;
const PR_SET_KEEPCAPS = 8;
const PR_CAPBSET_READ = 23;
export const PR_CAPBSET_DROP = 24;
const PR_SET_SECUREBITS = 28;
export const PR_SET_NO_NEW_PRIVS = 38;
const PR_CAP_AMBIENT = 47;
const PR_CAP_AMBIENT_RAISE = 2;
const PR_CAP_AMBIENT_CLEAR_ALL = 4;
const SECBIT_NO_SETUID_FIXUP = 4;

export { CAPABILITIES } from './capabilities.ts';

/** Whether the calling thread's bounding set has a capability; false for one that the kernel does not know. */
export function boundingHas(capability: number): boolean {
  return rawPrctl(PR_CAPBSET_READ, capability, 0, 0, 0) === 1;
}

/** Removes every capability from the bounding set but those of `keep`, for all numbers the kernel knows. */
export function limitBoundingSet(keep: Set<number>): void {
  for (let capability = 0; rawPrctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; capability++) {
    if (keep.has(capability)) continue;
    check(rawPrctl(PR_CAPBSET_DROP, capability, 0, 0, 0), 'prctl', `PR_CAPBSET_DROP ${capability}`);
  }
}

const LINUX_CAPABILITY_VERSION_3 = 0x20080522;

/** Sets effective and permitted to `mask`, and inheritable and ambient to nothing. */
export function setCapabilities(mask: bigint): void {
  check(rawPrctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), 'prctl', 'PR_CAP_AMBIENT_CLEAR_ALL');
  rawCapset(...capabilityStructs(mask, 0n));
}

/** The arguments of capset(2): effective and permitted are `mask`. */
export function capabilityStructs(mask: bigint, inheritable: bigint): [header: Uint8Array, data: Uint8Array] {
  const header = new Uint8Array(new Uint32Array([LINUX_CAPABILITY_VERSION_3, 0]).buffer);
  const low = (set: bigint): number => Number(set & 0xffff_ffffn);
  const high = (set: bigint): number => Number(set >> 32n);
  const data = [low(mask), low(mask), low(inheritable), high(mask), high(mask), high(inheritable)];
  return [header, new Uint8Array(new Uint32Array(data).buffer)];
}

/** Has only this capability, whose number is given, and keeps it across execve whatever the uid (capabilities(7), ambient). */
export function carryCapability(capability: number): void {
  const mask = 1n << BigInt(capability);
  rawCapset(...capabilityStructs(mask, mask));
  check(rawPrctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0), 'prctl', 'PR_CAP_AMBIENT_RAISE');
}

/** Whether capabilities stay as they are when the ids change, effective ones included. */
export function detachCapabilitiesFromIds(detached: boolean): void {
  check(
    rawPrctl(PR_SET_SECUREBITS, detached ? SECBIT_NO_SETUID_FIXUP : 0, 0, 0, 0),
    'prctl',
    'PR_SET_SECUREBITS',
  );
}

/** Whose files the calling thread makes from now on. */
export function setFileIdentity(uid: number, gid: number): void {
  rawSetfsuid(uid);
  rawSetfsgid(gid);
}

/** Whether capabilities survive the change from uid 0 to another until execve. */
export function keepCapabilities(keep: boolean): void {
  check(rawPrctl(PR_SET_KEEPCAPS, keep ? 1 : 0, 0, 0, 0), 'prctl', 'PR_SET_KEEPCAPS');
}

export function setNoNewPrivileges(): void {
  check(rawPrctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 'prctl', 'PR_SET_NO_NEW_PRIVS');
}

/** Keeps other processes from ptrace and from /proc/PID/{mem,fd,root,...} of this one, until execve. */
export function setUndumpable(): void {
  check(rawPrctl(PR_SET_DUMPABLE, 0, 0, 0, 0), 'prctl', 'PR_SET_DUMPABLE');
}

/** Sets real, effective and saved ids and the supplementary groups. */
export function setIdentity(uid: number, gid: number, groups: number[]): void {
  // A user namespace with one user has no right to change groups: it keeps those of the daemon's user.
  if (!isSingleUser() || groups.some((group) => group !== gid))
    rawSetgroups(groups.length, new Uint8Array(new Uint32Array(groups).buffer));
  rawSetresgid(gid, gid, gid);
  rawSetresuid(uid, uid, uid);
}

/** Resource numbers of x86-64 and arm64 (include/uapi/asm-generic/resource.h). */
export const RLIMITS: Readonly<Record<string, number>> = {
  cpu: 0,
  fsize: 1,
  data: 2,
  stack: 3,
  core: 4,
  rss: 5,
  nproc: 6,
  nofile: 7,
  memlock: 8,
  as: 9,
  locks: 10,
  sigpending: 11,
  msgqueue: 12,
  nice: 13,
  rtprio: 14,
  rttime: 15,
};

/** Sets a limit of the calling process; -1 is unlimited. */
export function setResourceLimit(resource: number, soft: number, hard: number): void {
  const limits = new BigUint64Array([BigInt.asUintN(64, BigInt(soft)), BigInt.asUintN(64, BigInt(hard))]);
  rawPrlimit(0, resource, new Uint8Array(limits.buffer), 0);
}

const KEYCTL_JOIN_SESSION_KEYRING = 1;

/** Gives the process a session keyring of its own, so that it does not share its starter's keys. */
export function newSessionKeyring(name: string): void {
  rawKeyctl(KEYCTL_JOIN_SESSION_KEYRING, name);
}

const SIG_DFL = 0;
const SIG_IGN = 1;
const SIG_SETMASK = 2;

/** Puts every signal back to its default action and unblocks all: both survive execve otherwise. */
export function resetSignals(): void {
  // glibc refuses the two that it uses itself, and nobody may change SIGKILL and SIGSTOP: nothing to check.
  for (let signal = 1; signal <= 64; signal++) rawSignal(signal, SIG_DFL);
  rawSigprocmask(SIG_SETMASK, new Uint8Array(8), 0, 8);
}

/** Lets the kernel reap the children of this process: an ignored SIGCHLD survives execve. */
export function ignoreChildren(): void {
  rawSignal(constants.signals.SIGCHLD, SIG_IGN);
}

const CLOSE_RANGE_CLOEXEC = 4;

/** Marks every descriptor from `first` up to be closed by execve. */
export function closeOnExecFrom(first: number): void {
  rawCloseRange(first, 0xffff_ffff, CLOSE_RANGE_CLOEXEC);
}

/** Makes `to` refer to what `from` does, open across execve. */
export function duplicate(from: number, to: number): void {
  check(rawDup2(from, to), 'dup2');
}

const F_SETFD = 2;
const F_GETFL = 3;
const F_SETFL = 4;
const O_NONBLOCK = 0x800;
const O_CLOEXEC = 0x80000;

/** Keeps a descriptor open across execve. */
export function clearCloseOnExec(fd: number): void {
  check(rawFcntl(fd, F_SETFD, 'int', 0), 'fcntl', 'F_SETFD');
}

export function setNonBlocking(fd: number): void {
  const flags = check(rawFcntl(fd, F_GETFL), 'fcntl', 'F_GETFL');
  check(rawFcntl(fd, F_SETFL, 'int', flags | O_NONBLOCK), 'fcntl', 'F_SETFL');
}

/** A pipe, closed on execve. */
export function pipe(): { read: number; write: number } {
  const fds = new Int32Array(2);
  check(rawPipe2(new Uint8Array(fds.buffer), O_CLOEXEC), 'pipe2');
  return { read: fds[0]!, write: fds[1]! };
}

/** A descriptor that means this process and never a later one with its number. */
export function pidfdOpen(pid: number): number {
  return rawPidfdOpen(pid, 0);
}

/** A copy of a descriptor of another process. */
export function pidfdGetFd(pidfd: number, fd: number): number {
  return rawPidfdGetfd(pidfd, fd, 0);
}

/** Sends a signal; 0 only asks whether the process is still there. */
export function pidfdSignal(pidfd: number, signal: number): void {
  rawPidfdSendSignal(pidfd, signal, 0, 0);
}
