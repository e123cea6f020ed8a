/** Size of a folder: lengths of all files, hard links counted once. */
import { lstat, readdir } from 'node:fs/promises';
import { join } from 'node:path';

/** Bytes of all files below a folder; what vanishes meanwhile counts nothing. */
export async function folderBytes(folder: string): Promise<number> {
  const seen = new Set<string>();
  let bytes = 0;
  const pending = [folder];
  for (let path = pending.pop(); path !== undefined; path = pending.pop()) {
    const stat = await lstat(path).catch(() => undefined);
    if (!stat) continue;
    if (stat.isDirectory()) {
      for (const name of await readdir(path).catch(() => [])) pending.push(join(path, name));
      continue;
    }
    const identity = `${stat.dev}:${stat.ino}`;
    if (stat.nlink > 1 && seen.has(identity)) continue;
    seen.add(identity);
    bytes += stat.size;
  }
  return bytes;
}
