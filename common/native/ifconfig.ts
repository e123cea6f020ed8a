/**
 * Network namespaces and the configuration of interfaces in them (netdevice(7), rtnetlink's older ioctl face: it needs
 * no parser and does all that a container's one interface wants).
 */
import { closeSync, openSync, writeFileSync } from 'node:fs';
import { inUserNamespace } from '../user-namespace.ts';
import { cFunction, check } from './libc.ts';
import { NativeMemory } from './memory.ts';

const ioctl = cFunction('ioctl', 'int', ['int', 'ulong', '...']);
const setns = cFunction('setns', 'int', ['int', 'int']);
const socketCall = cFunction('socket', 'int', ['int', 'int', 'int']);

// Linux include/uapi/linux/{sched,sockios,if,route,ipv6_route}.h
const CLONE_NEWNET = 0x40000000;
const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_DGRAM_CLOEXEC = 0o2000002;
const SIOCADDRT = 0x890b;
const SIOCGIFFLAGS = 0x8913;
const SIOCSIFFLAGS = 0x8914;
const SIOCSIFADDR = 0x8916;
const SIOCSIFNETMASK = 0x891c;
const SIOCSIFMTU = 0x8922;
const SIOCSIFHWADDR = 0x8924;
const SIOCGIFINDEX = 0x8933;
const SIOCSIFTXQLEN = 0x8943;
const CONGESTION_CONTROL = 'ipv4/tcp_congestion_control';
const IFF_UP = 1;
const RTF_UP = 1;
const RTF_GATEWAY = 2;
const ARPHRD_ETHER = 1;
/** Offset of the union in struct ifreq, after the name. */
const IFREQ_VALUE = 16;
const IFREQ_LEN = 40;

/** The thread could not come back from another network namespace, and must not go on there: let it end the thread. */
export class NamespaceLostError extends Error {
  override readonly name = 'NamespaceLostError';
  constructor() {
    super('the thread could not return to its own network namespace');
  }
}

function comeBack(home: number): void {
  if (setns(home, CLONE_NEWNET) < 0) throw new NamespaceLostError();
}

/** Moves the calling thread into the network namespace of a file, for good. @throws SyscallError as inNetworkNamespace */
export function enterNetworkNamespace(path: string): void {
  const target = openSync(path, 'r');
  try {
    check(setns(target, CLONE_NEWNET), 'setns', path);
  } finally {
    closeSync(target);
  }
}

/**
 * Runs `action` with the calling thread in the network namespace of the file `path` (`/proc/PID/ns/net`,
 * `/run/netns/NAME`). `action` must be synchronous.
 *
 * @throws SyscallError EPERM without CAP_SYS_ADMIN; ENOENT when the process has gone
 * @throws NamespaceLostError
 */
export function inNetworkNamespace<T>(path: string, action: () => T): T {
  const home = openSync('/proc/thread-self/ns/net', 'r');
  try {
    enterNetworkNamespace(path);
    try {
      return action();
    } finally {
      comeBack(home);
    }
  } finally {
    closeSync(home);
  }
}

/** RFC 3927, section 2.1. */
const LINK_LOCAL_PREFIX = 16;

/** How an interface is set up. */
export interface InterfaceConfig {
  name: string;
  mac: Uint8Array;
  mtuBytes: number;
  /** How many frames wait when the reader is slow. */
  txQueueLen: number;
  ipv4?: { address: string; prefixLength: number; gateway: string | undefined };
  /** Further IPv4 addresses of 169.254.0.0/16 (RFC 3927). */
  linkLocal?: string[];
  /** Of the default routes the one with the lowest metric is used; default: the number at the end of the name. */
  metric?: number;
  /** Settings of the namespace, by their path under /proc/sys, written last. A missing one is an error. */
  settings?: Record<string, string>;
  /** 16 bytes each. */
  ipv6?: { address: Uint8Array; prefixLength: number; gateway: Uint8Array | undefined };
}

function withSocket<T>(family: number, action: (fd: number) => T): T {
  const fd = check(socketCall(family, SOCK_DGRAM_CLOEXEC, 0), 'socket');
  try {
    return action(fd);
  } finally {
    closeSync(fd);
  }
}

function interfaceRequest(name: string): NativeMemory {
  const request = new NativeMemory(IFREQ_LEN);
  request.cString(0, name.slice(0, IFREQ_VALUE - 1));
  return request;
}

/** Writes a struct sockaddr_in at `off`. */
function putIpv4(memory: NativeMemory, off: number, dotted: string): void {
  memory.view.setUint16(off, AF_INET, true);
  memory.view.setUint16(off + 2, 0);
  dotted.split('.').forEach((part, index) => {
    memory.bytes[off + 4 + index] = Number(part);
  });
}

function prefixToMask(prefixLength: number): string {
  const mask = prefixLength === 0 ? 0 : (0xffffffff << (32 - prefixLength)) >>> 0;
  return [mask >>> 24, (mask >>> 16) & 255, (mask >>> 8) & 255, mask & 255].join('.');
}

function bringUp(fd: number, name: string): void {
  const request = interfaceRequest(name);
  check(ioctl(fd, SIOCGIFFLAGS, 'int64', request.address), 'ioctl SIOCGIFFLAGS', name);
  request.view.setUint16(IFREQ_VALUE, request.view.getUint16(IFREQ_VALUE, true) | IFF_UP, true);
  check(ioctl(fd, SIOCSIFFLAGS, 'int64', request.address), 'ioctl SIOCSIFFLAGS', name);
}

/**
 * Configures the loopback and one interface of the calling thread's network namespace: address, MTU, MAC, up, default
 * route. @throws SyscallError
 */
export function configureInterface(config: InterfaceConfig): void {
  const { name, ipv4, ipv6, metric = routeMetric(name) } = config;
  // Router solicitations and the like are only wanted where the network speaks IPv6.
  writeSetting(`ipv6/conf/${name}/disable_ipv6`, ipv6 ? '0' : '1');
  // The address is given, so nothing is to be made up by router advertisements, nor probed for.
  if (ipv6)
    for (const setting of ['accept_dad', 'accept_ra', 'autoconf'])
      writeSetting(`ipv6/conf/${name}/${setting}`, '0');
  // The wire has no losses but a full queue: the steadiest control fills it best, and one that paces (BBR) arms a timer for each
  // segment. A namespace may choose only what the host allows to everybody, which Reno always is.
  if (!writeSetting(CONGESTION_CONTROL, 'cubic')) writeSetting(CONGESTION_CONTROL, 'reno');
  withSocket(AF_INET, (fd) => {
    bringUp(fd, 'lo');
    const set = (request: number, label: string, fill: (memory: NativeMemory) => void): void => {
      const memory = interfaceRequest(name);
      fill(memory);
      check(ioctl(fd, request, 'int64', memory.address), `ioctl ${label}`, name);
    };
    set(SIOCSIFHWADDR, 'SIOCSIFHWADDR', ({ view, bytes }) => {
      view.setUint16(IFREQ_VALUE, ARPHRD_ETHER, true);
      bytes.set(config.mac.subarray(0, 6), IFREQ_VALUE + 2);
    });
    set(SIOCSIFMTU, 'SIOCSIFMTU', ({ view }) => view.setInt32(IFREQ_VALUE, config.mtuBytes, true));
    // For the machine's root only (net/core/dev_ioctl.c); others have the kernel's own length.
    if (!inUserNamespace)
      set(SIOCSIFTXQLEN, 'SIOCSIFTXQLEN', ({ view }) => view.setInt32(IFREQ_VALUE, config.txQueueLen, true));
    if (ipv4) {
      set(SIOCSIFADDR, 'SIOCSIFADDR', (memory) => putIpv4(memory, IFREQ_VALUE, ipv4.address));
      set(SIOCSIFNETMASK, 'SIOCSIFNETMASK', (memory) =>
        putIpv4(memory, IFREQ_VALUE, prefixToMask(ipv4.prefixLength)),
      );
    }
    bringUp(fd, name);
    if (ipv4?.gateway !== undefined) addDefaultRoute(fd, name, ipv4.gateway, metric);
    for (const [index, address] of (config.linkLocal ?? []).entries())
      addAlias(fd, `${name}:${index}`, address, LINK_LOCAL_PREFIX);
  });
  if (ipv6) configureIpv6(name, ipv6, metric);
  for (const [path, value] of Object.entries(config.settings ?? {}))
    writeFileSync(`/proc/sys/${path}`, value);
}

/** netdevice(7): an address under a label of its own. */
function addAlias(fd: number, label: string, address: string, prefixLength: number): void {
  const set = (request: number, name: string, dotted: string): void => {
    const memory = interfaceRequest(label);
    putIpv4(memory, IFREQ_VALUE, dotted);
    check(ioctl(fd, request, 'int64', memory.address), `ioctl ${name}`, label);
  };
  set(SIOCSIFADDR, 'SIOCSIFADDR', address);
  set(SIOCSIFNETMASK, 'SIOCSIFNETMASK', prefixToMask(prefixLength));
}

/** A guest on several networks goes out by its first one: each further interface's route is worth less. */
function routeMetric(name: string): number {
  return Number(/\d+$/.exec(name)?.[0] ?? 0);
}

/** struct rtentry, include/uapi/linux/route.h (LP64). Its metric counts from one. */
function addDefaultRoute(fd: number, name: string, gateway: string, metric: number): void {
  const route = new NativeMemory(120 + IFREQ_VALUE);
  putIpv4(route, 8, '0.0.0.0');
  putIpv4(route, 24, gateway);
  putIpv4(route, 40, '0.0.0.0');
  route.view.setUint16(56, RTF_UP | RTF_GATEWAY, true);
  route.view.setInt16(80, metric + 1, true);
  route.setPointer(88, route.cString(120, name));
  check(ioctl(fd, SIOCADDRT, 'int64', route.address), 'ioctl SIOCADDRT', gateway);
}

/** struct in6_ifreq and struct in6_rtmsg, include/uapi/linux/{ipv6,ipv6_route}.h. */
function configureIpv6(name: string, ipv6: NonNullable<InterfaceConfig['ipv6']>, metric: number): void {
  withSocket(AF_INET6, (fd) => {
    const request = interfaceRequest(name);
    check(ioctl(fd, SIOCGIFINDEX, 'int64', request.address), 'ioctl SIOCGIFINDEX', name);
    const index = request.view.getInt32(IFREQ_VALUE, true);
    const address = new NativeMemory(24);
    address.bytes.set(ipv6.address, 0);
    address.view.setUint32(16, ipv6.prefixLength, true);
    address.view.setInt32(20, index, true);
    check(ioctl(fd, SIOCSIFADDR, 'int64', address.address), 'ioctl SIOCSIFADDR', `${name} IPv6`);
    if (!ipv6.gateway) return;
    const route = new NativeMemory(80);
    route.bytes.set(ipv6.gateway, 32);
    route.view.setUint32(56, 1024 + metric, true);
    route.view.setUint32(72, RTF_UP | RTF_GATEWAY, true);
    route.view.setInt32(76, index, true);
    check(ioctl(fd, SIOCADDRT, 'int64', route.address), 'ioctl SIOCADDRT', `${name} IPv6`);
  });
}

/** Writes a setting of the calling thread's network namespace; false where the kernel has none such or forbids it. */
function writeSetting(name: string, value: string): boolean {
  try {
    writeFileSync(`/proc/sys/net/${name}`, value);
    return true;
  } catch {
    return false;
  }
}
