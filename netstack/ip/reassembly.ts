/**
 * Reassembly of fragments of both families.
 *
 * Fragments are copied into a buffer per datagram, at their places, behind a header: the result is a packet like any other.
 * Any overlap gives up the whole datagram (RFC 5722, and for IPv4 by the same reason, RFC 1858), except that an exact copy of a
 * fragment is a duplicate by the network and is skipped. Memory is bounded, in all and per source, by giving up the oldest.
 */
import type { Rng } from '#common/rng';
import { type Aged, AgeList } from '../flow/age-list.ts';
import { type Entry, keyAddress, NO_ADDRESS, Table } from '../flow/table.ts';
import {
  FRAGMENTS_PER_DATAGRAM,
  REASSEMBLIES_MAX,
  REASSEMBLY_BYTES_MAX,
  REASSEMBLY_BYTES_PER_SOURCE,
} from '../limits.ts';
import { IPV4_BYTES_MAX, IPV4_LEN } from '../wire/ipv4.ts';
import type { StackCounters } from './counters.ts';
import type { Packet } from './packet.ts';

/** RFC 8200 section 4.5 says 60 s for IPv6; RFC 1122 section 3.3.2 wants 60 to 120 s, Linux takes 30. One serves both. */
export const REASSEMBLY_MS = 60_000;
/** Room for the header before the payload: Ethernet is not kept, IPv6's 40 bytes are the longest header kept. */
const HEADER_ROOM = 64;
const NO_BYTES: Uint8Array = new Uint8Array(0);
const BUFFER_BYTES_MIN = 2048;
/** Smallest buffers kept for reuse: a flood of first fragments needs one after the other. */
const SPARE_BUFFERS_MAX = 64;

/** What a fragment says about itself. */
export interface FragmentInfo {
  ident: number;
  /** Place of the payload in the datagram. */
  offset: number;
  more: boolean;
  protocol: number;
}

/** A source of fragments, and its unfinished datagrams. */
class Source implements Entry {
  readonly near: Uint8Array;
  readonly nearPort = 0;
  readonly far: Uint8Array = NO_ADDRESS;
  readonly farPort = 0;
  nextInBucket: Entry | undefined;
  bytes = 0;
  readonly ages: AgeList<SourceMember> = new AgeList();

  constructor(addr: Uint8Array) {
    this.near = keyAddress(addr, 0);
  }
}

/** The place of a datagram in the list of its source; its own links are for the list of all. */
class SourceMember implements Aged {
  older: Aged | undefined;
  newer: Aged | undefined;
  readonly assembly: Assembly;

  constructor(assembly: Assembly) {
    this.assembly = assembly;
  }
}

/** A datagram being put together. */
export class Assembly implements Entry, Aged {
  readonly near: Uint8Array;
  readonly nearPort: number;
  readonly far: Uint8Array;
  readonly farPort: number;
  nextInBucket: Entry | undefined;
  older: Aged | undefined;
  newer: Aged | undefined;
  readonly ident: number;
  readonly protocol: number;
  readonly dueAt: number;
  readonly source: Source;
  readonly member: SourceMember;
  /** Header room, then payload. */
  buf: Uint8Array;
  /** Received ranges in order, as start and end. */
  readonly ranges: number[] = [];
  /** Length of the payload, -1 before the last fragment has come. */
  len = -1;
  /** Station that sent the first fragment, and whether it was sent to a group: for the error after a time-out. */
  srcMac = 0;
  group = false;
  /** Differentiated services of the first that came, ECN of all. */
  trafficClass: number;
  /** The given-up datagram's later fragments are dropped until it times out (RFC 5722 section 4). */
  poisoned = false;

  constructor(packet: Packet, info: FragmentInfo, now: number, source: Source, buf: Uint8Array) {
    this.source = source;
    this.member = new SourceMember(this);
    this.buf = buf;
    this.near = keyAddress(packet.src, 0);
    this.far = keyAddress(packet.dst, 0);
    this.nearPort = info.ident & 0xffff;
    this.farPort = keyPort(info, packet);
    this.ident = info.ident;
    this.protocol = info.protocol;
    this.trafficClass = packet.trafficClass;
    this.dueAt = now + REASSEMBLY_MS;
  }

  get payloadOff(): number {
    return HEADER_ROOM;
  }

  get complete(): boolean {
    return this.ranges.length === 2 && this.ranges[0] === 0 && this.ranges[1] === this.len;
  }

  /** The first fragment is there: the sender can be told which datagram timed out. */
  get hasStart(): boolean {
    return this.ranges.length > 0 && this.ranges[0] === 0;
  }
}

/** The second half of the key: the rest of the identification, or the protocol, which IPv4 has in the key (RFC 791). */
function keyPort(info: FragmentInfo, packet: Packet): number {
  return packet.ipv4 ? info.protocol : info.ident >>> 16;
}

export class Reassembly {
  readonly #counters: StackCounters;
  readonly #table: Table<Assembly>;
  readonly #ages = new AgeList<Assembly>();
  readonly #sources: Table<Source>;
  readonly #spare: Uint8Array[] = [];
  /** The buffer of the datagram that was completed last: its taker is done with it when the next fragment comes. */
  #finished: Uint8Array | undefined;
  readonly #timedOut: (assembly: Assembly) => void;
  #bytes = 0;

  /** @param timedOut told of each datagram that was not completed in time. */
  constructor(rng: Rng, counters: StackCounters, timedOut: (assembly: Assembly) => void) {
    this.#table = new Table(rng);
    this.#sources = new Table(rng);
    this.#counters = counters;
    this.#timedOut = timedOut;
  }

  get size(): number {
    return this.#table.size;
  }

  /** Memory held. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Takes the fragment in hand; returns the assembly when it completes a datagram, which is then no longer kept. */
  add(now: number, packet: Packet, info: FragmentInfo): Assembly | undefined {
    this.#counters.ipFragmentsIn++;
    const len = packet.end - packet.payloadOff;
    const end = info.offset + len;
    const port = keyPort(info, packet);
    let assembly = this.#table.find(packet.src, 0, info.ident & 0xffff, packet.dst, 0, port);
    if (assembly?.poisoned) return undefined;
    // Fragments but the last are multiples of 8, none is empty or reaches beyond what a header can say.
    const most = packet.ipv4 ? IPV4_BYTES_MAX - IPV4_LEN : IPV4_BYTES_MAX;
    if (len === 0 || (info.more && (len & 7) !== 0) || end > most) {
      this.#counters.ipReassemblyRefused++;
      return undefined;
    }
    if (this.#finished) this.#recycle(this.#finished);
    this.#finished = undefined;
    assembly ??= this.#begin(now, packet, info);
    const fits = this.#mark(assembly, packet.trafficClass)
      ? this.#claim(assembly, info.offset, end, info.more)
      : 'refused';
    if (fits === 'duplicate') return undefined;
    if (fits === 'refused') {
      this.#poison(assembly);
      return undefined;
    }
    this.#grow(assembly, HEADER_ROOM + end);
    copyBytes(packet.buf, packet.payloadOff, assembly.buf, HEADER_ROOM + info.offset, len);
    if (info.offset === 0) {
      assembly.srcMac = packet.srcMac;
      assembly.group = packet.group;
    }
    if (!assembly.complete) {
      this.#makeRoom(assembly);
      return undefined;
    }
    this.#drop(assembly);
    this.#finished = assembly.buf;
    this.#counters.ipReassembled++;
    return assembly;
  }

  #begin(now: number, packet: Packet, info: FragmentInfo): Assembly {
    let source = this.#sources.find(packet.src, 0, 0);
    if (!source) {
      source = new Source(packet.src);
      this.#sources.add(source);
    }
    const buf = this.#spare.pop() ?? new Uint8Array(HEADER_ROOM + BUFFER_BYTES_MIN);
    const assembly = new Assembly(packet, info, now, source, buf);
    this.#table.add(assembly);
    this.#ages.add(assembly);
    source.ages.add(assembly.member);
    this.#charge(assembly, buf.length);
    return assembly;
  }

  #charge(assembly: Assembly, bytes: number): void {
    this.#bytes += bytes;
    assembly.source.bytes += bytes;
  }

  #recycle(buf: Uint8Array): void {
    if (buf.length === HEADER_ROOM + BUFFER_BYTES_MIN && this.#spare.length < SPARE_BUFFERS_MAX)
      this.#spare.push(buf);
  }

  poll(now: number): void {
    for (let oldest = this.#ages.oldest; oldest && oldest.dueAt <= now; oldest = this.#ages.oldest) {
      this.#drop(oldest);
      if (!oldest.poisoned) {
        this.#counters.ipReassemblyTimeouts++;
        this.#timedOut(oldest);
      }
      this.#recycle(oldest.buf);
    }
  }

  pollAt(): number {
    return this.#ages.oldest?.dueAt ?? Number.POSITIVE_INFINITY;
  }

  /**
   * RFC 3168 section 5.3: a congestion mark on one fragment is one on the datagram. False when others are of a transport that
   * knows no marks: such a datagram was lost to congestion.
   */
  #mark(assembly: Assembly, trafficClass: number): boolean {
    const [known, ecn] = [assembly.trafficClass & 3, trafficClass & 3];
    if (known === ecn) return true;
    const marked = known === 3 || ecn === 3;
    if (marked && (known === 0 || ecn === 0)) return false;
    assembly.trafficClass = (assembly.trafficClass & 0xfc) | (marked ? 3 : 0);
    return true;
  }

  /** Puts a range into the list if it overlaps none. */
  #claim(assembly: Assembly, start: number, end: number, more: boolean): 'new' | 'duplicate' | 'refused' {
    const { ranges } = assembly;
    if (assembly.len >= 0 && (end > assembly.len || (!more && end !== assembly.len))) return 'refused';
    let at = 0;
    while (at < ranges.length && ranges[at + 1]! <= start) at += 2;
    const overlaps = at < ranges.length && ranges[at]! < end;
    // Ranges are merged, so an exact copy can only be told by lying within one: it changes nothing, as it is not written.
    if (overlaps) return ranges[at]! <= start && end <= ranges[at + 1]! ? 'duplicate' : 'refused';
    if (!more) {
      if (ranges.length > 0 && ranges[ranges.length - 1]! > end) return 'refused';
      assembly.len = end;
    }
    const joinsLeft = at > 0 && ranges[at - 1] === start;
    const joinsRight = at < ranges.length && ranges[at] === end;
    if (joinsLeft && joinsRight) ranges.splice(at - 1, 2);
    else if (joinsLeft) ranges[at - 1] = end;
    else if (joinsRight) ranges[at] = start;
    else if (ranges.length >= 2 * FRAGMENTS_PER_DATAGRAM) return 'refused';
    else ranges.splice(at, 0, start, end);
    return 'new';
  }

  #grow(assembly: Assembly, bytes: number): void {
    if (bytes <= assembly.buf.length) return;
    let size = assembly.buf.length;
    while (size < bytes) size *= 2;
    const grown = new Uint8Array(Math.min(size, HEADER_ROOM + IPV4_BYTES_MAX + 1));
    grown.set(assembly.buf);
    this.#charge(assembly, grown.length - assembly.buf.length);
    this.#recycle(assembly.buf);
    assembly.buf = grown;
  }

  /** Keeps the limits by giving up the oldest: of the same source first, then of all. */
  #makeRoom({ source }: Assembly): void {
    if (source.bytes > REASSEMBLY_BYTES_PER_SOURCE) this.#evict(source.ages.oldest!.assembly);
    while (this.#ages.oldest && (this.#bytes > REASSEMBLY_BYTES_MAX || this.#ages.size > REASSEMBLIES_MAX))
      this.#evict(this.#ages.oldest);
  }

  #evict(assembly: Assembly): void {
    this.#counters.ipReassemblyEvicted++;
    this.#drop(assembly);
    this.#recycle(assembly.buf);
  }

  #poison(assembly: Assembly): void {
    this.#counters.ipReassemblyRefused++;
    this.#charge(assembly, -assembly.buf.length);
    this.#recycle(assembly.buf);
    assembly.buf = NO_BYTES;
    assembly.ranges.length = 0;
    assembly.poisoned = true;
  }

  #drop(assembly: Assembly): void {
    this.#table.remove(assembly);
    this.#ages.remove(assembly);
    const { source } = assembly;
    source.ages.remove(assembly.member);
    this.#charge(assembly, -assembly.buf.length);
    if (source.ages.size === 0) this.#sources.remove(source);
  }
}

function copyBytes(from: Uint8Array, fromOff: number, to: Uint8Array, toOff: number, len: number): void {
  to.set(from.subarray(fromOff, fromOff + len), toOff);
}
