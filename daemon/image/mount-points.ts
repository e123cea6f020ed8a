/**
 * Files and folders that are made in a container's root only to mount something on them. dockerd keeps them in a layer
 * of their own below the writable one, so that neither `docker diff` nor a commit shows them; here they are told by
 * their names and by being empty.
 */
import type { ByteString } from '#common/native/layer-fs';

const FILES = new Set(['etc/hosts', 'etc/hostname', 'etc/resolv.conf', 'dev/console', '.dockerenv']);
const FOLDERS = new Set(['dev', 'dev/pts', 'dev/shm', 'dev/mqueue', 'proc', 'sys']);

/** What a path (relative, a byte string) is made as to mount on it, if it is one of those. */
export function mountPointKind(path: ByteString): 'file' | 'folder' | undefined {
  if (FILES.has(path)) return 'file';
  return FOLDERS.has(path) ? 'folder' : undefined;
}
