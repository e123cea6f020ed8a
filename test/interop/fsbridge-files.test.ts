import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { waitRequest } from '#common/native/fuse';
import { type BridgePair, bridgePair, failure } from '../support/bridge.ts';
import * as posix from '../support/posix.ts';
import { lacking } from '../support/requirements.ts';

const { O_APPEND, O_CREAT, O_EXCL, O_RDONLY, O_RDWR, O_WRONLY } = fs.constants;
const O_TMPFILE = 0o20000000 | fs.constants.O_DIRECTORY;

const skip = lacking('root', '/dev/fuse');
const modes = [
  { passthrough: true, consistency: 'consistent' },
  { passthrough: false, consistency: 'consistent' },
] as const;

describe.skipIf(skip).each(modes)('a bridge mount, $consistency, passthrough $passthrough', (mode) => {
  let pair: BridgePair;
  let guest: BridgePair['guest'];
  let host: BridgePair['host'];
  beforeAll(async () => {
    pair = await bridgePair(mode);
    ({ guest, host } = pair);
  });
  afterAll(async () => {
    await pair?.remove();
    expect(pair?.trouble).toEqual([]);
  });

  it('shows what either side writes to the other at once', () => {
    fs.writeFileSync(guest('a'), 'from the guest');
    expect(fs.readFileSync(host('a'), 'utf8')).toBe('from the guest');
    fs.writeFileSync(host('a'), 'from the host');
    expect(fs.readFileSync(guest('a'), 'utf8')).toBe('from the host');
    // The same size again, so that only content and time tell.
    fs.writeFileSync(host('a'), 'FROM THE HOST');
    expect(fs.readFileSync(guest('a'), 'utf8')).toBe('FROM THE HOST');
    fs.renameSync(host('a'), host('b'));
    expect(fs.existsSync(guest('a'))).toBe(false);
    expect(fs.readFileSync(guest('b'), 'utf8')).toBe('FROM THE HOST');
    fs.unlinkSync(host('b'));
    expect(failure(() => fs.statSync(guest('b')))).toBe('ENOENT');
  });

  it('shows host changes through a file that is already open', () => {
    fs.writeFileSync(host('open'), 'one');
    const fd = fs.openSync(guest('open'), 'r');
    const buffer = Buffer.alloc(16);
    expect(buffer.toString('utf8', 0, fs.readSync(fd, buffer, 0, 16, 0))).toBe('one');
    fs.writeFileSync(host('open'), 'three');
    expect(fs.fstatSync(fd).size).toBe(5);
    expect(buffer.toString('utf8', 0, fs.readSync(fd, buffer, 0, 16, 0))).toBe('three');
    fs.closeSync(fd);
  });

  it('lists 10,000 names, each once, and 1,000 while they are removed', () => {
    for (const [folder, count] of [
      ['many', 10_000],
      ['some', 1000],
    ] as const) {
      fs.mkdirSync(host(folder));
      const names = Array.from({ length: count }, (_, i) => `name-${i}`);
      for (const name of names) fs.closeSync(fs.openSync(host(folder, name), 'w'));
      expect(fs.readdirSync(guest(folder)).sort()).toEqual(names.sort());
    }
    fs.rmSync(guest('some'), { recursive: true });
    expect(fs.existsSync(host('some'))).toBe(false);
  });

  it('keeps names that are not valid UTF-8 byte for byte', () => {
    const name = Buffer.from([0x66, 0xff, 0xfe, 0xe9, 0x80]);
    const path = Buffer.concat([Buffer.from(guest('')), Buffer.from('/'), name]);
    fs.writeFileSync(path, 'x');
    expect(fs.readdirSync(host(''), 'buffer').some((entry) => entry.equals(name))).toBe(true);
    fs.unlinkSync(path);
  });

  it('carries modes, owners and times in both directions', () => {
    fs.writeFileSync(guest('meta'), '');
    fs.chmodSync(guest('meta'), 0o4751);
    expect(fs.statSync(host('meta')).mode & 0o7777).toBe(0o4751);
    fs.chownSync(guest('meta'), 1234, 4321);
    expect(fs.statSync(host('meta'))).toMatchObject({ uid: 1234, gid: 4321 });
    fs.utimesSync(guest('meta'), 1_000_000.5, 2.25);
    expect(fs.statSync(host('meta'), { bigint: true })).toMatchObject({
      atimeNs: 1_000_000_500_000_000n,
      mtimeNs: 2_250_000_000n,
    });
    fs.chmodSync(host('meta'), 0o600);
    fs.chownSync(host('meta'), 5, 6);
    expect(fs.statSync(guest('meta'))).toMatchObject({ uid: 5, gid: 6, mode: 0o100600 });
    expect(posix.statx(guest('meta')).born).toBe(posix.statx(host('meta')).born);
  });

  it('gives what another user makes to that user', () => {
    fs.mkdirSync(host('home'), { mode: 0o777 });
    fs.chmodSync(host('home'), 0o777);
    posix.asUser(1000, 1001, () => {
      fs.writeFileSync(guest('home', 'file'), 'x');
      fs.mkdirSync(guest('home', 'dir'));
      fs.symlinkSync('file', guest('home', 'link'));
      expect(posix.mknod(guest('home', 'pipe'), 0o10644)).toBe('ok');
    });
    for (const name of ['file', 'dir', 'link', 'pipe'])
      expect(fs.lstatSync(host('home', name)), name).toMatchObject({ uid: 1000, gid: 1001 });
    expect(posix.asUser(1002, 1002, () => failure(() => fs.writeFileSync(guest('home', 'file'), 'y')))).toBe(
      'EACCES',
    );
  });

  it('gives files in a set-gid folder the group of the folder', () => {
    fs.mkdirSync(host('team'));
    fs.chownSync(host('team'), 0, 77);
    fs.chmodSync(host('team'), 0o2777);
    posix.asUser(1000, 1001, () => {
      fs.writeFileSync(guest('team', 'file'), 'x');
      fs.mkdirSync(guest('team', 'dir'));
    });
    expect(fs.statSync(guest('team', 'file'))).toMatchObject({ uid: 1000, gid: 77 });
    expect(fs.statSync(guest('team', 'dir'))).toMatchObject({ gid: 77, mode: 0o42755 });
  });

  it('takes set-uid away when another user writes', () => {
    fs.writeFileSync(host('suid'), 'x');
    fs.chmodSync(host('suid'), 0o6777);
    posix.asUser(1000, 1001, () => {
      const fd = fs.openSync(guest('suid'), 'r+');
      fs.writeSync(fd, 'y');
      fs.closeSync(fd);
    });
    expect(fs.statSync(host('suid')).mode & 0o7777).toBe(0o777);
  });

  it('follows renames with NOREPLACE and EXCHANGE', () => {
    fs.writeFileSync(guest('r1'), '1');
    fs.mkdirSync(guest('r2'));
    fs.writeFileSync(guest('r2', 'in'), '2');
    expect(posix.rename2(guest('r1'), guest('r2'), 1)).toBe('EEXIST');
    expect(posix.rename2(guest('r1'), guest('r2'), 2)).toBe('ok');
    expect(fs.readFileSync(guest('r2'), 'utf8')).toBe('1');
    expect(fs.readFileSync(guest('r1', 'in'), 'utf8')).toBe('2');
    expect(fs.readFileSync(host('r1', 'in'), 'utf8')).toBe('2');
    expect(posix.rename2(guest('r2'), guest('r3'), 1)).toBe('ok');
    expect(fs.readFileSync(host('r3'), 'utf8')).toBe('1');
  });

  it('leaves a whiteout where a rename asks for one', () => {
    fs.writeFileSync(guest('covered'), 'below');
    expect(posix.rename2(guest('covered'), guest('uncovered'), 4)).toBe('ok');
    for (const side of [guest, host]) {
      expect(fs.readFileSync(side('uncovered'), 'utf8')).toBe('below');
      const left = fs.lstatSync(side('covered'));
      expect(left.isCharacterDevice() && left.rdev === 0).toBe(true);
    }
    fs.unlinkSync(guest('covered'));
  });

  it('is always ready for poll, has no ioctl, and can be synced', () => {
    fs.writeFileSync(guest('ready'), 'x');
    const fd = fs.openSync(guest('ready'), 'r');
    expect(waitRequest(fd, 0)).toBe(true);
    fs.closeSync(fd);
    const stty = spawnSync('stty', ['-F', guest('ready')], { encoding: 'utf8', env: { LC_ALL: 'C' } });
    expect(stty.stderr).toContain('Inappropriate ioctl for device');
    expect(spawnSync('sync', ['-f', guest('ready')]).status).toBe(0);
  });

  it('keeps a folder usable that was renamed above a known tree', () => {
    fs.mkdirSync(guest('t1/t2/t3'), { recursive: true });
    fs.writeFileSync(guest('t1/t2/t3/file'), 'deep');
    fs.renameSync(guest('t1'), guest('t9'));
    expect(fs.readFileSync(guest('t9/t2/t3/file'), 'utf8')).toBe('deep');
    fs.renameSync(host('t9/t2'), host('moved'));
    expect(failure(() => fs.readdirSync(guest('t9/t2')))).toBe('ENOENT');
    expect(fs.readFileSync(guest('moved/t3/file'), 'utf8')).toBe('deep');
  });

  it('makes one inode of all names of a file', () => {
    fs.writeFileSync(guest('h1'), 'x');
    fs.linkSync(guest('h1'), guest('h2'));
    const [one, two] = [fs.statSync(guest('h1')), fs.statSync(guest('h2'))];
    expect(one.ino).toBe(two.ino);
    expect(one.ino).toBe(fs.statSync(host('h1')).ino);
    expect(two.nlink).toBe(2);
    fs.appendFileSync(guest('h1'), 'yz');
    expect(fs.statSync(guest('h2')).size).toBe(3);
    fs.unlinkSync(guest('h1'));
    expect(fs.readFileSync(guest('h2'), 'utf8')).toBe('xyz');
    // The host takes the name away that the bridge knows; the file is found by its other name.
    fs.linkSync(guest('h2'), guest('h3'));
    const fd = fs.openSync(guest('h3'), 'r');
    fs.unlinkSync(host('h2'));
    fs.fchmodSync(fd, 0o640);
    fs.closeSync(fd);
    expect(fs.statSync(host('h3')).mode & 0o777).toBe(0o640);
    fs.chmodSync(guest('h3'), 0o600);
    expect(fs.statSync(host('h3')).mode & 0o777).toBe(0o600);
  });

  it('tells a new file with a reused inode number from the old one', () => {
    fs.writeFileSync(host('reuse'), 'old');
    const fd = fs.openSync(guest('reuse'), 'r');
    const before = fs.fstatSync(fd);
    fs.unlinkSync(host('reuse'));
    fs.writeFileSync(host('reuse'), 'new content');
    expect(fs.readFileSync(guest('reuse'), 'utf8')).toBe('new content');
    expect(fs.fstatSync(fd)).toMatchObject({ size: before.size, nlink: 0 });
    fs.closeSync(fd);
  });

  it('keeps a file that was removed while open', () => {
    const fd = fs.openSync(guest('gone'), 'w+');
    fs.writeSync(fd, 'still here');
    fs.unlinkSync(guest('gone'));
    fs.ftruncateSync(fd, 5);
    fs.fchmodSync(fd, 0o640);
    fs.futimesSync(fd, 1, 2);
    expect(fs.fstatSync(fd)).toMatchObject({ size: 5, nlink: 0, mode: 0o100640, mtimeMs: 2000 });
    const again = fs.openSync(`/proc/self/fd/${fd}`, 'r');
    expect(fs.readFileSync(again, 'utf8')).toBe('still');
    fs.closeSync(again);
    fs.closeSync(fd);
  });

  it('makes files without a name, and names them', () => {
    const fd = posix.open(guest(''), O_TMPFILE | O_RDWR, 0o600);
    expect(fd).toBeGreaterThan(0);
    fs.writeSync(fd, 'unnamed');
    expect(posix.linkUnnamed(fd, guest('named'))).toBe('ok');
    fs.closeSync(fd);
    expect(fs.readFileSync(host('named'), 'utf8')).toBe('unnamed');
  });

  it('appends atomically with the host', () => {
    const ours = posix.open(guest('log'), O_WRONLY | O_APPEND | O_CREAT);
    const theirs = posix.open(host('log'), O_WRONLY | O_APPEND);
    fs.writeSync(ours, 'a');
    fs.writeSync(theirs, 'b');
    fs.writeSync(ours, 'c');
    fs.closeSync(ours);
    fs.closeSync(theirs);
    expect(fs.readFileSync(host('log'), 'utf8')).toBe('abc');
  });

  it('honours O_EXCL and O_TRUNC', () => {
    fs.writeFileSync(guest('excl'), 'some');
    expect(posix.outcome(posix.open(guest('excl'), O_CREAT | O_EXCL | O_WRONLY))).toBe('EEXIST');
    fs.closeSync(fs.openSync(guest('excl'), 'w'));
    expect(fs.statSync(host('excl')).size).toBe(0);
  });

  it('finds holes, makes room, punches, and copies inside the kernel', () => {
    const size = 1 << 20;
    const fd = fs.openSync(guest('sparse'), 'w+');
    fs.writeSync(fd, 'end', size);
    expect(posix.lseek(fd, 0, 3)).toBe(size);
    expect(posix.lseek(fd, 0, 4)).toBe(0);
    expect(posix.outcome(posix.fallocate(fd, 0, 0, 2 * size))).toBe('ok');
    expect(fs.fstatSync(fd).size).toBe(2 * size);
    fs.writeSync(fd, Buffer.alloc(8192, 'x'), 0, 8192, 0);
    expect(posix.outcome(posix.fallocate(fd, 3, 0, 4096))).toBe('ok');
    const copy = fs.openSync(guest('copy'), 'w+');
    expect(posix.copyRange(fd, 0, copy, 0, 8192)).toBe(8192);
    const bytes = fs.readFileSync(host('copy'));
    expect(bytes.subarray(0, 4096).every((byte) => byte === 0)).toBe(true);
    expect(bytes.subarray(4096).every((byte) => byte === 0x78)).toBe(true);
    fs.closeSync(fd);
    fs.closeSync(copy);
  });

  it('shares memory mappings with the file', () => {
    fs.writeFileSync(guest('map'), Buffer.alloc(8192, 'a'));
    const fd = fs.openSync(guest('map'), 'r+');
    const mapping = new posix.Mapping(fd, 8192);
    mapping.write(4000, 'written by mapping');
    mapping.sync();
    expect(fs.readFileSync(host('map'), 'latin1').slice(4000, 4018)).toBe('written by mapping');
    expect(fs.readFileSync(guest('map'), 'latin1').slice(4000, 4018)).toBe('written by mapping');
    fs.writeSync(fd, 'by write', 100);
    expect(mapping.read(100, 8)).toBe('by write');
    mapping.close();
    fs.closeSync(fd);
  });

  it('carries extended attributes of users and refuses those of the host', () => {
    fs.writeFileSync(guest('x'), '');
    expect(posix.setXattr(guest('x'), 'user.note', 'hello')).toBe('ok');
    expect(posix.getXattr(host('x'), 'user.note')).toEqual({ value: 'hello' });
    expect(posix.listXattr(guest('x'))).toEqual(['user.note']);
    expect(posix.setXattr(guest('x'), 'user.note', 'again', 1)).toBe('EEXIST');
    expect(posix.removeXattr(guest('x'), 'user.note')).toBe('ok');
    expect(posix.getXattr(guest('x'), 'user.note')).toEqual({ error: 'ENODATA' });
    expect(posix.setXattr(guest('x'), 'system.posix_acl_access', 'junk')).toBe('EOPNOTSUPP');
    expect(posix.getXattr(guest('x'), 'security.selinux')).toEqual({ error: 'EOPNOTSUPP' });
  });

  it('writes and reads a file larger than a request', () => {
    const bytes = Buffer.alloc(5 << 20);
    for (let i = 0; i < bytes.length; i += 4) bytes.writeUInt32LE((i * 2654435761) >>> 0, i);
    fs.writeFileSync(guest('large'), bytes);
    expect(fs.readFileSync(host('large')).equals(bytes)).toBe(true);
    expect(fs.readFileSync(guest('large')).equals(bytes)).toBe(true);
    const fd = fs.openSync(guest('large'), O_RDONLY | (fs.constants.O_DIRECT ?? 0));
    fs.closeSync(fd);
    fs.fsyncSync(fs.openSync(guest('large'), 'r'));
  });

  it('refuses device nodes, and serves none that the host has', () => {
    expect(posix.mknod(guest('dev'), 0o20666, 0x103)).toBe('EPERM');
    expect(posix.mknod(host('dev'), 0o20666, 0x103)).toBe('ok');
    expect(posix.outcome(posix.open(guest('dev'), O_RDONLY))).toBe('EACCES');
  });

  it('tells the free space of the host', () => {
    const [ours, theirs] = [fs.statfsSync(guest('')), fs.statfsSync(host(''))];
    expect(ours.blocks * ours.bsize).toBe(theirs.blocks * theirs.bsize);
    expect(ours.files).toBe(theirs.files);
  });

  it('answers ENAMETOOLONG, ENOTEMPTY, ENOTDIR and EISDIR as the host does', () => {
    const long = 'n'.repeat(256);
    expect(failure(() => fs.writeFileSync(guest(long), ''))).toBe('ENAMETOOLONG');
    fs.mkdirSync(guest('full'));
    fs.writeFileSync(guest('full', 'x'), '');
    expect(failure(() => fs.rmdirSync(guest('full')))).toBe('ENOTEMPTY');
    expect(failure(() => fs.rmdirSync(guest('full', 'x')))).toBe('ENOTDIR');
    expect(failure(() => fs.unlinkSync(guest('full')))).toBe('EISDIR');
    expect(failure(() => fs.mkdirSync(guest('full')))).toBe('EEXIST');
  });
});
