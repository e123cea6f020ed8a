/**
 * `drydock net` in gvproxy's place: a machine plugs in as podman's would, and everything that podman, lima and crc take for
 * granted is there. The command runs in a namespace of its own, so that its fixed ports meet nobody's.
 */
import { execFileSync, type StdioOptions } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { compiledEntry } from '#common/entry';
import { documentedMetrics } from '../support/documented-metrics.ts';
import { startMachine } from '../support/machine.ts';
import { Netns, type Running } from '../support/netns.ts';
import { NinepClient } from '../support/ninep-client.ts';
import { lacking } from '../support/requirements.ts';

const MACHINE_MAC = '5a:94:ef:e4:0c:ee';
const MACHINE = '192.168.127.2';
const GATEWAY = '192.168.127.1';

describe.skipIf(
  lacking('root', '/dev/net/tun', 'ip', 'udhcpc', 'dig', 'curl', 'tcpdump', 'ssh', 'sshd', 'ssh-keygen'),
)('drydock net', () => {
  let edge: Netns;
  let machine: Netns;
  let folder: string;
  let control: string;
  let command: Running;
  let script: string;

  async function start(...args: string[]): Promise<Running> {
    const running = edge.start(
      process.execPath,
      compiledEntry('daemon/bin'),
      'net',
      ...args,
      '-pid-file',
      join(folder, 'pid'),
    );
    let failure: string | undefined;
    void running.ended.then(({ stderr }) => {
      failure = stderr;
    });
    await vi.waitFor(() => {
      if (failure !== undefined) throw new Error(failure);
      expect(existsSync(join(folder, 'pid'))).toBe(true);
    }, 20_000);
    return running;
  }

  beforeAll(async () => {
    [edge, machine] = [new Netns(), new Netns()];
    folder = mkdtempSync(join(tmpdir(), 'netstack-cli-'));
    control = join(folder, 'control.sock');
    execFileSync('ip', ['-n', edge.name, 'link', 'set', 'lo', 'up']);
    // As udhcpc's script does it, for one interface and without touching this machine's resolv.conf.
    script = join(folder, 'configure');
    writeFileSync(
      script,
      '#!/bin/sh\n[ "$1" = bound ] && ip addr add $ip/$mask dev $interface && ip route add default via $router\nexit 0\n',
      { mode: 0o755 },
    );
    command = await start(
      '-listen',
      `unix://${control}`,
      '-listen-qemu',
      `unix://${folder}/qemu.sock`,
      '--services',
      `unix://${folder}/services.sock`,
      '-pcap',
      join(folder, 'pcap'),
      '-mtu=1500',
      '-debug',
      '-forward-sock',
      join(folder, 'forwarded.sock'),
      '-forward-dest',
      join(folder, 'inner.sock'),
      '-forward-user',
      'root',
      '-forward-identity',
      join(folder, 'user'),
      '-lease-file',
      join(folder, 'leases'),
      ...['--port', join(folder, 'ports.sock'), '--introspection', join(folder, 'introspection.sock')],
      ...['--diagnostics', join(folder, 'diagnostics.sock')],
    );
    await startMachine(machine, { protocol: 'qemu', path: join(folder, 'qemu.sock'), mtuBytes: 1500 });
    execFileSync('ip', ['-n', machine.name, 'link', 'set', 'dev', 'eth0', 'address', MACHINE_MAC]);
  });
  afterAll(async () => {
    // The command first: its ssh holds a session of the machine's sshd, and that the pipe of its output.
    await edge?.remove();
    await machine?.remove();
    rmSync(folder, { recursive: true });
  });

  async function call(
    method: string,
    path: string,
    body?: object,
    socketPath = control,
  ): Promise<{ status: number; text: string }> {
    const request = http.request({ socketPath, method, path, agent: false });
    request.end(body && JSON.stringify(body));
    return new Promise((resolve, reject) => {
      request.on('error', reject).on('response', async (response) => {
        let text = '';
        for await (const chunk of response) text += chunk;
        resolve({ status: response.statusCode!, text });
      });
    });
  }
  const getJson = async (path: string): Promise<unknown> => JSON.parse((await call('GET', path)).text);

  /** A server in the machine that answers what it hears, once. */
  async function echo(port: number): Promise<Running> {
    const server = machine.start(
      process.execPath,
      '-e',
      `require('node:net').createServer((s) => s.once('data', (d) => s.end('echo ' + d + ' to ' + s.remoteAddress))).listen(${port}, () => console.log('up'))`,
    );
    await server.line(/up/);
    return server;
  }

  test("the first machine gets gvproxy's address for its MAC by DHCP", async () => {
    const { code, stderr } = await machine.run(
      'udhcpc',
      '-i',
      'eth0',
      '-n',
      '-q',
      '-f',
      '-t',
      '5',
      '-T',
      '1',
      '-s',
      script,
    );
    expect({ code, stderr }).toMatchObject({
      code: 0,
      stderr: expect.stringMatching(/lease of 192\.168\.127\.2 obtained/),
    });
    expect(await getJson('/services/dhcp/leases')).toEqual({
      [GATEWAY]: '5a:94:ef:e4:0c:dd',
      [MACHINE]: MACHINE_MAC,
    });
    expect(await getJson('/cam')).toMatchObject({ [MACHINE_MAC]: expect.any(Number) });
  });

  test.each([
    ['gateway.containers.internal', GATEWAY],
    ['host.containers.internal', '192.168.127.254'],
    ['host.docker.internal', '192.168.127.254'],
  ])('%s is %s', async (name, address) => {
    expect((await machine.run('dig', '+short', '+tries=1', `@${GATEWAY}`, name)).stdout.trim()).toBe(address);
  });

  test("the host's loopback is reached at its two addresses", async () => {
    const server = edge.start(
      process.execPath,
      '-e',
      "require('node:http').createServer((q, s) => s.end('the host')).listen(8080, '127.0.0.1', () => console.log('up'))",
    );
    await server.line(/up/);
    for (const address of [GATEWAY, '192.168.127.254'])
      expect((await machine.run('curl', '-sS', '-m', '5', `http://${address}:8080/`)).stdout).toBe(
        'the host',
      );
    server.kill();
  });

  test("its port 22 is the host's 2222", async () => {
    const server = await echo(22);
    expect(await getJson('/services/forwarder/all')).toEqual([
      { local: '127.0.0.1:2222', remote: `${MACHINE}:22`, protocol: 'tcp' },
    ]);
    const heard = await edge.node(
      "const s = require('node:net').connect(2222, '127.0.0.1', () => s.write('ssh')); s.pipe(process.stdout)",
    );
    expect(heard).toBe(`echo ssh to ::ffff:${GATEWAY}`);
    server.kill();
  });

  test('ports and sockets are exposed and unexposed while it runs', async () => {
    const server = await echo(80);
    const local = join(folder, 'exposed.sock');
    const wish = { local, remote: `tcp://${MACHINE}:80`, protocol: 'unix' };
    expect((await call('POST', '/services/forwarder/expose', wish)).status).toBe(200);
    const heard = await new Promise((resolve) => {
      const client = net.connect(local, () => client.write('socket'));
      client.once('data', (data) => resolve(String(data)));
    });
    expect(heard).toBe(`echo socket to ::ffff:${GATEWAY}`);
    expect((await call('POST', '/services/forwarder/unexpose', wish)).status).toBe(200);
    expect(existsSync(local)).toBe(false);
    server.kill();
  });

  test('/tunnel reaches the machine, and is a flow while it lasts', async () => {
    const server = await echo(81);
    const client = net.connect({ path: control, allowHalfOpen: true });
    client.write(`GET /tunnel?ip=${MACHINE}&port=81 HTTP/1.1\r\nHost: x\r\n\r\n`);
    let heard = '';
    for await (const chunk of client) {
      heard += chunk;
      if (heard !== 'OK') continue;
      expect(await getJson('/flows')).toContainEqual(
        expect.objectContaining({ protocol: 'tcp', guest: `${MACHINE}:81`, state: 'established' }),
      );
      client.write('tunnel');
    }
    expect(heard).toBe(`OKecho tunnel to ::ffff:${GATEWAY}`);
    client.destroy();
    server.kill();
  });

  test("VPNKit's clients publish by 9P, look at flows and captures, and get them as an archive", async () => {
    const server = await echo(82);
    const client = await NinepClient.attach(join(folder, 'ports.sock'));
    await client.makeFolder('web');
    const ctl = await client.open(2, 'web', 'ctl');
    await client.write(ctl, `tcp:127.0.0.1:0:tcp:${MACHINE}:82`);
    const said = (await client.readAll(ctl)).toString();
    const port = Number(/^OK tcp:127\.0\.0\.1:(\d+):tcp:192\.168\.127\.2:82\n$/.exec(said)?.[1]);
    const held = edge.start(
      process.execPath,
      '-e',
      `require('node:net').connect(${port}, '127.0.0.1', () => console.log('up'))`,
    );
    await held.line(/up/);
    const look = await NinepClient.attach(join(folder, 'introspection.sock'));
    expect(await look.list()).toEqual(['connections', 'capture/', 'flows', 'endpoints', 'ports']);
    await vi.waitFor(async () =>
      expect(String(await look.readFile('flows'))).toMatch(
        /^192\.168\.127\.2:82 -> .* socket = established/m,
      ),
    );
    expect(String(await look.readFile('ports'))).toMatch(new RegExp(`^${MACHINE} ${MACHINE_MAC} `, 'm'));
    held.kill();
    const heard = await edge.node(
      `const s = require('node:net').connect(${port}, '127.0.0.1', () => s.write('9P')); s.pipe(process.stdout)`,
    );
    expect(heard).toBe(`echo 9P to ::ffff:${GATEWAY}`);
    client.close();
    await vi.waitFor(async () => expect(await getJson('/services/forwarder/all')).toHaveLength(1));
    look.close();
    const parts: Buffer[] = [];
    for await (const chunk of net.connect(join(folder, 'diagnostics.sock'))) parts.push(chunk as Buffer);
    const input = Buffer.concat(parts);
    expect(execFileSync('tar', ['-t'], { input, encoding: 'utf8' }).split('\n')).toContain(
      'capture/dns.pcap',
    );
    const dns = execFileSync('tar', ['-xO', 'capture/dns.pcap'], { input });
    const stdio: StdioOptions = ['pipe', 'pipe', 'ignore'];
    expect(execFileSync('tcpdump', ['-nr', '-'], { input: dns, encoding: 'utf8', stdio })).toMatch(
      /A\? host\.docker\.internal/,
    );
    server.kill();
  });

  test('a socket leads to one in the machine over SSH, once the machine is up', async () => {
    for (const name of ['host', 'user'])
      execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', join(folder, name)]);
    mkdirSync('/run/sshd', { recursive: true });
    writeFileSync(
      join(folder, 'sshd_config'),
      `HostKey ${folder}/host\nAuthorizedKeysFile ${folder}/user.pub\nPidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin yes\n`,
    );
    const sshd = machine.start('/usr/sbin/sshd', '-D', '-e', '-f', join(folder, 'sshd_config'));
    const inner = machine.start(
      process.execPath,
      '-e',
      `require('node:net').createServer((s) => s.end('inner')).listen(${JSON.stringify(join(folder, 'inner.sock'))}, () => console.log('up'))`,
    );
    await inner.line(/up/);
    const forwarded = join(folder, 'forwarded.sock');
    await vi.waitFor(() => expect(existsSync(forwarded)).toBe(true), 30_000);
    let heard = '';
    for await (const chunk of net.connect(forwarded)) heard += chunk;
    expect(heard).toBe('inner');
    // The same by the control API, as crc asks for it.
    const local = join(folder, 'tunnel.sock');
    const remote = `ssh-tunnel://root@${MACHINE}:22${folder}/inner.sock?key=${folder}/user`;
    expect(await call('POST', '/services/forwarder/expose', { local, remote, protocol: 'unix' })).toEqual({
      status: 200,
      text: '',
    });
    await vi.waitFor(() => expect(existsSync(local)).toBe(true), 30_000);
    heard = '';
    for await (const chunk of net.connect(local)) heard += chunk;
    expect(heard).toBe('inner');
    await call('POST', '/services/forwarder/unexpose', { local, protocol: 'unix' });
    expect(existsSync(local)).toBe(false);
    inner.kill();
    sshd.kill();
  });

  test('names are added while it runs, and counters are shown', async () => {
    const zone = { Name: 'crc.testing.', Records: [{ Name: 'api', IP: '10.0.0.1' }], DefaultIP: '' };
    expect((await call('POST', '/services/dns/add', zone)).status).toBe(200);
    expect((await machine.run('dig', '+short', `@${GATEWAY}`, 'api.crc.testing')).stdout.trim()).toBe(
      '10.0.0.1',
    );
    expect(await getJson('/services/dns/all')).toContainEqual(zone);
    const { text } = await call('GET', '/metrics');
    expect(text).toMatch(/^drydock_net_dns_queries_udp_total\{network="net"\} [1-9]/m);
    // The reference has each of them, with its kind, and no other.
    const exposed = [...text.matchAll(/^# TYPE drydock_net_(\S+) (\w+)$/gm)].map(([, ...row]) => row);
    expect(documentedMetrics('A network')).toEqual(exposed.sort());
  });

  test("the control socket is its owner's alone; --services has all but /connect", async () => {
    expect(statSync(control).mode & 0o777).toBe(0o600);
    const services = join(folder, 'services.sock');
    expect((await call('GET', '/leases', undefined, services)).status).toBe(200);
    expect((await call('POST', '/connect', undefined, services)).status).toBe(404);
  });

  test('a second machine comes by POST /connect, and reaches the first', async () => {
    const second = new Netns();
    try {
      await startMachine(second, { protocol: 'connect', path: control, mtuBytes: 1500 });
      const { code } = await second.run(
        'udhcpc',
        '-i',
        'eth0',
        '-n',
        '-q',
        '-f',
        '-t',
        '5',
        '-T',
        '1',
        '-s',
        script,
      );
      expect(code).toBe(0);
      expect((await second.run('ping', '-c', '1', '-W', '5', MACHINE)).stdout).toMatch(/1 received/);
    } finally {
      await second.remove();
    }
  });

  test("a file's nat and virtual addresses lead to the host, and notifications tell who comes and goes", async () => {
    const other = new Netns();
    const heard: unknown[] = [];
    const listener = net.createServer(async (socket) => {
      let line = '';
      for await (const chunk of socket) line += chunk;
      heard.push(JSON.parse(line));
    });
    let running: Running | undefined;
    try {
      listener.listen(join(folder, 'notify.sock'));
      execFileSync('ip', ['-n', edge.name, 'addr', 'add', '10.9.9.9/32', 'dev', 'lo']);
      const file = join(folder, 'nat.yaml');
      writeFileSync(
        file,
        'stack: { nat: { 192.168.127.200: 10.9.9.9, 10.50.0.1: 127.0.0.1 }, gatewayVirtualIPs: [192.168.127.200] }\n',
      );
      const qemu = join(folder, 'other.sock');
      running = edge.start(
        process.execPath,
        compiledEntry('daemon/bin'),
        ...['net', '-config', file, '-listen-qemu', `unix://${qemu}`],
        ...['-notification', `unix://${folder}/notify.sock`],
      );
      await vi.waitFor(() => expect(heard).toEqual([{ notification_type: 'ready' }]), 10_000);
      const wire = await startMachine(other, { protocol: 'qemu', path: qemu, mtuBytes: 1500 });
      execFileSync('ip', ['-n', other.name, 'addr', 'add', '192.168.127.2/24', 'dev', 'eth0']);
      execFileSync('ip', ['-n', other.name, 'route', 'add', 'default', 'via', GATEWAY]);
      // A connected socket takes answers only from where it sent to.
      const server = edge.start(
        process.execPath,
        '-e',
        "const s = require('node:dgram').createSocket('udp4'); s.on('message', (m, r) => s.send(m + ' at ' + s.address().address, r.port, r.address)); s.bind(9000, process.argv[1], () => console.log('up'))",
        '10.9.9.9',
      );
      await server.line(/up/);
      const { stdout } = await other.run(
        process.execPath,
        '-e',
        "const s = require('node:dgram').createSocket('udp4'); s.on('message', (m) => { console.log(String(m)); s.close(); }); s.connect(9000, '192.168.127.200', () => s.send('hello')); setTimeout(() => process.exit(1), 3000).unref()",
      );
      server.kill();
      expect(stdout).toBe('hello at 10.9.9.9\n');
      const web = edge.start(
        process.execPath,
        '-e',
        "require('node:http').createServer((q, s) => s.end('the host')).listen(8081, '127.0.0.1', () => console.log('up'))",
      );
      await web.line(/up/);
      const reached = await other.run('curl', '-sS', '-m', '3', 'http://10.50.0.1:8081/');
      web.kill();
      expect(reached.stdout).toBe('the host');
      const [{ address: mac }] = JSON.parse(
        execFileSync('ip', ['-n', other.name, '-j', 'link', 'show', 'eth0'], { encoding: 'utf8' }),
      );
      await vi.waitFor(
        () => expect(heard[1]).toEqual({ notification_type: 'connection_established', mac_address: mac }),
        3000,
      );
      wire.kill();
      await vi.waitFor(
        () => expect(heard[2]).toEqual({ notification_type: 'connection_closed', mac_address: mac }),
        3000,
      );
    } finally {
      running?.kill();
      await running?.ended;
      await other.remove();
      listener.close();
    }
  });

  test('-version tells it and runs nothing', async () => {
    const { code, stdout } = await edge.run(process.execPath, compiledEntry('daemon/bin'), 'net', '-version');
    expect(code).toBe(0);
    expect(stdout).toMatch(/^drydock net version \d+\.\d+\.\d+/);
  });

  test('a second command is told that the sockets are in use', async () => {
    const { code, stderr } = await edge.run(
      process.execPath,
      compiledEntry('daemon/bin'),
      'net',
      '-listen',
      `unix://${control}`,
      '-ssh-port',
      '-1',
    );
    expect(code).toBe(1);
    expect(stderr).toMatch(/Somebody listens on .* already\. Stop it, or choose another path\./);
  });

  test('SIGTERM ends it and leaves nothing; the capture is whole', async () => {
    process.kill(Number(readFileSync(join(folder, 'pid'), 'utf8')), 'SIGTERM');
    expect(await command.ended).toMatchObject({ code: 0 });
    for (const name of ['forwarded', 'control', 'services', 'qemu', 'ports', 'introspection', 'diagnostics'])
      expect(existsSync(join(folder, `${name}.sock`))).toBe(false);
    expect(existsSync(join(folder, 'pid'))).toBe(false);
    expect(JSON.parse(readFileSync(join(folder, 'leases'), 'utf8'))).toMatchObject([
      { address: '192.168.127.3' },
    ]);
    const captured = execFileSync('tcpdump', ['-nr', join(folder, 'pcap'), 'udp', 'port', '67'], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    expect(captured).toMatch(/BOOTP\/DHCP, Request from 5a:94:ef:e4:0c:ee/);
  });
});
