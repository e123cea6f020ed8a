/**
 * The configuration of a network that is run by `drydock net`: gvproxy's YAML (or JSON) file with the same keys, and some of
 * our own. Reading is strict: a key that is not known is an error that names it, since a misspelt security setting must
 * not be silence. Everything here is pure; files are read by the command.
 */
import { parse } from 'yaml';
import { DrydockError, errorMessage } from '#common/errors';
import { type HostFile, resolveHostAddresses, resolveNotification } from './config-host.ts';
import {
  type CaptureFile,
  type FaultsFile,
  resolveCapture,
  resolveFaults,
  resolveMulticast,
} from './config-wire.ts';
import type { CaptureOptions, FaultOptions, HttpProxyConfig } from './index.ts';
import type { LinkProtocol } from './link/listeners.ts';
import { type PolicyAction, type PolicyConfig, type PolicyRule, policyFaults } from './service/policy.ts';
import { formatIpv4, netmask, parseAddress, parseIpv4, parseMac } from './wire/address.ts';

/** What gvproxy's clients take for granted when there is no file: its MAC addresses, and a forward to the guest's ssh. */
const GATEWAY_MAC_DEFAULT = '5a:94:ef:e4:0c:dd';
const MACHINE_MAC_DEFAULT = '5a:94:ef:e4:0c:ee';
const MACHINE_UUID_DEFAULT = 'c3d68012-0208-11ea-9fd7-f2189899ab08';
const SSH_PORT_DEFAULT = 2222;

/** Names as in gvproxy's file: a record is a name below the zone, or a pattern of such names, and its address. */
export interface ZoneConfig {
  name: string;
  records: { name?: string; regexp?: string; ip: string }[];
  defaultIP?: string;
}

/** A network in full, with defaults filled in. */
export interface NetConfig {
  /** Control endpoints with everything, `unix:///path` or `tcp://address:port`. */
  listen: string[];
  /** Control endpoint without /connect. */
  services: string | undefined;
  logLevel: LogLevel;
  logFile: string | undefined;
  pidFile: string | undefined;
  /** Where DHCP's leases are kept between runs. */
  leaseFile: string | undefined;
  mtuBytes: number;
  subnet: string;
  /** IPv6 subnet in CIDR form; undefined: none. */
  subnet6: string | undefined;
  gatewayIp: string;
  gatewayMac: string;
  /** Addresses that are the gateway's besides its own, and where on the host's side each leads. */
  hostAddresses: Record<string, string>;
  /** Socket of a program that hears gvproxy's notifications. */
  notification: string | undefined;
  zones: ZoneConfig[];
  searchDomains: string[];
  /** Local endpoint to guest endpoint; `udp:` before the local one for UDP. */
  forwards: Record<string, string>;
  /** Address to MAC. */
  staticLeases: Record<string, string>;
  upstreams: string[] | undefined;
  domain: string | undefined;
  policy: PolicyConfig;
  httpProxy: HttpProxyConfig | undefined;
  /** MAC address by the uuid of a machine that speaks VPNKit's handshake. */
  machineMacs: Record<string, string>;
  capture: CaptureOptions | undefined;
  /** What goes wrong on guests' wires, for tests. */
  faults: FaultOptions | undefined;
  /** Groups that go out to the host's network. */
  multicast: string[];
  /** Where machines plug in. */
  links: { protocol: LinkProtocol; url: string }[];
  /** A machine speaks LE16 framing on standard input and output. */
  stdio: boolean;
  sshForwards: SshForwardConfig[];
  /** Address of the first machine. */
  machineIp: string;
  /** Network namespaces to attach. */
  namespaces: NamespaceConfig[];
  interfaceName: string;
}

/** A network namespace, by a process in it or by its file. */
export type NamespaceConfig = { pid: number } | { namespacePath: string };

export type LogLevel = 'debug' | 'info' | 'warn' | 'error';
export const LOG_LEVELS: readonly LogLevel[] = ['debug', 'info', 'warn', 'error'];

/** gvproxy's defaults, on which podman machine, lima and crc rely. */
const SUBNET_DEFAULT = '192.168.127.0/24';
const MTU_BYTES_DEFAULT = 1500;

function invalid(path: string, what: string): DrydockError {
  return new DrydockError('ERR_NET_CONFIG_INVALID', `${path || 'The configuration'} ${what}.`);
}

type Reader<T> = (value: unknown, path: string) => T;

const text: Reader<string> = (value, path) => {
  if (typeof value !== 'string') throw invalid(path, 'must be a text');
  return value;
};
const bool: Reader<boolean> = (value, path) => {
  if (typeof value !== 'boolean') throw invalid(path, 'must be true or false');
  return value;
};
const whole: Reader<number> = (value, path) => {
  if (!Number.isInteger(value)) throw invalid(path, 'must be a whole number');
  return value as number;
};
/** A port or range is a number or a text in YAML, as it comes. */
const textOrNumber: Reader<string> = (value, path) =>
  typeof value === 'number' ? String(value) : text(value, path);
const oneOf =
  <T extends string>(...values: readonly T[]): Reader<T> =>
  (value, path) => {
    if (!values.includes(value as T)) throw invalid(path, `must be one of ${values.join(', ')}`);
    return value as T;
  };
const list =
  <T>(item: Reader<T>): Reader<T[]> =>
  (value, path) => {
    if (!Array.isArray(value)) throw invalid(path, 'must be a list');
    return value.map((element, index) => item(element, `${path}[${index}]`));
  };
const textMap: Reader<Record<string, string>> = (value, path) => {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw invalid(path, 'must be a mapping of texts');
  return Object.fromEntries(
    Object.entries(value).map(([key, element]) => [key, text(element, `${path}.${key}`)]),
  );
};

type Fields = Record<string, Reader<unknown>>;
type Shape<F extends Fields> = { [K in keyof F]?: ReturnType<F[K]> };

/** A mapping with these keys, all of them optional, and no others. */
const mapping =
  <F extends Fields>(fields: F): Reader<Shape<F>> =>
  (value, path) => {
    if (value === null || value === undefined) return {};
    if (typeof value !== 'object' || Array.isArray(value)) throw invalid(path, 'must be a mapping');
    const result: Record<string, unknown> = {};
    for (const [key, element] of Object.entries(value)) {
      const at = path ? `${path}.${key}` : key;
      const reader = Object.hasOwn(fields, key) ? fields[key] : undefined;
      if (!reader) throw invalid(at, `is not known here. Known are: ${Object.keys(fields).join(', ')}`);
      if (element !== null) result[key] = reader(element, at);
    }
    return result as Shape<F>;
  };

const record = mapping({ name: text, ip: text, regexp: text });
const zone = mapping({ name: text, records: list(record), defaultIP: text });
const rule = mapping({
  action: oneOf<PolicyAction>('allow', 'deny'),
  cidr: text,
  port: textOrNumber,
  protocol: oneOf('tcp', 'udp', 'icmp'),
  name: text,
  sni: text,
});

const policyShape = mapping({
  default: oneOf<PolicyAction>('allow', 'deny'),
  rules: list(rule),
  metadata: bool,
});

/** A file, or flags in its place: gvproxy's keys and ours, as they are written. */
export interface NetFile {
  listen?: string[];
  services?: string;
  'log-level'?: LogLevel;
  'log-file'?: string;
  'pid-file'?: string;
  'lease-file'?: string;
  'ec2-metadata-access'?: boolean;
  notification?: string;
  interfaces?: { vpnkit?: string; qemu?: string; bess?: string; stdio?: string; vfkit?: string };
  stack?: StackFile;
  forwards?: Partial<SshForwardConfig>[];
  namespaces?: string[];
  interface?: string;
}

/** A unix socket of the host that leads to one in the first machine, over SSH. */
export interface SshForwardConfig {
  socket: string;
  dest: string;
  user: string;
  identity: string;
}

/** The part `stack` of a file. */
export interface StackFile extends CaptureFile, HostFile {
  mtu?: number;
  subnet?: string;
  subnet6?: string;
  gatewayIP?: string;
  gatewayMacAddress?: string;
  deviceIP?: string;
  debug?: boolean;
  dns?: ZoneFile[];
  dnsSearchDomains?: string[];
  forwards?: Record<string, string>;
  dhcpStaticLeases?: Record<string, string>;
  vpnKitUUIDMacAddresses?: Record<string, string>;
  ec2MetadataAccess?: boolean;
  blockAllOutbound?: boolean;
  dnsUpstreams?: string[];
  domain?: string;
  httpProxy?: HttpProxyConfig;
  policy?: PolicyFile;
  faults?: FaultsFile;
  multicast?: string[];
}

/** `stack.policy` of a file. */
export interface PolicyFile {
  default?: PolicyAction;
  rules?: Partial<PolicyRule>[];
  metadata?: boolean;
}

/** A zone of a file. */
export interface ZoneFile {
  name?: string;
  records?: { name?: string; ip?: string; regexp?: string }[];
  defaultIP?: string;
}

const readFile: Reader<NetFile> = mapping({
  listen: list(text),
  services: text,
  'log-level': oneOf(...LOG_LEVELS),
  'log-file': text,
  'pid-file': text,
  'lease-file': text,
  'ec2-metadata-access': bool,
  notification: text,
  interfaces: mapping({ vpnkit: text, qemu: text, bess: text, stdio: text, vfkit: text }),
  stack: mapping({
    mtu: whole,
    subnet: text,
    subnet6: text,
    gatewayIP: text,
    gatewayMacAddress: text,
    deviceIP: text,
    hostIP: text,
    nat: textMap,
    gatewayVirtualIPs: list(text),
    debug: bool,
    dns: list(zone),
    dnsSearchDomains: list(text),
    forwards: textMap,
    dhcpStaticLeases: textMap,
    vpnKitUUIDMacAddresses: textMap,
    'capture-file': text,
    ec2MetadataAccess: bool,
    blockAllOutbound: bool,
    // Ours:
    dnsUpstreams: list(text),
    domain: text,
    httpProxy: mapping({
      port: whole,
      http: text,
      https: text,
      exclude: text,
      transparentHttpPorts: list(whole),
      transparentHttpsPorts: list(whole),
    }),
    policy: policyShape,
    'capture-filter': text,
    'capture-size': textOrNumber,
    'capture-files': whole,
    faults: mapping({
      drop: textOrNumber,
      delay: textOrNumber,
      jitter: textOrNumber,
      reorder: textOrNumber,
      duplicate: textOrNumber,
      corrupt: textOrNumber,
      seed: whole,
    }),
    multicast: list(text),
  }),
  forwards: list(mapping({ socket: text, dest: text, user: text, identity: text })),
  // Ours:
  namespaces: list(textOrNumber),
  interface: text,
});

/**
 * Reads a file's text; JSON is YAML.
 * @throws DrydockError ERR_NET_CONFIG_INVALID
 */
export function parseNetFile(content: string): NetFile {
  return readFile(parseYaml(content), '');
}

/**
 * Reads the file of `--policy`: what `stack.policy` holds, and `PUT /policy` takes.
 * @throws DrydockError ERR_NET_CONFIG_INVALID
 */
export function parsePolicyFile(content: string): PolicyFile {
  return policyShape(parseYaml(content), '');
}

function parseYaml(content: string): unknown {
  try {
    return parse(content, { maxAliasCount: 100 });
  } catch (error) {
    throw new DrydockError('ERR_NET_CONFIG_INVALID', `The configuration is no YAML: ${errorMessage(error)}`, {
      cause: error,
    });
  }
}

/** Zones that every gvproxy network has: how guests name the host and the gateway. */
function defaultZones(gatewayIp: string, hostIp: string): ZoneConfig[] {
  const records = [
    { name: 'gateway', ip: gatewayIp },
    { name: 'host', ip: hostIp },
  ];
  return ['containers.internal.', 'docker.internal.'].map((name) => ({ name, records }));
}

function readZone(shape: ZoneFile, path: string): ZoneConfig {
  if (shape.name === undefined) throw invalid(path, 'has no name');
  const records = (shape.records ?? []).map((entry, index) => {
    const at = `${path}.records[${index}]`;
    if (entry.ip === undefined || !parseAddress(entry.ip)) throw invalid(at, 'has no IP address in "ip"');
    if ((entry.name === undefined) === (entry.regexp === undefined))
      throw invalid(at, 'needs either a name or a regexp');
    if (entry.regexp !== undefined) compilePattern(entry.regexp, at);
    return { ...entry, ip: entry.ip };
  });
  if (shape.defaultIP !== undefined && !parseAddress(shape.defaultIP))
    throw invalid(`${path}.defaultIP`, `is "${shape.defaultIP}", no IP address`);
  return {
    name: shape.name,
    records,
    ...(shape.defaultIP !== undefined && { defaultIP: shape.defaultIP }),
  };
}

/**
 * A zone record's pattern. Go's and JavaScript's syntax agree in what is used for host names.
 * @throws DrydockError ERR_NET_CONFIG_INVALID
 */
export function compilePattern(pattern: string, path: string): RegExp {
  try {
    return new RegExp(pattern);
  } catch (error) {
    throw invalid(path, `has a regexp that is none: ${errorMessage(error)}`);
  }
}

const vpnkitHttp = mapping({
  http: text,
  https: text,
  exclude: text,
  transparent_http_ports: list(whole),
  transparent_https_ports: list(whole),
});

/**
 * Reads the file of VPNKit's `--http`: upstream proxies, by which ports 80 and 443 go unless it says otherwise, and which the
 * explicit proxy at VPNKit's port 3128 of the gateway uses.
 * @throws DrydockError ERR_NET_CONFIG_INVALID
 */
export function parseVpnkitHttp(content: string): HttpProxyConfig {
  const file = vpnkitHttp(parseYaml(content), '');
  return {
    port: 3128,
    ...(file.http !== undefined && {
      http: file.http,
      transparentHttpPorts: file.transparent_http_ports ?? [80],
    }),
    ...(file.https !== undefined && {
      https: file.https,
      transparentHttpsPorts: file.transparent_https_ports ?? [443],
    }),
    ...(file.exclude !== undefined && { exclude: file.exclude }),
  };
}

/**
 * What gvproxy adds when it is started without a file: the first guest has a known address and MAC, and its port 22 is published.
 * @param sshPort -1: no forward. Undefined: 2222, when a machine can plug in.
 */
export function withMachineDefaults(file: NetFile, sshPort: number | undefined): NetFile {
  if (sshPort !== undefined && sshPort !== -1 && !(sshPort >= 1024 && sshPort <= 65535))
    throw invalid('ssh-port', `is ${sshPort}, not from 1024 to 65535, or -1 for none`);
  const stack = file.stack ?? {};
  const [network = ''] = (stack.subnet ?? SUBNET_DEFAULT).split('/');
  const first = parseIpv4(network);
  if (first === undefined || (sshPort === undefined && !file.interfaces && !file.listen)) return file;
  const machine = stack.deviceIP ?? formatIpv4(first + 2);
  return {
    ...file,
    stack: {
      ...stack,
      dhcpStaticLeases: { [machine]: MACHINE_MAC_DEFAULT },
      vpnKitUUIDMacAddresses: { [MACHINE_UUID_DEFAULT]: MACHINE_MAC_DEFAULT },
      forwards: {
        ...(sshPort === -1 ? {} : { [`127.0.0.1:${sshPort ?? SSH_PORT_DEFAULT}`]: `${machine}:22` }),
        ...stack.forwards,
      },
    },
  };
}

/**
 * Fills in defaults and checks what belongs together.
 * @throws DrydockError ERR_NET_CONFIG_INVALID
 */
export function resolveNetConfig(file: NetFile): NetConfig {
  const stack = file.stack ?? {};
  const subnet = stack.subnet ?? SUBNET_DEFAULT;
  const [networkText, lengthText] = subnet.split('/');
  const prefixLength = Number(lengthText);
  const address = parseIpv4(networkText ?? '');
  // gvproxy's rule: network, broadcast, gateway, a guest and the host's address must fit.
  if (address === undefined || !Number.isInteger(prefixLength) || prefixLength < 1 || prefixLength > 29)
    throw invalid('stack.subnet', `is "${subnet}", no IPv4 subnet like 192.168.127.0/24, up to /29`);
  const mask = netmask(prefixLength);
  const gatewayIp = stack.gatewayIP ?? formatIpv4((address & mask) + 1);
  const hostIp = stack.hostIP ?? formatIpv4(((address | ~mask) >>> 0) - 1);
  const machineIp = stack.deviceIP ?? formatIpv4((address & mask) + 2);
  const isOwn = (candidate: string): boolean => {
    const value = parseIpv4(candidate);
    return value !== undefined && ((value ^ address) & mask) === 0;
  };
  for (const [key, value] of [
    ['gatewayIP', gatewayIp],
    ['hostIP', hostIp],
    ['deviceIP', machineIp],
    ...Object.keys(stack.dhcpStaticLeases ?? {}).map((lease) => ['dhcpStaticLeases', lease] as const),
  ] as const)
    if (!isOwn(value)) throw invalid(`stack.${key}`, `is "${value}", no address in ${subnet}`);
  for (const [lease, mac] of Object.entries(stack.dhcpStaticLeases ?? {}))
    if (parseMac(mac) === undefined)
      throw invalid(`stack.dhcpStaticLeases.${lease}`, `is "${mac}", no MAC address`);

  const policy: PolicyConfig = {
    default: stack.policy?.default ?? (stack.blockAllOutbound ? 'deny' : 'allow'),
    rules: (stack.policy?.rules ?? []).map((entry, index) => {
      if (!entry.action) throw invalid(`stack.policy.rules[${index}]`, 'has no action');
      return { ...entry, action: entry.action };
    }),
    metadata: stack.policy?.metadata ?? file['ec2-metadata-access'] ?? stack.ec2MetadataAccess ?? false,
  };
  const [fault] = policyFaults(policy);
  if (fault) throw new DrydockError('ERR_NET_CONFIG_INVALID', `stack.policy: ${fault}`);
  return {
    listen: file.listen ?? [],
    services: file.services,
    logLevel: file['log-level'] ?? (stack.debug ? 'debug' : 'info'),
    logFile: file['log-file'],
    pidFile: file['pid-file'],
    leaseFile: file['lease-file'],
    mtuBytes: stack.mtu ?? MTU_BYTES_DEFAULT,
    subnet,
    subnet6: stack.subnet6,
    gatewayIp,
    gatewayMac: stack.gatewayMacAddress ?? GATEWAY_MAC_DEFAULT,
    hostAddresses: resolveHostAddresses(stack, gatewayIp, hostIp),
    notification: resolveNotification(file.notification),
    zones: (stack.dns ?? defaultZones(gatewayIp, hostIp)).map((shape, index) =>
      readZone(shape, `stack.dns[${index}]`),
    ),
    searchDomains: stack.dnsSearchDomains ?? [],
    forwards: stack.forwards ?? {},
    staticLeases: stack.dhcpStaticLeases ?? {},
    upstreams: stack.dnsUpstreams,
    domain: stack.domain,
    policy,
    httpProxy: stack.httpProxy,
    machineMacs: stack.vpnKitUUIDMacAddresses ?? {},
    capture: resolveCapture(stack),
    faults: resolveFaults(stack.faults),
    multicast: resolveMulticast(stack.multicast),
    links: (['vpnkit', 'qemu', 'bess', 'vfkit'] as const).flatMap((protocol) => {
      const url = file.interfaces?.[protocol];
      return url === undefined ? [] : [{ protocol, url }];
    }),
    stdio: file.interfaces?.stdio !== undefined,
    sshForwards: (file.forwards ?? []).map((forward, index) => {
      const { socket, dest, user, identity } = forward;
      if (!socket || !dest || !user || !identity)
        throw invalid(`forwards[${index}]`, 'needs all of socket, dest, user and identity');
      return { socket, dest, user, identity };
    }),
    machineIp,
    namespaces: (file.namespaces ?? []).map(resolveNamespace),
    interfaceName: file.interface ?? 'tap0',
  };
}

/** A pid, the path of a namespace's file, or a name as of `ip netns`. */
function resolveNamespace(text: string): NamespaceConfig {
  if (/^\d+$/.test(text)) return { pid: Number(text) };
  if (text.includes('/')) return { namespacePath: text };
  if (text === '' || text === '.' || text === '..')
    throw invalid('namespaces', `has "${text}", which is no pid, name or path of a network namespace`);
  return { namespacePath: `/run/netns/${text}` };
}
