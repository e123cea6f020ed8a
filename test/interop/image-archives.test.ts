/** Images in and out: load, import, save, names, removal, and what a crash leaves. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { Readable } from 'node:stream';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { digestOf } from '../../daemon/image/content.ts';
import type { Progress } from '../../daemon/image/store.ts';
import {
  chunks,
  directory,
  dockerArchive,
  type Entry,
  file,
  load,
  readAll,
  type TestImages,
  tarOf,
  testImages,
} from '../support/images.ts';
import { lacking } from '../support/requirements.ts';

const describeHere = describe.skipIf(lacking('root', 'zstd', 'tar'));

let store: TestImages;
beforeEach(async () => {
  store = await testImages();
});
afterEach(() => store.dispose());

const LAYERS: Entry[][] = [
  [directory('bin'), file('bin/sh', 'shell', { mode: 0o755 })],
  [file('data', Buffer.alloc(200_000, 7))],
];
const zstd = (tar: Buffer): Buffer => execFileSync('zstd', ['-c'], { input: tar, maxBuffer: 1 << 28 });
const free = { force: false, prune: true, users: () => [] };

async function importTar(
  tar: Buffer,
  options: { reference?: string; changes?: string[]; message?: string; platform?: string } = {},
) {
  return store.images.importRoot(Readable.from(chunks(tar)), { changes: [], ...options }, () => {});
}

describeHere('load', () => {
  it.each<[string, (tar: Buffer) => Buffer]>([
    ['plain', (tar) => tar],
    ['gzip', (tar) => gzipSync(tar)],
    ['zstd', zstd],
  ])('takes %s layers, and archives compressed in the same way', async (_name, pack) => {
    const archive = pack(dockerArchive(LAYERS, { names: ['a:1', 'example.com/b:2'], pack }));
    const { image, lines } = await load(store, archive);
    expect(image.tags).toEqual(['a:1', 'example.com/b:2']);
    expect(image.diffIds).toEqual(LAYERS.map((layer) => digestOf(tarOf(layer))));
    expect(image.sizeBytes).toBe(200_005);
    expect(lines.map((line) => line.stream).filter(Boolean)).toEqual([
      'Loaded image: a:1\n',
      'Loaded image: example.com/b:2\n',
    ]);
    await store.roots.create('c', image.id);
    expect(readFileSync(`${await store.roots.mount('c')}/bin/sh`, 'utf8')).toBe('shell');
  });

  it('of an image without a name tells its id', async () => {
    const { image, lines } = await load(store, dockerArchive(LAYERS));
    expect(lines.at(-1)).toEqual({ stream: `Loaded image ID: ${image.id}\n` });
  });

  it('moves a name from the image that had it, and says so', async () => {
    const { image: old } = await load(store, dockerArchive(LAYERS, { names: ['a:1'] }));
    const { image, lines } = await load(store, dockerArchive([LAYERS[0]!], { names: ['a:1'] }));
    expect(lines.map((line) => line.stream).join('')).toContain(
      `The image a:1 already exists, renaming the old one with ID ${old.id} to empty string`,
    );
    expect((await store.images.get('a:1')).id).toBe(image.id);
    expect((await store.images.get(old.id)).tags).toEqual([]);
  });

  it('takes an OCI layout, with an index of platforms inside', async () => {
    const tar = tarOf(LAYERS[0]!);
    const blob = (text: string | Buffer): Entry => file(`blobs/sha256/${digestOf(text).slice(7)}`, text);
    const config = JSON.stringify({
      os: process.platform,
      architecture: 'amd64',
      rootfs: { type: 'layers', diff_ids: [digestOf(tar)] },
    });
    const packed = gzipSync(tar);
    const manifest = JSON.stringify({
      schemaVersion: 2,
      config: { digest: digestOf(config) },
      layers: [{ digest: digestOf(packed) }],
    });
    const arch = process.arch === 'x64' ? 'amd64' : process.arch;
    const index = JSON.stringify({
      manifests: [
        { digest: digestOf('other'), platform: { os: 'plan9', architecture: arch } },
        { digest: digestOf(manifest), platform: { os: process.platform, architecture: arch } },
      ],
    });
    const archive = tarOf([
      file('oci-layout', '{"imageLayoutVersion":"1.0.0"}'),
      blob(packed),
      blob(config),
      blob(manifest),
      blob(index),
      file(
        'index.json',
        JSON.stringify({
          manifests: [
            {
              digest: digestOf(index),
              annotations: { 'io.containerd.image.name': 'docker.io/library/oci:3' },
            },
          ],
        }),
      ),
    ]);
    const { image } = await load(store, archive);
    expect(image).toMatchObject({ id: digestOf(config), tags: ['oci:3'], diffIds: [digestOf(tar)] });
  });

  it('of the same archive twice keeps one image', async () => {
    const archive = dockerArchive(LAYERS, { names: ['a'] });
    await Promise.all([load(store, archive), load(store, archive)]);
    expect(await store.images.list()).toHaveLength(1);
    expect(readdirSync(`${store.dataRoot}/overlay2/layers`)).toHaveLength(2);
  });
});

describeHere('save', () => {
  it('and load again give the same image, digest by digest, from a compressed one too', async () => {
    const { image } = await load(
      store,
      dockerArchive(LAYERS, { names: ['a:1', 'a:2'], pack: (tar) => gzipSync(tar) }),
    );
    const saved = await readAll(await store.images.save(['a:1', 'a:2']));
    expect((await readAll(await store.images.save(['a:1', 'a:2']))).equals(saved)).toBe(true);
    const other = await testImages();
    try {
      const { image: again } = await load(other, saved);
      expect({ ...again, lastTaggedMs: 0 }).toEqual({ ...image, lastTaggedMs: 0 });
    } finally {
      await other.dispose();
    }
  });

  it('writes an archive that tar lists, with both layouts, each blob named by its digest', async () => {
    await load(store, dockerArchive(LAYERS, { names: ['a:1'] }));
    const saved = await readAll(await store.images.save(['a:1']));
    const folder = `${store.dataRoot}/unpacked`;
    mkdirSync(folder);
    execFileSync('tar', ['-x', '-C', folder], { input: saved });
    expect(readdirSync(folder).sort()).toEqual([
      'blobs',
      'index.json',
      'manifest.json',
      'oci-layout',
      'repositories',
    ]);
    for (const hex of readdirSync(`${folder}/blobs/sha256`))
      expect(digestOf(readFileSync(`${folder}/blobs/sha256/${hex}`))).toBe(`sha256:${hex}`);
    const [manifest] = JSON.parse(readFileSync(`${folder}/manifest.json`, 'utf8'));
    expect(manifest.RepoTags).toEqual(['a:1']);
  });

  it('of a repository without a tag has all of its tags', async () => {
    await load(store, dockerArchive(LAYERS, { names: ['many:1', 'many:2', 'other:1'] }));
    const saved = await readAll(await store.images.save(['many']));
    expect(saved.toString('latin1')).toContain('"RepoTags":["many:1","many:2"]');
  });

  it('of an image by id has no name; of an unknown one is an error', async () => {
    const { image } = await load(store, dockerArchive(LAYERS, { names: ['a:1'] }));
    const saved = await readAll(await store.images.save([image.id.slice(7, 19)]));
    expect(saved.toString('latin1')).toContain('"RepoTags":null');
    await expect(store.images.save(['nope'])).rejects.toMatchObject({
      code: 'ERR_IMAGE_NOT_FOUND',
      message: 'No such image: nope:latest',
    });
  });
});

describeHere('import', () => {
  it('makes one layer of a tar that GNU tar wrote, with changes and message', async () => {
    const folder = `${store.dataRoot}/source`;
    mkdirSync(`${folder}/${'long-name-'.repeat(12)}`, { recursive: true });
    writeFileSync(`${folder}/${'long-name-'.repeat(12)}/f`, 'deep');
    execFileSync('truncate', ['-s', '5M', `${folder}/sparse`]);
    writeFileSync(`${folder}/sparse`, 'start', { flag: 'r+' });
    execFileSync('mkfifo', [`${folder}/pipe`]);
    for (const format of ['gnu', 'posix']) {
      const args = ['-c', `--format=${format}`, '-S', '-C', folder, '.'];
      const image = await importTar(execFileSync('tar', args, { maxBuffer: 1 << 28 }), {
        reference: `imported:${format}`,
        message: 'a message',
        changes: ['CMD ["/bin/sh"]', 'ENV A=b C="d e"', 'EXPOSE 80', 'LABEL x=y', 'WORKDIR /w', 'USER 1:2'],
      });
      expect(image).toMatchObject({
        tags: [`imported:${format}`],
        comment: 'a message',
        config: {
          Cmd: ['/bin/sh'],
          Env: ['A=b', 'C=d e'],
          ExposedPorts: { '80/tcp': {} },
          Labels: { x: 'y' },
          WorkingDir: '/w',
          User: '1:2',
        },
      });
      await store.roots.create(format, image.id);
      const root = await store.roots.mount(format);
      expect(
        execFileSync('diff', ['-r', '--no-dereference', '--exclude=pipe', folder, root]).toString(),
      ).toBe('');
      expect(Number(execFileSync('stat', ['-c', '%b', `${root}/sparse`]))).toBeLessThan(100);
    }
  });

  it('takes a platform, and refuses bad changes, names and platforms before it reads', async () => {
    const tar = tarOf([file('f', 'x')]);
    expect(await importTar(tar, { platform: 'linux/arm64/v8' })).toMatchObject({
      os: 'linux',
      architecture: 'arm64',
      variant: 'v8',
    });
    await expect(importTar(tar, { changes: ['RUN x'] })).rejects.toMatchObject({
      code: 'ERR_BAD_DOCKERFILE',
      message: 'RUN is not a valid change command',
    });
    await expect(importTar(tar, { reference: 'UPPER' })).rejects.toMatchObject({ code: 'ERR_BAD_REFERENCE' });
    await expect(importTar(tar, { platform: 'a/b/c/d' })).rejects.toMatchObject({
      code: 'ERR_BAD_PARAMETER',
    });
    expect(await store.images.list()).toHaveLength(1);
  });
});

describeHere('names', () => {
  it('resolve by tag, familiar and full, by digest, id and unique prefix', async () => {
    const { image } = await load(store, dockerArchive(LAYERS, { names: ['a:1'] }));
    for (const reference of [
      'a:1',
      'docker.io/library/a:1',
      'library/a:1',
      image.id,
      image.id.slice(7),
      image.id.slice(7, 15),
      image.id.slice(0, 20),
    ])
      expect((await store.images.get(reference)).id).toBe(image.id);
    for (const reference of ['a', 'a:2', 'b', 'ffffffffffff', 'sha256:'.padEnd(71, '0')])
      await expect(store.images.get(reference)).rejects.toMatchObject({ code: 'ERR_IMAGE_NOT_FOUND' });
  });

  it('a prefix of two ids is ambiguous', async () => {
    for (let i = 0; i < 17; i++) await load(store, dockerArchive([[file(`f${i}`, '')]]));
    const first = (await store.images.list()).map((image) => image.id[7]!);
    const twice = first.find((char, index) => first.indexOf(char) !== index)!;
    await expect(store.images.get(twice)).rejects.toMatchObject({ code: 'ERR_AMBIGUOUS_ID' });
  });

  it('tags survive a restart, and so do their times', async () => {
    const { image } = await load(store, dockerArchive(LAYERS, { names: ['a:1'] }));
    await store.images.tag('a:1', 'b');
    await expect(store.images.tag('a:1', `b@${image.id}`)).rejects.toMatchObject({
      code: 'ERR_BAD_REFERENCE',
    });
    const before = await store.images.get('b');
    await store.reopen();
    expect(await store.images.get('b:latest')).toEqual(before);
    expect(before.tags).toEqual(['a:1', 'b:latest']);
    expect(store.events).toEqual([
      { action: 'load', id: image.id, attributes: { name: image.id } },
      { action: 'tag', id: image.id, attributes: { name: 'b:latest' } },
    ]);
  });
});

describeHere('removal', () => {
  it('untags while names are left, then deletes image, blobs and layers', async () => {
    const { image } = await load(store, dockerArchive(LAYERS, { names: ['a:1', 'a:2'] }));
    expect(await store.images.remove('a:1', free)).toEqual([{ Untagged: 'a:1' }]);
    const removed = await store.images.remove('a:2', free);
    expect(removed.slice(0, 2)).toEqual([{ Untagged: 'a:2' }, { Deleted: image.id }]);
    expect(removed).toHaveLength(4);
    expect(removed.at(-1)).toEqual({ Deleted: image.diffIds[0] });
    expect(readdirSync(`${store.dataRoot}/overlay2/layers`)).toEqual([]);
    expect(readdirSync(`${store.dataRoot}/overlay2/l`)).toEqual([]);
    expect(readdirSync(`${store.dataRoot}/image/content/sha256`)).toEqual([]);
  });

  it('keeps layers that another image or a container still needs', async () => {
    const { image } = await load(store, dockerArchive(LAYERS, { names: ['a:1'] }));
    await load(store, dockerArchive([LAYERS[0]!], { names: ['b:1'] }));
    await store.roots.create('c', image.id);
    expect(await store.images.remove('a:1', { ...free, force: true })).toEqual([
      { Untagged: 'a:1' },
      { Deleted: image.id },
    ]);
    await store.reopen();
    expect(readFileSync(`${await store.roots.mount('c')}/data`).length).toBe(200_000);
    await store.roots.remove('c');
    await store.reopen();
    expect(readdirSync(`${store.dataRoot}/overlay2/layers`)).toHaveLength(1);
    expect((await store.images.get('b:1')).diffIds).toHaveLength(1);
  });

  it('prunes what no container uses and counts the bytes', async () => {
    const { image } = await load(store, dockerArchive([LAYERS[1]!]));
    await load(store, dockerArchive([LAYERS[0]!], { names: ['kept'] }));
    const dangling = (each: { tags: string[] }): boolean => each.tags.length === 0;
    expect(
      await store.images.prune(dangling, (id) => (id === image.id ? [{ id: 'c', running: false }] : [])),
    ).toEqual({ removed: [], reclaimedBytes: 0 });
    expect(await store.images.prune(dangling, () => [])).toEqual({
      removed: [{ Deleted: image.id }, { Deleted: image.diffIds[0] }],
      reclaimedBytes: 200_000,
    });
    expect(await store.images.list()).toHaveLength(1);
  });
});

describeHere('after a crash', () => {
  it('half-made blobs, layers and records are swept, and images are all there', async () => {
    const { image } = await load(store, dockerArchive(LAYERS, { names: ['a'] }));
    await store.close();
    const { dataRoot } = store;
    writeFileSync(`${dataRoot}/image/content/ingest/.tmp-1-1`, 'half');
    writeFileSync(`${dataRoot}/image/content/sha256/${'0'.repeat(64)}`, 'orphan');
    mkdirSync(`${dataRoot}/overlay2/layers/.tmp-abc/diff`, { recursive: true });
    mkdirSync(`${dataRoot}/overlay2/layers/${'1'.repeat(64)}/diff`, { recursive: true });
    writeFileSync(`${dataRoot}/image/images/.tmp-1-2`, '{');
    writeFileSync(`${dataRoot}/overlay2/l/stray`, '');
    rmSync(`${dataRoot}/overlay2/l/${image.diffIds[0]!.slice(7, 15)}`);
    await store.reopen();
    expect(await store.images.get('a')).toEqual(image);
    expect(readdirSync(`${dataRoot}/image/content/ingest`)).toEqual([]);
    expect(readdirSync(`${dataRoot}/image/content/sha256`)).toHaveLength(3);
    expect(readdirSync(`${dataRoot}/overlay2/layers`)).toHaveLength(2);
    expect(readdirSync(`${dataRoot}/image/images`)).toHaveLength(1);
    await store.roots.create('c', image.id);
    expect(readdirSync(await store.roots.mount('c')).sort()).toEqual(['bin', 'data']);
  });

  it('of the machine, blobs that had not come to the disk whole are removed, and all others kept', async () => {
    const { image } = await load(
      store,
      dockerArchive([[file('a', 'x'.repeat(70_000))], [file('b', 'y'.repeat(70_000))]]),
    );
    const content = `${store.dataRoot}/image/content`;
    const fresh = JSON.parse(readFileSync(`${content}/fresh.json`, 'utf8')) as { digests: string[] };
    expect(fresh.digests).toEqual(expect.arrayContaining(image.diffIds));
    const [lost] = image.diffIds;
    // As a power failure leaves it: the name is there, the bytes are not.
    writeFileSync(`${content}/sha256/${lost!.slice(7)}`, '');
    writeFileSync(`${content}/fresh.json`, JSON.stringify({ ...fresh, bootId: 'another' }));
    await store.reopen();
    expect(readdirSync(`${content}/sha256`).sort()).toEqual(
      [image.id, image.diffIds[1]!].map((id) => id.slice(7)).sort(),
    );
  });

  it('an image whose configuration is gone is forgotten, and the others work', async () => {
    const { image } = await load(store, dockerArchive(LAYERS, { names: ['a'] }));
    await load(store, dockerArchive([LAYERS[0]!], { names: ['b'] }));
    await store.close();
    rmSync(`${store.dataRoot}/image/content/sha256/${image.id.slice(7)}`);
    await store.reopen();
    expect((await store.images.list()).map((each) => each.tags)).toEqual([['b:latest']]);
  });

  it('progress of loading names each new layer once at its start and once at its end', async () => {
    const { lines } = await load(store, dockerArchive(LAYERS));
    const loading = lines.filter((line: Progress) => line.status === 'Loading layer');
    expect(loading).toHaveLength(4);
    expect(new Set(loading.map((line) => line.id)).size).toBe(2);
  });
});
