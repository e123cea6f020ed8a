/**
 * The host's file system on Linux, by system calls relative to a directory's descriptor.
 *
 * An empty name is the object behind the descriptor: AT_EMPTY_PATH where a call has it, else the descriptor's link in
 * /proc/self/fd, which leads to the object even if it has no name any more. A container may replace a name at any
 * moment, so opening never follows a link, never waits for a pipe, and looks at what it got.
 */
import * as fs from '#common/native/fs';
import { addressOf } from '#common/native/libc';
import { openResolved, RESOLVE_NO_SYMLINKS } from '#common/native/mount';
import { allocate, type Memory } from '../memory.ts';
import * as E from '../wire/errno.ts';
import * as S from '../wire/stat.ts';
import { F_UNLCK, F_WRLCK, type HostFs, type RangeLock, UTIME_OMIT } from './host-fs.ts';

const O_CREAT = 0o100;
const O_EXCL = 0o200;
const O_NOCTTY = 0o400;
const O_TRUNC = 0o1000;
const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;
const O_PATH = 0o10000000;
/** These two differ between architectures. */
const O_DIRECTORY = process.arch === 'arm64' ? 0o40000 : 0o200000;
const O_NOFOLLOW = process.arch === 'arm64' ? 0o100000 : 0o400000;
const O_TMPFILE = 0o20000000 | O_DIRECTORY;

/** What every open of a file adds. A regular file doesn't mind O_NONBLOCK; a pipe that took its place must not hang us. */
const OPEN_ALWAYS = O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;

/** The same through a descriptor's link in /proc, which must be followed. */
const OPEN_VIA_PROC = O_NONBLOCK | O_NOCTTY | O_CLOEXEC;

const PATH_BYTES = 4096 + 64;
const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;
const LOCK_SH = 1;
const LOCK_EX = 2;
const LOCK_UN = 8;
const LOCK_NB = 4;

/** Opens a path for serving: the descriptor of a folder or a file. @throws SyscallError, ELOOP if there is a link in it */
export function openRoot(path: string): number {
  return openResolved(fs.AT_FDCWD, path, O_PATH, RESOLVE_NO_SYMLINKS);
}

export class PosixFs implements HostFs {
  readonly stat: S.Stat;
  readonly root: number;
  readonly #stat: Memory = allocate(S.STAT_BYTES, addressOf);
  readonly #path: Memory = allocate(PATH_BYTES, addressOf);
  readonly #path2: Memory = allocate(PATH_BYTES, addressOf);
  /** Times, locks, positions and statfs: 128 bytes. */
  readonly #scratch: Memory = allocate(128, addressOf);

  /** @param root from openRoot(). */
  constructor(root: number) {
    this.root = root;
    this.stat = this.#stat.words;
  }

  statAt(dir: number, name: string): number {
    const flags = name === '' ? fs.AT_SYMLINK_NOFOLLOW | fs.AT_EMPTY_PATH : fs.AT_SYMLINK_NOFOLLOW;
    return fs.statx(dir, put(this.#path, name), flags, S.STATX_ALL, this.#stat.address);
  }

  openPath(dir: number, name: string): number {
    const flags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    return fs.openat(dir, put(this.#path, name), flags, 0);
  }

  open(dir: number, name: string, flags: number): number {
    // Truncation waits until it is known what was opened.
    const fd =
      name === ''
        ? fs.openat(
            fs.AT_FDCWD,
            put(this.#path, `/proc/self/fd/${dir}`),
            (flags & ~O_TRUNC) | OPEN_VIA_PROC,
            0,
          )
        : fs.openat(dir, put(this.#path, name), (flags & ~O_TRUNC) | OPEN_ALWAYS, 0);
    return fd < 0 ? fd : this.#opened(fd, flags);
  }

  openDir(dir: number): number {
    return fs.openat(dir, put(this.#path, '.'), O_DIRECTORY | O_CLOEXEC, 0);
  }

  create(dir: number, name: string, flags: number, mode: number): number {
    const all = flags | O_CREAT | O_EXCL | OPEN_ALWAYS;
    return fs.openat(dir, put(this.#path, name), all & ~O_TRUNC, mode);
  }

  createUnnamed(dir: number, flags: number, mode: number): number {
    return fs.openat(dir, put(this.#path, '.'), flags | O_TMPFILE | O_CLOEXEC, mode);
  }

  close(fd: number): void {
    fs.close(fd);
  }

  read(fd: number, into: Memory, at: number, size: number, position: number): number {
    return fs.pread(fd, into.address + at, size, position);
  }

  readNow(fd: number, into: Memory, at: number, size: number, position: number): number {
    return fs.preadNow(fd, into.address + at, size, position);
  }

  write(fd: number, from: Memory, at: number, size: number, position: number): number {
    return fs.pwrite(fd, from.address + at, size, position);
  }

  readDir(fd: number, into: Memory): number {
    return fs.getdents(fd, into.address, into.bytes.length);
  }

  seekDir(fd: number, low: number, high: number): number {
    const result = fs.lseek(fd, (BigInt(high) << 32n) | BigInt(low), 0);
    return Math.min(result, 0);
  }

  seek(fd: number, position: number, whence: number): number {
    return fs.lseek(fd, position, whence);
  }

  truncate(fd: number, size: number): number {
    return fs.ftruncate(fd, size);
  }

  allocate(fd: number, mode: number, position: number, size: number): number {
    return fs.fallocate(fd, mode, position, size);
  }

  copyRange(from: number, fromPosition: number, to: number, toPosition: number, size: number): number {
    const { words, address } = this.#scratch;
    S.putUint64(words, 0, fromPosition);
    S.putUint64(words, 2, toPosition);
    return fs.copyFileRange(from, address, to, address + 8, size);
  }

  sync(fd: number, dataOnly: boolean): number {
    return dataOnly ? fs.fdatasync(fd) : fs.fsync(fd);
  }

  syncAll(): number {
    const fd = this.openDir(this.root);
    if (fd < 0) return fd;
    const result = fs.syncfs(fd);
    fs.close(fd);
    return result;
  }

  mkdir(dir: number, name: string, mode: number): number {
    return fs.mkdirat(dir, put(this.#path, name), mode);
  }

  mknod(dir: number, name: string, mode: number, device: number): number {
    return fs.mknodat(dir, put(this.#path, name), mode, device);
  }

  symlink(target: string, dir: number, name: string): number {
    if (target.length >= PATH_BYTES) return -E.ENAMETOOLONG;
    return fs.symlinkat(put(this.#path2, target), dir, put(this.#path, name));
  }

  link(fromDir: number, from: string, toDir: number, to: string): number {
    if (from !== '') return fs.linkat(fromDir, put(this.#path, from), toDir, put(this.#path2, to), 0);
    const path = put(this.#path, `/proc/self/fd/${fromDir}`);
    return fs.linkat(fs.AT_FDCWD, path, toDir, put(this.#path2, to), fs.AT_SYMLINK_FOLLOW);
  }

  unlink(dir: number, name: string): number {
    return fs.unlinkat(dir, put(this.#path, name), 0);
  }

  rmdir(dir: number, name: string): number {
    return fs.unlinkat(dir, put(this.#path, name), fs.AT_REMOVEDIR);
  }

  rename(fromDir: number, from: string, toDir: number, to: string, flags: number): number {
    return fs.renameat2(fromDir, put(this.#path, from), toDir, put(this.#path2, to), flags);
  }

  readLink(dir: number, name: string, into: Memory, at: number): number {
    return fs.readlinkat(dir, put(this.#path, name), into.address + at, PATH_BYTES);
  }

  chmod(dir: number, name: string, mode: number): number {
    const flags = name === '' ? fs.AT_EMPTY_PATH : fs.AT_SYMLINK_NOFOLLOW;
    const result = fs.fchmodat2(dir, put(this.#path, name), mode, flags);
    if (result !== -E.ENOSYS) return result;
    // Before Linux 6.6: through the link of a descriptor, which can't be made to lead elsewhere.
    const fd = name === '' ? dir : fs.openat(dir, put(this.#path, name), O_PATH | O_NOFOLLOW | O_CLOEXEC, 0);
    if (fd < 0) return fd;
    const changed = fs.fchmodat(fs.AT_FDCWD, put(this.#path, `/proc/self/fd/${fd}`), mode);
    if (name !== '') fs.close(fd);
    return changed;
  }

  chown(dir: number, name: string, uid: number, gid: number): number {
    const flags = fs.AT_SYMLINK_NOFOLLOW | fs.AT_EMPTY_PATH;
    return fs.fchownat(dir, put(this.#path, name), uid, gid, flags);
  }

  utimens(dir: number, name: string, atime: Uint32Array, mtime: Uint32Array): number {
    const { words, address } = this.#scratch;
    putTime(words, 0, atime);
    putTime(words, 4, mtime);
    const flags = fs.AT_SYMLINK_NOFOLLOW | (name === '' ? fs.AT_EMPTY_PATH : 0);
    return fs.utimensat(dir, put(this.#path, name), address, flags);
  }

  getXattr(dir: number, name: string, attribute: string, into: Memory, at: number, size: number): number {
    const path = this.#xattrPath(dir, name);
    return fs.getxattr(path, put(this.#path2, attribute), into.address + at, size, name === '');
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
    const path = this.#xattrPath(dir, name);
    return fs.setxattr(path, put(this.#path2, attribute), from.address + at, size, flags, name === '');
  }

  listXattr(dir: number, name: string, into: Memory, at: number, size: number): number {
    return fs.listxattr(this.#xattrPath(dir, name), into.address + at, size, name === '');
  }

  removeXattr(dir: number, name: string, attribute: string): number {
    const path = this.#xattrPath(dir, name);
    return fs.removexattr(path, put(this.#path2, attribute), name === '');
  }

  statfs(out: Uint32Array, at: number): number {
    const { words, address } = this.#scratch;
    const result = fs.fstatfs(this.root, address);
    if (result < 0) return result;
    // struct statfs: type, bsize, blocks, bfree, bavail, files, ffree, fsid, namelen, frsize, each of 64 bits.
    for (let i = 0; i < 10; i++) out[at + i] = words[4 + i]!;
    out[at + 10] = words[2]!;
    out[at + 11] = words[16]!;
    out[at + 12] = words[18]!;
    return 0;
  }

  lockFile(fd: number, type: number): number {
    const operation = type === F_UNLCK ? LOCK_UN : type === F_WRLCK ? LOCK_EX : LOCK_SH;
    return fs.flock(fd, operation | LOCK_NB);
  }

  lockRange(fd: number, lock: RangeLock): number {
    const result = fs.fcntlLock(fd, F_OFD_SETLK, this.#putLock(lock));
    return result === -E.EACCES ? -E.EAGAIN : result;
  }

  testRange(fd: number, lock: RangeLock): number {
    const result = fs.fcntlLock(fd, F_OFD_GETLK, this.#putLock(lock));
    if (result < 0) return result;
    const { words } = this.#scratch;
    lock.type = words[0]! & 0xffff;
    lock.start = S.uint64(words, 2);
    lock.length = S.uint64(words, 4);
    return 0;
  }

  /** Looks at what was opened; a device, pipe or directory is closed again. Fills the stat. */
  #opened(fd: number, flags: number): number {
    let result = this.statAt(fd, '');
    if (result === 0 && (this.stat[S.MODE]! & S.S_IFMT) !== S.S_IFREG) result = -E.ESTALE;
    if (result === 0 && (flags & O_TRUNC) !== 0) {
      result = fs.ftruncate(fd, 0);
      if (result === 0) result = this.statAt(fd, '');
    }
    if (result === 0) return fd;
    fs.close(fd);
    return result;
  }

  /** No call for attributes takes a descriptor and a name, but a path through the descriptor's link does. */
  #xattrPath(dir: number, name: string): number {
    return put(this.#path, name === '' ? `/proc/self/fd/${dir}` : `/proc/self/fd/${dir}/${name}`);
  }

  /** Puts struct flock {short type, whence; int64 start, len; int pid} into the scratch. */
  #putLock(lock: RangeLock): number {
    const { words, address } = this.#scratch;
    words[0] = lock.type;
    words[1] = 0;
    S.putUint64(words, 2, lock.start);
    S.putUint64(words, 4, lock.length);
    words[6] = 0;
    words[7] = 0;
    return address;
  }
}

/** Puts a byte string into memory as a C string; its address. */
function put(memory: Memory, text: string): number {
  memory.bytes[memory.bytes.write(text, 0, 'latin1')] = 0;
  return memory.address;
}

/** Puts a time of three words as struct timespec at word `at`. */
function putTime(words: Uint32Array, at: number, time: Uint32Array): void {
  const omit = time[2] === UTIME_OMIT;
  words[at] = omit ? 0 : time[0]!;
  words[at + 1] = omit ? 0 : time[1]!;
  words[at + 2] = time[2]!;
  words[at + 3] = 0;
}
