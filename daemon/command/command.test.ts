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

/** How mandoc makes bold: a character, a step back, the character again. */
const OVERSTRUCK = new RegExp(`.${String.fromCharCode(8)}`, 'g');

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
  // Every command's module is loaded.
}, 30_000);
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

  it('ends with 0 for help, 2 for a mistake in the command line and 1 for a failure, in colour only where that is wanted', () => {
    const none = drydock([], { NO_COLOR: '1', FORCE_COLOR: '' });
    expect([none.status, none.stdout]).toEqual([2, '']);
    expect(none.stderr).toContain('Commands:');
    expect(none.stderr).not.toContain('\u001b[');
    const help = drydock(['help', 'daemon'], { FORCE_COLOR: '1', NO_COLOR: '' }).stdout;
    expect(help).toContain('--data-root <folder>');
    expect(help).toContain('\u001b[1m');
    const unknown = drydock(['fs', 'mount', '--no-such', '/a', '/b']);
    expect(unknown.status).toBe(2);
    expect(unknown.stderr).toContain("unknown option '--no-such'");
    expect(unknown.stderr).toContain('--help');
    const bad = drydock(['daemon', '--validate', '--config-file', join(folder, 'absent.json')]);
    expect(bad.status).toBe(1);
    expect(bad.stderr).toMatch(
      /^drydock: the configuration file .*absent.json could not be read.* \(ERR_BAD_CONFIG\)$/m,
    );
  });

  it.skipIf(lacking('script'))('shows how far a check has come on a terminal, and not in a pipe', () => {
    const argv = [process.execPath, compiledEntry('daemon/bin'), 'doctor', '--format', 'json'];
    const env = { TERM: 'xterm' };
    const seen = run('script', ['-qec', argv.map((word) => `'${word}'`).join(' '), '/dev/null'], env);
    expect(seen.stdout).toContain('looking at this machine');
    expect(seen.stdout).toContain('\r\u001b[K[');
    expect(run(argv[0]!, argv.slice(1), env).stderr).toBe('');
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

  it('shows examples of commands and options that there are', () => {
    for (const { help } of everyCommand(program))
      for (const { command } of help?.examples ?? [])
        for (const part of command.split(/ && | \| /)) {
          const [, line] = /^(?:sudo )?drydock (.*)$/.exec(part) ?? [];
          if (line === undefined) continue;
          const words = line.split(' ');
          let facts = program;
          for (let next = program.commands; next.length > 0; next = facts.commands) {
            const sub = next.find(({ path }) => path.at(-1) === words[0]);
            if (!sub) break;
            facts = sub;
            words.shift();
          }
          expect(facts, command).not.toBe(program);
          const known = facts.options.flatMap(({ names }) => names);
          const used = words.filter((word) => /^-/.test(word)).map((word) => word.replace(/=.*/, ''));
          expect(known, command).toEqual(expect.arrayContaining(used));
        }
  });

  it('has --format json wherever a command prints and ends', () => {
    /** Those run until they are stopped and log (the daemon by --log-format), or print a script for a shell. */
    const without = /^drydock (daemon|net|net (dns|dhcp|dhcp6|ntp|proxy)|completion)$/;
    const ends = [...everyCommand(program)].filter(
      ({ path, commands }) => path.join(' ') === 'drydock net' || commands.length === 0,
    );
    for (const { path, options } of ends) {
      const format = options.find(({ names }) => names.includes('--format'));
      if (without.test(path.join(' '))) expect(format, path.join(' ')).toBeUndefined();
      else expect(format?.choices, path.join(' ')).toEqual(['text', 'json']);
    }
  });

  it('is what docs/reference/cli.md says: run `npm run docs` after a change of options', () => {
    const page = new URL('../../docs/reference/cli.md', import.meta.url);
    expect(readFileSync(page, 'utf8')).toBe(referencePage(program));
  });
});

describe.skipIf(lacking('mandoc'))('man pages', () => {
  it('are valid, one for each command, with every option', () => {
    const pages = manPages(program, '1.2.3', '2026-01-02');
    expect(pages.map(({ name }) => name)).toContain('drydock-fs-mount.1');
    const paths = pages.map(({ name, text }) => file(name, text));
    expect(run('mandoc', ['-Tlint', '-W', 'warning', ...paths]).stdout).toBe('');
    // In the order of the arguments, each from its header line to its footer.
    const shown = run('mandoc', ['-Tascii', '-O', 'width=200', ...paths]).stdout.replace(OVERSTRUCK, '');
    const bodies = shown.split(/^drydock 1\.2\.3 .*$/m);
    for (const [at, facts] of [...everyCommand(program)].entries()) {
      const name = `${facts.path.join('-')}.1`;
      expect(pages[at]!.name).toBe(name);
      expect(bodies[at], name).toContain(`${facts.path.join('-').toUpperCase()}(1)`);
      for (const { flags } of facts.options) expect(bodies[at], name).toContain(flags);
      for (const example of facts.help?.examples ?? []) expect(bodies[at], name).toContain(example.command);
    }
  });
});

describe('bash completion', () => {
  /** What TAB offers behind each of these lines of words. */
  function offered(...lines: string[][]): string[][] {
    const script = file('drydock.bash', completionScript('bash', program));
    const asked = lines.map((words) => {
      const quoted = ['drydock', ...words].map((word) => `'${word}'`);
      return `COMP_WORDS=(${quoted.join(' ')}); COMP_CWORD=${words.length}; _drydock; echo "\${COMPREPLY[*]}"`;
    });
    const { stdout, stderr } = run('bash', ['-c', `source "$1"\n${asked.join('\n')}`, 'bash', script]);
    expect(stderr).toBe('');
    return stdout
      .split('\n')
      .slice(0, -1)
      .map((line) => line.split(' ').filter(Boolean));
  }

  it('offers commands, options, choices and files, and nothing for free text', () => {
    const [commands, ...others] = offered(
      ['d'],
      ['fs', ''],
      ['daemon', '--data'],
      ['fs', 'mount', '--consistency', ''],
      ['daemon', '--config-file', `${folder}/drydock.b`],
      ['daemon', '--mtu', ''],
      ['completion', 'b'],
    );
    expect(commands).toEqual(expect.arrayContaining(['daemon']));
    expect(others).toEqual([
      ['mount', 'status'],
      ['--data-root'],
      ['consistent', 'cached', 'delegated'],
      [join(folder, 'drydock.bash')],
      [],
      ['bash'],
    ]);
  });
});

describe.skipIf(lacking('zsh'))('zsh completion', () => {
  it('is a script that defines a completer for every command', () => {
    const script = file('_drydock', completionScript('zsh', program));
    const { stdout, stderr } = run('zsh', [
      '-f',
      '-c',
      // compinit's own function would look through the completions of every other program.
      `compdef() { print $*; }; source ${script}; print $+functions[_drydock_fs_mount]`,
    ]);
    expect([stdout.trim(), stderr]).toEqual(['_drydock drydock\n1', '']);
  });
});

describe.skipIf(lacking('fish'))('fish completion', () => {
  it('offers subcommands and the choices of an option', () => {
    const script = file('drydock.fish', completionScript('fish', program));
    const lines = ['drydock fs ', 'drydock fs mount --consistency ', 'drydock daemon --tlsv'];
    const asked = lines.map((line) => `complete -C '${line}'; echo ---`).join('; ');
    const { stdout } = run('fish', ['--no-config', '-c', `source ${script}; ${asked}`], { HOME: folder });
    const [subcommands, choices, options] = stdout.split('---\n');
    expect(subcommands).toMatch(/^mount\t/m);
    expect(choices).toMatch(/^delegated/m);
    expect(options).toMatch(/^--tlsverify\t/m);
  });
});
