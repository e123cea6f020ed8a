/**
 * `userns-remap`: which numbers of the machine the users of containers get, from /etc/subuid and /etc/subgid (subuid(5))
 * by the rules of dockerd: root in a container is the first number of the user's ranges, the others follow.
 */
import { readFileSync } from 'node:fs';
import { DrydockError } from '#common/errors';
import { type IdRange, outsideId, type UserMaps } from '#common/id-map';

/** What `default` stands for, as with dockerd. */
const DEFAULT_USER = 'dockremap';

/** The files of a machine that say who may use which numbers. */
export interface IdFiles {
  passwd: string;
  group: string;
  subuid: string;
  subgid: string;
}

/** This machine's; one that is missing is empty. */
export function readIdFiles(): IdFiles {
  const read = (path: string): string => {
    try {
      return readFileSync(path, 'utf8');
    } catch {
      return '';
    }
  };
  return {
    passwd: read('/etc/passwd'),
    group: read('/etc/group'),
    subuid: read('/etc/subuid'),
    subgid: read('/etc/subgid'),
  };
}

/** An account of /etc/passwd or /etc/group. */
export interface Named {
  name: string;
  id: string;
}

/** The entry of a file such as /etc/passwd by name or number. */
export function findNamed(text: string, wish: string): Named | undefined {
  const entries = text.split('\n').map((line) => line.split(':'));
  const found =
    entries.find(([name]) => name === wish) ??
    (/^\d+$/.test(wish) ? entries.find(([, , id]) => id === wish) : undefined);
  return found?.[0] && found[2] !== undefined ? { name: found[0], id: found[2] } : undefined;
}

/** The ranges of an owner, by name or number, one after the other from 0 on. */
export function subordinateIds(text: string, { name, id }: Named): IdRange[] {
  const ranges: IdRange[] = [];
  let inside = 0;
  for (const line of text.split('\n')) {
    const [owner, first = '', count = ''] = line.trim().split(':');
    if ((owner !== name && owner !== id) || !/^\d+$/.test(first) || !/^[1-9]\d*$/.test(count)) continue;
    ranges.push({ inside, outside: Number(first), length: Number(count) });
    inside += Number(count);
  }
  return ranges;
}

function invalid(message: string): DrydockError {
  return new DrydockError('ERR_BAD_CONFIG', `userns-remap: ${message}`);
}

function rangesOf(
  wish: string,
  accounts: string,
  file: '/etc/subuid' | '/etc/subgid',
  text: string,
): IdRange[] {
  const kind = file === '/etc/subuid' ? 'user' : 'group';
  const named = findNamed(accounts, wish);
  if (!named)
    throw invalid(
      `there is no ${kind} ${wish}` +
        (wish === DEFAULT_USER ? `: make one with: useradd --system --add-subids-for-system ${wish}` : ''),
    );
  const ranges = subordinateIds(text, named);
  if (ranges.length > 0) return ranges;
  throw invalid(
    `${file} has no numbers for the ${kind} ${named.name}: add them with: echo ${named.name}:100000:65536 >>${file}`,
  );
}

/**
 * The maps for a value of `userns-remap`: `default`, `user`, `user:group`, by names or numbers.
 *
 * @throws DrydockError ERR_BAD_CONFIG with what is missing and how to get it
 */
export function remappedUsers(wish: string, files: IdFiles): UserMaps {
  const [user = '', group = user] = (wish === 'default' ? DEFAULT_USER : wish).split(':');
  if (user === '' || group === '') throw invalid(`${JSON.stringify(wish)} is not user or user:group`);
  // With one name for both, the group of that name may be missing: its numbers go by the name of the user.
  const groups = group === user && !findNamed(files.group, group) ? files.passwd : files.group;
  return {
    uids: rangesOf(user, files.passwd, '/etc/subuid', files.subuid),
    gids: rangesOf(group, groups, '/etc/subgid', files.subgid),
  };
}

/** The folder below the data root for what belongs to these users, as dockerd names it. */
export function remappedFolder(maps: UserMaps): string {
  return `${outsideId(maps.uids, 0)}.${outsideId(maps.gids, 0)}`;
}
