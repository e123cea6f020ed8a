/**
 * VPNKit's configuration files (vpnkit's src/hostnet: dns_forward_config.ml, hostnet_http.ml, forwards.ml), read into what a network
 * has for it. Everything here is pure; files are read, and followed, by the command.
 */
import { DrydockError } from '#common/errors';
import { bool, list, mapping, oneOf, parseYaml, type Reader, text, whole } from './config-shape.ts';
import type { HttpProxyConfig } from './index.ts';
import { parseUpstream, type Upstream } from './service/dns/upstreams.ts';
import { parseAddress } from './wire/address.ts';

/** VPNKit's own words (hostnet_http.ml). */
const ALLOW_MESSAGE_DEFAULT =
  'Connections to %s are forbidden by policy. Please contact your IT administrator.';
/** The port of the gateway at which VPNKit has its explicit proxy. */
const PROXY_PORT = 3128;
/** An order that leaves room on both sides. */
const TIMEOUT_MS_MAX = 600_000;

function invalid(what: string): DrydockError {
  return new DrydockError('ERR_NET_CONFIG_INVALID', what);
}

const vpnkitHttp = mapping({
  http: text,
  https: text,
  exclude: text,
  transparent_http_ports: list(whole),
  transparent_https_ports: list(whole),
  allow_enabled: bool,
  allow: list(text),
  allow_error_msg: text,
});

/**
 * Reads the file of `--http`, which is also the body of `POST /http_proxy.json`: upstream proxies, by which ports 80 and 443 go
 * unless it says otherwise, and which the explicit proxy at the gateway's port 3128 uses; and what may be reached by them.
 * @throws DrydockError ERR_NET_CONFIG_INVALID
 */
export function parseVpnkitHttp(content: string): HttpProxyConfig {
  return readVpnkitHttp(parseYaml(content));
}

/**
 * The same of a value that is parsed already.
 * @throws DrydockError ERR_NET_CONFIG_INVALID
 */
export function readVpnkitHttp(value: unknown): HttpProxyConfig {
  const file = vpnkitHttp(value, '');
  const allows = file.allow_enabled === true;
  return {
    port: PROXY_PORT,
    ...(file.http !== undefined && { http: file.http }),
    ...((file.http !== undefined || allows) && { transparentHttpPorts: file.transparent_http_ports ?? [80] }),
    ...(file.https !== undefined && { https: file.https }),
    ...((file.https !== undefined || allows) && {
      transparentHttpsPorts: file.transparent_https_ports ?? [443],
    }),
    ...(file.exclude !== undefined && { exclude: file.exclude }),
    ...(allows && { allow: file.allow ?? [], allowMessage: file.allow_error_msg ?? ALLOW_MESSAGE_DEFAULT }),
  };
}

/** The settings as `GET /http_proxy.json` tells them, with VPNKit's defaults filled in. */
export function formatVpnkitHttp(config: HttpProxyConfig): Record<string, unknown> {
  const { http, https, exclude, allow, allowMessage, transparentHttpPorts, transparentHttpsPorts } = config;
  return {
    ...(http !== undefined && { http }),
    ...(https !== undefined && { https }),
    exclude: exclude ?? '',
    transparent_http_ports: transparentHttpPorts ?? [80],
    transparent_https_ports: transparentHttpsPorts ?? [443],
    allow_enabled: allow !== undefined,
    allow: allow ?? [],
    allow_error_msg: allowMessage ?? ALLOW_MESSAGE_DEFAULT,
  };
}

/** What the file of `--dns` says. */
export interface VpnkitDns {
  upstreams: Upstream[];
  search: string[];
}

/**
 * Reads the file of `--dns`: `nameserver`, and behind it the `zone`, `timeout` (ms) and `order` of that server; `search`.
 * `assume-offline-after` is taken and needs nothing: a server that does not answer once is asked after the others anyway.
 * @throws DrydockError ERR_NET_CONFIG_INVALID
 */
export function parseVpnkitDns(content: string): VpnkitDns {
  const upstreams: { -readonly [K in keyof Upstream]: Upstream[K] }[] = [];
  const search: string[] = [];
  for (const [index, line] of content.split('\n').entries()) {
    const [keyword = '', ...values] = line
      .replace(/#\s.*$|^#.*$/, '')
      .trim()
      .split(/\s+/);
    const wrong = (): DrydockError =>
      invalid(`Line ${index + 1} of the DNS file is wrong: "${line.trim()}".`);
    const number = (max: number): number => {
      if (values.length !== 1 || !/^\d{1,9}$/.test(values[0]!) || Number(values[0]) > max) throw wrong();
      return Number(values[0]);
    };
    const last = upstreams.at(-1);
    if (keyword === '') continue;
    if (keyword === 'nameserver') {
      const upstream = values.length === 1 ? parseUpstream(values[0]!) : undefined;
      if (!upstream || values[0]!.includes('/')) throw wrong();
      upstreams.push({ ...upstream });
    } else if (keyword === 'search') search.push(...values);
    else if (keyword === 'assume-offline-after') number(TIMEOUT_MS_MAX);
    else if (!last) throw wrong();
    else if (keyword === 'zone' && values.length > 0) last.domains = values;
    else if (keyword === 'timeout') last.timeoutMs = Math.max(1, number(TIMEOUT_MS_MAX));
    else if (keyword === 'order') last.order = number(999_999_999);
    else throw wrong();
  }
  return { upstreams, search };
}

const vpnkitDhcp = mapping({ searchDomains: list(text), domainName: text });

/**
 * Reads the file of `--dhcp-path`.
 * @throws DrydockError ERR_NET_CONFIG_INVALID
 */
export function parseVpnkitDhcp(content: string): { searchDomains?: string[]; domainName?: string } {
  return vpnkitDhcp(parseYaml(content), '');
}

/** A port of the gateway that leads to an address of the host's side. */
export interface GatewayForward {
  protocol: 'tcp' | 'udp';
  /** Port of the gateway. */
  port: number;
  /** Where it leads, as the host reaches it. */
  address: string;
  targetPort: number;
}

const gatewayForwards = list(
  mapping({ protocol: oneOf('tcp', 'udp'), external_port: whole, internal_ip: text, internal_port: whole }),
);

/**
 * Checks one in full; `place` is named in the error.
 * @throws DrydockError ERR_NET_CONFIG_INVALID
 */
export function checkForward(forward: Partial<GatewayForward>, place: string): GatewayForward {
  const { protocol, port, address, targetPort } = forward;
  const isPort = (value: number | undefined): value is number =>
    value !== undefined && value > 0 && value < 65536;
  if (!protocol || !isPort(port) || !isPort(targetPort) || address === undefined || !parseAddress(address))
    throw invalid(`${place} needs a protocol, a port from 1 to 65535 on both sides, and an IP address.`);
  return { protocol, port, address, targetPort };
}

/**
 * Reads the file of `--gateway-forwards`.
 * @throws DrydockError ERR_NET_CONFIG_INVALID
 */
export function parseGatewayForwards(content: string): GatewayForward[] {
  return gatewayForwards(parseYaml(content), '').map((entry, index) =>
    checkForward(
      {
        ...entry,
        port: entry.external_port,
        address: entry.internal_ip,
        targetPort: entry.internal_port,
      } as Partial<GatewayForward>,
      `Entry ${index} of the gateway's forwards`,
    ),
  );
}

/** Destinations of TCP connections that lead to a unix socket of the host. */
export interface SocketForward {
  /** `10.0.0.0/8`, or an address. */
  prefix: string;
  /** 0 is every port. */
  port: number;
  path: string;
}

const readForward = mapping({ prefix: text, port: whole, path: text });

/** One of `stack.socketForwards`. */
export const socketForward: Reader<SocketForward> = (value, place) => {
  const { prefix = '', port = 0, path = '' } = readForward(value, place);
  return { prefix, port, path };
};

const socketForwards = list(
  mapping({ protocol: oneOf('tcp'), dst_prefix: text, dst_port: whole, path: text }),
);

/**
 * Reads the file of `--forwards`.
 * @throws DrydockError ERR_NET_CONFIG_INVALID
 */
export function parseSocketForwards(content: string): SocketForward[] {
  return socketForwards(parseYaml(content), '').map(({ dst_prefix, dst_port, path }) => ({
    prefix: dst_prefix ?? '',
    port: dst_port ?? 0,
    path: path ?? '',
  }));
}

/**
 * Reads `--tcpv4-forwards` and `--udpv4-forwards`: `port:address:port`, with commas between.
 * @throws DrydockError ERR_NET_CONFIG_INVALID
 */
export function parsePortForwards(protocol: 'tcp' | 'udp', text: string): GatewayForward[] {
  return text.split(',').map((item) => {
    const [port, address, targetPort] = item.split(':');
    const wish = { protocol, port: Number(port), address, targetPort: Number(targetPort) };
    return checkForward(wish as Partial<GatewayForward>, `"${item}" of --${protocol}v4-forwards`);
  });
}

/** The names of a hosts(5) file, each with its addresses. Lines that are none are left out, as resolvers do. */
export function parseHostsFile(content: string): [name: string, addresses: Uint8Array[]][] {
  const names = new Map<string, Uint8Array[]>();
  for (const line of content.split('\n')) {
    const [address, ...own] = line.replace(/#.*$/, '').trim().split(/\s+/);
    const bytes = parseAddress(address ?? '');
    if (!bytes) continue;
    for (const name of own) {
      const key = name.toLowerCase();
      names.set(key, [...(names.get(key) ?? []), bytes]);
    }
  }
  return [...names];
}
