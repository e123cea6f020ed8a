import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { type Docker, IMAGE } from '../support/e2e/daemon.ts';
import { describeE2e, sharedDocker, uniqueName } from '../support/e2e/session.ts';

describeE2e('bind mounts', () => {
  let docker: Docker;
  let folder: string;
  let name: string;
  const sh = (script: string): Promise<string> => docker.ok(['exec', name, 'sh', '-c', script]);
  const path = (...parts: string[]): string => join(folder, ...parts);

  beforeEach(async () => {
    docker = sharedDocker();
    folder = mkdtempSync(join(tmpdir(), 'drydock-bind-'));
    name = uniqueName('bind');
    writeFileSync(path('from-host'), 'host wrote this');
    await docker.ok([
      'run',
      '-d',
      '--name',
      name,
      '-v',
      `${folder}:/data`,
      '-v',
      `${folder}:/ro:ro`,
      IMAGE,
      'sleep',
      '1000',
    ]);
  });
  afterEach(async () => {
    await docker.removeAll();
    rmSync(folder, { recursive: true, force: true });
  });

  it('is a FUSE mount that our server answers', async () => {
    expect(await sh('grep " /data " /proc/mounts')).toMatch(/ fuse\.drydock /);
  });

  it('files are read and written from both sides', async () => {
    expect(await sh('cat /data/from-host')).toBe('host wrote this');
    await sh('echo inside > /data/from-container; echo more >> /data/from-host');
    expect(readFileSync(path('from-container'), 'utf8')).toBe('inside\n');
    expect(readFileSync(path('from-host'), 'utf8')).toBe('host wrote thismore\n');
    writeFileSync(path('from-container'), 'changed on the host');
    expect(await sh('cat /data/from-container')).toBe('changed on the host');
  });

  it('rename, unlink and mkdir from both sides', async () => {
    await sh('mv /data/from-host /data/moved; mkdir /data/folder; touch /data/folder/x');
    expect(readdirSync(folder).sort()).toEqual(['folder', 'moved']);
    renameSync(path('moved'), path('folder', 'back'));
    expect(await sh('ls /data /data/folder')).toMatch(/folder[\s\S]*back\nx/);
    await sh('rm /data/folder/back');
    expect(existsSync(path('folder', 'back'))).toBe(false);
    unlinkSync(path('folder', 'x'));
    expect(await sh('ls /data/folder | wc -l')).toBe('0');
    await sh('rmdir /data/folder');
    expect(existsSync(path('folder'))).toBe(false);
    mkdirSync(path('host-folder'));
    expect(await sh('[ -d /data/host-folder ] && echo yes')).toBe('yes');
  });

  it('chmod and symlink from both sides', async () => {
    await sh('chmod 640 /data/from-host; ln -s from-host /data/link');
    expect(statSync(path('from-host')).mode & 0o777).toBe(0o640);
    expect(readlinkSync(path('link'))).toBe('from-host');
    chmodSync(path('from-host'), 0o4711);
    symlinkSync('/etc/hostname', path('absolute'));
    expect(await sh('stat -c %a /data/from-host; readlink /data/absolute; cat /data/link')).toBe(
      '4711\n/etc/hostname\nhost wrote this',
    );
  });

  it('a symlink to an absolute path leads into the container, never to the host', async () => {
    writeFileSync(path('secret-target'), '');
    symlinkSync('/proc/1/comm', path('escape'));
    expect(await sh('cat /data/escape')).toBe('sleep');
  });

  it('a large folder is listed whole and a large file is whole', async () => {
    mkdirSync(path('many'));
    for (let i = 0; i < 3000; i++) writeFileSync(path('many', `file-with-a-longer-name-${i}`), '');
    expect(await sh('ls /data/many | wc -l')).toBe('3000');
    writeFileSync(path('big'), Buffer.alloc(20_000_000, 'ab'));
    expect(await sh('wc -c < /data/big; sha256sum < /data/big; cp /data/big /data/copy')).toContain(
      '20000000',
    );
    expect(readFileSync(path('copy')).equals(readFileSync(path('big')))).toBe(true);
  });

  it(':ro refuses every change', async () => {
    expect(
      await sh(
        'for c in "touch /ro/n" "rm /ro/from-host" "mkdir /ro/d" "chmod 600 /ro/from-host" "mv /ro/from-host /ro/z" "ln -s a /ro/l"; do $c 2>/dev/null && echo "did $c"; done; cat /ro/from-host',
      ),
    ).toBe('host wrote this');
    expect(readdirSync(folder)).toEqual(['from-host']);
  });

  it('a single file can be mounted', async () => {
    expect(
      await docker.ok([
        'run',
        '--rm',
        '-v',
        `${path('from-host')}:/one-file`,
        IMAGE,
        'sh',
        '-c',
        'cat /one-file; echo " again" >> /one-file',
      ]),
    ).toBe('host wrote this');
    expect(readFileSync(path('from-host'), 'utf8')).toBe('host wrote this again\n');
  });

  it('a named volume lives on across containers and takes the image’s content', async () => {
    const volume = uniqueName('volume');
    await docker.ok([
      'run',
      '--rm',
      '-v',
      `${volume}:/etc`,
      IMAGE,
      'sh',
      '-c',
      'test -s /etc/passwd && echo kept > /etc/mark',
    ]);
    expect(await docker.ok(['run', '--rm', '-v', `${volume}:/v`, IMAGE, 'cat', '/v/mark'])).toBe('kept');
    expect(await docker.ok(['volume', 'rm', volume])).toBe(volume);
  });
});
