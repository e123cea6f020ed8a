/**
 * Quantities as people write them, on the command line and in a file: `5%`, `20ms`, `10M`. A unit is asked for wherever its
 * absence could be read in two ways. Each reader gives undefined for what it does not take; its caller names the place.
 */

const DURATION_MS: Readonly<Record<string, number>> = { us: 0.001, ms: 1, s: 1000 };
const SIZE_BYTES: Readonly<Record<string, number>> = { '': 1, K: 1024, M: 1024 ** 2, G: 1024 ** 3 };

/** A chance from 0 to 1: `0.05`, or the same as `5%`. */
export function parseChance(text: string): number | undefined {
  const [, number, percent] = /^(\d{1,6}(?:\.\d{1,9})?)(%?)$/.exec(text) ?? [];
  if (number === undefined) return undefined;
  const chance = percent ? Number(number) / 100 : Number(number);
  return chance <= 1 ? chance : undefined;
}

/** A duration in milliseconds: `500us`, `20ms`, `1.5s`; `0` needs no unit. */
export function parseDurationMs(text: string): number | undefined {
  if (text === '0') return 0;
  const [, number, unit] = /^(\d{1,9}(?:\.\d{1,9})?)(us|ms|s)$/.exec(text) ?? [];
  return unit === undefined ? undefined : Number(number) * DURATION_MS[unit]!;
}

/** A number of bytes: `65536`, `64K`, `10M`, `1G`, by powers of 1024. */
export function parseSizeBytes(text: string): number | undefined {
  const [, number, unit] = /^(\d{1,15})([KMG]?)$/i.exec(text) ?? [];
  if (number === undefined) return undefined;
  const bytes = Number(number) * SIZE_BYTES[unit!.toUpperCase()]!;
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}

/** The number of a descriptor that came with the process, `fd:N`. */
export function parseDescriptor(text: string): number | undefined {
  const number = /^fd:(\d{1,9})$/.exec(text)?.[1];
  return number === undefined ? undefined : Number(number);
}
