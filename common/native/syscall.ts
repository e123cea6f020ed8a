/**
 * System calls that the C library has no function for, or whose function does more than the call (glibc's setuid
 * changes every thread; the launcher wants only its own, the one that survives execve). Linux only.
 *
 * Each call is declared with its own parameter types: koffi then converts strings and buffers and keeps them alive
 * for as long as the call runs.
 *
 * No file that the launcher loads may import `node:process`: that opens process.stdin and stdout, and so makes the
 * pipes of the container's program non-blocking.
 */
import { cFunction, check } from './libc.ts';

/** System calls whose numbers are known here. */
export type SystemCallName =
  | 'capset'
  | 'setgroups'
  | 'setresuid'
  | 'setresgid'
  | 'keyctl'
  | 'seccomp'
  | 'pivot_root'
  | 'bpf'
  | 'mknodat'
  | 'prlimit64'
  | 'rt_sigprocmask'
  | 'execveat'
  | 'memfd_create'
  | 'pidfd_send_signal'
  | 'open_tree'
  | 'move_mount'
  | 'fsopen'
  | 'fsconfig'
  | 'fsmount'
  | 'pidfd_open'
  | 'waitid'
  | 'close_range'
  | 'openat2'
  | 'pidfd_getfd'
  | 'mount_setattr'
  | 'landlock_create_ruleset'
  | 'landlock_add_rule'
  | 'landlock_restrict_self'
  | 'setfsuid'
  | 'setfsgid'
  | 'unshare'
  | 'setns'
  | 'read'
  | 'write'
  | 'ppoll'
  | 'prctl'
  | 'execve'
  | 'clone'
  | 'wait4'
  | 'mount'
  | 'rt_sigaction'
  | 'setsid'
  | 'exit_group'
  | 'preadv2';

/** Numbers on x86-64 and arm64 (arch/x86/entry/syscalls/syscall_64.tbl, asm-generic/unistd.h). */
const NUMBERS: Record<SystemCallName, [x64: number, arm64: number]> = {
  capset: [126, 91],
  setgroups: [116, 159],
  setresuid: [117, 147],
  setresgid: [119, 149],
  keyctl: [250, 219],
  seccomp: [317, 277],
  pivot_root: [155, 41],
  bpf: [321, 280],
  mknodat: [259, 33],
  prlimit64: [302, 261],
  rt_sigprocmask: [14, 135],
  execveat: [322, 281],
  memfd_create: [319, 279],
  pidfd_send_signal: [424, 424],
  open_tree: [428, 428],
  move_mount: [429, 429],
  fsopen: [430, 430],
  fsconfig: [431, 431],
  fsmount: [432, 432],
  pidfd_open: [434, 434],
  waitid: [247, 95],
  close_range: [436, 436],
  openat2: [437, 437],
  pidfd_getfd: [438, 438],
  mount_setattr: [442, 442],
  landlock_create_ruleset: [444, 444],
  landlock_add_rule: [445, 445],
  landlock_restrict_self: [446, 446],
  setfsuid: [122, 151],
  setfsgid: [123, 152],
  unshare: [272, 97],
  setns: [308, 268],
  read: [0, 63],
  write: [1, 64],
  ppoll: [271, 73],
  prctl: [157, 167],
  execve: [59, 221],
  clone: [56, 220],
  wait4: [61, 260],
  mount: [165, 40],
  rt_sigaction: [13, 134],
  setsid: [112, 157],
  exit_group: [231, 94],
  preadv2: [327, 286],
};

/** The number of a system call on a machine. */
export function callNumber(name: SystemCallName, machine: 'x64' | 'arm64'): number {
  return NUMBERS[name][machine === 'arm64' ? 1 : 0];
}

/**
 * Declares a system call. The function returned throws SyscallError when the call fails.
 *
 * @param parameters koffi's types; a pointer is `str`, `void *` or `int64` for an address.
 */
export function systemCall<Arguments extends unknown[]>(
  name: SystemCallName,
  parameters: string[],
): (...args: Arguments) => number {
  const number = callNumber(name, process.arch === 'arm64' ? 'arm64' : 'x64');
  const call = cFunction('syscall', 'int64', ['int64', ...parameters]);
  return (...args) => check(Number(call(number, ...args)), name, typeof args[1] === 'string' ? args[1] : '');
}
