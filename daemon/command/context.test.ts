import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { compiledEntry } from '#common/entry';
import { lacking } from '../../test/support/requirements.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'drydock-context-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function run(program: string, ...args: string[]): { status: number | null; stdout: string; stderr: string } {
  const env: NodeJS.ProcessEnv = { ...process.env, DOCKER_CONFIG: folder };
  delete env.DOCKER_HOST;
  delete env.DOCKER_CONTEXT;
  return spawnSync(program, args, { encoding: 'utf8', env });
}
const drydock = (...args: string[]): ReturnType<typeof run> =>
  run(process.execPath, compiledEntry('daemon/bin'), 'context', ...args);

describe.skipIf(lacking('docker'))('drydock context create', () => {
  it('makes a context that docker shows and uses', () => {
    expect(drydock('create', '--host', 'unix:///run/elsewhere.sock').status).toBe(0);
    expect(run('docker', 'context', 'use', 'drydock').stderr).not.toContain('not found');
    const shown = JSON.parse(run('docker', 'context', 'inspect').stdout) as {
      Name: string;
      Endpoints: { docker: { Host: string } };
    }[];
    expect(shown[0]).toMatchObject({
      Name: 'drydock',
      Endpoints: { docker: { Host: 'unix:///run/elsewhere.sock' } },
    });
    const [listed] = JSON.parse(drydock('ls', '--format', 'json').stdout) as { current: boolean }[];
    expect(listed).toMatchObject({ name: 'drydock', host: 'unix:///run/elsewhere.sock', current: true });
  });
});

describe('drydock context', () => {
  it("keeps docker's other settings when it changes the context in use, and leaves no context behind", () => {
    const settings = join(folder, 'config.json');
    writeFileSync(settings, JSON.stringify({ auths: { 'registry.example': { auth: 'eA==' } } }));
    drydock('create', 'one');
    expect(drydock('use', 'one').status).toBe(0);
    expect(JSON.parse(readFileSync(settings, 'utf8'))).toEqual({
      auths: { 'registry.example': { auth: 'eA==' } },
      currentContext: 'one',
    });
    expect(drydock('rm', 'one').status).toBe(0);
    expect(JSON.parse(readFileSync(settings, 'utf8'))).toEqual({
      auths: { 'registry.example': { auth: 'eA==' } },
    });
    expect(readdirSync(join(folder, 'contexts', 'meta'))).toEqual([]);
  });

  it('refuses to replace a context unless forced, and names that docker would not take', () => {
    drydock('create', 'one');
    const again = drydock('create', 'one');
    expect([again.status, again.stderr]).toEqual([1, expect.stringContaining('--force')]);
    expect(drydock('create', 'one', '--force', '--host', 'tcp://127.0.0.1:2375').status).toBe(0);
    expect(drydock('ls').stdout).toBe('  one  tcp://127.0.0.1:2375\n');
    for (const name of ['default', '../x', 'a'])
      expect(drydock('create', name).stderr).toContain("cannot be a context's name");
    expect(drydock('create', 'two', '--host', 'nonsense').stderr).toContain(
      'nonsense is nothing that docker can call',
    );
    expect(drydock('create', 'two', '--host', 'fd://').stderr).toContain('write unix:///path/to/socket');
    expect(drydock('create', 'two', '--host', 'ssh://ada@host/run/drydock/docker.sock').status).toBe(0);
    expect(drydock('rm', 'two').status).toBe(0);
    expect(existsSync(join(folder, 'config.json'))).toBe(false);
  });

  it('tells programs what it made, chose and forgot', () => {
    const facts = { name: 'one', host: 'tcp://127.0.0.1:2375', description: 'Drydock on this host' };
    const told = (...args: string[]): unknown => JSON.parse(drydock(...args, '--format', 'json').stdout);
    expect(told('create', 'one', '--host', facts.host)).toEqual({ ...facts, current: false });
    expect(told('use', 'one')).toEqual({ ...facts, current: true });
    expect(told('rm', 'one')).toEqual({ ...facts, current: false });
  });

  it('says how to make a context that is used and not there', () => {
    const { status, stderr } = drydock('use', 'absent');
    expect([status, stderr]).toEqual([1, expect.stringContaining('drydock context create absent')]);
  });
});
