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
  for (const family of ['ipv4', 'ipv6']) {
    const mode = options[`${BRIDGE}gateway_mode_${family}`] ?? 'nat';
    if (!['nat', 'nat-unprotected'].includes(mode))
      throw new DrydockError(
        'ERR_NOT_IMPLEMENTED',
        `gateway_mode_${family}=${mode} is not supported: the gateway of a network here always is one of its own`,
      );
  }
  return {
    apart: !truth(ICC_OPTION, options[ICC_OPTION] ?? 'true'),
    hostAddress: hostAddress === '' || hostAddress === '0.0.0.0' ? undefined : hostAddress,
    mtuBytes: Number(mtu),
    interfacePrefix: options[PREFIX] || 'eth',
  };
}

/** Options that mean something here; others have no meaning without a kernel bridge and are told to the client. */
const HONOURED: ReadonlySet<string> = new Set([
  MTU,
  PREFIX,
  ICC_OPTION,
  HOST_BINDING_OPTION,
  `${BRIDGE}gateway_mode_ipv4`,
  `${BRIDGE}gateway_mode_ipv6`,
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
