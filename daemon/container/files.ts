/**
 * /etc/hostname, /etc/hosts and /etc/resolv.conf of a container: files of ours that are bound over the image's. The text
 * is made by pure functions. A running container's files are changed in place, since a bind mount follows the inode.
 */
import { constants } from 'node:fs';
import { mkdir, open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ContainerRecord, EndpointSettings } from './types.ts';

/** The files by their place in the container. */
export const ETC_FILES: Readonly<Record<'hostname' | 'hosts' | 'resolv.conf', string>> = {
  hostname: '/etc/hostname',
  hosts: '/etc/hosts',
  'resolv.conf': '/etc/resolv.conf',
};

const LOOPBACK_HOSTS = `127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
`;

/**
 * The text of /etc/hosts.
 * @param links `address name...` lines of linked containers
 * @param hostGateways addresses of `host-gateway`; none: the gateway of the first network
 */
export function hostsText(
  record: ContainerRecord,
  networks: Record<string, EndpointSettings>,
  links: string[] = [],
  hostGateways: readonly string[] = [],
): string {
  const { Hostname = '', Domainname = '' } = record.config;
  const gateways = Object.values(networks).map((n) => n.Gateway || n.IPv6Gateway || '');
  const gateway = gateways.find((address) => address !== '') ?? '';
  const lines: string[] = [];
  for (const entry of record.hostConfig.ExtraHosts ?? []) {
    // `name:address`; an IPv6 address may be in brackets. The CLI also sends `name=address`.
    const match = /^([^:=]+)[:=]\[?(.+?)\]?$/.exec(entry);
    if (!match) continue;
    const special = hostGateways.length > 0 ? hostGateways : [gateway];
    for (const address of match[2] === 'host-gateway' ? special : [match[2]!])
      if (address !== '') lines.push(`${address}\t${match[1]}`);
  }
  lines.push(...links);
  const names = `${Domainname ? `${Hostname}.${Domainname} ` : ''}${Hostname}`;
  for (const { IPAddress, GlobalIPv6Address } of Object.values(networks))
    for (const address of [IPAddress, GlobalIPv6Address])
      if (address && Hostname) lines.push(`${address}\t${names}`);
  return LOOPBACK_HOSTS + lines.map((line) => `${line}\n`).join('');
}

/** Resolver settings of containers that name none: the daemon's --dns, --dns-search, --dns-opt. */
export interface DnsDefaults {
  servers: string[];
  search: string[];
  options: string[];
}

/** What a container's resolver is to ask. */
export interface NameServers {
  /** Of the container's networks: they answer names of these and forward the rest. */
  gateways: string[];
  /** Servers that were asked for and that the gateways forward to, instead of being asked by the container itself. */
  forwarded: string[] | undefined;
}

/**
 * The servers of --dns are asked by the network's DNS on a user network, so that its names are still known (moby:
 * libnetwork/resolver.go). A server that is a container beside this one can be reached from there alone, and is asked
 * directly.
 */
export function nameServers(
  { hostConfig }: ContainerRecord,
  gateways: string[],
  isNeighbour: (address: string) => boolean,
  defaults: DnsDefaults,
): NameServers {
  const servers = hostConfig.Dns?.length ? hostConfig.Dns : defaults.servers;
  const userNetwork = gateways.length > 0 && hostConfig.NetworkMode !== 'bridge';
  const forwarded = userNetwork && servers.length > 0 && !servers.some(isNeighbour) ? servers : undefined;
  return { gateways, forwarded };
}

/** The text of /etc/resolv.conf. */
export function resolvText(
  record: ContainerRecord,
  { gateways, forwarded }: NameServers,
  hostText: string,
  defaults: DnsDefaults,
): string {
  const { hostConfig } = record;
  const asked = hostConfig.Dns?.length ? hostConfig.Dns : defaults.servers;
  const Dns = forwarded ? gateways : asked;
  const DnsSearch = hostConfig.DnsSearch?.length ? hostConfig.DnsSearch : defaults.search;
  const DnsOptions = hostConfig.DnsOptions?.length ? hostConfig.DnsOptions : defaults.options;
  const lines = hostText.split('\n').map((line) => line.trim());
  const hostSearch =
    lines
      .findLast((line) => /^(search|domain)\s/.test(line))
      ?.split(/\s+/)
      .slice(1) ?? [];
  const hostServers = lines
    .filter((line) => line.startsWith('nameserver '))
    .map((line) => line.split(/\s+/)[1]!);
  const hostOptions = lines
    .filter((line) => line.startsWith('options '))
    .flatMap((line) => line.split(/\s+/).slice(1));
  const servers = Dns.length > 0 ? Dns : gateways.length > 0 ? gateways : hostServers;
  const search = DnsSearch.length > 0 ? DnsSearch.filter((domain) => domain !== '.') : hostSearch;
  const options = DnsOptions.length > 0 ? DnsOptions : hostOptions;
  return [
    ...servers.map((server) => `nameserver ${server}\n`),
    search.length > 0 ? `search ${search.join(' ')}\n` : '',
    options.length > 0 ? `options ${options.join(' ')}\n` : '',
  ].join('');
}

/** Paths of a container's files on the host. */
export function etcPaths(folder: string): Record<keyof typeof ETC_FILES, string> {
  return {
    hostname: join(folder, 'hostname'),
    hosts: join(folder, 'hosts'),
    'resolv.conf': join(folder, 'resolv.conf'),
  };
}

/** Writes a file in place, keeping its inode; who reads it meanwhile never finds it empty. */
export async function writeInPlace(path: string, text: string): Promise<void> {
  const file = await open(path, constants.O_RDWR | constants.O_CREAT, 0o644);
  try {
    if ((await file.readFile('utf8')) === text) return;
    const { bytesWritten } = await file.write(text, 0);
    await file.truncate(bytesWritten);
  } finally {
    await file.close();
  }
}

/** Writes all three files of a container before its start; addresses are added when they are known. */
export async function writeEtcFiles(
  folder: string,
  record: ContainerRecord,
  servers: NameServers,
  defaults: DnsDefaults,
): Promise<void> {
  await mkdir(folder, { recursive: true });
  const paths = etcPaths(folder);
  const { Hostname = '' } = record.config;
  const hostNetwork = record.hostConfig.NetworkMode === 'host';
  const hostHosts = hostNetwork ? await readFile('/etc/hosts', 'utf8').catch(() => '') : '';
  const hostResolv = await readFile('/etc/resolv.conf', 'utf8').catch(() => '');
  await writeInPlace(paths.hostname, `${Hostname}\n`);
  await writeInPlace(paths.hosts, hostHosts || hostsText(record, {}));
  await writeInPlace(paths['resolv.conf'], resolvText(record, servers, hostResolv, defaults));
}
