/**
 * A host folder, served to a container by a file server in userspace over the FUSE wire protocol.
 * This is the public surface of `drydock/fsbridge`.
 */
export type { BridgeMount, BridgeMountOptions } from './mount/mount.ts';
export { mountFolder } from './mount/mount.ts';
export { sweepMounts } from './mount/sweep.ts';
export type { Consistency, OwnershipMode } from './policy/options.ts';
