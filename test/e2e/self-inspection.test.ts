/**
 * What a container finds out about its confinement from inside, beside the same container of Debian's dockerd in the same
 * run. Every difference is explained in docs/reference/self-inspection.md, which is made here (anew with UPDATE_DOCS=1).
 */
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Dockerd } from '../support/dockerd.ts';
import type { Docker } from '../support/e2e/daemon.ts';
import { sharedDocker } from '../support/e2e/session.ts';
import { E2E_NEEDS } from '../support/e2e/shared-daemon.ts';
import { directory, file, tarOf } from '../support/images.ts';
import { lacking } from '../support/requirements.ts';

type Facts = Record<string, string>;
/** A request to an engine, with its answer. */
type Call = (method: string, path: string, body?: object | Buffer) => Promise<string>;

const repository = fileURLToPath(new URL('../..', import.meta.url));
const page = join(repository, 'docs/reference/self-inspection.md');

/** Differences by the names of facts. */
const EXPLAINED: readonly { facts: RegExp; what: string; ours: string; theirs: string; why: string }[] = [
  {
    facts: /^(cgroup path|namespace cgroup)$/,
    what: 'control groups',
    ours: 'a namespace of its own: the path is `/`',
    theirs: 'the host’s, with the path there',
    why: 'dockerd gives a cgroup namespace by default only where version 2 is the only one',
  },
  {
    facts: /^mount \/sys\/fs\/cgroup$/,
    what: '`/sys/fs/cgroup`',
    ours: 'read-only',
    theirs: 'writable, with read-only hierarchies in it',
    why: 'nothing needs to be put beside the hierarchies',
  },
  {
    facts: /^mount \/(proc|sys)\/(interrupts|devices\/virtual\/powercap)$/,
    what: '`/proc/interrupts`, `/sys/devices/virtual/powercap`',
    ours: 'hidden',
    theirs: 'shown',
    why: 'newer versions of moby hide them too: they tell keystrokes and power by timing (CVE-2020-8694 and such)',
  },
  {
    facts: /^mount \/proc\/(acpi|asound|kcore|keys|latency_stats|sched_debug|scsi|timer_list|timer_stats)$/,
    what: 'masks of files',
    ours: 'read-only',
    theirs: 'writable',
    why: 'a mask is a null device, and chmod on it must not reach the device',
  },
  {
    facts:
      /^system call (cachestat|fchmodat2|file_[gs]etattr|futex_(requeue|wait|wake)|\w+xattrat|listmount|statmount|lsm_\w+|mseal|open_tree_attr|set_mempolicy_home_node|map_shadow_stack|listns)$/,
    what: 'system calls that are newer than Debian’s libseccomp',
    ours: 'allowed or refused by the newest default profile',
    theirs: 'not known: ENOSYS',
    why: 'its compiler answers ENOSYS for everything above the newest system call that it knows',
  },
  {
    facts: /^system call (name_to_handle_at|pkey_(alloc|free|mprotect)|process_vm_(readv|writev))$/,
    what: '`name_to_handle_at`, `pkey_*`, `process_vm_*`',
    ours: 'allowed',
    theirs: 'refused',
    why: 'newer versions of moby allow them: the first needs no privilege without open_by_handle_at, the last two ask what ptrace asks',
  },
  {
    facts: /^system call io_uring_(enter|register|setup)$/,
    what: '`io_uring_*`',
    ours: 'refused',
    theirs: 'allowed',
    why: 'newer versions of moby refuse them: requests in a ring pass by the filter, and faults in it were ways out',
  },
  {
    facts: /^system call socket$/,
    what: '`socket` of unknown families',
    ours: 'refused above those that are listed',
    theirs: 'all but vsock are allowed',
    why: 'a family that is not known today cannot be judged today',
  },
];

/** Facts that every kernel has. */
const FACTS_MIN = 120;

const FOLDERS = ['bin', 'lib', 'lib64', 'sbin', 'usr', 'etc', 'tmp', 'dev', 'proc', 'sys', 'probe', 'out'];
const IMAGE = tarOf([
  ...FOLDERS.map((name) => directory(name)),
  file('etc/passwd', 'root:x:0:0:root:/root:/bin/sh\n'),
  file('etc/group', 'root:x:0:\n'),
]);

describe.skipIf(lacking(...E2E_NEEDS, 'dockerd'))('a container, seen from inside', () => {
  const folder = mkdtempSync(join(tmpdir(), 'drydock-inspect-'));
  let dockerd: Dockerd;
  let docker: Docker;
  beforeAll(async () => {
    docker = sharedDocker();
    dockerd = new Dockerd();
    await dockerd.ready();
  });
  afterAll(async () => {
    await docker.run(['rmi', '-f', 'inspected']);
    await dockerd?.close();
    rmSync(folder, { recursive: true });
  });

  async function inspect(name: string, call: Call): Promise<Facts> {
    const kinds = readdirSync('/proc/self/ns').filter((kind) => !kind.includes('_'));
    const namespaces = Object.fromEntries(kinds.map((kind) => [kind, readlinkSync(`/proc/self/ns/${kind}`)]));
    const programs = ['bin', 'lib', 'lib64', 'sbin', 'usr'].map((path) => `/${path}:/${path}:ro`);
    const parts = ['dist', 'node_modules', 'test/support', 'package.json'];
    const answer = await call('POST', '/containers/create', {
      Image: 'inspected',
      Cmd: ['/probe/node', '/probe/test/support/self-inspection.mjs', `/out/${name}.json`],
      Env: [`NAMESPACES=${JSON.stringify(namespaces)}`],
      HostConfig: {
        NetworkMode: 'none',
        Binds: [
          ...programs,
          ...parts.map((path) => `${repository}${path}:/probe/${path}:ro`),
          `${process.execPath}:/probe/node:ro`,
          `${folder}:/out`,
        ],
      },
    });
    const { Id } = JSON.parse(answer) as { Id: string };
    await call('POST', `/containers/${Id}/start`);
    const { StatusCode } = JSON.parse(await call('POST', `/containers/${Id}/wait`)) as { StatusCode: number };
    expect([StatusCode, await call('GET', `/containers/${Id}/logs?stderr=1`)]).toEqual([0, '']);
    await call('DELETE', `/containers/${Id}`);
    return JSON.parse(readFileSync(join(folder, `${name}.json`), 'utf8'));
  }

  it('differs from dockerd’s in nothing that is not explained', async () => {
    const tarFile = join(folder, 'image.tar');
    writeFileSync(tarFile, IMAGE);
    await docker.ok(['import', tarFile, 'inspected']);
    const imported = await dockerd.send('POST', '/images/create?fromSrc=-&repo=inspected', IMAGE);
    expect(imported.status).toBe(200);
    const theirs = await inspect('dockerd', async (method, path, body) =>
      (
        await dockerd.send(method, path, body && Buffer.from(JSON.stringify(body)), 'application/json')
      ).body.toString(),
    );
    const ours = await inspect(
      'ours',
      async (method, path, body) => (await docker.api(method, path, body)).body,
    );
    const names = [...new Set([...Object.keys(ours), ...Object.keys(theirs)])].sort();
    const differences = names.filter((name) => ours[name] !== theirs[name]);
    const unexplained = differences.filter((name) => !EXPLAINED.some(({ facts }) => facts.test(name)));
    expect(unexplained.map((name) => [name, ours[name], theirs[name]])).toEqual([]);
    expect(names.length).toBeGreaterThan(FACTS_MIN);
  });

  it('is what the documentation says', () => {
    const text = render();
    if (process.env.UPDATE_DOCS) writeFileSync(page, text);
    expect(readFileSync(page, 'utf8')).toBe(text);
  });
});

function render(): string {
  const rows = EXPLAINED.map(({ what, ours, theirs, why }) => `| ${what} | ${ours} | ${theirs} | ${why} |`);
  return `# A container seen from inside, beside dockerd's

The same image with the same request, by Drydock and by Debian's dockerd 20.10 in the same run of the tests. A program in the
container looks at itself, as amicontained does: the five capability sets, no_new_privs and the seccomp mode, what each
system call that this machine has answers to arguments without sense, namespaces, users and groups, labels of security
modules, mounts with what may be done there, device nodes, limits, control groups.

Over ${FACTS_MIN} facts are compared, and the test (\`test/e2e/self-inspection.test.ts\`) fails for any difference but these. Landlock,
which surrounds our container and not theirs, cannot be seen from inside.

| what | Drydock | dockerd 20.10 | why |
| --- | --- | --- | --- |
${rows.join('\n')}
`;
}
