/**
 * Programs that people use, through the stack and out to servers beyond a router:
 *
 *     guest --TAP-- [edge: drydock net] --veth-- [router] --veth, MTU 1400-- [server]
 *
 * All four are namespaces of this test's own, so that the routers, MTUs and closed ports are real and the host's own network
 * is left alone.
 */
import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { compiledEntry } from '#common/entry';
import { Netns, type Ran, type Running } from '../support/netns.ts';
import { lacking } from '../support/requirements.ts';

const GATEWAY = '10.215.0.1';
const ROUTER = '10.215.1.2';
const SERVER = '10.215.2.2';
/** Nobody has this address of the server's network. */
const NOBODY = '10.215.2.9';

const ip = (...args: string[]): void => void execFileSync('ip', args);

/** A veth pair between two namespaces, with an address at each end. */
function wire(a: Netns, addressA: string, b: Netns, addressB: string, mtu = 1500): void {
  const [nameA, nameB] = [`to-${b.name.slice(-6)}`, `to-${a.name.slice(-6)}`];
  ip(
    '-n',
    a.name,
    'link',
    'add',
    nameA,
    'mtu',
    String(mtu),
    'type',
    'veth',
    'peer',
    'name',
    nameB,
    'netns',
    b.name,
    'mtu',
    String(mtu),
  );
  for (const [ns, name, address] of [
    [a, nameA, addressA],
    [b, nameB, addressB],
  ] as const) {
    ip('-n', ns.name, 'addr', 'add', address, 'dev', name);
    ip('-n', ns.name, 'link', 'set', name, 'up');
    ip('-n', ns.name, 'link', 'set', 'lo', 'up');
  }
}

const NEEDS = [
  'root',
  '/dev/net/tun',
  'ip',
  'sysctl',
  'curl',
  'ssh',
  'sshd',
  'ssh-keygen',
  'rsync',
  'git',
  'iperf3',
  'nmap',
  'traceroute',
  'tracepath',
  'openssl',
];

describe.skipIf(lacking(...NEEDS))('through the stack to a server beyond a router', () => {
  let guest: Netns;
  let edge: Netns;
  let router: Netns;
  let server: Netns;
  let folder: string;
  let payload: Buffer;
  const sha256 = (data: Buffer): string => createHash('sha256').update(data).digest('hex');

  beforeAll(async () => {
    [guest, edge, router, server] = [new Netns(), new Netns(), new Netns(), new Netns()];
    folder = mkdtempSync(join(tmpdir(), 'netstack-clients-'));
    payload = randomBytes(20 << 20);
    wire(edge, '10.215.1.1/24', router, `${ROUTER}/24`);
    wire(router, '10.215.2.1/24', server, `${SERVER}/24`, 1400);
    ip('-n', edge.name, 'route', 'add', 'default', 'via', ROUTER);
    ip('-n', server.name, 'route', 'add', 'default', 'via', '10.215.2.1');
    ip('-n', guest.name, 'link', 'set', 'lo', 'up');
    await router.run('sysctl', '-qw', 'net.ipv4.ip_forward=1');
    await edge.run('sysctl', '-qw', 'net.ipv4.ping_group_range=0 2147483647');
    writeFileSync(join(folder, 'payload'), payload);

    const network = edge.start(
      process.execPath,
      compiledEntry('daemon/bin'),
      'net',
      '--subnet',
      '10.215.0.0/24',
      '--netns',
      guest.path,
      '--interface',
      'eth0',
      '--log-file',
      join(folder, 'log'),
      '--listen',
      `unix://${folder}/control.sock`,
      '--ssh-port',
      '-1',
      '--pid-file',
      join(folder, 'pid'),
    );
    await until('drydock net is ready', () => existsSync(join(folder, 'pid')), network.ended);
    await startServers();
  });
  afterAll(async () => {
    for (const ns of [guest, edge, server, router]) await ns?.remove();
    rmSync(folder, { recursive: true });
  });

  /** Waits for a condition; says what it waited for when a program that should make it true has ended, or takes too long. */
  async function until(
    what: string,
    condition: () => boolean | Promise<boolean>,
    ended: Promise<Ran>,
  ): Promise<void> {
    let failure: string | undefined;
    void ended.then(({ code, stderr }) => {
      failure = `ended with ${code}: ${stderr}`;
    });
    for (const deadline = Date.now() + 30_000; !(await condition()); ) {
      if (failure !== undefined) throw new Error(`waited until ${what}, but it ${failure}`);
      if (Date.now() > deadline) throw new Error(`waited 30 s in vain until ${what}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  async function startServers(): Promise<void> {
    const pem = ['key.pem', 'cert.pem'].map((name) => join(folder, name));
    execFileSync(
      'openssl',
      [
        'req',
        '-x509',
        '-newkey',
        'ec',
        '-pkeyopt',
        'ec_paramgen_curve:P-256',
        '-nodes',
        '-days',
        '2',
        '-keyout',
        pem[0]!,
        '-out',
        pem[1]!,
        '-subj',
        `/CN=${SERVER}`,
        '-addext',
        `subjectAltName=IP:${SERVER}`,
      ],
      { stdio: 'ignore' },
    );
    const web = server.start(
      process.execPath,
      '-e',
      `
      const { createReadStream, readFileSync } = require('node:fs');
      const handler = (request, response) => {
        if (request.method === 'POST') {
          const hash = require('node:crypto').createHash('sha256');
          request.pipe(hash).on('finish', () => response.end(hash.digest('hex')));
        } else createReadStream(${JSON.stringify(join(folder, 'payload'))}).pipe(response);
      };
      require('node:http').createServer(handler).listen(80);
      const tls = { key: readFileSync(${JSON.stringify(pem[0])}), cert: readFileSync(${JSON.stringify(pem[1])}) };
      require('node:http2').createSecureServer(tls, handler).listen(443, () => console.log('listening'));
    `,
    );
    await web.line(/listening/);

    for (const name of ['host', 'user'])
      execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', join(folder, name)]);
    mkdirSync('/run/sshd', { recursive: true });
    writeFileSync(
      join(folder, 'sshd_config'),
      [
        `HostKey ${folder}/host`,
        `AuthorizedKeysFile ${folder}/user.pub`,
        `PidFile none`,
        'UsePAM no',
        'StrictModes no',
        'PermitRootLogin yes',
        'Subsystem sftp internal-sftp',
        '',
      ].join('\n'),
    );
    execFileSync('git', ['init', '-q', '--bare', join(folder, 'repo.git')]);
    const gitDaemon = join(execFileSync('git', ['--exec-path']).toString().trim(), 'git-daemon');
    const gitFlags = ['--export-all', '--enable=receive-pack', '--reuseaddr', `--base-path=${folder}`];
    await Promise.all([
      listening('sshd', 22, server.start('/usr/sbin/sshd', '-D', '-e', '-f', join(folder, 'sshd_config'))),
      listening('iperf3', 5201, server.start('iperf3', '-s')),
      listening('git daemon', 9418, server.start(gitDaemon, ...gitFlags)),
    ]);
  }

  function listening(what: string, port: number, { ended }: Running): Promise<void> {
    const probe = `require('node:net').connect(${port}, '127.0.0.1').on('connect', () => { console.log('up'); process.exit() }).on('error', () => process.exit())`;
    return until(`${what} listens`, async () => (await server.node(probe)) === 'up', ended);
  }

  const ssh = (): string[] => [
    '-i',
    join(folder, 'user'),
    '-o',
    'StrictHostKeyChecking=no',
    '-o',
    `UserKnownHostsFile=${folder}/known`,
    '-o',
    'BatchMode=yes',
    '-o',
    'LogLevel=ERROR',
  ];

  async function succeed(program: string, ...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await guest.run(program, ...args);
    expect({ program, code, stderr: code === 0 ? '' : stderr }).toEqual({ program, code: 0, stderr: '' });
    return stdout;
  }

  test.each([
    ['HTTP/1.1', ['--http1.1', `http://${SERVER}/`], '1.1'],
    ['HTTP/2 over TLS', ['--http2', `https://${SERVER}/`], '2'],
  ])('curl gets 20 MB over %s, and the bytes are the same', async (_, args, version) => {
    const file = join(folder, 'got');
    const out = await succeed(
      'curl',
      '-sS',
      '--cacert',
      join(folder, 'cert.pem'),
      '-o',
      file,
      '-w',
      '%{http_version}',
      ...args,
    );
    expect(out).toBe(version);
    expect(sha256(readFileSync(file))).toBe(sha256(payload));
  });

  test('curl posts 20 MB, and the server has the same bytes', async () => {
    const out = await succeed('curl', '-sS', '--data-binary', `@${folder}/payload`, `http://${SERVER}/`);
    expect(out).toBe(sha256(payload));
  });

  test('a policy by TLS server name lets one name through and resets another, at the same address', async () => {
    const policy = async (body: object): Promise<void> => {
      const url = 'http://control/policy';
      const { stdout } = await edge.run(
        'curl',
        '-sS',
        '-X',
        'PUT',
        '--unix-socket',
        join(folder, 'control.sock'),
        '-d',
        JSON.stringify(body),
        '-w',
        '%{http_code}',
        url,
      );
      expect(stdout).toBe('200');
    };
    const get = (name: string): Promise<Ran> =>
      guest.run(
        'curl',
        '-sSk',
        '-m',
        '8',
        '-o',
        '/dev/null',
        '--resolve',
        `${name}:443:${SERVER}`,
        `https://${name}/`,
      );
    await policy({ default: 'deny', rules: [{ action: 'allow', sni: '*.good.test', port: '443' }] });
    try {
      expect((await get('www.good.test')).code).toBe(0);
      const denied = await get('evil.test');
      expect(denied.code).toBe(35);
      expect(denied.stderr).toMatch(/reset/i);
      expect((await guest.run('curl', '-sS', '-m', '2', `http://${SERVER}/`)).code).not.toBe(0);
    } finally {
      await policy({ default: 'allow', rules: [] });
    }
  });

  test('curl is told at once that a port is closed', async () => {
    const { code, stderr } = await guest.run('curl', '-sS', '-m', '5', `http://${SERVER}:81/`);
    expect(code).toBe(7);
    expect(stderr).toMatch(/refused|Couldn't connect/);
  });

  test('ssh runs a command with its input, output and exit code; scp copies', async () => {
    const run = await guest.run('ssh', ...ssh(), `root@${SERVER}`, 'echo $((6*7)); echo err >&2; exit 3');
    expect(run).toMatchObject({ code: 3, stdout: '42\n', stderr: expect.stringMatching(/err/) });
    await succeed('scp', ...ssh(), `root@${SERVER}:${folder}/payload`, join(folder, 'scp'));
    expect(sha256(readFileSync(join(folder, 'scp')))).toBe(sha256(payload));
  });

  test('rsync brings a tree over ssh', async () => {
    const tree = join(folder, 'tree');
    mkdirSync(tree);
    for (let i = 0; i < 200; i++) writeFileSync(join(tree, `file${i}`), randomBytes(i * 100));
    await succeed(
      'rsync',
      '-a',
      '-e',
      `ssh ${ssh().join(' ')}`,
      `root@${SERVER}:${tree}/`,
      join(folder, 'copy'),
    );
    expect(execFileSync('diff', ['-r', tree, join(folder, 'copy')]).toString()).toBe('');
  });

  test('git clones and pushes', async () => {
    const clone = join(folder, 'clone');
    const git = (...args: string[]) =>
      succeed('git', '-c', 'user.name=t', '-c', 'user.email=t@example.test', ...args);
    await git('clone', '-q', `git://${SERVER}/repo.git`, clone);
    writeFileSync(join(clone, 'file'), payload.subarray(0, 1 << 20));
    chmodSync(join(clone, 'file'), 0o644);
    await git('-C', clone, 'add', 'file');
    await git('-C', clone, 'commit', '-q', '-m', 'first');
    await git('-C', clone, 'push', '-q', 'origin', 'HEAD:main');
    expect(await git('-C', clone, 'ls-remote', 'origin', 'main')).toMatch(/^[0-9a-f]{40}\trefs\/heads\/main/);
  });

  test.each([
    ['TCP, sending', []],
    ['TCP, receiving', ['-R']],
    ['TCP, four streams', ['-P', '4']],
    ['UDP at 5 Mbit/s', ['-u', '-b', '5M', '-l', '1200']],
  ])('iperf3 over %s', async (_, args) => {
    const { end: result } = JSON.parse(await succeed('iperf3', '-J', '-t', '1', '-c', SERVER, ...args)) as {
      end: { sum?: { lost_percent: number; packets: number }; sum_received?: { bytes: number } };
    };
    if (args[0] === '-u') {
      expect(result.sum!.packets).toBeGreaterThan(300);
      expect(result.sum!.lost_percent).toBeLessThan(10);
    } else expect(result.sum_received!.bytes).toBeGreaterThan(1 << 20);
  });

  test.each([
    ['UDP', []],
    ['ICMP', ['-I']],
    ['TCP', ['-T', '-p', '80']],
  ])('traceroute by %s sees the gateway, the router and the server', async (_, args) => {
    const out = await succeed('traceroute', '-n', '-q', '2', '-w', '2', '-m', '6', ...args, SERVER);
    const hops = out
      .trim()
      .split('\n')
      .slice(1)
      .map((line) => line.trim().split(/\s+/)[1]);
    expect(hops, out).toEqual([GATEWAY, ROUTER, SERVER]);
  });

  test("tracepath finds the narrow link's MTU", async () => {
    const out = await succeed('tracepath', '-n', '-m', '6', SERVER);
    expect(out).toMatch(/pmtu 1400/);
    expect(out).toMatch(/Resume: pmtu 1400 hops 3/);
  });

  test('ping carries large packets, and reports who is not there', async () => {
    expect(await succeed('ping', '-c', '2', '-i', '0.2', '-s', '4000', SERVER)).toMatch(/2 received/);
    const { code, stdout } = await guest.run('ping', '-c', '1', '-W', '5', NOBODY);
    expect(code).toBe(1);
    expect(stdout).toMatch(/Destination Host Unreachable/);
  });

  test('nmap tells open ports from closed ones, by SYN and by UDP', async () => {
    const tcp = await succeed(
      'nmap',
      '-n',
      '-Pn',
      '-sS',
      '-p',
      '22,80,81,9418',
      '--max-retries',
      '1',
      SERVER,
    );
    expect(tcp).toMatch(/22\/tcp\s+open/);
    expect(tcp).toMatch(/80\/tcp\s+open/);
    expect(tcp).toMatch(/81\/tcp\s+closed/);
    expect(tcp).toMatch(/9418\/tcp\s+open/);
    const udp = await succeed('nmap', '-n', '-Pn', '-sU', '-p', '9,7777', '--max-retries', '2', SERVER);
    expect(udp).toMatch(/9\/udp\s+closed/);
    expect(udp).toMatch(/7777\/udp\s+closed/);
  });
});
