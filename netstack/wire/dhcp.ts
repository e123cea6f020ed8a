/**
 * DHCP messages (RFC 2131 section 2, RFC 2132): the 236 bytes of BOOTP, the magic cookie, and options.
 *
 * Options are kept as raw bytes by code; the readers and writers below know the forms that the server uses. What a long
 * option spreads over several instances is joined (RFC 3396), also over `file` and `sname` when they are overloaded
 * (RFC 2132 section 9.3). Everything read here was written by a guest: parsers return undefined and never throw.
 */
import { copyBytes, get32, put32 } from './address.ts';

/** Fixed part and magic cookie. */
export const DHCP_LEN_MIN = 240;
/** Shortest message sent: relays and old clients drop less than BOOTP's 300 bytes (RFC 1542 section 2.1). */
const BOOTP_LEN = 300;
/** IP datagram that every client takes (RFC 2131 section 2), less the IP and UDP headers. */
export const DHCP_LEN_DEFAULT: number = 576 - 28;
/** Most bytes of options kept of one message: a joined option cannot make one message cost more. */
const OPTION_BYTES_MAX = 4096;

const COOKIE = 0x63825363;
const SNAME_OFF = 44;
const SNAME_LEN = 64;
const FILE_OFF = 108;
const FILE_LEN = 128;

export const BOOT_REQUEST = 1;
export const BOOT_REPLY = 2;
/** Bit of `flags`: the client cannot take unicast before it is configured. */
export const DHCP_FLAG_BROADCAST = 0x8000;
export const DHCP_SERVER_PORT = 67;
export const DHCP_CLIENT_PORT = 68;

/** Message types, option 53. */
export const DHCP_TYPE = {
  discover: 1,
  offer: 2,
  request: 3,
  decline: 4,
  ack: 5,
  nak: 6,
  release: 7,
  inform: 8,
} as const;

/** Option codes (RFC 2132 and the RFCs named). */
export const DHCP_OPTION = {
  pad: 0,
  subnetMask: 1,
  router: 3,
  dnsServers: 6,
  hostName: 12,
  domainName: 15,
  mtu: 26,
  broadcast: 28,
  ntpServers: 42,
  requestedAddress: 50,
  leaseTime: 51,
  overload: 52,
  messageType: 53,
  serverId: 54,
  parameterList: 55,
  message: 56,
  maxMessageSize: 57,
  renewalTime: 58,
  rebindingTime: 59,
  clientId: 61,
  /** RFC 4039 */
  rapidCommit: 80,
  /** RFC 4702 */
  clientFqdn: 81,
  /** RFC 3046 */
  relayAgent: 82,
  /** RFC 8925 */
  ipv6OnlyPreferred: 108,
  /** RFC 3397 */
  domainSearch: 119,
  /** RFC 3442 */
  classlessRoutes: 121,
  /** draft-ietf-wrec-wpad: in use everywhere, never a standard. */
  proxyAutoConfig: 252,
  end: 255,
} as const;

/** One DHCP message. IPv4 addresses are numbers in host order. */
export interface DhcpMessage {
  op: number;
  hardwareType: number;
  hops: number;
  transactionId: number;
  seconds: number;
  flags: number;
  /** ciaddr: the client's address, when it has one and can answer ARP. */
  clientAddress: number;
  /** yiaddr: the address given. */
  yourAddress: number;
  /** siaddr: the next server of a boot sequence. */
  nextServer: number;
  /** giaddr: the relay that forwarded the request. */
  relayAddress: number;
  /** chaddr, `hlen` bytes of it. */
  hardwareAddress: Uint8Array;
  /** Options by code, joined; in the order in which they are sent. */
  options: Map<number, Uint8Array>;
}

/** Reads the options of one field into `into`; false when they are malformed or too many. */
function parseOptions(
  buf: Uint8Array,
  off: number,
  end: number,
  into: Map<number, Uint8Array>,
  budget: { left: number },
): boolean {
  for (let at = off; at < end; ) {
    const code = buf[at++]!;
    if (code === DHCP_OPTION.pad) continue;
    if (code === DHCP_OPTION.end) return true;
    if (at >= end) return false;
    const len = buf[at++]!;
    if (at + len > end) return false;
    budget.left -= len + 2;
    if (budget.left < 0) return false;
    const before = into.get(code);
    const value = new Uint8Array((before?.length ?? 0) + len);
    if (before) value.set(before);
    value.set(buf.subarray(at, at + len), before?.length ?? 0);
    into.set(code, value);
    at += len;
  }
  // RFC 2131 section 4.1 asks for an end option; clients that fill the packet to its last byte leave it out.
  return true;
}

/** Parses the message in `buf[off..end)`. Undefined when it is no DHCP message. */
export function parseDhcp(buf: Uint8Array, off: number, end: number): DhcpMessage | undefined {
  if (end - off < DHCP_LEN_MIN || get32(buf, off + 236) !== COOKIE) return undefined;
  const op = buf[off]!;
  const hardwareLen = buf[off + 2]!;
  if ((op !== BOOT_REQUEST && op !== BOOT_REPLY) || hardwareLen > 16) return undefined;

  const options = new Map<number, Uint8Array>();
  const budget = { left: OPTION_BYTES_MAX };
  if (!parseOptions(buf, off + DHCP_LEN_MIN, end, options, budget)) return undefined;
  const overload = options.get(DHCP_OPTION.overload)?.[0] ?? 0;
  options.delete(DHCP_OPTION.overload);
  // RFC 2131 section 4.1: `file` is read before `sname`.
  if (overload & 1 && !parseOptions(buf, off + FILE_OFF, off + FILE_OFF + FILE_LEN, options, budget))
    return undefined;
  if (overload & 2 && !parseOptions(buf, off + SNAME_OFF, off + SNAME_OFF + SNAME_LEN, options, budget))
    return undefined;

  return {
    op,
    hardwareType: buf[off + 1]!,
    hops: buf[off + 3]!,
    transactionId: get32(buf, off + 4),
    seconds: (buf[off + 8]! << 8) | buf[off + 9]!,
    flags: (buf[off + 10]! << 8) | buf[off + 11]!,
    clientAddress: get32(buf, off + 12),
    yourAddress: get32(buf, off + 16),
    nextServer: get32(buf, off + 20),
    relayAddress: get32(buf, off + 24),
    hardwareAddress: copyBytes(buf, off + 28, off + 28 + hardwareLen),
    options,
  };
}

/**
 * Encodes `message` in at most `lenMax` bytes. Options that do not fit are left out from the last one backwards, so give
 * those that matter first; the relay's option 82 always goes last (RFC 3046 section 2.2) and is never left out.
 */
export function encodeDhcp(message: DhcpMessage, lenMax: number = DHCP_LEN_DEFAULT): Uint8Array {
  const buf = new Uint8Array(Math.max(lenMax, BOOTP_LEN));
  buf[0] = message.op;
  buf[1] = message.hardwareType;
  buf[2] = message.hardwareAddress.length;
  buf[3] = message.hops;
  put32(buf, 4, message.transactionId);
  buf[8] = message.seconds >>> 8;
  buf[9] = message.seconds;
  buf[10] = message.flags >>> 8;
  buf[11] = message.flags;
  put32(buf, 12, message.clientAddress);
  put32(buf, 16, message.yourAddress);
  put32(buf, 20, message.nextServer);
  put32(buf, 24, message.relayAddress);
  buf.set(message.hardwareAddress, 28);
  put32(buf, 236, COOKIE);

  const relay = message.options.get(DHCP_OPTION.relayAgent);
  let limit = buf.length - 1 - (relay ? encodedLength(relay) : 0);
  let at = DHCP_LEN_MIN;
  for (const [code, value] of message.options) {
    if (code === DHCP_OPTION.relayAgent || at + encodedLength(value) > limit) continue;
    at = putOption(buf, at, code, value);
  }
  if (relay) {
    limit = buf.length - 1;
    if (at + encodedLength(relay) <= limit) at = putOption(buf, at, DHCP_OPTION.relayAgent, relay);
  }
  buf[at++] = DHCP_OPTION.end;
  return buf.slice(0, Math.max(at, BOOTP_LEN));
}

function encodedLength(value: Uint8Array): number {
  return value.length + 2 * Math.max(1, Math.ceil(value.length / 255));
}

/** Writes an option, in several instances when it is longer than 255 bytes (RFC 3396 section 5). */
function putOption(buf: Uint8Array, off: number, code: number, value: Uint8Array): number {
  let at = off;
  let from = 0;
  do {
    const len = Math.min(255, value.length - from);
    buf[at++] = code;
    buf[at++] = len;
    buf.set(value.subarray(from, from + len), at);
    at += len;
    from += len;
  } while (from < value.length);
  return at;
}

// ---- Forms of options ----

/** One byte. */
export function readByte(value: Uint8Array | undefined): number | undefined {
  return value?.length === 1 ? value[0] : undefined;
}

/** A 16-bit number. */
export function readUint16(value: Uint8Array | undefined): number | undefined {
  return value?.length === 2 ? (value[0]! << 8) | value[1]! : undefined;
}

/** A 32-bit number or one IPv4 address. */
export function readUint32(value: Uint8Array | undefined): number | undefined {
  return value?.length === 4 ? get32(value, 0) : undefined;
}

/** Bytes of a 16-bit number. */
export function uint16Option(value: number): Uint8Array {
  return Uint8Array.of(value >>> 8, value);
}

/** Bytes of 32-bit numbers or IPv4 addresses. */
export function uint32Option(...values: number[]): Uint8Array {
  const bytes = new Uint8Array(values.length * 4);
  values.forEach((value, i) => {
    put32(bytes, i * 4, value);
  });
  return bytes;
}

/** Bytes of ASCII text; other characters become `?`. */
export function textOption(text: string): Uint8Array {
  return Uint8Array.from(text, (char) => {
    const code = char.charCodeAt(0);
    return code < 0x80 ? code : 0x3f;
  });
}

/** ASCII text without trailing NULs (RFC 2132 section 2: receivers must cope with them), or undefined. */
export function readText(value: Uint8Array | undefined): string | undefined {
  if (!value) return undefined;
  let end = value.length;
  while (end > 0 && value[end - 1] === 0) end--;
  let text = '';
  for (let i = 0; i < end; i++) {
    const byte = value[i]!;
    if (byte < 0x20 || byte > 0x7e) return undefined;
    text += String.fromCharCode(byte);
  }
  return text;
}

/** A route of option 121: packets to `network`/`prefixLength` go to `router`. */
export interface ClasslessRoute {
  network: number;
  prefixLength: number;
  router: number;
}

/** Option 121: width, the significant bytes of the network, router (RFC 3442 page 4). */
export function classlessRoutesOption(routes: readonly ClasslessRoute[]): Uint8Array {
  const bytes: number[] = [];
  for (const { network, prefixLength, router } of routes) {
    bytes.push(prefixLength);
    for (let i = 0; i < Math.ceil(prefixLength / 8); i++) bytes.push((network >>> (24 - 8 * i)) & 0xff);
    bytes.push(router >>> 24, (router >>> 16) & 0xff, (router >>> 8) & 0xff, router & 0xff);
  }
  return Uint8Array.from(bytes);
}

/** Option 81: what a client says about its full name, and what we answer (RFC 4702 section 2). */
export interface ClientFqdn {
  /** S: the server updates the A record. */
  serverUpdates: boolean;
  /** N: the server must make no update. */
  noUpdate: boolean;
  /** E: the name is in DNS wire form, else ASCII. */
  wireForm: boolean;
  /** Labels joined with dots, without the final one. */
  name: string;
}

const FQDN_S = 1;
const FQDN_O = 2;
const FQDN_E = 4;
const FQDN_N = 8;

/** Reads option 81. */
export function readClientFqdn(value: Uint8Array | undefined): ClientFqdn | undefined {
  if (!value || value.length < 3) return undefined;
  const flags = value[0]!;
  const wireForm = (flags & FQDN_E) !== 0;
  const name = wireForm ? readLabels(value, 3) : readText(value.subarray(3));
  if (name === undefined) return undefined;
  return { serverUpdates: (flags & FQDN_S) !== 0, noUpdate: (flags & FQDN_N) !== 0, wireForm, name };
}

/** Labels in wire form without compression; a partial name has no root label (RFC 4702 section 2.3.1). */
function readLabels(value: Uint8Array, off: number): string | undefined {
  const labels: string[] = [];
  for (let at = off; at < value.length; ) {
    const len = value[at++]!;
    if (len === 0) break;
    if (len > 63 || at + len > value.length) return undefined;
    const label = readText(value.subarray(at, at + len));
    if (!label || label.includes('.')) return undefined;
    labels.push(label);
    at += len;
  }
  return labels.join('.');
}

/** Our answer to option 81: O when we took the update over against the client's wish (RFC 4702 section 4). */
export function clientFqdnOption(asked: ClientFqdn, updated: boolean, name: string): Uint8Array {
  const override = updated !== asked.serverUpdates;
  const flags = (updated ? FQDN_S : FQDN_N) | (override ? FQDN_O : 0) | (asked.wireForm ? FQDN_E : 0);
  const bytes = asked.wireForm ? domainNameBytes(name) : textOption(name);
  const value = new Uint8Array(3 + bytes.length);
  value[0] = flags;
  // RFC 4702 section 2.2: RCODE1 and RCODE2 are 255 from a server.
  value[1] = 255;
  value[2] = 255;
  value.set(bytes, 3);
  return value;
}

/** A domain name in wire form, without compression. Labels longer than 63 bytes are cut. */
function domainNameBytes(name: string): Uint8Array {
  const bytes: number[] = [];
  for (const label of name.split('.')) {
    if (label === '') continue;
    const text = textOption(label.slice(0, 63));
    bytes.push(text.length, ...text);
  }
  bytes.push(0);
  return Uint8Array.from(bytes);
}

/** Option 119: names in wire form; compression is allowed, not asked (RFC 3397 section 2). */
export function domainSearchOption(domains: readonly string[]): Uint8Array {
  const parts = domains.map(domainNameBytes);
  const value = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    value.set(part, at);
    at += part.length;
  }
  return value;
}
