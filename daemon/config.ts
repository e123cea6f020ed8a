/**
 * The daemon's options: one table for flags, daemon.json and help. Flags patch the file; a key in both is an error, as
 * in dockerd, since otherwise nobody could tell which one is in force.
 */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { DrydockError, errorCode, errorMessage } from '#common/errors';
import { FOREIGN_OPTIONS, type ForeignOption, judgeForeign } from './foreign-options.ts';
import { SHUTDOWN_TIMEOUT_S } from './limits.ts';
import { LOG_LEVELS } from './log.ts';

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
  /** OCI runtimes by name: a path, or a name in PATH. */
  runtimes: Record<string, string>;
  defaultRuntime: string;
  shutdownTimeoutS: number;
  registryMirrors: string[];
  insecureRegistries: string[];
  dns: string[];
  dnsSearch: string[];
  dnsOpts: string[];
  mtu: number;
  /** Whose subordinate numbers the users of containers have: `default`, `user`, `user:group`; empty for the machine's own. */
  usernsRemap: string;
  /** Folders of the host that containers may mount; none: all. */
  fileSharing: string[];
  /** Where metrics are served, `address:port`; empty for nowhere. */
  metricsAddr: string;
  /** Where the web page is served, `address:port` of the loopback; empty for nowhere. */
  dashboard: string;
  tls: boolean;
  tlsVerify: boolean;
  tlsCaCert: string;
  tlsCert: string;
  tlsKey: string;
}

/** One option. */
export interface DaemonOption {
  /** As commander writes it. */
  flags: string;
  /** Key in daemon.json. */
  key: string;
  field: keyof DaemonConfig;
  kind: 'text' | 'list' | 'map' | 'programs' | 'flag' | 'number';
  help: string;
  /** Applied again on SIGHUP. */
  reload?: true;
}

/** Where things are unless told otherwise. */
export const DEFAULTS: DaemonConfig = {
  hosts: ['unix:///run/drydock/docker.sock'],
  dataRoot: '/var/lib/drydock',
  execRoot: '/run/drydock',
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
  shutdownTimeoutS: SHUTDOWN_TIMEOUT_S,
  registryMirrors: [],
  insecureRegistries: [],
  dns: [],
  dnsSearch: [],
  dnsOpts: [],
  mtu: 0,
  usernsRemap: '',
  fileSharing: [],
  metricsAddr: '',
  dashboard: '',
  tls: false,
  tlsVerify: false,
  tlsCaCert: '',
  tlsCert: '',
  tlsKey: '',
};

/** Read when it is there; one that is named on the command line must be there. */
export const CONFIG_FILE_DEFAULT = '/etc/drydock/daemon.json';

/** All options, with dockerd's names. */
export const OPTIONS: readonly DaemonOption[] = [
  {
    flags: '-H, --host <address>',
    key: 'hosts',
    field: 'hosts',
    kind: 'list',
    help: `listen here, unix://PATH, tcp://ADDRESS:PORT or fd:// (systemd's sockets); repeatable (default ${DEFAULTS.hosts[0]})`,
  },
  {
    flags: '--data-root <folder>',
    key: 'data-root',
    field: 'dataRoot',
    kind: 'text',
    help: `state that stays: images, containers, volumes (default ${DEFAULTS.dataRoot})`,
  },
  {
    flags: '--exec-root <folder>',
    key: 'exec-root',
    field: 'execRoot',
    kind: 'text',
    help: `state of running containers (default ${DEFAULTS.execRoot})`,
  },
  {
    flags: '-p, --pidfile <file>',
    key: 'pidfile',
    field: 'pidfile',
    kind: 'text',
    help: 'write the process id here',
  },
  {
    flags: '-G, --group <group>',
    key: 'group',
    field: 'group',
    kind: 'text',
    help: 'group that may use the unix sockets (default: the group of the daemon)',
  },
  {
    flags: '-D, --debug',
    key: 'debug',
    field: 'debug',
    kind: 'flag',
    help: 'same as --log-level debug',
    reload: true,
  },
  {
    flags: '-l, --log-level <level>',
    key: 'log-level',
    field: 'logLevel',
    kind: 'text',
    help: `${LOG_LEVELS.join(', ')} (default info)`,
    reload: true,
  },
  {
    flags: '--log-format <format>',
    key: 'log-format',
    field: 'logFormat',
    kind: 'text',
    help: 'text or json (default text)',
  },
  {
    flags: '-s, --storage-driver <name>',
    key: 'storage-driver',
    field: 'storageDriver',
    kind: 'text',
    help: 'overlay2 or vfs (default: overlay2 where it works)',
  },
  {
    flags: '--label <key=value>',
    key: 'labels',
    field: 'labels',
    kind: 'list',
    help: 'label of this daemon in docker info; repeatable',
    reload: true,
  },
  {
    flags: '--log-driver <name>',
    key: 'log-driver',
    field: 'logDriver',
    kind: 'text',
    help: 'log driver of containers: json-file, local, none (default json-file)',
  },
  {
    flags: '--log-opt <key=value>',
    key: 'log-opts',
    field: 'logOpts',
    kind: 'map',
    help: 'option of the log driver; repeatable',
  },
  {
    flags: '--add-runtime <name=path>',
    key: 'runtimes',
    field: 'runtimes',
    kind: 'programs',
    help: 'an OCI runtime (runc, crun, runsc) for docker run --runtime NAME; repeatable',
  },
  {
    flags: '--default-runtime <name>',
    key: 'default-runtime',
    field: 'defaultRuntime',
    kind: 'text',
    help: 'runtime of containers that name none (default drydock)',
  },
  {
    flags: '--shutdown-timeout <seconds>',
    key: 'shutdown-timeout',
    field: 'shutdownTimeoutS',
    kind: 'number',
    help: `time for containers to stop when the daemon ends (default ${SHUTDOWN_TIMEOUT_S})`,
    reload: true,
  },
  {
    flags: '--registry-mirror <url>',
    key: 'registry-mirrors',
    field: 'registryMirrors',
    kind: 'list',
    help: 'ask this registry first for images of Docker Hub; repeatable',
  },
  {
    flags: '--insecure-registry <host>',
    key: 'insecure-registries',
    field: 'insecureRegistries',
    kind: 'list',
    help: 'registry (host[:port] or CIDR) that may be spoken to without TLS; repeatable',
  },
  {
    flags: '--dns <address>',
    key: 'dns',
    field: 'dns',
    kind: 'list',
    help: "name server for containers instead of the host's; repeatable",
  },
  {
    flags: '--dns-search <domain>',
    key: 'dns-search',
    field: 'dnsSearch',
    kind: 'list',
    help: 'search domain for containers; repeatable',
  },
  {
    flags: '--dns-opt <option>',
    key: 'dns-opts',
    field: 'dnsOpts',
    kind: 'list',
    help: 'resolver option for containers; repeatable',
  },
  {
    flags: '--mtu <bytes>',
    key: 'mtu',
    field: 'mtu',
    kind: 'number',
    help: 'largest IP packet on container networks (default 65520)',
  },
  {
    flags: '--metrics-addr <address:port>',
    key: 'metrics-addr',
    field: 'metricsAddr',
    kind: 'text',
    help: 'serve metrics for Prometheus on http://ADDRESS:PORT/metrics',
  },
  {
    flags: '--userns-remap <user[:group]>',
    key: 'userns-remap',
    field: 'usernsRemap',
    kind: 'text',
    help: 'run containers in a user namespace, with the numbers of this user in /etc/subuid and /etc/subgid; default: those of dockremap',
  },
  {
    flags: '--dashboard <address:port>',
    key: 'dashboard',
    field: 'dashboard',
    kind: 'text',
    help: 'serve a web page of containers, flows and file operations on the loopback; the log tells its secret URL',
  },
  {
    flags: '--file-sharing <folder>',
    key: 'file-sharing',
    field: 'fileSharing',
    kind: 'list',
    help: 'folder of the host that containers may mount, with what is below it; repeatable (default: all)',
  },
  {
    flags: '--tls',
    key: 'tls',
    field: 'tls',
    kind: 'flag',
    help: 'use TLS on tcp:// listeners; implied by --tlsverify',
  },
  {
    flags: '--tlsverify',
    key: 'tlsverify',
    field: 'tlsVerify',
    kind: 'flag',
    help: 'use TLS and let in only clients with a certificate of the CA',
  },
  {
    flags: '--tlscacert <file>',
    key: 'tlscacert',
    field: 'tlsCaCert',
    kind: 'text',
    help: 'certificates of the CA that clients must have',
  },
  {
    flags: '--tlscert <file>',
    key: 'tlscert',
    field: 'tlsCert',
    kind: 'text',
    help: "the daemon's certificate",
  },
  { flags: '--tlskey <file>', key: 'tlskey', field: 'tlsKey', kind: 'text', help: "the daemon's key" },
];

/** Values by field, as far as a source sets them. */
export type PartialConfig = Partial<Record<keyof DaemonConfig, unknown>>;

function invalid(message: string): DrydockError {
  return new DrydockError('ERR_BAD_CONFIG', message);
}

/**
 * Reads a daemon.json. `warn` is told of keys without effect. @throws ERR_BAD_CONFIG naming the file and what is wrong with it
 * @returns undefined when there is none and none was asked for
 */
export async function readConfigFile(
  path: string,
  required: boolean,
  warn: (text: string) => void,
): Promise<PartialConfig> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if (errorCode(error) === 'ENOENT' && !required) return {};
    throw invalid(`the configuration file ${path} could not be read: ${errorMessage(error)}`);
  }
  try {
    return parseConfigFile(text, (warning) => warn(`${path}: ${warning}`));
  } catch (error) {
    throw invalid(`unable to configure the daemon with file ${path}: ${errorMessage(error)}`);
  }
}

/** Checks keys and types of a daemon.json. */
export function parseConfigFile(text: string, warn: (text: string) => void = () => {}): PartialConfig {
  const parsed: unknown = text.trim() === '' ? {} : JSON.parse(text);
  if (parsed === null || typeof parsed !== 'object' || Array.isArray(parsed))
    throw invalid('it must hold a JSON object');
  const found: PartialConfig = {};
  const unknown: string[] = [];
  const foreign: ForeignOption[] = [];
  for (const [key, value] of Object.entries(parsed)) {
    const option = OPTIONS.find((o) => o.key === key);
    const other = FOREIGN_OPTIONS.find((o) => o.key === key);
    if (other) foreign.push(other);
    else if (!option) unknown.push(key);
    else found[option.field] = checkValue(option, value);
  }
  if (unknown.length > 0)
    throw invalid(`the following directives don't match any configuration option: ${unknown.join(', ')}`);
  for (const warning of judgeForeign(foreign, 'key')) warn(warning);
  return found;
}

/** `{"crun": {"path": "/usr/bin/crun"}}`, as dockerd has it. @returns paths by name */
function programPaths(key: string, value: unknown): Record<string, string> {
  const wrong = invalid(`${key} must be an object of objects with a path`);
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw wrong;
  const entries = Object.entries(value).map(([name, program]: [string, { path?: unknown } | null]) => {
    if (typeof program?.path !== 'string') throw wrong;
    const others = Object.keys(program).filter((field) => field !== 'path');
    if (others.length > 0) throw invalid(`${key}: ${name}: ${others.join(', ')} is not supported, only path`);
    return [name, program.path];
  });
  return Object.fromEntries(entries);
}

function checkValue(option: DaemonOption, value: unknown): unknown {
  if (option.kind === 'programs') return programPaths(option.key, value);
  const strings = (list: unknown[]): boolean => list.every((v) => typeof v === 'string');
  const fits: Record<Exclude<DaemonOption['kind'], 'programs'>, boolean> = {
    text: typeof value === 'string',
    flag: typeof value === 'boolean',
    number: Number.isInteger(value),
    list: Array.isArray(value) && strings(value),
    map:
      typeof value === 'object' && value !== null && !Array.isArray(value) && strings(Object.values(value)),
  };
  const names = {
    text: 'a string',
    flag: 'true or false',
    number: 'a number',
    list: 'a list of strings',
    map: 'an object of strings',
  };
  if (!fits[option.kind]) throw invalid(`${option.key} must be ${names[option.kind]}`);
  return value;
}

/** Joins flags and file over the defaults. @throws ERR_BAD_CONFIG for conflicts and impossible values */
export function effectiveConfig(flags: PartialConfig, file: PartialConfig): DaemonConfig {
  const conflicts = OPTIONS.filter((o) => flags[o.field] !== undefined && file[o.field] !== undefined).map(
    (o) =>
      `${o.key}: (from flag: ${JSON.stringify(flags[o.field])}, from file: ${JSON.stringify(file[o.field])})`,
  );
  if (conflicts.length > 0)
    throw invalid(
      `the following directives are specified both as a flag and in the configuration file: ${conflicts.join(', ')}`,
    );
  const config = { ...DEFAULTS, ...file, ...flags } as DaemonConfig;
  if (config.debug) config.logLevel = 'debug';
  if (config.tlsVerify) config.tls = true;
  verify(config);
  return config;
}

function verify(config: DaemonConfig): void {
  if (!LOG_LEVELS.includes(config.logLevel))
    throw invalid(`invalid log level ${config.logLevel}: use one of ${LOG_LEVELS.join(', ')}`);
  if (!['text', 'json'].includes(config.logFormat))
    throw invalid(`invalid log format ${config.logFormat}: use text or json`);
  if (!['', 'overlay2', 'vfs'].includes(config.storageDriver))
    throw invalid(`unknown storage driver ${config.storageDriver}: use overlay2 or vfs`);
  if (!['json-file', 'local', 'none'].includes(config.logDriver))
    throw invalid(`unknown log driver ${config.logDriver}: use json-file, local or none`);
  for (const label of config.labels)
    if (!label.includes('=')) throw invalid(`bad attribute format: ${label}: write labels as key=value`);
  for (const address of config.dns) if (isIP(address) === 0) throw invalid(`${address} is not an ip address`);
  if (config.mtu !== 0 && (config.mtu < 576 || config.mtu > 65520))
    throw invalid(`invalid mtu ${config.mtu}: 576 to 65520`);
  for (const host of config.hosts) parseHost(host);
  if (config.metricsAddr !== '') parseHost(`tcp://${config.metricsAddr}`);
  if (config.dashboard !== '' && !/^(127(\.\d+){3}|\[::1\]|localhost):\d{1,5}$/.test(config.dashboard))
    throw invalid(
      `invalid dashboard ${config.dashboard}: give an address of the loopback, as 127.0.0.1:8765`,
    );
  if (config.tls)
    for (const [name, value] of [
      ['tlscert', config.tlsCert],
      ['tlskey', config.tlsKey],
      ...(config.tlsVerify ? [['tlscacert', config.tlsCaCert]] : []),
    ])
      if (!value) throw invalid(`TLS needs --${name}`);
}

/** Where to listen. */
export type ListenAddress =
  | { kind: 'unix'; path: string }
  | { kind: 'tcp'; host: string; port: number }
  /** Sockets that a service manager passed; `which` is a number, a name, `*` or empty. */
  | { kind: 'fd'; which: string };

/** The longest path of a unix socket: sun_path has 108 bytes on Linux, 104 on macOS, with a final zero. */
const SOCKET_PATH_BYTES_MAX = 103;

/** Parses `unix:///path`, `tcp://address:port`, `fd://which`. @throws ERR_BAD_CONFIG */
export function parseHost(text: string): ListenAddress {
  const unix = /^unix:\/\/(\/.+)$/.exec(text);
  if (unix) {
    if (Buffer.byteLength(unix[1]!) > SOCKET_PATH_BYTES_MAX)
      throw invalid(
        `the socket path ${unix[1]} is longer than ${SOCKET_PATH_BYTES_MAX} bytes: choose a shorter one`,
      );
    return { kind: 'unix', path: unix[1]! };
  }
  const passed = /^fd:\/\/([\w.*@-]*)$/.exec(text);
  if (passed) return { kind: 'fd', which: passed[1]! };
  const tcp = /^tcp:\/\/(\[[0-9a-fA-F:]+\]|[^:/]*):(\d{1,5})$/.exec(text);
  if (tcp && Number(tcp[2]) <= 65535)
    return { kind: 'tcp', host: tcp[1]!.replace(/^\[|\]$/g, '') || '127.0.0.1', port: Number(tcp[2]) };
  throw invalid(`invalid bind address (${text}): write unix:///path/to/socket, tcp://address:port or fd://`);
}

/** Tells the things of several daemons on one machine apart: eight hex digits of the data root's path. */
export function instanceOf(dataRoot: string): string {
  return createHash('sha256').update(dataRoot).digest('hex').slice(0, 8);
}
