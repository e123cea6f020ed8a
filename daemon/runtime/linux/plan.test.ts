import { describe, expect, it } from 'vitest';
import { type ExampleChanges, exampleSpec } from '../../../test/support/jail-spec.ts';
import { ALL_CAPABILITIES, DEFAULT_DEVICES } from '../defaults.ts';
import type { JailSpec, NamespaceMode } from '../runtime.ts';
import { effectiveSpec } from './plan.ts';

const own: NamespaceMode = 'private';
const spec = (changes: ExampleChanges): JailSpec =>
  exampleSpec({
    maskedPaths: ['/proc/kcore'],
    readonlyPaths: ['/proc/sys'],
    process: { capabilities: ['CAP_CHOWN'] },
    ...changes,
  });
const hostDevices = () => [
  { hostPath: '/dev/null', path: '/dev/null', access: 'rwm' },
  { hostPath: '/dev/fuse', path: '/dev/fuse', access: 'rwm' },
];

describe('the effective specification', () => {
  it('of a usual jail is what was asked for', () => {
    const wish = spec({});
    expect(effectiveSpec(wish, hostDevices)).toEqual(wish);
  });

  it('of a privileged jail has all devices once, all capabilities and no masks', () => {
    const effective = effectiveSpec(spec({ privileged: true }), hostDevices);
    expect(effective.devices.map(({ path }) => path)).toEqual([
      ...DEFAULT_DEVICES.map(({ path }) => path),
      '/dev/fuse',
    ]);
    expect(effective.process.capabilities).toEqual(ALL_CAPABILITIES);
    expect([effective.maskedPaths, effective.readonlyPaths]).toEqual([[], []]);
  });

  it.each(['', '../../etc', 'A'.repeat(64), 'a'.repeat(63)])('of the id %j is refused', (id) => {
    expect(() => effectiveSpec(spec({ id }), hostDevices)).toThrow(/not a container id/);
  });

  it.each([
    ['net.ipv4.ip_forward', 'network', true],
    ['net.ipv4.ip_forward', undefined, false],
    ['kernel.sem', 'ipc', true],
    ['kernel.core_pattern', 'ipc', true],
    ['net/../kernel.core_pattern', 'network', true],
  ])('%s with host %s', (name, host, expectRefusalUnderHost) => {
    const refusedAlways = name.includes('core_pattern');
    const namespaces = { network: own, pid: own, ipc: own, uts: own, cgroup: own };
    const act = (changes: object) => () =>
      effectiveSpec(
        spec({ sysctls: { [name]: '1' }, namespaces: { ...namespaces, ...changes } }),
        hostDevices,
      );
    if (refusedAlways) expect(act({})).toThrow(/would change the host/);
    else expect(act({})).not.toThrow();
    if (host && expectRefusalUnderHost) expect(act({ [host]: 'host' })).toThrow(/would change the host/);
  });
});
