/** Mount options as mount(8) names them, sorted into what the mount API of Linux wants separately. */
import {
  MOUNT_ATTR__ATIME,
  MOUNT_ATTR_NOATIME,
  MOUNT_ATTR_NODEV,
  MOUNT_ATTR_NODIRATIME,
  MOUNT_ATTR_NOEXEC,
  MOUNT_ATTR_NOSUID,
  MOUNT_ATTR_RDONLY,
  MOUNT_ATTR_RELATIME,
  MOUNT_ATTR_STRICTATIME,
  type MountAttributes,
  MS_PRIVATE,
  MS_SHARED,
  MS_SLAVE,
  MS_UNBINDABLE,
} from '#common/native/mount';

/** Options of a mount. */
export interface ParsedOptions {
  attributes: MountAttributes;
  /** Whether the propagation is for the mounts below too. */
  recursivePropagation: boolean;
  /** Whether a bind mount takes the mounts below its source along. */
  recursiveBind: boolean;
  /** What the file system itself understands. */
  data: [string, string?][];
}

const SET: ReadonlyMap<string, number> = new Map(
  Object.entries({
    ro: MOUNT_ATTR_RDONLY,
    nosuid: MOUNT_ATTR_NOSUID,
    nodev: MOUNT_ATTR_NODEV,
    noexec: MOUNT_ATTR_NOEXEC,
    nodiratime: MOUNT_ATTR_NODIRATIME,
  }),
);

const CLEAR: ReadonlyMap<string, number> = new Map(
  Object.entries({
    rw: MOUNT_ATTR_RDONLY,
    suid: MOUNT_ATTR_NOSUID,
    dev: MOUNT_ATTR_NODEV,
    exec: MOUNT_ATTR_NOEXEC,
    diratime: MOUNT_ATTR_NODIRATIME,
  }),
);

/** Not bits of their own but values of one field. */
const ATIME: ReadonlyMap<string, number> = new Map(
  Object.entries({
    relatime: MOUNT_ATTR_RELATIME,
    noatime: MOUNT_ATTR_NOATIME,
    strictatime: MOUNT_ATTR_STRICTATIME,
  }),
);

const PROPAGATION: ReadonlyMap<string, number> = new Map(
  Object.entries({
    private: MS_PRIVATE,
    shared: MS_SHARED,
    slave: MS_SLAVE,
    unbindable: MS_UNBINDABLE,
  }),
);

/** Sorts options; of two that contradict each other the later one counts. */
export function parseMountOptions(options: string[]): ParsedOptions {
  const parsed: ParsedOptions = {
    attributes: { set: 0, clear: 0, propagation: 0 },
    recursivePropagation: false,
    recursiveBind: true,
    data: [],
  };
  const { attributes } = parsed;
  for (const option of options) {
    const recursive = option.startsWith('r') && PROPAGATION.has(option.slice(1));
    const set = SET.get(option);
    const clear = CLEAR.get(option);
    const atime = ATIME.get(option);
    const propagation = PROPAGATION.get(recursive ? option.slice(1) : option);
    if (set !== undefined) {
      attributes.set |= set;
      attributes.clear &= ~set;
    } else if (clear !== undefined) {
      attributes.clear |= clear;
      attributes.set &= ~clear;
    } else if (atime !== undefined) {
      attributes.clear |= MOUNT_ATTR__ATIME;
      attributes.set = (attributes.set & ~MOUNT_ATTR__ATIME) | atime;
    } else if (propagation !== undefined) {
      attributes.propagation = propagation;
      parsed.recursivePropagation = recursive;
    } else if (option === 'bind' || option === 'rbind') {
      parsed.recursiveBind = option === 'rbind';
    } else if (option !== '' && option !== 'defaults' && option !== 'newinstance') {
      // newinstance: every devpts is one since Linux 4.7, and later kernels do not know the word.
      const equals = option.indexOf('=');
      parsed.data.push(equals < 0 ? [option] : [option.slice(0, equals), option.slice(equals + 1)]);
    }
  }
  return parsed;
}
