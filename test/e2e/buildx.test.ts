import { execFileSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type BuildAnswer, type BuildRequest, Buildx, fieldsOf, pb, textOf } from '../support/e2e/buildx.ts';
import { type Docker, IMAGE, until } from '../support/e2e/daemon.ts';
import { describeE2e, sharedDocker, uniqueName } from '../support/e2e/session.ts';
import { serveGit } from '../support/git-server.ts';
import { startRegistry } from '../support/registry.ts';

describeE2e('BuildKit’s control API, as buildx speaks it with the docker driver', () => {
  let docker: Docker;
  let buildx: Buildx;
  const ok = (...args: string[]): Promise<string> => docker.ok(args);
  const build = (
    dockerfile: string,
    more: Omit<BuildRequest, 'folders'> & {
      files?: Record<string, string>;
      folders?: BuildRequest['folders'];
    } = {},
  ): Promise<BuildAnswer> => {
    const { files = {}, folders = {}, ...rest } = more;
    return buildx.build({
      folders: { dockerfile: { Dockerfile: dockerfile }, context: files, ...folders },
      ...rest,
    });
  };

  beforeAll(async () => {
    docker = sharedDocker();
    buildx = await Buildx.connect(docker.address.socketPath);
  });
  afterAll(() => buildx.close());

  it('tells of one worker, of this machine’s platform, and of the daemon', async () => {
    const workers = await buildx.unary('/moby.buildkit.v1.Control/ListWorkers');
    expect(workers.get(1)).toHaveLength(1);
    const [platform] = fieldsOf(workers.get(1)![0] as Buffer).get(3)!;
    expect(textOf(fieldsOf(platform as Buffer), 2)).toBe('linux');
    const info = await buildx.unary('/moby.buildkit.v1.Control/Info');
    expect(textOf(fieldsOf(info.get(1)![0] as Buffer), 1)).toBe('drydock');
    await expect(buildx.unary('/moby.buildkit.v1.Control/ListenBuildHistory')).rejects.toMatchObject({
      status: 12,
    });
  });

  it('builds by the gateway, shows the steps and names the image', async () => {
    const tag = uniqueName('buildx');
    const { response, steps, output } = await build(
      `FROM ${IMAGE} AS one\nARG WHO\nRUN echo for $WHO\nFROM ${IMAGE} AS unused\nRUN false\nFROM one\nCOPY dir /d\nCOPY --from=more m /m\nLABEL own=1\n`,
      {
        attributes: {
          'build-arg:WHO': 'you',
          'label:given': '2',
          'context:more': 'local:more',
          'frontend.caps': 'moby.buildkit.frontend.contexts+forward',
        },
        files: { '.dockerignore': 'left', 'dir/': '', 'dir/f': 'from the context', left: '' },
        folders: { more: { m: 'named' } },
        exporter: { type: 'moby', attributes: { name: tag } },
      },
    );
    expect(output).toBe('for you\n');
    expect([...steps.keys()]).toEqual(
      expect.arrayContaining([
        '[one 2/2] RUN echo for $WHO',
        '[stage-2 2/3] COPY dir /d',
        '[context more] load from client',
        'exporting to image',
      ]),
    );
    expect([...steps.keys()].join()).not.toContain('RUN false');
    expect(response['image.name']).toBe(`docker.io/library/${tag}:latest`);
    expect(response['containerimage.digest']).toBe(await ok('image', 'inspect', '--format', '{{.Id}}', tag));
    expect(
      await ok('image', 'inspect', '--format', '{{.Config.Labels.given}}{{.Config.Labels.own}}', tag),
    ).toBe('21');
    expect(await ok('run', '--rm', tag, 'cat', '/d/f', '/m')).toBe('from the contextnamed');
    await ok('rmi', tag);
  });

  it('has the hostname of BuildKit in its steps, or what the client wishes', async () => {
    const dockerfile = `FROM ${IMAGE}\nRUN hostname\n`;
    expect((await build(dockerfile)).output).toBe('buildkitsandbox\n');
    const attributes = { 'build-arg:BUILDKIT_SANDBOX_HOSTNAME': 'chosen', 'no-cache': '' };
    expect((await build(dockerfile, { attributes })).output).toBe('chosen\n');
  });

  it('takes what was done before from the cache', async () => {
    const dockerfile = `FROM ${IMAGE}\nRUN date +%N > /${uniqueName('when')}\n`;
    const [first, second] = [await build(dockerfile), await build(dockerfile)];
    expect(second.response).toEqual(first.response);
    expect([...second.steps].filter(([, step]) => step.cached)).toHaveLength(1);
    expect((await build(dockerfile, { attributes: { 'no-cache': '' } })).response).not.toEqual(
      first.response,
    );
  });

  it('gives the client’s secrets and ssh agents to a step, through a session inside of the connection', async () => {
    const heard = (said: string): string =>
      `HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n${said.slice(0, 4)}\n`;
    const { output } = await build(
      `FROM ${IMAGE}\nRUN --mount=type=secret,id=token --mount=type=ssh,required cat /run/secrets/token && curl -s --unix-socket $SSH_AUTH_SOCK http://agent/\n`,
      {
        secrets: { token: 'hush\n' },
        agents: { default: heard },
        inBand: true,
        attributes: { 'no-cache': '' },
      },
    );
    expect(output).toBe('hush\nGET \n');
  });

  it('takes context and Dockerfile from git by http, a branch and a folder of it too, and ADD of a tag', async () => {
    const git = await serveGit(`mkdir sub && echo old >sub/f && git add . && git commit -qm 1 && git tag v1 &&
      git checkout -qb other && echo new >sub/f && printf 'FROM scratch\nCOPY f /f\n' >sub/Dockerfile &&
      git add . && git commit -qm 2 && git checkout -q main`);
    try {
      for (const kind of ['smart', 'plain']) {
        const repository = `${git.url}/${kind}/r.git`;
        const readBack = async (dockerfile: string, attributes: Record<string, string>): Promise<string> => {
          let text = '';
          await build(dockerfile, {
            attributes: { ...attributes, 'no-cache': '' },
            inspect: async (call, ref) => {
              text = textOf(await call('ReadFile', pb([1, ref], [2, '/f'])), 1);
            },
          });
          return text;
        };
        expect(await readBack('', { context: `${repository}#other:sub` })).toBe('new\n');
        expect(await readBack(`FROM scratch\nADD ${repository}#v1:sub /\n`, {})).toBe('old\n');
        await expect(build('', { attributes: { context: `${repository}#none` } })).rejects.toThrow(
          `failed to fetch remote ${repository}`,
        );
      }
    } finally {
      git.close();
    }
  });

  it('lets the client look into the result: files, parts of them, folders, links', async () => {
    const files = { 'd/': '', 'd/a': '1', 'd/b': '2', f: 'content' };
    const dockerfile = `FROM ${IMAGE}\nCOPY . /look\nRUN ln -s /etc/../look/d /look/link; chmod 640 /look/f; ln -s ../../../../../look/f /look/up\n`;
    const seen: unknown[] = [];
    await build(dockerfile, {
      files,
      inspect: async (call, ref) => {
        const read = async (path: string, ...range: [id: number, value: number][]): Promise<string> =>
          textOf(await call('ReadFile', pb([1, ref], [2, path], [3, pb(...range)])), 1);
        const described = (stat: Buffer): string => {
          const fields = fieldsOf(stat);
          return `${textOf(fields, 1)} ${Number(fields.get(2)![0]).toString(8)} ${textOf(fields, 7)}`;
        };
        seen.push(await read('/look/f'), await read('look/f', [1, 2], [2, 3]), await read('/look/up'));
        const list = async (path: string, pattern = ''): Promise<string[]> =>
          ((await call('ReadDir', pb([1, ref], [2, path], [3, pattern]))).get(1) ?? []).map((entry) =>
            described(entry as Buffer),
          );
        seen.push(await list('/look'), await list('/look/link', 'b*'));
        const [stat] = (await call('StatFile', pb([1, ref], [2, '/look/f']))).get(1)!;
        seen.push(described(stat as Buffer));
        for (const [method, path] of [
          ['ReadFile', '/look'],
          ['ReadFile', '/no'],
          ['StatFile', '/no'],
        ] as const)
          await expect(call(method, pb([1, ref], [2, path]))).rejects.toThrow('no such file or directory');
      },
    });
    const folder = (2 ** 31 + 0o755).toString(8);
    expect(seen).toEqual([
      'content',
      'nte',
      'content',
      [
        `d ${folder} `,
        'f 640 ',
        `link ${(2 ** 27 + 0o777).toString(8)} /etc/../look/d`,
        `up ${(2 ** 27 + 0o777).toString(8)} ../../../../../look/f`,
      ],
      ['b 644 '],
      'f 640 ',
    ]);
  });

  it('takes steps from an image of a registry that --cache-from names', async () => {
    const registry = await startRegistry();
    try {
      const name = `${registry.domain}/cache:1`;
      const dockerfile = 'FROM scratch\nCOPY f /f\nLABEL a=b\nCOPY g /g\n';
      const files = { f: uniqueName('cached'), g: '' };
      const exporter = { type: 'moby', attributes: { name } };
      const first = await build(dockerfile, { files, exporter, cacheExports: ['inline'] });
      await ok('push', '-q', name);
      await ok('rmi', name);
      await ok('builder', 'prune', '-af');
      const attributes = { 'cache-from': name };
      const second = await build(dockerfile, { files, exporter, attributes });
      expect(second.response).toEqual(first.response);
      expect([...second.steps].filter(([, step]) => step.cached)).toHaveLength(2);
      await ok('rmi', name);
      // A cache that is not there yet is none.
      await build('FROM scratch\nLABEL a=b\n', { attributes: { 'cache-from': `${registry.domain}/none:1` } });
    } finally {
      await registry.close();
    }
  });

  it('sends the result to the client as an archive, which can be loaded', async () => {
    const dockerfile = 'FROM scratch\nCOPY f /\n';
    const files = { f: 'x' };
    const tar = await build(dockerfile, { files, exporter: { type: 'tar', attributes: {} } });
    expect(execFileSync('tar', ['-tf', '-'], { input: tar.received, encoding: 'utf8' })).toBe('f\n');
    const oci = await build(dockerfile, { files, exporter: { type: 'oci', attributes: { name: 'a:b' } } });
    const listing = execFileSync('tar', ['-tf', '-'], { input: oci.received, encoding: 'utf8' });
    expect(listing).toMatch(/^index\.json$/m);
    expect(listing).toMatch(/^oci-layout$/m);
    for (const type of ['docker', 'oci']) {
      const name = `${uniqueName('sent')}:1`;
      const { received } = await build(dockerfile, { files, exporter: { type, attributes: { name } } });
      expect(await docker.ok(['load', '-q'], { input: received })).toBe(`Loaded image: ${name}`);
      await ok('rmi', name);
    }
  });

  it.each<[what: string, dockerfile: string, more: Omit<BuildRequest, 'folders'>, message: string]>([
    ['a command that fails', `FROM ${IMAGE}\nRUN exit 7`, {}, 'did not complete successfully: exit code: 7'],
    ['a bad Dockerfile', 'WHAT', {}, 'unknown instruction: WHAT'],
    ['another language', '# syntax=a/b:1\nFROM scratch', {}, "the frontend a/b:1 can't be run"],
    [
      'a secret that is not there',
      `FROM ${IMAGE}\nRUN --mount=type=secret,id=no,required x`,
      {},
      'secret no: not found',
    ],
    [
      'an insecure build',
      'FROM scratch',
      { entitlements: ['security.insecure'] },
      'security.insecure is not allowed',
    ],
    [
      'a cache elsewhere',
      'FROM scratch',
      { cacheExports: ['local'] },
      'unknown cache exporter: "local": --cache-to type=local is not supported',
    ],
    [
      'an unknown output',
      'FROM scratch',
      { exporter: { type: 'what', attributes: {} } },
      'exporter "what" could not be found: --output type=what is not supported',
    ],
    [
      'several platforms',
      'FROM scratch',
      { attributes: { platform: 'linux/amd64,linux/arm64' } },
      'multiple platforms',
    ],
    [
      'an unknown option',
      'FROM scratch',
      { attributes: { whatever: '1' } },
      'the build option whatever is not known',
    ],
    [
      'a listing',
      'FROM scratch',
      { attributes: { requestid: 'frontend.targets' } },
      'unsupported request frontend.targets',
    ],
  ])('%s is refused clearly', async (_what, dockerfile, more, message) => {
    await expect(build(dockerfile, more)).rejects.toThrow(message);
    expect(await ok('ps', '-aq')).toBe('');
  });

  it('grants the network of the host only when the client does', async () => {
    const dockerfile = `FROM ${IMAGE}\nRUN --network=host ls /sys/class/net\nRUN --network=none ls /sys/class/net\n`;
    await expect(build(dockerfile)).rejects.toThrow('network.host is not allowed');
    const { output } = await build(dockerfile, {
      entitlements: ['network.host'],
      attributes: { 'no-cache': '' },
    });
    expect(output.endsWith('lo\n')).toBe(true);
    expect(output.trim().split('\n').length).toBeGreaterThan(1);
  });

  it('that is cancelled leaves no container and no file behind', async () => {
    const stop = new AbortController();
    const building = build(`FROM ${IMAGE}\nRUN sleep 1000\n`, { signal: stop.signal });
    const failed = expect(building).rejects.toThrow();
    await until(async () => (await ok('ps', '-q')) !== '', 'the container of RUN is there');
    stop.abort();
    await failed;
    await until(async () => (await ok('ps', '-aq')) === '', 'the container of RUN is gone');
    await until(
      () => readdirSync(join(docker.address.dataRoot, 'build')).length === 0,
      'the context is gone',
    );
  });

  it('lists the cache, and prunes what a filter names', async () => {
    const id = uniqueName('pruned');
    await build(
      `FROM ${IMAGE}\nRUN --mount=type=cache,id=${id},target=/c head -c 5000 /dev/zero > /c/f; head -c 70000 /dev/zero > /${id}\n`,
    );
    const usage = async (): Promise<string[]> => {
      const records = (await buildx.unary('/moby.buildkit.v1.Control/DiskUsage')).get(1) ?? [];
      return records.map((record) => {
        const fields = fieldsOf(record as Buffer);
        return `${textOf(fields, 10)} ${fields.get(4)?.[0] ?? 0} ${textOf(fields, 9)}`;
      });
    };
    const mount = `exec.cachemount 5000 cached mount ${id}`;
    expect(await usage()).toEqual(
      expect.arrayContaining([mount, expect.stringMatching(new RegExp(`^regular 70000 .*${id}$`))]),
    );
    expect(
      JSON.parse((await docker.api('GET', '/v1.47/system/df?type=build-cache')).body).BuildCache,
    ).toContainEqual(
      expect.objectContaining({
        Description: `cached mount ${id}`,
        Size: 5000,
        Type: 'exec.cachemount',
        InUse: false,
      }),
    );
    for await (const _ of buildx.call(
      '/moby.buildkit.v1.Control/Prune',
      pb([1, `description~=${id}`], [1, 'type==exec.cachemount']),
    ));
    expect(await usage()).not.toContain(mount);
    const filters = (text: string): string => encodeURIComponent(JSON.stringify({ until: [text] }));
    const { body: none } = await docker.api('POST', `/build/prune?filters=${filters('24h')}`);
    expect(JSON.parse(none)).toEqual({ CachesDeleted: [], SpaceReclaimed: 0 });
    const { body: some } = await docker.api('POST', '/build/prune');
    expect(JSON.parse(some).SpaceReclaimed).toBeGreaterThanOrEqual(70_000);
    expect((await docker.api('POST', '/build/prune?filters={"what":["1"]}')).status).toBe(400);
  });
});
