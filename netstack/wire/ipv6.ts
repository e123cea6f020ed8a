/**
 * IPv6 headers and extension headers (RFC 8200). Addresses stay where they are: 16 bytes at {@link IPV6_SRC} and
 * {@link IPV6_DST} of the header.
 */
import { copyAddress, formatIpv6, get16, get32, put16, put32 } from './address.ts';

/** Length of the fixed header. */
export const IPV6_LEN = 40;
/** Place of the source address in the header. */
export const IPV6_SRC = 8;
/** Place of the destination address in the header. */
export const IPV6_DST = 24;
/** Every link carries packets of this size (RFC 8200 section 5). */
export const IPV6_MTU_MIN = 1280;
/** Length of a fragment header. */
export const FRAGMENT_LEN = 8;

const NEXT_HOP_BY_HOP = 0;
export const NEXT_ROUTING = 43;
export const NEXT_FRAGMENT = 44;
export const NEXT_ICMPV6 = 58;
const NEXT_NONE = 59;
const NEXT_DESTINATION = 60;

/** A packet with more extension headers than this is dropped: no sane sender makes one (RFC 8504 section 5.3 allows a limit). */
export const EXTENSION_HEADERS_MAX = 8;
/** Options of one header beyond this count are taken for an attack (RFC 8504 section 5.3 names 8). */
export const EXTENSION_OPTIONS_MAX = 8;

export interface Ipv6Repr {
  /** Differentiated services and ECN. */
  trafficClass: number;
  flowLabel: number;
  /** Length of all that follows the fixed header. */
  payloadLen: number;
  nextHeader: number;
  hopLimit: number;
}

/** Parses the fixed header; undefined when it is short, not version 6, or says more than the frame holds. */
export function parseIpv6Header(buf: Uint8Array, off: number, end: number): Ipv6Repr | undefined {
  if (end - off < IPV6_LEN || buf[off]! >>> 4 !== 6) return undefined;
  const first = get32(buf, off);
  const payloadLen = get16(buf, off + 4);
  if (off + IPV6_LEN + payloadLen > end) return undefined;
  return {
    trafficClass: (first >>> 20) & 0xff,
    flowLabel: first & 0xf_ffff,
    payloadLen,
    nextHeader: buf[off + 6]!,
    hopLimit: buf[off + 7]!,
  };
}

/** Writes the fixed header. */
export function emitIpv6(
  repr: Ipv6Repr,
  src: Uint8Array,
  srcOff: number,
  dst: Uint8Array,
  dstOff: number,
  buf: Uint8Array,
  off: number,
): void {
  put32(buf, off, 0x6000_0000 | (repr.trafficClass << 20) | repr.flowLabel);
  put16(buf, off + 4, repr.payloadLen);
  buf[off + 6] = repr.nextHeader;
  buf[off + 7] = repr.hopLimit;
  copyAddress(src, srcOff, buf, off + IPV6_SRC);
  copyAddress(dst, dstOff, buf, off + IPV6_DST);
}

export function formatIpv6Header(repr: Ipv6Repr, buf: Uint8Array, off: number): string {
  const src = formatIpv6(buf, off + IPV6_SRC);
  const dst = formatIpv6(buf, off + IPV6_DST);
  return `${src} > ${dst} next ${repr.nextHeader} hops ${repr.hopLimit} length ${repr.payloadLen}`;
}

/** What the walk over the extension headers found. */
export interface Extensions {
  /**
   * `upper`: the upper-layer header is at `off`. `fragment`: a fragment header is at `off`. `none`: nothing follows
   * (next header 59). `problem`: answer with a parameter problem of `code`, pointing to `pointer`, unless `silent`.
   * `drop`: discard without a word.
   */
  kind: 'upper' | 'fragment' | 'none' | 'problem' | 'drop';
  /** Upper-layer protocol; for a fragment, the next header of the fragment header. */
  protocol: number;
  off: number;
  /** Place of the next-header field that led here: the pointer of an "unrecognized next header" problem. */
  nextOff: number;
  /** ICMPv6 parameter problem code, for `problem`. */
  code: number;
  /** Place of the offending field, for `problem`. */
  pointer: number;
  /** The problem is to be reported even when the destination was multicast (option action 10, RFC 8200 section 4.2). */
  evenMulticast: boolean;
}

/** ICMPv6 parameter problem codes (RFC 4443 section 3.4, RFC 7112 section 6). */
export const PROBLEM_FIELD = 0;
export const PROBLEM_NEXT_HEADER = 1;
export const PROBLEM_OPTION = 2;

function found(kind: Extensions['kind'], protocol: number, off: number, nextOff: number): Extensions {
  return { kind, protocol, off, nextOff, code: 0, pointer: 0, evenMulticast: false };
}

function problem(code: number, pointer: number, evenMulticast = false): Extensions {
  return { kind: 'problem', protocol: 0, off: 0, nextOff: 0, code, pointer, evenMulticast };
}

/** Judges the options of a hop-by-hop or destination options header; undefined when all can be skipped (RFC 8200 section 4.2). */
function judgeOptions(buf: Uint8Array, off: number, len: number): Extensions | undefined {
  const end = off + len;
  let options = 0;
  for (let at = off + 2; at < end; ) {
    const type = buf[at]!;
    if (type === 0) {
      at++;
      continue;
    }
    if (at + 1 >= end || at + 2 + buf[at + 1]! > end) return problem(PROBLEM_FIELD, at);
    if (type !== 1) {
      if (++options > EXTENSION_OPTIONS_MAX) return found('drop', 0, at, at);
      // The two high bits say what to do with an unknown option: skip, discard, or discard and report.
      const action = type >>> 6;
      if (action === 1) return found('drop', 0, at, at);
      if (action !== 0) return problem(PROBLEM_OPTION, at, action === 2);
    }
    at += 2 + buf[at + 1]!;
  }
  return undefined;
}

/**
 * Walks the extension headers of a packet whose fixed header is at `headerOff`. `off` and `nextHeader` say where to begin,
 * `nextOff` where that next-header field is: behind the fixed header, or behind a reassembled fragment header.
 */
export function walkExtensions(
  buf: Uint8Array,
  headerOff: number,
  off: number,
  end: number,
  nextHeader: number,
): Extensions {
  let at = off;
  let next = nextHeader;
  let nextOff = headerOff + 6;
  for (let count = 0; count <= EXTENSION_HEADERS_MAX; count++) {
    if (next === NEXT_NONE) return found('none', next, at, nextOff);
    if (next === NEXT_FRAGMENT) {
      if (at + FRAGMENT_LEN > end) return problem(PROBLEM_FIELD, nextOff);
      return found('fragment', buf[at]!, at, nextOff);
    }
    const options = next === NEXT_HOP_BY_HOP || next === NEXT_DESTINATION;
    if (!options && next !== NEXT_ROUTING) return found('upper', next, at, nextOff);
    // Hop-by-hop options stand directly behind the fixed header or nowhere (RFC 8200 section 4.1).
    if (next === NEXT_HOP_BY_HOP && at !== headerOff + IPV6_LEN) return problem(PROBLEM_NEXT_HEADER, nextOff);
    if (at + 8 > end) return problem(PROBLEM_FIELD, nextOff);
    const len = (buf[at + 1]! + 1) * 8;
    if (at + len > end) return problem(PROBLEM_FIELD, at + 1);
    if (options) {
      const trouble = judgeOptions(buf, at, len);
      if (trouble) return trouble;
    } else if (buf[at + 3]! !== 0) {
      // We route for nobody: segments left of any routing type are a problem (RFC 8200 section 4.4, RFC 5095).
      return problem(PROBLEM_FIELD, at + 2);
    }
    next = buf[at]!;
    nextOff = at;
    at += len;
  }
  return found('drop', next, at, nextOff);
}

export interface FragmentRepr {
  nextHeader: number;
  /** Place of this fragment's payload, in bytes. */
  offset: number;
  more: boolean;
  ident: number;
}

/** Parses a fragment header that lies whole in the packet (RFC 8200 section 4.5). */
export function parseFragment(buf: Uint8Array, off: number): FragmentRepr {
  const field = get16(buf, off + 2);
  return {
    nextHeader: buf[off]!,
    offset: field & 0xfff8,
    more: (field & 1) === 1,
    ident: get32(buf, off + 4),
  };
}

export function emitFragment(repr: FragmentRepr, buf: Uint8Array, off: number): void {
  buf[off] = repr.nextHeader;
  buf[off + 1] = 0;
  put16(buf, off + 2, repr.offset | (repr.more ? 1 : 0));
  put32(buf, off + 4, repr.ident);
}
