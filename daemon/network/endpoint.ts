/** A container on a network: what may be asked for it, and what it is called there. */
import { isIPv4, isIPv6 } from 'node:net';
import { DrydockError } from '#common/errors';
import type { Attachment } from '#netstack';
import type { ContainerRecord, EndpointSettings } from '../container/types.ts';
import { endpointOptions } from './options.ts';
import { type NetworkRecord, PREDEFINED, type SubnetConfig } from './record.ts';
import {
  addressesOf,
  contains,
  firstAddress,
  formatAddress,
  parseAddress,
  parseRange,
  parseSubnet,
} from './subnets.ts';
import { addressesOf6, contains6, parseRange6, parseSubnet6 } from './subnets6.ts';

/** A container on a network while it runs. */
export interface Endpoint {
  attachment: Attachment;
  settings: EndpointSettings;
  containerName: string;
  /** Of its default route: the lowest one of a container is used. */
  metric: number;
}

/** Names by which others on the network find a container: its name, its aliases, its short id. */
export function dnsNames(record: ContainerRecord, asked: EndpointSettings): string[] {
  return [
    ...new Set([record.name, ...(asked.Aliases ?? []), record.id.slice(0, 12), record.config.Hostname ?? '']),
  ].filter((name) => name !== '');
}

/** A network's subnet of one family. */
export function configOf(network: NetworkRecord, family: 4 | 6): SubnetConfig | undefined {
  const config = network.ipam.Config.find(({ Subnet }) => Subnet.includes(':') === (family === 6));
  return config && { ...config, Gateway: config.Gateway ?? firstOf(config.Subnet) };
}

function firstOf(subnet: string): string {
  return subnet.includes(':') ? parseSubnet6(subnet).first : firstAddress(parseSubnet(subnet));
}

/** Whether an address is in one of a network's subnets. */
export function isOn(network: NetworkRecord, address: string): boolean {
  const config = configOf(network, isIPv4(address) ? 4 : 6);
  if (!config) return false;
  return isIPv4(address)
    ? contains(parseSubnet(config.Subnet), parseAddress(address)!)
    : contains6(config.Subnet, address);
}

/**
 * The next address of a family on a network with --ip-range or --aux-address; undefined without them: the stack chooses.
 * @param others addresses that are taken @throws ERR_FORBIDDEN when there is none left
 */
export function restrictedAddress(
  network: NetworkRecord,
  family: 4 | 6,
  others: readonly string[],
): string | undefined {
  const config = configOf(network, family);
  if (!config?.IPRange && !config?.AuxiliaryAddresses) return undefined;
  const { Gateway, IPRange, AuxiliaryAddresses } = config;
  const reserved = Object.values(AuxiliaryAddresses ?? {});
  const taken = new Set([...unusable(config.Subnet), Gateway, ...reserved, ...others]);
  const range = IPRange ?? config.Subnet;
  for (const address of family === 4 ? addressesOf(parseRange(range)) : addressesOf6(parseRange6(range)))
    if (!taken.has(address)) return address;
  throw new DrydockError(
    'ERR_FORBIDDEN',
    `no available IPv${family} addresses on this network's address pools: ${network.name}`,
  );
}

/** Addresses of a subnet that no container may have: the subnet's own, and that of its broadcasts. */
function unusable(text: string): string[] {
  if (text.includes(':')) return [parseSubnet6(text).subnet.split('/')[0]!];
  const subnet = parseSubnet(text);
  return [formatAddress(subnet.base), formatAddress(subnet.base + 2 ** (32 - subnet.prefix) - 1)];
}

function bad(text: string): DrydockError {
  return new DrydockError('ERR_BAD_PARAMETER', `invalid endpoint settings:\n${text}`);
}

/** Refuses fixed addresses where docker does. */
export function checkAddress(network: NetworkRecord, asked: EndpointSettings): void {
  const { IPv4Address: address = '', IPv6Address: address6 = '' } = asked.IPAMConfig ?? {};
  if (address === '' && address6 === '') return;
  if (!network.userSubnet)
    throw bad(
      'user specified IP address is supported only when connecting to networks with user configured subnets',
    );
  for (const text of [address, address6])
    if (text !== '' && !isOn(network, text)) throw bad(`no configured subnet contains IP address ${text}`);
}

/** Checks what does not depend on the network, which need not exist yet, but for its name. @throws ERR_BAD_PARAMETER */
export function checkEndpoint(networkName: string, asked: EndpointSettings): void {
  const { IPv4Address: address, IPv6Address: address6, LinkLocalIPs } = asked.IPAMConfig ?? {};
  if (Object.hasOwn(PREDEFINED, networkName)) {
    if (address || address6)
      throw bad('user specified IP address is supported on user defined networks only');
    if (asked.Aliases?.length)
      throw bad('network-scoped alias is supported only for containers in user defined networks');
  }
  if (address && !isIPv4(address)) throw bad(`invalid IPv4 address: ${address}`);
  if (address6 && !isIPv6(address6)) throw bad(`invalid IPv6 address: ${address6}`);
  for (const own of LinkLocalIPs ?? [])
    if (!isIPv4(own) || !own.startsWith('169.254.'))
      throw bad(`invalid link-local IP address: ${own}: one of 169.254.0.0/16 is needed`);
  if (asked.MacAddress && !/^([0-9a-f]{2}[:-]){5}[0-9a-f]{2}$/i.test(asked.MacAddress))
    throw new DrydockError('ERR_BAD_PARAMETER', `invalid MAC address ${asked.MacAddress}`);
  endpointOptions(asked);
}
