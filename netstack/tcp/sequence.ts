/**
 * Arithmetic of sequence numbers modulo 2^32 (RFC 9293 section 3.4), on signed 32-bit integers. An order is only
 * defined between numbers less than 2^31 apart.
 */

/** How far `a` is behind (+) or before (-) `b`: a - b. */
export function seqDiff(a: number, b: number): number {
  return (a - b) | 0;
}

export function seqAdd(a: number, n: number): number {
  return (a + n) | 0;
}

export function seqLt(a: number, b: number): boolean {
  return ((a - b) | 0) < 0;
}

export function seqLe(a: number, b: number): boolean {
  return ((a - b) | 0) <= 0;
}

export function seqMax(a: number, b: number): number {
  return ((a - b) | 0) >= 0 ? a : b;
}

export function seqMin(a: number, b: number): number {
  return ((a - b) | 0) <= 0 ? a : b;
}
