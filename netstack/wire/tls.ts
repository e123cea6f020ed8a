/**
 * As much of TLS as a policy by server name needs: the name that a ClientHello asks for (RFC 8446 section 4.1.2, RFC 6066
 * section 3). With Encrypted Client Hello it is the outer name, which the client shows to everybody.
 */
import { copyBytes, get16 } from './address.ts';

const RECORD_HEADER_LEN = 5;
const CONTENT_HANDSHAKE = 22;
const HANDSHAKE_CLIENT_HELLO = 1;
const EXTENSION_SERVER_NAME = 0;
const NAME_HOST = 0;
/** Longest ClientHello that is waited for; larger ones are taken as having no name. */
export const CLIENT_HELLO_BYTES_MAX: number = 16 * 1024;

/** What the first bytes of a connection say. `name` is undefined for TLS without a name and for what is no TLS. */
export type ClientHello = 'more' | { name: string | undefined };

/** Reads the first `len` bytes of a connection. */
export function readClientHello(buf: Uint8Array, len: number): ClientHello {
  const hello = new Uint8Array(CLIENT_HELLO_BYTES_MAX);
  let filled = 0;
  let wanted = 4;
  // A hello may lie in several records (RFC 8446 section 5.1).
  for (let at = 0; filled < wanted; ) {
    if (at < len && buf[at] !== CONTENT_HANDSHAKE) return { name: undefined };
    if (at + 1 < len && buf[at + 1] !== 3) return { name: undefined };
    if (at + RECORD_HEADER_LEN > len) return 'more';
    const recordLen = get16(buf, at + 3);
    const end = at + RECORD_HEADER_LEN + recordLen;
    const have = Math.min(end, len) - at - RECORD_HEADER_LEN;
    if (recordLen === 0 || filled + have > hello.length) return { name: undefined };
    hello.set(buf.subarray(at + RECORD_HEADER_LEN, at + RECORD_HEADER_LEN + have), filled);
    filled += have;
    if (filled >= 4) {
      if (hello[0] !== HANDSHAKE_CLIENT_HELLO) return { name: undefined };
      wanted = 4 + ((hello[1]! << 16) | get16(hello, 2));
      if (wanted > hello.length) return { name: undefined };
    }
    if (end > len && filled < wanted) return 'more';
    at = end;
  }
  return { name: serverName(hello, wanted) };
}

/** The host name in a whole ClientHello, in lower case. */
function serverName(hello: Uint8Array, end: number): string | undefined {
  // Header, version, random; then session id, cipher suites and compression methods, each behind its length.
  let at = 4 + 2 + 32;
  if (at + 1 > end) return undefined;
  at += 1 + hello[at]!;
  if (at + 2 > end) return undefined;
  at += 2 + get16(hello, at);
  if (at + 1 > end) return undefined;
  at += 1 + hello[at]!;
  if (at + 2 > end) return undefined;
  const extensionsEnd = Math.min(end, at + 2 + get16(hello, at));
  for (at += 2; at + 4 <= extensionsEnd; at += 4 + get16(hello, at + 2)) {
    if (get16(hello, at) !== EXTENSION_SERVER_NAME) continue;
    const dataEnd = at + 4 + get16(hello, at + 2);
    if (dataEnd > extensionsEnd || at + 9 > dataEnd || hello[at + 6] !== NAME_HOST) return undefined;
    const nameEnd = at + 9 + get16(hello, at + 7);
    if (nameEnd > dataEnd) return undefined;
    const text = String.fromCharCode(...copyBytes(hello, at + 9, nameEnd)).toLowerCase();
    return /^[\w.-]{1,253}$/.test(text) ? text.replace(/\.$/, '') : undefined;
  }
  return undefined;
}
