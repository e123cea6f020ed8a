/** Device numbers as the C library has them. */

/** Splits `st_rdev` as the C library encodes it (gnu_dev_major, gnu_dev_minor). */
export function splitDevice(rdev: number): { major: number; minor: number } {
  const wide = BigInt(rdev);
  return {
    major: Number(((wide >> 8n) & 0xfffn) | ((wide >> 32n) & 0xfffff000n)),
    minor: Number((wide & 0xffn) | ((wide >> 12n) & 0xffffff00n)),
  };
}
