/**
 * The calls of two orchestrators on a node, in the order in which their drivers make them: Nomad's docker driver
 * (drivers/docker: fingerprint.go, network.go, driver.go, handle.go, stats.go, docklog) and Kubernetes' cri-dockerd (core:
 * sandbox_run.go, container_create.go, container_list.go, stats_linux.go, exec.go). The orchestrators themselves don't run here.
 */
import { existsSync, readdirSync, readFileSync, readlinkSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PassThrough, Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import Dockerode from 'dockerode';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Docker, until } from '../support/e2e/daemon.ts';
import { sharedDocker, uniqueName } from '../support/e2e/session.ts';
import { E2E_NEEDS } from '../support/e2e/shared-daemon.ts';
import { directory, file, symlink, tarOf } from '../support/images.ts';
import { startRegistry, type TestRegistry } from '../support/registry.ts';
import { lacking } from '../support/requirements.ts';

/** CAP_SYS_RESOURCE (capability 24): without it no runtime can set the score that cri-dockerd wants. */
const mayLowerOomScore =
  (BigInt(`0x${/^CapEff:\s+(\w+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]}`) >> 24n) & 1n;

const TOOLS = 'sh sleep cat echo ip hostname stty true'.split(' ');

describe.skipIf(lacking(...E2E_NEEDS, '/bin/busybox', 'docker-registry'))('an orchestrator’s calls', () => {
  let docker: Docker;
  let client: Dockerode;
  let registry: TestRegistry;
  let image: string;
  const authconfig = (): object => ({
    username: 'user',
    password: 'secret',
    serveraddress: registry.domain,
  });
  const told = (stream: NodeJS.ReadableStream): Promise<unknown[]> =>
    new Promise((resolve, reject) =>
      client.modem.followProgress(stream, (error, lines) => (error ? reject(error) : resolve(lines))),
    );

  beforeAll(async () => {
    docker = sharedDocker();
    client = new Dockerode({ socketPath: docker.address.socketPath });
    registry = await startRegistry({ auth: 'basic' });
    image = `${registry.domain}/tools:1`;
    const tar = tarOf([
      ...['bin', 'etc', 'proc', 'sys', 'dev', 'tmp'].map((name) => directory(name, {})),
      file('bin/busybox', readFileSync('/bin/busybox'), { mode: 0o755 }),
      ...TOOLS.map((tool) => symlink(`bin/${tool}`, 'busybox')),
    ]);
    await told(
      await client.importImage(Readable.from([tar]), { repo: `${registry.domain}/tools`, tag: '1' }),
    );
    await told(await client.getImage(image).push({ authconfig: authconfig() }));
    await client.getImage(image).remove({ force: true });
  });
  afterAll(async () => {
    await docker.removeAll();
    await client?.getImage(image).remove({ force: true });
    await registry?.close();
  });

  /** What an exec with a terminal prints after its size was set. */
  async function execWithTerminal(container: Dockerode.Container, command: string[]): Promise<string> {
    const exec = await container.exec({
      Cmd: command,
      Tty: true,
      AttachStdin: true,
      AttachStdout: true,
      AttachStderr: true,
    });
    const stream = await exec.start({ hijack: true, stdin: true, Tty: true });
    await exec.resize({ h: 33, w: 77 });
    stream.write('go\n');
    const said = await text(stream);
    expect(await exec.inspect()).toMatchObject({ ExitCode: 0, Running: false });
    return said;
  }

  it('Nomad: fingerprint, pull, pause container, a task in its network, logs, stats, exec, signals, the end', async () => {
    // fingerprint.go
    expect((await client.version()).Version).toMatch(/^\d+\.\d+/);
    const bridge = (await client.listNetworks()).find(({ Name }) => Name === 'bridge');
    expect(bridge?.IPAM?.Config?.[0]?.Gateway).toMatch(/^\d+(\.\d+){3}$/);
    expect(await client.info()).toMatchObject({ OSType: 'linux', Runtimes: { drydock: {} } });

    // coordinator.go: an image that is not here is pulled with the credentials of its registry.
    await expect(client.getImage(image).inspect()).rejects.toMatchObject({ statusCode: 404 });
    await expect(client.pull(image).then(told)).rejects.toThrow(/denied|no basic auth|unauthorized/i);
    await told(await client.pull(image, { authconfig: authconfig() }));
    const { Id: imageId } = await client.getImage(image).inspect();

    // network.go: the pause container, found again by its name.
    const alloc = uniqueName('alloc');
    const labels = { 'com.hashicorp.nomad.alloc_id': alloc };
    const pause = await client.createContainer({
      name: `nomad_init_${alloc}`,
      Image: image,
      Cmd: ['sleep', '1000'],
      Hostname: 'group',
      Labels: labels,
      HostConfig: { NetworkMode: 'bridge', RestartPolicy: { Name: 'unless-stopped' } },
    });
    await pause.start();
    const listed = await client.listContainers({ all: true });
    const found = listed.find(({ Names }) => Names.includes(`/nomad_init_${alloc}`));
    const sandbox = await client.getContainer(found!.Id).inspect();
    const netns = (path: string): string => readlinkSync(path);
    const key = sandbox.NetworkSettings.SandboxKey;
    expect(netns(key)).toBe(netns(`/proc/${sandbox.State.Pid}/ns/net`));
    expect(netns(key)).not.toBe(netns('/proc/self/ns/net'));

    // driver.go: the task joins the group's network.
    const task = await client.createContainer({
      name: `task-${alloc}`,
      Image: imageId,
      Cmd: ['sh', '-c', 'trap "echo hup" HUP; echo out; echo err >&2; while :; do sleep 0.1; done'],
      Labels: labels,
      Env: ['NOMAD_ALLOC_DIR=/alloc'],
      HostConfig: {
        NetworkMode: `container:${pause.id}`,
        Memory: 64 << 20,
        CpuShares: 500,
        PidsLimit: 50,
        CapDrop: ['mknod'],
        Tmpfs: { '/secrets': 'size=1m' },
        LogConfig: { Type: 'json-file', Config: { 'max-file': '2', 'max-size': '2m' } },
      },
    });
    await task.start();
    const running = await task.inspect();
    expect(running).toMatchObject({ State: { Running: true, OOMKilled: false } });
    expect(netns(`/proc/${running.State.Pid}/ns/net`)).toBe(netns(key));
    const byLabel = await client.listContainers({
      filters: JSON.stringify({ label: [`com.hashicorp.nomad.alloc_id=${alloc}`] }),
    });
    expect(byLabel.map(({ Id }) => Id).sort()).toEqual([pause.id, task.id].sort());

    // docklog: follows from a time in RFC 3339 to the end of the task.
    const since = new Date(Date.parse(running.State.StartedAt) - 1000).toISOString();
    const logs = await client.getContainer(task.id).logs({
      follow: true,
      stdout: true,
      stderr: true,
      since: since as unknown as number,
    });
    const [out, err] = [new PassThrough(), new PassThrough()];
    const [stdout, stderr] = [text(out), text(err)];
    client.modem.demuxStream(logs, out, err);
    logs.on('end', () => {
      out.end();
      err.end();
    });

    // stats.go: one sample with the one before it.
    const stats = await task.stats({ stream: false });
    expect(stats.memory_stats.limit).toBe(64 << 20);
    expect(stats.precpu_stats.cpu_usage.total_usage).toBeGreaterThan(0);
    expect(stats.cpu_stats.cpu_usage.total_usage).toBeGreaterThanOrEqual(
      stats.precpu_stats.cpu_usage.total_usage,
    );

    // handle.go
    expect(await execWithTerminal(task, ['sh', '-c', 'read go; stty size; hostname'])).toContain('33 77');
    const waited = task.wait();
    await task.kill({ signal: 'SIGHUP' });
    await until(
      async () => (await task.logs({ stdout: true })).toString().includes('hup'),
      'the signal is told',
    );
    await task.stop({ t: 0 });
    expect(await waited).toEqual({ StatusCode: 137 });
    expect([await stdout, await stderr]).toEqual(['out\nhup\n', 'err\n']);
    await expect(task.stop({ t: 0 })).rejects.toMatchObject({ statusCode: 304 });
    await task.remove({ force: true, v: true });
    await expect(task.inspect()).rejects.toMatchObject({ statusCode: 404 });

    // DestroyNetwork
    await pause.stop({ t: 1 });
    await pause.remove({ force: true });
    expect(existsSync(key)).toBe(false);
  });

  it('cri-dockerd: a pod’s sandbox, a container in it, its log, stats, resources, exec, lists, the end', async () => {
    expect((await client.info()).CgroupDriver).toBe('cgroupfs');
    expect(Number((await client.version()).ApiVersion.split('.')[1])).toBeGreaterThanOrEqual(43);
    await told(await client.pull(image, { authconfig: authconfig() }));
    expect((await client.getImage(image).history()).length).toBeGreaterThan(0);

    // sandbox_run.go
    const pod = uniqueName('pod');
    const parent = `/drydock-test-${pod}`;
    const cleanParents = (): void => {
      for (const hierarchy of ['', ...readdirSync('/sys/fs/cgroup')]) {
        const path = join('/sys/fs/cgroup', hierarchy, parent);
        if (existsSync(path)) rmdirSync(path);
      }
    };
    const config = (type: string) => ({
      'io.kubernetes.docker.type': type,
      'io.kubernetes.pod.uid': pod,
      'io.kubernetes.container.name': type === 'podsandbox' ? 'POD' : 'app',
    });
    const sandbox = await client.createContainer({
      name: `k8s_POD_${pod}_default_0`,
      Image: image,
      Cmd: ['sleep', '1000'],
      Hostname: pod,
      Labels: config('podsandbox'),
      ExposedPorts: { '80/tcp': {} },
      HostConfig: {
        IpcMode: 'shareable',
        OomScoreAdj: mayLowerOomScore ? -998 : 100,
        CpuShares: 2,
        CgroupParent: parent,
        SecurityOpt: ['seccomp=unconfined'],
        Sysctls: { 'net.ipv4.ip_unprivileged_port_start': '0' },
        PortBindings: { '80/tcp': [{ HostIp: '127.0.0.1', HostPort: '' }] },
      },
    });
    await sandbox.start();
    const inspected = await sandbox.inspect();
    // The kubelet's resolv.conf takes the place of docker's, on the host.
    writeFileSync(inspected.ResolvConfPath, 'nameserver 10.96.0.10\nsearch default.svc.cluster.local\n');
    const netns = `/proc/${inspected.State.Pid}/ns/net`;
    expect(existsSync(netns)).toBe(true);
    expect(inspected.NetworkSettings.Networks.bridge!.IPAddress).toMatch(/^\d+(\.\d+){3}$/);

    // container_create.go
    const request = {
      name: `k8s_app_${pod}_default_0`,
      Image: image,
      Entrypoint: ['sh'],
      Cmd: ['-c', 'cat /etc/resolv.conf; hostname; exec sleep 1000'],
      Labels: { ...config('container'), 'io.kubernetes.sandbox.id': sandbox.id },
      Healthcheck: { Test: ['NONE'] },
      HostConfig: {
        NetworkMode: `container:${sandbox.id}`,
        IpcMode: `container:${sandbox.id}`,
        CgroupParent: parent,
        RestartPolicy: { Name: 'no' },
        Memory: 64 << 20,
        OomScoreAdj: 1000,
        MaskedPaths: ['/proc/acpi', '/proc/kcore'],
        ReadonlyPaths: ['/proc/sys'],
        SecurityOpt: ['seccomp=unconfined'],
      },
    };
    const app = await client.createContainer(request);
    // recoverFromCreationConflictIfNeeded reads the id out of the text.
    const conflict = await client.createContainer(request).catch((error: Error) => error.message);
    expect(
      /Conflict. (?:.)+ is already in use by container "?([0-9a-z]+)"?/.exec(String(conflict))?.[1],
    ).toBe(app.id);
    await app.start();
    const started = await app.inspect();
    expect(readlinkSync(`/proc/${started.State.Pid}/ns/net`)).toBe(readlinkSync(netns));
    expect(readlinkSync(`/proc/${started.State.Pid}/ns/ipc`)).toBe(
      readlinkSync(`/proc/${inspected.State.Pid}/ns/ipc`),
    );
    expect(readFileSync(`/proc/${started.State.Pid}/cgroup`, 'utf8')).toContain(`${parent}/`);

    // The kubelet reads the file behind a link to LogPath.
    const lines = (): string =>
      readFileSync(started.LogPath, 'utf8')
        .trim()
        .split('\n')
        .map((line) => (line === '' ? '' : (JSON.parse(line) as { log: string }).log))
        .join('');
    const wanted = `nameserver 10.96.0.10\nsearch default.svc.cluster.local\n${pod}\n`;
    await expect.poll(lines, { timeout: 10_000 }).toBe(wanted);

    // container_list.go, sandbox_list.go
    const ids = async (filters: object): Promise<string[]> =>
      (await client.listContainers({ all: true, filters: JSON.stringify(filters) })).map(({ Id }) => Id);
    const uid = `io.kubernetes.pod.uid=${pod}`;
    expect(await ids({ label: ['io.kubernetes.docker.type=podsandbox', uid] })).toEqual([sandbox.id]);
    expect(await ids({ label: ['io.kubernetes.docker.type=container', uid], status: ['running'] })).toEqual([
      app.id,
    ]);
    expect(await ids({ id: [app.id], status: ['exited'] })).toEqual([]);

    // stats_linux.go, container_update_resources.go
    const one = await app.stats({ stream: false, 'one-shot': true });
    expect(one.memory_stats.usage).toBeGreaterThan(0);
    expect(one.precpu_stats.cpu_usage.total_usage).toBe(0);
    await app.update({ Memory: 96 << 20, MemorySwap: 96 << 20, CpuShares: 300 });
    expect((await app.stats({ stream: false, 'one-shot': true })).memory_stats.limit).toBe(96 << 20);

    // exec.go
    expect(await execWithTerminal(app, ['sh', '-c', 'read go; stty size'])).toContain('33 77');
    const failing = await app.exec({ Cmd: ['sh', '-c', 'exit 7'], AttachStdout: true });
    await text(await failing.start({ hijack: true, stdin: false }));
    expect(await failing.inspect()).toMatchObject({ ExitCode: 7, Running: false, ContainerID: app.id });

    // container_stop.go, container_remove.go, sandbox_stop.go
    await app.stop({ t: 0 });
    expect(await app.inspect()).toMatchObject({ State: { Status: 'exited', ExitCode: 137 } });
    await app.remove({ v: true, force: true });
    await sandbox.stop({ t: 0 });
    await sandbox.remove({ v: true, force: true });
    expect(await ids({ label: [uid] })).toEqual([]);
    cleanParents();
  });
});
