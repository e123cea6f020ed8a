/**
 * The kernel's FUSE device: opening, mounting, the blocking loop's read and write, and the ioctls that give the kernel
 * a file to serve by itself (include/uapi/linux/fuse.h, Documentation/filesystems/fuse/).
 */
import { openat } from './fs.ts';
import { addressOf, cFunction, check, errno } from './libc.ts';

const O_RDWR = 2;
const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;

export const MS_RDONLY = 1;
export const MS_NOSUID = 2;
export const MS_NODEV = 4;
export const MS_REMOUNT = 0x20;
export const MS_BIND = 0x1000;
export const MNT_FORCE = 1;
export const MNT_DETACH = 2;
/** Refuses to follow a symbolic link at the mount point. */
export const UMOUNT_NOFOLLOW = 8;

const BACKING_OPEN = 0x4010e501;
const BACKING_CLOSE = 0x4004e502;

const pointer = 'int64';
const c = {
  open: cFunction('open', 'int', ['string', 'int']),
  close: cFunction('close', 'int', ['int']),
  read: cFunction('read', 'int64', ['int', pointer, 'uint64']),
  write: cFunction('write', 'int64', ['int', pointer, 'uint64']),
  poll: cFunction('poll', 'int', [pointer, 'uint64', 'int']),
  ioctl: cFunction('ioctl', 'int', ['int', 'uint64', pointer]),
  mount: cFunction('mount', 'int', ['string', 'string', 'string', 'uint64', 'string']),
  syscall: cFunction('syscall', 'int64', ['int64', 'int64', 'int64', 'int64', 'int64', 'int64']),
  umount2: cFunction('umount2', 'int', ['string', 'int']),
};

/** Opens /dev/fuse; reading it never waits. The mount lives as long as a descriptor of this open file does. */
export function openFuse(): number {
  return check(c.open('/dev/fuse', O_RDWR | O_NONBLOCK | O_CLOEXEC), 'open', '/dev/fuse');
}

/** mount(2). `data` is the file system's option string. */
export function mountFs(source: string, target: string, type: string, flags: number, data: string): void {
  check(c.mount(source, target, type, flags, data), 'mount', target);
}

/** umount2(2). */
export function unmountFs(target: string, flags: number): void {
  check(c.umount2(target, flags), 'umount2', target);
}

/** Closes a descriptor, whatever it is. */
export function closeFd(fd: number): void {
  c.close(fd);
}

/** Reads one request into memory at `into`. A count, or a negative errno (-EAGAIN: none there, -ENODEV: unmounted). */
export function readRequest(fd: number, into: number, size: number): number {
  const count: number = c.read(fd, into, size);
  return count < 0 ? -errno() : count;
}

/** Writes one reply or notification. A count, or a negative errno (-ENOENT: nobody waits for it any more). */
export function writeReply(fd: number, from: number, size: number): number {
  const count: number = c.write(fd, from, size);
  return count < 0 ? -errno() : count;
}

const POLLIN = 1;
const pollFd = new Int32Array(2);
const pollAddress = addressOf(new Uint8Array(pollFd.buffer));

/** Waits until a request is there or `timeoutMs` is over, without end if it is -1; whether one is there. */
export function waitRequest(fd: number, timeoutMs: number): boolean {
  pollFd[0] = fd;
  pollFd[1] = POLLIN;
  return c.poll(pollAddress, 1, timeoutMs) > 0;
}

const backing = new Int32Array(4);
const backingAddress = addressOf(new Uint8Array(backing.buffer));

/**
 * Registers an open file that the kernel may read and write in our place; a positive id for open replies, or a
 * negative errno (-EPERM: no CAP_SYS_ADMIN in the first user namespace).
 */
export function openBacking(fuseFd: number, fd: number): number {
  backing.fill(0);
  backing[0] = fd;
  const id: number = c.ioctl(fuseFd, BACKING_OPEN, backingAddress);
  return id < 0 ? -errno() : id;
}

/** Ends a registration; opens that use it keep it alive. */
export function closeBacking(fuseFd: number, id: number): void {
  backing[0] = id;
  c.ioctl(fuseFd, BACKING_CLOSE, backingAddress);
}

const SYS_FSOPEN = 430;
const SYS_FSCONFIG = 431;
const SYS_FSMOUNT = 432;
const FSCONFIG_CMD_CREATE = 6;
const O_WRONLY_CLOEXEC = 0o2000001;

/**
 * Cuts the connection of the FUSE file system with this device minor, as by /sys/fs/fuse/connections/N/abort: its users
 * get errors and its server's read fails with ENODEV. Works where that control file system isn't mounted, by mounting
 * it nowhere. A negative errno on failure.
 */
export function abortConnection(minor: number): number {
  const bytes = Buffer.from(`fusectl\x00${minor}/abort\x001`);
  const base = addressOf(bytes);
  const context: number = c.syscall(SYS_FSOPEN, base, 0, 0, 0, 0);
  if (context < 0) return -errno();
  let result: number = c.syscall(SYS_FSCONFIG, context, FSCONFIG_CMD_CREATE, 0, 0, 0);
  if (result === 0) result = c.syscall(SYS_FSMOUNT, context, 0, 0, 0, 0);
  if (result < 0) result = -errno();
  c.close(context);
  if (result < 0) return result;
  const mount = result;
  const control = openat(mount, base + 8, O_WRONLY_CLOEXEC, 0);
  if (control >= 0) {
    const written: number = c.write(control, base + bytes.length - 1, 1);
    result = written < 0 ? -errno() : 0;
    c.close(control);
  }
  c.close(mount);
  return control < 0 ? control : result;
}
