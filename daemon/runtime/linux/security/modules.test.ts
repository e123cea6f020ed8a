import { spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { type ExampleChanges, exampleSpec } from '../../../../test/support/jail-spec.ts';
import { lacking } from '../../../../test/support/requirements.ts';
import type { JailLabels } from '../../runtime.ts';
import { effectiveSpec } from '../plan.ts';
import { DEFAULT_PROFILE, DEFAULT_PROFILE_TEXT, loadDefaultProfile } from './apparmor.ts';
import {
  labelRows,
  landlockOf,
  moduleOptions,
  moduleWarnings,
  programLabels,
  type SecurityModules,
} from './modules.ts';

const NONE: SecurityModules = { apparmor: undefined, selinux: undefined, landlock: 0 };
const ALL: SecurityModules = {
  apparmor: DEFAULT_PROFILE,
  selinux: 'system_u:system_r:container_t:s0',
  landlock: 7,
};
const labels = (wish: JailLabels, modules = ALL, changes: ExampleChanges = {}) =>
  programLabels(exampleSpec({ labels: wish, ...changes }), modules);

describe('the label of a program', () => {
  it('is the default profile of AppArmor, none for a privileged one, or the one that was named', () => {
    expect(labels({})).toEqual({ apparmor: DEFAULT_PROFILE });
    expect(labels({}, ALL, { privileged: true })).toEqual({ apparmor: 'unconfined' });
    expect(labels({ apparmor: 'mine' }, ALL, { privileged: true })).toEqual({ apparmor: 'mine' });
    expect(labels({ apparmor: 'unconfined' })).toEqual({ apparmor: 'unconfined' });
  });

  it('of SELinux is that of containers with the parts that were named', () => {
    const options = ['type:spc_t', 'level:s0:c1,c2'];
    expect(labels({ selinux: options }).selinux).toBe('system_u:system_r:spc_t:s0:c1,c2');
    expect(labels({ selinux: ['disable'] }).selinux).toBeUndefined();
    expect(() => labels({ selinux: ['colour:red'] })).toThrow(
      expect.objectContaining({ code: 'ERR_BAD_PARAMETER' }),
    );
  });

  it('of SELinux is also that of the file systems made for the jail', () => {
    const mounts = (['tmpfs', 'proc'] as const).map((kind) => ({
      kind,
      target: '/t',
      readOnly: false,
      options: ['nosuid'],
    }));
    const spec = effectiveSpec(exampleSpec({ mounts }), () => [], { selinux: 'u:r:t:s0:c1,c2' });
    expect(spec.mounts.map(({ options }) => options)).toEqual([
      ['nosuid', 'context=u:object_r:container_file_t:s0:c1,c2'],
      ['nosuid'],
    ]);
  });

  it.each<[JailLabels]>([[{ apparmor: 'mine' }], [{ selinux: ['type:spc_t'] }]])(
    '%j is a promise that a kernel without the module cannot keep',
    (wish) => {
      expect(() => labels(wish, NONE)).toThrow(expect.objectContaining({ code: 'ERR_JAIL_PROMISE' }));
    },
  );

  it.each<[JailLabels]>([[{}], [{ apparmor: 'unconfined' }], [{ selinux: ['disable'] }]])(
    '%j asks for nothing that such a kernel lacks',
    (wish) => expect(labels(wish, NONE)).toEqual({}),
  );
});

describe('the rules of Landlock', () => {
  it('grant the whole root of the jail and nothing else', () => {
    expect(landlockOf(exampleSpec({}), ALL)).toEqual({
      paths: [{ path: '/', write: true, execute: true }],
      nodes: true,
      tcp: true,
      outside: true,
    });
  });

  it.each<[string, ExampleChanges]>([
    ['may mount', { process: { capabilities: ['CAP_SYS_ADMIN'] } }],
    ['is privileged', { privileged: true }],
    ['chose its system calls', { seccomp: 'unconfined' }],
    ['looks into processes of the host', { namespaces: { ...exampleSpec({}).namespaces, pid: 'host' } }],
    ['looks into another jail', { namespaces: { ...exampleSpec({}).namespaces, pid: { pid: 7 } } }],
    ['wants none', { labels: { landlock: 'unconfined' } }],
  ])('are none for a jail that %s', (_what, changes) => {
    expect(landlockOf(exampleSpec(changes), ALL)).toBeUndefined();
    const row = labelRows(exampleSpec(changes), ALL).find(({ feature }) => feature === 'Landlock');
    expect(row).toMatchObject({ asked: 'none', got: 'none' });
  });
});

describe('the report of security modules', () => {
  const got = (modules: SecurityModules, wish: JailLabels = {}): Record<string, string> =>
    Object.fromEntries(
      labelRows(exampleSpec({ labels: wish }), modules).map(({ feature, asked, got }) => [
        feature,
        `${asked}: ${got}`,
      ]),
    );

  it('says what is in force, and what was not asked for', () => {
    expect(got(ALL, { selinux: ['type:spc_t'] })).toEqual({
      AppArmor: `${DEFAULT_PROFILE}: full`,
      SELinux: 'system_u:system_r:spc_t:s0: partial',
      Landlock: 'its own root only: full',
    });
    expect(got(NONE)).toEqual({
      AppArmor: 'none: none',
      SELinux: 'none: none',
      Landlock: 'its own root only: none',
    });
  });

  it('tells of a default profile that could not be loaded', () => {
    const modules = { ...ALL, apparmor: '' };
    expect(got(modules).AppArmor).toBe('the default profile: none');
    expect(moduleWarnings(modules)).toEqual([expect.stringContaining('could not be loaded')]);
    expect([moduleOptions(modules), moduleOptions(ALL), moduleWarnings(ALL)]).toEqual([
      ['name=landlock,abi=7'],
      ['name=apparmor', 'name=landlock,abi=7'],
      [],
    ]);
  });
});

describe('the default profile of AppArmor', () => {
  const loader = (loaded: string | undefined, works: boolean) => {
    const texts: string[] = [];
    const load = (text: string): boolean => {
      texts.push(text);
      return works;
    };
    return { texts, loaded: () => loaded, load };
  };

  it('is loaded unless it is there, and is none where that fails', () => {
    const there = loader(`snap (enforce)\n${DEFAULT_PROFILE} (enforce)\n`, false);
    expect([loadDefaultProfile(there), there.texts]).toEqual([DEFAULT_PROFILE, []]);
    const missing = loader(`${DEFAULT_PROFILE}-two (enforce)\n`, true);
    expect([loadDefaultProfile(missing), missing.texts]).toEqual([DEFAULT_PROFILE, [DEFAULT_PROFILE_TEXT]]);
    expect(loadDefaultProfile(loader('', false))).toBe('');
    const hidden = loader(undefined, true);
    expect([loadDefaultProfile(hidden), hidden.texts]).toEqual(['', []]);
  });

  it.skipIf(lacking('apparmor_parser'))('is understood by apparmor_parser', () => {
    const { status, stderr } = spawnSync('apparmor_parser', ['--skip-kernel-load', '--skip-cache'], {
      input: DEFAULT_PROFILE_TEXT,
      encoding: 'utf8',
    });
    expect([status, stderr.replace(/^Cache read.*\n/gm, '')]).toEqual([0, '']);
  });
});
