/**
 * Root file systems of containers: the image's layers below, one writable layer on top. Two drivers share the folder
 * layout and the records here; what differs is how layers and writable layer become one tree.
 *
 * Layout: `roots/ID/{root.json,...}`, the rest being the driver's. A root keeps a record of its layers, so that they
 * outlive the image when that is removed by force.
 */
import { mkdir, readdir, rename } from 'node:fs/promises';
import { DrydockError } from '#common/errors';
import type { UserMaps } from '#common/id-map';
import type { Log } from '#common/log';
import { writeJson } from '../store/durable.ts';
import { DAMAGED_RECORD, readRecord } from '../store/record-folder.ts';
import { removeTree } from '../store/remove-tree.ts';
import { DIGEST, record, type Shape } from '../store/shape.ts';
import type { TreeChange } from './changes-of-tree.ts';
import { storageError } from './content.ts';
import type { LayerStore } from './layers.ts';
import type { PackSource } from './pack.ts';
import { LAYER_RECORD_SHAPE, type LayerRecord } from './records.ts';
import type { RootStore } from './store.ts';

/** One way to make a tree from layers. `folder` is the root's own. */
export interface RootDriver {
  readonly name: string;
  create(folder: string, layers: readonly LayerRecord[]): Promise<void>;
  mount(folder: string, layers: readonly LayerRecord[]): Promise<string>;
  unmount(folder: string): Promise<void>;
  /** What the container has changed, by path. */
  changes(folder: string, layers: readonly LayerRecord[]): Promise<TreeChange[]>;
  /** The same as a layer. */
  packed(folder: string, layers: readonly LayerRecord[]): Promise<PackSource>;
  /** Its folders, as inspect tells them (GraphDriver.Data); null where there is nothing to tell. */
  places(folder: string, layers: readonly LayerRecord[]): Record<string, string> | null;
  /** Bytes that the container has added. */
  writableBytes(folder: string, layers: readonly LayerRecord[]): Promise<number>;
}

interface RootFile {
  imageId: string;
  layers: LayerRecord[];
}

/** See {@link RootFile}. */
export const ROOT_SHAPE: Shape = record({
  imageId: DIGEST,
  layers: { type: 'array', items: LAYER_RECORD_SHAPE },
});

/** A doomed folder, on its way to be removed. */
const DOOMED_SUFFIX = '.removing';

/** See the module's head. */
export class Roots implements RootStore {
  readonly #folder: string;
  readonly #driver: RootDriver;
  readonly #layers: LayerStore;
  readonly #layersOf: (imageId: string) => LayerRecord[] | undefined;
  readonly #log: Log;
  readonly maps: UserMaps | undefined;
  readonly #roots = new Map<string, RootFile>();
  /** Whether a record could not be read: then nobody knows all that containers stand on. */
  isDamaged = false;

  constructor(parts: {
    folder: string;
    driver: RootDriver;
    layers: LayerStore;
    layersOf: (imageId: string) => LayerRecord[] | undefined;
    maps?: UserMaps | undefined;
    log: Log;
  }) {
    this.maps = parts.maps;
    this.#folder = parts.folder;
    this.#driver = parts.driver;
    this.#layers = parts.layers;
    this.#layersOf = parts.layersOf;
    this.#log = parts.log;
  }

  get driver(): string {
    return this.#driver.name;
  }

  async open(): Promise<void> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    for (const name of await readdir(this.#folder)) {
      if (name.endsWith(DOOMED_SUFFIX)) continue;
      const path = `${this.#folder}/${name}/root.json`;
      const found = await readRecord<RootFile>(path, ROOT_SHAPE);
      if (found && 'record' in found) this.#roots.set(name, found.record);
      else if (found) {
        this.isDamaged = true;
        this.#log.error({ path, reason: found.damage }, DAMAGED_RECORD);
      }
    }
  }

  /** Layers that containers stand on. */
  layersInUse(): LayerRecord[] {
    return [...this.#roots.values()].flatMap((root) => root.layers);
  }

  async create(containerId: string, imageId: string): Promise<void> {
    const layers = this.#layersOf(imageId);
    if (!layers) throw new DrydockError('ERR_IMAGE_NOT_FOUND', `No such image: ${imageId}`);
    await this.createOn(containerId, imageId, layers);
  }

  /** As create(), over layers that need not be an image's. */
  async createOn(containerId: string, imageId: string, layers: readonly LayerRecord[]): Promise<void> {
    const root: RootFile = { imageId, layers: [...layers] };
    // In the map first: from here on nobody removes its layers.
    this.#roots.set(containerId, root);
    try {
      // A layer may have to be unpacked again: after a change of the driver, or when its folder was lost.
      for (const layer of layers) await this.#layers.ensure(layer.blob, layer.diffId);
      await mkdir(this.#path(containerId), { mode: 0o700 });
      await this.#driver.create(this.#path(containerId), layers);
      await writeJson(`${this.#path(containerId)}/root.json`, root);
    } catch (error) {
      await this.remove(containerId);
      throw storageError(error);
    }
  }

  async mount(containerId: string): Promise<string> {
    const { layers } = this.#root(containerId);
    for (const layer of layers) await this.#layers.ensure(layer.blob, layer.diffId);
    return this.#driver.mount(this.#path(containerId), layers);
  }

  async unmount(containerId: string): Promise<void> {
    this.#root(containerId);
    await this.#driver.unmount(this.#path(containerId));
  }

  async remove(containerId: string): Promise<void> {
    await this.#removeFolder(containerId);
    this.#roots.delete(containerId);
  }

  async sizes(containerId: string): Promise<{ writableBytes: number; rootBytes: number }> {
    const { layers } = this.#root(containerId);
    const writableBytes = await this.#driver.writableBytes(this.#path(containerId), layers);
    return { writableBytes, rootBytes: layers.reduce((sum, layer) => sum + layer.bytes, writableBytes) };
  }

  places(containerId: string): Record<string, string> | null {
    const root = this.#roots.get(containerId);
    return root ? this.#driver.places(this.#path(containerId), root.layers) : null;
  }

  async changes(containerId: string): Promise<{ path: string; kind: 0 | 1 | 2 }[]> {
    const changes = await this.#driver.changes(this.#path(containerId), this.#root(containerId).layers);
    return changes.map(({ path, kind }) => ({
      path: `/${Buffer.from(path, 'latin1').toString('utf8')}`,
      kind,
    }));
  }

  /** What the container has written, as a layer. */
  packed(containerId: string): Promise<PackSource> {
    return this.#driver.packed(this.#path(containerId), this.#root(containerId).layers);
  }

  layersOf(containerId: string): LayerRecord[] {
    return this.#root(containerId).layers;
  }

  async sweep(known: Set<string>, running: ReadonlySet<string> = new Set()): Promise<string[]> {
    const done: string[] = [];
    for (const name of await readdir(this.#folder)) {
      if (running.has(name)) continue;
      if (known.has(name)) {
        await this.#driver.unmount(this.#path(name));
        continue;
      }
      await this.#removeFolder(name);
      this.#roots.delete(name);
      done.push(`removed the root file system of the unknown container ${name}`);
    }
    return done;
  }

  #path(containerId: string): string {
    return `${this.#folder}/${containerId}`;
  }

  #root(containerId: string): RootFile {
    const root = this.#roots.get(containerId);
    if (!root)
      throw new DrydockError(
        'ERR_ROOT_NOT_FOUND',
        `the root file system of container ${containerId} does not exist. Remove the container and create it again.`,
      );
    return root;
  }

  async #removeFolder(name: string): Promise<void> {
    const path = this.#path(name);
    await this.#driver.unmount(path);
    const doomed = name.endsWith(DOOMED_SUFFIX) ? path : path + DOOMED_SUFFIX;
    try {
      if (doomed !== path) await rename(path, doomed);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
      throw error;
    }
    await removeTree(doomed);
    this.#log.debug({ root: name }, 'removed a root file system');
  }
}
