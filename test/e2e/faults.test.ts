/** When the machine runs out of something, users are told what, nothing is corrupted, and it goes on once there is some again. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { dirname, join } from 'node:path';
import { afterEach, expect, it } from 'vitest';
import { errorCode } from '#common/errors';
import { fsck } from '../../daemon/store/fsck.ts';
import { type DaemonAddress, IMAGE, TestDaemon } from '../support/e2e/daemon.ts';
import { litterOf } from '../support/e2e/litter.ts';
import { describeE2e } from '../support/e2e/session.ts';
import { Netns } from '../support/netns.ts';

/** Room for the host's image, and a little more. */
const DISK_BYTES = 384 * 1024 * 1024;
const DESCRIPTORS = 160;
const [, descriptorsMax] =
  /^Max open files +\S+ +(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8')) ?? [];
/** As many as a machine of everyday gives descriptors for. */
const IDLE_CLIENTS = Math.min(10_000, Number(descriptorsMax ?? 2000) - 1000);
const HIJACKERS = 200;
const SENDERS = 40;
/** Of JavaScript's objects; what is beside them comes on top. */
const HEAP_MB = 128;
const RESIDENT_MB_MAX = 512;

/** A server on every address of its machine, and who asks it. */
const SERVER = `require('http').createServer((_, answer) => answer.end('here')).listen(8080, () => console.log('up'))`;
const CLIENT = `fetch('http://' + process.argv[1] + ':8080').then((r) => r.text()).then(console.log, (e) => console.log(e.cause.code))`;

describeE2e('a daemon that runs out of', () => {
  let address: DaemonAddress;
  let daemon: TestDaemon | undefined;
  let mounted: string | undefined;

  afterEach(async () => {
    await daemon?.stop();
    expect(litterOf(address).filter((thing) => thing !== `mount ${mounted}`)).toEqual([]);
    const { damage } = await fsck(address.dataRoot);
    expect(damage.map(({ path, text }) => `${path}: ${text}`)).toEqual([]);
    if (mounted) execFileSync('umount', [mounted]);
    mounted = undefined;
    TestDaemon.forget(address);
  });

  it('disk says so in each answer, keeps what is whole, and goes on once there is room', async () => {
    address = TestDaemon.makeAddress();
    mounted = address.dataRoot;
    mkdirSync(mounted);
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${DISK_BYTES}`, 'tmpfs', mounted]);
    daemon = await TestDaemon.launch(address, ['--shutdown-timeout', '1']);
    await daemon.ok(['run', '--name', 'before', IMAGE, 'sh', '-c', 'echo kept > /kept']);
    await daemon.ok([
      'run',
      '-d',
      '--name',
      'writer',
      IMAGE,
      'sh',
      '-c',
      'while :; do echo line; sleep 0.1; done',
    ]);
    const archive = join(dirname(address.dataRoot), 'archive.tar');
    execFileSync('tar', ['-cf', archive, '-C', '/etc', 'passwd', 'services']);

    const filler = join(mounted, 'filler');
    const { bavail, bsize } = statfsSync(mounted);
    writeFileSync(filler, '');
    execFileSync('fallocate', ['-l', String(bavail * bsize), filler]);
    const asked = [
      ['import', archive, 'imported'],
      ['commit', 'before', 'committed'],
      ['volume', 'create', 'volume'],
      ['create', '--name', 'after', IMAGE],
      ['network', 'create', 'network'],
      ['cp', archive, 'before:/big'],
    ];
    for (const command of asked) {
      const { code, stderr } = await daemon.run(command);
      expect(code, command.join(' ')).not.toBe(0);
      expect(stderr, command.join(' ')).toMatch(/no space left on device|the disk of the data root is full/i);
    }
    expect((await daemon.api('GET', '/_ping')).status).toBe(200);
    rmSync(filler);

    for (const command of asked) await daemon.ok(command);
    expect(await daemon.ok(['run', '--rm', 'committed', 'cat', '/kept'])).toBe('kept');
    expect(await daemon.ok(['logs', '--tail', '1', 'writer'])).toBe('line');
    expect(await daemon.ok(['inspect', '-f', '{{.State.Status}}', 'writer'])).toBe('running');
  });

  it('descriptors refuses the container that finds none, and starts it when others have ended', async () => {
    address = TestDaemon.makeAddress();
    const wrapper = ['prlimit', `--nofile=${DESCRIPTORS}:${DESCRIPTORS}`];
    daemon = await TestDaemon.launch(address, ['--shutdown-timeout', '1'], { wrapper });
    const start = (name: string) => daemon!.run(['run', '-d', '--name', name, IMAGE, 'sleep', '1000']);
    let failed: Awaited<ReturnType<typeof start>> | undefined;
    let count = 0;
    for (; count < DESCRIPTORS && !failed; count++) {
      const result = await start(`c${count}`);
      if (result.code !== 0) failed = result;
    }
    expect(count).toBeGreaterThan(2);
    expect(failed!.stderr).toMatch(/EMFILE|too many open files/i);
    await daemon.ok(['rm', '-f', 'c0', 'c1']);
    expect((await daemon.run(['start', `c${count - 1}`])).code).toBe(0);
  });

  it('memory refuses more bodies than it may hold, serves others meanwhile, and takes them again later', async () => {
    address = TestDaemon.makeAddress();
    daemon = await TestDaemon.launch(address, ['--shutdown-timeout', '1'], {
      env: { NODE_OPTIONS: `--max-old-space-size=${HEAP_MB}` },
    });
    const body = `{"Image":"${'x'.repeat(7 << 20)}"}`;
    const head = `POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n`;
    const answers: string[] = [];
    const clients = Array.from({ length: SENDERS }, () => {
      const client = connect(address.socketPath);
      client.on('error', () => {});
      client.once('data', (chunk) => answers.push(chunk.toString('latin1', 0, 12)));
      // All but the end: what is held stays held.
      client.write(head + body.slice(0, -1));
      return client;
    });
    try {
      await expect.poll(() => answers.length, { timeout: 30_000 }).toBeGreaterThan(SENDERS / 2);
      expect(new Set(answers)).toEqual(new Set(['HTTP/1.1 503']));
      expect(await daemon.ok(['run', '--rm', IMAGE, 'echo', 'served'])).toBe('served');
      const status = readFileSync(`/proc/${daemon.process.pid}/status`, 'utf8');
      expect(Number(/VmHWM:\s+(\d+)/.exec(status)?.[1]) / 1024).toBeLessThan(RESIDENT_MB_MAX);
    } finally {
      for (const client of clients) client.destroy();
    }
    await expect
      .poll(async () => (await daemon!.api('POST', '/containers/create', body)).status, { timeout: 10_000 })
      .toBe(400);
  });

  it('network tells containers so at once, and serves them on the next one without a restart', async () => {
    const host = new Netns();
    const ip = (...args: string[]): Promise<unknown> => host.run('ip', ...args);
    try {
      await ip('link', 'set', 'lo', 'up');
      await ip('addr', 'add', '10.77.1.1/24', 'dev', 'lo');
      await host.start('node', '-e', SERVER).line(/up/);
      address = TestDaemon.makeAddress();
      const wrapper = ['nsenter', `--net=${host.path}`];
      daemon = await TestDaemon.launch(address, ['--shutdown-timeout', '1'], { wrapper });
      await daemon.ok(['run', '-d', '--name', 'stays', IMAGE, 'sleep', '1000']);
      const ask = async (server: string): Promise<string> =>
        (await daemon!.run(['exec', 'stays', 'node', '-e', CLIENT, server])).stdout.trim();
      expect(await ask('10.77.1.1')).toBe('here');
      await ip('addr', 'del', '10.77.1.1/24', 'dev', 'lo');
      expect(await ask('10.77.1.1')).toMatch(/^E(NET|HOST)UNREACH$/);
      await ip('addr', 'add', '10.88.1.1/24', 'dev', 'lo');
      expect(await ask('10.88.1.1')).toBe('here');
    } finally {
      await daemon?.stop();
      await host.remove();
    }
  });

  it('patience with clients: many that say nothing, or half a request, are in nobody’s way', async () => {
    address = TestDaemon.makeAddress();
    daemon = await TestDaemon.launch(address, ['--shutdown-timeout', '1']);
    await daemon.ok(['run', '-d', '--name', 'talks', IMAGE, 'sh', '-c', 'yes']);
    const clients: Socket[] = [];
    /** Queues up again while the queue of those that wait to be accepted is full. */
    const come = (text: string): Promise<void> =>
      new Promise((resolve, reject) => {
        const client = connect(address.socketPath, () => {
          client.write(text);
          clients.push(client);
          resolve();
        });
        client.on('error', (error) =>
          errorCode(error) === 'EAGAIN' ? setImmediate(() => resolve(come(text))) : reject(error),
        );
      });
    try {
      const upgrade = 'Host: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n';
      // Takes a connection over, closes its half, and reads nothing of what comes.
      for (let n = 0; n < HIJACKERS; n++) {
        await come(`POST /containers/talks/attach?stream=1&stdout=1 HTTP/1.1\r\n${upgrade}`);
        clients.at(-1)!.pause().end();
      }
      for (let n = 0; n < IDLE_CLIENTS; n++)
        await come(n % 3 === 0 ? 'GET /_ping HTTP/1.1\r\nHost: d\r\nX-' : '');
      expect(await daemon.ok(['run', '--rm', IMAGE, 'echo', 'served'])).toBe('served');
    } finally {
      for (const client of clients) client.destroy();
    }
    await expect.poll(async () => (await daemon!.api('GET', '/_ping')).status, { timeout: 10_000 }).toBe(200);
  });
});
