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
import { AF_INET, AF_INET6, putSockaddr, SOCKADDR_LEN, takeSockaddr } from './sockaddr.ts';

export { isMapped } from './sockaddr.ts';

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
const recvfromCall = cFunction('recvfrom', 'int', ['int', 'int64', 'int64', 'int', 'int64', 'int64']);
const socketpairCall = cFunction('socketpair', 'int', ['int', 'int', 'int', 'int64']);
const readCall = cFunction('read', 'int', ['int', 'int64', 'int64']);
const writeCall = cFunction('write', 'int', ['int', 'int64', 'int64']);
const fcntl = cFunction('fcntl', 'int', ['int', 'int', '...']);
const sendmsgCall = cFunction('sendmsg', 'int', ['int', 'int64', 'int']);

// Linux include/linux/socket.h, include/uapi/asm-generic/socket.h, include/uapi/linux/{in,in6,tcp,icmp,icmpv6}.h
const AF_UNIX = 1;
const SOCK_CLOEXEC_NONBLOCK = 0o2004000;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const SOL_SOCKET = 1;
const SO_ERROR = 4;
const SO_PEERCRED = 17;
/** struct ucred: pid, uid, gid. */
const UCRED_LEN = 12;
const F_GETFL = 3;
const F_DUPFD_CLOEXEC = 1030;
const F_SETFL = 4;
const O_NONBLOCK = 0o4000;

const SOCKET_TYPES = { stream: 1, datagram: 2, raw: 3, seqpacket: 5 } as const;

/** Kinds of socket. */
export type SocketType = keyof typeof SOCKET_TYPES;
/** Address family of an internet socket. */
export type Family = 4 | 6;

/** Longest path of a unix socket, with its terminating zero (unix(7)). */
const UNIX_PATH_MAX = 108;
/** struct msghdr and iovec on LP64 (include/linux/socket.h). */
const MSGHDR_LEN = 56;

// Layout of the scratch memory that all calls of this thread share.
const ADDRESS_OFF = 0;
const LENGTH_OFF = 128;
const OPTION_OFF = 136;
const SCRATCH_LEN = 144;
const scratch = new NativeMemory(SCRATCH_LEN);
const { view, bytes, address: base } = scratch;

/** errno of the last failed call of this module; read it before calling anything else. */
export const socketErrno: () => number = errno;

/** Opens a non-blocking, close-on-exec internet socket. @throws SyscallError */
export function openSocket(family: Family, type: SocketType, protocol = 0): number {
  const domain = family === 4 ? AF_INET : AF_INET6;
  return check(socketCall(domain, SOCKET_TYPES[type] | SOCK_CLOEXEC_NONBLOCK, protocol), 'socket', type);
}

/** Begins to connect; 0 when it is done at once, -1 with EINPROGRESS when it goes on. */
export function connect(fd: number, addr: Uint8Array, off: number, port: number): number {
  return connectCall(fd, base + ADDRESS_OFF, putSockaddr(scratch, ADDRESS_OFF, addr, off, port));
}

/** @param scope interface of a link-local IPv6 address. @throws SyscallError EADDRINUSE, EADDRNOTAVAIL, EACCES */
export function bind(fd: number, addr: Uint8Array, off: number, port: number, scope = 0): void {
  check(bindCall(fd, base + ADDRESS_OFF, putSockaddr(scratch, ADDRESS_OFF, addr, off, port, scope)), 'bind');
}

/** @throws SyscallError */
export function listen(fd: number, backlog: number): void {
  check(listenCall(fd, backlog), 'listen');
}

/** Accepts one connection, non-blocking; stores the peer's address. Returns -1 with EAGAIN when there is none. */
export function accept(fd: number, peerAddr: Uint8Array, off: number): number {
  view.setUint32(LENGTH_OFF, SOCKADDR_LEN, true);
  const accepted = accept4(fd, base + ADDRESS_OFF, base + LENGTH_OFF, SOCK_CLOEXEC_NONBLOCK);
  if (accepted >= 0) lastPeerPort = takeSockaddr(scratch, ADDRESS_OFF, peerAddr, off);
  return accepted;
}

let lastPeerPort = 0;
/** Port of the peer that the last {@link accept} told of. */
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

/** A process that has connected to a unix socket, as it was then. */
export interface UnixPeer {
  pid: number;
  uid: number;
  gid: number;
}

/** Who is at the other end of a unix socket (unix(7), SO_PEERCRED); undefined where the kernel does not tell. */
export function unixPeer(fd: number): UnixPeer | undefined {
  view.setUint32(LENGTH_OFF, UCRED_LEN, true);
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, base + ADDRESS_OFF, base + LENGTH_OFF) < 0) return undefined;
  return {
    pid: view.getInt32(ADDRESS_OFF, true),
    uid: view.getUint32(ADDRESS_OFF + 4, true),
    gid: view.getUint32(ADDRESS_OFF + 8, true),
  };
}

/** Reads from any descriptor. */
export function read(fd: number, buf: Uint8Array, off: number, len: number): number {
  return readCall(fd, addressIn(buf, off), len);
}

/** Writes to any descriptor. */
export function write(fd: number, buf: Uint8Array, off: number, len: number): number {
  return writeCall(fd, addressIn(buf, off), len);
}
