/**
 * What is known of images besides their blobs: one record per image, and the names. Held in memory, written through
 * atomically. Layout: `images/HEX.json`, `references.json`.
 */
import { mkdir, readdir, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { type Log, nullLog } from '#common/log';
import { damagedFile, readJson, sweepTemporaries, writeJson } from '../store/durable.ts';
import { DAMAGED_RECORD, FOREIGN_FILE, readRecord } from '../store/record-folder.ts';
import { DIGEST, misfit, NUMBER, record, type Shape, TEXT, TEXTS_BY_KEY } from '../store/shape.ts';
import { type Blob, hexOf } from './content.ts';
import type { Layer } from './layers.ts';
import { isReference } from './reference.ts';

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

const BLOB: Shape = record({ digest: DIGEST, size: NUMBER });
/** See {@link LayerRecord}. */
export const LAYER_RECORD_SHAPE: Shape = record(
  { diffId: DIGEST, bytes: NUMBER, tarBytes: NUMBER, blob: BLOB },
  { gzip: BLOB },
);
/** See {@link ImageRecord}. */
export const IMAGE_SHAPE: Shape = record(
  { id: DIGEST, layers: { type: 'array', items: LAYER_RECORD_SHAPE } },
  {
    manifest: record({ digest: DIGEST, size: NUMBER, mediaType: TEXT }),
    parent: DIGEST,
    cacheKey: TEXT,
    lastTaggedMs: NUMBER,
  },
);

/** Names of images, by normal form (`docker.io/library/alpine:latest`, `...@sha256:...`), and the records. */
export class ImageRecords {
  readonly #folder: string;
  readonly #referencesPath: string;
  readonly #log: Log;
  readonly #records = new Map<string, ImageRecord>();
  readonly #references = new Map<string, string>();
  #writing: Promise<void> = Promise.resolve();

  #isDamaged = false;

  constructor(root: string, log: Log = nullLog) {
    this.#log = log;
    this.#folder = `${root}/images`;
    this.#referencesPath = `${root}/references.json`;
  }

  /**
   * Reads the records. A damaged one is told, and its image done without.
   * @throws ERR_STORE_DAMAGED when it is the names that are damaged: all images would seem to be nobody's
   */
  async open(): Promise<void> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    for (const folder of [this.#folder, dirname(this.#referencesPath)]) await sweepTemporaries(folder);
    for (const name of await readdir(this.#folder)) {
      const path = `${this.#folder}/${name}`;
      const hex = /^([0-9a-f]{64})\.json$/.exec(name)?.[1];
      if (hex === undefined) {
        this.#log.warn({ path }, FOREIGN_FILE);
        continue;
      }
      const found = await readRecord<ImageRecord>(path, IMAGE_SHAPE, `sha256:${hex}`, ({ id }) => id);
      if (found && 'record' in found) this.#records.set(found.record.id, found.record);
      else if (found) {
        this.#isDamaged = true;
        this.#log.error({ path, reason: found.damage }, DAMAGED_RECORD);
      }
    }
    const references = (await readJson<Record<string, string>>(this.#referencesPath)) ?? {};
    const damage = misfit(references, TEXTS_BY_KEY);
    if (damage !== undefined) throw damagedFile(this.#referencesPath, damage);
    // A name is written after its image and removed before it: one without an image is of a crash in between.
    const names = Object.entries(references).filter(([, id]) => this.#records.has(id));
    for (const [name, id] of names)
      if (isReference(name)) this.#references.set(name, id);
      else this.#log.error({ path: this.#referencesPath, reason: `${name} is no name` }, DAMAGED_RECORD);
  }

  /** Whether an image is done without since something of it is damaged: then nobody knows all that images need. */
  get isDamaged(): boolean {
    return this.#isDamaged;
  }

  /** Leaves a damaged image out, and its record on the disk as it is. */
  doWithout(id: string): void {
    this.#isDamaged = true;
    this.#records.delete(id);
    for (const [name, of] of this.#references) if (of === id) this.#references.delete(name);
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
