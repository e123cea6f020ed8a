/**
 * The drivers `vfs` and `apfs`: every root is a full copy of its layers, for machines without overlayfs. Copies of vfs
 * share their blocks with the layer where the file system can (btrfs, xfs); those of apfs are clones, or an error. Layers
 * keep their whiteouts as `.wh.` files, and are merged here from the lowest up.
 */
import { constants, type Stats } from 'node:fs';
import {
  chmod,
  copyFile,
  lchown,
  link,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readlink,
  rm,
  symlink,
} from 'node:fs/promises';
import type { UserMaps } from '#common/id-map';
import { getXattr, listXattrs, makeNode, setTimes, setXattr } from '#common/native/layer-fs';
import { compareTrees, type TreeChange } from './changes-of-tree.ts';
import { OPAQUE_NAME, WHITEOUT_PREFIX } from './extract.ts';
import type { LayerStore } from './layers.ts';
import { treeBytes } from './overlay-driver.ts';
import { ownerOnDisk, ROOT } from './owners.ts';
import type { PackSource } from './pack.ts';
import type { LayerRecord } from './records.ts';
import type { RootDriver } from './roots.ts';
import type { CloneFile, StorageDriver } from './storage-driver.ts';

const AT_FDCWD = -100;

export class VfsDriver implements RootDriver {
  readonly name: StorageDriver;
  readonly #layers: LayerStore;
  readonly #maps: UserMaps | undefined;
  readonly #copy: CloneFile;

  /**
   * @param maps how the users of containers are those of the machine, when they are others
   * @param cloneFile makes it the driver apfs
   */
  constructor(layers: LayerStore, maps: UserMaps | undefined, cloneFile?: CloneFile) {
    this.name = cloneFile ? 'apfs' : 'vfs';
    this.#maps = maps;
    this.#layers = layers;
    this.#copy = cloneFile ?? ((from, to) => copyFile(from, to, constants.COPYFILE_FICLONE));
  }

  async create(folder: string, layers: readonly LayerRecord[]): Promise<void> {
    await this.#merge(`${folder}/tree`, layers);
  }

  places(): null {
    return null;
  }

  async changes(folder: string, layers: readonly LayerRecord[]): Promise<TreeChange[]> {
    const base = await mkdtemp(`${folder}/base-`);
    try {
      await this.#merge(`${base}/tree`, layers);
      return compareTrees(`${base}/tree`, `${folder}/tree`);
    } finally {
      await rm(base, { recursive: true });
    }
  }

  async packed(folder: string, layers: readonly LayerRecord[]): Promise<PackSource> {
    const changes = await this.changes(folder, layers);
    const deleted = changes.flatMap(({ path, kind }) => (kind === 2 ? [path] : []));
    const only = new Set(changes.flatMap(({ path, kind }) => (kind === 2 ? [] : [path])));
    return { folder: `${folder}/tree`, options: { overlay: false, only, deleted, maps: this.#maps } };
  }

  async #merge(root: string, layers: readonly LayerRecord[]): Promise<void> {
    await mkdir(root, { mode: 0o755 });
    const { uid, gid } = ownerOnDisk(ROOT, this.#maps);
    await lchown(root, uid, gid);
    for (const layer of layers) await new Merge(this.#layers.diffPath(layer.diffId), root, this.#copy).run();
  }

  async mount(folder: string): Promise<string> {
    return `${folder}/tree`;
  }

  async unmount(): Promise<void> {}

  async writableBytes(folder: string, layers: readonly LayerRecord[]): Promise<number> {
    const below = layers.reduce((sum, layer) => sum + layer.bytes, 0);
    return Math.max(0, (await treeBytes(`${folder}/tree`)) - below);
  }
}

/** Lays one layer over a tree. Names are byte strings throughout; see common/native/layer-fs.ts. */
class Merge {
  readonly #from: string;
  readonly #to: string;
  /** First copies of files with several links, by inode. */
  readonly #links = new Map<number, Buffer>();

  readonly #copy: CloneFile;

  constructor(from: string, to: string, copy: CloneFile) {
    this.#copy = copy;
    this.#from = Buffer.from(from).toString('latin1');
    this.#to = Buffer.from(to).toString('latin1');
  }

  async run(): Promise<void> {
    await this.#directory('');
  }

  async #directory(path: string): Promise<void> {
    const from = bytes(this.#from + path);
    const names = await readdir(from, { encoding: 'latin1' });
    if (names.includes(OPAQUE_NAME))
      for (const name of await readdir(bytes(this.#to + path)))
        await rm(`${this.#to}${path}/${name}`, { recursive: true });
    for (const name of names) {
      if (!name.startsWith(WHITEOUT_PREFIX)) continue;
      const hidden = name.slice(WHITEOUT_PREFIX.length);
      await rm(bytes(`${this.#to}${path}/${hidden}`), { recursive: true, force: true });
    }
    for (const name of names) if (!name.startsWith(WHITEOUT_PREFIX)) await this.#node(`${path}/${name}`);
    await this.#metadata(path, await lstat(from));
  }

  async #node(path: string): Promise<void> {
    const from = bytes(this.#from + path);
    const to = bytes(this.#to + path);
    const stats = await lstat(from);
    const existing = await lstat(to).catch(() => undefined);
    if (stats.isDirectory()) {
      if (existing && !existing.isDirectory()) await rm(to);
      if (!existing?.isDirectory()) await mkdir(to);
      await this.#directory(path);
      return;
    }
    if (existing) await rm(to, { recursive: true });
    const first = stats.nlink > 1 ? this.#links.get(stats.ino) : undefined;
    if (first) {
      await link(first, to);
      return;
    }
    if (stats.nlink > 1) this.#links.set(stats.ino, to);
    if (stats.isSymbolicLink()) await symlink(await readlink(from, { encoding: 'buffer' }), to);
    else if (stats.isFile()) await this.#copy(from, to);
    else {
      const [major, minor] = deviceNumbers(stats.rdev);
      makeNode(AT_FDCWD, this.#to + path, stats.mode, major, minor);
    }
    await this.#metadata(path, stats);
  }

  async #metadata(path: string, stats: Stats): Promise<void> {
    const to = bytes(this.#to + path);
    await lchown(to, stats.uid, stats.gid);
    if (!stats.isSymbolicLink()) await chmod(to, stats.mode & 0o7777);
    for (const name of listXattrs(this.#from + path))
      setXattr(this.#to + path, name, getXattr(this.#from + path, name) ?? Buffer.alloc(0));
    const { mtimeNs } = await lstat(bytes(this.#from + path), { bigint: true });
    setTimes(AT_FDCWD, this.#to + path, Number(mtimeNs / 1_000_000_000n), Number(mtimeNs % 1_000_000_000n));
  }
}

function bytes(path: string): Buffer {
  return Buffer.from(path, 'latin1');
}

/** glibc's gnu_dev_major and gnu_dev_minor, for the 32-bit numbers that stat gives. */
function deviceNumbers(device: number): [major: number, minor: number] {
  return [(device >>> 8) & 0xfff, (device & 0xff) | ((device >>> 12) & 0xfff00)];
}
