/**
 * The stack of one network: the gateway that guests' frames reach on one side, native sockets on the other.
 *
 * Packets: frame → Ethernet → ARP, or IPv4/IPv6 (judged, reassembled) → ICMP, UDP or TCP → a service inside, or a flow to a
 * socket of the host. The other way a flow emits IP packets straight to its guest's station.
 *
 * It is a machine without I/O of its own. Its owner calls receive() for every frame of a batch, lets the host's sockets deliver their
 * events, and calls poll() once: that is when TCP moves bytes and answers, timers fire and the link is flushed. pollAt() says when
 * to come again if nothing happens. All of it runs in one thread and nothing in it waits.
 */
import type { Log } from '#common/log';
import type { Rng } from '#common/rng';
import type { StackContext } from './flow/context.ts';
import { Guests } from './flow/guests.ts';
import type { Host, HostError, HostStream, StreamSink } from './flow/host.ts';
import type {
  DialOptions,
  EgressPolicy,
  FlowInfo,
  InsideListener,
  MulticastGroup,
  OutsideListener,
  UdpBinding,
  UdpService,
  UdpSocket,
} from './flow/inside.ts';
import { Pings } from './flow/pings.ts';
import { TcpFlows } from './flow/tcp-flows.ts';
import { Addressing, type DestinationKind } from './ip/addressing.ts';
import { Arp } from './ip/arp.ts';
import { StackCounters } from './ip/counters.ts';
import { IcmpErrors } from './ip/errors.ts';
import { IcmpInput } from './ip/icmp-input.ts';
import { Icmpv6Input } from './ip/icmpv6-input.ts';
import { Ipv4Input } from './ip/ipv4-input.ts';
import { Ipv6Input } from './ip/ipv6-input.ts';
import { Ndp, type RouterOptions } from './ip/ndp.ts';
import { Neighbours } from './ip/neighbours.ts';
import { Output } from './ip/output.ts';
import { Packet } from './ip/packet.ts';
import { type Link, VNET_HDR_LEN } from './link/link.ts';
import type { TcpConfig } from './tcp/config.ts';
import { Groups } from './udp/groups.ts';
import { UdpInput } from './udp/input.ts';
import { InsideUdp } from './udp/inside.ts';
import { UdpNat } from './udp/nat.ts';
import { getMac, isGroupMac, isMapped } from './wire/address.ts';
import {
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  parseEthernet,
  sizeEthernet,
} from './wire/ethernet.ts';
import { PROTOCOL_ICMP, PROTOCOL_TCP, PROTOCOL_UDP } from './wire/ipv4.ts';
import { NEXT_ICMPV6 } from './wire/ipv6.ts';
import { PROTOCOL_IGMP } from './wire/membership.ts';
import { GSO_ECN, GSO_NONE, get16le } from './wire/virtio.ts';

/** How a stack is made. */
export interface StackOptions {
  host: Host;
  link: Link;
  rng: Rng;
  log: Log;
  /** The gateway's MAC address, 6 bytes. */
  mac: Uint8Array;
  /** Largest IP packet sent; default: the link's. */
  mtuBytes?: number;
  /** The gateway's IPv4 address as a number (host order) and its subnet. */
  ipv4: { address: number; prefixLength: number };
  /**
   * The gateway's global or unique local IPv6 address and its subnet; a link-local one is made from the MAC. With a prefix of
   * 64 bits guests form their own addresses (SLAAC). Absent: no IPv6.
   */
  ipv6?: { address: Uint8Array; prefixLength: number; router?: RouterOptions };
  /**
   * Further IPv4 addresses that are ours, without the gateway's services, and where on the host's side each leads: to its
   * loopback like the gateway's (gvproxy's host address), or elsewhere (gvproxy's `nat`).
   */
  hostAddresses?: ReadonlyMap<number, number>;
  /** Guests reach the host's loopback at the gateway's address. Default true. */
  hostLoopback?: boolean;
  /** What may leave; default: everything that is not a martian. */
  egress?: EgressPolicy;
  /**
   * Multicast groups whose datagrams go out to the host's networks, one hop far; those who answer the sender reach the guest
   * (mDNS's one-shot queries, SSDP's searches), and while a guest wants a group (IGMP, MLD) so does what others send to it.
   * Default: none.
   */
  relayedGroups?: readonly MulticastGroup[];
  /** Settings of TCP that differ from the defaults. */
  tcp?: Partial<TcpConfig>;
}

const ALLOW_ALL: EgressPolicy = { allows: () => true };
/** virtio_net_hdr flags: the checksum is partial, or was verified by the sender's device. */
const FLAGS_CHECKSUM_GOOD = 1 | 2;

/** What services and publishers use of a stack: tests stand in for it. */
export type StackSurface = Pick<Stack, keyof Stack>;

export class Stack {
  readonly #link: Link;
  readonly #mac: number;
  readonly #context: StackContext;
  readonly #packet = new Packet();
  readonly #arp: Arp;
  readonly #ndp: Ndp;
  readonly #ipv4: Ipv4Input;
  readonly #ipv6: Ipv6Input;
  readonly #icmp: IcmpInput;
  readonly #icmpv6: Icmpv6Input;
  readonly #udpInput: UdpInput;
  readonly #udpInside: InsideUdp;
  readonly #udpNat: UdpNat;
  readonly #groups: Groups;
  readonly #pings: Pings;
  readonly #tcp: TcpFlows;

  constructor(options: StackOptions) {
    const { link, rng, host, log } = options;
    this.#link = link;
    this.#mac = getMac(options.mac, 0);
    const counters = new StackCounters();
    const addressing = new Addressing({
      ipv4: options.ipv4,
      ipv6: options.ipv6,
      hostAddresses: options.hostAddresses,
      mac: this.#mac,
    });
    const output = new Output(link, rng, counters, this.#mac, options.mtuBytes ?? link.mtuBytes);
    this.#context = {
      now: 0,
      host,
      rng,
      log,
      counters,
      addressing,
      output,
      errors: new IcmpErrors(output, addressing, counters),
      neighbours: new Neighbours(rng, counters, this.#mac, (addr, mac) =>
        isMapped(addr, 0) ? this.#arp.solicit(addr, mac) : this.#ndp.solicit(addr, mac),
      ),
      guests: new Guests(rng),
      hostLoopback: options.hostLoopback ?? true,
      egress: options.egress ?? ALLOW_ALL,
      relayedGroups: options.relayedGroups ?? [],
      // A datagram mapping is remade by the next packet; a pending connect is asked for again.
      shed: () => this.#udpNat.shed() || this.#pings.shed() || this.#tcp.shed(),
    };
    this.#arp = new Arp(this.#context, this.#mac);
    this.#ndp = new Ndp(this.#context, this.#mac, options.ipv6?.router);
    this.#tcp = new TcpFlows(this.#context, options.tcp);
    this.#udpInside = new InsideUdp(this.#context);
    this.#udpNat = new UdpNat(this.#context);
    this.#groups = new Groups(this.#context);
    this.#udpInput = new UdpInput(this.#context, this.#udpInside, this.#udpNat, this.#groups);
    this.#pings = new Pings(this.#context);
    const targets = { tcp: this.#tcp, udp: this.#udpInside };
    this.#icmp = new IcmpInput(this.#context, this.#pings, targets);
    this.#icmpv6 = new Icmpv6Input(this.#context, this.#ndp, this.#pings, this.#groups, targets);
    const deliver = (packet: Packet, kind: DestinationKind): void => this.#deliver(packet, kind);
    this.#ipv4 = new Ipv4Input(this.#context, deliver, new Packet());
    this.#ipv6 = new Ipv6Input(this.#context, deliver, new Packet());
  }

  /** Takes one frame from the link; `off` is its virtio_net_hdr, `end` the end of the frame. */
  receive(now: number, buf: Uint8Array, off: number, end: number): void {
    this.#context.now = now;
    const { counters } = this.#context;
    counters.framesIn++;
    counters.bytesIn += end - off - VNET_HDR_LEN;
    const ethernet = off + VNET_HDR_LEN;
    const frame = parseEthernet(buf, ethernet, end);
    if (!frame) {
      counters.ethernetRunts++;
      return;
    }
    const group = isGroupMac(frame.dst);
    if (!group && frame.dst !== this.#mac) {
      counters.ethernetNotForUs++;
      return;
    }
    if (isGroupMac(frame.src) || frame.src === this.#mac || frame.src === 0) {
      counters.ethernetBadSource++;
      return;
    }
    // A priority tag (VLAN 0) is no VLAN (IEEE 802.1Q clause 6.9); others are not configured here, so they are not for us.
    if (frame.tag >= 0 && (frame.tag & 0xfff) !== 0) {
      counters.ethernetVlanDropped++;
      return;
    }
    const ipOff = ethernet + sizeEthernet(frame);
    if (frame.type === ETHERTYPE_ARP) {
      this.#arp.input(buf, ipOff, end, frame.src);
      return;
    }
    const packet = this.#packet;
    packet.buf = buf;
    packet.ipOff = ipOff;
    packet.srcMac = frame.src;
    packet.group = group;
    packet.trusted = (buf[off]! & FLAGS_CHECKSUM_GOOD) !== 0;
    packet.gsoType = buf[off + 1]! & ~GSO_ECN;
    packet.gsoSize = packet.gsoType === GSO_NONE ? 0 : get16le(buf, off + 4);
    if (frame.type === ETHERTYPE_IPV4) this.#ipv4.input(packet, end);
    else if (frame.type === ETHERTYPE_IPV6 && this.#context.addressing.hasIpv6) this.#ipv6.input(packet, end);
    else counters.ethernetUnknownType++;
  }

  /** After each batch of frames and host events: emits what is due, then flushes the link. */
  poll(now: number): void {
    this.#context.now = now;
    this.#arp.poll(now);
    this.#ndp.poll(now);
    this.#context.neighbours.poll(now);
    this.#ipv4.poll(now);
    this.#ipv6.poll(now);
    this.#udpNat.poll(now);
    this.#groups.poll(now);
    this.#pings.poll(now);
    this.#tcp.poll();
    this.#link.flush();
  }

  /** Monotonic time of the next timer, or Infinity; in the past when there is work now. */
  pollAt(): number {
    return Math.min(
      this.#arp.pollAt(),
      this.#ndp.pollAt(),
      this.#context.neighbours.pollAt(),
      this.#ipv4.pollAt(),
      this.#ipv6.pollAt(),
      this.#udpNat.pollAt(),
      this.#groups.pollAt(),
      this.#pings.pollAt(),
      this.#tcp.pollAt(),
    );
  }

  /** A UDP socket inside the stack, or why not (`EADDRINUSE`). Inside sockets win over forwarding. */
  bindUdp(binding: UdpBinding, service: UdpService): UdpSocket | HostError {
    return this.#udpInside.bind(binding, service);
  }

  /** Takes TCP connections to the gateway's address at `port`, instead of forwarding them. */
  listenTcp(port: number, listener: InsideListener | OutsideListener): { close(): void } | HostError {
    return this.#tcp.listen(port, listener);
  }

  /**
   * Connects into a guest; connected() or failed() follows (`ECONNREFUSED` for its RST, `EHOSTUNREACH` when it does not
   * answer ARP).
   */
  dial(
    addr: Uint8Array,
    addrOff: number,
    port: number,
    sink: StreamSink,
    options?: DialOptions,
  ): HostStream | HostError {
    return this.#tcp.dial(addr, addrOff, port, sink, options);
  }

  /**
   * Connects into a guest on behalf of a stream that is connected already: a client of a published port. The stack moves the
   * bytes itself, without a copy in between: `listen(…, { accepted: (stream) => stack.relay(stream, …) })`. When the guest
   * refuses or does not answer, the stream is reset.
   */
  relay(
    stream: HostStream,
    addr: Uint8Array,
    addrOff: number,
    port: number,
    options?: DialOptions,
  ): StreamSink {
    return this.#tcp.relay(stream, addr, addrOff, port, options);
  }

  /**
   * Says that only `mac` (6 bytes) may use `addr` (16 bytes): frames from others with this source are dropped and
   * counted. Undefined takes it back.
   */
  bindGuest(addr: Uint8Array, mac: Uint8Array | undefined): void {
    this.#context.neighbours.bind(this.#context.now, addr, 0, mac && getMac(mac, 0));
  }

  /** Ends every flow of a guest that has left. */
  forgetGuest(addr: Uint8Array): void {
    this.#tcp.forget(addr, 0);
    this.#udpNat.forget(addr, 0);
    this.#pings.forget(addr, 0);
    this.#context.neighbours.bind(this.#context.now, addr, 0, undefined);
  }

  /** All flows at this moment. */
  *flows(): Generator<FlowInfo, void> {
    yield* this.#tcp.describe();
    yield* this.#udpNat.describe();
    yield* this.#pings.describe();
  }

  /** Counters and gauges by name. */
  get counters(): Record<string, number> {
    const tcp: Record<string, number> = {};
    for (const [name, value] of Object.entries(this.#tcp.tcpCounters))
      tcp[`tcp${name[0]!.toUpperCase()}${name.slice(1)}`] = value;
    return {
      ...this.#context.counters,
      ...tcp,
      tcpFlows: this.#tcp.size,
      tcpBufferBytes: this.#tcp.bufferBytes,
      udpMappings: this.#udpNat.size,
      pings: this.#pings.size,
      groups: this.#groups.size,
      neighbours: this.#context.neighbours.size,
      guests: this.#context.guests.size,
      reassemblyBytes: this.#ipv4.reassemblyBytes + this.#ipv6.reassemblyBytes,
    };
  }

  /** Resets every flow and closes the sockets. */
  close(): void {
    this.#tcp.close();
    this.#udpNat.close();
    this.#groups.close();
    this.#pings.close();
    this.#link.flush();
  }

  #deliver(packet: Packet, kind: DestinationKind): void {
    const { counters, errors, now } = this.#context;
    switch (packet.protocol) {
      case PROTOCOL_TCP:
        // A connection to a group is nonsense (RFC 9293 section 3.10.7.4, RFC 1122 section 4.2.3.10).
        if (kind === 'group') counters.ipMulticastDropped++;
        else this.#tcp.input(packet, kind);
        return;
      case PROTOCOL_UDP:
        this.#udpInput.input(packet, kind);
        return;
      case PROTOCOL_IGMP:
        if (packet.ipv4 && kind === 'group') {
          this.#groups.igmp(packet);
          return;
        }
        break;
      case PROTOCOL_ICMP:
        if (packet.ipv4) {
          this.#icmp.input(packet, kind);
          return;
        }
        break;
      case NEXT_ICMPV6:
        if (!packet.ipv4) {
          this.#icmpv6.input(packet, kind);
          return;
        }
        break;
      default:
    }
    counters.ipUnknownProtocol++;
    errors.answer(now, packet, 'protocol-unreachable', packet.protocolOff);
  }
}
