/**
 * What the daemon does with images: load, import, save, commit, name and remove them. Where and how they are kept is
 * the {@link Library}'s business.
 */
import { Readable } from 'node:stream';
import { DrydockError } from '#common/errors';
import { archivedImages, type SpooledArchive, spoolArchive } from './archive.ts';
import { applyChangeLines } from './changes.ts';
import { type ConfigFile, emitConfigFile, hostArchitecture, hostOs, parseConfigFile } from './config-file.ts';
import { ensureHostImage, HOST_IMAGE } from './host-image.ts';
import { LAYERS_MAX } from './layers.ts';
import type { Lease, Library } from './library.ts';
import { parsePlatform, selectsPlatform } from './platform.ts';
import type { ImageRecord } from './records.ts';
import {
  DEFAULT_TAG,
  formatFamiliar,
  formatNormal,
  isDigest,
  parseReference,
  parseTagged,
  type Reference,
  repositoryOf,
} from './reference.ts';
import type { Credentials } from './registry/auth.ts';
import type { FetchedDescriptor } from './registry/distribution.ts';
import type { Registries } from './registry/index.ts';
import { planRemoval } from './remove.ts';
import { saveArchive } from './save.ts';
import type {
  CommitOptions,
  Image,
  ImageStore,
  ImageUsers,
  Progress,
  RegistryRequest,
  Removed,
  RemoveOptions,
} from './store.ts';
import { badArchive } from './tar/reader.ts';

/** See the module's head. */
export class Images implements ImageStore {
  /** For those parts of the daemon that make images: the host image, registries, builds. */
  readonly library: Library;

  readonly #registries: Registries;

  constructor(library: Library, registries: Registries) {
    this.library = library;
    this.#registries = registries;
  }

  async get(reference: string): Promise<Image> {
    return this.library.image(this.library.resolve(reference).record);
  }

  async list(): Promise<Image[]> {
    const images = this.library.parts.records.list().map((record) => this.library.image(record));
    return images.sort((a, b) => b.created.localeCompare(a.created) || a.id.localeCompare(b.id));
  }

  async tag(reference: string, target: string): Promise<void> {
    const { record } = this.library.resolve(reference);
    const name = parseTagged(target);
    if (name.digest !== undefined)
      throw new DrydockError('ERR_BAD_REFERENCE', 'refusing to create a tag with a digest reference');
    await this.library.setName(record.id, formatNormal(name));
    this.library.emit('tag', record.id, formatFamiliar(name));
  }

  async remove(reference: string, options: RemoveOptions): Promise<Removed[]> {
    const { record, name } = this.library.resolve(reference);
    const plan = planRemoval(this.#facts(options.users), record.id, name, options);
    const removed: Removed[] = [];
    for (const each of plan.untag) {
      await this.library.parts.records.deleteReference(each);
      removed.push({ Untagged: formatFamiliar(parseReference(each)) });
      this.library.emit('untag', record.id);
    }
    for (const id of plan.delete) removed.push(...(await this.library.delete(id)));
    return removed;
  }

  async prune(
    matches: (image: Image) => boolean,
    users: ImageUsers,
  ): Promise<{ removed: Removed[]; reclaimedBytes: number }> {
    const removed: Removed[] = [];
    const before = this.library.layerBytes();
    await this.library.releaseKept();
    for (const image of await this.list()) {
      const isUsed = users(image.id).length > 0 || this.library.childrenOf(image.id).length > 0;
      if (isUsed || !this.library.parts.records.get(image.id) || !matches(image)) continue;
      removed.push(...(await this.remove(image.id, { force: true, prune: true, users })));
    }
    return { removed, reclaimedBytes: Math.max(0, before - this.library.layerBytes()) };
  }

  async load(archive: Readable, progress: (line: Progress) => void): Promise<Image[]> {
    return this.library.lease(async (lease) => {
      const { content } = this.library.parts;
      const spooled = await spoolArchive(archive, content);
      for (const blob of spooled.blobs()) lease.add(blob.digest);
      const images: Image[] = [];
      for (const archived of await archivedImages(spooled, selectsPlatform(undefined))) {
        const names = archived.names.map(parseTagged);
        const image = await this.#loadOne(spooled, archived, lease, progress);
        for (const name of names) await this.#nameLoaded(image.id, name, progress);
        if (names.length === 0) progress({ stream: `Loaded image ID: ${image.id}\n` });
        images.push(this.library.image(this.library.parts.records.get(image.id)!));
        this.library.emit('load', image.id);
      }
      return images;
    });
  }

  async importRoot(
    archive: Readable,
    options: Parameters<ImageStore['importRoot']>[1],
    progress: (line: Progress) => void,
  ): Promise<Image> {
    const name = options.reference === undefined ? undefined : parseTagged(options.reference);
    if (name?.digest !== undefined)
      throw new DrydockError('ERR_BAD_REFERENCE', 'cannot import digest reference');
    const platform = options.platform === undefined ? undefined : parsePlatform(options.platform);
    const config = applyChangeLines({}, options.changes);
    return this.library.lease(async (lease) => {
      const layer = await this.library.addLayer(archive, lease);
      options.signal?.throwIfAborted();
      const created = this.library.now();
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
      const image = await this.library.addImage(emitConfigFile(file), [layer], lease);
      if (name) await this.library.setName(image.id, formatNormal(name));
      progress({ status: image.id });
      this.library.emit('import', image.id);
      return this.library.image(this.library.parts.records.get(image.id)!);
    });
  }

  async save(references: string[]): Promise<Readable> {
    const images = new Map<string, string[]>();
    for (const reference of references)
      for (const { id, name } of this.#savedAs(reference)) {
        const names = images.get(id) ?? [];
        images.set(id, name === undefined ? names : [...names, name]);
      }
    for (const id of images.keys()) this.library.emit('save', id);
    const saved = await Promise.all(
      [...images].map(async ([id, names]) => ({
        id,
        configBytes: await this.library.parts.content.read(id),
        config: this.library.configOf(id),
        layers: this.library.parts.records.get(id)!.layers,
        names: [...new Set(names)],
      })),
    );
    const lease = this.library.openLease(
      saved.flatMap((image) => this.library.digestsOf(this.library.parts.records.get(image.id)!)),
    );
    const stream = Readable.from(
      saveArchive(saved, (layer) => this.library.layerTar(layer)),
      { objectMode: false },
    );
    return stream.once('close', () => void this.library.release(lease));
  }

  async commit(options: CommitOptions): Promise<Image> {
    const { rootOf, records } = this.library.parts;
    const name = options.reference === undefined ? undefined : parseTagged(options.reference);
    if (name?.digest !== undefined)
      throw new DrydockError('ERR_BAD_REFERENCE', 'refusing to create a tag with a digest reference');
    const config = applyChangeLines(options.config, options.changes);
    return this.library.lease(async (lease) => {
      const root = rootOf(options.containerId);
      const layer = await this.library.makeLayer(await root.packed(), lease);
      const parent = this.library.findConfig(options.parentId);
      const image = await this.library.derive({
        base: parent,
        baseLayers: root.layers,
        layer,
        config,
        step: { created_by: options.createdBy, comment: options.comment, author: options.author },
        parentId: records.get(options.parentId) ? options.parentId : undefined,
        lease,
      });
      if (name) await this.library.setName(image.id, formatNormal(name));
      return this.library.image(image);
    });
  }

  async pull(
    reference: string,
    request: RegistryRequest & { platform?: string; allTags?: boolean },
  ): Promise<string[]> {
    // No registry has it: it is this host's.
    if (formatFamiliar(parseTagged(reference)) === HOST_IMAGE) {
      request.progress({ status: "Building from this host's own programs", id: DEFAULT_TAG });
      const { log, clock } = this.library.parts;
      const image = await ensureHostImage(this, log, clock, (_what, current = 0, total = 0) =>
        request.progress({ status: 'Building', progressDetail: { current, total }, id: DEFAULT_TAG }),
      );
      request.progress({ status: `Status: Image is up to date for ${HOST_IMAGE}` });
      return [image.id];
    }
    return this.#registries.pull(reference, request);
  }

  push(reference: string, request: RegistryRequest & { allTags?: boolean }): Promise<void> {
    return this.#registries.push(reference, request);
  }

  login(registry: string, credentials: Credentials): Promise<void> {
    return this.#registries.login(registry, credentials);
  }

  describeRemote(
    reference: string,
    request: Pick<RegistryRequest, 'credentials' | 'signal'>,
  ): Promise<FetchedDescriptor> {
    return this.#registries.describe(reference, request);
  }

  layerPaths(imageId: string): string[] {
    return this.library.layersOf(imageId).map((layer) => this.library.parts.layers.diffPath(layer.diffId));
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
        const isNew = this.library.parts.layers.get(diffId) === undefined;
        const known = isNew ? undefined : this.library.recordedLayer(diffId);
        const blob = known?.blob ?? (await archive.blob(archived.layerNames[index]!));
        const id = diffId.slice('sha256:'.length, 'sha256:'.length + 12);
        const report = (current: number): void =>
          progress({ id, status: 'Loading layer', progressDetail: { current, total: blob.size } });
        if (isNew) report(0);
        const layer = await this.library.unpackLayer(blob, diffId, lease);
        if (isNew) report(blob.size);
        return layer;
      }),
    );
    return this.library.addImage(configBytes, layers, lease);
  }

  async #nameLoaded(id: string, reference: Reference, progress: (line: Progress) => void): Promise<void> {
    const name = formatNormal(reference);
    const old = this.library.parts.records.resolve(name);
    if (old !== undefined && old !== id)
      progress({
        stream: `The image ${formatFamiliar(reference)} already exists, renaming the old one with ID ${old} to empty string\n`,
      });
    await this.library.setName(id, name);
    progress({ stream: `Loaded image: ${formatFamiliar(reference)}\n` });
  }

  /** What a reference means to `docker save`: a repository without a tag is all of its tags. */
  #savedAs(reference: string): { id: string; name: string | undefined }[] {
    const { records } = this.library.parts;
    const isId = isDigest(reference) || isDigest(`sha256:${reference}`);
    const asked = isId ? undefined : parseReference(reference);
    if (asked && asked.tag === undefined && asked.digest === undefined) {
      const all = records.references().flatMap(([name, id]) => {
        const parsed = parseReference(name);
        const isTag = parsed.digest === undefined && repositoryOf(parsed) === repositoryOf(asked);
        return isTag ? [{ id, name: formatFamiliar(parsed) }] : [];
      });
      if (all.length > 0) return all;
    }
    const { record, name } = this.library.resolve(reference);
    const isTag = name !== undefined && asked?.digest === undefined;
    return [{ id: record.id, name: isTag ? formatFamiliar(parseReference(name)) : undefined }];
  }

  #facts(users: ImageUsers): Parameters<typeof planRemoval>[0] {
    return {
      referencesOf: (id) => this.library.parts.records.referencesOf(id),
      childrenOf: (id) => this.library.childrenOf(id),
      parentOf: (id) => this.library.parts.records.get(id)?.parent,
      users,
    };
  }
}
