/** Filters of `docker builder prune` and of `builder.gc`. Pure. */
import { goDurationNs } from '../go-text.ts';
import type { CacheUsage } from './cache-usage.ts';

/** What may be asked for in a filter of the cache. */
export const CACHE_FILTERS: ReadonlySet<string> = new Set([
  'id',
  'parent',
  'type',
  'description',
  'inuse',
  'mutable',
  'immutable',
  'shared',
  'private',
  'until',
  'unused-for',
]);

/**
 * A test for parts of the cache. @param filters by name; each of them must hold, by one of its values. A duration that is none
 * is no time at all.
 */
export function cacheFilter(
  filters: ReadonlyMap<string, readonly string[]>,
  nowMs: number,
): (usage: CacheUsage) => boolean {
  const tests: Record<string, (usage: CacheUsage, value: string) => boolean> = {
    id: (usage, value) => usage.id.startsWith(value),
    parent: (usage, value) => usage.parents.some((parent) => parent.startsWith(value)),
    type: (usage, value) => usage.type === value,
    description: (usage, value) => usage.description.includes(value),
    inuse: (usage, value) => usage.inUse === isTrue(value),
    mutable: (usage, value) => usage.mutable === isTrue(value),
    immutable: (usage, value) => usage.mutable !== isTrue(value),
    shared: (usage, value) => usage.shared === isTrue(value),
    private: (usage, value) => usage.shared !== isTrue(value),
    until: (usage, value) =>
      (usage.lastUsedMs ?? usage.createdMs) <= nowMs - (goDurationNs(value) ?? 0) / 1e6,
  };
  tests['unused-for'] = tests.until!;
  return (usage) =>
    [...filters].every(([name, values]) => values.some((value) => tests[name]!(usage, value)));
}

const isTrue = (text: string): boolean => !['false', '0', 'f'].includes(text.toLowerCase());
