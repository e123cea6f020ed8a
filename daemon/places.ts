/** Where a daemon has its things unless told otherwise. */
import { homedir } from 'node:os';
import { join } from 'node:path';
import { inUserNamespace, outsideRoot } from '#common/user-namespace';

/** Folders. */
export interface Places {
  data: string;
  run: string;
  config: string;
}

/** Those of an ordinary user (the XDG base directories). @param uid as the machine has it */
function usersPlaces(uid: number): Places {
  const { XDG_DATA_HOME, XDG_RUNTIME_DIR, XDG_CONFIG_HOME } = process.env;
  return {
    data: join(XDG_DATA_HOME || join(homedir(), '.local', 'share'), 'drydock'),
    run: XDG_RUNTIME_DIR ? join(XDG_RUNTIME_DIR, 'drydock') : `/tmp/drydock-${uid}`,
    config: join(XDG_CONFIG_HOME || join(homedir(), '.config'), 'drydock'),
  };
}

const ownUid = process.getuid?.() ?? 0;

const ROOTS_PLACES: Places =
  process.platform === 'darwin'
    ? // There is no /run, and /var is a link, which profiles do not see.
      { data: '/private/var/drydock', run: '/private/var/run/drydock', config: '/etc/drydock' }
    : { data: '/var/lib/drydock', run: '/run/drydock', config: '/etc/drydock' };

/** Those of this process's user; on Linux an ordinary user may have a daemon, and has its own. */
export const PLACES: Places =
  process.platform === 'linux' && (ownUid !== 0 || inUserNamespace)
    ? usersPlaces(ownUid || outsideRoot())
    : ROOTS_PLACES;

/** A text with the places of this process's user as root has it: for pages that are made by one and read by all. */
export function withPlacesOfRoot(text: string): string {
  return (Object.keys(PLACES) as (keyof Places)[]).reduce(
    (changed, place) => changed.replaceAll(PLACES[place], ROOTS_PLACES[place]),
    text,
  );
}
