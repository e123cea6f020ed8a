/**
 * A host folder, served to a container by a file server in userspace over the FUSE wire protocol.
 * This is the public surface of `drydock/fsbridge`.
 */
/** A file system's operations; what fails gives a negative errno. */

/** Time for a {@link MemoryFs}. */
export { systemClock } from '#common/clock';
export type { HostFs } from './backing/host-fs.ts';
export { MemoryFs } from './backing/memory-fs.ts';
export { type FuseTMount, type FuseTOptions, findFuseT, serveFuseT } from './channel/fuse-t.ts';
export { mountFolder } from './mount/mount.ts';
export { type MountEntry, parseMountInfo } from './mount/mountinfo.ts';
export type { BridgeMount, BridgeMountOptions } from './mount/options.ts';
export { type ServeFsOptions, serveFs } from './mount/serve.ts';
export { type MountStatus, mountStatus } from './mount/status.ts';
export { sweepMounts } from './mount/sweep.ts';
export { checkExported } from './policy/exports.ts';
export { type IdRange, parseIdRange } from './policy/id-map.ts';
export type { Consistency, OwnershipMode } from './policy/options.ts';
export { Session } from './session.ts';
export type { OperationStats } from './statistics.ts';
export { darwinLayout } from './wire/layout-darwin.ts';
export { linuxLayout } from './wire/layout-linux.ts';
