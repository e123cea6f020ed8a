/**
 * What may be set on a socket: socket(7), ip(7), ipv6(7), tcp(7). What cannot be set is left as it is, unless said otherwise: an
 * option is a wish about a connection that works without it.
 */
import { cFunction, check } from './libc.ts';
import { NativeMemory } from './memory.ts';
import { type Family, isMapped } from './socket.ts';

const setsockopt = cFunction('setsockopt', 'int', ['int', 'int', 'int', 'int64', 'int']);

// Linux include/uapi/asm-generic/socket.h, include/uapi/linux/{in,in6,tcp}.h
const SOL_IP = 0;
const SOL_SOCKET = 1;
const SOL_TCP = 6;
const SOL_IPV6 = 41;
const SO_REUSEADDR = 2;
const SO_BROADCAST = 6;
const SO_SNDBUF = 7;
const SO_RCVBUF = 8;
const SO_LINGER = 13;
const SO_BINDTODEVICE = 25;
const SO_SNDBUFFORCE = 32;
const SO_RCVBUFFORCE = 33;
const IP_TOS = 1;
const IP_TTL = 2;
const IP_RECVERR = 11;
const IP_RECVTTL = 12;
const IP_RECVTOS = 13;
const IP_MULTICAST_IF = 32;
const IP_ADD_MEMBERSHIP = 35;
const IPV6_UNICAST_HOPS = 16;
const IPV6_MULTICAST_IF = 17;
const IPV6_JOIN_GROUP = 20;
const IPV6_RECVERR = 25;
const IPV6_V6ONLY = 26;
const IPV6_RECVHOPLIMIT = 51;
const IPV6_RECVTCLASS = 66;
const IPV6_TCLASS = 67;
const TCP_NODELAY = 1;
const TCP_CONGESTION = 13;

/** The longest value: an IPv6 membership. */
const scratch = new NativeMemory(64);
const { view, bytes, address: base } = scratch;

/** Sets an option that is a number. Returns -1 when the kernel does not take it. */
export function setInt(fd: number, level: number, option: number, value: number): number {
  view.setInt32(0, value, true);
  return setsockopt(fd, level, option, base, 4);
}

/** Makes the next close of a stream send a RST and drop what is queued (SO_LINGER with no time). */
export function resetOnClose(fd: number): void {
  view.setInt32(0, 1, true);
  view.setInt32(4, 0, true);
  setsockopt(fd, SOL_SOCKET, SO_LINGER, base, 8);
}

/** Sends small writes at once: the guest's stack has done Nagle's work already. */
export function setNoDelay(fd: number): void {
  setInt(fd, SOL_TCP, TCP_NODELAY, 1);
}

/** Chooses the congestion control of a stream, if the kernel has one of this name. */
export function setCongestionControl(fd: number, name: string): void {
  scratch.cString(0, name);
  setsockopt(fd, SOL_TCP, TCP_CONGESTION, base, name.length);
}

/** Lets a listener take a port whose old connections linger in TIME_WAIT. */
export function setReuseAddress(fd: number): void {
  setInt(fd, SOL_SOCKET, SO_REUSEADDR, 1);
}

/** Keeps an IPv6 socket from also taking the port of IPv4. */
export function setIpv6Only(fd: number): void {
  setInt(fd, SOL_IPV6, IPV6_V6ONLY, 1);
}

/** Sends and receives by one interface alone (socket(7), SO_BINDTODEVICE). */
export function bindToDevice(fd: number, name: string): void {
  scratch.cString(0, name);
  check(setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, base, name.length), 'bind to device', name);
}

/** Prepares a datagram or raw socket: ICMP errors, TTLs and traffic classes are told, broadcasts may be sent. */
export function setDatagramOptions(fd: number, family: Family): void {
  if (family === 4) {
    setInt(fd, SOL_IP, IP_RECVERR, 1);
    setInt(fd, SOL_IP, IP_RECVTTL, 1);
    setInt(fd, SOL_IP, IP_RECVTOS, 1);
    setInt(fd, SOL_SOCKET, SO_BROADCAST, 1);
  } else {
    setInt(fd, SOL_IPV6, IPV6_V6ONLY, 1);
    setInt(fd, SOL_IPV6, IPV6_RECVERR, 1);
    setInt(fd, SOL_IPV6, IPV6_RECVHOPLIMIT, 1);
    setInt(fd, SOL_IPV6, IPV6_RECVTCLASS, 1);
  }
}

/**
 * Tells ICMP errors of a stream at once instead of after the last retry, and queues them for {@link receiveError}. Wanted
 * while connecting only: an established connection must survive such errors (RFC 1122 section 4.2.3.9).
 */
export function setErrorQueue(fd: number, family: Family, on: boolean): void {
  if (family === 4) setInt(fd, SOL_IP, IP_RECVERR, on ? 1 : 0);
  else setInt(fd, SOL_IPV6, IPV6_RECVERR, on ? 1 : 0);
}

/** Sets the TTL or hop limit of what is sent from now on; -1 takes the host's default. */
export function setTtl(fd: number, family: Family, ttl: number): void {
  if (family === 4) setInt(fd, SOL_IP, IP_TTL, ttl);
  else setInt(fd, SOL_IPV6, IPV6_UNICAST_HOPS, ttl);
}

/**
 * Sets differentiated services and ECN (RFC 2474, RFC 3168) of what is sent from now on. A stream's ECN bits stay the
 * kernel's own.
 */
export function setTrafficClass(fd: number, family: Family, trafficClass: number): void {
  if (family === 4) setInt(fd, SOL_IP, IP_TOS, trafficClass);
  else setInt(fd, SOL_IPV6, IPV6_TCLASS, trafficClass);
}

/**
 * Joins a multicast group on one interface: the one with this IPv4 address, or with this index for IPv6. False when it
 * cannot be (no multicast there, the system's limit of memberships).
 */
export function joinGroup(fd: number, group: Uint8Array, address: Uint8Array, index: number): boolean {
  if (isMapped(group, 0)) {
    bytes.set(group.subarray(12), 0);
    bytes.set(address.subarray(12), 4);
    return setsockopt(fd, SOL_IP, IP_ADD_MEMBERSHIP, base, 8) === 0;
  }
  bytes.set(group, 0);
  view.setUint32(16, index, true);
  return setsockopt(fd, SOL_IPV6, IPV6_JOIN_GROUP, base, 20) === 0;
}

/** Chooses the interface by which multicast goes out from now on, as in {@link joinGroup}. */
export function setGroupInterface(fd: number, family: Family, address: Uint8Array, index: number): void {
  if (family === 6) {
    setInt(fd, SOL_IPV6, IPV6_MULTICAST_IF, index);
    return;
  }
  bytes.set(address.subarray(12), 0);
  setsockopt(fd, SOL_IP, IP_MULTICAST_IF, base, 4);
}

/** Asks for a send buffer of this size; the kernel's maximum holds (SO_SNDBUFFORCE passes it for root). */
export function setSendBuffer(fd: number, sendBytes: number): void {
  if (setInt(fd, SOL_SOCKET, SO_SNDBUFFORCE, sendBytes) < 0) setInt(fd, SOL_SOCKET, SO_SNDBUF, sendBytes);
}

/** Asks for a receive buffer of this size, as {@link setSendBuffer} does. */
export function setReceiveBuffer(fd: number, receiveBytes: number): void {
  if (setInt(fd, SOL_SOCKET, SO_RCVBUFFORCE, receiveBytes) < 0)
    setInt(fd, SOL_SOCKET, SO_RCVBUF, receiveBytes);
}

/** Asks for socket buffers of these sizes, as {@link setSendBuffer} does. */
export function setBuffers(fd: number, sendBytes: number, receiveBytes: number): void {
  setSendBuffer(fd, sendBytes);
  setReceiveBuffer(fd, receiveBytes);
}
