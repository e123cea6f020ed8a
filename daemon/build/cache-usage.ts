/**
 * What builds have left to be used again: images of steps that have no name, and the folders of RUN --mount=type=cache.
 * As `docker system df`, `docker builder prune` and `docker buildx du` list them; their names of fields are BuildKit's.
 */

import { hexOf } from '../image/content.ts';
import type { Images } from '../image/images.ts';
import type { ImageRecord } from '../image/records.ts';
import type { ImageUsers } from '../image/store.ts';
import type { CacheMounts } from './cache-mounts.ts';

/** One part of the cache. */
export interface CacheUsage {
  /** 64 hexadecimal digits. */
  id: string;
  parents: string[];
  type: 'regular' | 'exec.cachemount';
  description: string;
  /** Something that runs needs it. */
  inUse: boolean;
  /** An image with a name has its files too: they stay when it is removed. */
  shared: boolean;
  mutable: boolean;
  /** Bytes that it has for itself, or shares with images. */
  sizeBytes: number;
  createdMs: number;
  lastUsedMs: number | undefined;
  usageCount: number;
}

/** Which parts of the cache to remove. */
export interface CachePruneOptions {
  matches: (usage: CacheUsage) => boolean;
  /** Also what images with a name were made from. */
  all: boolean;
  /** Parts go, those longest unused first, until the rest has no more than this. */
  keepBytes: number;
  users: ImageUsers;
  /** What somebody may have built for its own sake, without a name: it stays. */
  isResult?: (usage: CacheUsage) => boolean;
}

/** See the module's head. */
export class BuildCache {
  readonly #images: Images;
  readonly #mounts: CacheMounts;

  constructor(images: Images, mounts: CacheMounts) {
    this.#images = images;
    this.#mounts = mounts;
  }

  /** All parts, the oldest use first. */
  async list(users: ImageUsers): Promise<CacheUsage[]> {
    const { records } = this.#images.library.parts;
    const named = new Set(records.references().map(([, id]) => id));
    const ofNamed = new Set(
      [...named].flatMap((id) => (records.get(id)?.layers ?? []).map((layer) => layer.diffId)),
    );
    const steps = records.list().filter((record) => record.cacheKey !== undefined && !named.has(record.id));
    const usages = steps.map((record) => this.#usageOf(record, ofNamed, users));
    for (const { id, name, inUse, sizeBytes, createdMs, lastUsedMs, uses } of await this.#mounts.list())
      usages.push({
        ...{ id, parents: [], type: 'exec.cachemount', description: `cached mount ${name}`, mutable: true },
        ...{ inUse, shared: false, sizeBytes, createdMs, lastUsedMs, usageCount: uses },
      });
    const lastOf = (usage: CacheUsage): number => usage.lastUsedMs ?? usage.createdMs;
    return usages.sort((a, b) => lastOf(a) - lastOf(b) || a.id.localeCompare(b.id));
  }

  #usageOf(record: ImageRecord, ofNamed: ReadonlySet<string>, users: ImageUsers): CacheUsage {
    const { library } = this.#images;
    const { history, created } = library.configOf(record.id);
    const step = history.at(-1);
    const layer = step?.empty_layer ? undefined : record.layers.at(-1);
    return {
      id: hexOf(record.id),
      parents: record.parent === undefined ? [] : [hexOf(record.parent)],
      type: 'regular',
      description: step?.created_by ?? '',
      inUse: users(record.id).length > 0,
      shared: layer !== undefined && ofNamed.has(layer.diffId),
      mutable: false,
      sizeBytes: layer?.bytes ?? 0,
      createdMs: Date.parse(created ?? '') || 0,
      lastUsedMs: undefined,
      usageCount: 1,
    };
  }

  /** Removes parts. Returns what was removed, and the bytes that came free. */
  async prune(options: CachePruneOptions): Promise<{ removed: CacheUsage[]; reclaimedBytes: number }> {
    const { library } = this.#images;
    const before = library.layerBytes();
    const removed: CacheUsage[] = [];
    let mountBytes = 0;
    for (let isDone = false; !isDone; ) {
      isDone = true;
      const usages = await this.list(options.users);
      let rest = usages.reduce((sum, { shared, sizeBytes }) => sum + (shared ? 0 : sizeBytes), 0);
      for (const usage of usages) {
        if (options.keepBytes > 0 && rest <= options.keepBytes)
          return this.#result(removed, before, mountBytes);
        if (usage.inUse || !options.matches(usage) || !(await this.#remove(usage, options))) continue;
        removed.push(usage);
        if (!usage.shared) rest -= usage.sizeBytes;
        if (usage.type === 'exec.cachemount') mountBytes += usage.sizeBytes;
        // What it was made from may go now.
        isDone = false;
      }
    }
    return this.#result(removed, before, mountBytes);
  }

  #result(
    removed: CacheUsage[],
    before: number,
    mountBytes: number,
  ): { removed: CacheUsage[]; reclaimedBytes: number } {
    const layerBytes = Math.max(0, before - this.#images.library.layerBytes());
    return { removed, reclaimedBytes: layerBytes + mountBytes };
  }

  async #remove(usage: CacheUsage, { all, users, isResult }: CachePruneOptions): Promise<boolean> {
    const { id, type } = usage;
    if (type === 'exec.cachemount') return this.#mounts.remove(id);
    const { library } = this.#images;
    const { records } = library.parts;
    const imageId = `sha256:${id}`;
    const children = library.childrenOf(imageId);
    if (children.length > 0) {
      const areNamed = children.every((child) => records.referencesOf(child).length > 0);
      if (!all || !areNamed) return false;
      // Those keep their files, and forget what they were made from: the next build makes them again.
      for (const child of children) {
        const { parent: _parent, cacheKey: _key, ...record } = records.get(child)!;
        await records.put(record);
      }
    }
    if (!records.get(imageId) || (children.length === 0 && isResult?.(usage))) return false;
    await this.#images.remove(imageId, { force: true, prune: false, users });
    return true;
  }
}
