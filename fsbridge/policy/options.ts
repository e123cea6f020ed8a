/**
 * How a folder is served: the choices that a mount's owner makes, apart from which folder it is.
 */
import type { IdRange } from './id-map.ts';

/** How strongly both sides see each other's changes, as in docker's `-v ...:cached`. */
export type Consistency = 'consistent' | 'cached' | 'delegated';

/**
 * Whose files are: `host` shows the host's owners and changes them; `caller` shows everybody itself and records changes
 * beside the file, as osxfs (policy/ownership.ts).
 */
export type OwnershipMode = 'host' | 'caller';

export interface Policy {
  readOnly: boolean;
  consistency: Consistency;
  /** Whether mknod may make device nodes. The mount is nodev all the same: this is for backups and tests. */
  devices: boolean;
  /** Whether the kernel may read and write files itself where the channel can. */
  passthrough: boolean;
  ownership: OwnershipMode;
  /** Users and groups that have another number in the mount (policy/id-map.ts); empty: none. */
  uidMap: readonly IdRange[];
  gidMap: readonly IdRange[];
}

export const defaultPolicy: Policy = {
  readOnly: false,
  consistency: 'consistent',
  devices: false,
  passthrough: true,
  ownership: 'host',
  uidMap: [],
  gidMap: [],
};

/** Seconds for which the kernel may answer by itself from what it was told. */
export interface Lifetimes {
  entrySec: number;
  attrSec: number;
  /** For names that don't exist. */
  negativeSec: number;
}

/** Where every change on the host is told, what the kernel remembers needs no other end. */
const WATCHED_SEC = 3600;
const UNWATCHED_SEC = 1;

/**
 * What a mode lets the kernel keep (docker's documentation of osxfs caching). Consistent: a change on the host must be
 * seen by the next call, so nothing. Cached and delegated: it may lag, but not for ever.
 *
 * @param watched whether changes on the host are told (notify/).
 */
export function lifetimes(consistency: Consistency, watched: boolean): Lifetimes {
  if (consistency === 'consistent') return { entrySec: 0, attrSec: 0, negativeSec: 0 };
  const seconds = watched ? WATCHED_SEC : UNWATCHED_SEC;
  return { entrySec: seconds, attrSec: seconds, negativeSec: seconds };
}
