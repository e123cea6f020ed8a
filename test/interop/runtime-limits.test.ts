/** Control groups as containers feel them: memory, processes, processors, pause, and what is told about them. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DEFAULT_DEVICES } from '../../daemon/runtime/index.ts';
import { finish, Jails, readUntil } from './jails.ts';

const jails = new Jails();
beforeAll(() => jails.open());
afterAll(() => jails.close());

const MIB = 1 << 20;

/** The shell's own memory, so that the program that is killed is process 1. */
const HOG = 'a=xxxxxxxxxxxxxxxx; while :; do a=$a$a; done';

describe('limits', () => {
  it('kill a program that takes more memory, and say so', async () => {
    const { status } = await jails.sh(HOG, { limits: { memoryBytes: 32 * MIB, memorySwapBytes: 32 * MIB } });
    expect(status).toEqual({ code: 137, signal: 'SIGKILL', oomKilled: true });
  });

  it('let a small program run in the smallest memory that docker allows', async () => {
    const { stdout, status } = await jails.run(['cat', '/etc/passwd'], { limits: { memoryBytes: 6 * MIB } });
    expect(stdout).toContain('bob');
    expect(status).toMatchObject({ code: 0, oomKilled: false });
  });

  it('stop a fork bomb', async () => {
    const script = 'i=0; while [ $i -lt 50 ]; do sleep 5 & i=$((i+1)); done 2>&1; echo done';
    const { stdout, stderr } = await jails.sh(script, { limits: { pids: 10 } });
    expect(stdout + stderr).toMatch(/[Cc]annot fork|Resource temporarily unavailable/);
  });

  it('are seen in stats, and change while the program runs', async () => {
    await jails.withJail({ limits: { memoryBytes: 64 * MIB, pids: 20, cpuShares: 512 } }, async (jail) => {
      expect(await jail.stats()).toMatchObject({ memoryLimitBytes: 64 * MIB, pids: 1, pidsLimit: 20 });
      await jail.update({ memoryBytes: 128 * MIB, memorySwapBytes: 256 * MIB, pids: 30 });
      expect(await jail.stats()).toMatchObject({ memoryLimitBytes: 128 * MIB, pidsLimit: 30 });
      await jail.update({ memoryBytes: 48 * MIB, memorySwapBytes: 48 * MIB });
      expect(await jail.stats()).toMatchObject({ memoryLimitBytes: 48 * MIB, pidsLimit: 30 });
    });
  });

  it('hold a busy program to its share of a processor', async () => {
    const limits = { cpuQuotaUs: 20_000, cpuPeriodUs: 100_000 };
    await jails.withJail(
      { limits },
      async (jail, main) => {
        await readUntil(main.stdout, (all) => all.includes('go'));
        const before = await jail.stats();
        const startedMs = performance.now();
        await new Promise((resolve) => setTimeout(resolve, 1000));
        const after = await jail.stats();
        const share = (after.cpuTotalNs - before.cpuTotalNs) / 1e6 / (performance.now() - startedMs);
        expect(share).toBeLessThan(0.3);
        expect(after.throttledPeriods).toBeGreaterThan(0);
      },
      ['sh', '-c', 'echo go; while :; do :; done'],
    );
  });

  it('confine to processors', async () => {
    const { stdout } = await jails.run(['nproc'], { limits: { cpusetCpus: '0' } });
    expect(stdout).toBe('1\n');
  });

  it('that cannot be kept are reported', () => {
    const rows = jails.runtime.report(jails.spec(['true'], { limits: { memoryBytes: 1, cpuQuotaUs: 1 } }));
    expect(rows).toContainEqual(expect.objectContaining({ feature: 'memory limit', got: 'full' }));
    expect(rows).toContainEqual(expect.objectContaining({ feature: 'user namespace', got: 'none' }));
  });
});

describe('pausing', () => {
  it('stops all processes until they are resumed', async () => {
    const script = 'echo go; i=0; while :; do i=$((i+1)); echo $i > /tmp/count; done';
    await jails.withJail(
      {},
      async (jail, main) => {
        await readUntil(main.stdout, (all) => all.includes('go'));
        const cpu = async (): Promise<number> => (await jail.stats()).cpuTotalNs;
        await jail.pause();
        const frozen = await cpu();
        await new Promise((resolve) => setTimeout(resolve, 200));
        expect(await cpu()).toBe(frozen);
        await jail.resume();
        await expect.poll(cpu).toBeGreaterThan(frozen);
      },
      ['sh', '-c', script],
    );
  });

  it('does not keep a jail from being destroyed', async () => {
    await jails.withJail({}, async (jail) => jail.pause());
  });
});

describe('devices', () => {
  it('outside of the list cannot be opened, though a node can be made', async () => {
    const script =
      'mknod /tmp/kmsg c 1 11 && mknod /tmp/null c 1 3 && echo made; head -c 1 /tmp/kmsg; echo x > /tmp/null && echo ok';
    const { stdout, stderr } = await jails.sh(script);
    expect(stdout).toBe('made\nok\n');
    expect(stderr).toContain('Operation not permitted');
  });

  it('of the list are there with the wanted access', async () => {
    const { stdout, stderr } = await jails.sh('ls /dev/my/fuse && exec 3<>/dev/my/fuse && echo opened', {
      devices: [...DEFAULT_DEVICES, { hostPath: '/dev/fuse', path: '/dev/my/fuse', access: 'rwm' }],
    });
    expect({ stdout, stderr }).toEqual({ stdout: '/dev/my/fuse\nopened\n', stderr: '' });
  });

  it('of a rule can be opened through a node that the container makes, and with that access only', async () => {
    const script =
      'mknod /tmp/fuse c 10 229; mknod /tmp/mem c 1 1; (exec 3</tmp/fuse) && echo opened; (exec 3>/tmp/fuse) || echo refused; head -c 1 /tmp/mem || echo refused';
    const { stdout } = await jails.sh(script, {
      deviceRules: [{ type: 'c', major: 10, minor: 229, access: 'rm' }],
    });
    expect(stdout).toBe('opened\nrefused\nrefused\n');
  });

  it('are all there for a privileged jail', async () => {
    const { stdout } = await jails.sh(
      'ls /dev/loop-control /dev/fuse; exec 3</dev/kmsg && echo opened; cat /proc/self/status | grep CapEff',
      {
        privileged: true,
      },
    );
    const own = /CapBnd:\s*([0-9a-f]+)/.exec(readFileSync('/proc/self/status', 'utf8'))![1];
    expect(stdout).toBe(`/dev/fuse\n/dev/loop-control\nopened\nCapEff:\t${own}\n`);
  });
});

describe('what a killed daemon left', () => {
  it('is swept away, processes and groups, and told', async () => {
    const jail = await jails.runtime.create(jails.spec(['sleep', 'infinity']));
    const main = await jail.start();
    // A second runtime of the same instance stands for the daemon that comes back.
    const next = new Jails({ instance: jails.instance });
    await next.open();
    const none = new Set<string>();
    try {
      const done = await next.runtime.sweep(
        [{ id: jail.id, pid: jail.pid, startTime: jail.startTime }],
        none,
      );
      expect(done[0]).toBe(`killed process ${jail.pid} of container ${jail.id.slice(0, 12)}`);
      expect(done[1]).toContain('removed the cgroup');
      expect((await finish(main)).status.code).toBe(137);
      expect(await next.runtime.sweep([{ id: jail.id, pid: process.pid, startTime: '1' }], none)).toEqual([]);
    } finally {
      await next.close();
      await jail.destroy();
    }
    const group = `/sys/fs/cgroup/memory/drydock-${jails.instance}`;
    expect(existsSync(group) ? readdirSync(group).filter((name) => name === jail.id) : []).toEqual([]);
  });
});
