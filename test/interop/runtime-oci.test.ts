/** Containers by Debian's runc and crun, behind the same interface as our own runtime. */
import { existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { finish, Jails, ociCommand, readUntil } from './jails.ts';

const MIB = 1 << 20;

describe.each(['runc', 'crun'])('%s', (name) => {
  const oci = ociCommand(name);
  const jails = new Jails({ oci });
  beforeAll(() => jails.open());
  afterAll(async () => {
    await jails.close();
    oci.remove();
    // Also the parent that runc makes in version 2, of which only the daemon knows.
    const groups = readdirSync('/sys/fs/cgroup').map(
      (hierarchy) => `/sys/fs/cgroup/${hierarchy}/drydock-${jails.instance}`,
    );
    expect(groups.filter((path) => existsSync(path))).toEqual([]);
  });

  it('runs a program with its streams and exit code', async () => {
    expect(await jails.sh('echo out; echo err >&2; exit 7')).toMatchObject({
      stdout: 'out\n',
      stderr: 'err\n',
      status: { code: 7 },
    });
  });

  it('passes standard input on and loses no output', async () => {
    await jails.withJail(
      { process: { stdin: true } },
      async (_jail, main) => {
        main.stdin!.end('x'.repeat(300_000));
        expect((await finish(main)).stdout.trim()).toBe('300000');
      },
      ['wc', '-c'],
    );
    expect((await jails.sh('seq 1 100000')).stdout.length).toBe(588_895);
  });

  it('tells what cannot be started', async () => {
    await expect(jails.run(['nowhere'])).rejects.toMatchObject({ code: 'ERR_EXEC_NOT_FOUND' });
    await expect(jails.run(['/etc/passwd'])).rejects.toMatchObject({ code: 'ERR_EXEC_PERMISSION' });
    await expect(jails.run(['true'], { process: { user: 'nobody-here' } })).rejects.toMatchObject({
      code: 'ERR_USER_NOT_FOUND',
    });
  });

  it('gives what the specification says', async () => {
    const volume = jails.folder('volume');
    writeFileSync(join(volume, 'file'), 'content');
    const script =
      'id; hostname; cat /data/file; echo; grep -E "^(CapEff|CapBnd|CapInh|Seccomp|NoNewPrivs):" /proc/self/status; cut -d: -f3 /proc/self/cgroup | sort -u; ulimit -n; ls /sys/class/net; unshare -U true';
    const { stdout, stderr } = await jails.sh(script, {
      mounts: [{ kind: 'bind', source: volume, target: '/data', readOnly: true, options: [] }],
      process: { user: 'bob', noNewPrivileges: true, rlimits: [{ name: 'nofile', soft: 99, hard: 99 }] },
    });
    expect(stdout).toBe(
      'uid=1000(bob) gid=1000(bob) groups=1000(bob),50(staff)\nbox\ncontent\nCapInh:\t0000000000000000\nCapEff:\t0000000000000000\n' +
        'CapBnd:\t00000000a80425fb\nNoNewPrivs:\t1\nSeccomp:\t2\n/\n99\nlo\n',
    );
    expect(stderr).toContain('Operation not permitted');
  });

  it('has the network namespace before it starts', async () => {
    const jail = await jails.runtime.create(jails.spec(['readlink', '/proc/self/ns/net']));
    const namespace = readlinkSync(`/proc/${jail.pid}/ns/net`);
    expect((await finish(await jail.start())).stdout.trim()).toBe(namespace);
    await jail.destroy();
  });

  it('runs further processes, with signals and a terminal', async () => {
    await jails.withJail({}, async (jail, main) => {
      expect(await jails.exec(jail, ['sh', '-c', 'id -un; exit 4'], { user: 'bob' })).toMatchObject({
        stdout: 'bob\n',
        status: { code: 4 },
      });
      await expect(jails.exec(jail, ['nowhere'])).rejects.toMatchObject({ code: 'ERR_EXEC_NOT_FOUND' });
      const shown = await jail.exec(
        jails.process(['sh', '-c', 'trap "stty size" WINCH; stty size; while :; do sleep 0.05; done'], {
          terminal: true,
          stdin: true,
          consoleSize: { rows: 5, columns: 60 },
        }),
      );
      await readUntil(shown.stdout, (all) => all.includes('5 60'));
      shown.resize(7, 70);
      // Not its end, where crun may lose what was written last.
      await readUntil(shown.stdout, (all) => all.includes('7 70'));
      main.kill('KILL');
      expect((await main.exited).code).toBe(137);
    });
  });

  it('limits, pauses and counts by the same control groups', async () => {
    const limits = { memoryBytes: 64 * MIB, pids: 20 };
    await jails.withJail({ limits }, async (jail, main) => {
      expect(await jail.stats()).toMatchObject({ memoryLimitBytes: 64 * MIB, pidsLimit: 20 });
      expect(await jail.pids()).toEqual([main.pid]);
      await jail.pause();
      await jail.resume();
      await jail.update({ pids: 30 });
      expect((await jail.stats()).pidsLimit).toBe(30);
    });
  });

  it('leaves nothing', async () => {
    await jails.run(['true']);
    const left = ['memory', 'unified'].flatMap((hierarchy) => {
      const groups = `/sys/fs/cgroup/${hierarchy}/drydock-${jails.instance}`;
      return existsSync(groups)
        ? readdirSync(groups, { withFileTypes: true }).filter((entry) => entry.isDirectory())
        : [];
    });
    expect(left).toEqual([]);
    // The spare launcher of our own runtime is always there.
    await expect
      .poll(() => readFileSync('/proc/thread-self/children', 'utf8').trim().split(' ').filter(Boolean).length)
      .toBe(1);
  });
});

it('the next start removes the parent group that a killed daemon left', async () => {
  const instance = `test-${process.pid}`;
  const parent = `/sys/fs/cgroup/${existsSync('/sys/fs/cgroup/unified') ? 'unified/' : ''}drydock-${instance}`;
  mkdirSync(parent);
  const next = new Jails({ instance });
  await next.open();
  await next.runtime.sweep([], new Set());
  expect(existsSync(parent)).toBe(false);
  await next.close();
});

it('a runtime that is not there is said to be missing', async () => {
  const jails = new Jails({ oci: { name: 'none', command: '/no/such/runtime' } });
  await jails.open();
  await expect(jails.run(['true'])).rejects.toMatchObject({ code: 'ERR_OCI_RUNTIME' });
  await jails.close();
});
