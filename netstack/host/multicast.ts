/**
 * Multicast groups of the host's networks: one socket per group for IPv4, one per interface for IPv6, whose link-local groups
 * are of an interface each. They are bound to the group's address, so that they take nothing from a program of the host that has
 * the same port. Which interfaces there are is looked up now and then: they come and go.
 *
 * What guests have sent to a group comes back to these sockets too, since other programs of the host are to hear it; it is
 * known by its source, an own address with the port of a guest's socket, and dropped.
 */
import { networkInterfaces } from 'node:os';
import { SyscallError } from '#common/errors';
import * as datagrams from '#common/native/datagrams';
import { EPOLLIN } from '#common/native/epoll';
import { errnoName } from '#common/native/libc';
import * as socket from '#common/native/socket';
import * as socketOptions from '#common/native/socket-options';
import type { DatagramSink, HostError, HostGroup } from '../flow/host.ts';
import { formatAddress, isMapped, parseAddress } from '../wire/address.ts';
import { hostError } from './errors.ts';
import type { Poller } from './poller.ts';

/** How long a list of interfaces is believed. */
const LIST_MS = 10_000;
/** Datagrams read from one socket in one turn of the loop. */
const DATAGRAMS_PER_TURN = 32;
const DATAGRAM_BYTES_MAX = 65_536;

const buffer = new Uint8Array(new ArrayBuffer(DATAGRAM_BYTES_MAX));
const received: datagrams.Received = { addr: new Uint8Array(16), port: 0, ttl: 0, trafficClass: 0 };

/** An interface on which a family's groups can be had. */
export interface GroupInterface {
  /** 16 bytes; for IPv6 the link-local one. */
  readonly address: Uint8Array;
  /** Index, for IPv6; 0 for IPv4. */
  readonly index: number;
}

/** The host's interfaces, and whose the datagrams on them are. */
export class HostNetworks {
  readonly #list: () => ReturnType<typeof networkInterfaces>;
  readonly #now: () => number;
  /** Ports of guests' sockets that have sent to groups, and how many sockets have them. */
  readonly #ports = new Map<number, number>();
  #known: { family: 4 | 6; entry: GroupInterface }[] = [];
  #own = new Set<string>();
  #listedAt = Number.NEGATIVE_INFINITY;

  /** @param list tests stand in for the system's. */
  constructor(now: () => number, list: () => ReturnType<typeof networkInterfaces> = networkInterfaces) {
    this.#now = now;
    this.#list = list;
  }

  #refresh(): void {
    if (this.#now() - this.#listedAt < LIST_MS) return;
    this.#listedAt = this.#now();
    const all = Object.values(this.#list()).flatMap((addresses) => addresses ?? []);
    this.#own = new Set(all.map(({ address }) => address));
    this.#known = [];
    for (const info of all) {
      const address = parseAddress(info.address);
      if (info.internal || !address) continue;
      if (info.family === 'IPv4') this.#known.push({ family: 4, entry: { address, index: 0 } });
      else if (info.scopeid > 0) this.#known.push({ family: 6, entry: { address, index: info.scopeid } });
    }
  }

  /** Interfaces with an address of the family (IPv6: a link-local one), but for loopback. */
  interfaces(family: 4 | 6): GroupInterface[] {
    this.#refresh();
    return this.#known.filter((known) => known.family === family).map(({ entry }) => entry);
  }

  /** A guest's socket with this port sends to groups from now on, until the function that is returned is called. */
  sender(port: number): () => void {
    this.#ports.set(port, (this.#ports.get(port) ?? 0) + 1);
    return () => {
      const left = this.#ports.get(port)! - 1;
      if (left > 0) this.#ports.set(port, left);
      else this.#ports.delete(port);
    };
  }

  /** True for a datagram that one of our guests has sent. */
  isOwn(addr: Uint8Array, port: number): boolean {
    if (!this.#ports.has(port)) return false;
    this.#refresh();
    return this.#own.has(formatAddress(addr, 0));
  }
}

/** Joins a group on all interfaces of the host. */
export function openNativeGroup(
  poller: Poller,
  networks: HostNetworks,
  addr: Uint8Array,
  off: number,
  port: number,
  sink: DatagramSink,
): HostGroup | HostError {
  const group = new NativeGroup(poller, networks, addr.slice(off, off + 16), port, sink);
  try {
    group.refresh();
    return group;
  } catch (error) {
    group.close();
    if (!(error instanceof SyscallError)) throw error;
    return hostError(error.code);
  }
}

class NativeGroup implements HostGroup {
  readonly #poller: Poller;
  readonly #networks: HostNetworks;
  readonly #addr: Uint8Array;
  readonly #family: 4 | 6;
  readonly #port: number;
  readonly #sink: DatagramSink;
  /** By interface index; all of IPv4 is at 0. */
  readonly #sockets = new Map<number, number>();
  #joined = new Set<string>();

  constructor(poller: Poller, networks: HostNetworks, addr: Uint8Array, port: number, sink: DatagramSink) {
    this.#poller = poller;
    this.#networks = networks;
    this.#addr = addr;
    this.#family = isMapped(addr, 0) ? 4 : 6;
    this.#port = port;
    this.#sink = sink;
  }

  /** @throws SyscallError when the group's port cannot be had */
  refresh(): void {
    const there = new Map(
      this.#networks.interfaces(this.#family).map((each) => [formatAddress(each.address, 0), each] as const),
    );
    const indexes = new Set([...there.values()].map(({ index }) => index));
    for (const [index, fd] of this.#sockets) if (!indexes.has(index)) this.#end(index, fd);
    // The kernel has left the group on an interface that is gone.
    for (const name of this.#joined) if (!there.has(name)) this.#joined.delete(name);
    for (const [name, { address, index }] of there) {
      const fd = this.#sockets.get(index) ?? this.#open(index);
      if (!this.#joined.has(name) && socketOptions.joinGroup(fd, this.#addr, address, index))
        this.#joined.add(name);
    }
  }

  #open(index: number): number {
    const fd = socket.openSocket(this.#family, 'datagram');
    try {
      socketOptions.setDatagramOptions(fd, this.#family);
      socketOptions.setReuseAddress(fd);
      socket.bind(fd, this.#addr, 0, this.#port, index);
      this.#poller.watch(fd, EPOLLIN, () => this.#read(fd));
    } catch (error) {
      socket.close(fd);
      throw error;
    }
    this.#sockets.set(index, fd);
    return fd;
  }

  #read(fd: number): void {
    for (let i = 0; i < DATAGRAMS_PER_TURN; i++) {
      const len = datagrams.receiveFrom(fd, buffer, 0, DATAGRAM_BYTES_MAX, received);
      if (len < 0) {
        if (errnoName(socket.socketErrno()) === 'EAGAIN') return;
        continue;
      }
      const { addr, port, ttl, trafficClass } = received;
      if (!this.#networks.isOwn(addr, port))
        this.#sink.datagram(buffer, 0, len, addr, 0, port, ttl, trafficClass);
    }
  }

  #end(index: number, fd: number): void {
    this.#sockets.delete(index);
    this.#poller.forget(fd);
    socket.close(fd);
  }

  close(): void {
    for (const [index, fd] of this.#sockets) this.#end(index, fd);
    this.#joined = new Set();
  }
}
