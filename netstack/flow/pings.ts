/**
 * Echo requests from guests to the world. They are answered by whoever is asked, never by us on their behalf: a ping socket of the
 * host per guest and identifier carries request and reply with the payload as it is, of any size.
 */

import { errorKindOf } from '../ip/errors.ts';
import { Route, TTL_DEFAULT } from '../ip/output.ts';
import type { Packet } from '../ip/packet.ts';
import { PINGS_MAX, PINGS_PER_GUEST } from '../limits.ts';
import { isMapped } from '../wire/address.ts';
import { emitIcmp, ICMP_ECHO_REPLY, ICMP_LEN } from '../wire/icmp.ts';
import { emitIcmpv6, ICMPV6_ECHO_REPLY } from '../wire/icmpv6.ts';
import { PROTOCOL_ICMP } from '../wire/ipv4.ts';
import { NEXT_ICMPV6 } from '../wire/ipv6.ts';
import type { StackContext } from './context.ts';
import { type Endpoint, GuestSocket, GuestSockets } from './guest-sockets.ts';
import type { HostError, HostIcmpError, HostPing, PingSink } from './host.ts';
import type { FlowInfo } from './inside.ts';

/** RFC 5508 REQ-2: at least a minute. */
const IDLE_MS = 60_000;

class Ping extends GuestSocket<HostPing> implements PingSink {
  readonly idleMs: number = IDLE_MS;
  readonly #pings: Pings;

  constructor(pings: Pings, endpoint: Endpoint) {
    super(endpoint);
    this.#pings = pings;
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
  readonly #sockets: GuestSockets<HostPing, Ping>;
  readonly #route = new Route();

  constructor(context: StackContext) {
    this.#context = context;
    this.#sockets = new GuestSockets(context, {
      holding: 'pings',
      max: PINGS_MAX,
      perGuest: PINGS_PER_GUEST,
      make: (endpoint) => new Ping(this, endpoint),
      open: (ping) => context.host.openPing(ping.ipv4 ? 4 : 6, ping),
      evicted: () => context.counters.pingsEvicted++,
    });
  }

  get size(): number {
    return this.#sockets.size;
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
    const ping = this.#sockets.of(packet.src, word >>> 16, packet.srcMac);
    if (typeof ping === 'string' || !ping.socket) return;
    ping.mac = packet.srcMac;
    this.#sockets.used(ping);
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
    const { addressing, counters, output } = this.#context;
    if (isMapped(addr, addrOff) !== ping.ipv4 || addressing.kind(addr, addrOff) !== 'outside') {
      counters.ipMartianSource++;
      return;
    }
    counters.icmpEchoReplies++;
    this.#sockets.used(ping);
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
    this.#sockets.close(ping);
  }

  forget(addr: Uint8Array, off: number): void {
    this.#sockets.forget(addr, off);
  }

  close(): void {
    this.#sockets.closeAll();
  }

  *describe(): Generator<FlowInfo, void> {
    for (const ping of this.#sockets) yield ping.describe(this.#context.now, 'icmp', 'open');
  }

  poll(now: number): void {
    this.#sockets.poll(now);
  }

  pollAt(): number {
    return this.#sockets.pollAt();
  }

  /** Frees a socket for another use; false when there is none. */
  shed(): boolean {
    return this.#sockets.shed();
  }
}
