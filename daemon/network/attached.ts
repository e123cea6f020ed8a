/** What a running container has on its networks, as a later daemon needs it to give it the same again. */
import type { EndpointSettings } from '../container/types.ts';
import { configOf, isOn } from './endpoint.ts';
import { FAMILIES } from './options.ts';
import type { PortWish } from './ports.ts';
import type { NetworkRecord } from './record.ts';

/** On one network. */
export interface AttachedEndpoint {
  /** The network's name, as the container's record has it. */
  network: string;
  settings: EndpointSettings;
  interfaceName: string;
  metric: number;
}

/** On all of them. */
export interface Attached {
  endpoints: AttachedEndpoint[];
  /** Published ports, with the host's ports that they got. */
  ports: { wish: PortWish; hostPort: number }[];
}

/**
 * Whether a container's connections to an address outlive a daemon: those within itself and to its neighbours, which no
 * daemon takes part in. All others went through its gateway.
 */
export function outlivesDaemon(address: string, networks: readonly NetworkRecord[]): boolean {
  if (address.startsWith('127.') || address === '0:0:0:0:0:0:0:1') return true;
  const on = networks.find((network) => isOn(network, address));
  return on !== undefined && FAMILIES.every((family) => configOf(on, family)?.Gateway !== address);
}
