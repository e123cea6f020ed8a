/**
 * A folder with its parents, for paths that a person chose. Node's own `mkdir` with `recursive` goes round for ever where making a folder
 * fails with ENOENT though its parent is there, as below /proc, and names the wrong reason where the disk can only be read.
 */
import { mkdir, stat } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { errorCode } from './errors.ts';

/**
 * Makes what is missing of `path`.
 * @returns the first folder that was made, or undefined when all were there
 * @throws the system's error for the folder that could not be made
 */
export async function makeFolders(path: string, mode = 0o777): Promise<string | undefined> {
  const missing: string[] = [];
  for (let folder = resolve(path); !(await isThere(folder)); folder = dirname(folder))
    missing.unshift(folder);
  let first: string | undefined;
  for (const folder of missing)
    try {
      await mkdir(folder, { mode });
      first ??= folder;
    } catch (error) {
      // Somebody else made it meanwhile, or it is a link that leads nowhere: then what follows fails.
      if (errorCode(error) !== 'EEXIST' || !(await isThere(folder))) throw error;
    }
  return first;
}

/** @throws EEXIST for what is no folder, and whatever keeps one from looking */
async function isThere(path: string): Promise<boolean> {
  try {
    if ((await stat(path)).isDirectory()) return true;
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return false;
    throw error;
  }
  // Fails, and says why.
  await mkdir(path);
  return true;
}
