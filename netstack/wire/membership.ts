/**
 * Who wants which multicast group: IGMP (RFC 1112, 2236, 3376) and MLD (RFC 2710, 3810). Reports of all versions are read;
 * queries are written in the latest, which older hosts take for theirs. Sources are not told apart: a host that wants some of a
 * group wants the group.
 */
import { get16, get32, put16, put32, putMapped } from './address.ts';
import { complement, pseudoIpv6, sum } from './checksum.ts';
import { emitIpv4, IPV4_LEN } from './ipv4.ts';
import { emitIpv6, IPV6_LEN, NEXT_ICMPV6 } from './ipv6.ts';

export const PROTOCOL_IGMP = 2;

/** ICMPv6 types of MLD (RFC 3810 section 5). */
export const MLD_QUERY = 130;
export const MLD_REPORT_1 = 131;
export const MLD_DONE = 132;
export const MLD_REPORT_2 = 143;

const IGMP_QUERY = 0x11;
const IGMP_REPORT_1 = 0x12;
const IGMP_REPORT_2 = 0x16;
const IGMP_LEAVE = 0x17;
const IGMP_REPORT_3 = 0x22;
/** Length of the messages of the first versions, and of a report's part before its records. */
const IGMP_LEN = 8;
const MLD_LEN = 24;
const REPORT_LEN = 8;

/** Record types (RFC 3376 section 4.2.12). */
const MODE_IS_INCLUDE = 1;
const CHANGE_TO_INCLUDE = 3;
const BLOCK_OLD_SOURCES = 6;

/** What a message says: of a group (16 bytes, IPv4 mapped; valid during the call) that it is wanted or not any more; or a query. */
export interface MembershipSink {
  wanted(group: Uint8Array): void;
  unwanted(group: Uint8Array): void;
  query(): void;
}

const group = new Uint8Array(16);

function tell(sink: MembershipSink, isWanted: boolean): void {
  if (isWanted) sink.wanted(group);
  else sink.unwanted(group);
}

/** Reads an IGMP message; false when it is malformed. */
export function readIgmp(buf: Uint8Array, off: number, end: number, sink: MembershipSink): boolean {
  if (end - off < IGMP_LEN || sum(buf, off, end - off) !== 0xffff) return false;
  const type = buf[off]!;
  if (type === IGMP_QUERY) sink.query();
  else if (type === IGMP_REPORT_3) return readRecords(buf, off, end, 4, sink);
  else if (type === IGMP_REPORT_1 || type === IGMP_REPORT_2 || type === IGMP_LEAVE) {
    putMapped(group, 0, get32(buf, off + 4));
    tell(sink, type !== IGMP_LEAVE);
  } else return false;
  return true;
}

/** Reads an MLD message whose checksum is right; false when it is malformed. */
export function readMld(buf: Uint8Array, off: number, end: number, sink: MembershipSink): boolean {
  const type = buf[off]!;
  if (type === MLD_REPORT_2) return readRecords(buf, off, end, 16, sink);
  if (end - off < MLD_LEN) return false;
  if (type === MLD_QUERY) sink.query();
  else {
    group.set(buf.subarray(off + 8, off + 24));
    tell(sink, type === MLD_REPORT_1);
  }
  return true;
}

/** The records of a report (RFC 3376 section 4.2, RFC 3810 section 5.2), whose addresses have `addressLen` bytes. */
function readRecords(
  buf: Uint8Array,
  off: number,
  end: number,
  addressLen: number,
  sink: MembershipSink,
): boolean {
  let at = off + REPORT_LEN;
  for (let records = get16(buf, off + 6); records > 0; records--) {
    if (end - at < 4 + addressLen) return false;
    const type = buf[at]!;
    const sources = get16(buf, at + 2);
    if (addressLen === 4) putMapped(group, 0, get32(buf, at + 4));
    else group.set(buf.subarray(at + 4, at + 20));
    // Auxiliary data is counted in words.
    at += 4 + addressLen + addressLen * sources + 4 * buf[at + 1]!;
    if (at > end) return false;
    const includes = type === MODE_IS_INCLUDE || type === CHANGE_TO_INCLUDE;
    if (type !== BLOCK_OLD_SOURCES) tell(sink, !includes || sources > 0);
  }
  return true;
}

/** Robustness variable 2; query intervals below 128 s are the code itself (RFC 3376 sections 4.1.6, 4.1.7). */
const ROBUSTNESS = 2;

/** A general query as a whole IP packet, from `src` to all hosts, which answer within `responseMs` (RFC 3376 section 4.1). */
export function igmpQuery(src: number, intervalSeconds: number, responseMs: number): Uint8Array {
  const headerLen = IPV4_LEN + 4;
  const packet = new Uint8Array(headerLen + 12);
  const header = {
    headerLen: IPV4_LEN,
    totalLen: packet.length,
    tos: 0xc0,
    ident: 0,
    dontFragment: true,
    moreFragments: false,
    fragmentOffset: 0,
    ttl: 1,
    protocol: PROTOCOL_IGMP,
    src,
    dst: 0xe000_0001,
  };
  emitIpv4(header, packet, 0);
  // The router alert option (RFC 2113), and the header's checksum again.
  packet[0] = 0x46;
  put32(packet, IPV4_LEN, 0x9404_0000);
  put16(packet, 10, 0);
  put16(packet, 10, complement(sum(packet, 0, headerLen)));
  packet[headerLen] = IGMP_QUERY;
  packet[headerLen + 1] = responseMs / 100;
  packet[headerLen + 8] = ROBUSTNESS;
  packet[headerLen + 9] = intervalSeconds;
  put16(packet, headerLen + 2, complement(sum(packet, headerLen, 12)));
  return packet;
}

/** The same for MLD, from a link-local address (RFC 3810 section 5.1). */
export function mldQuery(
  src: Uint8Array,
  allNodes: Uint8Array,
  intervalSeconds: number,
  responseMs: number,
): Uint8Array {
  const messageLen = MLD_LEN + 4;
  const message = IPV6_LEN + 8;
  const packet = new Uint8Array(message + messageLen);
  const header = {
    trafficClass: 0,
    flowLabel: 0,
    payloadLen: packet.length - IPV6_LEN,
    nextHeader: 0,
    hopLimit: 1,
  };
  emitIpv6(header, src, 0, allNodes, 0, packet, 0);
  // Hop-by-hop options: router alert for MLD (RFC 2711), padding.
  packet[IPV6_LEN] = NEXT_ICMPV6;
  put32(packet, IPV6_LEN + 2, 0x0502_0000);
  packet[IPV6_LEN + 6] = 1;
  packet[message] = MLD_QUERY;
  put16(packet, message + 4, responseMs);
  packet[message + 24] = ROBUSTNESS;
  packet[message + 25] = intervalSeconds;
  const pseudo = pseudoIpv6(src, 0, allNodes, 0, NEXT_ICMPV6, messageLen);
  put16(packet, message + 2, complement(pseudo + sum(packet, message, messageLen)));
  return packet;
}
