import { once } from 'node:events';
import { afterEach, beforeAll, expect, it } from 'vitest';
import { type Docker, type Finished, IMAGE } from '../support/e2e/daemon.ts';
import { clis, describeE2e, sharedDocker, uniqueName } from '../support/e2e/session.ts';

describeE2e.each(clis)('docker commands, $name', ({ cli }) => {
  let docker: Docker;
  const ok = (...args: string[]): Promise<string> => docker.ok(args, { cli });
  const run = (...args: string[]): Promise<Finished> => docker.run(args, { cli });

  beforeAll(() => {
    docker = sharedDocker();
  });
  afterEach(() => docker.removeAll());

  it('version tells client and server', async () => {
    const version = JSON.parse(await ok('version', '--format', '{{json .}}'));
    expect(version.Server.Os).toBe('linux');
    expect(version.Server.ApiVersion).toMatch(/^1\.\d+$/);
    expect(version.Server.Platform.Name).toMatch(/drydock/i);
  });

  it('info tells the storage driver, cgroup version, and counts', async () => {
    const info = JSON.parse(await ok('info', '--format', '{{json .}}'));
    expect(info.Driver).toMatch(/^(overlay2|vfs)$/);
    expect(info.CgroupVersion).toMatch(/^[12]$/);
    expect(info.Images).toBeGreaterThanOrEqual(1);
    expect(info.NCPU).toBeGreaterThan(0);
    expect(info.ServerErrors ?? []).toEqual([]);
  });

  it('images lists the embedded image by a name that explains it', async () => {
    const images = (await ok('images', '--format', '{{.Repository}}:{{.Tag}}')).split('\n');
    expect(images).toContain(`${IMAGE}:latest`);
    const labels = JSON.parse(await ok('image', 'inspect', IMAGE, '--format', '{{json .Config.Labels}}'));
    expect(Object.values(labels).join(' ')).toMatch(/host/i);
  });

  it('run --rm runs a command, passes its output and removes the container', async () => {
    expect(await ok('run', '--rm', IMAGE, 'echo', 'hello from the container')).toBe(
      'hello from the container',
    );
    expect(await ok('ps', '-aq')).toBe('');
  });

  it('run --gpus fails as where no driver for them is installed', async () => {
    const { code, stderr } = await run('run', '--rm', '--gpus', 'all', IMAGE, 'true');
    expect(code).toBe(125);
    expect(stderr).toContain('could not select device driver "" with capabilities: [[gpu]]');
  });

  it('run keeps standard output and standard error apart', async () => {
    const { stdout, stderr } = await run('run', '--rm', IMAGE, 'sh', '-c', 'echo out; echo err >&2');
    expect([stdout, stderr]).toEqual(['out\n', 'err\n']);
  });

  it('the embedded image has node, a shell and the usual tools', async () => {
    const script =
      'node -p "6*7"; for t in bash sh ls cp grep sed awk find tar gzip ps cat; do command -v $t >/dev/null || echo missing $t; done';
    expect(await ok('run', '--rm', IMAGE, 'sh', '-c', script)).toBe('42');
  });

  it('run -i passes standard input to its end', async () => {
    const text = `${'x'.repeat(100_000)}\nlast`;
    const { stdout, code } = await docker.run(['run', '--rm', '-i', IMAGE, 'sha256sum'], {
      cli,
      input: text,
    });
    const { createHash } = await import('node:crypto');
    expect(stdout).toContain(createHash('sha256').update(text).digest('hex'));
    expect(code).toBe(0);
  });

  it('run without -i gives the command an empty standard input', async () => {
    expect(
      (await docker.run(['run', '--rm', IMAGE, 'wc', '-c'], { cli, input: 'ignored' })).stdout.trim(),
    ).toBe('0');
  });

  it('run passes large output whole', async () => {
    const { stdout } = await run('run', '--rm', IMAGE, 'sh', '-c', 'seq 1 200000');
    expect(stdout.trim().split('\n')).toHaveLength(200_000);
    expect(stdout.endsWith('\n200000\n')).toBe(true);
  });

  it('-e sets variables, from the command line and from the client', async () => {
    const text = await docker.ok(
      ['run', '--rm', '-e', 'A=1 2', '-e', 'B', IMAGE, 'sh', '-c', 'echo "$A/$B"'],
      { cli, env: { B: 'b' } },
    );
    expect(text).toBe('1 2/b');
  });

  it('-w sets the working folder and makes it', async () => {
    expect(await ok('run', '--rm', '-w', '/made/for/this', IMAGE, 'pwd')).toBe('/made/for/this');
  });

  it('-u runs as a user by number and by name', async () => {
    expect(await ok('run', '--rm', '-u', '1234:567', IMAGE, 'sh', '-c', 'id -u; id -g')).toBe('1234\n567');
    expect(await ok('run', '--rm', '-u', 'nobody', IMAGE, 'id', '-u')).toBe('65534');
    const { code, stderr } = await run('run', '--rm', '-u', 'no-such-user', IMAGE, 'true');
    expect(code).toBe(125);
    expect(stderr).toMatch(/no-such-user/);
  });

  it('a user without privileges can still write to the standard streams by name', async () => {
    expect(await ok('run', '--rm', '-u', '1234', IMAGE, 'sh', '-c', 'echo ok > /dev/stdout')).toBe('ok');
  });

  it('--entrypoint replaces the command, arguments follow it', async () => {
    expect(await ok('run', '--rm', '--entrypoint', '/bin/echo', IMAGE, 'a', 'b c')).toBe('a b c');
  });

  it('--hostname and --name are seen', async () => {
    const name = uniqueName('named');
    expect(await ok('run', '--name', name, '--hostname', 'ship', IMAGE, 'hostname')).toBe('ship');
    expect(await ok('ps', '-a', '--filter', `name=${name}`, '--format', '{{.Names}} {{.Status}}')).toMatch(
      new RegExp(`^${name} Exited \\(0\\)`),
    );
  });

  it.each([
    ['the command decides', ['sh', '-c', 'exit 42'], 42],
    ['a command that does not exist', ['/no/such/command'], 127],
    ['a command that PATH does not have', ['no-such-command'], 127],
    ['a file that cannot be executed', ['/etc/passwd'], 126],
    ['a folder', ['/etc'], 126],
    ['process 1 cannot kill itself from its own namespace', ['sh', '-c', 'kill -9 $$; exit 8'], 8],
    ['ended by SIGTERM', ['bash', '-c', 'bash -c "kill -TERM \\$\\$"; exit $?'], 143],
  ])('exit code: %s', async (_, command, expected) => {
    expect((await run('run', '--rm', IMAGE, ...command)).code).toBe(expected);
  });

  it('a start that fails is told once, and an input without a byte ends', async () => {
    const { stderr } = await run('run', IMAGE, 'no-such-command');
    expect(stderr.match(/executable file not found/g)).toHaveLength(1);
    expect(await ok('run', '--rm', '-i', IMAGE, 'sh', '-c', 'cat; echo over')).toBe('over');
  });

  it('exit code 125 for an error of the daemon, with a text that helps', async () => {
    const { code, stderr } = await run('run', '--rm', 'no-such-image-anywhere', 'true');
    expect(code).toBe(125);
    expect(stderr).toMatch(/no-such-image-anywhere/);
  });

  it('run -d prints the id; wait gives the exit code; logs has the output', async () => {
    const id = await ok('run', '-d', IMAGE, 'sh', '-c', 'echo one; echo two >&2; exit 3');
    expect(id).toMatch(/^[0-9a-f]{64}$/);
    expect(await ok('wait', id)).toBe('3');
    const logs = await run('logs', id);
    expect([logs.stdout, logs.stderr]).toEqual(['one\n', 'two\n']);
    expect(await ok('rm', id)).toBe(id);
  });

  it('logs --tail, --timestamps and -f until the container ends', async () => {
    const name = uniqueName('logs');
    await ok(
      'run',
      '-d',
      '--name',
      name,
      IMAGE,
      'sh',
      '-c',
      'seq 1 5; until [ -e /go ]; do sleep 0.02; done; echo end',
    );
    await expect.poll(() => ok('logs', name)).toMatch(/5$/);
    const following = docker.spawn(['logs', '-f', '--tail', '2', name], { cli });
    let followed = '';
    following.stdout!.on('data', (text) => {
      followed += text;
    });
    const ended = once(following, 'close');
    await expect.poll(() => followed).toBe('4\n5\n');
    await ok('exec', name, 'touch', '/go');
    expect(await ended).toEqual([0, null]);
    expect(followed).toBe('4\n5\nend\n');
    expect(await ok('logs', '--tail', '1', name)).toBe('end');
    expect(await ok('logs', '-t', '--tail', '1', name)).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z end$/);
    expect(await ok('logs', '--tail', '0', name)).toBe('');
  });

  it('create, start -a, and start of what has ended', async () => {
    const id = await ok('create', IMAGE, 'sh', '-c', 'echo ran; exit 4');
    expect(await ok('ps', '-a', '--no-trunc', '--format', '{{.ID}} {{.Status}}')).toContain(`${id} Created`);
    for (let i = 0; i < 2; i++) {
      const { code, stdout } = await run('start', '-a', id);
      expect([code, stdout]).toEqual([4, 'ran\n']);
    }
  });

  it('stop ends with SIGTERM first, and with SIGKILL when that is ignored', async () => {
    const gentle = await ok(
      'run',
      '-d',
      IMAGE,
      'bash',
      '-c',
      'trap "echo bye; exit 9" TERM; echo up; while :; do sleep 0.05; done',
    );
    const stubborn = await ok(
      'run',
      '-d',
      IMAGE,
      'bash',
      '-c',
      'trap "" TERM; echo up; while :; do sleep 0.05; done',
    );
    await expect.poll(() => ok('logs', gentle)).toBe('up');
    await expect.poll(() => ok('logs', stubborn)).toBe('up');
    await ok('stop', gentle);
    expect(await ok('inspect', gentle, '--format', '{{.State.ExitCode}} {{.State.Status}}')).toBe('9 exited');
    expect(await ok('logs', gentle)).toBe('up\nbye');
    await ok('stop', '-t', '1', stubborn);
    expect(await ok('inspect', stubborn, '--format', '{{.State.ExitCode}}')).toBe('137');
  });

  it('kill sends the signal that is asked for', async () => {
    const id = await ok(
      'run',
      '-d',
      IMAGE,
      'bash',
      '-c',
      'trap "exit 33" USR1; echo up; while :; do sleep 0.05; done',
    );
    await expect.poll(() => ok('logs', id)).toBe('up');
    await ok('kill', '--signal', 'USR1', id);
    expect(await ok('wait', id)).toBe('33');
    const { code, stderr } = await run('kill', id);
    expect(code).toBe(1);
    expect(stderr).toMatch(/is not running/);
  });

  it('restart gives a new process in the same container with the same files', async () => {
    const id = await ok('run', '-d', IMAGE, 'sh', '-c', 'echo run >> /count; cat /count; sleep 1000');
    await expect.poll(() => ok('logs', id)).toBe('run');
    const pid = await ok('inspect', id, '--format', '{{.State.Pid}}');
    await ok('restart', '-t', '0', id);
    await expect.poll(() => ok('logs', id)).toBe('run\nrun\nrun');
    expect(await ok('inspect', id, '--format', '{{.State.Pid}}')).not.toBe(pid);
    expect(await ok('inspect', id, '--format', '{{.State.Running}}')).toBe('true');
  });

  it('pause stops the processes and unpause lets them go on', async () => {
    const id = await ok('run', '-d', IMAGE, 'sh', '-c', 'while :; do echo tick; sleep 0.02; done');
    await expect.poll(() => ok('logs', id)).toMatch(/tick/);
    await ok('pause', id);
    expect(await ok('ps', '--format', '{{.Status}}')).toMatch(/\(Paused\)/);
    const before = await ok('logs', id);
    expect(await ok('logs', id)).toBe(before);
    await ok('unpause', id);
    await expect.poll(async () => (await ok('logs', id)).length).toBeGreaterThan(before.length);
  });

  it('rm refuses a running container and removes it with -f', async () => {
    const name = uniqueName('rm');
    await ok('run', '-d', '--name', name, IMAGE, 'sleep', '1000');
    const { code, stderr } = await run('rm', name);
    expect(code).toBe(1);
    expect(stderr).toMatch(/running|stop the container/i);
    expect(await ok('rm', '-f', name)).toBe(name);
    expect((await run('inspect', name)).code).toBe(1);
  });

  it('exec runs a further process: output, exit code, environment, folder, user, input', async () => {
    const id = await ok('run', '-d', '-e', 'FROM=container', IMAGE, 'sleep', '1000');
    expect(await ok('exec', id, 'sh', '-c', 'echo $FROM; cat /proc/1/comm')).toBe('container\nsleep');
    expect((await run('exec', id, 'sh', '-c', 'exit 5')).code).toBe(5);
    expect((await run('exec', id, 'no-such-command')).code).toBe(127);
    expect((await run('exec', id, '/etc/passwd')).code).toBe(126);
    expect(
      await ok(
        'exec',
        '-e',
        'X=y',
        '-w',
        '/tmp',
        '-u',
        '12:34',
        id,
        'sh',
        '-c',
        'echo $X; pwd; id -u; id -g',
      ),
    ).toBe('y\n/tmp\n12\n34');
    expect((await docker.run(['exec', '-i', id, 'cat'], { cli, input: 'through exec' })).stdout).toBe(
      'through exec',
    );
    const { stdout, stderr } = await run('exec', id, 'sh', '-c', 'echo o; echo e >&2');
    expect([stdout, stderr]).toEqual(['o\n', 'e\n']);
    await ok('exec', '-d', id, 'touch', '/by-detached');
    await expect.poll(() => run('exec', id, 'test', '-e', '/by-detached').then((r) => r.code)).toBe(0);
  });

  it('top shows the processes, with whatever columns are asked for', async () => {
    const name = uniqueName('top');
    await ok('run', '-d', '--name', name, IMAGE, 'sleep', '1234');
    expect(await ok('top', name)).toMatch(/^UID +PID .*\n.*sleep 1234$/);
    expect(await ok('top', name, '-o', 'pid,args')).toMatch(/^PID +COMMAND *\n\d+ +sleep 1234$/);
    // An option that goes with no list of processes.
    expect(await ok('top', name, 'axf')).toMatch(/sleep 1234$/);
    expect((await docker.run(['top', name, '--nosuch'], { cli })).stderr).toMatch(
      /ps: error: unknown gnu long option/,
    );
  });

  it('exec into a container that does not run says so', async () => {
    const id = await ok('create', IMAGE, 'true');
    const { code, stderr } = await run('exec', id, 'true');
    expect(code).not.toBe(0);
    expect(stderr).toMatch(/is not running/);
  });

  it('attach passes input and output and ends with the exit code', async () => {
    const id = await ok(
      'create',
      '-i',
      IMAGE,
      'sh',
      '-c',
      'while read line; do echo "got $line"; done; exit 6',
    );
    await ok('start', id);
    const { code, stdout } = await docker.run(['attach', id], { cli, input: 'one\ntwo\n' });
    expect(stdout).toBe('got one\ngot two\n');
    expect(code).toBe(6);
  });

  it('inspect has what clients read', async () => {
    const name = uniqueName('inspect');
    const id = await ok(
      'run',
      '-d',
      '--name',
      name,
      '-e',
      'K=v',
      '--label',
      'l=1',
      '-p',
      '127.0.0.1::80',
      IMAGE,
      'sleep',
      '1000',
    );
    const seen = await docker.inspect<Record<string, never>>(name);
    expect(seen).toMatchObject({
      Id: id,
      Name: `/${name}`,
      Path: 'sleep',
      Args: ['1000'],
      State: { Status: 'running', Running: true, ExitCode: 0 },
      Config: { Labels: { l: '1' }, Image: IMAGE },
      HostConfig: { NetworkMode: expect.stringMatching(/^(default|bridge)$/) },
      NetworkSettings: {
        Ports: { '80/tcp': [{ HostIp: '127.0.0.1', HostPort: expect.stringMatching(/^\d+$/) }] },
      },
    });
    const { State, Config, Image } = seen as unknown as {
      State: { Pid: number };
      Config: { Env: string[] };
      Image: string;
    };
    expect(State.Pid).toBeGreaterThan(1);
    expect(Config.Env).toContain('K=v');
    expect(Image).toMatch(/^sha256:[0-9a-f]{64}$/);
  });

  it('events tells the life of a container', async () => {
    const name = uniqueName('events');
    const since = Math.floor(Date.now() / 1000) - 1;
    await ok('run', '--rm', '--name', name, IMAGE, 'true');
    const read = async (): Promise<string[]> =>
      (
        await ok(
          'events',
          '--since',
          String(since),
          '--until',
          String(Math.floor(Date.now() / 1000) + 1),
          '--filter',
          `container=${name}`,
          '--format',
          '{{.Action}}',
        )
      ).split('\n');
    await expect.poll(read, { timeout: 10_000 }).toContain('destroy');
    const actions = await read();
    for (const action of ['create', 'start', 'die', 'destroy']) expect(actions).toContain(action);
    expect(actions.indexOf('create')).toBeLessThan(actions.indexOf('start'));
    expect(actions.indexOf('start')).toBeLessThan(actions.indexOf('die'));
  });

  it('events streams while things happen', async () => {
    const name = uniqueName('live');
    const stream = docker.spawn(['events', '--filter', `container=${name}`, '--format', '{{.Action}}'], {
      cli,
    });
    let seen = '';
    stream.stdout!.on('data', (chunk) => (seen += chunk));
    try {
      await expect
        .poll(
          async () => {
            await ok('run', '--rm', '--name', name, IMAGE, 'true');
            return seen;
          },
          { timeout: 20_000 },
        )
        .toMatch(/die/);
    } finally {
      stream.kill();
    }
  });

  it('a container that the daemon removes frees its name at once for the next run', async () => {
    const name = uniqueName('again');
    for (let i = 0; i < 3; i++)
      expect(await ok('run', '--rm', '--name', name, IMAGE, 'echo', String(i))).toBe(String(i));
  });
});
