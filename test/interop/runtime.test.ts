/** The runtime driven directly: programs, their streams, terminals, signals, users, and further processes. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { finish, Jails, readUntil, text } from './jails.ts';

const jails = new Jails();
beforeAll(() => jails.open());
afterAll(() => jails.close());

describe('a program in a jail', () => {
  it('gives its output and exit code', async () => {
    expect(await jails.sh('echo out; echo err >&2; exit 7')).toEqual({
      stdout: 'out\n',
      stderr: 'err\n',
      status: { code: 7, signal: undefined, oomKilled: false },
    });
  });

  it('exits with 128 and the number of the signal that killed it', async () => {
    await jails.withJail({}, async (_jail, main) => {
      main.kill('SIGKILL');
      expect(await main.exited).toMatchObject({ code: 137, signal: 'SIGKILL', oomKilled: false });
    });
  });

  it('gets signals by name and number, and may handle them', async () => {
    const script =
      'trap "echo got TERM; exit 3" TERM; trap "echo got USR1" USR1; echo ready; while :; do sleep 0.05; done';
    await jails.withJail(
      {},
      async (_jail, main) => {
        await readUntil(main.stdout, (all) => all.includes('ready'));
        main.kill(10);
        await readUntil(main.stdout, (all) => all.includes('got USR1'));
        main.kill('TERM');
        expect(await text(main.stdout)).toContain('got TERM');
        expect((await main.exited).code).toBe(3);
      },
      ['sh', '-c', script],
    );
  });

  it('has default signal actions and an empty mask, though Node ignores some', async () => {
    const { stdout } = await jails.sh('grep -E "Sig(Ign|Blk)" /proc/self/status');
    expect(stdout).toBe('SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n');
  });

  it('loses nothing of a large output', async () => {
    const { stdout } = await jails.sh('seq 1 200000');
    expect(stdout.length).toBe(1_288_895);
    expect(stdout.endsWith('\n200000\n')).toBe(true);
  });

  it('reads what is written to its standard input until it ends', async () => {
    await jails.withJail(
      { process: { stdin: true } },
      async (_jail, main) => {
        main.stdin!.end('x'.repeat(300_000));
        const { stdout, status } = await finish(main);
        expect([Number(stdout), status.code]).toEqual([300_000, 0]);
      },
      ['wc', '-c'],
    );
  });

  it('without standard input reads the null device', async () => {
    const { stdout } = await jails.sh('readlink /proc/self/fd/0; wc -c');
    expect(stdout).toBe('/dev/null\n0\n');
  });

  it('can open /dev/stdout again, also as another user', async () => {
    const { stdout, status } = await jails.sh('echo again > /dev/stdout; echo err > /dev/stderr', {
      process: { user: 'bob' },
    });
    expect([stdout, status.code]).toEqual(['again\n', 0]);
  });

  it('inherits no descriptor of the launcher', async () => {
    const { stdout } = await jails.sh('ls /proc/self/fd');
    // 3 is the folder that ls reads.
    expect(stdout).toBe('0\n1\n2\n3\n');
  });

  it('has the environment that was asked for, with HOME from passwd', async () => {
    const { stdout } = await jails.run(['env'], {
      process: { user: 'bob', env: ['PATH=/usr/bin', 'A=b c'] },
    });
    expect(stdout.trim().split('\n').sort()).toEqual(['A=b c', 'HOME=/home/bob', 'PATH=/usr/bin']);
  });

  it('starts in its working folder, made when missing', async () => {
    const { stdout } = await jails.sh('pwd; umask; stat -c %a .', { process: { cwd: '/made/for/you' } });
    expect(stdout).toBe('/made/for/you\n0022\n755\n');
  });

  it('has the resource limits that were asked for', async () => {
    const { stdout } = await jails.sh('ulimit -n; ulimit -Hn; ulimit -c', {
      process: {
        rlimits: [
          { name: 'nofile', soft: 100, hard: 200 },
          { name: 'core', soft: 0, hard: 0 },
        ],
      },
    });
    expect(stdout).toBe('100\n200\n0\n');
  });
});

describe('a program that cannot be started', () => {
  const prefix =
    'failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: ';
  it.each([
    ['nowhere', 'ERR_EXEC_NOT_FOUND', 'exec: "nowhere": executable file not found in $PATH: unknown'],
    [
      '/no/where',
      'ERR_EXEC_NOT_FOUND',
      'exec: "/no/where": stat /no/where: no such file or directory: unknown',
    ],
    ['/etc/passwd', 'ERR_EXEC_PERMISSION', 'exec: "/etc/passwd": permission denied: unknown'],
    ['/etc', 'ERR_EXEC_PERMISSION', 'exec: "/etc": is a directory: permission denied: unknown'],
  ])('%s is %s', async (program, code, message) => {
    await expect(jails.run([program])).rejects.toMatchObject({ code, message: prefix + message });
  });

  it('for want of a user names it', async () => {
    await expect(jails.run(['true'], { process: { user: 'nobody-here' } })).rejects.toMatchObject({
      code: 'ERR_USER_NOT_FOUND',
      message: 'unable to find user nobody-here: no matching entries in passwd file',
    });
  });

  it('for want of a working folder says so', async () => {
    await expect(jails.run(['true'], { process: { cwd: '/missing', makeCwd: false } })).rejects.toMatchObject(
      {
        code: 'ERR_JAIL',
        message: `${prefix}chdir to cwd ("/missing") set in config.json failed: no such file or directory: unknown`,
      },
    );
  });

  it('since it is no program says so on its standard error', async () => {
    const script = 'printf "not a program" > /tmp/f; chmod +x /tmp/f';
    await jails.withJail({}, async (jail) => {
      await jails.exec(jail, ['sh', '-c', script]);
      expect(await jails.exec(jail, ['/tmp/f'])).toMatchObject({
        stderr: 'exec /tmp/f: exec format error\n',
        status: { code: 255 },
      });
    });
  });
});

describe('users', () => {
  it.each([
    ['', 'uid=0(root) gid=0(root) groups=0(root)'],
    ['bob', 'uid=1000(bob) gid=1000(bob) groups=1000(bob),50(staff)'],
    ['1000', 'uid=1000(bob) gid=1000(bob) groups=1000(bob),50(staff)'],
    ['bob:audio', 'uid=1000(bob) gid=29(audio) groups=29(audio)'],
    ['4242', 'uid=4242 gid=0(root) groups=0(root)'],
    ['4242:4343', 'uid=4242 gid=4343 groups=4343'],
  ])('%s is %s', async (user, id) => {
    expect((await jails.run(['id'], { process: { user } })).stdout.trim()).toBe(id);
  });

  it('are in the further groups that were asked for', async () => {
    const { stdout } = await jails.run(['id', '-G'], { process: { user: '4242', groups: ['audio', '777'] } });
    expect(stdout).toBe('0 29 777\n');
  });
});

describe('a terminal', () => {
  const terminal = { terminal: true, stdin: true, consoleSize: { rows: 33, columns: 77 } };

  it('is the controlling one, of the asked size, and /dev/console', async () => {
    const script =
      'tty; stty size; [ /dev/console -ef /dev/pts/0 ] && echo same; echo hello > /dev/tty; ls -1 --color=never /proc/self/fd';
    const { stdout, stderr, status } = await jails.sh(script, { process: terminal });
    expect(stdout.replaceAll('\r', '')).toBe('/dev/pts/0\n33 77\nsame\nhello\n0\n1\n2\n3\n');
    expect([stderr, status.code]).toEqual(['', 0]);
  });

  it('belongs to the user', async () => {
    const { stdout } = await jails.sh('stat -c "%U %a" $(tty); echo x > $(tty)', {
      process: { ...terminal, user: 'bob' },
    });
    expect(stdout.replaceAll('\r', '')).toBe('bob 620\nx\n');
  });

  it('loses nothing at the end of a large output', async () => {
    for (let round = 0; round < 5; round++) {
      const { stdout } = await jails.sh('seq 1 20000', { process: terminal });
      expect(stdout.endsWith('19999\r\n20000\r\n')).toBe(true);
      expect(stdout.length).toBe(128_894);
    }
  });

  it('tells a change of size and passes Ctrl-C on as a signal', async () => {
    const script =
      'trap "stty size" WINCH; trap "echo interrupted; exit 5" INT; echo ready; while :; do sleep 0.05; done';
    await jails.withJail(
      { process: terminal },
      async (_jail, main) => {
        await readUntil(main.stdout, (all) => all.includes('ready'));
        main.resize(10, 20);
        await readUntil(main.stdout, (all) => all.includes('10 20'));
        main.stdin!.write('\x03');
        expect(await text(main.stdout)).toContain('interrupted');
        expect((await main.exited).code).toBe(5);
      },
      ['sh', '-c', script],
    );
  });

  it('takes more input than it can hold without stopping the daemon', async () => {
    const lines = Array.from({ length: 2000 }, (_, index) => `line ${index}`).join('\n');
    await jails.withJail(
      { process: terminal },
      async (_jail, main) => {
        await readUntil(main.stdout, (all) => all.includes('ready'));
        main.stdin!.write(`${lines}\n\x04`);
        let turns = 0;
        const timer = setInterval(() => turns++, 10);
        const { stdout } = await finish(main);
        clearInterval(timer);
        expect(stdout).toContain('2000');
        expect(turns).toBeGreaterThan(5);
      },
      ['sh', '-c', 'stty -echo; echo ready; sleep 0.5; wc -l'],
    );
  });

  it('keeps the daemon free of end-of-file errors when the client hangs up', async () => {
    await jails.withJail(
      { process: terminal },
      async (_jail, main) => {
        main.stdin!.destroy();
        main.kill('KILL');
        expect((await main.exited).code).toBe(137);
      },
      ['cat'],
    );
  });
});

describe('a further process', () => {
  it('shares every namespace of the first', async () => {
    const list = 'for n in cgroup ipc mnt net pid uts; do readlink /proc/self/ns/$n; done';
    await jails.withJail({}, async (jail) => {
      const { stdout } = await jails.exec(jail, [
        'sh',
        '-c',
        `${list}; echo; cd /proc/1/ns; readlink cgroup ipc mnt net pid uts`,
      ]);
      const [own, first] = stdout.trim().split('\n\n');
      expect(own).toBe(first);
    });
  });

  it('is in the same cgroup, with the same capabilities and root', async () => {
    await jails.withJail({}, async (jail) => {
      const { stdout } = await jails.exec(jail, [
        'sh',
        '-c',
        'cat /proc/self/cgroup | cut -d: -f3 | sort -u; grep CapEff /proc/self/status; hostname; ls -di /',
      ]);
      const { stdout: root } = await jails.exec(jail, ['stat', '-c', '%i', '/proc/1/root/']);
      expect(stdout).toContain('/\nCapEff:\t00000000a80425fb\nbox\n');
      expect(stdout).toContain(root.trim());
    });
  });

  it('has streams, a user, a folder, an exit code and a terminal of its own', async () => {
    await jails.withJail({}, async (jail) => {
      const process = await jail.exec(
        jails.process(['sh', '-c', 'id -un; pwd; cat; exit 9'], { stdin: true, user: 'bob', cwd: '/home' }),
      );
      process.stdin!.end('fed');
      expect(await finish(process)).toMatchObject({ stdout: 'bob\n/home\nfed', status: { code: 9 } });
      const shown = await jails.exec(jail, ['sh', '-c', 'tty; stty size'], {
        terminal: true,
        consoleSize: { rows: 5, columns: 6 },
      });
      expect(shown.stdout.replaceAll('\r', '')).toBe('/dev/pts/0\n5 6\n');
    });
  });

  it('joins from inside where limits of its own could forbid the launcher beside it', async () => {
    await jails.withJail(
      { process: { rlimits: [{ name: 'nproc', soft: 100, hard: 100 }] } },
      async (jail) => {
        const wish = { rlimits: [{ name: 'nofile', soft: 30, hard: 30 }] };
        expect((await jails.exec(jail, ['sh', '-c', 'ulimit -n; ps -o ppid= -p $$'], wish)).stdout).toMatch(
          /^30\n/,
        );
      },
    );
  });

  it('has ended by a real-time signal, or by itself, when its exit code says so', async () => {
    await jails.withJail({}, async (jail) => {
      const further = await jail.exec(jails.process(['sleep', 'infinity']));
      further.kill('SIGRTMIN+3');
      expect(await further.exited).toMatchObject({ code: 165, signal: 'SIGRTMIN+3' });
      expect((await jails.exec(jail, ['sh', '-c', 'exit 3'])).status.code).toBe(3);
    });
  });

  it('that is missing or may not run is told apart', async () => {
    await jails.withJail({}, async (jail) => {
      await expect(jails.exec(jail, ['nowhere'])).rejects.toMatchObject({
        code: 'ERR_EXEC_NOT_FOUND',
        message:
          'OCI runtime exec failed: exec failed: unable to start container process: exec: "nowhere": executable file not found in $PATH: unknown',
      });
      await expect(jails.exec(jail, ['/etc'])).rejects.toMatchObject({ code: 'ERR_EXEC_PERMISSION' });
    });
  });

  it('ends with the first process, and none starts after it', async () => {
    await jails.withJail({}, async (jail, main) => {
      const further = await jail.exec(jails.process(['sleep', 'infinity']));
      main.kill('KILL');
      expect((await further.exited).code).toBe(137);
      await main.exited;
      await expect(jails.exec(jail, ['true'])).rejects.toMatchObject({ code: 'ERR_NOT_RUNNING' });
    });
  });
});

describe('with init', () => {
  it('process 1 is another and reaps orphans', async () => {
    const script =
      '(sh -c "exit 0" & exec sh -c "exit 0") & sleep 0.3; cat /proc/1/cmdline; echo; grep -l "State:.Z" /proc/[0-9]*/status; echo $$';
    const { stdout, status } = await jails.sh(script, { init: true });
    expect(stdout).toMatch(/^\/sbin\/docker-init\0\n\d+\n$/);
    expect(status.code).toBe(0);
  });

  it('/dev/console is the terminal of the program', async () => {
    const { stdout, status } = await jails.sh('tty; echo to the console > /dev/console; test -t 0; exit 3', {
      init: true,
      process: { terminal: true, stdin: true },
    });
    expect(stdout).toBe('/dev/pts/0\r\nto the console\r\n');
    expect(status.code).toBe(3);
  });

  it('the end of the program ends the jail, and the init has no power to lend', async () => {
    const { stdout, status } = await jails.sh(
      'grep Cap /proc/1/status | cut -f2 | sort -u; sleep infinity & kill -TERM $$',
      {
        init: true,
      },
    );
    expect(stdout).toBe('0000000000000000\n');
    expect(status).toMatchObject({ code: 143, signal: 'SIGTERM' });
  });
});
