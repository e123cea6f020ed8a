/** docker cp, diff and export, of containers that run and that do not; and what a hostile tree can make of them. */
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { type Docker, IMAGE, until } from '../support/e2e/daemon.ts';
import { describeE2e, sharedDocker, uniqueName } from '../support/e2e/session.ts';

describeE2e('files of containers', () => {
  let docker: Docker;
  let folder: string;
  let name: string;

  beforeEach(async () => {
    docker = sharedDocker();
    folder = mkdtempSync(join(tmpdir(), 'drydock-files-'));
    mkdirSync(join(folder, 'in', 'sub'), { recursive: true });
    writeFileSync(join(folder, 'in', 'sub', 'file'), 'from the host', { mode: 0o640 });
    symlinkSync('sub/file', join(folder, 'in', 'link'));
    name = uniqueName('files');
    await docker.ok(['run', '-d', '--name', name, '-v', '/volume', IMAGE, 'sleep', '1000']);
  });
  afterEach(async () => {
    await docker.removeAll();
    rmSync(folder, { recursive: true, force: true });
  });

  it('cp carries folders, links and modes in and out, also into volumes and while the container does not run', async () => {
    await docker.ok(['cp', join(folder, 'in'), `${name}:/tmp/`]);
    expect(await docker.ok(['exec', name, 'sh', '-c', 'cat /tmp/in/link; stat -c %a /tmp/in/sub/file'])).toBe(
      'from the host640',
    );
    await docker.ok(['cp', join(folder, 'in', 'sub', 'file'), `${name}:/volume/kept`]);
    await docker.ok(['kill', name]);
    await docker.ok(['cp', `${name}:/tmp/in`, join(folder, 'out')]);
    expect(readdirSync(join(folder, 'out')).sort()).toEqual(['link', 'sub']);
    expect(statSync(join(folder, 'out', 'sub', 'file')).mode & 0o777).toBe(0o640);
    await docker.ok(['cp', `${name}:/volume/kept`, join(folder, 'kept')]);
    expect(readFileSync(join(folder, 'kept'), 'utf8')).toBe('from the host');
    await docker.ok(['cp', join(folder, 'in', 'sub', 'file'), `${name}:/root/late`]);
    await docker.ok(['start', name]);
    expect(await docker.ok(['exec', name, 'cat', '/root/late', '/volume/kept'])).toBe(
      'from the hostfrom the host',
    );
  });

  it('links of the container lead into the container: neither cp out nor cp in touches the host', async () => {
    await docker.ok([
      'exec',
      name,
      'sh',
      '-c',
      `mkdir -p ${folder}; ln -s ${folder} /trap; ln -s ${folder}/in/sub/file /bait`,
    ]);
    await docker.ok(['exec', name, 'sh', '-c', `echo inside > ${folder}/mine`]);
    await docker.ok(['cp', `${name}:/trap/mine`, join(folder, 'got')]);
    expect(readFileSync(join(folder, 'got'), 'utf8')).toBe('inside\n');
    expect((await docker.run(['cp', '-L', `${name}:/bait`, join(folder, 'leaked')])).code).not.toBe(0);
    await docker.ok(['cp', join(folder, 'in', 'sub', 'file'), `${name}:/trap/dropped`]);
    expect(readdirSync(folder)).not.toContain('dropped');
    expect(await docker.ok(['exec', name, 'cat', `${folder}/dropped`])).toBe('from the host');
  });

  it('cp does not replace a folder by a file, and says what is missing', async () => {
    const replaced = await docker.run(['cp', join(folder, 'in', 'sub', 'file'), `${name}:/etc`]);
    expect(replaced.code).toBe(0);
    expect(await docker.ok(['exec', name, 'cat', '/etc/file'])).toBe('from the host');
    const missing = await docker.run(['cp', `${name}:/no/such`, folder]);
    expect(missing.stderr).toContain(`Could not find the file /no/such in container ${name}`);
  });

  it('diff tells what changed, export gives the whole tree', async () => {
    await docker.ok(['exec', name, 'sh', '-c', 'echo new > /root/new; rm /etc/motd 2>/dev/null || true']);
    expect((await docker.ok(['diff', name])).split('\n')).toEqual(
      expect.arrayContaining(['C /root', 'A /root/new']),
    );
    const tar = join(folder, 'root.tar');
    await docker.ok(['export', '-o', tar, name]);
    expect(readFileSync(tar).includes('root/new')).toBe(true);
  });

  it('a health check turns from starting to healthy to unhealthy as its probe says', async () => {
    const probe = [
      '--health-cmd',
      'test -e /tmp/well',
      '--health-interval',
      '300ms',
      '--health-retries',
      '2',
    ];
    const box = uniqueName('health');
    await docker.ok(['run', '-d', '--name', box, ...probe, IMAGE, 'sleep', '1000']);
    const health = (): Promise<string> => docker.ok(['inspect', '--format', '{{.State.Health.Status}}', box]);
    expect(await health()).toBe('starting');
    await docker.ok(['exec', box, 'touch', '/tmp/well']);
    await until(async () => (await health()) === 'healthy', 'it is healthy');
    expect(await docker.ok(['ps', '-q', '--filter', 'health=healthy', '--no-trunc'])).not.toBe('');
    await docker.ok(['exec', box, 'rm', '/tmp/well']);
    await until(async () => (await health()) === 'unhealthy', 'it is unhealthy');
  });
});
