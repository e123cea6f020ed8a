/** Extended attributes: GETXATTR, SETXATTR, LISTXATTR, REMOVEXATTR. */
import type { Memory } from '../memory.ts';
import { answersXattr } from '../policy/xattr.ts';
import * as E from '../wire/errno.ts';
import { IN_HEADER_BYTES, OUT_HEADER_BYTES, type Request } from '../wire/request.ts';
import { BODY, type Server } from './server.ts';

/** Linux's XATTR_SIZE_MAX and XATTR_LIST_MAX. */
const XATTR_BYTES_MAX = 64 << 10;

/** File capabilities (capabilities(7)), which every first write and every chown make the kernel look for. */
const CAPABILITY = 'security.capability';

/** Replies with a value's or list's size alone, or with the `count` bytes already in place. */
function sized(asked: number, count: number, reply: Memory): number {
  if (count < 0 || asked > 0) return count;
  reply.words[BODY] = count;
  reply.words[BODY + 1] = 0;
  return 8;
}

/** struct fuse_getxattr_in: size, padding. */
export function getxattr(server: Server, request: Request, reply: Memory): number {
  const attribute = request.text(server.layout.getxattrBytes);
  const node = server.nodes.get(request.nodeId);
  if (attribute === undefined) return -E.EINVAL;
  if (node === undefined) return -E.ESTALE;
  if (server.ownership?.hides(attribute) !== undefined) return -E.ENODATA;
  const refused = answersXattr(attribute);
  if (refused !== undefined) return refused;
  if (node.uncapped && attribute === CAPABILITY) return -E.ENODATA;
  const size = Math.min(request.u32(0), XATTR_BYTES_MAX);
  const count = server.onNode(node, (dir, name) =>
    server.host.getXattr(dir, name, attribute, reply, OUT_HEADER_BYTES, size),
  );
  return sized(size, count, reply);
}

/** struct fuse_setxattr_in: size, flags; then name and value. */
export function setxattr(server: Server, request: Request): number {
  const attribute = request.text(server.layout.setxattrBytes);
  const node = server.nodes.get(request.nodeId);
  if (attribute === undefined) return -E.EINVAL;
  if (node === undefined) return -E.ESTALE;
  if (server.policy.readOnly) return -E.EROFS;
  const refused = server.ownership?.hides(attribute) ?? answersXattr(attribute);
  if (refused !== undefined) return refused;
  const size = request.u32(0);
  const at = IN_HEADER_BYTES + request.after(server.layout.setxattrBytes, attribute);
  if (size > XATTR_BYTES_MAX) return -E.E2BIG;
  if (at + size > request.length) return -E.EINVAL;
  node.uncapped = false;
  const flags = server.layout.xattrFlags(request.u32(4));
  return server.onNode(node, (dir, name) =>
    server.host.setXattr(dir, name, attribute, request, at, size, flags),
  );
}

export function listxattr(server: Server, request: Request, reply: Memory): number {
  const node = server.nodes.get(request.nodeId);
  if (node === undefined) return -E.ESTALE;
  const size = Math.min(request.u32(0), XATTR_BYTES_MAX);
  // What is hidden makes the list shorter: it is read whole and then measured.
  const room = server.ownership === undefined ? size : XATTR_BYTES_MAX;
  let count = server.onNode(node, (dir, name) =>
    server.host.listXattr(dir, name, reply, OUT_HEADER_BYTES, room),
  );
  if (server.ownership !== undefined && count > 0) {
    count = hide(`${server.ownership.attribute}\0`, reply, count);
    if (size > 0 && count > size) return -E.ERANGE;
  }
  return sized(size, count, reply);
}

/** Takes a name out of the list of `count` bytes in the reply's body; what is left. */
function hide(name: string, reply: Memory, count: number): number {
  const { bytes } = reply;
  const list = bytes.toString('latin1', OUT_HEADER_BYTES, OUT_HEADER_BYTES + count);
  const names = list.split(/(?<=\0)/);
  return bytes.write(names.filter((each) => each !== name).join(''), OUT_HEADER_BYTES, 'latin1');
}

export function removexattr(server: Server, request: Request): number {
  const attribute = request.text(0);
  const node = server.nodes.get(request.nodeId);
  if (attribute === undefined) return -E.EINVAL;
  if (node === undefined) return -E.ESTALE;
  if (server.policy.readOnly) return -E.EROFS;
  const refused = server.ownership?.hides(attribute) ?? answersXattr(attribute);
  if (refused !== undefined) return refused;
  return server.onNode(node, (dir, name) => server.host.removeXattr(dir, name, attribute));
}
