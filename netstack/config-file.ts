/**
 * The file of `drydock net`: gvproxy's keys and ours, as they are written. Pure.
 */
import type { SshForwardConfig } from './config.ts';
import type { HostFile } from './config-host.ts';
import {
  bool,
  list,
  mapping,
  oneOf,
  parseYaml,
  type Reader,
  text,
  textMap,
  textOrNumber,
  whole,
} from './config-shape.ts';
import { type GatewayForward, type SocketForward, socketForward } from './config-vpnkit.ts';
import type { CaptureFile, FaultsFile } from './config-wire.ts';
import type { HttpProxyConfig } from './index.ts';
import type { PolicyAction, PolicyRule } from './service/policy.ts';

export type LogLevel = 'debug' | 'info' | 'warn' | 'error';
export const LOG_LEVELS: readonly LogLevel[] = ['debug', 'info', 'warn', 'error'];
/** Other names that gvproxy takes, in any case. */
const LOG_LEVEL_NAMES: Readonly<Record<string, LogLevel>> = {
  trace: 'debug',
  warning: 'warn',
  fatal: 'error',
  panic: 'error',
};
const logLevel: Reader<LogLevel> = (value, path) => {
  const name = typeof value === 'string' ? value.toLowerCase() : value;
  return oneOf(...LOG_LEVELS)(
    typeof name === 'string' && Object.hasOwn(LOG_LEVEL_NAMES, name) ? LOG_LEVEL_NAMES[name] : name,
    path,
  );
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
  /** Sockets that VPNKit's clients know: of `--port`, `--introspection`, `--diagnostics` and `--pcap`. */
  vpnkit?: { ports?: string[]; introspection?: string[]; diagnostics?: string[]; pcap?: string[] };
  namespaces?: string[];
  interface?: string;
}

/** The part `stack` of a file. */
export interface StackFile extends CaptureFile, HostFile {
  mtu?: number;
  subnet?: string;
  subnet6?: string;
  gatewayIP?: string;
  gatewayIPv6?: string;
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
  /** Names of the host, the gateway and the first machine, for DNS. */
  hostNames?: string[];
  gatewayNames?: string[];
  machineNames?: string[];
  /** HTTP proxies as of VPNKit's `--http`, followed. */
  httpProxyFile?: string;
  /** Names as of hosts(5), followed. */
  hostsFile?: string;
  /** Resolvers as of VPNKit's `--dns`, followed. */
  dnsFile?: string;
  dhcpRoutes?: Record<string, string>;
  ipv6OnlyWait?: string;
  proxyAutoConfigUrl?: string;
  dhcpFirst?: string;
  dhcpLast?: string;
  gatewayForwards?: Partial<GatewayForward>[];
  socketForwards?: SocketForward[];
  allowedBindAddresses?: string[];
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
  'log-level': logLevel,
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
    gatewayIPv6: text,
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
      allow: list(text),
      allowMessage: text,
    }),
    policy: policyShape,
    'capture-filter': text,
    'capture-size': textOrNumber,
    'capture-files': whole,
    'capture-snaplen': whole,
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
    hostNames: list(text),
    gatewayNames: list(text),
    machineNames: list(text),
    httpProxyFile: text,
    hostsFile: text,
    dnsFile: text,
    dhcpRoutes: textMap,
    ipv6OnlyWait: textOrNumber,
    proxyAutoConfigUrl: text,
    dhcpFirst: text,
    dhcpLast: text,
    gatewayForwards: list(
      mapping({ protocol: oneOf('tcp', 'udp'), port: whole, address: text, targetPort: whole }),
    ),
    socketForwards: list(socketForward),
    allowedBindAddresses: list(text),
  }),
  forwards: list(mapping({ socket: text, dest: text, user: text, identity: text })),
  // Ours:
  vpnkit: mapping({
    ports: list(text),
    introspection: list(text),
    diagnostics: list(text),
    pcap: list(text),
  }),
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
