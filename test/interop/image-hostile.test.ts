/** Archives made to do harm: each is refused or stays inside, and nothing appears or changes outside of the store. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { Readable } from 'node:stream';
import { gzipSync } from 'node:zlib';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { digestOf } from '../../daemon/image/content.ts';
import { openImages } from '../../daemon/image/index.ts';
import {
  chunks,
  directory,
  dockerArchive,
  type Entry,
  file,
  hardLink,
  load,
  symlink,
  type TestImages,
  tarOf,
  testImages,
} from '../support/images.ts';
import { lacking } from '../support/requirements.ts';

const describeHere = describe.skipIf(lacking('root'));

let store: TestImages;
let outside: string;
beforeAll(async () => {
  store = await testImages('overlay2');
  outside = mkdtempSync(`${tmpdir()}/drydock-outside-`);
  writeFileSync(`${outside}/secret`, 'untouched');
});
afterAll(async () => {
  await store.dispose();
  rmSync(outside, { recursive: true, force: true });
});

afterEach(async () => {
  for (const image of await store.images.list())
    await store.images.remove(image.id, { force: true, prune: true, users: () => [] });
});

/** Fails when anything outside was touched, or something of a refused archive was kept. */
function expectUntouched(): void {
  expect(readdirSync(outside)).toEqual(['secret']);
  expect(readFileSync(`${outside}/secret`, 'utf8')).toBe('untouched');
  expect(existsSync('/drydock-hostile')).toBe(false);
  expect(existsSync(`${tmpdir()}/drydock-hostile`)).toBe(false);
}

function expectNothingKept(): void {
  expect(readdirSync(`${store.dataRoot}/overlay2/layers`)).toEqual([]);
  expect(readdirSync(`${store.dataRoot}/image/content/sha256`)).toEqual([]);
  expect(readdirSync(`${store.dataRoot}/image/content/ingest`)).toEqual([]);
  expect(readdirSync(`${store.dataRoot}/image/images`)).toEqual([]);
}

const up = (levels: number, rest: string): string => `${'../'.repeat(levels)}${rest}`;

/** Layers that must be refused. Names are worked out when the test runs, since they name the outside. */
const REFUSED: [what: string, layer: () => Entry[]][] = [
  ['a name with ..', () => [file('../drydock-hostile', 'x')]],
  ['a name with .. below a folder', () => [directory('a'), file('a/../../drydock-hostile', 'x')]],
  ['an absolute name with ..', () => [file(`/..${outside}/new`, 'x')]],
  ['many ..', () => [file(up(30, `${outside.slice(1)}/new`), 'x')]],
  ['a folder named ..', () => [directory('..', { mode: 0o777 })]],
  ['a symlink whose name leads out', () => [symlink('../drydock-hostile', '/etc/passwd')]],
  ['a hard link to .. outside', () => [hardLink('l', up(30, `${outside.slice(1)}/secret`))]],
  ['a hard link to an absolute host path', () => [hardLink('l', `${outside}/secret`)]],
  ['a hard link through a symlink to the outside', () => [symlink('s', outside), hardLink('l', 's/secret')]],
  ['a hard link to a folder', () => [directory('d'), hardLink('l', 'd')]],
  ['a hard link to the root', () => [hardLink('l', '/')]],
  ['a hard link to itself', () => [hardLink('l', 'l')]],
  ['a hard link to a whiteout', () => [file('.wh.x'), hardLink('l', '.wh.x')]],
  ['a file through a symlink to an outside folder', () => [symlink('s', outside), file('s/new', 'x')]],
  [
    'a file through a relative symlink to the outside',
    () => [symlink('s', up(30, outside.slice(1))), file('s/new', 'x')],
  ],
  [
    'a file through a chain of symlinks',
    () => [symlink('a', 'b'), symlink('b', outside), file('a/new', 'x')],
  ],
  ['a file below a symlink loop', () => [symlink('a', 'b'), symlink('b', 'a'), file('a/x', 'x')]],
  ['a file below a file', () => [file('f', 'x'), file('f/x', 'y')]],
  ['a file below a device', () => [[{ name: 'dev', type: 'char', major: 1, minor: 3 }], file('dev/x', 'y')]],
  ['a whiteout of ..', () => [directory('d'), file('d/.wh...')]],
  ['a whiteout of .', () => [file('.wh..')]],
  ['a whiteout of nothing', () => [file('.wh.')]],
  ['a file below a whiteout', () => [file('.wh.x/y', 'z')]],
  ['a root that is a file', () => [file('.', 'x')]],
  ['a root that is a symlink', () => [symlink('./', outside)]],
  ['a name of 300 bytes', () => [file('n'.repeat(300), 'x')]],
  ['a path of 5000 bytes', () => [file('d/'.repeat(2500), 'x')]],
  ['a symlink to 5000 bytes', () => [symlink('s', 'x'.repeat(5000))]],
];

/** Layers that are honest enough to be unpacked, and must stay inside. */
const CONTAINED: [what: string, layer: () => Entry[], inside: string[]][] = [
  ['an absolute name', () => [file('/drydock-hostile', 'x')], ['drydock-hostile']],
  [
    'an absolute symlink that is written through',
    () => [directory('etc'), symlink('s', '/etc'), file('s/new', 'x')],
    ['etc/new'],
  ],
  [
    'a symlink up that is written through',
    () => [directory('etc'), symlink('s', '../../../etc'), file('s/new', 'x')],
    ['etc/new'],
  ],
  ['a symlink that is replaced by a file', () => [symlink('s', '/drydock-hostile'), file('s', 'x')], ['s']],
  [
    'a symlink that is replaced by a folder',
    () => [symlink('s', '/'), directory('s'), file('s/f', 'x')],
    ['s/f'],
  ],
  [
    'a folder replaced by a symlink to the outside',
    () => [directory('d'), file('d/f', 'x'), symlink('d', '/tmp')],
    ['d'],
  ],
  [
    'attributes that steer overlayfs',
    () => [
      file('f', 'x', {
        xattrs: new Map([
          ['trusted.overlay.redirect', Buffer.from('/etc')],
          ['trusted.overlay.metacopy', Buffer.from('')],
        ]),
      }),
    ],
    ['f'],
  ],
  ['the devices of the host', () => [[{ name: 'disk', type: 'block', major: 8, minor: 0 }]], ['disk']],
];

describeHere('hostile layers', () => {
  it.each(REFUSED)('with %s are refused', async (_what, layer) => {
    await expect(load(store, dockerArchive([layer()]))).rejects.toMatchObject({ code: 'ERR_BAD_ARCHIVE' });
    expectUntouched();
    expectNothingKept();
  });

  it.each(CONTAINED)('with %s stay inside', async (_what, layer, inside) => {
    const { image } = await load(store, dockerArchive([layer()]));
    const diff = store.images.layerPaths(image.id)[0]!;
    // Node's own recursive readdir would follow the symlinks.
    const names = execFileSync('find', [diff, '-printf', '%P\n']).toString().split('\n');
    expect(names).toEqual(expect.arrayContaining(inside));
    expectUntouched();
    await store.images.remove(image.id, { force: true, prune: true, users: () => [] });
    expectNothingKept();
  });

  it('with overlayfs attributes lose them', async () => {
    const { image } = await load(store, dockerArchive([CONTAINED[6]![1]()]));
    await store.roots.create('c', image.id);
    const root = await store.roots.mount('c');
    expect(readFileSync(`${root}/f`, 'utf8')).toBe('x');
    await store.roots.remove('c');
    await store.images.remove(image.id, { force: true, prune: true, users: () => [] });
  });
});

const json = (value: unknown): string => JSON.stringify(value);
const config = (diffIds: unknown, more: object = {}): string =>
  json({ os: 'linux', architecture: 'amd64', rootfs: { type: 'layers', diff_ids: diffIds }, ...more });
const manifest = (fields: object): string => json([{ Config: 'c', RepoTags: null, Layers: [], ...fields }]);
const TAR = tarOf([file('f', 'x')]);

const BAD_ARCHIVES: [what: string, archive: () => Buffer][] = [
  ['no manifest', () => tarOf([file('x', 'y')])],
  ['nothing at all', () => Buffer.alloc(0)],
  ['a manifest that is no JSON', () => tarOf([file('manifest.json', '[')])],
  ['a manifest that is no list', () => tarOf([file('manifest.json', '{}')])],
  ['a manifest of null', () => tarOf([file('manifest.json', '[null]')])],
  ['a manifest with wrong types', () => tarOf([file('manifest.json', manifest({ Layers: [1] }))])],
  ['a missing configuration', () => tarOf([file('manifest.json', manifest({}))])],
  [
    'a configuration named outside',
    () => tarOf([file('manifest.json', manifest({ Config: '../../etc/passwd' }))]),
  ],
  [
    'a configuration that links outside',
    () => tarOf([symlink('c', '/etc/passwd'), file('manifest.json', manifest({}))]),
  ],
  [
    'links in a circle',
    () => tarOf([symlink('c', 'd'), symlink('d', 'c'), file('manifest.json', manifest({}))]),
  ],
  ['a configuration without rootfs', () => tarOf([file('c', '{}'), file('manifest.json', manifest({}))])],
  [
    'a configuration with bad digests',
    () => tarOf([file('c', config(['sha256:../../x'])), file('manifest.json', manifest({ Layers: ['l'] }))]),
  ],
  [
    'a configuration with a bad Env',
    () => tarOf([file('c', config([], { config: { Env: [1] } })), file('manifest.json', manifest({}))]),
  ],
  [
    'more layers than digests',
    () => tarOf([file('c', config([])), file('l', TAR), file('manifest.json', manifest({ Layers: ['l'] }))]),
  ],
  [
    'a missing layer',
    () => tarOf([file('c', config([digestOf(TAR)])), file('manifest.json', manifest({ Layers: ['l'] }))]),
  ],
  [
    'a layer that is no tar',
    () =>
      tarOf([
        file('c', config([digestOf('x'.repeat(600))])),
        file('l', 'x'.repeat(600)),
        file('manifest.json', manifest({ Layers: ['l'] })),
      ]),
  ],
  [
    'a bad name',
    () => tarOf([file('c', config([])), file('manifest.json', manifest({ RepoTags: ['../x'] }))]),
  ],
  [
    'a bz2 layer',
    () =>
      tarOf([
        file('c', config([digestOf(TAR)])),
        file('l', 'BZh91AY'),
        file('manifest.json', manifest({ Layers: ['l'] })),
      ]),
  ],
  ['broken gzip', () => gzipSync(dockerArchive([[file('f', 'x')]])).fill(0x55, 60, 90)],
  ['gzip cut short', () => gzipSync(dockerArchive([[file('f', 'x')]])).subarray(0, 200)],
  [
    'an index of bad digests',
    () => tarOf([file('index.json', json({ manifests: [{ digest: 'sha256:../../../etc/passwd' }] }))]),
  ],
  ['an index without manifests', () => tarOf([file('index.json', '{}')])],
  ['150 layers', () => dockerArchive(Array.from({ length: 150 }, (_, i) => [file(`f${i}`, '')]))],
];

describeHere('hostile image archives', () => {
  it.each(BAD_ARCHIVES)('with %s are refused, and nothing is kept', async (_what, archive) => {
    const loading = store.images.load(Readable.from(chunks(archive())), () => {});
    await expect(loading).rejects.toMatchObject({
      code: expect.stringMatching(/^ERR_BAD_(ARCHIVE|REFERENCE)$/),
    });
    expectUntouched();
    expectNothingKept();
  });

  it('with a layer of another digest than stated are refused', async () => {
    const archive = tarOf([
      file('c', config([digestOf('other')])),
      file('l', TAR),
      file('manifest.json', manifest({ Layers: ['l'] })),
    ]);
    await expect(load(store, archive)).rejects.toMatchObject({ code: 'ERR_DIGEST_MISMATCH' });
    expectNothingKept();
  });

  it('that break off in the middle leave nothing', async () => {
    const archive = dockerArchive([[file('f', Buffer.alloc(300_000, 1))]]);
    const broken = Readable.from(
      (function* () {
        yield archive.subarray(0, 200_000);
        throw new Error('the client hung up');
      })(),
    );
    await expect(store.images.load(broken, () => {})).rejects.toThrow('the client hung up');
    expectNothingKept();
  });
});

describeHere('bombs', () => {
  it('of compressed zeros end at the limit of unpacked bytes', async () => {
    const bomb = gzipSync(tarOf([file('zeros', Buffer.alloc(30 << 20))]));
    expect(bomb.length).toBeLessThan(100_000);
    await using(100 << 10, async (limited) => {
      await expect(
        limited.images.importRoot(Readable.from([bomb]), { changes: [] }, () => {}),
      ).rejects.toMatchObject({
        code: 'ERR_BAD_ARCHIVE',
        message: expect.stringContaining('unpacks to more than'),
      });
    });
  });

  it('of a sparse file that claims exabytes end at the same limit', async () => {
    const header = Buffer.from(tarOf([file('s', 'x')]).subarray(0, 512));
    header.write('S', 156, 'latin1');
    header.write('00000000000\x0000000000001\0', 386, 'latin1');
    header.write('\x80\0\0\0\x0f\xff\xff\xff\xff\xff\xff\xff', 483, 'latin1');
    header.write('        ', 148, 'latin1');
    header.write(
      `${header
        .reduce((sum, byte) => sum + byte, 0)
        .toString(8)
        .padStart(6, '0')}\0 `,
      148,
      'latin1',
    );
    const archive = Buffer.concat([header, Buffer.alloc(512, 'x'), Buffer.alloc(1024)]);
    await using(100 << 10, async (limited) => {
      await expect(
        limited.images.importRoot(Readable.from([archive]), { changes: [] }, () => {}),
      ).rejects.toMatchObject({ code: 'ERR_BAD_ARCHIVE' });
    });
  });
});

/** Runs `work` with a store of its own that has a small limit. */
async function using(
  layerBytesMax: number,
  work: (limited: Awaited<ReturnType<typeof openImages>>) => Promise<void>,
): Promise<void> {
  const { systemClock } = await import('#common/clock');
  const { nullLog } = await import('#common/log');
  const dataRoot = mkdtempSync(`${tmpdir()}/drydock-image-`);
  const limited = await openImages({ dataRoot, log: nullLog, clock: systemClock, layerBytesMax });
  try {
    await work(limited);
    expect(readdirSync(`${dataRoot}/image/content/sha256`)).toEqual([]);
    expect(readdirSync(`${dataRoot}/overlay2/layers`)).toEqual([]);
  } finally {
    await limited.close();
    rmSync(dataRoot, { recursive: true, force: true });
  }
}
