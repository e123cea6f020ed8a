/** Users and groups with other numbers inside a mount than on the host, as in user_namespaces(7). */
import { DrydockError } from '#common/errors';
import { KEEP_ID } from '../backing/host-fs.ts';

/** `count` ids from `inside` on are those from `host` on. */
export interface IdRange {
  inside: number;
  host: number;
  count: number;
}

/** What ids without a number inside are shown as (/proc/sys/kernel/overflowuid). */
export const OVERFLOW_ID = 65534;

/** The whole range of ids but the last, which means none. */
const ID_LIMIT = 0xffff_ffff;

/** A map from both sides; without ranges, all ids stay what they are. */
export class IdMap {
  readonly #ranges: readonly IdRange[];

  constructor(ranges: readonly IdRange[]) {
    this.#ranges = ranges;
  }

  /** The host's id, -1 when there is none; KEEP_ID stays. */
  toHost(id: number): number {
    if (this.#ranges.length === 0 || id === KEEP_ID) return id;
    for (const { inside, host, count } of this.#ranges)
      if (id >= inside && id - inside < count) return host + (id - inside);
    return -1;
  }

  /** The id to show for one of the host's. */
  toInside(id: number): number {
    if (this.#ranges.length === 0) return id;
    for (const { inside, host, count } of this.#ranges)
      if (id >= host && id - host < count) return inside + (id - host);
    return OVERFLOW_ID;
  }
}

/**
 * Reads `INSIDE:HOST:COUNT`, as a line of /proc/PID/uid_map has it.
 * @throws ERR_FS_ID_MAP for anything else, and for ranges that overlap on either side of those already `known`
 */
export function parseIdRange(text: string, known: readonly IdRange[] = []): IdRange {
  const [, inside, host, count] = (/^(\d{1,10}):(\d{1,10}):(\d{1,10})$/.exec(text) ?? []).map(Number);
  const wrong = (why: string): DrydockError =>
    new DrydockError('ERR_FS_ID_MAP', `The map of ids "${text}" ${why}.`);
  if (inside === undefined || host === undefined || count === undefined)
    throw wrong('is not of the form INSIDE:HOST:COUNT');
  if (count === 0 || inside + count > ID_LIMIT || host + count > ID_LIMIT)
    throw wrong(`must have at least one id, and none above ${ID_LIMIT - 1}`);
  const meets = (a: number, b: number, length: number): boolean => a < b + length && b < a + count;
  for (const each of known)
    if (meets(inside, each.inside, each.count) || meets(host, each.host, each.count))
      throw wrong('overlaps another one');
  return { inside, host, count };
}
