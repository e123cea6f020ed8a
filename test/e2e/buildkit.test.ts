import { execFileSync, spawn } from 'node:child_process';
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type Docker, type Finished, finish, IMAGE, until } from '../support/e2e/daemon.ts';
import { describeE2e, sharedDocker, uniqueName } from '../support/e2e/session.ts';
import { lacking } from '../support/requirements.ts';

/** Debian's CLI has a BuildKit client built in; newer ones need a plugin for it. */
const CLI = '/usr/bin/docker';

(lacking(CLI) ? describe.skip : describeE2e)('DOCKER_BUILDKIT=1 docker build', () => {
  let docker: Docker;
  let folder: string;
  let socket: Server;
  const ok = (...args: string[]): Promise<string> => docker.ok(args, { cli: CLI });
  const start = (args: string[]): ReturnType<typeof spawn> => {
    const environment = { ...docker.environment(), DOCKER_BUILDKIT: '1', BUILDKIT_PROGRESS: 'plain' };
    return spawn(CLI, ['build', ...args], { env: environment, stdio: 'pipe' });
  };
  const build = (dockerfile: string, ...args: string[]): Promise<Finished> => {
    writeFileSync(join(folder, 'Dockerfile'), dockerfile);
    return finish(start([...args, folder]) as Parameters<typeof finish>[0]);
  };

  beforeAll(() => {
    docker = sharedDocker();
    folder = mkdtempSync(join(tmpdir(), 'drydock-buildkit-'));
    mkdirSync(join(folder, 'dir'));
    writeFileSync(join(folder, 'dir', 'file'), 'from the context');
    writeFileSync(join(folder, 'dir', 'größe'), 'x'.repeat(3_000_000));
    for (let i = 0; i < 200; i++) writeFileSync(join(folder, 'dir', `many-${i}`), String(i));
    symlinkSync('/etc/passwd', join(folder, 'dir', 'link'));
    // This client sends a socket as an empty file.
    socket = createServer().listen(join(folder, 'dir', 'socket'));
    writeFileSync(join(folder, 'ignored'), 'never');
    writeFileSync(join(folder, '.dockerignore'), '# none\n/ignored\n');
    chmodSync(join(folder, 'dir', 'file'), 0o640);
  });
  afterEach(() => docker.removeAll());
  afterAll(() => {
    socket.close();
    rmSync(folder, { recursive: true, force: true });
  });

  it('builds from a folder that comes by the session, and shows steps and output', async () => {
    const tag = uniqueName('buildkit');
    const { code, stderr } = await build(
      `# syntax=docker/dockerfile:1
# check=error=true
FROM ${IMAGE} AS one
ARG WHO=nobody
COPY . /in/
RUN test ! -e /in/ignored && cat /in/dir/file && echo " for $WHO" && stat -c '%a %s' /in/dir/file /in/dir/größe && readlink /in/dir/link && ls /in/dir | wc -l
FROM ${IMAGE}
COPY --from=one /in/dir/file /file
CMD ["cat", "/file"]
`,
      ...['-t', tag, '--build-arg', 'WHO=you', '--label', 'more=yes'],
    );
    expect([code, stderr]).toEqual([0, expect.stringContaining('from the context for you')]);
    expect(stderr).toMatch(/640 16\n.*644 3000000\n.*\/etc\/passwd\n.*204\n/);
    expect(stderr).toContain('[internal] load build context');
    expect(stderr).toMatch(/transferring context: 3(\.\d+)?MB .*done/);
    expect(stderr).toContain('[warning] # check=error=true: the Dockerfile is not linted here');
    expect(stderr).toMatch(/\[one 3\/3\] RUN test/);
    expect(stderr).toContain(`naming to ${tag}`);
    expect(await ok('run', '--rm', tag)).toBe('from the context');
    expect(await ok('inspect', '--format', '{{.Config.Labels.more}}', tag)).toBe('yes');
    expect(await ok('ps', '-aq')).toBe('');
    await ok('rmi', tag);
  });

  it('takes from the cache what has not changed, and prints only the id with -q', async () => {
    const dockerfile = `FROM ${IMAGE}\nENV A=${uniqueName('cache')}\nRUN date +%N > /when\nCOPY dir /dir\n`;
    const first = await build(dockerfile, '-q');
    expect(first.stdout).toMatch(/^sha256:[0-9a-f]{64}\n$/);
    expect((await build(dockerfile)).stderr.match(/^#\d+ CACHED$/gm)).toHaveLength(2);
    expect((await build(dockerfile, '-q')).stdout).toBe(first.stdout);
    expect((await build(dockerfile, '-q', '--no-cache')).stdout).not.toBe(first.stdout);
  });

  it.each([
    [`FROM ${IMAGE}\nRUN echo before; exit 9\n`, 'did not complete successfully: exit code: 9'],
    [`FROM ${IMAGE}\nWHAT x\n`, 'unknown instruction: WHAT'],
    [`FROM ${IMAGE}\nCOPY ignored /\n`, 'excluded by .dockerignore'],
    [`# syntax=example/other:1\nFROM ${IMAGE}\n`, "the frontend example/other:1 can't be run"],
    [`FROM ${IMAGE}\nRUN --mount=type=secret,id=s,required true\n`, 'secret s: not found'],
  ])('%j is refused: %s', async (dockerfile, message) => {
    const { code, stderr } = await build(dockerfile);
    expect([code, stderr]).toEqual([1, expect.stringContaining(message)]);
    expect(await ok('ps', '-aq')).toBe('');
  });

  it('gives the files of the result to the client, as a folder or an archive', async () => {
    const dockerfile = 'FROM scratch\nCOPY --exclude=many-* --exclude=gr* --chmod=640 dir /d/\n';
    const out = join(folder, 'out');
    writeFileSync(join(folder, '.dockerignore'), '# none\n/ignored\n/out\n');
    expect((await build(dockerfile, '-o', out)).code).toBe(0);
    expect(readFileSync(join(out, 'd', 'file'), 'utf8')).toBe('from the context');
    expect(statSync(join(out, 'd', 'file')).mode & 0o777).toBe(0o640);
    expect(readlinkSync(join(out, 'd', 'link'))).toBe('/etc/passwd');
    rmSync(out, { recursive: true });
    expect((await build(dockerfile, '-o', `type=tar,dest=${out}`)).code).toBe(0);
    expect(execFileSync('tar', ['-tf', out], { encoding: 'utf8' })).toBe('d/\nd/file\nd/link\nd/socket\n');
    rmSync(out);
    const refused = await build(dockerfile, '-o', 'type=what,dest=-');
    expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining('type=what')]);
  });

  it('mounts caches, files, memory, secrets and agents into a step, and leaves nothing of them', async () => {
    const secret = join(folder, 'secret');
    writeFileSync(secret, 'hush');
    const cache = uniqueName('cache');
    const step = (command: string): string =>
      `FROM ${IMAGE}\nARG N\nRUN --mount=type=cache,id=${cache},target=/c/deep --mount=type=bind,source=dir,target=/b --mount=type=tmpfs,target=/t --mount=type=secret,id=s,mode=440,target=/k/s --mount=type=secret,id=s,env=S ${command}\nRUN find /c /b /t /k 2>&1 | grep -vc "No such" || echo gone\n`;
    const first = await build(
      step(
        `touch /c/deep/kept && cat /b/file && ! touch /b/x 2>/dev/null && stat -f -c %T /t && echo "$S" && stat -c '%a %U' /k/s && cat /k/s`,
      ),
      ...['--secret', `id=s,src=${secret}`, '--build-arg', 'N=1'],
    );
    expect([first.code, first.stderr]).toEqual([
      0,
      expect.stringMatching(/from the contexttmpfs\n[\s\S]*hush\n[\s\S]*440 root\n[\s\S]*hush[\s\S]*gone/),
    ]);
    const second = await build(step('ls /c/deep; test ! -e /k'), '--build-arg', 'N=2');
    expect([second.code, second.stderr]).toEqual([0, expect.stringContaining('kept')]);
    expect(await ok('builder', 'prune', '-f', '--filter', 'type=exec.cachemount')).toMatch(/Total/);
    const third = await build(step('ls /c/deep | wc -l; echo $S-'), '--build-arg', 'N=3');
    expect(third.stderr).toMatch(/ 0\n.* -\n/);
    rmSync(secret);
  });

  it('removes nothing of the host when a step puts links in place of what was mounted on (CVE-2024-23652)', async () => {
    const victim = mkdtempSync(join(tmpdir(), 'drydock-victim-'));
    mkdirSync(join(victim, 'b/c'), { recursive: true });
    writeFileSync(join(victim, 'b/empty'), '');
    writeFileSync(join(folder, 'hush'), 'hush');
    const { code } = await build(
      [
        `FROM ${IMAGE}`,
        `RUN --mount=type=tmpfs,target=/p/b/c mv /p /moved1 && ln -s ${victim} /p`,
        `RUN --mount=type=secret,id=s,target=/q/b/empty mv /q /moved2 && ln -s ${victim} /q`,
      ].join('\n'),
      ...['--secret', `id=s,src=${join(folder, 'hush')}`],
    );
    expect(code).toBe(0);
    expect(readdirSync(join(victim, 'b'))).toEqual(['c', 'empty']);
    rmSync(victim, { recursive: true });
    rmSync(join(folder, 'hush'));
  });

  it('takes a Dockerfile of another name, with its own .dockerignore', async () => {
    writeFileSync(join(folder, 'Other'), `FROM ${IMAGE}\nRUN true\nCOPY ignored /\n`);
    writeFileSync(join(folder, 'Other.dockerignore'), 'dir\n');
    const { code } = await build('FROM nothing', '-q', '-f', join(folder, 'Other'));
    expect(code).toBe(0);
    rmSync(join(folder, 'Other'));
    rmSync(join(folder, 'Other.dockerignore'));
  });

  it.each([
    ['a Dockerfile', (): string => `FROM ${IMAGE}\nRUN true\n`],
    ['a context', (): Buffer => execFileSync('tar', ['-C', folder, '-cf', '-', 'Dockerfile', 'dir/file'])],
  ])('takes %s on its standard input', async (_what, text) => {
    writeFileSync(join(folder, 'Dockerfile'), `FROM ${IMAGE}\nCOPY dir/file /\n`);
    const child = start(['-q', '-']);
    child.stdin!.end(text());
    const { code, stdout, stderr } = await finish(child as Parameters<typeof finish>[0]);
    expect([code, stderr, stdout]).toEqual([0, expect.anything(), expect.stringMatching(/^sha256:/)]);
  });

  it('that is interrupted leaves no container and no file behind', async () => {
    writeFileSync(join(folder, 'Dockerfile'), `FROM ${IMAGE}\nRUN echo sta""rted; sleep 1000\n`);
    const child = start([folder]);
    await new Promise<void>((resolve) => {
      let said = '';
      child.stderr!.on('data', (chunk) => {
        said += String(chunk);
        if (said.includes(' started\n')) resolve();
      });
    });
    child.kill('SIGINT');
    await until(
      () => readdirSync(join(docker.address.dataRoot, 'build')).length === 0,
      'the context is gone',
    );
    await until(async () => (await ok('ps', '-aq')) === '', 'the container of RUN is gone');
  });
});
