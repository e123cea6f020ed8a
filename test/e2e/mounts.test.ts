/** Mounts of all types with their options, as `--mount`, `docker volume create --opt` and the API's fields ask for them. */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { type Docker, IMAGE } from '../support/e2e/daemon.ts';
import { describeE2e, sharedDocker, uniqueName } from '../support/e2e/session.ts';

describeE2e('mounts with options', () => {
  let docker: Docker;
  let folder: string;
  let cleanUp: (() => void)[];

  const mountHere = (args: string[], target: string): void => {
    execFileSync('mount', [...args, target]);
    cleanUp.push(() => execFileSync('umount', ['-l', target]));
  };

  /** Runs a script with mounts that need fields which not every CLI has; answers its output, or the daemon's refusal. */
  const run = async (mounts: object[], script: string, host: object = {}): Promise<string> => {
    const name = uniqueName('mounts');
    const body = { Image: IMAGE, Cmd: ['sh', '-c', script], HostConfig: { Mounts: mounts, ...host } };
    const created = await docker.api('POST', `/containers/create?name=${name}`, body);
    if (created.status !== 201) return JSON.parse(created.body).message;
    const { stdout, stderr } = await docker.run(['start', '-a', name]);
    return (stdout + stderr).trim();
  };

  beforeEach(() => {
    docker = sharedDocker();
    folder = mkdtempSync(join(tmpdir(), 'drydock-mounts-'));
    cleanUp = [() => rmSync(folder, { recursive: true, force: true })];
  });
  afterEach(async () => {
    try {
      await docker.removeAll();
    } finally {
      for (const step of cleanUp.reverse()) step();
    }
  });

  it('type=image shows an image or a folder of it, read-only, and keeps the image', async () => {
    const image = uniqueName('files');
    const holder = await docker.ok(['create', IMAGE]);
    writeFileSync(join(folder, 'note'), 'from the image');
    await docker.ok(['cp', join(folder, 'note'), `${holder}:/opt/note`]);
    await docker.ok(['commit', holder, image]);
    const mount = { Type: 'image', Source: image, Target: '/files' };
    const script = 'cat /files/opt/note /opt-alone/note; touch /files/new';
    const output = await run(
      [mount, { ...mount, Target: '/opt-alone', ImageOptions: { Subpath: 'opt' } }],
      script,
    );
    expect(output).toContain('from the imagefrom the image');
    expect(output).toContain('Read-only file system');
    expect((await docker.run(['rmi', image])).stderr).toMatch(/container [0-9a-f]+ is using/);
    const [name = ''] = (await docker.ok(['ps', '-a', '--format', '{{.Names}}'])).split('\n');
    const [point] = (await docker.inspect<{ Mounts: object[] }>(name)).Mounts;
    expect(point).toMatchObject({ Type: 'image', Name: image, Destination: '/files', RW: false });
    await docker.ok(['cp', `${name}:/opt-alone/note`, join(folder, 'copy')]);
    expect(readFileSync(join(folder, 'copy'), 'utf8')).toBe('from the image');
    expect(await run([{ ...mount, Source: 'no-such' }], 'true')).toContain('No such image: no-such');
    expect(await run([{ ...mount, ImageOptions: { Subpath: '../x' } }], 'true')).toContain(
      'subpath must be a relative path',
    );
    await docker.removeAll();
    await docker.ok(['rmi', image]);
  });

  it('a bind mount takes what is mounted below along, unless NonRecursive; read-only holds for all or the top alone', async () => {
    mkdirSync(join(folder, 'below'));
    mountHere(['-t', 'tmpfs', 'tmpfs'], join(folder, 'below'));
    writeFileSync(join(folder, 'below/deep'), '');
    const bind = (BindOptions: object, ReadOnly = false): object[] => [
      { Type: 'bind', Source: folder, Target: '/data', ReadOnly, BindOptions },
    ];
    const script = 'ls /data/below; touch /data/top 2>&1; touch /data/below/in 2>&1; ls /data/below';
    expect(await run(bind({ NonRecursive: true }), script)).toBe('in');
    rmSync(join(folder, 'top'));
    const refused = /top.*: Read-only file system/;
    const all = await run(bind({ ReadOnlyForceRecursive: true }, true), script);
    expect(all).toMatch(refused);
    expect(all).toMatch(/in.*: Read-only file system\ndeep$/);
    const topAlone = await run(bind({ ReadOnlyNonRecursive: true }, true), script);
    expect(topAlone).toMatch(refused);
    expect(topAlone).toMatch(/^deep\n.*\ndeep\nin$/);
    expect(await run(bind({ ReadOnlyNonRecursive: true, ReadOnlyForceRecursive: true }, true), 'true')).toBe(
      'mount options conflict: ReadOnlyNonRecursive && ReadOnlyForceRecursive',
    );
  });

  it.each(['consistent', 'cached'])(
    'a lock in a %s folder keeps another container and the host out',
    async (mode) => {
      const volume = ['-v', `${folder}:/shared:${mode}`];
      const until = (name: string): string => `until [ -e /shared/${name} ]; do sleep 0.05; done`;
      const holder = `exec 9>/shared/lock; flock 9; touch /shared/held; ${until('let-go')}; flock -u 9; touch /shared/free; sleep 600`;
      await docker.ok(['run', '-d', ...volume, IMAGE, 'sh', '-c', holder]);
      await expect.poll(() => existsSync(join(folder, 'held')), { timeout: 20_000 }).toBe(true);
      const other = async (): Promise<number | null> =>
        (await docker.run(['run', '--rm', ...volume, IMAGE, 'flock', '-n', '/shared/lock', 'true'])).code;
      const host = (): number | null => spawnSync('flock', ['-n', join(folder, 'lock'), 'true']).status;
      expect([await other(), host()]).toEqual([1, 1]);
      writeFileSync(join(folder, 'let-go'), '');
      await expect.poll(() => existsSync(join(folder, 'free')), { timeout: 20_000 }).toBe(true);
      expect(await other()).toBe(0);
      // The end of a program frees its lock for the host a moment later.
      await expect.poll(host).toBe(0);
    },
  );

  it('CreateMountpoint makes the missing folder of a --mount', async () => {
    const Source = join(folder, 'to/be/made');
    const mount = { Type: 'bind', Source, Target: '/data' };
    expect(await run([mount], 'true')).toContain('bind source path does not exist');
    expect(await run([{ ...mount, BindOptions: { CreateMountpoint: true } }], 'echo made > /data/x')).toBe(
      '',
    );
    expect(readFileSync(join(Source, 'x'), 'utf8')).toBe('made\n');
  });

  it('shared and slave mounts pass mounts on, and need a host folder that does', async () => {
    mountHere(['-t', 'tmpfs', 'tmpfs'], folder);
    mkdirSync(join(folder, 'inner'));
    execFileSync('mount', ['--make-private', folder]);
    const bind = (Propagation: string): object[] => [
      { Type: 'bind', Source: folder, Target: '/data', BindOptions: { Propagation } },
    ];
    expect(await run(bind('rshared'), 'true')).toContain(
      `path ${folder} is mounted on ${folder} but it is not a shared mount`,
    );
    execFileSync('mount', ['--make-shared', folder]);
    cleanUp.push(() => execFileSync('umount', ['-l', join(folder, 'inner')]));
    const script = 'mount -t tmpfs tmpfs /data/inner && echo seen > /data/inner/file';
    expect(await run(bind('rshared'), script, { Privileged: true })).toBe('');
    expect(readFileSync(join(folder, 'inner/file'), 'utf8')).toBe('seen\n');
  });

  it('volumes of the local driver are mounted by type, device and o while they are used', async () => {
    const [memory, bound, remote] = [uniqueName('memory'), uniqueName('bound'), uniqueName('remote')];
    const create = (name: string, ...options: string[]): Promise<string> =>
      docker.ok(['volume', 'create', ...options.flatMap((option) => ['--opt', option]), name]);
    await create(memory, 'type=tmpfs', 'device=tmpfs', 'o=size=1m,uid=1000');
    await create(bound, 'type=none', `device=${folder}`, 'o=bind,ro');
    await create(remote, 'type=nfs', 'device=:/export', 'o=addr=127.0.0.1,port=1,soft,retry=0');
    writeFileSync(join(folder, 'host'), 'of the host');
    const output = await docker.run([
      ...['run', '--rm', '-v', `${memory}:/m:nocopy`, '-v', `${bound}:/b:nocopy`, IMAGE, 'sh', '-c'],
      'stat -c %u /m; head -c 2000000 /dev/zero > /m/x; cat /b/host; touch /b/y',
    ]);
    expect(output.stdout).toBe('1000\nof the host');
    expect(output.stderr).toContain('No space left on device');
    expect(output.stderr).toContain('Read-only file system');
    const { Mountpoint, Options } = await docker.inspect<{ Mountpoint: string; Options: object }>(bound);
    expect(Options).toEqual({ type: 'none', device: folder, o: 'bind,ro' });
    expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(Mountpoint);
    const failed = await docker.run(['run', '--rm', '-v', `${remote}:/r`, IMAGE, 'true']);
    expect(failed.code).toBe(125);
    expect(failed.stderr).toContain('failed to mount local volume');
    await docker.ok(['volume', 'rm', memory, bound, remote]);
    expect(readFileSync(join(folder, 'host'), 'utf8')).toBe('of the host');
  });

  it.each([
    [['size=1m'], 'quota size requested but no quota support'],
    [['type=tmpfs'], 'missing required option: "device"'],
    [['device=/x'], 'missing required option: "type"'],
    [['colour=red'], 'invalid option: "colour"'],
  ])('volume create with %j is refused as by dockerd', async (options, message) => {
    const { code, stderr } = await docker.run([
      'volume',
      'create',
      ...options.flatMap((option) => ['--opt', option]),
    ]);
    expect([code, stderr]).toEqual([1, expect.stringContaining(message)]);
  });
});
