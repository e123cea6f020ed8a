/**
 * Sockets of the host that belong to one endpoint of a guest, whatever their destination: those of UDP mappings and of echo
 * identifiers. Each guest has a share of them, and all together have a limit; at either, the least recently used one gives way:
 * the guest's own, or that of the guest with the most. So does one when the process has no descriptor left.
 */
import { formatEndpoint, isMapped, sameAddress } from '../wire/address.ts';
import type { Aged } from './age-list.ts';
import type { StackContext } from './context.ts';
import type { Guest, Holding } from './guests.ts';
import type { Closable, HostError } from './host.ts';
import type { FlowInfo } from './inside.ts';
import { type Entry, NO_ADDRESS, Table } from './table.ts';
import { type Timed, Timers } from './timers.ts';

/** Whose a socket is. */
export interface Endpoint {
  readonly id: number;
  readonly guest: Guest;
  /** Port, or echo identifier. */
  readonly port: number;
  /** The guest's station, which may change. */
  readonly mac: number;
  readonly now: number;
}

/** One endpoint of a guest and its socket; extend it by the events of the socket. */
export abstract class GuestSocket<S extends Closable> implements Entry, Timed, Aged {
  readonly id: number;
  readonly near: Uint8Array;
  readonly nearPort: number;
  readonly far: Uint8Array = NO_ADDRESS;
  readonly farPort = 0;
  readonly guest: Guest;
  readonly ipv4: boolean;
  mac: number;
  /** Undefined once it is closed. */
  socket: S | undefined;
  readonly openedAt: number;
  lastAt: number;
  bytesFromGuest = 0;
  bytesToGuest = 0;

  nextInBucket: Entry | undefined;
  dueAt: number = Number.POSITIVE_INFINITY;
  heapIndex = -1;
  heapAt = 0;
  older: Aged | undefined;
  newer: Aged | undefined;

  constructor({ id, guest, port, mac, now }: Endpoint) {
    this.id = id;
    this.guest = guest;
    this.near = guest.near;
    this.nearPort = port;
    this.ipv4 = isMapped(guest.near, 0);
    this.mac = mac;
    this.openedAt = now;
    this.lastAt = now;
  }

  /** How long it lives without traffic. */
  abstract get idleMs(): number;

  describe(now: number, protocol: 'udp' | 'icmp', state: string): FlowInfo {
    return {
      id: this.id,
      protocol,
      initiator: 'guest',
      guest: formatEndpoint(this.near, 0, this.nearPort),
      target: '*',
      state,
      ageMs: now - this.openedAt,
      idleMs: now - this.lastAt,
      bytesFromGuest: this.bytesFromGuest,
      bytesToGuest: this.bytesToGuest,
      rttMs: undefined,
      retransmits: undefined,
    };
  }
}

/** What a table of them holds to, and how it makes them. */
export interface GuestSocketKind<S extends Closable, T extends GuestSocket<S>> {
  readonly holding: Exclude<Holding, 'pending'>;
  readonly max: number;
  readonly perGuest: number;
  make(endpoint: Endpoint): T;
  open(item: T): S | HostError;
  /** One gives way to another. */
  evicted(): void;
}

export class GuestSockets<S extends Closable, T extends GuestSocket<S>> {
  readonly #context: StackContext;
  readonly #kind: GuestSocketKind<S, T>;
  readonly #table: Table<T>;
  readonly #timers = new Timers<T>();
  #nextId = 1;

  constructor(context: StackContext, kind: GuestSocketKind<S, T>) {
    this.#context = context;
    this.#kind = kind;
    this.#table = new Table(context.rng);
  }

  get size(): number {
    return this.#table.size;
  }

  [Symbol.iterator](): Iterator<T> {
    return this.#table[Symbol.iterator]();
  }

  /** The socket of a guest's endpoint, opened if need be; or why it cannot be. */
  of(addr: Uint8Array, port: number, mac: number): T | HostError {
    const known = this.#table.find(addr, 0, port);
    if (known) return known;
    const { guests, shed } = this.#context;
    const { holding, max, perGuest } = this.#kind;
    const held = guests.of(addr, 0)[holding];
    if (held.size >= perGuest) this.#evict(held.oldest as T);
    else if (this.#table.size >= max) this.#evict(guests.oldestOfHeaviest(holding) as T);
    const item = this.#open(addr, port, mac);
    return item === 'EMFILE' && shed() ? this.#open(addr, port, mac) : item;
  }

  #open(addr: Uint8Array, port: number, mac: number): T | HostError {
    const { guests, now } = this.#context;
    // Whoever gave way may have been the guest's last.
    const guest = guests.of(addr, 0);
    const item = this.#kind.make({ id: this.#nextId++, guest, port, mac, now });
    const socket = this.#kind.open(item);
    if (typeof socket === 'string') {
      guests.release(guest);
      return socket;
    }
    item.socket = socket;
    guest[this.#kind.holding].add(item);
    this.#table.add(item);
    return item;
  }

  /** Something passed through one: it is the newest, and lives on. */
  used(item: T): void {
    const { now } = this.#context;
    item.lastAt = now;
    item.guest[this.#kind.holding].touch(item);
    this.#timers.schedule(item, now + item.idleMs);
  }

  /** Closes one; closing it again does nothing. */
  close(item: T): void {
    if (!item.socket) return;
    item.socket.close();
    item.socket = undefined;
    this.#table.remove(item);
    this.#timers.cancel(item);
    item.guest[this.#kind.holding].remove(item);
    this.#context.guests.release(item.guest);
  }

  /** Gives up the least recently used one of the guest that has the most; false when there is none. */
  shed(): boolean {
    const item = this.#context.guests.oldestOfHeaviest(this.#kind.holding) as T | undefined;
    if (item) this.#evict(item);
    return item !== undefined;
  }

  #evict(item: T): void {
    this.#kind.evicted();
    this.close(item);
  }

  /** Closes those of a guest. */
  forget(addr: Uint8Array, off: number): void {
    for (const item of [...this.#table]) if (sameAddress(item.near, 0, addr, off)) this.close(item);
  }

  closeAll(): void {
    for (const item of [...this.#table]) this.close(item);
  }

  /** Closes what has been idle for too long; returns how many. */
  poll(now: number): number {
    let expired = 0;
    for (let due = this.#timers.pop(now); due; due = this.#timers.pop(now)) {
      this.close(due);
      expired++;
    }
    return expired;
  }

  pollAt(): number {
    return this.#timers.nextAt();
  }
}
