/** What is known about a file: GETATTR, STATX, SETATTR, ACCESS, STATFS. */
import { KEEP_ID, O_WRONLY, UTIME_NOW, UTIME_OMIT } from '../backing/host-fs.ts';
import type { Memory } from '../memory.ts';
import type { Node } from '../node/node.ts';
import type { Ownership } from '../policy/ownership.ts';
import * as E from '../wire/errno.ts';
import type { SetAttr } from '../wire/layout.ts';
import type { Request } from '../wire/request.ts';
import * as S from '../wire/stat.ts';
import { BODY, type Server } from './server.ts';

const GETATTR_FH = 1;

/** Bits of SETATTR's `valid` (FATTR_*). */
const SET_MODE = 1 << 0;
const SET_UID = 1 << 1;
const SET_GID = 1 << 2;
const SET_SIZE = 1 << 3;
const SET_ATIME = 1 << 4;
const SET_MTIME = 1 << 5;
const SET_FH = 1 << 6;
const SET_ATIME_NOW = 1 << 7;
const SET_MTIME_NOW = 1 << 8;
const KILL_SUIDGID = 1 << 11;

/** Bytes of struct fuse_statx_out before the statx itself, and in all. */
const STATX_HEAD_WORDS = 8;
const STATX_OUT_BYTES = 32 + S.STAT_BYTES;

const STATFS_BYTES = 80;

/** Fills the host's stat, by the open file if the request names one. */
function statRequested(server: Server, request: Request, flags: number, fh: number): number {
  const node = server.nodes.get(request.nodeId);
  if (node === undefined) return -E.ESTALE;
  const handle = (flags & GETATTR_FH) !== 0 ? server.handles.get(fh) : undefined;
  return handle === undefined ? server.statNode(node) : server.host.statAt(handle.fd, '');
}

export function getattr(server: Server, request: Request, reply: Memory): number {
  const result = statRequested(server, request, request.u32(0), request.u64(8));
  return result < 0 ? result : server.putAttr(server.nodes.get(request.nodeId)!, reply);
}

/**
 * struct fuse_statx is struct statx, so that birth times reach the container. Not where the kernel may remember
 * attributes: an entry doesn't tell a birth time, and so each file that is stat'ed by a runtime that always asks for it
 * (Node) would cost one request more. Without this operation the kernel says that there are none.
 */
export function statx(server: Server, request: Request, reply: Memory): number {
  if (server.policy.consistency !== 'consistent') return -E.ENOSYS;
  const result = statRequested(server, request, request.u32(0), request.u64(8));
  if (result < 0) return result;
  const words = reply.words;
  const node = server.nodes.get(request.nodeId)!;
  server.presentOwner(node);
  words.fill(0, BODY, BODY + STATX_HEAD_WORDS);
  words[BODY] = server.attrSec(node);
  words.set(server.host.stat, BODY + STATX_HEAD_WORDS);
  return STATX_OUT_BYTES;
}

const change: SetAttr = {
  valid: 0,
  fh: 0,
  size: 0,
  mode: 0,
  uid: 0,
  gid: 0,
  atimeWord: 0,
  atimeNsWord: 0,
  mtimeWord: 0,
  mtimeNsWord: 0,
};
const atime = new Uint32Array(3);
const mtime = new Uint32Array(3);

export function setattr(server: Server, request: Request, reply: Memory): number {
  const node = server.nodes.get(request.nodeId);
  if (node === undefined) return -E.ESTALE;
  if (server.policy.readOnly) return -E.EROFS;
  server.layout.decodeSetAttr(request, change);
  const { valid } = change;
  let result = 0;
  if ((valid & SET_SIZE) !== 0) result = resize(server, node);
  if (result >= 0 && (valid & (SET_UID | SET_GID)) !== 0) {
    const uid = (valid & SET_UID) !== 0 ? server.uids.toHost(change.uid) : KEEP_ID;
    const gid = (valid & SET_GID) !== 0 ? server.gids.toHost(change.gid) : KEEP_ID;
    if (uid < 0 || gid < 0) return -E.EINVAL;
    result =
      server.ownership === undefined
        ? server.onNode(node, (dir, name) => server.host.chown(dir, name, uid, gid))
        : recordOwner(server, server.ownership, node, uid, gid);
  }
  if (result >= 0 && (valid & SET_MODE) !== 0) {
    const mode = change.mode & 0o7777;
    result = server.onNode(node, (dir, name) => server.host.chmod(dir, name, mode));
  }
  if (result >= 0 && (valid & (SET_ATIME | SET_MTIME)) !== 0) {
    decodeTimes(request);
    result = server.onNode(node, (dir, name) => server.host.utimens(dir, name, atime, mtime));
  }
  if (result < 0) return result;
  result = server.statNode(node);
  return result < 0 ? result : server.putAttr(node, reply);
}

function recordOwner(server: Server, ownership: Ownership, node: Node, uid: number, gid: number): number {
  const result = server.statNode(node);
  return result < 0 ? result : ownership.change(node, server.dir, server.name, uid, gid);
}

function resize(server: Server, node: Node): number {
  if (change.size > Number.MAX_SAFE_INTEGER) return -E.EFBIG;
  const handle = (change.valid & SET_FH) !== 0 ? server.handles.get(change.fh) : undefined;
  const kill = (change.valid & KILL_SUIDGID) !== 0;
  if (handle !== undefined) return truncate(server, handle.fd, change.size, kill);
  const { size } = change;
  return server.onNode(node, (dir, name) => {
    const fd = server.host.open(dir, name, O_WRONLY);
    if (fd < 0) return fd;
    const result = server.nodes.matches(node, server.host.stat)
      ? truncate(server, fd, size, kill)
      : -E.ESTALE;
    server.host.close(fd);
    return result;
  });
}

function truncate(server: Server, fd: number, size: number, kill: boolean): number {
  const result = server.host.truncate(fd, size);
  if (result === 0 && kill) dropPrivilege(server, fd);
  return result;
}

/**
 * Takes set-uid and set-gid away after a write by someone without CAP_FSETID: the host kernel sees the server write,
 * which may keep them (FUSE_HANDLE_KILLPRIV_V2). Leaves the file's attributes in the host's stat.
 */
export function dropPrivilege(server: Server, fd: number): void {
  if (server.host.statAt(fd, '') < 0) return;
  const mode = server.host.stat[S.MODE]! & 0o7777;
  let keep = mode & ~S.S_ISUID;
  if ((mode & S.S_IXGRP) !== 0) keep &= ~S.S_ISGID;
  if (keep === mode) return;
  server.host.chmod(fd, '', keep);
  server.host.statAt(fd, '');
}

function decodeTimes(request: Request): void {
  const { words } = request;
  const { valid } = change;
  atime[0] = words[change.atimeWord]!;
  atime[1] = words[change.atimeWord + 1]!;
  atime[2] = words[change.atimeNsWord]!;
  if ((valid & SET_ATIME) === 0) atime[2] = UTIME_OMIT;
  else if ((valid & SET_ATIME_NOW) !== 0) atime[2] = UTIME_NOW;
  mtime[0] = words[change.mtimeWord]!;
  mtime[1] = words[change.mtimeWord + 1]!;
  mtime[2] = words[change.mtimeNsWord]!;
  if ((valid & SET_MTIME) === 0) mtime[2] = UTIME_OMIT;
  else if ((valid & SET_MTIME_NOW) !== 0) mtime[2] = UTIME_NOW;
}

/** Not asked under default_permissions, where the kernel decides from owner and mode; else what exists may be tried. */
export function access(server: Server, request: Request): number {
  const node = server.nodes.get(request.nodeId);
  if (node === undefined) return -E.ESTALE;
  if (server.policy.readOnly && (request.u32(0) & 2) !== 0) return -E.EROFS;
  return server.statNode(node);
}

/** struct fuse_kstatfs. */
export function statfs(server: Server, _request: Request, reply: Memory): number {
  reply.words.fill(0, BODY, BODY + (STATFS_BYTES >> 2));
  const result = server.host.statfs(reply.words, BODY);
  return result < 0 ? result : STATFS_BYTES;
}
