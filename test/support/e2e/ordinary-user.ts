/** An ordinary user with subordinate numbers, and places for a daemon of his. */
import { chmodSync, chownSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { findHierarchies, readValue, removeGroups } from '../../../daemon/runtime/linux/cgroup.ts';
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

/** Control groups that were given to the user, of whichever version this machine has. */
export interface GivenGroups {
  /** Goes into them, and becomes a command. */
  wrapper: string[];
  paths: string[];
  remove(): void;
}

/** Makes them. @param name of the group in each hierarchy */
export function giveGroups(name: string): GivenGroups {
  const hierarchies = findHierarchies(readFileSync('/proc/self/mountinfo', 'utf8'));
  const unified = hierarchies.filter(
    ({ path, controllers }) => !controllers && readValue(`${path}/cgroup.controllers`)?.includes('memory'),
  );
  const chosen = unified.length > 0 ? unified : hierarchies.filter(({ controllers }) => controllers);
  const paths = chosen.map(({ path }) => join(path, name));
  for (const path of paths) {
    mkdirSync(path);
    for (const file of ['cpuset.cpus', 'cpuset.mems'])
      if (readValue(join(path, file)) === '')
        writeFileSync(join(path, file), readValue(join(dirname(path), file)) ?? '');
    for (const file of ['.', 'cgroup.procs', 'tasks', 'cgroup.subtree_control', 'cgroup.threads'])
      if (existsSync(join(path, file))) chownSync(join(path, file), UID, UID);
  }
  const enter = paths.map((path) => `echo $$ > ${path}/cgroup.procs`).join(' && ');
  return {
    wrapper: ['sh', '-c', `${enter} && exec "$@"`, 'sh'],
    paths,
    remove: () => {
      for (const path of paths) removeGroups(path);
    },
  };
}
