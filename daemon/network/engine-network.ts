/** A network as the engine needs it, whoever carries its packets. */
import type { Network, NetworkOptions } from '#netstack';

/** What the engine asks of a network. */
export type EngineNetwork = Pick<
  Network,
  | 'subnet'
  | 'gateway'
  | 'attach'
  | 'publish'
  | 'setHostNames'
  | 'flows'
  | 'leases'
  | 'dnsLog'
  | 'denied'
  | 'captureLive'
  | 'close'
>;

/** Starts one. @throws DrydockError */
export type CreateNetwork = (options: NetworkOptions) => Promise<EngineNetwork>;
