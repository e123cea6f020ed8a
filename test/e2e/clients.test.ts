/** Clients that people use besides the docker CLI, each doing real work against the daemon. */
import { execFileSync, spawn } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { PassThrough, Writable } from 'node:stream';
import { buffer, text } from 'node:stream/consumers';
import { DockerClient } from '@docker/node-sdk';
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
    const followed = await container.logs({ follow: true, stdout: true, stderr: true });
    const [logOut, logErr] = [new PassThrough(), new PassThrough()];
    client.modem.demuxStream(followed, logOut, logErr);
    followed.on('end', () => [logOut, logErr].map((each) => each.end()));
    const logged = Promise.all([text(logOut), text(logErr)]);
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
    expect(await logged).toEqual([await stdout, await stderr]);
    const logs = await container.logs({ stdout: true, stderr: false });
    expect(logs.toString()).toContain('got two');
    await until(() => actions.includes('die'), 'the end was told');
    expect(actions).toEqual(
      expect.arrayContaining(['create', 'attach', 'start', 'exec_start: cat', 'exec_die', 'die']),
    );
    (events as unknown as { destroy(): void }).destroy();
  });
});

describeE2e('@docker/node-sdk', () => {
  it('makes a volume and a network, runs, executes, copies, follows logs, cleans up', async () => {
    const client = await DockerClient.fromDockerHost(`unix:${docker.address.socketPath}`);
    const name = uniqueName('sdk');
    try {
      expect((await client.systemVersion()).Os).toBe('linux');
      await client.volumeCreate({ Name: name });
      const network = await client.networkCreate({ Name: name });
      const { Id } = await client.containerCreate(
        {
          Image: IMAGE,
          Cmd: [
            'sh',
            '-c',
            'echo text > /data/note; echo out; echo err >&2; while [ ! -e /data/end ]; do sleep 0.05; done; exit 7',
          ],
          HostConfig: { Binds: [`${name}:/data`], NetworkMode: name },
        },
        { name },
      );
      await client.containerStart(Id);
      expect(Object.keys((await client.networkInspect(network.Id)).Containers ?? {})).toEqual([Id]);
      const sinks = [new PassThrough(), new PassThrough()] as const;
      const said = sinks.map((sink) => text(sink));
      const followed = client.containerLogs(Id, ...sinks, { follow: true, stdout: true, stderr: true });
      const outputs = [new PassThrough(), new PassThrough()] as const;
      const [told] = outputs.map((sink) => text(sink));
      const exec = await client.containerExec(Id, {
        Cmd: ['sh', '-c', 'ls /data; touch /data/end'],
        AttachStdout: true,
        AttachStderr: true,
      });
      await client.execStart(exec.Id, ...outputs, {});
      for (const sink of outputs) sink.end();
      expect(await told).toBe('note\n');
      expect((await client.execInspect(exec.Id)).ExitCode).toBe(0);
      expect(await client.containerWait(Id)).toEqual({ StatusCode: 7 });
      await followed;
      for (const sink of sinks) sink.end();
      expect(await Promise.all(said)).toEqual(['out\n', 'err\n']);
      const archive = new PassThrough();
      const copied = buffer(archive);
      await client.containerArchive(Id, '/data/note', Writable.toWeb(archive));
      expect((await copied).toString()).toContain('text\n');
      await client.containerDelete(Id);
      await client.networkDelete(name);
      await client.volumeDelete(name);
      await expect(client.containerInspect(Id)).rejects.toThrow();
    } finally {
      await client.close();
    }
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

/** The database's server (Debian's redis-tools holds it under this name) and its client. */
const REDIS = '/usr/bin/redis-check-rdb';
const REDIS_CLI = '/usr/bin/redis-cli';

const DOCKERFILE = `FROM scratch
COPY root /
VOLUME /data
EXPOSE 6379
HEALTHCHECK --interval=1s --retries=20 CMD ["${REDIS_CLI}", "ping"]
CMD ["/usr/bin/redis-server", "--dir", "/data", "--appendonly", "yes", "--appendfsync", "always", "--bind", "0.0.0.0", "--protected-mode", "no"]
`;

/** Counts its visitors in the database, by the database's own protocol. */
const SITE = `
const { connect } = require('net');
require('http').createServer((question, answer) => {
  const database = connect(6379, 'db', () => database.write('INCR visitors\\r\\n'));
  database.once('data', (said) => { answer.end('visitor ' + String(said).slice(1).trim()); database.end(); });
}).listen(80);
`;

const COMPOSE = `
services:
  db:
    build: ./db
    volumes: ["data:/data"]
  web:
    image: ${IMAGE}
    command: ["node", "/site/server.js"]
    ports: ["127.0.0.1::80"]
    volumes: ["./site:/site:ro"]
    depends_on:
      db: { condition: service_healthy }
    stop_signal: SIGKILL
volumes:
  data:
`;

/** The programs with the libraries that they need, as an image's root. */
function copyPrograms(root: string, programs: Record<string, string>): void {
  for (const [name, program] of Object.entries(programs)) {
    const libraries = execFileSync('ldd', [program]).toString().match(/\/\S+/g) ?? [];
    for (const [from, to] of [[program, name], ...libraries.map((library) => [library, library])]) {
      mkdirSync(join(root, dirname(to!)), { recursive: true });
      copyFileSync(from!, join(root, to!));
    }
  }
}

describe.skipIf(lacking('docker-compose', REDIS))('docker-compose 1.x', () => {
  it('a web server, a database and a health check: build, up, exec, logs, recreate, down', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'drydock-compose-'));
    for (const part of ['site', 'db']) mkdirSync(join(folder, part));
    copyPrograms(join(folder, 'db', 'root'), { '/usr/bin/redis-server': REDIS, [REDIS_CLI]: REDIS_CLI });
    writeFileSync(join(folder, 'db', 'Dockerfile'), DOCKERFILE);
    writeFileSync(join(folder, 'site', 'server.js'), SITE);
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
    const visit = async (): Promise<string> =>
      (await fetch(`http://${await compose('port', 'web', '80')}/`)).text();
    try {
      await compose('up', '-d');
      expect(await compose('ps')).toContain('(healthy)');
      expect(await visit()).toBe('visitor 1');
      expect(await compose('exec', '-T', 'db', REDIS_CLI, 'get', 'visitors')).toBe('1');
      expect(await compose('run', '--rm', '-T', 'web', 'echo', 'once')).toBe('once');
      await compose('up', '-d', '--force-recreate');
      expect(await visit()).toBe('visitor 2');
      expect(await compose('logs', '--no-color', 'db')).toContain('Ready to accept connections');
    } finally {
      await compose('down', '-v', '-t', '1', '--rmi', 'local');
      rmSync(folder, { recursive: true, force: true });
    }
    for (const kind of ['network', 'volume'])
      expect(await docker.ok([kind, 'ls', '-q', '--filter', `name=${project}`])).toBe('');
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
