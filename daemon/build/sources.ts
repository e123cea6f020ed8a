/**
 * What COPY and ADD name: paths in the context or another image's tree, with wildcards, resolved without leaving it;
 * and where it goes in the image. Symlinks that people name are followed inside the tree, as docker does; those that
 * are found below a folder are copied as they are.
 */
import { closeSync, constants, lstatSync, openSync, readdirSync, readlinkSync, statSync } from 'node:fs';
import { DrydockError } from '#common/errors';
import { type ByteString, O_PATH, openInRoot } from '#common/native/layer-fs';
import type { CopyItem } from '../image/file-worker.ts';
import { patternTest } from './ignore.ts';

const { O_DIRECTORY, O_RDONLY } = constants;

const latin1 = (text: string): ByteString => Buffer.from(text).toString('latin1');
const utf8 = (bytes: ByteString): string => Buffer.from(bytes, 'latin1').toString('utf8');

/** A source that was found. */
export interface FoundSource {
  /** Absolute path on the host, a byte string; no part of it is a symlink. */
  path: ByteString;
  /** Its name as it was written or matched. */
  name: ByteString;
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

  /** All that a pattern of COPY names, in order. @throws ERR_BUILD with docker's text when there is nothing */
  find(pattern: string): FoundSource[] {
    const clean = latin1(cleanPath(pattern));
    const isPattern = /[*?[]/.test(clean);
    const names = isPattern ? this.#glob(clean) : [clean];
    const found = names.flatMap((name) => {
      const path = this.resolve(name);
      return path === undefined
        ? []
        : [{ path, name, isDirectory: lstatSync(Buffer.from(path, 'latin1')).isDirectory() }];
    });
    if (found.length > 0) return found;
    throw new DrydockError(
      'ERR_BUILD',
      isPattern
        ? 'no source files were specified'
        : `file not found in build context or excluded by .dockerignore: stat ${utf8(clean)}: file does not exist`,
    );
  }

  #glob(pattern: ByteString): ByteString[] {
    let candidates: ByteString[] = [''];
    for (const part of pattern.split('/')) {
      const matches = patternTest(part);
      const next: ByteString[] = [];
      for (const folder of candidates) {
        const real = this.resolve(folder);
        if (real === undefined || !statSync(Buffer.from(real, 'latin1')).isDirectory()) continue;
        for (const name of readdirSync(Buffer.from(real, 'latin1'), { encoding: 'latin1' }).sort())
          if (matches(name)) next.push(folder === '' ? name : `${folder}/${name}`);
      }
      candidates = next;
    }
    return candidates;
  }
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
 */
export function planCopy(image: Tree, sources: readonly FoundSource[], destination: string): CopyPlan {
  const base = latin1(cleanPath(destination));
  const intoFolder = destination.endsWith('/') || image.isDirectory(base);
  const below = (name: ByteString): ByteString => (base === '' ? name : `${base}/${name}`);
  const plan: CopyPlan = { items: [], folders: [] };
  for (const source of sources) {
    if (source.isDirectory) {
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
