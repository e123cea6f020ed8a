/** Every flag of the dockerd that Debian has: honoured, or refused or warned of by its name. */
import { execFileSync, spawn } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { compiledEntry } from '#common/entry';
import { parseConfigFile } from '../../daemon/config.ts';
import { OPTIONS } from '../../daemon/config-options.ts';
import { FOREIGN_OPTIONS } from '../../daemon/foreign-options.ts';
import { finish } from '../support/e2e/daemon.ts';
import { lacking } from '../support/requirements.ts';

const OWN = OPTIONS.flatMap(({ flags }) => /--([\w-]+)/.exec(flags)?.[1] ?? []);
/** Of the program, not of the configuration; --version is `drydock version`. */
const PROGRAM = ['config-file', 'validate', 'help', 'version'];

const validate = (...args: string[]) =>
  finish(
    spawn(process.execPath, [compiledEntry('daemon/bin'), 'daemon', '--validate', ...args], {
      stdio: 'pipe',
    }),
  );

describe.skipIf(lacking('dockerd'))('the options of Debian’s dockerd', () => {
  it('are all known, each in one table', () => {
    const help = execFileSync('dockerd', ['--help'], { encoding: 'utf8' });
    const flags = [...help.matchAll(/^ +(?:-\w, )?--([\w-]+)/gm)].map(([, flag]) => flag!);
    const foreign = FOREIGN_OPTIONS.map(({ flag }) => flag);
    expect(flags.length).toBeGreaterThan(60);
    expect(flags.filter((flag) => ![...OWN, ...foreign, ...PROGRAM].includes(flag))).toEqual([]);
    expect(OWN.filter((flag) => foreign.includes(flag))).toEqual([]);
  });
});

describe('options that only dockerd has', () => {
  it.each(FOREIGN_OPTIONS.filter(({ key }) => key))(
    'daemon.json: $key is answered by its name',
    ({ key, refused, why }) => {
      const warnings: string[] = [];
      const parse = () => parseConfigFile(JSON.stringify({ [key!]: true }), (text) => warnings.push(text));
      if (refused) expect(parse).toThrow(`${key} is not supported: ${why}`);
      else {
        expect(parse()).toEqual({});
        expect(warnings).toEqual([`${key} has no effect: ${why}`]);
      }
    },
  );

  it('flags: one is refused with all that is refused, others are warned of', async () => {
    const bad = await validate(
      '--authorization-plugin',
      'x',
      '--selinux-enabled',
      '--selinux-enabled',
      '--iptables=false',
    );
    expect(bad.code).not.toBe(0);
    expect(bad.stderr).toContain('--authorization-plugin is not supported');
    expect(bad.stderr).toContain('--selinux-enabled is not supported');
    expect(bad.stderr).toContain('--selinux-enabled is not supported');
    const good = await validate(
      ...['--iptables=false', '--userland-proxy=false', '--containerd', '/run/x.sock'],
      // What is refused may be spelt out where it asks for nothing.
      ...['--live-restore=false', '--selinux-enabled=false'],
      // Switches as Go's flags take them, also those whose names begin with no.
      ...['--icc=false', '--init', '--no-new-privileges', '--no-proxy', 'a.test', '--tls=false'],
    );
    expect([good.code, good.stdout]).toEqual([0, 'configuration OK\n']);
    for (const flag of ['--iptables', '--userland-proxy', '--containerd'])
      expect(good.stderr).toContain(`${flag} has no effect`);
  });
});
