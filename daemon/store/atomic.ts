/**
 * State on disk: one JSON file per thing, written so that a reader sees the old or the new one, whole, also after a
 * power cut (write, fsync, rename, fsync of the folder). Nothing is ever changed in place.
 */
import { mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { errorCode } from '#common/errors';

/** Replaces the file's content, for good. The folder must exist. */
export async function writeAtomic(path: string, data: string, mode = 0o600): Promise<void> {
  const temporary = `${path}.new`;
  const file = await open(temporary, 'w', mode);
  try {
    await file.writeFile(data);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporary, path);
  const folder = await open(dirname(path), 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/** Reads a JSON file; undefined when there is none. @throws SyntaxError for a damaged one */
export async function readJson(path: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(path, 'utf8'));
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/**
 * Records of one kind, each `FOLDER/KEY/FILE`, so that a thing's other files can live beside its record. Writes of one
 * key follow each other; of several waiting ones only the last is made.
 */
export class RecordFolder<T extends object> {
  readonly folder: string;
  readonly #file: string;
  readonly #writing = new Map<string, { running: Promise<void>; next?: T }>();

  constructor(folder: string, file: string) {
    this.folder = folder;
    this.#file = file;
  }

  /** The folder of one thing. */
  pathOf(key: string): string {
    return join(this.folder, key);
  }

  /** Loads all records. Folders whose record is missing or damaged (a crash while it was made) are returned by key as `broken`. */
  async load(): Promise<{ records: Map<string, T>; broken: string[] }> {
    await mkdir(this.folder, { recursive: true, mode: 0o710 });
    const records = new Map<string, T>();
    const broken: string[] = [];
    for (const key of await readdir(this.folder)) {
      const record = await readJson(join(this.folder, key, this.#file)).catch(() => undefined);
      if (record === undefined || record === null || typeof record !== 'object') broken.push(key);
      else records.set(key, record as T);
    }
    return { records, broken };
  }

  /** Stores a record. The value is taken as it is when its turn comes. */
  async save(key: string, record: T): Promise<void> {
    const current = this.#writing.get(key);
    if (current) {
      current.next = record;
      return current.running;
    }
    const entry: { running: Promise<void>; next?: T } = { running: Promise.resolve() };
    this.#writing.set(key, entry);
    entry.running = this.#write(key, record, entry);
    return entry.running;
  }

  async #write(key: string, first: T, entry: { next?: T }): Promise<void> {
    try {
      await mkdir(this.pathOf(key), { recursive: true, mode: 0o710 });
      let record: T | undefined = first;
      while (record !== undefined) {
        await writeAtomic(join(this.pathOf(key), this.#file), JSON.stringify(record));
        record = entry.next;
        delete entry.next;
      }
    } finally {
      this.#writing.delete(key);
    }
  }

  /** Removes a thing with all its files. */
  async remove(key: string): Promise<void> {
    await this.#writing.get(key)?.running.catch(() => {});
    await rm(this.pathOf(key), { recursive: true, force: true });
  }
}
