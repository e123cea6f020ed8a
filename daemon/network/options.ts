/** Options of networks and endpoints, as `-o` and `--driver-opt` give them (moby: libnetwork/drivers/bridge). Pure. */
import { isIP } from 'node:net';
import { DrydockError } from '#common/errors';
import type { EndpointSettings } from '../container/types.ts';
import { goBool } from '../go-text.ts';

const BRIDGE = 'com.docker.network.bridge.';
/** `false`: containers of the network don't reach each other. */
export const ICC_OPTION = 'com.docker.network.bridge.enable_icc';
/** Where ports are published that name no address. */
export const HOST_BINDING_OPTION = 'com.docker.network.bridge.host_binding_ipv4';
const MASQUERADE = `${BRIDGE}enable_ip_masquerade`;
const MTU = 'com.docker.network.driver.mtu';
const PREFIX = 'com.docker.network.container_iface_prefix';
const ENDPOINT = 'com.docker.network.endpoint.';
/** Which families a network has, where the request does not say. */
export const ENABLE_OPTIONS = {
  4: 'com.docker.network.enable_ipv4',
  6: 'com.docker.network.enable_ipv6',
} as const;

function invalid(message: string): DrydockError {
  return new DrydockError('ERR_BAD_PARAMETER', message);
}

/** What a network's options mean here. */
export interface BridgeOptions {
  /** Containers don't reach each other (enable_icc=false). */
  apart: boolean;
  /** Where ports are published that name no address; undefined: everywhere. */
  hostAddress: string | undefined;
  /** 0: the stack's own. */
  mtuBytes: number;
  /** Names of interfaces in containers without their number. */
  interfacePrefix: string;
  /** Families whose containers have no gateway, not even an address of one. */
  isolated: ReadonlySet<4 | 6>;
}

function truth(name: string, text: string): boolean {
  const value = goBool(text);
  if (value === undefined)
    throw invalid(`failed to parse ${name} value: ${JSON.stringify(text)}: true or false is needed`);
  return value;
}

/** Reads a network's options. @throws ERR_BAD_PARAMETER, and ERR_NOT_IMPLEMENTED for a promise that can't be kept */
export function bridgeOptions(options: Record<string, string>): BridgeOptions {
  // It has no effect here, but a word that is none is a mistake here too.
  truth(MASQUERADE, options[MASQUERADE] ?? 'true');
  const hostAddress = options[HOST_BINDING_OPTION] ?? '';
  if (hostAddress !== '' && isIP(hostAddress) === 0)
    throw invalid(`failed to parse host_binding_ipv4: ${JSON.stringify(hostAddress)} is no address`);
  const mtu = options[MTU] ?? '0';
  if (!/^\d{1,5}$/.test(mtu)) throw invalid(`failed to parse ${MTU} value: ${JSON.stringify(mtu)}`);
  return {
    apart: !truth(ICC_OPTION, options[ICC_OPTION] ?? 'true'),
    hostAddress: hostAddress === '' || hostAddress === '0.0.0.0' ? undefined : hostAddress,
    mtuBytes: Number(mtu),
    interfacePrefix: options[PREFIX] || 'eth',
    isolated: new Set(FAMILIES.filter((family) => gatewayMode(options, family) === 'isolated')),
  };
}

/** Of addresses. */
export const FAMILIES = [4, 6] as const;
const gatewayModeOption = (family: 4 | 6): string => `${BRIDGE}gateway_mode_ipv${family}`;

function gatewayMode(options: Record<string, string>, family: 4 | 6): string {
  const name = gatewayModeOption(family);
  const mode = options[name] ?? 'nat';
  if (mode === 'routed')
    throw new DrydockError(
      'ERR_NOT_IMPLEMENTED',
      `${name}=routed is not supported: the addresses of containers are known in their network alone, so the host has no route to lead others there: leave it out, and publish ports`,
    );
  if (!['nat', 'nat-unprotected', 'isolated'].includes(mode))
    throw invalid(`failed to parse ${name} value: ${mode} (unknown gateway mode ${mode})`);
  return mode;
}

/** Options that mean something here; others have no meaning without a kernel bridge and are told to the client. */
const HONOURED: ReadonlySet<string> = new Set([
  MTU,
  PREFIX,
  ICC_OPTION,
  HOST_BINDING_OPTION,
  ...FAMILIES.flatMap((family) => [gatewayModeOption(family), ENABLE_OPTIONS[family]]),
]);

/** A warning of what a network's options ask in vain; '' for nothing. */
export function ignoredOptions(options: Record<string, string> | null | undefined): string {
  const names = Object.keys(options ?? {}).filter((name) => !HONOURED.has(name));
  return names.length > 0 ? `options without effect here: ${names.join(', ')}` : '';
}

/** What an endpoint's options ask of its interface. */
export interface EndpointOptions {
  interfaceName: string | undefined;
  /** By path under /proc/sys; undefined for none. */
  sysctls: ((interfaceName: string) => Record<string, string>) | undefined;
}

/** A setting of one interface, whose name is written IFNAME. */
const SYSCTL = /^net\.(ipv4|ipv6|mpls)\.(conf|neigh)\.IFNAME\.[a-z0-9_]+$/;

/** Reads an endpoint's options. @throws ERR_BAD_PARAMETER */
export function endpointOptions(settings: EndpointSettings): EndpointOptions {
  const options = settings.DriverOpts ?? {};
  for (const name of Object.keys(options))
    if (name !== `${ENDPOINT}sysctls` && name !== `${ENDPOINT}ifname`)
      throw invalid(
        `driver option ${JSON.stringify(name)} is not known: there are ${ENDPOINT}sysctls and ${ENDPOINT}ifname`,
      );
  const interfaceName = options[`${ENDPOINT}ifname`];
  if (interfaceName !== undefined && !/^(?!\.{1,2}$)[^\s/:]{1,15}$/.test(interfaceName))
    throw invalid(
      `invalid interface name ${JSON.stringify(interfaceName)}: 1 to 15 characters without slashes`,
    );
  const pairs = (options[`${ENDPOINT}sysctls`] ?? '')
    .split(',')
    .filter((entry) => entry !== '')
    .map((entry) => {
      const [, name = '', value = ''] = /^([^=]+)=(.+)$/.exec(entry) ?? [];
      if (!SYSCTL.test(name))
        throw invalid(`invalid sysctl ${JSON.stringify(entry)}: net.ipv4.conf.IFNAME.NAME=VALUE is the form`);
      return [name, value] as const;
    });
  return {
    interfaceName,
    sysctls:
      pairs.length === 0
        ? undefined
        : (own) =>
            Object.fromEntries(
              pairs.map(([name, value]) => [name.replaceAll('.', '/').replace('IFNAME', own), value]),
            ),
  };
}
