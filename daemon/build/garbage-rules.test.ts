import { describe, expect, it } from 'vitest';
import { gcRules } from './garbage-rules.ts';

describe('builder.gc of daemon.json', () => {
  it('is a policy, with filters as a list or as the daemon writes them', () => {
    const policy = [
      { keepStorage: '10GB', filter: ['unused-for=48h', 'type=regular'] },
      { reservedSpace: '1gb', filter: { 'unused-for': { '1h': true, '2h': true } } },
      { all: true },
    ];
    expect(gcRules({ gc: { enabled: true, defaultKeepStorage: '5GB', policy } })).toEqual([
      { filters: { 'unused-for': ['48h'], type: ['regular'] }, all: false, keepBytes: 10 * 2 ** 30 },
      { filters: { 'unused-for': ['1h', '2h'] }, all: false, keepBytes: 2 ** 30 },
      { filters: {}, all: true, keepBytes: 5 * 2 ** 30 },
    ]);
  });

  it('is dockerd’s own policy where only a size is given, and none where it is off', () => {
    const rules = gcRules({ gc: { defaultKeepStorage: '20GB' } });
    expect(rules.map(({ all, keepBytes }) => [all, keepBytes / 2 ** 30])).toEqual([
      [false, 0.5],
      [false, 20],
      [false, 20],
      [true, 20],
    ]);
    expect(gcRules({ gc: { enabled: false, defaultKeepStorage: '20GB' } })).toEqual([]);
    expect(gcRules({ entitlements: { 'network-host': true } })).toEqual([]);
  });

  it.each([
    [[], /builder must be an object/],
    [{ gc: { defaultKeepStorage: 'much' } }, /invalid size: 'much'/],
    [{ gc: { policy: {} } }, /policy must be a list/],
    [{ gc: { policy: [{ filter: ['nosuch=1'] }] } }, /invalid filter 'nosuch'/],
    [{ gc: { policy: [{ filter: ['unused-for=long'] }] } }, /invalid duration 'long'/],
    [{ gc: { policy: [{ minFreeSpace: '1GB' }] } }, /minFreeSpace of a policy is not supported/],
    [{ entitlements: { 'security-insecure': true } }, /security-insecure is not supported/],
  ])('%j is refused', (value, message) => {
    expect(() => gcRules(value)).toThrow(message);
  });
});
