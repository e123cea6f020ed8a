import { readFileSync, readlinkSync } from 'node:fs';
import { hostname } from 'node:os';
import { afterEach, beforeAll, expect, it } from 'vitest';
import { type Docker, IMAGE } from '../support/e2e/daemon.ts';
import { describeE2e, sharedDocker } from '../support/e2e/session.ts';

/** The capabilities of a container by default: moby oci/caps/defaults.go, as the bits of capability.h. */
const DEFAULT_CAPABILITIES = 0xa80425fbn;

describeE2e('isolation', () => {
  let docker: Docker;
  const sh = (script: string, ...options: string[]): Promise<string> =>
    docker.ok(['run', '--rm', ...options, IMAGE, 'sh', '-c', script]);

  beforeAll(() => {
    docker = sharedDocker();
  });
  afterEach(() => docker.removeAll());

  it.each(['pid', 'mnt', 'uts', 'ipc', 'net', 'cgroup'])(
    'a container has a %s namespace of its own',
    async (kind) => {
      expect(await sh(`readlink /proc/self/ns/${kind}`)).not.toBe(readlinkSync(`/proc/self/ns/${kind}`));
    },
  );

  it('sees only its own processes', async () => {
    expect(await sh('ls /proc | grep -c "^[0-9]*$"; echo $$')).toMatch(/^[2-5]\n1$/);
  });

  it('two containers share no namespace, and one host name does not leak', async () => {
    const [a, b] = await Promise.all([
      sh('readlink /proc/self/ns/net; hostname'),
      sh('readlink /proc/self/ns/net; hostname'),
    ]);
    expect(a).not.toBe(b);
    expect(a).not.toContain(hostname());
  });

  it('the root is an overlay of the image and a writable layer; the image stays as it was', async () => {
    expect(await sh('touch /new; rm /etc/passwd; ls /new')).toBe('/new');
    expect(await sh('ls /new 2>/dev/null; ls /etc/passwd')).toBe('/etc/passwd');
  });

  it('the old root is gone: no path leads to the host', async () => {
    const id = await docker.ok(['run', '-d', IMAGE, 'sleep', '1000']);
    const { State } = await docker.inspect<{ State: { Pid: number } }>(id);
    const mounts = readFileSync(`/proc/${State.Pid}/mountinfo`, 'utf8')
      .trim()
      .split('\n')
      .map((line) => line.split(' ')[4]);
    expect(mounts.filter((path) => path === '/')).toHaveLength(1);
    expect(mounts.every((path) => path === '/' || /^\/(proc|sys|dev|etc)/.test(path!))).toBe(true);
    expect(await docker.ok(['exec', id, 'sh', '-c', 'cd /../../.. && stat -c %d:%i / .'])).toMatch(
      /^(.+)\n\1$/,
    );
  });

  it.each(['/proc/kcore', '/proc/keys', '/proc/timer_list'])('%s is masked', async (path) => {
    expect(await sh(`[ -e ${path} ] || exit 0; wc -c < ${path} 2>/dev/null || echo 0`)).toMatch(/^0?$/);
  });

  it.each(['/proc/sys/kernel/core_pattern', '/proc/sysrq-trigger', '/sys/kernel/uevent_helper'])(
    '%s cannot be written',
    async (path) => {
      expect(await sh(`echo x > ${path} 2>/dev/null && echo written || echo denied`)).toBe('denied');
    },
  );

  it('/dev is minimal: the usual nodes and no disk', async () => {
    const nodes = (await sh('ls /dev')).split('\n');
    for (const node of [
      'null',
      'zero',
      'full',
      'random',
      'urandom',
      'tty',
      'ptmx',
      'pts',
      'shm',
      'fd',
      'stdin',
      'stdout',
      'stderr',
    ])
      expect(nodes).toContain(node);
    expect(nodes.filter((node) => /^(vd|sd|nvme|dm-|loop|mem|kmem|kvm|fuse|net)/.test(node))).toEqual([]);
    expect(
      await sh('echo gone > /dev/null; head -c 4 /dev/zero | od -An -tx1; head -c 8 /dev/urandom | wc -c'),
    ).toMatch(/00 00 00 00\s+8/);
  });

  it('a device node that a container makes cannot be opened', async () => {
    expect(
      await sh(
        'mknod /tmp/disk b 254 0 2>/dev/null; head -c 1 /tmp/disk 2>&1 | grep -ciE "not permitted|denied|no such"',
      ),
    ).toBe('1');
  });

  it("has docker's default capabilities, and more or fewer on demand", async () => {
    const effective = async (...options: string[]): Promise<bigint> =>
      BigInt(`0x${await sh('grep CapEff /proc/self/status | cut -f2', ...options)}`);
    expect(await effective()).toBe(DEFAULT_CAPABILITIES);
    expect(await effective('--cap-drop', 'ALL')).toBe(0n);
    expect(await effective('--cap-add', 'NET_ADMIN')).toBe(DEFAULT_CAPABILITIES | (1n << 12n));
    expect(await effective('-u', '1000')).toBe(0n);
    expect(await sh('grep CapBnd /proc/self/status | cut -f2', '-u', '1000')).toBe('00000000a80425fb');
  });

  it('no_new_privs is set where asked, and only there', async () => {
    expect(await sh('grep NoNewPrivs /proc/self/status | cut -f2')).toBe('0');
    expect(
      await sh('grep NoNewPrivs /proc/self/status | cut -f2', '--security-opt', 'no-new-privileges'),
    ).toBe('1');
  });

  it('no descriptor of the daemon leaks in', async () => {
    expect(await sh('ls /proc/self/fd | tr "\\n" " "')).toMatch(/^0 1 2 3 ?$/);
  });

  it('--read-only makes the root read-only, and --tmpfs a place to write', async () => {
    expect(
      await sh(
        'touch /x 2>/dev/null && echo written; touch /scratch/y && ls /scratch',
        '--read-only',
        '--tmpfs',
        '/scratch',
      ),
    ).toBe('y');
  });

  it('--memory: what takes more is killed, and the container says OOMKilled', async () => {
    const id = await docker.ok([
      'create',
      '--memory',
      '48m',
      '--memory-swap',
      '48m',
      IMAGE,
      'node',
      '-e',
      'const a=[];for(;;)a.push(Buffer.alloc(1<<20,1))',
    ]);
    const { code } = await docker.run(['start', '-a', id]);
    expect(code).toBe(137);
    expect(await docker.ok(['inspect', id, '--format', '{{.State.OOMKilled}}'])).toBe('true');
  });

  it('--pids-limit: a fork bomb stays in the container', async () => {
    expect(
      await sh(
        'for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do sleep 5 & done 2>&1 | grep -ciE "fork|resource" >/dev/null; ls /proc | grep -c "^[0-9]*$"',
        '--pids-limit',
        '8',
      ).catch((error: Error) => error.message),
    ).toMatch(/fork|[0-8]$/i);
  });

  it('--cpus sets the quota of the cgroup', async () => {
    const id = await docker.ok(['run', '-d', '--cpus', '0.5', IMAGE, 'sleep', '1000']);
    const { State } = await docker.inspect<{ State: { Pid: number } }>(id);
    const lines = readFileSync(`/proc/${State.Pid}/cgroup`, 'utf8').split('\n');
    const v1 = lines.find((line) => /:cpu(,cpuacct)?:/.test(line));
    const quota = v1
      ? readFileSync(`/sys/fs/cgroup/cpu${v1.split(':')[2]}/cpu.cfs_quota_us`, 'utf8').trim()
      : readFileSync(
          `/sys/fs/cgroup${lines.find((line) => line.startsWith('0::'))!.slice(3)}/cpu.max`,
          'utf8',
        ).split(' ')[0];
    expect(quota).toBe('50000');
  });

  it('the cgroup is not told to the container', async () => {
    const lines = (await sh('cat /proc/self/cgroup'))
      .split('\n')
      .filter((line) => !line.includes('name=') && !line.startsWith('0::'));
    for (const line of lines) expect(line).toMatch(/:\/$/);
  });

  it('--privileged has all capabilities and sees devices', async () => {
    const [, ofHost] = readFileSync('/proc/self/status', 'utf8').match(/CapBnd:\s+(\w+)/)!;
    const seen = await sh('grep CapEff /proc/self/status | cut -f2; ls /dev | grep -c .', '--privileged');
    const [capabilities, devices] = seen.split('\n');
    expect(capabilities).toBe(ofHost);
    expect(Number(devices)).toBeGreaterThan(30);
  });
});
