import { describe, expect, it } from 'vitest';
import { type ExampleChanges, exampleSpec } from '../../../test/support/jail-spec.ts';
import { DEFAULT_MASKED_PATHS, DEFAULT_SHM_BYTES, defaultMounts } from '../defaults.ts';
import type { JailMount, JailSpec, SeccompProfile } from '../runtime.ts';
import { jailPolicy } from '../spec/policy.ts';
import { landlockRules, plainReport, plainSpec } from './plan-linux.ts';
import { plainProcess } from './promises.ts';

const mounts = defaultMounts({ privileged: false, shmBytes: DEFAULT_SHM_BYTES, ipc: 'private' });
const spec = (changes: ExampleChanges = {}): JailSpec =>
  exampleSpec({ mounts, network: { attached: false, ports: [] }, ...changes });
const onHostNetwork = { ...spec().namespaces, network: 'host' as const };

describe('the specification of a jail without namespaces', () => {
  it('has no file system that is the host’s kernel', () => {
    const kinds = plainSpec(spec()).mounts.map(({ kind }) => kind);
    expect(kinds).toEqual(['proc', 'tmpfs', 'devpts', 'tmpfs']);
  });

  it('shows in /proc only its own processes', () => {
    const proc = plainSpec(spec()).mounts.find(({ kind }) => kind === 'proc');
    expect(proc?.options).toEqual(expect.arrayContaining(['nosuid', 'hidepid=invisible', 'subset=pid']));
  });

  it('has no capabilities and no new privileges, whatever was asked, for further processes too', () => {
    const asked = spec({ process: { capabilities: ['CAP_CHOWN'], noNewPrivileges: false } });
    for (const process of [plainSpec(asked).process, plainProcess(asked, asked.process)])
      expect(process).toMatchObject({ capabilities: [], noNewPrivileges: true });
  });

  it('limits processes by the user, in place of what the process asked', () => {
    const asked = spec({
      limits: { pids: 9 },
      process: {
        rlimits: [
          { name: 'nproc', soft: 99, hard: 99 },
          { name: 'core', soft: 0, hard: 0 },
        ],
      },
    });
    expect(plainSpec(asked).process.rlimits).toEqual([
      { name: 'core', soft: 0, hard: 0 },
      { name: 'nproc', soft: 9, hard: 9 },
    ]);
    expect(plainProcess(spec(), asked.process).rlimits).toEqual(asked.process.rlimits);
  });
});

describe('the filter of system calls', () => {
  const filter = (changes: ExampleChanges): SeccompProfile | 'unconfined' =>
    plainSpec(spec(changes)).seccomp!;
  const denied = (profile: SeccompProfile | 'unconfined'): string[] => {
    if (profile === 'unconfined') return [];
    const rules = profile.syscalls!.filter(
      ({ action, errnoRet }) => action === 'SCMP_ACT_ERRNO' && errnoRet === 1,
    );
    return rules.flatMap(({ names }) => names);
  };

  it('denies IPC objects and all sockets but local ones where both are its own, before any other rule', () => {
    const profile = filter({}) as SeccompProfile;
    expect(profile.syscalls![0]!.names).toContain('shmget');
    expect(profile.syscalls![1]).toMatchObject({
      names: ['socket'],
      args: [{ index: 0, op: 'SCMP_CMP_NE', value: 1 }],
    });
    expect(profile.defaultAction).toBe('SCMP_ACT_ERRNO');
  });

  it('keeps what the jail was promised also where the profile is unconfined', () => {
    const profile = filter({ seccomp: 'unconfined' }) as SeccompProfile;
    expect(profile.defaultAction).toBe('SCMP_ACT_ALLOW');
    expect(denied(profile)).toEqual(expect.arrayContaining(['msgget', 'socket', 'io_uring_setup']));
  });

  it('is none where nothing was promised and no profile is wanted', () => {
    const namespaces = { ...onHostNetwork, ipc: 'host' as const };
    expect(filter({ seccomp: 'unconfined', namespaces })).toBe('unconfined');
  });
});

describe('the rules for files', () => {
  const bind = (target: string, readOnly: boolean, options: string[] = []): JailMount => ({
    kind: 'bind',
    source: '/s',
    target,
    readOnly,
    options,
  });
  const rules = (changes: ExampleChanges) => landlockRules(jailPolicy(spec(changes)));

  it('grant what the policy grants, and never a masked path', () => {
    const { paths } = rules({
      readOnlyRoot: true,
      mounts: [bind('/data', false, ['noexec']), bind('/conf', true)],
      maskedPaths: [...DEFAULT_MASKED_PATHS],
    });
    expect(paths).toEqual([
      { path: '/', write: false, execute: true },
      { path: '/conf', write: false, execute: true },
      { path: '/data', write: true, execute: false },
    ]);
  });

  it('let it out only where it was asked to use the host’s network and see its processes', () => {
    expect(rules({})).toMatchObject({ tcp: false, outside: false });
    expect(rules({ namespaces: onHostNetwork })).toMatchObject({ tcp: true, outside: false });
    expect(rules({ namespaces: { ...onHostNetwork, pid: 'host' } })).toMatchObject({
      tcp: true,
      outside: true,
    });
  });
});

describe('the report', () => {
  const got = (abi: number, changes: ExampleChanges = {}): Record<string, string> =>
    Object.fromEntries(plainReport(spec(changes), 5, abi).map(({ feature, got }) => [feature, got]));

  it('depends on what the kernel knows of Landlock', () => {
    expect(got(7)).toMatchObject({ 'root file system': 'full', network: 'full' });
    expect(got(5)).toMatchObject({ 'root file system': 'full', network: 'partial' });
    expect(got(0)).toMatchObject({ 'root file system': 'partial', network: 'partial' });
  });

  it('says how what is missing could be got round', () => {
    const rows = plainReport(spec(), 5, 0).filter(({ feature }) => feature === 'network');
    expect(rows[0]).toMatchObject({ bypass: expect.stringContaining('abstract') });
  });
});
