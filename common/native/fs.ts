/**
 * File system calls of Linux as raw functions for hot loops: pointers are addresses (Numbers), results are those of
 * the kernel's own interface, a count or a negative errno, and nothing is thrown or allocated.
 *
 * Linux only, and so the variadic ones (openat, fcntl) are declared with fixed arguments: Linux passes both alike.
 * Calls that the C library of an older distribution lacks go through syscall(2), whose numbers of 424 and above are
 * the same on every architecture.
 */
import { addressOf, cFunction, errno } from './libc.ts';
import { callNumber } from './syscall.ts';

/** dirfd that means the working directory; every absolute path ignores it. */
export const AT_FDCWD = -100;
export const AT_SYMLINK_NOFOLLOW = 0x100;
export const AT_REMOVEDIR = 0x200;
export const AT_SYMLINK_FOLLOW = 0x400;
/** An empty name means the object behind dirfd itself. */
export const AT_EMPTY_PATH = 0x1000;

const SYS_PREADV2 = callNumber('preadv2', process.arch === 'arm64' ? 'arm64' : 'x64');
const SYS_OPEN_TREE = 428;
const SYS_MOUNT_SETATTR = 442;
const SYS_FCHMODAT2 = 452;

const pointer = 'int64';
const c = {
  openat: cFunction('openat', 'int', ['int', pointer, 'int', 'uint']),
  close: cFunction('close', 'int', ['int']),
  statx: cFunction('statx', 'int', ['int', pointer, 'int', 'uint', pointer]),
  pread: cFunction('pread64', 'int64', ['int', pointer, 'uint64', 'int64']),
  pwrite: cFunction('pwrite64', 'int64', ['int', pointer, 'uint64', 'int64']),
  lseek: cFunction('lseek64', 'int64', ['int', 'int64', 'int']),
  getdents: cFunction('getdents64', 'int64', ['int', pointer, 'uint64']),
  mkdirat: cFunction('mkdirat', 'int', ['int', pointer, 'uint']),
  mknodat: cFunction('mknodat', 'int', ['int', pointer, 'uint', 'uint64']),
  symlinkat: cFunction('symlinkat', 'int', [pointer, 'int', pointer]),
  linkat: cFunction('linkat', 'int', ['int', pointer, 'int', pointer, 'int']),
  unlinkat: cFunction('unlinkat', 'int', ['int', pointer, 'int']),
  renameat2: cFunction('renameat2', 'int', ['int', pointer, 'int', pointer, 'uint']),
  readlinkat: cFunction('readlinkat', 'int64', ['int', pointer, pointer, 'uint64']),
  fchmodat: cFunction('fchmodat', 'int', ['int', pointer, 'uint', 'int']),
  fchownat: cFunction('fchownat', 'int', ['int', pointer, 'uint', 'uint', 'int']),
  truncate: cFunction('truncate64', 'int', [pointer, 'int64']),
  ftruncate: cFunction('ftruncate64', 'int', ['int', 'int64']),
  utimensat: cFunction('utimensat', 'int', ['int', pointer, pointer, 'int']),
  fsync: cFunction('fsync', 'int', ['int']),
  fdatasync: cFunction('fdatasync', 'int', ['int']),
  syncfs: cFunction('syncfs', 'int', ['int']),
  fallocate: cFunction('fallocate64', 'int', ['int', 'int', 'int64', 'int64']),
  copyFileRange: cFunction('copy_file_range', 'int64', ['int', pointer, 'int', pointer, 'uint64', 'uint']),
  fstatfs: cFunction('fstatfs64', 'int', ['int', pointer]),
  setxattr: cFunction('setxattr', 'int', [pointer, pointer, pointer, 'uint64', 'int']),
  lsetxattr: cFunction('lsetxattr', 'int', [pointer, pointer, pointer, 'uint64', 'int']),
  getxattr: cFunction('getxattr', 'int64', [pointer, pointer, pointer, 'uint64']),
  lgetxattr: cFunction('lgetxattr', 'int64', [pointer, pointer, pointer, 'uint64']),
  listxattr: cFunction('listxattr', 'int64', [pointer, pointer, 'uint64']),
  llistxattr: cFunction('llistxattr', 'int64', [pointer, pointer, 'uint64']),
  removexattr: cFunction('removexattr', 'int', [pointer, pointer]),
  lremovexattr: cFunction('lremovexattr', 'int', [pointer, pointer]),
  flock: cFunction('flock', 'int', ['int', 'int']),
  fcntl: cFunction('fcntl', 'int', ['int', 'int', 'int64']),
  umask: cFunction('umask', 'uint', ['uint']),
  unshare: cFunction('unshare', 'int', ['int']),
  syscall: cFunction('syscall', 'int64', ['int64', 'int64', 'int64', 'int64', 'int64', 'int64', 'int64']),
};

/** The result of a call, with errno folded in: errno must be read before anything else runs. */
function outcome(result: number): number {
  return result < 0 ? -errno() : result;
}

export function openat(dirFd: number, path: number, flags: number, mode: number): number {
  return outcome(c.openat(dirFd, path, flags, mode));
}

export function close(fd: number): number {
  return outcome(c.close(fd));
}

/** Fills the 256 bytes of struct statx at `out`. */
export function statx(dirFd: number, path: number, flags: number, mask: number, out: number): number {
  return outcome(c.statx(dirFd, path, flags, mask, out));
}

export function pread(fd: number, into: number, size: number, position: number): number {
  return outcome(c.pread(fd, into, size, position));
}

const RWF_NOWAIT = 8;
/** struct iovec {base, length}, each of 64 bits. */
const vector = new Uint32Array(4);
const vectorAddress = addressOf(new Uint8Array(vector.buffer));

/**
 * Reads what can be had without waiting for a disk: -EAGAIN if that is nothing, -EOPNOTSUPP where the file system can't
 * tell. Fewer bytes than asked for may be the end of the file or not.
 */
export function preadNow(fd: number, into: number, size: number, position: number): number {
  vector[0] = into;
  vector[1] = into / 0x1_0000_0000;
  vector[2] = size;
  return outcome(c.syscall(SYS_PREADV2, fd, vectorAddress, 1, position, 0, RWF_NOWAIT));
}

export function pwrite(fd: number, from: number, size: number, position: number): number {
  return outcome(c.pwrite(fd, from, size, position));
}

/** The position may be a bigint: directory cookies use all 63 bits. */
export function lseek(fd: number, position: number | bigint, whence: number): number {
  return outcome(Number(c.lseek(fd, position, whence)));
}

/** Fills linux_dirent64 records at `into`; 0 at the end of the directory. */
export function getdents(fd: number, into: number, size: number): number {
  return outcome(c.getdents(fd, into, size));
}

export function mkdirat(dirFd: number, path: number, mode: number): number {
  return outcome(c.mkdirat(dirFd, path, mode));
}

/** `device` is encoded as the C library's makedev(). */
export function mknodat(dirFd: number, path: number, mode: number, device: number): number {
  return outcome(c.mknodat(dirFd, path, mode, device));
}

export function symlinkat(target: number, dirFd: number, path: number): number {
  return outcome(c.symlinkat(target, dirFd, path));
}

export function linkat(fromDirFd: number, from: number, toDirFd: number, to: number, flags: number): number {
  return outcome(c.linkat(fromDirFd, from, toDirFd, to, flags));
}

export function unlinkat(dirFd: number, path: number, flags: number): number {
  return outcome(c.unlinkat(dirFd, path, flags));
}

export function renameat2(
  fromDirFd: number,
  from: number,
  toDirFd: number,
  to: number,
  flags: number,
): number {
  return outcome(c.renameat2(fromDirFd, from, toDirFd, to, flags));
}

export function readlinkat(dirFd: number, path: number, into: number, size: number): number {
  return outcome(c.readlinkat(dirFd, path, into, size));
}

/** fchmodat(2) of the C library: follows a symbolic link at the end of the path. */
export function fchmodat(dirFd: number, path: number, mode: number): number {
  return outcome(c.fchmodat(dirFd, path, mode, 0));
}

/** fchmodat2(2), since Linux 6.6: the one that takes AT_SYMLINK_NOFOLLOW and AT_EMPTY_PATH. -ENOSYS before. */
export function fchmodat2(dirFd: number, path: number, mode: number, flags: number): number {
  return outcome(c.syscall(SYS_FCHMODAT2, dirFd, path, mode, flags, 0, 0));
}

/** An id of 0xffffffff leaves that one as it is. */
export function fchownat(dirFd: number, path: number, uid: number, gid: number, flags: number): number {
  return outcome(c.fchownat(dirFd, path, uid, gid, flags));
}

/** Follows a symbolic link at the end of the path. */
export function truncate(path: number, size: number): number {
  return outcome(c.truncate(path, size));
}

export function ftruncate(fd: number, size: number): number {
  return outcome(c.ftruncate(fd, size));
}

/** `times` is the address of two struct timespec. */
export function utimensat(dirFd: number, path: number, times: number, flags: number): number {
  return outcome(c.utimensat(dirFd, path, times, flags));
}

export function fsync(fd: number): number {
  return outcome(c.fsync(fd));
}

export function fdatasync(fd: number): number {
  return outcome(c.fdatasync(fd));
}

export function syncfs(fd: number): number {
  return outcome(c.syncfs(fd));
}

/** Has the file system that `path` is on write all it has to write. */
export function syncPath(path: string): number {
  const bytes = Buffer.from(`${path}\0`);
  const fd = openat(AT_FDCWD, addressOf(bytes), 0o2000000, 0);
  if (fd < 0) return fd;
  const result = syncfs(fd);
  close(fd);
  return result;
}

export function fallocate(fd: number, mode: number, position: number, size: number): number {
  return outcome(c.fallocate(fd, mode, position, size));
}

/** `fromPosition` and `toPosition` are addresses of int64, which the kernel advances. */
export function copyFileRange(
  fromFd: number,
  fromPosition: number,
  toFd: number,
  toPosition: number,
  size: number,
): number {
  return outcome(c.copyFileRange(fromFd, fromPosition, toFd, toPosition, size, 0));
}

/** Fills the 120 bytes of struct statfs at `out`. */
export function fstatfs(fd: number, out: number): number {
  return outcome(c.fstatfs(fd, out));
}

/** `follow` says whether a link at the end of the path is followed, as one of /proc/self/fd must be. */
export function setxattr(
  path: number,
  name: number,
  value: number,
  size: number,
  flags: number,
  follow: boolean,
): number {
  return outcome((follow ? c.setxattr : c.lsetxattr)(path, name, value, size, flags));
}

export function getxattr(path: number, name: number, into: number, size: number, follow: boolean): number {
  return outcome((follow ? c.getxattr : c.lgetxattr)(path, name, into, size));
}

export function listxattr(path: number, into: number, size: number, follow: boolean): number {
  return outcome((follow ? c.listxattr : c.llistxattr)(path, into, size));
}

export function removexattr(path: number, name: number, follow: boolean): number {
  return outcome((follow ? c.removexattr : c.lremovexattr)(path, name));
}

/** `operation` is LOCK_SH 1, LOCK_EX 2, LOCK_UN 8, with LOCK_NB 4. */
export function flock(fd: number, operation: number): number {
  return outcome(c.flock(fd, operation));
}

/** fcntl with a struct flock at `lock`: commands F_OFD_GETLK 36 and F_OFD_SETLK 37. */
export function fcntlLock(fd: number, command: number, lock: number): number {
  return outcome(c.fcntl(fd, command, lock));
}

const CLONE_FS = 0x200;

/**
 * Gives the calling thread its own umask of 0, so that modes are taken as they are given. umask and working directory
 * belong to the whole process until a thread asks for its own.
 */
export function takeOwnUmask(): number {
  const result = outcome(c.unshare(CLONE_FS));
  if (result === 0) c.umask(0);
  return result;
}

export const MOUNT_ATTR_RDONLY = 0x1;
export const MOUNT_ATTR_NODEV = 0x4;
export const MOUNT_ATTR_NOSYMFOLLOW = 0x200000;

/** With the mounts below. */
export const AT_RECURSIVE = 0x8000;
const OPEN_TREE_CLONE = 1;
const OPEN_TREE_CLOEXEC = 0o2000000;
const MS_PRIVATE = 1 << 18;

/**
 * A path descriptor of a copy of the mount at `path`, as a private bind mount that is mounted nowhere: what is mounted
 * later, anywhere, isn't seen through it. Needs CAP_SYS_ADMIN and Linux 5.12.
 *
 * @param attributes MOUNT_ATTR_* that the copy gets in addition.
 * @param depth AT_RECURSIVE or 0.
 */
export function cloneTree(path: string, attributes: number, depth: number): number {
  const bytes = Buffer.from(`${path}\0`);
  const address = addressOf(bytes);
  const flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | depth;
  const fd = outcome(c.syscall(SYS_OPEN_TREE, AT_FDCWD, address, flags, 0, 0, 0));
  if (fd < 0) return fd;
  // struct mount_attr: what to set, what to clear, propagation, user namespace.
  const attr = new BigUint64Array([BigInt(attributes), 0n, BigInt(MS_PRIVATE), 0n]);
  const attrAddress = addressOf(new Uint8Array(attr.buffer));
  const empty = addressOf(bytes.subarray(bytes.length - 1));
  const changed = outcome(
    c.syscall(SYS_MOUNT_SETATTR, fd, empty, AT_EMPTY_PATH | depth, attrAddress, attr.byteLength, 0),
  );
  if (changed === 0) return fd;
  close(fd);
  return changed;
}
