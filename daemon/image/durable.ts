/** Files that are there whole or not at all, also after a crash: written aside, synced, renamed, the folder synced. */
import { mkdir, open, readFile, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { errorCode } from '#common/errors';

let serial = 0;

/** A name for a file in the making, unique in this process; sweeps know it by its prefix. */
export function temporaryName(): string {
  return `.tmp-${process.pid}-${serial++}`;
}

/** Whether a name is of a file that was in the making. */
export function isTemporary(name: string): boolean {
  return name.startsWith('.tmp-');
}

/** Makes the entries of a folder durable. */
export async function syncFolder(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Replaces a JSON file. */
export async function writeJson(path: string, value: unknown): Promise<void> {
  const folder = dirname(path);
  await mkdir(folder, { recursive: true });
  const temporary = `${folder}/${temporaryName()}`;
  try {
    const handle = await open(temporary, 'wx', 0o600);
    try {
      await handle.writeFile(JSON.stringify(value));
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  await syncFolder(folder);
}

/** Reads a JSON file; undefined when there is none. Its shape is as we wrote it. */
export async function readJson<T>(path: string): Promise<T | undefined> {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as T;
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}
