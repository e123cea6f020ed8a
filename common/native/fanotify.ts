/**
 * fanotify(7): what other processes change in folders, with the thread that did it, which inotify doesn't tell. Needs
 * CAP_SYS_ADMIN and Linux 5.17 (FAN_RENAME).
 */
import { addressOf, cFunction, errno } from './libc.ts';

const FAN_CLOEXEC = 1;
const FAN_UNLIMITED_MARKS = 0x20;
const FAN_REPORT_TID = 0x100;
const FAN_REPORT_DFID_NAME = 0xc00;
const FAN_MARK_ADD = 1;
const FAN_MARK_REMOVE = 2;
const FAN_MARK_DONT_FOLLOW = 4;
const FAN_MARK_ONLYDIR = 8;
const FAN_MARK_IGNORED_MASK = 0x20;
const FAN_MARK_IGNORED_SURV_MODIFY = 0x40;

const FAN_MODIFY = 0x2;
const FAN_ATTRIB = 0x4;
const FAN_CREATE = 0x100;
const FAN_DELETE = 0x200;
const FAN_RENAME = 0x10000000;
const FAN_ONDIR = 0x40000000;
const FAN_EVENT_ON_CHILD = 0x08000000;

const WATCHED =
  FAN_MODIFY | FAN_ATTRIB | FAN_CREATE | FAN_DELETE | FAN_RENAME | FAN_EVENT_ON_CHILD | FAN_ONDIR;

const O_RDONLY_CLOEXEC = 0o2000000;
const AT_EMPTY_PATH = 0x1000;
const HANDLE_BYTES_MAX = 128;

const pointer = 'int64';
const c = {
  init: cFunction('fanotify_init', 'int', ['uint', 'uint']),
  mark: cFunction('fanotify_mark', 'int', ['int', 'uint', 'uint64', 'int', pointer]),
  nameToHandle: cFunction('name_to_handle_at', 'int', ['int', pointer, pointer, pointer, 'int']),
  read: cFunction('read', 'int64', ['int', pointer, 'uint64']),
  poll: cFunction('poll', 'int', [pointer, 'uint64', 'int']),
  gettid: cFunction('gettid', 'int', []),
};

/** A queue of events, or a negative errno. */
export function openWatch(): number {
  const flags = FAN_CLOEXEC | FAN_UNLIMITED_MARKS | FAN_REPORT_TID | FAN_REPORT_DFID_NAME;
  const fd: number = c.init(flags, O_RDONLY_CLOEXEC);
  return fd < 0 ? -errno() : fd;
}

/** Watches a directory and what is directly in it; `path` is a C string's address. A negative errno on failure. */
export function watchDir(watchFd: number, dirFd: number, path: number): number {
  const flags = FAN_MARK_ADD | FAN_MARK_DONT_FOLLOW | FAN_MARK_ONLYDIR;
  return c.mark(watchFd, flags, WATCHED, dirFd, path) < 0 ? -errno() : 0;
}

export function unwatchDir(watchFd: number, dirFd: number, path: number): void {
  c.mark(watchFd, FAN_MARK_REMOVE | FAN_MARK_DONT_FOLLOW | FAN_MARK_ONLYDIR, WATCHED, dirFd, path);
}

/** Leaves out writes to an open file, whoever makes them, until heedWrites(). A negative errno on failure. */
export function ignoreWrites(watchFd: number, fd: number): number {
  const flags = FAN_MARK_ADD | FAN_MARK_IGNORED_MASK | FAN_MARK_IGNORED_SURV_MODIFY;
  return c.mark(watchFd, flags, FAN_MODIFY, fd, 0) < 0 ? -errno() : 0;
}

export function heedWrites(watchFd: number, fd: number): void {
  c.mark(watchFd, FAN_MARK_REMOVE | FAN_MARK_IGNORED_MASK, FAN_MODIFY, fd, 0);
}

/** struct file_handle {bytes, type, data}, and behind it the mount's id: one buffer, kept alive by who reads it. */
const handle = Buffer.alloc(8 + HANDLE_BYTES_MAX + 8);
const handleAddress = addressOf(handle);

/** The file handle by which events name an object, type and bytes as a byte string; undefined if it has none. */
export function fileHandle(dirFd: number, path: number): string | undefined {
  handle.writeUInt32LE(HANDLE_BYTES_MAX, 0);
  const mountId = handleAddress + 8 + HANDLE_BYTES_MAX;
  if (c.nameToHandle(dirFd, path, handleAddress, mountId, AT_EMPTY_PATH) < 0) return undefined;
  return handle.toString('latin1', 4, 8 + handle.readUInt32LE(0));
}

/** Reads events, waiting for the first. A count of bytes or a negative errno. */
export function readEvents(watchFd: number, into: number, size: number): number {
  const count: number = c.read(watchFd, into, size);
  return count < 0 ? -errno() : count;
}

const POLLIN = 1;
const POLLPRI = 2;
const polled = new Int32Array(4);
const polledAddress = addressOf(new Uint8Array(polled.buffer));

/** Waits for events of a watch or a change of the table of mounts (proc(5), mountinfo); which of them came. */
export function waitEvents(watchFd: number, mountInfoFd: number): { events: boolean; mounts: boolean } {
  polled.set([watchFd, POLLIN, mountInfoFd, POLLPRI]);
  c.poll(polledAddress, 2, -1);
  return { events: polled[1]! >>> 16 !== 0, mounts: polled[3]! >>> 16 !== 0 };
}

/** The calling thread's id, as the kernel tells it to others. */
export function threadId(): number {
  return c.gettid();
}
