/**
 * Echo requests from guests to the world. They are answered by whoever is asked, never by us on their behalf: a ping socket of the
 * host per guest and identifier carries request and reply with the payload as it is, of any size.
 */

import { errorKindOf } from '../ip/errors.ts';
import { Route, TTL_DEFAULT } from '../ip/output.ts';
import type { Packet } from '../ip/packet.ts';
import { PINGS_MAX, PINGS_PER_GUEST } from '../limits.ts';
import { formatEndpoint, isMapped, sameAddress } from '../wire/address.ts';
import { emitIcmp, ICMP_ECHO_REPLY, ICMP_LEN } from '../wire/icmp.ts';
import { emitIcmpv6, ICMPV6_ECHO_REPLY } from '../wire/icmpv6.ts';
import { PROTOCOL_ICMP } from '../wire/ipv4.ts';
import { NEXT_ICMPV6 } from '../wire/ipv6.ts';
import type { Aged } from './age-list.ts';
import type { StackContext } from './context.ts';
import type { Guest } from './guests.ts';
import type { HostError, HostIcmpError, HostPing, PingSink } from './host.ts';
import type { FlowInfo } from './inside.ts';
import { type Entry, NO_ADDRESS, Table } from './table.ts';
import { type Timed, Timers } from './timers.ts';

/** RFC 5508 REQ-2: at least a minute. */
const IDLE_MS = 60_000;

class Ping implements Entry, Timed, Aged, PingSink {
  readonly id: number;
  readonly near: Uint8Array;
  /** The echo identifier. */
  readonly nearPort: number;
  readonly far: Uint8Array = NO_ADDRESS;
  readonly farPort = 0;
  readonly guest: Guest;
  readonly ipv4: boolean;
  mac: number;
  socket: HostPing | undefined;
  readonly openedAt: number;
  lastAt: number;
  bytesFromGuest = 0;
  bytesToGuest = 0;
  readonly #pings: Pings;

  nextInBucket: Entry | undefined;
  dueAt: number = Number.POSITIVE_INFINITY;
  heapIndex = -1;
  heapAt = 0;
  older: Aged | undefined;
  newer: Aged | undefined;

  constructor(pings: Pings, id: number, guest: Guest, ident: number, mac: number, now: number) {
    this.#pings = pings;
    this.id = id;
    this.guest = guest;
    this.near = guest.near;
    this.nearPort = ident;
    this.ipv4 = isMapped(guest.near, 0);
    this.mac = mac;
    this.openedAt = now;
    this.lastAt = now;
  }

  reply(
    sequence: number,
    buf: Uint8Array,
    off: number,
    len: number,
    addr: Uint8Array,
    addrOff: number,
    ttl: number,
  ): void {
    this.#pings.fromHost(this, sequence, buf, off, len, addr, addrOff, ttl);
  }

  icmpError(
    error: HostIcmpError,
    sequence: number,
    addr: Uint8Array,
    addrOff: number,
    buf: Uint8Array,
    off: number,
    len: number,
  ): void {
    this.#pings.hostIcmp(this, error, sequence, addr, addrOff, buf, off, len);
  }

  failed(_error: HostError): void {
    this.#pings.failed(this);
  }
}

export class Pings {
  readonly #context: StackContext;
  readonly #table: Table<Ping>;
  readonly #timers = new Timers<Ping>();
  readonly #route = new Route();
  #nextId = 1;

  constructor(context: StackContext) {
    this.#context = context;
    this.#table = new Table(context.rng);
  }

  get size(): number {
    return this.#table.size;
  }

  /** Forwards an echo request whose word (identifier and sequence number) is `word`. */
  forward(packet: Packet, word: number): void {
    const { now, counters, errors, egress } = this.#context;
    const protocol = packet.ipv4 ? PROTOCOL_ICMP : NEXT_ICMPV6;
    if (!egress.allows(protocol, packet.src, 0, packet.dst, 0, 0)) {
      counters.egressDenied++;
      errors.answer(now, packet, 'prohibited');
      return;
    }
    const ping = this.#pingOf(packet, word >>> 16);
    if (!ping?.socket) return;
    ping.lastAt = now;
    ping.mac = packet.srcMac;
    ping.guest.pings.touch(ping);
    this.#timers.schedule(ping, now + IDLE_MS);
    const off = packet.payloadOff + ICMP_LEN;
    const len = packet.end - off;
    ping.bytesFromGuest += len;
    counters.icmpEchoForwarded++;
    const error = ping.socket.send(word & 0xffff, packet.buf, off, len, packet.dst, 0, packet.ttl - 1);
    const kind = error && errorKindOf(error);
    if (kind) errors.answer(now, packet, kind);
  }

  fromHost(
    ping: Ping,
    sequence: number,
    buf: Uint8Array,
    off: number,
    len: number,
    addr: Uint8Array,
    addrOff: number,
    ttl: number,
  ): void {
    const { addressing, counters, output, now } = this.#context;
    if (isMapped(addr, addrOff) !== ping.ipv4 || addressing.kind(addr, addrOff) !== 'outside') {
      counters.ipMartianSource++;
      return;
    }
    counters.icmpEchoReplies++;
    ping.lastAt = now;
    this.#timers.schedule(ping, now + IDLE_MS);
    ping.bytesToGuest += len;
    const route = this.#route;
    route.mac = ping.mac;
    route.ipv4 = ping.ipv4;
    route.src = addr;
    route.srcOff = addrOff;
    route.dst = ping.near;
    route.ttl = ttl > 0 ? Math.max(1, ttl - 1) : TTL_DEFAULT;
    const rest = ((ping.nearPort << 16) | sequence) >>> 0;
    const upper = output.upperOff(ping.ipv4);
    if (ping.ipv4) {
      emitIcmp({ type: ICMP_ECHO_REPLY, code: 0, rest }, buf, off, len, output.head, upper);
      output.packet(route, PROTOCOL_ICMP, ICMP_LEN, -1, buf, off, len);
    } else {
      const repr = { type: ICMPV6_ECHO_REPLY, code: 0, rest };
      emitIcmpv6(repr, addr, addrOff, ping.near, 0, buf, off, len, output.head, upper);
      output.packet(route, NEXT_ICMPV6, ICMP_LEN, -1, buf, off, len);
    }
  }

  hostIcmp(
    ping: Ping,
    error: HostIcmpError,
    sequence: number,
    addr: Uint8Array,
    addrOff: number,
    buf: Uint8Array,
    off: number,
    len: number,
  ): void {
    if (isMapped(addr, addrOff) !== ping.ipv4) return;
    const type = ping.ipv4 ? 8 : 128;
    this.#context.errors.relay(
      this.#context.now,
      error,
      ping.mac,
      ping.ipv4,
      ping.ipv4 ? PROTOCOL_ICMP : NEXT_ICMPV6,
      ping.near,
      // Bytes 0 to 3 of the quoted request: type, code, and a checksum that nobody checks.
      type << 8,
      addr,
      addrOff,
      0,
      ((ping.nearPort << 16) | sequence) >>> 0,
      buf,
      off,
      len,
    );
  }

  failed(ping: Ping): void {
    this.#close(ping);
  }

  forget(addr: Uint8Array, off: number): void {
    for (const ping of [...this.#table]) if (sameAddress(ping.near, 0, addr, off)) this.#close(ping);
  }

  close(): void {
    for (const ping of [...this.#table]) this.#close(ping);
  }

  *describe(): Generator<FlowInfo, void> {
    const { now } = this.#context;
    for (const ping of this.#table)
      yield {
        id: ping.id,
        protocol: 'icmp',
        initiator: 'guest',
        guest: formatEndpoint(ping.near, 0, ping.nearPort),
        target: '*',
        state: 'open',
        ageMs: now - ping.openedAt,
        idleMs: now - ping.lastAt,
        bytesFromGuest: ping.bytesFromGuest,
        bytesToGuest: ping.bytesToGuest,
        rttMs: undefined,
        retransmits: undefined,
      };
  }

  poll(now: number): void {
    for (let due = this.#timers.pop(now); due; due = this.#timers.pop(now)) this.#close(due);
  }

  pollAt(): number {
    return this.#timers.nextAt();
  }

  #pingOf(packet: Packet, ident: number): Ping | undefined {
    const known = this.#table.find(packet.src, 0, ident);
    if (known) return known;
    const { guests, shed } = this.#context;
    const holder = guests.of(packet.src, 0);
    if (holder.pings.size >= PINGS_PER_GUEST) this.#evict(holder.pings.oldest as Ping);
    else if (this.#table.size >= PINGS_MAX) this.#evict(guests.oldestOfHeaviest('pings') as Ping);
    let ping = this.#open(packet, ident);
    if (ping === 'EMFILE' && shed()) ping = this.#open(packet, ident);
    return typeof ping === 'string' ? undefined : ping;
  }

  #open(packet: Packet, ident: number): Ping | HostError {
    const { guests, host, now } = this.#context;
    const guest = guests.of(packet.src, 0);
    const ping = new Ping(this, this.#nextId++, guest, ident, packet.srcMac, now);
    const socket = host.openPing(packet.ipv4 ? 4 : 6, ping);
    if (typeof socket === 'string') {
      guests.release(guest);
      return socket;
    }
    ping.socket = socket;
    guest.pings.add(ping);
    this.#table.add(ping);
    return ping;
  }

  /** Gives up the least recently used socket of the guest that has the most; false when there is none. */
  shed(): boolean {
    const ping = this.#context.guests.oldestOfHeaviest('pings') as Ping | undefined;
    if (ping) this.#evict(ping);
    return ping !== undefined;
  }

  #evict(ping: Ping): void {
    this.#context.counters.pingsEvicted++;
    this.#close(ping);
  }

  #close(ping: Ping): void {
    if (!ping.socket) return;
    ping.socket.close();
    ping.socket = undefined;
    this.#table.remove(ping);
    this.#timers.cancel(ping);
    ping.guest.pings.remove(ping);
    this.#context.guests.release(ping.guest);
  }
}
