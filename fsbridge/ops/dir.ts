/**
 * Listing directories: OPENDIR, READDIR, READDIRPLUS, RELEASEDIR, FSYNCDIR.
 *
 * READDIRPLUS gives an entry reply with each name, and so a reference to its node; `.` and `..` have none.
 */
import { SYNC } from '../aside/jobs.ts';
import { allocate, type Memory } from '../memory.ts';
import { DirStream, RECORD_NAME } from '../node/dir-stream.ts';
import type { Handle } from '../node/handles.ts';
import type { Node } from '../node/node.ts';
import * as E from '../wire/errno.ts';
import { OUT_HEADER_BYTES, type Request } from '../wire/request.ts';
import * as S from '../wire/stat.ts';
import { BODY, type Server } from './server.ts';

/** What is read from the host at a time, as the C library's readdir does. */
const STREAM_BYTES = 32 << 10;
/** struct fuse_dirent before the name: inode, cookie, name's length, type. */
const DIRENT_BYTES = 24;
const DOT = 0x2e;

/** The kernel may keep the names that it reads; those that it has are still good. */
const FOPEN_CACHE_DIR = 8;
const FOPEN_KEEP_CACHE = 2;

/** A host's clock for times of files goes on at least this often, where it tells nanoseconds. */
const TICK_MS_MAX = 20;
const COARSE_NS = 10_000_000;

export function opendir(server: Server, request: Request, reply: Memory): number {
  const node = server.parentOf(request);
  if (node === undefined) return server.dir;
  const fd = server.host.openDir(server.dir);
  if (fd < 0) return fd;
  const buffer = server.takeBuffer() ?? allocate(STREAM_BYTES, server.addressOf);
  const handle = server.handles.open(node, fd, false, new DirStream(server.host, fd, buffer));
  server.givenHandle = handle;
  S.putUint64(reply.words, BODY, handle.id);
  reply.words[BODY + 2] = kept(server, node, fd);
  reply.words[BODY + 3] = 0;
  return 16;
}

/**
 * Flags that say which names the kernel may answer from memory. It drops them itself for what the container changes.
 * What the host changes is told to it; where that isn't soon enough, the folder's time of change must be that of the
 * names that the kernel has, and so long ago that any later change has another.
 */
function kept(server: Server, node: Node, fd: number): number {
  const { host, notifier, policy } = server;
  if (policy.consistency !== 'consistent' && notifier?.watches(node) === true)
    return FOPEN_CACHE_DIR | FOPEN_KEEP_CACHE;
  if (host.statAt(fd, '') < 0) return 0;
  const sec = S.uint64(host.stat, S.CTIME);
  const ns = host.stat[S.CTIME + 2]!;
  const listed = node.listed;
  node.listed = undefined;
  if (ns % COARSE_NS === 0 || server.clock.wallMs() - sec * 1000 - ns / 1e6 < TICK_MS_MAX) return 0;
  node.listed = { sec, ns };
  return listed?.sec === sec && listed.ns === ns ? FOPEN_CACHE_DIR | FOPEN_KEEP_CACHE : FOPEN_CACHE_DIR;
}

export function readdir(server: Server, request: Request, reply: Memory): number {
  return list(server, request, reply, 0);
}

export function readdirplus(server: Server, request: Request, reply: Memory): number {
  return list(server, request, reply, server.entryBytes);
}

/** struct fuse_read_in: fh, offset (a cookie), size. `entryBytes` go before each record. */
function list(server: Server, request: Request, reply: Memory, entryBytes: number): number {
  const handle = server.handles.get(request.u64(0));
  const stream = handle?.stream;
  if (handle === undefined || stream === undefined) return -E.EBADF;
  const moved = stream.seek(request.u32(8), request.u32(12));
  if (moved < 0) return moved;
  const start = OUT_HEADER_BYTES;
  const end = start + Math.min(request.u32(16), reply.bytes.length - start);
  let at = start;
  for (;;) {
    const more = stream.fill();
    if (more < 0 && at === start) return more;
    if (more <= 0) break;
    const nameLength = stream.nameLength();
    const size = entryBytes + ((DIRENT_BYTES + nameLength + 7) & ~7);
    if (at + size > end) break;
    if (entryBytes > 0) putPlus(server, handle, stream, nameLength, reply, at);
    putDirent(stream, nameLength, reply, at + entryBytes);
    stream.next();
    at += size;
  }
  return at - start;
}

/** Writes struct fuse_dirent at byte `at` from the stream's current record. */
function putDirent(stream: DirStream, nameLength: number, reply: Memory, at: number): void {
  const { words, bytes } = reply;
  const source = stream.buffer.words;
  const from = stream.word();
  const word = at >> 2;
  words[word] = source[from]!;
  words[word + 1] = source[from + 1]!;
  words[word + 2] = source[from + 2]!;
  words[word + 3] = source[from + 3]!;
  words[word + 4] = nameLength;
  words[word + 5] = stream.type();
  const names = stream.buffer.bytes;
  let name = stream.at + RECORD_NAME;
  let out = at + DIRENT_BYTES;
  const end = out + nameLength;
  while (out < end) bytes[out++] = names[name++]!;
  while ((out & 7) !== 0) bytes[out++] = 0;
}

/** Writes the entry of the stream's current record; of zeros if it is gone meanwhile, or `.` or `..`. */
function putPlus(
  server: Server,
  handle: Handle,
  stream: DirStream,
  nameLength: number,
  reply: Memory,
  at: number,
): void {
  const names = stream.buffer.bytes;
  const start = stream.at + RECORD_NAME;
  const dots = names[start] === DOT && (nameLength === 1 || (nameLength === 2 && names[start + 1] === DOT));
  if (!dots) {
    const name = names.toString('latin1', start, start + nameLength);
    const known = handle.node.children?.get(name);
    // What the kernel has needn't be looked at.
    if (known !== undefined && known.lookups > 0 && known.knownUntilMs > server.clock.now()) {
      reply.words.fill(0, at >> 2, (at + server.entryBytes) >> 2);
      return;
    }
    if (server.host.statAt(handle.fd, name) === 0) {
      const node = server.nodes.intern(server.host.stat, handle.node, name);
      server.putEntry(node, reply, at >> 2);
      server.givenNode = undefined;
      server.notifier?.adopt(node, handle.fd, name);
      return;
    }
  }
  reply.words.fill(0, at >> 2, (at + server.entryBytes) >> 2);
}

export function releasedir(server: Server, request: Request): number {
  const handle = server.handles.get(request.u64(0));
  if (handle?.stream === undefined) return -E.EBADF;
  server.giveBuffer(handle.stream.buffer);
  server.closeHandle(handle);
  return 0;
}

/** struct fuse_fsync_in: fh, fsync_flags, padding. */
export function fsyncdir(server: Server, request: Request): number {
  const handle = server.handles.get(request.u64(0));
  if (handle?.stream === undefined) return -E.EBADF;
  const dataOnly = (request.u32(8) & 1) !== 0;
  return server.leave(request, SYNC, handle.fd, dataOnly ? 1 : 0) ?? server.host.sync(handle.fd, dataOnly);
}
