/** How the user and group numbers of a user namespace are those of the machine (user_namespaces(7)). */

/** Consecutive numbers. */
export interface IdRange {
  /** The first one in the namespace. */
  inside: number;
  /** The first one on the machine. */
  outside: number;
  length: number;
}

/** The maps of a user namespace. */
export interface UserMaps {
  uids: IdRange[];
  gids: IdRange[];
}

/** What files show whose owner has no number here (/proc/sys/kernel/overflowuid). */
const OVERFLOW_ID = 65534;

/** The machine's number of one in the namespace; undefined where it has none. Without ranges all are the same. */
export function outsideId(ranges: readonly IdRange[] | undefined, id: number): number | undefined {
  if (!ranges) return id;
  const range = ranges.find(({ inside, length }) => id >= inside && id < inside + length);
  return range && range.outside + id - range.inside;
}

/** The number in the namespace of one of the machine, as a program there sees it. Without ranges all are the same. */
export function insideId(ranges: readonly IdRange[] | undefined, id: number): number {
  if (!ranges) return id;
  const range = ranges.find(({ outside, length }) => id >= outside && id < outside + length);
  return range ? range.inside + id - range.outside : OVERFLOW_ID;
}

/** The text of /proc/PID/uid_map and gid_map. */
export function mapText(ranges: readonly IdRange[]): string {
  return ranges.map(({ inside, outside, length }) => `${inside} ${outside} ${length}\n`).join('');
}
