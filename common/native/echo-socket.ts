/** Sockets of the kernel for ICMP echo (icmp(7), raw(7), packet filters of socket(7)). */
import { cFunction, check } from './libc.ts';
import { NativeMemory } from './memory.ts';
import { type Family, openSocket } from './socket.ts';
import { setInt } from './socket-options.ts';

const setsockopt = cFunction('setsockopt', 'int', ['int', 'int', 'int', 'int64', 'int']);

// Linux include/linux/socket.h, include/uapi/asm-generic/socket.h, include/uapi/linux/{in,in6,icmp,icmpv6}.h
const SOL_SOCKET = 1;
const SOL_ICMPV6 = 58;
const SOL_RAW = 255;
const SO_ATTACH_FILTER = 26;
const ICMP_FILTER = 1;
const ICMPV6_FILTER = 1;
const IPPROTO_ICMP = 1;
const IPPROTO_ICMPV6 = 58;
const ICMP_ECHO_REPLY = 0;
const ICMPV6_ECHO_REPLY = 129;

const scratch = new NativeMemory(64);
const { view, bytes, address: base } = scratch;

/** How an ICMP echo socket was opened. */
export interface EchoSocket {
  readonly fd: number;
  /** True for SOCK_RAW: identifier and checksum are ours, and IPv4 packets arrive with their IP header. */
  readonly raw: boolean;
}

/**
 * Opens a socket that sends echo requests and receives their replies: an unprivileged ping socket where
 * net.ipv4.ping_group_range allows it, else a raw one that a filter confines to replies with `ident`.
 *
 * @throws SyscallError EACCES or EPERM when neither is allowed.
 */
export function openEchoSocket(family: Family, ident: number): EchoSocket {
  const protocol = family === 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6;
  let fd: number;
  try {
    return { fd: openSocket(family, 'datagram', protocol), raw: false };
  } catch {
    fd = openSocket(family, 'raw', protocol);
  }
  if (family === 4) {
    // A set bit blocks the type (raw(7), ICMP_FILTER).
    setInt(fd, SOL_RAW, ICMP_FILTER, ~(1 << ICMP_ECHO_REPLY));
  } else {
    for (let i = 0; i < 8; i++) view.setUint32(4 * i, 0xffffffff, true);
    const word = 4 * (ICMPV6_ECHO_REPLY >> 5);
    view.setUint32(word, ~(1 << (ICMPV6_ECHO_REPLY & 31)) >>> 0, true);
    setsockopt(fd, SOL_ICMPV6, ICMPV6_FILTER, base, 32);
  }
  attachIdentFilter(fd, family, ident);
  return { fd, raw: true };
}

/** A classic BPF program (struct sock_filter) that passes only packets whose ICMP identifier is `ident`. */
function attachIdentFilter(fd: number, family: Family, ident: number): void {
  const LDX_IP_HEADER = 0xb1; // ldxb 4*([0]&0xf)
  const LD_HALF_INDEXED = 0x48; // ldh [x + k]
  const LD_HALF_ABSOLUTE = 0x28; // ldh [k]
  const JUMP_EQUAL = 0x15;
  const RETURN = 0x06;
  const program: [number, number, number, number][] =
    family === 4
      ? [
          [LDX_IP_HEADER, 0, 0, 0],
          [LD_HALF_INDEXED, 0, 0, 4],
        ]
      : [[LD_HALF_ABSOLUTE, 0, 0, 4]];
  program.push([JUMP_EQUAL, 0, 1, ident], [RETURN, 0, 0, 0xffffffff], [RETURN, 0, 0, 0]);
  const code = 16; // behind the struct sock_fprog
  program.forEach(([operation, jumpTrue, jumpFalse, k], index) => {
    const at = code + 8 * index;
    view.setUint16(at, operation, true);
    bytes[at + 2] = jumpTrue;
    bytes[at + 3] = jumpFalse;
    view.setUint32(at + 4, k >>> 0, true);
  });
  view.setUint16(0, program.length, true);
  scratch.setPointer(8, base + code);
  check(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, base, 16), 'setsockopt', 'SO_ATTACH_FILTER');
}
