/** What a jail sees and may do: namespaces, root, mounts, masks, capabilities; and images that try to fool the launcher. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { hostname } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { landlockVersion } from '#common/native/landlock';
import { parseSeccompProfile } from '../../daemon/runtime/index.ts';
import type { JailMount } from '../../daemon/runtime/runtime.ts';
import { Jails, type Outcome, readUntil, type SpecChanges } from './jails.ts';

const jails = new Jails();
beforeAll(() => jails.open());
afterAll(() => jails.close());

// Before the image is mounted: its traps.
const trap = jails.folder('trap');
const TRAPS: [target: string, name: string][] = [
  [`../../../../../../..${trap}`, 'up'],
  [trap, 'absolute'],
  ['/absolute/dangling/deep', 'chain'],
  ['/proc/self/root', 'magic'],
  ['/loop-b', 'loop-a'],
  ['/loop-a', 'loop-b'],
];
for (const [target, name] of TRAPS) symlinkSync(target, join(jails.image, name));

const bind = (source: string, target: string, options: string[] = [], readOnly = false): JailMount => ({
  kind: 'bind',
  source,
  target,
  readOnly,
  options,
});

describe('namespaces', () => {
  const kinds = ['cgroup', 'ipc', 'mnt', 'net', 'pid', 'uts'];
  const list = `for n in ${kinds.join(' ')}; do readlink /proc/self/ns/$n; done`;
  const own = (kind: string): string => readlinkSync(`/proc/self/ns/${kind}`);

  it('are all of its own', async () => {
    const { stdout } = await jails.sh(list);
    const inside = stdout.trim().split('\n');
    expect(inside.length).toBe(kinds.length);
    for (const kind of kinds) expect(inside).not.toContain(own(kind));
  });

  it('are the host’s where that was asked for', async () => {
    const namespaces = { network: 'host', pid: 'host', ipc: 'host', uts: 'host', cgroup: 'host' } as const;
    const { stdout, status } = await jails.sh(`${list}; hostname; echo $PPID`, { namespaces, sysctls: {} });
    const lines = stdout.trim().split('\n');
    for (const kind of kinds.filter((kind) => kind !== 'mnt')) expect(lines).toContain(own(kind));
    expect(lines).not.toContain(own('mnt'));
    expect(lines.at(-2)).toBe(hostname());
    expect(status.code).toBe(0);
  });

  it('of another jail can be joined', async () => {
    await jails.withJail({ sysctls: { 'kernel.shmmni': '77' } }, async (first) => {
      const mode = { pid: first.pid };
      const namespaces = { network: mode, pid: mode, ipc: mode, uts: mode, cgroup: 'private' } as const;
      const { stdout } = await jails.sh(`${list}; cat /proc/sys/kernel/shmmni; cat /proc/1/cmdline`, {
        namespaces,
        sysctls: {},
      });
      for (const kind of ['ipc', 'net', 'pid', 'uts'])
        expect(stdout).toContain(readlinkSync(`/proc/${first.pid}/ns/${kind}`));
      expect(stdout).toContain('77\nsleep');
    });
  });

  it('of a process that is no jail’s cannot', async () => {
    const namespaces = {
      network: { pid: process.pid },
      pid: 'private',
      ipc: 'private',
      uts: 'private',
      cgroup: 'private',
    } as const;
    await expect(jails.sh('true', { namespaces })).rejects.toMatchObject({ code: 'ERR_NOT_RUNNING' });
  });

  it('show only the jail’s own processes, host name and loopback interface', async () => {
    const { stdout } = await jails.sh(
      'hostname; ls /sys/class/net; cat /sys/class/net/lo/flags; echo /proc/[0-9]*',
    );
    expect(stdout).toBe('box\nlo\n0x9\n/proc/1\n');
  });

  it('take the sysctls that are theirs and no others', async () => {
    const { stdout } = await jails.sh(
      'cat /proc/sys/kernel/msgmni /proc/sys/net/ipv4/ip_unprivileged_port_start',
      {
        sysctls: { 'kernel.msgmni': '123', 'net.ipv4.ip_unprivileged_port_start': '0' },
      },
    );
    expect(stdout).toBe('123\n0\n');
    for (const name of ['kernel.core_pattern', 'vm.swappiness', 'net.../../kernel/core_pattern'])
      await expect(jails.sh('true', { sysctls: { [name]: '1' } })).rejects.toMatchObject({
        code: 'ERR_JAIL_SYSCTL',
      });
  });
});

describe('the root', () => {
  it('has no mount of the host in it', async () => {
    const { stdout } = await jails.sh('cut -d" " -f5 /proc/self/mountinfo | sort -u');
    const mounts = stdout.trim().split('\n');
    expect(mounts).toContain('/');
    for (const mount of mounts) expect(mount).toMatch(/^\/($|proc|dev|sys|bin|lib|lib64|sbin|usr)/);
  });

  it('is writable, and nothing is when read-only was asked for but its own file systems', async () => {
    expect((await jails.sh('touch /new && echo ok')).stdout).toBe('ok\n');
    const { stdout, stderr } = await jails.sh(
      'touch /other; touch /dev/shm/x && echo shm; echo > /proc/self/comm && echo comm',
      {
        readOnlyRoot: true,
      },
    );
    expect(stderr).toContain('Read-only file system');
    expect(stdout).toBe('shm\ncomm\n');
  });

  it('hides and freezes paths of the kernel', async () => {
    const script = `
      wc -c < /proc/timer_list; wc -c < /proc/keys; ls /sys/firmware /proc/acpi 2>/dev/null
      for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/irq/default_smp_affinity; do
        sh -c "echo x > $f" 2>&1 | grep -o "Read-only file system"; done
      touch /sys/x 2>&1 | grep -o "Read-only file system"
      touch /sys/fs/cgroup/memory/x 2>&1 | grep -oE "Read-only file system|Permission denied"`;
    const { stdout } = await jails.sh(script, {
      maskedPaths: ['/proc/timer_list', '/proc/keys', '/sys/firmware', '/proc/acpi', '/proc/not-there'],
    });
    const lines = stdout.trim().split('\n');
    expect(lines.slice(0, 2)).toEqual(['0', '0']);
    expect(lines.filter((line) => line === 'Read-only file system').length).toBeGreaterThanOrEqual(4);
  });

  it('does not let a mask be used to change the device behind it', async () => {
    const before = execFileSync('stat', ['-c', '%a', '/dev/null']).toString();
    const { stderr } = await jails.sh('chmod 600 /proc/keys');
    expect(stderr).toContain('Read-only file system');
    expect(execFileSync('stat', ['-c', '%a', '/dev/null']).toString()).toBe(before);
  });
});

describe('capabilities', () => {
  const sets = 'grep -E "^(Cap|NoNew)" /proc/self/status | tr "\\n\\t" "  "';

  it('are docker’s for root, and inherited by nobody', async () => {
    expect((await jails.sh(sets)).stdout.trim()).toBe(
      'CapInh: 0000000000000000 CapPrm: 00000000a80425fb CapEff: 00000000a80425fb CapBnd: 00000000a80425fb CapAmb: 0000000000000000 NoNewPrivs: 0',
    );
  });

  it('bound another user, who has none', async () => {
    const { stdout } = await jails.sh(sets, { process: { user: 'bob', noNewPrivileges: true } });
    expect(stdout.trim()).toBe(
      'CapInh: 0000000000000000 CapPrm: 0000000000000000 CapEff: 0000000000000000 CapBnd: 00000000a80425fb CapAmb: 0000000000000000 NoNewPrivs: 1',
    );
  });

  it('that were not given are not there', async () => {
    const { stderr } = await jails.sh('chown bob /tmp; mount -t tmpfs x /tmp', {
      process: { capabilities: ['CAP_KILL'] },
    });
    expect(stderr).toContain('Operation not permitted');
    expect(stderr).toMatch(/mount: .*(permission denied|must be superuser)/);
  });
});

describe('system calls', () => {
  it('are filtered by default, for further processes too', async () => {
    const { stdout, stderr } = await jails.sh('grep Seccomp: /proc/self/status; unshare -U true');
    expect(stdout).toBe('Seccomp:\t2\n');
    expect(stderr).toContain('unshare failed: Operation not permitted');
    await jails.withJail({}, async (jail) => {
      const { stdout } = await jails.exec(jail, ['grep', 'Seccomp:', '/proc/self/status'], { user: 'bob' });
      expect(stdout).toBe('Seccomp:\t2\n');
    });
  });

  it('are filtered under no_new_privs too, and not at all when that was asked for', async () => {
    const script = 'grep -E "Seccomp:|CapEff" /proc/self/status';
    const { stdout } = await jails.sh(script, { process: { noNewPrivileges: true } });
    expect(stdout).toBe('CapEff:\t00000000a80425fb\nSeccomp:\t2\n');
    expect((await jails.sh(script, { seccomp: 'unconfined' })).stdout).toContain('Seccomp:\t0\n');
    expect((await jails.sh(script, { privileged: true })).stdout).toContain('Seccomp:\t0\n');
  });

  it('follow a custom profile', async () => {
    const seccomp = parseSeccompProfile(
      JSON.stringify({
        defaultAction: 'SCMP_ACT_ALLOW',
        syscalls: [{ names: ['mkdir', 'mkdirat'], action: 'SCMP_ACT_ERRNO', errnoRet: 28 }],
      }),
    );
    const { stderr, status } = await jails.sh('mkdir /tmp/x', { seccomp });
    expect(stderr).toContain('No space left on device');
    expect(status.code).toBe(1);
  });
});

describe('mounts', () => {
  it('bind folders and files, with their options', async () => {
    const volume = jails.folder('volume');
    writeFileSync(join(volume, 'file'), 'content');
    const script =
      'cat /data/file /single; touch /data/new; touch /ro/x; grep -E " /(data|ro|single) " /proc/self/mountinfo | cut -d" " -f5,6';
    const { stdout, stderr } = await jails.sh(script, {
      mounts: [
        bind(volume, '/data', ['nosuid', 'noexec']),
        bind(volume, '/ro', [], true),
        bind(join(volume, 'file'), '/single'),
      ],
    });
    expect(stdout).toMatch(/^contentcontent\/data rw,nosuid,noexec,/);
    expect(stdout).toMatch(/\/ro ro,/);
    expect(stderr).toMatch(/touch: .*\/ro\/x.*Read-only file system/);
    expect(existsSync(join(volume, 'new'))).toBe(true);
  });

  it('take along the mounts below the source, read-only too', async () => {
    const volume = jails.folder('nested');
    mkdirSync(join(volume, 'sub'));
    execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', join(volume, 'sub')]);
    try {
      const { stdout } = await jails.sh(
        'touch /ro/sub/x 2>/dev/null || echo kept; touch /rw/sub/y && echo written; ls /alone/sub',
        {
          mounts: [bind(volume, '/ro', [], true), bind(volume, '/rw'), bind(volume, '/alone', ['bind'])],
        },
      );
      expect(stdout).toBe('kept\nwritten\n');
      expect(readdirSync(join(volume, 'sub'))).toEqual(['y']);
    } finally {
      execFileSync('umount', [join(volume, 'sub')]);
    }
  });

  it('make a tmpfs with its options', async () => {
    const { stdout } = await jails.sh(
      'stat -c "%a %T" -f /scratch; stat -c %a /scratch; df -k /scratch | tail -1',
      {
        mounts: [
          { kind: 'tmpfs', target: '/scratch', readOnly: false, options: ['size=1m', 'mode=700', 'noexec'] },
        ],
      },
    );
    expect(stdout).toMatch(/tmpfs\n700\ntmpfs +1024 /);
  });

  it('of a source that is missing name it', async () => {
    await expect(jails.sh('true', { mounts: [bind('/no/such/source', '/data')] })).rejects.toMatchObject({
      code: 'ERR_JAIL',
      message: expect.stringContaining('open /no/such/source to mount it on /data'),
    });
  });

  it('do not show in the host', async () => {
    // Other tests of this machine have mounts of their own.
    const own = (): string[] =>
      readFileSync('/proc/self/mountinfo', 'utf8')
        .split('\n')
        .filter((line) => line.includes(dirname(jails.root)));
    const before = own();
    await jails.withJail({ mounts: [bind(jails.folder('unseen'), '/data')] }, async () => {
      expect(own()).toEqual(before);
    });
  });
});

describe('a hostile image', () => {
  const untouched = (): string[] => readdirSync(trap);

  it('cannot lead a mount out of the root by links', async () => {
    const volume = jails.folder('harmless');
    writeFileSync(join(volume, 'seen'), '');
    for (const target of ['/up', '/absolute/x', '/chain/y', '/up/../../../etc/w']) {
      const { stdout } = await jails.sh(`ls ${target}`, { mounts: [bind(volume, target)] });
      expect(stdout, target).toBe('seen\n');
    }
    await expect(jails.sh('true', { mounts: [bind(volume, '/magic/z')] })).rejects.toMatchObject({
      message: expect.stringContaining('ELOOP'),
    });
    expect(untouched()).toEqual([]);
    expect(existsSync('/etc/w')).toBe(false);
  });

  it('cannot have /proc mounted elsewhere', async () => {
    const image = new Jails();
    try {
      execFileSync('rmdir', [join(image.image, 'proc')]);
      symlinkSync('/tmp', join(image.image, 'proc'));
      await image.open();
      await expect(image.sh('true')).rejects.toMatchObject({
        message: expect.stringContaining('/proc is reached by a symbolic link'),
      });
    } finally {
      await image.close();
    }
  });

  it('gains nothing by links that go round in circles', async () => {
    await expect(jails.sh('true', { mounts: [bind(trap, '/loop-a/x')] })).rejects.toMatchObject({
      message: expect.stringMatching(/ELOOP|too many symbolic links/),
    });
  });

  it('cannot hold up the look-up of users with a pipe in place of passwd', async () => {
    const image = new Jails();
    try {
      execFileSync('rm', [join(image.image, 'etc/passwd')]);
      execFileSync('mkfifo', [join(image.image, 'etc/passwd')]);
      await image.open();
      await expect(image.sh('true', { process: { user: 'bob' } })).rejects.toMatchObject({
        message: expect.stringContaining('not a plain file'),
      });
    } finally {
      await image.close();
    }
  });

  it('cannot leave the root by its working folder', async () => {
    for (let fd = 3; fd < 12; fd++) {
      const { stdout } = await jails
        .sh('pwd; ls', { process: { cwd: `/proc/self/fd/${fd}`, makeCwd: false } })
        .catch(() => ({ stdout: '' }));
      expect(stdout).toBe('');
    }
  });

  it('cannot write to the host’s Node by an interpreter line', async () => {
    // What the interpreter line reaches is the launcher's own program, Node.
    const attack =
      'try{require("fs").openSync("/proc/self/exe","r+");console.log("WRITABLE")}catch(e){console.log(e.code)}';
    const make = `printf '#!/proc/self/exe\n${attack}\n' > /tmp/evil; chmod +x /tmp/evil`;
    await jails.withJail({}, async (jail) => {
      await jails.exec(jail, ['sh', '-c', make]);
      expect((await jails.exec(jail, ['/tmp/evil'])).stdout).toMatch(/^(EROFS|ETXTBSY)\n$/);
      // Once the program is no longer running, only the read-only mount protects it.
      const later = `const fs=require("fs");const fd=fs.openSync("/proc/self/exe","r");require("child_process").spawn("/bin/sh",["-c","sleep 0.5; (echo > /proc/self/fd/3) 2>&1"],{stdio:["ignore","inherit","inherit",fd]});`;
      await jails.exec(jail, [
        'sh',
        '-c',
        `printf '#!/proc/self/exe\n${later}\n' > /tmp/evil; chmod +x /tmp/evil`,
      ]);
      expect((await jails.exec(jail, ['/tmp/evil'])).stdout).toContain('Read-only file system');
    });
  });
});

/** Sends an open folder of the host to whoever connects. */
const LEAK = `
import os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen()
print('ready', flush=True)
while True:
    socket.send_fds(server.accept()[0], [b'x'], [os.open(sys.argv[2], os.O_PATH)])
`;
/** Opens a file of the folder that it is sent. */
const USE = `
import os, socket
client = socket.socket(socket.AF_UNIX)
client.connect('/leak/socket')
folder = socket.recv_fds(client, 1, 1)[1][0]
print(os.read(os.open('secret', os.O_RDONLY, dir_fd=folder), 100).decode())
`;

describe.skipIf(landlockVersion() === 0)('a descriptor of the host that leaked into a jail', () => {
  const folder = jails.folder('leak');
  const outside = jails.folder('outside');
  let leaking: ChildProcess;
  beforeAll(async () => {
    writeFileSync(join(outside, 'secret'), 'of the host');
    leaking = spawn('python3', ['-c', LEAK, join(folder, 'socket'), outside], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await readUntil(leaking.stdout!, (said) => said.includes('ready'));
  });
  afterAll(() => leaking.kill());
  const use = (changes: SpecChanges = {}): Promise<Outcome> =>
    jails.run(['python3', '-c', USE], { mounts: [bind(folder, '/leak')], ...changes });

  it('opens nothing, since Landlock grants the jail’s own root only', async () => {
    const { stdout, stderr } = await use();
    expect([stdout, stderr]).toEqual(['', expect.stringMatching(/PermissionError: .*Permission denied/)]);
  });

  it('would open what is below it without Landlock', async () => {
    const { stdout } = await use({ labels: { landlock: 'unconfined' } });
    expect(stdout).toBe('of the host\n');
  });

  it('does not keep a process of exec from looking into the first one', async () => {
    await jails.withJail({}, async (jail) => {
      const { stdout } = await jails.exec(jail, ['readlink', '/proc/1/root', '/proc/1/cwd']);
      expect(stdout).toBe('/\n/\n');
    });
  });
});
