/**
 * Darwin's C library as far as files go, played on this system: takes Darwin's numbers, fills Darwin's structures by the
 * table that is held against Apple's headers, and does the work by Node's own calls.
 */
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import { constants } from 'node:os';
import { CONSTANTS, STRUCTS } from '#common/native/darwin/abi';
import type { DarwinLibrary } from '#common/native/darwin/library';
import { toDarwin } from '../../fsbridge/wire/errno-darwin.ts';

const F = CONSTANTS['fcntl.h'];
const STAT = STRUCTS['struct stat'].fields;
const STATFS = STRUCTS['struct statfs'].fields;
const TIMESPEC = STRUCTS['struct timespec'];
const ATTR = CONSTANTS['sys/attr.h'];
const { UTIME_NOW, UTIME_OMIT } = CONSTANTS['sys/stat.h'];
const { RENAME_EXCL, RENAME_SWAP } = CONSTANTS['sys/stdio.h'];

/** Darwin's flags of open(2) and Linux's. */
const OPEN_FLAGS = [
  [F.O_APPEND, fs.constants.O_APPEND],
  [F.O_NOFOLLOW, fs.constants.O_NOFOLLOW],
  [F.O_NONBLOCK, fs.constants.O_NONBLOCK],
  [F.O_NOCTTY, fs.constants.O_NOCTTY],
  [F.O_CREAT, fs.constants.O_CREAT],
  [F.O_EXCL, fs.constants.O_EXCL],
  [F.O_DIRECTORY, fs.constants.O_DIRECTORY],
] as const;

/** Entries that one getattrlistbulk gives. */
const BULK_MAX = 150;

const text = (path: Buffer): string => path.toString('latin1', 0, path.indexOf(0));

export interface DarwinFiles extends DarwinLibrary {
  /** Descriptors that were opened and not closed. */
  readonly open: ReadonlySet<number>;
}

export function darwinFiles(): DarwinFiles {
  const open = new Set<number>();
  /** Of a folder that is being read: the names that are still to come. */
  const listed = new Map<number, Buffer[]>();
  const xattrs = new Map<string, Map<string, Buffer>>();
  let failed = 0;
  /** A path, as bytes: names need not be text. */
  const at = (dir: number, path: Buffer): Buffer =>
    Buffer.from(dir === F.AT_FDCWD ? text(path) : `/proc/self/fd/${dir}/${text(path)}`, 'latin1');
  const keyOf = (fd: number): string => {
    const { dev, ino } = fs.fstatSync(fd);
    return `${dev}:${ino}`;
  };
  const attributesOf = (fd: number): Map<string, Buffer> => {
    const key = keyOf(fd);
    const known = xattrs.get(key) ?? new Map<string, Buffer>();
    xattrs.set(key, known);
    return known;
  };
  const fail = (code: keyof typeof constants.errno): never => {
    throw Object.assign(new Error(code), { errno: -constants.errno[code] });
  };
  const fill = (into: Buffer, found: fs.BigIntStats): number => {
    const time = (field: number, ns: bigint): void => {
      into.writeBigInt64LE(ns / 1_000_000_000n, field + TIMESPEC.fields.tv_sec);
      into.writeBigInt64LE(ns % 1_000_000_000n, field + TIMESPEC.fields.tv_nsec);
    };
    // Linux's dev_t as major << 8 | minor, for the small ones that occur.
    const device = (dev: bigint): number => Number(((dev >> 8n) << 24n) | (dev & 0xffn)) | 0;
    into.fill(0xee);
    into.writeInt32LE(device(found.dev), STAT.st_dev);
    into.writeUInt16LE(Number(found.mode), STAT.st_mode);
    into.writeUInt16LE(Number(found.nlink), STAT.st_nlink);
    into.writeBigUInt64LE(found.ino, STAT.st_ino);
    into.writeUInt32LE(Number(found.uid), STAT.st_uid);
    into.writeUInt32LE(Number(found.gid), STAT.st_gid);
    into.writeInt32LE(device(found.rdev), STAT.st_rdev);
    time(STAT.st_atimespec, found.atimeNs);
    time(STAT.st_mtimespec, found.mtimeNs);
    time(STAT.st_ctimespec, found.ctimeNs);
    time(STAT.st_birthtimespec, found.birthtimeNs);
    into.writeBigInt64LE(found.size, STAT.st_size);
    into.writeBigInt64LE(found.blocks, STAT.st_blocks);
    into.writeInt32LE(Number(found.blksize), STAT.st_blksize);
    return 0;
  };
  const setTimes = (path: Buffer | string, times: Buffer): number => {
    const { atimeMs, mtimeMs } = fs.lstatSync(path);
    const seconds = (start: number, now: number): number => {
      const ns = Number(times.readBigInt64LE(start + TIMESPEC.fields.tv_nsec));
      if (ns === UTIME_OMIT) return now / 1000;
      if (ns === UTIME_NOW) return Date.now() / 1000;
      return Number(times.readBigInt64LE(start + TIMESPEC.fields.tv_sec)) + ns / 1e9;
    };
    fs.lutimesSync(path, seconds(0, atimeMs), seconds(TIMESPEC.size, mtimeMs));
    return 0;
  };

  // biome-ignore lint/suspicious/noExplicitAny: as the functions of a library are.
  const functions: Record<string, (...args: any[]) => unknown> = {
    openat: (dir: number, path: Buffer, flags: number, type: string, mode: number) => {
      if (type !== 'int') return fail('EINVAL');
      let wanted = flags & 3;
      for (const [darwin, linux] of OPEN_FLAGS) if ((flags & darwin) !== 0) wanted |= linux;
      const fd = fs.openSync(at(dir, path), wanted, mode);
      open.add(fd);
      return fd;
    },
    close: (fd: number) => {
      if (!open.delete(fd)) return fail('EBADF');
      listed.delete(fd);
      fs.closeSync(fd);
      return 0;
    },
    fcntl: (fd: number, command: number, _type: string, argument: Buffer) => {
      if (command === F.F_FULLFSYNC) fs.fsyncSync(fd);
      else argument.write(`${fs.readlinkSync(`/proc/self/fd/${fd}`, 'latin1')}\0`, 0, 'latin1');
      return 0;
    },
    fstat: (fd: number, into: Buffer) => fill(into, fs.fstatSync(fd, { bigint: true })),
    fstatat: (dir: number, path: Buffer, into: Buffer, flags: number) =>
      flags === F.AT_SYMLINK_NOFOLLOW
        ? fill(into, fs.lstatSync(at(dir, path), { bigint: true }))
        : fail('EINVAL'),
    fstatfs: (_fd: number, into: Buffer) => {
      into.writeUInt32LE(4096, STATFS.f_bsize);
      into.writeBigUInt64LE(1000n, STATFS.f_blocks);
      into.writeBigUInt64LE(500n, STATFS.f_bfree);
      into.writeBigUInt64LE(400n, STATFS.f_bavail);
      return 0;
    },
    pread: (fd: number, into: Buffer, size: number, position: number) =>
      fs.readSync(fd, into, 0, size, position),
    pwrite: (fd: number, from: Buffer, size: number, position: number) =>
      fs.writeSync(fd, from, 0, size, position),
    lseek: (fd: number) => {
      listed.delete(fd);
      return 0;
    },
    ftruncate: (fd: number, size: number) => fs.ftruncateSync(fd, size),
    fsync: (fd: number) => fs.fsyncSync(fd),
    sync: () => 0,
    mkdirat: (dir: number, path: Buffer, mode: number) => fs.mkdirSync(at(dir, path), mode),
    mkfifoat: (dir: number, path: Buffer) =>
      execFileSync('mkfifo', [`${fs.readlinkSync(`/proc/self/fd/${dir}`)}/${text(path)}`]),
    symlinkat: (target: Buffer, dir: number, path: Buffer) =>
      fs.symlinkSync(Buffer.from(text(target), 'latin1'), at(dir, path)),
    readlinkat: (dir: number, path: Buffer, into: Buffer) =>
      fs.readlinkSync(at(dir, path), 'buffer').copy(into),
    linkat: (from: number, fromPath: Buffer, to: number, toPath: Buffer) =>
      fs.linkSync(at(from, fromPath), at(to, toPath)),
    unlinkat: (dir: number, path: Buffer, flags: number) => {
      if (flags === F.AT_REMOVEDIR) fs.rmdirSync(at(dir, path));
      else fs.unlinkSync(at(dir, path));
      return 0;
    },
    renameatx_np: (from: number, fromPath: Buffer, to: number, toPath: Buffer, flags: number) => {
      const exists = fs.existsSync(at(to, toPath));
      if (flags === RENAME_EXCL && exists) return fail('EEXIST');
      if (flags === RENAME_SWAP) {
        const aside = Buffer.concat([at(to, toPath), Buffer.from('.aside')]);
        fs.renameSync(at(to, toPath), aside);
        fs.renameSync(at(from, fromPath), at(to, toPath));
        fs.renameSync(aside, at(from, fromPath));
      } else fs.renameSync(at(from, fromPath), at(to, toPath));
      return 0;
    },
    fchmod: (fd: number, mode: number) => fs.fchmodSync(fd, mode),
    fchmodat: (dir: number, path: Buffer, mode: number) => fs.chmodSync(at(dir, path), mode),
    fchown: (fd: number, uid: number, gid: number) => fs.fchownSync(fd, uid, gid),
    fchownat: (dir: number, path: Buffer, uid: number, gid: number) => fs.lchownSync(at(dir, path), uid, gid),
    futimens: (fd: number, times: Buffer) => setTimes(fs.readlinkSync(`/proc/self/fd/${fd}`), times),
    utimensat: (dir: number, path: Buffer, times: Buffer) => setTimes(at(dir, path), times),
    fsetxattr: (
      fd: number,
      name: Buffer,
      value: Buffer,
      size: number,
      _position: number,
      options: number,
    ) => {
      const known = attributesOf(fd);
      if (options === 2 && known.has(text(name))) return fail('EEXIST');
      if (options === 4 && !known.has(text(name))) return fail('ENODATA');
      known.set(text(name), Buffer.from(value.subarray(0, size)));
      return 0;
    },
    fgetxattr: (fd: number, name: Buffer, into: Buffer | null) => {
      const value = attributesOf(fd).get(text(name)) ?? fail('ENODATA');
      if (into !== null && into.length < value.length) return fail('ERANGE');
      if (into !== null) value.copy(into);
      return value.length;
    },
    flistxattr: (fd: number, into: Buffer | null) => {
      const list = Buffer.from([...attributesOf(fd).keys()].map((name) => `${name}\0`).join(''), 'latin1');
      if (into !== null) list.copy(into);
      return list.length;
    },
    fremovexattr: (fd: number, name: Buffer) => (attributesOf(fd).delete(text(name)) ? 0 : fail('ENODATA')),
    getattrlistbulk: (fd: number, wanted: Buffer, into: Buffer, _size: number, options: number) => {
      const asked = ATTR.ATTR_CMN_RETURNED_ATTRS + ATTR.ATTR_CMN_NAME + ATTR.ATTR_CMN_FILEID;
      if (wanted.readUInt16LE(0) !== 5 || wanted.readUInt32LE(4) !== asked || options !== 8)
        return fail('EINVAL');
      const names = listed.get(fd) ?? fs.readdirSync(`/proc/self/fd/${fd}`, 'buffer');
      const some = names.slice(0, BULK_MAX);
      listed.set(fd, names.slice(BULK_MAX));
      let start = 0;
      for (const name of some) {
        const path = Buffer.concat([Buffer.from(`/proc/self/fd/${fd}/`), name]);
        const length = (44 + name.length + 1 + 3) & ~3;
        into.writeUInt32LE(length, start);
        into.writeUInt32LE(asked, start + 4);
        into.fill(0, start + 8, start + 24);
        into.writeInt32LE(44 - 24, start + 24);
        into.writeUInt32LE(name.length + 1, start + 28);
        into.writeBigUInt64LE(fs.lstatSync(path, { bigint: true }).ino, start + 32);
        name.copy(into, start + 44);
        into[start + 44 + name.length] = 0;
        start += length;
      }
      return some.length;
    },
  };
  return {
    open,
    function: (name) => {
      const play = functions[name];
      if (play === undefined) throw new Error(`${name} is not played`);
      return (...args: unknown[]) => {
        try {
          return play(...args) ?? 0;
        } catch (error) {
          const { errno } = error as NodeJS.ErrnoException;
          if (errno === undefined) throw error;
          failed = toDarwin(-errno);
          return -1;
        }
      };
    },
    errno: () => failed,
  };
}
