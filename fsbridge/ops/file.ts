/** Open files: OPEN, READ, WRITE, FLUSH, RELEASE, FSYNC, FALLOCATE, LSEEK, COPY_FILE_RANGE, SYNCFS. */
import { READ, SYNC, SYNC_ALL } from '../aside/jobs.ts';
import { HOST_OPEN_FLAGS, O_ACCMODE } from '../backing/host-fs.ts';
import type { Memory } from '../memory.ts';
import type { Node } from '../node/node.ts';
import * as E from '../wire/errno.ts';
import { IN_HEADER_BYTES, OUT_HEADER_BYTES, type Request } from '../wire/request.ts';
import { MODE, putUint64, S_IFREG, S_ISGID, S_ISUID } from '../wire/stat.ts';
import { dropPrivilege } from './attr.ts';
import { ownerKey } from './lock.ts';
import { BODY, type Server } from './server.ts';

const OPEN_OUT_BYTES = 16;

/** What the kernel has of the file's data is still good. */
const FOPEN_KEEP_CACHE = 2;
/** The kernel reads and writes the file itself; it refuses FOPEN_KEEP_CACHE beside it. */
const FOPEN_PASSTHROUGH = 128;

/** In open_flags of OPEN and CREATE: the file was truncated by someone whose writes take set-uid away. */
export const OPEN_KILL_SUIDGID = 1;
const WRITE_KILL_SUIDGID = 4;
const WRITE_HEADER_BYTES = 40;
const FSYNC_DATA_ONLY = 1;

/** One request copies at most this much, as one write, so that others get their turn; the caller goes on with the rest. */
const COPY_BYTES_MAX = 1 << 20;

/** Makes a handle of `fd` and writes struct fuse_open_out at word `at`; its bytes. The host's stat is of the file. */
export function putOpen(
  server: Server,
  node: Node,
  fd: number,
  flags: number,
  reply: Memory,
  at: number,
): number {
  const backingId = backingOf(server, node, fd);
  const handle = server.handles.open(node, fd, (flags & O_ACCMODE) !== 0);
  server.givenHandle = handle;
  if (backingId > 0 && handle.writable) server.notifier?.writing(node, fd);
  const words = reply.words;
  putUint64(words, at, handle.id);
  const keep = server.policy.consistency === 'consistent' ? 0 : FOPEN_KEEP_CACHE;
  words[at + 2] = backingId > 0 ? FOPEN_PASSTHROUGH : keep;
  words[at + 3] = backingId;
  return OPEN_OUT_BYTES;
}

/**
 * The id by which the kernel serves the file's data, or 0. All opens of one inode must be of a kind, so the first
 * decides. Not for set-uid and set-gid files: the kernel would write with our privileges, which keep those bits.
 */
function backingOf(server: Server, node: Node, fd: number): number {
  const { backing } = server;
  if (backing === undefined || node.handle !== undefined) return node.backingId;
  if ((server.host.stat[MODE]! & (S_ISUID | S_ISGID)) !== 0) return 0;
  const id = backing.open(fd);
  if (id > 0) node.backingId = id;
  // What fails once (no privilege, a host file system that is stacked already) fails for all.
  else server.backing = undefined;
  return node.backingId;
}

/** struct fuse_open_in: flags, open_flags. */
export function open(server: Server, request: Request, reply: Memory): number {
  const node = server.nodes.get(request.nodeId);
  if (node === undefined) return -E.ESTALE;
  if (node.type !== S_IFREG) return -E.EINVAL;
  const flags = server.layout.openFlags(request.u32(0)) & HOST_OPEN_FLAGS;
  if (server.policy.readOnly && (flags & O_ACCMODE) !== 0) return -E.EROFS;
  const fd = server.onNode(node, (dir, name) => server.host.open(dir, name, flags));
  if (fd < 0) return fd;
  if (!server.nodes.matches(node, server.host.stat)) {
    // The host put another file in its place: the kernel looks the name up again.
    server.host.close(fd);
    return -E.ESTALE;
  }
  if ((request.u32(4) & OPEN_KILL_SUIDGID) !== 0) dropPrivilege(server, fd);
  return putOpen(server, node, fd, flags, reply, BODY);
}

/** struct fuse_read_in: fh, offset, size, ... */
export function read(server: Server, request: Request, reply: Memory): number {
  const handle = server.handles.get(request.u64(0));
  if (handle === undefined) return -E.EBADF;
  const size = Math.min(request.u32(16), reply.bytes.length - OUT_HEADER_BYTES);
  const position = request.u64(8);
  const { device } = handle.node;
  if (server.aside !== undefined && !server.untold.has(device)) {
    const count = readNow(server, handle.fd, reply, size, position);
    if (count === -E.EOPNOTSUPP) server.untold.add(device);
    else if (count !== -E.EAGAIN) return count;
    else {
      const left = server.leave(request, READ, handle.fd, position, size);
      if (left !== undefined) return left;
    }
  }
  return server.host.read(handle.fd, reply, OUT_HEADER_BYTES, size, position);
}

/** Reads all there is, or gives -EAGAIN if some of it has to come from a disk. */
function readNow(server: Server, fd: number, reply: Memory, size: number, position: number): number {
  const { host } = server;
  const count = host.readNow(fd, reply, OUT_HEADER_BYTES, size, position);
  if (count <= 0 || count === size) return count;
  const more = host.readNow(fd, reply, OUT_HEADER_BYTES + count, size - count, position + count);
  return more === 0 ? count : -E.EAGAIN;
}

/** struct fuse_write_in: fh, offset, size, write_flags, ...; then the data. */
export function write(server: Server, request: Request, reply: Memory): number {
  const handle = server.handles.get(request.u64(0));
  if (handle === undefined) return -E.EBADF;
  const at = IN_HEADER_BYTES + WRITE_HEADER_BYTES;
  const size = request.u32(16);
  if (at + size > request.length) return -E.EINVAL;
  const count = server.host.write(handle.fd, request, at, size, request.u64(8));
  if (count < 0) return count;
  if ((request.u32(20) & WRITE_KILL_SUIDGID) !== 0) dropPrivilege(server, handle.fd);
  reply.words[BODY] = count;
  reply.words[BODY + 1] = 0;
  return 8;
}

/** struct fuse_flush_in: fh, unused, padding, lock_owner. A process closed one of its descriptors of the file. */
export function flush(server: Server, request: Request): number {
  const handle = server.handles.get(request.u64(0));
  if (handle === undefined) return -E.EBADF;
  if (server.locks.has(handle.node)) server.locks.release(handle.node, ownerKey(request, 16));
  return 0;
}

/** struct fuse_release_in: fh, flags, release_flags, lock_owner. The last descriptor is closed. */
export function release(server: Server, request: Request): number {
  const handle = server.handles.get(request.u64(0));
  if (handle === undefined) return -E.EBADF;
  server.closeHandle(handle);
  server.locks.closed(handle);
  return 0;
}

/** struct fuse_fsync_in: fh, fsync_flags, padding. */
export function fsync(server: Server, request: Request): number {
  const handle = server.handles.get(request.u64(0));
  if (handle === undefined) return -E.EBADF;
  const dataOnly = (request.u32(8) & FSYNC_DATA_ONLY) !== 0;
  return server.leave(request, SYNC, handle.fd, dataOnly ? 1 : 0) ?? server.host.sync(handle.fd, dataOnly);
}

/** struct fuse_fallocate_in: fh, offset, length, mode. */
export function fallocate(server: Server, request: Request): number {
  const handle = server.handles.get(request.u64(0));
  if (handle === undefined) return -E.EBADF;
  const position = request.u64(8);
  const size = request.u64(16);
  if (position + size > Number.MAX_SAFE_INTEGER) return -E.EFBIG;
  return server.host.allocate(handle.fd, request.u32(24), position, size);
}

/** struct fuse_lseek_in: fh, offset, whence. Only for holes and data; the kernel knows the rest. */
export function lseek(server: Server, request: Request, reply: Memory): number {
  const handle = server.handles.get(request.u64(0));
  if (handle === undefined) return -E.EBADF;
  const position = server.host.seek(handle.fd, request.u64(8), request.u32(16));
  if (position < 0) return position;
  putUint64(reply.words, BODY, position);
  return 8;
}

/** struct fuse_copy_file_range_in: fh_in, off_in, nodeid_out, fh_out, off_out, len, flags. */
export function copyFileRange(server: Server, request: Request, reply: Memory): number {
  const from = server.handles.get(request.u64(0));
  const to = server.handles.get(request.u64(24));
  if (from === undefined || to === undefined) return -E.EBADF;
  const size = Math.min(request.u64(40), COPY_BYTES_MAX);
  const count = server.host.copyRange(from.fd, request.u64(8), to.fd, request.u64(32), size);
  if (count < 0) return count;
  reply.words[BODY] = count;
  reply.words[BODY + 1] = 0;
  return 8;
}

/** Linux asks only servers of virtual machines (virtiofs): syncfs(2) writes back what it keeps, which here is nothing or is sent as writes. */
export function syncfs(server: Server, request: Request): number {
  return server.leave(request, SYNC_ALL, server.host.root) ?? server.host.syncAll();
}
