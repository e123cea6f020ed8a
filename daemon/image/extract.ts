/**
 * Unpacks one layer into a directory, as a sink of {@link TarReader}: synchronous, in a worker thread, one system call
 * after the other.
 *
 * What keeps a hostile archive inside: names are cleaned lexically ({@link entryComponents}); the parent directory of
 * each entry is opened by openat2 with RESOLVE_IN_ROOT, so that symlinks of the archive itself lead nowhere else; and
 * the entry is made by its last component beside that directory, never following a symlink there. Nobody else writes
 * in the directory meanwhile.
 *
 * Whiteouts (OCI image specification, "Layer Filesystem Changeset") become what overlayfs reads: `.wh.NAME` a
 * character device 0/0 called NAME, `.wh..wh..opq` the attribute trusted.overlay.opaque of its directory. For drivers
 * that copy, they stay the files they are.
 */
import { closeSync, constants, ftruncateSync, openSync, rmSync, writeSync } from 'node:fs';
import { DrydockError, errorCode } from '#common/errors';
import type { UserMaps } from '#common/id-map';
import * as native from '#common/native/layer-fs';
import { errnoName } from '#common/native/libc';
import { inUserNamespace } from '#common/user-namespace';
import { entryComponents, printable } from './entry-path.ts';
import { headerOnDisk, ownerOnDisk } from './owners.ts';
import type { TarHeader } from './tar/header.ts';
import { badArchive, type TarSink } from './tar/reader.ts';

type ByteString = native.ByteString;

/**
 * How deletions are kept: for overlayfs, or as files for drivers that merge by copying. `none` is for archives that
 * are no layers: all names are names.
 */
export type WhiteoutForm = 'overlay' | 'files' | 'none';

export const WHITEOUT_PREFIX = '.wh.';
export const OPAQUE_NAME = '.wh..wh..opq';
export const OPAQUE_XATTR: string = inUserNamespace ? 'user.overlay.opaque' : 'trusted.overlay.opaque';

/** Bytes that one layer may hold when unpacked: far above real layers, far below what fills a disk by surprise. */
export const LAYER_BYTES_MAX: number = 64 * 2 ** 30;
/** Open directories kept for the next entries. Archives list a directory's entries together, mostly. */
const DIRECTORIES_MAX = 64;

const S_IFREG = 0o100000;
const TYPE_BITS = { char: 0o020000, block: 0o060000, fifo: 0o010000 } as const;
const { O_DIRECTORY, O_NOFOLLOW, O_RDONLY } = constants;
const errnos = { EEXIST: -17, EISDIR: -21, ENOENT: -2, ENOTSUP: -95 };

/** What an unpacked layer amounts to. */
export interface Extracted {
  entries: number;
  /** Bytes of all files, as `docker images` counts them. */
  bytes: number;
}

/** What is out of the ordinary. */
export interface ExtractOptions {
  bytesMax?: number;
  /** Owner of folders that no entry describes; root when undefined. */
  impliedOwner?: { uid: number; gid: number };
  /** How the users of containers are those of the machine, when they are others. */
  maps?: UserMaps | undefined;
  /** Refuse to replace a folder by something else. */
  keepFolders?: boolean;
}

interface DirectoryTimes {
  components: ByteString[];
  seconds: number;
  nanoseconds: number;
}

/** Takes the entries of one layer. After an error the directory must be thrown away. */
export class LayerExtractor implements TarSink {
  readonly #rootFd: number;
  readonly #whiteouts: WhiteoutForm;
  readonly #bytesMax: number;
  readonly #directories = new Map<ByteString, number>();
  readonly #times: DirectoryTimes[] = [];
  /** Paths of whiteouts made for this layer: a directory made over one hides what is below it. */
  readonly #whitedOut = new Set<ByteString>();
  #entries = 0;
  #bytes = 0;
  #fileFd = -1;
  #fileEnd = 0;
  #header: TarHeader | undefined;
  #parentFd = -1;
  #name: ByteString = '';

  readonly #options: ExtractOptions;

  /** @param root an empty directory, which becomes the layer; or with `none` a tree to put files into. */
  constructor(root: string, whiteouts: WhiteoutForm, options: ExtractOptions = {}) {
    this.#options = options;
    this.#rootFd = openSync(root, O_RDONLY | O_DIRECTORY);
    this.#whiteouts = whiteouts;
    this.#bytesMax = options.bytesMax ?? LAYER_BYTES_MAX;
  }

  entry(archived: TarHeader): void {
    const header = headerOnDisk(archived, this.#options.maps);
    this.#entries++;
    // As dockerd's without root: a user namespace has no devices of its own.
    if (inUserNamespace && (header.type === 'char' || header.type === 'block')) return;
    this.#bytes += header.size;
    if (header.size < 0 || this.#bytes > this.#bytesMax)
      throw badArchive(`it unpacks to more than ${this.#bytesMax} bytes`);
    const components = entryComponents(header.name);
    if (components.length === 0) {
      if (header.type !== 'directory') throw badArchive('its root is not a directory');
      this.#finishNode(this.#rootFd, '.', header);
      this.#times.push({ components, seconds: header.mtimeSeconds, nanoseconds: header.mtimeNanoseconds });
      return;
    }
    const name = components.pop()!;
    const isLayer = this.#whiteouts !== 'none';
    if (isLayer && components.some((component) => component.startsWith(WHITEOUT_PREFIX)))
      throw badArchive(`${printable(header.name)} is below a whiteout`);
    const parentFd = this.#directory(components);
    if (isLayer && name.startsWith(WHITEOUT_PREFIX)) this.#whiteout(components, parentFd, name, header);
    else this.#make(components, parentFd, name, header);
  }

  /** Makes sure that a folder is there, with all that lead to it. */
  folder(path: ByteString): void {
    this.#directory(entryComponents(path));
  }

  data(bytes: Buffer, position: number): void {
    if (this.#fileFd < 0) return;
    let offset = 0;
    while (offset < bytes.length)
      offset += writeSync(this.#fileFd, bytes, offset, bytes.length - offset, position + offset);
    this.#fileEnd = position + bytes.length;
  }

  end(): void {
    if (this.#fileFd < 0) return;
    const header = this.#header!;
    if (this.#fileEnd < header.size) ftruncateSync(this.#fileFd, header.size);
    closeSync(this.#fileFd);
    this.#fileFd = -1;
    this.#finishNode(this.#parentFd, this.#name, header);
  }

  /** Sets the directories' times, which making entries in them has changed. */
  finish(): Extracted {
    for (const { components, seconds, nanoseconds } of this.#times.reverse()) {
      const fd = native.openInRoot(this.#rootFd, components.join('/') || '.', native.O_PATH | O_DIRECTORY);
      if (fd < 0) continue; // replaced by something else later in the archive
      // An O_PATH descriptor has no times to set; `.` beside it has.
      native.setTimes(fd, '.', seconds, nanoseconds);
      closeSync(fd);
    }
    return { entries: this.#entries, bytes: this.#bytes };
  }

  close(): void {
    if (this.#fileFd >= 0) closeSync(this.#fileFd);
    this.#fileFd = -1;
    this.#forgetDirectories();
    closeSync(this.#rootFd);
  }

  /** A descriptor of the directory, made with its parents where it is missing. Stays open until others push it out. */
  #directory(components: ByteString[]): number {
    if (components.length === 0) return this.#rootFd;
    const path = components.join('/');
    const known = this.#directories.get(path);
    if (known !== undefined) return known;
    let fd = native.openInRoot(this.#rootFd, path, native.O_PATH | O_DIRECTORY);
    if (fd === errnos.ENOENT) {
      const parentFd = this.#directory(components.slice(0, -1));
      const made = native.makeDirectory(parentFd, components.at(-1)!, 0o755);
      if (made < 0 && made !== errnos.EEXIST) throw failed('make the directory', path, made);
      const implied = this.#options.impliedOwner ?? { uid: 0, gid: 0 };
      const { uid, gid } = ownerOnDisk(implied, this.#options.maps);
      if (made >= 0 && (uid !== 0 || gid !== 0)) native.setOwner(parentFd, components.at(-1)!, uid, gid);
      fd = native.openInRoot(this.#rootFd, path, native.O_PATH | O_DIRECTORY);
    }
    if (fd < 0) throw failed('enter the directory', path, fd);
    if (this.#directories.size >= DIRECTORIES_MAX) this.#forgetDirectories();
    this.#directories.set(path, fd);
    return fd;
  }

  #forgetDirectories(): void {
    for (const fd of this.#directories.values()) closeSync(fd);
    this.#directories.clear();
  }

  #whiteout(components: ByteString[], parentFd: number, name: ByteString, header: TarHeader): void {
    const hidden = name.slice(WHITEOUT_PREFIX.length);
    if (hidden === '' || hidden === '.' || hidden === '..')
      throw badArchive(`${printable(header.name)} deletes no name`);
    if (this.#whiteouts === 'files') {
      if (name !== OPAQUE_NAME && hidden.startsWith(WHITEOUT_PREFIX)) return;
      const fd = native.createFile(parentFd, name);
      if (fd >= 0) closeSync(fd);
      else if (fd !== errnos.EEXIST) throw failed('make the whiteout', header.name, fd);
      return;
    }
    if (name === OPAQUE_NAME) {
      this.#setXattr(parentFd, '.', OPAQUE_XATTR, Buffer.from('y'), true);
      return;
    }
    // Other names of this form are aufs's own bookkeeping.
    if (hidden.startsWith(WHITEOUT_PREFIX)) return;
    const made = native.makeNode(parentFd, hidden, TYPE_BITS.char, 0, 0);
    // What the same layer has already put there hides the lower layers' file as well.
    if (made < 0 && made !== errnos.EEXIST) throw failed('make the whiteout', header.name, made);
    if (made >= 0) this.#whitedOut.add([...components, hidden].join('/'));
  }

  #make(components: ByteString[], parentFd: number, name: ByteString, header: TarHeader): void {
    let made = this.#create(parentFd, name, header);
    if (made === errnos.EEXIST) {
      if (header.type === 'directory' && this.#isDirectory(parentFd, name)) made = 0;
      else {
        parentFd = this.#clear(components, parentFd, name);
        made = this.#create(parentFd, name, header);
      }
    }
    if (made < 0) throw failed(`make the ${header.type}`, header.name, made);
    if (header.type === 'file') {
      this.#fileFd = made;
      this.#fileEnd = 0;
      this.#header = header;
      this.#parentFd = parentFd;
      this.#name = name;
      return;
    }
    if (header.type === 'directory') {
      const path = [...components, name];
      if (this.#whitedOut.has(path.join('/'))) this.#opaque(parentFd, name);
      this.#times.push({
        components: path,
        seconds: header.mtimeSeconds,
        nanoseconds: header.mtimeNanoseconds,
      });
    }
    // A hard link has no metadata of its own.
    if (header.type !== 'link') this.#finishNode(parentFd, name, header);
  }

  /** Makes the bare node. Returns a descriptor for files, 0 for others, or -errno. */
  #create(parentFd: number, name: ByteString, header: TarHeader): number {
    switch (header.type) {
      case 'file':
        return native.createFile(parentFd, name);
      case 'directory':
        return native.makeDirectory(parentFd, name, 0o700);
      case 'symlink':
        return native.makeSymlink(header.linkName, parentFd, name);
      case 'link':
        return this.#createLink(parentFd, name, header);
      default:
        return native.makeNode(parentFd, name, TYPE_BITS[header.type] | 0o600, header.major, header.minor);
    }
  }

  #createLink(parentFd: number, name: ByteString, header: TarHeader): number {
    const target = entryComponents(header.linkName);
    const targetName = target.pop();
    if (targetName === undefined || targetName.startsWith(WHITEOUT_PREFIX))
      throw badArchive(`the hard link ${printable(header.name)} names no file`);
    // The cache of directories may be emptied by this: the entry's own parent is held by a descriptor of its own.
    const targetFd = native.openInRoot(this.#rootFd, target.join('/') || '.', native.O_PATH | O_DIRECTORY);
    if (targetFd < 0) throw failed('find the target of the hard link', header.name, targetFd);
    try {
      return native.makeLink(targetFd, targetName, parentFd, name);
    } finally {
      closeSync(targetFd);
    }
  }

  #isDirectory(parentFd: number, name: ByteString): boolean {
    const fd = native.openInRoot(parentFd, name, native.O_PATH | O_DIRECTORY | O_NOFOLLOW);
    if (fd >= 0) closeSync(fd);
    return fd >= 0;
  }

  /** Removes what an earlier entry of the same layer has put at this name; the later one counts. */
  #clear(components: ByteString[], parentFd: number, name: ByteString): number {
    const removed = native.removeName(parentFd, name);
    if (removed === errnos.EISDIR && this.#options.keepFolders)
      throw badArchive(
        `${printable([...components, name].join('/'))} is a folder, which a file can not replace`,
      );
    if (removed === errnos.EISDIR) {
      rmSync(Buffer.from(`/proc/self/fd/${parentFd}/${name}`, 'latin1'), { recursive: true });
      // Cached descriptors may be of directories that are gone now.
      this.#forgetDirectories();
      return this.#directory(components);
    }
    if (removed < 0) throw failed('replace', [...components, name].join('/'), removed);
    return parentFd;
  }

  #opaque(parentFd: number, name: ByteString): void {
    this.#setXattr(parentFd, name, OPAQUE_XATTR, Buffer.from('y'), true);
  }

  /** Owner, then mode (chown clears setuid), attributes (a capability is cleared by chown too), then time. */
  #finishNode(parentFd: number, name: ByteString, header: TarHeader): void {
    let done = native.setOwner(parentFd, name, header.uid, header.gid);
    if (done < 0) throw failed('set the owner of', header.name, done);
    if (header.type !== 'symlink') {
      done = native.setMode(parentFd, name, header.mode | (header.type === 'file' ? S_IFREG : 0));
      if (done < 0) throw failed('set the mode of', header.name, done);
    }
    for (const [key, value] of header.xattrs) {
      // overlayfs takes orders from these (redirects to any lower path); an image has no business giving them.
      if (/^(trusted|user)\.overlay\./.test(key)) continue;
      this.#setXattr(parentFd, name, key, value, false);
    }
    if (header.type === 'directory') return;
    done = native.setTimes(parentFd, name, header.mtimeSeconds, header.mtimeNanoseconds);
    if (done < 0) throw failed('set the time of', header.name, done);
  }

  #setXattr(parentFd: number, name: ByteString, key: ByteString, value: Uint8Array, needed: boolean): void {
    const done = native.setXattr(`/proc/self/fd/${parentFd}/${name}`, key, value);
    if (done >= 0) return;
    // As docker: a file system without such attributes, or a kind of file that can't have them, loses them.
    if (!needed && (done === errnos.ENOTSUP || done === -1)) return;
    throw failed(`set the attribute ${key} of`, name, done);
  }
}

/** A system call said no: for want of space, or because the archive asks for what can't be. */
function failed(action: string, name: ByteString, negativeErrno: number): DrydockError {
  const code = errnoName(-negativeErrno);
  if (code === 'ENOSPC' || code === 'EDQUOT') return noSpace();
  return badArchive(`cannot ${action} ${printable(name)} (${code})`);
}

function noSpace(): DrydockError {
  return new DrydockError(
    'ERR_NO_SPACE',
    'the disk of the data root is full. Free some space (docker image prune, docker system df) and try again.',
  );
}

/** Maps errors of Node's own file functions to the same coded errors. */
export function extractionError(error: unknown): Error {
  const code = errorCode(error);
  if (code === 'ENOSPC' || code === 'EDQUOT') return noSpace();
  return error instanceof Error ? error : new Error(String(error));
}
