/**
 * Who a program runs as: `USER[:GROUP]` looked up in the jail's own /etc/passwd and /etc/group, by the rules of
 * docker (moby/sys/user, GetExecUser). The files belong to the image: they are read as bytes, with a limit, and never
 * through a program of the image.
 */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { isErrno, LaunchFailure } from './failure.ts';

/** Larger files are refused instead of being read into the launcher. */
const FILE_BYTES_MAX = 4 << 20;
/** The largest id; (uid_t)-1 means "none" to the kernel. */
const ID_MAX = 0xffff_fffe;

/** What is looked up. */
export interface Identity {
  uid: number;
  gid: number;
  /** Supplementary groups. */
  groups: number[];
  home: string;
}

interface PasswdEntry {
  name: string;
  uid: number;
  gid: number;
  home: string;
}

interface GroupEntry {
  name: string;
  gid: number;
  members: string[];
}

/** Lines that are well-formed enough; others are passed over, as docker does. */
export function parsePasswd(text: string): PasswdEntry[] {
  const entries: PasswdEntry[] = [];
  for (const line of text.split('\n')) {
    const [name, , uid, gid, , home] = line.split(':');
    const numericUid = parseId(uid);
    const numericGid = parseId(gid);
    if (!name || name.startsWith('#') || numericUid === undefined || numericGid === undefined) continue;
    entries.push({ name, uid: numericUid, gid: numericGid, home: home ?? '' });
  }
  return entries;
}

/** As {@link parsePasswd}. */
export function parseGroup(text: string): GroupEntry[] {
  const entries: GroupEntry[] = [];
  for (const line of text.split('\n')) {
    const [name, , gid, members] = line.split(':');
    const numericGid = parseId(gid);
    if (!name || name.startsWith('#') || numericGid === undefined) continue;
    entries.push({ name, gid: numericGid, members: (members ?? '').trim().split(',').filter(Boolean) });
  }
  return entries;
}

function parseId(text: string | undefined): number | undefined {
  if (text === undefined || !/^[0-9]{1,10}$/.test(text)) return undefined;
  const id = Number(text);
  return id <= ID_MAX ? id : undefined;
}

function notFound(what: 'user' | 'group', name: string): LaunchFailure {
  const file = what === 'user' ? 'passwd' : 'group';
  return new LaunchFailure(
    'user-not-found',
    'look up the user',
    '',
    `unable to find ${what} ${name}: no matching entries in ${file} file`,
  );
}

/**
 * Resolves a user.
 *
 * @param wish `''`, `name`, `uid`, `name:group`, `uid:gid` or a mixture.
 * @param extraGroups further groups by name or number.
 * @throws LaunchFailure when a name is not in the files.
 */
export function resolveIdentity(
  wish: string,
  extraGroups: string[],
  passwd: PasswdEntry[],
  group: GroupEntry[],
): Identity {
  const colon = wish.indexOf(':');
  const userWish = colon < 0 ? wish : wish.slice(0, colon);
  const groupWish = colon < 0 ? '' : wish.slice(colon + 1);
  const uidWish = userWish === '' ? 0 : parseId(userWish);
  const entry = passwd.find(({ name, uid }) => name === userWish || uid === uidWish);
  if (!entry && uidWish === undefined) throw notFound('user', userWish);
  const identity: Identity = {
    uid: entry?.uid ?? uidWish!,
    gid: entry?.gid ?? 0,
    groups: [],
    home: entry?.home || '/',
  };
  if (groupWish !== '') identity.gid = findGroup(groupWish, group);
  else if (entry)
    identity.groups = group.filter(({ members }) => members.includes(entry.name)).map(({ gid }) => gid);
  const extra = extraGroups.map((wished) => findGroup(wished, group));
  // The first group too, or a setgid program could shed it, and with it what a file denies to that group (CVE-2022-36109).
  identity.groups = [...new Set([identity.gid, ...identity.groups, ...extra])];
  return identity;
}

function findGroup(wish: string, group: GroupEntry[]): number {
  const gidWish = parseId(wish);
  const gid = group.find(({ name, gid }) => name === wish || gid === gidWish)?.gid ?? gidWish;
  if (gid === undefined) throw notFound('group', wish);
  return gid;
}

/** Looks a user up in the files of the current root. */
export function lookUpIdentity(wish: string, extraGroups: string[], root = ''): Identity {
  const flags = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY;
  const read = (path: string): string => readRegularFile(path, () => openSync(path, flags));
  const passwd = parsePasswd(read(`${root}/etc/passwd`));
  const group = parseGroup(read(`${root}/etc/group`));
  return resolveIdentity(wish, extraGroups, passwd, group);
}

/**
 * A file of the image as text; a missing one is empty. Opened with O_NONBLOCK, neither a pipe nor a device that the
 * image has in its place can hold us up.
 */
export function readRegularFile(path: string, open: () => number): string {
  let fd: number;
  try {
    fd = open();
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return '';
    throw error;
  }
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile() || stat.size > FILE_BYTES_MAX)
      throw new Error(`${path} in the container is not a plain file of at most ${FILE_BYTES_MAX} bytes`);
    const bytes = Buffer.alloc(stat.size);
    let length = 0;
    for (let read = -1; read !== 0 && length < bytes.length; length += read)
      read = readSync(fd, bytes, length, bytes.length - length, null);
    return bytes.toString('utf8', 0, length);
  } finally {
    closeSync(fd);
  }
}
