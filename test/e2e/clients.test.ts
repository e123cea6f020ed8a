/** Clients that people use besides the docker CLI, each doing real work against the daemon. */
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { text } from 'node:stream/consumers';
import Dockerode from 'dockerode';
import { GenericContainer, Wait } from 'testcontainers';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Docker, finish, IMAGE, until } from '../support/e2e/daemon.ts';
import { describeE2e, sharedDocker, uniqueName } from '../support/e2e/session.ts';
import { lacking } from '../support/requirements.ts';

let docker: Docker;
beforeEach(() => {
  docker = sharedDocker();
});
afterEach(() => docker.removeAll());

const SERVER = "require('http').createServer((q,r)=>r.end('served')).listen(8080,()=>console.log('ready'))";

describeE2e('dockerode', () => {
  it('attaches with input, follows logs and events, runs an exec, waits', async () => {
    const client = new Dockerode({ socketPath: docker.address.socketPath });
    const name = uniqueName('ode');
    const events = await client.getEvents({ filters: { container: [name] } });
    const actions: string[] = [];
    events.on('data', (chunk: Buffer) => {
      for (const line of chunk.toString().trim().split('\n')) actions.push(JSON.parse(line).Action);
    });
    const container = await client.createContainer({
      name,
      Image: IMAGE,
      Cmd: ['sh', '-c', 'while read line; do echo "got $line"; echo "err $line" >&2; done'],
      OpenStdin: true,
      StdinOnce: true,
    });
    const stream = await container.attach({
      stream: true,
      stdin: true,
      stdout: true,
      stderr: true,
      hijack: true,
    });
    const [out, err] = [new PassThrough(), new PassThrough()];
    const [stdout, stderr] = [text(out), text(err)];
    client.modem.demuxStream(stream, out, err);
    stream.on('end', () => {
      out.end();
      err.end();
    });
    await container.start();
    const exec = await container.exec({ Cmd: ['cat'], AttachStdin: true, AttachStdout: true });
    const inner = await exec.start({ hijack: true, stdin: true });
    const echoed: Buffer[] = [];
    inner.on('data', (chunk: Buffer) => echoed.push(chunk));
    inner.end('through the exec');
    await new Promise((resolve) => inner.on('end', resolve));
    expect(Buffer.concat(echoed).subarray(8).toString()).toBe('through the exec');
    expect((await exec.inspect()).ExitCode).toBe(0);
    stream.write('one\n');
    stream.end('two\n');
    expect(await container.wait()).toEqual({ StatusCode: 0 });
    expect([await stdout, await stderr]).toEqual(['got one\ngot two\n', 'err one\nerr two\n']);
    const logs = await container.logs({ stdout: true, stderr: false });
    expect(logs.toString()).toContain('got two');
    await until(() => actions.includes('die'), 'the end was told');
    expect(actions).toEqual(
      expect.arrayContaining(['create', 'attach', 'start', 'exec_start: cat', 'exec_die', 'die']),
    );
    (events as unknown as { destroy(): void }).destroy();
  });
});

describeE2e('testcontainers', () => {
  it('starts a container, waits for its log line, reaches its port, executes in it', async () => {
    process.env.DOCKER_HOST = `unix://${docker.address.socketPath}`;
    process.env.TESTCONTAINERS_RYUK_DISABLED = 'true';
    // On a machine that is a container itself it would look for ports at the bridge's gateway.
    process.env.TESTCONTAINERS_HOST_OVERRIDE = '127.0.0.1';
    const container = await new GenericContainer(IMAGE)
      .withCommand(['node', '-e', SERVER])
      .withExposedPorts(8080)
      .withCopyContentToContainer([{ content: 'copied', target: '/tmp/copied' }])
      .withWaitStrategy(Wait.forLogMessage('ready'))
      .start();
    try {
      const answer = await fetch(`http://127.0.0.1:${container.getMappedPort(8080)}/`);
      expect(await answer.text()).toBe('served');
      expect(await container.exec(['cat', '/tmp/copied'])).toMatchObject({ output: 'copied', exitCode: 0 });
    } finally {
      await container.stop();
    }
  });
});

const COMPOSE = `
version: "3.7"
services:
  db:
    image: ${IMAGE}
    command: ["node", "-e", "require('net').createServer(c=>c.on('error',()=>{}).end('a row')).listen(5432)"]
    healthcheck:
      test: ["CMD", "node", "-e", "require('net').connect(5432,'127.0.0.1').on('connect',()=>process.exit(0)).on('error',()=>process.exit(1))"]
      interval: 1s
      retries: 20
    volumes: ["data:/var/lib/db"]
    stop_signal: SIGKILL
  web:
    image: ${IMAGE}
    command: ["node", "-e", "require('http').createServer((q,r)=>require('net').connect(5432,'db').on('data',d=>r.end('web got '+d))).listen(80)"]
    ports: ["127.0.0.1::80"]
    volumes: ["./site:/site:ro"]
    depends_on: [db]
    stop_signal: SIGKILL
volumes:
  data:
`;

describe.skipIf(lacking('docker-compose'))('docker-compose 1.x', () => {
  it('a web server, a database and a health check: up, exec, logs, recreate, down', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'drydock-compose-'));
    mkdirSync(join(folder, 'site'));
    writeFileSync(join(folder, 'site', 'page'), 'from the host');
    writeFileSync(join(folder, 'docker-compose.yml'), COMPOSE);
    const project = uniqueName('compose').toLowerCase();
    const compose = async (...args: string[]): Promise<string> => {
      const done = await finish(
        spawn('docker-compose', ['-p', project, ...args], {
          cwd: folder,
          env: docker.environment(),
          stdio: 'pipe',
        }),
      );
      if (done.code !== 0) throw new Error(`docker-compose ${args.join(' ')}: ${done.stderr}`);
      return done.stdout.trim();
    };
    try {
      await compose('up', '-d');
      await until(async () => (await compose('ps')).includes('(healthy)'), 'the database is healthy');
      const address = await compose('port', 'web', '80');
      expect(await (await fetch(`http://${address}/`)).text()).toBe('web got a row');
      expect(await compose('exec', '-T', 'web', 'cat', '/site/page')).toBe('from the host');
      expect(await compose('run', '--rm', '-T', 'web', 'echo', 'once')).toBe('once');
      await compose('up', '-d', '--force-recreate', 'web');
      expect(await (await fetch(`http://${await compose('port', 'web', '80')}/`)).text()).toBe(
        'web got a row',
      );
    } finally {
      await compose('down', '-v', '-t', '1');
      rmSync(folder, { recursive: true, force: true });
    }
    expect(await docker.ok(['network', 'ls', '-q', '--filter', `name=${project}`])).toBe('');
    expect(await docker.ok(['volume', 'ls', '-q', '--filter', `name=${project}`])).toBe('');
  });
});

const PYTHON = `
import docker, io, tarfile
client = docker.from_env()
assert client.ping()
assert client.containers.run('${IMAGE}', ['echo', 'hello'], remove=True) == b'hello\\n'
box = client.containers.run('${IMAGE}', ['sleep', '1000'], detach=True, labels={'by': 'python'})
assert box.status == 'created'
box.reload()
assert box.status == 'running'
code, (out, err) = box.exec_run(['sh', '-c', 'echo out; echo err >&2; exit 4'], demux=True)
assert (code, out, err) == (4, b'out\\n', b'err\\n'), (code, out, err)
data = io.BytesIO()
with tarfile.open(fileobj=data, mode='w') as tar:
    info = tarfile.TarInfo('note')
    info.size = 4
    tar.addfile(info, io.BytesIO(b'text'))
assert box.put_archive('/tmp', data.getvalue())
chunks, stat = box.get_archive('/tmp/note')
assert stat['name'] == 'note' and stat['size'] == 4
with tarfile.open(fileobj=io.BytesIO(b''.join(chunks))) as tar:
    assert tar.extractfile('note').read() == b'text'
assert [c.id for c in client.containers.list(filters={'label': 'by=python'})] == [box.id]
assert box.stats(stream=False)['pids_stats']['current'] >= 1
try:
    client.containers.run('${IMAGE}', ['sh', '-c', 'exit 5'], remove=True)
    raise AssertionError('no error')
except docker.errors.ContainerError as error:
    assert error.exit_status == 5
network = client.networks.create('python-net')
network.connect(box, aliases=['friend'])
assert client.containers.run('${IMAGE}', ['getent', 'hosts', 'friend'], network='python-net', remove=True)
network.disconnect(box)
network.remove()
box.remove(force=True)
print('done')
`;

describe.skipIf(lacking('/usr/lib/python3/dist-packages/docker'))('python3-docker', () => {
  it('runs, executes, copies, lists, connects, and tells exit codes', async () => {
    const done = await finish(
      spawn('/usr/bin/python3', ['-c', PYTHON], { env: docker.environment(), stdio: 'pipe' }),
    );
    expect(done.stderr).toBe('');
    expect(done.stdout).toBe('done\n');
  });
});
