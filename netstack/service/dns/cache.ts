/**
 * Answers from upstream, kept for as long as their TTLs allow (RFC 1035 section 7.4, RFC 2181 section 8), also answers that
 * something does not exist (RFC 2308). Bounded by count and by bytes; the least recently used goes first.
 *
 * Messages are kept as they came, without OPT, and are handed out with the asker's id, spelling and remaining TTLs.
 */
import {
  DNS_FLAG,
  DNS_HEADER_LEN,
  DNS_RCODE,
  DNS_TYPE,
  type DnsQuestion,
  type DnsRecord,
  findEdns,
  flagsOf,
  readRecords,
  setFlags,
  setId,
  setTtl,
  soaMinimum,
  withoutEdns,
} from '../../wire/dns.ts';

export const CACHE_ENTRIES_MAX = 10_000;
export const CACHE_BYTES_MAX: number = 8 * 1024 * 1024;
/** Longest time that an answer is kept, whatever it says. */
export const CACHE_TTL_S_MAX = 86_400;
/** Longest time that absence is kept; RFC 2308 section 5 suggests one to three hours at most, people wait for new names. */
export const CACHE_NEGATIVE_TTL_S_MAX = 900;

interface Entry {
  /** Without OPT. */
  message: Uint8Array;
  ttls: { off: number; seconds: number }[];
  storedAt: number;
  expiresAt: number;
}

/** Flags of a query that change its answer. */
const KEY_FLAGS = DNS_FLAG.checkingDisabled | DNS_FLAG.authenticData;

/** The key under which a question's answer is kept. */
export function cacheKey(question: DnsQuestion, dnssecOk: boolean): string {
  return `${question.type} ${question.class} ${question.flags & KEY_FLAGS} ${dnssecOk ? 1 : 0} ${question.name}`;
}

/** For how many seconds an answer may be kept; 0: not at all. */
function lifetimeSeconds(message: Uint8Array, question: DnsQuestion, records: readonly DnsRecord[]): number {
  if (question.rcode !== DNS_RCODE.noError && question.rcode !== DNS_RCODE.nxDomain) return 0;
  if (question.flags & DNS_FLAG.truncated) return 0;
  let seconds = CACHE_TTL_S_MAX;
  let isPositive = false;
  let soa: DnsRecord | undefined;
  for (const record of records) {
    if (record.type === DNS_TYPE.opt) continue;
    // RFC 2181 section 8: a TTL with the highest bit set counts as zero.
    seconds = Math.min(seconds, record.ttlSeconds > 0x7fff_ffff ? 0 : record.ttlSeconds);
    if (record.section === 'answer')
      isPositive ||= record.type === question.type || question.type === DNS_TYPE.any;
    if (record.section === 'authority' && record.type === DNS_TYPE.soa) soa = record;
  }
  if (isPositive && question.rcode === DNS_RCODE.noError) return seconds;
  // RFC 2308 section 5: without a SOA, absence must not be kept.
  const minimum = soa && soaMinimum(message, soa);
  return minimum === undefined ? 0 : Math.min(seconds, minimum, CACHE_NEGATIVE_TTL_S_MAX);
}

/** The cache. */
export class DnsCache {
  readonly #entries = new Map<string, Entry>();
  #bytes = 0;
  readonly counters: Record<string, number> = {
    dns_cache_hits: 0,
    dns_cache_misses: 0,
    dns_cache_evictions: 0,
  };

  /** Entries held. */
  get size(): number {
    return this.#entries.size;
  }

  /** Keeps an upstream's answer, if it may be kept. `question` is the answer's own. */
  store(now: number, key: string, message: Uint8Array, question: DnsQuestion): void {
    const records = readRecords(message, 0, question.end, message.length);
    const seconds = records ? lifetimeSeconds(message, question, records) : 0;
    if (!records || seconds <= 0) return;
    const edns = findEdns(message, records);
    const last = records.at(-1)!;
    // Names behind an OPT might be pointed at; such messages are rare, and simply not kept.
    if (edns && (edns.end !== last.end || edns.extendedRcode !== 0)) return;
    const kept = edns ? withoutEdns(message, edns) : message.slice(0, last.end);
    this.#delete(key);
    this.#entries.set(key, {
      message: kept,
      ttls: records
        .filter((record) => record.type !== DNS_TYPE.opt)
        .map((record) => ({ off: record.ttlOff, seconds: record.ttlSeconds })),
      storedAt: now,
      expiresAt: now + seconds * 1000,
    });
    this.#bytes += kept.length;
    while (this.#entries.size > CACHE_ENTRIES_MAX || this.#bytes > CACHE_BYTES_MAX) {
      const oldest = this.#entries.keys().next();
      if (oldest.done) break;
      this.#delete(oldest.value);
      this.counters.dns_cache_evictions!++;
    }
  }

  /** The answer to the query `buf[off..)`, with its id and spelling and without OPT; undefined when none is kept. */
  answer(
    now: number,
    key: string,
    buf: Uint8Array,
    off: number,
    question: DnsQuestion,
  ): Uint8Array | undefined {
    const entry = this.#entries.get(key);
    if (!entry || entry.expiresAt <= now) {
      if (entry) this.#delete(key);
      this.counters.dns_cache_misses!++;
      return undefined;
    }
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    this.counters.dns_cache_hits!++;

    const message = entry.message.slice();
    setId(message, question.id);
    // RFC 1035 section 4.1.1: AA says that the responding server is an authority, which a cache is not.
    const kept = flagsOf(message) & ~(DNS_FLAG.authoritative | DNS_FLAG.recursionDesired);
    setFlags(message, kept | (question.flags & DNS_FLAG.recursionDesired));
    message.set(buf.subarray(off + DNS_HEADER_LEN, question.end), DNS_HEADER_LEN);
    const ageSeconds = Math.floor((now - entry.storedAt) / 1000);
    for (const { off: ttlOff, seconds } of entry.ttls)
      setTtl(message, ttlOff, Math.max(0, Math.min(seconds, CACHE_TTL_S_MAX) - ageSeconds));
    return message;
  }

  /** Forgets everything: the upstreams have changed, and with them what they know. */
  clear(): void {
    this.#entries.clear();
    this.#bytes = 0;
  }

  #delete(key: string): void {
    const entry = this.#entries.get(key);
    if (!entry) return;
    this.#bytes -= entry.message.length;
    this.#entries.delete(key);
  }
}
