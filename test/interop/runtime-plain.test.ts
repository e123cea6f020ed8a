/** Jails without namespaces, on the real kernel. */
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { jailOwner } from '../../daemon/runtime/plain/promises.ts';
import { linuxUserProcesses } from '../../daemon/runtime/plain/user-processes-linux.ts';
import { Jails, type SpecChanges } from './jails.ts';

const jails = new Jails();
beforeAll(() => jails.open());
afterAll(() => jails.close());

const plain = (changes: SpecChanges = {}): SpecChanges => ({
  runtime: 'plain',
  network: { attached: false, ports: [] },
  ...changes,
});
const mountsBelowRoot = (): number =>
  readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => line.includes(` ${jails.root}`)).length;

describe('a jail without namespaces', () => {
  it('runs as a user of its own, without capabilities and new privileges', async () => {
    const { stdout, status } = await jails.sh(
      'id -u; grep -E "^(CapBnd|CapEff|NoNewPrivs|Seccomp):" /proc/self/status | tr "\\n\\t" "  "',
      plain(),
    );
    const [uid, rest] = stdout.split('\n');
    expect(Number(uid)).toBeGreaterThan(0x6fff_ffff);
    expect(rest?.trim()).toBe('CapEff: 0000000000000000 CapBnd: 0000000000000000 NoNewPrivs: 1 Seccomp: 2');
    expect(status.code).toBe(0);
  });

  it('owns its image, and sees neither the host’s files nor its processes', async () => {
    const { stdout } = await jails.sh(
      'echo mine > /etc/mine && cat /etc/mine; ls /proc/1 /proc/sys /root/../../../.. 2>/dev/null | grep -c sysctl; kill -0 1 2>&1 | grep -co "not permitted"',
      plain(),
    );
    expect(stdout).toBe('mine\n0\n1\n');
  });

  it('has no network when it asked for none', async () => {
    const { stdout } = await jails.sh(
      'python3 -c "import socket; socket.socket()" 2>&1 | tail -1; python3 -c "import socket; socket.socket(socket.AF_UNIX); print(1)"',
      plain(),
    );
    expect(stdout).toBe('PermissionError: [Errno 1] Operation not permitted\n1\n');
  });

  it('is read-only where that was asked for, and writable where a volume is', async () => {
    const { stdout } = await jails.sh(
      'touch /x 2>/dev/null || echo root; touch /usr/x 2>/dev/null || echo volume; touch /tmp/x && echo tmp',
      plain({
        readOnlyRoot: true,
        mounts: [{ kind: 'tmpfs', target: '/tmp', readOnly: false, options: ['mode=1777'] }],
      }),
    );
    expect(stdout).toBe('root\nvolume\ntmp\n');
  });

  it('ends with all its processes, and leaves no mount', async () => {
    const before = mountsBelowRoot();
    await jails.withJail(plain(), async (jail, main) => {
      const owner = jailOwner(jail.id);
      const { stdout } = await jails.exec(jail, ['sh', '-c', 'sleep 1000 >/dev/null 2>&1 & echo up']);
      expect(stdout).toBe('up\n');
      expect(linuxUserProcesses.list(owner).length).toBe(2);
      expect(mountsBelowRoot()).toBeGreaterThan(before);
      main.kill('SIGKILL');
      expect((await main.exited).code).toBe(137);
    });
    expect(mountsBelowRoot()).toBe(before);
  });

  it('is killed as a whole when it takes more memory than it may', async () => {
    const { status } = await jails.sh(
      'python3 -c "a = bytearray(200 << 20); import time; time.sleep(60)"',
      plain({ limits: { memoryBytes: 64 << 20 } }),
    );
    expect(status).toMatchObject({ oomKilled: true });
  });

  it('is stopped and let go on', async () => {
    await jails.withJail(plain(), async (jail, main) => {
      const state = (): string => /State:\s(\S)/.exec(readFileSync(`/proc/${main.pid}/status`, 'utf8'))![1]!;
      await jail.pause();
      await expect.poll(state).toBe('T');
      await jail.resume();
      await expect.poll(state).toBe('S');
    });
  });

  it.each<[string, SpecChanges]>([
    ['privileged', { privileged: true }],
    ['capabilities', { process: { capabilities: ['CAP_SYS_ADMIN'] } }],
    ['no network of its own', { network: { attached: true, ports: [] } }],
    ['sysctls', { sysctls: { 'kernel.msgmni': '7' } }],
  ])('refuses %s instead of pretending', async (_what, changes) => {
    await expect(jails.sh('true', plain(changes))).rejects.toMatchObject({ code: 'ERR_JAIL_PROMISE' });
  });

  it('says what it has instead of the rest', () => {
    const rows = jails.runtime.report(jails.spec(['true'], plain({ limits: { cpuShares: 5, pids: 9 } })));
    const got = Object.fromEntries(rows.map((row) => [row.feature, row.got]));
    expect(got).toMatchObject({ 'CPU shares': 'none', processes: 'full', 'pid namespace': 'partial' });
  });
});
