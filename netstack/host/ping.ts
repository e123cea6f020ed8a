/**
 * ICMP echo from the host, so that a guest's ping is answered by whom it asks, or by nobody. One socket per guest and
 * identifier: the kernel's ping socket where net.ipv4.ping_group_range allows it, else a raw one behind a filter.
 */
import { randomInt } from 'node:crypto';
import { SyscallError } from '#common/errors';
import * as datagrams from '#common/native/datagrams';
import { openEchoSocket } from '#common/native/echo-socket';
import { EPOLLERR, EPOLLIN } from '#common/native/epoll';
import { errnoName } from '#common/native/libc';
import * as socket from '#common/native/socket';
import * as socketOptions from '#common/native/socket-options';
import type { HostError, HostPing, PingSink } from '../flow/host.ts';
import { get16, put16 } from '../wire/address.ts';
import { complement, sum } from '../wire/checksum.ts';
import { drainErrors, REPORTED_LATE } from './datagram.ts';
import { hostError } from './errors.ts';
import type { Poller } from './poller.ts';

/** Replies read from one socket in one turn of the loop. */
const REPLIES_PER_TURN = 32;
/** Header of an echo message: type, code, checksum, identifier, sequence number (RFC 792, RFC 4443). */
const ECHO_HEADER_LEN = 8;
const PACKET_BYTES_MAX = 65536;
const ECHO_REPLY = { 4: 0, 6: 129 } as const;
const ECHO_REQUEST = { 4: 8, 6: 128 } as const;

const buffer = new Uint8Array(new ArrayBuffer(PACKET_BYTES_MAX));
const received: datagrams.Received = { addr: new Uint8Array(16), port: 0, ttl: 0, trafficClass: 0 };

/** Opens an echo socket for {@link NativeHost}. */
export function openNativePing(poller: Poller, family: 4 | 6, sink: PingSink): HostPing | HostError {
  const ident = randomInt(1, 0x10000);
  let fd = -1;
  try {
    const opened = openEchoSocket(family, ident);
    fd = opened.fd;
    socketOptions.setDatagramOptions(fd, family);
    const ping = new NativePing(fd, opened.raw, ident, family, poller, sink);
    poller.watch(fd, EPOLLIN, (mask) => ping.events(mask));
    return ping;
  } catch (error) {
    if (fd >= 0) socket.close(fd);
    if (!(error instanceof SyscallError)) throw error;
    return hostError(error.code);
  }
}

class NativePing implements HostPing {
  readonly #raw: boolean;
  readonly #ident: number;
  readonly #family: 4 | 6;
  readonly #poller: Poller;
  readonly #sink: PingSink;
  #fd: number;
  #ttl = 0;

  constructor(fd: number, raw: boolean, ident: number, family: 4 | 6, poller: Poller, sink: PingSink) {
    this.#fd = fd;
    this.#raw = raw;
    this.#ident = ident;
    this.#family = family;
    this.#poller = poller;
    this.#sink = sink;
  }

  send(
    sequence: number,
    buf: Uint8Array,
    off: number,
    len: number,
    addr: Uint8Array,
    addrOff: number,
    ttl: number,
  ): HostError | undefined {
    if (this.#fd < 0) return 'EPIPE';
    const end = ECHO_HEADER_LEN + len;
    if (end > PACKET_BYTES_MAX) return 'EMSGSIZE';
    if (ttl !== this.#ttl) {
      socketOptions.setTtl(this.#fd, this.#family, ttl === 0 ? -1 : ttl);
      this.#ttl = ttl;
    }
    buffer[0] = ECHO_REQUEST[this.#family];
    buffer[1] = 0;
    buffer[2] = 0;
    buffer[3] = 0;
    put16(buffer, 4, this.#ident);
    put16(buffer, 6, sequence);
    buffer.set(buf.subarray(off, off + len), ECHO_HEADER_LEN);
    // The kernel sums what a ping socket sends, and every ICMPv6 message (RFC 3542 section 3.1).
    if (this.#raw && this.#family === 4) {
      put16(buffer, 2, complement(sum(buffer, 0, end)));
    }
    // The first try may only report an earlier request's ICMP error (a traceroute has many under way); the queue of
    // errors, which the poller tells of, says whose it is.
    for (let attempt = 0; attempt < 2; attempt++) {
      if (datagrams.sendTo(this.#fd, buffer, 0, end, addr, addrOff, 0) >= 0) return undefined;
      const code = errnoName(socket.socketErrno());
      if (code === 'EAGAIN' || code === 'ENOBUFS') return undefined;
      if (attempt === 1 || !REPORTED_LATE.has(code)) return hostError(code);
    }
    return undefined;
  }

  events(mask: number): void {
    if (mask & EPOLLERR) this.#drain();
    if (!(mask & EPOLLIN)) return;
    for (let i = 0; i < REPLIES_PER_TURN && this.#fd >= 0; i++) {
      const len = datagrams.receiveFrom(this.#fd, buffer, 0, PACKET_BYTES_MAX, received);
      if (len >= 0) this.#reply(len);
      else if (errnoName(socket.socketErrno()) === 'EAGAIN') return;
      else this.#drain();
    }
  }

  #reply(end: number): void {
    // A raw IPv4 socket gives the IP header too; its length is in 32-bit words (RFC 791 section 3.1).
    const at = this.#raw && this.#family === 4 ? (buffer[0]! & 15) * 4 : 0;
    if (end < at + ECHO_HEADER_LEN || buffer[at] !== ECHO_REPLY[this.#family]) return;
    const sequence = get16(buffer, at + 6);
    const data = at + ECHO_HEADER_LEN;
    this.#sink.reply(sequence, buffer, data, end - data, received.addr, 0, received.ttl);
  }

  #drain(): void {
    if (this.#fd < 0) return;
    drainErrors(this.#fd, (error, peer, packet, len) => {
      if (len < ECHO_HEADER_LEN) return;
      // Raw sockets hear of every ping of the host: only our own concern us.
      if (this.#raw && get16(packet, 4) !== this.#ident) return;
      const payload = len - ECHO_HEADER_LEN;
      this.#sink.icmpError(error, get16(packet, 6), peer.addr, 0, packet, ECHO_HEADER_LEN, payload);
    });
  }

  close(): void {
    if (this.#fd < 0) return;
    this.#poller.forget(this.#fd);
    socket.close(this.#fd);
    this.#fd = -1;
  }
}
