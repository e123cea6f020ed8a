/**
 * Where a jail's look-ups of names go: DNSSD_UDS_PATH, which Darwin's resolver reads. A socket's path has room for 103 bytes, less
 * than that of a container's root: in a chroot the socket is made by way of a short link to its folder, and confined in
 * place it is outside of the image.
 */
import { lstatSync, mkdirSync, realpathSync, rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { errorCode } from '#common/errors';
import type { NamesSocket } from '../../network/proxied/jails.ts';
import type { RootMode } from './profile.ts';

/** In the image, and in nobody's way. */
const FOLDER = '.drydock';
const NAME = 'names';
/** Enough of an id to tell the containers of one daemon apart. */
const ID_CHARACTERS = 12;

/**
 * Makes room for the socket. No program of the container runs yet, so that nothing moves under way; what an image has in place
 * of the folder is taken away.
 * @param folder short, and the daemon's own
 */
export function namesSocket(mode: RootMode, folder: string, id: string, rootPath: string): NamesSocket {
  mkdirSync(folder, { recursive: true, mode: 0o711 });
  // Profiles match paths without links.
  const short = join(realpathSync(folder), id.slice(0, ID_CHARACTERS));
  const forget = (): void => rmSync(short, { force: true });
  forget();
  if (mode === 'confine') return { path: short, seenAs: short, forget };
  const inside = join(rootPath, FOLDER);
  if (!isFolder(inside)) rmSync(inside, { force: true });
  mkdirSync(inside, { recursive: true, mode: 0o755 });
  rmSync(join(inside, NAME), { recursive: true, force: true });
  symlinkSync(inside, short);
  return { path: join(short, NAME), seenAs: `/${FOLDER}/${NAME}`, forget };
}

function isFolder(path: string): boolean {
  try {
    return lstatSync(path).isDirectory();
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return false;
    throw error;
  }
}
