/** Pull and push with Debian's docker-registry, and with one that misbehaves; skopeo as a witness. */
import { execFile, execFileSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import type { RequestListener, ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { systemClock } from '#common/clock';
import { Registries } from '../../daemon/image/registry/index.ts';
import type { Progress } from '../../daemon/image/store.ts';
import {
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
import { fakeRegistry, sha256, startRegistry, type TestRegistry } from '../support/registry.ts';
import { lacking } from '../support/requirements.ts';

const describeHere = describe.skipIf(
  lacking('root', 'docker-registry', 'skopeo', 'umoci', 'zstd', 'openssl'),
);

const run = promisify(execFile);

const LAYERS: Entry[][] = [
  [
    directory('d', { mode: 0o1777 }),
    file('d/f', 'x'.repeat(100_000), { uid: 3_000_000, mode: 0o4755, mtimeSeconds: 1_000_000_000 }),
    hardLink('d/h', 'd/f'),
    symlink('d/s', 'f'),
    file('gone', 'x'),
  ],
  [file('.wh.gone'), file('top', Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * 7919) % 251)))],
];

let store: TestImages;
let lines: Progress[];
const noAuth = { credentials: undefined, signal: new AbortController().signal };
const user = { credentials: { username: 'user', password: 'secret' }, signal: noAuth.signal };
const progress = (line: Progress): void => void lines.push(line);
const statuses = (): (string | undefined)[] => lines.map((line) => line.status);

beforeEach(async () => {
  store = await testImages();
  lines = [];
});
afterEach(() => store.dispose());

const forget = async (): Promise<void> => {
  for (const { id } of await store.images.list())
    await store.images.remove(id, { force: true, prune: true, users: () => [] });
};

describeHere('a registry without TLS on loopback', () => {
  let registry: TestRegistry;
  beforeAll(async () => {
    registry = await startRegistry();
  });
  afterAll(() => registry.close());

  it('takes a push and gives the same image back, byte for byte', async () => {
    const name = `${registry.domain}/a/b:1`;
    const { image } = await load(store, dockerArchive(LAYERS, { names: [name] }));
    await store.images.push(name, { ...noAuth, progress });
    const digest = lines.map((line) => (line.aux as { Digest?: string } | undefined)?.Digest).find(Boolean)!;
    expect((await store.images.get(name)).digests).toEqual([`${registry.domain}/a/b@${digest}`]);
    expect(statuses()).toContain('Pushed');
    expect(store.events.at(-1)).toMatchObject({
      action: 'push',
      id: name,
      attributes: { name: `${registry.domain}/a/b` },
    });
    await forget();
    lines = [];
    const [id] = await store.images.pull(name, { ...noAuth, progress });
    expect(id).toBe(image.id);
    const pulled = await store.images.get(name);
    expect(pulled.diffIds).toEqual(image.diffIds);
    expect(pulled.digests).toEqual([`${registry.domain}/a/b@${digest}`]);
    expect(statuses().slice(-2)).toEqual([`Digest: ${digest}`, `Status: Downloaded newer image for ${name}`]);
    lines = [];
    await store.images.pull(name, { ...noAuth, progress });
    expect(statuses().at(-1)).toBe(`Status: Image is up to date for ${name}`);
    lines = [];
    await store.images.tag(name, `${registry.domain}/a/b:2`);
    await store.images.push(`${registry.domain}/a/b:2`, { ...noAuth, progress });
    expect(statuses().filter((status) => status === 'Layer already exists')).toHaveLength(2);
    expect(lines.at(-1)).toMatchObject({ aux: { Tag: '2', Digest: digest } });
    for (const reference of [`${registry.domain}/a/b@${digest}`, `${registry.domain}/a/b:2`]) {
      await forget();
      expect(await store.images.pull(reference, { ...noAuth, progress })).toEqual([id]);
    }
  });

  it('pushes what came as gzip or zstd by the very same blobs', async () => {
    for (const [tag, pack] of [
      ['gz', (tar: Buffer) => gzipSync(tar)],
      ['zst', (tar: Buffer) => execFileSync('zstd', ['-c'], { input: tar })],
    ] as const) {
      const name = `${registry.domain}/packed:${tag}`;
      const { image } = await load(store, dockerArchive(LAYERS, { names: [name], pack }));
      await store.images.push(name, { ...noAuth, progress });
      const raw = await (
        await fetch(`http://${registry.domain}/v2/packed/manifests/${tag}`, {
          headers: {
            Accept:
              'application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json',
          },
        })
      ).json();
      expect((raw as { layers: { digest: string }[] }).layers.map(({ digest }) => digest)).toEqual(
        LAYERS.map((layer) => sha256(pack(tarOf(layer)))),
      );
      await forget();
      expect(await store.images.pull(name, { ...noAuth, progress })).toEqual([image.id]);
      await forget();
    }
  });

  it('takes layers over from a repository of the registry that has them', async () => {
    const name = `${registry.domain}/first:1`;
    await load(store, dockerArchive(LAYERS, { names: [name] }));
    await store.images.push(name, { ...noAuth, progress });
    lines = [];
    await store.images.tag(name, `${registry.domain}/second:1`);
    await store.images.push(`${registry.domain}/second:1`, { ...noAuth, progress });
    expect(statuses().filter((status) => status === 'Mounted from first')).toHaveLength(2);
    await forget();
    await expect(
      store.images.pull(`${registry.domain}/second:1`, { ...noAuth, progress }),
    ).resolves.toHaveLength(1);
  });

  it('pulls and pushes all tags', async () => {
    await load(
      store,
      dockerArchive(LAYERS, { names: ['x', 'y'].map((tag) => `${registry.domain}/all:${tag}`) }),
    );
    await store.images.push(`${registry.domain}/all`, { ...noAuth, progress, allTags: true });
    await forget();
    await store.images.pull(`${registry.domain}/all`, { ...noAuth, progress, allTags: true });
    expect((await store.images.list())[0]!.tags).toEqual(
      ['x', 'y'].map((tag) => `${registry.domain}/all:${tag}`),
    );
  });

  it('says in docker’s words what is not there', async () => {
    await expect(
      store.images.pull(`${registry.domain}/none:1`, { ...noAuth, progress }),
    ).rejects.toMatchObject({
      code: 'ERR_IMAGE_NOT_FOUND',
      message: `manifest for ${registry.domain}/none:1 not found: manifest unknown: manifest unknown`,
    });
    await expect(store.images.push(`${registry.domain}/none:1`, { ...noAuth, progress })).rejects.toThrow(
      'An image does not exist locally with the tag',
    );
    expect(await store.images.list()).toEqual([]);
  });

  it('has an index resolved for this host, and for the platform that is asked for', async () => {
    const put = async (path: string, type: string, body: string): Promise<string> => {
      const answer = await fetch(`http://${registry.domain}/v2/multi/${path}`, {
        method: 'PUT',
        headers: { 'Content-Type': type },
        body,
      });
      expect(answer.status).toBe(201);
      return sha256(body);
    };
    const manifests: object[] = [];
    const arch = process.arch === 'x64' ? 'amd64' : process.arch;
    for (const [os, architecture] of [
      ['darwin', arch],
      ['linux', 's390x'],
      ['linux', arch],
    ]) {
      await store.images.importRoot(
        Readable.from([tarOf([file(os!, architecture)])]),
        {
          reference: `${registry.domain}/multi:${os}-${architecture}`,
          platform: `${os}/${architecture}`,
          changes: [],
        },
        () => {},
      );
      await store.images.push(`${registry.domain}/multi:${os}-${architecture}`, { ...noAuth, progress });
      const { Digest, Size } = lines.at(-1)!.aux as { Digest: string; Size: number };
      manifests.push({
        mediaType: 'application/vnd.docker.distribution.manifest.v2+json',
        digest: Digest,
        size: Size,
        platform: { os, architecture },
      });
    }
    const type = 'application/vnd.docker.distribution.manifest.list.v2+json';
    const digest = await put(
      'manifests/all',
      type,
      JSON.stringify({ schemaVersion: 2, mediaType: type, manifests }),
    );
    await forget();
    await store.images.pull(`${registry.domain}/multi:all`, { ...noAuth, progress });
    const image = await store.images.get(`${registry.domain}/multi:all`);
    expect(image).toMatchObject({
      os: process.platform,
      architecture: arch,
      digests: [`${registry.domain}/multi@${digest}`],
    });
    for (const platform of ['linux/s390x', `darwin/${arch}`]) {
      await store.images.pull(`${registry.domain}/multi:all`, { ...noAuth, progress, platform });
      const { os, architecture } = await store.images.get(`${registry.domain}/multi:all`);
      expect(`${os}/${architecture}`).toBe(platform);
    }
    await expect(
      store.images.pull(`${registry.domain}/multi:all`, { ...noAuth, progress, platform: 'windows/arm64' }),
    ).rejects.toThrow('no matching manifest for windows/arm64 in the manifest list entries');
    expect(await store.images.describeRemote(`${registry.domain}/multi:all`, noAuth)).toMatchObject({
      Descriptor: { digest },
      Platforms: [{ os: 'darwin' }, { architecture: 's390x' }, {}],
    });
  });

  it('skopeo reads what we push, and we pull what skopeo pushes', async () => {
    const name = `${registry.domain}/ours:1`;
    const { image } = await load(store, dockerArchive(LAYERS, { names: [name], config: { Cmd: ['x'] } }));
    await store.images.push(name, { ...noAuth, progress });
    const { stdout } = await run('skopeo', ['inspect', '--config', '--tls-verify=false', `docker://${name}`]);
    expect(JSON.parse(stdout)).toMatchObject({ config: { Cmd: ['x'] }, rootfs: { diff_ids: image.diffIds } });
    await run('skopeo', [
      'copy',
      '--format',
      'oci',
      '--src-tls-verify=false',
      '--dest-tls-verify=false',
      `docker://${name}`,
      `docker://${registry.domain}/theirs:1`,
    ]);
    await forget();
    await store.images.pull(`${registry.domain}/theirs:1`, { ...noAuth, progress });
    expect((await store.images.list())[0]!.diffIds).toEqual(image.diffIds);
  });
});

describeHere('a registry with TLS and basic authentication', () => {
  let registry: TestRegistry;
  beforeAll(async () => {
    registry = await startRegistry({ tls: true, auth: 'basic' });
  });
  afterAll(() => registry.close());

  it('is trusted by its certificate only, and takes the right password only', async () => {
    const name = `${registry.domain}/private:1`;
    await load(store, dockerArchive(LAYERS, { names: [name] }));
    const trusting = new Registries(store.images.library, systemClock, {
      mirrors: [],
      insecure: [],
      certsDir: registry.certsDir,
    });
    await trusting.push(name, { ...user, progress });
    await expect(trusting.push(name, { ...noAuth, progress })).rejects.toMatchObject({
      code: 'ERR_UNAUTHORIZED',
      message: expect.stringContaining('push access denied'),
    });
    await expect(
      trusting.login(registry.domain, { username: 'user', password: 'secret' }),
    ).resolves.toBeUndefined();
    await expect(
      trusting.login(registry.domain, { username: 'user', password: 'wrong' }),
    ).rejects.toMatchObject({ code: 'ERR_UNAUTHORIZED' });
    await forget();
    await expect(trusting.pull(name, { ...noAuth, progress })).rejects.toThrow('pull access denied for');
    await expect(trusting.pull(name, { ...user, progress })).resolves.toHaveLength(1);
    // Loopback registries need no trust, as in dockerd; a stranger's certificate is not enough for any other.
    const { Transport } = await import('../../daemon/image/registry/transport.ts');
    const strict = new Transport({ rejectUnauthorized: true });
    await expect(
      strict.send({ method: 'GET', url: new URL(`https://${registry.domain}/v2/`) }),
    ).rejects.toMatchObject({ code: 'ERR_REGISTRY_UNREACHABLE' });
    strict.close();
  });
});

describeHere('a registry with tokens', () => {
  let registry: TestRegistry;
  beforeAll(async () => {
    registry = await startRegistry({ auth: 'token' });
  });
  afterAll(() => registry.close());

  it('gives them for the scope, to the right user', async () => {
    const name = `${registry.domain}/private:1`;
    const { image } = await load(store, dockerArchive(LAYERS, { names: [name] }));
    await expect(store.images.push(name, { ...noAuth, progress })).rejects.toMatchObject({
      code: 'ERR_UNAUTHORIZED',
    });
    await store.images.push(name, { ...user, progress });
    await forget();
    await expect(store.images.pull(name, { ...noAuth, progress })).rejects.toThrow('pull access denied');
    await expect(store.images.pull(name, { ...user, progress })).resolves.toEqual([image.id]);
    const wrong = { ...user, credentials: { username: 'user', password: 'wrong' }, progress };
    await expect(store.images.pull(name, wrong)).rejects.toThrow('incorrect username or password');
    await expect(
      store.images.login(registry.domain, { username: 'user', password: 'secret' }),
    ).resolves.toBeUndefined();
    await expect(
      store.images.login(registry.domain, { username: 'user', password: 'wrong' }),
    ).rejects.toMatchObject({ code: 'ERR_UNAUTHORIZED' });
  });
});

const TAR = tarOf([file('f', Buffer.alloc(500_000, 3))]);
const CONFIG = JSON.stringify({
  os: process.platform,
  architecture: 'amd64',
  rootfs: { type: 'layers', diff_ids: [sha256(TAR)] },
});
const TYPE = 'application/vnd.oci.image.manifest.v1+json';
const manifestOf = (fields: object = {}): string =>
  JSON.stringify({
    schemaVersion: 2,
    mediaType: TYPE,
    config: { digest: sha256(CONFIG), size: CONFIG.length },
    layers: [{ digest: sha256(TAR), size: TAR.length }],
    ...fields,
  });

/** Serves an honest image, but for what `override` takes over. */
function honest(
  override: (path: string, response: ServerResponse, range: string | undefined) => boolean,
  manifest = manifestOf(),
): RequestListener {
  return (request, response) => {
    const path = request.url!;
    if (override(path, response, request.headers.range)) return;
    if (path.includes('/manifests/')) response.setHeader('Content-Type', TYPE).end(manifest);
    else if (path.endsWith(sha256(CONFIG))) response.end(CONFIG);
    else if (path.endsWith(sha256(TAR))) response.end(TAR);
    else response.writeHead(404).end();
  };
}

const isLayer = (path: string): boolean => path.endsWith(`blobs/${sha256(TAR)}`);

describeHere('a registry that misbehaves', () => {
  const endless = (response: ServerResponse): true => {
    const more = (): void => {
      while (response.write(Buffer.alloc(65_536)));
    };
    response.on('drain', more);
    more();
    return true;
  };
  it.each<[what: string, listener: RequestListener, message: string]>([
    [
      'sends another blob',
      honest((path, response) => isLayer(path) && !!response.end(Buffer.alloc(TAR.length, 9))),
      'instead of',
    ],
    [
      'sends a blob without end',
      honest((path, response) => isLayer(path) && endless(response)),
      'is longer than the',
    ],
    [
      'sends another configuration',
      honest((path, response) => path.endsWith(sha256(CONFIG)) && !!response.end('{}')),
      'instead of',
    ],
    [
      'sends a manifest without end',
      honest(
        (path, response) => path.includes('/manifests/') && endless(response.setHeader('Content-Type', TYPE)),
      ),
      'more than 4194304 bytes',
    ],
    [
      'states another digest',
      honest(
        (path, response) =>
          path.includes('/manifests/') &&
          !!response
            .setHeader('Docker-Content-Digest', sha256('x'))
            .setHeader('Content-Type', TYPE)
            .end(manifestOf()),
      ),
      'manifest verification failed',
    ],
    [
      'sends HTML',
      honest(
        (path, response) =>
          path.includes('/manifests/') && !!response.setHeader('Content-Type', 'text/html').end('<html>'),
      ),
      'its manifest is not JSON',
    ],
    [
      'sends an unknown media type',
      honest(() => false, manifestOf({ mediaType: 'application/x' })),
      'media type "application/x"',
    ],
    [
      'sends schema 1',
      honest(() => false, JSON.stringify({ schemaVersion: 1, name: 'x' })),
      'schema version 1',
    ],
    [
      'names a digest that leads out',
      honest(() => false, manifestOf({ layers: [{ digest: 'sha256:../../../../etc/passwd', size: 1 }] })),
      'names the digest',
    ],
    [
      'names a negative size',
      honest(() => false, manifestOf({ layers: [{ digest: sha256(TAR), size: -1 }] })),
      'has the size -1',
    ],
    [
      'names more layers than the configuration',
      honest(() => false, manifestOf({ layers: Array(2).fill({ digest: sha256(TAR), size: TAR.length }) })),
      '2 layers and 1 diff ids',
    ],
    [
      'redirects in circles',
      honest((path, response) => isLayer(path) && !!response.writeHead(307, { Location: path }).end()),
      'redirects in circles',
    ],
    [
      'redirects to a file',
      honest(
        (path, response) =>
          isLayer(path) && !!response.writeHead(307, { Location: 'file:///etc/passwd' }).end(),
      ),
      'which is not followed',
    ],
    [
      'asks for a token at a file',
      honest(
        (_path, response) =>
          !!response.writeHead(401, { 'WWW-Authenticate': 'Bearer realm="file:///etc/passwd"' }).end(),
      ),
      'bad token realm',
    ],
    [
      'sends a token without end',
      (request, response) =>
        request.url!.startsWith('/token')
          ? endless(response)
          : response
              .writeHead(401, { 'WWW-Authenticate': `Bearer realm="http://${request.headers.host}/token"` })
              .end(),
      'has more than',
    ],
    ['refuses without end', honest((_path, response) => endless(response.writeHead(403))), 'has more than'],
    [
      'asks for a name without end',
      honest((_path, response) =>
        endless(response.writeHead(401, { 'WWW-Authenticate': 'Basic realm="x"' })),
      ),
      'more than',
    ],
    [
      'redirects with a body without end',
      honest(
        (path, response) => isLayer(path) && endless(response.writeHead(307, { Location: '/v2/elsewhere' })),
      ),
      'not found',
    ],
    [
      'refuses with what a terminal obeys',
      honest(
        (_path, response) =>
          !!response
            .writeHead(403)
            .end(JSON.stringify({ errors: [{ code: 'DENIED', message: '\u001b[2J\u009b31mpaid' }] })),
      ),
      'denied: \\x1b[2J\\x9b31mpaid',
    ],
    [
      'always says 401',
      honest((_path, response) => !!response.writeHead(401, { 'WWW-Authenticate': 'Basic realm="x"' }).end()),
      'pull access denied',
    ],
  ])('that %s is refused, and nothing is kept', async (_what, listener, message) => {
    const registry = await fakeRegistry(listener);
    try {
      await expect(store.images.pull(`${registry.domain}/x:1`, { ...noAuth, progress })).rejects.toThrow(
        message,
      );
      expect(await store.images.list()).toEqual([]);
      expect(readdirSync(`${store.dataRoot}/overlay2/layers`)).toEqual([]);
      expect(readdirSync(`${store.dataRoot}/image/content/sha256`)).toEqual([]);
    } finally {
      await registry.close();
    }
  });

  it('that lists its tags on many pages is asked for each, and given up when they never end', async () => {
    const pages = (count: number): RequestListener => {
      let page = 0;
      return honest((path, response) => {
        if (!path.includes('/tags/list')) return false;
        page++;
        if (page < count) response.setHeader('Link', `</v2/x/tags/list?n=1&last=${page}>; rel="next"`);
        return !!response.end(JSON.stringify({ name: 'x', tags: [`t${page}`] }));
      });
    };
    const registry = await fakeRegistry(pages(3));
    const name = `${registry.domain}/x`;
    await store.images.pull(name, { ...noAuth, progress, allTags: true });
    expect((await store.images.list())[0]!.tags).toEqual([`${name}:t1`, `${name}:t2`, `${name}:t3`]);
    await registry.close();
    const endlessly = await fakeRegistry(pages(Number.POSITIVE_INFINITY));
    await expect(
      store.images.pull(`${endlessly.domain}/x`, { ...noAuth, progress, allTags: true }),
    ).rejects.toThrow('on more than 1000 pages');
    await endlessly.close();
  });

  it('that sends a manifest byte by byte is given up after two minutes', async () => {
    const registry = await fakeRegistry(
      honest((path, response) => path.includes('/manifests/') && response.write('{')),
    );
    vi.useFakeTimers({ toFake: ['setTimeout'] });
    try {
      const pulled = store.images.pull(`${registry.domain}/x:1`, { ...noAuth, progress });
      const refused = expect(pulled).rejects.toThrow('did not end within 120 seconds');
      // The timer is there once the answer has begun.
      while (vi.getTimerCount() === 0) await new Promise((resolve) => setImmediate(resolve));
      vi.advanceTimersByTime(120_000);
      await refused;
    } finally {
      vi.useRealTimers();
      await registry.close();
    }
  });

  it('that sends us elsewhere does not have its password told there', async () => {
    const told: (string | undefined)[] = [];
    const elsewhere = await fakeRegistry((request, response) => {
      told.push(request.headers.authorization);
      response.writeHead(202, { Location: request.url }).end(request.method === 'GET' ? TAR : undefined);
    });
    const registry = await fakeRegistry((request, response) => {
      const path = request.url!;
      if (request.headers.authorization === undefined)
        response.writeHead(401, { 'WWW-Authenticate': 'Basic realm="x"' }).end();
      else if (request.method === 'POST')
        response.writeHead(202, { Location: `http://${elsewhere.domain}/upload` }).end();
      else if (isLayer(path) && request.method === 'GET')
        response.writeHead(307, { Location: `http://${elsewhere.domain}${path}` }).end();
      else honest(() => false)(request, response);
    });
    await store.images.pull(`${registry.domain}/x:1`, { ...user, progress }).catch(() => {});
    await load(store, dockerArchive(LAYERS, { names: [`${registry.domain}/y:1`] }));
    await store.images.push(`${registry.domain}/y:1`, { ...user, progress }).catch(() => {});
    expect(told.length).toBeGreaterThan(1);
    expect(new Set(told)).toEqual(new Set([undefined]));
    await registry.close();
    await elsewhere.close();
  });

  it('that breaks off in the middle is asked for the rest', async () => {
    const ranges: (string | undefined)[] = [];
    const registry = await fakeRegistry(
      honest((path, response, range) => {
        if (!isLayer(path)) return false;
        ranges.push(range);
        const from = Number(/bytes=(\d+)-/.exec(range ?? '')?.[1] ?? 0);
        response.writeHead(range ? 206 : 200, { 'Content-Length': TAR.length - from });
        if (from >= 300_000) response.end(TAR.subarray(from));
        else response.write(TAR.subarray(from, from + 150_000), () => response.destroy());
        return true;
      }),
    );
    try {
      await store.images.pull(`${registry.domain}/x:1`, { ...noAuth, progress });
      // How much of what was written before the connection broke has come is the kernel's affair.
      expect(ranges[0]).toBeUndefined();
      const offsets = ranges.slice(1).map((range) => Number(/^bytes=(\d+)-$/.exec(range!)![1]));
      expect(offsets.length).toBeGreaterThan(0);
      expect(offsets).toEqual([...new Set(offsets)].sort((a, b) => a - b));
      expect(statuses()).toContain('Retrying in 1 second');
    } finally {
      await registry.close();
    }
  });

  it('that is left by its client goes on in the next pull where it was', async () => {
    const gone = new AbortController();
    const ranges: (string | undefined)[] = [];
    const registry = await fakeRegistry(
      honest((path, response, range) => {
        if (!isLayer(path)) return false;
        ranges.push(range);
        const from = Number(/bytes=(\d+)-/.exec(range ?? '')?.[1] ?? 0);
        response.writeHead(range ? 206 : 200, { 'Content-Length': TAR.length - from });
        if (from > 0) response.end(TAR.subarray(from));
        else response.write(TAR.subarray(0, 200_000));
        return true;
      }),
    );
    try {
      const first = store.images.pull(`${registry.domain}/x:1`, {
        credentials: undefined,
        signal: gone.signal,
        progress: (line) => {
          if ((line.progressDetail?.current ?? 0) > 0) gone.abort();
        },
      });
      await expect(first).rejects.toBeDefined();
      await store.images.pull(`${registry.domain}/x:1`, { ...noAuth, progress });
      expect(ranges[0]).toBeUndefined();
      expect(ranges[1]).toMatch(/^bytes=[1-9]\d*-$/);
      expect(await store.images.list()).toHaveLength(1);
    } finally {
      await registry.close();
    }
  });

  it('that sends all again instead of the rest is taken at its word', async () => {
    let attempts = 0;
    const registry = await fakeRegistry(
      honest((path, response) => {
        if (!isLayer(path) || attempts++ > 0) return false;
        response
          .writeHead(200, { 'Content-Length': TAR.length })
          .write(TAR.subarray(0, 100_000), () => response.destroy());
        return true;
      }),
    );
    try {
      await expect(
        store.images.pull(`${registry.domain}/x:1`, { ...noAuth, progress }),
      ).resolves.toHaveLength(1);
    } finally {
      await registry.close();
    }
  });
});

describeHere('mirrors', () => {
  it('are asked first for images of docker.io, and passed over when they have it not', async () => {
    const asked: string[] = [];
    const empty = await fakeRegistry((request, response) => {
      asked.push(`empty ${request.url}`);
      response.writeHead(404).end();
    });
    const full = await fakeRegistry(
      honest((path) => {
        asked.push(path.replace(/sha256:.*/, ''));
        return false;
      }),
    );
    try {
      const mirrors = [`http://${empty.domain}`, `http://${full.domain}`];
      const registries = new Registries(store.images.library, systemClock, {
        mirrors,
        insecure: [],
        certsDir: '/nonexistent',
      });
      await registries.pull('alpine:1', { ...noAuth, progress });
      expect((await store.images.list())[0]!.tags).toEqual(['alpine:1']);
      expect(asked.slice(0, 2)).toEqual([
        'empty /v2/library/alpine/manifests/1',
        '/v2/library/alpine/manifests/1',
      ]);
    } finally {
      await empty.close();
      await full.close();
    }
  });
});
