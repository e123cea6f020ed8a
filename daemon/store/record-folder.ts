/** One folder of records: state on disk as one JSON file per thing, never changed in place. */
import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { errorCode } from '#common/errors';
import { type Log, nullLog } from '#common/log';
import { readJson, sweepTemporaries, writeJson } from './durable.ts';
import { removeTree } from './remove-tree.ts';

/** A thing on its way out: its folder was renamed, so that a crash in the middle leaves no half of it under its name. */
const DOOMED_PREFIX = '.removing-';

/** Whether a folder is of a thing that was being removed. */
export function isDoomed(name: string): boolean {
  return name.startsWith(DOOMED_PREFIX);
}

/** A key that is an id, as docker's are. */
export const ID_KEY: RegExp = /^[0-9a-f]{64}$/;

/** What was found on disk. */
export interface Loaded<T> {
  records: Map<string, T>;
  /** Folders without a record, by key: a crash while the thing was made. */
  unfinished: string[];
  /** Folders whose record is not what we wrote: the disk, or somebody else, has changed it. */
  damaged: string[];
}

/**
 * Records of one kind, each `FOLDER/KEY/FILE`, so that a thing's other files can live beside its record. Writes of one
 * key follow each other; of several waiting ones only the last is made.
 */
export class RecordFolder<T extends object> {
  readonly folder: string;
  readonly #file: string;
  readonly #key: RegExp;
  readonly #log: Log;
  readonly #writing = new Map<string, { running: Promise<void>; next?: T }>();

  /** @param options `key` is what a key looks like; `log` is told of what is not a record's */
  constructor(folder: string, file: string, { key = /./, log = nullLog }: { key?: RegExp; log?: Log } = {}) {
    this.folder = folder;
    this.#file = file;
    this.#key = key;
    this.#log = log;
  }

  /** The folder of one thing. */
  pathOf(key: string): string {
    return join(this.folder, key);
  }

  /**
   * Loads all records, and goes on with removals that a crash has cut short. What others have put into the folder is told,
   * and stays as it is.
   */
  async load(): Promise<Loaded<T>> {
    await mkdir(this.folder, { recursive: true, mode: 0o710 });
    const loaded: Loaded<T> = { records: new Map(), unfinished: [], damaged: [] };
    for (const entry of await readdir(this.folder, { withFileTypes: true })) {
      const key = entry.name;
      if (isDoomed(key)) {
        await rm(join(this.folder, key), { recursive: true, force: true });
        continue;
      }
      if (!entry.isDirectory() || !this.#key.test(key)) {
        this.#log.warn(
          { path: this.pathOf(key) },
          'this is not of the daemon, and is left alone: move it away',
        );
        continue;
      }
      await sweepTemporaries(this.pathOf(key));
      const record = await readJson<T | null>(join(this.folder, key, this.#file)).catch(() => null);
      if (record === undefined) loaded.unfinished.push(key);
      else if (record === null || typeof record !== 'object') loaded.damaged.push(key);
      else loaded.records.set(key, record);
    }
    return loaded;
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
        await writeJson(join(this.pathOf(key), this.#file), record);
        record = entry.next;
        delete entry.next;
      }
    } finally {
      this.#writing.delete(key);
    }
  }

  /** Takes a thing off the books, with all its files: from here on a crash leads to its removal. */
  async doom(key: string): Promise<void> {
    await this.#writing.get(key)?.running.catch(() => {});
    await rename(this.pathOf(key), this.#doomedPath(key));
  }

  /** Puts what was doomed back, since its removal is not possible after all. */
  async restore(key: string): Promise<void> {
    await rename(this.#doomedPath(key), this.pathOf(key));
  }

  /** Removes a thing with all its files, whether it was doomed before or not. */
  async remove(key: string): Promise<void> {
    await this.doom(key).catch((error) => {
      if (errorCode(error) !== 'ENOENT') throw error;
    });
    await removeTree(this.#doomedPath(key));
  }

  #doomedPath(key: string): string {
    return join(this.folder, `${DOOMED_PREFIX}${key}`);
  }
}
