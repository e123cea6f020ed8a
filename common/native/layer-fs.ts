/**
 * System calls for unpacking image layers: names come from strangers, so every path is resolved by the kernel inside
 * a root directory (openat2 with RESOLVE_IN_ROOT), and everything else works on one name beside an open directory.
 *
 * Layers hold tens of thousands of small files. These calls are made from a worker thread, one after the other, and
 * answer `-errno` instead of throwing, because "exists already" and "not there" are ordinary answers here.
 *
 * Names are byte strings: JavaScript strings with one char (0-255) per byte, since file names need not be UTF-8.
 * Linux only. man pages: openat2(2), mknodat(2), linkat(2), utimensat(2), setxattr(2).
 */
import { constants as fsConstants } from 'node:fs';
import { addressOf, cFunction, errno } from './libc.ts';

/** A path or name with one char per byte. */
export type ByteString = string;

/** open(2) flags that Node does not name; the same on all Linux architectures that Node runs on. */
export const O_PATH = 0x200000;
export const O_CLOEXEC = 0x80000;

/** linux/openat2.h: absolute paths, absolute symlinks and `..` are taken as inside the directory. */
const RESOLVE_IN_ROOT = 0x10;
/** asm-generic/unistd.h; every architecture has the same number for calls newer than 2019. */
const SYS_OPENAT2 = 437;
/** mknodat is a plain symbol of glibc only from 2.33 on. */
const SYS_MKNODAT = process.arch === 'x64' ? 259 : 33;
const AT_REMOVEDIR = 0x200;
const AT_SYMLINK_NOFOLLOW = 0x100;
const PATH_BYTES_MAX = 4096;

const syscallOpenat2 = cFunction('syscall', 'long', ['long', 'int', 'int64', 'int64', 'size_t']);
const syscallMknodat = cFunction('syscall', 'long', ['long', 'int', 'int64', 'uint', 'uint64']);
const cMkdirat = cFunction('mkdirat', 'int', ['int', 'int64', 'uint']);
const cSymlinkat = cFunction('symlinkat', 'int', ['int64', 'int', 'int64']);
const cLinkat = cFunction('linkat', 'int', ['int', 'int64', 'int', 'int64', 'int']);
const cUnlinkat = cFunction('unlinkat', 'int', ['int', 'int64', 'int']);
const cFchownat = cFunction('fchownat', 'int', ['int', 'int64', 'uint', 'uint', 'int']);
const cFchmodat = cFunction('fchmodat', 'int', ['int', 'int64', 'uint', 'int']);
const cUtimensat = cFunction('utimensat', 'int', ['int', 'int64', 'int64', 'int']);
const cLsetxattr = cFunction('lsetxattr', 'int', ['int64', 'int64', 'int64', 'size_t', 'int']);
const cLgetxattr = cFunction('lgetxattr', 'long', ['int64', 'int64', 'int64', 'size_t']);
const cLlistxattr = cFunction('llistxattr', 'long', ['int64', 'int64', 'size_t']);
const cSyncfs = cFunction('syncfs', 'int', ['int']);

// Fixed buffers: a Buffer of this size has memory of its own, which never moves.
const pathA = Buffer.alloc(2 * PATH_BYTES_MAX);
const pathB = Buffer.alloc(2 * PATH_BYTES_MAX);
const pathC = Buffer.alloc(2 * PATH_BYTES_MAX);
const value = Buffer.alloc(0x10000);
const openHow = Buffer.alloc(24);
const times = Buffer.alloc(32);
const addressA = addressOf(pathA);
const addressB = addressOf(pathB);
const addressC = addressOf(pathC);
const addressValue = addressOf(value);
const addressHow = addressOf(openHow);
const addressTimes = addressOf(times);

function put(target: Buffer, text: ByteString): void {
  // Longer than the buffer is longer than PATH_MAX: cut, and the kernel answers ENAMETOOLONG.
  const length = target.write(text, 0, Math.min(text.length, target.length - 1), 'latin1');
  target[length] = 0;
}

const result = (returned: number | bigint): number => (returned < 0 ? -errno() : Number(returned));

/** Opens `path` as if `rootFd` were `/`: whatever symlinks and `..` say, nothing outside is reached. */
export function openInRoot(rootFd: number, path: ByteString, flags: number, mode = 0): number {
  put(pathA, path);
  openHow.writeBigUInt64LE(BigInt(flags | O_CLOEXEC), 0);
  openHow.writeBigUInt64LE(BigInt(mode), 8);
  openHow.writeBigUInt64LE(BigInt(RESOLVE_IN_ROOT), 16);
  return result(syscallOpenat2(SYS_OPENAT2, rootFd, addressA, addressHow, openHow.length));
}

/** Makes the regular file `name` in the directory, for writing; -EEXIST when anything has that name. */
export function createFile(directoryFd: number, name: ByteString): number {
  const { O_CREAT, O_EXCL, O_WRONLY, O_NOFOLLOW } = fsConstants;
  return openInRoot(directoryFd, name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW, 0o600);
}

export function makeDirectory(directoryFd: number, name: ByteString, mode: number): number {
  put(pathA, name);
  return result(cMkdirat(directoryFd, addressA, mode));
}

/** @param mode file type and permissions, as in st_mode. */
export function makeNode(
  directoryFd: number,
  name: ByteString,
  mode: number,
  major: number,
  minor: number,
): number {
  put(pathA, name);
  // The layout of glibc's gnu_dev_makedev.
  const device =
    (BigInt(major & 0xfff) << 8n) |
    BigInt(minor & 0xff) |
    (BigInt(Math.floor(minor / 0x100)) << 20n) |
    (BigInt(Math.floor(major / 0x1000)) << 44n);
  return result(syscallMknodat(SYS_MKNODAT, directoryFd, addressA, mode, device));
}

export function makeSymlink(target: ByteString, directoryFd: number, name: ByteString): number {
  if (target.length >= PATH_BYTES_MAX) return -36; // ENAMETOOLONG, before put() would cut it
  put(pathA, target);
  put(pathB, name);
  return result(cSymlinkat(addressA, directoryFd, addressB));
}

/** A hard link to `from`, which is not followed when it is a symlink. */
export function makeLink(fromFd: number, from: ByteString, toFd: number, to: ByteString): number {
  put(pathA, from);
  put(pathB, to);
  return result(cLinkat(fromFd, addressA, toFd, addressB, 0));
}

export function removeName(directoryFd: number, name: ByteString, isDirectory = false): number {
  put(pathA, name);
  return result(cUnlinkat(directoryFd, addressA, isDirectory ? AT_REMOVEDIR : 0));
}

export function setOwner(directoryFd: number, name: ByteString, uid: number, gid: number): number {
  put(pathA, name);
  return result(cFchownat(directoryFd, addressA, uid, gid, AT_SYMLINK_NOFOLLOW));
}

/** Follows symlinks: never call it for one. */
export function setMode(directoryFd: number, name: ByteString, mode: number): number {
  put(pathA, name);
  return result(cFchmodat(directoryFd, addressA, mode, 0));
}

/** Sets both times; `nanoseconds` is the part below a second. */
export function setTimes(
  directoryFd: number,
  name: ByteString,
  seconds: number,
  nanoseconds: number,
): number {
  put(pathA, name);
  for (const offset of [0, 16]) {
    times.writeBigInt64LE(BigInt(seconds), offset);
    times.writeBigInt64LE(BigInt(nanoseconds), offset + 8);
  }
  return result(cUtimensat(directoryFd, addressA, addressTimes, AT_SYMLINK_NOFOLLOW));
}

/** Sets an extended attribute of `path` itself, not of what a symlink there names. */
export function setXattr(path: ByteString, name: ByteString, bytes: Uint8Array): number {
  put(pathA, path);
  put(pathC, name);
  if (bytes.length > value.length) return -7; // E2BIG: above XATTR_SIZE_MAX
  value.set(bytes);
  return result(cLsetxattr(addressA, addressC, addressValue, bytes.length, 0));
}

/** The value of an extended attribute of `path` itself, or undefined. */
export function getXattr(path: ByteString, name: ByteString): Buffer | undefined {
  put(pathA, path);
  put(pathC, name);
  const length = Number(cLgetxattr(addressA, addressC, addressValue, value.length));
  return length < 0 ? undefined : Buffer.from(value.subarray(0, length));
}

/** The names of the extended attributes of `path` itself; none where the file system has none. */
export function listXattrs(path: ByteString): ByteString[] {
  put(pathA, path);
  const length = Number(cLlistxattr(addressA, addressValue, value.length));
  return length <= 0 ? [] : value.toString('latin1', 0, length - 1).split('\0');
}

/** Writes everything of the file system that holds `fd` to its disk. */
export function syncFileSystem(fd: number): number {
  return result(cSyncfs(fd));
}
