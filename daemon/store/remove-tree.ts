/** Removing a folder with all that is in it. */
import { readdir, rmdir, unlink } from 'node:fs/promises';
import { errorCode } from '#common/errors';

/** Files that are removed at a time: as many as Node has threads to wait for the disk. */
const AT_ONCE = 4;
const SLASH: Buffer = Buffer.from('/');

/**
 * As `rm -rf`, for a folder. `fs.rm` asks several things of every entry, one after the other; of a container that has
 * written little, that is most of what its removal takes.
 */
export async function removeTree(path: string): Promise<void> {
  await remove(Buffer.from(path));
}

async function remove(folder: Buffer): Promise<void> {
  // Names need not be UTF-8.
  const entries = await readdir(folder, { withFileTypes: true, encoding: 'buffer' }).catch(ignoreMissing);
  if (!entries) return;
  const paths = entries.map((entry) => Buffer.concat([folder, SLASH, entry.name]));
  const files = paths.filter((_, index) => !entries[index]!.isDirectory()).values();
  const work = async (): Promise<void> => {
    for (const path of files) await unlink(path).catch(ignoreMissing);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  for (const [index, path] of paths.entries()) if (entries[index]!.isDirectory()) await remove(path);
  await rmdir(folder).catch(ignoreMissing);
}

function ignoreMissing(error: unknown): undefined {
  if (errorCode(error) !== 'ENOENT') throw error;
}
