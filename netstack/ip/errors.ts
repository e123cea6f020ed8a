/**
 * ICMP and ICMPv6 errors to guests: about the packet in hand, or about a packet of a flow that a host's socket has reported.
 *
 * They are never sent about errors, groups or later fragments (RFC 1122 section 3.2.2, RFC 4443 section 2.4), and not more
 * often than the rate limit allows.
 */
import type { HostError, HostIcmpError } from '../flow/host.ts';
import { ICMP_ERRORS_BURST, ICMP_ERRORS_PER_SECOND } from '../limits.ts';
import { get16, isMulticastIpv6, isUnspecifiedIpv6, put16, put32 } from '../wire/address.ts';
import {
  EXCEEDED_REASSEMBLY,
  EXCEEDED_TTL,
  emitIcmp,
  ICMP_LEN,
  ICMP_PARAMETER_PROBLEM,
  ICMP_TIME_EXCEEDED,
  ICMP_UNREACHABLE,
  isIcmpError,
  UNREACHABLE_FRAGMENTATION,
  UNREACHABLE_HOST,
  UNREACHABLE_NET,
  UNREACHABLE_PORT,
  UNREACHABLE_PROHIBITED,
  UNREACHABLE_PROTOCOL,
} from '../wire/icmp.ts';
import {
  emitIcmpv6,
  ICMPV6_PARAMETER_PROBLEM,
  ICMPV6_TIME_EXCEEDED,
  ICMPV6_TOO_BIG,
  ICMPV6_UNREACHABLE,
  isIcmpv6Error,
  UNREACHABLE6_ADDRESS,
  UNREACHABLE6_NO_ROUTE,
  UNREACHABLE6_PORT,
  UNREACHABLE6_PROHIBITED,
} from '../wire/icmpv6.ts';
import { emitIpv4, IPV4_LEN, PROTOCOL_ICMP } from '../wire/ipv4.ts';
import { emitIpv6, IPV6_LEN, IPV6_MTU_MIN, NEXT_ICMPV6, PROBLEM_NEXT_HEADER } from '../wire/ipv6.ts';
import type { Addressing } from './addressing.ts';
import type { StackCounters } from './counters.ts';
import { type Output, Route, TTL_DEFAULT } from './output.ts';
import type { Packet } from './packet.ts';
import { RateLimit } from './rate-limit.ts';

/** What went wrong. `parameter` needs a code and a pointer; `too-big` an MTU. */
export type ErrorKind = HostIcmpError['kind'] | 'protocol-unreachable' | 'reassembly-exceeded' | 'parameter';

/** An ICMP error with the original datagram fits in this (RFC 1812 section 4.3.2.3). */
const ICMP_ERROR_BYTES_MAX = 576;
/** Upper-layer bytes of a quotation that are made from what is known: ports, and a sequence number or a length. */
const QUOTE_UPPER_LEN = 8;
const NO_BYTES: Uint8Array = new Uint8Array(0);

const CODES_IPV4: Record<ErrorKind, readonly [type: number, code: number]> = {
  'port-unreachable': [ICMP_UNREACHABLE, UNREACHABLE_PORT],
  'host-unreachable': [ICMP_UNREACHABLE, UNREACHABLE_HOST],
  'net-unreachable': [ICMP_UNREACHABLE, UNREACHABLE_NET],
  'protocol-unreachable': [ICMP_UNREACHABLE, UNREACHABLE_PROTOCOL],
  prohibited: [ICMP_UNREACHABLE, UNREACHABLE_PROHIBITED],
  'too-big': [ICMP_UNREACHABLE, UNREACHABLE_FRAGMENTATION],
  'ttl-exceeded': [ICMP_TIME_EXCEEDED, EXCEEDED_TTL],
  'reassembly-exceeded': [ICMP_TIME_EXCEEDED, EXCEEDED_REASSEMBLY],
  parameter: [ICMP_PARAMETER_PROBLEM, 0],
};

const CODES_IPV6: Record<ErrorKind, readonly [type: number, code: number]> = {
  'port-unreachable': [ICMPV6_UNREACHABLE, UNREACHABLE6_PORT],
  'host-unreachable': [ICMPV6_UNREACHABLE, UNREACHABLE6_ADDRESS],
  'net-unreachable': [ICMPV6_UNREACHABLE, UNREACHABLE6_NO_ROUTE],
  // RFC 4443 section 3.4: an unknown upper layer is a parameter problem there.
  'protocol-unreachable': [ICMPV6_PARAMETER_PROBLEM, PROBLEM_NEXT_HEADER],
  prohibited: [ICMPV6_UNREACHABLE, UNREACHABLE6_PROHIBITED],
  'too-big': [ICMPV6_TOO_BIG, 0],
  'ttl-exceeded': [ICMPV6_TIME_EXCEEDED, EXCEEDED_TTL],
  'reassembly-exceeded': [ICMPV6_TIME_EXCEEDED, EXCEEDED_REASSEMBLY],
  parameter: [ICMPV6_PARAMETER_PROBLEM, 0],
};

/** The ICMP error that tells a guest what a socket call of the host told us, or undefined where silence is right. */
export function errorKindOf(error: HostError): ErrorKind | undefined {
  switch (error) {
    case 'ECONNREFUSED':
      return 'port-unreachable';
    case 'EHOSTUNREACH':
      return 'host-unreachable';
    case 'ENETUNREACH':
    case 'EADDRNOTAVAIL':
      return 'net-unreachable';
    case 'EACCES':
      return 'prohibited';
    default:
      return undefined;
  }
}

export class IcmpErrors {
  readonly #output: Output;
  readonly #addressing: Addressing;
  readonly #counters: StackCounters;
  readonly #limit = new RateLimit(ICMP_ERRORS_PER_SECOND, ICMP_ERRORS_BURST);
  readonly #route = new Route();
  readonly #quote: Uint8Array = new Uint8Array(IPV6_MTU_MIN);

  constructor(output: Output, addressing: Addressing, counters: StackCounters) {
    this.#output = output;
    this.#addressing = addressing;
    this.#counters = counters;
  }

  /**
   * Answers the packet in hand. `word` is the MTU of `too-big` or the pointer of `parameter`, `code` the code of the latter;
   * `from` the router to show as sender, default the gateway.
   */
  answer(now: number, packet: Packet, kind: ErrorKind, word = 0, code = 0, evenGroup = false): void {
    if (!this.#mayAnswer(packet, evenGroup)) return;
    const headersLen = (packet.ipv4 ? IPV4_LEN : IPV6_LEN) + ICMP_LEN;
    const most = (packet.ipv4 ? ICMP_ERROR_BYTES_MAX : IPV6_MTU_MIN) - headersLen;
    const len = Math.min(packet.end - packet.ipOff, most);
    const route = this.#route;
    route.mac = packet.srcMac;
    route.ipv4 = packet.ipv4;
    route.src = this.#addressing.sourceFor(packet.src, 0);
    route.dst = packet.src;
    route.dstOff = 0;
    this.#send(now, kind, word, code, packet.buf, packet.ipOff, len);
  }

  /**
   * Tells a guest what a host's socket learnt about a packet that the guest sent from `guest`:`guestPort` to `target`:`targetPort`,
   * with a quotation made from these. `upperWord` is bytes 4 to 7 of its upper header: the TCP sequence number, a datagram's
   * length, or an echo's id and sequence number. `len` bytes of `buf` at `off` are the payload behind that header, as far as it is
   * known (RFC 792 wants none of it, RFC 4443 section 2.4 (c) all that fits).
   */
  relay(
    now: number,
    error: HostIcmpError,
    mac: number,
    ipv4: boolean,
    protocol: number,
    guest: Uint8Array,
    guestPort: number,
    target: Uint8Array,
    targetOff: number,
    targetPort: number,
    upperWord: number,
    buf: Uint8Array = NO_BYTES,
    off = 0,
    len = 0,
  ): void {
    const headerLen = ipv4 ? IPV4_LEN : IPV6_LEN;
    const quote = this.#quote;
    const upperLen = headerLen + QUOTE_UPPER_LEN;
    const most = (ipv4 ? ICMP_ERROR_BYTES_MAX : IPV6_MTU_MIN) - headerLen - ICMP_LEN;
    const quoteLen = Math.min(upperLen + len, most);
    for (let i = upperLen; i < quoteLen; i++) quote[i] = buf[off + i - upperLen]!;
    this.#quoteHeader(ipv4, protocol, guest, target, targetOff, QUOTE_UPPER_LEN + len);
    put16(quote, headerLen, guestPort);
    put16(quote, headerLen + 2, targetPort);
    put32(quote, headerLen + 4, upperWord);
    const route = this.#route;
    route.mac = mac;
    route.ipv4 = ipv4;
    route.src = this.#addressing.offender(error.offender, guest, 0);
    route.dst = guest;
    route.dstOff = 0;
    this.#send(now, error.kind, error.mtuBytes, 0, quote, 0, quoteLen);
  }

  #quoteHeader(
    ipv4: boolean,
    protocol: number,
    guest: Uint8Array,
    target: Uint8Array,
    targetOff: number,
    len: number,
  ): void {
    if (!ipv4) {
      const header = {
        trafficClass: 0,
        flowLabel: 0,
        payloadLen: len,
        nextHeader: protocol,
        hopLimit: 1,
      };
      emitIpv6(header, guest, 0, target, targetOff, this.#quote, 0);
      return;
    }
    const read32 = (addr: Uint8Array, off: number): number =>
      get16(addr, off + 12) * 0x1_0000 + get16(addr, off + 14);
    const header = {
      headerLen: IPV4_LEN,
      totalLen: IPV4_LEN + len,
      tos: 0,
      ident: 0,
      dontFragment: true,
      moreFragments: false,
      fragmentOffset: 0,
      ttl: 1,
      protocol,
      src: read32(guest, 0),
      dst: read32(target, targetOff),
    };
    emitIpv4(header, this.#quote, 0);
  }

  #mayAnswer(packet: Packet, evenGroup: boolean): boolean {
    if (!evenGroup && (packet.group || this.#addressing.kind(packet.dst, 0) === 'group')) return false;
    if (packet.ipv4) {
      if (!this.#addressing.isGuestIpv4(packet.srcIpv4)) return false;
      return packet.protocol !== PROTOCOL_ICMP || !isIcmpError(packet.buf[packet.payloadOff]!);
    }
    if (isUnspecifiedIpv6(packet.src, 0) || isMulticastIpv6(packet.src, 0)) return false;
    return packet.protocol !== NEXT_ICMPV6 || !isIcmpv6Error(packet.buf[packet.payloadOff]!);
  }

  #send(
    now: number,
    kind: ErrorKind,
    word: number,
    code: number,
    quote: Uint8Array,
    quoteOff: number,
    quoteLen: number,
  ): void {
    if (!this.#limit.take(now)) {
      this.#counters.icmpErrorsSuppressed++;
      return;
    }
    this.#counters.icmpErrorsOut++;
    const { ipv4, src, dst } = this.#route;
    const [type, kindCode] = (ipv4 ? CODES_IPV4 : CODES_IPV6)[kind];
    const parameter = kind === 'parameter' || (kind === 'protocol-unreachable' && !ipv4);
    // The pointer of an ICMPv4 parameter problem is the first byte of the word (RFC 792).
    const rest = kind === 'parameter' && ipv4 ? (word << 24) >>> 0 : word;
    const repr = { type, code: kindCode, rest: parameter || kind === 'too-big' ? rest : 0 };
    if (kind === 'parameter') repr.code = code;
    const upper = this.#output.upperOff(ipv4);
    this.#route.ttl = TTL_DEFAULT;
    if (ipv4) emitIcmp(repr, quote, quoteOff, quoteLen, this.#output.head, upper);
    else emitIcmpv6(repr, src, 0, dst, 0, quote, quoteOff, quoteLen, this.#output.head, upper);
    const protocol = ipv4 ? PROTOCOL_ICMP : NEXT_ICMPV6;
    this.#output.packet(this.#route, protocol, ICMP_LEN, -1, quote, quoteOff, quoteLen);
  }
}
