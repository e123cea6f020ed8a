/** What is asked for a guest, checked and in the form in which it crosses to the network's thread. */
import { DrydockError } from '#common/errors';
import type { AttachOptions, GuestResolving } from './index.ts';
import type { Commands } from './messages.ts';
import {
  invalidAddress,
  type NetworkPlan,
  requireAddress,
  requireGuestIpv6,
  requireIpv4,
  requireMac,
} from './plan.ts';
import { parseUpstream, type Upstream } from './service/dns/upstreams.ts';

/** What the kernel takes (net/core/dev.c, dev_valid_name). */
const INTERFACE_NAME = /^(?!\.{1,2}$)[^\s/:\0]{1,15}$/;

/** @throws DrydockError ERR_ADDRESS_INVALID */
export function requireUpstream(text: string): Upstream {
  const upstream = parseUpstream(text);
  if (!upstream) throw invalidAddress(`"${text}" is no DNS server. Give one like 10.0.0.1 or 10.0.0.1#5353.`);
  return upstream;
}

/** @throws DrydockError ERR_INTERFACE_NAME, ERR_ADDRESS_INVALID */
export function attachWish(options: AttachOptions, plan: NetworkPlan): Commands['attach']['take'] {
  if (!INTERFACE_NAME.test(options.interfaceName))
    throw new DrydockError(
      'ERR_INTERFACE_NAME',
      `"${options.interfaceName}" is no name for an interface: 1 to 15 characters without spaces, slashes and colons.`,
    );
  return {
    namespacePath: options.namespacePath ?? `/proc/${options.pid}/ns/net`,
    interfaceName: options.interfaceName,
    names: options.names,
    address: options.address === undefined ? undefined : requireIpv4(options.address, 'guest'),
    address6: options.address6 === undefined ? undefined : requireGuestIpv6(plan, options.address6),
    mac: options.mac === undefined ? undefined : requireMac(options.mac),
    linkLocal: (options.linkLocal ?? []).map((text) => requireIpv4(text, 'link-local')),
    metric: options.metric,
    settings: options.settings,
  };
}

/** @throws DrydockError ERR_ADDRESS_INVALID */
export function resolvingView({
  upstreams,
  names = {},
}: GuestResolving): Omit<Commands['setResolving']['take'], 'id'> {
  return {
    upstreams: upstreams?.map(requireUpstream),
    names: Object.entries(names).map(([name, addresses]) => [
      name,
      addresses.map((text) => requireAddress(text, `name ${name}`)),
    ]),
  };
}
