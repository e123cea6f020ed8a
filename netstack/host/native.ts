/**
 * The host as the kernel has it: non-blocking sockets in one thread's loop.
 *
 * Streams (host/stream.ts) are registered once, edge-triggered, for both directions: the core pulls until a socket is
 * empty and pushes until it is full, which is just what an edge tells about, and no flow costs an epoll_ctl after its first. Listeners
 * and datagram sockets are level-triggered and read in bounded batches, so that one busy socket cannot starve the rest.
 *
 * The core must never be called from within its own call. What a read or write finds out about a socket's death is
 * therefore deferred to the loop's next turn.
 */

import { SyscallError } from '#common/errors';
import type { Log } from '#common/log';
import { EPOLLIN } from '#common/native/epoll';
import { errnoName } from '#common/native/libc';
import * as socket from '#common/native/socket';
import * as socketOptions from '#common/native/socket-options';
import type {
  Closable,
  DatagramSink,
  Host,
  HostDatagram,
  HostError,
  HostGroup,
  HostPing,
  HostStream,
  ListenSink,
  PingSink,
  StreamSink,
} from '../flow/host.ts';
import { openNativeDatagram } from './datagram.ts';
import { ReadBatch } from './datagram-batch.ts';
import { hostError } from './errors.ts';
import { HostNetworks, openNativeGroup } from './multicast.ts';
import { openNativePing } from './ping.ts';
import type { Poller } from './poller.ts';
import { closeLingering, NativeStream, STREAM_EVENTS } from './stream.ts';

/** Connections accepted from one listener in one turn of the loop. */
const ACCEPTS_PER_TURN = 64;
/** Clients that may wait to be accepted. The kernel cuts it to net.core.somaxconn. */
const LISTEN_BACKLOG = 4096;
/** How long a listener rests when the process has no descriptors left. */
export const ACCEPT_REST_MS = 100;

/** Sockets of the kernel, for the loop of one thread. */
export class NativeHost implements Host {
  readonly #poller: Poller;
  readonly #log: Log;
  readonly #networks: HostNetworks;
  readonly #reads: ReadBatch;

  /** @param now monotonic milliseconds, as of the loop's turn, for the age of what is known of networks. @param networks tests stand in for the system's. */
  constructor(poller: Poller, log: Log, now: () => number, networks?: HostNetworks) {
    this.#networks = networks ?? new HostNetworks(now);
    this.#poller = poller;
    this.#reads = new ReadBatch(poller);
    this.#log = log;
  }

  /** Cuts off what is closing but has bytes left for a peer that does not read. */
  close(): void {
    closeLingering();
  }

  connect(
    addr: Uint8Array,
    addrOff: number,
    port: number,
    ttl: number,
    trafficClass: number,
    sink: StreamSink,
  ): HostStream | HostError {
    const family = socket.isMapped(addr, addrOff) ? 4 : 6;
    const local = isLoopback(addr, addrOff);
    let fd: number;
    try {
      fd = socket.openSocket(family, 'stream');
    } catch (error) {
      return hostError((error as SyscallError).code);
    }
    if (!local) socketOptions.setErrorQueue(fd, family, true);
    if (ttl !== 0) socketOptions.setTtl(fd, family, ttl);
    if (trafficClass !== 0) socketOptions.setTrafficClass(fd, family, trafficClass);
    const result = socket.connect(fd, addr, addrOff, port);
    if (result < 0) {
      const code = errnoName(socket.socketErrno());
      if (code !== 'EINPROGRESS') {
        socket.close(fd);
        return hostError(code);
      }
    }
    const restore = (connected: number): void => {
      if (!local) socketOptions.setErrorQueue(connected, family, false);
      if (ttl !== 0) socketOptions.setTtl(connected, family, -1);
    };
    return this.#begin(fd, family, local, restore, sink);
  }

  /** Watches a socket that connects, or is connected; connected() follows with the loop's next turn at the earliest. */
  #begin(
    fd: number,
    family: socket.Family | undefined,
    local: boolean,
    connected: (fd: number) => void,
    sink: StreamSink,
  ): HostStream | HostError {
    const stream = new NativeStream(fd, family, this.#poller, local, connected);
    stream.sink = sink;
    try {
      this.#poller.watch(fd, STREAM_EVENTS, (mask) => stream.events(mask));
    } catch (error) {
      socket.close(fd);
      return hostError((error as SyscallError).code);
    }
    return stream;
  }

  /** Begins a stream to a unix socket. What has no server is refused. */
  connectPath(path: string, sink: StreamSink): HostStream | HostError {
    let fd = -1;
    try {
      fd = socket.openUnixSocket('stream');
      socket.connectUnix(fd, path);
    } catch (error) {
      if (fd >= 0) socket.close(fd);
      const { code } = error as SyscallError;
      return code === 'ENOENT' || code === 'EAGAIN' ? 'ECONNREFUSED' : hostError(code);
    }
    return this.#begin(fd, undefined, false, () => {}, sink);
  }

  /** Begins a stream to a new socket pair, whose other end is the taker's. */
  connectPair(sink: StreamSink, take: (fd: number) => void): HostStream | HostError {
    try {
      const [own, theirs] = socket.socketPair();
      const stream = this.#begin(own, undefined, false, () => {}, sink);
      if (typeof stream === 'string') socket.close(theirs);
      else take(theirs);
      return stream;
    } catch (error) {
      return hostError((error as SyscallError).code);
    }
  }

  listen(
    addr: Uint8Array,
    addrOff: number,
    port: number,
    sink: ListenSink,
  ): (Closable & { readonly port: number }) | HostError {
    let fd = -1;
    try {
      const family = socket.isMapped(addr, addrOff) ? 4 : 6;
      fd = socket.openSocket(family, 'stream');
      socketOptions.setReuseAddress(fd);
      if (family === 6) socketOptions.setIpv6Only(fd);
      socket.bind(fd, addr, addrOff, port);
      socket.listen(fd, LISTEN_BACKLOG);
      const listener = new Listener(fd, socket.localPort(fd), this.#poller, (accepted, peer, peerPort) =>
        this.#accepted(accepted, peer, peerPort, sink),
      );
      listener.onExhausted = () => {
        this.#log.warn({ port }, 'no file descriptors left to accept connections: raise `ulimit -n`');
      };
      listener.start();
      return listener;
    } catch (error) {
      if (fd >= 0) socket.close(fd);
      if (!(error instanceof SyscallError)) throw error;
      return hostError(error.code);
    }
  }

  #accepted(fd: number, peer: Uint8Array, peerPort: number, sink: ListenSink): void {
    const family = socket.isMapped(peer, 0) ? 4 : 6;
    this.#admit(fd, family, isLoopback(peer, 0), (stream) => sink.accepted(stream, peer, 0, peerPort));
  }

  /**
   * Takes over a connected, non-blocking stream descriptor, such as one end of a socket pair. `sinkFor` gets the stream and
   * returns the sink of its events.
   */
  adopt(fd: number, sinkFor: (stream: HostStream) => StreamSink): void {
    this.#admit(fd, undefined, false, sinkFor);
  }

  #admit(
    fd: number,
    family: socket.Family | undefined,
    local: boolean,
    sinkFor: (stream: HostStream) => StreamSink,
  ): void {
    const stream = new NativeStream(fd, family, this.#poller, local, undefined);
    stream.sink = sinkFor(stream);
    if (stream.closed) return;
    try {
      // The first edge comes at once if the peer has sent already.
      this.#poller.watch(fd, STREAM_EVENTS, (mask) => stream.events(mask));
    } catch (error) {
      stream.fail(hostError((error as SyscallError).code));
    }
  }

  openDatagram(
    family: 4 | 6,
    addr: Uint8Array | undefined,
    addrOff: number,
    port: number,
    sink: DatagramSink,
  ): HostDatagram | HostError {
    return openNativeDatagram(this.#poller, this.#reads, this.#networks, family, addr, addrOff, port, sink);
  }

  openGroup(addr: Uint8Array, addrOff: number, port: number, sink: DatagramSink): HostGroup | HostError {
    return openNativeGroup(this.#poller, this.#networks, addr, addrOff, port, sink);
  }

  openPing(family: 4 | 6, sink: PingSink): HostPing | HostError {
    return openNativePing(this.#poller, family, sink);
  }
}

/** 127.0.0.0/8 and ::1: peers with which no network lies between. */
function isLoopback(addr: Uint8Array, off: number): boolean {
  if (socket.isMapped(addr, off)) return addr[off + 12] === 127;
  for (let i = 0; i < 15; i++) if (addr[off + i] !== 0) return false;
  return addr[off + 15] === 1;
}

/** A listening TCP socket. */
class Listener implements Closable {
  readonly port: number;
  onExhausted: () => void = () => {};
  readonly #poller: Poller;
  readonly #accepted: (fd: number, peer: Uint8Array, peerPort: number) => void;
  readonly #peer: Uint8Array = new Uint8Array(16);
  #fd: number;

  constructor(
    fd: number,
    port: number,
    poller: Poller,
    accepted: (fd: number, peer: Uint8Array, peerPort: number) => void,
  ) {
    this.#fd = fd;
    this.port = port;
    this.#poller = poller;
    this.#accepted = accepted;
  }

  start(): void {
    this.#poller.watch(this.#fd, EPOLLIN, () => this.#accept());
  }

  #accept(): void {
    for (let i = 0; i < ACCEPTS_PER_TURN && this.#fd >= 0; i++) {
      const fd = socket.accept(this.#fd, this.#peer, 0);
      if (fd >= 0) {
        this.#accepted(fd, this.#peer, socket.peerPort());
        continue;
      }
      const error = hostError(errnoName(socket.socketErrno()));
      if (error === 'EMFILE') {
        this.#poller.rest(this.#fd, ACCEPT_REST_MS);
        this.onExhausted();
      }
      return;
    }
  }

  close(): void {
    if (this.#fd < 0) return;
    this.#poller.unwatch(this.#fd);
    socket.close(this.#fd);
    this.#fd = -1;
  }
}
