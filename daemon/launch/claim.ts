/** How the files of an image become those of the one user that a jail without namespaces runs as. */
import { lchownSync, lstatSync, readdirSync } from 'node:fs';

/**
 * Makes one user the owner of a tree, without following links and without leaving the tree's file system. Nothing of the
 * image runs yet, so that nobody can change a path under way.
 */
export function claimTree(root: string, owner: number): void {
  const { dev } = lstatSync(root);
  const pending = [Buffer.from(root)];
  for (let path = pending.pop(); path !== undefined; path = pending.pop()) {
    const stat = lstatSync(path);
    if (stat.uid !== owner || stat.gid !== owner) lchownSync(path, owner, owner);
    if (!stat.isDirectory() || stat.dev !== dev) continue;
    for (const name of readdirSync(path, { encoding: 'buffer' }))
      pending.push(Buffer.concat([path, Buffer.from('/'), name]));
  }
}
