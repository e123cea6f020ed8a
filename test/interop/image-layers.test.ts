/** Layers and the trees made of them, on the real file system: metadata, whiteouts, overlay mounts, the vfs driver. */
import { execFileSync } from 'node:child_process';
import { existsSync, lstatSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { afterEach, describe, expect, it } from 'vitest';
import { getXattr } from '#common/native/layer-fs';
import type { StorageDriver } from '../../daemon/image/index.ts';
import {
  directory,
  dockerArchive,
  type Entry,
  file,
  hardLink,
  load,
  symlink,
  type TestImages,
  testImages,
} from '../support/images.ts';
import { lacking } from '../support/requirements.ts';

const describeHere = describe.skipIf(lacking('root'));

let store: TestImages;
afterEach(() => store.dispose());

/** Loads layers as an image and returns the root of a container made from it. */
async function rootOf(layers: Entry[][], driver: StorageDriver = 'overlay2'): Promise<string> {
  store = await testImages(driver);
  const { image } = await load(store, dockerArchive(layers));
  await store.roots.create('c', image.id);
  return store.roots.mount('c');
}

const LOWER: Entry[] = [
  directory('a'),
  file('a/kept', '1'),
  file('a/gone', '2'),
  directory('opaque'),
  file('opaque/below', '3'),
  directory('b'),
  file('b/x', '4'),
  file('becomes-dir', '5'),
  directory('becomes-file'),
  file('becomes-file/x', '6'),
  directory('remade'),
  file('remade/old', '7'),
];
const UPPER: Entry[] = [
  file('a/.wh.gone'),
  file('a/new', '8'),
  directory('opaque'),
  file('opaque/.wh..wh..opq'),
  file('opaque/above', '9'),
  file('.wh.b'),
  directory('becomes-dir'),
  file('becomes-dir/y', '10'),
  file('becomes-file', '11'),
  file('.wh.remade'),
  directory('remade'),
  file('remade/new', '12'),
  file('.wh..wh.plnk', 'aufs'),
];

describeHere.each<StorageDriver>(['overlay2', 'vfs', 'apfs'])('with the driver %s', (driver) => {
  it('deletions, opaque folders and changes of kind show in the container as the image means them', async () => {
    const root = await rootOf([LOWER, UPPER], driver);
    const names = readdirSync(root, { recursive: true }).sort();
    expect(names).toEqual([
      'a',
      'a/kept',
      'a/new',
      'becomes-dir',
      'becomes-dir/y',
      'becomes-file',
      'opaque',
      'opaque/above',
      'remade',
      'remade/new',
    ]);
    expect(readFileSync(`${root}/becomes-file`, 'utf8')).toBe('11');
  });

  it('owners above 2^21, modes, times below a second, attributes, links, devices and sparse files are as in the tar', async () => {
    const layer: Entry[] = [
      directory('d', { mode: 0o1777, uid: 5, gid: 6, mtimeSeconds: 1_000_000_000, mtimeNanoseconds: 5_000 }),
      file('d/f', 'text', {
        mode: 0o4750,
        uid: 3_000_000,
        gid: 4_000_000,
        mtimeSeconds: 1_234_567_890,
        mtimeNanoseconds: 123_456_000,
        xattrs: new Map([
          ['user.x', Buffer.from([0, 255, 10])],
          ['security.capability', Buffer.from('0100000200200000000000000000000000000000', 'hex')],
        ]),
      }),
      hardLink('d/hard', '/d/f'),
      symlink('d/sym', '/d/f'),
      [{ name: 'd/null', type: 'char', major: 1, minor: 3, mode: 0o666 }],
      [{ name: 'd/disk', type: 'block', major: 259, minor: 70_000 }],
      [{ name: 'd/pipe', type: 'fifo', mode: 0o600 }],
      file('\xff\xfe-not-utf8', 'x'),
      file('implied/parent/f', 'y'),
    ];
    const root = await rootOf([layer], driver);
    const f = lstatSync(`${root}/d/f`, { bigint: true });
    expect([f.mode & 0o7777n, f.uid, f.gid, f.nlink]).toEqual([0o4750n, 3_000_000n, 4_000_000n, 2n]);
    expect(f.mtimeNs).toBe(1_234_567_890_123_456_000n);
    expect(getXattr(`${root}/d/f`, 'user.x')).toEqual(Buffer.from([0, 255, 10]));
    expect(getXattr(`${root}/d/f`, 'security.capability')?.length).toBe(20);
    expect(lstatSync(`${root}/d/hard`).ino).toBe(lstatSync(`${root}/d/f`).ino);
    expect(readlinkSync(`${root}/d/sym`)).toBe('/d/f');
    expect(lstatSync(`${root}/d`, { bigint: true }).mtimeMs).toBe(1_000_000_000_000n);
    expect(lstatSync(`${root}/d`).mode & 0o7777).toBe(0o1777);
    expect(
      execFileSync('stat', [
        '-c',
        '%F %t %T %a',
        `${root}/d/null`,
        `${root}/d/disk`,
        `${root}/d/pipe`,
      ]).toString(),
    ).toBe('character special file 1 3 666\nblock special file 103 11170 644\nfifo 0 0 600\n');
    expect(readdirSync(root, { encoding: 'latin1' })).toContain('\xff\xfe-not-utf8');
    expect(readFileSync(`${root}/implied/parent/f`, 'utf8')).toBe('y');
  });

  it('a container writes into its own layer, and its size is counted', async () => {
    const root = await rootOf([LOWER], driver);
    writeFileSync(`${root}/a/kept`, 'x'.repeat(1000));
    writeFileSync(`${root}/new`, 'y'.repeat(500));
    const { writableBytes, rootBytes } = await store.roots.sizes('c');
    expect(writableBytes).toBe(driver === 'overlay2' ? 1500 : 1499);
    expect(rootBytes).toBeGreaterThan(writableBytes);
    const [image] = await store.images.list();
    await store.roots.create('d', image!.id);
    expect(readFileSync(`${await store.roots.mount('d')}/a/kept`, 'utf8')).toBe('1');
  });
});

describeHere('overlay roots', () => {
  it('a later entry of one layer replaces an earlier one of any kind', async () => {
    const root = await rootOf([
      [
        file('x', 'first'),
        directory('x'),
        file('x/inside', '1'),
        symlink('x', 'y'),
        file('x', 'last'),
        directory('d', { mode: 0o700 }),
        file('d/f', '1'),
        directory('d', { mode: 0o755 }),
        hardLink('h', 'd/f'),
        file('h', 'own'),
      ],
    ]);
    expect(readFileSync(`${root}/x`, 'utf8')).toBe('last');
    expect(readFileSync(`${root}/d/f`, 'utf8')).toBe('1');
    expect(lstatSync(`${root}/d`).mode & 0o777).toBe(0o755);
    expect(readFileSync(`${root}/h`, 'utf8')).toBe('own');
    expect(lstatSync(`${root}/d/f`).nlink).toBe(1);
  });

  it('128 layers mount, and the topmost wins', async () => {
    const layers = Array.from({ length: 128 }, (_, i) => [file('top', String(i)), file(`f${i}`, '')]);
    const root = await rootOf(layers);
    expect(readFileSync(`${root}/top`, 'utf8')).toBe('127');
    expect(readdirSync(root)).toHaveLength(129);
  });

  it('an image without layers gives an empty root', async () => {
    const root = await rootOf([]);
    expect(readdirSync(root)).toEqual([]);
    writeFileSync(`${root}/x`, '');
  });

  it('mounting twice is one mount, unmounting takes it away, removal leaves nothing', async () => {
    const root = await rootOf([LOWER]);
    expect(await store.roots.mount('c')).toBe(root);
    const mounts = (): string[] =>
      readFileSync('/proc/self/mountinfo', 'utf8')
        .split('\n')
        .filter((line) => line.includes(store.dataRoot));
    expect(mounts()).toHaveLength(1);
    await store.roots.unmount('c');
    expect(mounts()).toHaveLength(0);
    await store.roots.remove('c');
    expect(readdirSync(`${store.dataRoot}/overlay2/roots`)).toEqual([]);
    await store.roots.remove('c');
  });

  it('after a crash, a sweep unmounts known containers, removes unknown ones and keeps written files', async () => {
    const root = await rootOf([LOWER]);
    writeFileSync(`${root}/mine`, 'kept');
    const [image] = await store.images.list();
    await store.roots.create('unknown', image!.id);
    await store.roots.mount('unknown');
    await store.reopen();
    const done = await store.roots.sweep(new Set(['c']));
    expect(done).toEqual([expect.stringContaining('unknown')]);
    expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(store.dataRoot);
    expect(readFileSync(`${await store.roots.mount('c')}/mine`, 'utf8')).toBe('kept');
  });

  it('a layer whose folder was lost is unpacked again from its blob', async () => {
    store = await testImages('overlay2');
    const { image } = await load(store, dockerArchive([LOWER]));
    await store.close();
    execFileSync('rm', ['-rf', `${store.dataRoot}/overlay2/layers`, `${store.dataRoot}/overlay2/l`]);
    await store.reopen();
    await store.roots.create('c', image.id);
    expect(existsSync(`${await store.roots.mount('c')}/a/kept`)).toBe(true);
  });
});
