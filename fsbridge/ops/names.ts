/** Names that go or move: UNLINK, RMDIR, RENAME, RENAME2, and READLINK. */
import type { Memory } from '../memory.ts';
import type { Node } from '../node/node.ts';
import * as E from '../wire/errno.ts';
import { OUT_HEADER_BYTES, type Request } from '../wire/request.ts';
import type { Server } from './server.ts';

export const RENAME_EXCHANGE = 2;
const RENAME_FLAGS = 7;

export function unlink(server: Server, request: Request): number {
  return remove(server, request, (dir, name) => server.host.unlink(dir, name));
}

export function rmdir(server: Server, request: Request): number {
  return remove(server, request, (dir, name) => server.host.rmdir(dir, name));
}

function remove(server: Server, request: Request, call: (dir: number, name: string) => number): number {
  const name = request.name(0);
  if (name === undefined) return -E.EINVAL;
  if (server.policy.readOnly) return -E.EROFS;
  const parent = server.parentOf(request);
  if (parent === undefined) return server.dir;
  const result = call(server.dir, name);
  if (result === 0 || result === -E.ENOENT) {
    const node = parent.children?.get(name);
    if (node !== undefined) server.nodes.unname(node, parent, name);
  }
  return result;
}

/** struct fuse_rename_in: newdir; then both names. */
export function rename(server: Server, request: Request): number {
  return move(server, request, 0, server.layout.renameBytes);
}

/** struct fuse_rename2_in: newdir, flags, padding; then both names. */
export function rename2(server: Server, request: Request): number {
  const flags = request.u32(8);
  return (flags & ~RENAME_FLAGS) !== 0 ? -E.EINVAL : move(server, request, flags, 16);
}

function move(server: Server, request: Request, flags: number, at: number): number {
  const from = request.name(at);
  const to = from === undefined ? undefined : request.name(request.after(at, from));
  if (from === undefined || to === undefined) return -E.EINVAL;
  if (server.policy.readOnly) return -E.EROFS;
  const fromParent = server.parentOf(request);
  if (fromParent === undefined) return server.dir;
  const fromDir = server.dir;
  const toParent = server.nodes.get(request.u64(0));
  if (toParent === undefined) return -E.ESTALE;
  const toDir = toParent === fromParent ? fromDir : server.dirs.fd(toParent, fromParent);
  if (toDir < 0) return toDir;
  const result = server.host.rename(fromDir, from, toDir, to, flags);
  if (result === 0) follow(server, fromParent, from, toParent, to, flags);
  return result;
}

/** Moves the names of nodes as the host moved the files. */
function follow(
  server: Server,
  fromParent: Node,
  from: string,
  toParent: Node,
  to: string,
  flags: number,
): void {
  const { nodes } = server;
  const moved = fromParent.children?.get(from);
  const replaced = toParent.children?.get(to);
  // Two names of one file: rename(2) does nothing, successfully.
  if (moved !== undefined && moved === replaced) return;
  if ((flags & RENAME_EXCHANGE) !== 0) {
    if (moved !== undefined) nodes.unname(moved, fromParent, from);
    if (replaced !== undefined) nodes.unname(replaced, toParent, to);
    if (moved !== undefined) nodes.name(moved, toParent, to);
    if (replaced !== undefined) nodes.name(replaced, fromParent, from);
    return;
  }
  if (replaced !== undefined) nodes.unname(replaced, toParent, to);
  if (moved === undefined) return;
  nodes.unname(moved, fromParent, from);
  nodes.name(moved, toParent, to);
  // The kernel drops the attributes of what it moves.
  moved.knownUntilMs = 0;
}

export function readlink(server: Server, request: Request, reply: Memory): number {
  const node = server.nodes.get(request.nodeId);
  if (node === undefined) return -E.ESTALE;
  return server.onNode(node, (dir, name) => server.host.readLink(dir, name, reply, OUT_HEADER_BYTES));
}
