/**
 * DNS messages (RFC 1035 section 4, EDNS0 of RFC 6891), as far as a forwarder needs them: it reads the question, walks the
 * records without understanding their data, and writes only its own few types. What it does not understand it passes on
 * byte for byte.
 *
 * Names are text with dots, without the final one ('' is the root). A byte of a label that is not printable ASCII, and a dot
 * or backslash inside a label, is written `\ddd` as in master files (RFC 1035 section 5.1), so that two different names are
 * never the same text. Everything read was written by a guest or by the outside: parsers return undefined, never throw.
 */
import { copyBytes, get16, get32, put16, put32 } from './address.ts';

export const DNS_PORT = 53;
export const DNS_HEADER_LEN = 12;
/** Largest message over UDP without EDNS0 (RFC 1035 section 2.3.4). */
export const DNS_UDP_LEN = 512;
/** UDP size that crosses any path unfragmented: DNS flag day 2020, RFC 9715 section 3.1. */
export const DNS_UDP_LEN_SAFE = 1232;
/** Largest message at all: TCP's length field. */
export const DNS_LEN_MAX = 65535;
/** Longest name in wire form (RFC 1035 section 2.3.4). */
const NAME_LEN_MAX = 255;

/** Record types that are answered or treated here. */
export const DNS_TYPE = {
  a: 1,
  ns: 2,
  cname: 5,
  soa: 6,
  ptr: 12,
  aaaa: 28,
  opt: 41,
  svcb: 64,
  https: 65,
  tsig: 250,
  ixfr: 251,
  axfr: 252,
  any: 255,
} as const;

export const DNS_CLASS_IN = 1;

/** Response codes. */
export const DNS_RCODE = {
  noError: 0,
  formErr: 1,
  servFail: 2,
  nxDomain: 3,
  notImp: 4,
  refused: 5,
  badVers: 16,
} as const;

/** Bits of the flags word. */
export const DNS_FLAG = {
  response: 0x8000,
  authoritative: 0x0400,
  truncated: 0x0200,
  recursionDesired: 0x0100,
  recursionAvailable: 0x0080,
  authenticData: 0x0020,
  checkingDisabled: 0x0010,
} as const;

const OPCODE_MASK = 0x7800;
const EDNS_DO = 0x8000;

/** A name and where it ended. */
interface NameAt {
  name: string;
  next: number;
}

/** The first question of a message, and its header. */
export interface DnsQuestion {
  id: number;
  flags: number;
  opcode: number;
  rcode: number;
  /** In lower case: names compare without case (RFC 4343). */
  name: string;
  type: number;
  class: number;
  /** Offset behind the question. */
  end: number;
}

/** The pseudo-record OPT. */
export interface DnsEdns {
  /** Offset and end of the record in the message. */
  off: number;
  end: number;
  udpLen: number;
  version: number;
  /** Upper eight bits of the response code. */
  extendedRcode: number;
  dnssecOk: boolean;
  /** Codes of its options. */
  optionCodes: number[];
}

/** A record, by its offsets. */
export interface DnsRecord {
  section: 'answer' | 'authority' | 'additional';
  off: number;
  type: number;
  class: number;
  ttlOff: number;
  ttlSeconds: number;
  dataOff: number;
  end: number;
}

function labelText(buf: Uint8Array, off: number, len: number): string {
  let text = '';
  for (let i = off; i < off + len; i++) {
    const byte = buf[i]!;
    if (byte >= 0x41 && byte <= 0x5a) text += String.fromCharCode(byte + 0x20);
    else if (byte <= 0x20 || byte >= 0x7f || byte === 0x2e || byte === 0x5c)
      text += `\\${String(byte).padStart(3, '0')}`;
    else text += String.fromCharCode(byte);
  }
  return text;
}

/**
 * Reads the name at `at` of the message `buf[off..end)`, in lower case. Compression pointers must lead backwards, which
 * ends every loop.
 */
export function readName(buf: Uint8Array, off: number, at: number, end: number): NameAt | undefined {
  let name = '';
  let next = -1;
  let wireLen = 1;
  let bound = at;
  let pos = at;
  for (;;) {
    if (pos >= end) return undefined;
    const len = buf[pos]!;
    if (len === 0) return { name, next: next < 0 ? pos + 1 : next };
    if ((len & 0xc0) === 0xc0) {
      if (pos + 2 > end) return undefined;
      if (next < 0) next = pos + 2;
      pos = off + (((len & 0x3f) << 8) | buf[pos + 1]!);
      if (pos >= bound) return undefined;
      bound = pos;
      continue;
    }
    if (len > 63 || pos + 1 + len > end) return undefined;
    wireLen += len + 1;
    if (wireLen > NAME_LEN_MAX) return undefined;
    name += (name === '' ? '' : '.') + labelText(buf, pos + 1, len);
    pos += len + 1;
  }
}

/** Steps over the name at `at`; the offset behind it, or -1. */
function skipName(buf: Uint8Array, at: number, end: number): number {
  for (let pos = at; pos < end; ) {
    const len = buf[pos]!;
    if (len === 0) return pos + 1;
    if (len >= 0xc0) return pos + 2 <= end ? pos + 2 : -1;
    if (len > 63) return -1;
    pos += len + 1;
  }
  return -1;
}

/** The wire form of a name in text, or undefined when a label or the whole is too long. */
export function nameBytes(name: string): Uint8Array | undefined {
  const bytes: number[] = [];
  if (name !== '') {
    for (const label of name.split('.')) {
      const start = bytes.push(0) - 1;
      for (let i = 0; i < label.length; i++) {
        if (label[i] === '\\') {
          bytes.push(Number(label.slice(i + 1, i + 4)) & 0xff);
          i += 3;
        } else bytes.push(label.charCodeAt(i) & 0xff);
      }
      const len = bytes.length - start - 1;
      if (len === 0 || len > 63) return undefined;
      bytes[start] = len;
    }
  }
  bytes.push(0);
  return bytes.length > NAME_LEN_MAX ? undefined : Uint8Array.from(bytes);
}

/** Reads header and question of `buf[off..end)`. Undefined unless there is exactly one question, in full. */
export function parseQuestion(buf: Uint8Array, off: number, end: number): DnsQuestion | undefined {
  if (end - off < DNS_HEADER_LEN || get16(buf, off + 4) !== 1) return undefined;
  const at = readName(buf, off, off + DNS_HEADER_LEN, end);
  if (!at || at.next + 4 > end) return undefined;
  const flags = get16(buf, off + 2);
  return {
    id: get16(buf, off),
    flags,
    opcode: (flags & OPCODE_MASK) >>> 11,
    rcode: flags & 0xf,
    name: at.name,
    type: get16(buf, at.next),
    class: get16(buf, at.next + 2),
    end: at.next + 4,
  };
}

/** Whether a message has no question at all; some servers answer FORMERR so. */
export function hasNoQuestion(buf: Uint8Array, off: number, end: number): boolean {
  return end - off >= DNS_HEADER_LEN && get16(buf, off + 4) === 0;
}

/** The records behind the question at `at`, or undefined when one is malformed or missing. */
export function readRecords(buf: Uint8Array, off: number, at: number, end: number): DnsRecord[] | undefined {
  const records: DnsRecord[] = [];
  const sections = ['answer', 'authority', 'additional'] as const;
  let pos = at;
  for (let s = 0; s < 3; s++) {
    for (let count = get16(buf, off + 6 + 2 * s); count > 0; count--) {
      const fixed = skipName(buf, pos, end);
      if (fixed < 0 || fixed + 10 > end) return undefined;
      const next = fixed + 10 + get16(buf, fixed + 8);
      if (next > end) return undefined;
      records.push({
        section: sections[s]!,
        off: pos,
        type: get16(buf, fixed),
        class: get16(buf, fixed + 2),
        ttlOff: fixed + 4,
        ttlSeconds: get32(buf, fixed + 4),
        dataOff: fixed + 10,
        end: next,
      });
      pos = next;
    }
  }
  return records;
}

/** The OPT record among `records`; undefined when there is none. Its options are read as far as they are sound. */
export function findEdns(buf: Uint8Array, records: readonly DnsRecord[]): DnsEdns | undefined {
  for (const record of records) {
    if (record.type !== DNS_TYPE.opt || record.section !== 'additional') continue;
    const optionCodes: number[] = [];
    for (let at = record.dataOff; at + 4 <= record.end; at += 4 + get16(buf, at + 2))
      optionCodes.push(get16(buf, at));
    return {
      off: record.off,
      end: record.end,
      udpLen: record.class,
      version: buf[record.ttlOff + 1]!,
      extendedRcode: buf[record.ttlOff]!,
      dnssecOk: (get16(buf, record.ttlOff + 2) & EDNS_DO) !== 0,
      optionCodes,
    };
  }
  return undefined;
}

/** A record of our own, for {@link encodeAnswer}; its owner is the question's name unless it says another. */
export interface OwnRecord {
  type: number;
  ttlSeconds: number;
  data: Uint8Array;
}

/** What an answer of our own says besides its records. */
export interface AnswerOptions {
  rcode: number;
  authoritative?: boolean;
  /** Set when the query had an OPT: the answer must have one too (RFC 6891 section 6.1.1). */
  edns?: { dnssecOk: boolean };
}

/** Writes an answer to the query `buf[off..)`, whose question ended at `question.end`; the question's bytes are kept. */
export function encodeAnswer(
  buf: Uint8Array,
  off: number,
  question: DnsQuestion,
  records: readonly OwnRecord[],
  options: AnswerOptions,
): Uint8Array {
  const questionLen = question.end - off - DNS_HEADER_LEN;
  let len = DNS_HEADER_LEN + questionLen + (options.edns ? 11 : 0);
  for (const record of records) len += 12 + record.data.length;
  const out = new Uint8Array(len);
  put16(out, 0, question.id);
  put16(out, 2, answerFlags(question.flags, options));
  put16(out, 4, 1);
  put16(out, 6, records.length);
  put16(out, 10, options.edns ? 1 : 0);
  out.set(buf.subarray(off + DNS_HEADER_LEN, question.end), DNS_HEADER_LEN);
  let at = DNS_HEADER_LEN + questionLen;
  for (const record of records) {
    put16(out, at, 0xc000 | DNS_HEADER_LEN);
    put16(out, at + 2, record.type);
    put16(out, at + 4, DNS_CLASS_IN);
    put32(out, at + 6, record.ttlSeconds);
    put16(out, at + 10, record.data.length);
    out.set(record.data, at + 12);
    at += 12 + record.data.length;
  }
  if (options.edns) putEdns(out, at, options.rcode >>> 4, options.edns.dnssecOk);
  return out;
}

/** An answer without a question, for a query whose question cannot be read (RFC 1035 section 4.1.1, FORMERR). */
export function encodeHeaderOnly(id: number, flags: number, rcode: number): Uint8Array {
  const out = new Uint8Array(DNS_HEADER_LEN);
  put16(out, 0, id);
  put16(out, 2, answerFlags(flags, { rcode }));
  return out;
}

function answerFlags(queryFlags: number, options: AnswerOptions): number {
  return (
    DNS_FLAG.response |
    (queryFlags & (OPCODE_MASK | DNS_FLAG.recursionDesired | DNS_FLAG.checkingDisabled)) |
    (options.authoritative ? DNS_FLAG.authoritative : 0) |
    DNS_FLAG.recursionAvailable |
    (options.rcode & 0xf)
  );
}

/** Writes an OPT record without options (RFC 6891 section 6.1.2). */
function putEdns(out: Uint8Array, at: number, extendedRcode: number, dnssecOk: boolean): void {
  out[at] = 0;
  put16(out, at + 1, DNS_TYPE.opt);
  put16(out, at + 3, DNS_UDP_LEN_SAFE);
  out[at + 5] = extendedRcode;
  out[at + 6] = 0;
  put16(out, at + 7, dnssecOk ? EDNS_DO : 0);
  put16(out, at + 9, 0);
}

/** A copy of `message` with an OPT record of ours behind it. */
export function withEdns(message: Uint8Array, extendedRcode: number, dnssecOk: boolean): Uint8Array {
  const out = new Uint8Array(message.length + 11);
  out.set(message);
  putEdns(out, message.length, extendedRcode, dnssecOk);
  put16(out, 10, get16(out, 10) + 1);
  return out;
}

/** A copy of `message` without its OPT record, which must be its last. */
export function withoutEdns(message: Uint8Array, edns: DnsEdns): Uint8Array {
  const out = copyBytes(message, 0, edns.off);
  put16(out, 10, get16(out, 10) - 1);
  return out;
}

/**
 * Cuts an answer to `lenMax` bytes at a record's border and sets TC (RFC 2181 section 9); an OPT record stays. Answers that
 * fit come back as they are. Undefined when not even the question fits or the message is malformed.
 */
export function truncate(message: Uint8Array, lenMax: number): Uint8Array | undefined {
  if (message.length <= lenMax) return message;
  const question = parseQuestion(message, 0, message.length);
  const records = question && readRecords(message, 0, question.end, message.length);
  if (!question || !records) return undefined;
  const edns = findEdns(message, records);
  const room = lenMax - (edns ? edns.end - edns.off : 0);
  if (question.end > room) return undefined;

  const counts = { answer: 0, authority: 0, additional: 0 };
  let cut = question.end;
  for (const record of records) {
    if (record.type === DNS_TYPE.opt || record.end > room) break;
    cut = record.end;
    counts[record.section]++;
  }
  const out = new Uint8Array(cut + (edns ? edns.end - edns.off : 0));
  out.set(message.subarray(0, cut));
  if (edns) {
    out.set(message.subarray(edns.off, edns.end), cut);
    counts.additional++;
  }
  put16(out, 2, get16(out, 2) | DNS_FLAG.truncated);
  put16(out, 6, counts.answer);
  put16(out, 8, counts.authority);
  put16(out, 10, counts.additional);
  return out;
}

/** Sets the id of a message. */
export function setId(message: Uint8Array, id: number): void {
  put16(message, 0, id);
}

/** The flags word of a message. */
export function flagsOf(message: Uint8Array, off = 0): number {
  return get16(message, off + 2);
}

/** Sets the flags word of a message. */
export function setFlags(message: Uint8Array, flags: number): void {
  put16(message, 2, flags);
}

/** Sets a TTL found by {@link readRecords}. */
export function setTtl(message: Uint8Array, ttlOff: number, ttlSeconds: number): void {
  put32(message, ttlOff, ttlSeconds);
}

/** The `minimum` field of a SOA record, or undefined when it is malformed. */
export function soaMinimum(message: Uint8Array, record: DnsRecord): number | undefined {
  const mname = skipName(message, record.dataOff, record.end);
  const rname = mname < 0 ? -1 : skipName(message, mname, record.end);
  return rname < 0 || rname + 20 > record.end ? undefined : get32(message, rname + 16);
}

/** The IPv4 address that a name under in-addr.arpa stands for, as four bytes, or the IPv6 one under ip6.arpa as sixteen. */
export function reverseAddress(name: string): Uint8Array | undefined {
  const labels = name.split('.');
  if (name.endsWith('.in-addr.arpa') && labels.length === 6) {
    const bytes = new Uint8Array(4);
    for (let i = 0; i < 4; i++) {
      const label = labels[3 - i]!;
      if (!/^(0|[1-9]\d{0,2})$/.test(label) || Number(label) > 255) return undefined;
      bytes[i] = Number(label);
    }
    return bytes;
  }
  if (name.endsWith('.ip6.arpa') && labels.length === 34) {
    const bytes = new Uint8Array(16);
    for (let i = 0; i < 32; i++) {
      const label = labels[31 - i]!;
      if (!/^[0-9a-f]$/.test(label)) return undefined;
      bytes[i >> 1] = (bytes[i >> 1]! << 4) | Number.parseInt(label, 16);
    }
    return bytes;
  }
  return undefined;
}
