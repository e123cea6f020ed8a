import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { lacking } from '../../../test/support/requirements.ts';
import { PLACES } from '../../places.ts';
import { install, status, uninstall } from './actions.ts';
import type { RanProgram, ServiceHost } from './host.ts';
import { planService, type ServiceWish } from './plan.ts';

const SYSTEM: ServiceWish = { user: false, default: false, group: undefined };
const DONE: RanProgram = { status: 0, stdout: '', stderr: '' };

/** A machine in memory, and what was ordered of its service manager. */
class Machine implements ServiceHost {
  platform: NodeJS.Platform = 'linux';
  uid = 0;
  home = '/home/ada';
  env: Record<string, string> = { XDG_RUNTIME_DIR: '/run/user/1000' };
  node = process.execPath;
  program = '/usr/lib/node_modules/drydock/dist/daemon/bin.js';
  lacks: string[] = [];
  readonly files = new Map<string, { kind: 'file' | 'link' | 'other'; text: string }>();
  readonly orders: string[] = [];
  answer: (order: string) => RanProgram = () => DONE;

  missing(): string[] {
    return this.lacks;
  }
  look(path: string): ReturnType<ServiceHost['look']> {
    return this.files.get(path);
  }
  write(path: string, text: string): void {
    this.files.set(path, { kind: 'file', text });
  }
  remove(path: string): void {
    for (const known of this.files.keys())
      if (known === path || known.startsWith(`${path}/`)) this.files.delete(known);
  }
  run(command: readonly string[]): RanProgram {
    this.orders.push(command.join(' '));
    return this.answer(command.join(' '));
  }
  show(command: readonly string[]): number {
    this.orders.push(command.join(' '));
    return 0;
  }
}

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'drydock-service-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function file(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

describe.skipIf(lacking('systemd-analyze'))("systemd's units", () => {
  it.each([
    ['of the machine', { ...SYSTEM, default: true, group: 'docker' }],
    ['of a user', { ...SYSTEM, user: true }],
  ])('%s are valid to systemd itself', (_, wish) => {
    const machine = new Machine();
    machine.program = '/opt/a folder/50%/$bin.js';
    const paths = planService(machine, wish).files.map(({ path, text }) => file(basename(path), text));
    const { status: code, stderr } = spawnSync(
      'systemd-analyze',
      ['verify', '--man=no', ...(wish.user ? ['--user'] : []), ...paths],
      { encoding: 'utf8', env: { ...process.env, XDG_RUNTIME_DIR: folder } },
    );
    // What it says of units of the machine that runs the test is not ours.
    expect(stderr.split('\n').filter((line) => line.includes('drydock'))).toEqual([]);
    expect(code).toBe(0);
  });
});

describe.skipIf(lacking('python3'))("launchd's property list", () => {
  it('is one to a parser of property lists, with every path whole', () => {
    const machine = new Machine();
    Object.assign(machine, { platform: 'darwin', program: '/opt/<&>/bin.js' });
    const [made] = planService(machine, { ...SYSTEM, default: true, group: 'staff' }).files;
    expect(made!.path).toBe('/Library/LaunchDaemons/org.drydock.daemon.plist');
    const parsed = spawnSync(
      'python3',
      [
        '-c',
        'import json, plistlib, sys; print(json.dumps(plistlib.load(open(sys.argv[1], "rb"))))',
        file('job.plist', made!.text),
      ],
      { encoding: 'utf8' },
    );
    expect(parsed.stderr).toBe('');
    expect(JSON.parse(parsed.stdout)).toMatchObject({
      Label: 'org.drydock.daemon',
      ProgramArguments: [
        ...[process.execPath, '/opt/<&>/bin.js', 'daemon', '--host', 'unix:///var/run/drydock/docker.sock'],
        ...['--host', 'unix:///var/run/docker.sock', '--group', 'staff'],
      ],
      RunAtLoad: true,
      KeepAlive: { SuccessfulExit: false },
      StandardErrorPath: '/var/log/drydock.log',
    });
  });
});

describe('drydock service', () => {
  it.each([
    ['linux', SYSTEM],
    ['linux', { ...SYSTEM, user: true, default: true }],
    ['darwin', SYSTEM],
    ['darwin', { ...SYSTEM, user: true }],
  ] as const)('on %s, uninstall leaves what was there before install (%j)', (platform, wish) => {
    const machine = new Machine();
    machine.platform = platform;
    machine.write('/etc/hosts', '');
    const plan = planService(machine, wish);
    install(machine, plan);
    expect(machine.files.size).toBeGreaterThan(1);
    // What the service makes when it runs.
    const { socketPath, dataRoot, wellKnown } = plan.settings;
    machine.files.set(socketPath, { kind: 'other', text: '' });
    if (wellKnown !== undefined) machine.files.set(wellKnown, { kind: 'link', text: socketPath });
    machine.files.set(dataRoot, { kind: 'other', text: '' });
    machine.write(join(dataRoot, 'engine-id'), 'id');
    uninstall(machine, planService(machine, { ...wish, default: true }), true);
    expect([...machine.files.keys()]).toEqual(['/etc/hosts']);
    // Whatever was started was stopped.
    expect(machine.orders.some((order) => /enable |bootstrap/.test(order))).toBe(true);
    expect(machine.orders.some((order) => /disable --now|bootout/.test(order))).toBe(true);
  });

  it('keeps images and volumes unless told otherwise, and never removes a folder that is not its own', () => {
    const machine = new Machine();
    const plan = planService(machine, SYSTEM);
    machine.write(`${plan.settings.dataRoot}/volumes/x`, '');
    machine.files.set(plan.settings.dataRoot, { kind: 'other', text: '' });
    uninstall(machine, plan, false);
    expect(machine.look(`${plan.settings.dataRoot}/volumes/x`)).toBeDefined();
    expect(() => uninstall(machine, plan, true)).toThrow(/does not look like a daemon's data/);
    expect(machine.look(`${plan.settings.dataRoot}/volumes/x`)).toBeDefined();
  });

  it('removes nothing under mounts, and nothing of a daemon that is no service', () => {
    const machine = new Machine();
    const plan = planService(machine, SYSTEM);
    const { socketPath, execRoot, dataRoot } = plan.settings;
    machine.files.set(socketPath, { kind: 'other', text: '' });
    machine.write(join(dataRoot, 'engine-id'), 'id');
    machine.files.set(dataRoot, { kind: 'other', text: '' });
    expect(uninstall(machine, plan, false)).toBe(false);
    expect(() => uninstall(machine, plan, true)).toThrow(/a daemon runs that is no service/);
    expect(machine.orders).toEqual([]);
    install(machine, plan);
    const mounts = '/proc/self/mountinfo';
    for (const place of [`${execRoot}/mounts/my\\040files`, `${dataRoot}/overlay2/x/merged`]) {
      machine.write(mounts, `31 22 0:27 / / rw - ext4 a rw\n99 31 0:50 / ${place} rw - fuse x rw\n`);
      expect(() => uninstall(machine, plan, true)).toThrow(/ is mounted: containers go on there/);
    }
    expect(machine.look(socketPath)).toBeDefined();
    machine.write(mounts, '31 22 0:27 / / rw - ext4 a rw\n');
    expect(uninstall(machine, plan, true)).toBe(true);
    expect([...machine.files.keys()]).toEqual([mounts]);
  });

  it('takes everything back when the manager refuses, and says why', () => {
    const machine = new Machine();
    machine.answer = (order) =>
      order.includes('enable')
        ? { status: 1, stdout: '', stderr: 'System has not been booted with systemd as init system\n' }
        : DONE;
    expect(() => install(machine, planService(machine, SYSTEM))).toThrow(
      /systemctl enable .* failed: System has not been booted.*run `drydock daemon` by what starts your programs/,
    );
    expect(machine.files.size).toBe(0);
  });

  it('is not installed where it could not run, nor over another engine, nor from a cache', () => {
    const machine = new Machine();
    const plan = planService(machine, { ...SYSTEM, default: true });
    machine.lacks = ['run it with sudo'];
    expect(() => install(machine, plan)).toThrow(/could not run here:\nrun it with sudo/);
    machine.lacks = [];
    machine.files.set('/run/docker.sock', { kind: 'other', text: '' });
    expect(() => install(machine, plan)).toThrow(/docker.sock is there already, of another engine/);
    uninstall(machine, plan, false);
    expect(machine.look('/run/docker.sock')).toBeDefined();
    machine.remove('/run/docker.sock');
    machine.program = '/root/.npm/_npx/1/node_modules/drydock/dist/daemon/bin.js';
    expect(() => install(machine, plan)).toThrow(/npm install -g drydock/);
    expect(machine.files.size).toBe(0);
  });

  it('goes by the configuration file, which must leave the sockets to the service manager', () => {
    const machine = new Machine();
    const settings = join(PLACES.config, 'daemon.json');
    machine.write(settings, '{ "data-root": "/srv/drydock" }');
    expect(planService(machine, SYSTEM).settings.dataRoot).toBe('/srv/drydock');
    machine.write(settings, '{ "hosts": ["tcp://127.0.0.1:2375"] }');
    expect(() => planService(machine, SYSTEM)).toThrow(/has "hosts"/);
  });

  it.each([
    ['linux', 'ActiveState=active\nSubState=running\nMainPID=71\nUnitFileState=enabled\n', 'active'],
    ['darwin', 'system/org.drydock.daemon = {\n\tstate = running\n\tpid = 71\n}\n', 'running'],
  ] as const)('tells its state on %s', async (platform, stdout, state) => {
    const machine = new Machine();
    machine.platform = platform;
    const plan = planService(machine, SYSTEM);
    for (const { path, text } of plan.files) machine.write(path, text);
    machine.answer = () => ({ status: 0, stdout, stderr: '' });
    expect(await status(machine, plan)).toMatchObject({
      scope: 'system',
      installed: true,
      enabled: true,
      state,
      pid: 71,
      engine: undefined,
    });
  });

  it('shows the log by the means of the manager', () => {
    const machine = new Machine();
    expect(planService(machine, SYSTEM).logs({ lines: 5, follow: true, format: 'text' })).toEqual(
      'journalctl --unit=drydock.service --lines=5 --follow'.split(' '),
    );
    expect(planService(machine, SYSTEM).logs({ lines: 5, follow: false, format: 'json' })).toEqual(
      'journalctl --unit=drydock.service --lines=5 --output=json --no-pager'.split(' '),
    );
    machine.platform = 'darwin';
    expect(() => planService(machine, SYSTEM).logs({ lines: 5, follow: false, format: 'json' })).toThrow(
      'log-format',
    );
    expect(planService(machine, SYSTEM).logs({ lines: 5, follow: false, format: 'text' })).toEqual(
      'tail -n 5 /var/log/drydock.log'.split(' '),
    );
  });
});
