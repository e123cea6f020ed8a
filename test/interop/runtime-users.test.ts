/** Jails whose users are not the machine's: a user namespace with maps, as dockerd's userns-remap. */
import { execFileSync } from 'node:child_process';
import { readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { UserMaps } from '#common/id-map';
import type { JailMount } from '../../daemon/runtime/runtime.ts';
import { lacking } from '../support/requirements.ts';
import { Jails, type Outcome, type SpecChanges } from './jails.ts';

const FIRST = 200_000;
const RANGE = [{ inside: 0, outside: FIRST, length: 65_536 }];
const userMaps: UserMaps = { uids: RANGE, gids: RANGE };

describe.skipIf(lacking('root'))('a jail with users of its own', () => {
  const jails = new Jails();
  beforeAll(async () => {
    await jails.open();
    // As the daemon unpacks images: with the owners that the jail's root has outside.
    execFileSync('chown', ['-R', `${FIRST}:${FIRST}`, jails.root]);
  });
  afterAll(() => jails.close());
  const sh = (script: string, changes: SpecChanges = {}): Promise<Outcome> =>
    jails.sh(script, { userMaps, ...changes });

  it('is run by an ordinary user of the machine', async () => {
    await jails.withJail({ userMaps }, async (jail, main) => {
      expect(main.pid).toBe(jail.pid);
      const status = readFileSync(`/proc/${main.pid}/status`, 'utf8');
      expect(status).toMatch(new RegExp(`^Uid:\\s${FIRST}\\s${FIRST}\\s${FIRST}\\s${FIRST}$`, 'm'));
      expect(status).toMatch(new RegExp(`^Gid:\\s${FIRST}\\s`, 'm'));
      const { stdout } = await jails.exec(jail, [
        'sh',
        '-c',
        'id -u; cat /proc/self/uid_map; cat /proc/1/comm',
      ]);
      expect(stdout.trim().split(/\s+/)).toEqual(['0', '0', `${FIRST}`, '65536', 'sleep']);
    });
  });
  it('has a root, owner of the files that are made for it', async () => {
    const paths = '/ /dev /dev/null /dev/shm /dev/mqueue /tmp /tmp/x /made/here';
    const { stdout, stderr } = await sh(`touch /tmp/x; stat -c '%u:%g %n' ${paths}`, {
      process: { cwd: '/made/here' },
    });
    expect(stderr).toBe('');
    expect(stdout.trim().split('\n')).toEqual(paths.split(' ').map((path) => `0:0 ${path}`));
  });

  it('has owners and groups of the devices and terminals by its own numbers', async () => {
    const process = { terminal: true };
    const { stdout } = await sh('stat -c "%u:%g" /dev/console $(tty); id -G', { process });
    expect(stdout.trim().split('\r\n')).toEqual(['0:5', '0:5', '0']);
  });

  it('lets its root rule its own network, and not that of the machine', async () => {
    const capabilities = ['CAP_NET_ADMIN', 'CAP_NET_RAW', 'CAP_SYS_ADMIN'];
    const process = { capabilities };
    const script = 'ip link set lo down && echo made; hostname other && hostname';
    expect((await sh(script, { process })).stdout).toBe('made\nother\n');
    // The mounts are the jail's, too.
    const mount = 'mount -t tmpfs none /tmp && umount /tmp && echo mounted';
    expect(await sh(mount, { process, seccomp: 'unconfined' })).toMatchObject({ stdout: 'mounted\n' });
    const kernel = 'echo 1 > /proc/sys/kernel/panic';
    expect((await sh(kernel, { process, readonlyPaths: [] })).stderr).toMatch(/Permission denied/);
  });

  it('has no right to the files of the machine’s root', async () => {
    const secret = jails.folder('secret');
    writeFileSync(join(secret, 'file'), 'x', { mode: 0o600 });
    const mounts: JailMount[] = [
      { kind: 'bind', source: secret, target: '/secret', readOnly: false, options: [] },
    ];
    const { stdout, stderr } = await sh('stat -c %u /secret/file; cat /secret/file; touch /secret/new', {
      mounts,
    });
    expect(stdout).toBe('65534\n');
    expect(stderr.match(/Permission denied/g)).toHaveLength(2);
  });

  it('runs other users, with their groups and without capabilities', async () => {
    const process = { user: 'bob', groups: ['audio'] };
    const script =
      'id -u; id -G; grep CapEff /proc/self/status; touch /home/bob/x 2>&1; echo >/dev/stdout ok';
    const { stdout } = await sh(script, { process });
    expect(stdout.split('\n').slice(0, 2)).toEqual(['1000', '1000 29 50']);
    expect(stdout).toMatch(/CapEff:\s0000000000000000/);
    expect(stdout).toMatch(/ok\n$/);
  });

  it('refuses a user that the map does not have', async () => {
    await expect(sh('true', { process: { user: '70000' } })).rejects.toThrow(/uid 70000 is not one of/);
  });

  it('keeps the filter of system calls, the bounding set and no_new_privs', async () => {
    const read = 'grep -E "^(NoNewPrivs|Seccomp|CapBnd|CapPrm|CapInh|CapAmb):" /proc/self/status';
    for (const noNewPrivileges of [false, true]) {
      const mapped = await sh(read, { process: { noNewPrivileges } });
      const plain = await jails.sh(read, { process: { noNewPrivileges } });
      expect(mapped.stdout).toBe(plain.stdout);
    }
    expect((await sh('unshare -U true')).stderr).toMatch(/not permitted/);
  });

  it('says why a program is not started, as everywhere', async () => {
    await expect(jails.run(['/nowhere'], { userMaps })).rejects.toMatchObject({ code: 'ERR_EXEC_NOT_FOUND' });
    await expect(jails.run(['/etc/passwd'], { userMaps })).rejects.toMatchObject({
      code: 'ERR_EXEC_PERMISSION',
    });
    const odd = await sh('printf "#!/nowhere\n" > /tmp/odd; chmod 755 /tmp/odd', {});
    expect(odd.stderr).toBe('');
    expect(await jails.run(['/tmp/odd'], { userMaps })).toMatchObject({
      stderr: 'exec /tmp/odd: no such file or directory\n',
      status: { code: 255 },
    });
  });

  it('has an init of its own', async () => {
    const { stdout } = await sh('cat /proc/1/comm; stat -c %u /proc/1; id -u', { init: true });
    expect(stdout).toBe('memfd:drydock-c\n0\n0\n');
  });

  it('takes further processes, with and without a terminal', async () => {
    await jails.withJail({ userMaps }, async (jail) => {
      const ids = 'id -u; readlink /proc/self/ns/user /proc/1/ns/user | uniq | wc -l';
      expect((await jails.exec(jail, ['sh', '-c', ids])).stdout).toBe('0\n1\n');
      const onTerminal = await jails.exec(jail, ['sh', '-c', 'tty; stat -c %u $(tty)'], { terminal: true });
      expect(onTerminal.stdout).toMatch(/^\/dev\/pts\/\d+\r\n0\r\n$/);
      expect((await jails.exec(jail, ['id', '-u'], { user: 'bob' })).stdout).toBe('1000\n');
      await expect(jails.exec(jail, ['/nowhere'])).rejects.toMatchObject({ code: 'ERR_EXEC_NOT_FOUND' });
    });
  });

  it('shares namespaces with one of its kind only', async () => {
    await jails.withJail({ userMaps }, async (jail) => {
      const namespaces = { ...jails.spec([]).namespaces, network: { pid: jail.pid }, ipc: { pid: jail.pid } };
      const own = readlinkSync(`/proc/${jail.pid}/ns/net`);
      const { stdout } = await sh('readlink /proc/self/ns/net; id -u', { namespaces, sysctls: {} });
      expect(stdout).toBe(`${own}\n0\n`);
      await expect(jails.sh('true', { namespaces, sysctls: {} })).rejects.toThrow(/--userns=host/);
    });
  });

  it('sees its own control group as the root', async () => {
    expect((await sh('cut -d: -f3 /proc/self/cgroup | sort -u')).stdout).toBe(
      (await jails.sh('cut -d: -f3 /proc/self/cgroup | sort -u')).stdout,
    );
  });
});
