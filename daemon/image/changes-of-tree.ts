/**
 * What a container has changed against its image (`docker diff`), by comparing two trees. The kinds are those of the
 * Engine API: 0 modified, 1 added, 2 deleted.
 */
import { type BigIntStats, lstatSync, readdirSync } from 'node:fs';
import { errorCode } from '#common/errors';
import type { ByteString } from '#common/native/layer-fs';
import { mountPointKind } from './mount-points.ts';

/** A changed path: relative, a byte string. */
export interface TreeChange {
  path: ByteString;
  kind: 0 | 1 | 2;
}

const bytes = (path: ByteString): Buffer => Buffer.from(path, 'latin1');
const latin1 = (path: string): ByteString => Buffer.from(path).toString('latin1');

function stat(path: ByteString): BigIntStats | undefined {
  try {
    return lstatSync(bytes(path), { bigint: true });
  } catch (error) {
    // ENOTDIR: what is a folder in one tree may be a file in the other.
    if (errorCode(error) === 'ENOENT' || errorCode(error) === 'ENOTDIR') return undefined;
    throw error;
  }
}

/** As moby's archive.ChangesDirs: what a write leaves different. A folder's own time is none of it. */
function differs(a: BigIntStats, b: BigIntStats): boolean {
  if (a.mode !== b.mode || a.uid !== b.uid || a.gid !== b.gid || a.rdev !== b.rdev) return true;
  return !a.isDirectory() && (a.size !== b.size || a.mtimeNs !== b.mtimeNs);
}

/**
 * Compares a tree with the one it was made from.
 * @param upper the upper layer, when the tree is an overlay: nothing outside of its folders can have changed.
 */
export function compareTrees(base: string, tree: string, upper?: string): TreeChange[] {
  const [baseRoot, treeRoot] = [latin1(base), latin1(tree)];
  const candidateRoot = upper === undefined ? treeRoot : latin1(upper);
  const changes: TreeChange[] = [];
  const names = (path: ByteString): ByteString[] =>
    stat(path)?.isDirectory() ? readdirSync(bytes(path), { encoding: 'latin1' }) : [];
  const isMountPoint = (path: ByteString, now: BigIntStats): boolean => {
    const kind = mountPointKind(path);
    if (kind === 'file') return now.isFile() && now.size === 0n;
    return kind === 'folder' && names(`${candidateRoot}/${path}`).length === 0;
  };
  const visit = (path: ByteString): void => {
    const candidates = new Set(names(`${candidateRoot}/${path}`));
    for (const name of [...new Set([...names(`${baseRoot}/${path}`), ...candidates])].sort()) {
      const child = path === '' ? name : `${path}/${name}`;
      const before = stat(`${baseRoot}/${child}`);
      const now = stat(`${treeRoot}/${child}`);
      if (!now) {
        if (before) changes.push({ path: child, kind: 2 });
        continue;
      }
      if (!candidates.has(name)) continue;
      if (!before && isMountPoint(child, now)) continue;
      const at = changes.length;
      if (!before) changes.push({ path: child, kind: 1 });
      else if (differs(before, now)) changes.push({ path: child, kind: 0 });
      if (!now.isDirectory()) continue;
      visit(child);
      // A folder with changes below it counts as changed itself.
      if (changes.length > at && changes[at]!.path !== child) changes.splice(at, 0, { path: child, kind: 0 });
    }
  };
  visit('');
  return changes;
}
