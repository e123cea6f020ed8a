/**
 * The C library, through koffi. Only the files of this folder import koffi; they give the other parts functions with
 * JavaScript types that throw {@link SyscallError}, plus, for hot loops, raw functions that return -1.
 *
 * Rules that were learnt the hard way:
 * - `errno()` must be read straight after the call, before anything else runs.
 * - Pointer parameters of hot calls are declared `int64` and given addresses as Numbers (user addresses are below
 *   2^47): no allocation, no `subarray`.
 * - Variadic functions (ioctl, fcntl, open) are declared with `...`: Apple's arm64 ABI passes those arguments on the
 *   stack, and a plain declaration would work everywhere but there.
 */
import { constants } from 'node:os';
import koffi from 'koffi';
import { SyscallError } from '../errors.ts';

const library = koffi.load(null);

/** A C function as koffi gives it: unchecked arguments, for the files of this folder only. */
// biome-ignore lint/suspicious/noExplicitAny: the declaration beside each use gives it a type.
export type NativeFunction = (...args: any[]) => any;

/**
 * Looks a function of the C library up. Types are koffi's; see its documentation. One that this system lacks can't be
 * called, but modules that mention it can be loaded everywhere.
 */
export function cFunction(name: string, result: string, parameters: string[]): NativeFunction {
  try {
    return library.func(name, result, parameters);
  } catch (cause) {
    return () => {
      throw new Error(`This system's C library has no ${name}.`, { cause });
    };
  }
}

/** The calling thread's errno, as the last native call left it. */
export function errno(): number {
  return koffi.errno();
}

/** EWOULDBLOCK is EAGAIN's second name on every platform of ours; where others share a number the later one is usual. */
const NAMES = new Map<number, string>(
  Object.entries(constants.errno)
    .filter(([name]) => name !== 'EWOULDBLOCK')
    .map(([name, number]) => [number, name]),
);

/** The symbolic name of an errno of this platform, such as `ENOENT`. */
export function errnoName(number: number): string {
  return NAMES.get(number) ?? `errno ${number}`;
}

const rawStrerror = library.func('strerror', 'str', ['int']);

/** What an errno's name means, worded as Go's programs do: the C library's text with a small first letter. */
export function strerror(name: string): string {
  const number = (constants.errno as Record<string, number>)[name];
  if (number === undefined) return name;
  const text: string = rawStrerror(number);
  return text.charAt(0).toLowerCase() + text.slice(1);
}

/** Returns `result` unless it is negative; then throws what errno says, naming the call and its subject. */
export function check(result: number, syscall: string, detail?: string): number {
  if (result >= 0) return result;
  const number = koffi.errno();
  throw new SyscallError(syscall, errnoName(number), number, detail);
}

/**
 * The address of the bytes of `view`, which must stay referenced for as long as the address is used. A constant of a
 * module that no function mentions isn't: the engine collects it.
 */
export function addressOf(view: Uint8Array): number {
  return Number(koffi.address(view));
}
