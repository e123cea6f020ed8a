/**
 * The services by themselves, `drydock net dns`, `dhcp`, `dhcp6`, `ntp` and `proxy`, each with other people's clients on the other
 * end of a veth pair: plain sockets and the kernel's own stack on both sides.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { compiledEntry } from '#common/entry';
import { Netns, type Ran } from '../support/netns.ts';
import { lacking } from '../support/requirements.ts';

describe.skipIf(lacking('root', 'ip', 'dig', 'udhcpc', 'dhclient', 'ntpdig', 'curl'))('drydock net', () => {
  let near: Netns;
  let far: Netns;
  let folder: string;
  const ends: (() => Promise<unknown>)[] = [];

  beforeAll(() => {
    [near, far] = [new Netns(), new Netns()];
    folder = mkdtempSync(join(tmpdir(), 'netstack-alone-'));
    const ip = (...args: string[]): Buffer => execFileSync('ip', args);
    ip('-n', near.name, 'link', 'add', 'v0', 'type', 'veth', 'peer', 'name', 'v1', 'netns', far.name);
    for (const [name, device] of [
      [near.name, 'v0'],
      [far.name, 'v1'],
    ] as const) {
      // Link-local addresses are good at once.
      ip('netns', 'exec', name, 'sysctl', '-qw', `net.ipv6.conf.${device}.accept_dad=0`);
      ip('-n', name, 'link', 'set', 'lo', 'up');
      ip('-n', name, 'link', 'set', device, 'up');
    }
    ip('-n', near.name, 'addr', 'add', '10.77.0.1/24', 'dev', 'v0');
    ip('-n', near.name, 'addr', 'add', 'fd00:77::1/64', 'dev', 'v0', 'nodad');
    // Lets the client ask before it has an address of its own: for DNS, NTP and the proxy.
    ip('-n', far.name, 'addr', 'add', '10.77.0.200/24', 'dev', 'v1');
  });
  afterEach(async () => {
    for (const end of ends.splice(0)) await end();
  });
  afterAll(async () => {
    await near?.remove();
    await far?.remove();
    rmSync(folder, { recursive: true });
  });

  /** Starts a service; it ends by SIGTERM after the test. */
  async function serve(name: string, ...args: string[]): Promise<void> {
    // The log tells when it is ready; standard error goes to standard output, which can be watched.
    const entry = compiledEntry('daemon/bin');
    const script = 'exec 2>&1; echo "pid $$"; exec "$@"';
    const running = near.start('sh', '-c', script, 'sh', process.execPath, entry, 'net', name, ...args);
    const pid = Number(/\d+/.exec(await running.line(/^pid/))![0]);
    await running.line(/is ready/);
    ends.push(async () => {
      process.kill(pid, 'SIGTERM');
      expect(await running.ended).toMatchObject({ code: 0 });
    });
  }

  /** A client's script that writes down what it is told. */
  function recorder(): { script: string; heard: () => string } {
    const script = join(folder, 'script');
    const file = join(folder, 'heard');
    rmSync(file, { force: true });
    writeFileSync(
      script,
      `#!/bin/sh\n[ "$1" = deconfig ] || [ "$reason" = PREINIT6 ] || { echo "event=$1"; env; } >> ${file}\nexit 0\n`,
      { mode: 0o755 },
    );
    return { script, heard: () => (existsSync(file) ? readFileSync(file, 'utf8') : '') };
  }

  function dhclient6(...args: string[]): Promise<Ran> {
    const files = ['-lf', join(folder, 'leases6'), '-pf', join(folder, 'pid6')];
    return far.run('timeout', '20', 'dhclient', '-6', '-1', '-v', ...files, ...args, 'v1');
  }

  test('dns answers its names and hosts file, UDP and TCP, and follows the file', async () => {
    const hosts = join(folder, 'hosts');
    writeFileSync(hosts, '10.0.0.5 five five.lan # comment\n');
    await serve(
      'dns',
      '--listen',
      '10.77.0.1:53',
      '--dns',
      '127.0.0.1#9',
      '--name',
      'web=10.0.0.2',
      '--hosts',
      hosts,
    );
    const dig = async (...args: string[]): Promise<string> =>
      (await far.run('dig', '@10.77.0.1', '+short', '+tries=1', ...args)).stdout.trim();
    expect(await dig('web')).toBe('10.0.0.2');
    expect(await dig('+tcp', 'five.lan')).toBe('10.0.0.5');
    writeFileSync(hosts, '10.0.0.6 five\n');
    await vi.waitFor(async () => expect(await dig('five')).toBe('10.0.0.6'), {
      timeout: 10_000,
      interval: 500,
    });
  });

  test('dhcp gives an address by the interface, and keeps its lease in a file', async () => {
    const leases = join(folder, 'leases');
    await serve(
      'dhcp',
      '--interface',
      'v0',
      '--subnet',
      '10.77.0.0/24',
      '--first',
      '10.77.0.50',
      '--router',
      '10.77.0.1',
      '--lease-file',
      leases,
      ...[
        '--route',
        '10.88.0.0/16=10.77.0.9',
        '--proxy-config',
        'http://10.77.0.1/wpad.dat',
        '--ipv6-only-wait',
        '1800s',
      ],
    );
    const { script, heard } = recorder();
    const asked = ['-O', 'staticroutes', '-O', 'wpad', '-O', '108'];
    const flags = ['-i', 'v1', '-n', '-q', '-f', '-t', '3', '-T', '1', '-s', script];
    const ran = await far.run('udhcpc', ...flags, ...asked);
    expect(ran).toMatchObject({ code: 0 });
    expect(heard()).toMatch(/^ip=10\.77\.0\.50$/m);
    expect(heard()).toMatch(/^serverid=10\.77\.0\.1$/m);
    expect(heard()).toMatch(/^staticroutes=10\.88\.0\.0\/16 10\.77\.0\.9 0\.0\.0\.0\/0 10\.77\.0\.1$/m);
    expect(heard()).toMatch(/^wpad=http:\/\/10\.77\.0\.1\/wpad\.dat$/m);
    expect(heard()).toMatch(/^opt108=00000708$/m);
    await ends.pop()!();
    expect(JSON.parse(readFileSync(leases, 'utf8'))).toMatchObject([{ address: '10.77.0.50' }]);
  });

  test('dhcp6 binds dhclient -6 to an address, keeps the lease over a restart, and takes it back', async () => {
    const leases = join(folder, 'kept6');
    const args = [
      '--interface',
      'v0',
      '--subnet6',
      'fd00:77::/64',
      '--dns',
      'fd00:77::1',
      '--search',
      'lan.test',
      '--lease-file',
      leases,
    ];
    await serve('dhcp6', ...args);
    const { script, heard } = recorder();
    const bound = await dhclient6('-sf', script);
    expect(bound).toMatchObject({ code: 0, stderr: expect.stringMatching(/RCV: Reply message on v1/) });
    expect(heard()).toMatch(/^new_ip6_address=fd00:77::1000$/m);
    expect(heard()).toMatch(/^new_dhcp6_name_servers=fd00:77::1$/m);
    expect(heard()).toMatch(/^new_dhcp6_domain_search=lan\.test\.$/m);
    await ends.pop()!();
    expect(JSON.parse(readFileSync(leases, 'utf8'))).toMatchObject([{ address: 'fd00:77::1000' }]);
    await serve('dhcp6', ...args);
    const released = await dhclient6('-r', '-sf', script);
    expect(released.stderr).toMatch(/XMT: Release/);
    // It does not wait for the answer; once another question is answered, the release has been heard.
    expect(await dhclient6('-S', '-sf', script)).toMatchObject({ code: 0 });
    await ends.pop()!();
    expect(JSON.parse(readFileSync(leases, 'utf8'))).toEqual([]);
  });

  test('dhcp6 --stateless tells parameters alone', async () => {
    await serve(
      'dhcp6',
      '--stateless',
      '--interface',
      'v0',
      '--subnet6',
      'fd00:77::/64',
      '--dns',
      'fd00:77::1',
    );
    const { script, heard } = recorder();
    expect(await dhclient6('-S', '-sf', script)).toMatchObject({ code: 0 });
    expect(heard()).toMatch(/^new_dhcp6_name_servers=fd00:77::1$/m);
    expect(heard()).not.toMatch(/new_ip6_address/);
  });

  test("ntp tells this host's time", async () => {
    await serve('ntp', '--listen', '10.77.0.1:123');
    const { code, stdout } = await far.run('ntpdig', '-t', '5', '10.77.0.1');
    expect({ code, stdout }).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/10\.77\.0\.1 s(4|10)/),
    });
  });

  test('proxy carries requests and tunnels, and obeys a policy by the address of its client', async () => {
    const policy = join(folder, 'policy');
    writeFileSync(policy, 'default: deny\nrules: [{ action: allow, cidr: 127.0.0.1, port: 8081 }]\n');
    const server = near.start(
      process.execPath,
      '-e',
      "require('node:http').createServer((q, s) => s.end('from the origin')).listen(8081, '127.0.0.1', () => console.log('up'))",
    );
    await server.line(/up/);
    await serve('proxy', '--listen', '10.77.0.1:3128', '--policy', policy);
    const curl = async (...args: string[]): Promise<string> =>
      (await far.run('curl', '-sS', '-m', '8', '-x', 'http://10.77.0.1:3128', ...args)).stdout;
    expect(await curl('http://127.0.0.1:8081/')).toBe('from the origin');
    expect(await curl('-p', 'http://127.0.0.1:8081/')).toBe('from the origin');
    expect(await curl('-o', '/dev/null', '-w', '%{http_code}', 'http://127.0.0.1:8082/')).toBe('403');
    server.kill();
  });
});
