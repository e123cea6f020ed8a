/** Each kind of damage to a store is found, named with whom it concerns, and repaired so that the rest can be used. */

import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { compiledEntry } from '#common/entry';
import { newState } from '../../daemon/container/lifecycle.ts';
import type { Image } from '../../daemon/image/store.ts';
import { newNetwork } from '../../daemon/network/record.ts';
import { type FsckOptions, fsck } from '../../daemon/store/fsck.ts';
import { dockerArchive, file, load, type TestImages, testImages } from '../support/images.ts';
import { lacking } from '../support/requirements.ts';

const CONTAINER = 'c'.repeat(64);
const NOW = '2026-01-01T00:00:00Z';
const NETWORK = newNetwork(
  { Name: 'net', Driver: 'bridge' },
  {
    id: 'net',
    created: NOW,
    used: [],
    used6: [],
    pools: [{ base: '10.0.0.0/8', size: 24 }],
    freshSubnet6: () => '',
  },
);

describe.skipIf(lacking('root'))('drydock fsck', () => {
  let store: TestImages;
  let one: Image;
  let two: Image;
  const path = (...parts: string[]): string => join(store.dataRoot, ...parts);
  const hex = (digest: string): string => digest.slice('sha256:'.length);
  const blobs = (): string[] => readdirSync(path('image/content/sha256'));
  const layersOf = (image: Image): string[] =>
    store.images.library.parts.records.get(image.id)!.layers.map((layer) => layer.blob.digest);

  beforeEach(async () => {
    store = await testImages();
    one = (await load(store, dockerArchive([[file('a', 'shared')], [file('b', 'one')]], { names: ['one'] })))
      .image;
    two = (await load(store, dockerArchive([[file('a', 'shared')], [file('b', 'two')]], { names: ['two'] })))
      .image;
    await store.roots.create(CONTAINER, two.id);
    record('containers', CONTAINER, 'config.json', {
      id: CONTAINER,
      name: 'one',
      created: NOW,
      imageId: two.id,
      config: {},
      hostConfig: {},
      args: [],
      mounts: [],
      networks: {},
      state: { ...newState(), status: 'exited' },
    });
    const labels = {};
    record('volumes', 'vol', 'volume.json', {
      name: 'vol',
      createdAt: NOW,
      labels,
      options: {},
      anonymous: false,
    });
    record('networks', 'net', 'network.json', NETWORK);
    await store.roots.unmount(CONTAINER);
  });
  afterEach(() => store.dispose());

  const record = (kind: string, key: string, name: string, value: object): void => {
    mkdirSync(path(kind, key), { recursive: true });
    writeFileSync(path(kind, key, name), JSON.stringify(value));
  };

  /** Repairs everything, and shows that nothing is left to repair. @returns what was damaged, as path (without the root) and text */
  const repaired = async (options: FsckOptions = {}): Promise<string[]> => {
    const { damage } = await fsck(store.dataRoot, options);
    for (const each of damage) await each.mend();
    expect((await fsck(store.dataRoot, options)).damage).toEqual([]);
    return damage.map((each) => `${each.path.slice(store.dataRoot.length + 1)}: ${each.text}`);
  };

  it('finds nothing in a store that is as it should be, and counts what it saw', async () => {
    const report = await fsck(store.dataRoot, { layers: true });
    expect(report).toMatchObject({
      checked: { blobs: 5, images: 2, layers: 3, containers: 1 },
      damage: [],
      leftovers: [],
      strays: [],
    });
    expect(report.checked.blobBytes).toBeGreaterThan(5 * 512);
  });

  it('what others have put there is told, and stays', async () => {
    const strays = ['notes.txt', 'containers/notes.txt', 'image/old', 'overlay2/backup'];
    for (const name of strays) writeFileSync(path(name), 'of somebody else');
    const { damage, strays: found } = await fsck(store.dataRoot);
    expect(damage).toEqual([]);
    expect(found.map((each) => each.path.slice(store.dataRoot.length + 1)).sort()).toEqual(strays.sort());
  });

  it.each([
    ['content', (file: string) => writeFileSync(file, 'other')],
    ['mode', (file: string) => chmodSync(file, 0o4777)],
    ['name', (file: string) => renameSync(file, `${file}2`)],
  ])('a changed %s of an unpacked layer is found, and unpacked again after the repair', async (_, change) => {
    const [layer] = one.diffIds;
    change(path('overlay2/layers', hex(layer!), 'diff/a'));
    expect((await fsck(store.dataRoot)).damage).toEqual([]);
    expect(await repaired({ layers: true })).toEqual([
      `overlay2/layers/${hex(layer!)}: its files are not those of the layer ${layer}`,
    ]);
    await store.reopen();
    expect(readFileSync(join(await store.roots.mount(CONTAINER), 'a'), 'utf8')).toBe('shared');
    await store.roots.unmount(CONTAINER);
  });

  it('a blob whose bytes have changed takes with it the images that need it, and no others', async () => {
    const [, top] = layersOf(one);
    writeFileSync(path('image/content/sha256', hex(top!)), 'rotten');
    const found = await repaired();
    expect(found).toHaveLength(2);
    expect(found[0]).toMatch(
      new RegExp(`^image/content/sha256/${hex(top!)}: its bytes have the digest sha256:`),
    );
    expect(found[1]).toBe(
      `image/images/${hex(one.id)}.json: the image one:latest needs what is missing or damaged: ${top}`,
    );
    await store.reopen();
    expect((await store.images.list()).flatMap((image) => image.tags)).toEqual(['two:latest']);
  });

  it('a blob that is gone is missed by every image that shares it', async () => {
    const [shared] = layersOf(one);
    rmSync(path('image/content/sha256', hex(shared!)));
    expect(await repaired()).toHaveLength(2);
    await store.reopen();
    expect(await store.images.list()).toEqual([]);
    // The container goes on: its layers are unpacked.
    expect(await store.roots.mount(CONTAINER)).toContain(CONTAINER);
  });

  it('a layer that was made here needs no blob, and is missed when its folder is gone', async () => {
    const made = await store.images.importRoot(
      Readable.from([Buffer.alloc(1024)]),
      { changes: [] },
      () => {},
    );
    await store.roots.create('c', made.id);
    writeFileSync(join(await store.roots.mount('c'), 'f'), 'x');
    const wish = { config: {}, changes: [], createdBy: '', comment: '', author: '', reference: 'made' };
    const image = await store.images.commit({ ...wish, containerId: 'c', parentId: made.id });
    await store.roots.remove('c');
    expect(await repaired({ layers: true })).toEqual([]);
    writeFileSync(path('overlay2/layers', hex(image.diffIds[1]!), 'diff/f'), 'y');
    const { damage } = await fsck(store.dataRoot, { layers: true });
    expect(damage.map(({ text }) => text)).toEqual([
      `its files are not those of the layer ${image.diffIds[1]}`,
      expect.stringContaining('the image made:latest needs what is missing or damaged'),
    ]);
    rmSync(path('overlay2/layers', hex(image.diffIds[1]!)), { recursive: true });
    expect(await repaired()).toEqual([
      expect.stringContaining(`the image made:latest needs what is missing or damaged: ${image.diffIds[1]}`),
    ]);
  });

  it.each([
    ['an image', 'image/images/HEX.json'],
    ['the names', 'image/references.json'],
    ['a container', `containers/${CONTAINER}/config.json`],
    ['a root', `overlay2/roots/${CONTAINER}/root.json`],
    ['a volume', 'volumes/vol/volume.json'],
    ['a network', 'networks/net/network.json'],
  ])('a record of %s that is no JSON is told and given up', async (_, name) => {
    const file = name.replace('HEX', hex(one.id));
    writeFileSync(path(file), '{"torn":');
    const found = await repaired();
    expect(found[0]).toMatch(new RegExp(`^${file}: it can't be read: `));
    await store.reopen();
    expect(await store.images.list()).toHaveLength(name.includes('HEX') ? 1 : 2);
  });

  it('a container whose root is gone is named, and only removed when asked', async () => {
    await store.roots.remove(CONTAINER);
    const { damage } = await fsck(store.dataRoot);
    expect(damage.map(({ text }) => text)).toEqual([
      `container ${CONTAINER.slice(0, 12)} can't run: its root file system is gone`,
    ]);
    expect(readdirSync(path('containers'))).toEqual([CONTAINER]);
    await damage[0]!.mend();
    expect(readdirSync(path('containers'))).toEqual([]);
  });

  it('what a killed daemon leaves is told apart, and is gone after the next start', async () => {
    writeFileSync(path('image/content/ingest/.tmp-1-1'), 'half');
    writeFileSync(path('image/.tmp-1-2'), '{');
    mkdirSync(path('overlay2/layers/.tmp-abc/diff'), { recursive: true });
    mkdirSync(path('volumes/.removing-old/_data'), { recursive: true });
    const { damage, leftovers } = await fsck(store.dataRoot);
    expect(damage).toEqual([]);
    expect(leftovers.map((each) => each.path.slice(store.dataRoot.length + 1)).sort()).toEqual([
      'image/.tmp-1-2',
      'image/content/ingest/.tmp-1-1',
      'overlay2/layers/.tmp-abc',
      'volumes/.removing-old',
    ]);
    await store.reopen();
    const after = (await fsck(store.dataRoot)).leftovers.map((each) =>
      each.path.slice(store.dataRoot.length + 1),
    );
    expect(after).toEqual(['volumes/.removing-old']);
  });

  it('as a command: exits 1 on damage and 0 after the repair, and refuses data that a daemon uses', () => {
    const run = (...args: string[]): { status: number | null; stdout: string; stderr: string } =>
      spawnSync(
        process.execPath,
        [compiledEntry('daemon/bin'), 'fsck', '--data-root', store.dataRoot, ...args],
        {
          encoding: 'utf8',
        },
      );
    expect(run()).toMatchObject({ status: 0, stderr: '' });
    const [victim] = blobs();
    writeFileSync(path('image/content/sha256', victim!), 'rotten');
    expect(run()).toMatchObject({
      status: 1,
      stdout: expect.stringContaining('--repair does what is named'),
    });
    const { damage } = JSON.parse(run('--format', 'json').stdout) as { damage: object[] };
    expect(damage[0]).toMatchObject({ repair: 'remove it', repaired: false });
    expect(run('--repair')).toMatchObject({ status: 0, stdout: expect.stringContaining('done: remove it') });
    expect(run().status).toBe(0);
    expect(run('--data-root', '/nowhere')).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('/nowhere'),
    });
  });
});
