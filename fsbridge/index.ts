/**
 * A host folder, served to a container by a file server in userspace over the FUSE wire protocol.
 * This is the public surface of `drydock/fsbridge`.
 */
import type { Log } from '#common/log';

/** How strongly both sides see each other's changes, as in docker's `-v ...:cached`. */
export type Consistency = 'consistent' | 'cached' | 'delegated';

/** What to mount, where and how. */
export interface BridgeMountOptions {
  /** Host folder or file. It must exist. */
  source: string;
  /** An existing folder (or file, when the source is one) to mount on. */
  target: string;
  readOnly?: boolean;
  /** Default `consistent`. */
  consistency?: Consistency;
  log?: Log;
}

/** A mounted folder. */
export interface BridgeMount {
  readonly source: string;
  readonly target: string;
  /** Settles when the mount has ended, by unmount() or because the server failed. */
  readonly ended: Promise<void>;
  /** Requests served, by operation name. */
  stats(): Promise<Record<string, number>>;
  /** Unmounts (lazily when busy) and stops the server. */
  unmount(): Promise<void>;
}
