import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { compiledEntry } from '#common/entry';
import { jailOwner } from '../../daemon/runtime/plain/promises.ts';
import { linuxUserProcesses } from '../../daemon/runtime/plain/user-processes-linux.ts';
import {
  type DaemonAddress,
  type Finished,
  finish,
  IMAGE,
  TestDaemon,
  until,
} from '../support/e2e/daemon.ts';
import { litterBesidesProcesses, litterOf } from '../support/e2e/litter.ts';
import { describeE2e } from '../support/e2e/session.ts';

describeE2e('the daemon from start to end', () => {
  let address: DaemonAddress;
  const started: TestDaemon[] = [];
  const launch = async (args: string[] = []): Promise<TestDaemon> => {
    // `sleep` as process 1 ignores SIGTERM: the tests need not wait as long for it as people would.
    const daemon = await TestDaemon.launch(address, ['--shutdown-timeout', '3', ...args]);
    started.push(daemon);
    return daemon;
  };

  beforeEach(() => {
    address = TestDaemon.makeAddress();
  });
  afterEach(async () => {
    for (const daemon of started.splice(0))
      if (daemon.process.exitCode === null) await daemon.stop('SIGTERM');
    TestDaemon.forget(address);
  });

  /** Containers of every kind that holds something of the machine. */
  const fill = async (daemon: TestDaemon, folder: string): Promise<void> => {
    await daemon.ok(['run', '-d', '--name', 'plain', IMAGE, 'sleep', '1000']);
    await daemon.ok([
      'run',
      '-d',
      '--name',
      'bound',
      '-v',
      `${folder}:/data`,
      '-v',
      'vol:/vol',
      IMAGE,
      'sh',
      '-c',
      'echo x > /data/x; exec sleep 1000',
    ]);
    await daemon.ok([
      'run',
      '-d',
      '--name',
      'port',
      '-p',
      '127.0.0.1::80',
      '--memory',
      '64m',
      IMAGE,
      'sleep',
      '1000',
    ]);
    await daemon.ok(['network', 'create', 'other']);
    await daemon.ok(['run', '-dt', '--name', 'tty', '--network', 'other', '--tmpfs', '/t', IMAGE, 'bash']);
    await daemon.ok([
      ...['run', '-d', '--name', 'walled', '--runtime', 'plain', '--network', 'none'],
      ...[IMAGE, 'sleep', '1000'],
    ]);
    await daemon.ok(['create', '--name', 'not-started', IMAGE, 'true']);
    await until(() => existsSync(join(folder, 'x')), 'the bound container wrote');
  };

  it.each(['SIGTERM', 'SIGINT'] as const)(
    '%s stops the containers in order and removes every mount, namespace, interface, cgroup and process',
    async (signal) => {
      const folder = mkdtempSync(join(tmpdir(), 'drydock-fill-'));
      try {
        const daemon = await launch();
        await fill(daemon, folder);
        await daemon.ok([
          'run',
          '-d',
          '--name',
          'graceful',
          '-v',
          `${folder}:/data`,
          IMAGE,
          'bash',
          '-c',
          'trap "echo ended > /data/ended; exit 0" TERM; touch /data/ready; while :; do sleep 0.05; done',
        ]);
        await until(() => existsSync(join(folder, 'ready')), 'the container is ready');
        expect(await daemon.stop(signal)).toBe(0);
        expect(readFileSync(join(folder, 'ended'), 'utf8')).toBe('ended\n');
        expect(litterOf(address)).toEqual([]);
        expect(existsSync(address.socketPath)).toBe(false);
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    },
  );

  it('after kill -9 the next start cleans up what was left, says so, and loses no image, volume or container', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'drydock-fill-'));
    try {
      const first = await launch();
      await fill(first, folder);
      await first.ok(['exec', 'bound', 'sh', '-c', 'echo kept > /vol/mark; echo kept > /in-layer']);
      const images = await first.ok(['images', '-q', '--no-trunc']);
      // What has no control group is known by its user.
      const owner = jailOwner(await first.ok(['inspect', '-f', '{{.Id}}', 'walled']));
      expect(linuxUserProcesses.list(owner)).toHaveLength(1);
      expect(await first.stop('SIGKILL')).toBe('SIGKILL');

      const second = await launch();
      expect(second.log).toMatch(/clean(ed)? up|left/i);
      const states = await second.ok(['ps', '-a', '--format', '{{.Names}} {{.State}}']);
      expect(states.split('\n').sort()).toEqual([
        'bound exited',
        'not-started created',
        'plain exited',
        'port exited',
        'tty exited',
        'walled exited',
      ]);
      expect(linuxUserProcesses.list(owner)).toEqual([]);
      expect(await second.ok(['images', '-q', '--no-trunc'])).toBe(images);
      expect(await second.ok(['run', '--rm', '-v', 'vol:/vol', IMAGE, 'cat', '/vol/mark'])).toBe('kept');
      await second.ok(['start', 'bound', 'walled']);
      expect(await second.ok(['exec', 'bound', 'cat', '/in-layer', '/data/x'])).toBe('kept\nx');
      expect(linuxUserProcesses.list(owner)).toHaveLength(1);
      expect(await second.stop()).toBe(0);
      expect(linuxUserProcesses.list(owner)).toEqual([]);
      expect(litterOf(address)).toEqual([]);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  it('prints the line to paste and keeps its socket from others', async () => {
    const daemon = await launch();
    await until(() => daemon.log.includes(`DOCKER_HOST=unix://${address.socketPath}`), 'the line is printed');
    expect(statSync(address.socketPath).mode & 0o007).toBe(0);
  });

  it('a second daemon on the same data is refused with the reason, and harms nothing', async () => {
    const first = await launch();
    await first.ok(['run', '-d', '--name', 'kept', IMAGE, 'sleep', '1000']);
    const second = TestDaemon.spawnProcess({ ...address, socketPath: `${address.socketPath}2` });
    expect(await second.exited).not.toBe(0);
    expect(second.log).toMatch(/already|in use|another/i);
    expect(await first.ok(['exec', 'kept', 'echo', 'fine'])).toBe('fine');
  });

  it('a socket file that nobody listens on is replaced; one in use is not', async () => {
    const first = await launch();
    const rival = TestDaemon.spawnProcess({ ...address, dataRoot: join(address.dataRoot, '..', 'rival') });
    expect(await rival.exited).not.toBe(0);
    expect(rival.log).toMatch(/listen|in use|already/i);
    await first.stop('SIGKILL');
    expect(existsSync(address.socketPath)).toBe(true);
    const second = await launch();
    expect((await second.api('GET', '/_ping')).body).toBe('OK');
  });

  it('a bad flag, a bad configuration file and a bad host are refused with the reason', async () => {
    for (const [args, reason] of [
      [['--no-such-flag'], /no-such-flag/],
      [['--host', 'ftp://x'], /ftp/],
      [['--log-level', 'shouting'], /shouting|log-level/],
    ] as const) {
      const daemon = TestDaemon.spawnProcess(address, [...args]);
      expect(await daemon.exited).not.toBe(0);
      expect(daemon.log).toMatch(reason);
    }
    const file = join(address.dataRoot, '..', 'daemon.json');
    writeFileSync(file, '{ "debug": tru }');
    const daemon = TestDaemon.spawnProcess(address, ['--config-file', file]);
    expect(await daemon.exited).not.toBe(0);
    expect(daemon.log).toContain(file);
  });

  /** Runs `drydock daemon` in a mount namespace of its own that `prepare` may spoil. */
  const spoiled = async (prepare: string, env: Record<string, string> = {}): Promise<Finished> => {
    const command = `${prepare} ${process.execPath} ${compiledEntry('daemon/bin')} daemon --host unix://${address.socketPath} --data-root ${address.dataRoot}`;
    return finish(
      spawn('unshare', ['--mount', 'sh', '-c', command], { stdio: 'pipe', env: { ...process.env, ...env } }),
    );
  };

  it.each([
    ['/dev/net/tun', 'mount -t tmpfs none /dev/net; exec', /\/dev\/net\/tun is missing.*modprobe tun/],
    ['/dev/fuse', 'mount -t tmpfs none /dev; exec', /\/dev\/fuse is missing.*modprobe fuse/],
  ])('without %s it says what is missing and how to get it', async (_, prepare, message) => {
    const { code, stderr, stdout } = await spoiled(prepare);
    expect(code).not.toBe(0);
    expect(stderr + stdout).toMatch(message);
    expect(existsSync(address.dataRoot)).toBe(false);
  });

  it('without a docker command it starts all the same and says where to get one', async () => {
    const daemon = TestDaemon.spawnProcess(address, [], { env: { PATH: '/nowhere' } });
    started.push(daemon);
    await until(() => daemon.log.includes('DOCKER_HOST='), 'the daemon is ready');
    expect(daemon.log).toMatch(/docker.*(install|package|client)/i);
  });

  it('containers started one after another and many at once leave nothing but themselves', async () => {
    const daemon = await launch();
    await daemon.ok(['run', '--rm', IMAGE, 'true']);
    const fds = (): number =>
      Number(readFileSync(`/proc/${daemon.process.pid}/status`, 'utf8').match(/FDSize:\s+(\d+)/)![1]);
    const inventory = litterBesidesProcesses(address);
    const sizeBefore = fds();
    await Promise.all(
      Array.from({ length: 8 }, (_, i) => daemon.ok(['run', '--rm', IMAGE, 'echo', String(i)])),
    );
    for (let i = 0; i < 5; i++) await daemon.ok(['run', '--rm', IMAGE, 'true']);
    await expect.poll(() => litterBesidesProcesses(address), { timeout: 10_000 }).toEqual(inventory);
    expect(fds()).toBeLessThanOrEqual(sizeBefore * 2);
    expect(
      await new Promise((resolve) =>
        connect(address.socketPath).on('connect', function (this: import('node:net').Socket) {
          this.destroy();
          resolve(true);
        }),
      ),
    ).toBe(true);
  });
});
