/**
 * Paths inside a jail's root, resolved from outside without ever leaving it.
 *
 * What exists is resolved by the kernel (openat2 with RESOLVE_IN_ROOT: `..` and absolute links stop at the root).
 * What does not exist is made by walking: one component at a time, each opened relative to its parent's descriptor
 * and never through a link, with links read and interpreted here. A folder shared with a running, hostile container
 * may change at any moment of the walk; a descriptor, once opened, stays in the tree, so the walk does too.
 */
import { closeSync, constants, fstatSync } from 'node:fs';
import { isErrno } from './failure.ts';
import type { System } from './system.ts';

/** As the kernel's own limit (MAXSYMLINKS). */
const LINKS_MAX = 40;
const DIRECTORY_MODE = 0o755;
const FILE_MODE = 0o644;

/** What to make at the end of a path when there is nothing. */
export type Wanted = 'directory' | 'file';

/**
 * Opens (O_PATH) what `path` means inside the root.
 *
 * @param links whether symbolic links may be part of the path.
 * @throws SyscallError ENOENT, ENOTDIR, ELOOP.
 */
export function openInside(system: System, rootFd: number, path: string, links = true): number {
  const resolve = links ? system.RESOLVE_NO_MAGICLINKS : system.RESOLVE_NO_SYMLINKS;
  return system.openResolved(rootFd, path, system.O_PATH, system.RESOLVE_IN_ROOT | resolve);
}

/** As {@link openInside}, but makes what is missing: parents as folders, the end as `wanted`. */
export function openOrMake(system: System, rootFd: number, path: string, wanted: Wanted): number {
  try {
    return openInside(system, rootFd, path);
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error;
  }
  return walk(system, rootFd, path, wanted);
}

/** Opens the folder that will hold the last component of `path`, making it if missing; returns both. */
export function openParent(system: System, rootFd: number, path: string): { dirFd: number; name: string } {
  const parts = components(path);
  const name = parts.pop();
  if (name === undefined || name === '..') throw new Error(`${path} does not name a file`);
  return { dirFd: openOrMake(system, rootFd, `/${parts.join('/')}`, 'directory'), name };
}

function components(path: string): string[] {
  return path.split('/').filter((part) => part !== '' && part !== '.');
}

function walk(system: System, rootFd: number, path: string, wanted: Wanted): number {
  const pending = components(path);
  // From the root down to where the walk is; `..` goes back to a folder that was really passed.
  const stack = [openInside(system, rootFd, '/')];
  let links = 0;
  try {
    while (pending.length > 0) {
      const name = pending.shift()!;
      if (name === '..') {
        if (stack.length > 1) closeSync(stack.pop()!);
        continue;
      }
      const here = stack.at(-1)!;
      const fd = openComponent(system, here, name, pending.length === 0 ? wanted : 'directory');
      const stat = fstatSync(fd);
      if (!stat.isSymbolicLink()) {
        stack.push(fd);
        continue;
      }
      const target = readAndClose(system, fd);
      if (++links > LINKS_MAX) throw new Error(`${path}: too many symbolic links`);
      if (target.startsWith('/')) while (stack.length > 1) closeSync(stack.pop()!);
      pending.unshift(...components(target));
    }
    return stack.pop()!;
  } finally {
    for (const fd of stack) closeSync(fd);
  }
}

function readAndClose(system: System, fd: number): string {
  try {
    return system.readLinkOf(fd);
  } finally {
    closeSync(fd);
  }
}

/** Opens one component of a folder without following it, after making it if it is missing. */
function openComponent(system: System, dirFd: number, name: string, wanted: Wanted): number {
  const open = (): number =>
    system.openResolved(dirFd, name, system.O_PATH | constants.O_NOFOLLOW, system.RESOLVE_BENEATH);
  try {
    return open();
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error;
  }
  try {
    if (wanted === 'directory') system.makeDirectoryAt(dirFd, name, DIRECTORY_MODE);
    else system.makeNodeAt(dirFd, name, constants.S_IFREG | FILE_MODE, 0);
  } catch (error) {
    // Somebody else was quicker; whatever it is, it is opened without following.
    if (!isErrno(error, 'EEXIST')) throw error;
  }
  return open();
}
