/**
 * The runtime for Darwin against a double of its C library: what it asks for and in which order, and that it leaves
 * nothing when any one request fails. None of this ran on a Mac.
 */
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '#common/clock';
import { errorMessage } from '#common/errors';
import { nullLog } from '#common/log';
import { DarwinCalls } from '#common/native/darwin/calls';
import { seededRng } from '#common/rng';
import { becomeSeatbelted, furnishRoot, type ToDarwinLauncher } from '../../daemon/launch/darwin.ts';
import { LaunchFailure } from '../../daemon/launch/failure.ts';
import type { FromLauncher } from '../../daemon/launch/protocol.ts';
import { ProxiedJails } from '../../daemon/network/proxied/jails.ts';
import {
  type DarwinHost,
  type DarwinLauncher,
  DarwinRuntime,
} from '../../daemon/runtime/darwin/darwin-runtime.ts';
import { LauncherFailed } from '../../daemon/runtime/launcher-channel.ts';
import { jailOwner } from '../../daemon/runtime/plain/promises.ts';
import type { Jail, JailSpec } from '../../daemon/runtime/runtime.ts';
import { DarwinDouble } from '../support/darwin-library.ts';
import { type ExampleChanges, exampleSpec } from '../support/jail-spec.ts';
import { decide, readProfile } from '../support/seatbelt.ts';

const PID = 4242;
let folder: string;
let rootPath: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'drydock-darwin-'));
  rootPath = join(folder, 'root');
  mkdirSync(join(rootPath, 'bin'), { recursive: true });
  for (const name of ['app', 'sh']) {
    writeFileSync(join(rootPath, 'bin', name), '');
    chmodSync(join(rootPath, 'bin', name), 0o755);
  }
  writeFileSync(join(folder, 'hosts'), '127.0.0.1 localhost\n');
});
afterEach(() => rmSync(folder, { recursive: true }));

const spec = (changes: ExampleChanges = {}): JailSpec =>
  exampleSpec({
    rootPath,
    network: { attached: false, ports: [] },
    mounts: [
      { kind: 'proc', target: '/proc', readOnly: false, options: [] },
      { kind: 'tmpfs', target: '/tmp', readOnly: false, options: [] },
      { kind: 'bind', source: join(folder, 'hosts'), target: '/etc/hosts', readOnly: false, options: [] },
    ],
    devices: [{ hostPath: '/dev/null', path: '/dev/null', access: 'rwm' }],
    ...changes,
    process: {
      args: ['/bin/sh'],
      env: ['PATH=/usr/bin:/bin'],
      stdin: true,
      rlimits: [{ name: 'nofile', soft: 10, hard: -1 }],
      ...changes.process,
    },
  });

/** A launcher whose steps happen here, so that the same double sees them. */
class LauncherInside implements DarwinLauncher {
  readonly pid = PID;
  readonly exited: DarwinLauncher['exited'];
  end!: (end: { code: number | null; signal: number | null }) => void;
  #last: FromLauncher = { type: 'ready' };
  #told: (ToDarwinLauncher & { type: 'seatbelt' }) | undefined;
  readonly channel: DarwinLauncher['channel'];

  constructor(calls: DarwinCalls, started: (owner: number) => void) {
    this.exited = new Promise((resolve) => {
      this.end = resolve;
    });
    this.channel = {
      send: (message) => {
        try {
          if (message.type === 'seatbelt') {
            this.#told = message;
            furnishRoot(calls, message.plan);
            this.#last = { type: 'ready' };
            return;
          }
          const { process, plan } = this.#told!;
          const { path, args, env } = becomeSeatbelted(calls, process, plan, [0, 1, 2, 3, 9]);
          this.#last = { type: 'executing' };
          started(plan.owner);
          try {
            calls.execve(path, args, env);
          } catch {
            // The double returns from it.
          }
        } catch (error) {
          const failure =
            error instanceof LaunchFailure ? error : new LaunchFailure('step', '', '', errorMessage(error));
          const { kind, step, code, message } = failure;
          this.#last = { type: 'failed', kind, step, code, message };
        }
      },
      expect: async (type) => {
        if (this.#last.type === 'failed') throw new LauncherFailed(this.#last);
        expect(this.#last.type).toBe(type);
        return this.#last as never;
      },
      gone: async () => {},
      destroy: () => {},
    };
  }
}

interface World {
  double: DarwinDouble;
  /** Sockets of names that are open, by path. */
  names: Set<string>;
  runtime: DarwinRuntime;
}

function world(change: (double: DarwinDouble) => void = () => {}): World {
  const double = new DarwinDouble();
  change(double);
  const calls = new DarwinCalls(double);
  let launcher: LauncherInside | undefined;
  const kill = (): void => {
    double.processes.delete(PID);
    launcher?.end({ code: null, signal: 9 });
  };
  double.killed = kill;
  const host: DarwinHost = {
    calls,
    launch: () => {
      double.calls.push('launch');
      launcher = new LauncherInside(calls, (uid) =>
        double.processes.set(PID, { uid, footprintBytes: 1 << 20 }),
      );
      return launcher;
    },
    signalAll: async (_owner, signal) => {
      double.calls.push(`signal all ${signal}`);
      if (signal === 'KILL') kill();
    },
  };
  const names = new Set<string>();
  const proxied = new ProxiedJails(seededRng(1), async (path) => {
    double.calls.push('serve names');
    if (double.calls.length - 1 === double.failing) throw new Error('EPERM');
    names.add(path);
    return { close: async () => void names.delete(path) };
  });
  const execRoot = join(folder, 'exec');
  const options = { instance: 'test', execRoot, log: nullLog, clock: systemClock, proxied };
  return { double, names, runtime: new DarwinRuntime(options, host) };
}

/** All that a container's start does. */
async function startOne({ runtime }: World, wish: JailSpec): Promise<void> {
  await runtime.open();
  const jail = await runtime.create(wish);
  try {
    await jail.start();
    await jail.stats();
  } finally {
    await jail.destroy();
  }
}

/** The profile that a double was asked to take. */
function profileTaken({ calls }: DarwinDouble): { text: string; parameters: Record<string, string> } {
  const call = calls.find((call) => call.startsWith('sandbox_init_with_parameters'))!;
  const [, text = '', list = ''] = /^sandbox_init_with_parameters ([\s\S]*) 0 \[(.*) \] /.exec(call) ?? [];
  const words = list.split(' ');
  return {
    text,
    parameters: Object.fromEntries(
      words.flatMap((word, at) => (at % 2 === 0 ? [[word, words[at + 1]!]] : [])),
    ),
  };
}

const names = (calls: string[]): string[] => calls.map((call) => call.split(' ')[0]!);
const openDescriptors = (): number => readdirSync('/proc/self/fd').length;
/** What is in a folder of the daemon's. */
const left = (name: string): string[] => {
  const path = join(folder, 'exec', name);
  return existsSync(path) ? readdirSync(path) : [];
};

describe('a container on Darwin', () => {
  it('is made in the one order that is safe, in a root of its own', async () => {
    const all = world();
    await startOne(
      all,
      spec({ limits: { memoryBytes: 64 << 20, pids: 7, cpuShares: 100, blkioWeight: 10 } }),
    );
    const { calls } = all.double;
    const steps = names(calls).filter((name) => !['sigaction', 'fcntl'].includes(name));
    expect(steps).toMatchInlineSnapshot(`
      [
        "proc_listpids",
        "pipe",
        "pipe",
        "pipe",
        "csr_get_active_config",
        "launch",
        "mknod",
        "proc_pidinfo",
        "sigprocmask",
        "setpriority",
        "setiopolicy_np",
        "setrlimit",
        "setrlimit",
        "dlopen",
        "chroot",
        "chdir",
        "setgroups",
        "setgid",
        "setuid",
        "setuid",
        "chdir",
        "sandbox_init_with_parameters",
        "execve",
        "proc_listpids",
        "proc_pidinfo",
        "memorystatus_control",
        "memorystatus_control",
        "proc_listpids",
        "proc_pidinfo",
        "proc_pid_rusage",
        "mach_timebase_info",
        "proc_listpids",
        "proc_pidinfo",
        "proc_pid_rusage",
        "proc_listpids",
        "proc_pidinfo",
        "signal",
        "signal",
        "proc_listpids",
      ]
    `);
    const owner = jailOwner('a'.repeat(64));
    expect(calls).toContain(`chroot ${rootPath}`);
    expect(calls).toContain(`setuid ${owner}`);
    expect(calls).toContain('execve /bin/sh [/bin/sh ] [PATH=/usr/bin:/bin HOME=/root ]');
    // RLIMIT_NPROC is 7; the limit is two 64-bit numbers.
    expect(calls).toContain('setrlimit 7 <07000000000000000700000000000000>');
    expect(calls).toContain('setrlimit 8 <0a00000000000000ffffffffffffff7f>');
    // SET_MEMLIMIT_PROPERTIES: 64 MiB, fatal, active and inactive.
    expect(calls).toContain(`memorystatus_control 7 ${PID} 0 <40000000010000004000000001000000> 16`);
  });

  it('is confined in place where System Integrity Protection is on', async () => {
    const all = world((double) => {
      double.ownRoots = false;
    });
    await startOne(all, spec({ process: { args: ['/bin/app'] } }));
    const { calls } = all.double;
    expect(names(calls)).not.toContain('chroot');
    expect(names(calls)).not.toContain('mknod');
    expect(calls).toContain(`chdir ${rootPath}`);
    expect(calls.find((call) => call.startsWith('execve'))).toBe(
      `execve ${rootPath}/bin/app [/bin/app ] [PATH=${rootPath}/usr/bin:${rootPath}/bin HOME=${rootPath} ]`,
    );
    const profile = calls.find((call) => call.startsWith('sandbox_init_with_parameters'));
    expect(profile).toContain('(deny default)');
    expect(profile).toContain(rootPath);
  });

  it.each([
    ['in a root of its own', true, '/.drydock/names', '/.drydock/names'],
    ['confined in place', false, 'exec/names/aaaaaaaaaaaa', 'exec/names/aaaaaaaaaaaa'],
  ])('reaches its networks by a proxy and a socket of names (%s)', async (_where, ownRoots, made, seen) => {
    symlinkSync('/', join(rootPath, '.drydock'));
    const all = world((double) => {
      double.ownRoots = ownRoots;
    });
    await all.runtime.open();
    const network = { attached: true, ports: [{ port: 8080, protocol: 'tcp' as const }] };
    const jail = await all.runtime.create(spec({ network }));
    const [path] = all.names;
    expect(ownRoots ? join(rootPath, made) : join(folder, made)).toBe(
      ownRoots ? join(realpathSync(dirname(path!)), 'names') : path,
    );
    await jail.start();
    const { calls } = all.double;
    const started = calls.find((call) => call.startsWith('execve'))!;
    const port = Number(/HTTP_PROXY=http:\/\/jail:[0-9a-f]{32}@127\.0\.0\.1:(\d+)/.exec(started)?.[1]);
    expect(started).toContain(`DNSSD_UDS_PATH=${ownRoots ? seen : join(folder, seen)}`);
    const profile = calls.find((call) => call.startsWith('sandbox_init'))!;
    expect(profile).toContain(`(remote ip "localhost:${port}") (remote ip "localhost:8080")`);
    expect(profile).toContain('(local ip "*:8080")');
    expect(profile).not.toContain('"*:*"');
    await jail.destroy();
    expect(all.names.size).toBe(0);
    await expect(fetch(`http://127.0.0.1:${port}`)).rejects.toThrow();
  });

  it('has folders of the host linked where it is confined in place, and is kept to their rights by its profile', async () => {
    const volume = join(folder, 'volume');
    mkdirSync(volume);
    mkdirSync(join(rootPath, 'data'));
    const mounts = [
      { kind: 'bind' as const, source: volume, target: '/data', readOnly: true, options: [] },
      { kind: 'bind' as const, source: volume, target: '/deep/rw', readOnly: false, options: [] },
    ];
    const all = world((double) => {
      double.ownRoots = false;
    });
    await startOne(all, spec({ mounts: [mounts[0]!], process: { args: ['/bin/app'] } }));
    expect(readlinkSync(join(rootPath, 'data'))).toBe(volume);
    const { text, parameters } = profileTaken(all.double);
    const may = (operation: string, path: string): boolean =>
      decide(readProfile(text, parameters), { operation, path });
    expect(may('file-read-data', join(volume, 'f'))).toBe(true);
    expect(may('file-write-data', join(volume, 'f'))).toBe(false);
    expect(may('file-read-data', join(folder, 'elsewhere'))).toBe(false);
    const second = world((double) => {
      double.ownRoots = false;
    });
    await startOne(second, spec({ mounts: [mounts[1]!], process: { args: ['/bin/app'] } }));
    const writable = profileTaken(second.double);
    expect(
      decide(readProfile(writable.text, writable.parameters), {
        operation: 'file-write-data',
        path: join(volume, 'f'),
      }),
    ).toBe(true);
    writeFileSync(join(rootPath, 'kept'), '');
    mkdirSync(join(rootPath, 'full/of'), { recursive: true });
    const hiding = spec({ mounts: [{ ...mounts[0]!, target: '/full' }] });
    await expect(startOne(second, hiding)).rejects.toThrow(/furnish the root: ENOTEMPTY/);
  });

  it('has its files put into the image, and follows no link of it', async () => {
    symlinkSync('/', join(rootPath, 'tmp'));
    const all = world();
    await expect(startOne(all, spec())).rejects.toThrow(/\/tmp in the image is reached by what is no folder/);
    rmSync(join(rootPath, 'tmp'));
    mkdirSync(join(rootPath, 'etc'));
    symlinkSync(join(folder, 'victim'), join(rootPath, 'etc/hosts'));
    await startOne(world(), spec());
    expect(existsSync(join(folder, 'victim'))).toBe(false);
    expect(readFileSync(join(rootPath, 'etc/hosts'), 'utf8')).toBe('127.0.0.1 localhost\n');
    expect(lstatSync(join(rootPath, 'bin/app')).uid).toBe(jailOwner('a'.repeat(64)));
  });

  it.each([
    [
      'pipes',
      false,
      ['execve', 'mach_timebase_info', 'memorystatus_control', 'proc_listpids', 'proc_pid_rusage', 'setuid'],
    ],
    ['a terminal', true, []],
  ])('leaves nothing, whichever request fails (%s)', async (_what, terminal, expected) => {
    const network = { attached: !terminal, ports: [] };
    const wish = spec({ network, limits: { memoryBytes: 64 << 20 }, process: { terminal } });
    /** @returns what failed, and how many requests there were before the jail was destroyed. */
    const run = async (all: World): Promise<{ error?: unknown; requests: number }> => {
      let jail: Jail | undefined;
      let error: unknown;
      await all.runtime.open();
      try {
        jail = await all.runtime.create(wish);
        // A terminal of the double cannot be read.
        if (!terminal) await jail.start();
      } catch (thrown) {
        error = thrown;
      }
      const requests = all.double.calls.length;
      await jail?.destroy();
      return { error, requests };
    };
    const whole = world();
    const { error, requests } = await run(whole);
    expect(error).toBeUndefined();
    const before = openDescriptors();
    const unnoticed = new Set<string>();
    for (let failing = 0; failing < requests; failing++) {
      const call = whole.double.calls[failing]!;
      if (/^(launch|close)/.test(call)) continue;
      const all = world((double) => {
        double.failing = failing;
      });
      const { error } = await run(all);
      const [name] = call.split(' ');
      if (error === undefined) unnoticed.add(name!);
      else expect(errorMessage(error), name).toMatch(/EPERM|refused|cannot be loaded/);
      expect(left('darwin'), name).toEqual([]);
      expect(all.double.processes.size, name).toBe(0);
      expect(all.names.size, name).toBe(0);
      expect(left('names'), name).toEqual([]);
      await all.runtime.close();
    }
    expect(openDescriptors()).toBe(before);
    // A double returns from execve; that root cannot be had back is what is hoped for; the others are asked again.
    expect([...unnoticed].toSorted()).toEqual(
      ['csr_get_active_config', ...expected, 'proc_pidinfo'].toSorted(),
    );
  });

  it('is ended by the next daemon when its own was killed', async () => {
    const all = world();
    await all.runtime.open();
    await (await all.runtime.create(spec())).start();
    const next = world((double) =>
      double.processes.set(PID, { uid: jailOwner('a'.repeat(64)), footprintBytes: 1 }),
    );
    await next.runtime.open();
    expect(await next.runtime.sweep()).toEqual([`ended what was left of container ${'a'.repeat(12)}`]);
    expect(next.double.processes.size).toBe(0);
    expect(left('darwin')).toEqual([]);
  });

  it('refuses what it cannot promise, and tells what is only partly there', async () => {
    const { runtime } = world();
    expect(() => runtime.report(spec({ privileged: true }))).toThrow(/cannot be privileged/);
    const rows = Object.fromEntries(
      runtime
        .report(spec({ network: { attached: true, ports: [] }, limits: { memoryBytes: 5, cpuShares: 1 } }))
        .map((row) => [row.feature, row.got]),
    );
    expect(rows).toMatchObject({
      'root file system': 'full',
      network: 'partial',
      'system calls': 'none',
      memory: 'partial',
      'CPU shares': 'partial',
    });
    const mounts = [{ kind: 'bind' as const, source: folder, target: '/data', readOnly: false, options: [] }];
    await runtime.open();
    await expect(runtime.create(spec({ mounts }))).rejects.toMatchObject({ code: 'ERR_JAIL_PROMISE' });
    expect(runtime.info()).toMatchObject({ securityOptions: ['name=seatbelt,profile=default'] });
  });
});

describe('a utun interface', () => {
  it('is asked for by name and number, and closed when a step fails', () => {
    const double = new DarwinDouble();
    const { name, fd } = new DarwinCalls(double).openUtun();
    expect(name).toBe('utun5');
    expect(double.calls).toContain(`connect ${fd} <20200200070000000000000000000000${'00'.repeat(16)}> 32`);
    new DarwinCalls(double).close(fd);
    const before = openDescriptors();
    for (let failing = 0; failing < 5; failing++) {
      const broken = new DarwinDouble();
      broken.failing = failing;
      expect(() => new DarwinCalls(broken).openUtun()).toThrow('EPERM');
    }
    expect(openDescriptors()).toBe(before);
  });
});
