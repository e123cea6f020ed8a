/** One folder of records: state on disk as one JSON file per thing, never changed in place. */
import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { errorCode, errorMessage } from '#common/errors';
import { type Log, nullLog } from '#common/log';
import { readJson, sweepTemporaries, writeJson } from './durable.ts';
import { removeTree } from './remove-tree.ts';
import { misfit, type Shape } from './shape.ts';

/** A thing on its way out: its folder was renamed, so that a crash in the middle leaves no half of it under its name. */
const DOOMED_PREFIX = '.removing-';

/** Whether a folder is of a thing that was being removed. */
export function isDoomed(name: string): boolean {
  return name.startsWith(DOOMED_PREFIX);
}

/** A key that is an id, as docker's are. */
export const ID_KEY: RegExp = /^[0-9a-f]{64}$/;

/** What the log says of what others have put among the records. */
export const FOREIGN_FILE = 'this is not of the daemon, and is left alone: move it away';

/** What the log says of a record that can't be used. */
export const DAMAGED_RECORD =
  'a record is damaged, and what it is of is done without: stop the daemon, and run drydock fsck to see what it concerns';

/**
 * A record, or why it is none; undefined where there is none.
 * @param keyOf what the record says that it is of, which must be `key`
 */
export async function readRecord<T>(
  path: string,
  shape: Shape,
  key = '',
  keyOf: (record: T) => string = () => key,
): Promise<{ record: T } | { damage: string } | undefined> {
  try {
    const record = await readJson<T>(path);
    if (record === undefined) return undefined;
    const damage = misfit(record, shape);
    if (damage !== undefined) return { damage };
    return keyOf(record) === key ? { record } : { damage: `it is of ${JSON.stringify(keyOf(record))}` };
  } catch (error) {
    return { damage: errorMessage((error as Error).cause ?? error) };
  }
}

/** What records of a folder look like. */
export interface RecordOptions<T> {
  key?: RegExp;
  shape?: Shape;
  /** What a record says that its key is. */
  keyOf?: (record: T) => string;
  /** Told of what does not look so. */
  log?: Log;
}

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
  readonly #shape: Shape;
  readonly #keyOf: ((record: T) => string) | undefined;
  readonly #log: Log;
  readonly #writing = new Map<string, { running: Promise<void>; next?: T }>();

  constructor(folder: string, file: string, options: RecordOptions<T> = {}) {
    this.folder = folder;
    this.#file = file;
    this.#key = options.key ?? /./;
    this.#shape = { type: 'object', ...options.shape };
    this.#keyOf = options.keyOf;
    this.#log = options.log ?? nullLog;
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
        this.#log.warn({ path: this.pathOf(key) }, FOREIGN_FILE);
        continue;
      }
      await sweepTemporaries(this.pathOf(key));
      const path = join(this.folder, key, this.#file);
      const found = await readRecord(path, this.#shape, key, this.#keyOf);
      if (found === undefined) loaded.unfinished.push(key);
      else if ('record' in found) loaded.records.set(key, found.record);
      else {
        loaded.damaged.push(key);
        this.#log.error({ path, reason: found.damage }, DAMAGED_RECORD);
      }
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
