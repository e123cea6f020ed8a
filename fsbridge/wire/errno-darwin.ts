/** Errors by Darwin's numbers (xnu bsd/sys/errno.h): on FUSE-T's wire, and of Darwin's own calls. */
import * as E from './errno.ts';

/** Those whose numbers differ from Linux's. */
const NUMBERS: readonly (readonly [linux: number, darwin: number])[] = [
  [E.EAGAIN, 35],
  [E.ENAMETOOLONG, 63],
  [E.ENOLCK, 77],
  [E.ENOSYS, 78],
  [E.ENOTEMPTY, 66],
  [E.ELOOP, 62],
  [E.ENODATA, 93],
  [E.EOPNOTSUPP, 45],
  [E.EOVERFLOW, 84],
  [E.EDQUOT, 69],
  [E.ESTALE, 70],
];

const darwinOf = new Map(NUMBERS);
const linuxOf = new Map(NUMBERS.map(([linux, darwin]) => [darwin, linux]));
/** Darwin's second number for EOPNOTSUPP. */
linuxOf.set(102, E.EOPNOTSUPP);

/** From here on the two systems number differently (EDEADLK and EAGAIN apart). */
const SAME_MAX = 34;
const EDEADLK = 11;

/** Darwin's number of an error of errno.ts. */
export function toDarwin(error: number): number {
  return darwinOf.get(error) ?? error;
}

/** The error of errno.ts that a number of Darwin's means; EIO for what has none. */
export function fromDarwin(number: number): number {
  return linuxOf.get(number) ?? (number <= SAME_MAX && number !== EDEADLK ? number : E.EIO);
}
