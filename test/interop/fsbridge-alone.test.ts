/** `drydock fs` in bindfs's place: a folder served by a process of its own, looked at from outside. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { compiledEntry } from '#common/entry';
import { MNT_DETACH, unmountFs } from '#common/native/fuse';
import { mountFolder } from '#fsbridge';
import { eventually, failure } from '../support/bridge.ts';
import { lacking } from '../support/requirements.ts';

const COMMAND = [compiledEntry('daemon/bin'), 'fs'];

describe.skipIf(lacking('root', '/dev/fuse'))('drydock fs', () => {
  let base: string;
  let server: ChildProcess | undefined;
  let output: { out: string; err: string };
  const host = (...names: string[]): string => join(base, 'host', ...names);
  const guest = (...names: string[]): string => join(base, 'guest', ...names);

  beforeEach(() => {
    base = fs.realpathSync(fs.mkdtempSync(join(tmpdir(), 'drydock-alone-')));
    fs.chmodSync(base, 0o755);
    fs.mkdirSync(host());
    fs.mkdirSync(guest());
    output = { out: '', err: '' };
  });
  afterEach(async () => {
    await stop('SIGKILL');
    if (failure(() => unmountFs(guest(), MNT_DETACH)) === 'ok') await eventually(() => false, 50);
    fs.rmSync(base, { recursive: true, force: true });
  });

  async function serve(...flags: string[]): Promise<void> {
    const made = spawn(process.execPath, [...COMMAND, 'mount', ...flags, host(), guest()]);
    server = made;
    made.stdout.on('data', (text) => {
      output.out += text;
    });
    made.stderr.on('data', (text) => {
      output.err += text;
    });
    expect(await eventually(() => output.out.includes('is at') || made.exitCode !== null, 20_000)).toBe(true);
    expect(output.err).toBe('');
  }

  async function stop(signal: NodeJS.Signals): Promise<void> {
    const ending = server;
    server = undefined;
    if (ending === undefined || ending.exitCode !== null || ending.signalCode !== null) return;
    ending.kill(signal);
    await once(ending, 'close');
  }

  const status = (): { source: string; target: string; readOnly: boolean; state: string }[] =>
    JSON.parse(
      execFileSync(process.execPath, [...COMMAND, 'status', '--format', 'json'], { encoding: 'utf8' }),
    );

  it('counts and times each operation, asked for by a signal and at the end', async () => {
    await serve('--stats', '--no-passthrough');
    fs.writeFileSync(guest('file'), 'text');
    server!.kill('SIGUSR2');
    expect(await eventually(() => /^write +1 +[\d.]+ +[\d.]+$/m.test(output.err))).toBe(true);
    fs.readFileSync(guest('file'));
    await stop('SIGTERM');
    expect(output.out).toMatch(/^OPERATION +COUNT +P50 US +P99 US$/m);
    expect(output.out).toMatch(/^write +1 /m);
    expect(output.out).toMatch(/^read +\d/m);
    expect(fs.readdirSync(guest())).toEqual([]);
  });

  it('traces each request with its path, caller and result', async () => {
    const trace = join(base, 'trace');
    fs.mkdirSync(host('folder'));
    await serve('--trace', trace);
    fs.writeFileSync(guest('folder', 'naïve'), 'x');
    expect(failure(() => fs.statSync(guest('folder', 'none')))).toBe('ENOENT');
    await stop('SIGTERM');
    expect(output.err).toBe('');
    const lines = fs
      .readFileSync(trace, 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    const create = { operation: 'create', path: '/folder', name: 'naïve', result: 'ok', uid: 0 };
    expect(lines).toContainEqual(expect.objectContaining({ ...create, pid: process.pid }));
    expect(lines).toContainEqual(
      expect.objectContaining({ operation: 'lookup', path: '/folder', name: 'none', result: 'ENOENT' }),
    );
    for (const line of lines) expect(line.us).toBeGreaterThanOrEqual(0);
  });

  it('refuses to write its trace into the folder that it serves', async () => {
    const options = { source: host(), target: guest(), trace: guest('trace') };
    await expect(mountFolder(options)).rejects.toMatchObject({ code: 'ERR_FS_TRACE' });
    expect(fs.readdirSync(host())).toEqual([]);
  });

  it('tells what is served, and of a killed server that it is dead', async () => {
    await serve('--read-only');
    const mine = (): unknown => status().find(({ target }) => target === guest());
    expect(mine()).toEqual({ source: host(), target: guest(), readOnly: true, state: 'served' });
    await stop('SIGKILL');
    expect(mine()).toMatchObject({ state: 'dead' });
  });

  it('tells within seconds of a server that does not answer, and ends', async () => {
    await serve();
    server!.kill('SIGSTOP');
    try {
      expect(status().find(({ target }) => target === guest())).toMatchObject({ state: 'busy' });
    } finally {
      server!.kill('SIGCONT');
    }
    expect(status().find(({ target }) => target === guest())).toMatchObject({ state: 'served' });
  });

  it('shows mapped users and groups inside, and gives the host its own', async () => {
    await serve('--map-user', '0:100000:1000', '--map-group', '0:200000:1000', '--map-user', '1000:1000:1');
    fs.writeFileSync(host('theirs'), '');
    fs.chownSync(host('theirs'), 100_007, 200_008);
    fs.writeFileSync(host('unmapped'), '');
    fs.chownSync(host('unmapped'), 5, 200_000);
    const owner = (path: string): number[] => [fs.lstatSync(path).uid, fs.lstatSync(path).gid];
    expect(owner(guest('theirs'))).toEqual([7, 8]);
    expect(owner(guest('unmapped'))).toEqual([65534, 0]);
    fs.mkdirSync(guest('made'));
    expect(owner(host('made'))).toEqual([100_000, 200_000]);
    fs.symlinkSync('x', guest('link'));
    fs.lchownSync(guest('link'), 1000, 3);
    expect(owner(host('link'))).toEqual([1000, 200_003]);
    expect(failure(() => fs.chownSync(guest('made'), 1001, 0))).toBe('EINVAL');
    expect(owner(guest('made'))).toEqual([0, 0]);
    fs.chmodSync(guest('made'), 0o777);
    // A user without an id on the host can look, but own nothing there.
    const asStranger = ['--reuid=2000', '--regid=0', '--clear-groups', 'touch', guest('made', 'new')];
    expect(() => execFileSync('setpriv', asStranger, { stdio: 'pipe' })).toThrow(/too large/);
    expect(fs.readdirSync(host('made'))).toEqual([]);
  });

  it('says what is wrong with a map of ids', async () => {
    const flags = ['mount', '--map-user', '0:1', host(), guest()];
    expect(() => execFileSync(process.execPath, [...COMMAND, ...flags], { stdio: 'pipe' })).toThrow(
      /"0:1" is not of the form INSIDE:HOST:COUNT/,
    );
    const both = { source: host(), target: guest(), ownership: 'caller' as const };
    const uidMap = [{ inside: 0, host: 0, count: 1 }];
    await expect(mountFolder({ ...both, uidMap })).rejects.toMatchObject({ code: 'ERR_FS_ID_MAP' });
  });

  it('serves only what the list of exports has, wherever links lead', async () => {
    fs.mkdirSync(host('shared'));
    fs.symlinkSync('/etc', host('shared', 'out'));
    const exports = [host('shared')];
    const denied = { code: 'ERR_FS_NOT_EXPORTED' };
    await expect(mountFolder({ source: host(), target: guest(), exports })).rejects.toMatchObject(denied);
    const out = { source: host('shared', 'out'), target: guest(), exports };
    await expect(mountFolder(out)).rejects.toMatchObject(denied);
    const mount = await mountFolder({ source: host('shared'), target: guest(), exports });
    await mount.unmount();
  });
});
