/**
 * Neighbour discovery (RFC 4861) and its options: prefix information (RFC 4862), MTU, recursive DNS servers and search
 * list (RFC 8106). These are the bodies of ICMPv6 messages behind the first 8 bytes; the word of those 8 bytes
 * (`rest`) carries the flags of advertisements.
 */
import { copyAddress, get16, get32, getMac, put16, put32, putMac } from './address.ts';

export const NDP_ROUTER_SOLICITATION = 133;
export const NDP_ROUTER_ADVERTISEMENT = 134;
export const NDP_NEIGHBOR_SOLICITATION = 135;
export const NDP_NEIGHBOR_ADVERTISEMENT = 136;

/** Neighbour discovery packets that were routed are forged (RFC 4861 section 6.1.1 and on). */
export const NDP_HOP_LIMIT = 255;

/** Flags of a neighbour advertisement's word (RFC 4861 section 4.4). */
export const NA_ROUTER = 0x8000_0000;
export const NA_SOLICITED = 0x4000_0000;
export const NA_OVERRIDE = 0x2000_0000;

const OPTION_SOURCE_LINK = 1;
const OPTION_TARGET_LINK = 2;
const OPTION_PREFIX = 3;
const OPTION_MTU = 5;
const OPTION_RDNSS = 25;
const OPTION_DNSSL = 31;

/** Bytes of a neighbour solicitation's or advertisement's body with one link-layer option. */
export const NEIGHBOR_LEN = 24;

/** The body of a solicitation or advertisement. */
export interface NeighborRepr {
  /** Target address, 16 bytes. */
  target: Uint8Array;
  /** Link-layer address of the option (source for a solicitation, target for an advertisement), or -1 without. */
  mac: number;
}

/**
 * Reads a link-layer address from the options between `off` and `end`: its number, -1 when there is none, undefined
 * when the options are malformed (a length of zero discards the packet, RFC 4861 section 4.6).
 */
function findLinkOption(buf: Uint8Array, off: number, end: number, type: number): number | undefined {
  let mac = -1;
  for (let at = off; at < end; ) {
    if (at + 2 > end) return undefined;
    const len = buf[at + 1]! * 8;
    if (len === 0 || at + len > end) return undefined;
    if (buf[at] === type) mac = getMac(buf, at + 2);
    at += len;
  }
  return mac;
}

/** Parses the body of a neighbour solicitation or advertisement (behind the first 8 bytes). */
export function parseNeighbor(
  buf: Uint8Array,
  off: number,
  end: number,
  solicitation: boolean,
): NeighborRepr | undefined {
  if (end - off < 16 || buf[off] === 0xff) return undefined;
  const mac = findLinkOption(buf, off + 16, end, solicitation ? OPTION_SOURCE_LINK : OPTION_TARGET_LINK);
  return mac === undefined ? undefined : { target: buf.slice(off, off + 16), mac };
}

/** Bytes of the body. */
export function sizeNeighbor(repr: NeighborRepr): number {
  return repr.mac < 0 ? 16 : NEIGHBOR_LEN;
}

/** Writes the body of a neighbour solicitation or advertisement. */
export function emitNeighbor(repr: NeighborRepr, solicitation: boolean, buf: Uint8Array, off: number): void {
  copyAddress(repr.target, 0, buf, off);
  if (repr.mac < 0) return;
  buf[off + 16] = solicitation ? OPTION_SOURCE_LINK : OPTION_TARGET_LINK;
  buf[off + 17] = 1;
  putMac(buf, off + 18, repr.mac);
}

/** Parses a router solicitation's body: its source link-layer address, -1 without, undefined when malformed. */
export function parseRouterSolicitation(buf: Uint8Array, off: number, end: number): number | undefined {
  return findLinkOption(buf, off, end, OPTION_SOURCE_LINK);
}

/** A router advertisement. */
export interface RouterRepr {
  hopLimit: number;
  /** Addresses by DHCPv6 (M) and other configuration by DHCPv6 (O). */
  managed: boolean;
  other: boolean;
  /** 0: not a default router. */
  lifetimeSeconds: number;
  mac: number;
  mtuBytes: number;
  /** On-link prefix for SLAAC (length 64), 16 bytes. */
  prefix: Uint8Array;
  prefixLength: number;
  /** Guests may form their own addresses in the prefix (A flag). */
  autonomous: boolean;
  validSeconds: number;
  preferredSeconds: number;
  /** Recursive DNS servers, 16 bytes each. */
  dnsServers: Uint8Array[];
  /** DNS search domains. */
  searchDomains: string[];
}

/** The word of the first 8 bytes: hop limit, M and O flags, lifetime (RFC 4861 section 4.2). */
export function routerWord(repr: RouterRepr): number {
  const flags = (repr.managed ? 0x80 : 0) | (repr.other ? 0x40 : 0);
  return ((repr.hopLimit << 24) | (flags << 16) | repr.lifetimeSeconds) >>> 0;
}

/** Length of a DNS name in wire form, root label included. */
function nameLen(name: string): number {
  return name.length + 2;
}

function searchLen(domains: string[]): number {
  let len = 8;
  for (const domain of domains) len += nameLen(domain);
  return (len + 7) & ~7;
}

/** Bytes of the body behind the first 8. */
export function sizeRouter(repr: RouterRepr): number {
  let size = 8 + 8 + 8 + 32;
  if (repr.dnsServers.length > 0) size += 8 + 16 * repr.dnsServers.length;
  if (repr.searchDomains.length > 0) size += searchLen(repr.searchDomains);
  return size;
}

function emitPrefix(repr: RouterRepr, buf: Uint8Array, off: number): void {
  buf[off] = OPTION_PREFIX;
  buf[off + 1] = 4;
  buf[off + 2] = repr.prefixLength;
  buf[off + 3] = 0x80 | (repr.autonomous ? 0x40 : 0);
  put32(buf, off + 4, repr.validSeconds);
  put32(buf, off + 8, repr.preferredSeconds);
  put32(buf, off + 12, 0);
  copyAddress(repr.prefix, 0, buf, off + 16);
}

/** RFC 8106 section 5.2: domain names in wire form, zero-padded to 8 bytes. */
function emitSearch(repr: RouterRepr, buf: Uint8Array, off: number): void {
  const len = searchLen(repr.searchDomains);
  buf.fill(0, off, off + len);
  buf[off] = OPTION_DNSSL;
  buf[off + 1] = len / 8;
  put32(buf, off + 4, repr.lifetimeSeconds);
  let at = off + 8;
  for (const domain of repr.searchDomains) {
    for (const label of domain.split('.')) {
      buf[at++] = label.length;
      for (let i = 0; i < label.length; i++) buf[at++] = label.charCodeAt(i);
    }
    buf[at++] = 0;
  }
}

/** Writes the body of a router advertisement. Its reachable time and retransmission timer stay unspecified (0). */
export function emitRouter(repr: RouterRepr, buf: Uint8Array, off: number): void {
  buf.fill(0, off, off + 8);
  let at = off + 8;
  buf[at] = OPTION_SOURCE_LINK;
  buf[at + 1] = 1;
  putMac(buf, at + 2, repr.mac);
  at += 8;
  buf[at] = OPTION_MTU;
  buf[at + 1] = 1;
  put16(buf, at + 2, 0);
  put32(buf, at + 4, repr.mtuBytes);
  at += 8;
  emitPrefix(repr, buf, at);
  at += 32;
  if (repr.dnsServers.length > 0) {
    buf[at] = OPTION_RDNSS;
    buf[at + 1] = 1 + 2 * repr.dnsServers.length;
    put16(buf, at + 2, 0);
    put32(buf, at + 4, repr.lifetimeSeconds);
    for (const [i, server] of repr.dnsServers.entries()) copyAddress(server, 0, buf, at + 8 + 16 * i);
    at += 8 + 16 * repr.dnsServers.length;
  }
  if (repr.searchDomains.length > 0) emitSearch(repr, buf, at);
}

function readNames(buf: Uint8Array, off: number, end: number): string[] | undefined {
  const names: string[] = [];
  let labels: string[] = [];
  for (let at = off; at < end; ) {
    const len = buf[at++]!;
    if (len > 63 || at + len > end) return undefined;
    if (len === 0) {
      if (labels.length > 0) names.push(labels.join('.'));
      labels = [];
      continue;
    }
    labels.push(String.fromCharCode(...buf.subarray(at, at + len)));
    at += len;
  }
  return names;
}

/** Reads one option of a router advertisement into `repr`; false when it is malformed. */
function parseRouterOption(repr: RouterRepr, buf: Uint8Array, at: number, len: number): boolean {
  switch (buf[at]) {
    case OPTION_SOURCE_LINK:
      repr.mac = getMac(buf, at + 2);
      return true;
    case OPTION_MTU:
      repr.mtuBytes = get32(buf, at + 4);
      return true;
    case OPTION_PREFIX:
      if (len !== 32) return false;
      repr.prefixLength = buf[at + 2]!;
      repr.autonomous = (buf[at + 3]! & 0x40) !== 0;
      repr.validSeconds = get32(buf, at + 4);
      repr.preferredSeconds = get32(buf, at + 8);
      repr.prefix = buf.slice(at + 16, at + 32);
      return true;
    case OPTION_RDNSS:
      for (let server = at + 8; server + 16 <= at + len; server += 16)
        repr.dnsServers.push(buf.slice(server, server + 16));
      return true;
    case OPTION_DNSSL: {
      const names = readNames(buf, at + 8, at + len);
      if (names) repr.searchDomains.push(...names);
      return names !== undefined;
    }
    default:
      return true;
  }
}

/** Parses a router advertisement from its word and body: what a guest understands of ours. */
export function parseRouter(word: number, buf: Uint8Array, off: number, end: number): RouterRepr | undefined {
  if (end - off < 8) return undefined;
  const repr: RouterRepr = {
    hopLimit: word >>> 24,
    managed: (word & 0x80_0000) !== 0,
    other: (word & 0x40_0000) !== 0,
    lifetimeSeconds: word & 0xffff,
    mac: -1,
    mtuBytes: 0,
    prefix: new Uint8Array(16),
    prefixLength: 0,
    autonomous: false,
    validSeconds: 0,
    preferredSeconds: 0,
    dnsServers: [],
    searchDomains: [],
  };
  for (let at = off + 8; at < end; ) {
    const len = at + 2 <= end ? buf[at + 1]! * 8 : 0;
    if (len === 0 || at + len > end || !parseRouterOption(repr, buf, at, len)) return undefined;
    at += len;
  }
  return repr;
}

/** Writes the solicited-node multicast address of an address, ff02::1:ffXX:XXXX (RFC 4291 section 2.7.1). */
export function putSolicitedNode(addr: Uint8Array, addrOff: number, buf: Uint8Array, off: number): void {
  buf.fill(0, off, off + 16);
  put16(buf, off, 0xff02);
  buf[off + 11] = 1;
  buf[off + 12] = 0xff;
  buf[off + 13] = addr[addrOff + 13]!;
  put16(buf, off + 14, get16(addr, addrOff + 14));
}

/** The Ethernet address of an IPv6 multicast address, 33:33 and its last four bytes (RFC 2464 section 7). */
export function multicastMac(addr: Uint8Array, addrOff: number): number {
  return 0x3333_0000_0000 + get32(addr, addrOff + 12);
}
