/**
 * What the daemon's options say of networks: the default network, from `bip`, `fixed-cidr` and their like, the pools of
 * subnets, and what new networks of a driver get. Pure.
 */
import { DrydockError } from '#common/errors';
import type { DaemonConfig } from '../config-options.ts';
import { HOST_BINDING_OPTION, ICC_OPTION } from './options.ts';
import type { CreateNetworkRequest, IpamConfig } from './record.ts';
import { contains, formatAddress, formatSubnet, parseAddress, parseSubnet, type Subnet } from './subnets.ts';
import { canonicalAddress6, contains6, parseSubnet6 } from './subnets6.ts';

/** The options that networks depend on. */
export type NetworkConfig = Pick<
  DaemonConfig,
  | 'bridge'
  | 'bip'
  | 'bip6'
  | 'fixedCidr'
  | 'fixedCidr6'
  | 'defaultGateway'
  | 'defaultGateway6'
  | 'bindAddress'
  | 'ipv6'
  | 'icc'
>;

function invalid(message: string): DrydockError {
  return new DrydockError('ERR_BAD_CONFIG', message);
}

/** Reads an option's subnet, with the option's name in what is said of a bad one. */
function subnetOf<T>(option: string, text: string, parse: (text: string) => T): T {
  try {
    return parse(text);
  } catch {
    throw invalid(`invalid ${option} ${JSON.stringify(text)}: write ADDRESS/PREFIX`);
  }
}

/**
 * The default network as a request, or undefined when there shall be none.
 * @throws ERR_BAD_CONFIG for addresses that don't fit together
 */
export function defaultNetwork(config: NetworkConfig): CreateNetworkRequest | undefined {
  if (config.bridge === 'none') return undefined;
  const configs = [ipv4(config), ipv6(config)].filter((each) => each !== undefined);
  return {
    Name: 'bridge',
    Driver: 'bridge',
    ...(config.ipv6 && { EnableIPv6: true }),
    ...(configs.length > 0 && { IPAM: { Config: configs } }),
    Options: {
      ...(!config.icc && { [ICC_OPTION]: 'false' }),
      ...(config.bindAddress !== '' && { [HOST_BINDING_OPTION]: config.bindAddress }),
    },
  };
}

function ipv4({ bip, fixedCidr, defaultGateway }: NetworkConfig): IpamConfig | undefined {
  if (bip === '' && fixedCidr === '') {
    if (defaultGateway !== '') throw invalid('default-gateway needs bip: whose subnet it lies in');
    return undefined;
  }
  const range = fixedCidr === '' ? undefined : subnetOf('fixed-cidr', fixedCidr, parseSubnet);
  const subnet: Subnet = bip === '' ? range! : subnetOf('bip', bip, parseSubnet);
  const own = bip.split('/')[0] ?? '';
  if (range && (range.prefix < subnet.prefix || !contains(subnet, range.base)))
    throw invalid(`fixed-cidr ${fixedCidr} is not a part of ${formatSubnet(subnet)}`);
  if (own !== '' && parseAddress(own) === subnet.base)
    throw invalid(`invalid bip ${bip}: ${own} is the network itself: write the gateway's address`);
  const gateway = defaultGateway === '' ? own || formatAddress(subnet.base + 1) : defaultGateway;
  const address = parseAddress(gateway);
  if (address === undefined || !contains(subnet, address))
    throw invalid(`default-gateway ${gateway} is not in ${formatSubnet(subnet)}`);
  return {
    Subnet: formatSubnet(subnet),
    Gateway: gateway,
    ...(range && range.prefix > subnet.prefix && { IPRange: formatSubnet(range) }),
    // The other gateway is used by nobody, and nobody else gets its address.
    ...(own !== '' && own !== gateway && { AuxiliaryAddresses: { DefaultGatewayIPv4: own } }),
  };
}

function ipv6({ ipv6: on, bip6, fixedCidr6, defaultGateway6 }: NetworkConfig): IpamConfig | undefined {
  if (!on) {
    for (const [name, value] of Object.entries({ bip6, 'fixed-cidr-v6': fixedCidr6 }))
      if (value !== '') throw invalid(`${name} needs ipv6`);
    return undefined;
  }
  if (bip6 === '' && fixedCidr6 === '') {
    if (defaultGateway6 !== '') throw invalid('default-gateway-v6 needs bip6 or fixed-cidr-v6');
    return undefined;
  }
  const range = fixedCidr6 === '' ? undefined : subnetOf('fixed-cidr-v6', fixedCidr6, parseSubnet6);
  const { subnet, first } = bip6 === '' ? range! : subnetOf('bip6', bip6, parseSubnet6);
  if (range && range.subnet !== subnet)
    throw invalid(
      `fixed-cidr-v6 ${fixedCidr6} must be the subnet of bip6: containers get addresses of all of it`,
    );
  const gateway = defaultGateway6 || bip6.split('/')[0] || first;
  if (!contains6(subnet, gateway)) throw invalid(`default-gateway-v6 ${gateway} is not in ${subnet}`);
  return { Subnet: subnet, Gateway: canonicalAddress6(gateway) };
}
