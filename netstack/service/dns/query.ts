/** Queries as the resolver reads them, and its own answers to them. */
import {
  DNS_CLASS_IN,
  DNS_FLAG,
  DNS_RCODE,
  DNS_TYPE,
  DNS_UDP_LEN,
  type DnsEdns,
  type DnsQuestion,
  encodeAnswer,
  findEdns,
  flagsOf,
  hasNoQuestion,
  type OwnRecord,
  parseQuestion,
  readRecords,
  setFlags,
} from '../../wire/dns.ts';

export type DnsTransport = 'udp' | 'tcp';

/** Who asked. */
export interface DnsClient {
  readonly transport: DnsTransport;
  /** Names the asker for fairness between askers: its address. */
  readonly id: string;
  /** Sends an answer back. It is called at once or later, at most once for each query. */
  reply(message: Uint8Array): void;
}

/** A query, read. `buf` is only valid during the call that brought it. */
export interface Query {
  buf: Uint8Array;
  off: number;
  end: number;
  question: DnsQuestion;
  edns: DnsEdns | undefined;
  /** Its answer is the same for everybody, and may be kept. */
  isPlain: boolean;
  client: DnsClient;
}

/** EDNS options that do not change what the answer is: COOKIE, TCP keepalive, padding. */
const HARMLESS_OPTIONS: ReadonlySet<number> = new Set([10, 11, 12]);

/** Reads a query; undefined when it is malformed. */
export function readQuery(buf: Uint8Array, off: number, end: number, client: DnsClient): Query | undefined {
  const question = parseQuestion(buf, off, end);
  const records = question && readRecords(buf, off, question.end, end);
  if (!question || !records) return undefined;
  const edns = findEdns(buf, records);
  const isPlain =
    question.class === DNS_CLASS_IN &&
    (question.flags & DNS_FLAG.recursionDesired) !== 0 &&
    records.every((record) => record.type === DNS_TYPE.opt) &&
    (edns === undefined ||
      (edns.version === 0 && edns.optionCodes.every((code) => HARMLESS_OPTIONS.has(code))));
  return { buf, off, end: records.at(-1)?.end ?? question.end, question, edns, isPlain, client };
}

/** An answer of our own. */
export function answer(query: Query, rcode: number, records: readonly OwnRecord[] = []): Uint8Array {
  const { buf, off, question, edns } = query;
  return encodeAnswer(buf, off, question, records, {
    rcode,
    authoritative: rcode === DNS_RCODE.noError || rcode === DNS_RCODE.nxDomain,
    ...(edns && { edns: { dnssecOk: edns.dnssecOk } }),
  });
}

/** The largest answer that the asker takes (RFC 6891 section 6.2.3: values below 512 count as 512). */
export function replyLimit(query: Query): number {
  if (query.client.transport === 'tcp') return 65535;
  return Math.max(DNS_UDP_LEN, query.edns?.udpLen ?? 0);
}

/** A message that cannot be cut soundly: its header alone, with TC. */
export function refuseTooLong(message: Uint8Array): Uint8Array {
  const question = parseQuestion(message, 0, message.length);
  const cut = message.slice(0, question?.end ?? 12);
  cut.fill(0, 6, 12);
  if (!question) cut.fill(0, 4, 6);
  setFlags(cut, flagsOf(cut) | DNS_FLAG.truncated);
  return cut;
}

/** The response code of an answer to `sent`, or undefined when it is none (RFC 5452 section 9.1). */
export function acceptableRcode(
  message: Uint8Array,
  sent: Uint8Array,
  asked: DnsQuestion,
): number | undefined {
  if (message.length < 12 || message[0] !== sent[0] || message[1] !== sent[1]) return undefined;
  const flags = flagsOf(message);
  if (!(flags & DNS_FLAG.response)) return undefined;
  const rcode = flags & 0xf;
  if (hasNoQuestion(message, 0, message.length))
    return rcode === DNS_RCODE.noError || rcode === DNS_RCODE.nxDomain ? undefined : rcode;
  const question = parseQuestion(message, 0, message.length);
  if (question?.name !== asked.name || question.type !== asked.type || question.class !== asked.class)
    return undefined;
  return rcode;
}
