/** When the machine runs out of something, users are told what, nothing is corrupted, and it goes on once there is some again. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { dirname, join } from 'node:path';
import { afterEach, expect, it } from 'vitest';
import { errorCode } from '#common/errors';
import { fsck } from '../../daemon/store/fsck.ts';
import { type DaemonAddress, IMAGE, TestDaemon } from '../support/e2e/daemon.ts';
import { litterOf } from '../support/e2e/litter.ts';
import { describeE2e } from '../support/e2e/session.ts';

/** Room for the host's image, and a little more. */
const DISK_BYTES = 384 * 1024 * 1024;
const DESCRIPTORS = 160;
const IDLE_CLIENTS = 1000;

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

  it('patience with clients: many that say nothing, or half a request, are in nobody’s way', async () => {
    address = TestDaemon.makeAddress();
    daemon = await TestDaemon.launch(address, ['--shutdown-timeout', '1']);
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
      for (let n = 0; n < IDLE_CLIENTS; n++)
        await come(n % 3 === 0 ? 'GET /_ping HTTP/1.1\r\nHost: d\r\nX-' : '');
      expect(await daemon.ok(['run', '--rm', IMAGE, 'echo', 'served'])).toBe('served');
    } finally {
      for (const client of clients) client.destroy();
    }
    await expect.poll(async () => (await daemon!.api('GET', '/_ping')).status, { timeout: 10_000 }).toBe(200);
  });
});
