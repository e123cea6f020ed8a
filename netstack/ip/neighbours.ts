/**
 * Who has which address: the neighbour cache for ARP and NDP (RFC 4861 section 7.3, used for both).
 *
 * Most packets do not ask it, since a flow answers to the station its packets came from. It serves those who speak first:
 * published ports and services. An entry is believed for a while after it was confirmed, then used but asked after, and
 * forgotten when nobody answers. Claims are hostile until shown otherwise: a bound address belongs to one station, and a
 * confirmed one cannot be taken over in the moment after it was confirmed.
 */
import type { Rng } from '#common/rng';
import { type Entry, keyAddress, NO_ADDRESS, Table } from '../flow/table.ts';
import { type Timed, Timers } from '../flow/timers.ts';
import { NEIGHBOUR_QUEUE_BYTES_MAX, NEIGHBOUR_QUEUE_MAX, NEIGHBOURS_MAX } from '../limits.ts';
import { isGroupMac } from '../wire/address.ts';
import type { StackCounters } from './counters.ts';

/** How long a confirmation is good (RFC 4861 section 10, REACHABLE_TIME). */
const REACHABLE_MS = 30_000;
/** Time between solicitations (RETRANS_TIMER), and how many before giving up (MAX_MULTICAST_SOLICIT). */
const RETRANSMIT_MS = 1000;
const SOLICITATIONS_MAX = 3;
/** An entry that nobody used or refreshed for so long is forgotten. */
const FORGET_MS = 600_000;
/**
 * A claim by another station is not believed for so long after a confirmation (Linux's locktime). RFC 826 would have the last one
 * win, and RFC 5227 section 1.1 has stations that claim an address "broadcast ANNOUNCE_NUM ARP Announcements, spaced
 * ANNOUNCE_INTERVAL seconds apart": 2 of them, 2 seconds apart, so that whoever has an address by right is believed at the second
 * at the latest, while two that fight for one do not move every packet to and fro.
 */
const HOLD_MS = 1000;

/** Who waits for an address: gets the MAC address, or -1 when nobody answered. */
export interface Waiter {
  /** Bytes held meanwhile. */
  readonly bytes: number;
  resolved(mac: number): void;
}

class Neighbour implements Entry, Timed {
  readonly near: Uint8Array;
  readonly nearPort = 0;
  readonly far: Uint8Array = NO_ADDRESS;
  readonly farPort = 0;
  nextInBucket: Entry | undefined;
  dueAt: number = Number.POSITIVE_INFINITY;
  heapIndex = -1;
  heapAt = 0;
  mac = -1;
  /** Only this station may use the address. */
  bound = false;
  confirmedAt: number = Number.NEGATIVE_INFINITY;
  usedAt = 0;
  /** Solicitations sent without an answer; 0: none is under way. */
  solicitations = 0;
  readonly waiters: Waiter[] = [];

  constructor(addr: Uint8Array, off: number) {
    this.near = keyAddress(addr, off);
  }
}

/** Asks the link who has an address: everybody, or only `mac` when it is not -1. */
export type Solicit = (addr: Uint8Array, mac: number) => void;

export class Neighbours {
  readonly #table: Table<Neighbour>;
  readonly #timers = new Timers<Neighbour>();
  readonly #counters: StackCounters;
  readonly #ownMac: number;
  readonly #solicit: Solicit;
  #queuedBytes = 0;

  constructor(rng: Rng, counters: StackCounters, ownMac: number, solicit: Solicit) {
    this.#table = new Table(rng);
    this.#counters = counters;
    this.#ownMac = ownMac;
    this.#solicit = solicit;
  }

  get size(): number {
    return this.#table.size;
  }

  /** The MAC address, or -1 when it is not known. Asks after it when the last confirmation is old. */
  lookup(now: number, addr: Uint8Array, off: number): number {
    const neighbour = this.#table.find(addr, off, 0);
    if (!neighbour || neighbour.mac < 0) return -1;
    neighbour.usedAt = now;
    if (!neighbour.bound && now - neighbour.confirmedAt > REACHABLE_MS && neighbour.solicitations === 0)
      this.#ask(now, neighbour);
    return neighbour.mac;
  }

  /** True unless the address is bound to another station. */
  mayUse(addr: Uint8Array, off: number, mac: number): boolean {
    const neighbour = this.#table.find(addr, off, 0);
    return !neighbour?.bound || neighbour.mac === mac;
  }

  /**
   * A station says that it has an address. `solicited`: in answer to our question. Returns false when it is not believed.
   */
  learn(now: number, addr: Uint8Array, off: number, mac: number, solicited: boolean): boolean {
    if (isGroupMac(mac) || mac === this.#ownMac || mac === 0) return this.#spoofed();
    let neighbour = this.#table.find(addr, off, 0);
    if (!neighbour) neighbour = this.#create(now, addr, off);
    else if (neighbour.mac >= 0 && neighbour.mac !== mac) {
      const asked = solicited && neighbour.solicitations > 0;
      if (neighbour.bound || (!asked && now - neighbour.confirmedAt < HOLD_MS)) return this.#spoofed();
    }
    neighbour.mac = mac;
    neighbour.confirmedAt = now;
    neighbour.solicitations = 0;
    if (!neighbour.bound) this.#timers.schedule(neighbour, now + FORGET_MS);
    this.#settle(neighbour, mac);
    return true;
  }

  /** A station answers; unlike {@link learn} this makes no entry that nobody asked for (RFC 4861 section 7.2.5, RFC 5227 section 4). */
  answer(now: number, addr: Uint8Array, off: number, mac: number): void {
    if (this.#table.find(addr, off, 0)) this.learn(now, addr, off, mac, true);
  }

  /** Finds the MAC address, asking for it if need be. The waiter may be called before this returns. */
  resolve(now: number, addr: Uint8Array, off: number, waiter: Waiter): void {
    const mac = this.lookup(now, addr, off);
    if (mac >= 0) {
      waiter.resolved(mac);
      return;
    }
    const neighbour = this.#table.find(addr, off, 0) ?? this.#create(now, addr, off);
    if (this.#queuedBytes + waiter.bytes > NEIGHBOUR_QUEUE_BYTES_MAX) {
      this.#counters.neighbourQueueDropped++;
      waiter.resolved(-1);
      return;
    }
    if (waiter.bytes > 0) this.#makeRoom(neighbour);
    neighbour.waiters.push(waiter);
    this.#queuedBytes += waiter.bytes;
    if (neighbour.solicitations === 0) this.#ask(now, neighbour);
  }

  /** Binds an address to a station, or frees it. */
  bind(now: number, addr: Uint8Array, off: number, mac: number | undefined): void {
    const known = this.#table.find(addr, off, 0);
    if (mac === undefined) {
      if (known) this.#forget(known);
      return;
    }
    const neighbour = known ?? this.#create(now, addr, off);
    neighbour.bound = true;
    neighbour.mac = mac;
    neighbour.solicitations = 0;
    this.#timers.cancel(neighbour);
    this.#settle(neighbour, mac);
  }

  pollAt(): number {
    return this.#timers.nextAt();
  }

  poll(now: number): void {
    for (let due = this.#timers.pop(now); due; due = this.#timers.pop(now)) {
      if (due.solicitations === 0) {
        // Idle: forgotten, unless it was used meanwhile.
        if (now - due.usedAt < FORGET_MS) this.#timers.schedule(due, due.usedAt + FORGET_MS);
        else this.#forget(due);
      } else if (due.solicitations < SOLICITATIONS_MAX) this.#ask(now, due);
      else {
        this.#counters.neighbourUnresolved++;
        this.#forget(due);
      }
    }
  }

  #ask(now: number, neighbour: Neighbour): void {
    neighbour.solicitations++;
    this.#timers.schedule(neighbour, now + RETRANSMIT_MS);
    this.#solicit(neighbour.near, neighbour.mac);
  }

  #create(now: number, addr: Uint8Array, off: number): Neighbour {
    if (this.#table.size >= NEIGHBOURS_MAX) this.#evict();
    const neighbour = new Neighbour(addr, off);
    neighbour.usedAt = now;
    this.#table.add(neighbour);
    return neighbour;
  }

  #evict(): void {
    let oldest: Neighbour | undefined;
    let oldestAt = Number.POSITIVE_INFINITY;
    for (const neighbour of this.#table) {
      const heardAt = Math.max(neighbour.usedAt, neighbour.confirmedAt);
      if (neighbour.bound || heardAt >= oldestAt) continue;
      oldest = neighbour;
      oldestAt = heardAt;
    }
    if (!oldest) return;
    this.#counters.neighbourEvicted++;
    this.#forget(oldest);
  }

  #forget(neighbour: Neighbour): void {
    this.#table.remove(neighbour);
    this.#timers.cancel(neighbour);
    this.#settle(neighbour, -1);
  }

  /** Tells all who wait. They may ask again at once. */
  #settle(neighbour: Neighbour, mac: number): void {
    if (neighbour.waiters.length === 0) return;
    for (const waiter of neighbour.waiters.splice(0)) {
      this.#queuedBytes -= waiter.bytes;
      waiter.resolved(mac);
    }
  }

  /** Drops the oldest waiting packet when there are too many; connections, which hold no bytes, stay. */
  #makeRoom(neighbour: Neighbour): void {
    const packets = neighbour.waiters.filter((waiter) => waiter.bytes > 0);
    if (packets.length < NEIGHBOUR_QUEUE_MAX) return;
    const oldest = packets[0]!;
    neighbour.waiters.splice(neighbour.waiters.indexOf(oldest), 1);
    this.#queuedBytes -= oldest.bytes;
    this.#counters.neighbourQueueDropped++;
    oldest.resolved(-1);
  }

  #spoofed(): false {
    this.#counters.neighbourSpoofed++;
    return false;
  }
}
