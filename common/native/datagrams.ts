/**
 * Datagrams with what belongs to them besides their bytes: addresses, TTL, traffic class, and the ICMP errors that come back. As in
 * socket.ts, calls return what the system call returned, -1 and `socketErrno` on failure.
 */
import type { Calls } from './calls.ts';
import { cFunction } from './libc.ts';
import { addressIn, NativeMemory } from './memory.ts';
import { putSockaddr, SOCKADDR_LEN, takeSockaddr } from './sockaddr.ts';

const sendtoCall = cFunction('sendto', 'int', ['int', 'int64', 'int64', 'int', 'int64', 'int']);
const recvmsgCall = cFunction('recvmsg', 'int', ['int', 'int64', 'int']);

// Linux include/linux/socket.h, include/uapi/linux/{in,in6}.h
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_ERRQUEUE = 0x2000;
const SOL_IP = 0;
const SOL_IPV6 = 41;
const IP_TOS = 1;
const IP_TTL = 2;
const IP_RECVERR = 11;
const IPV6_RECVERR = 25;
const IPV6_HOPLIMIT = 52;
const IPV6_TCLASS = 67;

// A message for recvmsg(2): socket address, struct iovec, struct msghdr (LP64), control messages.
const IOVEC_OFF = 32;
const HEADER_OFF = IOVEC_OFF + 16;
const CONTROL_OFF = HEADER_OFF + 56;
const CONTROL_LEN = 512;
const MESSAGE_LEN: number = CONTROL_OFF + CONTROL_LEN;

/** What a received datagram or error tells besides the bytes. One object is reused. */
export interface Received {
  /** Peer of a datagram, or the destination of the one that an error is about. */
  readonly addr: Uint8Array;
  port: number;
  /** TTL or hop limit, 0 when unknown. */
  ttl: number;
  /** Differentiated services and ECN of a datagram. */
  trafficClass: number;
}

/** A queued error (struct sock_extended_err, include/uapi/linux/errqueue.h). */
export interface ExtendedError {
  errno: number;
  /** 1 local, 2 ICMP, 3 ICMPv6. */
  origin: number;
  type: number;
  code: number;
  /** Path MTU for EMSGSIZE. */
  info: number;
  hasOffender: boolean;
  readonly offender: Uint8Array;
}

/** Places for messages that are received together. */
class Messages {
  readonly memory: NativeMemory;

  constructor(count: number) {
    this.memory = new NativeMemory(count * MESSAGE_LEN);
    const { memory } = this;
    for (let at = 0; at < count * MESSAGE_LEN; at += MESSAGE_LEN) {
      memory.setPointer(at + HEADER_OFF, memory.address + at);
      memory.setPointer(at + HEADER_OFF + 16, memory.address + at + IOVEC_OFF);
      memory.setPointer(at + HEADER_OFF + 24, 1);
      memory.setPointer(at + HEADER_OFF + 32, memory.address + at + CONTROL_OFF);
    }
  }

  /** Makes message `index` ready to receive into `len` bytes, and returns the address of its struct msghdr. */
  prepare(index: number, address: number, len: number): number {
    const { memory } = this;
    const at = index * MESSAGE_LEN;
    memory.setPointer(at + IOVEC_OFF, address);
    memory.setPointer(at + IOVEC_OFF + 8, len);
    memory.view.setUint32(at + HEADER_OFF + 8, SOCKADDR_LEN, true);
    memory.setPointer(at + HEADER_OFF + 40, CONTROL_LEN);
    memory.view.setUint32(at + HEADER_OFF + 48, 0, true);
    memory.view.setUint16(at, 0, true);
    return memory.address + at + HEADER_OFF;
  }

  /** Tells where message `index` came from, and how. */
  take(index: number, out: Received): void {
    const { view, bytes } = this.memory;
    out.port = Math.max(0, takeSockaddr(this.memory, index * MESSAGE_LEN, out.addr, 0));
    out.ttl = 0;
    out.trafficClass = 0;
    this.eachControl(index, (level, type, at) => {
      if ((level === SOL_IP && type === IP_TTL) || (level === SOL_IPV6 && type === IPV6_HOPLIMIT))
        out.ttl = view.getInt32(at, true);
      // One byte for IPv4, an int for IPv6 (ip(7), RFC 3542 section 6.5).
      else if ((level === SOL_IP && type === IP_TOS) || (level === SOL_IPV6 && type === IPV6_TCLASS))
        out.trafficClass = bytes[at]!;
    });
  }

  /** Calls `each` with level, type and place of data of every control message (cmsg(3)). */
  eachControl(index: number, each: (level: number, type: number, at: number) => void): void {
    const { memory } = this;
    const { view } = memory;
    const from = index * MESSAGE_LEN;
    const end = from + CONTROL_OFF + Math.min(memory.pointer(from + HEADER_OFF + 40), CONTROL_LEN);
    let at = from + CONTROL_OFF;
    while (at + 16 <= end) {
      const length = memory.pointer(at);
      if (length < 16) return;
      each(view.getInt32(at + 8, true), view.getInt32(at + 12, true), at + 16);
      at += (length + 7) & ~7;
    }
  }
}

/** For one message at a time. */
const single = new Messages(1);

/** Receives one datagram with its origin, TTL and traffic class. Returns its length or -1. */
export function receiveFrom(fd: number, buf: Uint8Array, off: number, len: number, out: Received): number {
  const count = recvmsgCall(fd, single.prepare(0, addressIn(buf, off), len), MSG_DONTWAIT);
  if (count >= 0) single.take(0, out);
  return count;
}

/**
 * Takes one error from a socket's error queue (IP_RECVERR, ip(7)) with the datagram that caused it. Returns the
 * datagram's length (from its transport payload on), or -1 when there is none.
 */
export function receiveError(
  fd: number,
  buf: Uint8Array,
  off: number,
  len: number,
  out: Received,
  error: ExtendedError,
): number {
  const header = single.prepare(0, addressIn(buf, off), len);
  const count = recvmsgCall(fd, header, MSG_ERRQUEUE | MSG_DONTWAIT);
  if (count < 0) return count;
  const { memory } = single;
  const { view, bytes } = memory;
  out.port = Math.max(0, takeSockaddr(memory, 0, out.addr, 0));
  out.ttl = 0;
  error.errno = 0;
  error.hasOffender = false;
  single.eachControl(0, (level, type, at) => {
    if (!((level === SOL_IP && type === IP_RECVERR) || (level === SOL_IPV6 && type === IPV6_RECVERR))) return;
    error.errno = view.getUint32(at, true);
    error.origin = bytes[at + 4]!;
    error.type = bytes[at + 5]!;
    error.code = bytes[at + 6]!;
    error.info = view.getUint32(at + 8, true);
    error.hasOffender = takeSockaddr(memory, at + 16, error.offender, 0) >= 0;
  });
  return count;
}

const destination = new NativeMemory(SOCKADDR_LEN);

/** Sends one datagram. Returns its length or -1. */
export function sendTo(
  fd: number,
  buf: Uint8Array,
  off: number,
  len: number,
  addr: Uint8Array,
  addrOff: number,
  port: number,
): number {
  const length = putSockaddr(destination, 0, addr, addrOff, port);
  return sendtoCall(fd, addressIn(buf, off), len, MSG_DONTWAIT | MSG_NOSIGNAL, destination.address, length);
}

/** Receives datagrams of several sockets together, each into a slot of its own. */
export class ReceiveMany {
  readonly bytes: Uint8Array;
  readonly #messages: Messages;
  readonly #slotBytes: number;
  readonly #lengths: Int32Array;

  constructor(count: number, datagramBytesMax: number) {
    this.#messages = new Messages(count);
    this.#lengths = new Int32Array(count);
    // Slots begin at different lines of the caches, of which small datagrams use one or two.
    this.#slotBytes = (datagramBytesMax + 127) & ~63;
    this.bytes = new Uint8Array(new ArrayBuffer(count * this.#slotBytes));
  }

  /** Where the datagram of slot `index` is. */
  slot(index: number): number {
    return index * this.#slotBytes;
  }

  /** Adds the call that receives a datagram of `fd` into the next slot: slots and calls are numbered alike. */
  add(calls: Calls, index: number, fd: number): void {
    const address = addressIn(this.bytes, this.slot(index));
    calls.receiveMessage(fd, this.#messages.prepare(index, address, this.#slotBytes));
  }

  /** Remembers what the calls have returned. */
  keep(calls: Calls, count: number): void {
    for (let i = 0; i < count; i++) this.#lengths[i] = calls.result(i);
  }

  /** Length of the datagram of slot `index`, with its origin, or a negative errno. */
  take(index: number, out: Received): number {
    const length = this.#lengths[index]!;
    if (length >= 0) this.#messages.take(index, out);
    return length;
  }
}
