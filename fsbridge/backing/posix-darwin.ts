/**
 * The host's file system on macOS, by system calls relative to a folder's descriptor, for FUSE-T's channel. Numbers and
 * structures are those of common/native/darwin/abi.ts; nothing here has run on a Mac, tests play its C library.
 *
 * What the wire of FUSE-T (the 7.19 ABI) has no operation for isn't here: locks, holes, space ahead, unnamed files. There
 * is no O_PATH and no /proc/self/fd: a folder is named by a descriptor that could read it too, and a file that is open
 * is opened again by the path that the kernel tells, which must lead to the same inode.
 */
import { CONSTANTS, STRUCTS } from '#common/native/darwin/abi';
import { type DarwinLibrary, systemLibrary } from '#common/native/darwin/library';
import type { Memory } from '../memory.ts';
import * as E from '../wire/errno.ts';
import { fromDarwin } from '../wire/errno-darwin.ts';
import * as S from '../wire/stat.ts';
import { DarwinListing } from './darwin-listing.ts';
import { type HostFs, O_ACCMODE, O_EXCL, UTIME_NOW, UTIME_OMIT } from './host-fs.ts';

const F = CONSTANTS['fcntl.h'];
const { RENAME_SWAP, RENAME_EXCL } = CONSTANTS['sys/stdio.h'];
const { MAXPATHLEN } = CONSTANTS['sys/param.h'];
const { size: STAT_LEN, fields: STAT } = STRUCTS['struct stat'];
const { size: STATFS_LEN, fields: STATFS } = STRUCTS['struct statfs'];
const { size: TIMESPEC_LEN, fields: TIMESPEC } = STRUCTS['struct timespec'];

/** Linux's numbers, in which HostFs is asked. */
const LINUX_O_TRUNC = 0o1000;
const LINUX_O_APPEND = 0o2000;
const RENAME_NOREPLACE = 1;
const RENAME_EXCHANGE = 2;

const NAME_MAX = 255;
/** Never waits for the other end of a pipe, never follows a link, never is inherited. */
const OPEN_SAFELY = F.O_NOFOLLOW | F.O_NONBLOCK | F.O_NOCTTY | F.O_CLOEXEC;

export class DarwinFs implements HostFs {
  readonly stat: S.Stat = new Uint32Array(S.STAT_BYTES / 4);
  readonly root: number;
  readonly #library: DarwinLibrary;
  readonly #found = Buffer.alloc(STAT_LEN);
  readonly #times = Buffer.alloc(2 * TIMESPEC_LEN);
  readonly #listings = new Map<number, DarwinListing>();

  /** @param path the folder to serve, without links. @throws nothing: `root` is negative if it can't be opened */
  constructor(path: string, library: DarwinLibrary = systemLibrary()) {
    this.#library = library;
    this.root = this.#call('openat', F.AT_FDCWD, cString(path), F.O_DIRECTORY | OPEN_SAFELY, 'int', 0);
  }

  statAt(dir: number, name: string): number {
    const result =
      name === ''
        ? this.#call('fstat', dir, this.#found)
        : this.#call('fstatat', dir, cString(name), this.#found, F.AT_SYMLINK_NOFOLLOW);
    if (result === 0) this.#fillStat();
    return result;
  }

  openPath(dir: number, name: string): number {
    return this.#call('openat', dir, cString(name), F.O_DIRECTORY | OPEN_SAFELY, 'int', 0);
  }

  open(dir: number, name: string, flags: number): number {
    if (name !== '') return this.#opened(this.#openAt(dir, name, openFlags(flags)), flags);
    const path = Buffer.alloc(MAXPATHLEN);
    let result = this.statAt(dir, '');
    if (result === 0) result = this.#call('fcntl', dir, F.F_GETPATH, 'void *', path);
    if (result < 0) return result;
    const before = this.#identity();
    const fd = this.#call('openat', F.AT_FDCWD, path, openFlags(flags) | OPEN_SAFELY, 'int', 0);
    if (fd < 0 || (this.statAt(fd, '') === 0 && this.#identity() === before)) return this.#opened(fd, flags);
    this.close(fd);
    return -E.ESTALE;
  }

  openDir(dir: number): number {
    const fd = this.#call('openat', dir, cString('.'), F.O_DIRECTORY | OPEN_SAFELY, 'int', 0);
    if (fd >= 0) this.#listings.set(fd, new DarwinListing(this.#library, fd));
    return fd;
  }

  create(dir: number, name: string, flags: number, mode: number): number {
    const fd = this.#openAt(dir, name, openFlags(flags) | F.O_CREAT | F.O_EXCL, mode);
    return this.#opened(fd, 0);
  }

  createUnnamed(): number {
    return -E.EOPNOTSUPP;
  }

  close(fd: number): void {
    this.#listings.delete(fd);
    this.#call('close', fd);
  }

  read(fd: number, into: Memory, at: number, size: number, position: number): number {
    return this.#call('pread', fd, into.bytes.subarray(at, at + size), size, position);
  }

  readNow(): number {
    return -E.EOPNOTSUPP;
  }

  write(fd: number, from: Memory, at: number, size: number, position: number): number {
    return this.#call('pwrite', fd, from.bytes.subarray(at, at + size), size, position);
  }

  readDir(fd: number, into: Memory): number {
    return this.#listings.get(fd)?.read(into) ?? -E.EBADF;
  }

  seekDir(fd: number, low: number): number {
    return this.#listings.get(fd)?.seek(low) ?? -E.EBADF;
  }

  seek(): number {
    return -E.EOPNOTSUPP;
  }

  truncate(fd: number, size: number): number {
    return this.#call('ftruncate', fd, size);
  }

  allocate(): number {
    return -E.EOPNOTSUPP;
  }

  copyRange(): number {
    return -E.EOPNOTSUPP;
  }

  /** fsync(2) leaves data in the drive's memory there; not every file system has the other. */
  sync(fd: number): number {
    const result = this.#call('fcntl', fd, F.F_FULLFSYNC, 'int', 0);
    return result < 0 ? this.#call('fsync', fd) : result;
  }

  syncAll(): number {
    this.#library.function('sync')();
    return 0;
  }

  mkdir(dir: number, name: string, mode: number): number {
    return this.#call('mkdirat', dir, cString(name), mode);
  }

  mknod(dir: number, name: string, mode: number): number {
    const type = mode & S.S_IFMT;
    if (type === S.S_IFIFO) return this.#call('mkfifoat', dir, cString(name), mode & 0o7777);
    if (type !== S.S_IFREG && type !== 0) return -E.EPERM;
    const fd = this.create(dir, name, 0, mode & 0o7777);
    if (fd >= 0) this.close(fd);
    return Math.min(fd, 0);
  }

  symlink(target: string, dir: number, name: string): number {
    return this.#call('symlinkat', cString(target), dir, cString(name));
  }

  link(fromDir: number, from: string, toDir: number, to: string): number {
    if (from === '') return -E.EOPNOTSUPP;
    return this.#call('linkat', fromDir, cString(from), toDir, cString(to), 0);
  }

  unlink(dir: number, name: string): number {
    return this.#call('unlinkat', dir, cString(name), 0);
  }

  rmdir(dir: number, name: string): number {
    return this.#call('unlinkat', dir, cString(name), F.AT_REMOVEDIR);
  }

  rename(fromDir: number, from: string, toDir: number, to: string, flags: number): number {
    if ((flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE)) !== 0) return -E.EINVAL;
    const wanted =
      ((flags & RENAME_NOREPLACE) !== 0 ? RENAME_EXCL : 0) |
      ((flags & RENAME_EXCHANGE) !== 0 ? RENAME_SWAP : 0);
    return this.#call('renameatx_np', fromDir, cString(from), toDir, cString(to), wanted);
  }

  readLink(dir: number, name: string, into: Memory, at: number): number {
    const target = into.bytes.subarray(at, at + MAXPATHLEN);
    return this.#call('readlinkat', dir, cString(name), target, target.length);
  }

  chmod(dir: number, name: string, mode: number): number {
    if (name === '') return this.#call('fchmod', dir, mode);
    return this.#call('fchmodat', dir, cString(name), mode, F.AT_SYMLINK_NOFOLLOW);
  }

  chown(dir: number, name: string, uid: number, gid: number): number {
    if (name === '') return this.#call('fchown', dir, uid, gid);
    return this.#call('fchownat', dir, cString(name), uid, gid, F.AT_SYMLINK_NOFOLLOW);
  }

  utimens(dir: number, name: string, atime: Uint32Array, mtime: Uint32Array): number {
    putTime(this.#times, 0, atime);
    putTime(this.#times, TIMESPEC_LEN, mtime);
    if (name === '') return this.#call('futimens', dir, this.#times);
    return this.#call('utimensat', dir, cString(name), this.#times, F.AT_SYMLINK_NOFOLLOW);
  }

  getXattr(dir: number, name: string, attribute: string, into: Memory, at: number, size: number): number {
    const value = size === 0 ? null : into.bytes.subarray(at, at + size);
    return this.#onFile(dir, name, (fd) =>
      this.#call('fgetxattr', fd, cString(attribute), value, size, 0, 0),
    );
  }

  setXattr(
    dir: number,
    name: string,
    attribute: string,
    from: Memory,
    at: number,
    size: number,
    flags: number,
  ): number {
    const value = from.bytes.subarray(at, at + size);
    // XATTR_CREATE and XATTR_REPLACE are 2 and 4 here.
    return this.#onFile(dir, name, (fd) =>
      this.#call('fsetxattr', fd, cString(attribute), value, size, 0, flags << 1),
    );
  }

  listXattr(dir: number, name: string, into: Memory, at: number, size: number): number {
    const names = size === 0 ? null : into.bytes.subarray(at, at + size);
    return this.#onFile(dir, name, (fd) => this.#call('flistxattr', fd, names, size, 0));
  }

  removeXattr(dir: number, name: string, attribute: string): number {
    return this.#onFile(dir, name, (fd) => this.#call('fremovexattr', fd, cString(attribute), 0));
  }

  statfs(out: Uint32Array, at: number): number {
    const found = Buffer.alloc(STATFS_LEN);
    const result = this.#call('fstatfs', this.root, found);
    if (result < 0) return result;
    const counts = [STATFS.f_blocks, STATFS.f_bfree, STATFS.f_bavail, STATFS.f_files, STATFS.f_ffree];
    for (const [i, field] of counts.entries()) {
      out[at + 2 * i] = found.readUInt32LE(field);
      out[at + 2 * i + 1] = found.readUInt32LE(field + 4);
    }
    const blockBytes = found.readUInt32LE(STATFS.f_bsize);
    out.set([blockBytes, NAME_MAX, blockBytes], at + 10);
    return 0;
  }

  lockFile(): number {
    return -E.ENOSYS;
  }

  lockRange(): number {
    return -E.ENOSYS;
  }

  testRange(): number {
    return -E.ENOSYS;
  }

  /** Calls; a negative error of errno.ts on failure. */
  #call(name: string, ...args: unknown[]): number {
    const result = Number(this.#library.function(name)(...args));
    return result < 0 ? -fromDarwin(this.#library.errno()) : result;
  }

  #openAt(dir: number, name: string, flags: number, mode = 0): number {
    return this.#call('openat', dir, cString(name), flags | OPEN_SAFELY, 'int', mode);
  }

  /** Looks at what was opened; a device, pipe or folder is closed again. Fills the stat. */
  #opened(fd: number, flags: number): number {
    if (fd < 0) return fd;
    let result = this.statAt(fd, '');
    if (result === 0 && (this.stat[S.MODE]! & S.S_IFMT) !== S.S_IFREG) result = -E.ESTALE;
    if (result === 0 && (flags & LINUX_O_TRUNC) !== 0) {
      result = this.truncate(fd, 0);
      if (result === 0) result = this.statAt(fd, '');
    }
    if (result === 0) return fd;
    this.close(fd);
    return result;
  }

  /** Calls with a descriptor of the file, which extended attributes need; a link's own. */
  #onFile(dir: number, name: string, call: (fd: number) => number): number {
    if (name === '') return call(dir);
    const flags = F.O_SYMLINK | F.O_NONBLOCK | F.O_NOCTTY | F.O_CLOEXEC;
    const fd = this.#call('openat', dir, cString(name), flags, 'int', 0);
    if (fd < 0) return fd;
    const result = call(fd);
    this.#call('close', fd);
    return result;
  }

  #identity(): string {
    const { stat } = this;
    return [S.DEV_MAJOR, S.DEV_MINOR, S.INO, S.INO + 1].map((word) => stat[word]).join(' ');
  }

  #fillStat(): void {
    const { stat } = this;
    const found = this.#found;
    const copy = (word: number, field: number): void => {
      stat[word] = found.readUInt32LE(field);
      stat[word + 1] = found.readUInt32LE(field + 4);
    };
    const time = (word: number, field: number): void => {
      copy(word, field + TIMESPEC.tv_sec);
      stat[word + 2] = found.readUInt32LE(field + TIMESPEC.tv_nsec);
    };
    stat[S.MASK] = S.STATX_ALL;
    stat[S.BLOCK_SIZE] = found.readUInt32LE(STAT.st_blksize);
    stat[S.NLINK] = found.readUInt16LE(STAT.st_nlink);
    stat[S.UID] = found.readUInt32LE(STAT.st_uid);
    stat[S.GID] = found.readUInt32LE(STAT.st_gid);
    stat[S.MODE] = found.readUInt16LE(STAT.st_mode);
    copy(S.INO, STAT.st_ino);
    copy(S.SIZE, STAT.st_size);
    copy(S.BLOCKS, STAT.st_blocks);
    time(S.ATIME, STAT.st_atimespec);
    time(S.BTIME, STAT.st_birthtimespec);
    time(S.CTIME, STAT.st_ctimespec);
    time(S.MTIME, STAT.st_mtimespec);
    // Darwin's major() and minor(): 8 bits above 24.
    const device = found.readUInt32LE(STAT.st_dev);
    const special = found.readUInt32LE(STAT.st_rdev);
    stat[S.DEV_MAJOR] = device >>> 24;
    stat[S.DEV_MINOR] = device & 0xffffff;
    stat[S.RDEV_MAJOR] = special >>> 24;
    stat[S.RDEV_MINOR] = special & 0xffffff;
  }
}

/** A byte string as a C string. */
function cString(text: string): Buffer {
  return Buffer.from(`${text}\0`, 'latin1');
}

/** Flags of an open, Linux's, as Darwin's. Truncating is done by hand, once it is known what was opened. */
function openFlags(flags: number): number {
  let result = flags & O_ACCMODE;
  if ((flags & LINUX_O_APPEND) !== 0) result |= F.O_APPEND;
  if ((flags & O_EXCL) !== 0) result |= F.O_EXCL;
  return result;
}

function putTime(into: Buffer, at: number, time: Uint32Array): void {
  const [low = 0, high = 0, ns = 0] = time;
  const special =
    ns === UTIME_NOW
      ? CONSTANTS['sys/stat.h'].UTIME_NOW
      : ns === UTIME_OMIT
        ? CONSTANTS['sys/stat.h'].UTIME_OMIT
        : undefined;
  into.writeUInt32LE(special === undefined ? low : 0, at + TIMESPEC.tv_sec);
  into.writeUInt32LE(special === undefined ? high : 0, at + TIMESPEC.tv_sec + 4);
  into.writeBigInt64LE(BigInt(special ?? ns), at + TIMESPEC.tv_nsec);
}
