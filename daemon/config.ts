/**
 * The daemon's options: one table for flags, daemon.json and help. Flags patch the file; a key in both is an error, as
 * in dockerd, since otherwise nobody could tell which one is in force.
 */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { DrydockError, errorCode, errorMessage } from '#common/errors';
import { API_MINOR_MAX, API_MINOR_MIN } from './api/versions.ts';
import { type DaemonConfig, DEFAULTS, KEY_GROUPS, OPTIONS } from './config-options.ts';
import { valueOfFile } from './config-values.ts';
import { ULIMITS } from './container/ulimits.ts';
import { FOREIGN_OPTIONS, type ForeignUse, judgeForeign } from './foreign-options.ts';
import { LOG_LEVELS } from './log.ts';
import { defaultNetwork } from './network/defaults.ts';

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

/** Entries with those that dockerd groups below one key taken out of it. */
function flattened(object: object): [string, unknown][] {
  return Object.entries(object).flatMap(([key, value]): [string, unknown][] => {
    const members = KEY_GROUPS[key];
    if (!members) return [[key, value]];
    if (value === null || typeof value !== 'object') throw invalid(`${key} must be an object`);
    return Object.entries(value);
  });
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw invalid(errorMessage(error));
  }
}

/** Checks keys and types of a daemon.json. @throws ERR_BAD_CONFIG */
export function parseConfigFile(text: string, warn: (text: string) => void = () => {}): PartialConfig {
  // RFC 8259, 8.1: a byte order mark may be ignored; editors on Windows write it.
  const parsed = text.trim() === '' ? {} : parseJson(text.replace(/^\uFEFF/, ''));
  if (parsed === null || typeof parsed !== 'object' || Array.isArray(parsed))
    throw invalid('it must hold a JSON object');
  const found: PartialConfig = {};
  const unknown: string[] = [];
  const foreign: ForeignUse[] = [];
  for (const [written, value] of flattened(parsed)) {
    const key = KEY_ALIASES[written]?.key ?? written;
    const option = OPTIONS.find((o) => o.key === key);
    const other = FOREIGN_OPTIONS.find((o) => o.key === key);
    if (other) foreign.push({ option: other, value });
    else if (!option) unknown.push(written);
    else if (found[option.field] !== undefined)
      throw invalid(`${written} and ${option.key} must not both be specified in the config file`);
    else found[option.field] = valueOfFile(option.kind, written, KEY_ALIASES[written]?.value(value) ?? value);
  }
  if (unknown.length > 0)
    throw invalid(`the following directives don't match any configuration option: ${unknown.join(', ')}`);
  for (const warning of judgeForeign(foreign, 'key')) warn(warning);
  return found;
}

/** Names that dockerd still takes for what is another key now. */
const KEY_ALIASES: Readonly<Record<string, { key: string; value: (value: unknown) => unknown }>> = {
  'host-gateway-ip': { key: 'host-gateway-ips', value: (value) => [value] },
};

/** What dockerd takes from its environment where neither flag nor file says it. */
function ofEnvironment(environment: NodeJS.ProcessEnv): PartialConfig {
  const of = (name: string): string => environment[name] ?? environment[name.toLowerCase()] ?? '';
  return {
    httpProxy: of('HTTP_PROXY'),
    httpsProxy: of('HTTPS_PROXY'),
    noProxy: of('NO_PROXY'),
    minApiVersion: environment.DOCKER_MIN_API_VERSION ?? '',
  };
}

/** Joins flags and file over the environment and the defaults. @throws ERR_BAD_CONFIG for conflicts and impossible values */
export function effectiveConfig(
  flags: PartialConfig,
  file: PartialConfig,
  environment: NodeJS.ProcessEnv = {},
): DaemonConfig {
  const conflicts = OPTIONS.filter((o) => flags[o.field] !== undefined && file[o.field] !== undefined).map(
    (o) =>
      `${o.key}: (from flag: ${JSON.stringify(flags[o.field])}, from file: ${JSON.stringify(file[o.field])})`,
  );
  if (conflicts.length > 0)
    throw invalid(
      `the following directives are specified both as a flag and in the configuration file: ${conflicts.join(', ')}`,
    );
  const config = { ...DEFAULTS, ...ofEnvironment(environment), ...file, ...flags } as DaemonConfig;
  if (config.debug) config.logLevel = 'debug';
  if (config.tlsVerify) config.tls = true;
  verify(config);
  return config;
}

/** Fields with few possible values, and what is said of another one. */
const CHOICES: readonly [keyof DaemonConfig, readonly string[], (value: string) => string][] = [
  ['logLevel', LOG_LEVELS, (value) => `invalid log level ${value}: use one of ${LOG_LEVELS.join(', ')}`],
  ['logFormat', ['text', 'json'], (value) => `invalid log format ${value}: use text or json`],
  [
    'storageDriver',
    ['', 'overlay2', 'apfs', 'vfs'],
    (value) => `unknown storage driver ${value}: use overlay2, apfs or vfs`,
  ],
  [
    'logDriver',
    ['json-file', 'local', 'none'],
    (value) => `unknown log driver ${value}: use json-file, local or none`,
  ],
  [
    'ipcMode',
    ['private', 'shareable'],
    (value) => `IPC mode "${value}" is not supported as default: use private or shareable`,
  ],
  [
    'cgroupnsMode',
    ['private', 'host'],
    (value) => `default cgroup namespace mode "${value}" is invalid: use private or host`,
  ],
  [
    'bridge',
    ['', 'none'],
    () => 'bridge: networks are not made of kernel bridges: leave it out, or write none',
  ],
];

function verify(config: DaemonConfig): void {
  for (const [field, choices, message] of CHOICES)
    if (!choices.includes(config[field] as string)) throw invalid(message(config[field] as string));
  for (const label of config.labels)
    if (!label.includes('=')) throw invalid(`bad attribute format: ${label}: write labels as key=value`);
  for (const address of [...config.dns, ...config.hostGateways, config.bindAddress])
    if (address !== '' && isIP(address) === 0) throw invalid(`${address} is not an ip address`);
  if (new Set(config.hostGateways.map(isIP)).size < config.hostGateways.length)
    throw invalid('host-gateway-ips: only one address of each family is possible');
  if (config.mtu !== 0 && (config.mtu < 576 || config.mtu > 65520))
    throw invalid(`invalid mtu ${config.mtu}: 576 to 65520`);
  for (const option of config.execOpts) verifyExecOpt(option);
  for (const [name, value] of [
    ['max concurrent downloads', config.downloadsMax],
    ['max concurrent uploads', config.uploadsMax],
    ['max download attempts', config.downloadAttemptsMax],
  ] as const)
    if (value < 1) throw invalid(`invalid ${name}: ${value}`);
  for (const { Name, Soft, Hard } of Object.values(config.ulimits)) {
    if (!ULIMITS.has(Name)) throw invalid(`invalid ulimit type: ${Name}`);
    if (Hard !== -1 && (Soft === -1 || Soft > Hard))
      throw invalid(`ulimit soft limit must be less than or equal to hard limit: ${Soft} > ${Hard}`);
  }
  for (const mirror of config.registryMirrors) verifyMirror(mirror);
  for (const proxy of [config.httpProxy, config.httpsProxy])
    if (proxy !== '' && !/^https?:\/\/./.test(proxy))
      throw invalid(`invalid proxy ${JSON.stringify(proxy)}: write http://HOST:PORT`);
  verifyMinApiVersion(config.minApiVersion);
  defaultNetwork(config);
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

function verifyExecOpt(option: string): void {
  const [name = '', value = ''] = option.split('=');
  if (name !== 'native.cgroupdriver') throw invalid(`exec-opts: unknown option: '${name}'`);
  if (value !== 'cgroupfs')
    throw invalid(
      `exec-opts: native.cgroupdriver=${value} is not supported: control groups are made by the daemon itself: write cgroupfs`,
    );
}

/** dockerd's rules: a base URL, nothing else. */
function verifyMirror(mirror: string): void {
  const url = URL.canParse(mirror) ? new URL(mirror) : undefined;
  if (!url || !/^https?:$/.test(url.protocol))
    throw invalid(`invalid mirror: ${JSON.stringify(mirror)} is not a URL of http or https`);
  if (url.search !== '' || url.hash !== '')
    throw invalid(`invalid mirror: query or fragment at end of the URI ${JSON.stringify(mirror)}`);
  if (url.username !== '' || url.password !== '')
    throw invalid('invalid mirror: username/password not allowed in URI');
}

/** moby: daemon/config ValidateMinAPIVersion. */
function verifyMinApiVersion(version: string): void {
  if (version === '') return;
  if (/^v/i.test(version)) throw invalid('min-api-version: API version must be provided without "v" prefix');
  const [, minor = ''] = /^1\.(\d+)$/.exec(version) ?? [];
  if (minor === '' || Number(minor) < API_MINOR_MIN)
    throw invalid(`min-api-version: minimum supported API version is 1.${API_MINOR_MIN}: ${version}`);
  if (Number(minor) > API_MINOR_MAX)
    throw invalid(`min-api-version: maximum supported API version is 1.${API_MINOR_MAX}: ${version}`);
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
