/**
 * What the stack offers to code on its own side of the wire: the services that answer guests (DHCP, DNS, NTP) and the
 * listeners of published ports that reach into a guest. The shapes are those of a host's sockets (flow/host.ts), so that a
 * service runs unchanged over the stack and over native sockets.
 *
 * Addresses are 16 bytes, IPv4 in the mapped form, as everywhere in the core. Calls take no `now`: the stack works at the
 * time of its last receive() or poll(), and its owner calls poll() after each batch of work, whoever did it.
 */
import type { HostError, HostIcmpError, HostStream, StreamSink } from './host.ts';

/** Where a datagram came from. One object is reused for all: copy what is to be kept. */
export interface UdpOrigin {
  /** Source address, 16 bytes. All zero in the mapped form (::ffff:0.0.0.0) for a DHCP client without an address. */
  readonly addr: Uint8Array;
  readonly port: number;
  /** Destination address, 16 bytes: the socket's own, a broadcast or a multicast address. */
  readonly toAddr: Uint8Array;
  /** Source of the Ethernet frame, 6 bytes. */
  readonly mac: Uint8Array;
  readonly ttl: number;
  /** Differentiated services and ECN. */
  readonly trafficClass: number;
}

/** Events of a socket made by bindUdp(). */
export interface UdpService {
  /** One datagram; the bytes are only valid during the call. */
  datagram(now: number, buf: Uint8Array, off: number, len: number, from: UdpOrigin): void;
  /** A guest answered a datagram that was sent to `addr` and `port` with an ICMP error. */
  icmpError?(error: HostIcmpError, addr: Uint8Array, port: number): void;
}

/** A UDP socket inside the stack. */
export interface UdpSocket {
  readonly port: number;
  /**
   * Sends one datagram to a guest, in fragments if it must be. `mac` skips address resolution: DHCP answers clients that
   * have no address yet. `trafficClass` is 0 unless given. Returns false when it was dropped (no such guest, too large, the link is full).
   */
  send(
    buf: Uint8Array,
    off: number,
    len: number,
    addr: Uint8Array,
    addrOff: number,
    port: number,
    mac?: Uint8Array,
    trafficClass?: number,
  ): boolean;
  close(): void;
}

/** Where a socket inside the stack is bound. */
export interface UdpBinding {
  /**
   * Own address, 16 bytes: the gateway's, or any address outside that the socket stands for (a published port that keeps
   * the client's address). Undefined: the gateway's addresses of both families, broadcast and joined multicast groups.
   */
  addr?: Uint8Array;
  /** Own port; 0 takes a free one. */
  port: number;
}

/** A stream listener inside the stack: a guest has connected and the handshake is complete. */
export interface InsideListener {
  /** Returns the sink of the connection's events, or undefined to refuse it (RST). `addr` is the guest's, 16 bytes. */
  accepted(stream: HostStream, addr: Uint8Array, port: number): StreamSink | undefined;
}

/** Where guests' connections to a port of the gateway go, instead of to the same port of the host's loopback. */
export interface OutsideListener {
  /** Begins the far side as a host's connect() does: connected() or failed() follows. `guest` is the guest's address, 16 bytes. */
  connect(sink: StreamSink, guest: Uint8Array): HostStream | HostError;
}

/** How to dial a guest. */
export interface DialOptions {
  /** Source address that the guest sees, 16 bytes; default: the gateway's. */
  sourceAddr?: Uint8Array;
  /** Source port that the guest sees; default or 0: a free one. */
  sourcePort?: number;
  /** For a relayed stream: the guest has accepted. Called before any byte of it moves. */
  opened?: () => void;
}

/** One flow as shown to people. */
export interface FlowInfo {
  readonly id: number;
  readonly protocol: 'tcp' | 'udp' | 'icmp';
  /** Who sent the first packet. */
  readonly initiator: 'guest' | 'host';
  /** `address:port` of the guest; for ICMP the port is the echo identifier. */
  readonly guest: string;
  /** `address:port` at the other side, as the guest knows it; `*` for a UDP mapping, which serves all peers. */
  readonly target: string;
  readonly state: string;
  readonly ageMs: number;
  readonly idleMs: number;
  readonly bytesFromGuest: number;
  readonly bytesToGuest: number;
  /** Smoothed round-trip time on the link, for TCP. */
  readonly rttMs: number | undefined;
  /** Segments that were sent to the guest again, for TCP. */
  readonly retransmits: number | undefined;
}

/** A multicast group and port. */
export interface MulticastGroup {
  /** 16 bytes. */
  readonly addr: Uint8Array;
  readonly port: number;
}

/** Decides what may leave. Asked once per flow. */
export interface EgressPolicy {
  /**
   * @param protocol IP protocol number: 1 ICMP, 6 TCP, 17 UDP, 58 ICMPv6.
   * @param guest source address, 16 bytes at guestOff; @param addr destination, 16 bytes at addrOff.
   * @param port destination port, 0 for ICMP.
   */
  allows(
    protocol: number,
    guest: Uint8Array,
    guestOff: number,
    addr: Uint8Array,
    addrOff: number,
    port: number,
  ): boolean;
}
