import { describe, expect, it } from 'vitest';
import { updatedHostConfig } from './update.ts';

describe('docker update', () => {
  it('takes what is asked for and leaves the rest, though a client sends every field', () => {
    const before = { Memory: 1 << 30, CpuShares: 5, RestartPolicy: { Name: 'always', MaximumRetryCount: 0 } };
    const changes = {
      ...{ CpuShares: 7, PidsLimit: -1, Memory: 0, CpusetCpus: '', BlkioDeviceReadBps: [], Devices: null },
      RestartPolicy: { Name: '', MaximumRetryCount: 0 },
    };
    expect(updatedHostConfig(before, changes)).toEqual({ ...before, CpuShares: 7, PidsLimit: -1 });
  });

  it.each([
    [
      { NanoCpus: 1e9 },
      { CpuPeriod: 10_000 },
      /CPU Period cannot be updated as NanoCPUs has already been set/,
    ],
    [{ NanoCpus: 1e9 }, { CpuQuota: 10_000 }, /CPU Quota cannot be updated as NanoCPUs/],
    [{ CpuPeriod: 10_000 }, { NanoCpus: 1e9 }, /NanoCPUs cannot be updated as CPU Period/],
    [{ CpuQuota: 10_000 }, { NanoCpus: 1e9 }, /NanoCPUs cannot be updated as CPU Quota/],
    [{ MemorySwap: 1 << 20 }, { Memory: 1 << 21 }, /update the memoryswap at the same time/],
    [{ AutoRemove: true }, { RestartPolicy: { Name: 'always' } }, /because AutoRemove is enabled/],
    [{}, { Devices: [{ PathOnHost: '/dev/null' }] }, /Devices can not be changed after create/],
    [{}, { CgroupParent: '/x' }, /CgroupParent can not be changed after create/],
  ])('%j then %j is refused', (before, changes, message) => {
    expect(() => updatedHostConfig(before, changes)).toThrow(message);
  });
});
