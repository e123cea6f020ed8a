/**
 * Mounting overlayfs. By mount(2), not by the newer fsopen(2): fsconfig(2) takes strings of at most 256 bytes, and
 * the list of lower directories is longer; mount(2) takes a page.
 */
import { constants } from 'node:os';
import { SyscallError } from '../errors.ts';
import { cFunction, check } from './libc.ts';

const cMount = cFunction('mount', 'int', ['str', 'str', 'str', 'ulong', 'str']);

/** Bytes that mount(2) takes as options, without the terminating NUL. */
const MOUNT_OPTIONS_BYTES_MAX = 4095;

/** Directories of an overlay, and its further options. */
export interface OverlayOptions {
  /** Topmost first. No colon, comma or backslash in any path. */
  lower: readonly string[];
  /** Without these the mount is read-only. */
  upper?: { path: string; work: string };
  /** Such as `index=off`. */
  options: readonly string[];
}

/** Mounts an overlay. @throws SyscallError; E2BIG when there are more lower directories than fit. */
export function mountOverlay(target: string, { lower, upper, options }: OverlayOptions): void {
  const data = [
    `lowerdir=${lower.join(':')}`,
    ...(upper ? [`upperdir=${upper.path}`, `workdir=${upper.work}`] : []),
    ...options,
  ].join(',');
  if (Buffer.byteLength(data) > MOUNT_OPTIONS_BYTES_MAX)
    throw new SyscallError('mount', 'E2BIG', constants.errno.E2BIG, target);
  check(cMount('overlay', target, 'overlay', 0, data), 'mount', target);
}
