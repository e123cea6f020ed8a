/**
 * TAP devices: Ethernet frames of a network namespace through a file descriptor (Documentation/networking/tuntap.rst).
 *
 * With IFF_VNET_HDR and TUNSETOFFLOAD the kernel hands over whole TCP super-segments of up to 64 KiB without computing
 * their checksums, and takes such. That is what makes a userspace stack fast: one system call and 64 bytes of header
 * work move 64 KiB.
 */
import { closeSync, openSync } from 'node:fs';
import { cFunction, check } from './libc.ts';
import { addressIn, NativeMemory } from './memory.ts';

const ioctlPointer = cFunction('ioctl', 'int', ['int', 'ulong', '...']);
const fcntl = cFunction('fcntl', 'int', ['int', 'int', '...']);
const readCall = cFunction('read', 'int', ['int', 'int64', 'int64']);
const writevCall = cFunction('writev', 'int', ['int', 'int64', 'int']);

// Linux include/uapi/linux/if_tun.h
const TUNSETIFF = 0x400454ca;
const TUNSETOFFLOAD = 0x400454d0;
const TUNSETVNETHDRSZ = 0x400454d8;
const IFF_TAP = 0x0002;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;
const TUN_F_CSUM = 0x01;
const TUN_F_TSO4 = 0x02;
const TUN_F_TSO6 = 0x04;
const TUN_F_USO4 = 0x20;
const TUN_F_USO6 = 0x40;

/** Offloads to ask for, best first: UDP segmentation came with Linux 6.2. */
const OFFLOADS: readonly number[] = [
  TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_USO4 | TUN_F_USO6,
  TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6,
  TUN_F_CSUM,
  0,
];

const F_GETFL = 3;
const F_SETFL = 4;
const F_GETFD = 1;
const F_SETFD = 2;
const FD_CLOEXEC = 1;
const O_NONBLOCK = 0o4000;

/** Largest MTU of a TAP: 65535 less the Ethernet header (drivers/net/tun.c). */
export const TAP_MTU_MAX = 65521;

/** A TAP device that was opened. */
export interface Tap {
  /** Non-blocking. The device vanishes when it is closed. */
  readonly fd: number;
  readonly name: string;
  /** True when super-frames of TCP may be exchanged. */
  readonly segmentation: boolean;
  /** True when super-frames of UDP may be exchanged. */
  readonly udpSegmentation: boolean;
}

/**
 * Makes the TAP device `name` in the calling thread's network namespace.
 *
 * @param vnetHeaderLen length of the virtio_net_hdr before each frame: 10 or 12.
 * @param offload false: the kernel cuts segments and computes checksums itself.
 * @throws SyscallError EPERM without CAP_NET_ADMIN there, EBUSY when the name is taken, ENOENT without /dev/net/tun
 */
export function openTap(name: string, vnetHeaderLen: number, offload: boolean): Tap {
  const fd = openSync('/dev/net/tun', 'r+');
  try {
    const request = new NativeMemory(40); // struct ifreq
    request.cString(0, name.slice(0, 15));
    request.view.setUint16(16, IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, true);
    check(ioctlPointer(fd, TUNSETIFF, 'int64', request.address), 'ioctl TUNSETIFF', name);
    request.view.setInt32(0, vnetHeaderLen, true);
    check(ioctlPointer(fd, TUNSETVNETHDRSZ, 'int64', request.address), 'ioctl TUNSETVNETHDRSZ');
    const wanted = offload ? OFFLOADS : [0];
    const given = wanted.find((bits) => ioctlPointer(fd, TUNSETOFFLOAD, 'ulong', bits) === 0) ?? 0;
    const flags = check(fcntl(fd, F_GETFL, 'int', 0), 'fcntl F_GETFL');
    check(fcntl(fd, F_SETFL, 'int', flags | O_NONBLOCK), 'fcntl F_SETFL');
    const fdFlags = check(fcntl(fd, F_GETFD, 'int', 0), 'fcntl F_GETFD');
    check(fcntl(fd, F_SETFD, 'int', fdFlags | FD_CLOEXEC), 'fcntl F_SETFD');
    return {
      fd,
      name,
      segmentation: (given & TUN_F_TSO4) !== 0,
      udpSegmentation: (given & TUN_F_USO4) !== 0,
    };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** Reads one frame with its virtio_net_hdr: its length, or -1 with EAGAIN when there is none. */
export function readFrame(fd: number, buf: Uint8Array, off: number, len: number): number {
  return readCall(fd, addressIn(buf, off), len);
}

const iovec = new NativeMemory(32);

/** Writes one frame given in two pieces. Returns the length written or -1. */
export function writeFrame(
  fd: number,
  head: Uint8Array,
  headOff: number,
  headLen: number,
  body: Uint8Array | undefined,
  bodyOff: number,
  bodyLen: number,
): number {
  iovec.setPointer(0, addressIn(head, headOff));
  iovec.setPointer(8, headLen);
  if (body === undefined || bodyLen === 0) return writevCall(fd, iovec.address, 1);
  iovec.setPointer(16, addressIn(body, bodyOff));
  iovec.setPointer(24, bodyLen);
  return writevCall(fd, iovec.address, 2);
}
