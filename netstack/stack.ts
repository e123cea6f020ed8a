/**
 * The stack of one network: the gateway that guests' frames reach on one side, native sockets on the other.
 *
 * This is the public surface; the machine behind it is being laid down part by part.
 */
import type { Log } from '#common/log';
import type { Rng } from '#common/rng';
import type { Host, HostError, HostStream, StreamSink } from './flow/host.ts';
import type {
  DialOptions,
  EgressPolicy,
  FlowInfo,
  InsideListener,
  UdpBinding,
  UdpService,
  UdpSocket,
} from './flow/inside.ts';
import type { Link } from './link/link.ts';

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
  /** The gateway's global or unique local IPv6 address and its subnet; a link-local one is made from the MAC. */
  ipv6?: { address: Uint8Array; prefixLength: number };
  /** Guests reach the host's loopback at the gateway's address. Default true. */
  hostLoopback?: boolean;
  /** What may leave; default: everything that is not a martian. */
  egress?: EgressPolicy;
}

/** What `new Stack(options)` gives. All calls are synchronous; `now` is monotonic milliseconds. */
export interface StackSurface {
  /** Takes one frame from the link; `off` is its virtio_net_hdr, `end` the end of the frame. Owner: link.start({ frame }) → receive. */
  receive(now: number, buf: Uint8Array, off: number, end: number): void;
  /** After each batch of frames and host events: emits what is due (ACKs, data, answers, expired timers), then flushes the link. */
  poll(now: number): void;
  /** Monotonic time of the next timer, or Infinity. */
  pollAt(): number;

  /** A UDP socket inside the stack, or why not (`EADDRINUSE`). Inside sockets win over forwarding. */
  bindUdp(binding: UdpBinding, service: UdpService): UdpSocket | HostError;
  /** Takes TCP connections to the gateway's address at `port`, instead of forwarding them. */
  listenTcp(port: number, listener: InsideListener): { close(): void } | HostError;
  /** Connects into a guest; connected() or failed() follows (`ECONNREFUSED` for its RST, `EHOSTUNREACH` when it does not answer ARP). */
  dial(
    addr: Uint8Array,
    addrOff: number,
    port: number,
    sink: StreamSink,
    options?: DialOptions,
  ): HostStream | HostError;

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
  ): StreamSink;

  /** Says that only `mac` may use `addr` (16 bytes): frames from others with this source are dropped and counted. Undefined takes it back. */
  bindGuest(addr: Uint8Array, mac: Uint8Array | undefined): void;
  /** Ends every flow of a guest that has left. */
  forgetGuest(addr: Uint8Array): void;
  flows(): Iterable<FlowInfo>;
  /** Live counters by name, such as `tcp_flows_opened`. */
  readonly counters: Record<string, number>;
  /** Resets every flow and closes the sockets. */
  close(): void;
}
