/**
 * Every field that a client may send with a container is honoured, refused or warned of: none is read and forgotten. The
 * fields are those of Docker's own SDK, so that a new one fails here until it has a row.
 */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { createContainerBody, createNetworkBody } from '../../daemon/api/schema.ts';
import { createRecord } from '../../daemon/container/create.ts';
import { hostsText, resolvText } from '../../daemon/container/files.ts';
import { probeArgs } from '../../daemon/container/health.ts';
import { RestartPolicy } from '../../daemon/container/lifecycle.ts';
import { jailSpec } from '../../daemon/container/spec.ts';
import type { CreateRequest } from '../../daemon/container/types.ts';
import { checkDeviceRequests } from '../../daemon/container/validate.ts';
import { collectMounts } from '../../daemon/mounts/parse.ts';
import { portWishes } from '../../daemon/network/ports.ts';
import { CONTAINER_DEFAULTS, IMAGE } from '../support/daemon/fakes.ts';

/** The fields of one of the SDK's models. */
function fieldsOf(model: string): string[] {
  const path = `node_modules/@docker/node-sdk/lib/types/${model}.ts`;
  const text = readFileSync(path, 'utf8').replaceAll(/\/\*[\s\S]*?\*\//g, '');
  return [...text.matchAll(/^ {4}'?([A-Z]\w+)'?\??: /gm)].map(([, name]) => name!);
}

/** What a request leads to, by where it is seen. */
function effects(request: CreateRequest): Record<string, string> {
  const { record, warnings } = createRecord(
    { Image: 'test', ...request },
    {
      id: 'f'.repeat(64),
      name: 'n',
      created: '',
      image: IMAGE,
      logConfig: { Type: 'json-file', Config: {} },
      defaultRuntime: 'drydock',
      defaults: CONTAINER_DEFAULTS,
      hostSize: { processors: 4, memoryNodes: 1 },
    },
  );
  const { hostConfig: host, config } = record;
  checkDeviceRequests(host);
  const jail = jailSpec(record, {
    rootPath: '/',
    etc: { hostname: '', hosts: '', 'resolv.conf': '' },
    mounts: [],
    pids: { network: 7, pid: 7, ipc: 7 },
    linkEnvironment: [],
    userMaps: undefined,
    seccomp: undefined,
  });
  const dns = { servers: [], search: [], options: [] };
  const seen: Record<string, unknown> = {
    warnings,
    jail,
    networks: record.networks,
    mounts: collectMounts(host, config.Volumes, []),
    ports: portWishes(host.PortBindings, config.ExposedPorts, host.PublishAllPorts === true),
    resolver: resolvText(record, { gateways: [], forwarded: undefined }, '', dns),
    hosts: hostsText(record, {}),
    restart: new RestartPolicy().after(host.RestartPolicy, { exitCode: 1, ranMs: 0, stoppedByUser: false }),
    probe: probeArgs(config.Healthcheck, config.Shell),
    kept: { config, host },
  };
  return Object.fromEntries(Object.entries(seen).map(([name, value]) => [name, JSON.stringify(value) ?? '']));
}

/**
 * Where a field is seen: a name of {@link effects}; `refused` with an error; `kept` where it is used only while the
 * container lives, or by clients, and inspect shows it.
 */
type Row = [value: unknown, seen: string, together?: CreateRequest];

const HEALTH = { Test: ['CMD-SHELL', 'true'] };

const CONFIG: Record<string, Row> = {
  Hostname: ['h', 'jail'],
  Domainname: ['d', 'jail'],
  User: ['u', 'jail'],
  AttachStdin: [true, 'kept'],
  AttachStdout: [true, 'kept'],
  AttachStderr: [true, 'kept'],
  ExposedPorts: [{ '80/tcp': {} }, 'jail'],
  Tty: [true, 'jail'],
  OpenStdin: [true, 'jail'],
  StdinOnce: [true, 'kept'],
  Env: [['A=b'], 'jail'],
  Cmd: [['x'], 'jail'],
  Healthcheck: [HEALTH, 'probe'],
  ArgsEscaped: [true, 'kept'],
  Image: ['other', 'kept'],
  Volumes: [{ '/v': {} }, 'mounts'],
  WorkingDir: ['/w', 'jail'],
  Entrypoint: [['x'], 'jail'],
  NetworkDisabled: [true, 'networks'],
  MacAddress: ['02:00:00:00:00:01', 'networks'],
  OnBuild: [['RUN x'], 'kept'],
  Labels: [{ a: 'b' }, 'kept'],
  StopSignal: ['SIGINT', 'kept'],
  StopTimeout: [3, 'kept'],
  Shell: [['/bin/bash', '-c'], 'probe', { Healthcheck: HEALTH }],
};

const DEVICE = [{ Path: '/dev/sda', Rate: 1 }];

const HOST: Record<string, Row> = {
  CpuShares: [7, 'jail'],
  Memory: [64 << 20, 'jail'],
  CgroupParent: ['/p', 'jail'],
  BlkioWeight: [300, 'jail'],
  BlkioWeightDevice: [[{ Path: '/dev/sda', Weight: 300 }], 'jail'],
  BlkioDeviceReadBps: [DEVICE, 'jail'],
  BlkioDeviceWriteBps: [DEVICE, 'jail'],
  BlkioDeviceReadIOps: [DEVICE, 'jail'],
  BlkioDeviceWriteIOps: [DEVICE, 'jail'],
  CpuPeriod: [5000, 'jail'],
  CpuQuota: [5000, 'jail'],
  CpuRealtimePeriod: [5000, 'refused'],
  CpuRealtimeRuntime: [5000, 'refused'],
  CpusetCpus: ['0', 'jail'],
  CpusetMems: ['0', 'jail'],
  Devices: [[{ PathOnHost: '/dev/null', PathInContainer: '/dev/x' }], 'jail'],
  DeviceCgroupRules: [['c 1:3 r'], 'jail'],
  DeviceRequests: [[{ Driver: 'x' }], 'refused'],
  KernelMemoryTCP: [1, 'warnings'],
  MemoryReservation: [32 << 20, 'jail'],
  MemorySwap: [96 << 20, 'jail', { HostConfig: { Memory: 64 << 20 } }],
  MemorySwappiness: [0, 'jail'],
  NanoCpus: [1e9, 'jail'],
  OomKillDisable: [true, 'jail'],
  Init: [true, 'jail'],
  PidsLimit: [9, 'jail'],
  Ulimits: [[{ Name: 'nofile', Soft: 1, Hard: 2 }], 'jail'],
  CpuCount: [1, 'warnings'],
  CpuPercent: [1, 'warnings'],
  IOMaximumIOps: [1, 'warnings'],
  IOMaximumBandwidth: [1, 'warnings'],
  Binds: [['/h:/c'], 'mounts'],
  ContainerIDFile: ['/f', 'kept'],
  LogConfig: [{ Type: 'none' }, 'kept'],
  NetworkMode: ['mine', 'networks'],
  PortBindings: [{ '80/tcp': [{ HostPort: '8080' }] }, 'ports'],
  RestartPolicy: [{ Name: 'always' }, 'restart'],
  AutoRemove: [true, 'kept'],
  VolumeDriver: ['other', 'mounts', { Volumes: { '/v': {} } }],
  VolumesFrom: [['other'], 'kept'],
  Mounts: [[{ Type: 'tmpfs', Target: '/t' }], 'mounts'],
  ConsoleSize: [[9, 9], 'jail'],
  Annotations: [{ a: 'b' }, 'jail'],
  CapAdd: [['SYS_ADMIN'], 'jail'],
  CapDrop: [['CHOWN'], 'jail'],
  CgroupnsMode: ['host', 'jail'],
  Dns: [['9.9.9.9'], 'resolver'],
  DnsOptions: [['ndots:1'], 'resolver'],
  DnsSearch: [['test'], 'resolver'],
  ExtraHosts: [['a:1.2.3.4'], 'hosts'],
  GroupAdd: [['g'], 'jail'],
  IpcMode: ['host', 'jail'],
  Cgroup: ['x', 'refused'],
  Links: [['other:alias'], 'kept'],
  OomScoreAdj: [5, 'jail'],
  PidMode: ['host', 'jail'],
  Privileged: [true, 'jail'],
  PublishAllPorts: [true, 'ports', { ExposedPorts: { '80/tcp': {} } }],
  ReadonlyRootfs: [true, 'jail'],
  SecurityOpt: [['no-new-privileges'], 'jail'],
  StorageOpt: [{ size: '1g' }, 'refused'],
  Tmpfs: [{ '/t': '' }, 'mounts'],
  UTSMode: ['host', 'jail'],
  UsernsMode: ['private', 'refused'],
  ShmSize: [1 << 20, 'jail'],
  Sysctls: [{ 'net.core.somaxconn': '1' }, 'jail'],
  Runtime: ['other', 'jail'],
  Isolation: ['hyperv', 'refused'],
  MaskedPaths: [[], 'jail'],
  ReadonlyPaths: [[], 'jail'],
};

describe.each([
  ['ContainerConfig', CONFIG, (field: string, value: unknown) => ({ [field]: value })],
  ['HostConfig', HOST, (field: string, value: unknown) => ({ HostConfig: { [field]: value } })],
] as const)('%s', (model, rows, request) => {
  it('has a row for each field of the SDK, and for no other', () => {
    expect(Object.keys(rows).sort()).toEqual(fieldsOf(model).sort());
  });

  it.each(Object.entries(rows as Record<string, Row>))('%s', (field, [value, seen, together = {}]) => {
    const wish = request(field, value) as CreateRequest;
    const whole = { ...together, ...wish, HostConfig: { ...together.HostConfig, ...wish.HostConfig } };
    if (seen === 'refused') expect(() => effects(whole)).toThrow();
    else expect(effects(whole)[seen]).not.toBe(effects(together)[seen]);
  });
});

/** What only answers have: clients send an endpoint back as inspect showed it, and dockerd takes no notice of these. */
const ANSWERED = new Set(
  'Gateway IPAddress IPPrefixLen IPv6Gateway GlobalIPv6Address GlobalIPv6PrefixLen DNSNames'.split(' '),
);

type Properties = Record<string, { properties?: Properties; items?: { properties?: Properties } }>;

function propertiesAt(schema: object, path: string): string[] {
  let at = schema as Record<string, never>;
  for (const step of path.split('/').filter((part) => part !== '')) at = at[step]!;
  return Object.keys((at as { properties?: Properties }).properties ?? {});
}

const ENDPOINT = 'properties/NetworkingConfig/properties/EndpointsConfig/additionalProperties';
const MOUNT = 'properties/HostConfig/properties/Mounts/items';

describe('nested fields are read', () => {
  it.each([
    ['EndpointSettings', createContainerBody, ENDPOINT],
    ['EndpointIPAMConfig', createContainerBody, `${ENDPOINT}/properties/IPAMConfig`],
    ['Mount', createContainerBody, MOUNT],
    ['MountBindOptions', createContainerBody, `${MOUNT}/properties/BindOptions`],
    ['MountVolumeOptions', createContainerBody, `${MOUNT}/properties/VolumeOptions`],
    ['MountTmpfsOptions', createContainerBody, `${MOUNT}/properties/TmpfsOptions`],
    ['MountImageOptions', createContainerBody, `${MOUNT}/properties/ImageOptions`],
    ['NetworkCreateRequest', createNetworkBody, ''],
    ['IPAMConfig', createNetworkBody, 'properties/IPAM/properties/Config/items'],
  ])('%s', (model, schema, path) => {
    const known = propertiesAt(schema, path);
    expect(fieldsOf(model).filter((field) => !known.includes(field) && !ANSWERED.has(field))).toEqual([]);
  });
});
