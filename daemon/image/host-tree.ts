/**
 * A file tree picked from the host: paths are added as they are there (symlinks on the way included, so that a merged
 * /usr stays merged), files that the host has not or must not give away are added by content. It can be fingerprinted
 * without reading files, and packed as a tar whose bytes depend only on what is in it: those that packing the unpacked
 * tree again would give.
 */
import { createHash } from 'node:crypto';
import { closeSync, lstatSync, openSync, readdirSync, readlinkSync, readSync } from 'node:fs';
import { posix } from 'node:path';
import { DrydockError, errorCode } from '#common/errors';
import { getXattr } from '#common/native/layer-fs';
import { emitHeader, makeHeader, padding, type TarHeader, trailer } from './tar/header.ts';

/** All times in the archive: the same tools give the same bytes. 2020-01-01. */
const FIXED_TIME_SECONDS = 1_577_836_800;
const READ_BYTES = 1 << 20;
/** File capabilities, which `ping` may have instead of being setuid. */
const CAPABILITY_XATTR = 'security.capability';
/** As many symlinks as the kernel follows (MAXSYMLINKS). */
const SYMLINKS_MAX = 40;

type Node =
  | { kind: 'directory'; mode: number }
  | { kind: 'symlink'; target: string }
  | { kind: 'host-file'; mode: number; size: number; mtimeMs: number }
  | { kind: 'text'; mode: number; text: string };

/** What to pack: paths in the order of the archive. Plain data, for a worker thread. */
export interface HostFiles {
  nodes: readonly [path: string, node: Node][];
  /** Bytes of all files. */
  bytes: number;
  /** Bytes of files that {@link hostFiles} has read, in memory that threads share. */
  read: BigInt64Array;
}

export class HostTree {
  readonly #nodes = new Map<string, Node>();

  get size(): number {
    return this.#nodes.size;
  }

  has(path: string): boolean {
    return this.#nodes.has(path);
  }

  /**
   * Adds a host path with everything that leads to it. Folders are added without their contents.
   * @returns where it really is, or undefined when it is not there, or is neither file nor folder.
   */
  add(path: string): string | undefined {
    let rest = path.split('/').filter((part) => part !== '');
    let current = '';
    let links = 0;
    while (rest.length > 0) {
      const part = rest.shift()!;
      if (part === '..') {
        current = posix.dirname(current).replace(/^\/$/, '');
        continue;
      }
      const next = `${current}/${part}`;
      const stats = lstatSync(next, { throwIfNoEntry: false });
      if (!stats) return undefined;
      if (stats.isSymbolicLink()) {
        if (++links > SYMLINKS_MAX) return undefined;
        const target = readlinkSync(next);
        this.#nodes.set(next, { kind: 'symlink', target });
        if (target.startsWith('/')) current = '';
        rest = [...target.split('/').filter((each) => each !== '' && each !== '.'), ...rest];
      } else if (stats.isDirectory()) {
        if (!this.#nodes.has(next)) this.#nodes.set(next, { kind: 'directory', mode: stats.mode & 0o7777 });
        current = next;
      } else if (stats.isFile() && rest.length === 0) {
        const { mode, size, mtimeMs } = stats;
        this.#nodes.set(next, { kind: 'host-file', mode: mode & 0o7777, size, mtimeMs });
        current = next;
      } else return undefined;
    }
    return current;
  }

  /** Adds a host folder with all that is below it, as far as `accepts` the relative paths of files. */
  addAll(folder: string, accepts: (relative: string) => boolean = () => true): void {
    const real = this.add(folder);
    if (real === undefined || !lstatSync(real).isDirectory()) return;
    const visit = (relative: string): void => {
      for (const name of readdirSync(real + relative).sort()) {
        const stats = lstatSync(`${real}${relative}/${name}`);
        if (stats.isDirectory()) visit(`${relative}/${name}`);
        else if (accepts(`${relative}/${name}`)) this.add(`${real}${relative}/${name}`);
      }
    };
    visit('');
  }

  directory(path: string, mode = 0o755): void {
    this.#nodes.set(path, { kind: 'directory', mode });
  }

  text(path: string, text: string, mode = 0o644): void {
    this.#nodes.set(path, { kind: 'text', mode, text });
  }

  symlink(path: string, target: string): void {
    this.#nodes.set(path, { kind: 'symlink', target });
  }

  /** Changes when anything in the tree does: paths, kinds, modes, texts, targets, sizes and times of host files. */
  fingerprint(): string {
    return createHash('sha256').update(JSON.stringify(this.#sorted())).digest('hex');
  }

  /** For {@link hostFiles}. */
  files(): HostFiles {
    let bytes = 0;
    for (const node of this.#nodes.values()) if (node.kind === 'host-file') bytes += node.size;
    return { nodes: this.#sorted(), bytes, read: new BigInt64Array(new SharedArrayBuffer(8)) };
  }

  /** Folder by folder, each by name: a slash comes before all other characters. */
  #sorted(): [string, Node][] {
    const key = (path: string): string => Buffer.from(path).toString('latin1').replaceAll('/', '\0');
    const keyed = [...this.#nodes].map((entry): [string, [string, Node]] => [key(entry[0]), entry]);
    return keyed.sort(([a], [b]) => (a < b ? -1 : 1)).map(([, entry]) => entry);
  }
}

/** The files as a tar archive. @throws DrydockError ERR_HOST_IMAGE when one changes while it is read. */
export function* hostFiles({ nodes, read }: HostFiles): Generator<Buffer> {
  for (const [path, node] of nodes) {
    const name = Buffer.from(path.slice(1)).toString('latin1');
    const common = { mtimeSeconds: FIXED_TIME_SECONDS };
    switch (node.kind) {
      case 'directory':
        yield emitHeader(makeHeader({ ...common, name: `${name}/`, type: 'directory', mode: node.mode }));
        break;
      case 'symlink': {
        const linkName = Buffer.from(node.target).toString('latin1');
        yield emitHeader(makeHeader({ ...common, name, type: 'symlink', mode: 0o777, linkName }));
        break;
      }
      case 'text': {
        const bytes = Buffer.from(node.text);
        yield emitHeader(makeHeader({ ...common, name, type: 'file', mode: node.mode, size: bytes.length }));
        yield Buffer.concat([bytes, padding(bytes.length)]);
        break;
      }
      case 'host-file': {
        const capability = getXattr(Buffer.from(path).toString('latin1'), CAPABILITY_XATTR);
        const xattrs = new Map(capability ? [[CAPABILITY_XATTR, capability]] : []);
        const { mode, size } = node;
        yield* hostFile(path, makeHeader({ ...common, name, type: 'file', mode, size, xattrs }));
        Atomics.add(read, 0, BigInt(size));
      }
    }
  }
  yield trailer();
}

function* hostFile(path: string, header: TarHeader): Generator<Buffer> {
  yield emitHeader(header);
  const changed = (reason: string): DrydockError =>
    new DrydockError(
      'ERR_HOST_IMAGE',
      `cannot build the host image: ${path} ${reason} while it was read. Start the daemon again when the update of the host has ended.`,
    );
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    throw changed(errorCode(error) ?? 'became unreadable');
  }
  try {
    for (let left = header.size; left > 0; ) {
      const buffer = Buffer.allocUnsafe(Math.min(left, READ_BYTES));
      const length = readSync(fd, buffer, 0, buffer.length, null);
      if (length === 0) throw changed('became shorter');
      left -= length;
      yield buffer.subarray(0, length);
    }
    yield padding(header.size);
  } finally {
    closeSync(fd);
  }
}
