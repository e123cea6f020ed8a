import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ManualClock } from '#common/clock';
import type { HostFs } from '../../fsbridge/backing/host-fs.ts';
import { MemoryFs } from '../../fsbridge/backing/memory-fs.ts';
import { DarwinFs } from '../../fsbridge/backing/posix-darwin.ts';
import { findFuseT, serveFuseT } from '../../fsbridge/channel/fuse-t.ts';
import { StreamServer } from '../../fsbridge/channel/stream.ts';
import { allocate } from '../../fsbridge/memory.ts';
import { mountByFuseT } from '../../fsbridge/mount/fuse-t.ts';
import { defaultPolicy } from '../../fsbridge/policy/options.ts';
import { Session } from '../../fsbridge/session.ts';
import { darwinLayout } from '../../fsbridge/wire/layout-darwin.ts';
import { darwinFiles } from '../support/darwin-files.ts';
import { lacking } from '../support/requirements.ts';
import { encode } from './kernel.ts';

const clock = new ManualClock();

function session<Host extends HostFs = MemoryFs>(
  host: Host = new MemoryFs(clock) as unknown as Host,
): { session: Session; bugs: unknown[]; host: Host } {
  const bugs: unknown[] = [];
  const made = new Session({
    host,
    layout: darwinLayout,
    policy: { ...defaultPolicy, consistency: 'cached' },
    clock,
    addressOf: () => 0,
    uid: 0,
    gid: 0,
    request: allocate(64),
    onBug: (error) => bugs.push(error),
  });
  return { session: made, bugs, host };
}

describe('the FUSE-T channel', () => {
  let folder: string;
  let helper: string;
  beforeEach(() => {
    folder = fs.mkdtempSync(join(tmpdir(), 'drydock-fuse-t-'));
    helper = join(folder, 'go-nfsv4');
    const script = fileURLToPath(new URL('../support/fake-go-nfsv4.mjs', import.meta.url));
    fs.writeFileSync(helper, `#!/bin/sh\nexec '${process.execPath}' '${script}' "$@"\n`, { mode: 0o755 });
    process.env.FAKE_REPORT = join(folder, 'report');
  });
  afterEach(() => {
    fs.rmSync(folder, { recursive: true });
    for (const name of ['FAKE_REPORT', 'FAKE_STATUS', 'FAKE_SEED', 'FUSE_NFSSRV_PATH'])
      delete process.env[name];
  });

  it.each([1, 2, 3])('serves a helper that sends requests in pieces, seed %i', async (seed) => {
    process.env.FAKE_SEED = String(seed);
    const { session: served, bugs, host } = session();
    const options = { helper, target: '/Volumes/x', addressOf: () => 0, readOnly: false, volumeName: 'src' };
    const mount = await serveFuseT({ ...options, session: served });
    await mount.unmount();
    await mount.ended;
    const report = JSON.parse(fs.readFileSync(join(folder, 'report'), 'utf8'));
    expect(report).toEqual({
      args: [
        '--volname',
        'src',
        '--attrcache-timeout=1',
        '--rwsize=1048576',
        '--namedattr=false',
        '/Volumes/x',
      ],
      env: { vers: '2' },
      init: { error: 0, bytes: 24, minor: 19, flags: (1 << 0) | (1 << 3) | (1 << 5) },
      missing: -2,
      tooLong: -63,
      created: {
        node: 2,
        size: 0,
        born: Math.floor(clock.wallMs() / 1000),
        mode: 0o100644,
        nlink: 1,
        uid: 501,
        blksize: 4096,
        bytes: 144,
      },
      written: 100_000,
      read: true,
      appended: 100_003,
      chmod: { error: 0, bytes: 120, mode: 0o100600 },
      setxattr: 0,
      setAgain: -17,
      getxattr: 'value',
      noxattr: -93,
      renamed: 0,
      notEmpty: -20,
      names: ['.', '..', 'dir', 'renamed'],
      unknown: -78,
    });
    expect(bugs).toEqual([]);
    expect(host.openCount).toBe(0);
  });

  it.skipIf(lacking('root'))('serves a folder by Darwin’s own calls, and closes all it opened', async () => {
    const shared = join(folder, 'shared');
    fs.mkdirSync(shared);
    const library = darwinFiles();
    const { session: served, bugs } = session(new DarwinFs(shared, library));
    const options = { helper, target: '/x', addressOf: () => 0, readOnly: false, volumeName: 'src' };
    const mount = await serveFuseT({ ...options, session: served });
    await mount.unmount();
    const report = JSON.parse(fs.readFileSync(join(folder, 'report'), 'utf8'));
    expect(bugs).toEqual([]);
    expect(report).toMatchObject({
      missing: -2,
      tooLong: -63,
      created: { size: 0, mode: 0o100644, nlink: 1, uid: 501 },
      written: 100_000,
      read: true,
      appended: 100_003,
      chmod: { error: 0, mode: 0o100600 },
      setxattr: 0,
      setAgain: -17,
      getxattr: 'value',
      noxattr: -93,
      renamed: 0,
      names: ['.', '..', 'dir', 'renamed'],
    });
    expect(fs.statSync(join(shared, 'renamed'))).toMatchObject({
      size: 100_003,
      mode: 0o100600,
      uid: 501,
      gid: 20,
    });
    // The folder's own descriptor stays.
    expect(library.open.size).toBe(1);
  });

  it.skipIf(lacking('root'))('mounts a folder, tells of changes on the host, and unmounts', async () => {
    const [source, target] = [join(folder, 'source'), join(folder, 'target')];
    fs.mkdirSync(source);
    fs.mkdirSync(target);
    // Stands for the same file seen through the mount, which the fake does not make.
    fs.writeFileSync(join(target, 'renamed'), '');
    process.env.FUSE_NFSSRV_PATH = helper;
    const mount = await mountByFuseT({ source, target });
    expect(fs.readdirSync(source).sort()).toEqual(['dir', 'renamed']);
    expect(await mount.stats()).toMatchObject({ create: { count: 1 }, init: { count: 1 } });
    fs.chmodSync(join(source, 'renamed'), 0o604);
    await expect.poll(() => fs.statSync(join(target, 'renamed')).mode & 0o777).toBe(0o604);
    await mount.unmount();
    await mount.ended;
  });

  it('says what is missing where it can mount nothing', async () => {
    fs.writeFileSync(join(folder, 'file'), '');
    const file = join(folder, 'file');
    await expect(mountByFuseT({ source: file, target: file })).rejects.toMatchObject({
      code: 'ERR_FS_SOURCE',
    });
    process.env.FUSE_NFSSRV_PATH = join(folder, 'missing');
    const missing = { code: 'ERR_FS_FUSE_T', message: expect.stringContaining('brew install') };
    await expect(mountByFuseT({ source: folder, target: folder })).rejects.toMatchObject(missing);
    process.env.FUSE_NFSSRV_PATH = '/bin/true';
    const ended = { code: 'ERR_FS_FUSE_T', message: expect.stringContaining('it ended first') };
    await expect(mountByFuseT({ source: folder, target: folder })).rejects.toMatchObject(ended);
  });

  it('says so when the helper cannot mount, and when it ends first', async () => {
    process.env.FAKE_STATUS = '1';
    const options = { target: '/x', addressOf: () => 0, readOnly: true, volumeName: 'v' };
    const code = (path: string): Promise<string> =>
      serveFuseT({ ...options, helper: path, session: session().session }).then(
        () => 'mounted',
        (error: { code: string }) => error.code,
      );
    expect(await code(helper)).toBe('ERR_FS_FUSE_T');
    expect(await code('/bin/true')).toBe('ERR_FS_FUSE_T');
    expect(await code(join(folder, 'missing'))).toBe('ERR_FS_FUSE_T');
  });

  it('finds the helper by its variable only if it can be run', () => {
    expect(findFuseT({ FUSE_NFSSRV_PATH: helper })).toBe(helper);
    fs.chmodSync(helper, 0o644);
    expect(findFuseT({ FUSE_NFSSRV_PATH: helper })).toBeUndefined();
    expect(findFuseT({ FUSE_NFSSRV_PATH: join(folder, 'missing') })).toBeUndefined();
  });
});

describe('a stream of requests', () => {
  const requests = Buffer.concat([
    encode([56, 26, 2n, 0n, 0, 0, 0, 0, 7, 19, 0, 0]),
    encode([56, 3, 4n, 1n, 0, 0, 0, 0, 0n, 0n]),
    encode([42, 1, 6n, 1n, 0, 0, 0, 0, 'x']),
  ]);

  it('gives the same replies however it is cut', () => {
    const replies = (pieces: number[]): string => {
      const sent: Buffer[] = [];
      const server = new StreamServer(
        session().session,
        4096,
        () => 0,
        (bytes) => sent.push(bytes),
      );
      let at = 0;
      for (const size of [...pieces, requests.length]) {
        expect(server.receive(requests.subarray(at, at + size))).toBe(true);
        at += size;
      }
      return Buffer.concat(sent).toString('hex');
    };
    const whole = replies([]);
    expect(Buffer.from(whole, 'hex').readUInt32LE(0)).toBe(40);
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 60 }), { maxLength: 30 }), (pieces) => {
        expect(replies(pieces)).toBe(whole);
      }),
    );
  });

  it('ends when a length cannot be right', () => {
    for (const length of [0, 39, 5000, 0xffffffff]) {
      const server = new StreamServer(
        session().session,
        4096,
        () => 0,
        () => {},
      );
      expect(server.receive(encode([length, 1, 2n, 1n, 0, 0, 0, 0])), String(length)).toBe(false);
    }
  });
});
