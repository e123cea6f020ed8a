/** How Go, in which docker is written, reads values. Pure. */

/** strconv.ParseBool; undefined for what is neither. */
export function goBool(text: string): boolean | undefined {
  if (['1', 't', 'T', 'true', 'TRUE', 'True'].includes(text)) return true;
  if (['0', 'f', 'F', 'false', 'FALSE', 'False'].includes(text)) return false;
  return undefined;
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
