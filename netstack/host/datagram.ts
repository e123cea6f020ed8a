/**
 * UDP sockets of the kernel. ICMP errors are asked for (IP_RECVERR) and told apart from the data: an unconnected socket
 * with that option hears of every peer's errors, which is how a closed port becomes an ICMP message to the guest.
 */

import { SyscallError } from '#common/errors';
import * as datagrams from '#common/native/datagrams';
import { EPOLLERR, EPOLLIN } from '#common/native/epoll';
import { errnoName } from '#common/native/libc';
import * as socket from '#common/native/socket';
import * as socketOptions from '#common/native/socket-options';
import type { DatagramSink, HostDatagram, HostError } from '../flow/host.ts';
import {
  copyAddress,
  get32,
  isMapped,
  isMulticastIpv4,
  isMulticastIpv6,
  sameAddress,
} from '../wire/address.ts';
import {
  type BatchedReader,
  type BatchedSender,
  DATAGRAM_BYTES_MAX,
  type ReadBatch,
  sendBatch,
} from './datagram-batch.ts';
import { hostError, hostIcmpError } from './errors.ts';
import type { HostNetworks } from './multicast.ts';
import { Burst, type Poller } from './poller.ts';
import { receiveBatch } from './receive-batch.ts';

/** Queued errors read in one turn. */
const ERRORS_PER_TURN = 64;

// A thread's sockets take turns, so one buffer serves all of them.
const buffer = new Uint8Array(new ArrayBuffer(DATAGRAM_BYTES_MAX));
const received: datagrams.Received = { addr: new Uint8Array(16), port: 0, ttl: 0, trafficClass: 0 };
const queued: datagrams.ExtendedError = {
  errno: 0,
  origin: 0,
  type: 0,
  code: 0,
  info: 0,
  hasOffender: false,
  offender: new Uint8Array(16),
};

/** Reads a socket's error queue, calling `each` for what a guest should know. `len` bytes of the packet are in `buf`. */
export function drainErrors(
  fd: number,
  each: (
    error: NonNullable<ReturnType<typeof hostIcmpError>>,
    peer: datagrams.Received,
    buf: Uint8Array,
    len: number,
  ) => void,
): void {
  for (let i = 0; i < ERRORS_PER_TURN; i++) {
    const len = datagrams.receiveError(fd, buffer, 0, DATAGRAM_BYTES_MAX, received, queued);
    if (len < 0) return;
    const error = hostIcmpError(queued, errnoName(queued.errno));
    if (error) each(error, received, buffer, len);
  }
}

/** Opens a UDP socket for {@link NativeHost}. */
export function openNativeDatagram(
  poller: Poller,
  reads: ReadBatch,
  networks: HostNetworks,
  family: 4 | 6,
  addr: Uint8Array | undefined,
  addrOff: number,
  port: number,
  sink: DatagramSink,
): HostDatagram | HostError {
  let fd = -1;
  try {
    fd = socket.openSocket(family, 'datagram');
    socketOptions.setDatagramOptions(fd, family);
    socket.bind(fd, addr ?? (family === 4 ? ANY_V4 : ANY_V6), addr ? addrOff : 0, port);
    const datagram = new NativeDatagram(fd, family, socket.localPort(fd), poller, reads, networks, sink);
    poller.watch(fd, EPOLLIN, (mask) => datagram.events(mask));
    return datagram;
  } catch (error) {
    if (fd >= 0) socket.close(fd);
    if (!(error instanceof SyscallError)) throw error;
    return hostError(error.code);
  }
}

const ANY_V4: Uint8Array = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0);
const ANY_V6: Uint8Array = new Uint8Array(16);

class NativeDatagram implements HostDatagram, BatchedSender, BatchedReader {
  readonly port: number;
  readonly #family: 4 | 6;
  readonly #poller: Poller;
  readonly #sink: DatagramSink;
  readonly #reads: ReadBatch;
  readonly #burst: Burst;
  #fd: number;
  /** Where the last datagram went without an error: what follows it there may wait for others to be sent with. */
  readonly #proven: Uint8Array = new Uint8Array(16);
  #provenPort = -1;
  #ttl = 0;
  #trafficClass = 0;
  #drainWaits = false;
  readonly #networks: HostNetworks;
  /** Set while it counts as one that sends to groups. */
  #endsSending: (() => void) | undefined;

  constructor(
    fd: number,
    family: 4 | 6,
    port: number,
    poller: Poller,
    reads: ReadBatch,
    networks: HostNetworks,
    sink: DatagramSink,
  ) {
    this.#reads = reads;
    this.#networks = networks;
    this.#fd = fd;
    this.#family = family;
    this.port = port;
    this.#poller = poller;
    this.#sink = sink;
    this.#burst = new Burst(poller);
  }

  get fd(): number {
    return this.#fd;
  }

  events(mask: number): void {
    if (mask & EPOLLERR) this.#drain();
    if ((mask & EPOLLIN) === 0) return;
    const expected = this.#burst.expected();
    if (expected === 1) this.#reads.add(this);
    else this.#readAlone(expected);
  }

  /** Reads several datagrams of a busy socket. */
  #readAlone(expected: number): void {
    let count = 0;
    while (count < expected && this.#fd >= 0) {
      const len = datagrams.receiveFrom(this.#fd, buffer, 0, DATAGRAM_BYTES_MAX, received);
      if (!this.#take(len < 0 ? -socket.socketErrno() : len, buffer, 0, received)) break;
      count++;
    }
    this.#burst.came(count);
  }

  came(length: number, buf: Uint8Array, off: number, from: datagrams.Received): void {
    this.#burst.came(this.#take(length, buf, off, from) ? 1 : 0);
  }

  /** Takes what a call has brought; false: there was nothing. */
  #take(
    length: number,
    buf: Uint8Array,
    off: number,
    { addr, port, ttl, trafficClass }: datagrams.Received,
  ): boolean {
    if (length >= 0) this.#sink.datagram(buf, off, length, addr, 0, port, ttl, trafficClass);
    // An ICMP error is also told as the errno of the next call, once; the queue has the whole story.
    else if (errnoName(-length) === 'EAGAIN') return false;
    else this.#drain();
    return true;
  }

  #drain(): void {
    if (this.#fd < 0) return;
    drainErrors(this.#fd, (error, { addr, port }, buf, len) =>
      this.#sink.icmpError(error, addr, 0, port, buf, 0, len),
    );
  }

  send(
    buf: Uint8Array,
    off: number,
    len: number,
    addr: Uint8Array,
    addrOff: number,
    port: number,
    ttl: number,
    trafficClass: number,
  ): HostError | undefined {
    if (this.#fd < 0) return 'EPIPE';
    if (
      buf === receiveBatch.bytes &&
      port === this.#provenPort &&
      ttl === this.#ttl &&
      trafficClass === this.#trafficClass &&
      sameAddress(addr, addrOff, this.#proven, 0)
    ) {
      sendBatch.add(this, off, len, addr, addrOff, port);
      return undefined;
    }
    // What waits goes first.
    sendBatch.send();
    if (ttl !== this.#ttl) {
      socketOptions.setTtl(this.#fd, this.#family, ttl === 0 ? -1 : ttl);
      this.#ttl = ttl;
    }
    if (trafficClass !== this.#trafficClass) {
      socketOptions.setTrafficClass(this.#fd, this.#family, trafficClass);
      this.#trafficClass = trafficClass;
    }
    if (isGroup(addr, addrOff)) return this.#sendToGroup(buf, off, len, addr, addrOff, port);
    const error = this.#sendOne(buf, off, len, addr, addrOff, port);
    this.#provenPort = error ? -1 : port;
    copyAddress(addr, addrOff, this.#proven, 0);
    return error;
  }

  notSent(errno: number): boolean {
    const code = errnoName(errno);
    if (code === 'EAGAIN' || code === 'ENOBUFS') return false;
    // The next one is sent at once, so that its error can be told.
    this.#provenPort = -1;
    if (!REPORTED_LATE.has(code)) return false;
    this.#drainLater();
    return true;
  }

  /** To a group on every network of the host; without any, by the system's own route. */
  #sendToGroup(
    buf: Uint8Array,
    off: number,
    len: number,
    addr: Uint8Array,
    addrOff: number,
    port: number,
  ): HostError | undefined {
    this.#endsSending ??= this.#networks.sender(this.port);
    const interfaces = this.#networks.interfaces(this.#family);
    if (interfaces.length === 0) return this.#sendOne(buf, off, len, addr, addrOff, port);
    let error: HostError | undefined;
    let sent = false;
    for (const { address, index } of interfaces) {
      socketOptions.setGroupInterface(this.#fd, this.#family, address, index);
      error = this.#sendOne(buf, off, len, addr, addrOff, port);
      if (!error) sent = true;
    }
    return sent ? undefined : error;
  }

  #sendOne(
    buf: Uint8Array,
    off: number,
    len: number,
    addr: Uint8Array,
    addrOff: number,
    port: number,
  ): HostError | undefined {
    // The first try may only report an earlier datagram's ICMP error; that datagram's fate is not this one's.
    for (let attempt = 0; attempt < 2; attempt++) {
      if (datagrams.sendTo(this.#fd, buf, off, len, addr, addrOff, port) >= 0) return undefined;
      const code = errnoName(socket.socketErrno());
      // A full buffer drops, as any router's does.
      if (code === 'EAGAIN' || code === 'ENOBUFS') return undefined;
      if (attempt === 1 || !REPORTED_LATE.has(code)) return hostError(code);
      this.#drainLater();
    }
    return undefined;
  }

  #drainLater(): void {
    if (this.#drainWaits) return;
    this.#drainWaits = true;
    this.#poller.defer(() => {
      this.#drainWaits = false;
      this.#drain();
    });
  }

  close(): void {
    if (this.#fd < 0) return;
    sendBatch.send();
    this.#endsSending?.();
    this.#poller.forget(this.#fd);
    socket.close(this.#fd);
    this.#fd = -1;
  }
}

function isGroup(addr: Uint8Array, off: number): boolean {
  return isMapped(addr, off) ? isMulticastIpv4(get32(addr, off + 12)) : isMulticastIpv6(addr, off);
}

/** Errors that a send may report on behalf of an earlier one. */
export const REPORTED_LATE: ReadonlySet<string> = new Set([
  'ECONNREFUSED',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'EMSGSIZE',
  'EACCES',
  'EPROTO',
  'ENOPROTOOPT',
  'EHOSTDOWN',
]);
