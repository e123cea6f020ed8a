/** What the successor of a killed daemon must know of its jails: a file for each, in a folder of the exec root. */
import { mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { writeJson } from '../../store/durable.ts';

const CONTAINER_ID = /^[0-9a-f]{64}$/;

/** Of one jail. */
export interface Note {
  owner: number;
  rootPath: string;
}

/** See the module's head. */
export class JailNotes {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
  }

  async open(): Promise<void> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
  }

  write(id: string, note: Note): Promise<void> {
    return writeJson(join(this.#folder, id), note);
  }

  remove(id: string): Promise<void> {
    return rm(join(this.#folder, id));
  }

  /** Of jails that `known` does not have. One that was being written is removed: its jail was not made yet. */
  async left(known: (id: string) => boolean): Promise<[id: string, note: Note][]> {
    const notes: [string, Note][] = [];
    for (const id of await readdir(this.#folder).catch(() => [])) {
      if (known(id)) continue;
      const path = join(this.#folder, id);
      if (CONTAINER_ID.test(id)) notes.push([id, JSON.parse(await readFile(path, 'utf8')) as Note]);
      else await rm(path);
    }
    return notes;
  }

  async close(): Promise<void> {
    await rm(this.#folder, { recursive: true, force: true });
  }
}
