/**
 * A folder as a tar archive: the writable layer of a container for commits and builds (overlayfs's deletions become
 * whiteouts again), or a whole tree for `docker export`. A synchronous generator, for worker threads and for streams.
 *
 * Names are byte strings. Sockets are left out, as tar(1) and docker do; hard links are kept within the archive.
 *
 * The same files give the same bytes, and must go on doing so: layers that were made on this machine are kept unpacked
 * only, under the digest of these bytes.
 */
import {
  type BigIntStats,
  closeSync,
  constants,
  lstatSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
} from 'node:fs';
import type { UserMaps } from '#common/id-map';
import { type ByteString, getXattr, listXattrs } from '#common/native/layer-fs';
import { OPAQUE_NAME, OPAQUE_XATTR, WHITEOUT_PREFIX } from './extract.ts';
import { mountPointKind } from './mount-points.ts';
import { headerInside } from './owners.ts';
import { BLOCK, emitHeader, makeHeader, padding, type TarHeader, trailer } from './tar/header.ts';

const READ_BYTES = 1 << 20;
const CHUNK_BYTES = 256 << 10;

/** What to put into the archive. */
export interface PackOptions {
  /** The folder is the upper layer of an overlay: its deletions become whiteouts. */
  overlay: boolean;
  /** Leave out the empty places that a container's mounts were put on: none of what it has written. */
  skipMountPoints?: boolean;
  /** Only these paths (relative, byte strings) and the folders that lead to them; everything when undefined. */
  only?: ReadonlySet<ByteString>;
  /** How the users of containers are those of the machine, when they are others. */
  maps?: UserMaps | undefined;
  /** What all names begin with, such as `folder/`. */
  prefix?: ByteString;
  /** Paths whose removal is to be told, when the folder itself can't (relative, byte strings). */
  deleted?: readonly ByteString[];
}

/** A folder, and what of it makes an archive. */
export interface PackSource {
  folder: string;
  options: PackOptions;
}

const bytes = (path: ByteString): Buffer => Buffer.from(path, 'latin1');

/** glibc's gnu_dev_major and gnu_dev_minor. */
function deviceNumbers(device: bigint): { major: number; minor: number } {
  return {
    major: Number(((device >> 8n) & 0xfffn) | ((device >> 32n) & ~0xfffn)),
    minor: Number((device & 0xffn) | ((device >> 12n) & ~0xffn)),
  };
}

function typeOf(stats: BigIntStats): TarHeader['type'] | undefined {
  if (stats.isFile()) return 'file';
  if (stats.isDirectory()) return 'directory';
  if (stats.isSymbolicLink()) return 'symlink';
  if (stats.isCharacterDevice()) return 'char';
  if (stats.isBlockDevice()) return 'block';
  return stats.isFIFO() ? 'fifo' : undefined;
}

/** The header of what is at `path`, named `name`; undefined for sockets. */
export function headerOf(
  path: ByteString,
  name: ByteString,
  stats: BigIntStats,
  maps: UserMaps | undefined,
): TarHeader | undefined {
  const type = typeOf(stats);
  if (!type) return undefined;
  const xattrs = new Map<ByteString, Uint8Array>();
  for (const key of listXattrs(path)) {
    // overlayfs's own notes; and POSIX ACLs and security labels of this host mean nothing elsewhere.
    if (/^(trusted\.overlay|user\.overlay|system)\.|^security\.(?!capability$)/.test(key)) continue;
    const value = getXattr(path, key);
    if (value) xattrs.set(key, value);
  }
  const header = makeHeader({
    name: type === 'directory' ? `${name}/` : name,
    type,
    mode: Number(stats.mode & 0o7777n),
    uid: Number(stats.uid),
    gid: Number(stats.gid),
    size: type === 'file' ? Number(stats.size) : 0,
    mtimeSeconds: Number(stats.mtimeNs / 1_000_000_000n),
    mtimeNanoseconds: Number(stats.mtimeNs % 1_000_000_000n),
    linkName: type === 'symlink' ? readlinkSync(bytes(path), { encoding: 'latin1' }) : '',
    ...(type === 'char' || type === 'block' ? deviceNumbers(stats.rdev) : {}),
    xattrs,
  });
  return headerInside(header, maps);
}

/** The bytes of a file, exactly as many as its header has said: a file that shrinks meanwhile is filled with zeros. */
export function* fileData(path: ByteString, size: number): Generator<Buffer> {
  const fd = openSync(bytes(path), constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    for (let left = size; left > 0; ) {
      const buffer = Buffer.allocUnsafe(Math.min(left, READ_BYTES));
      const length = readSync(fd, buffer, 0, buffer.length, null);
      const part = length === 0 ? buffer.fill(0) : buffer.subarray(0, length);
      left -= part.length;
      yield part;
    }
  } finally {
    closeSync(fd);
  }
}

/** The folder as a tar archive, in the order of names. */
export function* packTree(folder: string, options: PackOptions): Generator<Buffer> {
  const packer = new Packer(Buffer.from(folder).toString('latin1'), options);
  // Most entries are small: together they make chunks that are worth a write.
  let parts: Buffer[] = [];
  let length = 0;
  for (const part of packer.run()) {
    const isLarge = part.length >= CHUNK_BYTES;
    if (!isLarge) {
      parts.push(part);
      length += part.length;
    }
    if (length > 0 && (isLarge || length >= CHUNK_BYTES)) {
      yield Buffer.concat(parts, length);
      parts = [];
      length = 0;
    }
    if (isLarge) yield part;
  }
  yield Buffer.concat(parts, length);
}

class Packer {
  readonly #root: ByteString;
  readonly #options: PackOptions;
  readonly #firstNames = new Map<bigint, ByteString>();

  constructor(root: ByteString, options: PackOptions) {
    this.#root = root;
    this.#options = options;
  }

  *run(): Generator<Buffer> {
    yield* this.#children('');
    for (const path of this.#options.deleted ?? []) {
      const slash = path.lastIndexOf('/') + 1;
      yield whiteout(`${path.slice(0, slash)}${WHITEOUT_PREFIX}${path.slice(slash)}`);
    }
    yield trailer();
  }

  *#children(path: ByteString): Generator<Buffer> {
    const names = readdirSync(bytes(this.#root + (path && `/${path}`)), { encoding: 'latin1' }).sort();
    for (const name of names) yield* this.#node(path === '' ? name : `${path}/${name}`);
  }

  #isWanted(path: ByteString): boolean {
    return this.#options.only?.has(path) ?? true;
  }

  /** An empty place to mount on, which is none of what the container has written. */
  #isMountPoint(path: ByteString, stats: BigIntStats): boolean {
    const kind = mountPointKind(path);
    if (kind === 'file') return stats.isFile() && stats.size === 0n;
    return (
      kind === 'folder' && stats.isDirectory() && readdirSync(bytes(`${this.#root}/${path}`)).length === 0
    );
  }

  *#node(path: ByteString): Generator<Buffer> {
    const full = `${this.#root}/${path}`;
    const stats = lstatSync(bytes(full), { bigint: true });
    if (!this.#isWanted(path)) return;
    if (this.#options.overlay && stats.isCharacterDevice() && stats.rdev === 0n) {
      const slash = path.lastIndexOf('/') + 1;
      yield whiteout(`${path.slice(0, slash)}${WHITEOUT_PREFIX}${path.slice(slash)}`);
      return;
    }
    const named = (this.#options.prefix ?? '') + path;
    const header = headerOf(full, named, stats, this.#options.maps);
    if (!header || (this.#options.skipMountPoints && this.#isMountPoint(path, stats))) return;
    const first =
      header.type !== 'directory' && stats.nlink > 1n ? this.#firstNames.get(stats.ino) : undefined;
    if (first !== undefined) {
      yield emitHeader({ ...header, type: 'link', size: 0, linkName: first, xattrs: new Map() });
      return;
    }
    if (stats.nlink > 1n && header.type !== 'directory') this.#firstNames.set(stats.ino, named);
    yield emitHeader(header);
    if (header.type === 'file') {
      yield* fileData(full, header.size);
      if (header.size % BLOCK !== 0) yield padding(header.size);
    }
    if (header.type !== 'directory') return;
    if (this.#options.overlay && getXattr(full, OPAQUE_XATTR)?.toString() === 'y')
      yield whiteout(`${path}/${OPAQUE_NAME}`);
    yield* this.#children(path);
  }
}

function whiteout(name: ByteString): Buffer {
  return emitHeader(makeHeader({ name, type: 'file', mode: 0o600 }));
}
