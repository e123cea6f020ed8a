/**
 * The images of this machine: records, names, blobs and layers held together.
 *
 * Order of writes makes a crash harmless: blobs, then unpacked layers, then the image's record, then its names; and
 * the other way round when removing. What no record needs is removed when the daemon opens, or at once when an image
 * goes. An operation under way holds a lease on what it has made or found, so that a removal beside it leaves it alone.
 */
import { Readable } from 'node:stream';
import type { Clock } from '#common/clock';
import { DrydockError } from '#common/errors';
import type { Log } from '#common/log';
import { archivedImages, type SpooledArchive, spoolArchive } from './archive.ts';
import { applyChangeLines } from './changes.ts';
import { type ConfigFile, emitConfigFile, hostArchitecture, hostOs, parseConfigFile } from './config-file.ts';
import { type Blob, type ContentStore, digestOf, storageError } from './content.ts';
import { LAYERS_MAX, type LayerStore } from './layers.ts';
import { parsePlatform, selectsPlatform } from './platform.ts';
import type { ImageRecord, ImageRecords, LayerRecord } from './records.ts';
import {
  formatFamiliar,
  formatNormal,
  isDigest,
  parseReference,
  parseTagged,
  type Reference,
} from './reference.ts';
import { planRemoval } from './remove.ts';
import { saveArchive } from './save.ts';
import type { Image, ImageEvent, ImageStore, ImageUsers, Progress, Removed, RemoveOptions } from './store.ts';
import { badArchive } from './tar/reader.ts';

/** What the images are kept in, and what else they need. */
export interface ImagesParts {
  content: ContentStore;
  layers: LayerStore;
  records: ImageRecords;
  /** Layers that containers stand on, whether or not their image still exists. */
  layersInUse: () => LayerRecord[];
  log: Log;
  clock: Clock;
  onEvent: (event: ImageEvent) => void;
}

/** Digests that an operation under way needs. */
export type Lease = Set<string>;

function notFound(reference: string): DrydockError {
  return new DrydockError('ERR_IMAGE_NOT_FOUND', `No such image: ${reference}`);
}

/** See the module's head. */
export class Images implements ImageStore {
  readonly #parts: ImagesParts;
  readonly #configs = new Map<string, ConfigFile>();
  readonly #leases = new Set<Lease>();

  constructor(parts: ImagesParts) {
    this.#parts = parts;
  }

  /** Reads the configurations, and removes blobs and layers that nothing needs. Returns what was removed. */
  async open(): Promise<{ blobs: number; layers: number }> {
    const { content, layers, records } = this.#parts;
    for (const record of records.list()) {
      if (await content.has(record.id)) await this.#configOf(record.id);
      else {
        this.#parts.log.warn({ id: record.id }, 'forgetting an image whose configuration is gone');
        await this.#forget(record.id);
      }
    }
    const needed = this.#needed();
    const blobs = (await content.list()).filter((digest) => !needed.has(digest));
    const unused = layers.list().filter((diffId) => !needed.has(diffId));
    for (const digest of blobs) await content.delete(digest);
    for (const diffId of unused) await layers.delete(diffId);
    return { blobs: blobs.length, layers: unused.length };
  }

  async get(reference: string): Promise<Image> {
    return this.#image(this.#resolve(reference).record);
  }

  async list(): Promise<Image[]> {
    const images = this.#parts.records.list().map((record) => this.#image(record));
    return images.sort((a, b) => b.created.localeCompare(a.created) || a.id.localeCompare(b.id));
  }

  async tag(reference: string, target: string): Promise<void> {
    const { record } = this.#resolve(reference);
    const name = parseTagged(target);
    if (name.digest !== undefined)
      throw new DrydockError('ERR_BAD_REFERENCE', 'refusing to create a tag with a digest reference');
    await this.setName(record.id, formatNormal(name));
    this.#emit('tag', record.id, formatFamiliar(name));
  }

  async remove(reference: string, options: RemoveOptions): Promise<Removed[]> {
    const { record, name } = this.#resolve(reference);
    const plan = planRemoval(this.#facts(options.users), record.id, name, options);
    const removed: Removed[] = [];
    for (const each of plan.untag) {
      await this.#parts.records.deleteReference(each);
      removed.push({ Untagged: formatFamiliar(parseReference(each)) });
      this.#emit('untag', record.id);
    }
    for (const id of plan.delete) removed.push(...(await this.#delete(id)));
    return removed;
  }

  async prune(
    matches: (image: Image) => boolean,
    users: ImageUsers,
  ): Promise<{ removed: Removed[]; reclaimedBytes: number }> {
    const removed: Removed[] = [];
    const before = this.#layerBytes();
    for (const image of await this.list()) {
      const isUsed = users(image.id).length > 0 || this.#childrenOf(image.id).length > 0;
      if (isUsed || !this.#parts.records.get(image.id) || !matches(image)) continue;
      removed.push(...(await this.remove(image.id, { force: true, prune: true, users })));
    }
    return { removed, reclaimedBytes: Math.max(0, before - this.#layerBytes()) };
  }

  async load(archive: Readable, progress: (line: Progress) => void): Promise<Image[]> {
    return this.lease(async (lease) => {
      const { content } = this.#parts;
      const spooled = await spoolArchive(archive, content);
      for (const blob of spooled.blobs()) lease.add(blob.digest);
      const images: Image[] = [];
      for (const archived of await archivedImages(spooled, selectsPlatform(undefined))) {
        const names = archived.names.map(parseTagged);
        const image = await this.#loadOne(spooled, archived, lease, progress);
        for (const name of names) await this.#nameLoaded(image.id, name, progress);
        if (names.length === 0) progress({ stream: `Loaded image ID: ${image.id}\n` });
        images.push(this.#image(this.#parts.records.get(image.id)!));
        this.#emit('load', image.id, archived.names[0] ?? image.id);
      }
      return images;
    });
  }

  async importRoot(
    archive: Readable,
    options: { reference?: string; message?: string; changes: string[]; platform?: string },
    progress: (line: Progress) => void,
  ): Promise<Image> {
    const name = options.reference === undefined ? undefined : parseTagged(options.reference);
    if (name?.digest !== undefined)
      throw new DrydockError('ERR_BAD_REFERENCE', 'cannot import digest reference');
    const platform = options.platform === undefined ? undefined : parsePlatform(options.platform);
    const config = applyChangeLines({}, options.changes);
    return this.lease(async (lease) => {
      const layer = await this.addLayer(archive, lease);
      const created = this.#now();
      const comment = options.message ?? '';
      const file: ConfigFile = {
        architecture: platform?.architecture ?? hostArchitecture(),
        os: platform?.os ?? hostOs(),
        ...(platform?.variant !== undefined && { variant: platform.variant }),
        ...(comment !== '' && { comment }),
        created,
        config,
        history: [{ created, comment }],
        rootfs: { type: 'layers', diff_ids: [layer.diffId] },
      };
      const image = await this.addImage(emitConfigFile(file), [layer], lease);
      if (name) await this.setName(image.id, formatNormal(name));
      progress({ status: image.id });
      this.#emit('import', image.id, name ? formatFamiliar(name) : image.id);
      return this.#image(this.#parts.records.get(image.id)!);
    });
  }

  async save(references: string[]): Promise<Readable> {
    const images = new Map<string, string[]>();
    for (const reference of references) {
      const { record, name } = this.#resolve(reference);
      const names = images.get(record.id) ?? [];
      images.set(record.id, names);
      if (name !== undefined) names.push(...this.#savedNames(reference, name));
      this.#emit('save', record.id);
    }
    const saved = await Promise.all(
      [...images].map(async ([id, names]) => ({
        id,
        configBytes: await this.#parts.content.read(id),
        config: this.#configs.get(id)!,
        layers: this.#parts.records.get(id)!.layers,
        names: [...new Set(names)],
      })),
    );
    const lease: Lease = new Set(
      saved.flatMap((image) => this.#digestsOf(this.#parts.records.get(image.id)!)),
    );
    this.#leases.add(lease);
    const stream = Readable.from(saveArchive(this.#parts.content, saved), { objectMode: false });
    return stream.once('close', () => void this.#release(lease));
  }

  /** Runs an operation that makes or finds blobs and layers; what it leaves unused is removed when it ends. */
  async lease<T>(operation: (lease: Lease) => Promise<T>): Promise<T> {
    const lease: Lease = new Set();
    this.#leases.add(lease);
    try {
      return await operation(lease);
    } catch (error) {
      throw storageError(error);
    } finally {
      await this.#release(lease);
    }
  }

  /** Stores a layer from its tar, compressed or not, and unpacks it. */
  async addLayer(tar: AsyncIterable<Buffer>, lease: Lease): Promise<LayerRecord> {
    const writer = await this.#parts.content.writer();
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

  /** Unpacks a stored blob. @throws what {@link LayerStore.ensure} throws */
  async unpackLayer(blob: Blob, diffId: string | undefined, lease: Lease): Promise<LayerRecord> {
    lease.add(blob.digest);
    if (diffId !== undefined) lease.add(diffId);
    const layer = await this.#parts.layers.ensure(blob, diffId);
    lease.add(layer.diffId);
    return { diffId: layer.diffId, bytes: layer.bytes, tarBytes: layer.tarBytes, blob };
  }

  /** Records an image whose layers are all there. */
  async addImage(
    configBytes: Buffer,
    layers: LayerRecord[],
    lease: Lease,
    parent?: string,
  ): Promise<ImageRecord> {
    const { content, records } = this.#parts;
    const id = digestOf(configBytes);
    lease.add(id);
    const known = records.get(id);
    if (known) return known;
    await content.put(configBytes);
    await this.#configOf(id);
    const record: ImageRecord = { id, layers, ...(parent !== undefined && { parent }) };
    await records.put(record);
    return record;
  }

  /** Gives an image a name in normal form, taking it from the image that had it. */
  async setName(id: string, name: string): Promise<void> {
    const { records, clock } = this.#parts;
    const record = records.get(id);
    if (!record) throw notFound(id);
    await records.setReference(name, id);
    await records.put({ ...record, lastTaggedMs: clock.wallMs() });
  }

  /** Deletes an image that has lost its last name and was made by nobody's wish; its layers stay where they are used. */
  async dropUntagged(id: string): Promise<void> {
    if (this.#parts.records.referencesOf(id).length === 0 && this.#childrenOf(id).length === 0)
      await this.#delete(id);
  }

  /** The layers of an image, with their blobs. */
  layersOf(id: string): LayerRecord[] {
    return this.#parts.records.get(id)?.layers ?? [];
  }

  layerPaths(imageId: string): string[] {
    return this.layersOf(imageId).map((layer) => this.#parts.layers.diffPath(layer.diffId));
  }

  /** The configuration document of an image, as parsed. */
  configOf(id: string): ConfigFile {
    const file = this.#configs.get(id);
    if (!file) throw notFound(id);
    return file;
  }

  #now(): string {
    return new Date(this.#parts.clock.wallMs()).toISOString();
  }

  #emit(action: string, id: string, name?: string): void {
    const names = this.#parts.records.referencesOf(id);
    const shown = name ?? (names[0] === undefined ? id : formatFamiliar(parseReference(names[0])));
    const labels = this.#configs.get(id)?.config.Labels ?? {};
    this.#parts.onEvent({ action, id, attributes: { ...labels, name: shown } });
  }

  async #loadOne(
    archive: SpooledArchive,
    archived: { configName: string; layerNames: string[] },
    lease: Lease,
    progress: (line: Progress) => void,
  ): Promise<ImageRecord> {
    const configBytes = await archive.read(archived.configName);
    const file = parseConfigFile(configBytes);
    const diffIds = file.rootfs.diff_ids;
    if (diffIds.length !== archived.layerNames.length)
      throw badArchive(
        `its configuration names ${diffIds.length} layers, its manifest ${archived.layerNames.length}`,
      );
    if (diffIds.length > LAYERS_MAX)
      throw badArchive(`it has ${diffIds.length} layers (limit ${LAYERS_MAX})`);
    const layers = await Promise.all(
      diffIds.map(async (diffId, index) => {
        const isNew = this.#parts.layers.get(diffId) === undefined;
        const known = isNew ? undefined : this.#recordedLayer(diffId);
        const blob = known?.blob ?? (await archive.blob(archived.layerNames[index]!));
        const id = diffId.slice('sha256:'.length, 'sha256:'.length + 12);
        const report = (current: number): void =>
          progress({ id, status: 'Loading layer', progressDetail: { current, total: blob.size } });
        if (isNew) report(0);
        const layer = await this.unpackLayer(blob, diffId, lease);
        if (isNew) report(blob.size);
        return layer;
      }),
    );
    return this.addImage(configBytes, layers, lease);
  }

  /** The record of a layer that some image has already: its blob is kept rather than a second form of it. */
  #recordedLayer(diffId: string): LayerRecord | undefined {
    for (const record of this.#parts.records.list()) {
      const layer = record.layers.find((each) => each.diffId === diffId);
      if (layer) return layer;
    }
    return undefined;
  }

  async #nameLoaded(id: string, reference: Reference, progress: (line: Progress) => void): Promise<void> {
    const name = formatNormal(reference);
    const old = this.#parts.records.resolve(name);
    if (old !== undefined && old !== id)
      progress({
        stream: `The image ${formatFamiliar(reference)} already exists, renaming the old one with ID ${old} to empty string\n`,
      });
    await this.setName(id, name);
    progress({ stream: `Loaded image: ${formatFamiliar(reference)}\n` });
  }

  /** A repository without a tag means all of its tags. */
  #savedNames(reference: string, name: string): string[] {
    const asked = parseReference(reference);
    if (asked.digest !== undefined) return [];
    return [formatFamiliar(parseReference(name))];
  }

  /** Finds an image, and the name (in normal form) by which it was found. */
  #resolve(reference: string): { record: ImageRecord; name: string | undefined } {
    const { records } = this.#parts;
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

  async #configOf(id: string): Promise<ConfigFile> {
    const known = this.#configs.get(id);
    if (known) return known;
    const file = parseConfigFile(await this.#parts.content.read(id));
    this.#configs.set(id, file);
    return file;
  }

  #image(record: ImageRecord): Image {
    const file = this.#configs.get(record.id)!;
    const names = this.#parts.records.referencesOf(record.id);
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

  #childrenOf(id: string): string[] {
    return this.#parts.records.list().flatMap((record) => (record.parent === id ? [record.id] : []));
  }

  #facts(users: ImageUsers): Parameters<typeof planRemoval>[0] {
    return {
      referencesOf: (id) => this.#parts.records.referencesOf(id),
      childrenOf: (id) => this.#childrenOf(id),
      parentOf: (id) => this.#parts.records.get(id)?.parent,
      users,
    };
  }

  #layerBytes(): number {
    const { layers } = this.#parts;
    return layers.list().reduce((sum, diffId) => sum + (layers.get(diffId)?.bytes ?? 0), 0);
  }

  #digestsOf(record: ImageRecord): string[] {
    return [record.id, ...record.layers.flatMap((layer) => [layer.diffId, layer.blob.digest])];
  }

  /** Everything that an image, a container or an operation under way needs. */
  #needed(): Set<string> {
    const needed = new Set(this.#parts.records.list().flatMap((record) => this.#digestsOf(record)));
    for (const layer of this.#parts.layersInUse()) needed.add(layer.diffId).add(layer.blob.digest);
    for (const lease of this.#leases) for (const digest of lease) needed.add(digest);
    return needed;
  }

  async #forget(id: string): Promise<void> {
    for (const name of this.#parts.records.referencesOf(id)) await this.#parts.records.deleteReference(name);
    await this.#parts.records.delete(id);
    this.#configs.delete(id);
  }

  async #delete(id: string): Promise<Removed[]> {
    const record = this.#parts.records.get(id);
    if (!record) return [];
    this.#emit('delete', id);
    await this.#forget(id);
    const gone = await this.#removeUnneeded(this.#digestsOf(record));
    const chains = chainIds(record.layers.map((layer) => layer.diffId));
    const layers = record.layers.flatMap((layer, index) => (gone.has(layer.diffId) ? [chains[index]!] : []));
    return [{ Deleted: id }, ...layers.reverse().map((chain) => ({ Deleted: chain }))];
  }

  async #release(lease: Lease): Promise<void> {
    this.#leases.delete(lease);
    await this.#removeUnneeded([...lease]);
  }

  /** Removes those of the blobs and layers that nothing needs any more. */
  async #removeUnneeded(digests: string[]): Promise<Set<string>> {
    const { content, layers } = this.#parts;
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
