/**
 * What each guest uses, so that limits are shared fairly: whoever floods pays with flows of its own. A guest is a source
 * address; it is remembered while it has any flow.
 */
import type { Rng } from '#common/rng';
import type { TcpContext } from '../tcp/context.ts';
import { type Aged, AgeList } from './age-list.ts';
import { type Entry, keyAddress, NO_ADDRESS, Table } from './table.ts';

/** The lists of what a guest has. */
export type Holding = 'pending' | 'mappings' | 'pings';

export class Guest implements Entry {
  readonly near: Uint8Array;
  readonly nearPort = 0;
  readonly far: Uint8Array = NO_ADDRESS;
  readonly farPort = 0;
  nextInBucket: Entry | undefined;
  /** TCP flows in all states. */
  tcpFlows = 0;
  /** TCP flows whose handshake is not complete. */
  readonly pending: AgeList<Aged> = new AgeList();
  readonly mappings: AgeList<Aged> = new AgeList();
  readonly pings: AgeList<Aged> = new AgeList();
  /** What its connections share, made with the first of them. */
  tcp: TcpContext | undefined;

  constructor(addr: Uint8Array, off: number) {
    this.near = keyAddress(addr, off);
  }
}

export class Guests {
  readonly #table: Table<Guest>;

  constructor(rng: Rng) {
    this.#table = new Table(rng);
  }

  get size(): number {
    return this.#table.size;
  }

  /** The guest with this address, made if need be. */
  of(addr: Uint8Array, off: number): Guest {
    const known = this.#table.find(addr, off, 0);
    if (known) return known;
    const guest = new Guest(addr, off);
    this.#table.add(guest);
    return guest;
  }

  /** Forgets a guest that has nothing left. */
  release(guest: Guest): void {
    if (guest.tcpFlows === 0 && guest.mappings.size === 0 && guest.pings.size === 0)
      this.#table.remove(guest);
  }

  /** The oldest thing of the guest that has the most of this kind: what to give up when all together have too much. */
  oldestOfHeaviest(holding: Holding): Aged | undefined {
    let heaviest: Guest | undefined;
    for (const guest of this.#table)
      if (!heaviest || guest[holding].size > heaviest[holding].size) heaviest = guest;
    return heaviest?.[holding].oldest;
  }
}
