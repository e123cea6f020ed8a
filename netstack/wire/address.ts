/**
 * Addresses. Inside the core an IPv4 address is a number (host order), a MAC address is a 48-bit number, and an address of
 * either family is 16 bytes at an offset, IPv4 in the mapped form ::ffff:a.b.c.d (RFC 4291 section 2.5.5.2). Text exists
 * only at the edge.
 */

/** Bytes of an address of either family. */
export const ADDRESS_LEN = 16;
/** Bytes of a MAC address. */
export const MAC_LEN = 6;
/** ff:ff:ff:ff:ff:ff as a number. */
export const MAC_BROADCAST = 0xffff_ffff_ffff;
/** 255.255.255.255 as a number. */
export const IPV4_BROADCAST = 0xffff_ffff;

/** Reads 2 bytes, most significant first. */
export function get16(buf: Uint8Array, off: number): number {
  return (buf[off]! << 8) | buf[off + 1]!;
}

/** Writes 2 bytes, most significant first. */
export function put16(buf: Uint8Array, off: number, value: number): void {
  buf[off] = value >>> 8;
  buf[off + 1] = value;
}

/** Reads 4 bytes as an unsigned number, most significant first: an IPv4 address, a sequence number. */
export function get32(buf: Uint8Array, off: number): number {
  return ((buf[off]! << 24) | (buf[off + 1]! << 16) | (buf[off + 2]! << 8) | buf[off + 3]!) >>> 0;
}

/** Writes 4 bytes, most significant first. */
export function put32(buf: Uint8Array, off: number, value: number): void {
  buf[off] = value >>> 24;
  buf[off + 1] = value >>> 16;
  buf[off + 2] = value >>> 8;
  buf[off + 3] = value;
}

/** A copy of `buf[off..end)`. Not slice(): a Buffer's shares its memory. */
export function copyBytes(buf: Uint8Array, off: number, end: number): Uint8Array {
  const copy = new Uint8Array(end - off);
  copy.set(buf.subarray(off, end));
  return copy;
}

/** Reads a MAC address as a number below 2^48. */
export function getMac(buf: Uint8Array, off: number): number {
  return get16(buf, off) * 0x1_0000_0000 + get32(buf, off + 2);
}

/** Writes a MAC address given as a number. */
export function putMac(buf: Uint8Array, off: number, mac: number): void {
  put16(buf, off, Math.floor(mac / 0x1_0000_0000));
  put32(buf, off + 2, mac % 0x1_0000_0000);
}

/** True for group addresses, broadcast among them (IEEE 802 I/G bit). */
export function isGroupMac(mac: number): boolean {
  return (Math.floor(mac / 0x100_0000_0000) & 1) === 1;
}

/** Copies an address of 16 bytes. */
export function copyAddress(from: Uint8Array, fromOff: number, to: Uint8Array, toOff: number): void {
  for (let i = 0; i < ADDRESS_LEN; i++) to[toOff + i] = from[fromOff + i]!;
}

/** True when two addresses of 16 bytes are the same. */
export function sameAddress(a: Uint8Array, aOff: number, b: Uint8Array, bOff: number): boolean {
  for (let i = ADDRESS_LEN - 1; i >= 0; i--) if (a[aOff + i] !== b[bOff + i]) return false;
  return true;
}

/** True for an IPv4 address in the mapped form. */
export function isMapped(buf: Uint8Array, off: number): boolean {
  for (let i = 0; i < 10; i++) if (buf[off + i] !== 0) return false;
  return buf[off + 10] === 0xff && buf[off + 11] === 0xff;
}

/** Writes an IPv4 address in the mapped form. */
export function putMapped(buf: Uint8Array, off: number, address: number): void {
  buf.fill(0, off, off + 10);
  buf[off + 10] = 0xff;
  buf[off + 11] = 0xff;
  put32(buf, off + 12, address);
}

/** An IPv4 address in the mapped form, as 16 bytes of its own. */
export function mapped(address: number): Uint8Array {
  const bytes = new Uint8Array(ADDRESS_LEN);
  putMapped(bytes, 0, address);
  return bytes;
}

/** The netmask of a prefix length, as a number. */
export function netmask(prefixLength: number): number {
  return prefixLength === 0 ? 0 : (0xffff_ffff << (32 - prefixLength)) >>> 0;
}

/** True when the first `prefixLength` bits of two addresses of 16 bytes agree. */
export function samePrefix(
  a: Uint8Array,
  aOff: number,
  b: Uint8Array,
  bOff: number,
  prefixLength: number,
): boolean {
  let i = 0;
  let bits = prefixLength;
  for (; bits >= 8; bits -= 8, i++) if (a[aOff + i] !== b[bOff + i]) return false;
  return bits === 0 || ((a[aOff + i]! ^ b[bOff + i]!) & (0xff00 >> bits)) === 0;
}

/** 224.0.0.0/4 (RFC 5771). */
export function isMulticastIpv4(address: number): boolean {
  return address >>> 28 === 0xe;
}

/** The Ethernet address of a multicast address: 01:00:5e and its low 23 bits (RFC 1112 section 6.4). */
export function multicastMacIpv4(address: number): number {
  return 0x0100_5e00_0000 + (address & 0x7f_ffff);
}

/** 127.0.0.0/8 (RFC 1122 section 3.2.1.3). */
export function isLoopbackIpv4(address: number): boolean {
  return address >>> 24 === 127;
}

/** 0.0.0.0/8, "this network": a source before there is an address, never a destination (RFC 1122 section 3.2.1.3). */
export function isThisNetworkIpv4(address: number): boolean {
  return address >>> 24 === 0;
}

/** 240.0.0.0/4, reserved, limited broadcast among it (RFC 1112 section 4). */
export function isReservedIpv4(address: number): boolean {
  return address >>> 28 === 0xf;
}

/** All 16 bytes zero: `::`. */
export function isUnspecifiedIpv6(buf: Uint8Array, off: number): boolean {
  for (let i = 0; i < ADDRESS_LEN; i++) if (buf[off + i] !== 0) return false;
  return true;
}

/** `::1`. */
export function isLoopbackIpv6(buf: Uint8Array, off: number): boolean {
  for (let i = 0; i < ADDRESS_LEN - 1; i++) if (buf[off + i] !== 0) return false;
  return buf[off + 15] === 1;
}

/** ff00::/8. */
export function isMulticastIpv6(buf: Uint8Array, off: number): boolean {
  return buf[off] === 0xff;
}

/** fe80::/10. */
export function isLinkLocalIpv6(buf: Uint8Array, off: number): boolean {
  return buf[off] === 0xfe && (buf[off + 1]! & 0xc0) === 0x80;
}

/** Reads dotted decimal; undefined for anything else. Leading zeros are refused, since some read them as octal. */
export function parseIpv4(text: string): number | undefined {
  const parts = text.split('.');
  if (parts.length !== 4) return undefined;
  let address = 0;
  for (const part of parts) {
    if (!/^(0|[1-9]\d{0,2})$/.test(part)) return undefined;
    const byte = Number(part);
    if (byte > 255) return undefined;
    address = address * 256 + byte;
  }
  return address;
}

/** Dotted decimal. */
export function formatIpv4(address: number): string {
  return `${address >>> 24}.${(address >>> 16) & 255}.${(address >>> 8) & 255}.${address & 255}`;
}

/** Reads the groups of one side of `::`; a dotted quad may end it. Undefined for bad text. */
function parseGroups(text: string, quadAllowed: boolean): number[] | undefined {
  if (text === '') return [];
  const groups: number[] = [];
  const parts = text.split(':');
  for (const [index, part] of parts.entries()) {
    if (quadAllowed && index === parts.length - 1 && part.includes('.')) {
      const quad = parseIpv4(part);
      if (quad === undefined) return undefined;
      groups.push(quad >>> 16, quad & 0xffff);
    } else if (/^[0-9a-fA-F]{1,4}$/.test(part)) groups.push(Number.parseInt(part, 16));
    else return undefined;
  }
  return groups;
}

/** Reads an IPv6 address (RFC 4291 section 2.2), without zone; undefined for anything else. */
export function parseIpv6(text: string): Uint8Array | undefined {
  const halves = text.split('::');
  if (halves.length > 2) return undefined;
  const compressed = halves.length === 2;
  const head = parseGroups(halves[0]!, !compressed);
  const tail = compressed ? parseGroups(halves[1]!, true) : [];
  if (!head || !tail) return undefined;
  const missing = 8 - head.length - tail.length;
  if (compressed ? missing < 1 : missing !== 0) return undefined;
  const bytes = new Uint8Array(ADDRESS_LEN);
  for (const [i, group] of head.entries()) put16(bytes, i * 2, group);
  for (const [i, group] of tail.entries()) put16(bytes, (8 - tail.length + i) * 2, group);
  return bytes;
}

/** The canonical text of an IPv6 address (RFC 5952): lower case, the longest run of zero groups compressed. */
export function formatIpv6(buf: Uint8Array, off: number): string {
  const groups: number[] = [];
  for (let i = 0; i < 8; i++) groups.push(get16(buf, off + i * 2));
  let bestStart = -1;
  let bestLength = 1;
  for (let start = 0; start < 8; start++) {
    let length = 0;
    while (start + length < 8 && groups[start + length] === 0) length++;
    if (length > bestLength) {
      bestStart = start;
      bestLength = length;
    }
  }
  const hex = (part: number[]): string => part.map((group) => group.toString(16)).join(':');
  if (bestStart < 0) return hex(groups);
  return `${hex(groups.slice(0, bestStart))}::${hex(groups.slice(bestStart + bestLength))}`;
}

/** Reads an address of either family into 16 bytes; undefined for anything else. */
export function parseAddress(text: string): Uint8Array | undefined {
  const ipv4 = parseIpv4(text);
  return ipv4 === undefined ? parseIpv6(text) : mapped(ipv4);
}

/** The text of an address of either family: dotted decimal for the mapped form. */
export function formatAddress(buf: Uint8Array, off: number): string {
  return isMapped(buf, off) ? formatIpv4(get32(buf, off + 12)) : formatIpv6(buf, off);
}

/** `address:port`, the address in brackets when it is IPv6. */
export function formatEndpoint(buf: Uint8Array, off: number, port: number): string {
  const address = formatAddress(buf, off);
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}

/** Reads `02:42:ac:11:00:02` or with dashes; undefined for anything else. */
export function parseMac(text: string): number | undefined {
  if (!/^[0-9a-f]{2}([:-][0-9a-f]{2}){5}$/i.test(text)) return undefined;
  return Number.parseInt(text.replaceAll(/[:-]/g, ''), 16);
}

/** `02:42:ac:11:00:02`. */
export function formatMac(mac: number): string {
  return mac
    .toString(16)
    .padStart(12, '0')
    .replaceAll(/..(?!$)/g, '$&:');
}
