import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { type Docker, finish, IMAGE } from '../support/e2e/daemon.ts';
import { clis, describeE2e, sharedDocker, uniqueName } from '../support/e2e/session.ts';

/** A root file system of one shell script and the busybox that runs it, or of just a file where no static program is at hand. */
describeE2e.each(clis)('images, $name', ({ cli }) => {
  let docker: Docker;
  let folder: string;
  const ok = (...args: string[]): Promise<string> => docker.ok(args, { cli });

  beforeAll(async () => {
    docker = sharedDocker();
    folder = mkdtempSync(join(tmpdir(), 'drydock-images-'));
    mkdirSync(join(folder, 'root', 'etc'), { recursive: true });
    writeFileSync(join(folder, 'root', 'etc', 'motd'), 'imported');
    await finish(
      spawn('tar', ['-C', join(folder, 'root'), '-cf', join(folder, 'root.tar'), '.'], { stdio: 'pipe' }),
    );
  });
  afterEach(() => docker.removeAll());
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it('import makes an image of a tar, with changes', async () => {
    const tag = `${uniqueName('imported')}:v1`;
    const id = await ok(
      'import',
      '--change',
      'ENV A=b',
      '--change',
      'CMD ["/x"]',
      '--message',
      'by hand',
      join(folder, 'root.tar'),
      tag,
    );
    expect(id).toMatch(/^sha256:[0-9a-f]{64}$/);
    expect(JSON.parse(await ok('image', 'inspect', tag, '--format', '{{json .Config}}'))).toMatchObject({
      Env: ['A=b'],
      Cmd: ['/x'],
    });
    expect(await ok('images', '-q', '--no-trunc', tag)).toBe(id);
    expect(await ok('rmi', tag)).toContain(`Untagged: ${tag}`);
  });

  it('import reads standard input, and gzip', async () => {
    const tag = uniqueName('piped');
    const { stdout } = await finish(spawn('gzip', ['-c', join(folder, 'root.tar')], { stdio: 'pipe' })).then(
      async () => {
        const zip = spawn(
          'sh',
          ['-c', `gzip -c '${join(folder, 'root.tar')}' | '${cli}' import - '${tag}'`],
          { env: docker.environment(), stdio: 'pipe' },
        );
        return finish(zip);
      },
    );
    expect(stdout.trim()).toMatch(/^sha256:/);
    await ok('rmi', tag);
  });

  it('save and load give back the same image, which runs', async () => {
    const tag = uniqueName('saved');
    await ok('tag', IMAGE, `${tag}:1`);
    const id = await ok('image', 'inspect', `${tag}:1`, '--format', '{{.Id}}');
    const archive = join(folder, 'saved.tar');
    await ok('save', '-o', archive, `${tag}:1`);
    await ok('rmi', `${tag}:1`);
    expect(await ok('load', '-i', archive)).toBe(`Loaded image: ${tag}:1`);
    expect(await ok('image', 'inspect', `${tag}:1`, '--format', '{{.Id}}')).toBe(id);
    expect(await ok('run', '--rm', `${tag}:1`, 'echo', 'loaded')).toBe('loaded');
    await ok('rmi', `${tag}:1`);
  });

  it('an image in use is not removed', async () => {
    const name = uniqueName('user');
    await ok('create', '--name', name, IMAGE, 'true');
    const { code, stderr } = await docker.run(['rmi', IMAGE], { cli });
    expect(code).toBe(1);
    expect(stderr).toMatch(/conflict|in use|is using/i);
    expect(await ok('run', '--rm', IMAGE, 'echo', 'still there')).toBe('still there');
  });

  it('load refuses what is not an image, and nothing of it stays', async () => {
    const before = await ok('images', '-aq');
    const { code, stderr, stdout } = await docker.run(['load'], { cli, input: 'this is no tar'.repeat(100) });
    expect(code).not.toBe(0);
    expect(stderr + stdout).toMatch(/archive|tar|manifest|invalid/i);
    expect(await ok('images', '-aq')).toBe(before);
  });
});
