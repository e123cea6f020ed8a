/**
 * The folders of RUN --mount=type=cache: kept from build to build, and never part of an image.
 *
 * Layout: `build-cache/HASH/{cache.json,data}`. A folder that is in use is told by a count here; a daemon that was killed
 * has no users.
 */
import { chmod, chown, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { digestOf, hexOf } from '../image/content.ts';
import { treeBytes } from '../image/overlay-driver.ts';
import { RecordFolder } from '../store/record-folder.ts';

/** What is kept of a cache folder. */
export interface CacheMountRecord {
  /** What the Dockerfile calls it: the id, or the target. */
  name: string;
  createdMs: number;
  lastUsedMs: number;
  uses: number;
}

/** A cache folder as it is listed. */
export interface CacheMountUsage extends CacheMountRecord {
  /** 64 hexadecimal digits. */
  id: string;
  sizeBytes: number;
  inUse: boolean;
}

/** A wish for a cache folder. */
export interface CacheMountRequest {
  name: string;
  /** Whether others may use it meanwhile: yes, no (they get another), no (they wait). */
  sharing: 'shared' | 'private' | 'locked';
  owner: { uid: number; gid: number };
  mode: number;
  /** Fills a new folder. */
  seed?: (path: string) => Promise<void>;
  signal: AbortSignal;
}

/** Ends on its own once the folder is released. */
interface Use {
  users: number;
  released: Promise<void>;
  release: () => void;
}

/** See the module's head. */
export class CacheMounts {
  readonly #folder: RecordFolder<CacheMountRecord>;
  readonly #nowMs: () => number;
  #records = new Map<string, CacheMountRecord>();
  readonly #uses = new Map<string, Use>();

  constructor(folder: string, nowMs: () => number) {
    this.#folder = new RecordFolder(folder, 'cache.json');
    this.#nowMs = nowMs;
  }

  async open(): Promise<void> {
    const { records, unfinished, damaged } = await this.#folder.load();
    this.#records = records;
    for (const id of [...unfinished, ...damaged]) await this.#folder.remove(id);
  }

  /** Gives a folder's path until `release` is called. @throws the signal's reason while it waits for a locked one */
  async acquire(request: CacheMountRequest): Promise<{ path: string; release: () => Promise<void> }> {
    const { signal, sharing } = request;
    let id = '';
    for (let copy = 0; ; ) {
      signal.throwIfAborted();
      id = hexOf(digestOf(`${request.name} ${copy}`));
      const use = this.#uses.get(id);
      if (!use || (sharing === 'shared' && use.users > 0)) break;
      if (sharing === 'private') copy++;
      else await Promise.race([use.released, aborted(signal)]);
    }
    const use = this.#uses.get(id) ?? newUse();
    // A locked folder is not counted, so that nobody shares it.
    use.users += sharing === 'shared' ? 1 : 0;
    this.#uses.set(id, use);
    try {
      return { path: await this.#prepare(id, request), release: () => this.#release(id, use) };
    } catch (error) {
      await this.#release(id, use);
      throw error;
    }
  }

  async #prepare(id: string, { name, owner, mode, seed }: CacheMountRequest): Promise<string> {
    const data = this.#dataPath(id);
    const record = this.#records.get(id) ?? { name, createdMs: this.#nowMs(), lastUsedMs: 0, uses: 0 };
    if (!this.#records.has(id)) {
      await mkdir(data, { recursive: true });
      await seed?.(data);
      await chown(data, owner.uid, owner.gid);
      await chmod(data, mode);
    }
    Object.assign(record, { lastUsedMs: this.#nowMs(), uses: record.uses + 1 });
    this.#records.set(id, record);
    await this.#folder.save(id, record);
    return data;
  }

  async #release(id: string, use: Use): Promise<void> {
    if (--use.users > 0) return;
    this.#uses.delete(id);
    use.release();
  }

  async list(): Promise<CacheMountUsage[]> {
    return Promise.all(
      [...this.#records].map(async ([id, record]) => ({
        ...record,
        id,
        sizeBytes: await treeBytes(this.#dataPath(id)),
        inUse: this.#uses.has(id),
      })),
    );
  }

  #dataPath(id: string): string {
    return join(this.#folder.pathOf(id), 'data');
  }

  /** Removes a folder that nothing uses. Returns whether it did. */
  async remove(id: string): Promise<boolean> {
    if (this.#uses.has(id) || !this.#records.delete(id)) return false;
    await this.#folder.remove(id);
    return true;
  }
}

function newUse(): Use {
  let release = (): void => {};
  const released = new Promise<void>((resolve) => {
    release = resolve;
  });
  return { users: 0, released, release };
}

function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
  });
}
