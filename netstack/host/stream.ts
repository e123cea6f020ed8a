/**
 * A TCP socket of the kernel. It is edge-triggered: the core is told once that bytes have come or that there is room
 * again, and pulls and pushes until the socket says no.
 *
 * Pushes from a TAP's frames are gathered and written together when the batch of frames ends (host/receive-batch.ts). They
 * count as taken at once; what the kernel then refuses is copied aside and goes first when it has room. How much may be
 * aside, over all sockets, is bounded; beyond that nothing is gathered.
 */
import { EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP } from '#common/native/epoll';
import { errnoName } from '#common/native/libc';
import * as socket from '#common/native/socket';
import * as socketOptions from '#common/native/socket-options';
import type { HostError, HostIcmpError, HostStream, StreamSink } from '../flow/host.ts';
import { drainErrors } from './datagram.ts';
import { CONNECT_ERRORS, hostError } from './errors.ts';
import type { Poller } from './poller.ts';
import { type Gatherer, receiveBatch } from './receive-batch.ts';

/** What a stream is to be watched for. */
export const STREAM_EVENTS: number = (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET) >>> 0;

/** Bytes after which a connection counts as bulk. */
const BULK_BYTES = 256 * 1024;
/** Smaller pieces are written at once: they are somebody's question or answer. */
const GATHER_BYTES_MIN = 16 * 1024;
/**
 * Buffers of a socket in bulk to a peer on this machine: of the receive window's largest size (tcp/config.ts). What a full send
 * buffer refuses would be copied aside and written a second time; a receive buffer that is left to the kernel grows beyond a
 * processor's caches (net.ipv4.tcp_rmem), and its bytes go cold before they are read.
 */
const BUFFER_BYTES: number = 4 << 20;
/** Bytes that wait aside, over all sockets of the thread. */
const ASIDE_BYTES_MAX = 8 << 20;

let asideBytes = 0;
/** Lists that no stream uses just now: only those that have gathered in the batch in hand have one. */
const freeSpans: socket.Spans[] = [];
/** Closed by the core, with bytes aside that the peer has not taken. */
const lingering = new Set<NativeStream>();

/** Resets streams that could not be closed in order yet. */
export function closeLingering(): void {
  for (const stream of lingering) stream.reset();
}

const IDLE_SINK: StreamSink = { connected() {}, readable() {}, writable() {}, failed() {} };

/** A TCP socket. */
export class NativeStream implements HostStream, Gatherer {
  sink: StreamSink = IDLE_SINK;
  readonly #poller: Poller;
  /** Undefined: no socket of an internet family. */
  readonly #family: socket.Family | undefined;
  #fd: number;
  /** Undoes on the socket what holds only while it connects; undefined once it is connected. */
  #connecting: ((fd: number) => void) | undefined;
  #wantsWritable = false;
  #failing = false;
  /** A short read emptied the socket; until the next edge there is nothing to ask the kernel for. */
  #drained = false;
  /** Where in the receive batch what was taken lies. */
  #spans: socket.Spans | undefined;
  /** What the kernel refused of it. */
  #aside: Uint8Array | undefined;
  #asideAt = 0;
  /** What to do once nothing is aside. */
  #ending: { finish: () => void } | undefined;
  #hasWritten = false;
  #noDelay = false;
  /** No network lies between. */
  readonly #local: boolean;
  /** Bytes to write until the socket is tuned for bulk. */
  #untuned: number = BULK_BYTES;
  /** The same for reading. */
  #unread: number = BULK_BYTES;
  /** The peer's end has been announced, after which no edge comes. */
  #ended = false;

  constructor(
    fd: number,
    family: socket.Family | undefined,
    poller: Poller,
    local: boolean,
    connecting: ((fd: number) => void) | undefined,
  ) {
    this.#fd = fd;
    this.#family = family;
    this.#poller = poller;
    this.#local = local;
    this.#connecting = connecting;
  }

  get closed(): boolean {
    return this.#fd < 0;
  }

  events(mask: number): void {
    if (mask & EPOLLERR || (this.#connecting && mask & EPOLLHUP)) {
      let icmp = undefined as HostIcmpError | undefined;
      if (this.#connecting) {
        drainErrors(this.#fd, (error) => {
          icmp = error;
        });
      }
      const error = socket.pendingError(this.#fd);
      // Taking an ICMP error from the queue clears the socket's error too (net/core/skbuff.c, sock_dequeue_err_skb).
      const reason = error === 0 ? icmp && CONNECT_ERRORS[icmp.kind] : hostError(errnoName(error));
      if (reason) {
        this.fail(reason, icmp);
        return;
      }
    }
    if (this.#connecting) {
      if (!(mask & EPOLLOUT)) return;
      this.#connecting(this.#fd);
      this.#connecting = undefined;
      this.sink.connected();
    }
    if (mask & (EPOLLIN | EPOLLRDHUP | EPOLLHUP)) {
      this.#drained = false;
      if (mask & (EPOLLRDHUP | EPOLLHUP)) this.#ended = true;
      if (this.#fd >= 0) this.sink.readable();
    }
    if (mask & EPOLLOUT && this.#fd >= 0 && this.#writeAside() && this.#wantsWritable && this.#fd >= 0) {
      this.#wantsWritable = false;
      this.sink.writable();
    }
  }

  /** Closes the socket and tells the sink why. */
  fail(error: HostError, icmp?: HostIcmpError): void {
    if (this.#fd < 0) return;
    const { sink } = this;
    this.#closeNow();
    sink.failed(error, icmp);
  }

  #failLater(error: HostError): void {
    if (this.#failing) return;
    this.#failing = true;
    this.#poller.defer(() => this.fail(error));
  }

  read(buf: Uint8Array, off: number, len: number): number {
    if (this.#fd < 0 || this.#failing || this.#drained || len === 0) return 0;
    const count = socket.receive(this.#fd, buf, off, len);
    if (count > 0) {
      if (this.#local && this.#unread > 0) this.#tuneRead(count);
      this.#drained = count < len && !this.#ended;
      return count;
    }
    if (count === 0) return -1;
    const code = errnoName(socket.socketErrno());
    if (code === 'EAGAIN') this.#drained = !this.#ended;
    else if (code !== 'EINTR') this.#failLater(hostError(code));
    return 0;
  }

  write(buf: Uint8Array, off: number, len: number): number {
    if (this.#fd < 0 || this.#failing || len === 0) return 0;
    if (this.#aside) {
      this.#wantsWritable = true;
      return 0;
    }
    this.#tune(len);
    if (buf === receiveBatch.bytes && len >= GATHER_BYTES_MIN && asideBytes < ASIDE_BYTES_MAX) {
      if (!this.#spans) {
        this.#spans = freeSpans.pop() ?? new socket.Spans();
        receiveBatch.hold(this);
      }
      this.#spans.add(off, len);
      return len;
    }
    if (this.#spans) {
      this.flush();
      if (this.#aside || this.#failing) {
        this.#wantsWritable = true;
        return 0;
      }
    }
    const count = socket.send(this.#fd, buf, off, len);
    if (count === len) return count;
    this.#wantsWritable = true;
    if (count >= 0) return count;
    const code = errnoName(socket.socketErrno());
    if (code !== 'EAGAIN' && code !== 'EINTR') this.#failLater(hostError(code));
    return 0;
  }

  /** Writes what was gathered. Called before the frames that it lies in are overwritten. */
  flush(): void {
    const spans = this.#spans;
    if (!spans) return;
    this.#spans = undefined;
    if (this.#fd >= 0 && !this.#failing) this.#writeSpans(spans);
    spans.clear();
    freeSpans.push(spans);
  }

  #writeSpans(spans: socket.Spans): void {
    const count = socket.sendPieces(this.#fd, receiveBatch.bytes, spans);
    if (count === spans.total) return;
    if (count >= 0) this.#putAside(spans, count);
    else {
      const code = errnoName(socket.socketErrno());
      if (code === 'EAGAIN' || code === 'EINTR') this.#putAside(spans, 0);
      else this.#failLater(hostError(code));
    }
  }

  /** Keeps what comes after the first `skip` bytes. */
  #putAside(spans: socket.Spans, skip: number): void {
    const aside = new Uint8Array(spans.total - skip);
    let at = 0;
    let past = skip;
    for (let i = 0; i < spans.count; i++) {
      const off = spans.offset(i);
      const len = spans.length(i);
      const from = Math.min(len, past);
      past -= from;
      aside.set(receiveBatch.bytes.subarray(off + from, off + len), at);
      at += len - from;
    }
    this.#aside = aside;
    this.#asideAt = 0;
    asideBytes += aside.length;
  }

  /** Writes what was put aside; true when nothing is left of it. */
  #writeAside(): boolean {
    const aside = this.#aside;
    if (!aside) return true;
    const count = socket.send(this.#fd, aside, this.#asideAt, aside.length - this.#asideAt);
    if (count < 0) {
      const code = errnoName(socket.socketErrno());
      if (code !== 'EAGAIN' && code !== 'EINTR') this.#failLater(hostError(code));
      return false;
    }
    this.#asideAt += count;
    if (this.#asideAt < aside.length) return false;
    this.#dropAside();
    if (this.#ending) {
      const { finish } = this.#ending;
      this.#ending = undefined;
      finish();
    }
    return true;
  }

  #dropAside(): void {
    if (!this.#aside) return;
    asideBytes -= this.#aside.length;
    this.#aside = undefined;
  }

  /**
   * Options are set when they begin to matter, since most connections are short: Nagle's algorithm holds back nothing
   * before a second write, and congestion control little.
   */
  #tune(len: number): void {
    if (!this.#hasWritten) this.#hasWritten = true;
    else if (!this.#noDelay) {
      this.#noDelay = true;
      socketOptions.setNoDelay(this.#fd);
      // A control that paces and probes for bandwidth (BBR, the default of some hosts) arms a timer for each segment and halves
      // the speed of loopback. Where there is no cubic, the host's choice stands.
      if (this.#local) socketOptions.setCongestionControl(this.#fd, 'cubic');
    }
    if (!this.#local || this.#untuned <= 0) return;
    this.#untuned -= len;
    if (this.#untuned > 0) return;
    socketOptions.setSendBuffer(this.#fd, BUFFER_BYTES);
  }

  #tuneRead(count: number): void {
    this.#unread -= count;
    if (this.#unread <= 0) socketOptions.setReceiveBuffer(this.#fd, BUFFER_BYTES);
  }

  shutdown(): void {
    this.#afterAside(() => socket.shutdownWrite(this.#fd));
  }

  /** Ends something in its turn: after the bytes that were taken before. */
  #afterAside(finish: () => void): void {
    if (this.#fd < 0) return;
    this.flush();
    if (this.#aside && !this.#failing) this.#ending = { finish };
    else finish();
  }

  setTrafficClass(trafficClass: number): void {
    if (this.#fd >= 0 && this.#family) socketOptions.setTrafficClass(this.#fd, this.#family, trafficClass);
  }

  reset(): void {
    if (this.#fd < 0) return;
    socketOptions.resetOnClose(this.#fd);
    this.#closeNow();
  }

  close(): void {
    this.sink = IDLE_SINK;
    this.#afterAside(() => this.#closeNow());
    if (this.#fd >= 0) lingering.add(this);
  }

  #closeNow(): void {
    if (this.#fd < 0) return;
    lingering.delete(this);
    this.#dropAside();
    this.#ending = undefined;
    this.#spans?.clear();
    this.#poller.forget(this.#fd);
    socket.close(this.#fd);
    this.#fd = -1;
    this.sink = IDLE_SINK;
  }
}
