/** What a container has written: told as changes, and committed as a layer that gives the same tree again. */
import { execFileSync } from 'node:child_process';
import { lstatSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { afterEach, describe, expect, it } from 'vitest';
import { systemClock } from '#common/clock';
import { nullLog } from '#common/log';
import { getXattr, setXattr } from '#common/native/layer-fs';
import { openImages, type StorageDriver } from '../../daemon/image/index.ts';
import type { Image } from '../../daemon/image/store.ts';
import {
  directory,
  dockerArchive,
  type Entry,
  file,
  load,
  readAll,
  type TestImages,
  testImages,
} from '../support/images.ts';
import { lacking } from '../support/requirements.ts';

const describeHere = describe.skipIf(lacking('root'));

const BASE: Entry[] = [
  directory('etc'),
  file('etc/kept', 'kept'),
  file('etc/changed', 'old'),
  file('etc/gone', 'gone'),
  directory('old'),
  file('old/a', 'a'),
  directory('remade'),
  file('remade/below', 'x'),
  file('to-dir', 'x'),
  directory('mode', { mode: 0o700 }),
];

const WRITES = `
  echo new > etc/changed; rm etc/gone; rm -r old; rm -r remade; mkdir remade; echo y > remade/above
  rm to-dir; mkdir to-dir; echo z > to-dir/z; chmod 755 mode
  mkdir -p deep/er; echo 1 > deep/er/f; ln deep/er/f deep/hard; ln -s ../x deep/sym; mknod deep/null c 1 3; mkfifo deep/pipe
  chown 3000000:4000000 deep/er/f; chmod 4755 deep/er/f; touch -d '2001-02-03 04:05:06.789' deep/er/f
`;

/** A commit that asks for nothing. */
const PLAIN = { containerId: 'c', config: {}, changes: [], createdBy: '', comment: '', author: '' };

let store: TestImages;
afterEach(() => store.dispose());

async function written(driver: StorageDriver): Promise<{ image: Image; root: string }> {
  store = await testImages(driver);
  const { image } = await load(store, dockerArchive([BASE], { names: ['base'], config: { Env: ['A=b'] } }));
  await store.roots.create('c', image.id);
  const root = await store.roots.mount('c');
  execFileSync('sh', ['-e', '-c', WRITES], { cwd: root });
  setXattr(`${root}/deep/er/f`, 'user.k', Buffer.from('v'));
  return { image, root };
}

/** Everything that stat, readlink and cat tell of a tree. */
function describeTree(root: string): string {
  const script = `find . -printf '%P %y %m %U %G %n %l %T@' \\( -type f -printf ' %s' -o -true \\) -printf '\\n' | sort; find . -type f | sort | xargs cat`;
  // Folders' times change with what is made in them, and overlayfs counts their links in its own way.
  return execFileSync('sh', ['-c', script], { cwd: root })
    .toString()
    .replace(/^(.* d \d+ \d+ \d+) .*$/gm, '$1');
}

describeHere.each<StorageDriver>(['overlay2', 'vfs', 'apfs'])('with the driver %s', (driver) => {
  it('changes are listed by path and kind', async () => {
    await written(driver);
    const changes = (await store.roots.changes('c')).map(({ path, kind }) => `${'CAD'[kind]} ${path}`);
    expect(changes).toEqual([
      'A /deep',
      'A /deep/er',
      'A /deep/er/f',
      'A /deep/hard',
      'A /deep/null',
      'A /deep/pipe',
      'A /deep/sym',
      'C /etc',
      'C /etc/changed',
      'D /etc/gone',
      'C /mode',
      'D /old',
      'C /remade',
      'A /remade/above',
      'D /remade/below',
      'C /to-dir',
      'A /to-dir/z',
    ]);
    expect(
      readFileSync('/proc/self/mountinfo', 'utf8')
        .split('\n')
        .filter((line) => line.includes(`${store.dataRoot}/${driver}/roots/c/base`)),
    ).toEqual([]);
  });

  it('a commit gives the same tree again', async () => {
    const { image, root } = await written(driver);
    const committed = await store.images.commit({
      containerId: 'c',
      parentId: image.id,
      config: image.config,
      changes: ['CMD ["x"]', 'ENV C=d'],
      createdBy: '/bin/sh -c x',
      comment: 'why',
      author: 'me',
      reference: 'committed:1',
    });
    expect(committed).toMatchObject({
      tags: ['committed:1'],
      parent: image.id,
      author: 'me',
      comment: 'why',
      config: { Env: ['A=b', 'C=d'], Cmd: ['x'] },
    });
    expect(committed.history.at(-1)).toMatchObject({
      created_by: '/bin/sh -c x',
      comment: 'why',
      author: 'me',
    });
    expect(committed.diffIds).toHaveLength(2);
    await store.roots.create('d', committed.id);
    const again = await store.roots.mount('d');
    expect(describeTree(again)).toBe(describeTree(root));
    expect(getXattr(`${again}/deep/hard`, 'user.k')?.toString()).toBe('v');
  });

  it('a commit is kept as files alone, and saving it packs the archive that its digest is of', async () => {
    const { image } = await written(driver);
    const { id, diffIds } = await store.images.commit({ ...PLAIN, parentId: image.id });
    const { library } = store.images;
    expect(await library.parts.content.has(diffIds[1]!)).toBe(false);
    await store.reopen();
    const archive = await readAll(await store.images.save([id]));
    const other = await testImages(driver);
    try {
      const loaded = (await load(other, archive)).image;
      expect(loaded.id).toBe(id);
      await other.roots.create('d', id);
      await store.roots.create('d', id);
      expect(describeTree(await other.roots.mount('d'))).toBe(describeTree(await store.roots.mount('d')));
    } finally {
      await other.dispose();
    }
  });
});

describeHere('a commit', () => {
  it('whose files were changed on the disk is not given away under its digest', async () => {
    const { image } = await written('overlay2');
    const { id, diffIds } = await store.images.commit({ ...PLAIN, parentId: image.id });
    writeFileSync(`${store.images.library.parts.layers.diffPath(diffIds[1]!)}/etc/changed`, 'by somebody');
    await expect(readAll(await store.images.save([id]))).rejects.toMatchObject({
      code: 'ERR_DIGEST_MISMATCH',
    });
  });

  it('can not be used with another storage driver, and says so', async () => {
    const { image } = await written('overlay2');
    const { id } = await store.images.commit({ ...PLAIN, parentId: image.id });
    await store.roots.remove('c');
    await store.close();
    const other = await openImages({
      dataRoot: store.dataRoot,
      log: nullLog,
      clock: systemClock,
      driver: 'vfs',
    });
    try {
      await expect(other.roots.create('d', id)).rejects.toMatchObject({
        code: 'ERR_LAYER_LOST',
        message: expect.stringContaining('another storage driver'),
      });
      await other.roots.create('e', image.id);
    } finally {
      await other.roots.sweep(new Set());
      await other.close();
    }
    await store.reopen();
    await store.roots.create('d', id);
  });

  it('of an untouched container is an empty layer', async () => {
    store = await testImages();
    const { image } = await load(store, dockerArchive([BASE], { names: ['base'] }));
    await store.roots.create('c', image.id);
    expect(await store.roots.changes('c')).toEqual([]);
    const committed = await store.images.commit({ ...PLAIN, parentId: image.id });
    expect(committed.layerBytes[1]).toBe(0);
  });

  it('works when the image of the container is gone', async () => {
    const { image } = await written('overlay2');
    await store.images.remove('base', { force: true, prune: true, users: () => [] });
    const committed = await store.images.commit({ ...PLAIN, parentId: image.id });
    expect(committed.parent).toBeUndefined();
    await store.roots.create('d', committed.id);
    expect(readdirSync(await store.roots.mount('d')).sort()).toEqual([
      'deep',
      'etc',
      'mode',
      'remade',
      'to-dir',
    ]);
  });

  it('leaves nothing when its changes or its name are bad', async () => {
    const { image } = await written('overlay2');
    const options = {
      ...PLAIN,
      parentId: image.id,
      changes: ['RUN x'],
    };
    await expect(store.images.commit(options)).rejects.toMatchObject({ code: 'ERR_BAD_DOCKERFILE' });
    await expect(store.images.commit({ ...options, changes: [], reference: 'BAD' })).rejects.toMatchObject({
      code: 'ERR_BAD_REFERENCE',
    });
    expect(await store.images.list()).toHaveLength(1);
    expect(lstatSync(`${store.dataRoot}/overlay2/roots/c`).isDirectory()).toBe(true);
  });
});
