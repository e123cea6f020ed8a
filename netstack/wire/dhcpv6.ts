/**
 * DHCPv6 messages between client and server (RFC 8415 sections 8 and 21): a type, a transaction id, options. Options are
 * kept as raw bytes; those that hold others (IA_NA, IAADDR) are read with the same reader. Parsers return undefined for
 * what is malformed and never throw.
 */
import { copyBytes, get16, get32, put16, put32 } from './address.ts';

export const DHCPV6_SERVER_PORT = 547;
const HEADER_LEN = 4;
const RELAY_HEADER_LEN = 34;
/** Most options of one message or container. */
const OPTIONS_MAX = 64;

/** Message types (section 7.3). */
export const DHCPV6_TYPE = {
  solicit: 1,
  advertise: 2,
  request: 3,
  confirm: 4,
  renew: 5,
  rebind: 6,
  reply: 7,
  release: 8,
  decline: 9,
  informationRequest: 11,
  relayForward: 12,
  relayReply: 13,
} as const;

/** Option codes (section 21 and the RFCs named). */
export const DHCPV6_OPTION = {
  clientId: 1,
  serverId: 2,
  iaNa: 3,
  iaTa: 4,
  iaAddress: 5,
  optionRequest: 6,
  preference: 7,
  relayMessage: 9,
  statusCode: 13,
  rapidCommit: 14,
  interfaceId: 18,
  /** RFC 3646 */
  dnsServers: 23,
  /** RFC 3646 */
  domainList: 24,
  iaPd: 25,
  informationRefreshTime: 32,
  /** RFC 4704 */
  clientFqdn: 39,
  /** RFC 5908 */
  ntpServer: 56,
} as const;

/** Status codes (section 21.13). */
export const DHCPV6_STATUS = {
  success: 0,
  noAddrsAvail: 2,
  noBinding: 3,
  notOnLink: 4,
  useMulticast: 5,
  noPrefixAvail: 6,
} as const;

/** One option. */
export interface Dhcpv6Option {
  code: number;
  data: Uint8Array;
}

/** One message. */
export interface Dhcpv6Message {
  type: number;
  /** 24 bits. */
  transactionId: number;
  options: Dhcpv6Option[];
}

/** Reads the options in `buf[off..end)`. */
export function parseDhcpv6Options(buf: Uint8Array, off: number, end: number): Dhcpv6Option[] | undefined {
  const options: Dhcpv6Option[] = [];
  for (let at = off; at < end; ) {
    if (at + 4 > end || options.length === OPTIONS_MAX) return undefined;
    const next = at + 4 + get16(buf, at + 2);
    if (next > end) return undefined;
    options.push({ code: get16(buf, at), data: copyBytes(buf, at + 4, next) });
    at = next;
  }
  return options;
}

/** Parses the message in `buf[off..end)`. */
export function parseDhcpv6(buf: Uint8Array, off: number, end: number): Dhcpv6Message | undefined {
  if (end - off < HEADER_LEN) return undefined;
  const options = parseDhcpv6Options(buf, off + HEADER_LEN, end);
  return options && { type: buf[off]!, transactionId: get32(buf, off) & 0xff_ffff, options };
}

/** Bytes of options, one after the other. */
export function encodeDhcpv6Options(options: readonly Dhcpv6Option[]): Uint8Array {
  const bytes = new Uint8Array(options.reduce((sum, { data }) => sum + 4 + data.length, 0));
  let at = 0;
  for (const { code, data } of options) {
    put16(bytes, at, code);
    put16(bytes, at + 2, data.length);
    bytes.set(data, at + 4);
    at += 4 + data.length;
  }
  return bytes;
}

/** Encodes a message. */
export function encodeDhcpv6(message: Dhcpv6Message): Uint8Array {
  const options = encodeDhcpv6Options(message.options);
  const bytes = new Uint8Array(HEADER_LEN + options.length);
  put32(bytes, 0, message.transactionId);
  bytes[0] = message.type;
  bytes.set(options, HEADER_LEN);
  return bytes;
}

/** A message between relays and servers (section 9). Addresses are 16 bytes. */
export interface Dhcpv6RelayMessage {
  type: number;
  hops: number;
  linkAddress: Uint8Array;
  peerAddress: Uint8Array;
  options: Dhcpv6Option[];
}

/** Parses a relay's message in `buf[off..end)`. */
export function parseDhcpv6Relay(buf: Uint8Array, off: number, end: number): Dhcpv6RelayMessage | undefined {
  if (end - off < RELAY_HEADER_LEN) return undefined;
  const options = parseDhcpv6Options(buf, off + RELAY_HEADER_LEN, end);
  return (
    options && {
      type: buf[off]!,
      hops: buf[off + 1]!,
      linkAddress: copyBytes(buf, off + 2, off + 18),
      peerAddress: copyBytes(buf, off + 18, off + 34),
      options,
    }
  );
}

/** Encodes a message to a relay. */
export function encodeDhcpv6Relay(message: Dhcpv6RelayMessage): Uint8Array {
  const options = encodeDhcpv6Options(message.options);
  const bytes = new Uint8Array(RELAY_HEADER_LEN + options.length);
  bytes[0] = message.type;
  bytes[1] = message.hops;
  bytes.set(message.linkAddress, 2);
  bytes.set(message.peerAddress, 18);
  bytes.set(options, RELAY_HEADER_LEN);
  return bytes;
}

/** An identity association for non-temporary addresses (section 21.4). */
export interface IaNa {
  iaid: number;
  t1Seconds: number;
  t2Seconds: number;
  options: Dhcpv6Option[];
}

/** Reads an IA_NA. */
export function parseIaNa(data: Uint8Array): IaNa | undefined {
  if (data.length < 12) return undefined;
  const options = parseDhcpv6Options(data, 12, data.length);
  return options && { iaid: get32(data, 0), t1Seconds: get32(data, 4), t2Seconds: get32(data, 8), options };
}

/** An IA_NA option. */
export function iaNaOption({ iaid, t1Seconds, t2Seconds, options }: IaNa): Dhcpv6Option {
  const inner = encodeDhcpv6Options(options);
  const data = new Uint8Array(12 + inner.length);
  put32(data, 0, iaid);
  put32(data, 4, t1Seconds);
  put32(data, 8, t2Seconds);
  data.set(inner, 12);
  return { code: DHCPV6_OPTION.iaNa, data };
}

/** The address of an IAADDR (section 21.6). */
export function parseIaAddress(data: Uint8Array): Uint8Array | undefined {
  return data.length >= 24 && parseDhcpv6Options(data, 24, data.length) ? data.slice(0, 16) : undefined;
}

/** An IAADDR option. */
export function iaAddressOption(
  address: Uint8Array,
  preferredSeconds: number,
  validSeconds: number,
): Dhcpv6Option {
  const data = new Uint8Array(24);
  data.set(address);
  put32(data, 16, preferredSeconds);
  put32(data, 20, validSeconds);
  return { code: DHCPV6_OPTION.iaAddress, data };
}

/** A status option with a text for people. */
export function statusOption(status: number, text: string): Dhcpv6Option {
  const message = new TextEncoder().encode(text);
  const data = new Uint8Array(2 + message.length);
  put16(data, 0, status);
  data.set(message, 2);
  return { code: DHCPV6_OPTION.statusCode, data };
}

/** The codes of an option request (section 21.7). */
export function readOptionRequest(data: Uint8Array | undefined): number[] {
  const codes: number[] = [];
  for (let at = 0; data && at + 2 <= data.length; at += 2) codes.push(get16(data, at));
  return codes;
}
