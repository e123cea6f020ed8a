/** The daemon's options: the one table that flags, daemon.json and help are made from. */
import { join } from 'node:path';
import type { GcRule } from './build/garbage-rules.ts';
import type { AddressPool, RuntimeProgram, Ulimit, ValueKind } from './config-values.ts';
import { SHUTDOWN_TIMEOUT_S } from './limits.ts';
import { LOG_LEVELS } from './log.ts';
import { PLACES } from './places.ts';

/** Effective options. */
export interface DaemonConfig {
  hosts: string[];
  dataRoot: string;
  execRoot: string;
  pidfile: string;
  group: string;
  debug: boolean;
  logLevel: string;
  logFormat: string;
  storageDriver: string;
  labels: string[];
  logDriver: string;
  logOpts: Record<string, string>;
  /** OCI runtimes by name. */
  runtimes: Record<string, RuntimeProgram>;
  defaultRuntime: string;
  execOpts: string[];
  shutdownTimeoutS: number;
  registryMirrors: string[];
  insecureRegistries: string[];
  downloadsMax: number;
  uploadsMax: number;
  downloadAttemptsMax: number;
  httpProxy: string;
  httpsProxy: string;
  noProxy: string;
  dns: string[];
  dnsSearch: string[];
  dnsOpts: string[];
  hostGateways: string[];
  mtu: number;
  /** Whose subordinate numbers the users of containers have: `default`, `user`, `user:group`; empty for the machine's own. */
  usernsRemap: string;
  /** Limits of processes by name. */
  ulimits: Record<string, Ulimit>;
  shmBytes: number;
  ipcMode: string;
  cgroupnsMode: string;
  cgroupParent: string;
  init: boolean;
  noNewPrivileges: boolean;
  /** A file, `builtin` or `unconfined`. */
  seccompProfile: string;
  /** Empty, or `none`: there is no default network. */
  bridge: string;
  bip: string;
  bip6: string;
  fixedCidr: string;
  fixedCidr6: string;
  defaultGateway: string;
  defaultGateway6: string;
  bindAddress: string;
  ipv6: boolean;
  icc: boolean;
  addressPools: AddressPool[];
  /** Options of new networks by driver. */
  networkOpts: Record<string, Record<string, string>>;
  /** Folders of the host that containers may mount; none: all. */
  fileSharing: string[];
  /** Containers go on while no daemon runs. */
  liveRestore: boolean;
  /** Where metrics are served, `address:port`; empty for nowhere. */
  metricsAddr: string;
  /** Where the web page is served, `address:port` of the loopback; empty for nowhere. */
  dashboard: string;
  tls: boolean;
  tlsVerify: boolean;
  tlsCaCert: string;
  tlsCert: string;
  tlsKey: string;
  /** How the build cache is kept small. */
  gcRules: GcRule[];
  /** dockerd's features by name, as far as they were set. */
  features: Record<string, boolean>;
  /** The oldest version of the API that is answered; empty for the oldest there is. */
  minApiVersion: string;
}

/** One option. */
export interface DaemonOption {
  /** As commander writes it; empty for keys that only daemon.json has. */
  flags: string;
  /** Key in daemon.json. */
  key: string;
  field: keyof DaemonConfig;
  kind: ValueKind;
  help: string;
  /** Applied again on SIGHUP. */
  reload: boolean;
}

/** Where things are unless told otherwise. */
export const DEFAULTS: DaemonConfig = {
  hosts: [`unix://${PLACES.run}/docker.sock`],
  dataRoot: PLACES.data,
  execRoot: PLACES.run,
  pidfile: '',
  group: '',
  debug: false,
  logLevel: 'info',
  logFormat: 'text',
  storageDriver: '',
  labels: [],
  logDriver: 'json-file',
  logOpts: {},
  runtimes: {},
  defaultRuntime: '',
  execOpts: [],
  shutdownTimeoutS: SHUTDOWN_TIMEOUT_S,
  registryMirrors: [],
  insecureRegistries: [],
  downloadsMax: 3,
  uploadsMax: 5,
  downloadAttemptsMax: 5,
  httpProxy: '',
  httpsProxy: '',
  noProxy: '',
  dns: [],
  dnsSearch: [],
  dnsOpts: [],
  hostGateways: [],
  mtu: 0,
  usernsRemap: '',
  ulimits: {},
  shmBytes: 64 * 1024 * 1024,
  ipcMode: 'private',
  cgroupnsMode: 'private',
  cgroupParent: '',
  init: false,
  noNewPrivileges: false,
  seccompProfile: 'builtin',
  bridge: '',
  bip: '',
  bip6: '',
  fixedCidr: '',
  fixedCidr6: '',
  defaultGateway: '',
  defaultGateway6: '',
  bindAddress: '',
  ipv6: false,
  icc: true,
  addressPools: [],
  networkOpts: {},
  fileSharing: [],
  liveRestore: false,
  metricsAddr: '',
  dashboard: '',
  tls: false,
  tlsVerify: false,
  tlsCaCert: '',
  tlsCert: '',
  tlsKey: '',
  gcRules: [],
  features: {},
  minApiVersion: '',
};

/** Read when it is there; one that is named on the command line must be there. */
export const CONFIG_FILE_DEFAULT: string = join(PLACES.config, 'daemon.json');

/** Keys that dockerd's daemon.json holds below another one. */
export const KEY_GROUPS: Readonly<Record<string, readonly string[]>> = {
  proxies: ['http-proxy', 'https-proxy', 'no-proxy'],
};

const RELOAD = true;

function option(
  flags: string,
  key: string,
  field: keyof DaemonConfig,
  kind: ValueKind,
  help: string,
  reload = false,
): DaemonOption {
  return { flags, key, field, kind, help, reload };
}

/** All options, with dockerd's names. */
export const OPTIONS: readonly DaemonOption[] = [
  option(
    '-H, --host <address>',
    'hosts',
    'hosts',
    'list',
    `listen here, unix://PATH, tcp://ADDRESS:PORT or fd:// (systemd's sockets); repeatable (default ${DEFAULTS.hosts[0]})`,
  ),
  option(
    '--data-root <folder>',
    'data-root',
    'dataRoot',
    'text',
    `state that stays: images, containers, volumes (default ${DEFAULTS.dataRoot})`,
  ),
  option(
    '--exec-root <folder>',
    'exec-root',
    'execRoot',
    'text',
    `state of running containers (default ${DEFAULTS.execRoot})`,
  ),
  option('-p, --pidfile <file>', 'pidfile', 'pidfile', 'text', 'write the process id here'),
  option(
    '-G, --group <group>',
    'group',
    'group',
    'text',
    'group that may use the unix sockets (default: the group of the daemon)',
  ),
  option('-D, --debug', 'debug', 'debug', 'flag', 'same as --log-level debug', RELOAD),
  option(
    '-l, --log-level <level>',
    'log-level',
    'logLevel',
    'text',
    `${LOG_LEVELS.join(', ')} (default info)`,
    RELOAD,
  ),
  option('--log-format <format>', 'log-format', 'logFormat', 'text', 'text or json (default text)'),
  option(
    '-s, --storage-driver <name>',
    'storage-driver',
    'storageDriver',
    'text',
    'overlay2 (Linux), apfs (macOS) or vfs (default: the first two where they work)',
  ),
  option(
    '--label <key=value>',
    'labels',
    'labels',
    'list',
    'label of this daemon in docker info; repeatable',
    RELOAD,
  ),
  option(
    '--log-driver <name>',
    'log-driver',
    'logDriver',
    'text',
    'log driver of containers: json-file, local, none (default json-file)',
  ),
  option('--log-opt <key=value>', 'log-opts', 'logOpts', 'map', 'option of the log driver; repeatable'),
  option(
    '--add-runtime <name=path>',
    'runtimes',
    'runtimes',
    'programs',
    'an OCI runtime (runc, crun, runsc) for docker run --runtime NAME; repeatable',
    RELOAD,
  ),
  option(
    '--default-runtime <name>',
    'default-runtime',
    'defaultRuntime',
    'text',
    'runtime of containers that name none (default drydock)',
    RELOAD,
  ),
  option(
    '--shutdown-timeout <seconds>',
    'shutdown-timeout',
    'shutdownTimeoutS',
    'number',
    `time for containers to stop when the daemon ends (default ${SHUTDOWN_TIMEOUT_S})`,
    RELOAD,
  ),
  option(
    '--registry-mirror <url>',
    'registry-mirrors',
    'registryMirrors',
    'list',
    'ask this registry first for images of Docker Hub; repeatable',
    RELOAD,
  ),
  option(
    '--insecure-registry <host>',
    'insecure-registries',
    'insecureRegistries',
    'list',
    'registry (host[:port] or CIDR) that may be spoken to without TLS; repeatable',
    RELOAD,
  ),
  option(
    '--dns <address>',
    'dns',
    'dns',
    'list',
    "name server for containers instead of the host's; repeatable",
  ),
  option(
    '--dns-search <domain>',
    'dns-search',
    'dnsSearch',
    'list',
    'search domain for containers; repeatable',
  ),
  option('--dns-opt <option>', 'dns-opts', 'dnsOpts', 'list', 'resolver option for containers; repeatable'),
  option('--mtu <bytes>', 'mtu', 'mtu', 'number', 'largest IP packet on container networks (default 65520)'),
  option(
    '--metrics-addr <address:port>',
    'metrics-addr',
    'metricsAddr',
    'text',
    'serve metrics for Prometheus on http://ADDRESS:PORT/metrics',
  ),
  option(
    '--userns-remap <user[:group]>',
    'userns-remap',
    'usernsRemap',
    'text',
    'run containers in a user namespace, with the numbers of this user in /etc/subuid and /etc/subgid; default: those of dockremap',
  ),
  option(
    '--dashboard <address:port>',
    'dashboard',
    'dashboard',
    'text',
    'serve a web page of containers, flows and file operations on the loopback; the log tells its secret URL',
  ),
  option(
    '--file-sharing <folder>',
    'file-sharing',
    'fileSharing',
    'list',
    'folder of the host that containers may mount, with what is below it; repeatable (default: all)',
  ),
  option('--tls', 'tls', 'tls', 'flag', 'use TLS on tcp:// listeners; implied by --tlsverify'),
  option(
    '--tlsverify',
    'tlsverify',
    'tlsVerify',
    'flag',
    'use TLS and let in only clients with a certificate of the CA',
  ),
  option(
    '--tlscacert <file>',
    'tlscacert',
    'tlsCaCert',
    'text',
    'certificates of the CA that clients must have',
  ),
  option('--tlscert <file>', 'tlscert', 'tlsCert', 'text', "the daemon's certificate"),
  option('--tlskey <file>', 'tlskey', 'tlsKey', 'text', "the daemon's key"),
  option(
    '--default-ulimit <name=soft:hard>',
    'default-ulimits',
    'ulimits',
    'ulimits',
    'limit of the processes of all containers that set none of that name; repeatable',
  ),
  option(
    '--default-shm-size <bytes>',
    'default-shm-size',
    'shmBytes',
    'size',
    'size of /dev/shm of containers that name none (default 64M)',
    RELOAD,
  ),
  option(
    '--default-ipc-mode <mode>',
    'default-ipc-mode',
    'ipcMode',
    'text',
    'private or shareable (default private)',
    RELOAD,
  ),
  option(
    '--default-cgroupns-mode <mode>',
    'default-cgroupns-mode',
    'cgroupnsMode',
    'text',
    'private or host (default private)',
    RELOAD,
  ),
  option(
    '--live-restore',
    'live-restore',
    'liveRestore',
    'flag',
    'containers go on while the daemon is stopped, killed or replaced; host folders are then bound instead of served',
  ),
  option('--init', 'init', 'init', 'flag', 'containers that do not say get an init as process 1'),
  option(
    '--no-new-privileges',
    'no-new-privileges',
    'noNewPrivileges',
    'flag',
    'containers that do not say can gain no privileges',
  ),
  option(
    '--seccomp-profile <file>',
    'seccomp-profile',
    'seccompProfile',
    'text',
    'profile of containers that name none: a file, builtin or unconfined (default builtin)',
  ),
  option(
    '--cgroup-parent <path>',
    'cgroup-parent',
    'cgroupParent',
    'text',
    'control group below which those of containers are made that name none',
  ),
  option(
    '--exec-opt <option>',
    'exec-opts',
    'execOpts',
    'list',
    'native.cgroupdriver=cgroupfs is what there is; repeatable',
  ),
  option('-b, --bridge <name>', 'bridge', 'bridge', 'text', 'none: there is no default network'),
  option('--bip <address/prefix>', 'bip', 'bip', 'text', 'gateway and subnet of the default network'),
  option('--bip6 <address/prefix>', 'bip6', 'bip6', 'text', 'IPv6 gateway and subnet of the default network'),
  option(
    '--fixed-cidr <subnet>',
    'fixed-cidr',
    'fixedCidr',
    'text',
    'containers of the default network get addresses of this part of it',
  ),
  option(
    '--fixed-cidr-v6 <subnet>',
    'fixed-cidr-v6',
    'fixedCidr6',
    'text',
    'IPv6 subnet of the default network',
  ),
  option(
    '--default-gateway <address>',
    'default-gateway',
    'defaultGateway',
    'text',
    'gateway of the default network, where it is not the address of --bip',
  ),
  option(
    '--default-gateway-v6 <address>',
    'default-gateway-v6',
    'defaultGateway6',
    'text',
    'IPv6 gateway of the default network',
  ),
  option(
    '--ip <address>',
    'ip',
    'bindAddress',
    'text',
    'ports of the default network are published here unless they say where (default all addresses)',
  ),
  option('--ipv6', 'ipv6', 'ipv6', 'flag', 'IPv6 on the default network'),
  option('--icc', 'icc', 'icc', 'flag', 'containers of the default network reach each other (default true)'),
  option(
    '--default-address-pool <base=subnet,size=prefix>',
    'default-address-pools',
    'addressPools',
    'pools',
    'networks get their subnets from here; repeatable (default 172.17.0.0/16 to 172.31.0.0/16, 192.168.0.0/16 by /20)',
  ),
  option(
    '--default-network-opt <driver=name=value>',
    'default-network-opts',
    'networkOpts',
    'driver-options',
    'option of new networks of a driver; repeatable',
  ),
  option(
    '--host-gateway-ip <address>',
    'host-gateway-ips',
    'hostGateways',
    'list',
    "what host-gateway stands for in --add-host; once for each family (default the network's gateway)",
  ),
  option(
    '--max-concurrent-downloads <n>',
    'max-concurrent-downloads',
    'downloadsMax',
    'number',
    `layers of one pull at a time (default ${DEFAULTS.downloadsMax})`,
    RELOAD,
  ),
  option(
    '--max-concurrent-uploads <n>',
    'max-concurrent-uploads',
    'uploadsMax',
    'number',
    `layers of one push at a time (default ${DEFAULTS.uploadsMax})`,
    RELOAD,
  ),
  option(
    '--max-download-attempts <n>',
    'max-download-attempts',
    'downloadAttemptsMax',
    'number',
    `attempts for a layer (default ${DEFAULTS.downloadAttemptsMax})`,
    RELOAD,
  ),
  option(
    '--http-proxy <url>',
    'http-proxy',
    'httpProxy',
    'text',
    'proxy to registries without TLS (default $HTTP_PROXY); in daemon.json below "proxies"',
  ),
  option(
    '--https-proxy <url>',
    'https-proxy',
    'httpsProxy',
    'text',
    'proxy to registries with TLS (default $HTTPS_PROXY)',
  ),
  option(
    '--no-proxy <hosts>',
    'no-proxy',
    'noProxy',
    'text',
    'hosts and domains that are reached without a proxy (default $NO_PROXY)',
  ),
  option(
    '--feature <name=bool>',
    'features',
    'features',
    'switches',
    'buildkit: what /_ping recommends to clients; repeatable',
    RELOAD,
  ),
  option('', 'builder', 'gcRules', 'garbage-rules', ''),
  option('', 'min-api-version', 'minApiVersion', 'text', ''),
];
