/** `userns-remap`: root in a container is an ordinary user of the machine. */
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { IMAGE, TestDaemon } from '../support/e2e/daemon.ts';
import { litterOf } from '../support/e2e/litter.ts';
import { describeE2e } from '../support/e2e/session.ts';

const FIRST_UID = 300_000;
const FIRST_GID = 500_000;

/** A mount namespace in which the machine has these subordinate numbers. */
function withSubordinateIds(folder: string): string[] {
  chmodSync(folder, 0o755);
  writeFileSync(join(folder, 'subuid'), `daemon:${FIRST_UID}:65536\n`);
  writeFileSync(join(folder, 'subgid'), `daemon:${FIRST_GID}:65536\n`);
  const binds = ['subuid', 'subgid'].map((name) => `mount --bind ${folder}/${name} /etc/${name}`);
  return ['unshare', '--mount', 'sh', '-c', `${binds.join(' && ')} && exec "$@"`, 'sh'];
}

describeE2e('with userns-remap', () => {
  const address = TestDaemon.makeAddress();
  const folder = mkdtempSync(join(tmpdir(), 'drydock-subids-'));
  let daemon: TestDaemon;
  beforeAll(async () => {
    daemon = await TestDaemon.launch(address, ['--userns-remap', 'daemon'], {
      wrapper: withSubordinateIds(folder),
    });
  });
  afterAll(async () => {
    await daemon.stop('SIGTERM');
    TestDaemon.forget(address);
    rmSync(folder, { recursive: true });
  });
  const run = (...args: string[]): Promise<string> => daemon.ok(['run', '--rm', ...args]);

  it('root in a container is an ordinary user of the machine, and everything is root’s inside', async () => {
    await daemon.ok(['run', '-d', '--name', 'owned', IMAGE, 'sleep', '1000']);
    const pid = await daemon.ok(['inspect', '-f', '{{.State.Pid}}', 'owned']);
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    expect(status).toMatch(new RegExp(`^Uid:\t${FIRST_UID}\t`, 'm'));
    expect(status).toMatch(new RegExp(`^Gid:\t${FIRST_GID}\t`, 'm'));
    const paths = ['/', '/etc', '/usr/bin/env', '/etc/hosts', '/etc/resolv.conf', '/etc/hostname'];
    const owners = await daemon.ok(['exec', 'owned', 'stat', '-c', '%u:%g', ...paths]);
    expect(owners.split('\n')).toEqual(paths.map(() => '0:0'));
    expect(await daemon.ok(['exec', '-u', '33', 'owned', 'id', '-u'])).toBe('33');
    await daemon.ok(['rm', '-f', 'owned']);
    expect(await daemon.ok(['info', '-f', '{{json .SecurityOptions}}'])).toContain('name=userns');
    expect(await daemon.ok(['info', '-f', '{{.DockerRootDir}}'])).toMatch(/\/300000\.500000$/);
  });

  it('the network, published ports and names work', async () => {
    await daemon.ok(['network', 'create', 'n']);
    const serve = 'require("http").createServer((q,r)=>r.end("hello")).listen(80)';
    await daemon.ok([
      'run',
      '-d',
      '--name',
      'web',
      '--network',
      'n',
      '-p',
      '127.0.0.1:0:80',
      IMAGE,
      'node',
      '-e',
      serve,
    ]);
    const port = await daemon.ok(['port', 'web', '80']);
    const get = (url: string): string =>
      `const go=()=>fetch(${JSON.stringify(url)}).then(r=>r.text()).then(console.log,()=>setTimeout(go,50));go()`;
    expect(execFileSync('node', ['-e', get(`http://${port}`)]).toString()).toBe('hello\n');
    expect(await run('--network', 'n', IMAGE, 'node', '-e', get('http://web'))).toBe('hello');
    await daemon.ok(['rm', '-f', 'web']);
    await daemon.ok(['network', 'rm', 'n']);
  });

  it('volumes belong to root in the container, and files of the machine do not', async () => {
    await run('-v', 'vol:/v', IMAGE, 'touch', '/v/file');
    const place = await daemon.ok(['volume', 'inspect', '-f', '{{.Mountpoint}}', 'vol']);
    expect(statSync(join(place, 'file')).uid).toBe(FIRST_UID);
    writeFileSync(join(folder, 'secret'), 'x', { mode: 0o600 });
    const script = 'cat /h/secret; touch /h/new; stat -c %u /h/secret';
    const { stdout, stderr } = await daemon.run([
      'run',
      '--rm',
      '-v',
      `${folder}:/h`,
      IMAGE,
      'sh',
      '-c',
      script,
    ]);
    expect(stdout).toBe('65534\n');
    expect(stderr.match(/denied/g)).toHaveLength(2);
    await daemon.ok(['volume', 'rm', 'vol']);
  });

  it('archives and images hold the owners that containers see', async () => {
    await daemon.ok([
      'create',
      '--name',
      'archived',
      IMAGE,
      'sh',
      '-c',
      'stat -c %u:%g /in /in/f; echo x >/made',
    ]);
    writeFileSync(join(folder, 'f'), 'f');
    const archive = execFileSync('tar', [
      '-C',
      folder,
      '--owner=7',
      '--group=8',
      '-c',
      '--transform=s,^,in/,',
      'f',
    ]);
    await daemon.ok(['cp', '-', 'archived:/'], { input: archive });
    expect(await daemon.ok(['start', '-a', 'archived'])).toBe('0:0\n7:8');
    const { stdout } = await daemon.run(['cp', 'archived:/in', '-']);
    expect(execFileSync('tar', ['-tv', '--numeric-owner'], { input: stdout }).toString()).toMatch(
      / 7\/8 .* in\/f\n/,
    );
    await daemon.ok(['commit', 'archived', 'committed']);
    expect(await daemon.ok(['diff', 'archived'])).toBe('A /in\nA /in/f\nA /made');
    expect(await run('committed', 'stat', '-c', '%u:%g', '/in/f', '/made')).toBe('7:8\n0:0');
    await daemon.ok(['rm', 'archived']);
    await daemon.ok(['rmi', 'committed']);
  });

  it('builds make images of root’s files', async () => {
    writeFileSync(join(folder, 'f'), 'f');
    const text = `FROM ${IMAGE}\nRUN touch /by-run && id -u > /who\nCOPY --chown=33 f /copied\nUSER 33\nCMD stat -c %u /by-run /copied; cat /who`;
    writeFileSync(join(folder, 'Dockerfile'), text);
    await daemon.ok(['build', '-q', '-t', 'built', folder], { env: { DOCKER_BUILDKIT: '0' } });
    expect(await run('built')).toBe('0\n33\n0');
    await daemon.ok(['rmi', 'built']);
  });

  it('--userns=host opts out, and what needs the machine’s root is refused without it', async () => {
    const map = await run('--userns=host', IMAGE, 'cat', '/proc/self/uid_map');
    expect(map.split(/\s+/).filter(Boolean)).toEqual(['0', '0', '4294967295']);
    await run('--userns=host', '--privileged', IMAGE, 'true');
    for (const option of ['--privileged', '--network=host', '--pid=host']) {
      const { code, stderr } = await daemon.run(['run', '--rm', option, IMAGE, 'true']);
      expect([code, stderr]).toEqual([125, expect.stringContaining('user namespace')]);
    }
  });

  it('nothing is left after the daemon', async () => {
    await daemon.stop('SIGTERM');
    expect(litterOf(address)).toEqual([]);
    daemon = await TestDaemon.launch(address, ['--userns-remap', 'daemon'], {
      wrapper: withSubordinateIds(folder),
    });
    expect(await run(IMAGE, 'id', '-u')).toBe('0');
  });
});
