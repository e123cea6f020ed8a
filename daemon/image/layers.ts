/**
 * Unpacked layers, one folder per diff id. With overlayfs a layer's folder does not depend on what is below it, so
 * images that share a layer anywhere share its folder. A folder gets its name only when it is complete and its digest
 * is right; a layer that is missing (another driver before, a removed folder) is unpacked again from its blob.
 *
 * A layer that was made on this machine has no archive beside its folder, which takes half the time and half the space:
 * packing the folder gives the bytes that its digest is of, whenever somebody wants them.
 *
 * Unpacked files are synced later ({@link DelayedSync}). After a crash of the machine those without the mark are
 * unpacked again from their blobs; those that were made here just before it are lost, and with them what stands on them.
 *
 * Layout: `layers/HEX/{diff/,layer.json}`, and `l/SHORT`, symlinks to the diff folders: the options of mount(2) must
 * fit one page, and 128 full paths would not.
 */
import { createHash } from 'node:crypto';
import {
  mkdir,
  mkdtemp,
  open,
  readdir,
  readlink,
  rename,
  rm,
  symlink,
  unlink,
  writeFile,
} from 'node:fs/promises';
import { basename } from 'node:path';
import { DrydockError, errorMessage } from '#common/errors';
import type { Log } from '#common/log';
import { sweepTemporaries, writeJson } from '../store/durable.ts';
import { DAMAGED_RECORD, readRecord } from '../store/record-folder.ts';
import { removeTree } from '../store/remove-tree.ts';
import { DIGEST, FLAG, NUMBER, record, type Shape, TEXT } from '../store/shape.ts';
import { folderBytes } from '../store/size.ts';
import { type Compression, detectCompression, MAGIC_BYTES, unsupportedCompression } from './compression.ts';
import { type Blob, type ContentStore, hexOf } from './content.ts';
import type { DelayedSync, Unsynced } from './delayed-sync.ts';
import type { WhiteoutForm } from './extract.ts';
import type { UnpackResult } from './file-worker.ts';
import type { HostFiles } from './host-tree.ts';
import { type PackSource, packTree } from './pack.ts';
import { isDigest } from './reference.ts';
import { badArchive } from './tar/reader.ts';
import type { FileWorkers } from './workers.ts';

/** Layers of one image: overlayfs's own limit is higher, docker's is this. */
export const LAYERS_MAX = 128;
const SHORT_NAME_LENGTH = 8;
const TEMPORARY_PREFIX = '.tmp-';

/** A layer as it is kept. */
export interface Layer {
  /** Digest of the uncompressed tar. */
  diffId: string;
  /** Bytes of its files when unpacked. */
  bytes: number;
  /** Bytes of the uncompressed tar. */
  tarBytes: number;
}

/** The record beside a layer's folder. */
export interface LayerFile extends Layer {
  shortName: string;
  /** The run of the machine in which it was unpacked. */
  bootId: string;
  /** Whether its files are known to be on the disk. */
  synced: boolean;
  /** It was made on this machine, and has no blob. */
  isMade: boolean;
}

const LAYER_SHAPE: Shape = record({
  diffId: DIGEST,
  bytes: NUMBER,
  tarBytes: NUMBER,
  shortName: { type: 'string', pattern: '^[0-9a-f]{8,64}$' },
  bootId: TEXT,
  synced: FLAG,
  isMade: FLAG,
});

/** The folder of unpacked layers. */
export class LayerStore implements Unsynced {
  readonly #root: string;
  readonly #content: ContentStore;
  readonly #whiteouts: WhiteoutForm;
  readonly #log: Log;
  readonly #workers: FileWorkers;
  readonly #layers = new Map<string, LayerFile>();
  /** Those that had not come to the disk when the machine stopped. */
  readonly #lost = new Set<string>();
  /** Unpackings under way, by blob digest. */
  readonly #pending = new Map<string, Promise<Layer>>();
  readonly #bytesMax: number;
  readonly #bootId: string;
  readonly #sync: DelayedSync;

  constructor(parts: {
    root: string;
    content: ContentStore;
    whiteouts: WhiteoutForm;
    workers: FileWorkers;
    bootId: string;
    sync: DelayedSync;
    log: Log;
    bytesMax: number;
  }) {
    this.#workers = parts.workers;
    this.#root = parts.root;
    this.#content = parts.content;
    this.#whiteouts = parts.whiteouts;
    this.#log = parts.log;
    this.#bytesMax = parts.bytesMax;
    this.#bootId = parts.bootId;
    this.#sync = parts.sync;
  }

  /** Reads what is there, and removes what was in the making when the last daemon ended. */
  async open(): Promise<void> {
    await mkdir(`${this.#root}/layers`, { recursive: true, mode: 0o700 });
    await mkdir(`${this.#root}/l`, { recursive: true, mode: 0o700 });
    for (const name of await readdir(`${this.#root}/layers`)) {
      const folder = `${this.#root}/layers/${name}`;
      if (name.startsWith(TEMPORARY_PREFIX)) await this.#sweepFolder(folder);
      else {
        const file = (await readLayerFile(folder, this.#bootId)) ?? (await this.#remake(name));
        if (file) {
          await sweepTemporaries(folder);
          this.#layers.set(file.diffId, file);
        } else this.#lost.add(`sha256:${name}`);
      }
    }
    const links = new Set(await readdir(`${this.#root}/l`));
    for (const layer of this.#layers.values()) {
      if (!links.delete(layer.shortName) || !(await this.#linkIsRight(layer))) await this.#link(layer);
    }
    for (const name of links) await unlink(`${this.#root}/l/${name}`);
    this.#sync.add(this);
    if (this.unsynced()) this.#sync.soon();
  }

  /** Whether a layer was lost with the machine's power. */
  isLost(diffId: string): boolean {
    return this.#lost.has(diffId);
  }

  /** Removes what is left of lost layers; before that, nothing else may need them. */
  async discardLost(): Promise<void> {
    for (const diffId of this.#lost) await this.#sweepFolder(this.#folder(diffId));
  }

  /** The record of a layer whose own is damaged: when its files pack to what it is called, nothing is lost. */
  async #remake(name: string): Promise<LayerFile | undefined> {
    const diffId = `sha256:${name}`;
    const path = `${this.#folder(diffId)}/layer.json`;
    const found = await readRecord<LayerFile>(path, LAYER_SHAPE);
    if (!found || 'record' in found || !isDigest(diffId)) return undefined;
    let tarBytes = 0;
    try {
      for await (const chunk of this.pack(diffId)) tarBytes += chunk.length;
    } catch (error) {
      this.#log.error({ path, reason: found.damage, files: errorMessage(error) }, DAMAGED_RECORD);
      return undefined;
    }
    this.#log.warn(
      { path, reason: found.damage },
      'the record of a layer was damaged, and is made anew: its files are whole',
    );
    const layer: LayerFile = {
      diffId,
      bytes: await folderBytes(this.diffPath(diffId)),
      tarBytes,
      shortName: this.#freeShortName(diffId),
      bootId: this.#bootId,
      synced: false,
      // It can be packed, so that whether there is an archive of it makes no difference.
      isMade: true,
    };
    await writeJson(path, layer);
    return layer;
  }

  get syncPath(): string {
    return this.#root;
  }

  unsynced(): (() => Promise<void>) | undefined {
    const waiting = [...this.#layers.values()].filter((layer) => !layer.synced);
    if (waiting.length === 0) return undefined;
    return async () => {
      for (const layer of waiting) {
        if (this.#layers.get(layer.diffId) !== layer) continue;
        await writeJson(`${this.#folder(layer.diffId)}/layer.json`, { ...layer, synced: true });
        layer.synced = true;
      }
    };
  }

  get(diffId: string): Layer | undefined {
    return this.#layers.get(diffId);
  }

  list(): string[] {
    return [...this.#layers.keys()];
  }

  /** The folder with the layer's files. */
  diffPath(diffId: string): string {
    return `${this.#folder(diffId)}/diff`;
  }

  /** Its name below `l/`. */
  shortName(diffId: string): string {
    const layer = this.#layers.get(diffId);
    if (!layer) throw new Error(`layer ${diffId} is not unpacked`);
    return layer.shortName;
  }

  /**
   * Makes sure that the layer in `blob` is unpacked.
   * @param diffId what it must hash to when uncompressed, if that is known.
   * @throws DrydockError ERR_BAD_ARCHIVE, ERR_DIGEST_MISMATCH, ERR_NO_SPACE; then nothing of it is kept.
   */
  async ensure(blob: Blob, diffId?: string): Promise<Layer> {
    const known = diffId === undefined ? undefined : this.#layers.get(diffId);
    if (known) return known;
    let pending = this.#pending.get(blob.digest);
    if (!pending) {
      pending = this.#unpack(blob, diffId).finally(() => this.#pending.delete(blob.digest));
      this.#pending.set(blob.digest, pending);
    }
    const layer = await pending;
    if (diffId !== undefined && layer.diffId !== diffId) throw mismatch(layer.diffId, diffId);
    return layer;
  }

  /** Makes a layer of files that are on this machine. @throws ERR_BAD_ARCHIVE, ERR_NO_SPACE; then nothing is kept. */
  make(source: PackSource | HostFiles, signal?: AbortSignal): Promise<Layer> {
    const job = { source, whiteouts: this.#whiteouts, bytesMax: this.#bytesMax };
    return this.#add(true, (targetPath) => this.#workers.make({ ...job, targetPath }, signal));
  }

  /** The archive of a layer's folder. @throws ERR_DIGEST_MISMATCH at its end when its files were changed on the disk */
  async *pack(diffId: string): AsyncGenerator<Buffer> {
    const hash = createHash('sha256');
    const overlay = this.#whiteouts === 'overlay';
    for (const chunk of packTree(this.diffPath(diffId), { overlay, maps: this.#workers.maps })) {
      hash.update(chunk);
      yield chunk;
    }
    const digest = `sha256:${hash.digest('hex')}`;
    if (digest !== diffId) throw mismatch(digest, diffId);
  }

  async delete(diffId: string): Promise<void> {
    const layer = this.#layers.get(diffId);
    if (!layer) return;
    this.#layers.delete(diffId);
    await rm(`${this.#root}/l/${layer.shortName}`, { force: true });
    // Renamed first, so that a crash in the middle of the removal leaves no half layer under its name.
    const doomed = await mkdtemp(`${this.#root}/layers/${TEMPORARY_PREFIX}`);
    await rename(this.#folder(diffId), `${doomed}/layer`);
    await removeTree(doomed);
  }

  #folder(diffId: string): string {
    return `${this.#root}/layers/${hexOf(diffId)}`;
  }

  async #unpack(blob: Blob, expected: string | undefined): Promise<Layer> {
    if (!(await this.#content.has(blob.digest))) throw lost(blob.digest);
    const blobPath = this.#content.path(blob.digest);
    const job = {
      blobPath,
      digest: blob.digest,
      compression: await detectBlob(blobPath),
      whiteouts: this.#whiteouts,
      bytesMax: this.#bytesMax,
      prefix: '',
    };
    return this.#add(false, async (targetPath) => {
      const result = await this.#workers.unpack({ ...job, targetPath });
      if (expected !== undefined && result.diffId !== expected) throw mismatch(result.diffId, expected);
      return result;
    });
  }

  /** Takes in what `fill` puts into a new folder. */
  async #add(isMade: boolean, fill: (targetPath: string) => Promise<UnpackResult>): Promise<Layer> {
    const temporary = await mkdtemp(`${this.#root}/layers/${TEMPORARY_PREFIX}`);
    try {
      await mkdir(`${temporary}/diff`, { mode: 0o755 });
      const result = await fill(`${temporary}/diff`);
      const layer: LayerFile = {
        diffId: result.diffId,
        bytes: result.bytes,
        tarBytes: result.tarBytes,
        shortName: this.#freeShortName(result.diffId),
        bootId: this.#bootId,
        synced: false,
        isMade,
      };
      const known = this.#layers.get(layer.diffId);
      if (known) return known; // the same files in another compression, or made before
      await writeFile(`${temporary}/layer.json`, JSON.stringify(layer));
      if (isMade) await this.#content.noteFresh(layer.diffId);
      await rename(temporary, this.#folder(layer.diffId));
      await this.#link(layer);
      this.#layers.set(layer.diffId, layer);
      this.#sync.soon();
      return layer;
    } finally {
      await removeTree(temporary);
    }
  }

  #freeShortName(diffId: string): string {
    const hex = hexOf(diffId);
    const taken = new Set([...this.#layers.values()].map((layer) => layer.shortName));
    let length = SHORT_NAME_LENGTH;
    while (taken.has(hex.slice(0, length))) length++;
    return hex.slice(0, length);
  }

  #linkTarget(layer: LayerFile): string {
    return `../layers/${hexOf(layer.diffId)}/diff`;
  }

  async #linkIsRight(layer: LayerFile): Promise<boolean> {
    return (await readlink(`${this.#root}/l/${layer.shortName}`)) === this.#linkTarget(layer);
  }

  async #link(layer: LayerFile): Promise<void> {
    const path = `${this.#root}/l/${layer.shortName}`;
    await rm(path, { force: true });
    await symlink(this.#linkTarget(layer), path);
  }

  async #sweepFolder(folder: string): Promise<void> {
    this.#log.info({ folder }, 'removing an unfinished layer');
    await removeTree(folder);
  }
}

function mismatch(actual: string, expected: string): DrydockError {
  return new DrydockError(
    'ERR_DIGEST_MISMATCH',
    `a layer has the digest ${actual} instead of ${expected}, which the image's configuration states. Make or fetch the image again.`,
  );
}

function lost(diffId: string): DrydockError {
  return new DrydockError(
    'ERR_LAYER_LOST',
    `the layer ${diffId} is not here any more: it was made on this machine with another storage driver, or its files were lost. Build the image again, or start the daemon with the driver that it was made with.`,
  );
}

/** Reads the record beside a layer's folder; undefined when its files can't be relied on in this run of the machine. */
export async function readLayerFile(folder: string, bootId: string): Promise<LayerFile | undefined> {
  const found = await readRecord<LayerFile>(`${folder}/layer.json`, LAYER_SHAPE);
  if (!found || 'damage' in found || found.record.diffId !== `sha256:${basename(folder)}`) return undefined;
  return found.record.synced || found.record.bootId === bootId ? found.record : undefined;
}

/** How a file is compressed. @throws ERR_BAD_ARCHIVE for ways that we can't read */
export async function detectBlob(path: string): Promise<Compression> {
  const handle = await open(path, 'r');
  try {
    const { buffer } = await handle.read(Buffer.alloc(MAGIC_BYTES), 0, MAGIC_BYTES, 0);
    const unsupported = unsupportedCompression(buffer);
    if (unsupported) throw badArchive(`it is compressed with ${unsupported}; use gzip, zstd or none`);
    return detectCompression(buffer);
  } finally {
    await handle.close();
  }
}
