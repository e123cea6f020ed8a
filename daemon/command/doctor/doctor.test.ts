import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { compiledEntry } from '#common/entry';
import { PLACES } from '../../places.ts';
import type { JailReportRow } from '../../runtime/runtime.ts';
import { makeBundle, Redactor } from './bundle.ts';
import type { EngineFacts, Finding, HostView } from './host.ts';
import { doctorText } from './index.ts';
import { examine } from './probes.ts';

const GIB = 1024 ** 3;
const SOCKET = join(PLACES.run, 'docker.sock');
const SETTINGS = join(PLACES.config, 'daemon.json');

/** Files, folders, programs' outputs and engines of a machine on which all is well. */
interface Machine {
  files: Record<string, string>;
  folders: Record<string, string[]>;
  programs: Record<string, string>;
  engines: Record<string, EngineFacts>;
}

function wellMachine(): Machine {
  return {
    files: {
      '/proc/sys/kernel/osrelease': '6.1.0-30-amd64\n',
      '/proc/mounts': 'none /sys/fs/cgroup cgroup2 rw 0 0\n',
      '/sys/fs/cgroup/cgroup.controllers': 'cpuset cpu io memory pids\n',
      '/proc/filesystems': 'nodev\tproc\nnodev\toverlay\n',
      '/proc/sys/kernel/seccomp/actions_avail': 'kill_process allow\n',
      '/proc/self/limits': 'Max open files            1024                 524288               files     \n',
      '/etc/resolv.conf': 'nameserver 192.0.2.53\n',
      '/dev/net/tun': '',
      '/dev/fuse': '',
    },
    folders: { '/proc/self/ns': ['cgroup', 'ipc', 'mnt', 'net', 'pid', 'user', 'uts'] },
    programs: {},
    engines: {},
  };
}

function host(machine: Machine, over: Partial<HostView> = {}): HostView {
  return {
    platform: 'linux',
    nodeVersion: 'v20.20.2',
    uid: 0,
    home: '/home/ada',
    env: {},
    read: (path) => machine.files[path],
    exists: (path) => path in machine.files || path in machine.engines,
    list: (path) => machine.folders[path] ?? [],
    run: (program, args) => machine.programs[[program, ...args].join(' ')],
    room: () => ({ freeBytes: 50 * GIB, freeInodesShare: 0.9 }),
    jail: async () => [{ feature: 'Landlock', asked: 'its own root only', got: 'full', how: 'version 7' }],
    engine: async (path) => machine.engines[path],
    ...over,
  };
}

function put<T>(where: Record<string, T>, name: string, value: T): undefined {
  where[name] = value;
}

function remove(where: Record<string, string>, name: string): undefined {
  delete where[name];
}

async function finding(view: HostView, name: string): Promise<Finding | undefined> {
  return (await examine(view)).find((found) => found.name === name);
}

describe('the doctor', () => {
  it('finds nothing wrong with a machine on which all is well', async () => {
    const findings = await examine(host(wellMachine()));
    expect(findings.filter(({ status }) => status !== 'ok')).toEqual([]);
    expect(findings.map(({ part }) => part)).toEqual(
      expect.arrayContaining(['program', 'kernel', 'disk', 'network', 'sockets']),
    );
  });

  /** What is taken away, the check that must notice, and how bad it is. */
  const troubles: [string, string, Finding['status'], (machine: Machine) => Partial<HostView> | undefined][] =
    [
      ['an old Node', 'node', 'fail', () => ({ nodeVersion: 'v18.1.0' })],
      ['no root', 'rights', 'warn', () => ({ uid: 1000 })],
      ['an old kernel', 'version', 'warn', (m) => put(m.files, '/proc/sys/kernel/osrelease', '5.4.0-42')],
      ['no pid namespaces', 'namespaces', 'fail', (m) => put(m.folders, '/proc/self/ns', ['mnt', 'net'])],
      ['no cgroups', 'cgroups', 'fail', (m) => put(m.files, '/proc/mounts', '')],
      [
        'no memory controller',
        'cgroups',
        'warn',
        (m) => put(m.files, '/sys/fs/cgroup/cgroup.controllers', 'cpu pids'),
      ],
      ['no TUN', '/dev/net/tun', 'fail', (m) => remove(m.files, '/dev/net/tun')],
      ['no FUSE', '/dev/fuse', 'fail', (m) => remove(m.files, '/dev/fuse')],
      ['no overlayfs', 'overlayfs', 'warn', (m) => put(m.files, '/proc/filesystems', 'nodev\tproc\n')],
      ['no seccomp', 'seccomp', 'fail', (m) => remove(m.files, '/proc/sys/kernel/seccomp/actions_avail')],
      [
        'few files',
        'open files',
        'warn',
        (m) => put(m.files, '/proc/self/limits', 'Max open files 1024 4096'),
      ],
      ['a full disk', PLACES.data, 'fail', () => ({ room: () => ({ freeBytes: 1, freeInodesShare: 1 }) })],
      [
        'no inodes',
        PLACES.data,
        'warn',
        () => ({ room: () => ({ freeBytes: 50 * GIB, freeInodesShare: 0.01 }) }),
      ],
      ['no name servers', 'name servers', 'warn', (m) => put(m.files, '/etc/resolv.conf', '')],
      ['a proxy that is no URL', 'HTTP_PROXY', 'fail', () => ({ env: { HTTP_PROXY: 'proxy' } })],
      [
        'a proxy for everything',
        'NO_PROXY',
        'warn',
        () => ({ env: { https_proxy: 'http://proxy.example:1' } }),
      ],
      ['a DOCKER_HOST elsewhere', 'DOCKER_HOST', 'warn', () => ({ env: { DOCKER_HOST: 'unix:///x.sock' } })],
      ['a dead socket', `unix://${SOCKET}`, 'warn', (m) => put(m.files, SOCKET, '')],
      ['a dead engine', '/var/run/docker.sock', 'warn', (m) => put(m.files, '/var/run/docker.sock', '')],
      ['bad settings', 'configuration', 'fail', (m) => put(m.files, SETTINGS, '{"mtu": 1}')],
      ['a platform without runtime', 'platform', 'fail', () => ({ platform: 'win32' })],
    ];
  it.each(troubles)('notices %s, and says what to do', async (_what, name, status, spoil) => {
    const machine = wellMachine();
    const over = spoil(machine);
    const found = await finding(host(machine, over ?? {}), name);
    expect(found?.status).toBe(status);
    expect(found?.fix).toMatch(/\w{3}/);
  });

  it('names the engines beside it, those of colima and lima included', async () => {
    const machine = wellMachine();
    machine.folders['/home/ada/.colima'] = ['dev'];
    machine.engines['/home/ada/.colima/dev/docker.sock'] = { name: 'Docker Engine', version: '28.0' };
    machine.engines[SOCKET] = { name: 'Drydock', version: '0.1.0' };
    expect((await finding(host(machine), '/home/ada/.colima/dev/docker.sock'))?.text).toContain(
      'Docker Engine 28.0',
    );
    expect((await finding(host(machine), `unix://${SOCKET}`))?.text).toBe('Drydock 0.1.0 answers');
  });

  it('tells what confines a container, and what gets round it', async () => {
    const row = { feature: 'memory', asked: '5', how: 'looked at now and then', bypass: 'being quick' };
    const jail = async (): Promise<JailReportRow[]> => [
      { ...row, got: 'partial' },
      { ...row, feature: 'init', asked: 'none', got: 'none' },
    ];
    const view = host(wellMachine(), { jail });
    const text = 'looked at now and then (what gets round it: being quick)';
    expect(await finding(view, 'memory')).toMatchObject({ status: 'warn', text: `partial: ${text}` });
    expect(await finding(view, 'init')).toMatchObject({ status: 'ok', text: `not asked for: ${text}` });
    const broken = host(wellMachine(), { jail: () => Promise.reject(new Error('no cgroups')) });
    expect(await finding(broken, 'default')).toMatchObject({ status: 'fail', text: 'no cgroups' });
  });

  it("does not show a proxy's password", async () => {
    const env = { HTTP_PROXY: 'http://ada:hunter22@proxy.example:3128' };
    const text = doctorText(await examine(host(wellMachine(), { env })));
    expect(text).toContain('http://proxy.example:3128');
    expect(text).not.toContain('hunter22');
  });

  it('tells SIP and FUSE-T on macOS', async () => {
    const machine = wellMachine();
    machine.programs['sw_vers -productVersion'] = '15.1\n';
    machine.programs['csrutil status'] = 'System Integrity Protection status: enabled.\n';
    const view = host(machine, { platform: 'darwin' });
    expect((await finding(view, 'SIP'))?.text).toBe('System Integrity Protection is enabled');
    expect((await finding(view, 'FUSE-T'))?.status).toBe('warn');
    machine.files['/usr/local/bin/go-nfsv4'] = '';
    expect((await finding(view, 'FUSE-T'))?.status).toBe('ok');
  });
});

describe('the bundle for bug reports', () => {
  const secrets = [
    'http://ada:hunter22@proxy.example:3128',
    'Authorization: Bearer abcdefgh12345678',
    'REGISTRY_PASSWORD=swordfish',
    '{"identitytoken":"opensesame1"}',
    "db_secret='two words'",
    'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJl',
    '-----BEGIN PRIVATE KEY-----\nMIIEvQIBADAN\n-----END PRIVATE KEY-----',
    'the value mellon-friend by itself',
  ];
  const hidden =
    /hunter22|abcdefgh12345678|swordfish|opensesame1|two words|c2lnbmF0dXJl|MIIEvQIBADAN|mellon-friend|\/home\/ada/;

  it('removes passwords, tokens, keys, and the values of secret variables, in texts and by names of fields', () => {
    const redact = new Redactor({ MY_API_KEY: 'mellon-friend' }, '/home/ada');
    const clean = JSON.stringify(
      redact.value({
        log: secrets,
        nested: { Password: 'swordfish', auths: { 'registry.example': { auth: 'hunter22' } } },
        path: '/home/ada/project',
      }),
    );
    expect(clean).not.toMatch(hidden);
    expect(clean).toContain('proxy.example:3128');
    expect(clean).toContain('~/project');
  });

  it('holds the findings, the settings and the variables that matter, and no other variable', async () => {
    const machine = wellMachine();
    machine.files[SETTINGS] = JSON.stringify({
      labels: ['token=opensesame1', 'rack=7'],
      'registry-mirrors': ['https://ada:hunter22@mirror.example'],
    });
    machine.programs['uname -srm'] = 'Linux 6.1.0 x86_64\n';
    machine.programs['journalctl -u drydock.service -n 500 --no-pager -o short-iso'] = secrets.join('\n');
    const env = {
      DOCKER_HOST: 'unix:///x.sock',
      HTTPS_PROXY: 'http://ada:hunter22@proxy.example:3128',
      MY_API_KEY: 'mellon-friend',
      UNRELATED: 'nobody-asked',
    };
    const view = host(machine, { env });
    const bundle = JSON.stringify(await makeBundle(view, '0.1.0', await examine(view)));
    expect(bundle).not.toMatch(hidden);
    expect(bundle).not.toContain('nobody-asked');
    for (const kept of [
      '"drydock":"0.1.0"',
      'rack=7',
      'mirror.example',
      'unix:///x.sock',
      '"cgroups"',
      '6.1.0 x86_64',
    ])
      expect(bundle).toContain(kept);
  });
});

describe('drydock doctor', () => {
  it('looks at this machine, prints JSON, writes a private bundle, and ends with 1 only if something failed', () => {
    const folder = mkdtempSync(join(tmpdir(), 'drydock-doctor-'));
    try {
      const file = join(folder, 'report.json');
      const { status, stdout } = spawnSync(
        process.execPath,
        [compiledEntry('daemon/bin'), 'doctor', '--format', 'json', '--bundle', file],
        { encoding: 'utf8' },
      );
      const findings = JSON.parse(stdout) as Finding[];
      expect(findings.length).toBeGreaterThan(8);
      expect(status).toBe(findings.some((found) => found.status === 'fail') ? 1 : 0);
      expect(JSON.parse(readFileSync(file, 'utf8'))).toMatchObject({ node: process.version });
      expect(statSync(file).mode & 0o777).toBe(0o600);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});
