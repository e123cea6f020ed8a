/**
 * Mounts by file descriptor (the mount API of Linux 5.2 to 5.12: open_tree, fsopen, mount_setattr, move_mount) and
 * path resolution that cannot leave a folder (openat2).
 *
 * A mount is first made detached, given its attributes, and only then put in place, on a descriptor instead of a
 * path: there is no moment at which a mount is visible without its `ro` or `nosuid`, and no path for a hostile image
 * to redirect.
 */
import { closeSync } from 'node:fs';
import { cFunction, check } from './libc.ts';
import { systemCall } from './syscall.ts';

export const AT_FDCWD = -100;
const AT_EMPTY_PATH = 0x1000;
const AT_RECURSIVE = 0x8000;

export const O_PATH = 0x200000;
export const O_CLOEXEC = 0x80000;

const OPEN_TREE_CLONE = 1;
const OPEN_TREE_CLOEXEC = O_CLOEXEC;
const MOVE_MOUNT_EMPTY_BOTH = 0x4 | 0x40;
const FSOPEN_CLOEXEC = 1;
const FSMOUNT_CLOEXEC = 1;
const FSCONFIG_SET_FLAG = 0;
const FSCONFIG_SET_STRING = 1;
const FSCONFIG_CMD_CREATE = 6;
const MNT_DETACH = 2;

/** include/uapi/linux/mount.h */
export const MOUNT_ATTR_RDONLY = 0x1;
export const MOUNT_ATTR_NOSUID = 0x2;
export const MOUNT_ATTR_NODEV = 0x4;
export const MOUNT_ATTR_NOEXEC = 0x8;
export const MOUNT_ATTR__ATIME = 0x70;
export const MOUNT_ATTR_RELATIME = 0;
export const MOUNT_ATTR_NOATIME = 0x10;
export const MOUNT_ATTR_STRICTATIME = 0x20;
export const MOUNT_ATTR_NODIRATIME = 0x80;
export const MS_SHARED = 0x100000;
export const MS_SLAVE = 0x80000;
export const MS_PRIVATE = 0x40000;
export const MS_UNBINDABLE = 0x20000;

/** include/uapi/linux/openat2.h */
export const RESOLVE_NO_MAGICLINKS = 0x2;
export const RESOLVE_NO_SYMLINKS = 0x4;
export const RESOLVE_BENEATH = 0x8;
export const RESOLVE_IN_ROOT = 0x10;

const rawOpenTree = systemCall<[number, string, number]>('open_tree', ['int', 'str', 'uint']);
const rawMoveMount = systemCall<[number, string, number, string, number]>('move_mount', [
  'int',
  'str',
  'int',
  'str',
  'uint',
]);
const rawFsopen = systemCall<[string, number]>('fsopen', ['str', 'uint']);
const rawFsconfig = systemCall<[number, number, string | null, string | null, number]>('fsconfig', [
  'int',
  'uint',
  'str',
  'str',
  'int',
]);
const rawFsmount = systemCall<[number, number, number]>('fsmount', ['int', 'uint', 'uint']);
const rawMountSetattr = systemCall<[number, string, number, Uint8Array, number]>('mount_setattr', [
  'int',
  'str',
  'uint',
  'void *',
  'size_t',
]);
const rawOpenat2 = systemCall<[number, string, Uint8Array, number]>('openat2', [
  'int',
  'str',
  'void *',
  'size_t',
]);
const rawMknodat = systemCall<[number, string, number, number]>('mknodat', ['int', 'str', 'uint', 'uint']);
const rawUmount2 = cFunction('umount2', 'int', ['str', 'int']);
const rawMkdirat = cFunction('mkdirat', 'int', ['int', 'str', 'uint']);
const rawSymlinkat = cFunction('symlinkat', 'int', ['str', 'int', 'str']);
const rawFchownat = cFunction('fchownat', 'int', ['int', 'str', 'uint', 'uint', 'int']);
const rawReadlinkat = cFunction('readlinkat', 'int64', ['int', 'str', 'void *', 'size_t']);
const rawFstatfs = cFunction('fstatfs', 'int', ['int', 'void *']);

/** A detached copy of the mount at a path, with the mounts below it when `recursive`. Closing it undoes it. */
export function cloneTree(dirFd: number, path: string, recursive: boolean): number {
  const flags =
    OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (recursive ? AT_RECURSIVE : 0) | (path === '' ? AT_EMPTY_PATH : 0);
  return rawOpenTree(dirFd, path, flags);
}

/** Puts a detached mount on what `targetFd` (O_PATH) refers to. */
export function attachMount(mountFd: number, targetFd: number): void {
  rawMoveMount(mountFd, '', targetFd, '', MOVE_MOUNT_EMPTY_BOTH);
}

/** What {@link setMountAttributes} changes: MOUNT_ATTR bits to set and clear, MS_ propagation or 0. */
export interface MountAttributes {
  set: number;
  clear: number;
  propagation: number;
}

/** Changes a mount given by any descriptor of its root; the mounts below it too when `recursive`. */
export function setMountAttributes(fd: number, attributes: MountAttributes, recursive: boolean): void {
  const struct = new BigUint64Array([
    BigInt(attributes.set),
    BigInt(attributes.clear),
    BigInt(attributes.propagation),
    0n,
  ]);
  const flags = AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0);
  rawMountSetattr(fd, '', flags, new Uint8Array(struct.buffer), struct.byteLength);
}

/**
 * A new detached file system.
 *
 * @param type as in /proc/filesystems.
 * @param options `[name]` for a flag, `[name, value]` otherwise.
 * @param attributes MOUNT_ATTR bits.
 */
export function newFilesystem(type: string, options: [string, string?][], attributes: number): number {
  const context = rawFsopen(type, FSOPEN_CLOEXEC);
  try {
    // Only a label, for /proc/mounts.
    rawFsconfig(context, FSCONFIG_SET_STRING, 'source', type, 0);
    for (const [name, value] of options) {
      if (value === undefined) rawFsconfig(context, FSCONFIG_SET_FLAG, name, null, 0);
      else rawFsconfig(context, FSCONFIG_SET_STRING, name, value, 0);
    }
    rawFsconfig(context, FSCONFIG_CMD_CREATE, null, null, 0);
    return rawFsmount(context, FSMOUNT_CLOEXEC, attributes);
  } finally {
    closeSync(context);
  }
}

/** Takes the topmost mount at `path` away, at once from sight and for good when nothing uses it. */
export function detachMount(path: string): void {
  check(rawUmount2(path, MNT_DETACH), 'umount2', path);
}

/** openat2(2). @param resolve RESOLVE_ bits. */
export function openResolved(dirFd: number, path: string, flags: number, resolve: number): number {
  const how = new BigUint64Array([BigInt(flags | O_CLOEXEC), 0n, BigInt(resolve)]);
  return rawOpenat2(dirFd, path, new Uint8Array(how.buffer), how.byteLength);
}

export function makeDirectoryAt(dirFd: number, name: string, mode: number): void {
  check(rawMkdirat(dirFd, name, mode), 'mkdirat', name);
}

/** @param mode type and permission bits. @param device as in `st_rdev`, 0 for a plain file. */
export function makeNodeAt(dirFd: number, name: string, mode: number, device: number): void {
  rawMknodat(dirFd, name, mode, device);
}

export function makeSymlinkAt(target: string, dirFd: number, name: string): void {
  check(rawSymlinkat(target, dirFd, name), 'symlinkat', name);
}

const AT_SYMLINK_NOFOLLOW = 0x100;

/** Changes the owner of what `name` is, not of what it links to. */
export function changeOwnerAt(dirFd: number, name: string, uid: number, gid: number): void {
  check(rawFchownat(dirFd, name, uid, gid, AT_SYMLINK_NOFOLLOW), 'fchownat', name);
}

const PATH_MAX = 4096;

/** The text of the symbolic link that `fd` (O_PATH and O_NOFOLLOW) refers to. */
export function readLinkOf(fd: number): string {
  const buffer = Buffer.alloc(PATH_MAX);
  const length = check(Number(rawReadlinkat(fd, '', buffer, PATH_MAX)), 'readlinkat');
  return buffer.toString('utf8', 0, length);
}

/** include/uapi/linux/magic.h */
export const DEVPTS_SUPER_MAGIC = 0x1cd1;

/** The kind of file system that an open file is on (`f_type` of statfs(2)). */
export function filesystemMagic(fd: number): number {
  const buffer = Buffer.alloc(120);
  check(rawFstatfs(fd, buffer), 'fstatfs');
  return Number(buffer.readBigInt64LE(0));
}
