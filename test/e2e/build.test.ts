import { spawn } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { type Docker, type Finished, finish, IMAGE, until } from '../support/e2e/daemon.ts';
import { clis, describeE2e, sharedDocker, uniqueName } from '../support/e2e/session.ts';

describeE2e.each(clis)('build and commit, $name', ({ cli }) => {
  let docker: Docker;
  let folder: string;
  const ok = (...args: string[]): Promise<string> => docker.ok(args, { cli });
  const build = (dockerfile: string, ...args: string[]): Promise<Finished> => {
    writeFileSync(join(folder, 'Dockerfile'), dockerfile);
    const environment = { ...docker.environment(), DOCKER_BUILDKIT: '0' };
    return finish(spawn(cli, ['build', ...args, folder], { env: environment, stdio: 'pipe' }));
  };

  beforeAll(() => {
    docker = sharedDocker();
    folder = mkdtempSync(join(tmpdir(), 'drydock-build-'));
    mkdirSync(join(folder, 'dir'));
    writeFileSync(join(folder, 'dir', 'file'), 'from the context');
    writeFileSync(join(folder, 'ignored'), 'never');
    writeFileSync(join(folder, '.dockerignore'), 'ignored\n');
    chmodSync(join(folder, 'dir', 'file'), 0o640);
  });
  afterEach(() => docker.removeAll());
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it('builds in stages with RUN in containers, and what is built runs', async () => {
    const tag = uniqueName('built');
    const { code, stdout } = await build(
      `FROM ${IMAGE} AS one
ARG WHO=nobody
ENV GREETING="hello $WHO"
WORKDIR /made
COPY --chown=node . .
RUN test ! -e ignored && cat dir/file > out && echo " $GREETING $(id -u)" >> out
USER node
RUN id -u >> /tmp/who
FROM ${IMAGE}
COPY --from=one /made/out /tmp/who /
LABEL made=here
CMD ["cat", "/out", "/who"]
`,
      '-t',
      tag,
      '--build-arg',
      'WHO=world',
      '--label',
      'more=yes',
    );
    expect([code, stdout]).toEqual([
      0,
      expect.stringMatching(/Successfully built [0-9a-f]{12}\nSuccessfully tagged /),
    ]);
    expect(await ok('run', '--rm', tag)).toBe('from the context hello world 0\n1000');
    expect(JSON.parse(await ok('inspect', '--format', '{{json .Config.Labels}}', tag))).toMatchObject({
      made: 'here',
      more: 'yes',
    });
    expect(await ok('ps', '-aq')).toBe('');
    await ok('rmi', tag);
  });

  it('takes from the cache what has not changed', async () => {
    const dockerfile = `FROM ${IMAGE}\nENV A=${uniqueName('cache')}\nRUN date +%N > /when\n`;
    const first = await build(dockerfile, '-q');
    const second = await build(dockerfile);
    expect(second.stdout.split(' ---> Using cache')).toHaveLength(3);
    expect((await build(dockerfile, '-q')).stdout).toBe(first.stdout);
    expect((await build(dockerfile, '-q', '--no-cache')).stdout).not.toBe(first.stdout);
  });

  it('a failing RUN ends the CLI with the command’s code and says which', async () => {
    const { code, stderr } = await build(`FROM ${IMAGE}\nRUN echo before; exit 9\n`, '--force-rm');
    expect([code, stderr]).toEqual([
      9,
      expect.stringContaining("The command '/bin/sh -c echo before; exit 9' returned a non-zero code: 9"),
    ]);
    expect(await ok('ps', '-aq')).toBe('');
  });

  it.each([
    ['FROM', 'FROM requires either one or three arguments'],
    [`FROM ${IMAGE}\nWHAT x`, 'unknown instruction: WHAT'],
    [`FROM ${IMAGE}\nCOPY ignored /`, 'file not found in build context or excluded by .dockerignore'],
    [`FROM ${IMAGE}\nRUN --mount=type=secret,id=s,required true`, 'secret s: not found'],
  ])('%j is refused: %s', async (dockerfile, message) => {
    const { code, stderr } = await build(dockerfile);
    expect([code, stderr]).toEqual([1, expect.stringContaining(message)]);
  });

  it.each([
    ['while its container is made', 'Step 2/2'],
    ['while its command runs', '\nstarted\n'],
  ])('that is interrupted %s leaves no container and no file behind', async (_when, sign) => {
    writeFileSync(join(folder, 'Dockerfile'), `FROM ${IMAGE}\nRUN echo started; sleep 1000\n`);
    const environment = { ...docker.environment(), DOCKER_BUILDKIT: '0' };
    const child = spawn(cli, ['build', folder], { env: environment, stdio: ['ignore', 'pipe', 'ignore'] });
    await new Promise<void>((resolve) => {
      let said = '';
      child.stdout.on('data', (chunk) => {
        said += String(chunk);
        if (said.includes(sign)) resolve();
      });
    });
    child.kill('SIGINT');
    await until(
      () => readdirSync(join(docker.address.dataRoot, 'build')).length === 0,
      'the context is gone',
    );
    await until(async () => (await ok('ps', '-aq')) === '', 'the container of RUN is gone');
  });

  it('commit makes an image of a container, running or not', async () => {
    const name = uniqueName('commit');
    await ok('run', '--name', name, IMAGE, 'sh', '-c', 'echo kept > /kept && rm /etc/shells');
    expect(await ok('diff', name)).toBe('C /etc\nD /etc/shells\nA /kept');
    await ok(
      'commit',
      '--change',
      'CMD ["sh", "-c", "cat /kept; ls /etc/shells"]',
      '--message',
      'by hand',
      '--author',
      'me',
      name,
      `${name}:done`,
    );
    const { code, stdout } = await docker.run(['run', '--rm', `${name}:done`], { cli });
    expect([code, stdout]).toEqual([2, 'kept\n']);
    expect(await ok('history', '--format', '{{.Comment}}', `${name}:done`)).toMatch(/^by hand\n/);
    await ok('rmi', `${name}:done`);
  });

  it('system prune frees the cache of builds', async () => {
    await build(`FROM ${IMAGE}\nRUN head -c 100000 /dev/zero > /${uniqueName('zeros')}\n`);
    expect(await ok('image', 'prune', '-f')).toMatch(/Total reclaimed space: \d/);
    expect(await ok('builder', 'prune', '-f')).toContain('Total');
  });
});
