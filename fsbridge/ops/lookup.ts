/** Names to nodes and back to nothing: LOOKUP, FORGET, BATCH_FORGET. */
import type { Memory } from '../memory.ts';
import * as E from '../wire/errno.ts';
import { IN_HEADER_BYTES, type Request } from '../wire/request.ts';
import { BODY, NO_REPLY, type Server } from './server.ts';

const FORGET_ONE_BYTES = 16;

export function lookup(server: Server, request: Request, reply: Memory): number {
  const name = request.name(0);
  if (name === undefined) return -E.EINVAL;
  const parent = server.parentOf(request);
  if (parent === undefined) return server.dir;
  const result = server.host.statAt(server.dir, name);
  if (result === 0) return server.entry(parent, name, reply);
  if (result === -E.ENOENT) {
    const known = parent.children?.get(name);
    if (known !== undefined) server.nodes.unname(known, parent, name);
    if (server.lifetimes.negativeSec > 0 && server.layout.negativeEntries) return negative(server, reply);
  }
  return result;
}

/** An entry with node 0: the kernel remembers that there is nothing. */
function negative(server: Server, reply: Memory): number {
  const bytes = server.entryBytes;
  reply.words.fill(0, BODY, BODY + (bytes >> 2));
  reply.words[BODY + 4] = server.lifetimes.negativeSec;
  return bytes;
}

export function forget(server: Server, request: Request): number {
  const node = server.nodes.get(request.nodeId);
  if (node !== undefined) server.nodes.forget(node, request.u64(0));
  return NO_REPLY;
}

/** struct fuse_batch_forget_in {count, dummy}, then {nodeid, nlookup} for each. */
export function batchForget(server: Server, request: Request): number {
  const room = Math.floor((request.length - IN_HEADER_BYTES - 8) / FORGET_ONE_BYTES);
  const count = Math.min(request.u32(0), room);
  for (let i = 0; i < count; i++) {
    const at = 8 + i * FORGET_ONE_BYTES;
    const node = server.nodes.get(request.u64(at));
    if (node !== undefined) server.nodes.forget(node, request.u64(at + 8));
  }
  return NO_REPLY;
}
