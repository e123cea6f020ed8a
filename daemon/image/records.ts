/**
 * What is known of images besides their blobs: one record per image, and the names. Held in memory, written through
 * atomically. Layout: `images/HEX.json`, `references.json`.
 */
import { mkdir, readdir, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { readJson, sweepTemporaries, writeJson } from '../store/durable.ts';
import { type Blob, hexOf } from './content.ts';
import type { Layer } from './layers.ts';

/** A layer of an image, with the blob that it came as. */
export interface LayerRecord extends Layer {
  blob: Blob;
  /** Its compressed form, when it was made for a registry: the same again needs no upload. */
  gzip?: Blob;
}

/** An image, apart from its configuration blob. */
export interface ImageRecord {
  /** Digest of the configuration. */
  id: string;
  /** Lowest first. */
  layers: LayerRecord[];
  /** The manifest that it was pulled by, whose bytes are kept: a push sends the same. */
  manifest?: Blob & { mediaType: string };
  /** The image that this one was made from by a build or commit on this machine. */
  parent?: string;
  /** What the step of a build that made it depends on: the same again gives this image without doing it. */
  cacheKey?: string;
  /** Milliseconds since the epoch; when it was last given a name. */
  lastTaggedMs?: number;
}

/** Names of images, by normal form (`docker.io/library/alpine:latest`, `...@sha256:...`), and the records. */
export class ImageRecords {
  readonly #folder: string;
  readonly #referencesPath: string;
  readonly #records = new Map<string, ImageRecord>();
  #references = new Map<string, string>();
  #writing: Promise<void> = Promise.resolve();

  constructor(root: string) {
    this.#folder = `${root}/images`;
    this.#referencesPath = `${root}/references.json`;
  }

  async open(): Promise<void> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    for (const folder of [this.#folder, dirname(this.#referencesPath)]) await sweepTemporaries(folder);
    for (const name of await readdir(this.#folder)) {
      const record = await readJson<ImageRecord>(`${this.#folder}/${name}`);
      if (record) this.#records.set(record.id, record);
    }
    const references = (await readJson<Record<string, string>>(this.#referencesPath)) ?? {};
    // A name is written after its image and removed before it: one without an image is of a crash in between.
    this.#references = new Map(Object.entries(references).filter(([, id]) => this.#records.has(id)));
  }

  get(id: string): ImageRecord | undefined {
    return this.#records.get(id);
  }

  list(): ImageRecord[] {
    return [...this.#records.values()];
  }

  /** The image with this name, in normal form. */
  resolve(reference: string): string | undefined {
    return this.#references.get(reference);
  }

  /** All names of an image, in normal form and in order. */
  referencesOf(id: string): string[] {
    return [...this.#references].flatMap(([name, of]) => (of === id ? [name] : [])).sort();
  }

  /** All names. */
  references(): [name: string, id: string][] {
    return [...this.#references];
  }

  async put(record: ImageRecord): Promise<void> {
    await writeJson(this.#path(record.id), record);
    this.#records.set(record.id, record);
  }

  async delete(id: string): Promise<void> {
    this.#records.delete(id);
    await rm(this.#path(id), { force: true });
  }

  async setReference(name: string, id: string): Promise<void> {
    this.#references.set(name, id);
    await this.#writeReferences();
  }

  async deleteReference(name: string): Promise<void> {
    if (this.#references.delete(name)) await this.#writeReferences();
  }

  #path(id: string): string {
    return `${this.#folder}/${hexOf(id)}.json`;
  }

  /** One write after the other: the last one written is the last state. */
  #writeReferences(): Promise<void> {
    const write = (): Promise<void> => writeJson(this.#referencesPath, Object.fromEntries(this.#references));
    this.#writing = this.#writing.then(write, write);
    return this.#writing;
  }
}
