/** A jail's /dev: the nodes that its specification lists, and the links that programs expect. */
import { closeSync, constants, existsSync, statSync } from 'node:fs';
import { outsideId, type UserMaps } from '#common/id-map';
import type { JailDevice, JailSpec } from '../runtime/runtime.ts';
import { isErrno } from './failure.ts';
import { openOrMake, openParent } from './resolve.ts';
import type { System } from './system.ts';

const LINKS: readonly [name: string, target: string][] = [
  ['fd', '/proc/self/fd'],
  ['stdin', '/proc/self/fd/0'],
  ['stdout', '/proc/self/fd/1'],
  ['stderr', '/proc/self/fd/2'],
  ['core', '/proc/kcore'],
  ['ptmx', 'pts/ptmx'],
];

/** Fills a fresh tmpfs on /dev. With a terminal, /dev/console is it. */
export function populateDevices(
  system: System,
  rootFd: number,
  { devices, userMaps }: Pick<JailSpec, 'devices' | 'userMaps'>,
  terminal: { slave: number } | undefined,
): void {
  for (const device of devices) makeDevice(system, rootFd, device, userMaps);
  const dev = openOrMake(system, rootFd, '/dev', 'directory');
  for (const [name, target] of LINKS) {
    // Not every kernel has it (CONFIG_PROC_KCORE).
    if (name === 'core' && !existsSync(target)) continue;
    try {
      system.makeSymlinkAt(target, dev, name);
    } catch (error) {
      if (!isErrno(error, 'EEXIST')) throw error;
    }
  }
  closeSync(dev);
  if (!terminal) return;
  const console = openOrMake(system, rootFd, '/dev/console', 'file');
  const clone = system.cloneTree(terminal.slave, '', false);
  system.attachMount(clone, console);
  closeSync(clone);
  closeSync(console);
}

/** Makes a node with the type, number, mode and owner of the host's. */
function makeDevice(system: System, rootFd: number, device: JailDevice, maps: UserMaps | undefined): void {
  const stat = statSync(device.hostPath);
  const type = stat.mode & constants.S_IFMT;
  if (type !== constants.S_IFCHR && type !== constants.S_IFBLK)
    throw new Error(`${device.hostPath} is not a device`);
  const { dirFd, name } = openParent(system, rootFd, device.path);
  try {
    system.makeNodeAt(dirFd, name, stat.mode, kernelDevice(stat.rdev));
    // An owner whom the jail does not know is nobody there, as it is of the host's files.
    const uid = outsideId(maps?.uids, stat.uid) ?? stat.uid;
    const gid = outsideId(maps?.gids, stat.gid) ?? stat.gid;
    system.changeOwnerAt(dirFd, name, uid, gid);
  } catch (error) {
    // Root of a user namespace may make no devices: it gets the machine's own ones, as far as it may use them.
    if (isErrno(error, 'EPERM')) bindDevice(system, rootFd, device);
    // A node may be listed twice, by default and by wish.
    else if (!isErrno(error, 'EEXIST')) throw error;
  } finally {
    closeSync(dirFd);
  }
}

/** Mounts a device of the machine on a file. */
function bindDevice(system: System, rootFd: number, { hostPath, path }: JailDevice): void {
  const clone = system.cloneTree(system.AT_FDCWD, hostPath, false);
  const target = openOrMake(system, rootFd, path, 'file');
  try {
    system.attachMount(clone, target);
  } finally {
    closeSync(target);
    closeSync(clone);
  }
}

/** `st_rdev` is as the C library has it; mknod takes the kernel's encoding (new_encode_dev in linux/kdev_t.h). */
function kernelDevice(rdev: number): number {
  const wide = BigInt(rdev);
  const major = Number(((wide >> 8n) & 0xfffn) | ((wide >> 32n) & 0xfffff000n));
  const minor = Number((wide & 0xffn) | ((wide >> 12n) & 0xffffff00n));
  return ((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0;
}
