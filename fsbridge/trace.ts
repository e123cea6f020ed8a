/** One line of JSON for each request, for people who want to know what a program asks of a mount. */
import { errnoName } from '#common/native/libc';
import { NO_REPLY } from './ops/server.ts';
import { operations } from './ops/table.ts';
import * as O from './wire/opcode.ts';
import type { Request } from './wire/request.ts';

/** Where the structs of operations that name something end, and the name begins. */
const NAME_AT = new Map([
  [O.LOOKUP, 0],
  [O.UNLINK, 0],
  [O.RMDIR, 0],
  [O.SYMLINK, 0],
  [O.REMOVEXATTR, 0],
  [O.MKDIR, 8],
  [O.LINK, 8],
  [O.RENAME, 8],
  [O.GETXATTR, 8],
  [O.MKNOD, 16],
  [O.CREATE, 16],
  [O.RENAME2, 16],
]);

/**
 * The line for a request that was handled.
 * @param path of the node that it is about, from the mount's root, as it was before
 * @param result bytes of the reply, a negative error, or NO_REPLY: there is none, or it comes later
 */
export function traceLine(
  request: Request,
  path: string,
  result: number,
  elapsedMs: number,
  wallMs: number,
): string {
  const { opcode, uid, gid, pid } = request;
  const nameAt = NAME_AT.get(opcode);
  const name = nameAt === undefined ? undefined : request.text(nameAt);
  return `${JSON.stringify({
    time: new Date(wallMs).toISOString(),
    operation: operations[opcode]?.name ?? String(opcode),
    path: text(path),
    ...(name !== undefined && { name: text(name) }),
    pid,
    uid,
    gid,
    result: result === NO_REPLY ? 'none' : result < 0 ? errnoName(-result) : 'ok',
    us: Math.round(elapsedMs * 1000),
  })}\n`;
}

/** Names are bytes, one for each character; people read UTF-8. */
function text(bytes: string): string {
  return Buffer.from(bytes, 'latin1').toString('utf8');
}
