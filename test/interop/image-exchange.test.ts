/** Other programs read the images that we write, and we read theirs: skopeo, umoci, buildah and podman. */
import { execFile, execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { Readable } from 'node:stream';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  chunks,
  directory,
  dockerArchive,
  type Entry,
  file,
  load,
  readAll,
  symlink,
  type TestImages,
  testImages,
} from '../support/images.ts';
import { startRegistry, type TestRegistry } from '../support/registry.ts';
import { lacking } from '../support/requirements.ts';

const describeHere = describe.skipIf(
  lacking('root', 'docker-registry', 'skopeo', 'umoci', 'buildah', 'podman', 'tar'),
);

const PROGRAM = { uid: 3_000_000, mode: 0o4755, mtimeSeconds: 1_000_000_000 };
const LAYERS: Entry[][] = [
  [
    directory('d', { mode: 0o1777 }),
    file('d/f', 'x'.repeat(100_000), PROGRAM),
    // With the fields of what it is linked to, as archivers write it: podman applies those of the link.
    [{ name: 'd/h', type: 'link', linkName: 'd/f', ...PROGRAM }],
    symlink('d/s', 'f'),
    file('gone', 'x'),
    file('attributes', 'y', { xattrs: new Map([['user.kept', Buffer.from('value')]]) }),
    directory('old'),
    file('old/file', 'z'),
  ],
  [
    file('.wh.gone'),
    file('top', Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * 7919) % 251))),
    directory('old'),
    file('old/.wh..wh..opq'),
    file('old/new', 'w'),
  ],
];

let store: TestImages;
let folder: string;
const noAuth = { credentials: undefined, signal: new AbortController().signal, progress: () => {} };

beforeEach(async () => {
  store = await testImages();
  folder = `${store.dataRoot}/exchange`;
  mkdirSync(folder);
});
afterEach(() => store.dispose());

/** Runs a program in the test's folder. @returns what it says */
async function run(program: string, ...args: string[]): Promise<string> {
  const { stdout } = await promisify(execFile)(program, args, { cwd: folder, env: await environment() });
  return stdout.trim();
}

/** Keeps what podman and buildah store and run inside of the test's folder. */
async function environment(): Promise<NodeJS.ProcessEnv> {
  const at = (name: string): string => JSON.stringify(`${folder}/containers/${name}`);
  mkdirSync(`${folder}/containers`, { recursive: true });
  writeFileSync(
    `${folder}/containers/storage.conf`,
    `[storage]\ndriver = "vfs"\ngraphroot = ${at('graph')}\nrunroot = ${at('run')}\n`,
  );
  writeFileSync(
    `${folder}/containers/containers.conf`,
    `[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "none"\nlock_type = "file"\nnum_locks = 32\ntmp_dir = ${at('tmp')}\nstatic_dir = ${at('static')}\nvolume_path = ${at('volumes')}\n[network]\nnetwork_config_dir = ${at('networks')}\n`,
  );
  return {
    ...process.env,
    HOME: folder,
    TMPDIR: folder,
    CONTAINERS_STORAGE_CONF: `${folder}/containers/storage.conf`,
    CONTAINERS_CONF: `${folder}/containers/containers.conf`,
  };
}

/** What is in a tree: kinds, modes, owners, links, times of files, attributes, contents. */
function tree(root: string): string {
  const script = `find . -mindepth 1 -printf '%P %y %m %U:%G %n %l %s ' \\( ! -type d -printf '%T@' -o -true \\) -printf '\\n' | sed 's/\\(.* d [0-9]* [0-9:]*\\) .*/\\1/' | sort
    find . -type f | sort | xargs sha256sum
    find . | sort | python3 -c 'import os, sys
for name in sys.stdin.read().split():
    for key in os.listxattr(name, follow_symlinks=False):
        if key.startswith("user."): print(name, key, os.getxattr(name, key, follow_symlinks=False))'`;
  return execFileSync('sh', ['-c', script], { cwd: root }).toString();
}

/** Saves an image as `docker save` does. @returns the archive, and the folder of the OCI layout inside */
async function saved(name: string): Promise<{ archive: string; layout: string }> {
  const [archive, layout] = [`${folder}/saved.tar`, `${folder}/layout`];
  writeFileSync(archive, await readAll(await store.images.save([name])));
  mkdirSync(layout);
  execFileSync('tar', ['-xf', archive, '-C', layout]);
  return { archive, layout };
}

/** Loads an archive into a store without images. */
async function loadAlone(archive: string) {
  for (const { id } of await store.images.list())
    await store.images.remove(id, { force: true, prune: true, users: () => [] });
  return (await load(store, readFileSync(archive))).image;
}

async function treeOf(imageId: string): Promise<string> {
  const name = `root-${imageId.slice(7, 19)}`;
  await store.roots.create(name, imageId);
  try {
    return tree(await store.roots.mount(name));
  } finally {
    await store.roots.remove(name);
  }
}

describeHere('skopeo and umoci', () => {
  it('read what we save, and we load what skopeo writes', async () => {
    const { image } = await load(store, dockerArchive(LAYERS, { names: ['saved:1'] }));
    const { archive, layout } = await saved('saved:1');
    for (const source of [`docker-archive:${archive}`, `oci:${layout}:1`])
      expect(JSON.parse(await run('skopeo', 'inspect', '--config', source)).rootfs.diff_ids).toEqual(
        image.diffIds,
      );
    for (const [target, name] of [
      [`docker-archive:${folder}/theirs.tar:theirs:2`, 'theirs:2'],
      [`oci-archive:${folder}/theirs.tar:docker.io/library/oci:3`, 'oci:3'],
    ] as const) {
      rmSync(`${folder}/theirs.tar`, { force: true });
      await run('skopeo', 'copy', `docker-archive:${archive}`, target);
      const loaded = await loadAlone(`${folder}/theirs.tar`);
      expect([loaded.diffIds, loaded.tags]).toEqual([image.diffIds, expect.arrayContaining([name])]);
    }
  });

  it('umoci unpacks the same tree as we do: modes, owners, times, attributes, links, whiteouts', async () => {
    const { image } = await load(store, dockerArchive(LAYERS, { names: ['saved:1'] }));
    const { layout } = await saved('saved:1');
    await run('umoci', 'unpack', '--image', `${layout}:1`, `${folder}/bundle`);
    const ours = await treeOf(image.id);
    expect(ours).toMatch(/user\.kept/);
    expect(ours).toBe(tree(`${folder}/bundle/rootfs`));
  });

  it('umoci packs what it has changed in its tree, and we load the same', async () => {
    await load(store, dockerArchive(LAYERS, { names: ['saved:1'] }));
    const { layout } = await saved('saved:1');
    await run('umoci', 'unpack', '--image', `${layout}:1`, `${folder}/bundle`);
    const root = `${folder}/bundle/rootfs`;
    execFileSync(
      'sh',
      [
        '-c',
        'rm top; rm -r old; mkdir -m 700 old; echo >old/again; touch -d @1700000000 old/again; ln d/f new; touch d',
      ],
      {
        cwd: root,
      },
    );
    await run('umoci', 'repack', '--image', `${layout}:1`, `${folder}/bundle`);
    execFileSync('tar', ['-cf', `${folder}/umoci.tar`, '-C', layout, 'index.json', 'oci-layout', 'blobs']);
    const image = await loadAlone(`${folder}/umoci.tar`);
    expect(image.diffIds).toHaveLength(3);
    expect(await treeOf(image.id)).toBe(tree(root));
  });
});

describeHere('buildah', () => {
  it('builds on an image of ours, and we load what it commits: files, whiteouts, configuration', async () => {
    const config = { Cmd: ['x'], Env: ['A=b'], Labels: { kept: 'yes' } };
    await load(store, dockerArchive(LAYERS, { names: ['saved:1'], config }));
    const { archive } = await saved('saved:1');
    const container = await run('buildah', 'from', `docker-archive:${archive}`);
    const root = await run('buildah', 'mount', container);
    execFileSync(
      'sh',
      ['-c', 'rm top; rm -r old; mkdir -m 700 old; echo more >old/again; touch -d @1700000000 old/again'],
      { cwd: root },
    );
    await run('buildah', 'config', '--env', 'C=d', '--workingdir', '/d', container);
    for (const target of [
      `docker-archive:${folder}/theirs.tar:theirs:1`,
      `oci-archive:${folder}/theirs.tar:theirs:1`,
    ]) {
      rmSync(`${folder}/theirs.tar`, { force: true });
      await run('buildah', 'commit', '--format', target.split('-')[0]!, container, target);
      const image = await loadAlone(`${folder}/theirs.tar`);
      expect(image.config).toMatchObject({ ...config, Env: ['A=b', 'C=d'], WorkingDir: '/d' });
      expect(await treeOf(image.id)).toBe(tree(root));
    }
  });

  it('runs a program of an image that we have imported', async () => {
    mkdirSync(`${folder}/root/bin`, { recursive: true });
    execFileSync('cp', ['/bin/busybox', `${folder}/root/bin/sh`]);
    const tar = execFileSync('tar', ['-c', '-C', `${folder}/root`, '.'], { maxBuffer: 1 << 28 });
    await store.images.importRoot(
      Readable.from(chunks(tar)),
      { reference: 'shell:1', changes: ['ENV WHO=you'] },
      () => {},
    );
    const container = await run('buildah', 'from', `docker-archive:${(await saved('shell:1')).archive}`);
    const said = await run(
      'buildah',
      'run',
      '--isolation',
      'chroot',
      container,
      '/bin/sh',
      '-c',
      'echo $WHO',
    );
    expect(said).toBe('you');
  });
});

describeHere('podman', () => {
  let registry: TestRegistry;
  beforeAll(async () => {
    registry = await startRegistry();
  });
  afterAll(() => registry.close());

  it('loads what we save, with the same tree, and we load what it saves in each format', async () => {
    const { image } = await load(
      store,
      dockerArchive(LAYERS, { names: ['saved:1'], config: { Cmd: ['x'] } }),
    );
    const ours = await treeOf(image.id);
    const { archive } = await saved('saved:1');
    for (const source of [`docker-archive:${archive}`, 'oci:layout:1']) {
      const id = (await run('podman', 'pull', '-q', source)).split('\n').at(-1)!;
      expect(`sha256:${id}`).toBe(image.id);
      expect(tree(await run('podman', 'image', 'mount', id))).toBe(ours);
      await run('podman', 'image', 'umount', id);
    }
    for (const format of ['docker-archive', 'oci-archive', 'oci-dir']) {
      const target = `${folder}/${format}`;
      await run('podman', 'save', '-q', '--format', format, '-o', target, image.id.slice(7));
      const isFolder = format === 'oci-dir';
      if (isFolder) execFileSync('tar', ['-cf', `${target}.tar`, '-C', target, '.']);
      const loaded = await loadAlone(isFolder ? `${target}.tar` : target);
      expect(loaded.diffIds).toEqual(image.diffIds);
      expect(await treeOf(loaded.id)).toBe(ours);
    }
  });

  it('pulls what we push, and we pull what podman and buildah push', async () => {
    const name = `${registry.domain}/ours:1`;
    const { image } = await load(store, dockerArchive(LAYERS, { names: [name] }));
    await store.images.push(name, noAuth);
    const id = await run('podman', 'pull', '-q', '--tls-verify=false', name);
    expect(`sha256:${id}`).toBe(image.id);
    for (const program of ['podman', 'buildah'])
      for (const format of ['v2s2', 'oci']) {
        const target = `${registry.domain}/${program}-${format}:1`;
        const more = program === 'podman' ? ['--compression-format', 'zstd'] : [];
        await run(
          program,
          'push',
          '-q',
          '--tls-verify=false',
          '--format',
          format,
          ...(format === 'oci' ? more : []),
          id,
          `docker://${target}`,
        );
        await store.images.remove((await store.images.list())[0]!.id, {
          force: true,
          prune: true,
          users: () => [],
        });
        await store.images.pull(target, noAuth);
        expect((await store.images.get(target)).diffIds).toEqual(image.diffIds);
      }
  });
});
