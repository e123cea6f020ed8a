/**
 * Paths of a container, resolved on the host. A link inside the root, absolute or with any number of `..`, leads back
 * into the root: it can't name a file of the host. Only for roots in which nothing of the container runs at the moment;
 * a running one could swap a folder for a link between the look and the use.
 */
import { lstat, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { DrydockError } from '#common/errors';

/** As the kernel's limit, path_resolution(7). */
const LINKS_MAX = 40;

/** The host path of `path` inside `root`. Missing parts are taken as they are. @throws ERR_BAD_PARAMETER for a loop of links */
export async function resolveInRoot(root: string, path: string): Promise<string> {
  let pending = path.split('/');
  let resolved: string[] = [];
  let links = 0;
  while (pending.length > 0) {
    const part = pending.shift()!;
    if (part === '' || part === '.') continue;
    if (part === '..') {
      resolved.pop();
      continue;
    }
    const here = join(root, ...resolved, part);
    const found = await lstat(here).catch(() => undefined);
    if (!found?.isSymbolicLink()) {
      resolved.push(part);
      continue;
    }
    if (++links > LINKS_MAX)
      throw new DrydockError('ERR_BAD_PARAMETER', `too many levels of symbolic links in ${path}`);
    const target = await readlink(here);
    if (target.startsWith('/')) resolved = [];
    pending = [...target.split('/'), ...pending];
  }
  return join(root, ...resolved);
}
