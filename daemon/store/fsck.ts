/**
 * Verifies a data root that no daemon uses: every record can be read, every blob is what its digest says, and everything that an
 * image or a container needs is there. Looks only; each finding brings its repair.
 *
 * What a killed daemon leaves (something in the making, something on its way out) is a leftover: the next start removes it. Damage
 * is what no order of writes can lead to: a disk that lost or changed bytes, or somebody who did.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { access, lstat, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import type { Progress } from '#common/progress';
import { CONTAINER_SHAPE } from '../container/record-shape.ts';
import type { ContainerRecord } from '../container/types.ts';
import { type FreshFile, hexOf } from '../image/content.ts';
import { type LayerFile, readLayerFile } from '../image/layers.ts';
import { detachWithin } from '../image/overlay-driver.ts';
import { IMAGE_SHAPE, type ImageRecord, type LayerRecord } from '../image/records.ts';
import { formatFamiliar, isDigest, isReference, parseReference } from '../image/reference.ts';
import { ROOT_SHAPE } from '../image/roots.ts';
import { NETWORK_SHAPE } from '../network/record.ts';
import { VOLUME_SHAPE } from '../volume/service.ts';
import { bootId } from './boot-id.ts';
import { isTemporary, readJson, writeJson } from './durable.ts';
import { LayerComparison } from './fsck-layers.ts';
import { entries, mapsOf, straysIn } from './fsck-places.ts';
import { isDoomed, readRecord } from './record-folder.ts';
import { type Shape, TEXTS_BY_KEY } from './shape.ts';

/** Something that is not as it should be. */
export interface Finding {
  /** The file or folder. */
  path: string;
  /** What is wrong with it, and whom it concerns. */
  text: string;
}

/** What can't be used any more. */
export interface Damage extends Finding {
  /** What {@link Damage.mend} does, which gives up as little as it can. */
  repair: string;
  mend(): Promise<void>;
}

/** What was looked at, and what was found. */
export interface FsckReport {
  checked: { blobs: number; blobBytes: number; images: number; layers: number; containers: number };
  damage: Damage[];
  /** What the next start of the daemon removes. */
  leftovers: Finding[];
  /** What somebody else has put there: the daemon leaves it alone, and so does a repair. */
  strays: Finding[];
}

/** What is verified, beside what always is. */
export interface FsckOptions {
  /** Compare unpacked layers with what they were unpacked from, which takes as long as unpacking them all. */
  layers?: boolean;
  /** Told how much of the blobs has been read, which takes the time. */
  progress?: Progress;
}

/**
 * Verifies the data root at `dataRoot`; the daemon must not run. Data roots of user namespaces inside it are others:
 * see rootsWithin().
 * @throws SyscallError and Node's errors when it cannot be read
 */
export async function fsck(dataRoot: string, options: FsckOptions = {}): Promise<FsckReport> {
  const check = new Check(dataRoot, options);
  await check.run();
  const { checked, damage, leftovers, strays } = check;
  return { checked, damage, leftovers, strays };
}

const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  );

async function digestOfFile(
  path: string,
  onBytes: (bytes: number) => void,
): Promise<{ digest: string; bytes: number }> {
  const hash = createHash('sha256');
  let bytes = 0;
  const stream = createReadStream(path, { highWaterMark: 1 << 20 });
  stream.on('data', (chunk) => {
    bytes += chunk.length;
    onBytes(bytes);
  });
  await pipeline(stream, hash);
  return { digest: `sha256:${hash.digest('hex')}`, bytes };
}

/** What a root keeps of what it stands on. */
interface RootFile {
  layers: LayerRecord[];
}

class Check {
  readonly damage: Damage[] = [];
  readonly leftovers: Finding[] = [];
  readonly strays: Finding[] = [];
  readonly checked = { blobs: 0, blobBytes: 0, images: 0, layers: 0, containers: 0 };
  readonly #root: string;
  readonly #progress: Progress;
  readonly #comparesLayers: boolean;
  /** Blobs that are what their digest says. */
  readonly #sound = new Set<string>();
  /** Layers that were made on this machine: they are unpacked, and nothing else. */
  readonly #made = new Set<string>();
  /** Unpacked layers whose files are not what they should be. */
  readonly #broken = new Set<string>();
  readonly #images = new Map<string, ImageRecord>();
  /** Names by image, in familiar form. */
  readonly #names = new Map<string, string[]>();
  /** Digests of blobs and layers that had not come to the disk when the machine stopped. */
  readonly #unsynced = new Set<string>();
  #bootId = '';
  /** Blobs by the diff ids of their layers, once somebody asks. */
  #blobs: Map<string, string> | undefined;
  /** Digests of blobs and layers that images and containers need. */
  readonly #needed = new Set<string>();

  constructor(dataRoot: string, { progress = () => {}, layers = false }: FsckOptions) {
    this.#root = dataRoot;
    this.#progress = progress;
    this.#comparesLayers = layers;
  }

  async run(): Promise<void> {
    this.#bootId = await bootId();
    await this.#readBlobs();
    await this.#readStrays();
    for (const driverRoot of this.#driverRoots()) await this.#readUnpacked(driverRoot);
    await this.#readImages();
    await this.#readNames();
    for (const folder of ['image', 'image/content']) await this.#temporaries(join(this.#root, folder));
    await this.#readRoots();
    for (const driverRoot of this.#driverRoots()) await this.#readLayers(driverRoot);
    await this.#readRecords('networks', 'network.json', NETWORK_SHAPE, (key) => ({
      text: 'the network is lost with it',
      repair: 'remove the network',
      mend: () => rm(join(this.#root, 'networks', key), { recursive: true }),
    }));
    await this.#readRecords('volumes', 'volume.json', VOLUME_SHAPE, (key) => ({
      text: `the volume ${key} has lost its labels and options; its files are there`,
      repair: 'remove the record: the next start makes a new one',
      mend: () => rm(join(this.#root, 'volumes', key, 'volume.json'), { force: true }),
    }));
    this.#unneededBlobs();
    for (const name of await entries(join(this.#root, 'build')))
      this.#leftover(join(this.#root, 'build', name), 'the files of a build that was cut short');
  }

  async #readStrays(): Promise<void> {
    for (const path of await straysIn(this.#root)) this.#stray(path);
  }

  #stray(path: string): void {
    this.strays.push({ path, text: 'it is not of the daemon, which leaves it alone' });
  }

  /** Which unpacked layers can be relied on. */
  async #readUnpacked(driverRoot: string): Promise<void> {
    const folder = join(driverRoot, 'layers');
    const isOverlay = basename(driverRoot) === 'overlay2';
    const comparison = this.#comparesLayers
      ? new LayerComparison(driverRoot, isOverlay, mapsOf(this.#root))
      : undefined;
    try {
      for (const name of await entries(folder)) {
        const path = join(folder, name);
        const layer = await readLayerFile(path, this.#bootId);
        if (!layer) this.#unsynced.add(`sha256:${name}`);
        else if (comparison && !(await this.#isIntact(path, layer, comparison))) {
          this.#broken.add(layer.diffId);
          this.#damage(
            path,
            `its files are not those of the layer ${layer.diffId}`,
            layer.isMade ? 'remove it' : 'remove it: it is unpacked again when it is wanted',
            () => rm(path, { recursive: true }),
          );
        } else if (layer.isMade) this.#made.add(layer.diffId);
      }
    } finally {
      await comparison?.close();
    }
  }

  async #isIntact(path: string, layer: LayerFile, comparison: LayerComparison): Promise<boolean> {
    if (layer.isMade) return comparison.packedDigest(path) === layer.diffId;
    const blob = await this.#blobOf(layer.diffId);
    // With its blob gone there is nothing to compare with; whom that concerns is told.
    return blob === undefined || comparison.isAsInBlob(path, layer, this.#path(blob));
  }

  /** The sound blob that a layer came as, by the records of images and roots. */
  async #blobOf(diffId: string): Promise<string | undefined> {
    this.#blobs ??= await this.#readBlobNames();
    const digest = this.#blobs.get(diffId);
    return digest !== undefined && this.#sound.has(digest) ? digest : undefined;
  }

  async #readBlobNames(): Promise<Map<string, string>> {
    const blobs = new Map<string, string>();
    const note = (layers: readonly LayerRecord[] = []): void => {
      for (const { diffId, blob } of layers) blobs.set(diffId, blob.digest);
    };
    const recordOf = <T>(path: string): Promise<T | undefined> => readJson<T>(path).catch(() => undefined);
    const images = join(this.#root, 'image/images');
    for (const name of await entries(images)) note((await recordOf<ImageRecord>(join(images, name)))?.layers);
    for (const driverRoot of this.#driverRoots())
      for (const id of await entries(join(driverRoot, 'roots')))
        note((await recordOf<RootFile>(join(driverRoot, 'roots', id, 'root.json')))?.layers);
    return blobs;
  }

  #path(digest: string): string {
    return join(this.#root, 'image/content/sha256', hexOf(digest));
  }

  #damage(path: string, text: string, repair: string, mend: () => Promise<void>): void {
    this.damage.push({ path, text, repair, mend });
  }

  #leftover(path: string, text: string): void {
    this.leftovers.push({ path, text });
  }

  async #readBlobs(): Promise<void> {
    const folder = join(this.#root, 'image/content');
    for (const name of await entries(join(folder, 'ingest')))
      this.#leftover(join(folder, 'ingest', name), 'a blob that was being fetched or made');
    const names = await entries(join(folder, 'sha256'));
    // As the next start reads it: where that can't be read, any blob may be concerned.
    const fresh = await readJson<FreshFile>(join(folder, 'fresh.json')).catch(() => ({
      bootId: '',
      digests: names.map((name) => `sha256:${name}`),
    }));
    if (fresh && fresh.bootId !== this.#bootId)
      for (const digest of fresh.digests) this.#unsynced.add(digest);
    let bytesOfAll = 0;
    for (const name of names) bytesOfAll += (await lstat(join(folder, 'sha256', name))).size;
    for (const name of names) {
      const path = join(folder, 'sha256', name);
      if (!isDigest(`sha256:${name}`)) {
        this.#damage(path, 'a file that is not of the store', 'remove it', () => rm(path));
        continue;
      }
      const { digest, bytes } = await digestOfFile(path, (read) =>
        this.#progress('reading blobs', this.checked.blobBytes + read, bytesOfAll),
      );
      this.checked.blobs++;
      this.checked.blobBytes += bytes;
      if (digest === `sha256:${name}`) this.#sound.add(digest);
      else if (this.#unsynced.has(`sha256:${name}`))
        this.#leftover(path, 'a blob that had not come to the disk when the machine stopped');
      else this.#damage(path, `its bytes have the digest ${digest}`, 'remove it', () => rm(path));
    }
  }

  async #readImages(): Promise<void> {
    const folder = join(this.#root, 'image/images');
    await this.#temporaries(folder);
    for (const name of await entries(folder)) {
      if (isTemporary(name)) continue;
      const path = join(folder, name);
      // What others have put here is told by the daemon, and left alone.
      if (!/^[0-9a-f]{64}\.json$/.test(name)) continue;
      const record = await this.#read<ImageRecord>(path, IMAGE_SHAPE);
      if (record === undefined) continue;
      if (`${hexOf(record.id)}.json` !== name)
        this.#damage(path, 'it is not the record of the image that its name tells', 'remove it', () =>
          rm(path),
        );
      else this.#images.set(record.id, record);
    }
    this.checked.images = this.#images.size;
  }

  /** Reads a record. One of another shape is damage, whose repair is to remove it. */
  async #read<T>(path: string, shape: Shape, mend = (): Promise<void> => rm(path)): Promise<T | undefined> {
    const found = await readRecord<T>(path, shape);
    if (!found || 'record' in found) return found?.record;
    this.#damage(path, `it can't be read: ${found.damage}`, 'remove it', mend);
    return undefined;
  }

  async #readNames(): Promise<void> {
    const path = join(this.#root, 'image/references.json');
    const references = (await this.#read<Record<string, string>>(path, TEXTS_BY_KEY)) ?? {};
    const malformed = Object.keys(references).filter((name) => !isReference(name));
    for (const name of malformed) delete references[name];
    if (malformed.length > 0)
      this.#damage(
        path,
        `it has what is no name: ${malformed.map((name) => JSON.stringify(name)).join(', ')}`,
        'forget it',
        () => writeJson(path, references),
      );
    const without = Object.keys(references).filter((name) => !this.#images.has(references[name]!));
    if (without.length > 0)
      this.#leftover(path, `names of images that are gone: ${without.map(familiar).join(', ')}`);
    for (const [name, id] of Object.entries(references))
      this.#names.set(id, [...(this.#names.get(id) ?? []), familiar(name)]);
    for (const record of this.#images.values()) this.#checkImage(record, path, references);
  }

  #checkImage(record: ImageRecord, referencesPath: string, references: Record<string, string>): void {
    const needs = [record.id, ...record.layers.map((layer) => layer.blob.digest)];
    if (record.manifest) needs.push(record.manifest.digest);
    for (const digest of needs) this.#needed.add(digest);
    for (const layer of record.layers) this.#needed.add(layer.diffId);
    const lost = needs.filter((digest) => !this.#sound.has(digest) && !this.#made.has(digest));
    if (lost.length === 0) return;
    const path = join(this.#root, 'image/images', `${hexOf(record.id)}.json`);
    const names = this.#names.get(record.id) ?? [];
    const title = names.length > 0 ? names.join(', ') : record.id;
    if (lost.every((digest) => this.#unsynced.has(digest))) {
      this.#leftover(path, `the image ${title} had not come to the disk when the machine stopped`);
      return;
    }
    this.#damage(
      path,
      `the image ${title} needs what is missing or damaged: ${lost.join(', ')}`,
      'forget the image: pull, load or build it again',
      async () => {
        for (const [name, id] of Object.entries(references)) if (id === record.id) delete references[name];
        await writeJson(referencesPath, references);
        await rm(path);
      },
    );
  }

  /** Root file systems of containers, against the containers. */
  async #readRoots(): Promise<void> {
    const containers = await this.#readRecords<ContainerRecord>(
      'containers',
      'config.json',
      CONTAINER_SHAPE,
      (key) => ({
        text: `container ${key.slice(0, 12)} is lost with it`,
        repair: 'remove the container, with what it has written',
        mend: () => this.#removeContainer(key),
      }),
    );
    this.checked.containers = containers.size;
    // Images that a container mounts have a root of their own.
    const owners = new Map<string, string>();
    for (const [id, { mounts = [] }] of containers) {
      owners.set(id, id);
      for (const { rootId } of mounts) if (rootId !== undefined) owners.set(rootId, id);
    }
    for (const driverRoot of this.#driverRoots())
      for (const rootId of await entries(join(driverRoot, 'roots'))) {
        const owner = owners.get(rootId);
        const path = join(driverRoot, 'roots', rootId);
        if (owner === undefined)
          this.#leftover(path, 'the root of a container that was being made or removed');
        else await this.#checkRoot(driverRoot, rootId, owner);
        owners.delete(rootId);
      }
    for (const id of new Set(owners.values())) this.#lostContainer(id, 'its root file system is gone');
  }

  async #checkRoot(driverRoot: string, rootId: string, id: string): Promise<void> {
    const folder = join(driverRoot, 'roots', rootId);
    await this.#temporaries(folder);
    const root = await this.#read<RootFile>(join(folder, 'root.json'), ROOT_SHAPE, () =>
      this.#removeContainer(id),
    );
    if (!root) return;
    for (const { diffId, blob } of root.layers) {
      this.#needed.add(diffId).add(blob.digest);
      const unpacked = join(driverRoot, 'layers', hexOf(diffId), 'layer.json');
      const isUnpacked = !this.#broken.has(diffId) && (await exists(unpacked));
      if (!this.#sound.has(blob.digest) && !isUnpacked)
        this.#lostContainer(id, `its layer ${diffId} is gone, packed and unpacked`);
    }
  }

  #lostContainer(id: string, why: string): void {
    const path = join(this.#root, 'containers', id);
    this.#damage(path, `container ${id.slice(0, 12)} can't run: ${why}`, 'remove the container', () =>
      this.#removeContainer(id),
    );
  }

  async #removeContainer(id: string): Promise<void> {
    const folders = [this.#root, ...this.#driverRoots()].map((root) =>
      join(root, root === this.#root ? 'containers' : 'roots', id),
    );
    for (const folder of folders) {
      await detachWithin(folder);
      await rm(folder, { recursive: true, force: true });
    }
  }

  #driverRoots(): string[] {
    return ['overlay2', 'apfs', 'vfs'].map((driver) => join(this.#root, driver));
  }

  async #readLayers(driverRoot: string): Promise<void> {
    for (const name of await entries(join(driverRoot, 'layers'))) {
      const path = join(driverRoot, 'layers', name);
      const layer = await readLayerFile(path, this.#bootId);
      await this.#temporaries(path);
      this.checked.layers++;
      if (!layer)
        this.#leftover(path, 'a layer that was being unpacked or removed, or had not come to the disk');
      else if (!this.#needed.has(layer.diffId)) this.#leftover(path, 'a layer that nothing needs');
    }
  }

  #unneededBlobs(): void {
    for (const digest of this.#sound)
      if (!this.#needed.has(digest)) this.#leftover(this.#path(digest), 'a blob that nothing needs');
  }

  /** Files that were being written. */
  async #temporaries(folder: string): Promise<void> {
    for (const name of await entries(folder))
      if (isTemporary(name)) this.#leftover(join(folder, name), 'a record that was being written');
  }

  /** One kind's records by key. @param damaged what it means that one can't be read */
  async #readRecords<T extends object>(
    kind: string,
    file: string,
    shape: Shape,
    damaged: (key: string) => { text: string; repair: string; mend: () => Promise<void> },
  ): Promise<Map<string, T>> {
    const records = new Map<string, T>();
    for (const key of await entries(join(this.#root, kind))) {
      const folder = join(this.#root, kind, key);
      // What others have put there is no record's, and none of ours: the daemon tells of it, and leaves it alone.
      if (!(await lstat(folder)).isDirectory()) {
        this.#stray(folder);
        continue;
      }
      await this.#temporaries(folder);
      const found = await readRecord<T>(join(folder, file), shape);
      if (isDoomed(key)) this.#leftover(folder, 'it was being removed');
      else if (found === undefined && (await isEmptyVolume(folder)))
        this.#leftover(folder, 'it was being made');
      else if (found && 'record' in found) records.set(key, found.record);
      else {
        const { text, repair, mend } = damaged(key);
        const why = found?.damage ?? 'it is gone';
        this.#damage(join(folder, file), `it can't be read: ${text} (${why})`, repair, mend);
      }
    }
    return records;
  }
}

/** Whether a folder holds no volume's files: then it is one that was being made. */
async function isEmptyVolume(folder: string): Promise<boolean> {
  return (await entries(join(folder, '_data'))).length === 0;
}

function familiar(name: string): string {
  return formatFamiliar(parseReference(name));
}
