/**
 * Garbage collection of the build cache, when the last build has ended: rule by rule, each removes what it means, longest
 * unused first, until the cache is no larger than it says. Without rules the cache grows until somebody prunes it. An image that
 * was built without a name stays, as dockerd's does; what was there before the start may be one.
 */
import type { Clock } from '#common/clock';
import type { Log } from '#common/log';
import type { ImageUsers } from '../image/store.ts';
import { cacheFilter } from './cache-filters.ts';
import type { BuildCache, CacheUsage } from './cache-usage.ts';
import type { GcRule } from './garbage-rules.ts';

/** What the collector works with. */
export interface CollectorParts {
  cache: BuildCache;
  rules: readonly GcRule[];
  users: ImageUsers;
  /** Images that were built since the start. */
  results: ReadonlySet<string>;
  clock: Clock;
  log: Log;
}

/** See the module's head. */
export class CacheCollector {
  readonly #parts: CollectorParts;
  readonly #startedMs: number;
  #running: Promise<void> | undefined;

  constructor(parts: CollectorParts) {
    this.#parts = parts;
    this.#startedMs = parts.clock.wallMs();
  }

  /** Collects, unless that is under way. Trouble is logged. */
  collect(): Promise<void> {
    this.#running ??= this.#collect().finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }

  async #collect(): Promise<void> {
    const { cache, rules, users, results, clock, log } = this.#parts;
    const isResult = ({ id, createdMs }: CacheUsage): boolean =>
      results.has(`sha256:${id}`) || createdMs < this.#startedMs;
    for (const { filters, all, keepBytes } of rules)
      try {
        const matches = cacheFilter(new Map(Object.entries(filters)), clock.wallMs());
        const { removed, reclaimedBytes } = await cache.prune({ matches, all, keepBytes, users, isResult });
        if (removed.length > 0)
          log.info({ parts: removed.length, bytes: reclaimedBytes }, 'collected garbage of the build cache');
      } catch (error) {
        log.warn({ error }, 'garbage of the build cache could not be collected');
      }
  }
}
