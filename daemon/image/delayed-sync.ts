/**
 * Puts what images are made of on the disk some time after it came: waiting for it at once would wait for all that the
 * whole machine has to write. Whoever keeps such files notes which are not synced yet, and after a crash of the machine
 * (another boot id) does not trust those. A killed daemon loses nothing either way.
 */
import type { Clock, Timer } from '#common/clock';
import { errorMessage } from '#common/errors';
import type { Log } from '#common/log';

/** By then builds and pulls are mostly through. */
const SYNC_MS = 5000;

/** Whoever keeps files that are synced later. */
export interface Unsynced {
  /** A path on the file system to sync. */
  readonly syncPath: string;
  /** What to do when everything that is unsynced now has been synced; undefined when there is nothing. */
  unsynced(): (() => Promise<void>) | undefined;
}

/** See the module's head. */
export class DelayedSync {
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #sync: (path: string) => Promise<void>;
  readonly #keepers: Unsynced[] = [];
  #timer: Timer | undefined;

  /** @param sync writes everything of the file system that holds a path to its disk */
  constructor(clock: Clock, log: Log, sync: (path: string) => Promise<void>) {
    this.#clock = clock;
    this.#log = log;
    this.#sync = sync;
  }

  add(keeper: Unsynced): void {
    this.#keepers.push(keeper);
  }

  /** Something has come that is to be synced. */
  soon(): void {
    this.#timer ??= this.#clock.arm(this.#clock.now() + SYNC_MS, () => {
      this.#run()
        .catch((error: unknown) =>
          this.#log.warn({ error: errorMessage(error) }, 'images could not be synced'),
        )
        .finally(() => {
          this.#timer = undefined;
          if (this.#keepers.some((keeper) => keeper.unsynced())) this.soon();
        });
    });
  }

  close(): void {
    this.#timer?.cancel();
  }

  async #run(): Promise<void> {
    for (const keeper of this.#keepers) {
      const done = keeper.unsynced();
      if (!done) continue;
      await this.#sync(keeper.syncPath);
      await done();
    }
  }
}
