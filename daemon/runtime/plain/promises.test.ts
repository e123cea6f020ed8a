import { describe, expect, it } from 'vitest';
import { type ExampleChanges, exampleSpec } from '../../../test/support/jail-spec.ts';
import { DEFAULT_NETWORK_SYSCTLS } from '../defaults.ts';
import type { JailReportRow, JailSpec } from '../runtime.ts';
import { jailPolicy } from '../spec/policy.ts';
import { checkPromises, commonRows, jailOwner } from './promises.ts';

const alone = { attached: false, ports: [] };
const spec = (changes: ExampleChanges = {}): JailSpec => exampleSpec({ network: alone, ...changes });
const check = (changes: ExampleChanges): void => {
  const wish = spec(changes);
  checkPromises(wish, jailPolicy(wish), 'none');
};

describe('a promise that cannot be kept without namespaces', () => {
  const host = {
    network: 'host',
    pid: 'private',
    ipc: 'private',
    uts: 'private',
    cgroup: 'private',
  } as const;

  it.each<[string, ExampleChanges, RegExp]>([
    ['all privileges', { privileged: true }, /cannot be privileged/],
    [
      'capabilities beyond docker’s',
      { process: { capabilities: ['CAP_SYS_ADMIN'] } },
      /CAP_SYS_ADMIN.*--cap-add/,
    ],
    ['a network of its own', { network: { attached: true, ports: [] } }, /--network none.*--network host/],
    ['the processes of another', { namespaces: { ...host, pid: { pid: 7 } } }, /share the pid namespace/],
    [
      'the network of another',
      { namespaces: { ...host, network: { pid: 7 } } },
      /share the network namespace/,
    ],
    ['a sysctl', { sysctls: { 'kernel.msgmni': '7' } }, /kernel\.msgmni/],
    [
      'another value of a default sysctl',
      { sysctls: { 'net.ipv4.ip_unprivileged_port_start': '80' } },
      /ip_unprivileged_port_start/,
    ],
  ])('is an error with the reason: %s', (_what, changes, reason) => {
    expect(() => check(changes)).toThrow(expect.objectContaining({ code: 'ERR_JAIL_PROMISE' }));
    expect(() => check(changes)).toThrow(reason);
  });

  it.each<[string, ExampleChanges]>([
    ['no network', {}],
    ['the host’s network', { network: { attached: true, ports: [] }, namespaces: host }],
    ['the sysctls that every container has', { sysctls: DEFAULT_NETWORK_SYSCTLS }],
    ['fewer capabilities', { process: { capabilities: [] } }],
  ])('is not %s', (_what, changes) => expect(() => check(changes)).not.toThrow());
});

describe('the user of a jail', () => {
  it('is always the same for one container, far above those of people, and fits a signed number', () => {
    const owners = Array.from({ length: 2000 }, (_, index) =>
      jailOwner(index.toString(16).padStart(64, '0')),
    );
    expect(new Set(owners).size).toBe(owners.length);
    expect(Math.min(...owners)).toBeGreaterThanOrEqual(0x7000_0000);
    expect(Math.max(...owners)).toBeLessThan(0x7fff_ffff);
    expect(jailOwner('a'.repeat(64))).toBe(jailOwner('a'.repeat(64)));
  });
});

describe('the report', () => {
  const rows = (changes: ExampleChanges): Record<string, JailReportRow> => {
    const wish = spec(changes);
    return Object.fromEntries(commonRows(wish, jailPolicy(wish), 5).map((row) => [row.feature, row]));
  };

  it('has a row for each wish that is not met in full, and none for what was not asked', () => {
    const limits = {
      memoryBytes: 1 << 20,
      memorySwapBytes: 3 << 20,
      memoryReservationBytes: 1,
      cpuQuotaUs: 1,
      cpuShares: 1,
      cpusetCpus: '0',
      cpusetMems: '0',
      blkioWeight: 1,
    };
    const asked = rows({ limits, init: true, process: { groups: ['staff'] } });
    const bare = rows({});
    const extra = Object.keys(asked).filter((feature) => !(feature in bare));
    expect(Object.fromEntries(extra.map((feature) => [feature, asked[feature]!.got]))).toEqual({
      'supplementary groups': 'none',
      init: 'none',
      memory: 'partial',
      swap: 'none',
      'memory reservation': 'none',
      'CPU quota': 'none',
      'CPU shares': 'none',
      'CPU set': 'none',
      'memory nodes': 'none',
      'block IO weight': 'none',
    });
    expect(asked.memory!.bypass).toBeDefined();
  });

  it('takes docker’s usual swap, twice the memory, for no wish', () => {
    expect(rows({ limits: { memoryBytes: 8, memorySwapBytes: 16 } })).not.toHaveProperty('swap');
  });

  it('keeps a limit of processes in full', () => {
    expect(rows({ limits: { pids: 9 } }).processes).toMatchObject({ asked: '9', got: 'full' });
  });
});
