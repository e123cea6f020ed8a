/**
 * Linux namespaces: making, joining and naming them (namespaces(7)).
 *
 * Both unshare and setns act on the calling thread. That is what makes {@link withPidNamespace} work: Node starts
 * children from its main thread, so the thread's "pid namespace for children" decides where the child lives, and the
 * daemon needs no intermediate process.
 */
import { closeSync } from 'node:fs';
import { cFunction, check } from './libc.ts';
import { systemCall } from './syscall.ts';

/** include/uapi/linux/sched.h */
export const CLONE_FS = 0x200;
export const CLONE_NEWNS = 0x20000;
export const CLONE_NEWCGROUP = 0x2000000;
export const CLONE_NEWUTS = 0x4000000;
export const CLONE_NEWIPC = 0x8000000;
export const CLONE_NEWUSER = 0x10000000;
export const CLONE_NEWPID = 0x20000000;
export const CLONE_NEWNET = 0x40000000;

const rawUnshare = cFunction('unshare', 'int', ['int']);
const rawChroot = cFunction('chroot', 'int', ['str']);
const rawFchdir = cFunction('fchdir', 'int', ['int']);
const rawChdir = cFunction('chdir', 'int', ['str']);
const rawSetns = cFunction('setns', 'int', ['int', 'int']);
const rawSethostname = cFunction('sethostname', 'int', ['str', 'size_t']);
const rawSetdomainname = cFunction('setdomainname', 'int', ['str', 'size_t']);
const rawPivotRoot = systemCall<[string, string]>('pivot_root', ['str', 'str']);
const rawSocket = cFunction('socket', 'int', ['int', 'int', 'int']);
const rawIoctl = cFunction('ioctl', 'int', ['int', 'ulong', '...']);

/** Gives the calling thread its own of what `flags` names. */
export function unshare(flags: number): void {
  check(rawUnshare(flags), 'unshare', `0x${flags.toString(16)}`);
}

/**
 * Makes `path` the root of the calling thread, which must have unshared CLONE_FS: other threads keep theirs. Paths that
 * this thread looks up from now on, links included, cannot leave it.
 */
export function changeRoot(path: string): void {
  check(rawChroot(path), 'chroot', path);
}

/** Makes the folder behind a descriptor the root of the calling thread: how one comes back from {@link changeRoot}. */
export function returnToRoot(fd: number): void {
  check(rawFchdir(fd), 'fchdir', String(fd));
  check(rawChroot('.'), 'chroot', '.');
}

/** Makes `path` the working folder of the process. */
export function changeFolder(path: string): void {
  check(rawChdir(path), 'chdir', path);
}

/** Moves the calling thread into a namespace (`fd` of /proc/PID/ns/x) or into several of a process (`fd` a pidfd). */
export function setns(fd: number, flags: number): void {
  check(rawSetns(fd, flags), 'setns', `0x${flags.toString(16)}`);
}

/**
 * Runs `spawn` while this thread's children are born into another pid namespace, then restores. Nothing else may
 * start threads or processes meanwhile, so `spawn` must be synchronous.
 *
 * @param target a pidfd of a process in the wanted namespace, or undefined for a new namespace, whose process 1 the
 *   child becomes.
 * @param ownNamespace an open /proc/self/ns/pid.
 */
export function withPidNamespace<T>(target: number | undefined, ownNamespace: number, spawn: () => T): T {
  if (target === undefined) unshare(CLONE_NEWPID);
  else setns(target, CLONE_NEWPID);
  try {
    return spawn();
  } finally {
    setns(ownNamespace, CLONE_NEWPID);
  }
}

export function setHostname(name: string): void {
  check(rawSethostname(name, Buffer.byteLength(name)), 'sethostname', name);
}

export function setDomainname(name: string): void {
  check(rawSetdomainname(name, Buffer.byteLength(name)), 'setdomainname', name);
}

/** pivot_root(2) on the current folder: it becomes the root, with the old root mounted on top of it. */
export function pivotRootHere(): void {
  rawPivotRoot('.', '.');
}

const AF_INET = 2;
const SOCK_DGRAM_CLOEXEC = 2 | 0x80000;
const SIOCGIFFLAGS = 0x8913;
const SIOCSIFFLAGS = 0x8914;
const IFF_UP = 1;
/** Offset of ifr_flags in struct ifreq (40 bytes), after IFNAMSIZ bytes of name. */
const IFR_FLAGS = 16;

/** Brings the loopback interface of the calling thread's network namespace up. */
export function loopbackUp(): void {
  const socket = check(rawSocket(AF_INET, SOCK_DGRAM_CLOEXEC, 0), 'socket');
  try {
    const request = Buffer.alloc(40);
    request.write('lo');
    check(rawIoctl(socket, SIOCGIFFLAGS, 'void *', request), 'ioctl', 'SIOCGIFFLAGS lo');
    request.writeUInt16LE(request.readUInt16LE(IFR_FLAGS) | IFF_UP, IFR_FLAGS);
    check(rawIoctl(socket, SIOCSIFFLAGS, 'void *', request), 'ioctl', 'SIOCSIFFLAGS lo');
  } finally {
    closeSync(socket);
  }
}
