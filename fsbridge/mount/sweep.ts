/** Cleaning up what a killed process left: mounts whose server is gone answer every call with ENOTCONN. */
import { abortConnection, MNT_DETACH, UMOUNT_NOFOLLOW, unmountFs } from '#common/native/fuse';
import { FS_TYPE, liveTargets } from './mount.ts';
import { mountEntries } from './mountinfo.ts';

/**
 * Lazily unmounts the mounts of ours at and below the folder `prefix` that this process doesn't serve, the innermost
 * first. Touches none of them before, since a dead one may make the caller wait. Their targets, for the log.
 *
 * The connections are cut too: a process that was killed between a request of its own and the answer can't end before.
 */
export async function sweepMounts(prefix: string): Promise<string[]> {
  const live = liveTargets();
  const folder = prefix.replace(/\/+$/, '');
  const found = (await mountEntries())
    .filter(({ type, target }) => type === FS_TYPE && !live.has(target))
    .filter(({ target }) => target === folder || target.startsWith(`${folder}/`))
    .reverse();
  for (const { target, device } of found) {
    abortConnection(Number(device.split(':')[1]));
    unmountFs(target, MNT_DETACH | UMOUNT_NOFOLLOW);
  }
  return found.map(({ target }) => target);
}
