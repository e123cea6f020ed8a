/**
 * Machines that join by VPNKit's handshake: each uuid has a MAC address of its own, and may have wished for an address,
 * which DHCP then gives it. The same machine gets the same again for as long as the network lives.
 */
import { errorMessage } from '#common/errors';
import type { VmnetRegistry } from './link/preamble.ts';
import type { LeasePool } from './service/lease-pool.ts';

/** vpnkit's first client has 02:50:00:00:00:01, and so on. */
const MAC_BASE = 0x0250_0000_0000;
/** Machines with a uuid that are remembered. */
const MACHINES_MAX = 4096;

/** Gives out MAC addresses by uuid. */
export class Machines implements VmnetRegistry {
  readonly #leases: LeasePool;
  readonly #macs = new Map<string, number>();
  #count = 0;

  /** @param macs MAC addresses that are settled beforehand, by uuid in lower case. */
  constructor(leases: LeasePool, macs: Iterable<readonly [string, number]> = []) {
    this.#leases = leases;
    for (const [uuid, mac] of macs) this.#macs.set(uuid, mac);
  }

  admit(uuid: string, preferredIpv4: number | undefined): number | string {
    const name = uuid.toLowerCase();
    const known = name === '' ? undefined : this.#macs.get(name);
    if (known === undefined && this.#macs.size >= MACHINES_MAX) return 'Too many machines';
    const mac = known ?? MAC_BASE + this.#count + 1;
    if (preferredIpv4 !== undefined) {
      try {
        this.#leases.reserve(preferredIpv4, { mac });
      } catch (error) {
        return errorMessage(error);
      }
    }
    if (known === undefined) this.#count++;
    if (name !== '') this.#macs.set(name, mac);
    return mac;
  }
}
