import { describe, expect, it } from 'vitest';
import { CONTAINER_DEFAULTS, IMAGE } from '../../test/support/daemon/fakes.ts';
import type { JailSpec } from '../runtime/runtime.ts';
import { type ContainerDefaults, createRecord } from './create.ts';
import { execProcess, jailSpec, type Places } from './spec.ts';
import type { ContainerRecord, CreateRequest, HostConfig } from './types.ts';

const PLACES: Places = {
  rootPath: '/root-of-it',
  etc: { hostname: '/c/hostname', hosts: '/c/hosts', 'resolv.conf': '/c/resolv.conf' },
  mounts: [],
  pids: {},
  linkEnvironment: [],
  userMaps: undefined,
  seccomp: undefined,
};

function record(request: CreateRequest, defaults: Partial<ContainerDefaults> = {}): ContainerRecord {
  return createRecord(request, {
    id: 'f'.repeat(64),
    name: 'n',
    created: '2026-01-01T00:00:00Z',
    image: IMAGE,
    logConfig: { Type: 'json-file', Config: {} },
    defaultRuntime: 'drydock',
    defaults: { ...CONTAINER_DEFAULTS, ...defaults },
    hostSize: { processors: 4, memoryNodes: 1 },
  }).record;
}

function spec(host: HostConfig, config: CreateRequest = {}, places: Partial<Places> = {}): JailSpec {
  return jailSpec(record({ Image: 'test', ...config, HostConfig: host }), { ...PLACES, ...places });
}

describe('from a container’s configuration to its jail', () => {
  it('the image’s command, folder and environment unless the request has its own', () => {
    expect(spec({}).process).toMatchObject({
      args: ['sh'],
      cwd: '/work',
      makeCwd: true,
      user: '',
      terminal: false,
      stdin: false,
    });
    expect(spec({}).process.env).toEqual([`HOSTNAME=${'f'.repeat(12)}`, 'PATH=/bin']);
    const own = spec(
      {},
      {
        Cmd: ['ls'],
        Entrypoint: ['env'],
        Env: ['PATH=/x', 'A', 'B='],
        WorkingDir: '/w',
        User: '1:2',
        Tty: true,
      },
    );
    expect(own.process).toMatchObject({ args: ['env', 'ls'], cwd: '/w', user: '1:2', terminal: true });
    expect(own.process.env).toEqual([`HOSTNAME=${'f'.repeat(12)}`, 'TERM=xterm', 'PATH=/x', 'B=']);
  });

  it('an entrypoint that is given drops the image’s command; "" drops the image’s entrypoint', () => {
    const image = { ...IMAGE, config: { Entrypoint: ['ep'], Cmd: ['c'] } };
    const args = (request: CreateRequest): string[] =>
      createRecord(request, {
        id: 'f'.repeat(64),
        name: 'n',
        created: '',
        image,
        logConfig: { Type: 'none', Config: {} },
        defaultRuntime: 'drydock',
        defaults: CONTAINER_DEFAULTS,
      }).record.args;
    expect(args({})).toEqual(['ep', 'c']);
    expect(args({ Cmd: ['x'] })).toEqual(['ep', 'x']);
    expect(args({ Entrypoint: ['e2'], Cmd: ['x'] })).toEqual(['e2', 'x']);
    expect(args({ Entrypoint: [''], Cmd: ['x'] })).toEqual(['x']);
    expect(() => args({ Entrypoint: ['e2'] })).not.toThrow();
    expect(() => args({ Entrypoint: [''], Cmd: [] })).toThrow('no command specified');
  });

  it.each<[HostConfig, Partial<JailSpec['limits']>]>([
    [{}, {}],
    [{ Memory: 64 << 20 }, { memoryBytes: 64 << 20, memorySwapBytes: 128 << 20 }],
    [{ Memory: 64 << 20, MemorySwap: -1 }, { memorySwapBytes: -1 }],
    [{ NanoCpus: 1_500_000_000 }, { cpuPeriodUs: 100_000, cpuQuotaUs: 150_000 }],
    [
      { CpuQuota: 5000, CpuPeriod: 10_000, CpuShares: 7 },
      { cpuQuotaUs: 5000, cpuPeriodUs: 10_000, cpuShares: 7 },
    ],
    [
      { PidsLimit: 9, CpusetCpus: '0-1', BlkioWeight: 300 },
      { pids: 9, cpusetCpus: '0-1', blkioWeight: 300 },
    ],
    [
      {
        BlkioWeightDevice: [{ Path: '/dev/sda', Weight: 500 }],
        BlkioDeviceReadBps: [{ Path: '/dev/sdb', Rate: 1 }],
        BlkioDeviceWriteBps: [{ Path: '/dev/sda', Rate: 2 }],
        BlkioDeviceReadIOps: [{ Path: '/dev/sda', Rate: 3 }],
        BlkioDeviceWriteIOps: [{ Path: '/dev/sda', Rate: 4 }],
        MemorySwappiness: 0,
        OomKillDisable: true,
      },
      {
        blkioDevices: [
          {
            hostPath: '/dev/sda',
            weight: 500,
            writeBytesPerSecond: 2,
            readsPerSecond: 3,
            writesPerSecond: 4,
          },
          { hostPath: '/dev/sdb', readBytesPerSecond: 1 },
        ],
        memorySwappiness: 0,
        oomKillDisable: true,
      },
    ],
  ])('limits %j', (host, limits) => {
    expect(spec(host).limits).toMatchObject(limits);
  });

  it.each<[HostConfig, Partial<JailSpec['namespaces']>]>([
    [{}, { network: 'private', pid: 'private', ipc: 'private', uts: 'private', cgroup: 'private' }],
    [
      { NetworkMode: 'host', PidMode: 'host', IpcMode: 'host', UTSMode: 'host', CgroupnsMode: 'host' },
      { network: 'host', pid: 'host', ipc: 'host', uts: 'host', cgroup: 'host' },
    ],
    [
      { NetworkMode: 'container:x', PidMode: 'container:x' },
      { network: { pid: 7 }, pid: { pid: 8 } },
    ],
    [{ NetworkMode: 'none' }, { network: 'private' }],
  ])('namespaces %j', (host, namespaces) => {
    expect(spec(host, {}, { pids: { network: 7, pid: 8 } }).namespaces).toMatchObject(namespaces);
  });

  it('capabilities: the default set, added and dropped ones, all', () => {
    const defaults = spec({}).process.capabilities;
    expect(defaults).toHaveLength(14);
    expect(spec({ CapAdd: ['net_admin'], CapDrop: ['CAP_CHOWN'] }).process.capabilities.sort()).toEqual(
      [...defaults.filter((c) => c !== 'CAP_CHOWN'), 'CAP_NET_ADMIN'].sort(),
    );
    expect(spec({ CapDrop: ['ALL'], CapAdd: ['KILL'] }).process.capabilities).toEqual(['CAP_KILL']);
    expect(spec({ CapAdd: ['ALL'], CapDrop: ['SYS_ADMIN'] }).process.capabilities).not.toContain(
      'CAP_SYS_ADMIN',
    );
    expect(spec({ Privileged: true }).process.capabilities).toContain('CAP_SYS_ADMIN');
    expect(() => spec({ CapAdd: ['FLY'] })).toThrow('unknown capability: "CAP_FLY"');
  });

  it('masks of /proc fall only for privileged and systempaths=unconfined', () => {
    expect(spec({}).maskedPaths).toContain('/proc/kcore');
    expect(spec({}).readonlyPaths).toContain('/proc/sys');
    for (const host of [{ Privileged: true }, { SecurityOpt: ['systempaths=unconfined'] }])
      expect([spec(host).maskedPaths, spec(host).readonlyPaths]).toEqual([[], []]);
    expect(spec({ MaskedPaths: [], ReadonlyPaths: ['/proc/x'] })).toMatchObject({
      maskedPaths: [],
      readonlyPaths: ['/proc/x'],
    });
  });

  it.each([
    [['no-new-privileges'], true],
    [['no-new-privileges:true'], true],
    [['no-new-privileges=false'], false],
    [[], false],
  ])('security options %j', (options, noNewPrivileges) => {
    expect(spec({ SecurityOpt: options }).process.noNewPrivileges).toBe(noNewPrivileges);
  });

  it.each(['apparmor=', 'nonsense', 'no-new-privileges=maybe', 'label=colour:x', 'landlock=strict'])(
    'the security option %s, which nobody could keep, is an error',
    (option) => {
      expect(() => spec({ SecurityOpt: [option] })).toThrow(/invalid --security-opt/);
    },
  );

  it('labels of the kernel’s security modules are for the runtime to keep or to refuse', () => {
    const wishes = ['apparmor=mine', 'label=type:spc_t', 'label:level:s0:c1', 'landlock=unconfined'];
    expect(spec({ SecurityOpt: wishes }).labels).toEqual({
      apparmor: 'mine',
      selinux: ['type:spc_t', 'level:s0:c1'],
      landlock: 'unconfined',
    });
    expect(spec({}).labels).toBeUndefined();
  });

  it('what a user mounts over /dev/shm or /etc/hosts replaces docker’s own', () => {
    const own = [
      { kind: 'bind' as const, source: '/mine', target: '/etc/hosts', readOnly: false, options: [] },
      { kind: 'tmpfs' as const, target: '/dev/shm', readOnly: false, options: [] },
    ];
    const { mounts } = spec({}, {}, { mounts: own });
    expect(mounts.filter((m) => m.target === '/etc/hosts')).toEqual([own[0]]);
    expect(mounts.filter((m) => m.target === '/dev/shm')).toEqual([own[1]]);
    expect(mounts.find((m) => m.target === '/etc/resolv.conf')?.source).toBe('/c/resolv.conf');
  });

  it('ulimits by docker’s names; impossible ones are refused', () => {
    expect(spec({ Ulimits: [{ Name: 'nofile', Soft: 10, Hard: 20 }] }).process.rlimits).toEqual([
      { name: 'nofile', soft: 10, hard: 20 },
    ]);
    expect(() => spec({ Ulimits: [{ Name: 'nofile', Soft: 30, Hard: 20 }] })).toThrow(
      /soft limit must be less than or equal/,
    );
    expect(() => spec({ Ulimits: [{ Name: 'wishes', Soft: 1, Hard: 1 }] })).toThrow(
      'invalid ulimit type: wishes',
    );
  });

  it('an exec has the container’s surroundings unless it says otherwise', () => {
    const base = record({ Image: 'test', Env: ['A=1', 'B=2'], User: 'u', HostConfig: { CapDrop: ['ALL'] } });
    const wish = {
      args: ['x'],
      env: ['B=3', 'C=4'],
      cwd: '',
      user: '',
      terminal: false,
      stdin: true,
      privileged: false,
    };
    expect(execProcess(base, wish)).toMatchObject({
      args: ['x'],
      cwd: '/work',
      user: 'u',
      stdin: true,
      capabilities: [],
      env: [`HOSTNAME=${'f'.repeat(12)}`, 'A=1', 'PATH=/bin', 'B=3', 'C=4'],
    });
    expect(
      execProcess(base, { ...wish, cwd: '/e', user: '0', privileged: true, terminal: true }),
    ).toMatchObject({
      cwd: '/e',
      user: '0',
      env: expect.arrayContaining(['TERM=xterm']),
    });
  });
});

describe('what a create request may not say', () => {
  it.each<[CreateRequest, RegExp]>([
    [{ WorkingDir: 'rel' }, /needs to be an absolute path/],
    [{ Env: ['=x'] }, /invalid environment variable: =x/],
    [{ StopSignal: 'SIGNONE' }, /invalid signal: SIGNONE/],
    [{ Healthcheck: { Interval: 10 } }, /Interval in Healthcheck cannot be less than 1ms/],
    [{ HostConfig: { Memory: 1024 } }, /Minimum memory limit allowed is 6MB/],
    [{ HostConfig: { Memory: 8 << 20, MemorySwap: 7 << 20 } }, /memoryswap limit should be larger/],
    [{ HostConfig: { MemorySwap: 8 << 20 } }, /always set the Memory limit/],
    [{ HostConfig: { NanoCpus: 5e9 } }, /range of CPUs is from 0.01 to 4.00/],
    [{ HostConfig: { NanoCpus: 1e9, CpuQuota: 1000 } }, /Nano CPUs and CPU Quota cannot both be set/],
    [{ HostConfig: { CpusetCpus: '4' } }, /Requested CPUs are not available - requested 4, available: 0-3/],
    [{ HostConfig: { CpusetCpus: 'a' } }, /Invalid value a for cpuset cpus/],
    [{ HostConfig: { RestartPolicy: { Name: 'sometimes' } } }, /unknown policy 'sometimes'/],
    [{ HostConfig: { RestartPolicy: { Name: 'always', MaximumRetryCount: 3 } } }, /maximum retry count/],
    [{ HostConfig: { AutoRemove: true, RestartPolicy: { Name: 'always' } } }, /AutoRemove/],
    [{ HostConfig: { OomScoreAdj: 2000 } }, /oom score adj/],
    [{ HostConfig: { UsernsMode: 'x' } }, /invalid user namespace mode/],
    [{ HostConfig: { DeviceCgroupRules: ['c 1 rwm'] } }, /invalid device cgroup rule format: 'c 1 rwm'/],
    [
      { HostConfig: { LogConfig: { Type: 'json-file', Config: { 'max-buffer-size': '1m' } } } },
      /only supported with 'mode=non-blocking'/,
    ],
    [
      { HostConfig: { BlkioWeightDevice: [{ Path: '/dev/sda', Weight: 5 }] } },
      /invalid block I\/O weight of a device: \/dev\/sda:5/,
    ],
    [
      { HostConfig: { BlkioDeviceReadBps: [{ Path: 'sda', Rate: 5 }] } },
      /invalid block I\/O rate of a device: sda:5/,
    ],
    [
      { HostConfig: { LogConfig: { Type: 'json-file', Config: { compress: 'true', 'max-file': '3' } } } },
      /compress cannot be true when max-file is less than 2 or max-size is not set/,
    ],
    [
      { HostConfig: { LogConfig: { Type: 'syslog' } } },
      /error looking up logging plugin syslog: plugin "syslog" not found/,
    ],
    ...['-1', '0', 'big'].map((size): [CreateRequest, RegExp] => [
      { HostConfig: { LogConfig: { Type: 'json-file', Config: { 'max-size': size } } } },
      /failed to initialize logging driver: (invalid size: '(-1|big)'|max-size must be a positive number)/,
    ]),
    [
      { HostConfig: { LogConfig: { Type: 'json-file', Config: { x: '1' } } } },
      /unknown log opt 'x' for json-file/,
    ],
    [
      { HostConfig: { NetworkMode: 'container:x', PublishAllPorts: true } },
      /port publishing and the container type network mode/,
    ],
    [{ Hostname: 'h', HostConfig: { NetworkMode: 'container:x' } }, /hostname and the network mode/],
    [{ Hostname: 'h', HostConfig: { UTSMode: 'host' } }, /hostname and the UTS mode/],
    [{ HostConfig: { IpcMode: 'odd' } }, /invalid IPC mode: odd/],
  ])('%j', (request, message) => {
    expect(() => record({ Image: 'test', ...request })).toThrow(message);
  });

  it('what the daemon gives to containers that do not say, and only to them', () => {
    const defaults: Partial<ContainerDefaults> = {
      shmBytes: 1 << 20,
      ipcMode: 'shareable',
      cgroupnsMode: 'host',
      cgroupParent: '/all',
      ulimits: {
        nofile: { Name: 'nofile', Soft: 5, Hard: 6 },
        core: { Name: 'core', Soft: 0, Hard: 0 },
      },
      init: true,
      noNewPrivileges: true,
      seccomp: 'unconfined',
      networkMode: 'none',
    };
    const { hostConfig } = record({ Image: 'test' }, defaults);
    expect(hostConfig).toMatchObject({
      ShmSize: 1 << 20,
      IpcMode: 'shareable',
      CgroupnsMode: 'host',
      CgroupParent: '/all',
      Init: true,
      NetworkMode: 'none',
      SecurityOpt: ['no-new-privileges'],
    });
    expect(hostConfig.Ulimits).toEqual(Object.values(defaults.ulimits!));
    const wished: HostConfig = {
      ShmSize: 1 << 21,
      IpcMode: 'private',
      CgroupnsMode: 'private',
      CgroupParent: '/own',
      Ulimits: [{ Name: 'nofile', Soft: 7, Hard: 8 }],
      Init: false,
      SecurityOpt: ['no-new-privileges=false', 'seccomp=builtin'],
      NetworkMode: 'host',
    };
    const own = record({ Image: 'test', HostConfig: wished }, defaults);
    expect(own.hostConfig).toMatchObject({
      ...wished,
      Ulimits: [wished.Ulimits![0], defaults.ulimits!.core],
    });
    expect(jailSpec(own, { ...PLACES, seccomp: 'unconfined' }).seccomp).toBeUndefined();
    expect(jailSpec(record({ Image: 'test' }), { ...PLACES, seccomp: 'unconfined' }).seccomp).toBe(
      'unconfined',
    );
  });

  it('wishes about resources that can’t be met are warnings', () => {
    const { warnings } = createRecord(
      { Image: 'test', HostConfig: { KernelMemory: 1, KernelMemoryTCP: 1, CpuCount: 1 } },
      {
        id: 'f'.repeat(64),
        name: 'n',
        created: '',
        image: IMAGE,
        logConfig: { Type: 'none', Config: {} },
        defaultRuntime: 'drydock',
        defaults: CONTAINER_DEFAULTS,
      },
    );
    expect(warnings).toHaveLength(3);
  });
});
