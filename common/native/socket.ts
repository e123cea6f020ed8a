/**
 * Sockets as the kernel has them: non-blocking descriptors for loops of our own. The functions that move data return
 * what the system call returned (-1 and {@link socketErrno} on failure), because they are called for every batch; those
 * that set a socket up throw {@link SyscallError}.
 *
 * Addresses are 16 bytes at an offset, IPv4 in the mapped form ::ffff:a.b.c.d, as everywhere in the netstack. A mapped
 * address becomes an AF_INET socket address, so one function serves both families.
 */
import { SyscallError } from '../errors.ts';
import { cFunction, check, errno } from './libc.ts';
import { addressIn, NativeMemory } from './memory.ts';

const socketCall = cFunction('socket', 'int', ['int', 'int', 'int']);
const connectCall = cFunction('connect', 'int', ['int', 'int64', 'int']);
const bindCall = cFunction('bind', 'int', ['int', 'int64', 'int']);
const listenCall = cFunction('listen', 'int', ['int', 'int']);
const accept4 = cFunction('accept4', 'int', ['int', 'int64', 'int64', 'int']);
const getsockname = cFunction('getsockname', 'int', ['int', 'int64', 'int64']);
const getsockopt = cFunction('getsockopt', 'int', ['int', 'int', 'int', 'int64', 'int64']);
const shutdownCall = cFunction('shutdown', 'int', ['int', 'int']);
const closeCall = cFunction('close', 'int', ['int']);
const recvCall = cFunction('recv', 'int', ['int', 'int64', 'int64', 'int']);
const sendCall = cFunction('send', 'int', ['int', 'int64', 'int64', 'int']);
const sendtoCall = cFunction('sendto', 'int', ['int', 'int64', 'int64', 'int', 'int64', 'int']);
const recvfromCall = cFunction('recvfrom', 'int', ['int', 'int64', 'int64', 'int', 'int64', 'int64']);
const socketpairCall = cFunction('socketpair', 'int', ['int', 'int', 'int', 'int64']);
const readCall = cFunction('read', 'int', ['int', 'int64', 'int64']);
const writeCall = cFunction('write', 'int', ['int', 'int64', 'int64']);
const fcntl = cFunction('fcntl', 'int', ['int', 'int', '...']);
const sendmsgCall = cFunction('sendmsg', 'int', ['int', 'int64', 'int']);
const recvmsgCall = cFunction('recvmsg', 'int', ['int', 'int64', 'int']);

// Linux include/linux/socket.h, include/uapi/asm-generic/socket.h, include/uapi/linux/{in,in6,tcp,icmp,icmpv6}.h
const AF_UNIX = 1;
const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_CLOEXEC_NONBLOCK = 0o2004000;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_ERRQUEUE = 0x2000;
const SOL_IP = 0;
const SOL_SOCKET = 1;
const SOL_IPV6 = 41;
const SO_ERROR = 4;
const F_GETFL = 3;
const F_DUPFD_CLOEXEC = 1030;
const F_SETFL = 4;
const O_NONBLOCK = 0o4000;
const IP_TOS = 1;
const IP_TTL = 2;
const IP_RECVERR = 11;
const IPV6_RECVERR = 25;
const IPV6_HOPLIMIT = 52;
const IPV6_TCLASS = 67;

const SOCKET_TYPES = { stream: 1, datagram: 2, raw: 3, seqpacket: 5 } as const;

/** Kinds of socket. */
export type SocketType = keyof typeof SOCKET_TYPES;
/** Address family of an internet socket. */
export type Family = 4 | 6;

/** Longest struct sockaddr of the internet families (sockaddr_in6). */
const SOCKADDR_LEN = 28;
/** Longest path of a unix socket, with its terminating zero (unix(7)). */
const UNIX_PATH_MAX = 108;
/** struct msghdr and iovec on LP64 (include/linux/socket.h). */
const MSGHDR_LEN = 56;
const CONTROL_LEN = 512;

// Layout of the scratch memory that all calls of this thread share.
const ADDRESS_OFF = 0;
const LENGTH_OFF = 128;
const OPTION_OFF = 136;
const MSGHDR_OFF = 256;
const IOVEC_OFF = MSGHDR_OFF + MSGHDR_LEN + 8;
const CONTROL_OFF = 512;
const scratch = new NativeMemory(CONTROL_OFF + CONTROL_LEN);
const { view, bytes, address: base } = scratch;

/** errno of the last failed call of this module; read it before calling anything else. */
export const socketErrno: () => number = errno;

/** True for ::ffff:a.b.c.d. */
export function isMapped(addr: Uint8Array, off: number): boolean {
  for (let i = 0; i < 10; i++) if (addr[off + i] !== 0) return false;
  return addr[off + 10] === 0xff && addr[off + 11] === 0xff;
}

function putSockaddr(addr: Uint8Array, off: number, port: number, scope = 0): number {
  if (isMapped(addr, off)) {
    view.setUint16(ADDRESS_OFF, AF_INET, true);
    view.setUint16(ADDRESS_OFF + 2, port);
    for (let i = 0; i < 4; i++) bytes[ADDRESS_OFF + 4 + i] = addr[off + 12 + i]!;
    view.setUint32(ADDRESS_OFF + 8, 0);
    view.setUint32(ADDRESS_OFF + 12, 0);
    return 16;
  }
  view.setUint16(ADDRESS_OFF, AF_INET6, true);
  view.setUint16(ADDRESS_OFF + 2, port);
  view.setUint32(ADDRESS_OFF + 4, 0);
  for (let i = 0; i < 16; i++) bytes[ADDRESS_OFF + 8 + i] = addr[off + i]!;
  view.setUint32(ADDRESS_OFF + 24, scope, true);
  return SOCKADDR_LEN;
}

/** Reads the socket address at `at` of the scratch memory into 16 bytes and returns its port, or -1 if there is none. */
function takeSockaddr(at: number, addr: Uint8Array, off: number): number {
  const family = view.getUint16(at, true);
  if (family === AF_INET) {
    addr.fill(0, off, off + 10);
    addr[off + 10] = 0xff;
    addr[off + 11] = 0xff;
    for (let i = 0; i < 4; i++) addr[off + 12 + i] = bytes[at + 4 + i]!;
    return view.getUint16(at + 2);
  }
  if (family !== AF_INET6) return -1;
  for (let i = 0; i < 16; i++) addr[off + i] = bytes[at + 8 + i]!;
  return view.getUint16(at + 2);
}

/** Opens a non-blocking, close-on-exec internet socket. @throws SyscallError */
export function openSocket(family: Family, type: SocketType, protocol = 0): number {
  const domain = family === 4 ? AF_INET : AF_INET6;
  return check(socketCall(domain, SOCKET_TYPES[type] | SOCK_CLOEXEC_NONBLOCK, protocol), 'socket', type);
}

/** Begins to connect; 0 when it is done at once, -1 with EINPROGRESS when it goes on. */
export function connect(fd: number, addr: Uint8Array, off: number, port: number): number {
  return connectCall(fd, base + ADDRESS_OFF, putSockaddr(addr, off, port));
}

/** @param scope interface of a link-local IPv6 address. @throws SyscallError EADDRINUSE, EADDRNOTAVAIL, EACCES */
export function bind(fd: number, addr: Uint8Array, off: number, port: number, scope = 0): void {
  check(bindCall(fd, base + ADDRESS_OFF, putSockaddr(addr, off, port, scope)), 'bind');
}

/** @throws SyscallError */
export function listen(fd: number, backlog: number): void {
  check(listenCall(fd, backlog), 'listen');
}

/** Accepts one connection, non-blocking; stores the peer's address. Returns -1 with EAGAIN when there is none. */
export function accept(fd: number, peerAddr: Uint8Array, off: number): number {
  view.setUint32(LENGTH_OFF, SOCKADDR_LEN, true);
  const accepted = accept4(fd, base + ADDRESS_OFF, base + LENGTH_OFF, SOCK_CLOEXEC_NONBLOCK);
  if (accepted >= 0) lastPeerPort = takeSockaddr(ADDRESS_OFF, peerAddr, off);
  return accepted;
}

let lastPeerPort = 0;
/** Port of the peer that the last {@link accept} or {@link receiveFrom} told of. */
export function peerPort(): number {
  return lastPeerPort;
}

/** The port that a socket is bound to. @throws SyscallError */
export function localPort(fd: number): number {
  view.setUint32(LENGTH_OFF, SOCKADDR_LEN, true);
  check(getsockname(fd, base + ADDRESS_OFF, base + LENGTH_OFF), 'getsockname');
  return view.getUint16(ADDRESS_OFF + 2);
}

/** Reads bytes of a stream: their count, 0 at its end, or -1. */
export function receive(fd: number, buf: Uint8Array, off: number, len: number): number {
  return recvCall(fd, addressIn(buf, off), len, MSG_DONTWAIT);
}

/** Writes bytes of a stream: how many were taken, or -1. */
export function send(fd: number, buf: Uint8Array, off: number, len: number): number {
  return sendCall(fd, addressIn(buf, off), len, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/** Most pieces that {@link sendPieces} takes. */
export const PIECES_MAX = 16;
const pieces = new NativeMemory(MSGHDR_LEN + 16 * PIECES_MAX);
pieces.setPointer(16, pieces.address + MSGHDR_LEN);

/** Up to {@link PIECES_MAX} pieces of one buffer. */
export class Spans {
  readonly #spans = new Int32Array(2 * PIECES_MAX);
  count = 0;
  /** Bytes of all pieces. */
  total = 0;

  offset(index: number): number {
    return this.#spans[2 * index]!;
  }

  length(index: number): number {
    return this.#spans[2 * index + 1]!;
  }

  add(off: number, len: number): void {
    this.#spans[2 * this.count] = off;
    this.#spans[2 * this.count + 1] = len;
    this.count++;
    this.total += len;
  }

  clear(): void {
    this.count = 0;
    this.total = 0;
  }
}

/** Writes several pieces of one buffer to a stream with one call. Returns how many bytes were taken, or -1. */
export function sendPieces(fd: number, buf: Uint8Array, spans: Spans): number {
  const start = addressIn(buf, 0);
  for (let i = 0; i < spans.count; i++) {
    pieces.setPointer(MSGHDR_LEN + 16 * i, start + spans.offset(i));
    pieces.setPointer(MSGHDR_LEN + 16 * i + 8, spans.length(i));
  }
  pieces.setPointer(24, spans.count);
  return sendmsgCall(fd, pieces.address, MSG_DONTWAIT | MSG_NOSIGNAL);
}

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
  const flags = MSG_DONTWAIT | MSG_NOSIGNAL;
  const length = putSockaddr(addr, addrOff, port);
  return sendtoCall(fd, addressIn(buf, off), len, flags, base + ADDRESS_OFF, length);
}

/** Ends our direction of a stream (FIN); -1 when the peer has gone already. */
export function shutdownWrite(fd: number): number {
  return shutdownCall(fd, 1);
}

/** Closes a descriptor. */
export function close(fd: number): void {
  closeCall(fd);
}

/** Takes the pending error of a socket: an errno, or 0. */
export function pendingError(fd: number): number {
  view.setUint32(LENGTH_OFF, 4, true);
  view.setInt32(OPTION_OFF, 0, true);
  getsockopt(fd, SOL_SOCKET, SO_ERROR, base + OPTION_OFF, base + LENGTH_OFF);
  return view.getInt32(OPTION_OFF, true);
}

/** What {@link receiveFrom} and {@link receiveError} tell besides the bytes. One object is reused. */
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

function prepareMessage(buf: Uint8Array, off: number, len: number): void {
  scratch.setPointer(IOVEC_OFF, addressIn(buf, off));
  scratch.setPointer(IOVEC_OFF + 8, len);
  scratch.setPointer(MSGHDR_OFF, base + ADDRESS_OFF);
  view.setUint32(MSGHDR_OFF + 8, SOCKADDR_LEN, true);
  scratch.setPointer(MSGHDR_OFF + 16, base + IOVEC_OFF);
  scratch.setPointer(MSGHDR_OFF + 24, 1);
  scratch.setPointer(MSGHDR_OFF + 32, base + CONTROL_OFF);
  scratch.setPointer(MSGHDR_OFF + 40, CONTROL_LEN);
  view.setUint32(MSGHDR_OFF + 48, 0, true);
  view.setUint16(ADDRESS_OFF, 0, true);
}

/** Calls `each` with level, type and place of data of every control message (cmsg(3)). */
function eachControl(each: (level: number, type: number, at: number) => void): void {
  const end = CONTROL_OFF + Math.min(scratch.pointer(MSGHDR_OFF + 40), CONTROL_LEN);
  let at = CONTROL_OFF;
  while (at + 16 <= end) {
    const length = scratch.pointer(at);
    if (length < 16) return;
    each(view.getInt32(at + 8, true), view.getInt32(at + 12, true), at + 16);
    at += (length + 7) & ~7;
  }
}

/** Receives one datagram with its origin, TTL and traffic class. Returns its length or -1. */
export function receiveFrom(fd: number, buf: Uint8Array, off: number, len: number, out: Received): number {
  prepareMessage(buf, off, len);
  const count = recvmsgCall(fd, base + MSGHDR_OFF, MSG_DONTWAIT);
  if (count < 0) return count;
  out.port = Math.max(0, takeSockaddr(ADDRESS_OFF, out.addr, 0));
  out.ttl = 0;
  out.trafficClass = 0;
  eachControl((level, type, at) => {
    if ((level === SOL_IP && type === IP_TTL) || (level === SOL_IPV6 && type === IPV6_HOPLIMIT))
      out.ttl = view.getInt32(at, true);
    // One byte for IPv4, an int for IPv6 (ip(7), RFC 3542 section 6.5).
    else if ((level === SOL_IP && type === IP_TOS) || (level === SOL_IPV6 && type === IPV6_TCLASS))
      out.trafficClass = bytes[at]!;
  });
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
  prepareMessage(buf, off, len);
  const count = recvmsgCall(fd, base + MSGHDR_OFF, MSG_ERRQUEUE | MSG_DONTWAIT);
  if (count < 0) return count;
  out.port = Math.max(0, takeSockaddr(ADDRESS_OFF, out.addr, 0));
  out.ttl = 0;
  error.errno = 0;
  error.hasOffender = false;
  eachControl((level, type, at) => {
    if (!((level === SOL_IP && type === IP_RECVERR) || (level === SOL_IPV6 && type === IPV6_RECVERR))) return;
    error.errno = view.getUint32(at, true);
    error.origin = bytes[at + 4]!;
    error.type = bytes[at + 5]!;
    error.code = bytes[at + 6]!;
    error.info = view.getUint32(at + 8, true);
    error.hasOffender = takeSockaddr(at + 16, error.offender, 0) >= 0;
  });
  return count;
}

function putUnixAddress(path: string): number {
  const length = Buffer.byteLength(path);
  if (length >= UNIX_PATH_MAX)
    throw new SyscallError(
      'bind',
      'ENAMETOOLONG',
      36,
      `${path} (a unix socket's path has at most 107 bytes)`,
    );
  view.setUint16(ADDRESS_OFF, AF_UNIX, true);
  scratch.cString(ADDRESS_OFF + 2, path);
  if (!path.startsWith('@')) return 2 + length + 1;
  // The abstract namespace: a zero first, and none at the end.
  bytes[ADDRESS_OFF + 2] = 0;
  return 2 + length;
}

const F_SETFD = 2;
const FD_CLOEXEC = 1;

/** Has a descriptor that came with the process closed in the programs that it runs. @throws SyscallError */
export function setCloseOnExec(fd: number): void {
  check(fcntl(fd, F_SETFD, 'int', FD_CLOEXEC), 'fcntl', `${fd}`);
}

/** Opens a non-blocking unix socket. Node itself has no datagram and no seqpacket ones. @throws SyscallError */
export function openUnixSocket(type: SocketType): number {
  return check(socketCall(AF_UNIX, SOCKET_TYPES[type] | SOCK_CLOEXEC_NONBLOCK, 0), 'socket', `unix ${type}`);
}

/** @throws SyscallError */
export function bindUnix(fd: number, path: string): void {
  check(bindCall(fd, base + ADDRESS_OFF, putUnixAddress(path)), 'bind', path);
}

/** Connects a unix socket, or changes the peer of a datagram one. @throws SyscallError */
export function connectUnix(fd: number, path: string): void {
  check(connectCall(fd, base + ADDRESS_OFF, putUnixAddress(path)), 'connect', path);
}

/** Accepts a connection to a unix listener; -1 with EAGAIN when there is none. */
export function acceptUnix(fd: number): number {
  return accept4(fd, 0, 0, SOCK_CLOEXEC_NONBLOCK);
}

/**
 * Receives one datagram of a unix socket. The sender's path is in {@link unixSender} afterwards, empty for a socket that
 * has none.
 */
export function receiveUnix(fd: number, buf: Uint8Array, off: number, len: number): number {
  view.setUint32(LENGTH_OFF, 2 + UNIX_PATH_MAX, true);
  view.setUint16(ADDRESS_OFF + 2, 0);
  return recvfromCall(fd, addressIn(buf, off), len, MSG_DONTWAIT, base + ADDRESS_OFF, base + LENGTH_OFF);
}

/** The path from which the last {@link receiveUnix} got its datagram. */
export function unixSender(): string {
  const end = Math.min(view.getUint32(LENGTH_OFF, true), 2 + UNIX_PATH_MAX);
  const path = Buffer.from(bytes.buffer, ADDRESS_OFF + 2, Math.max(0, end - 2));
  const zero = path.indexOf(0);
  return path.toString('utf8', 0, zero < 0 ? path.length : zero);
}

/** Two connected stream sockets, for handing one end to another thread. The first is ours, non-blocking. @throws SyscallError */
export function socketPair(): [number, number] {
  check(
    socketpairCall(AF_UNIX, SOCKET_TYPES.stream | SOCK_CLOEXEC_NONBLOCK, 0, base + OPTION_OFF),
    'socketpair',
  );
  return [view.getInt32(OPTION_OFF, true), view.getInt32(OPTION_OFF + 4, true)];
}

/** A close-on-exec copy of an inherited descriptor, made non-blocking (which the original becomes too). @throws SyscallError */
export function duplicate(fd: number): number {
  const copy = check(fcntl(fd, F_DUPFD_CLOEXEC, 'int', 3), 'fcntl F_DUPFD_CLOEXEC', `${fd}`);
  const flags = check(fcntl(copy, F_GETFL, 'int', 0), 'fcntl F_GETFL');
  check(fcntl(copy, F_SETFL, 'int', flags | O_NONBLOCK), 'fcntl F_SETFL');
  return copy;
}

/** The path that a unix socket is bound to, empty when it has none; undefined for a socket of another family. @throws SyscallError */
export function boundUnixPath(fd: number): string | undefined {
  view.setUint32(LENGTH_OFF, 2 + UNIX_PATH_MAX, true);
  check(getsockname(fd, base + ADDRESS_OFF, base + LENGTH_OFF), 'getsockname');
  return view.getUint16(ADDRESS_OFF, true) === AF_UNIX ? unixSender() : undefined;
}

/** Reads from any descriptor. */
export function read(fd: number, buf: Uint8Array, off: number, len: number): number {
  return readCall(fd, addressIn(buf, off), len);
}

/** Writes to any descriptor. */
export function write(fd: number, buf: Uint8Array, off: number, len: number): number {
  return writeCall(fd, addressIn(buf, off), len);
}
