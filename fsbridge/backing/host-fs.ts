/**
 * The file system that is served. Two implementations: the host's (posix-linux.ts) and one in memory (memory-fs.ts)
 * for tests and for use as a library.
 *
 * Conventions, which keep the hot path free of allocation:
 * - A result is a count or descriptor, or a negative error (see wire/errno.ts).
 * - A file is named by a directory's descriptor and one component, a byte string; an empty name means the object
 *   behind the descriptor itself. No operation follows a symbolic link, and since a name is never `..` and holds no
 *   slash, none leaves the served tree.
 * - What is known about a file is put into `stat`, which the next call overwrites.
 */
import type { Memory } from '../memory.ts';
import type { Stat } from '../wire/stat.ts';

/** Leave an owner as it is. */
export const KEEP_ID = 0xffffffff;
/** Nanoseconds that mean now, and leave as it is (utimensat(2)). */
export const UTIME_NOW = 0x3fffffff;
export const UTIME_OMIT = 0x3ffffffe;

/** Flags of open, Linux's (asm-generic). */
export const O_ACCMODE = 3;
export const O_WRONLY = 1;
export const O_RDWR = 2;
export const O_EXCL = 0o200;
const O_TRUNC = 0o1000;
const O_APPEND = 0o2000;
const O_NOATIME = 0o1000000;
const O_SYNC = 0o4010000;

/** Flags of an open that concern the host; the kernel handles the others, or they concern only its own side. */
export const HOST_OPEN_FLAGS: number = O_ACCMODE | O_APPEND | O_TRUNC | O_NOATIME | O_SYNC;

/** Kinds of a lock (struct flock); 0 is one for reading. */
export const F_WRLCK = 1;
export const F_UNLCK = 2;

/** A byte range lock; `length` 0 means to the end of the file, however it grows. */
export interface RangeLock {
  type: number;
  start: number;
  length: number;
  /** Who holds a conflicting one, 0 if that isn't known. */
  pid: number;
}

export interface HostFs {
  /** Filled by every call that is said to. */
  readonly stat: Stat;

  /** Descriptor of what is served, a folder or a file; it stays open. */
  readonly root: number;
  /** Fills `stat`. */
  statAt(dir: number, name: string): number;
  /** A descriptor that names a directory for other calls but can't read it; -ENOTDIR if it isn't one. */
  openPath(dir: number, name: string): number;
  /** Opens an existing regular file. It is never a device, pipe or link, whatever the name has become. */
  open(dir: number, name: string, flags: number): number;
  /** Opens a directory for readDir. */
  openDir(dir: number): number;
  /** Makes a regular file and opens it; fails with -EEXIST if there is something. */
  create(dir: number, name: string, flags: number, mode: number): number;
  /** Makes a file without a name (O_TMPFILE). */
  createUnnamed(dir: number, flags: number, mode: number): number;
  close(fd: number): void;

  read(fd: number, into: Memory, at: number, size: number, position: number): number;
  /**
   * The same without waiting: -EAGAIN if the data have to come from a disk first, -EOPNOTSUPP if that can't be told.
   * Fewer bytes than asked for need not mean the end of the file.
   */
  readNow(fd: number, into: Memory, at: number, size: number, position: number): number;
  write(fd: number, from: Memory, at: number, size: number, position: number): number;
  /**
   * Fills `into` with records like Linux's linux_dirent64: 64-bit inode, 64-bit cookie of the position behind it,
   * 16-bit length of the record, type, name and NUL, padded to 8 bytes. A count of bytes, 0 at the end.
   */
  readDir(fd: number, into: Memory): number;
  /** Moves to a cookie of readDir, two words low first; 0, 0 is the start. */
  seekDir(fd: number, low: number, high: number): number;
  /** lseek(2) for SEEK_DATA 3 and SEEK_HOLE 4. */
  seek(fd: number, position: number, whence: number): number;
  truncate(fd: number, size: number): number;
  allocate(fd: number, mode: number, position: number, size: number): number;
  copyRange(from: number, fromPosition: number, to: number, toPosition: number, size: number): number;
  /** Writes a file's data and, unless `dataOnly`, metadata to the disk. */
  sync(fd: number, dataOnly: boolean): number;
  /** Writes everything of the file system to the disk. */
  syncAll(): number;

  mkdir(dir: number, name: string, mode: number): number;
  /** `device` is encoded as stat.ts's encodeDevice(). */
  mknod(dir: number, name: string, mode: number, device: number): number;
  symlink(target: string, dir: number, name: string): number;
  link(fromDir: number, from: string, toDir: number, to: string): number;
  unlink(dir: number, name: string): number;
  rmdir(dir: number, name: string): number;
  /** Flags: RENAME_NOREPLACE 1, RENAME_EXCHANGE 2, RENAME_WHITEOUT 4. */
  rename(fromDir: number, from: string, toDir: number, to: string, flags: number): number;
  /** Puts the target at byte `at` of `into`; its length. */
  readLink(dir: number, name: string, into: Memory, at: number): number;

  chmod(dir: number, name: string, mode: number): number;
  /** KEEP_ID leaves one as it is. */
  chown(dir: number, name: string, uid: number, gid: number): number;
  /** Words of two times as in `stat`: seconds low and high, nanoseconds (or UTIME_NOW, UTIME_OMIT). */
  utimens(dir: number, name: string, atime: Uint32Array, mtime: Uint32Array): number;

  getXattr(dir: number, name: string, attribute: string, into: Memory, at: number, size: number): number;
  setXattr(
    dir: number,
    name: string,
    attribute: string,
    from: Memory,
    at: number,
    size: number,
    flags: number,
  ): number;
  /** NUL-terminated names; with `size` 0 only the bytes needed. */
  listXattr(dir: number, name: string, into: Memory, at: number, size: number): number;
  removeXattr(dir: number, name: string, attribute: string): number;

  /** Words of struct fuse_kstatfs: five 64-bit counts, then block size, longest name, fragment size. */
  statfs(out: Uint32Array, at: number): number;

  /** Takes or frees a lock of the whole open file (flock(2)), without waiting: -EAGAIN. */
  lockFile(fd: number, type: number): number;
  /** Takes or frees a range lock that belongs to the open file, without waiting: -EAGAIN. */
  lockRange(fd: number, lock: RangeLock): number;
  /** Tells in `lock` which lock would be in the way, or F_UNLCK. */
  testRange(fd: number, lock: RangeLock): number;
}
