/** An ordinary user with subordinate numbers, and places for a daemon of his. */
import { chmodSync, chownSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type DaemonAddress, TestDaemon } from './daemon.ts';

/** A user that every Debian has. */
export const USER = 'www-data';
export const UID = 33;

/** Becomes that user, on a machine that has given it the numbers of `text` (subuid(5)). */
export function asUser(folder: string, text: string): string[] {
  writeFileSync(join(folder, 'ids'), text);
  chmodSync(folder, 0o755);
  const binds = ['subuid', 'subgid'].map((name) => `mount --bind ${folder}/ids /etc/${name}`).join(' && ');
  const user = `env -u XDG_RUNTIME_DIR -u XDG_CONFIG_HOME HOME=${folder}/home setpriv --reuid ${UID} --regid ${UID} --clear-groups`;
  return ['unshare', '--mount', 'sh', '-c', `${binds} && exec ${user} "$@"`, 'sh'];
}

/** Places that the user may write to. */
export function usersAddress(): DaemonAddress {
  const address = TestDaemon.makeAddress();
  const folder = dirname(address.dataRoot);
  mkdirSync(address.configFolder, { recursive: true });
  chownSync(folder, UID, UID);
  return address;
}
