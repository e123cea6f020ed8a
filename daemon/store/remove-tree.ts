/** Removing a folder with all that is in it. */
import { readdir, rmdir, unlink } from 'node:fs/promises';
import { errorCode } from '#common/errors';

/** Files that are removed at a time: as many as Node has threads to wait for the disk. */
const AT_ONCE = 4;

/**
 * As `rm -rf`, for a folder. `fs.rm` asks several things of every entry, one after the other; of a container that has
 * written little, that is most of what its removal takes.
 */
export async function removeTree(path: string): Promise<void> {
  await remove(Buffer.from(path).toString('latin1'));
}

/** @param folder a byte string, since names need not be UTF-8; buffers of 100,000 of them would take 100 MB */
async function remove(folder: string): Promise<void> {
  const path = Buffer.from(folder, 'latin1');
  const options = { withFileTypes: true, encoding: 'latin1' } as const;
  const entries = await readdir(path, options).catch(ignoreMissing);
  if (!entries) return;
  const files = entries.values();
  const work = async (): Promise<void> => {
    for (const entry of files)
      if (!entry.isDirectory())
        await unlink(Buffer.from(`${folder}/${entry.name}`, 'latin1')).catch(ignoreMissing);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  for (const entry of entries) if (entry.isDirectory()) await remove(`${folder}/${entry.name}`);
  await rmdir(path).catch(ignoreMissing);
}

function ignoreMissing(error: unknown): undefined {
  if (errorCode(error) !== 'ENOENT') throw error;
}
