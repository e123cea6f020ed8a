/** Files that are there whole or not at all, also after a crash: written aside, synced, renamed, the folder synced. */
import { mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { DrydockError, errorCode, errorMessage } from '#common/errors';

let serial = 0;

/** A name for a file in the making, unique in this process; sweeps know it by its prefix. */
export function temporaryName(): string {
  return `.tmp-${process.pid}-${serial++}`;
}

/** Whether a name is of a file that was in the making. */
export function isTemporary(name: string): boolean {
  return name.startsWith('.tmp-');
}

/** Removes the files of a folder that were in the making when the last daemon ended. */
export async function sweepTemporaries(folder: string): Promise<void> {
  for (const name of await readdir(folder))
    if (isTemporary(name)) await rm(`${folder}/${name}`, { force: true });
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

/**
 * Reads a JSON file; undefined when there is none. Its shape is as we wrote it.
 * @throws ERR_STORE_DAMAGED when it is not JSON: writes are whole, so the disk or somebody else has changed it
 */
export async function readJson<T>(path: string): Promise<T | undefined> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
  try {
    return JSON.parse(text) as T;
  } catch (error) {
    throw damagedFile(path, errorMessage(error), error);
  }
}

/** A file of the store that can't be used. */
export function damagedFile(path: string, reason: string, cause?: unknown): DrydockError {
  return new DrydockError(
    'ERR_STORE_DAMAGED',
    `${path} is damaged (${reason}). Stop the daemon, and run drydock fsck to see what it concerns.`,
    { cause },
  );
}
