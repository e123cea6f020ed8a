import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { compiledEntry } from '#common/entry';
import { MNT_DETACH, unmountFs } from '#common/native/fuse';
import { mountFolder, sweepMounts } from '#fsbridge';
import { type BridgePair, bridgePair, eventually, failure, served } from '../support/bridge.ts';
import * as posix from '../support/posix.ts';
import { lacking } from '../support/requirements.ts';

/** Each costs two threads' start; any leak shows in the counts at once. */
const CYCLES = Number(process.env.DRYDOCK_MOUNT_CYCLES ?? 25);

/** Mount points of ours below a folder, from the kernel's list. */
function mounted(folder: string): string[] {
  return fs
    .readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => line.includes(' - fuse.drydock '))
    .map((line) => line.split(' ')[4]!)
    .filter((target) => target.startsWith(folder));
}

describe.skipIf(lacking('root', '/dev/fuse'))('mounting', () => {
  let base: string;
  const pairs: BridgePair[] = [];
  const pair = async (...args: Parameters<typeof bridgePair>): Promise<BridgePair> => {
    const made = await bridgePair(...args);
    pairs.push(made);
    return made;
  };
  beforeEach(() => {
    base = fs.mkdtempSync(join(tmpdir(), 'drydock-mnt-'));
  });
  afterEach(async () => {
    for (const made of pairs.splice(0)) await made.remove();
    for (const target of mounted(base)) unmountFs(target, MNT_DETACH);
    fs.rmSync(base, { recursive: true, force: true });
  });

  it('refuses every change of a read-only mount, whoever asks', async () => {
    const { guest, host } = await pair({ readOnly: true });
    fs.writeFileSync(host('file'), 'fixed');
    expect(fs.readFileSync(guest('file'), 'utf8')).toBe('fixed');
    for (const [name, change] of Object.entries({
      write: () => fs.writeFileSync(guest('file'), 'x'),
      create: () => fs.writeFileSync(guest('new'), 'x'),
      mkdir: () => fs.mkdirSync(guest('dir')),
      unlink: () => fs.unlinkSync(guest('file')),
      rename: () => fs.renameSync(guest('file'), guest('other')),
      link: () => fs.linkSync(guest('file'), guest('other')),
      symlink: () => fs.symlinkSync('file', guest('other')),
      chmod: () => fs.chmodSync(guest('file'), 0o600),
      chown: () => fs.chownSync(guest('file'), 1, 1),
      truncate: () => fs.truncateSync(guest('file'), 1),
      utimes: () => fs.utimesSync(guest('file'), 1, 1),
    }))
      expect(failure(change), name).toBe('EROFS');
    expect(posix.setXattr(guest('file'), 'user.x', 'y')).toBe('EROFS');
    expect(fs.readdirSync(host(''))).toEqual(['file']);
  });

  it('lets the kernel serve the data of files, except where only the server may decide', async () => {
    const { guest, host, mount } = await pair();
    fs.writeFileSync(guest('plain'), 'x'.repeat(10_000));
    expect(fs.readFileSync(guest('plain'), 'utf8')).toHaveLength(10_000);
    expect(await mount.stats()).not.toMatchObject({ read: expect.anything() });
    expect(await mount.stats()).not.toMatchObject({ write: expect.anything() });
    fs.writeFileSync(host('suid'), 'x');
    fs.chmodSync(host('suid'), 0o4755);
    expect(fs.readFileSync(guest('suid'), 'utf8')).toBe('x');
    expect((await mount.stats()).read?.count).toBeGreaterThan(0);
    const slow = await pair({ passthrough: false });
    fs.writeFileSync(slow.guest('plain'), 'x');
    expect((await slow.mount.stats()).write?.count).toBe(1);
  });

  it('sees a mapping and the host change each other at once where the kernel serves the data', async () => {
    const { guest, host } = await pair();
    fs.writeFileSync(host('map'), Buffer.alloc(4096, 'a'));
    const fd = fs.openSync(guest('map'), 'r+');
    const mapping = new posix.Mapping(fd, 4096);
    const theirs = fs.openSync(host('map'), 'r+');
    fs.writeSync(theirs, 'host', 10);
    expect(mapping.read(10, 4)).toBe('host');
    mapping.write(20, 'guest');
    expect(fs.readFileSync(host('map'), 'latin1').slice(20, 25)).toBe('guest');
    mapping.close();
    fs.closeSync(fd);
    fs.closeSync(theirs);
  });

  it('shows everybody itself as the owner when asked to, and what was changed to all', async () => {
    const { guest, host } = await pair({ ownership: 'caller', consistency: 'cached' });
    fs.writeFileSync(host('file'), 'x', { mode: 0o600 });
    const seenBy = (id: number): number => posix.asUser(id, id, () => fs.statSync(guest('file')).uid);
    expect([seenBy(1000), seenBy(1001), seenBy(0)]).toEqual([1000, 1001, 0]);
    posix.asUser(1000, 1000, () => {
      expect(fs.readFileSync(guest('file'), 'utf8')).toBe('x');
      fs.mkdirSync(guest('dir'));
      fs.writeFileSync(guest('dir', 'new'), 'y');
      fs.chownSync(guest('dir', 'new'), 33, 33);
    });
    expect(posix.asUser(5, 5, () => fs.statSync(guest('dir', 'new')))).toMatchObject({ uid: 33, gid: 33 });
    expect(fs.statSync(host('dir', 'new')).uid).toBe(0);
    expect(posix.listXattr(guest('dir', 'new'))).toEqual([]);
    expect(posix.listXattr(host('dir', 'new'))).toEqual(['user.com.docker.owner']);
  });

  it('serves a single file at a single file', async () => {
    const { guest, host } = await pair({ file: 'content' });
    expect(fs.readFileSync(guest(), 'utf8')).toBe('content');
    fs.appendFileSync(guest(), ' and more');
    expect(fs.readFileSync(host(), 'utf8')).toBe('content and more');
    fs.truncateSync(guest(), 3);
    fs.chmodSync(guest(), 0o640);
    expect(fs.statSync(host())).toMatchObject({ size: 3, mode: 0o100640 });
    expect(failure(() => fs.unlinkSync(guest()))).toBe('EBUSY');
  });

  it('leads no symbolic link out of the folder on the host', async () => {
    const { guest, host } = await pair();
    fs.writeFileSync(join(base, 'secret'), 'secret');
    const depth = host('').split('/').length;
    fs.symlinkSync(join(base, 'secret'), host('absolute'));
    fs.symlinkSync(`${'../'.repeat(depth)}${base}/secret`, host('relative'));
    // The guest sees the link itself and resolves it on its own side.
    expect(fs.readlinkSync(guest('absolute'))).toBe(join(base, 'secret'));
    expect(fs.lstatSync(guest('relative')).isSymbolicLink()).toBe(true);
    const noFollow = fs.constants.O_NOFOLLOW;
    expect(posix.outcome(posix.open(guest('absolute'), noFollow))).toBe('ELOOP');
    // A folder known to the kernel that the host replaces by a link is not followed by the server.
    fs.mkdirSync(host('dir'));
    fs.writeFileSync(host('dir', 'secret'), 'inside');
    const dirFd = fs.openSync(guest('dir'), 'r');
    fs.renameSync(host('dir'), host('elsewhere'));
    fs.symlinkSync(base, host('dir'));
    expect(failure(() => fs.readFileSync(`/proc/self/fd/${dirFd}/secret`, 'utf8'))).not.toBe('secret');
    fs.closeSync(dirFd);
    expect(fs.lstatSync(guest('dir')).isSymbolicLink()).toBe(true);
  });

  it('never gives another file to one who opened a name that was swapped for a link', async () => {
    const { guest, host } = await pair();
    fs.writeFileSync(join(base, 'secret'), 'secret');
    fs.writeFileSync(host('plain'), 'plain');
    fs.symlinkSync(join(base, 'secret'), host('trap'));
    const racer = spawn('sh', [
      '-c',
      `cd '${host('')}' && while [ -e plain ] || [ -e swap ]; do mv -T trap swap; mv -T plain trap; mv -T swap plain; mv -T trap swap; mv -T plain trap; mv -T swap plain; done 2>/dev/null`,
    ]);
    try {
      const noFollow = fs.constants.O_NOFOLLOW | fs.constants.O_RDONLY;
      let opened = 0;
      for (let i = 0; i < 1000 || opened === 0; i++) {
        const fd = posix.open(guest('plain'), noFollow);
        if (fd < 0) continue;
        opened++;
        const buffer = Buffer.alloc(16);
        expect(buffer.toString('utf8', 0, fs.readSync(fd, buffer))).toBe('plain');
        fs.closeSync(fd);
      }
    } finally {
      racer.kill('SIGKILL');
      await once(racer, 'exit');
    }
  });

  it('serves a folder that contains the target, without meeting itself', async () => {
    const target = join(base, 'inside', 'target');
    fs.mkdirSync(target, { recursive: true });
    fs.writeFileSync(join(base, 'file'), 'x');
    const mount = await mountFolder({ source: base, target });
    try {
      expect(fs.readFileSync(join(target, 'file'), 'utf8')).toBe('x');
      expect(fs.readdirSync(join(target, 'inside', 'target'))).toEqual([]);
    } finally {
      await mount.unmount();
    }
  });

  it('shows a file system of the host that is mounted below the source', async () => {
    const source = join(base, 'source');
    fs.mkdirSync(join(source, 'proc'), { recursive: true });
    const target = join(base, 'target');
    fs.mkdirSync(target);
    spawnSync('mount', ['-t', 'tmpfs', 'drydock-test', join(source, 'proc')]);
    try {
      fs.writeFileSync(join(source, 'proc', 'nested'), 'x');
      const mount = await mountFolder({ source, target });
      expect(fs.readFileSync(join(target, 'proc', 'nested'), 'utf8')).toBe('x');
      fs.writeFileSync(join(target, 'proc', 'new'), 'y');
      expect(fs.readFileSync(join(source, 'proc', 'new'), 'utf8')).toBe('y');
      await mount.unmount();
    } finally {
      spawnSync('umount', [join(source, 'proc')]);
    }
  });

  it('serves others while one waits for the disk', async () => {
    const source = join(base, 'source');
    const target = join(base, 'target');
    fs.mkdirSync(join(source, 'slow'), { recursive: true });
    fs.mkdirSync(target);
    // Below the source, a file system whose disk isn't done with anything before the flag is there.
    const flag = join(base, 'flag');
    const script = `import { existsSync } from 'node:fs';
      import { MemoryFs, serveFs, systemClock } from ${JSON.stringify(compiledEntry('fsbridge/index'))};
      class SlowFs extends MemoryFs {
        sync() {
          const pause = new Int32Array(new SharedArrayBuffer(4));
          while (!existsSync(${JSON.stringify(flag)})) Atomics.wait(pause, 0, 0, 5);
          return 0;
        }
      }
      const target = ${JSON.stringify(join(source, 'slow'))};
      serveFs({ host: new SlowFs(systemClock), target, onStart: () => process.stdout.write('ready') });`;
    const server = spawn(process.execPath, ['--input-type=module', '-e', script]);
    const exit = once(server, 'exit');
    await once(server.stdout, 'data');
    const mount = await mountFolder({ source, target });
    const file = await fs.promises.open(join(target, 'slow', 'file'), 'w');
    let synced = false;
    const syncing = file.sync().then(() => {
      synced = true;
    });
    try {
      expect(await eventually(async () => (await served(mount, 'fsync')) === 1)).toBe(true);
      fs.writeFileSync(join(target, 'other'), 'x');
      expect(fs.readFileSync(join(source, 'other'), 'utf8')).toBe('x');
      expect(synced).toBe(false);
    } finally {
      fs.writeFileSync(flag, '');
      await syncing;
      await file.close();
      await mount.unmount();
      unmountFs(join(source, 'slow'), MNT_DETACH);
      await exit;
    }
  });

  it('says what is wrong with a source or target', async () => {
    fs.mkdirSync(join(base, 'dir'));
    fs.writeFileSync(join(base, 'file'), '');
    const attempt = (source: string, target: string): Promise<string> =>
      mountFolder({ source: join(base, source), target: join(base, target) }).then(
        () => 'mounted',
        (error: { code: string }) => error.code,
      );
    expect(await attempt('missing', 'dir')).toBe('ERR_FS_SOURCE');
    expect(await attempt('dir', 'missing')).toBe('ERR_FS_TARGET');
    expect(await attempt('dir', 'file')).toBe('ERR_FS_TARGET');
    expect(await attempt('file', 'dir')).toBe('ERR_FS_TARGET');
    posix.mknod(join(base, 'pipe'), 0o10644);
    expect(await attempt('pipe', 'file')).toBe('ERR_FS_SOURCE');
    expect(mounted(base)).toEqual([]);
  });

  it('leaves nothing behind, mount after mount', async () => {
    const source = join(base, 'source');
    const target = join(base, 'target');
    fs.mkdirSync(source);
    fs.mkdirSync(target);
    const cycle = async (): Promise<void> => {
      const mount = await mountFolder({ source, target });
      fs.writeFileSync(join(target, 'file'), 'x');
      fs.readdirSync(target);
      await mount.unmount();
      await mount.ended;
    };
    await cycle();
    const tasks = (): number => fs.readdirSync('/proc/self/task').length;
    const before = { fds: fs.readdirSync('/proc/self/fd').length, tasks: tasks() };
    for (let i = 0; i < CYCLES; i++) await cycle();
    expect(fs.readdirSync('/proc/self/fd').length).toBeLessThanOrEqual(before.fds);
    expect(await eventually(() => tasks() <= before.tasks)).toBe(true);
    expect(mounted(base)).toEqual([]);
  });

  it('ends a busy mount: its users get errors, not a hang', async () => {
    const made = await pair();
    fs.writeFileSync(made.host('file'), 'x');
    const fd = fs.openSync(made.guest('file'), 'r');
    await made.mount.unmount();
    await made.mount.ended;
    expect(mounted(made.guest(''))).toEqual([]);
    expect(failure(() => fs.fstatSync(fd))).toBe('ENOTCONN');
    expect(failure(() => fs.closeSync(fd))).toBe('ENOTCONN');
  });

  it('settles when somebody else unmounts', async () => {
    const made = await pair();
    unmountFs(made.mount.target, 0);
    await made.mount.ended;
    expect(made.trouble).toEqual([]);
  });

  it('gives its users errors after the server was killed, also who waits in it, and the sweep cleans up', async () => {
    const source = join(base, 'source');
    const target = join(base, 'target');
    fs.mkdirSync(source);
    fs.mkdirSync(target);
    const script = `import { mountFolder } from ${JSON.stringify(compiledEntry('fsbridge/index'))};
      await mountFolder({ source: ${JSON.stringify(source)}, target: ${JSON.stringify(target)} });
      console.log('ready');`;
    const server = spawn(process.execPath, ['--input-type=module', '-e', script]);
    await once(server.stdout, 'data');
    expect(mounted(base)).toEqual([target]);
    // One holds a lock, in the mount with its working folder too; another waits for it.
    const holder = spawn('flock', ['file', '-c', 'echo held; read line; pwd -P; ls; echo status $?'], {
      cwd: target,
    });
    let told = '';
    holder.stdout.on('data', (text) => {
      told += text;
    });
    expect(await eventually(() => told === 'held\n')).toBe(true);
    const waiter = spawn('flock', [join(target, 'file'), 'true']);
    const asleep = (): boolean => /\(flock\) S/.test(fs.readFileSync(`/proc/${waiter.pid}/stat`, 'utf8'));
    expect(await eventually(asleep)).toBe(true);
    const ends = [once(holder, 'exit'), once(waiter, 'exit')];
    server.kill('SIGKILL');
    await once(server, 'exit');
    expect(failure(() => fs.statSync(target))).toBe('ENOTCONN');
    holder.stdin.end('\n');
    const [, [status]] = (await Promise.all(ends)) as [unknown, [number]];
    expect(status).not.toBe(0);
    expect(told).toContain('status 2');
    expect(await sweepMounts(base)).toEqual([target]);
    expect(mounted(base)).toEqual([]);
    expect(await sweepMounts(base)).toEqual([]);
    const again = await mountFolder({ source, target });
    expect(fs.readdirSync(target)).toEqual(['file']);
    await again.unmount();
  });

  it('unmounts when the process exits without doing so', async () => {
    const source = join(base, 'source');
    const target = join(base, 'target');
    fs.mkdirSync(source);
    fs.mkdirSync(target);
    const script = `import { mountFolder } from ${JSON.stringify(compiledEntry('fsbridge/index'))};
      await mountFolder({ source: ${JSON.stringify(source)}, target: ${JSON.stringify(target)} });
      process.exit(7);`;
    const result = spawnSync(process.execPath, ['--input-type=module', '-e', script], { timeout: 20_000 });
    expect(result.status).toBe(7);
    expect(mounted(base)).toEqual([]);
  });

  it('serves from the command line until it is interrupted', async () => {
    fs.mkdirSync(join(base, 'source'));
    fs.mkdirSync(join(base, 'target'));
    const args = ['fs', 'mount', '--stats', '--read-only', join(base, 'source'), join(base, 'target')];
    const server = spawn(process.execPath, [compiledEntry('daemon/bin'), ...args]);
    let output = '';
    server.stdout.on('data', (text) => {
      output += text;
    });
    const exit = once(server, 'exit');
    expect(await eventually(() => output.includes('Ctrl-C'))).toBe(true);
    fs.writeFileSync(join(base, 'source', 'file'), 'x');
    expect(fs.readFileSync(join(base, 'target', 'file'), 'utf8')).toBe('x');
    expect(failure(() => fs.writeFileSync(join(base, 'target', 'file'), 'y'))).toBe('EROFS');
    server.kill('SIGINT');
    expect(await exit).toEqual([0, null]);
    expect(output).toMatch(/^open +1 /m);
    expect(mounted(base)).toEqual([]);
  });

  it('does not sweep a mount that this process serves', async () => {
    const made = await pair();
    expect(await sweepMounts(dirname(made.mount.target))).toEqual([]);
    expect(fs.readdirSync(made.guest(''))).toEqual([]);
  });
});
