/**
 * System calls for tests of file systems, by path, as this thread or as another user: each gives `ok` or the name of
 * its error, so that the same table of calls can be run on two folders and compared.
 */
import * as fs from '#common/native/fs';
import { addressOf, cFunction, errnoName } from '#common/native/libc';

function cString(text: string): Buffer {
  return Buffer.from(`${text}\0`, 'utf8');
}

/** Buffers must stay referenced until the call is over; a list in the caller's frame does that. */
function path(text: string): number {
  const bytes = cString(text);
  keep.push(bytes);
  if (keep.length > 64) keep.shift();
  return addressOf(bytes);
}
const keep: Buffer[] = [];

/** `ok`, or the name of the error in a negative result. */
export function outcome(result: number): string {
  return result < 0 ? errnoName(-result) : 'ok';
}

/** A descriptor, or a negative errno. */
export function open(file: string, flags: number, mode = 0o644): number {
  return fs.openat(fs.AT_FDCWD, path(file), flags, mode);
}

export const flock: (fd: number, operation: number) => number = fs.flock;
export const lseek: (fd: number, position: number, whence: number) => number = fs.lseek;
export const fallocate: (fd: number, mode: number, position: number, size: number) => number = fs.fallocate;

export function rename2(from: string, to: string, flags: number): string {
  return outcome(fs.renameat2(fs.AT_FDCWD, path(from), fs.AT_FDCWD, path(to), flags));
}

export function linkUnnamed(fd: number, to: string): string {
  return outcome(
    fs.linkat(fs.AT_FDCWD, path(`/proc/self/fd/${fd}`), fs.AT_FDCWD, path(to), fs.AT_SYMLINK_FOLLOW),
  );
}

export function mknod(file: string, mode: number, device = 0): string {
  return outcome(fs.mknodat(fs.AT_FDCWD, path(file), mode, device));
}

/** Sets both times to now. */
export function touch(file: string): string {
  return outcome(fs.utimensat(fs.AT_FDCWD, path(file), 0, 0));
}

export function setXattr(file: string, name: string, value: string, flags = 0): string {
  const bytes = Buffer.from(value);
  keep.push(bytes);
  return outcome(fs.setxattr(path(file), path(name), addressOf(bytes), bytes.length, flags, false));
}

/** The value, or the name of the error. */
export function getXattr(file: string, name: string): { value?: string; error?: string } {
  const bytes = Buffer.alloc(65536);
  const size = fs.getxattr(path(file), path(name), addressOf(bytes), bytes.length, false);
  return size < 0 ? { error: errnoName(-size) } : { value: bytes.toString('utf8', 0, size) };
}

export function listXattr(file: string): string[] {
  const bytes = Buffer.alloc(65536);
  const size = fs.listxattr(path(file), addressOf(bytes), bytes.length, false);
  if (size < 0) throw new Error(errnoName(-size));
  return bytes.toString('utf8', 0, size).split('\0').filter(Boolean).sort();
}

export function removeXattr(file: string, name: string): string {
  return outcome(fs.removexattr(path(file), path(name), false));
}

/** Copies within the kernel; the count or a negative errno. */
export function copyRange(from: number, fromAt: number, to: number, toAt: number, size: number): number {
  const positions = new BigInt64Array([BigInt(fromAt), BigInt(toAt)]);
  const address = addressOf(new Uint8Array(positions.buffer));
  return fs.copyFileRange(from, address, to, address + 8, size);
}

const F_OFD_SETLK = 37;

/** Takes (`F_RDLCK` 0, `F_WRLCK` 1) or frees (`F_UNLCK` 2) a range for the open file. */
export function lockRange(fd: number, type: number, start: number, length: number): string {
  const lock = new BigInt64Array(4);
  new Int16Array(lock.buffer)[0] = type;
  lock[1] = BigInt(start);
  lock[2] = BigInt(length);
  return outcome(fs.fcntlLock(fd, F_OFD_SETLK, addressOf(new Uint8Array(lock.buffer))));
}

const F_GETLK = 5;

/** The lock that is in the way of one of this process. */
export function testRange(
  fd: number,
  type: number,
  start: number,
  length: number,
): { type: number; start: number; length: number; pid: number } {
  const lock = new BigInt64Array(4);
  const types = new Int16Array(lock.buffer);
  types[0] = type;
  lock[1] = BigInt(start);
  lock[2] = BigInt(length);
  const result = fs.fcntlLock(fd, F_GETLK, addressOf(new Uint8Array(lock.buffer)));
  if (result < 0) throw new Error(errnoName(-result));
  return {
    type: types[0]!,
    start: Number(lock[1]),
    length: Number(lock[2]),
    pid: new Int32Array(lock.buffer)[6]!,
  };
}

/** Nanosecond birth time and identity, by statx. */
export function statx(file: string): { ino: bigint; born: bigint; mtimeNs: bigint } {
  const words = new BigUint64Array(32);
  const mask = 0xfff;
  const result = fs.statx(
    fs.AT_FDCWD,
    path(file),
    fs.AT_SYMLINK_NOFOLLOW,
    mask,
    addressOf(new Uint8Array(words.buffer)),
  );
  if (result < 0) throw new Error(errnoName(-result));
  const ns = (at: number): bigint => words[at]! * 1_000_000_000n + (words[at + 1]! & 0xffffffffn);
  return { ino: words[4]!, born: ns(10), mtimeNs: ns(14) };
}

const c = {
  setfsuid: cFunction('setfsuid', 'int', ['uint']),
  setfsgid: cFunction('setfsgid', 'int', ['uint']),
  mmap: cFunction('mmap', 'int64', ['int64', 'uint64', 'int', 'int', 'int', 'int64']),
  munmap: cFunction('munmap', 'int', ['int64', 'uint64']),
  msync: cFunction('msync', 'int', ['int64', 'uint64', 'int']),
  memcpy: cFunction('memcpy', 'int64', ['int64', 'int64', 'uint64']),
};

/** Runs `body` with the file system identity of another user; only this thread is affected. */
export function asUser<T>(uid: number, gid: number, body: () => T): T {
  c.setfsgid(gid);
  c.setfsuid(uid);
  try {
    return body();
  } finally {
    c.setfsuid(0);
    c.setfsgid(0);
  }
}

/** A shared mapping of a whole file, by copies in and out. The file stays open as long as it. */
export class Mapping {
  readonly #fd: number;
  readonly #address: number;
  readonly #size: number;

  constructor(fd: number, size: number) {
    const readWrite = 3;
    const shared = 1;
    this.#fd = fd;
    this.#address = c.mmap(0, size, readWrite, shared, fd, 0);
    this.#size = size;
    if (this.#address === -1) throw new Error('mmap failed');
  }

  read(at: number, size: number): string {
    const bytes = Buffer.alloc(size);
    c.memcpy(addressOf(bytes), this.#address + at, size);
    return bytes.toString('latin1');
  }

  write(at: number, text: string): void {
    const bytes = Buffer.from(text, 'latin1');
    c.memcpy(this.#address + at, addressOf(bytes), bytes.length);
  }

  sync(): void {
    c.msync(this.#address, this.#size, 4);
  }

  close(): void {
    // munmap writes back what is dirty with the memory map of the process locked: a file server that is a thread of the
    // same process may need it to answer, and both would wait forever.
    fs.fsync(this.#fd);
    c.munmap(this.#address, this.#size);
  }
}
