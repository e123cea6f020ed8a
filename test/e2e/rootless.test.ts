/** The daemon of an ordinary user: the README's two commands without root. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { compiledEntry } from '#common/entry';
import { Docker, IMAGE, TestDaemon, until } from '../support/e2e/daemon.ts';
import { litterOf } from '../support/e2e/litter.ts';
import { asUser, giveGroups, UID, USER, usersAddress } from '../support/e2e/ordinary-user.ts';
import { E2E_NEEDS } from '../support/e2e/shared-daemon.ts';
import { lacking } from '../support/requirements.ts';

const FIRST = 600_000;

describe.skipIf(lacking(...E2E_NEEDS, 'newuidmap', 'setpriv'))('the daemon of an ordinary user', () => {
  const address = usersAddress();
  const folder = mkdtempSync(join(tmpdir(), 'drydock-rootless-'));
  let daemon: TestDaemon;
  beforeAll(async () => {
    const runtimes = ['--add-runtime', 'real-runc=runc'];
    daemon = await TestDaemon.launch(address, runtimes, {
      wrapper: asUser(folder, `${USER}:${FIRST}:65536\n`),
    });
  });
  afterAll(async () => {
    await daemon.stop('SIGTERM');
    TestDaemon.forget(address);
    rmSync(folder, { recursive: true });
  });
  const run = (...args: string[]): Promise<string> => daemon.ok(['run', '--rm', ...args]);

  it('runs containers whose root is that user, and whose other users are its subordinate ones', async () => {
    await daemon.ok(['run', '-d', '--name', 'mine', IMAGE, 'sleep', '1000']);
    const map = await daemon.ok(['exec', 'mine', 'cat', '/proc/self/uid_map']);
    expect(map.trim().split(/\s+/).map(Number)).toEqual([0, UID, 1, 1, FIRST, 65_536]);
    const paths = ['/', '/etc', '/usr/bin/env', '/etc/hosts', '/dev/shm'];
    const owners = await daemon.ok(['exec', 'mine', 'stat', '-c', '%u:%g', ...paths]);
    expect(owners.split('\n')).toEqual(paths.map(() => '0:0'));
    expect(await daemon.ok(['exec', '-u', '1000:1000', 'mine', 'id', '-u'])).toBe('1000');
    const files = await run(IMAGE, 'sh', '-c', 'touch /f && chown 7:8 /f && stat -c %u:%g /f');
    expect(files).toBe('7:8');
    await daemon.ok(['rm', '-f', 'mine']);
  });

  it('gives them a network, names and published ports', async () => {
    const serve = 'require("http").createServer((q,r)=>r.end("hello")).listen(80)';
    await daemon.ok(['network', 'create', 'net']);
    await daemon.ok([
      ...['run', '-d', '--name', 'web', '--network', 'net', '-p', '127.0.0.1:0:80'],
      ...[IMAGE, 'node', '-e', serve],
    ]);
    const port = await daemon.ok(['port', 'web', '80']);
    const get = (url: string): string =>
      `const go=()=>fetch("${url}").then(r=>r.text()).then(console.log,()=>setTimeout(go,50));go()`;
    expect(await run('--network', 'net', IMAGE, 'node', '-e', get('http://web'))).toBe('hello');
    expect(await (await fetch(`http://${port}`)).text()).toBe('hello');
    await daemon.ok(['rm', '-f', 'web']);
    await daemon.ok(['network', 'rm', 'net']);
  });

  it('mounts volumes and folders with the rights of the user', async () => {
    expect(await run('-v', 'vol:/v', IMAGE, 'sh', '-c', 'touch /v/f && stat -c %u /v/f')).toBe('0');
    writeFileSync(join(folder, 'secret'), 'x', { mode: 0o600 });
    writeFileSync(join(folder, 'open'), 'open');
    const { stdout, stderr } = await daemon.run([
      'run',
      '--rm',
      '-v',
      `${folder}:/h`,
      IMAGE,
      'cat',
      '/h/open',
      '/h/secret',
    ]);
    expect([stdout, stderr]).toEqual(['open', expect.stringMatching(/secret: Permission denied/)]);
    await daemon.ok(['volume', 'rm', 'vol']);
  });

  it('commits images, whose removals hold', async () => {
    const step = async (from: string, script: string, to: string): Promise<void> => {
      await daemon.ok(['run', '--name', 'step', from, 'sh', '-c', script]);
      await daemon.ok(['commit', 'step', to]);
      await daemon.ok(['rm', 'step']);
    };
    await step(IMAGE, 'mkdir /dir && touch /dir/old', 'one');
    await step('one', 'rm -r /dir && mkdir /dir && touch /dir/new && rm /etc/passwd', 'two');
    const script = 'ls /dir; ls /etc/passwd 2>&1; true';
    expect(await run('two', 'sh', '-c', script)).toMatch(/^new\nls: .*: No such file or directory$/);
    await daemon.ok(['rmi', 'two', 'one']);
  });

  it.each(['0', '1'])('builds images with DOCKER_BUILDKIT=%s', async (buildkit) => {
    const context = mkdtempSync(join(folder, 'context-'));
    writeFileSync(join(context, 'f'), 'f');
    const text = `FROM ${IMAGE}\nRUN touch /by-run && id -u > /who\nCOPY --chown=33 f /copied\nUSER 33\nCMD stat -c %u /by-run /copied; cat /who`;
    writeFileSync(join(context, 'Dockerfile'), text);
    // Debian's CLI, which speaks with a daemon's BuildKit without a plug-in.
    const options = { cli: '/usr/bin/docker', env: { DOCKER_BUILDKIT: buildkit } };
    await daemon.ok(['build', '-q', '-t', 'built', context], options);
    expect(await run('built')).toBe('0\n33\n0');
    await daemon.ok(['rmi', 'built']);
  });

  it('runs containers by runc, without limits', async () => {
    expect(await run('--runtime', 'real-runc', IMAGE, 'id', '-u')).toBe('0');
    await daemon.ok(['run', '-d', '--name', 'other', '--runtime', 'real-runc', IMAGE, 'sleep', '1000']);
    await daemon.ok(['kill', 'other']);
    expect(await daemon.ok(['wait', 'other'])).toBe('137');
    await daemon.ok(['rm', 'other']);
  });

  it('says what it cannot keep, and what it is', async () => {
    const { stdout, stderr, code } = await daemon.run([
      'create',
      '--name',
      'big',
      '-m',
      '64m',
      IMAGE,
      'true',
    ]);
    expect([code, stderr]).toEqual([0, expect.stringMatching(/memory limit: asked 67108864, got none/)]);
    expect(stdout).not.toBe('');
    await daemon.ok(['rm', 'big']);
    const info = await daemon.ok(['info', '-f', '{{json .SecurityOptions}} {{.CgroupDriver}}']);
    expect(info).toMatch(/name=rootless.* none$/);
  });

  it('stops, pauses and kills', async () => {
    await daemon.ok(['run', '-d', '--name', 'long', IMAGE, 'sh', '-c', 'sleep 1000 & sleep 1000']);
    await daemon.ok(['pause', 'long']);
    const pid = await daemon.ok(['inspect', '-f', '{{.State.Pid}}', 'long']);
    expect(Number(pid)).toBeGreaterThan(1);
    await daemon.ok(['unpause', 'long']);
    await daemon.ok(['kill', 'long']);
    expect(await daemon.ok(['wait', 'long'])).toBe('137');
    await daemon.ok(['rm', 'long']);
  });

  it('leaves nothing', async () => {
    await daemon.stop('SIGTERM');
    expect(litterOf(address)).toEqual([]);
  });

  it('keeps limits in control groups that were given to the user', async () => {
    const groups = giveGroups(`given-to-${UID}-${process.pid}`);
    try {
      daemon = await TestDaemon.launch(address, ['--add-runtime', 'real-runc=runc'], {
        wrapper: [...groups.wrapper, ...asUser(folder, `${USER}:${FIRST}:65536\n`)],
      });
      const { body } = await daemon.api('GET', '/info');
      expect(JSON.parse(body)).toMatchObject({
        CgroupDriver: 'cgroupfs',
        MemoryLimit: true,
        PidsLimit: true,
      });
      const eat = ['node', '-e', 'for (const held = []; ; ) held.push(Buffer.alloc(1 << 20, 1))'];
      const limits = ['-m', '64m', '--memory-swap', '64m', '--pids-limit', '40'];
      for (const runtime of ['drydock', 'real-runc']) {
        const options = ['--name', 'big', '--runtime', runtime, ...limits];
        const { code, stderr } = await daemon.run(['run', ...options, IMAGE, ...eat]);
        expect([runtime, code, stderr]).toEqual([runtime, 137, '']);
        if (runtime === 'drydock')
          expect(await daemon.ok(['inspect', '-f', '{{.State.OOMKilled}}', 'big'])).toBe('true');
        await daemon.ok(['rm', 'big']);
      }
      await daemon.ok(['run', '-d', '--name', 'many', '--pids-limit', '20', IMAGE, 'sleep', '1000']);
      const fork = 'for i in $(seq 40); do sleep 100 & done; echo never';
      expect((await daemon.run(['exec', 'many', 'sh', '-c', fork])).stderr).toMatch(/fork/);
      await daemon.ok(['pause', 'many']);
      await daemon.ok(['unpause', 'many']);
      await daemon.ok(['update', '--pids-limit', '30', 'many']);
      const { body: statistics } = await daemon.api('GET', '/containers/many/stats?stream=0&one-shot=1');
      expect(JSON.parse(statistics).pids_stats).toMatchObject({ limit: 30 });
      await daemon.ok(['rm', '-f', 'many']);
      await daemon.stop('SIGTERM');
      expect(litterOf(address)).toEqual([]);
    } finally {
      await daemon.stop('SIGKILL');
      groups.remove();
    }
    expect(groups.paths.filter((path) => existsSync(path))).toEqual([]);
  });

  it.skipIf(lacking('systemd-socket-activate'))(
    "is started by the socket of a user's service manager",
    async () => {
      const { socketPath, dataRoot } = address;
      const [program = '', ...words] = [
        ...asUser(folder, `${USER}:${FIRST}:65536\n`),
        ...[
          'systemd-socket-activate',
          '-l',
          socketPath,
          process.execPath,
          compiledEntry('daemon/bin'),
          'daemon',
        ],
        ...['--host', 'fd://', '--data-root', dataRoot, '--exec-root', join(dataRoot, '..', 'exec')],
      ];
      const manager = spawn(program, words, { stdio: ['ignore', 'pipe', 'pipe'] });
      let log = '';
      for (const stream of [manager.stdout, manager.stderr]) stream.on('data', (chunk) => (log += chunk));
      const ended = once(manager, 'exit');
      try {
        await until(() => log.includes('Listening on'), 'the manager listens');
        expect(await new Docker(address).ok(['run', '--rm', IMAGE, 'sh', '-c', 'id -u; env'])).not.toMatch(
          /LISTEN_/,
        );
        expect(log).toContain(`DOCKER_HOST=unix://${socketPath}`);
      } finally {
        manager.kill('SIGTERM');
      }
      expect(await ended).toEqual([0, null]);
      expect(litterOf(address)).toEqual([]);
    },
  );
});
