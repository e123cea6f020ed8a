/** A docker network's record, and how one is made from a request. Pure. */
import { isIPv6 } from 'node:net';
import { DrydockError } from '#common/errors';
import type { AddressPool } from '../config-values.ts';
import { goBool } from '../go-text.ts';
import { FLAG, record, type Shape, TEXT, TEXTS_BY_KEY, TIME } from '../store/shape.ts';
import { checkConfiguration } from './config-only.ts';
import { bridgeOptions, ENABLE_OPTIONS } from './options.ts';
import {
  chooseSubnet,
  contains,
  firstAddress,
  formatSubnet,
  overlaps,
  parseAddress,
  parseRange,
  parseSubnet,
  type Subnet,
} from './subnets.ts';
import { canonicalAddress6, contains6, overlaps6, parseRange6, parseSubnet6 } from './subnets6.ts';

/** The body of POST /networks/create. */
export interface CreateNetworkRequest {
  Name?: string;
  Driver?: string;
  Internal?: boolean;
  Attachable?: boolean;
  Ingress?: boolean;
  ConfigOnly?: boolean;
  ConfigFrom?: { Network?: string };
  Scope?: string;
  IPAM?: {
    Driver?: string;
    Options?: Record<string, string> | null;
    Config?: IpamConfig[] | null;
  };
  EnableIPv4?: boolean;
  EnableIPv6?: boolean;
  Options?: Record<string, string> | null;
  Labels?: Record<string, string> | null;
}

/** One subnet of a network. */
export interface IpamConfig {
  Subnet?: string;
  IPRange?: string;
  Gateway?: string;
  AuxiliaryAddresses?: Record<string, string>;
}

/** One subnet of a network, with what has been decided. The gateway's address is the stack's own: its name server is there. */
export type SubnetConfig = IpamConfig & { Subnet: string; Gateway: string };

/** All that is kept of a network. */
export interface NetworkRecord {
  id: string;
  name: string;
  created: string;
  driver: 'bridge' | 'host' | 'null';
  internal: boolean;
  attachable: boolean;
  /** Made by the daemon; can't be removed. */
  predefined: boolean;
  enableIPv6: boolean;
  /** Its containers have IPv6 addresses alone. */
  withoutIPv4?: boolean;
  /** The user chose the subnet, so containers may have fixed addresses. */
  userSubnet: boolean;
  ipam: {
    Driver: string;
    Options: Record<string, string> | null;
    /** Without a gateway where the network shall have none for its containers. */
    Config: (IpamConfig & { Subnet: string })[];
  };
  options: Record<string, string>;
  labels: Record<string, string>;
  /** Of a network that is nothing but this: what others are made from. */
  configuration?: Pick<CreateNetworkRequest, 'IPAM' | 'EnableIPv4' | 'EnableIPv6'>;
  /** The name of the configuration that it was made from. */
  configFrom?: string;
  /** The request of the default network, as text: a daemon that is configured otherwise makes it anew. */
  configured?: string;
}

const subnet = record({ Subnet: TEXT, Gateway: TEXT }, { IPRange: TEXT, AuxiliaryAddresses: TEXTS_BY_KEY });

/** See {@link NetworkRecord}. */
export const NETWORK_SHAPE: Shape = record(
  {
    id: TEXT,
    name: TEXT,
    created: TIME,
    driver: { type: 'string', pattern: '^(bridge|host|null)$' },
    internal: FLAG,
    attachable: FLAG,
    predefined: FLAG,
    enableIPv6: FLAG,
    userSubnet: FLAG,
    ipam: record({
      Driver: TEXT,
      Options: { type: ['object', 'null'], additionalProperties: TEXT },
      Config: { type: 'array', items: subnet },
    }),
    options: TEXTS_BY_KEY,
    labels: TEXTS_BY_KEY,
  },
  { configuration: { type: 'object' }, configFrom: TEXT, configured: TEXT },
);

/** Name and driver of the networks that every daemon has; `bridge` may be left out. */
export const PREDEFINED: Readonly<Record<string, string>> = { bridge: 'bridge', host: 'host', none: 'null' };

function invalid(message: string): DrydockError {
  return new DrydockError('ERR_BAD_PARAMETER', message);
}

/** What is decided outside. */
export interface NetworkFacts {
  id: string;
  created: string;
  /** Subnets that the network must not overlap. */
  used: Subnet[];
  used6: string[];
  /** Where subnets come from that nobody names. */
  pools: readonly AddressPool[];
  /** A subnet for a network that asks for IPv6 and names none. */
  freshSubnet6: () => string;
}

/**
 * Makes a record. `used` are the subnets that a chosen one must not overlap.
 * @throws ERR_BAD_PARAMETER, ERR_FORBIDDEN, ERR_NOT_IMPLEMENTED, ERR_PLUGIN_NOT_FOUND
 */
export function newNetwork(request: CreateNetworkRequest, facts: NetworkFacts): NetworkRecord {
  const name = (request.Name ?? '').trim();
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused.
  if (name === '' || /[/\x00-\x1f\x7f]/.test(name))
    throw invalid(`invalid network name: ${JSON.stringify(name)}: it must not be empty or contain a slash`);
  const driver = request.Driver || 'bridge';
  const isPredefined = Object.hasOwn(PREDEFINED, name);
  if (request.ConfigOnly) checkConfiguration(request);
  else refuseUnsupported(request, driver, isPredefined);
  const { ConfigOnly, ConfigFrom, IPAM, EnableIPv4, EnableIPv6 } = request;
  const bridge = driver === 'bridge' && !ConfigOnly;
  return {
    id: facts.id,
    name,
    created: facts.created,
    driver: ConfigOnly ? 'null' : (driver as NetworkRecord['driver']),
    internal: request.Internal === true,
    attachable: request.Attachable === true,
    predefined: isPredefined,
    enableIPv6: wantsIPv6(request),
    ...(!wantsIPv4(request) && { withoutIPv4: true }),
    userSubnet: (request.IPAM?.Config?.length ?? 0) > 0,
    ipam: {
      Driver: request.IPAM?.Driver || 'default',
      Options: request.IPAM?.Options ?? null,
      Config: bridge ? subnets(request, facts) : [],
    },
    options: { ...request.Options },
    labels: { ...request.Labels },
    ...(ConfigOnly && {
      configuration: { IPAM: IPAM ?? {}, EnableIPv4: EnableIPv4 !== false, EnableIPv6: EnableIPv6 === true },
    }),
    ...(ConfigFrom?.Network && { configFrom: ConfigFrom.Network }),
  };
}

function refuseUnsupported(request: CreateNetworkRequest, driver: string, isPredefined: boolean): void {
  const swarm: [unknown, string][] = [
    [
      driver === 'overlay' || !['', 'local', 'swarm'].includes(request.Scope ?? ''),
      'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.',
    ],
    [request.Ingress, 'Ingress network can only be global scope network'],
    [request.Scope === 'swarm', 'cannot create a swarm scoped network when swarm is not active'],
  ];
  for (const [asked, message] of swarm) if (asked) throw new DrydockError('ERR_FORBIDDEN', message);
  if ((driver === 'host' || driver === 'null') && !isPredefined)
    throw new DrydockError('ERR_FORBIDDEN', `only one instance of "${driver}" network is allowed`);
  if (!['bridge', 'host', 'null'].includes(driver))
    throw new DrydockError('ERR_PLUGIN_NOT_FOUND', `plugin "${driver}" not found`);
  if (request.IPAM?.Driver && request.IPAM.Driver !== 'default')
    throw new DrydockError('ERR_PLUGIN_NOT_FOUND', `plugin "${request.IPAM.Driver}" not found`);
  const { isolated } = bridgeOptions(request.Options ?? {});
  if (isolated.size > 0 && !request.Internal)
    throw new DrydockError(
      'ERR_NETWORK_OPTIONS',
      "gateway mode 'isolated' can only be used for an internal network",
    );
  if (!wantsIPv4(request) && !wantsIPv6(request)) throw invalid('IPv4 or IPv6 must be enabled');
}

function subnetOf(configs: IpamConfig[], { used, pools }: NetworkFacts): SubnetConfig {
  const [asked = {}] = configs;
  const subnet = asked.Subnet ? parseSubnet(asked.Subnet) : chooseSubnet(used, pools);
  if (asked.Subnet && used.some((other) => overlaps(other, subnet)))
    throw new DrydockError(
      'ERR_FORBIDDEN',
      'invalid pool request: Pool overlaps with other one on this address space',
    );
  const gateway = asked.Gateway || firstAddress(subnet);
  const address = parseAddress(gateway);
  if (address === undefined || !contains(subnet, address))
    throw badIpam(`invalid gateway ${gateway}: ${notIn(formatSubnet(subnet), address !== undefined)}`);
  return { Subnet: formatSubnet(subnet), Gateway: gateway, ...restrictions(asked, subnet) };
}

/** --ip-range and --aux-address: where containers get their addresses from, and which ones they never get. */
function restrictions(asked: IpamConfig, subnet: Subnet): Pick<IpamConfig, 'IPRange' | 'AuxiliaryAddresses'> {
  const found: Pick<IpamConfig, 'IPRange' | 'AuxiliaryAddresses'> = {};
  if (asked.IPRange) {
    const range = parseRange(asked.IPRange);
    if (range.prefix < subnet.prefix || !contains(subnet, range.base))
      throw badIpam(
        `invalid ip-range ${asked.IPRange}: parent subnet ${formatSubnet(subnet)} doesn't contain ip-range`,
      );
    found.IPRange = formatSubnet(range);
  }
  const reserved = Object.entries(asked.AuxiliaryAddresses ?? {});
  for (const [name, text] of reserved) {
    const address = parseAddress(text);
    if (address === undefined || !contains(subnet, address))
      throw badIpam(
        `invalid auxiliary address ${name}: ${notIn(formatSubnet(subnet), address !== undefined)}`,
      );
  }
  if (reserved.length > 0) found.AuxiliaryAddresses = Object.fromEntries(reserved);
  return found;
}

function subnet6Of(configs: IpamConfig[], facts: NetworkFacts): SubnetConfig {
  const [asked = {}] = configs;
  const { subnet, first } = parseSubnet6(asked.Subnet ?? facts.freshSubnet6());
  if (facts.used6.some((other) => overlaps6(other, subnet)))
    throw new DrydockError(
      'ERR_FORBIDDEN',
      'invalid pool request: Pool overlaps with other one on this address space',
    );
  const gateway = asked.Gateway ? canonicalAddress6(asked.Gateway) : first;
  if (!contains6(subnet, gateway)) throw badIpam(`invalid gateway ${gateway}: ${notIn(subnet, true)}`);
  return { Subnet: subnet, Gateway: gateway, ...restrictions6(asked, subnet) };
}

function restrictions6(
  asked: IpamConfig,
  subnet: string,
): Pick<IpamConfig, 'IPRange' | 'AuxiliaryAddresses'> {
  const found: Pick<IpamConfig, 'IPRange' | 'AuxiliaryAddresses'> = {};
  if (asked.IPRange) {
    const range = parseRange6(asked.IPRange);
    if (range.prefix < Number(subnet.split('/')[1]) || !contains6(subnet, range.subnet.split('/')[0]!))
      throw badIpam(`invalid ip-range ${asked.IPRange}: parent subnet ${subnet} doesn't contain ip-range`);
    found.IPRange = range.subnet;
  }
  const reserved = Object.entries(asked.AuxiliaryAddresses ?? {}).map(([name, text]) => {
    if (!isIPv6(text) || !contains6(subnet, text))
      throw badIpam(`invalid auxiliary address ${name}: ${notIn(subnet, isIPv6(text))}`);
    return [name, canonicalAddress6(text)];
  });
  if (reserved.length > 0) found.AuxiliaryAddresses = Object.fromEntries(reserved);
  return found;
}

function badIpam(message: string): DrydockError {
  return invalid(`invalid network config:\n${message}`);
}

function notIn(subnet: string, isAddress: boolean): string {
  return isAddress ? `parent subnet ${subnet} doesn't contain this address` : 'invalid address';
}

/** An IPv6 subnet is a wish for IPv6, as --ipv6 is: dockerd would keep the subnet and use it for nothing. */
function wantsIPv6(request: CreateNetworkRequest): boolean {
  return (
    (request.EnableIPv6 ?? familyOption(request, 6)) === true ||
    (request.IPAM?.Config ?? []).some((config) => config.Subnet?.includes(':'))
  );
}

function wantsIPv4(request: CreateNetworkRequest): boolean {
  return (request.EnableIPv4 ?? familyOption(request, 4)) !== false;
}

/** What the driver's options say of a family, for clients that can't say it otherwise. */
function familyOption({ Options }: CreateNetworkRequest, family: 4 | 6): boolean | undefined {
  const name = ENABLE_OPTIONS[family];
  const text = Options?.[name];
  if (text === undefined) return undefined;
  const value = goBool(text);
  if (value === undefined) throw invalid(`driver-opt ${JSON.stringify(name)} is not a valid bool`);
  return value;
}

/** The subnets of a bridge network: one of each family that is on. */
function subnets(request: CreateNetworkRequest, facts: NetworkFacts): NetworkRecord['ipam']['Config'] {
  const configs = request.IPAM?.Config ?? [];
  for (const config of configs) checkIpam(config);
  const of6 = configs.filter((config) => (config.Subnet ?? config.Gateway ?? '').includes(':'));
  const of4 = configs.filter((config) => !of6.includes(config));
  if (of4.length > 1 || of6.length > 1)
    throw new DrydockError('ERR_FORBIDDEN', "bridge driver doesn't support multiple subnets");
  const { isolated } = bridgeOptions(request.Options ?? {});
  const shown = (family: 4 | 6, { Gateway, ...config }: SubnetConfig, asked: IpamConfig | undefined) =>
    isolated.has(family) && !asked?.Gateway ? config : { ...config, Gateway };
  return [
    ...(wantsIPv4(request) ? [shown(4, subnetOf(of4, facts), of4[0])] : []),
    ...(wantsIPv6(request) ? [shown(6, subnet6Of(of6, facts), of6[0])] : []),
  ];
}

function checkIpam(config: IpamConfig): void {
  if (config.Gateway && !config.Subnet)
    throw badIpam(`gateway ${config.Gateway} needs a subnet: give --subnet too`);
  const subnet = config.Subnet ?? '';
  if (subnet === '' || subnet.includes(':')) return;
  const masked = formatSubnet(parseSubnet(subnet));
  if (masked !== subnet) throw badIpam(`invalid subnet ${subnet}: it should be ${masked}`);
}
