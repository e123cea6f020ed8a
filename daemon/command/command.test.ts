import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { compiledEntry } from '#common/entry';
import { lacking } from '../../test/support/requirements.ts';
import { completionScript } from './completion.ts';
import { type CommandFacts, everyCommand } from './describe.ts';
import { manPages } from './man.ts';
import { referencePage } from './reference.ts';
import { wholeProgram } from './whole.ts';

interface Ran {
  status: number | null;
  stdout: string;
  stderr: string;
}

function run(program: string, args: string[], env: Record<string, string> = {}): Ran {
  return spawnSync(program, args, { encoding: 'utf8', env: { ...process.env, ...env } });
}

const drydock = (args: string[], env?: Record<string, string>): Ran =>
  run(process.execPath, [compiledEntry('daemon/bin'), ...args], env);

let folder: string;
let program: CommandFacts;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'drydock-command-'));
  ({ program } = await wholeProgram());
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function file(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

describe('the drydock program', () => {
  it('loads none of the parts for --help and version', () => {
    for (const args of [['--help'], ['version']]) {
      const coverage = join(folder, `coverage${args[0]}`);
      expect(drydock(args, { NODE_V8_COVERAGE: coverage }).status).toBe(0);
      const loaded = readdirSync(coverage).flatMap((name) =>
        (JSON.parse(readFileSync(join(coverage, name), 'utf8')) as { result: { url: string }[] }).result.map(
          ({ url }) => url,
        ),
      );
      expect(loaded.some((url) => url.includes('/daemon/command/program.js'))).toBe(true);
      expect(loaded.filter((url) => /koffi|pino|fastify|\/netstack\/|\/fsbridge\/|native/.test(url))).toEqual(
        [],
      );
    }
  });

  it('ends with 0 for help, 2 for a mistake in the command line and 1 for a failure', () => {
    const none = drydock([]);
    expect([none.status, none.stdout]).toEqual([2, '']);
    expect(none.stderr).toContain('Commands:');
    expect(drydock(['help', 'daemon']).stdout).toContain('--data-root <folder>');
    const unknown = drydock(['fs', 'mount', '--no-such', '/a', '/b']);
    expect(unknown.status).toBe(2);
    expect(unknown.stderr).toContain("unknown option '--no-such'");
    expect(unknown.stderr).toContain('--help');
    const bad = drydock(['daemon', '--validate', '--config-file', join(folder, 'absent.json')]);
    expect(bad.status).toBe(1);
    expect(bad.stderr).toMatch(/^drydock: the configuration file .*absent.json could not be read/);
  });

  it('styles help only where colours are wanted', () => {
    expect(drydock(['--help'], { FORCE_COLOR: '1' }).stdout).toContain('\u001b[1m');
    expect(drydock(['--help'], { NO_COLOR: '1', FORCE_COLOR: '' }).stdout).not.toContain('\u001b[');
  });

  it('prints its version as JSON', () => {
    const { stdout } = drydock(['version', '--format', 'json']);
    expect(JSON.parse(stdout)).toEqual({
      version: JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')).version,
      node: process.version,
      platform: process.platform,
      arch: process.arch,
    });
  });

  it('shows an example for every command that does something', () => {
    for (const facts of everyCommand(program))
      if (facts.commands.length === 0)
        expect(facts.help?.examples.length, facts.path.join(' ')).toBeGreaterThan(0);
  });

  it('is what docs/reference/cli.md says: run `npm run docs` after a change of options', () => {
    const page = new URL('../../docs/reference/cli.md', import.meta.url);
    expect(readFileSync(page, 'utf8')).toBe(referencePage(program));
  });
});

describe.skipIf(lacking('man', 'mandoc'))('man pages', () => {
  it('are valid, one for each command, with every option', () => {
    const pages = manPages(program, '1.2.3', '2026-01-02');
    expect(pages.map(({ name }) => name)).toContain('drydock-fs-mount.1');
    for (const { name, text } of pages) {
      const path = file(name, text);
      expect(run('mandoc', ['-Tlint', '-W', 'warning', path]).stdout, name).toBe('');
      const shown = run('man', ['-l', path], { MANWIDTH: '200', LC_ALL: 'C', MANPAGER: 'cat' }).stdout;
      const facts = [...everyCommand(program)].find(({ path: words }) => `${words.join('-')}.1` === name)!;
      for (const { flags } of facts.options) expect(shown, name).toContain(flags);
      for (const example of facts.help?.examples ?? []) expect(shown, name).toContain(example.command);
    }
  });
});

describe('bash completion', () => {
  /** What TAB offers behind these words. */
  function offered(...words: string[]): string[] {
    const script = file('drydock.bash', completionScript('bash', program));
    const { stdout, stderr } = run('bash', [
      '-c',
      'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _drydock; declare -p COMPREPLY',
      'bash',
      script,
      'drydock',
      ...words,
    ]);
    expect(stderr).toBe('');
    return [...stdout.matchAll(/\[\d+\]="([^"]*)"/g)].map(([, word]) => word!);
  }

  it('offers commands, options, choices and files, and nothing for free text', () => {
    expect(offered('d')).toEqual(expect.arrayContaining(['daemon']));
    expect(offered('fs', '')).toEqual(['mount', 'status']);
    expect(offered('daemon', '--data')).toEqual(['--data-root']);
    expect(offered('fs', 'mount', '--consistency', '')).toEqual(['consistent', 'cached', 'delegated']);
    expect(offered('daemon', '--config-file', `${folder}/drydock.b`)).toEqual([join(folder, 'drydock.bash')]);
    expect(offered('daemon', '--mtu', '')).toEqual([]);
    expect(offered('completion', 'b')).toEqual(['bash']);
  });
});

describe.skipIf(lacking('zsh'))('zsh completion', () => {
  it('is a script that defines a completer for every command', () => {
    const script = file('_drydock', completionScript('zsh', program));
    const { stdout, stderr } = run('zsh', [
      '-f',
      '-c',
      `autoload -Uz compinit; compinit -D; source ${script}; print $_comps[drydock] $+functions[_drydock_fs_mount]`,
    ]);
    expect([stdout.trim(), stderr]).toEqual(['_drydock 1', '']);
  });
});

describe.skipIf(lacking('fish'))('fish completion', () => {
  it('offers subcommands and the choices of an option', () => {
    const script = file('drydock.fish', completionScript('fish', program));
    const offered = (line: string): string =>
      run('fish', ['--no-config', '-c', `source ${script}; complete -C '${line}'`], { HOME: folder }).stdout;
    expect(offered('drydock fs ')).toMatch(/^mount\t/m);
    expect(offered('drydock fs mount --consistency ')).toMatch(/^delegated/m);
    expect(offered('drydock daemon --tlsv')).toMatch(/^--tlsverify\t/m);
  });
});
