/**
 * Addresses of internet sockets. Outside they are 16 bytes at an offset, IPv4 in the mapped form ::ffff:a.b.c.d; a mapped
 * one becomes an AF_INET socket address, so one function serves both families.
 */
import type { NativeMemory } from './memory.ts';

// Linux include/linux/socket.h
export const AF_INET = 2;
export const AF_INET6 = 10;

/** Longest struct sockaddr of the internet families (sockaddr_in6). */
export const SOCKADDR_LEN = 28;

/** True for ::ffff:a.b.c.d. */
export function isMapped(addr: Uint8Array, off: number): boolean {
  for (let i = 0; i < 10; i++) if (addr[off + i] !== 0) return false;
  return addr[off + 10] === 0xff && addr[off + 11] === 0xff;
}

/** Writes a socket address at `at` of the memory and returns its length. */
export function putSockaddr(
  { view, bytes }: NativeMemory,
  at: number,
  addr: Uint8Array,
  off: number,
  port: number,
  scope = 0,
): number {
  if (isMapped(addr, off)) {
    view.setUint16(at, AF_INET, true);
    view.setUint16(at + 2, port);
    for (let i = 0; i < 4; i++) bytes[at + 4 + i] = addr[off + 12 + i]!;
    view.setUint32(at + 8, 0);
    view.setUint32(at + 12, 0);
    return 16;
  }
  view.setUint16(at, AF_INET6, true);
  view.setUint16(at + 2, port);
  view.setUint32(at + 4, 0);
  for (let i = 0; i < 16; i++) bytes[at + 8 + i] = addr[off + i]!;
  view.setUint32(at + 24, scope, true);
  return SOCKADDR_LEN;
}

/** Reads the socket address at `at` of the memory into 16 bytes and returns its port, or -1 if there is none. */
export function takeSockaddr(
  { view, bytes }: NativeMemory,
  at: number,
  addr: Uint8Array,
  off: number,
): number {
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
