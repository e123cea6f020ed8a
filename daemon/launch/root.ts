/**
 * The root file system of a jail: mounts, devices, masks, and pivot_root. Runs in the launcher, in a mount namespace
 * of its own that still is a copy of the host's.
 *
 * Order matters. The root and sources of bind mounts are cloned before, among the host's mounts; then nothing
 * that happens here can reach the host (everything becomes a slave); then the mounts of the jail go on its root one
 * by one, each resolved inside the root and made with its final attributes before it is visible; at the end the old
 * root is taken away, and with it every path to the host.
 */
import { closeSync, constants, fstatSync, openSync, statSync } from 'node:fs';
import { basename } from 'node:path';
import { outsideId, type UserMaps } from '#common/id-map';
import type { PseudoTerminal } from '#common/native/tty';
import type { JailMount, JailSpec } from '../runtime/runtime.ts';
import { populateDevices } from './devices.ts';
import { isErrno, step } from './failure.ts';
import { type ParsedOptions, parseMountOptions } from './mount-options.ts';
import type { CgroupMount } from './protocol.ts';
import { openInside, openOrMake } from './resolve.ts';
import type { System } from './system.ts';

/** The kernel's file systems, which must be where they say they are: a link in their path would be a lie of the image. */
const STRICT_KINDS: ReadonlySet<JailMount['kind']> = new Set(['proc', 'sysfs', 'mqueue', 'devpts', 'cgroup']);

/** A tmpfs that nobody can put anything into, as the mask of a folder. */
const EMPTY_TMPFS: [string, string?][] = [
  ['nr_blocks', '1'],
  ['nr_inodes', '1'],
];

/** Whether the jail gets a /dev of its own to be filled. */
function ownDev(spec: JailSpec): boolean {
  return spec.mounts.findLast((mount) => mount.target === '/dev')?.kind === 'tmpfs';
}

/**
 * Builds the jail's root and makes it the root of this process.
 *
 * @returns the jail's terminal, if it wants one.
 */
export function enterRoot(
  system: System,
  spec: JailSpec,
  cgroups: CgroupMount[],
  places: Places,
): PseudoTerminal | undefined {
  step('isolate mounts', () => {
    const host = openSync('/', system.O_PATH);
    system.setMountAttributes(host, { set: 0, clear: 0, propagation: system.MS_SLAVE }, true);
    closeSync(host);
  });
  const rootFd = step('mount the root', () => attachRoot(system, spec.rootPath, places.root));
  const terminal = furnish(system, rootFd, spec, cgroups, places.binds);
  step('enter the root', () => {
    system.changeFolder(spec.rootPath);
    system.pivotRootHere();
    // The old root now lies on top of the new one, at the same place.
    system.detachMount('.');
    system.changeFolder('/');
    closeSync(rootFd);
  });
  return terminal;
}

/**
 * As {@link enterRoot} without namespaces: the mounts are the machine's, on a root that the daemon has mounted on
 * itself and takes away with all that is on it, and chroot is all that keeps the process in.
 */
export function enterPlainRoot(system: System, spec: JailSpec): PseudoTerminal | undefined {
  const binds = cloneBindSources(system, spec.mounts);
  const rootFd = step('open the root', () =>
    openSync(spec.rootPath, system.O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW),
  );
  const terminal = furnish(system, rootFd, spec, [], binds);
  closeSync(rootFd);
  step('enter the root', () => {
    system.changeRoot(spec.rootPath);
    system.changeFolder('/');
  });
  return terminal;
}

/** Puts mounts, devices, masks and the working folder into a root. */
function furnish(
  system: System,
  rootFd: number,
  spec: JailSpec,
  cgroups: CgroupMount[],
  binds: Map<JailMount, number>,
): PseudoTerminal | undefined {
  for (const mount of spec.mounts) {
    step(`mount ${mount.kind} on ${mount.target}`, () =>
      applyMount(system, rootFd, mount, spec, cgroups, binds.get(mount)),
    );
  }
  let terminal: PseudoTerminal | undefined;
  if (spec.process.terminal) terminal = step('open a terminal', () => openTerminalInside(system, rootFd));
  if (ownDev(spec)) step('make devices', () => populateDevices(system, rootFd, spec, terminal));
  step('mask paths', () => {
    for (const path of spec.maskedPaths) maskPath(system, rootFd, path);
  });
  step('make paths read-only', () => {
    for (const path of spec.readonlyPaths) freezePath(system, rootFd, path);
  });
  if (spec.process.makeCwd) {
    step(`make the working folder ${spec.process.cwd}`, () =>
      closeSync(openOrMake(system, rootFd, spec.process.cwd, 'directory')),
    );
  }
  if (spec.readOnlyRoot) step('make the root read-only', () => setReadOnly(system, rootFd, false));
  return terminal;
}

/** Mounts of the host that a jail gets, detached. */
export interface Places {
  root: number;
  binds: Map<JailMount, number>;
}

/**
 * Clones what a jail gets of the host's mounts, as long as this process is among them: in a mount namespace of another
 * user namespace they can be taken only all together.
 */
export function openPlaces(system: System, spec: JailSpec): Places {
  const binds = cloneBindSources(system, spec.mounts);
  const root = step('open the root', () => system.cloneTree(system.AT_FDCWD, spec.rootPath, false));
  return { root, binds };
}

function cloneBindSources(system: System, mounts: JailMount[]): Map<JailMount, number> {
  const clones = new Map<JailMount, number>();
  for (const mount of mounts) {
    if (mount.kind !== 'bind') continue;
    const { recursiveBind } = parseMountOptions(mount.options);
    const source = mount.source ?? '';
    clones.set(
      mount,
      step(`open ${source} to mount it on ${mount.target}`, () =>
        system.cloneTree(system.AT_FDCWD, source, recursiveBind),
      ),
    );
  }
  return clones;
}

/** Mounts the root on itself: a mount point that the host does not share, and whose end is the end of all on it. */
export function mountRoot(system: System, path: string): number {
  return attachRoot(system, path, system.cloneTree(system.AT_FDCWD, path, false));
}

function attachRoot(system: System, path: string, clone: number): number {
  system.setMountAttributes(clone, { set: 0, clear: 0, propagation: system.MS_PRIVATE }, false);
  const below = openSync(path, system.O_PATH | constants.O_DIRECTORY);
  system.attachMount(clone, below);
  closeSync(below);
  return clone;
}

function applyMount(
  system: System,
  rootFd: number,
  mount: JailMount,
  spec: JailSpec,
  cgroups: CgroupMount[],
  bindFd: number | undefined,
): void {
  const parsed = parseMountOptions(mount.options);
  if (spec.userMaps && mount.kind !== 'bind') parsed.data = outsideIds(parsed.data, spec.userMaps);
  if (mount.readOnly) parsed.attributes.set |= system.MOUNT_ATTR_RDONLY;
  if (mount.kind === 'cgroup') {
    mountCgroups(system, rootFd, mount, parsed, spec, cgroups);
    return;
  }
  const mountFd =
    bindFd === undefined
      ? system.newFilesystem(mount.kind, parsed.data, parsed.attributes.set)
      : prepareBind(system, bindFd, parsed);
  const wanted = fstatSync(mountFd).isDirectory() ? 'directory' : 'file';
  const target = openOrMake(system, rootFd, mount.target, wanted);
  attach(system, rootFd, mountFd, target, mount.kind, mount.target);
}

/** `uid=` and `gid=` of a file system: this process is not in the jail's user namespace, where they are meant. */
function outsideIds(data: ParsedOptions['data'], maps: UserMaps): ParsedOptions['data'] {
  return data.map(([name, value]) => {
    const ranges = name === 'uid' ? maps.uids : name === 'gid' ? maps.gids : undefined;
    if (!ranges) return value === undefined ? [name] : [name, value];
    const id = outsideId(ranges, Number(value));
    if (id === undefined) throw new Error(`${name} ${value} is not one of the container's user namespace`);
    return [name, String(id)];
  });
}

/** Puts a mount on its target, which for the kernel's file systems must not have been reached by a link. */
function attach(
  system: System,
  rootFd: number,
  mountFd: number,
  target: number,
  kind: JailMount['kind'],
  path: string,
): void {
  try {
    if (STRICT_KINDS.has(kind) && !reachedDirectly(system, rootFd, path, target))
      throw new Error(`${path} is reached by a symbolic link`);
    system.attachMount(mountFd, target);
  } finally {
    closeSync(target);
    closeSync(mountFd);
  }
}

function reachedDirectly(system: System, rootFd: number, path: string, target: number): boolean {
  try {
    const direct = openInside(system, rootFd, path, false);
    const same = sameFile(direct, target);
    closeSync(direct);
    return same;
  } catch (error) {
    if (isErrno(error, 'ELOOP')) return false;
    throw error;
  }
}

function sameFile(first: number, second: number): boolean {
  const a = fstatSync(first);
  const b = fstatSync(second);
  return a.ino === b.ino && a.dev === b.dev;
}

function prepareBind(system: System, mountFd: number, parsed: ParsedOptions): number {
  const unknown = parsed.data.map(([name]) => name).join(', ');
  if (unknown) throw new Error(`a bind mount knows no option ${unknown}`);
  const { set, clear, propagation } = parsed.attributes;
  const none = { set: 0, clear: 0 };
  // Without a wish a mount is private. What was asked for comes after, since rslave needs the host's peers.
  const spread = propagation === 0 ? system.MS_PRIVATE : propagation;
  const recursive = propagation === 0 || parsed.recursivePropagation;
  system.setMountAttributes(mountFd, { ...none, propagation: spread }, recursive);
  if (set !== 0 || clear !== 0)
    system.setMountAttributes(mountFd, { set, clear, propagation: 0 }, parsed.recursiveBind);
  return mountFd;
}

/** Version 2: one mount. Version 1: a tmpfs with one mount for each hierarchy. */
function mountCgroups(
  system: System,
  rootFd: number,
  mount: JailMount,
  parsed: ParsedOptions,
  spec: JailSpec,
  cgroups: CgroupMount[],
): void {
  const make = (cgroup: CgroupMount): number => {
    if (spec.namespaces.cgroup !== 'private') {
      const fd = system.cloneTree(system.AT_FDCWD, `${cgroup.path}${cgroup.group}`, false);
      return prepareBind(system, fd, { ...parsed, data: [] });
    }
    const type = cgroup.options ? 'cgroup' : 'cgroup2';
    const data = (cgroup.options ?? []).map((option): [string, string?] => {
      const [name, value] = option.split('=');
      return [name!, value];
    });
    return system.newFilesystem(type, data, parsed.attributes.set);
  };
  const unified = cgroups.find((cgroup) => cgroup.options === undefined);
  if (unified) {
    const target = openOrMake(system, rootFd, mount.target, 'directory');
    attach(system, rootFd, make(unified), target, mount.kind, mount.target);
    return;
  }
  const base = system.newFilesystem('tmpfs', [['mode', '755']], parsed.attributes.set & ~1);
  const baseFd = openOrMake(system, rootFd, mount.target, 'directory');
  attach(system, rootFd, base, baseFd, mount.kind, mount.target);
  for (const cgroup of cgroups) {
    const path = `${mount.target}/${basename(cgroup.path)}`;
    const target = openOrMake(system, rootFd, path, 'directory');
    attach(system, rootFd, make(cgroup), target, mount.kind, path);
  }
  if (mount.readOnly) {
    const top = openInside(system, rootFd, mount.target);
    setReadOnly(system, top, false);
    closeSync(top);
  }
}

function setReadOnly(system: System, mountFd: number, recursive: boolean): void {
  system.setMountAttributes(mountFd, { set: system.MOUNT_ATTR_RDONLY, clear: 0, propagation: 0 }, recursive);
}

/** Opens a path that may well be missing. */
function openIfThere(system: System, rootFd: number, path: string): number | undefined {
  try {
    return openInside(system, rootFd, path, false);
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return undefined;
    throw error;
  }
}

/** Hides a path: an empty folder over a folder, the jail's /dev/null over anything else. */
function maskPath(system: System, rootFd: number, path: string): void {
  const target = openIfThere(system, rootFd, path);
  if (target === undefined) return;
  let cover: number;
  if (fstatSync(target).isDirectory()) {
    cover = system.newFilesystem('tmpfs', EMPTY_TMPFS, system.MOUNT_ATTR_RDONLY);
  } else {
    const device = openInside(system, rootFd, '/dev/null', false);
    if (fstatSync(device).rdev !== statSync('/dev/null').rdev)
      throw new Error('/dev/null is not a null device');
    cover = system.cloneTree(device, '', false);
    closeSync(device);
    // Read-only, so that chmod on the mask cannot reach the device.
    setReadOnly(system, cover, false);
  }
  system.attachMount(cover, target);
  closeSync(cover);
  closeSync(target);
}

/** Makes a path read-only by mounting it on itself. */
function freezePath(system: System, rootFd: number, path: string): void {
  const target = openIfThere(system, rootFd, path);
  if (target === undefined) return;
  const clone = system.cloneTree(target, '', true);
  setReadOnly(system, clone, true);
  system.attachMount(clone, target);
  closeSync(clone);
  closeSync(target);
}

/** Opens a terminal of the jail that the launcher is in. */
export function openOwnTerminal(system: System): PseudoTerminal {
  return step('open a terminal', () => {
    const root = openSync('/', system.O_PATH);
    try {
      return openTerminalInside(system, root);
    } finally {
      closeSync(root);
    }
  });
}

/**
 * Opens a terminal of the devpts that is mounted in a jail. Everything about it is checked, since a further process
 * is launched into a jail whose root may have put anything there.
 */
function openTerminalInside(system: System, rootFd: number): PseudoTerminal {
  const found = openInside(system, rootFd, '/dev/pts/ptmx', false);
  try {
    const { rdev } = fstatSync(found);
    if (system.filesystemMagic(found) !== system.DEVPTS_SUPER_MAGIC || rdev !== PTMX_DEVICE)
      throw new Error('/dev/pts/ptmx in the container is not a terminal multiplexer');
    // O_PATH descriptors cannot be opened further without /proc, which is the container's: open again and compare.
    const flags = constants.O_RDWR | constants.O_NOCTTY;
    const ptmx = system.openResolved(
      rootFd,
      '/dev/pts/ptmx',
      flags,
      system.RESOLVE_IN_ROOT | system.RESOLVE_NO_SYMLINKS,
    );
    if (!sameFile(ptmx, found)) throw new Error('/dev/pts/ptmx in the container was replaced');
    return system.openTerminal(ptmx);
  } finally {
    closeSync(found);
  }
}

/** Major 5, minor 2 (Documentation/admin-guide/devices.txt). */
const PTMX_DEVICE = 0x502;
