/**
 * What the stack asks of the world outside: native sockets. The core knows only this interface; its implementations are
 * the native one (epoll in a worker's blocking loop) and a scripted one for simulation. One on node:net and node:dgram could not
 * keep it: there binding tells of a conflict later, errors of datagrams and TTLs are not to be had, and nothing pings.
 *
 * Everything is synchronous and non-blocking, in the manner of a non-blocking socket: the core pulls when it has room and
 * pushes when it has data, so back-pressure needs no queue of its own. A sink's methods are called from the host's loop, never
 * from within a call that the core makes.
 *
 * Addresses are 16 bytes at an offset, IPv4 in the mapped form ::ffff:a.b.c.d, so that both families share one path.
 */

/** Why a socket failed, by errno name. Others are mapped to the closest of these. */
export type HostError =
  | 'ECONNREFUSED'
  | 'ECONNRESET'
  | 'EPIPE'
  | 'ETIMEDOUT'
  | 'EHOSTUNREACH'
  | 'ENETUNREACH'
  | 'EADDRINUSE'
  | 'EADDRNOTAVAIL'
  | 'EACCES'
  | 'EMSGSIZE'
  | 'EMFILE'
  | 'EIO';

/** An ICMP error that a host socket saw (IP_RECVERR), to be relayed to the guest. */
export interface HostIcmpError {
  /** Meaning shared by ICMP and ICMPv6. */
  kind:
    | 'port-unreachable'
    | 'host-unreachable'
    | 'net-unreachable'
    | 'prohibited'
    | 'too-big'
    | 'ttl-exceeded';
  /** Path MTU for `too-big`, else 0. */
  mtuBytes: number;
  /** Address of the router or host that reported it, 16 bytes, or undefined when unknown. */
  offender: Uint8Array | undefined;
}

/** Events of a stream socket. */
export interface StreamSink {
  /** The connection is established (only for sockets made by connect). */
  connected(): void;
  /**
   * There may be bytes to read, or the peer's end of stream. Comes again only after a read() has returned 0, so that a
   * host may use edge-triggered events; one that knows from a short read that nothing is left returns that 0 without asking
   * the kernel.
   */
  readable(): void;
  /** The socket may take bytes again after a short write. */
  writable(): void;
  /**
   * The socket failed and is closed. `ECONNRESET` is a RST from the peer. `icmp` is the ICMP error behind the failure where
   * the socket's error queue tells it, so that it can be relayed to the guest (traceroute over TCP).
   */
  failed(error: HostError, icmp?: HostIcmpError): void;
}

/** A native stream socket. */
export interface HostStream {
  /** Copies up to `len` received bytes to `buf` at `off`. Returns the count; 0: nothing now; -1: end of stream. */
  read(buf: Uint8Array, off: number, len: number): number;
  /** Gives up to `len` bytes to the socket. Returns how many it took; fewer than `len` means that writable() will be called. */
  write(buf: Uint8Array, off: number, len: number): number;
  /** Ends our side of the stream (FIN), after what was written. */
  shutdown(): void;
  /** Closes at once with a RST. No event comes after it. */
  reset(): void;
  /** Closes. No event comes after it. */
  close(): void;
  /**
   * Marks what is sent from now on with these differentiated services (RFC 2474; the two low bits, ECN, are the kernel's own
   * in TCP). Absent where the stream crosses no network.
   */
  setTrafficClass?(trafficClass: number): void;
}

/** Events of a datagram or ping socket. */
export interface DatagramSink {
  /**
   * One datagram from `addr` (16 bytes at addrOff) and `port`; bytes are only valid during the call. `ttl` is 0 when unknown;
   * `trafficClass` are the eight bits of differentiated services and ECN (RFC 2474, RFC 3168).
   */
  datagram(
    buf: Uint8Array,
    off: number,
    len: number,
    addr: Uint8Array,
    addrOff: number,
    port: number,
    ttl: number,
    trafficClass: number,
  ): void;
  /**
   * An error for a datagram sent to `addr` and `port` before. The `len` bytes at `off` are what is known of its payload: all of
   * it, or as much as the router has quoted.
   */
  icmpError(
    error: HostIcmpError,
    addr: Uint8Array,
    addrOff: number,
    port: number,
    buf: Uint8Array,
    off: number,
    len: number,
  ): void;
  failed(error: HostError): void;
}

/** A native UDP socket with a port of its own, not connected: one per guest endpoint (RFC 4787 endpoint-independent mapping). */
export interface HostDatagram {
  /** Local port. */
  readonly port: number;
  /** Sends one datagram with this TTL or hop limit (0: the host's default) and traffic class. Returns undefined or why not. */
  send(
    buf: Uint8Array,
    off: number,
    len: number,
    addr: Uint8Array,
    addrOff: number,
    port: number,
    ttl: number,
    trafficClass: number,
  ): HostError | undefined;
  close(): void;
}

/** A multicast group, joined on every network of the host. */
export interface HostGroup {
  /** Joins it on networks that have come since; cheap enough to be called whenever somebody asks for the group. */
  refresh(): void;
  close(): void;
}

/** A native ICMP echo socket. */
export interface HostPing {
  /** Sends an echo request with this sequence number and payload. `ident` is the socket's own. */
  send(
    sequence: number,
    buf: Uint8Array,
    off: number,
    len: number,
    addr: Uint8Array,
    addrOff: number,
    ttl: number,
  ): HostError | undefined;
  close(): void;
}

/** Events of a ping socket. */
export interface PingSink {
  reply(
    sequence: number,
    buf: Uint8Array,
    off: number,
    len: number,
    addr: Uint8Array,
    addrOff: number,
    ttl: number,
  ): void;
  /** An error for the request with this sequence number that was sent to `addr`, with what is known of its payload. */
  icmpError(
    error: HostIcmpError,
    sequence: number,
    addr: Uint8Array,
    addrOff: number,
    buf: Uint8Array,
    off: number,
    len: number,
  ): void;
  failed(error: HostError): void;
}

/** A listening socket: published ports. */
export interface ListenSink {
  /** A client was accepted. The returned sink receives its events. */
  accepted(stream: HostStream, addr: Uint8Array, addrOff: number, port: number): StreamSink;
}

/** Anything that can be closed. */
export interface Closable {
  close(): void;
}

/** The world outside. Methods that return a HostError could not even begin. */
export interface Host {
  /**
   * Begins a connection; connected() or failed() follows. `ttl` is the TTL or hop limit of its packets until it is
   * connected, 0 for the host's default; afterwards the host's default holds. `trafficClass` marks them as
   * {@link HostStream.setTrafficClass} does. `guest` is for whom it is, 16 bytes, when that
   * is a guest.
   */
  connect(
    addr: Uint8Array,
    addrOff: number,
    port: number,
    ttl: number,
    trafficClass: number,
    sink: StreamSink,
    guest?: Uint8Array,
  ): HostStream | HostError;
  listen(
    addr: Uint8Array,
    addrOff: number,
    port: number,
    sink: ListenSink,
  ): (Closable & { readonly port: number }) | HostError;
  /** Opens a UDP socket; `addr` undefined binds to any address of `family`. */
  openDatagram(
    family: 4 | 6,
    addr: Uint8Array | undefined,
    addrOff: number,
    port: number,
    sink: DatagramSink,
  ): HostDatagram | HostError;
  openPing(family: 4 | 6, sink: PingSink): HostPing | HostError;
  /** Joins a multicast group; datagrams to it and `port` come to the sink, except those that sockets of this host's sent. */
  openGroup(addr: Uint8Array, addrOff: number, port: number, sink: DatagramSink): HostGroup | HostError;
}
