/**
 * All TCP flows of a stack: finds the flow of a segment, opens new ones, gives touched ones their turn, ends them.
 *
 * A guest's SYN makes a flow at once but is answered only after the host's connect is known. Such pending flows are the ones a
 * flood can make without cost, so they have limits of their own, per guest and in all, and the oldest gives way: connects that hang
 * never keep others out, and a guest pays for its own flood.
 *
 * Work is done once per batch: segments and host events only mark flows as touched; poll() then moves bytes and lets
 * each touched connection send, which gives one ACK per flow and batch.
 */

import type { DestinationKind } from '../ip/addressing.ts';
import { errorKindOf } from '../ip/errors.ts';
import type { TcpTemplate } from '../ip/output.ts';
import type { Packet } from '../ip/packet.ts';
import {
  TCP_BUFFER_BYTES_MAX,
  TCP_BUFFER_BYTES_PER_GUEST,
  TCP_BUFFER_KEPT_BYTES_MAX,
  TCP_FLOWS_MAX,
  TCP_FLOWS_PER_GUEST,
  TCP_PENDING_MAX,
  TCP_PENDING_PER_GUEST,
} from '../limits.ts';
import { BufferPool, BufferShare } from '../tcp/buffer-pool.ts';
import { type TcpConfig, tcpDefaults } from '../tcp/config.ts';
import { TcpConnection, type TcpPath } from '../tcp/connection.ts';
import { ChallengeBudget, newTcpCounters, type TcpContext, type TcpCounters } from '../tcp/context.ts';
import { InitialSequence } from '../tcp/initial-sequence.ts';
import { resetFor } from '../tcp/reset.ts';
import { get32, isMapped } from '../wire/address.ts';
import { fold, pseudo, sum } from '../wire/checksum.ts';
import { IPV4_BYTES_MAX, IPV4_LEN, PROTOCOL_TCP } from '../wire/ipv4.ts';
import { IPV6_LEN } from '../wire/ipv6.ts';
import { parseTcp, TCP_ACK, TCP_SYN, TcpSegment } from '../wire/tcp.ts';
import type { StackContext } from './context.ts';
import { HostEnd, InsideEnd } from './far-end.ts';
import type { HostError, HostIcmpError, HostStream, StreamSink } from './host.ts';
import type { DialOptions, FlowInfo, InsideListener, OutsideListener } from './inside.ts';
import { Table } from './table.ts';
import { type FlowOwner, TcpFlow } from './tcp-flow.ts';
import { Timers } from './timers.ts';

/** Ports of the gateway's own connections: the dynamic ports of RFC 6335 section 6. */
const PORT_FIRST = 49_152;
const PORTS = 65_536 - PORT_FIRST;
/** The bits of a traffic class that are differentiated services; the others are ECN, of each connection's own (RFC 3168). */
const SERVICES_MASK = 0xfc;

export class TcpFlows implements FlowOwner {
  readonly #context: StackContext;
  readonly #pool: BufferPool;
  readonly #tcp: TcpContext;
  readonly #isn: InitialSequence;
  readonly #table: Table<TcpFlow>;
  readonly #timers = new Timers<TcpFlow>();
  readonly #listeners = new Map<number, InsideListener | OutsideListener>();
  readonly #segment = new TcpSegment();
  readonly #reply = new TcpSegment();
  readonly #pathIpv4: TcpPath;
  readonly #pathIpv6: TcpPath;
  #touched: TcpFlow[] = [];
  #pending = 0;
  #nextId = 1;
  #nextPort: number;

  constructor(context: StackContext, config: Partial<TcpConfig> = {}) {
    this.#context = context;
    this.#table = new Table(context.rng);
    this.#isn = new InitialSequence(context.rng);
    this.#nextPort = context.rng.uint32() % PORTS;
    this.#pool = new BufferPool({ bytesMax: TCP_BUFFER_BYTES_MAX, keptBytesMax: TCP_BUFFER_KEPT_BYTES_MAX });
    this.#tcp = {
      config: { ...tcpDefaults, ...config },
      pool: this.#pool,
      counters: newTcpCounters(),
      challenges: new ChallengeBudget(),
    };
    this.#pathIpv4 = this.#path(context.output.mtuBytes, IPV4_LEN);
    this.#pathIpv6 = this.#path(context.output.mtuBytes, IPV6_LEN);
  }

  get now(): number {
    return this.#context.now;
  }

  get size(): number {
    return this.#table.size;
  }

  /** Memory in the buffers of all connections. */
  get bufferBytes(): number {
    return this.#pool.usedBytes;
  }

  get tcpCounters(): TcpCounters {
    return this.#tcp.counters;
  }

  /** Takes a TCP packet from a guest to an address of ours or to the outside. */
  input(packet: Packet, kind: DestinationKind): void {
    const { counters } = this.#context;
    const seg = this.#segment;
    const { buf, payloadOff, end, src, dst, ipv4 } = packet;
    if (!parseTcp(buf, payloadOff, end, seg)) {
      counters.tcpMalformed++;
      return;
    }
    if (!packet.trusted) {
      const len = end - payloadOff;
      const total = pseudo(ipv4, src, 0, dst, 0, PROTOCOL_TCP, len) + sum(buf, payloadOff, len);
      if (fold(total) !== 0xffff) {
        counters.tcpMalformed++;
        return;
      }
    }
    seg.ecn = packet.trafficClass & ~SERVICES_MASK;
    let flow = this.#table.find(src, 0, seg.sourcePort, dst, 0, seg.destinationPort);
    const opening = (seg.flags & (TCP_SYN | TCP_ACK)) === TCP_SYN;
    // RFC 9293 section 3.10.7.4: a new SYN may end TIME-WAIT. One that has just died is in the table until its turn.
    if (flow && opening && (flow.conn.isDead || flow.conn.mayBeReplacedBy(seg))) {
      this.#finish(flow);
      flow = undefined;
    }
    if (!flow) {
      if (opening) this.#open(packet, seg, kind);
      else this.#refuse(packet, seg);
      return;
    }
    if (flow.mac !== packet.srcMac) {
      flow.mac = packet.srcMac;
      flow.template = undefined;
    }
    const services = packet.trafficClass & SERVICES_MASK;
    if (services !== flow.services) {
      flow.services = services;
      flow.end?.setTrafficClass(services);
    }
    flow.lastAt = this.now;
    flow.conn.receive(this.now, seg, flow);
    flow.touch();
  }

  /** Connects into a guest for a user inside. */
  dial(
    addr: Uint8Array,
    off: number,
    port: number,
    sink: StreamSink,
    options: DialOptions = {},
  ): HostStream | HostError {
    const flow = this.#outgoing(addr, off, port, options);
    if (typeof flow === 'string') return flow;
    const end = new InsideEnd(flow, sink);
    flow.end = end;
    this.#reach(flow, () => end.unreachable());
    return end;
  }

  /** Connects into a guest on behalf of a stream of the host. */
  relay(
    stream: HostStream,
    addr: Uint8Array,
    off: number,
    port: number,
    options: DialOptions = {},
  ): StreamSink {
    const flow = this.#outgoing(addr, off, port, options);
    if (typeof flow === 'string') {
      stream.reset();
      return { connected() {}, readable() {}, writable() {}, failed() {} };
    }
    const end = new HostEnd(flow, true, options.opened);
    end.attach(stream);
    flow.end = end;
    this.#reach(flow, () => end.closed('timed-out'));
    return end;
  }

  listen(port: number, listener: InsideListener | OutsideListener): { close(): void } | HostError {
    if (this.#listeners.has(port)) return 'EADDRINUSE';
    this.#listeners.set(port, listener);
    return { close: () => void (this.#listeners.get(port) === listener && this.#listeners.delete(port)) };
  }

  /** An ICMP error of a guest about a segment of ours: from `near`:`nearPort` towards `far`. */
  icmpError(
    error: HostIcmpError,
    near: Uint8Array,
    nearPort: number,
    far: Uint8Array,
    farPort: number,
  ): void {
    const flow = this.#table.find(near, 0, nearPort, far, 0, farPort);
    if (!flow) return;
    if (error.kind === 'too-big') {
      const narrower = this.#path(error.mtuBytes, isMapped(near, 0) ? IPV4_LEN : IPV6_LEN);
      // RFC 1191 section 6.3, RFC 8201 section 4: never wider for an ICMP than what is known, by an earlier one or by what got
      // through; a made-up small one is held by TCP's own minimum.
      if (narrower.segmentBytesMax >= flow.conn.pathSegmentBytes) return;
      flow.conn.setPath(narrower);
      flow.touch();
    } else if (flow.conn.state === 'syn-sent') {
      // RFC 5461: an error during the handshake ends it; later they are not believed (RFC 5927).
      flow.conn.abort();
      const { end } = flow;
      if (end instanceof InsideEnd) end.unreachable();
      else end?.closed('refused');
      this.#end(flow);
    }
  }

  /** Gives up the oldest pending flow of the guest that has the most, to free its socket; false when there is none. */
  shed(): boolean {
    const flow = this.#context.guests.oldestOfHeaviest('pending') as TcpFlow | undefined;
    if (flow) this.#evict(flow);
    return flow !== undefined;
  }

  /** Ends all flows of a guest without a word to it. */
  forget(addr: Uint8Array, off: number): void {
    for (const flow of [...this.#table]) {
      if (get32(flow.near, 12) !== get32(addr, off + 12) || !sameNear(flow, addr, off)) continue;
      flow.conn.discard();
      flow.end?.closed('reset');
      this.#end(flow);
    }
  }

  /** Resets all flows. */
  close(): void {
    for (const flow of [...this.#table]) {
      flow.end?.closed('reset');
      if (flow.conn.state === 'pending') flow.conn.refuse();
      else flow.conn.abort();
      if (flow.mac >= 0) flow.conn.poll(this.now, flow);
      this.#end(flow);
    }
    this.#listeners.clear();
  }

  *describe(): Generator<FlowInfo, void> {
    for (const flow of this.#table) yield flow.describe(this.now);
  }

  /** Gives every touched or due flow its turn. */
  poll(): void {
    const { now } = this;
    for (let due = this.#timers.pop(now); due; due = this.#timers.pop(now)) due.touch();
    // A turn may touch other flows (a user inside answers on another one): they come behind.
    if (this.#touched.length === 0) return;
    for (let i = 0; i < this.#touched.length; i++) this.#turn(now, this.#touched[i]!);
    this.#touched = [];
  }

  pollAt(): number {
    return this.#touched.length > 0 ? Number.NEGATIVE_INFINITY : this.#timers.nextAt();
  }

  touched(flow: TcpFlow): void {
    this.#touched.push(flow);
  }

  template(flow: TcpFlow): TcpTemplate {
    return this.#context.output.template(flow.mac, flow.far, flow.near);
  }

  send(template: TcpTemplate, seg: TcpSegment): boolean {
    return this.#context.output.segment(template, seg);
  }

  refused(flow: TcpFlow, error: HostError, icmp: HostIcmpError | undefined): void {
    const { counters, errors } = this.#context;
    counters.tcpFlowsRefused++;
    const kind = error === 'ECONNREFUSED' || error === 'ECONNRESET' ? undefined : errorKindOf(error);
    if (error === 'ECONNREFUSED' || error === 'ECONNRESET') flow.conn.refuse();
    else {
      // Trouble of our own (no socket left) or a time-out is silence: the guest asks again, or gives up as it sees fit.
      flow.conn.discard();
      const report =
        icmp ?? (kind && { kind: kind as HostIcmpError['kind'], mtuBytes: 0, offender: undefined });
      if (report)
        errors.relay(
          this.now,
          report,
          flow.mac,
          isMapped(flow.near, 0),
          PROTOCOL_TCP,
          flow.near,
          flow.nearPort,
          flow.far,
          0,
          flow.farPort,
          flow.synSequence,
        );
    }
    flow.touch();
  }

  #path(mtuBytes: number, headerLen: number): TcpPath {
    return {
      segmentBytesMax: mtuBytes - headerLen,
      superSegmentBytesMax: this.#context.output.offload ? IPV4_BYTES_MAX - headerLen : 0,
    };
  }

  #turn(now: number, flow: TcpFlow): void {
    if (flow.isGone) return;
    const { conn, end } = flow;
    // Its station is not found yet: the connection has not begun.
    if (flow.mac < 0) {
      flow.isTouched = false;
      return;
    }
    if (flow.pending && conn.isOpen) {
      this.#settled(flow);
      end?.opened();
    }
    end?.pump();
    // What the far end did not take in its turn dies with the connection that the guest has reset.
    if (conn.failure === 'reset' && !conn.isDead) conn.discard();
    conn.poll(now, flow);
    flow.isTouched = false;
    if (conn.isDead) this.#finish(flow);
    else this.#timers.schedule(flow, conn.pollAt());
  }

  /** A segment for no flow: RST (RFC 9293 section 3.10.7.1). */
  #refuse(packet: Packet, seg: TcpSegment): void {
    this.#context.counters.tcpNoFlow++;
    if (!resetFor(seg, this.#reply)) return;
    const template = this.#context.output.template(packet.srcMac, packet.dst, packet.src);
    this.#context.output.segment(template, this.#reply);
  }

  #open(packet: Packet, seg: TcpSegment, kind: DestinationKind): void {
    const context = this.#context;
    const target = context.addressing.toHost(packet.dst, 0);
    const listener = kind === 'own' ? this.#listeners.get(seg.destinationPort) : undefined;
    if (!listener && target && !context.hostLoopback) {
      this.#refuse(packet, seg);
      return;
    }
    if (
      !listener &&
      !context.egress.allows(PROTOCOL_TCP, packet.src, 0, target ?? packet.dst, 0, seg.destinationPort)
    ) {
      context.counters.egressDenied++;
      this.#refuse(packet, seg);
      return;
    }
    const flow = this.#newFlow(packet.src, 0, seg.sourcePort, packet.dst, 0, seg.destinationPort, 'guest');
    if (!flow) return;
    flow.mac = packet.srcMac;
    flow.synSequence = seg.sequence;
    flow.services = packet.trafficClass & SERVICES_MASK;
    if (!flow.conn.listen(this.now, seg)) {
      this.#end(flow);
      return;
    }
    if (listener && 'accepted' in listener) {
      flow.end = new InsideEnd(flow, undefined, (stream) =>
        listener.accepted(stream, flow.near, flow.nearPort),
      );
      flow.conn.accept(this.now);
    } else this.#connect(flow, packet, target, listener);
    flow.touch();
  }

  /** Connects the far side of a new flow; `target` is the host's name for an address of ours, `listener` who has its port. */
  #connect(
    flow: TcpFlow,
    packet: Packet,
    target: Uint8Array | undefined,
    listener: OutsideListener | undefined,
  ): void {
    const { host } = this.#context;
    const end = new HostEnd(flow, false);
    flow.end = end;
    const ttl = target ? 0 : packet.ttl - 1;
    const connect = (): HostStream | HostError =>
      listener?.connect(end, flow.near) ??
      host.connect(target ?? flow.far, 0, flow.farPort, ttl, flow.services, end, flow.near);
    let stream = connect();
    if (stream === 'EMFILE' && this.#context.shed()) stream = connect();
    if (typeof stream === 'string') end.failed(stream);
    else end.attach(stream);
  }

  #outgoing(addr: Uint8Array, off: number, port: number, options: DialOptions): TcpFlow | HostError {
    const { addressing } = this.#context;
    if (!addressing.isGuest(addr, off)) return 'EHOSTUNREACH';
    const source = options.sourceAddr ?? addressing.sourceFor(addr, off);
    if (isMapped(source, 0) !== isMapped(addr, off)) return 'EADDRNOTAVAIL';
    const sourcePort = options.sourcePort || this.#freePort(addr, off, port, source);
    if (sourcePort === 0) return 'EADDRNOTAVAIL';
    if (this.#table.find(addr, off, port, source, 0, sourcePort)) return 'EADDRINUSE';
    return this.#newFlow(addr, off, port, source, 0, sourcePort, 'host') ?? 'EMFILE';
  }

  /** A source port that is free for this destination; 0 when there is none (RFC 6056 algorithm 1, from a random start). */
  #freePort(addr: Uint8Array, off: number, port: number, source: Uint8Array): number {
    for (let i = 0; i < PORTS; i++) {
      this.#nextPort = (this.#nextPort + 1) % PORTS;
      const candidate = PORT_FIRST + this.#nextPort;
      if (!this.#table.find(addr, off, port, source, 0, candidate)) return candidate;
    }
    return 0;
  }

  /** Finds the guest's station, then sends the SYN. */
  #reach(flow: TcpFlow, unreachable: () => void): void {
    this.#context.neighbours.resolve(this.now, flow.near, 0, {
      bytes: 0,
      resolved: (mac) => {
        if (flow.isGone) return;
        if (mac < 0) {
          unreachable();
          flow.conn.discard();
          this.#end(flow);
          return;
        }
        flow.mac = mac;
        flow.conn.connect(this.now);
        flow.touch();
      },
    });
  }

  #newFlow(
    near: Uint8Array,
    nearOff: number,
    nearPort: number,
    far: Uint8Array,
    farOff: number,
    farPort: number,
    initiator: 'guest' | 'host',
  ): TcpFlow | undefined {
    const { counters, guests } = this.#context;
    const guest = guests.of(near, nearOff);
    if (this.#table.size >= TCP_FLOWS_MAX || guest.tcpFlows >= TCP_FLOWS_PER_GUEST) {
      counters.tcpTableFull++;
      guests.release(guest);
      return undefined;
    }
    if (guest.pending.size >= TCP_PENDING_PER_GUEST) this.#evict(guest.pending.oldest as TcpFlow);
    else if (this.#pending >= TCP_PENDING_MAX) this.#evict(guests.oldestOfHeaviest('pending') as TcpFlow);
    const isn = this.#isn.next(this.now, far, farOff, farPort, near, nearOff, nearPort);
    const path = isMapped(near, nearOff) ? this.#pathIpv4 : this.#pathIpv6;
    // The eviction may have been the guest's last flow.
    const holder = guests.of(near, nearOff);
    holder.tcp ??= { ...this.#tcp, pool: new BufferShare(this.#pool, TCP_BUFFER_BYTES_PER_GUEST) };
    const conn = new TcpConnection(holder.tcp, path, farPort, nearPort, isn);
    const flow = new TcpFlow(this, this.#nextId++, holder, conn, far, farOff, initiator);
    flow.guest.tcpFlows++;
    flow.guest.pending.add(flow);
    this.#pending++;
    this.#table.add(flow);
    counters.tcpFlowsOpened++;
    return flow;
  }

  #evict(flow: TcpFlow): void {
    this.#context.counters.tcpPendingEvicted++;
    flow.conn.discard();
    flow.end?.closed('timed-out');
    this.#end(flow);
  }

  /** The handshake is complete, or will never be. */
  #settled(flow: TcpFlow): void {
    if (!flow.pending) return;
    flow.pending = false;
    flow.guest.pending.remove(flow);
    this.#pending--;
  }

  /** The connection is over: tells the far end, and forgets the flow. */
  #finish(flow: TcpFlow): void {
    flow.end?.closed(flow.conn.failure);
    this.#end(flow);
  }

  #end(flow: TcpFlow): void {
    if (flow.isGone) return;
    this.#settled(flow);
    flow.isGone = true;
    this.#table.remove(flow);
    this.#timers.cancel(flow);
    flow.guest.tcpFlows--;
    this.#context.guests.release(flow.guest);
    this.#context.counters.tcpFlowsClosed++;
  }
}

function sameNear(flow: TcpFlow, addr: Uint8Array, off: number): boolean {
  for (let i = 0; i < 16; i++) if (flow.near[i] !== addr[off + i]) return false;
  return true;
}
