/**
 * What COPY and ADD name: paths in the context or another image's tree, with wildcards, resolved without leaving it;
 * and where it goes in the image. Symlinks that people name are followed inside the tree, as docker does; those that
 * are found below a folder are copied as they are.
 */
import { closeSync, constants, lstatSync, openSync, readdirSync, readlinkSync, statSync } from 'node:fs';
import { DrydockError } from '#common/errors';
import { type ByteString, O_PATH, openInRoot } from '#common/native/layer-fs';
import type { CopyItem } from '../image/file-worker.ts';
import { ignoreMatcher, patternTest } from './ignore.ts';

const { O_DIRECTORY, O_RDONLY } = constants;

const latin1 = (text: string): ByteString => Buffer.from(text).toString('latin1');
const utf8 = (bytes: ByteString): string => Buffer.from(bytes, 'latin1').toString('utf8');

/** A source that was found. */
export interface FoundSource {
  /** Absolute path on the host, a byte string; no part of it is a symlink. */
  path: ByteString;
  /** Its name as it was written or matched. */
  name: ByteString;
  /** With --parents: folders that lead to it, which are made too; paths of the host and names. */
  parents?: { path: ByteString; name: ByteString }[];
  isDirectory: boolean;
}

/** Opens a tree for lookups that stay inside. */
export class Tree {
  readonly #fd: number;

  constructor(root: string) {
    this.#fd = openSync(root, O_RDONLY | O_DIRECTORY);
  }

  close(): void {
    closeSync(this.#fd);
  }

  /** Where a path of the tree really is on the host; undefined when it is not there. */
  resolve(path: ByteString): ByteString | undefined {
    const fd = openInRoot(this.#fd, path === '' ? '.' : path, O_PATH);
    if (fd < 0) return undefined;
    try {
      return readlinkSync(`/proc/self/fd/${fd}`, { encoding: 'latin1' });
    } finally {
      closeSync(fd);
    }
  }

  /** Whether a path of the tree is a folder, symlinks followed. */
  isDirectory(path: ByteString): boolean {
    const real = this.resolve(path);
    return real !== undefined && statSync(Buffer.from(real, 'latin1')).isDirectory();
  }

  /**
   * All that a pattern of COPY names, in order.
   * @param withParents names are what follows `/./` in the pattern, or all of it
   * @throws ERR_BUILD with docker's text when there is nothing
   */
  find(pattern: string, withParents = false): FoundSource[] {
    const pivot = withParents ? pattern.indexOf('/./') : -1;
    const base = pivot < 0 ? '' : latin1(cleanPath(pattern.slice(0, pivot)));
    const clean = latin1(cleanPath(pattern));
    const isPattern = /[*?[]/.test(clean);
    const names = isPattern ? this.#glob(clean) : [clean];
    const found = names.flatMap((name): FoundSource[] => {
      const path = this.resolve(name);
      if (path === undefined) return [];
      const isDirectory = lstatSync(Buffer.from(path, 'latin1')).isDirectory();
      if (!withParents) return [{ path, name, isDirectory }];
      const below = base === '' ? name : name.slice(base.length + 1);
      return [{ path, name: below, isDirectory, parents: this.#parents(base, below) }];
    });
    if (found.length > 0) return found;
    throw new DrydockError(
      'ERR_BUILD',
      isPattern
        ? 'no source files were specified'
        : `file not found in build context or excluded by .dockerignore: stat ${utf8(clean)}: file does not exist`,
    );
  }

  #parents(base: ByteString, name: ByteString): NonNullable<FoundSource['parents']> {
    const parts = name.split('/').slice(0, -1);
    return parts.flatMap((_, index) => {
      const parent = parts.slice(0, index + 1).join('/');
      const path = this.resolve(base === '' ? parent : `${base}/${parent}`);
      return path === undefined ? [] : [{ path, name: parent }];
    });
  }

  #glob(pattern: ByteString): ByteString[] {
    let candidates: ByteString[] = [''];
    for (const part of pattern.split('/')) {
      const matches = patternTest(part);
      const next: ByteString[] = [];
      for (const folder of candidates) {
        // Any number of folders, none among them.
        if (part === '**') next.push(...this.#foldersBelow(folder));
        else for (const name of this.#namesIn(folder)) if (matches(name)) next.push(joined(folder, name));
      }
      candidates = [...new Set(next)];
    }
    return candidates;
  }

  #namesIn(folder: ByteString): ByteString[] {
    const real = this.resolve(folder);
    if (real === undefined || !statSync(Buffer.from(real, 'latin1')).isDirectory()) return [];
    return readdirSync(Buffer.from(real, 'latin1'), { encoding: 'latin1' }).sort();
  }

  /** A folder, and all below it that are no symlinks. */
  #foldersBelow(folder: ByteString): ByteString[] {
    const real = this.resolve(folder);
    if (real === undefined || !lstatSync(Buffer.from(real, 'latin1')).isDirectory()) return [];
    const children = this.#namesIn(folder).filter((name) =>
      lstatSync(Buffer.from(`${real}/${name}`, 'latin1')).isDirectory(),
    );
    return [folder, ...children.flatMap((name) => this.#foldersBelow(joined(folder, name)))];
  }
}

const joined = (folder: ByteString, name: ByteString): ByteString =>
  folder === '' ? name : `${folder}/${name}`;

/** The paths at or below a source that --exclude's patterns name. */
export function excludedPaths(source: FoundSource, patterns: readonly string[]): ByteString[] {
  const isExcluded = ignoreMatcher(patterns.map(latin1).join('\n'));
  if (!source.isDirectory) {
    const name = source.name.slice(source.name.lastIndexOf('/') + 1);
    return isExcluded(name) ? [source.path] : [];
  }
  const mayReturn = patterns.some((pattern) => pattern.startsWith('!'));
  const skipped: ByteString[] = [];
  /** Whether all of a folder is skipped. */
  const visit = (path: ByteString, below: ByteString): boolean => {
    let keepsSome = false;
    for (const name of readdirSync(Buffer.from(path, 'latin1'), { encoding: 'latin1' })) {
      const child = `${path}/${name}`;
      const isFolder = lstatSync(Buffer.from(child, 'latin1')).isDirectory();
      const excluded = isExcluded(joined(below, name));
      // What is below an excluded folder may be taken back.
      const goes =
        isFolder && (!excluded || mayReturn) ? visit(child, joined(below, name)) && excluded : excluded;
      if (goes) skipped.push(child);
      else keepsSome = true;
    }
    return !keepsSome;
  };
  visit(source.path, '');
  return skipped;
}

/** A path below a root: `..` stops at the root, as it would in a chroot. */
export function cleanPath(path: string): string {
  const parts: string[] = [];
  for (const part of path.split('/')) {
    if (part === '..') parts.pop();
    else if (part !== '' && part !== '.') parts.push(part);
  }
  return parts.join('/');
}

/** What is to be copied where, in the image. */
export interface CopyPlan {
  items: CopyItem[];
  folders: ByteString[];
}

/**
 * Works out the targets: into a folder when the destination ends in a slash or is one; the contents of a folder go
 * into the destination itself.
 * @param destination absolute path in the image; a slash at its end counts.
 * @param withParents sources go below the destination by their whole names, folders as they are
 */
export function planCopy(
  image: Tree,
  sources: readonly FoundSource[],
  destination: string,
  withParents = false,
): CopyPlan {
  const base = latin1(cleanPath(destination));
  const intoFolder = destination.endsWith('/') || image.isDirectory(base);
  const below = (name: ByteString): ByteString => (base === '' ? name : `${base}/${name}`);
  const plan: CopyPlan = { items: [], folders: [] };
  for (const source of sources) {
    if (withParents) {
      for (const { path, name } of source.parents ?? [])
        plan.items.push({ source: path, target: below(name), isShallow: true });
      plan.items.push({ source: source.path, target: below(source.name) });
    } else if (source.isDirectory) {
      plan.folders.push(base);
      for (const name of readdirSync(Buffer.from(source.path, 'latin1'), { encoding: 'latin1' }).sort())
        plan.items.push({ source: `${source.path}/${name}`, target: below(name) });
    } else {
      const name = source.name.slice(source.name.lastIndexOf('/') + 1);
      // A destination that is a symlink is written through: what it names is replaced.
      plan.items.push({ source: source.path, target: intoFolder ? below(name) : base });
    }
  }
  return plan;
}

/** uid and gid of `user[:group]` by the image's own /etc/passwd and /etc/group. @throws ERR_BUILD for unknown names */
export function parseOwner(text: string, read: (path: string) => string): { uid: number; gid: number } {
  const [user = '', group] = text.split(':');
  const lookUp = (name: string, path: string): string[] | undefined =>
    read(path)
      .split('\n')
      .map((line) => line.split(':'))
      .find((fields) => fields[0] === name);
  const resolve = (name: string, path: string): number => {
    if (/^\d+$/.test(name)) return Number(name);
    const id = Number(lookUp(name, path)?.[2] ?? Number.NaN);
    if (!Number.isInteger(id))
      throw new DrydockError(
        'ERR_BUILD',
        `unable to convert uid/gid chown string to host mapping: can't find uid for user ${name}: no such user: ${name}`,
      );
    return id;
  };
  const uid = resolve(user, '/etc/passwd');
  // Without a group it has the number of the user's, as docker's --chown has it.
  if (group !== undefined) return { uid, gid: resolve(group, '/etc/group') };
  return { uid, gid: /^\d+$/.test(user) ? uid : resolve(user, '/etc/group') };
}
