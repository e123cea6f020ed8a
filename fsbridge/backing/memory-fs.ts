/**
 * A file system in memory with the semantics of a host's: for tests of the bridge without a mount or root, and for
 * those who serve something that is no folder. Data are kept whole; descriptors outlive names as they do on a host.
 */
import type { Clock } from '#common/clock';
import { allocate, type Memory } from '../memory.ts';
import * as E from '../wire/errno.ts';
import * as S from '../wire/stat.ts';
import {
  F_UNLCK,
  F_WRLCK,
  type HostFs,
  KEEP_ID,
  O_ACCMODE,
  type RangeLock,
  UTIME_NOW,
  UTIME_OMIT,
} from './host-fs.ts';

const O_TRUNC = 0o1000;
const O_APPEND = 0o2000;
const NAME_BYTES_MAX = 255;
/** A file is one buffer; a larger one would be asked of memory for a single byte at its end. */
const FILE_BYTES_MAX = 2 ** 31;
const RENAME_NOREPLACE = 1;
const RENAME_EXCHANGE = 2;
const XATTR_CREATE = 1;
const XATTR_REPLACE = 2;
const FALLOC_KEEP_SIZE = 1;
const FALLOC_PUNCH_HOLE = 2;
const SEEK_DATA = 3;
const BLOCK_BYTES = 4096;

interface Inode {
  readonly ino: number;
  readonly bornMs: number;
  mode: number;
  uid: number;
  gid: number;
  links: number;
  device: number;
  size: number;
  data: Buffer;
  target: string;
  /** For directories: names in the order of their making, each with the cookie behind it. */
  readonly entries: Map<string, { inode: Inode; cookie: number }>;
  parent: Inode | undefined;
  readonly xattrs: Map<string, Buffer>;
  readonly atime: Uint32Array;
  readonly mtime: Uint32Array;
  readonly ctime: Uint32Array;
  readonly locks: { fd: number; start: number; end: number; type: number }[];
  readonly flocks: Map<number, number>;
}

interface OpenFile {
  readonly inode: Inode;
  readonly flags: number;
  cookie: number;
}

export class MemoryFs implements HostFs {
  readonly stat: S.Stat = allocate(S.STAT_BYTES).words;
  readonly root = 3;
  readonly #clock: Clock;
  readonly #open = new Map<number, OpenFile>();
  #nextFd = 4;
  #nextIno = 1;
  #nextCookie = 3;

  /** @param rootMode type and permissions of the root: a folder, or a single file. */
  constructor(clock: Clock, rootMode: number = S.S_IFDIR | 0o755) {
    this.#clock = clock;
    const root = this.#inode(rootMode, undefined);
    root.links = (rootMode & S.S_IFMT) === S.S_IFDIR ? 2 : 1;
    this.#open.set(this.root, { inode: root, flags: 0, cookie: 0 });
  }

  /** Descriptors open beside the root's, to find what was never closed. */
  get openCount(): number {
    return this.#open.size - 1;
  }

  statAt(dir: number, name: string): number {
    const inode = this.#find(dir, name);
    if (typeof inode === 'number') return inode;
    this.#fill(inode);
    return 0;
  }

  openPath(dir: number, name: string): number {
    const inode = this.#find(dir, name);
    if (typeof inode === 'number') return inode;
    return isDir(inode) ? this.#descriptor(inode, 0) : -E.ENOTDIR;
  }

  open(dir: number, name: string, flags: number): number {
    const inode = this.#find(dir, name);
    if (typeof inode === 'number') return inode;
    if (typeOf(inode) === S.S_IFLNK) return -E.ELOOP;
    if (typeOf(inode) !== S.S_IFREG) return -E.ESTALE;
    if ((flags & O_TRUNC) !== 0) this.#resize(inode, 0);
    this.#fill(inode);
    return this.#descriptor(inode, flags);
  }

  openDir(dir: number): number {
    const inode = this.#find(dir, '');
    if (typeof inode === 'number') return inode;
    return isDir(inode) ? this.#descriptor(inode, 0) : -E.ENOTDIR;
  }

  create(dir: number, name: string, flags: number, mode: number): number {
    const inode = this.#make(dir, name, S.S_IFREG | mode);
    if (typeof inode === 'number') return inode;
    this.#fill(inode);
    return this.#descriptor(inode, flags);
  }

  createUnnamed(dir: number, flags: number, mode: number): number {
    const parent = this.#find(dir, '');
    if (typeof parent === 'number') return parent;
    const inode = this.#inode(S.S_IFREG | mode, parent);
    inode.links = 0;
    return this.#descriptor(inode, flags);
  }

  close(fd: number): void {
    const inode = this.#open.get(fd)?.inode;
    this.#open.delete(fd);
    if (inode === undefined) return;
    inode.flocks.delete(fd);
    for (let i = inode.locks.length - 1; i >= 0; i--) if (inode.locks[i]!.fd === fd) inode.locks.splice(i, 1);
  }

  read(fd: number, into: Memory, at: number, size: number, position: number): number {
    const file = this.#open.get(fd);
    if (file === undefined || (file.flags & O_ACCMODE) === 1) return -E.EBADF;
    this.#touch(file.inode.atime);
    if (position >= file.inode.size) return 0;
    return file.inode.data.copy(into.bytes, at, position, Math.min(position + size, file.inode.size));
  }

  readNow(fd: number, into: Memory, at: number, size: number, position: number): number {
    return this.read(fd, into, at, size, position);
  }

  write(fd: number, from: Memory, at: number, size: number, position: number): number {
    const file = this.#open.get(fd);
    if (file === undefined || (file.flags & O_ACCMODE) === 0) return -E.EBADF;
    const { inode } = file;
    const start = (file.flags & O_APPEND) !== 0 ? inode.size : position;
    const result = start + size > inode.size ? this.#resize(inode, start + size) : 0;
    if (result < 0) return result;
    from.bytes.copy(inode.data, start, at, at + size);
    this.#changed(inode);
    return size;
  }

  readDir(fd: number, into: Memory): number {
    const file = this.#open.get(fd);
    if (file === undefined) return -E.EBADF;
    const { inode } = file;
    let at = 0;
    const emit = (name: string, entry: Inode, cookie: number): boolean => {
      if (cookie <= file.cookie) return true;
      const size = (19 + name.length + 1 + 7) & ~7;
      if (at + size > into.bytes.length) return false;
      into.bytes.fill(0, at, at + size);
      S.putUint64(into.words, at >> 2, entry.ino);
      S.putUint64(into.words, (at >> 2) + 2, cookie);
      into.bytes.writeUInt16LE(size, at + 16);
      into.bytes[at + 18] = typeOf(entry) >> 12;
      into.bytes.write(name, at + 19, 'latin1');
      file.cookie = cookie;
      at += size;
      return true;
    };
    if (!emit('.', inode, 1) || !emit('..', inode.parent ?? inode, 2)) return at;
    for (const [name, entry] of inode.entries) if (!emit(name, entry.inode, entry.cookie)) break;
    return at;
  }

  seekDir(fd: number, low: number, high: number): number {
    const file = this.#open.get(fd);
    if (file === undefined) return -E.EBADF;
    file.cookie = low + high * 0x1_0000_0000;
    return 0;
  }

  /** The whole file counts as data, as POSIX permits. */
  seek(fd: number, position: number, whence: number): number {
    const size = this.#open.get(fd)?.inode.size;
    if (size === undefined) return -E.EBADF;
    if (position >= size) return -E.ENXIO;
    return whence === SEEK_DATA ? position : size;
  }

  truncate(fd: number, size: number): number {
    const file = this.#open.get(fd);
    if (file === undefined) return -E.EBADF;
    return this.#resize(file.inode, size);
  }

  allocate(fd: number, mode: number, position: number, size: number): number {
    const inode = this.#open.get(fd)?.inode;
    if (inode === undefined) return -E.EBADF;
    if ((mode & ~(FALLOC_KEEP_SIZE | FALLOC_PUNCH_HOLE)) !== 0) return -E.EOPNOTSUPP;
    const end = position + size;
    if ((mode & FALLOC_PUNCH_HOLE) !== 0) {
      if (position < inode.size) inode.data.fill(0, position, Math.min(end, inode.size));
    } else if (mode === 0 && end > inode.size) return this.#resize(inode, end);
    this.#changed(inode);
    return 0;
  }

  copyRange(from: number, fromPosition: number, to: number, toPosition: number, size: number): number {
    const source = this.#open.get(from)?.inode;
    const target = this.#open.get(to)?.inode;
    if (source === undefined || target === undefined) return -E.EBADF;
    const count = Math.max(0, Math.min(size, source.size - fromPosition));
    if (count === 0) return 0;
    const result = toPosition + count > target.size ? this.#resize(target, toPosition + count) : 0;
    if (result < 0) return result;
    source.data.copy(target.data, toPosition, fromPosition, fromPosition + count);
    this.#changed(target);
    return count;
  }

  sync(fd: number): number {
    return this.#open.has(fd) ? 0 : -E.EBADF;
  }

  syncAll(): number {
    return 0;
  }

  mkdir(dir: number, name: string, mode: number): number {
    const made = this.#make(dir, name, S.S_IFDIR | mode);
    return typeof made === 'number' ? made : 0;
  }

  mknod(dir: number, name: string, mode: number, device: number): number {
    const made = this.#make(dir, name, mode);
    if (typeof made === 'number') return made;
    made.device = device;
    return 0;
  }

  symlink(target: string, dir: number, name: string): number {
    const made = this.#make(dir, name, S.S_IFLNK | 0o777);
    if (typeof made === 'number') return made;
    made.target = target;
    made.size = target.length;
    return 0;
  }

  link(fromDir: number, from: string, toDir: number, to: string): number {
    const inode = this.#find(fromDir, from);
    const parent = this.#find(toDir, '');
    if (typeof inode === 'number') return inode;
    if (typeof parent === 'number') return parent;
    if (isDir(inode)) return -E.EPERM;
    const result = this.#enter(parent, to, inode);
    if (result === 0) {
      inode.links++;
      this.#touch(inode.ctime);
    }
    return result;
  }

  unlink(dir: number, name: string): number {
    const inode = this.#find(dir, name);
    if (typeof inode === 'number') return inode;
    if (isDir(inode)) return -E.EISDIR;
    this.#leave(this.#open.get(dir)!.inode, name);
    return 0;
  }

  rmdir(dir: number, name: string): number {
    const inode = this.#find(dir, name);
    if (typeof inode === 'number') return inode;
    if (!isDir(inode)) return -E.ENOTDIR;
    if (inode.entries.size > 0) return -E.ENOTEMPTY;
    this.#leave(this.#open.get(dir)!.inode, name);
    return 0;
  }

  rename(fromDir: number, from: string, toDir: number, to: string, flags: number): number {
    const moved = this.#find(fromDir, from);
    if (typeof moved === 'number') return moved;
    const fromParent = this.#open.get(fromDir)!.inode;
    const toParent = this.#open.get(toDir)?.inode;
    if (toParent === undefined) return -E.EBADF;
    for (let at: Inode | undefined = toParent; at !== undefined; at = at.parent)
      if (at === moved) return -E.EINVAL;
    const replaced = toParent.entries.get(to)?.inode;
    if ((flags & RENAME_EXCHANGE) !== 0) {
      if (replaced === undefined) return -E.ENOENT;
      this.#set(toParent, to, moved);
      this.#set(fromParent, from, replaced);
      return 0;
    }
    if (replaced === moved) return 0;
    if (replaced !== undefined) {
      if ((flags & RENAME_NOREPLACE) !== 0) return -E.EEXIST;
      if (isDir(replaced) && !isDir(moved)) return -E.EISDIR;
      if (!isDir(replaced) && isDir(moved)) return -E.ENOTDIR;
      if (replaced.entries.size > 0) return -E.ENOTEMPTY;
      this.#leave(toParent, to);
    }
    moved.links++;
    if (isDir(moved)) moved.links++;
    this.#leave(fromParent, from);
    const result = this.#enter(toParent, to, moved);
    if (isDir(moved) && result === 0) toParent.links++;
    return result;
  }

  readLink(dir: number, name: string, into: Memory, at: number): number {
    const inode = this.#find(dir, name);
    if (typeof inode === 'number') return inode;
    return typeOf(inode) === S.S_IFLNK ? into.bytes.write(inode.target, at, 'latin1') : -E.EINVAL;
  }

  chmod(dir: number, name: string, mode: number): number {
    return this.#change(dir, name, (inode) => {
      inode.mode = (inode.mode & S.S_IFMT) | mode;
    });
  }

  chown(dir: number, name: string, uid: number, gid: number): number {
    return this.#change(dir, name, (inode) => {
      if (uid !== KEEP_ID) inode.uid = uid;
      if (gid !== KEEP_ID) inode.gid = gid;
      if (typeOf(inode) === S.S_IFREG) inode.mode &= ~(S.S_ISUID | S.S_ISGID);
    });
  }

  utimens(dir: number, name: string, atime: Uint32Array, mtime: Uint32Array): number {
    return this.#change(dir, name, (inode) => {
      for (const [from, to] of [
        [atime, inode.atime],
        [mtime, inode.mtime],
      ] as const) {
        if (from[2] === UTIME_NOW) this.#touch(to);
        else if (from[2] !== UTIME_OMIT) to.set(from);
      }
    });
  }

  getXattr(dir: number, name: string, attribute: string, into: Memory, at: number, size: number): number {
    const inode = this.#find(dir, name);
    if (typeof inode === 'number') return inode;
    const value = inode.xattrs.get(attribute);
    if (value === undefined) return -E.ENODATA;
    if (size === 0) return value.length;
    return value.length > size ? -E.ERANGE : value.copy(into.bytes, at);
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
    const inode = this.#find(dir, name);
    if (typeof inode === 'number') return inode;
    const known = inode.xattrs.has(attribute);
    if (known && flags === XATTR_CREATE) return -E.EEXIST;
    if (!known && flags === XATTR_REPLACE) return -E.ENODATA;
    inode.xattrs.set(attribute, Buffer.from(from.bytes.subarray(at, at + size)));
    return 0;
  }

  listXattr(dir: number, name: string, into: Memory, at: number, size: number): number {
    const inode = this.#find(dir, name);
    if (typeof inode === 'number') return inode;
    const list = [...inode.xattrs.keys()].map((attribute) => `${attribute}\0`).join('');
    if (size === 0) return list.length;
    return list.length > size ? -E.ERANGE : into.bytes.write(list, at, 'latin1');
  }

  removeXattr(dir: number, name: string, attribute: string): number {
    const inode = this.#find(dir, name);
    if (typeof inode === 'number') return inode;
    return inode.xattrs.delete(attribute) ? 0 : -E.ENODATA;
  }

  statfs(out: Uint32Array, at: number): number {
    out[at + 10] = BLOCK_BYTES;
    out[at + 11] = NAME_BYTES_MAX;
    out[at + 12] = BLOCK_BYTES;
    return 0;
  }

  lockFile(fd: number, type: number): number {
    const flocks = this.#open.get(fd)?.inode.flocks;
    if (flocks === undefined) return -E.EBADF;
    for (const [holder, held] of flocks)
      if (holder !== fd && type !== F_UNLCK && (held === F_WRLCK || type === F_WRLCK)) return -E.EAGAIN;
    if (type === F_UNLCK) flocks.delete(fd);
    else flocks.set(fd, type);
    return 0;
  }

  lockRange(fd: number, lock: RangeLock): number {
    const inode = this.#open.get(fd)?.inode;
    if (inode === undefined) return -E.EBADF;
    if (lock.type !== F_UNLCK && conflict(inode, fd, lock) !== undefined) return -E.EAGAIN;
    const end = lock.length === 0 ? Number.POSITIVE_INFINITY : lock.start + lock.length;
    const others = inode.locks.flatMap((held) => {
      if (held.fd !== fd || held.end <= lock.start || held.start >= end) return [held];
      return [
        { ...held, end: lock.start },
        { ...held, start: end },
      ].filter((part) => part.start < part.end);
    });
    inode.locks.splice(0, Number.POSITIVE_INFINITY, ...others);
    if (lock.type !== F_UNLCK) inode.locks.push({ fd, start: lock.start, end, type: lock.type });
    return 0;
  }

  testRange(fd: number, lock: RangeLock): number {
    const inode = this.#open.get(fd)?.inode;
    if (inode === undefined) return -E.EBADF;
    const held = conflict(inode, fd, lock);
    lock.type = held?.type ?? F_UNLCK;
    if (held === undefined) return 0;
    lock.start = held.start;
    lock.length = held.end === Number.POSITIVE_INFINITY ? 0 : held.end - held.start;
    return 0;
  }

  #find(dir: number, name: string): Inode | number {
    const inode = this.#open.get(dir)?.inode;
    if (inode === undefined) return -E.EBADF;
    if (name === '') return inode;
    if (!isDir(inode)) return -E.ENOTDIR;
    if (name.length > NAME_BYTES_MAX) return -E.ENAMETOOLONG;
    return inode.entries.get(name)?.inode ?? -E.ENOENT;
  }

  #change(dir: number, name: string, change: (inode: Inode) => void): number {
    const inode = this.#find(dir, name);
    if (typeof inode === 'number') return inode;
    change(inode);
    this.#touch(inode.ctime);
    return 0;
  }

  #make(dir: number, name: string, mode: number): Inode | number {
    const parent = this.#find(dir, '');
    if (typeof parent === 'number') return parent;
    if (name.length > NAME_BYTES_MAX) return -E.ENAMETOOLONG;
    const inode = this.#inode(mode, parent);
    if ((parent.mode & S.S_ISGID) !== 0) {
      inode.gid = parent.gid;
      if (isDir(inode)) inode.mode |= S.S_ISGID;
    }
    const result = this.#enter(parent, name, inode);
    if (result < 0) return result;
    inode.links = isDir(inode) ? 2 : 1;
    if (isDir(inode)) parent.links++;
    return inode;
  }

  #enter(parent: Inode, name: string, inode: Inode): number {
    if (parent.links === 0) return -E.ENOENT;
    if (parent.entries.has(name)) return -E.EEXIST;
    this.#set(parent, name, inode);
    return 0;
  }

  #set(parent: Inode, name: string, inode: Inode): void {
    parent.entries.set(name, { inode, cookie: this.#nextCookie++ });
    inode.parent = parent;
    this.#changed(parent);
  }

  #leave(parent: Inode, name: string): void {
    const inode = parent.entries.get(name)!.inode;
    parent.entries.delete(name);
    inode.links -= isDir(inode) ? 2 : 1;
    if (isDir(inode)) parent.links--;
    this.#touch(inode.ctime);
    this.#changed(parent);
  }

  #inode(mode: number, parent: Inode | undefined): Inode {
    const now = (): Uint32Array => this.#touch(new Uint32Array(3));
    return {
      ino: this.#nextIno++,
      bornMs: this.#clock.wallMs(),
      mode,
      uid: 0,
      gid: 0,
      links: 0,
      device: 0,
      size: 0,
      data: Buffer.alloc(0),
      target: '',
      entries: new Map(),
      parent,
      xattrs: new Map(),
      atime: now(),
      mtime: now(),
      ctime: now(),
      locks: [],
      flocks: new Map(),
    };
  }

  #descriptor(inode: Inode, flags: number): number {
    const fd = this.#nextFd++;
    this.#open.set(fd, { inode, flags, cookie: 0 });
    return fd;
  }

  /** 0, or a negative error for a size that no file has. */
  #resize(inode: Inode, size: number): number {
    if (size > FILE_BYTES_MAX) return -E.EFBIG;
    if (size > inode.data.length) {
      const grown = Buffer.alloc(Math.max(size, Math.min(inode.data.length * 2, FILE_BYTES_MAX)));
      inode.data.copy(grown, 0, 0, inode.size);
      inode.data = grown;
    }
    if (size < inode.size) inode.data.fill(0, size, inode.size);
    inode.size = size;
    this.#changed(inode);
    return 0;
  }

  #changed(inode: Inode): void {
    this.#touch(inode.mtime);
    this.#touch(inode.ctime);
  }

  #touch(time: Uint32Array): Uint32Array {
    const nowMs = this.#clock.wallMs();
    S.putUint64(time, 0, Math.floor(nowMs / 1000));
    time[2] = Math.floor((nowMs % 1000) * 1e6);
    return time;
  }

  #fill(inode: Inode): void {
    const { stat } = this;
    stat.fill(0);
    stat[S.MASK] = S.STATX_ALL;
    stat[S.BLOCK_SIZE] = BLOCK_BYTES;
    stat[S.NLINK] = inode.links;
    stat[S.UID] = inode.uid;
    stat[S.GID] = inode.gid;
    stat[S.MODE] = inode.mode;
    S.putUint64(stat, S.INO, inode.ino);
    S.putUint64(stat, S.SIZE, inode.size);
    S.putUint64(stat, S.BLOCKS, Math.ceil(inode.size / 512));
    stat.set(inode.atime, S.ATIME);
    stat.set(inode.mtime, S.MTIME);
    stat.set(inode.ctime, S.CTIME);
    S.putUint64(stat, S.BTIME, Math.floor(inode.bornMs / 1000));
    stat[S.RDEV_MAJOR] = (inode.device >> 8) & 0xfff;
    stat[S.RDEV_MINOR] = (inode.device & 0xff) | ((inode.device >> 12) & 0xfff00);
  }
}

function typeOf(inode: Inode): number {
  return inode.mode & S.S_IFMT;
}

function isDir(inode: Inode): boolean {
  return typeOf(inode) === S.S_IFDIR;
}

/** A lock of another descriptor that excludes `lock`. */
function conflict(inode: Inode, fd: number, lock: RangeLock): Inode['locks'][number] | undefined {
  const end = lock.length === 0 ? Number.POSITIVE_INFINITY : lock.start + lock.length;
  return inode.locks.find(
    (held) =>
      held.fd !== fd &&
      held.start < end &&
      lock.start < held.end &&
      (held.type === F_WRLCK || lock.type === F_WRLCK),
  );
}
