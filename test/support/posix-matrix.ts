/**
 * A conformance suite as a matrix, after pjdfstest: every operation, on every kind of object, by every kind of caller,
 * in folders of every kind of mode. A case makes its objects anew, does one thing, and tells the outcome and what the
 * folder looks like afterwards. Run on a native folder it gives what is right; elsewhere it must give the same.
 */
import * as fs from 'node:fs';
import { join } from 'node:path';
import { failure } from './bridge.ts';
import * as posix from './posix.ts';

const OWNER = 1001;
const GROUP = 2001;
const OTHER = 1002;
const LONG = 'l'.repeat(255);

export interface Caller {
  name: string;
  uid: number;
  gid: number;
}

const CALLERS: Caller[] = [
  { name: 'root', uid: 0, gid: 0 },
  { name: 'owner', uid: OWNER, gid: GROUP },
  { name: 'group', uid: OTHER, gid: GROUP },
  { name: 'other', uid: OTHER, gid: OTHER },
];

/** Modes of the folder that the objects are in; it belongs to the owner. */
const FOLDERS = [0o755, 0o775, 0o777, 0o1777, 0o2775, 0o555, 0o300, 0o400];

/** Objects by name; each belongs to the owner unless made with another. */
const OBJECTS: Record<string, (folder: string) => void> = {
  file: (folder) => fs.writeFileSync(join(folder, 'file'), 'content', { mode: 0o644 }),
  private: (folder) => fs.writeFileSync(join(folder, 'private'), 'content', { mode: 0o600 }),
  suid: (folder) => {
    fs.writeFileSync(join(folder, 'suid'), 'content');
    fs.chownSync(join(folder, 'suid'), OWNER, GROUP);
    fs.chmodSync(join(folder, 'suid'), 0o6777);
  },
  foreign: (folder) => {
    fs.writeFileSync(join(folder, 'foreign'), 'content');
    fs.chmodSync(join(folder, 'foreign'), 0o666);
    fs.chownSync(join(folder, 'foreign'), 3333, 3333);
  },
  empty: (folder) => fs.mkdirSync(join(folder, 'empty')),
  full: (folder) => {
    fs.mkdirSync(join(folder, 'full'));
    fs.writeFileSync(join(folder, 'full', 'inner'), '');
  },
  pipe: (folder) => void posix.mknod(join(folder, 'pipe'), 0o10644),
  link: (folder) => fs.symlinkSync('file', join(folder, 'link')),
  dangling: (folder) => fs.symlinkSync('missing', join(folder, 'dangling')),
  loop: (folder) => fs.symlinkSync('loop', join(folder, 'loop')),
  hard: (folder) => fs.linkSync(join(folder, 'file'), join(folder, 'hard')),
  [LONG]: (folder) => fs.writeFileSync(join(folder, LONG), 'long'),
};

/** What a name may lead to beside the objects. */
const TARGETS = [
  ...Object.keys(OBJECTS),
  'missing',
  'file/below',
  'missing/below',
  'loop/below',
  'full/inner',
  'empty/new',
  `${LONG}x`,
  '.',
  'empty/.',
  'full/..',
];

const O = fs.constants;
const O_TMPFILE = 0o20000000 | O.O_DIRECTORY;

/** Opens without waiting for the other end of a pipe, and gives what `use` does. */
function opened(path: string, flags: number, use: (fd: number) => unknown, mode = 0o644): unknown {
  const fd = fs.openSync(path, flags | O.O_NONBLOCK, mode);
  try {
    return use(fd);
  } finally {
    fs.closeSync(fd);
  }
}

type Operation = (folder: string, target: string) => unknown;

/** Operations with one target; other names are fixed. Each gives `ok`, a value worth comparing, or throws. */
const OPERATIONS: Record<string, Operation> = {
  stat: (f, t) => fs.statSync(join(f, t)).mode,
  lstat: (f, t) => fs.lstatSync(`${f}/${t}`).mode,
  read: (f, t) => opened(`${f}/${t}`, O.O_RDONLY, (fd) => fs.readFileSync(fd, 'utf8')),
  write: (f, t) => opened(`${f}/${t}`, O.O_WRONLY, (fd) => fs.writeSync(fd, 'new')),
  append: (f, t) => opened(`${f}/${t}`, O.O_WRONLY | O.O_APPEND, (fd) => fs.writeSync(fd, '+')),
  create: (f, t) => opened(`${f}/${t}`, O.O_CREAT | O.O_RDONLY, () => 'open', 0o6754),
  exclusive: (f, t) => opened(`${f}/${t}`, O.O_CREAT | O.O_EXCL | O.O_RDWR, () => 'open', 0o640),
  'truncate on open': (f, t) => opened(`${f}/${t}`, O.O_TRUNC | O.O_WRONLY, () => 'open'),
  'no follow': (f, t) => opened(`${f}/${t}`, O.O_NOFOLLOW, () => 'open'),
  'as folder': (f, t) => opened(`${f}/${t}`, O.O_DIRECTORY, () => 'open'),
  unnamed: (f, t) => opened(`${f}/${t}`, O_TMPFILE | O.O_RDWR, (fd) => fs.fstatSync(fd).mode, 0o640),
  mkdir: (f, t) => fs.mkdirSync(`${f}/${t}`, 0o2750),
  mkfifo: (f, t) => posix.mknod(`${f}/${t}`, 0o10640),
  'mknod file': (f, t) => posix.mknod(`${f}/${t}`, 0o106711),
  'mknod socket': (f, t) => posix.mknod(`${f}/${t}`, 0o140755),
  'mknod device': (f, t) => posix.mknod(`${f}/${t}`, 0o20600, 0x103),
  symlink: (f, t) => fs.symlinkSync('anywhere', `${f}/${t}`),
  readlink: (f, t) => fs.readlinkSync(`${f}/${t}`),
  'link to new': (f, t) => fs.linkSync(`${f}/${t}`, `${f}/zz-new`),
  'link onto': (f, t) => fs.linkSync(`${f}/file`, `${f}/${t}`),
  unlink: (f, t) => fs.unlinkSync(`${f}/${t}`),
  rmdir: (f, t) => fs.rmdirSync(`${f}/${t}`),
  'rename to new': (f, t) => fs.renameSync(`${f}/${t}`, `${f}/zz-new`),
  'rename file onto': (f, t) => fs.renameSync(`${f}/file`, `${f}/${t}`),
  'rename folder onto': (f, t) => fs.renameSync(`${f}/full`, `${f}/${t}`),
  'rename into itself': (f, t) => fs.renameSync(`${f}/${t}`, `${f}/full/zz`),
  'rename noreplace': (f, t) => posix.rename2(`${f}/file`, `${f}/${t}`, 1),
  exchange: (f, t) => posix.rename2(`${f}/full`, `${f}/${t}`, 2),
  'chmod 0': (f, t) => fs.chmodSync(`${f}/${t}`, 0),
  'chmod special': (f, t) => fs.chmodSync(`${f}/${t}`, 0o7777),
  'chown to caller': (f, t) => fs.chownSync(`${f}/${t}`, OTHER, GROUP),
  'chown group': (f, t) => fs.lchownSync(`${f}/${t}`, OWNER, GROUP),
  lchown: (f, t) => fs.lchownSync(`${f}/${t}`, 5, 5),
  'truncate shorter': (f, t) => fs.truncateSync(`${f}/${t}`, 3),
  'truncate longer': (f, t) => fs.truncateSync(`${f}/${t}`, 12345),
  'utimes set': (f, t) => fs.utimesSync(`${f}/${t}`, 1_111_111_111.125, 1_222_222_222.25),
  lutimes: (f, t) => fs.lutimesSync(`${f}/${t}`, 1_111_111_111, 1_222_222_222),
  'utimes now': (f, t) => posix.touch(`${f}/${t}`),
  'access read': (f, t) => fs.accessSync(`${f}/${t}`, fs.constants.R_OK),
  'access write': (f, t) => fs.accessSync(`${f}/${t}`, fs.constants.W_OK),
  list: (f, t) => fs.readdirSync(`${f}/${t}`).length,
  'set xattr': (f, t) => posix.setXattr(`${f}/${t}`, 'user.note', 'value'),
  'get xattr': (f, t) => posix.getXattr(`${f}/${t}`, 'user.note').error,
  'set trusted': (f, t) => posix.setXattr(`${f}/${t}`, 'trusted.note', 'value'),
  'access execute': (f, t) => fs.accessSync(`${f}/${t}`, fs.constants.X_OK),
};

/** Times that no operation sets by itself. */
const PAST = 1_000_000_000;

/** Makes the folder with what a case needs: what `target` leads through, and the fixed names. */
function prepare(folder: string, mode: number, target: string): void {
  fs.mkdirSync(folder);
  const first = target.split('/')[0]!;
  const names = Object.keys(OBJECTS).filter((name) => ['file', 'full', first].includes(name));
  for (const name of names) OBJECTS[name]!(folder);
  for (const name of names) {
    const path = join(folder, name);
    if (name !== 'suid' && name !== 'foreign') fs.lchownSync(path, OWNER, GROUP);
    fs.lutimesSync(path, PAST, PAST);
  }
  fs.chownSync(folder, OWNER, GROUP);
  fs.chmodSync(folder, mode);
  fs.utimesSync(folder, PAST, PAST);
}

/** One line per name: type and mode, owner, links, size, and whether its content was changed. */
function describeFolder(folder: string): string[] {
  const line = (name: string, path: string): string => {
    const stat = fs.lstatSync(path);
    const size = stat.isDirectory() ? '-' : stat.size;
    const time = stat.mtimeMs === PAST * 1000 ? 'kept' : stat.mtimeMs > 1.7e12 ? 'now' : stat.mtimeMs;
    return `${name} ${stat.mode.toString(8)} ${stat.uid}:${stat.gid} ${stat.nlink} ${size} ${time}`;
  };
  return [
    line('.', folder),
    ...fs
      .readdirSync(folder)
      .sort()
      .map((name) => line(name, join(folder, name))),
  ];
}

export interface Case {
  name: string;
  run(root: string): { outcome: string; after: string[] };
}

/** All cases; `part` of `parts` of them. */
export function cases(part: number, parts: number): Case[] {
  const all: Case[] = [];
  for (const mode of FOLDERS)
    for (const caller of CALLERS)
      for (const [operation, run] of Object.entries(OPERATIONS))
        for (const target of TARGETS) all.push(oneCase(mode, caller, operation, run, target));
  return all.filter((_case, i) => i % parts === part);
}

function oneCase(mode: number, caller: Caller, operation: string, run: Operation, target: string): Case {
  const shown = target.length > 40 ? `long+${target.length - LONG.length}` : target;
  return {
    name: `${operation} ${shown} as ${caller.name} in ${mode.toString(8)}`,
    run(root) {
      const folder = join(root, 'case');
      prepare(folder, mode, target);
      let value: unknown;
      const act = (): string =>
        failure(() => {
          value = run(folder, target);
        });
      const outcome = posix.asUser(caller.uid, caller.gid, act);
      fs.chmodSync(folder, 0o755);
      const after = describeFolder(folder);
      fs.rmSync(folder, { recursive: true });
      return { outcome: value === undefined ? outcome : `${outcome} ${value}`, after };
    },
  };
}
