/** How launching fails: every step has a name, and its error is told to the daemon with that name. */
import { errorCode, errorMessage, SyscallError } from '#common/errors';
import type { FailureKind } from './protocol.ts';

/** A step that failed. `code` is an errno's name, or empty. */
export class LaunchFailure extends Error {
  override readonly name = 'LaunchFailure';
  readonly kind: FailureKind;
  readonly step: string;
  readonly code: string;
  constructor(kind: FailureKind, step: string, code: string, message: string) {
    super(message);
    this.kind = kind;
    this.step = step;
    this.code = code;
  }
}

/** Runs one step; what it throws becomes a LaunchFailure with the step's name. */
export function step<T>(name: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    if (error instanceof LaunchFailure) throw error;
    throw new LaunchFailure('step', name, errorCode(error) ?? '', errorMessage(error));
  }
}

/** Whether an error is the failed system call with this errno. */
export function isErrno(error: unknown, ...codes: string[]): boolean {
  const code = error instanceof SyscallError ? error.code : errorCode(error);
  return code !== undefined && codes.includes(code);
}
