/** How Go, in which docker is written, reads values. Pure. */

/** strconv.ParseBool; undefined for what is neither. */
export function goBool(text: string): boolean | undefined {
  if (['1', 't', 'T', 'true', 'TRUE', 'True'].includes(text)) return true;
  if (['0', 'f', 'F', 'false', 'FALSE', 'False'].includes(text)) return false;
  return undefined;
}

const UNIT_NS: Record<string, number> = { ns: 1, us: 1e3, µs: 1e3, ms: 1e6, s: 1e9, m: 60e9, h: 3600e9 };

/** time.ParseDuration in nanoseconds, as `1h30m`; undefined for what is none. */
export function goDurationNs(text: string): number | undefined {
  if (!/^(\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+$/.test(text)) return undefined;
  let total = 0;
  for (const [, number, unit] of text.matchAll(/(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)/g))
    total += Number(number) * UNIT_NS[unit!]!;
  return total;
}

/**
 * go-units' RAMInBytes, or FromHumanSize where a thousand is meant by `k`: `64m`, `1.5 GiB`, a number of bytes. Undefined
 * for what is no size.
 */
export function goSize(text: string, kilo: 1000 | 1024 = 1024): number | undefined {
  const [, number, unit = ''] = /^(\d+(?:\.\d+)?) ?([kmgtp]?)i?b?$/i.exec(text.trim()) ?? [];
  if (number === undefined) return undefined;
  return Math.floor(Number(number) * kilo ** ' kmgtp'.indexOf(unit.toLowerCase() || ' '));
}
