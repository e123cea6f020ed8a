/**
 * Where images are kept: records, names, blobs and layers held together.
 *
 * Order of writes makes a crash harmless: blobs, then unpacked layers, then the image's record, then its names; and
 * the other way round when removing. What no record needs is removed when the daemon opens, or at once when an image
 * goes. An operation under way holds a lease on what it has made or found, so that a removal beside it leaves it alone.
 */
import type { Clock, Timer } from '#common/clock';
import { DrydockError, errorCode, errorMessage } from '#common/errors';
import type { Log } from '#common/log';
import { DAMAGED_RECORD } from '../store/record-folder.ts';
import { plainStream } from './archive.ts';
import { type ConfigFile, emitConfigFile, hostArchitecture, hostOs, parseConfigFile } from './config-file.ts';
import { type Blob, type ContentStore, digestOf, storageError } from './content.ts';
import type { HostFiles } from './host-tree.ts';
import { LAYERS_MAX, type LayerStore } from './layers.ts';
import type { PackSource } from './pack.ts';
import type { ImageRecord, ImageRecords, LayerRecord } from './records.ts';
import { formatFamiliar, formatNormal, isDigest, parseReference, parseTagged } from './reference.ts';
import type { Image, ImageConfig, ImageEvent, Removed } from './store.ts';
import type { FileWorkers } from './workers.ts';

/** What the images are kept in, and what else they need. */
export interface LibraryParts {
  content: ContentStore;
  layers: LayerStore;
  records: ImageRecords;
  workers: FileWorkers;
  /** Layers that containers stand on, whether or not their image still exists. */
  layersInUse: () => LayerRecord[];
  /** The layers of a container, and what it has written as one more. */
  rootOf: (containerId: string) => { layers: LayerRecord[]; packed(): Promise<PackSource> };
  log: Log;
  clock: Clock;
  onEvent: (event: ImageEvent) => void;
}

/** An image made of another one. */
export interface DerivedImage {
  base: ConfigFile | undefined;
  baseLayers: readonly LayerRecord[];
  /** Undefined when only the configuration changes. */
  layer: LayerRecord | undefined;
  config: ImageConfig;
  /** `created` is now, unless it is told. */
  step: { created_by: string; comment: string; author: string; created?: string | undefined };
  parentId: string | undefined;
  /** See {@link ImageRecord.cacheKey}. */
  cacheKey?: string;
  lease: Lease;
}

/** What a pull that failed had verified is kept this long for the next one. */
const FAILED_KEPT_MS = 10 * 60_000;

/** Digests that an operation under way needs. */
export type Lease = Set<string>;

function notFound(reference: string): DrydockError {
  return new DrydockError('ERR_IMAGE_NOT_FOUND', `No such image: ${reference}`);
}

/** See the module's head. */
export class Library {
  readonly parts: LibraryParts;
  readonly #configs = new Map<string, ConfigFile>();
  readonly #leases = new Set<Lease>();
  /** Of operations that have failed and may be tried again, with the timers that end them. */
  readonly #kept = new Map<Lease, Timer>();

  constructor(parts: LibraryParts) {
    this.parts = parts;
  }

  /** Reads the configurations, and removes blobs and layers that nothing needs if it is to `sweep`. Returns what was removed. */
  async open({ sweep }: { sweep: boolean }): Promise<{ blobs: number; layers: number }> {
    const { content, layers, records } = this.parts;
    for (const record of records.list()) {
      if (!(await content.has(record.id)))
        await this.#giveUp(record.id, 'forgetting an image whose configuration is gone');
      else if (await this.#hasLostLayers(record))
        await this.#giveUp(
          record.id,
          'forgetting an image that had not come to the disk when the machine stopped',
        );
      else if (!(await this.#isReadable(record.id))) records.doWithout(record.id);
    }
    await layers.discardLost();
    if (!sweep || records.isDamaged) return { blobs: 0, layers: 0 };
    const needed = this.#needed();
    const blobs = (await content.list()).filter((digest) => !needed.has(digest));
    const unused = layers.list().filter((diffId) => !needed.has(diffId));
    for (const digest of blobs) await content.delete(digest);
    for (const diffId of unused) await layers.delete(diffId);
    return { blobs: blobs.length, layers: unused.length };
  }

  /** Whether the configuration of an image is one; it is told when not. */
  async #isReadable(id: string): Promise<boolean> {
    try {
      await this.#configOf(id);
      return true;
    } catch (error) {
      const path = this.parts.content.path(id);
      this.parts.log.error({ path, reason: errorMessage(error) }, DAMAGED_RECORD);
      return false;
    }
  }

  async #giveUp(id: string, why: string): Promise<void> {
    this.parts.log.warn({ id, names: this.parts.records.referencesOf(id) }, why);
    await this.#forget(id);
  }

  /** Whether a layer is here in no form, by a loss of power: what else takes layers away is for fsck to tell. */
  async #hasLostLayers({ layers }: ImageRecord): Promise<boolean> {
    const { content, layers: unpacked } = this.parts;
    for (const { diffId, blob } of layers)
      if (!unpacked.get(diffId) && (unpacked.isLost(diffId) || content.isLost(blob.digest)))
        if (!(await content.has(blob.digest))) return true;
    return false;
  }

  /** Finds an image, and the name (in normal form) by which it was found. */
  resolve(reference: string): { record: ImageRecord; name: string | undefined } {
    const { records } = this.parts;
    const found = (
      id: string | undefined,
      name?: string,
    ): { record: ImageRecord; name: string | undefined } => {
      const record = id === undefined ? undefined : records.get(id);
      if (!record) throw notFound(reference);
      return { record, name };
    };
    if (isDigest(reference)) return found(reference);
    if (/^[a-f0-9]{64}$/.test(reference)) return found(`sha256:${reference}`);
    const parsed = parseTagged(reference);
    for (const name of [formatNormal(parsed), formatNormal({ ...parsed, tag: undefined })]) {
      const id = records.resolve(name);
      if (id !== undefined) return found(id, name);
    }
    const prefix = reference.replace(/^sha256:/, '');
    if (!/^[a-f0-9]+$/.test(prefix)) throw notFound(formatFamiliar(parsed));
    const matches = records.list().filter((record) => record.id.startsWith(`sha256:${prefix}`));
    if (matches.length > 1)
      throw new DrydockError('ERR_AMBIGUOUS_ID', `ambiguous image id prefix: ${reference}`);
    if (matches.length === 0) throw notFound(formatFamiliar(parsed));
    return found(matches[0]!.id);
  }

  image(record: ImageRecord): Image {
    const file = this.#configs.get(record.id)!;
    const names = this.parts.records.referencesOf(record.id);
    const familiar = names.map((name) => formatFamiliar(parseReference(name)));
    return {
      id: record.id,
      tags: familiar.filter((name) => !name.includes('@')),
      digests: familiar.filter((name) => name.includes('@')),
      config: file.config,
      architecture: file.architecture,
      os: file.os,
      ...(file.variant !== undefined && { variant: file.variant }),
      ...(file.author !== undefined && { author: file.author }),
      ...(file.comment !== undefined && { comment: file.comment }),
      created: file.created ?? '0001-01-01T00:00:00Z',
      history: file.history,
      diffIds: record.layers.map((layer) => layer.diffId),
      layerBytes: record.layers.map((layer) => layer.bytes),
      sizeBytes: record.layers.reduce((sum, layer) => sum + layer.bytes, 0),
      ...(record.parent !== undefined && { parent: record.parent }),
      ...(record.lastTaggedMs !== undefined && { lastTaggedMs: record.lastTaggedMs }),
    };
  }

  /** Deletes an image that has lost its last name and was made by nobody's wish; its layers stay where they are used. */
  async dropUntagged(id: string): Promise<void> {
    if (this.parts.records.referencesOf(id).length === 0 && this.childrenOf(id).length === 0)
      await this.delete(id);
  }

  /** The image with this name or id, if there is one. */
  find(reference: string): Image | undefined {
    try {
      return this.image(this.resolve(reference).record);
    } catch (error) {
      if (errorCode(error) === 'ERR_IMAGE_NOT_FOUND') return undefined;
      throw error;
    }
  }

  /** The configuration document of an image, if it is still here. */
  findConfig(id: string): ConfigFile | undefined {
    return this.#configs.get(id);
  }

  /** The configuration document of an image, as parsed. */
  configOf(id: string): ConfigFile {
    const file = this.#configs.get(id);
    if (!file) throw notFound(id);
    return file;
  }

  /** The layers of an image, with their blobs. */
  layersOf(id: string): LayerRecord[] {
    return this.parts.records.get(id)?.layers ?? [];
  }

  childrenOf(id: string): string[] {
    return this.parts.records.list().flatMap((record) => (record.parent === id ? [record.id] : []));
  }

  layerBytes(): number {
    const { layers } = this.parts;
    return layers.list().reduce((sum, diffId) => sum + (layers.get(diffId)?.bytes ?? 0), 0);
  }

  /** Keeps what these digests name until {@link release}. */
  openLease(digests: Iterable<string>): Lease {
    const lease: Lease = new Set(digests);
    this.#leases.add(lease);
    return lease;
  }

  /**
   * Runs an operation that makes or finds blobs and layers; what it leaves unused is removed when it ends.
   * @param mayResume whether after this failure it may be tried again soon, and what it had is kept for that
   */
  async lease<T>(
    operation: (lease: Lease) => Promise<T>,
    mayResume: (error: unknown) => boolean = () => false,
  ): Promise<T> {
    const lease = this.openLease([]);
    let isKept = false;
    try {
      const result = await operation(lease);
      await this.releaseKept((kept) => [...kept].some((digest) => lease.has(digest)));
      return result;
    } catch (error) {
      isKept = mayResume(error);
      throw storageError(error);
    } finally {
      if (isKept) this.#keep(lease);
      else await this.release(lease);
    }
  }

  #keep(lease: Lease): void {
    const { clock, log } = this.parts;
    const release = (): void => {
      this.#kept.delete(lease);
      this.release(lease).catch((error) => log.warn({ error }, 'the rest of a failed pull was not removed'));
    };
    this.#kept.set(lease, clock.arm(clock.now() + FAILED_KEPT_MS, release));
  }

  /** Ends the timers; what they would have removed is found at the next start. */
  close(): void {
    for (const timer of this.#kept.values()) timer.cancel();
  }

  /** Lets go of what operations that failed have left for another try. */
  async releaseKept(matches: (lease: Lease) => boolean = () => true): Promise<void> {
    for (const [lease, timer] of this.#kept) {
      if (!matches(lease)) continue;
      timer.cancel();
      this.#kept.delete(lease);
      await this.release(lease);
    }
  }

  /** Stores a layer from its tar, compressed or not, and unpacks it. */
  async addLayer(tar: AsyncIterable<Buffer>, lease: Lease): Promise<LayerRecord> {
    const writer = await this.parts.content.writer();
    let blob: Blob;
    try {
      for await (const chunk of tar) await writer.write(chunk);
      blob = await writer.commit();
    } catch (error) {
      await writer.abort();
      throw error;
    }
    lease.add(blob.digest);
    return this.unpackLayer(blob, undefined, lease);
  }

  /** Makes a layer of files that are on this machine; it has no blob but what packing it again gives. */
  async makeLayer(source: PackSource | HostFiles, lease: Lease, signal?: AbortSignal): Promise<LayerRecord> {
    const { diffId, bytes, tarBytes } = await this.parts.layers.make(source, signal);
    lease.add(diffId);
    return (
      this.recordedLayer(diffId) ?? { diffId, bytes, tarBytes, blob: { digest: diffId, size: tarBytes } }
    );
  }

  /** The layer's archive as it is sent to others: the blob, or when there is none the packed files. */
  async *layerBlob({ blob }: LayerRecord): AsyncGenerator<Buffer> {
    const { content, layers } = this.parts;
    if (await content.has(blob.digest)) yield* content.stream(blob.digest) as AsyncIterable<Buffer>;
    else yield* layers.pack(blob.digest);
  }

  /** The layer's archive, uncompressed. */
  async *layerTar(layer: LayerRecord): AsyncGenerator<Buffer> {
    if (layer.blob.digest === layer.diffId) yield* this.layerBlob(layer);
    else yield* await plainStream(this.parts.content.stream(layer.blob.digest));
  }

  /** Whether all layers of an image are here, packed or unpacked. */
  async isWhole(id: string): Promise<boolean> {
    const { content, layers } = this.parts;
    for (const { diffId, blob } of this.layersOf(id))
      if (!layers.get(diffId) && !(await content.has(blob.digest))) return false;
    return true;
  }

  /** Unpacks a stored blob. @throws what {@link LayerStore.ensure} throws */
  async unpackLayer(blob: Blob, diffId: string | undefined, lease: Lease): Promise<LayerRecord> {
    lease.add(blob.digest);
    if (diffId !== undefined) lease.add(diffId);
    const layer = await this.parts.layers.ensure(blob, diffId);
    lease.add(layer.diffId);
    return { diffId: layer.diffId, bytes: layer.bytes, tarBytes: layer.tarBytes, blob };
  }

  /** Records an image whose layers are all there. */
  async addImage(
    configBytes: Buffer,
    layers: LayerRecord[],
    lease: Lease,
    more: Pick<ImageRecord, 'parent' | 'cacheKey' | 'manifest'> = {},
  ): Promise<ImageRecord> {
    const { content, records } = this.parts;
    const id = digestOf(configBytes);
    lease.add(id);
    const known = records.get(id);
    if (known) return known;
    await content.put(configBytes);
    await this.#configOf(id);
    const record: ImageRecord = { id, layers, ...more };
    await records.put(record);
    return record;
  }

  /** Gives an image a name in normal form, taking it from the image that had it. */
  async setName(id: string, name: string): Promise<void> {
    const { records, clock } = this.parts;
    const record = records.get(id);
    if (!record) throw notFound(id);
    await records.setReference(name, id);
    await records.put({ ...record, lastTaggedMs: clock.wallMs() });
  }

  /** Records the image that a step (a commit, an instruction of a build) makes of another one. */
  async derive(step: DerivedImage): Promise<ImageRecord> {
    const created = step.step.created ?? this.now();
    const { base, layer } = step;
    const layers = [...step.baseLayers, ...(layer ? [layer] : [])];
    if (layers.length > LAYERS_MAX)
      throw new DrydockError(
        'ERR_BAD_PARAMETER',
        `max depth exceeded: the image would have ${layers.length} layers`,
      );
    const history: Image['history'][number] = { created };
    if (step.step.created_by) history.created_by = step.step.created_by;
    if (step.step.comment) history.comment = step.step.comment;
    if (step.step.author) history.author = step.step.author;
    if (!layer) history.empty_layer = true;
    const author = step.step.author || base?.author;
    const file: ConfigFile = {
      architecture: base?.architecture ?? hostArchitecture(),
      os: base?.os ?? hostOs(),
      ...(base?.variant !== undefined && { variant: base.variant }),
      ...(author && { author }),
      ...(step.step.comment && { comment: step.step.comment }),
      created,
      config: step.config,
      history: [...(base?.history ?? []), history],
      rootfs: { type: 'layers', diff_ids: layers.map((each) => each.diffId) },
    };
    const { parentId, cacheKey } = step;
    return this.addImage(emitConfigFile(file), layers, step.lease, {
      ...(parentId !== undefined && { parent: parentId }),
      ...(cacheKey !== undefined && { cacheKey }),
    });
  }

  /** The record of a layer that some image has already: its blob is kept rather than a second form of it. */
  recordedLayer(diffId: string): LayerRecord | undefined {
    for (const record of this.parts.records.list()) {
      const layer = record.layers.find((each) => each.diffId === diffId);
      if (layer) return layer;
    }
    return undefined;
  }

  now(): string {
    return new Date(this.parts.clock.wallMs()).toISOString();
  }

  /**
   * Tells of an event as moby's LogImageEvent does.
   * @param subject the image's id; for pull and push the reference.
   */
  emit(action: string, subject: string, name: string = subject): void {
    const labels = this.find(subject)?.config.Labels ?? {};
    this.parts.onEvent({ action, id: subject, attributes: { ...labels, name } });
  }

  async delete(id: string): Promise<Removed[]> {
    const record = this.parts.records.get(id);
    if (!record) return [];
    this.emit('delete', id);
    await this.#forget(id);
    const gone = await this.#removeUnneeded(this.digestsOf(record));
    const chains = chainIds(record.layers.map((layer) => layer.diffId));
    const layers = record.layers.flatMap((layer, index) => (gone.has(layer.diffId) ? [chains[index]!] : []));
    return [{ Deleted: id }, ...layers.reverse().map((chain) => ({ Deleted: chain }))];
  }

  async #forget(id: string): Promise<void> {
    for (const name of this.parts.records.referencesOf(id)) await this.parts.records.deleteReference(name);
    await this.parts.records.delete(id);
    this.#configs.delete(id);
  }

  digestsOf(record: ImageRecord): string[] {
    const layers = record.layers.flatMap((layer) => [layer.diffId, layer.blob.digest]);
    return [record.id, ...layers, ...(record.manifest ? [record.manifest.digest] : [])];
  }

  async #configOf(id: string): Promise<ConfigFile> {
    const known = this.#configs.get(id);
    if (known) return known;
    const file = parseConfigFile(await this.parts.content.read(id));
    this.#configs.set(id, file);
    return file;
  }

  /** Everything that an image, a container or an operation under way needs. */
  #needed(): Set<string> {
    const needed = new Set(this.parts.records.list().flatMap((record) => this.digestsOf(record)));
    for (const layer of this.parts.layersInUse()) needed.add(layer.diffId).add(layer.blob.digest);
    for (const lease of this.#leases) for (const digest of lease) needed.add(digest);
    return needed;
  }

  async release(lease: Lease): Promise<void> {
    this.#leases.delete(lease);
    await this.#removeUnneeded([...lease]);
  }

  /** Removes those of the blobs and layers that nothing needs any more. */
  async #removeUnneeded(digests: string[]): Promise<Set<string>> {
    const { content, layers } = this.parts;
    const needed = this.#needed();
    const gone = new Set(digests.filter((digest) => !needed.has(digest)));
    for (const digest of gone) {
      await layers.delete(digest);
      await content.delete(digest);
    }
    return gone;
  }
}

/** Chain ids of the OCI image specification: each names a layer together with all below it. */
export function chainIds(diffIds: readonly string[]): string[] {
  const chains: string[] = [];
  for (const diffId of diffIds)
    chains.push(chains.length === 0 ? diffId : digestOf(`${chains.at(-1)} ${diffId}`));
  return chains;
}
