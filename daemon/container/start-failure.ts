/** What clients are told of a start that failed. */
import { DrydockError, errorCode, errorMessage } from '#common/errors';

/** The error in dockerd's words. */
export function startError(error: unknown): unknown {
  const code = errorCode(error);
  if (code === 'ERR_PUBLISH')
    return new DrydockError(code, `failed to set up container networking: ${errorMessage(error)}`, {
      cause: error,
    });
  return error;
}

/** The exit code of a container whose start failed: 127 not found, 126 not permitted, 128 otherwise. */
export function startExitCode(error: unknown): number {
  const code = errorCode(error);
  if (code === 'ERR_EXEC_NOT_FOUND') return 127;
  return code === 'ERR_EXEC_PERMISSION' ? 126 : 128;
}
