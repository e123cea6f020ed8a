/**
 * The three kinds of trouble, kept apart: a bug in our own code is an {@link assert} and ends the operation loudly;
 * bad bytes from a peer are counted and dropped by the parser that saw them; trouble with the world (a port in use, a
 * full disk) is a {@link DrydockError} with a stable code, mapped once at the edge that talks to the user.
 */

/** An operating error. `code` is API: it is documented and does not change with the wording. */
export class DrydockError extends Error {
  override readonly name = 'DrydockError';
  readonly code: string;
  /** @param message what happened, why, and what to do, as one or two sentences for a person. */
  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** A failed system call: `code` is the errno's name (`ENOENT`), `errno` its positive number on this platform. */
export class SyscallError extends Error {
  override readonly name = 'SyscallError';
  readonly code: string;
  readonly errno: number;
  readonly syscall: string;
  constructor(syscall: string, code: string, errno: number, detail = '') {
    super(`${syscall}${detail && ` ${detail}`}: ${code}`);
    this.code = code;
    this.errno = errno;
    this.syscall = syscall;
  }
}

/** The `code` of any error that has one (ours, a system call's, Node's own), or undefined. */
export function errorCode(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | null | undefined)?.code;
  return typeof code === 'string' ? code : undefined;
}

/** The message of whatever was thrown. */
export function errorMessage(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** States what must hold for our own code to be right. A failure is a bug, never a peer's doing. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new Error(`assertion failed: ${message}`);
}
