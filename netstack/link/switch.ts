/**
 * A learning Ethernet switch in memory: what docker0 is to docker, without the kernel's bridge. One per network; the
 * stack sits on it as one of its ports, the uplink.
 *
 * Frames pass as they come, super-frames and incomplete checksums included; nothing is copied or queued. A port whose
 * reader does not keep up loses frames and only its own: every send is non-blocking.
 *
 * Ports of containers are guarded: such a guest may only send with the MAC and the addresses it was given, so it can
 * neither take its neighbour's traffic by ARP nor speak for it. Their MACs are not learnt but known, hence frames for
 * unknown addresses are never shown to them. Ports of machines that choose their own MAC (VMs) learn, with ageing and
 * a bound per port.
 */
import { get16, get32, getMac, isLinkLocalIpv6, isUnspecifiedIpv6, sameAddress } from '../wire/address.ts';
import { IPV6_LEN, IPV6_SRC, NEXT_ICMPV6 } from '../wire/ipv6.ts';
import { NDP_NEIGHBOR_ADVERTISEMENT } from '../wire/ndp.ts';
import type { FrameSink, Link } from './link.ts';
import { VNET_HDR_LEN } from './link.ts';

/** Ethernet header and its fields (IEEE 802.3). */
const ETHERNET_HEADER_LEN = 14;
const ETHERTYPE_IPV4 = 0x0800;
const ETHERTYPE_ARP = 0x0806;
const ETHERTYPE_IPV6 = 0x86dd;

/** Learnt addresses are forgotten after this time of silence (IEEE 802.1Q section 8.8.3 recommends 300 s). */
const AGEING_MS = 300_000;
/** Learnt addresses of one port. Beyond, the port's frames pass but are not learnt. */
const LEARNT_PER_PORT_MAX = 256;
/** Broadcast, multicast and unknown frames that one port may have copied to others: rate and burst. */
const FLOODS_PER_SECOND = 2000;
const FLOODS_BURST = 2000;

/** The addresses that a guarded guest may send from. */
export interface SourceGuard {
  /** As a number. */
  readonly mac: number;
  /** IPv4 address as a number, or undefined for none. */
  readonly ipv4: number | undefined;
  /** Further ones (169.254.0.0/16). */
  readonly linkLocal?: readonly number[];
  /** 16 bytes, or undefined: the guest speaks no IPv6. Link-local addresses and :: pass besides it. */
  readonly ipv6: Uint8Array | undefined;
}

/** What a port has counted. */
export interface PortCounters {
  framesIn: number;
  bytesIn: number;
  framesOut: number;
  bytesOut: number;
  /** Frames that the other side did not take. */
  dropped: number;
  /** Frames with a source that is not the guest's. */
  spoofed: number;
  /** Frames longer than the port's MTU. */
  tooBig: number;
  /** Frames not copied because the flood limit was reached. */
  floodLimited: number;
}

/** Sees every frame that a port or the stack sends, with its virtio_net_hdr, before anything is refused. */
export interface FrameObserver {
  frame(
    head: Uint8Array,
    headOff: number,
    headLen: number,
    body: Uint8Array | undefined,
    bodyOff: number,
    bodyLen: number,
  ): void;
}

/** A port to which a guest is attached. */
export interface SwitchPort {
  readonly counters: PortCounters;
  /** Detaches the link and closes it. */
  close(): void;
}

interface Entry {
  port: Port;
  /** Infinity for addresses that are known, not learnt. */
  seenMs: number;
}

/** A learning switch. `now` gives monotonic milliseconds. */
export class Switch {
  /** The stack's end of the uplink. */
  readonly uplink: Link;
  readonly #now: () => number;
  readonly #isolated: boolean;
  readonly #stationChanged: (mac: number, present: boolean) => void;
  readonly #ports: Port[] = [];
  readonly #table = new Map<number, Entry>();
  readonly #uplinkPort: Port;
  readonly #retired: PortCounters = noCounters();
  readonly #observers: FrameObserver[] = [];
  #toStack: FrameSink = { frame() {} };

  /**
   * @param uplinkMac the stack's MAC as a number. @param mtuBytes the stack's MTU.
   * @param isolated keeps the guests apart: what one sends goes to the stack or nowhere.
   * @param stationChanged told of each MAC address that is learnt, and when it is forgotten.
   */
  constructor(options: {
    uplinkMac: number;
    mtuBytes: number;
    isolated?: boolean;
    now: () => number;
    stationChanged?: (mac: number, present: boolean) => void;
  }) {
    this.#now = options.now;
    this.#isolated = options.isolated ?? false;
    this.#stationChanged = options.stationChanged ?? (() => {});
    const inbound: Link = {
      mtuBytes: options.mtuBytes,
      offload: true,
      // The stack's receive side wants a frame in one piece, which all but its own frames are.
      send: (head, headOff, headLen) => {
        this.#toStack.frame(head, headOff, headOff + headLen);
        return true;
      },
      flush() {},
      start() {},
      close() {},
    };
    this.#uplinkPort = new Port(inbound, undefined);
    this.#ports.push(this.#uplinkPort);
    this.#table.set(options.uplinkMac, {
      port: this.#uplinkPort,
      seenMs: Number.POSITIVE_INFINITY,
    });
    this.uplink = {
      mtuBytes: options.mtuBytes,
      offload: true,
      send: (head, headOff, headLen, body, bodyOff, bodyLen) => {
        for (const observer of this.#observers)
          observer.frame(head, headOff, headLen, body, bodyOff, bodyLen);
        return this.#forward(this.#uplinkPort, head, headOff, headLen, body, bodyOff, bodyLen);
      },
      flush: () => this.flush(),
      start: (sink) => {
        this.#toStack = sink;
      },
      close: () => this.close(),
    };
  }

  /** Shows `observer` all frames from now on, until the function that is returned is called. */
  observe(observer: FrameObserver): () => void {
    this.#observers.push(observer);
    return () => {
      const index = this.#observers.indexOf(observer);
      if (index >= 0) this.#observers.splice(index, 1);
    };
  }

  /** Attaches a guest's link; a guard confines it to its own addresses. */
  addPort(link: Link, guard: SourceGuard | undefined): SwitchPort {
    const port = new Port(link, guard);
    this.#ports.push(port);
    if (guard) this.#table.set(guard.mac, { port, seenMs: Number.POSITIVE_INFINITY });
    link.start({ frame: (buf, off, end) => this.#receive(port, buf, off, end) });
    port.detach = () => this.#remove(port);
    return port;
  }

  #remove(port: Port): void {
    const index = this.#ports.indexOf(port);
    if (index < 0) return;
    this.#ports.splice(index, 1);
    for (const [key, entry] of this.#table) if (entry.port === port) this.#forget(key, entry);
    addCounters(this.#retired, port.counters);
    port.link.close();
  }

  #receive(port: Port, buf: Uint8Array, off: number, end: number): void {
    const frame = off + VNET_HDR_LEN;
    if (end < frame + ETHERNET_HEADER_LEN) return;
    for (const observer of this.#observers) observer.frame(buf, off, end - off, undefined, 0, 0);
    port.counters.framesIn++;
    port.counters.bytesIn += end - frame;
    if (port.guard) {
      if (!sourceAllowed(port.guard, buf, frame, end)) {
        port.counters.spoofed++;
        return;
      }
    } else if (!this.#learn(port, getMac(buf, frame + 6), buf[frame + 6]!)) {
      port.counters.spoofed++;
      return;
    }
    this.#forward(port, buf, off, end - off, undefined, 0, 0);
  }

  /** Returns false when the source belongs to a guarded port or to the stack. */
  #learn(port: Port, key: number, firstByte: number): boolean {
    if (firstByte & 1) return false; // A group address is no source (IEEE 802.3 section 3.2.3).
    const entry = this.#table.get(key);
    const now = this.#now();
    if (entry) {
      if (entry.seenMs === Number.POSITIVE_INFINITY) return entry.port === port;
      if (entry.port !== port) {
        if (port.learnt >= LEARNT_PER_PORT_MAX) return true;
        entry.port.learnt--;
        port.learnt++;
        entry.port = port;
      }
      entry.seenMs = now;
      return true;
    }
    if (port.learnt >= LEARNT_PER_PORT_MAX) this.#expire(now);
    if (port.learnt < LEARNT_PER_PORT_MAX) {
      this.#table.set(key, { port, seenMs: now });
      port.learnt++;
      this.#stationChanged(key, true);
    }
    return true;
  }

  #expire(now: number): void {
    for (const [key, entry] of this.#table) {
      if (now - entry.seenMs > AGEING_MS) this.#forget(key, entry);
    }
  }

  #forget(key: number, entry: Entry): void {
    this.#table.delete(key);
    if (entry.seenMs === Number.POSITIVE_INFINITY) return;
    entry.port.learnt--;
    this.#stationChanged(key, false);
  }

  #forward(
    from: Port,
    head: Uint8Array,
    headOff: number,
    headLen: number,
    body: Uint8Array | undefined,
    bodyOff: number,
    bodyLen: number,
  ): boolean {
    const destination = headOff + VNET_HDR_LEN;
    if ((head[destination]! & 1) === 0) {
      const key = getMac(head, destination);
      const entry = this.#table.get(key);
      if (entry && this.#now() - entry.seenMs <= AGEING_MS)
        return (
          entry.port !== from &&
          this.#mayReach(from, entry.port) &&
          entry.port.send(head, headOff, headLen, body, bodyOff, bodyLen)
        );
      if (entry) this.#forget(key, entry);
    }
    const known = (head[destination]! & 1) === 0;
    if (from !== this.#uplinkPort && !from.mayFlood(this.#now())) {
      from.counters.floodLimited++;
      return false;
    }
    let taken = false;
    for (let i = 0; i < this.#ports.length; i++) {
      const port = this.#ports[i]!;
      // The addresses of guarded guests and of the stack are known: an unknown one is not theirs.
      if (
        port === from ||
        !this.#mayReach(from, port) ||
        (known && (port.guard || port === this.#uplinkPort))
      )
        continue;
      if (port.send(head, headOff, headLen, body, bodyOff, bodyLen)) taken = true;
    }
    return taken;
  }

  #mayReach(from: Port, to: Port): boolean {
    return !this.#isolated || from === this.#uplinkPort || to === this.#uplinkPort;
  }

  /** Flushes every port that was written to. */
  flush(): void {
    for (let i = 0; i < this.#ports.length; i++) this.#ports[i]!.flush();
  }

  /** The counters of all guests' ports, those that have left included. */
  counters(): PortCounters {
    const sums = { ...this.#retired };
    for (const port of this.#ports) if (port !== this.#uplinkPort) addCounters(sums, port.counters);
    return sums;
  }

  /** MAC addresses that are known, with the number of their port; 0 is the uplink. */
  *addresses(): Iterable<{ mac: number; port: number }> {
    for (const [mac, entry] of this.#table) yield { mac, port: this.#ports.indexOf(entry.port) };
  }

  close(): void {
    for (const port of this.#ports.slice(1)) this.#remove(port);
  }
}

function noCounters(): PortCounters {
  return {
    framesIn: 0,
    bytesIn: 0,
    framesOut: 0,
    bytesOut: 0,
    dropped: 0,
    spoofed: 0,
    tooBig: 0,
    floodLimited: 0,
  };
}

function addCounters(to: PortCounters, from: PortCounters): void {
  for (const name of Object.keys(to) as (keyof PortCounters)[]) to[name] += from[name];
}

class Port implements SwitchPort {
  readonly link: Link;
  readonly guard: SourceGuard | undefined;
  readonly counters: PortCounters = noCounters();
  detach: () => void = () => {};
  learnt = 0;
  #dirty = false;
  #tokens = FLOODS_BURST;
  #refilledMs = 0;

  constructor(link: Link, guard: SourceGuard | undefined) {
    this.link = link;
    this.guard = guard;
  }

  mayFlood(now: number): boolean {
    this.#tokens = Math.min(
      FLOODS_BURST,
      this.#tokens + ((now - this.#refilledMs) * FLOODS_PER_SECOND) / 1000,
    );
    this.#refilledMs = now;
    if (this.#tokens < 1) return false;
    this.#tokens--;
    return true;
  }

  send(
    head: Uint8Array,
    headOff: number,
    headLen: number,
    body: Uint8Array | undefined,
    bodyOff: number,
    bodyLen: number,
  ): boolean {
    const frameLen = headLen + bodyLen - VNET_HDR_LEN;
    const segmentLen = head[headOff + 4]! | (head[headOff + 5]! << 8);
    if (segmentLen === 0 && frameLen - ETHERNET_HEADER_LEN > this.link.mtuBytes) {
      this.counters.tooBig++;
      return false;
    }
    if (!this.link.send(head, headOff, headLen, body, bodyOff, bodyLen)) {
      this.counters.dropped++;
      return false;
    }
    this.counters.framesOut++;
    this.counters.bytesOut += frameLen;
    this.#dirty = true;
    return true;
  }

  flush(): void {
    if (!this.#dirty) return;
    this.#dirty = false;
    this.link.flush();
  }

  close(): void {
    this.detach();
  }
}

/** Checks Ethernet, ARP, IPv4 and IPv6 sources of a frame of a guarded guest. */
function sourceAllowed(guard: SourceGuard, buf: Uint8Array, frame: number, end: number): boolean {
  if (getMac(buf, frame + 6) !== guard.mac) return false;
  const payload = frame + ETHERNET_HEADER_LEN;
  switch (get16(buf, frame + 12)) {
    case ETHERTYPE_ARP: {
      // RFC 826 for Ethernet and IPv4: sender's hardware address at 8, protocol address at 14.
      if (end < payload + 28) return false;
      if (getMac(buf, payload + 8) !== guard.mac) return false;
      return ipv4Allowed(guard, buf, payload + 14);
    }
    case ETHERTYPE_IPV4:
      return end >= payload + 20 && ipv4Allowed(guard, buf, payload + 12);
    case ETHERTYPE_IPV6:
      return end >= payload + IPV6_LEN && ipv6Allowed(guard, buf, payload + IPV6_SRC, end);
    default:
      return false;
  }
}

function ipv4Allowed(guard: SourceGuard, buf: Uint8Array, off: number): boolean {
  const source = get32(buf, off);
  // 0.0.0.0: address probes (RFC 5227) and DHCP.
  return source === 0 || source === guard.ipv4 || guard.linkLocal?.includes(source) === true;
}

/** A neighbour advertisement (RFC 4861 section 4.4) speaks of the guest's own address, as an ARP packet does. */
function advertisesOwn(guard: SourceGuard, buf: Uint8Array, packet: number, end: number): boolean {
  const icmp = packet + IPV6_LEN;
  if (buf[packet + 6] !== NEXT_ICMPV6 || end < icmp + 24 || buf[icmp] !== NDP_NEIGHBOR_ADVERTISEMENT)
    return true;
  return isLinkLocalIpv6(buf, icmp + 8) || sameAddress(buf, icmp + 8, guard.ipv6!, 0);
}

function ipv6Allowed(guard: SourceGuard, buf: Uint8Array, off: number, end: number): boolean {
  if (!guard.ipv6 || !advertisesOwn(guard, buf, off - IPV6_SRC, end)) return false;
  return isLinkLocalIpv6(buf, off) || isUnspecifiedIpv6(buf, off) || sameAddress(buf, off, guard.ipv6, 0);
}
