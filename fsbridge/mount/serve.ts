/**
 * A file system of the caller's own at a mount point: any {@link HostFs}, such as MemoryFs, instead of a folder. The calling thread
 * blocks in the kernel until the end, so it is a worker or a program of its own.
 */

import { ALERT_MS_MAX } from '#common/alertness';
import { systemClock } from '#common/clock';
import { DrydockError, errorMessage } from '#common/errors';
import * as fuse from '#common/native/fuse';
import { addressOf, errnoName } from '#common/native/libc';
import type { HostFs } from '../backing/host-fs.ts';
import { serve } from '../channel/fd-linux.ts';
import { allocate } from '../memory.ts';
import { WRITE_BYTES_MAX } from '../ops/init.ts';
import { defaultPolicy } from '../policy/options.ts';
import { Session } from '../session.ts';
import { linuxLayout } from '../wire/layout-linux.ts';
import { S_IFDIR } from '../wire/stat.ts';
import { FS_TYPE } from './mount.ts';

/** Headers beside the data of the largest request; the kernel wants room for a page. */
const HEADER_ROOM = 8192;

/** What to serve, and where. */
export interface ServeFsOptions {
  host: HostFs;
  /** An existing folder. */
  target: string;
  /** What the list of mounts calls it. Default `drydock`. */
  name?: string;
  /** Called once the file system is in use. */
  onStart?: () => void;
  /** Called with an error of `host`; the caller of the file system gets EIO. */
  onBug?: (error: unknown, operation: string) => void;
}

/**
 * Mounts and serves until the file system is unmounted (umount, by another process). Needs root and /dev/fuse. The process must not use
 * the mount itself: it would wait for its own answer.
 * @throws SyscallError of mount(2); DrydockError ERR_FS_SERVER when the device fails
 */
export function serveFs(options: ServeFsOptions): void {
  const { host, target, name = 'drydock' } = options;
  const fd = fuse.openFuse();
  let session: Session | undefined;
  try {
    const data = `fd=${fd},rootmode=${S_IFDIR.toString(8)},user_id=0,group_id=0,allow_other,default_permissions`;
    fuse.mountFs(name, target, FS_TYPE, fuse.MS_NOSUID | fuse.MS_NODEV, data);
    const request = allocate(WRITE_BYTES_MAX + HEADER_ROOM, addressOf);
    session = new Session({
      host,
      layout: linuxLayout,
      policy: { ...defaultPolicy, passthrough: false },
      clock: systemClock,
      addressOf,
      uid: process.geteuid?.() ?? 0,
      gid: process.getegid?.() ?? 0,
      request,
      onBug: options.onBug ?? ((error, operation) => console.error(`${operation}: ${errorMessage(error)}`)),
    });
    const failure = serve({
      fd,
      session,
      clock: systemClock,
      request,
      reply: allocate(WRITE_BYTES_MAX + HEADER_ROOM, addressOf),
      alertMsMax: ALERT_MS_MAX,
      stopped: () => false,
      onStart: options.onStart ?? (() => {}),
    });
    if (failure !== undefined)
      throw new DrydockError('ERR_FS_SERVER', `The device of ${target} failed: ${errnoName(-failure)}.`);
  } finally {
    session?.close();
    fuse.closeFd(fd);
  }
}
