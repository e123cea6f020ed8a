/** What stands for a network's stack where packets cannot be had: it has a gateway's address and no guests but jails. */
import { DrydockError } from '#common/errors';
import type { NetworkOptions } from '#netstack';
import { firstAddress, parseSubnet } from '../subnets.ts';
import type { Stack } from './network.ts';

/** See the module's head. */
export async function noStack({ name, subnet = '', gateway }: NetworkOptions): Promise<Stack> {
  const none = (what: string): Promise<never> =>
    Promise.reject(
      new DrydockError('ERR_PLATFORM', `Network ${name} carries no packets on this system: ${what}.`),
    );
  return {
    subnet,
    gateway: gateway ?? (subnet && firstAddress(parseSubnet(subnet))),
    attach: () => none('only jails can join it'),
    publish: () => none('there is nothing behind that port'),
    dial: () => none('there is nobody at that address'),
    captureLive: () => none('there are none to capture'),
    setHostNames: async () => {},
    flows: async () => [],
    leases: async () => [],
    dnsLog: async () => [],
    denied: async () => [],
    close: async () => {},
  };
}
