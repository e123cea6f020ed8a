/** What the parts of one stack share. */
import type { Log } from '#common/log';
import type { Rng } from '#common/rng';
import type { Addressing } from '../ip/addressing.ts';
import type { StackCounters } from '../ip/counters.ts';
import type { IcmpErrors } from '../ip/errors.ts';
import type { Neighbours } from '../ip/neighbours.ts';
import type { Output } from '../ip/output.ts';
import type { Guests } from './guests.ts';
import type { Host } from './host.ts';
import type { EgressPolicy, MulticastGroup } from './inside.ts';

export interface StackContext {
  /** Time of the turn in hand, monotonic milliseconds: calls from outside carry none. */
  now: number;
  readonly host: Host;
  readonly rng: Rng;
  readonly log: Log;
  readonly counters: StackCounters;
  readonly addressing: Addressing;
  readonly output: Output;
  readonly errors: IcmpErrors;
  readonly neighbours: Neighbours;
  readonly guests: Guests;
  /** Guests reach the host's loopback at the gateway's address. */
  readonly hostLoopback: boolean;
  /** The process has no descriptor left: gives up what can best be spared; false when there is none. */
  readonly shed: () => boolean;
  readonly egress: EgressPolicy;
  /** Multicast groups whose datagrams go out. */
  readonly relayedGroups: readonly MulticastGroup[];
}
