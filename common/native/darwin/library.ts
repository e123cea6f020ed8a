/** Darwin's C library by the table of abi.ts. Tests give another of the same shape, which records what is asked. */
import { SyscallError } from '../../errors.ts';
import { cFunction, errno, errnoName, type NativeFunction } from '../libc.ts';
import { PROTOTYPES, parsePrototype } from './abi.ts';

/** See the module's head. */
export interface DarwinLibrary {
  /** A function of the table. @throws Error for one that is not in it, or not on this system. */
  function(name: string): NativeFunction;
  /** The calling thread's, straight after a call. */
  errno(): number;
}

const declarations = new Map(
  Object.values(PROTOTYPES)
    .flat()
    .map((text) => [parsePrototype(text).name, parsePrototype(text)]),
);

/** What Apple's headers call otherwise on x86-64, where the plain names are of a structure with small inode numbers. */
const INODE64: ReadonlySet<string> = new Set(['fstat', 'fstatat', 'fstatfs']);

/** The symbol of a function of the table. */
export function symbolOf(name: string, architecture: string = process.arch): string {
  return architecture === 'x64' && INODE64.has(name) ? `${name}$INODE64` : name;
}

/** The one of this system, looked up at the first use of each function. */
export function systemLibrary(): DarwinLibrary {
  const found = new Map<string, NativeFunction>();
  return {
    function(name) {
      let native = found.get(name);
      if (native === undefined) {
        const declared = declarations.get(name);
        if (!declared) throw new Error(`${name} is not in the table of Darwin's functions`);
        native = cFunction(symbolOf(name), declared.result, declared.parameters);
        found.set(name, native);
      }
      return native;
    },
    errno,
  };
}

/** Calls a function. @throws SyscallError when the result is negative */
export function callOf(library: DarwinLibrary, name: string, ...args: unknown[]): number {
  const result = Number(library.function(name)(...args));
  if (result < 0) failureOf(library, name);
  return result;
}

/** What is wrong with the last call. */
export function failureOf(library: DarwinLibrary, name: string): never {
  const number = library.errno();
  throw new SyscallError(name, errnoName(number), number);
}
