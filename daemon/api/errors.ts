/**
 * The one place where trouble becomes an HTTP status. Services throw DrydockErrors with stable codes; the table says
 * what dockerd answers for each. A code that is not in the table is 500, as in dockerd.
 */
import { DrydockError, errorCode, errorMessage } from '#common/errors';

/** Statuses by error code. */
const STATUS: Readonly<Record<string, number>> = {
  ERR_NOT_MODIFIED: 304,
  ERR_BAD_PARAMETER: 400,
  ERR_BAD_REFERENCE: 400,
  ERR_NOT_A_FOLDER: 400,
  ERR_BAD_ARCHIVE: 400,
  ERR_BAD_DOCKERFILE: 400,
  ERR_BAD_JSON: 400,
  ERR_AMBIGUOUS_ID: 400,
  ERR_EXEC_NOT_FOUND: 400,
  ERR_EXEC_PERMISSION: 400,
  ERR_BAD_SECCOMP: 400,
  ERR_BAD_SIGNAL: 400,
  ERR_USER_NOT_FOUND: 400,
  ERR_JAIL_PROMISE: 400,
  ERR_JAIL_SYSCTL: 400,
  ERR_UNAUTHORIZED: 401,
  ERR_FORBIDDEN: 403,
  ERR_IMAGE_NOT_FOUND: 404,
  ERR_CONTAINER_NOT_FOUND: 404,
  ERR_EXEC_INSTANCE_NOT_FOUND: 404,
  ERR_NETWORK_NOT_FOUND: 404,
  ERR_VOLUME_NOT_FOUND: 404,
  ERR_PLUGIN_NOT_FOUND: 404,
  ERR_PATH_NOT_FOUND: 404,
  ERR_CONFLICT: 409,
  ERR_IMAGE_CONFLICT: 409,
  ERR_NOT_RUNNING: 409,
  ERR_NOT_IMPLEMENTED: 501,
  ERR_BODY_TOO_LARGE: 413,
  ERR_BUSY: 503,
  ERR_NOT_SWARM: 503,
  ERR_SHUTTING_DOWN: 503,
  // What fastify itself finds wrong with a request.
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: 400,
  FST_ERR_CTP_INVALID_MEDIA_TYPE: 400,
  FST_ERR_BAD_URL: 400,
};

/** The answer for an error: a status and the text for `{"message"}`. */
export function answerFor(error: unknown): { status: number; message: string } {
  const code = errorCode(error);
  return { status: (code && STATUS[code]) || 500, message: errorMessage(error) };
}

/** Runs `work`; what it finds wrong is told after `prefix`. */
export async function explained<T>(prefix: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof DrydockError)) throw error;
    throw new DrydockError(error.code, `${prefix}: ${error.message}`, { cause: error });
  }
}

/** A request that makes no sense. */
export function badParameter(message: string): DrydockError {
  return new DrydockError('ERR_BAD_PARAMETER', message);
}
