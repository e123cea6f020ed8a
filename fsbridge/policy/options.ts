/**
 * How a folder is served: the choices that a mount's owner makes, apart from which folder it is.
 */

/** How strongly both sides see each other's changes, as in docker's `-v ...:cached`. */
export type Consistency = 'consistent' | 'cached' | 'delegated';

export interface Policy {
  readOnly: boolean;
  consistency: Consistency;
  /** Whether mknod may make device nodes. The mount is nodev all the same: this is for backups and tests. */
  devices: boolean;
  /** Whether the kernel may read and write files itself where the channel can. */
  passthrough: boolean;
}

export const defaultPolicy: Policy = {
  readOnly: false,
  consistency: 'consistent',
  devices: false,
  passthrough: true,
};

/** Seconds for which the kernel may answer by itself from what it was told. */
export interface Lifetimes {
  entrySec: number;
  attrSec: number;
  /** For names that don't exist. */
  negativeSec: number;
}

/** What a mode lets the kernel keep (docker's documentation of osxfs caching). */
export function lifetimes(consistency: Consistency): Lifetimes {
  // Consistent: a change on the host must be seen by the next call, so nothing may be answered from memory.
  if (consistency === 'consistent') return { entrySec: 0, attrSec: 0, negativeSec: 0 };
  return { entrySec: 1, attrSec: 1, negativeSec: 0 };
}
