/**
 * Garbage collection of the build cache, when the last build has ended: rule by rule, each removes what it means, longest
 * unused first, until the cache is no larger than it says. Without rules the cache grows until somebody prunes it.
 */
import type { Clock } from '#common/clock';
import type { Log } from '#common/log';
import type { ImageUsers } from '../image/store.ts';
import { cacheFilter } from './cache-filters.ts';
import type { BuildCache } from './cache-usage.ts';
import type { GcRule } from './garbage-rules.ts';

/** See the module's head. */
export class CacheCollector {
  readonly #parts: { cache: BuildCache; rules: readonly GcRule[]; users: ImageUsers; clock: Clock; log: Log };
  #running: Promise<void> | undefined;

  constructor(parts: {
    cache: BuildCache;
    rules: readonly GcRule[];
    users: ImageUsers;
    clock: Clock;
    log: Log;
  }) {
    this.#parts = parts;
  }

  /** Collects, unless that is under way. Trouble is logged. */
  collect(): Promise<void> {
    this.#running ??= this.#collect().finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }

  async #collect(): Promise<void> {
    const { cache, rules, users, clock, log } = this.#parts;
    for (const { filters, all, keepBytes } of rules)
      try {
        const matches = cacheFilter(new Map(Object.entries(filters)), clock.wallMs());
        const { removed, reclaimedBytes } = await cache.prune({ matches, all, keepBytes, users });
        if (removed.length > 0)
          log.info({ parts: removed.length, bytes: reclaimedBytes }, 'collected garbage of the build cache');
      } catch (error) {
        log.warn({ error }, 'garbage of the build cache could not be collected');
      }
  }
}
