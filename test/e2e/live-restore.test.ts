/** With --live-restore containers go on while the daemon is killed or stopped, and the next one takes them up whole. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { ociCommand } from '../interop/jails.ts';
import { type DaemonAddress, finish, IMAGE, TestDaemon, until } from '../support/e2e/daemon.ts';
import { litterOf } from '../support/e2e/litter.ts';
import { describeE2e } from '../support/e2e/session.ts';
import { Terminal } from '../support/e2e/terminal.ts';

const WEB_SERVER = "require('http').createServer((q,r)=>r.end('served')).listen(80,()=>console.log('up'))";
/** Says how its connection to the host ended, which says nothing itself. */
const CLIENT = `const s=require('net').connect(+process.argv[1],'host.docker.internal',()=>console.log('connected'));
s.on('error',(e)=>console.log(e.code)).on('close',()=>{console.log('cut');setInterval(()=>{},1e6)})`;

/** OCI runtimes, by the names that the daemon is told. */
const OCI = ['other-runc', 'crun'];

/** Fewer than a pipe holds: nobody reads while they are written. */
const LINES = 2000;

interface Inspected {
  State: {
    Status: string;
    Pid: number;
    StartedAt: string;
    Health?: { Status: string; Log: { Start: string }[] };
  };
  NetworkSettings: { IPAddress: string; Ports: Record<string, { HostPort: string }[]> };
}

/** Of a process that has ended and was not reaped yet there is no command line. */
function isRunning(pid: number): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1') !== '';
  } catch {
    return false;
  }
}

describeE2e('with --live-restore', () => {
  let address: DaemonAddress;
  let daemon: TestDaemon;
  let folder: string;
  let server: Server;
  let before: Record<string, Inspected>;
  const crun = ociCommand('crun');
  const launch = async (...args: string[]): Promise<void> => {
    const runtimes = ['--add-runtime', 'other-runc=runc', '--add-runtime', `crun=${crun.command}`];
    daemon = await TestDaemon.launch(address, ['--shutdown-timeout', '1', ...runtimes, ...args]);
  };
  const run = (name: string, options: string[], ...command: string[]): Promise<string> =>
    daemon.ok(['run', '-d', '--name', name, ...options, IMAGE, ...command]);
  const inspectAll = async (): Promise<Record<string, Inspected>> => {
    const names = (await daemon.ok(['ps', '-a', '--format', '{{.Names}}'])).split('\n');
    return Object.fromEntries(
      await Promise.all(names.map(async (name) => [name, await daemon.inspect<Inspected>(name)])),
    );
  };
  const logged = (name: string, text: RegExp): Promise<void> =>
    until(async () => text.test(await daemon.ok(['logs', name])), `${name} writes ${text}`);

  beforeAll(async () => {
    address = TestDaemon.makeAddress();
    folder = mkdtempSync(join(tmpdir(), 'drydock-live-'));
    server = createServer().listen(0, '127.0.0.1');
    await launch('--live-restore');
    await daemon.ok(['volume', 'create', '-o', 'type=tmpfs', '-o', 'device=tmpfs', 'memory']);
    const wait = (file: string): string => `until [ -e /folder/${file} ]; do sleep 0.05; done`;
    const counting = `${wait('end')}; seq ${LINES}; touch /folder/written; ${wait('more')}; echo more; sleep 1000`;
    await run('counts', ['-v', `${folder}:/folder`], 'sh', '-c', counting);
    const ending = `${wait('end')}; echo last words; exit 7`;
    await run('ends', ['-v', `${folder}:/folder`], 'sh', '-c', ending);
    const reading = 'stty -echo; while read x; do echo "<$x>"; done; echo over';
    await run('terminal', ['-it'], 'sh', '-c', reading);
    for (const runtime of OCI) {
      const by = ['--runtime', runtime];
      await run(`${runtime}-ends`, [...by, '-v', `${folder}:/folder`], 'sh', '-c', ending);
      await run(`${runtime}-terminal`, [...by, '-it'], 'sh', '-c', reading);
      await run(`${runtime}-web`, [...by, '-p', '127.0.0.1::80'], 'node', '-e', WEB_SERVER);
      await logged(`${runtime}-web`, /up/);
    }
    // Made for one client, at whose end its input ends.
    await daemon.ok([
      'create',
      '-i',
      '--name',
      'input',
      '-v',
      'memory:/memory',
      IMAGE,
      'sh',
      '-c',
      'cat; cat',
    ]);
    await daemon.ok(['start', 'input']);
    await run('holds', ['-v', 'memory:/memory'], 'sleep', '1000');
    const health = ['--health-cmd', 'true', '--health-interval', '200ms'];
    await run('web', ['-p', '127.0.0.1::80', ...health], 'node', '-e', WEB_SERVER);
    await run('init', ['--init', '--ipc', 'shareable'], 'sleep', '1000');
    await run('again', ['--restart', 'always'], 'sleep', '1000');
    await run('left', ['--runtime', 'other-runc'], 'sleep', '1000');
    await run('paused', [], 'sleep', '1000');
    await daemon.ok(['pause', 'paused']);
    const { port } = server.address() as AddressInfo;
    await run('client', [], 'node', '-e', CLIENT, '--', String(port));
    await logged('client', /connected/);
    await logged('web', /up/);
    before = await inspectAll();
    await daemon.stop('SIGKILL');
    writeFileSync(join(folder, 'end'), '');
    const ended = ['ends', ...OCI.map((runtime) => `${runtime}-ends`)].map((name) => before[name]!.State.Pid);
    await until(() => !ended.some(isRunning), 'those that end have ended');
    await until(() => existsSync(join(folder, 'written')), 'all lines are written');
    await launch('--live-restore');
  });
  afterAll(async () => {
    server.close();
    // Whatever failed before: without the option the next start ends what goes on.
    await daemon?.stop('SIGKILL');
    await launch();
    await daemon.stop();
    expect(litterOf(address)).toEqual([]);
    TestDaemon.forget(address);
    crun.remove();
    rmSync(folder, { recursive: true, force: true });
  });

  it('the same processes run on, with the same start, address and ports', async () => {
    const after = await inspectAll();
    const facts = ({ State: { Status, Pid, StartedAt }, NetworkSettings }: Inspected): object => ({
      ...{ Status, Pid, StartedAt, address: NetworkSettings.IPAddress, ports: NetworkSettings.Ports },
    });
    for (const name of Object.keys(before).filter((key) => !key.endsWith('ends')))
      expect(facts(after[name]!), name).toEqual(facts(before[name]!));
  });

  it('the exit code and the last words of one that ended meanwhile are not lost', async () => {
    expect(await daemon.ok(['wait', 'ends'])).toBe('7');
    expect(await daemon.ok(['logs', 'ends'])).toBe('last words');
  });

  it.each(OCI)('containers of %s are taken up as our own are', async (runtime) => {
    expect(await daemon.ok(['wait', `${runtime}-ends`])).toBe('7');
    expect(await daemon.ok(['logs', `${runtime}-ends`])).toBe('last words');
    const size = { rows: 24, columns: 80 };
    const person = new Terminal('docker', ['attach', `${runtime}-terminal`], daemon.environment(), size);
    person.type('typed\r');
    await person.sees('<typed>');
    person.type('\x04');
    expect(await person.exited()).toBe(0);
    person.close();
    const web = `${runtime}-web`;
    const port = before[web]!.NetworkSettings.Ports['80/tcp']![0]!.HostPort;
    expect(await (await fetch(`http://127.0.0.1:${port}/`)).text()).toBe('served');
    expect(await daemon.ok(['exec', web, 'echo', 'there'])).toBe('there');
    await daemon.ok(['stop', '-t', '0', web]);
    expect((await daemon.inspect<Inspected & { State: { ExitCode: number } }>(web)).State.ExitCode).toBe(137);
    await daemon.ok(['start', web]);
    await daemon.ok(['rm', '-f', web, `${runtime}-terminal`, `${runtime}-ends`]);
  });

  it('the log goes on, with what was written while nobody read', async () => {
    writeFileSync(join(folder, 'more'), '');
    await logged('counts', /more/);
    const lines = Array.from({ length: LINES }, (_, index) => String(index + 1));
    expect((await daemon.ok(['logs', 'counts'])).split('\n')).toEqual([...lines, 'more']);
  });

  it('terminal and input are those from before, and their end is told', async () => {
    const size = { rows: 24, columns: 80 };
    const person = new Terminal('docker', ['attach', 'terminal'], daemon.environment(), size);
    person.type('typed\r');
    await person.sees('<typed>');
    person.type('\x04');
    expect(await person.exited()).toBe(0);
    person.close();
    const client = daemon.spawn(['attach', 'input']);
    expect(await finish(client, 'said\n')).toMatchObject({ code: 0, stdout: 'said\n' });
  });

  it('published ports and networks work again, and what went through the killed daemon is reset', async () => {
    const port = before.web!.NetworkSettings.Ports['80/tcp']![0]!.HostPort;
    expect(await (await fetch(`http://127.0.0.1:${port}/`)).text()).toBe('served');
    await logged('client', /ECONNABORTED\ncut/);
    const visit = ['bash', '-c', ': <>/dev/tcp/web/80 && echo reached'];
    expect(await daemon.ok(['exec', 'again', ...visit])).toBe('reached');
  });

  it('health checks, restart policy, init, pause and volumes go on', async () => {
    const health = async () => (await daemon.inspect<Inspected>('web')).State.Health!;
    const last = (await health()).Log.at(-1)?.Start;
    await expect.poll(async () => (await health()).Log.at(-1)?.Start).not.toBe(last);
    expect((await health()).Status).toBe('healthy');
    const { Pid } = before.again!.State;
    process.kill(Pid, 'SIGKILL');
    await expect.poll(async () => (await daemon.inspect<Inspected>('again')).State.Pid).not.toBe(Pid);
    await daemon.ok(['unpause', 'paused']);
    expect(await daemon.ok(['exec', 'init', 'readlink', '/proc/1/exe'])).toContain('drydock-init');
    await daemon.ok(['stop', '-t', '0', 'holds']);
    expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(`${address.dataRoot}/volumes/memory`);
  });

  it('an orderly stop leaves them running too, and a start without the option ends them', async () => {
    expect(await daemon.stop()).toBe(0);
    const names = ['init', 'left'];
    const pids = names.map((name) => before[name]!.State.Pid);
    expect(pids.map(isRunning)).toEqual([true, true]);
    await launch('--live-restore');
    for (const [index, name] of names.entries()) {
      const { State } = await daemon.inspect<Inspected>(name);
      expect(State, name).toMatchObject({ Status: 'running', Pid: pids[index] });
      expect(await daemon.ok(['exec', name, 'echo', 'there']), name).toBe('there');
    }
    await daemon.stop('SIGKILL');
    await launch();
    expect(await daemon.ok(['ps', '-q'])).toBe('');
    expect(pids.map(isRunning)).toEqual([false, false]);
  });
});
