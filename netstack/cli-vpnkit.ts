/** VPNKit's flags of `drydock net`, for what is not gvproxy's already: into the keys of a configuration that they stand for. */
import { readFile } from 'node:fs/promises';
import type { Command } from 'commander';
import { DrydockError, errorMessage } from '#common/errors';
import type { NetFile, StackFile } from './config-file.ts';
import {
  parseGatewayForwards,
  parsePortForwards,
  parseSocketForwards,
  parseVpnkitDhcp,
  parseVpnkitDns,
  parseVpnkitHttp,
} from './config-vpnkit.ts';
import { parseUpstream } from './service/dns/upstreams.ts';
import { parseDescriptor } from './units.ts';

/** The flags as commander gives them. */
export interface VpnkitFlags {
  ethernet?: string;
  pcap?: string[];
  forwards?: string;
  port?: string[];
  introspection?: string[];
  diagnostics?: string[];
  httpApiPath?: string;
  hosts?: string;
  hostNames?: string[];
  gatewayNames?: string[];
  vmNames?: string[];
  dhcpPath?: string;
  http?: string;
  lowestIp?: string;
  highestIp?: string;
  gatewayForwards?: string;
  tcpv4Forwards?: string;
  udpv4Forwards?: string;
  allowedBindAddresses?: string[];
  pcapSnaplen?: string;
  dns?: string[];
}

/** Flags that ask for nothing that this network lacks: they are taken, and said to have no effect. */
const NEEDLESS: Readonly<Record<string, string>> = {
  'vsock-path': "ports are published by the machine's wire, and need no forwarder inside it",
  'port-forwards': "ports are published by the machine's wire, and need no forwarder inside it",
  'listen-backlog': 'the backlog is the largest that the kernel allows',
  'max-connections': 'each machine has its share of flows, and the oldest unfinished one gives way',
  'port-max-idle-time': 'connections are not cut for being idle',
  'gc-compact-interval': "it is about OCaml's memory",
};

function invalid(message: string): DrydockError {
  return new DrydockError('ERR_NET_CONFIG_INVALID', message);
}

/** The text of a file. @throws DrydockError ERR_NET_CONFIG_INVALID */
export function readText(path: string): Promise<string> {
  return readFile(path, 'utf8').catch((error: unknown) => {
    throw invalid(`Cannot read ${path}: ${errorMessage(error)}`);
  });
}

const collect = (value: string, before: string[] = []): string[] => [...before, value];
const names = (value: string, before: string[] = []): string[] => [...before, ...value.split(',')];

/** Adds the flags. */
export function addVpnkitOptions(command: Command): void {
  command
    .option('--port <path>', 'unix socket at which ports are published by 9P (repeatable)', collect)
    .option('--introspection <path>', 'unix socket that shows flows and captures by 9P (repeatable)', collect)
    .option('--diagnostics <path>', 'unix socket that gives the same as a tar archive (repeatable)', collect)
    .option('--http-api-path <path>', "control endpoint by VPNKit's flag, a path")
    .option('--hosts <file>', 'names for DNS, a file like /etc/hosts, followed')
    .option('--host-names <names>', 'names of the host, with commas between', names)
    .option('--gateway-names <names>', 'names of the gateway', names)
    .option('--vm-names <names>', 'names of the first machine', names)
    .option('--dhcp-path <file>', "VPNKit's file with searchDomains and domainName")
    .option('--http <file>', "upstream HTTP proxies and what they may reach, VPNKit's file, followed")
    .option('--lowest-ip <address>', 'first address that DHCP gives')
    .option('--highest-ip <address>', 'last address that DHCP gives')
    .option('--gateway-forwards <file>', "ports of the gateway that lead elsewhere, VPNKit's file")
    .option(
      '--forwards <file>',
      "destinations whose connections go to a unix socket of the host, VPNKit's file",
    )
    .option('--tcpv4-forwards <list>', 'the same for TCP, port:address:port with commas between')
    .option('--udpv4-forwards <list>', 'the same for UDP')
    .option('--allowed-bind-addresses <list>', 'publish ports at these addresses of the host only', names)
    .option('--pcap-snaplen <bytes>', 'bytes kept of each frame (default: all)');
  for (const [flag, reason] of Object.entries(NEEDLESS)) {
    command.option(`--${flag} <value>`, '', (): undefined => {
      process.stderr.write(`drydock net: --${flag} of VPNKit has no effect: ${reason}.\n`);
    });
    command.options.at(-1)!.hideHelp();
  }
}

function controlUrl(path: string): string {
  return parseDescriptor(path) === undefined ? `unix://${path}` : path;
}

/** `--pcap` is gvproxy's, a file; beside VPNKit's `--ethernet` it is VPNKit's, a socket. */
export function isPcapSocket(target: string, { ethernet }: VpnkitFlags): boolean {
  return target.startsWith('unix://') || parseDescriptor(target) !== undefined || ethernet !== undefined;
}

/** The file of `--dns`, when it names one instead of a resolver. */
function dnsFile(dns: readonly string[] | undefined): string | undefined {
  const [file, ...more] = (dns ?? []).filter((text) => text.startsWith('/') && !parseUpstream(text));
  if (file !== undefined && (more.length > 0 || dns!.length > 1))
    throw invalid(`--dns ${file} names a file, beside which no other --dns can be.`);
  return file;
}

/**
 * Puts the flags over a file.
 * @throws DrydockError ERR_NET_CONFIG_INVALID
 */
export async function mergeVpnkitFlags(file: NetFile, flags: VpnkitFlags): Promise<NetFile> {
  const stack: StackFile = { ...file.stack };
  const path = dnsFile(flags.dns);
  if (path !== undefined) {
    const { search } = parseVpnkitDns(await readText(path));
    if (search.length > 0) stack.dnsSearchDomains = search;
    stack.dnsFile = path;
    delete stack.dnsUpstreams;
  }
  if (flags.hosts !== undefined) stack.hostsFile = flags.hosts;
  if (flags.dhcpPath !== undefined) {
    const { searchDomains, domainName } = parseVpnkitDhcp(await readText(flags.dhcpPath));
    if (searchDomains) stack.dnsSearchDomains = searchDomains;
    if (domainName !== undefined) stack.domain = domainName;
  }
  if (flags.http !== undefined) {
    parseVpnkitHttp(await readText(flags.http));
    stack.httpProxyFile = flags.http;
  }
  if (flags.lowestIp !== undefined) stack.dhcpFirst = flags.lowestIp;
  if (flags.highestIp !== undefined) stack.dhcpLast = flags.highestIp;
  const forwards = [
    ...(flags.gatewayForwards === undefined
      ? []
      : parseGatewayForwards(await readText(flags.gatewayForwards))),
    ...(flags.tcpv4Forwards === undefined ? [] : parsePortForwards('tcp', flags.tcpv4Forwards)),
    ...(flags.udpv4Forwards === undefined ? [] : parsePortForwards('udp', flags.udpv4Forwards)),
  ];
  if (forwards.length > 0) stack.gatewayForwards = forwards;
  if (flags.forwards !== undefined)
    stack.socketForwards = parseSocketForwards(await readText(flags.forwards));
  if (flags.allowedBindAddresses) stack.allowedBindAddresses = flags.allowedBindAddresses;
  if (flags.pcapSnaplen !== undefined)
    stack['capture-snaplen'] = /^\d{1,7}$/.test(flags.pcapSnaplen) ? Number(flags.pcapSnaplen) : Number.NaN;
  if (flags.hostNames) stack.hostNames = flags.hostNames;
  if (flags.gatewayNames) stack.gatewayNames = flags.gatewayNames;
  if (flags.vmNames) stack.machineNames = flags.vmNames;
  const { port: ports, introspection, diagnostics } = flags;
  const pcap = (flags.pcap ?? [])
    .filter((target) => isPcapSocket(target, flags))
    .map((target) => target.replace(/^unix:\/\//, ''));
  return {
    ...file,
    stack,
    vpnkit: {
      ...file.vpnkit,
      ...(ports && { ports }),
      ...(introspection && { introspection }),
      ...(diagnostics && { diagnostics }),
      ...(pcap.length > 0 && { pcap }),
    },
    ...(flags.httpApiPath !== undefined && { services: file.services ?? controlUrl(flags.httpApiPath) }),
  };
}
