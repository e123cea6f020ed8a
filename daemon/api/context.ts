/** What the API's plugins work with: the daemon's services, made once in daemon/index.ts. */
import type { Clock } from '#common/clock';
import type { Log } from '#common/log';
import type { EventBus } from '../events/bus.ts';
import type { ImageStore, ImageUsers, RootStore } from '../image/store.ts';

/** The daemon, as its API sees it. */
export interface ApiContext {
  /** Drydock's own version. */
  readonly version: string;
  readonly images: ImageStore;
  readonly roots: RootStore;
  readonly events: EventBus;
  readonly clock: Clock;
  readonly log: Log;
  /** The containers that were made from an image. */
  readonly imageUsers: ImageUsers;
}
