/**
 * New names: CREATE, TMPFILE, MKNOD, MKDIR, SYMLINK, LINK.
 *
 * The host makes everything as the server's user; what the caller makes is given to the caller afterwards, with the
 * group of a set-gid directory kept. Until then it belongs to the server, so nobody gets in between.
 */
import { HOST_OPEN_FLAGS, KEEP_ID, O_EXCL } from '../backing/host-fs.ts';
import type { Memory } from '../memory.ts';
import * as E from '../wire/errno.ts';
import type { Request } from '../wire/request.ts';
import * as S from '../wire/stat.ts';
import { dropPrivilege } from './attr.ts';
import { OPEN_KILL_SUIDGID, putOpen } from './file.ts';
import { BODY, type Server } from './server.ts';

const MODE_BITS = 0o7777;

/**
 * Gives what was just made at (dir, name) to the caller, and fills the host's stat with the result. On failure the
 * error is returned and the thing is the caller of this function's to remove.
 */
function handOver(server: Server, request: Request, parentDir: number, dir: number, name: string): number {
  const { host } = server;
  const given = server.ownership === undefined;
  const uid = server.uids.toHost(request.uid);
  const ownGid = server.gids.toHost(request.gid);
  // As on an idmapped mount: nobody can own what the host has no id for.
  if (given && (uid < 0 || ownGid < 0)) return -E.EOVERFLOW;
  if (given && (uid !== server.uid || ownGid !== server.gid)) {
    let result = host.statAt(parentDir, '');
    if (result < 0) return result;
    const gid = (host.stat[S.MODE]! & S.S_ISGID) !== 0 ? KEEP_ID : ownGid;
    result = host.statAt(dir, name);
    if (result < 0) return result;
    const mode = host.stat[S.MODE]!;
    result = host.chown(dir, name, uid, gid);
    if (result < 0) return result;
    // chown(2) takes set-uid and set-gid from files.
    const special = S.S_ISUID | S.S_ISGID;
    if ((mode & special) !== 0 && (mode & S.S_IFMT) === S.S_IFREG) {
      result = host.chmod(dir, name, mode & MODE_BITS);
      if (result < 0) return result;
    }
  }
  return host.statAt(dir, name);
}

/** struct fuse_create_in: flags, mode, umask, open_flags. The reply is an entry and an open. */
export function create(server: Server, request: Request, reply: Memory): number {
  const name = request.name(16);
  if (name === undefined) return -E.EINVAL;
  if (server.policy.readOnly) return -E.EROFS;
  const parent = server.parentOf(request);
  if (parent === undefined) return server.dir;
  const { host, dir } = server;
  const flags = server.layout.openFlags(request.u32(0));
  let made = false;
  let fd = host.create(dir, name, flags & HOST_OPEN_FLAGS, request.u32(4) & MODE_BITS);
  if (fd >= 0) {
    made = true;
    const result = handOver(server, request, dir, fd, '');
    if (result < 0) {
      host.unlink(dir, name);
      host.close(fd);
      return result;
    }
  } else if (fd === -E.EEXIST && (flags & O_EXCL) === 0) {
    // Somebody on the host was faster than the kernel's lookup.
    fd = host.open(dir, name, flags & HOST_OPEN_FLAGS);
    if (fd >= 0 && (request.u32(12) & OPEN_KILL_SUIDGID) !== 0) dropPrivilege(server, fd);
  }
  if (fd < 0) return fd;
  const node = server.nodes.intern(host.stat, parent, name);
  if (made) node.uncapped = true;
  server.putEntry(node, reply, BODY);
  return server.entryBytes + putOpen(server, node, fd, flags, reply, BODY + (server.entryBytes >> 2));
}

/** As CREATE, for a file without a name; `flags` has O_TMPFILE, and the name on the wire means nothing. */
export function tmpfile(server: Server, request: Request, reply: Memory): number {
  if (server.policy.readOnly) return -E.EROFS;
  const parent = server.parentOf(request);
  if (parent === undefined) return server.dir;
  const { host, dir } = server;
  const flags = server.layout.openFlags(request.u32(0)) & (HOST_OPEN_FLAGS | O_EXCL);
  const fd = host.createUnnamed(dir, flags, request.u32(4) & MODE_BITS);
  if (fd < 0) return fd;
  const result = handOver(server, request, dir, fd, '');
  if (result < 0) {
    host.close(fd);
    return result;
  }
  const node = server.nodes.internUnnamed(host.stat);
  server.putEntry(node, reply, BODY);
  return server.entryBytes + putOpen(server, node, fd, flags, reply, BODY + (server.entryBytes >> 2));
}

/** What MKNOD, MKDIR and SYMLINK share: make `name`, hand it over, reply with its entry. */
function make(
  server: Server,
  request: Request,
  reply: Memory,
  name: string | undefined,
  call: (dir: number, name: string) => number,
  undo: (dir: number, name: string) => void,
): number {
  if (name === undefined) return -E.EINVAL;
  if (server.policy.readOnly) return -E.EROFS;
  const parent = server.parentOf(request);
  if (parent === undefined) return server.dir;
  const { dir } = server;
  let result = call(dir, name);
  if (result < 0) return result;
  result = handOver(server, request, dir, dir, name);
  if (result < 0) {
    undo(dir, name);
    return result;
  }
  return server.entry(parent, name, reply);
}

/** struct fuse_mknod_in: mode, rdev, umask, padding. */
export function mknod(server: Server, request: Request, reply: Memory): number {
  const { host } = server;
  const mode = request.u32(0);
  const type = mode & S.S_IFMT;
  if ((type === S.S_IFCHR || type === S.S_IFBLK) && !server.policy.devices) return -E.EPERM;
  return make(
    server,
    request,
    reply,
    request.name(16),
    (dir, name) => host.mknod(dir, name, mode, request.u32(4)),
    (dir, name) => host.unlink(dir, name),
  );
}

/** struct fuse_mkdir_in: mode, umask. */
export function mkdir(server: Server, request: Request, reply: Memory): number {
  const { host } = server;
  const mode = request.u32(0) & MODE_BITS;
  return make(
    server,
    request,
    reply,
    request.name(8),
    (dir, name) => host.mkdir(dir, name, mode),
    (dir, name) => host.rmdir(dir, name),
  );
}

/** The name, then the target. */
export function symlink(server: Server, request: Request, reply: Memory): number {
  const { host } = server;
  const name = request.name(0);
  const target = name === undefined ? undefined : request.text(request.after(0, name));
  if (target === undefined) return -E.EINVAL;
  return make(
    server,
    request,
    reply,
    name,
    (dir, link) => host.symlink(target, dir, link),
    (dir, link) => host.unlink(dir, link),
  );
}

/** struct fuse_link_in: the node to give another name. */
export function link(server: Server, request: Request, reply: Memory): number {
  const name = request.name(8);
  const node = server.nodes.get(request.u64(0));
  if (name === undefined) return -E.EINVAL;
  if (node === undefined) return -E.ESTALE;
  if (server.policy.readOnly) return -E.EROFS;
  const { host } = server;
  // Settles on a name that the source has; its directory may be closed again to make room for the target's.
  const seen = server.statNode(node);
  if (seen < 0) return seen;
  const parent = server.parentOf(request);
  if (parent === undefined) return server.dir;
  const toDir = server.dir;
  const found = server.locate(node, parent);
  if (found < 0) return found;
  let result = host.link(server.dir, server.name, toDir, name);
  if (result < 0) return result;
  result = host.statAt(toDir, name);
  return result < 0 ? result : server.entry(parent, name, reply);
}
