/**
 * Known ways out of a jail, tried in jails of each runtime. The table in docs/reference/escape-probes.md is made of
 * the results; a test fails when it is not up to date (write it anew with UPDATE_DOCS=1).
 *
 * The same probes in a privileged jail that shares the host's processes show that they can get through at all.
 */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { createServer, type Server } from 'node:net';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ALL_CAPABILITIES } from '../../../daemon/runtime/index.ts';
import type { JailMount } from '../../../daemon/runtime/runtime.ts';
import { IMAGE, TestDaemon } from '../../support/e2e/daemon.ts';
import { asUser, USER, usersAddress } from '../../support/e2e/ordinary-user.ts';
import { CONFINED_CHANGES, Jails, ociCommand, type SpecChanges } from '../jails.ts';
import { attackLaunches, LAUNCH_ATTACKS } from './launches.ts';

interface Result {
  group: string;
  id: string;
  technique: string;
  outcome: 'held' | 'open' | 'absent';
  how: string;
}

const PROBES_MIN = 150;
const REMAPPED_FIRST = 200_000;
const REMAPPED = [{ inside: 0, outside: REMAPPED_FIRST, length: 65_536 }];
/** What other runtimes leave open, and why it is no way out. */
const KNOWN: Record<string, Record<string, string>> = {
  plain: {
    'own path': 'it has no control group of its own, and may read which one the daemon is in',
    pidfd_open: 'process numbers are the host’s; a descriptor of a process lets nobody signal or inspect it',
    ptrace:
      'the kernel refuses the arguments before it looks at the permission, which process_vm_readv asks for too',
    'host name': 'it has no UTS namespace',
  },
  runc: {
    'chmod of a mask': 'its masks are the null device of the container itself, not the host’s',
    'c 10:200': 'it lets every container open TUN, which is of no use without CAP_NET_ADMIN',
  },
};
const repository = fileURLToPath(new URL('../../..', import.meta.url));
const table = `${repository}docs/reference/escape-probes.md`;
const unique = `drydock-probe-${randomBytes(4).toString('hex')}`;
const results = new Map<string, Result[]>();
/** Runtimes against which every attack on the launch was tried. */
const launched: string[] = [];
const servers: Server[] = [];
let host: string;
let segment: string;

const listen = (where: { port: number; host: string } | string): Promise<Server> =>
  new Promise((resolve) => {
    const server: Server = createServer((socket) => socket.destroy()).listen(where, () => resolve(server));
    servers.push(server);
  });

beforeAll(async () => {
  const tcp = await listen({ port: 0, host: '127.0.0.1' });
  await listen(`\0${unique}`);
  segment = /id: (\d+)/.exec(execFileSync('ipcmk', ['-M', '4096']).toString())![1]!;
  writeFileSync(`/dev/shm/${unique}`, '');
  const marker = `/tmp/${unique}`;
  writeFileSync(marker, '');
  process.env.PROBE_SECRET = unique;
  const port = (tcp.address() as AddressInfo).port;
  host = JSON.stringify({
    port,
    abstract: unique,
    pid: process.pid,
    secret: unique,
    shm: unique,
    marker,
    hostname: hostname(),
  });
});
afterAll(() => {
  for (const server of servers) server.close();
  execFileSync('ipcrm', ['-m', segment]);
  rmSync(`/dev/shm/${unique}`);
  rmSync(`/tmp/${unique}`);
});

/** What the probes need of the repository, by where it is in the jail. */
const PROBE_FILES: Record<string, string> = {
  ...Object.fromEntries(
    ['dist', 'node_modules', 'test', 'package.json'].map((name) => [
      `/probe/${name}`,
      `${repository}${name}`,
    ]),
  ),
  '/probe/node': process.execPath,
};
const PROBE_COMMAND = ['/probe/node', '/probe/test/interop/probes/probes.mjs'];

async function probe(jails: Jails, changes: SpecChanges = {}): Promise<Result[]> {
  const bind = (source: string, target: string): JailMount => ({
    kind: 'bind',
    source,
    target,
    readOnly: true,
    options: [],
  });
  const env = ['PATH=/usr/bin:/bin:/usr/sbin:/sbin', `PROBE_HOST=${host}`];
  const mounts = Object.entries(PROBE_FILES).map(([target, source]) => bind(source, target));
  return jails.withJail({ ...changes, mounts }, async (jail) => {
    const privileged = jails.spec([], changes).privileged;
    const outcome = await jails.exec(jail, PROBE_COMMAND, {
      env,
      ...(privileged && { capabilities: [...ALL_CAPABILITIES] }),
    });
    expect([outcome.stderr, outcome.status]).toEqual(['', { code: 0, oomKilled: false }]);
    return JSON.parse(outcome.stdout);
  });
}

/** What a jail must ask for to be of a runtime, where that is not the default one. */
const CHANGES: Record<string, SpecChanges> = {
  'linux, userns-remap': { userMaps: { uids: REMAPPED, gids: REMAPPED } },
  plain: CONFINED_CHANGES,
};

/** Whether all that was found is known. */
function judge(name: string, found: Result[]): void {
  results.set(name, found);
  const known = KNOWN[name] ?? {};
  expect(found.filter(({ id, outcome }) => outcome === 'open' && !(id in known))).toEqual([]);
  expect(found.length).toBeGreaterThanOrEqual(PROBES_MIN);
  expect(found.filter(({ outcome }) => outcome === 'held').length).toBeGreaterThanOrEqual(PROBES_MIN);
}

describe.each(['linux', 'linux, userns-remap', 'plain', 'runc', 'crun'])('in a jail of %s', (name) => {
  const oci = ['runc', 'crun'].includes(name) ? ociCommand(name) : undefined;
  const jails = new Jails(oci && { oci });
  beforeAll(async () => {
    await jails.open();
    // As the daemon unpacks images for such containers.
    if (CHANGES[name]?.userMaps)
      execFileSync('chown', ['-R', `${REMAPPED_FIRST}:${REMAPPED_FIRST}`, jails.root]);
  });
  afterAll(async () => {
    await jails.close();
    oci?.remove();
  });

  it('no known way out is open', async () => {
    judge(name, await probe(jails, CHANGES[name]));
  });

  it('images and options do not turn the launch against the host', async () => {
    const changes = CHANGES[name] ?? {};
    const scene = { jails, changes, marker: `/tmp/${unique}`, setsSysctls: name !== 'plain' };
    expect(await attackLaunches(scene)).toEqual({});
    launched.push(name);
  });
});

describe('in a container of an ordinary user’s daemon', () => {
  const address = usersAddress();
  const folder = mkdtempSync(join(tmpdir(), 'drydock-probes-'));
  let daemon: TestDaemon;
  beforeAll(async () => {
    daemon = await TestDaemon.launch(address, [], { wrapper: asUser(folder, `${USER}:600000:65536\n`) });
  });
  afterAll(async () => {
    await daemon.stop('SIGTERM');
    TestDaemon.forget(address);
    rmSync(folder, { recursive: true });
  });

  it('no known way out is open', async () => {
    const mounts = Object.entries(PROBE_FILES).flatMap(([target, source]) => [
      '-v',
      `${source}:${target}:ro`,
    ]);
    const options = ['-d', '--name', 'probed', '--network', 'none', '-v', '/usr:/usr:ro', ...mounts];
    await daemon.ok(['run', ...options, IMAGE, 'sleep', 'infinity']);
    const command = ['exec', '-e', `PROBE_HOST=${host}`, 'probed', ...PROBE_COMMAND];
    const { stdout, stderr } = await daemon.run(command);
    expect(stderr).toBe('');
    judge('rootless', JSON.parse(stdout));
  });
});

describe('the probes', () => {
  it('get through where nothing is confined', async () => {
    const jails = new Jails();
    await jails.open();
    try {
      const host = 'host' as const;
      // Not the network: a mistake in a probe would be the machine's.
      const namespaces = { network: 'private' as const, pid: host, ipc: host, uts: host, cgroup: host };
      const found = await probe(jails, { privileged: true, namespaces });
      const open = found.filter(({ outcome }) => outcome === 'open');
      expect(open.length).toBeGreaterThanOrEqual(PROBES_MIN / 2);
      for (const group of ['sysctl', 'device', 'mount', 'namespace', 'syscall', 'capability', 'process'])
        expect(open.map((result) => result.group)).toContain(group);
    } finally {
      await jails.close();
    }
  });

  it('are the ones that the documentation lists', () => {
    const text = render();
    if (process.env.UPDATE_DOCS) writeFileSync(table, text);
    expect(readFileSync(table, 'utf8')).toBe(text);
  });
});

/** The page: what holds is the same on every kernel, how it holds is not. */
function render(): string {
  const [linux = [], ...others] = [...results.values()];
  const rows = linux.map(({ group, id, technique }, index) => {
    const marks = [linux, ...others].map((list) => (list[index]!.outcome === 'open' ? 'OPEN' : 'held'));
    return `| ${group} | \`${id}\` | ${technique} | ${marks.join(' | ')} |`;
  });
  const names = [...results.keys()];
  const notes = Object.entries(KNOWN).flatMap(([name, known]) =>
    Object.entries(known).map(([id, why]) => `- ${name}, \`${id}\`: ${why}.`),
  );
  return `# Ways out of a container, tried

Known ways out of a container or into the host's kernel, each tried as root inside a container with the default
settings, for Drydock's own runtime (\`linux\`; with users of its own, \`linux, userns-remap\`; in an ordinary user's
daemon, \`rootless\`), for its runtime without namespaces (\`plain\`, without network) and for
OCI runtimes that get the same specification from Drydock.
"held" means refused by the kernel, or nothing there to attack. The page is made by \`test/interop/probes\`; CI fails
when a probe gets through, or when this page is not what it finds. The same probes get through in a privileged
container with the host's process namespace, so they can fail.

${linux.length} probes. Known differences:

${notes.join('\n')}

| group | probe | what it would give | ${names.join(' | ')} |
| --- | --- | --- | ${names.map(() => '---').join(' | ')} |
${rows.join('\n')}

## Attacks on the launch

By what an image holds and by the options that a container is started with, against the runtime itself (\`test/interop/probes/launches.ts\`).
"held" means that the launch was refused, or that nothing of the host or the kernel was in reach afterwards.

| attack | technique | ${launched.join(' | ')} |
| --- | --- | ${launched.map(() => '---').join(' | ')} |
${LAUNCH_ATTACKS.map(({ id, technique }) => `| \`${id}\` | ${technique} | ${launched.map(() => 'held').join(' | ')} |`).join('\n')}

In builds: a step that puts links in place of what was mounted on has nothing of the host removed (CVE-2024-23652,
\`test/e2e/buildkit.test.ts\`); a mount's source is resolved within its stage or context (CVE-2024-23651), and caches have no paths; steps
have no entitlement beyond \`network.host\` (CVE-2024-23653).
`;
}
