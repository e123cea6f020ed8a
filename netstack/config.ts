/**
 * The configuration of a network that is run by `drydock net`: gvproxy's YAML (or JSON) file with the same keys, and some of
 * our own. Reading is strict: a key that is not known is an error that names it, since a misspelt security setting must
 * not be silence. Everything here is pure; files are read by the command.
 */
import { DrydockError, errorMessage } from '#common/errors';
import type { LogLevel, NetFile, PolicyFile, StackFile, ZoneFile } from './config-file.ts';
import { resolveHostAddresses, resolveUnix } from './config-host.ts';
import { invalid } from './config-shape.ts';
import { checkForward, type GatewayForward, type SocketForward } from './config-vpnkit.ts';
import { type CaptureFile, resolveCapture, resolveFaults, resolveMulticast } from './config-wire.ts';
import type { CaptureOptions, DhcpExtras, FaultOptions, HttpProxyConfig } from './index.ts';
import { parseLinkUrl } from './link/link-url.ts';
import type { LinkProtocol } from './link/listeners.ts';
import { type PolicyConfig, policyFaults } from './service/policy.ts';
import { parseDescriptor, parseDurationMs } from './units.ts';
import {
  formatAddress,
  formatIpv4,
  formatIpv6,
  netmask,
  parseAddress,
  parseIpv4,
  parseIpv6,
  parseMac,
} from './wire/address.ts';

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
  gatewayIp6: string | undefined;
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
  /** Names for DNS, by name. */
  names: Record<string, string>;
  hostsFile: string | undefined;
  httpProxyFile: string | undefined;
  dnsFile: string | undefined;
  /** What DHCP tells besides. */
  dhcpExtras: DhcpExtras;
  /** First and last address that DHCP gives. */
  dhcpFirst: string | undefined;
  dhcpLast: string | undefined;
  gatewayForwards: GatewayForward[];
  /** Destinations behind unix sockets of the host. */
  socketForwards: SocketForward[];
  /** Host addresses at which ports may be published; undefined: all. */
  allowedBindAddresses: string[] | undefined;
  /** What goes wrong on guests' wires, for tests. */
  faults: FaultOptions | undefined;
  /** Groups that go out to the host's network. */
  multicast: string[];
  /** Where machines plug in. */
  links: { protocol: LinkProtocol; url: string }[];
  /** A machine speaks LE16 framing on standard input and output. */
  stdio: boolean;
  sshForwards: SshForwardConfig[];
  /** Unix sockets: 9P trees by which ports are published and state is shown, state as archives, and live captures. */
  vpnkitSockets: {
    ports: string[];
    introspection: string[];
    diagnostics: string[];
    /** Frames as they pass, as pcap, for whoever connects; this much of each. */
    pcap: string[];
    snapLen: number | undefined;
  };
  /** Address of the first machine. */
  machineIp: string;
  /** Network namespaces to attach. */
  namespaces: NamespaceConfig[];
  interfaceName: string;
}

/** A network namespace, by a process in it or by its file. */
export type NamespaceConfig = { pid: number } | { namespacePath: string };

/** A unix socket of the host that leads to one in the first machine, over SSH. */
export interface SshForwardConfig {
  socket: string;
  dest: string;
  user: string;
  identity: string;
}

/** gvproxy's defaults, on which podman machine, lima and crc rely. */
const SUBNET_DEFAULT = '192.168.127.0/24';
const MTU_BYTES_DEFAULT = 1500;

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
  const gatewayMac = (stack.gatewayMacAddress ?? GATEWAY_MAC_DEFAULT).toLowerCase();
  const isOwn = (candidate: string): boolean => {
    const value = parseIpv4(candidate);
    const isHosts = value !== undefined && (value & ~mask) !== 0 && (value | mask) !== -1;
    return isHosts && ((value ^ address) & mask) === 0;
  };
  for (const [key, value] of [
    ['gatewayIP', gatewayIp],
    ['hostIP', hostIp],
    ['deviceIP', machineIp],
    ...(['dhcpFirst', 'dhcpLast'] as const).flatMap((key) =>
      stack[key] === undefined ? [] : [[key, stack[key]] as const],
    ),
    ...Object.keys(stack.dhcpStaticLeases ?? {}).map((lease) => ['dhcpStaticLeases', lease] as const),
  ] as const)
    if (!isOwn(value)) throw invalid(`stack.${key}`, `is "${value}", no address of a host in ${subnet}`);
  for (const [lease, mac] of Object.entries(stack.dhcpStaticLeases ?? {}))
    if (parseMac(mac) === undefined)
      throw invalid(`stack.dhcpStaticLeases.${lease}`, `is "${mac}", no MAC address`);

  const policy = resolvePolicy({
    ...stack.policy,
    default: stack.policy?.default ?? (stack.blockAllOutbound ? 'deny' : 'allow'),
    metadata: stack.policy?.metadata ?? file['ec2-metadata-access'] ?? stack.ec2MetadataAccess ?? false,
  });
  return {
    listen: file.listen ?? [],
    services: file.services,
    logLevel: file['log-level'] ?? (stack.debug ? 'debug' : 'info'),
    logFile: file['log-file'],
    pidFile: file['pid-file'],
    leaseFile: file['lease-file'],
    mtuBytes: stack.mtu ?? MTU_BYTES_DEFAULT,
    subnet,
    subnet6: stack.subnet6 ?? resolveSubnet6(stack.gatewayIPv6),
    gatewayIp,
    gatewayIp6: stack.gatewayIPv6,
    gatewayMac,
    hostAddresses: resolveHostAddresses(stack, gatewayIp, hostIp),
    notification: resolveUnix('notification', file.notification),
    zones: (stack.dns ?? defaultZones(gatewayIp, hostIp)).map((shape, index) =>
      readZone(shape, `stack.dns[${index}]`),
    ),
    searchDomains: stack.dnsSearchDomains ?? [],
    forwards: stack.forwards ?? {},
    // The gateway has its address anyway, and is among the leases that are shown; lima names it.
    staticLeases: Object.fromEntries(
      Object.entries(stack.dhcpStaticLeases ?? {}).filter(
        ([lease, mac]) => lease !== gatewayIp || mac.toLowerCase() !== gatewayMac,
      ),
    ),
    upstreams: stack.dnsUpstreams,
    domain: stack.domain,
    policy,
    httpProxy: stack.httpProxy,
    names: Object.fromEntries([
      ...(stack.hostNames ?? []).map((name) => [name, hostIp]),
      ...(stack.gatewayNames ?? []).map((name) => [name, gatewayIp]),
      ...(stack.machineNames ?? []).map((name) => [name, machineIp]),
    ]),
    httpProxyFile: stack.httpProxyFile,
    hostsFile: stack.hostsFile,
    dnsFile: stack.dnsFile,
    dhcpExtras: resolveDhcpExtras(stack),
    dhcpFirst: stack.dhcpFirst,
    dhcpLast: stack.dhcpLast,
    gatewayForwards: (stack.gatewayForwards ?? []).map((entry, index) =>
      checkForward(entry, `stack.gatewayForwards[${index}]`),
    ),
    socketForwards: stack.socketForwards ?? [],
    allowedBindAddresses: resolveBindAddresses(stack.allowedBindAddresses),
    machineMacs: stack.vpnKitUUIDMacAddresses ?? {},
    // Live captures for VPNKit's clients take the length too.
    capture: resolveCapture(file.vpnkit?.pcap && !stack['capture-file'] ? withoutSnapLen(stack) : stack),
    faults: resolveFaults(stack.faults),
    multicast: resolveMulticast(stack.multicast),
    links: (['vpnkit', 'qemu', 'bess', 'vfkit'] as const).flatMap((protocol) => {
      const url = file.interfaces?.[protocol];
      if (url === undefined) return [];
      parseLinkUrl(protocol, url);
      return [{ protocol, url }];
    }),
    stdio: file.interfaces?.stdio !== undefined,
    sshForwards: (file.forwards ?? []).map((forward, index) => {
      const { socket, dest, user, identity } = forward;
      if (!socket || !dest || !user || !identity)
        throw invalid(`forwards[${index}]`, 'needs all of socket, dest, user and identity');
      return { socket: requireSocketPath(`forwards[${index}].socket`, socket), dest, user, identity };
    }),
    vpnkitSockets: {
      ports: requirePaths('vpnkit.ports (--port)', file.vpnkit?.ports),
      introspection: requirePaths('vpnkit.introspection (--introspection)', file.vpnkit?.introspection),
      diagnostics: requirePaths('vpnkit.diagnostics (--diagnostics)', file.vpnkit?.diagnostics),
      pcap: requirePaths('vpnkit.pcap (--pcap)', file.vpnkit?.pcap),
      snapLen: stack['capture-snaplen'],
    },
    machineIp,
    namespaces: (file.namespaces ?? []).map(resolveNamespace),
    interfaceName: file.interface ?? 'tap0',
  };
}

function resolveDhcpExtras({ dhcpRoutes, ipv6OnlyWait, proxyAutoConfigUrl }: StackFile): DhcpExtras {
  const waitMs = ipv6OnlyWait === undefined ? undefined : parseDurationMs(ipv6OnlyWait);
  if (ipv6OnlyWait !== undefined && waitMs === undefined)
    throw invalid('stack.ipv6OnlyWait', `is "${ipv6OnlyWait}", no duration like 1800s`);
  return {
    ...(dhcpRoutes && { dhcpRoutes }),
    ...(waitMs !== undefined && { ipv6OnlyWaitMs: waitMs }),
    ...(proxyAutoConfigUrl !== undefined && { proxyAutoConfigUrl }),
  };
}

function withoutSnapLen({ 'capture-snaplen': _length, ...rest }: CaptureFile): CaptureFile {
  return rest;
}

/** A socket as gvproxy takes it: a path, or `unix://` and a path. */
function requireSocketPath(place: string, socket: string): string {
  const [scheme, path] = socket.includes('://') ? socket.split('://', 2) : ['unix', socket];
  if (scheme !== 'unix' || !path)
    throw invalid(place, `is "${socket}", which is not the path of a unix socket`);
  return path;
}

/** Sockets as VPNKit takes them: paths, and `fd:N` of whoever started it. Its other forms are Windows's. */
function requirePaths(place: string, paths: string[] = []): string[] {
  for (const path of paths)
    if (!path.startsWith('/') && parseDescriptor(path) === undefined)
      throw invalid(place, `is "${path}", which is neither the path of a unix socket nor fd:N`);
  return paths;
}

/** gvproxy's `gatewayIPv6` names no prefix: it is the one of 64 bits, of which machines form their addresses. */
function resolveSubnet6(gateway: string | undefined): string | undefined {
  if (gateway === undefined) return undefined;
  const address = parseIpv6(gateway);
  if (!address) throw invalid('stack.gatewayIPv6', `is "${gateway}", no IPv6 address like fd00::1`);
  return `${formatIpv6(address.fill(0, 8), 0)}/64`;
}

function resolveBindAddresses(addresses: string[] | undefined): string[] | undefined {
  return addresses?.map((text) => {
    const address = parseAddress(text);
    if (!address) throw invalid('stack.allowedBindAddresses', `has "${text}", which is no IP address`);
    return formatAddress(address, 0);
  });
}

/**
 * A policy of a file, in full.
 * @throws DrydockError ERR_NET_CONFIG_INVALID
 */
export function resolvePolicy(file: PolicyFile): PolicyConfig {
  const policy: PolicyConfig = {
    default: file.default ?? 'allow',
    rules: (file.rules ?? []).map((entry, index) => {
      if (!entry.action) throw invalid(`stack.policy.rules[${index}]`, 'has no action');
      return { ...entry, action: entry.action };
    }),
    metadata: file.metadata ?? false,
  };
  const [fault] = policyFaults(policy);
  if (fault) throw new DrydockError('ERR_NET_CONFIG_INVALID', `stack.policy: ${fault}`);
  return policy;
}

/** A pid, the path of a namespace's file, or a name as of `ip netns`. */
function resolveNamespace(text: string): NamespaceConfig {
  if (/^\d+$/.test(text)) return { pid: Number(text) };
  if (text.includes('/')) return { namespacePath: text };
  if (text === '' || text === '.' || text === '..')
    throw invalid('namespaces', `has "${text}", which is no pid, name or path of a network namespace`);
  return { namespacePath: `/run/netns/${text}` };
}
