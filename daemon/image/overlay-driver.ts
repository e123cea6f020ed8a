/**
 * The driver `overlay2`: `roots/ID/{upper,work,merged}`, mounted as overlayfs over the layers' folders.
 *
 * The options of mount(2) must fit one page, so layers are named by short symlinks relative to a descriptor of the
 * driver's folder (`/proc/self/fd/N/l/SHORT`): 128 layers fit, whatever the path of the data root.
 */
import { chown, type FileHandle, lstat, mkdir, open, opendir, rm, rmdir } from 'node:fs/promises';
import { errorCode, errorMessage } from '#common/errors';
import type { UserMaps } from '#common/id-map';
import { detachMount } from '#common/native/mount';
import { mountOverlay } from '#common/native/overlay';
import { inUserNamespace } from '#common/user-namespace';
import { mountsWithin } from '../mounts/host-mounts.ts';
import { compareTrees, type TreeChange } from './changes-of-tree.ts';
import type { LayerStore } from './layers.ts';
import { ownerOnDisk, ROOT } from './owners.ts';
import type { PackSource } from './pack.ts';
import type { LayerRecord } from './records.ts';
import type { RootDriver } from './roots.ts';

/**
 * Off, whatever the distribution's default: with them the writable layer holds references (redirects, hashes) that
 * only this very stack of layers can resolve, and could not be committed.
 */
const PLAIN_OPTIONS = [
  'index=off',
  // Root of a user namespace keeps its notes in attributes that it may write, which puts the others off.
  ...(inUserNamespace ? ['userxattr'] : ['redirect_dir=off', 'metacopy=off']),
];

/** Takes away all mounts at or below a folder, the latest first. */
export async function detachWithin(folder: string): Promise<void> {
  for (const target of (await mountsWithin(folder)).reverse()) detachMount(target);
}

/** Bytes of all regular files below a folder, hard links once. */
export async function treeBytes(folder: string): Promise<number> {
  const seen = new Set<number>();
  let total = 0;
  const visit = async (path: string): Promise<void> => {
    for await (const entry of await opendir(path)) {
      const child = `${path}/${entry.name}`;
      if (entry.isDirectory()) await visit(child);
      else if (entry.isFile()) {
        const { size, ino, nlink } = await lstat(child);
        if (nlink === 1 || !seen.has(ino)) total += size;
        if (nlink > 1) seen.add(ino);
      }
    }
  };
  try {
    await visit(folder);
  } catch (error) {
    // A running container removes files while they are counted.
    if (errorCode(error) !== 'ENOENT') throw error;
  }
  return total;
}

export class OverlayDriver implements RootDriver {
  readonly name = 'overlay2';
  readonly #root: string;
  readonly #layers: LayerStore;
  #handle: FileHandle | undefined;

  readonly #maps: UserMaps | undefined;

  /** @param maps how the users of containers are those of the machine, when they are others. */
  constructor(root: string, layers: LayerStore, maps: UserMaps | undefined) {
    this.#maps = maps;
    this.#root = root;
    this.#layers = layers;
  }

  async open(): Promise<void> {
    for (const name of ['empty', 'empty2']) await mkdir(`${this.#root}/${name}`, { recursive: true });
    this.#handle = await open(this.#root, 'r');
  }

  async close(): Promise<void> {
    await this.#handle?.close();
  }

  async create(folder: string): Promise<void> {
    for (const name of ['upper', 'work', 'merged']) await mkdir(`${folder}/${name}`, { mode: 0o755 });
    const { uid, gid } = ownerOnDisk(ROOT, this.#maps);
    await chown(`${folder}/upper`, uid, gid);
  }

  async mount(folder: string, layers: readonly LayerRecord[]): Promise<string> {
    const target = `${folder}/merged`;
    if ((await mountsWithin(target)).includes(target)) return target;
    const own = `${this.#base()}/${folder.slice(this.#root.length + 1)}`;
    const lower = this.#lower(layers);
    mountOverlay(target, {
      // overlayfs wants a lower directory even for an image without layers.
      lower: lower.length > 0 ? lower : [`${this.#base()}/empty`],
      upper: { path: `${own}/upper`, work: `${own}/work` },
      options: PLAIN_OPTIONS,
    });
    return target;
  }

  /** Compares with the image, which is mounted read-only beside for that time. */
  async changes(folder: string, layers: readonly LayerRecord[]): Promise<TreeChange[]> {
    const tree = await this.mount(folder, layers);
    const base = `${folder}/base`;
    await mkdir(base, { recursive: true });
    // A read-only overlay wants two directories at least.
    const empty = `${this.#base()}/empty`;
    mountOverlay(base, {
      lower: [...this.#lower(layers), empty, `${this.#base()}/empty2`],
      options: PLAIN_OPTIONS,
    });
    try {
      return compareTrees(base, tree, `${folder}/upper`);
    } finally {
      detachMount(base);
      await rmdir(base);
    }
  }

  async packed(folder: string): Promise<PackSource> {
    return {
      folder: `${folder}/upper`,
      options: { overlay: true, skipMountPoints: true, maps: this.#maps },
    };
  }

  places(folder: string, layers: readonly LayerRecord[]): Record<string, string> {
    const lower = layers.map((layer) => this.#layers.diffPath(layer.diffId)).reverse();
    return {
      LowerDir: lower.join(':'),
      MergedDir: `${folder}/merged`,
      UpperDir: `${folder}/upper`,
      WorkDir: `${folder}/work`,
    };
  }

  #base(): string {
    return `/proc/self/fd/${this.#handle!.fd}`;
  }

  /** The layers by short names, topmost first. */
  #lower(layers: readonly LayerRecord[]): string[] {
    return layers.map((layer) => `${this.#base()}/l/${this.#layers.shortName(layer.diffId)}`).reverse();
  }

  async unmount(folder: string): Promise<void> {
    await detachWithin(folder);
  }

  async writableBytes(folder: string): Promise<number> {
    return treeBytes(`${folder}/upper`);
  }
}

/**
 * Whether overlayfs works here, by mounting one. It does not on some file systems (no d_type, overlay on overlay), in
 * some sandboxes, and without the right to mount.
 * @returns undefined when it does, or why not.
 */
export async function probeOverlay(root: string): Promise<string | undefined> {
  const folder = `${root}/.probe-${process.pid}`;
  try {
    for (const name of ['lower1', 'lower2', 'upper', 'work', 'merged'])
      await mkdir(`${folder}/${name}`, { recursive: true });
    mountOverlay(`${folder}/merged`, {
      lower: [`${folder}/lower2`, `${folder}/lower1`],
      upper: { path: `${folder}/upper`, work: `${folder}/work` },
      options: PLAIN_OPTIONS,
    });
    detachMount(`${folder}/merged`);
    return undefined;
  } catch (error) {
    return errorMessage(error);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
