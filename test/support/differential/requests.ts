/**
 * Requests that are put to two engines, one after the other. What a request names was made by an earlier one under the same
 * name, so that ids need not be known.
 */
import { directory, file, symlink, tarOf } from '../images.ts';

/** One request. */
export interface Step {
  method: string;
  /** With the query, without the version. */
  path: string;
  /** JSON, or bytes of an archive; text is sent as it is, as JSON. */
  body?: object | string | Buffer;
  headers?: Record<string, string>;
  /** Of the API; the newest that both speak, if none is given. */
  minor?: number;
}

/** The image that both engines have. */
export const IMAGE = 'differential/tools:1';

const TOOLS = 'sh sleep cat echo true false ls id env ps'.split(' ');

/** The root file system of {@link IMAGE}. @param busybox the program's bytes */
export function toolsLayer(busybox: Buffer): Parameters<typeof tarOf>[0] {
  return [
    ...['bin', 'etc', 'proc', 'sys', 'dev', 'tmp', 'data'].map((name) => directory(name)),
    file('bin/busybox', busybox, { mode: 0o755 }),
    file('etc/passwd', 'root:x:0:0:root:/:/bin/sh\nu:x:1000:1000::/:/bin/sh\n'),
    file('etc/group', 'root:x:0:\nu:x:1000:\n'),
    ...TOOLS.map((tool) => symlink(`bin/${tool}`, 'busybox')),
  ];
}

const get = (path: string, minor?: number): Step => ({ method: 'GET', path, ...(minor && { minor }) });
const head = (path: string): Step => ({ method: 'HEAD', path });
const del = (path: string): Step => ({ method: 'DELETE', path });
const put = (path: string, body: Buffer): Step => ({ method: 'PUT', path, body });
const post = (path: string, body?: Step['body'], headers?: Record<string, string>): Step => ({
  method: 'POST',
  path,
  ...(body !== undefined && { body }),
  ...(headers && { headers }),
});
const filters = (value: object): string => `filters=${encodeURIComponent(JSON.stringify(value))}`;

const NONE = 'nosuch';
/** Versions of clients of the last years. */
const MINORS = [24, 30, 35, 40];

const base = { Image: IMAGE, Cmd: ['sleep', '1000'], StopSignal: 'SIGKILL' };
const make = (name: string, config: object = {}): Step =>
  post(`/containers/create?name=${name}`, { ...base, ...config });
const refused = (config: object): Step => make('refused', config);
const host = (HostConfig: object): Step => refused({ HostConfig });

/** Requests about the engine as a whole. */
const system: Step[] = [
  get('/_ping'),
  head('/_ping'),
  get('/version'),
  get('/info'),
  ...MINORS.map((minor) => get('/system/df', minor)),
  get('/nosuch'),
  post('/_ping'),
  get('/events?since=abc'),
  get('/events?until=1&since=x'),
  get(`/events?until=1&${filters({ nosuch: ['a'] })}`),
  get('/events?until=1&filters=x'),
  get('/events?since=1&until=2'),
  get('/events?since=2&until=1'),
  post('/auth', '{'),
  post('/auth'),
  ...['swarm', 'services', 'tasks', 'nodes', 'secrets', 'configs', 'services/x', 'nodes/x', 'secrets/x'].map(
    (path) => get(`/${path}`),
  ),
  post('/swarm/leave'),
  post('/swarm/update?version=1', {}),
  get('/swarm/unlockkey'),
  get('/plugins'),
  get('/plugins/nosuch/json'),
  del('/plugins/nosuch'),
  post('/plugins/nosuch/enable?timeout=0'),
  post('/plugins/nosuch/disable'),
];

/** Requests for containers that are not there, or that make no sense. */
const badContainers: Step[] = [
  ...'json top logs?stdout=1 logs stats?stream=0 changes export archive?path=/ archive'
    .split(' ')
    .map((what) => get(`/containers/${NONE}/${what}`)),
  ...'start stop restart kill pause unpause wait attach resize?h=1&w=1 resize rename?name=x rename update exec'
    .split(' ')
    .map((what) => post(`/containers/${NONE}/${what}`, /^(update|exec)/.test(what) ? {} : undefined)),
  head(`/containers/${NONE}/archive?path=/`),
  put(`/containers/${NONE}/archive?path=/`, tarOf([])),
  del(`/containers/${NONE}`),
  del(`/containers/${NONE}?force=1`),
  get(`/exec/${NONE}/json`),
  post(`/exec/${NONE}/start`, {}),
  post(`/exec/${NONE}/resize?h=1&w=1`),
  ...['limit=x', 'filters=x', 'filters=[]'].map((query) => get(`/containers/json?${query}`)),
  ...[
    { nosuch: ['a'] },
    { status: ['nosuch'] },
    { exited: ['x'] },
    { health: ['x'] },
    { before: ['x'] },
    { since: ['x'] },
    { volume: ['x'], network: ['x'] },
    { 'is-task': ['x'] },
    { publish: ['x'] },
    { expose: ['1/x'] },
    { ancestor: ['nosuch'] },
  ].map((value) => get(`/containers/json?${filters(value)}`)),
  ...[
    undefined,
    '',
    '{',
    'null',
    '[]',
    '{}',
    '{"HostConfig":{}}',
    '{"Image":7}',
    '{"Image":"x"} trailing',
  ].map((body) => post('/containers/create', body)),
  post('/containers/create', '{}', { 'Content-Type': 'text/plain' }),
  ...['a', '-a', 'a/b', '/'].map((name) => post(`/containers/create?name=${name}`, base)),
  ...['nosuch:latest', 'Bad Name', '', `sha256:${'1'.repeat(64)}`].map((Image) =>
    post('/containers/create', { Image }),
  ),
  post(`/containers/prune?${filters({ nosuch: ['a'] })}`),
  post(`/containers/prune?${filters({ until: ['x'] })}`),
];

const health = { Test: ['CMD', 'true'] };

/** Creates that dockerd refuses, or accepts with a warning. */
const configurations: Step[] = [
  ...[
    { Cmd: [], Entrypoint: [] },
    { WorkingDir: 'relative' },
    { Env: ['=x'] },
    { Env: [''] },
    { StopSignal: 'NOSUCH' },
    { Volumes: { relative: {} } },
    { Healthcheck: { Test: ['NOSUCH'] } },
    { Healthcheck: { ...health, Interval: 1 } },
    { Healthcheck: { ...health, Timeout: -1 } },
    { Healthcheck: { ...health, Retries: -1 } },
    { Healthcheck: { ...health, StartPeriod: 5 } },
    { User: 'nosuch' },
    { NetworkingConfig: { EndpointsConfig: { nosuch: {} } } },
    { NetworkingConfig: { EndpointsConfig: { a: {}, b: {} } } },
    { NetworkingConfig: { EndpointsConfig: { bridge: { IPAMConfig: { IPv4Address: '172.17.0.77' } } } } },
    { NetworkingConfig: { EndpointsConfig: { bridge: { IPAMConfig: { IPv4Address: 'x' } } } } },
    { MacAddress: 'x' },
    { Domainname: 'd', Hostname: 'h', User: 'u', Tty: true, OpenStdin: true, StdinOnce: true },
  ].map(refused),
  ...[
    { Memory: 1 },
    { Memory: 6 << 20, MemorySwap: 1 << 20 },
    { MemorySwap: 64 << 20 },
    { Memory: 64 << 20, MemoryReservation: 128 << 20 },
    { MemoryReservation: 1 },
    { MemorySwappiness: 101 },
    { NanoCpus: -1 },
    { NanoCpus: 1e15 },
    { NanoCpus: 1e9, CpuPeriod: 100_000 },
    { NanoCpus: 1e9, CpuQuota: 50_000 },
    { CpuPeriod: 1 },
    { CpuQuota: 1 },
    { CpusetCpus: 'x' },
    { CpusetCpus: '999' },
    { CpusetMems: 'x' },
    { CpusetMems: '999' },
    { PidsLimit: -5 },
    { OomScoreAdj: 5000 },
    { OomKillDisable: true },
    { ShmSize: -1 },
    { RestartPolicy: { Name: 'nosuch' } },
    { RestartPolicy: { Name: 'always', MaximumRetryCount: 3 } },
    { RestartPolicy: { Name: 'on-failure', MaximumRetryCount: -1 } },
    { RestartPolicy: { Name: 'always' }, AutoRemove: true },
    { LogConfig: { Type: 'json-file', Config: { nosuch: '1' } } },
    { LogConfig: { Type: 'json-file', Config: { 'max-file': '2' } } },
    { LogConfig: { Type: 'json-file', Config: { mode: 'nosuch' } } },
    { LogConfig: { Type: 'json-file', Config: { 'max-buffer-size': '1m' } } },
    { LogConfig: { Type: 'none', Config: { nosuch: '1' } } },
    { NetworkMode: 'nosuch' },
    { NetworkMode: 'container:' },
    { NetworkMode: 'host', Links: ['a:b'] },
    { NetworkMode: 'host', PortBindings: { '80/tcp': [{ HostPort: '8080' }] } },
    { IpcMode: 'container:nosuch' },
    { PidMode: 'container:nosuch' },
    { CgroupnsMode: 'nosuch' },
    { Runtime: 'nosuch' },
    { Isolation: 'nosuch' },
    { CapAdd: ['NOSUCH'] },
    { CapDrop: ['NOSUCH'] },
    { SecurityOpt: ['nosuch'] },
    { SecurityOpt: ['nosuch=1'] },
    { Sysctls: { 'kernel.nosuch': '1' } },
    { Tmpfs: { relative: '' } },
    { Tmpfs: { '/': '' } },
    { Binds: ['relative:/x'] },
    { Binds: ['/nosuch'] },
    { Binds: ['/usr:relative'] },
    { Binds: ['/usr:/'] },
    { Binds: ['/usr:/x:nosuch'] },
    { Binds: ['/usr:/x:ro,rw'] },
    { Binds: ['/usr:/x:ro:z'] },
    { Binds: [':/x'] },
    { Binds: ['/usr:'] },
    { Binds: ['/usr:/x', '/bin:/x'] },
    { Binds: ['a b:/x'] },
    { Mounts: [{ Type: 'nosuch', Target: '/x' }] },
    { Mounts: [{ Type: 'bind', Target: '/x' }] },
    { Mounts: [{ Type: 'bind', Source: '/nosuch', Target: '/x' }] },
    { Mounts: [{ Type: 'bind', Source: 'relative', Target: '/x' }] },
    { Mounts: [{ Type: 'bind', Source: '/usr' }] },
    { Mounts: [{ Type: 'bind', Source: '/usr', Target: '/x', VolumeOptions: {} }] },
    { Mounts: [{ Type: 'bind', Source: '/usr', Target: '/x', BindOptions: { Propagation: 'nosuch' } }] },
    { Mounts: [{ Type: 'volume', Source: 'v', Target: 'relative' }] },
    { Mounts: [{ Type: 'volume', Source: 'v', Target: '/x', BindOptions: {} }] },
    { Mounts: [{ Type: 'tmpfs', Source: 'x', Target: '/x' }] },
    {
      Mounts: [
        { Type: 'tmpfs', Target: '/x' },
        { Type: 'tmpfs', Target: '/x' },
      ],
    },
    { Binds: ['/usr:/x'], Mounts: [{ Type: 'tmpfs', Target: '/x' }] },
    { VolumesFrom: ['nosuch'] },
    { VolumesFrom: [''] },
    { VolumesFrom: ['nosuch:xx'] },
    { Devices: [{ PathOnHost: '/dev/nosuch', PathInContainer: '/dev/x', CgroupPermissions: 'rwm' }] },
    { PortBindings: { 'x/tcp': [{ HostPort: '1' }] } },
    { PortBindings: { '80/tcp': [{ HostPort: 'x' }] } },
    { PortBindings: { '80/tcp': [{ HostPort: '99999' }] } },
    { PortBindings: { '80/tcp': [{ HostPort: '5-1' }] } },
    { ExtraHosts: ['nosuch'] },
    { ExtraHosts: ['a:x'] },
    { ExtraHosts: ['a:host-gateway'] },
    { Links: ['nosuch:x'] },
    { GroupAdd: ['nosuch'] },
    { StorageOpt: { size: '1G' } },
    { Privileged: true, SecurityOpt: ['seccomp=unconfined'] },
  ].map(host),
].flatMap((step) => [step, del('/containers/refused?v=1')]);

/** One container from its create to its end. */
const life: Step[] = [
  make('life', {
    Env: ['A=1'],
    Labels: { a: 'b' },
    ExposedPorts: { '80/tcp': {}, '53/udp': {} },
    Healthcheck: { ...health, Interval: 3_600_000_000_000 },
    HostConfig: { Memory: 64 << 20, Tmpfs: { '/t': 'size=1m' }, Binds: ['named:/named:ro'] },
  }),
  make('life'),
  ...MINORS.map((minor) => get('/containers/life/json', minor)),
  get('/containers/life/json?size=1'),
  ...MINORS.map((minor) => get('/containers/json?all=1', minor)),
  get('/containers/json?all=1&size=1'),
  get('/containers/json'),
  ...['created', 'running'].map((status) => get(`/containers/json?${filters({ status: [status] })}`)),
  ...'top stats?stream=0&one-shot=1 changes logs?stdout=1 logs logs?stdout=1&since=x logs?stdout=1&tail=x logs?stdout=1&until=x archive?path=/nosuch archive?path= archive'
    .split(' ')
    .map((what) => get(`/containers/life/${what}`)),
  ...'stop pause unpause kill resize?h=1&w=1 resize wait?condition=nosuch rename rename?name=life rename?name=!'
    .split(' ')
    .map((what) => post(`/containers/life/${what}`)),
  post('/containers/life/exec', { Cmd: ['true'] }),
  post('/containers/life/exec', {}),
  post('/containers/life/update', { Memory: 1 }),
  post('/containers/life/update', { RestartPolicy: { Name: 'nosuch' } }),
  post('/containers/life/update', '{'),
  ...['etc/passwd', 'bin/sh', 'etc/', 'etc/passwd/'].map((path) =>
    head(`/containers/life/archive?path=/${path}`),
  ),
  put('/containers/life/archive?path=/nosuch', tarOf([])),
  put('/containers/life/archive?path=/etc/passwd', tarOf([])),
  put('/containers/life/archive?path=/tmp', tarOf([file('note', 'text')])),
  put('/containers/life/archive?path=/tmp', Buffer.from('this is no archive')),
  put('/containers/life/archive?path=/named', tarOf([file('note', 'text')])),
  put('/containers/life/archive?path=/&noOverwriteDirNonDir=1', tarOf([file('data', 'text')])),
  post('/containers/life/start', '{"Memory":1}'),
  post('/containers/life/start'),
  post('/containers/life/start'),
  ...MINORS.map((minor) => get('/containers/life/json', minor)),
  ...MINORS.map((minor) => get('/containers/json', minor)),
  get('/containers/life/top'),
  get('/containers/life/top?ps_args=-o%20pid,args'),
  get('/containers/life/top?ps_args=--nosuch'),
  get('/containers/life/top?ps_args=-o%20args'),
  get('/containers/life/stats?stream=0&one-shot=1'),
  post('/containers/life/rename?name=life2'),
  post('/containers/life2/rename?name=life'),
  post('/containers/life/exec', {}),
  post('/containers/life/exec', '{'),
  post('/containers/life/kill?signal=NOSUCH'),
  post('/containers/life/stop?t=x'),
  post('/containers/life/resize?h=x&w=1'),
  post('/containers/life/unpause'),
  post('/containers/life/pause'),
  post('/containers/life/pause'),
  get('/containers/life/json'),
  get('/containers/json'),
  post('/containers/life/exec', { Cmd: ['true'] }),
  post('/containers/life/unpause'),
  post('/containers/life/update', { CpuShares: 512 }),
  post('/containers/life/update', {}),
  del('/containers/life'),
  post('/containers/life/kill'),
  post('/containers/life/wait'),
  post('/containers/life/kill'),
  post('/containers/life/stop'),
  post('/containers/life/pause'),
  get('/containers/life/json'),
  get('/containers/json?all=1'),
  get('/containers/life/stats?stream=0&one-shot=1'),
  get('/containers/life/changes'),
  get('/containers/life/logs?stdout=1&stderr=1'),
  post('/containers/life/attach?stream=1'),
  post(`/containers/prune?${filters({ label: ['nosuch'] })}`),
  del('/containers/life?v=1'),
  del('/containers/life'),
];

/** Programs that cannot be started, or end in their own way. */
const starts: Step[] = [
  ...[
    { Cmd: ['nosuch'] },
    { Cmd: ['/etc/passwd'] },
    { Cmd: ['true'], User: 'nosuch' },
    { Cmd: ['true'], HostConfig: { GroupAdd: ['nosuch'] } },
    ...[{ 'max-size': '-1' }, { 'max-size': '0' }, { 'max-file': '0' }, { compress: 'maybe' }].map(
      (Config) => ({
        HostConfig: { LogConfig: { Type: 'json-file', Config } },
      }),
    ),
  ].flatMap((config) => [
    make('starts', config),
    post('/containers/starts/start'),
    get('/containers/starts/json'),
    del('/containers/starts?force=1'),
  ]),
  make('ends', { Cmd: ['sh', '-c', 'echo out; exit 3'] }),
  post('/containers/ends/start'),
  post('/containers/ends/wait'),
  get('/containers/ends/json'),
  get('/containers/json?all=1'),
  get('/containers/ends/logs?stdout=1&stderr=1'),
  get('/containers/ends/logs?stdout=1&tail=0'),
  post('/containers/prune'),
];

const scratch = tarOf([file('Dockerfile', 'FROM scratch')]);

/** Images, by what both have. */
const images: Step[] = [
  ...MINORS.map((minor) => get('/images/json', minor)),
  ...[
    { nosuch: ['a'] },
    { dangling: ['x'] },
    { before: ['nosuch'] },
    { reference: ['['] },
    { reference: ['[^a]*/*'] },
  ].map((value) => get(`/images/json?${filters(value)}`)),
  ...MINORS.map((minor) => get(`/images/${IMAGE}/json`, minor)),
  get('/images/nosuch/json'),
  get('/images/Bad%20Name/json'),
  get(`/images/${IMAGE}/history`),
  get('/images/nosuch/history'),
  get('/images/nosuch/get'),
  post(`/images/${IMAGE}/tag?repo=differential/other&tag=2`),
  post(`/images/${IMAGE}/tag?repo=Bad`),
  post(`/images/${IMAGE}/tag`),
  post('/images/nosuch/tag?repo=a'),
  post('/images/nosuch/push', undefined, { 'X-Registry-Auth': 'e30=' }),
  post('/images/create'),
  post('/images/create?fromImage=Bad'),
  post('/images/create?fromSrc=-&repo=Bad', tarOf([])),
  post('/images/load', Buffer.from('this is no archive')),
  post(`/images/prune?${filters({ nosuch: ['a'] })}`),
  del('/images/nosuch'),
  del('/images/differential/other:2'),
  make('uses'),
  del(`/images/${IMAGE}`),
  del('/containers/uses'),
  post('/commit?container=nosuch'),
  post('/commit?container=nosuch&repo=Bad', {}),
  post('/build', Buffer.from('this is no archive')),
  post('/build', tarOf([])),
  post('/build?dockerfile=nosuch', scratch),
  post('/build', tarOf([file('Dockerfile', '')])),
  post('/build', tarOf([file('Dockerfile', 'NOSUCH x')])),
  ...'t=Bad memory=x buildargs=x labels=x cachefrom=x ulimits=x'
    .split(' ')
    .map((query) => post(`/build?${query}`, scratch)),
  post('/build', scratch, { 'Content-Type': 'text/plain' }),
];

/** Networks. */
const networks: Step[] = [
  ...MINORS.map((minor) => get('/networks', minor)),
  ...['bridge', 'host', 'none', NONE, ''].map((name) => get(`/networks/${name}`)),
  get('/networks/bridge?verbose=1'),
  get('/networks/bridge?verbose=x'),
  get('/networks/bridge?scope=swarm'),
  ...[
    { nosuch: ['a'] },
    { type: ['nosuch'] },
    { dangling: ['x'] },
    { driver: ['host'] },
    { scope: ['x'] },
  ].map((value) => get(`/networks?${filters(value)}`)),
  post('/networks/create'),
  post('/networks/create', '{'),
  post('/networks/create', {}),
  ...['host', 'none', 'bridge', 'default', 'a/b', ' ', 'container:x'].map((Name) =>
    post('/networks/create', { Name, CheckDuplicate: true }),
  ),
  ...[
    { Driver: 'host' },
    { Driver: 'null' },
    { Driver: 'overlay' },
    { Scope: 'swarm' },
    { Ingress: true },
    ...[
      { Config: [{ Subnet: 'x' }] },
      { Config: [{ Subnet: '10.77.0.0/33' }] },
      { Config: [{ Subnet: '10.77.0.5/24' }] },
      { Config: [{ Gateway: '10.77.0.1' }] },
      { Config: [{ Subnet: '10.77.0.0/24', Gateway: '10.78.0.1' }] },
      { Config: [{ Subnet: '10.77.0.0/24', Gateway: 'x' }] },
      { Config: [{ Subnet: '10.77.0.0/24', IPRange: '10.78.0.0/25' }] },
      { Config: [{ Subnet: '10.77.0.0/24', IPRange: 'x' }] },
      { Config: [{ Subnet: '10.77.0.0/24', AuxiliaryAddresses: { a: '10.78.0.1' } }] },
      { Config: [{ Subnet: '10.77.0.0/24' }, { Subnet: '10.79.0.0/24' }] },
      { Config: [{ Subnet: '10.77.0.0/24' }, { Subnet: '10.77.0.0/25' }] },
    ].map((IPAM) => ({ IPAM })),
    ...[
      { 'com.docker.network.driver.mtu': 'x' },
      { 'com.docker.network.bridge.enable_icc': 'x' },
      { 'com.docker.network.bridge.enable_ip_masquerade': 'x' },
      { 'com.docker.network.bridge.host_binding_ipv4': 'x' },
      { nosuch: 'x' },
    ].map((Options) => ({ Options })),
  ].flatMap((config) => [post('/networks/create', { Name: 'net', ...config }), del('/networks/net')]),
  post('/networks/create', {
    Name: 'config',
    ConfigOnly: true,
    IPAM: { Config: [{ Subnet: '10.76.0.0/24' }] },
    Labels: { a: 'b' },
  }),
  get('/networks/config'),
  post('/networks/create', { Name: 'net', ConfigFrom: { Network: 'nosuch' } }),
  post('/networks/create', { Name: 'net', ConfigFrom: { Network: 'bridge' } }),
  post('/networks/create', { Name: 'net', ConfigFrom: { Network: 'config' }, Labels: { a: 'b' } }),
  del('/networks/net'),
  post('/networks/create', { Name: 'net', ConfigFrom: { Network: 'config' }, Options: { a: 'b' } }),
  del('/networks/net'),
  post('/networks/create', { Name: 'net', ConfigFrom: { Network: 'config' } }),
  get('/networks/net'),
  del('/networks/config'),
  del('/networks/net'),
  make('onconfig', { HostConfig: { NetworkMode: 'config' } }),
  post('/containers/onconfig/start'),
  del('/containers/onconfig?force=1'),
  del('/networks/config'),
  post('/networks/create', {
    Name: 'net',
    Labels: { a: 'b' },
    IPAM: {
      Config: [
        {
          Subnet: '10.75.0.0/24',
          IPRange: '10.75.0.128/25',
          Gateway: '10.75.0.1',
          AuxiliaryAddresses: { a: '10.75.0.9' },
        },
      ],
    },
  }),
  post('/networks/create', { Name: 'net', CheckDuplicate: true }),
  get('/networks/net'),
  make('member', {
    HostConfig: { NetworkMode: 'net' },
    NetworkingConfig: {
      EndpointsConfig: { net: { Aliases: ['al'], IPAMConfig: { IPv4Address: '10.75.0.50' } } },
    },
  }),
  post('/networks/net/connect', { Container: NONE }),
  post('/networks/net/connect', {}),
  post('/networks/net/connect', '{'),
  post('/networks/net/connect', { Container: 'member' }),
  post('/networks/host/connect', { Container: 'member' }),
  post('/networks/none/connect', { Container: 'member' }),
  post('/networks/bridge/connect', { Container: 'member', EndpointConfig: { Aliases: ['x'] } }),
  post('/networks/bridge/connect', {
    Container: 'member',
    EndpointConfig: { IPAMConfig: { IPv4Address: '172.17.0.99' } },
  }),
  post('/networks/bridge/connect', { Container: 'member' }),
  get('/containers/member/json'),
  post('/containers/member/start'),
  get('/containers/member/json'),
  get('/networks/net'),
  post('/networks/bridge/connect', { Container: 'member' }),
  del('/networks/net'),
  post('/networks/bridge/disconnect', { Container: 'member' }),
  post('/networks/bridge/disconnect', { Container: 'member' }),
  post('/networks/bridge/disconnect', { Container: NONE }),
  post(`/networks/${NONE}/disconnect`, { Container: 'member' }),
  post('/networks/host/disconnect', { Container: 'member' }),
  get('/containers/member/json'),
  del('/containers/member?force=1'),
  del('/networks/net'),
  del('/networks/net'),
  ...['bridge', 'host', 'none'].map((name) => del(`/networks/${name}`)),
  post('/networks/prune'),
  post(`/networks/prune?${filters({ nosuch: ['a'] })}`),
];

/** Volumes. */
const volumes: Step[] = [
  get('/volumes/nosuch'),
  post('/volumes/create', '{'),
  ...['a', 'a/b', '-a', 'a b'].map((Name) => post('/volumes/create', { Name })),
  ...[
    { DriverOpts: { nosuch: '1' } },
    { DriverOpts: { type: 'tmpfs' } },
    { DriverOpts: { o: 'size=1' } },
    { Labels: { a: 'b' } },
    {},
    { DriverOpts: { type: 'tmpfs', device: 'tmpfs' } },
  ].map((config) => post('/volumes/create', { Name: 'vol', ...config })),
  get('/volumes/vol'),
  get('/volumes'),
  ...[{ nosuch: ['a'] }, { dangling: ['x'] }, { driver: ['x'] }].map((value) =>
    get(`/volumes?${filters(value)}`),
  ),
  make('holder', { HostConfig: { Binds: ['vol:/v'] } }),
  get('/containers/holder/json'),
  del('/volumes/vol'),
  del('/volumes/vol?force=1'),
  del('/containers/holder?v=1'),
  del('/volumes/vol'),
  del('/volumes/vol'),
  del('/volumes/vol?force=1'),
  post(`/volumes/prune?${filters({ nosuch: ['a'] })}`),
  post('/volumes/prune'),
];

/** All requests, in groups that need nothing of one another. */
export const GROUPS: Readonly<Record<string, readonly Step[]>> = {
  system,
  'bad requests for containers': badContainers,
  'what a container may be': configurations,
  'the life of a container': life,
  'starts and ends': starts,
  images,
  networks,
  volumes,
};
