import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ManualClock } from '#common/clock';
import { DEFAULT_DEVICES } from '../defaults.ts';
import { findHierarchies } from './cgroup.ts';
import { parseGroups } from './cgroup-delegated.ts';
import { CgroupsV1 } from './cgroup-v1.ts';
import { blkioToIoWeight, CgroupsV2, sharesToWeight } from './cgroup-v2.ts';
import { deviceRules } from './devices.ts';
import { limitWarnings } from './report.ts';

const MIB = 1 << 20;
let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'drydock-cgroup-'));
});
afterEach(() => rmSync(root, { recursive: true }));

const write = (path: string, text: string): void => {
  mkdirSync(join(root, path, '..'), { recursive: true });
  writeFileSync(join(root, path), text);
};
const read = (path: string): string => readFileSync(join(root, path), 'utf8');

describe('mounted hierarchies', () => {
  it('are found with their controllers', () => {
    const text = [
      '30 23 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755',
      '31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate',
      '32 30 0:28 / /sys/fs/cgroup/systemd rw shared:9 - cgroup cgroup rw,xattr,name=systemd',
      '33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct',
      '34 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct',
      '',
    ].join('\n');
    expect(findHierarchies(text)).toEqual([
      { path: '/sys/fs/cgroup/unified', controllers: undefined },
      { path: '/sys/fs/cgroup/systemd', controllers: ['name=systemd'] },
      { path: '/sys/fs/cgroup/cpu,cpuacct', controllers: ['cpu', 'cpuacct'] },
    ]);
  });
});

describe('the groups of a process', () => {
  it('are known by their controllers', () => {
    const text = '9:name=systemd:/\n4:cpu,cpuacct:/a:b\n0::/user.slice/x.service\n';
    expect(Object.fromEntries(parseGroups(text))).toEqual({
      'name=systemd': '/',
      cpu: '/a:b',
      cpuacct: '/a:b',
      '': '/user.slice/x.service',
    });
  });
});

describe('version 2', () => {
  const attached: Uint8Array[] = [];
  const open = (): CgroupsV2 =>
    new CgroupsV2(root, 'drydock-x', new ManualClock(), {
      attachDevices: (program) => void attached.push(program),
    });
  const prepare = (controllers: string): void => {
    write('cgroup.controllers', controllers);
    write('cgroup.subtree_control', '');
    write('drydock-x/cgroup.controllers', controllers);
    write('drydock-x/cgroup.subtree_control', '');
  };

  it('in a group of an ordinary user decides about limits, and not about devices', () => {
    prepare('memory pids\n');
    attached.length = 0;
    const given = new CgroupsV2(root, 'drydock-x', new ManualClock(), {
      above: '/user.slice/x.service',
      attachDevices: (program) => void attached.push(program),
    });
    given.create('id', { memoryBytes: MIB }, deviceRules([...DEFAULT_DEVICES]));
    expect(read('drydock-x/id/memory.max')).toBe(`${MIB}`);
    expect([attached, given.keepsDevices]).toEqual([[], false]);
    expect(given.pathOf('id')).toBe('/user.slice/x.service/drydock-x/id');
    expect(given.mounts('id')).toEqual([{ path: root, group: '/drydock-x/id', options: undefined }]);
  });

  it('hands controllers down, sets limits and attaches the device program', () => {
    prepare('cpuset cpu io memory hugetlb pids\n');
    write('drydock-x/id/memory.swap.max', 'max\n');
    write('drydock-x/id/io.weight', 'default 100\n');
    open().create(
      'id',
      {
        memoryBytes: 64 * MIB,
        memorySwapBytes: 96 * MIB,
        memoryReservationBytes: MIB,
        cpuQuotaUs: 50_000,
        cpuShares: 1024,
        cpusetCpus: '0-1',
        pids: 100,
        blkioWeight: 500,
      },
      deviceRules([...DEFAULT_DEVICES]),
    );
    expect(read('cgroup.subtree_control')).toBe('+cpu +cpuset +io +memory +pids');
    expect(read('drydock-x/cgroup.subtree_control')).toBe('+cpu +cpuset +io +memory +pids');
    expect(read('drydock-x/id/memory.max')).toBe(`${64 * MIB}`);
    expect(read('drydock-x/id/memory.swap.max')).toBe(`${32 * MIB}`);
    expect(read('drydock-x/id/memory.low')).toBe(`${MIB}`);
    expect(read('drydock-x/id/cpu.max')).toBe('50000 100000');
    expect(read('drydock-x/id/cpu.weight')).toBe('39');
    expect(read('drydock-x/id/cpuset.cpus')).toBe('0-1');
    expect(read('drydock-x/id/pids.max')).toBe('100');
    expect(read('drydock-x/id/io.weight')).toBe('4950');
    expect(attached.length).toBe(1);
  });

  it('reads what the kernel counts', () => {
    prepare('memory');
    write(
      'drydock-x/id/cpu.stat',
      'usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 4\nnr_throttled 2\nthrottled_usec 7\n',
    );
    write('drydock-x/id/memory.current', '1000\n');
    write('drydock-x/id/memory.peak', '2000\n');
    write('drydock-x/id/memory.max', 'max\n');
    write('drydock-x/id/memory.stat', 'anon 10\nfile 20\n');
    write('drydock-x/id/memory.events', 'low 0\noom 1\noom_kill 3\n');
    write('drydock-x/id/pids.current', '5\n');
    write('drydock-x/id/pids.max', '9\n');
    write('drydock-x/id/io.stat', '8:0 rbytes=1 wbytes=2 rios=1\n8:16 rbytes=10 wbytes=20\n');
    const groups = open();
    expect(groups.stats('id')).toEqual({
      cpuTotalNs: 30_000,
      cpuUserNs: 20_000,
      cpuSystemNs: 10_000,
      periods: 4,
      throttledPeriods: 2,
      throttledNs: 7000,
      memoryBytes: 1000,
      memoryMaxBytes: 2000,
      memoryLimitBytes: 0,
      memoryStat: { anon: 10, file: 20 },
      pids: 5,
      pidsLimit: 9,
      blkioReadBytes: 11,
      blkioWriteBytes: 22,
    });
    expect(groups.oomKills('id')).toBe(3);
  });

  it('freezes when the kernel says so, and gives up in the end', async () => {
    prepare('memory');
    write('drydock-x/id/cgroup.events', 'populated 1\nfrozen 1\n');
    await open().freeze('id', true);
    expect(read('drydock-x/id/cgroup.freeze')).toBe('1');
    const clock = new ManualClock();
    const stuck = new CgroupsV2(root, 'drydock-x', clock).freeze('id', false);
    const outcome = expect(stuck).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
    for (let turn = 0; turn < 500; turn++) {
      clock.advance(50);
      await Promise.resolve();
    }
    await outcome;
  });

  it('kills by the kernel where it can', () => {
    prepare('memory');
    write('drydock-x/id/cgroup.kill', '');
    open().kill('id');
    expect(read('drydock-x/id/cgroup.kill')).toBe('1');
  });

  it('says what to do when controllers cannot be handed down', () => {
    prepare('memory');
    rmSync(join(root, 'cgroup.subtree_control'));
    mkdirSync(join(root, 'cgroup.subtree_control'));
    expect(() => open().create('id', {}, undefined)).toThrow(/Drydock itself runs in a container/);
  });

  it('puts a group below the one that was asked for, and takes away what it made for it', () => {
    prepare('memory');
    for (const path of ['pods', 'pods/burstable']) {
      write(`${path}/cgroup.controllers`, 'memory');
      write(`${path}/cgroup.subtree_control`, '');
    }
    const groups = open();
    groups.place('id', '/pods/../pods/burstable/');
    groups.create('id', { memoryBytes: MIB }, undefined);
    expect(read('pods/burstable/id/memory.max')).toBe(`${MIB}`);
    expect(read('pods/burstable/cgroup.subtree_control')).toBe('+memory');
    expect(groups.mounts('id')[0]!.group).toBe('/pods/burstable/id');
    expect(groups.list()).toEqual(['id']);
    groups.place('other', '/made/here');
    mkdirSync(join(root, 'made'));
    groups.create('other', {}, undefined);
    expect(groups.remove('other')).toBe(true);
    expect([existsSync(join(root, 'made/here')), existsSync(join(root, 'made'))]).toEqual([false, true]);
    expect(groups.list()).toEqual(['id']);
  });

  it('limits devices by their numbers', () => {
    prepare('io');
    open().create(
      'id',
      { blkioDevices: [{ hostPath: '/dev/null', readBytesPerSecond: 5, writesPerSecond: 6 }] },
      undefined,
    );
    expect(read('drydock-x/id/io.max')).toBe('1:3 rbps=5 wiops=6');
  });

  it('converts weights as runc does', () => {
    expect([2, 1024, 262_144, 1].map(sharesToWeight)).toEqual([1, 39, 10_000, 1]);
    expect([10, 500, 1000].map(blkioToIoWeight)).toEqual([1, 4950, 10_000]);
  });
});

describe('version 1', () => {
  const open = (): CgroupsV1 =>
    new CgroupsV1(
      [
        { path: join(root, 'memory'), controllers: ['memory'] },
        { path: join(root, 'cpu'), controllers: ['cpu', 'cpuacct'] },
        { path: join(root, 'cpuset'), controllers: ['cpuset'] },
        { path: join(root, 'systemd'), controllers: ['name=systemd'] },
      ],
      join(root, 'unified'),
      'drydock-x',
      new ManualClock(),
    );

  it('removes what an OCI runtime has left in the hierarchy of version 2', () => {
    mkdirSync(join(root, 'unified/drydock-x/id'), { recursive: true });
    const cgroups = open();
    expect(cgroups.list()).toEqual(['id']);
    expect(cgroups.remove('id')).toBe(true);
    cgroups.close();
    expect(existsSync(join(root, 'unified/drydock-x'))).toBe(false);
  });

  it('gives a new group the processors of its parent', () => {
    for (const path of ['cpuset', 'cpuset/drydock-x', 'cpuset/drydock-x/id']) {
      write(`${path}/cpuset.cpus`, path === 'cpuset' ? '0-3\n' : '\n');
      write(`${path}/cpuset.mems`, path === 'cpuset' ? '0\n' : '\n');
    }
    open().create('id', {}, undefined);
    expect(read('cpuset/drydock-x/id/cpuset.cpus')).toBe('0-3');
    expect(read('cpuset/drydock-x/cpuset.mems')).toBe('0');
    expect(existsSync(join(root, 'systemd/drydock-x/id'))).toBe(true);
  });

  it('finds what a killed daemon left below another group', () => {
    const made = open();
    made.place('id', 'pods');
    mkdirSync(join(root, 'memory/pods/id'), { recursive: true });
    const groups = open();
    expect(groups.list()).toEqual([]);
    groups.place('id', 'pods');
    expect(groups.list()).toEqual(['id']);
    expect(groups.remove('id')).toBe(true);
    expect(groups.list()).toEqual([]);
  });

  it('mounts its hierarchies again by their names', () => {
    expect(open().mounts('id')).toContainEqual({
      path: join(root, 'systemd'),
      group: '/drydock-x/id',
      options: ['none', 'name=systemd'],
    });
  });

  it('tells which limits cannot be kept', () => {
    write('memory/memory.limit_in_bytes', '');
    write('cpu/cgroup.procs', '');
    const rows = open().report({ memoryBytes: 1, memorySwapBytes: 2, cpuShares: 3, pids: 4 });
    expect(rows.map(({ feature, got }) => [feature, got])).toEqual([
      ['memory limit', 'full'],
      ['swap limit', 'none'],
      ['cpu shares', 'full'],
      ['pids limit', 'none'],
    ]);
    const warnings = limitWarnings(open());
    expect(warnings).toContain('WARNING: No swap limit support');
    expect(warnings).not.toContain('WARNING: No memory limit support');
  });
});
