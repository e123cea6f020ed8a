/**
 * `drydock net` as the tools start it in place of their own network, with what they then ask of it: podman machine
 * (pkg/machine/shim/networking.go, libpod/networking_machine.go), lima (pkg/networks/usernet), crc (cmd/crc/cmd/daemon.go,
 * pkg/crc/machine/vsock.go), minikube by socket_vmnet, and hyperkit (src/lib/pci_virtio_net_vpnkit.c).
 */
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { compiledEntry } from '#common/entry';
import { type MachineWire, startMachine } from '../support/machine.ts';
import { Netns, type Running } from '../support/netns.ts';
import { lacking } from '../support/requirements.ts';

describe.skipIf(
  lacking(
    'root',
    '/dev/net/tun',
    'ip',
    'udhcpc',
    'dig',
    'curl',
    'ping',
    'tcpdump',
    'systemd-socket-activate',
  ),
)('drydock net serves', () => {
  let edge: Netns;
  let machine: Netns;
  let folder: string;

  beforeEach(() => {
    [edge, machine] = [new Netns(), new Netns()];
    folder = mkdtempSync(join(tmpdir(), 'netstack-drop-in-'));
    execFileSync('ip', ['-n', edge.name, 'link', 'set', 'lo', 'up']);
  });
  afterEach(async () => {
    await edge.remove();
    await machine.remove();
    rmSync(folder, { recursive: true });
  });

  const at = (name: string): string => join(folder, name);

  /** Starts the command, until its pid file is there. */
  async function start(...args: string[]): Promise<Running> {
    const running = edge.start(
      process.execPath,
      compiledEntry('daemon/bin'),
      'net',
      ...args,
      '-pid-file',
      at('pid'),
    );
    const failed = running.ended.then(({ stderr }) => {
      throw new Error(stderr);
    });
    const ready = vi.waitFor(() => expect(existsSync(at('pid'))).toBe(true), 20_000);
    await Promise.race([ready, failed]);
    // That it ends once it has begun is no failure.
    failed.catch(() => {});
    return running;
  }

  /** Plugs a machine in and lets it have an address by DHCP, which is returned. */
  async function boot(netns: Netns, mac: string, wire: Omit<MachineWire, 'mtuBytes'>): Promise<string> {
    await startMachine(netns, { ...wire, mtuBytes: 1500 });
    execFileSync('ip', ['-n', netns.name, 'link', 'set', 'dev', 'eth0', 'address', mac]);
    const script = at('configure');
    writeFileSync(
      script,
      '#!/bin/sh\n[ "$1" = bound ] && ip addr add $ip/$mask dev $interface && ip route add default via $router\nexit 0\n',
      { mode: 0o755 },
    );
    const flags = ['-i', 'eth0', '-n', '-q', '-f', '-t', '5', '-T', '1', '-s', script];
    const { code, stderr } = await netns.run('udhcpc', ...flags);
    expect({ code, stderr }).toMatchObject({ code: 0 });
    return /lease of (\S+) obtained/.exec(stderr)![1]!;
  }

  /** A server in the machine that says which port it is at. */
  async function answerAt(port: number): Promise<void> {
    const server = machine.start(
      process.execPath,
      '-e',
      `require('node:net').createServer((s) => s.on('error', () => {}).end('port ${port}')).listen(${port}, () => console.log('up'))`,
    );
    await server.line(/up/);
  }
  const hear = (port: number): Promise<string> =>
    edge.node(
      `require('node:net').connect(${port}, '127.0.0.1').on('error', (e) => console.log(e.code)).pipe(process.stdout)`,
    );

  /** What gvproxy's Go client does: JSON to a path of a socket; the answer's status and text. */
  async function call(
    socketPath: string,
    path: string,
    body?: object,
  ): Promise<[status: number, text: string]> {
    const method = body ? 'POST' : 'GET';
    const request = http.request({ socketPath, method, path, agent: false, headers: { Host: 'unix' } });
    request.end(body && JSON.stringify(body));
    const [response] = (await once(request, 'response')) as [http.IncomingMessage];
    let text = '';
    for await (const chunk of response) text += chunk;
    return [response.statusCode!, text];
  }
  const digs = async (server: string, name: string): Promise<string> =>
    (await machine.run('dig', '+short', '+tries=1', `@${server}`, name)).stdout.trim();

  test('podman machine: its command line, the ports of its containers, and its way to end', async () => {
    const flags = [
      ...['-mtu', '1500', '-ssh-port', '40022', '-listen-qemu', `unix://${at('m-gvproxy.sock')}`],
      ...['-forward-sock', at('m-api.sock'), '-forward-dest', '/run/user/1000/podman/podman.sock'],
      ...['-forward-user', 'core', '-forward-identity', at('identity'), '-log-file', at('gvproxy.log')],
    ];
    const first = await start(...flags);
    // strconv.Atoi takes no line feed.
    expect(readFileSync(at('pid'), 'utf8')).toMatch(/^\d+$/);
    expect(await boot(machine, '5a:94:ef:e4:0c:ee', { protocol: 'qemu', path: at('m-gvproxy.sock') })).toBe(
      '192.168.127.2',
    );
    await answerAt(8080);
    // `podman run -p 8080:8080` in the machine.
    const gateway =
      '--resolve gateway.containers.internal:80:192.168.127.1 http://gateway.containers.internal/services/forwarder';
    const ask = async (verb: string, body: object): Promise<string> => {
      const json = [
        '-H',
        'Accept: application/json',
        '-H',
        'Content-Type: application/json',
        '-d',
        JSON.stringify(body),
      ];
      const flags = ['-sS', '-m', '5', '-w', '%{http_code}', ...json];
      return (await machine.run('curl', ...flags, ...`${gateway}/${verb}`.split(' '))).stdout;
    };
    expect(await ask('expose', { local: ':8080', remote: ':8080', protocol: 'tcp' })).toBe('200');
    expect(await hear(8080)).toBe('port 8080');
    expect(await ask('unexpose', { local: ':8080', protocol: 'tcp' })).toBe('200');
    expect(await hear(8080)).toBe('ECONNREFUSED');
    await answerAt(22);
    expect(await hear(40022)).toBe('port 22');
    // It is killed, and started again over what it left.
    process.kill(Number(readFileSync(at('pid'), 'utf8')), 'SIGKILL');
    await first.ended;
    rmSync(at('pid'));
    await start(...flags);
  });

  test('lima: its network as a file, names, ssh, and the wait for it', async () => {
    writeFileSync(
      at('lima.yaml'),
      `stack:
  mtu: 1500
  subnet: 192.168.104.0/24
  gatewayIP: 192.168.104.2
  gatewayMacAddress: 5a:94:ef:e4:0c:dd
  dhcpStaticLeases: { 192.168.104.2: 5a:94:ef:e4:0c:dd, 192.168.104.7: 52:55:55:00:00:07 }
  dns: []
  nat: { 192.168.104.2: 127.0.0.1 }
  gatewayVirtualIPs: [192.168.104.2]
`,
    );
    const endpoint = at('user-v2_ep.sock');
    await start(
      '--config',
      at('lima.yaml'),
      '--listen',
      `unix://${endpoint}`,
      '--listen-qemu',
      `unix://${at('user-v2_qemu.sock')}`,
    );
    expect(
      await boot(machine, '52:55:55:00:00:07', { protocol: 'qemu', path: at('user-v2_qemu.sock') }),
    ).toBe('192.168.104.7');
    expect(JSON.parse((await call(endpoint, '/services/dhcp/leases'))[1])).toEqual({
      '192.168.104.2': '5a:94:ef:e4:0c:dd',
      '192.168.104.7': '52:55:55:00:00:07',
    });
    const wait = call(endpoint, '/extension/wait_port?ip=192.168.104.7&port=22&timeout=30');
    await answerAt(22);
    expect(await wait).toEqual([200, '']);
    const ssh = { local: '127.0.0.1:60022', remote: '192.168.104.7:22', protocol: 'tcp' };
    expect(await call(endpoint, '/services/forwarder/expose', ssh)).toEqual([200, '']);
    expect(await hear(60022)).toBe('port 22');
    for (const [zone, name, IP] of [
      ['lima.internal.', 'host', '192.168.104.2'],
      ['internal.', 'lima-default', '192.168.104.7'],
    ])
      expect(
        await call(endpoint, '/services/dns/add', { Name: zone, Records: [{ Name: name, IP }] }),
      ).toEqual([200, '']);
    expect(await digs('192.168.104.2', 'host.lima.internal')).toBe('192.168.104.2');
    expect(await digs('192.168.104.2', 'lima-default.internal')).toBe('192.168.104.7');
    expect(
      await call(endpoint, '/services/forwarder/unexpose', { local: ssh.local, protocol: 'tcp' }),
    ).toEqual([200, '']);
  });

  test('crc: its network as a file, a machine by POST /connect, and its list of ports', async () => {
    writeFileSync(
      at('crc.yaml'),
      `stack:
  mtu: 4000
  dhcpStaticLeases: { 192.168.127.2: 5a:94:ef:e4:0c:ee }
  dns:
    - { name: apps-crc.testing., defaultIP: 192.168.127.2 }
    - name: crc.testing.
      records:
        - { name: host, ip: 192.168.127.254 }
        - { name: api, ip: 192.168.127.2 }
        - { regexp: crc-(.*?)-master-0, ip: 192.168.126.11 }
    - { name: containers.internal., records: [{ name: gateway, ip: 192.168.127.254 }] }
  gatewayVirtualIPs: [192.168.127.254]
`,
    );
    const tap = at('tap.sock');
    await start('--config', at('crc.yaml'), '--listen', `unix://${tap}`);
    expect(await boot(machine, '5a:94:ef:e4:0c:ee', { protocol: 'connect', path: tap })).toBe(
      '192.168.127.2',
    );
    const key = encodeURIComponent(at('id_ecdsa'));
    const ports = [
      { local: '127.0.0.1:2222', remote: '192.168.127.2:22', protocol: 'tcp' },
      {
        local: at('docker.sock'),
        remote: `ssh-tunnel://core@192.168.127.2:22/run/podman/podman.sock?key=${key}`,
        protocol: 'unix',
      },
      { local: '127.0.0.1:6443', remote: '192.168.127.2:6443', protocol: 'tcp' },
      { local: ':8443', remote: '192.168.127.2:443', protocol: 'tcp' },
    ];
    for (const port of ports) expect(await call(tap, '/services/forwarder/expose', port)).toEqual([200, '']);
    // What is open already is known by being equal in every field.
    const open = JSON.parse((await call(tap, '/services/forwarder/all'))[1]);
    expect(open).toHaveLength(ports.length);
    expect(open).toEqual(expect.arrayContaining(ports));
    await answerAt(6443);
    expect(await hear(6443)).toBe('port 6443');
    expect(await digs('192.168.127.1', 'console.apps-crc.testing')).toBe('192.168.127.2');
    expect(await digs('192.168.127.1', 'crc-x7k2p-master-0.crc.testing')).toBe('192.168.126.11');
    expect(await digs('192.168.127.1', 'gateway.containers.internal')).toBe('192.168.127.254');
    for (const { local, protocol } of ports)
      expect(await call(tap, '/services/forwarder/unexpose', { local, protocol })).toEqual([200, '']);
  });

  test('minikube: machines of one socket in the place of socket_vmnet reach each other', async () => {
    const other = new Netns();
    try {
      await start('--listen-qemu', `unix://${at('socket_vmnet')}`);
      const one = await boot(machine, '52:54:00:00:00:01', { protocol: 'qemu', path: at('socket_vmnet') });
      const two = await boot(other, '52:54:00:00:00:02', { protocol: 'qemu', path: at('socket_vmnet') });
      expect(two).not.toBe(one);
      expect((await machine.run('ping', '-c', '1', '-W', '5', two)).code).toBe(0);
    } finally {
      await other.remove();
    }
  });

  test('hyperkit: its handshake with a uuid and a wished address, which a reconnection gets again', async () => {
    const uuid = '3f2a8c1e-4b7d-4e59-9a60-1d2c3b4a5f60';
    // -s 2:0,virtio-vpnkit,path=…,uuid=…,preferred_ipv4=192.168.127.77
    const greeting = `VMN3T\x16\0\0\0${'0123456789'.repeat(4)}\x08${uuid}\x4d\x7f\xa8\xc0`;
    const wire = { protocol: 'vpnkit', path: at('vpnkit.eth.sock'), greeting } as const;
    await start('--ethernet', at('vpnkit.eth.sock'));
    const plugged = await startMachine(machine, { ...wire, mtuBytes: 1500 });
    const mac = (await plugged.line(/^[0-9a-f]{12}$/)).replaceAll(/(..)(?!$)/g, '$1:');
    plugged.kill();
    await plugged.ended;
    expect(await boot(machine, mac, wire)).toBe('192.168.127.77');
  });

  test('VPNKit: a socket that came as a descriptor, destinations behind a socket, and frames as they pass', async () => {
    const asked: string[] = [];
    const tunnel = net.createServer((stream) => {
      stream.once('data', (request) => {
        const { dst_ip, dst_port } = JSON.parse(request.toString('utf8', 2)) as {
          dst_ip: string;
          dst_port: number;
        };
        asked.push(`${dst_ip}:${dst_port}`);
        const answer = JSON.stringify({ accepted: dst_port === 80 });
        stream.write(Buffer.concat([Buffer.of(answer.length, 0), Buffer.from(answer)]));
        stream.on('data', (data) => stream.end(`through the tunnel: ${data}`));
      });
      stream.on('error', () => {});
    });
    tunnel.listen(at('tunnel.sock'));
    writeFileSync(
      at('forwards.json'),
      JSON.stringify([{ protocol: 'tcp', dst_prefix: '10.9.0.0/16', dst_port: 0, path: at('tunnel.sock') }]),
    );
    // What a service manager does: it has the socket, and starts the command when somebody comes.
    const ethernet = at('vpnkit.eth.sock');
    const command = [
      '--ethernet',
      'fd:3',
      '--forwards',
      at('forwards.json'),
      '--pcap',
      at('pcap.sock'),
      '--pid-file',
      at('pid'),
    ];
    const activated = ['-l', ethernet, process.execPath, compiledEntry('daemon/bin'), 'net', ...command];
    edge.start('systemd-socket-activate', ...activated);
    await vi.waitFor(() => expect(existsSync(ethernet)).toBe(true), 10_000);
    const plugged = startMachine(machine, { protocol: 'vpnkit', path: ethernet, mtuBytes: 1500 });
    await vi.waitFor(() => expect(existsSync(at('pid'))).toBe(true), 20_000);
    await plugged;
    const frames: Buffer[] = [];
    const reader = net.connect(at('pcap.sock')).on('data', (bytes) => frames.push(bytes));
    await vi.waitFor(() => expect(Buffer.concat(frames).length).toBeGreaterThanOrEqual(24), 5000);
    for (const verb of ['addr add 192.168.127.9/24 dev eth0', 'route add default via 192.168.127.1'])
      execFileSync('ip', ['-n', machine.name, ...verb.split(' ')]);
    const ask = (port: number): Promise<string> =>
      machine.node(
        `const s = require('node:net').connect(${port}, '10.9.1.2', () => s.write('hello')); s.on('error', (e) => console.log(e.code)).pipe(process.stdout)`,
      );
    expect(await ask(80)).toBe('through the tunnel: hello');
    expect(await ask(81)).toBe('ECONNREFUSED');
    expect(asked).toEqual(['10.9.1.2:80', '10.9.1.2:81']);
    const shown = (): string =>
      execFileSync('tcpdump', ['-nr', '-'], {
        input: Buffer.concat(frames),
        encoding: 'utf8',
        stdio: ['pipe', 'pipe', 'ignore'],
      });
    await vi.waitFor(
      () => expect(shown()).toMatch(/192\.168\.127\.9\.\d+ > 10\.9\.1\.2\.81: Flags \[S\]/),
      5000,
    );
    reader.destroy();
    tunnel.close();
  });
});
