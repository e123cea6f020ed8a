/** The view over the API's own socket, which only those reach who may do everything: for `drydock net top` and for scripts. */
import type { ApiPlugin } from '../api/server.ts';
import { takeSnapshot } from './snapshot.ts';

/** Where the snapshot is. */
export const SNAPSHOT_PATH = '/_drydock/snapshot';

/** `GET /_drydock/snapshot`. */
export const viewRoutes: ApiPlugin = (app, context) => {
  app.get(SNAPSHOT_PATH, () => takeSnapshot(context));
};
