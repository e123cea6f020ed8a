import { execFileSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type BuildAnswer, type BuildRequest, Buildx, fieldsOf, pb, textOf } from '../support/e2e/buildx.ts';
import { type Docker, IMAGE, until } from '../support/e2e/daemon.ts';
import { describeE2e, sharedDocker, uniqueName } from '../support/e2e/session.ts';

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

  it('sends the result to the client as an archive', async () => {
    const dockerfile = 'FROM scratch\nCOPY f /\n';
    const files = { f: 'x' };
    const tar = await build(dockerfile, { files, exporter: { type: 'tar', attributes: {} } });
    expect(execFileSync('tar', ['-tf', '-'], { input: tar.received, encoding: 'utf8' })).toBe('f\n');
    const oci = await build(dockerfile, { files, exporter: { type: 'oci', attributes: { name: 'a:b' } } });
    const listing = execFileSync('tar', ['-tf', '-'], { input: oci.received, encoding: 'utf8' });
    expect(listing).toMatch(/^index\.json$/m);
    expect(listing).toMatch(/^oci-layout$/m);
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
      '--cache-to type=local is not supported',
    ],
    [
      'an unknown output',
      'FROM scratch',
      { exporter: { type: 'what', attributes: {} } },
      '--output type=what is not supported',
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
