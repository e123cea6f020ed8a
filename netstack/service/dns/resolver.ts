/**
 * The network's DNS server, sans I/O. A query comes in with the client that asked; what the network knows itself is
 * answered at once (names.ts), what is in the cache too, and the rest is forwarded byte for byte with a fresh id.
 *
 * A forwarded query is a {@link Pending}: identical queries wait for the same one, so a thousand clients cost one upstream
 * query and cannot help a forger to guess (RFC 5452 section 5). It asks the first server, after a while the next one
 * without giving up on the first, and takes the first sound answer. A truncated answer is asked again over TCP, so that what
 * is cached is whole; a client over UDP then gets as much of it as fits.
 *
 * An answer counts only when it comes from where the query went, to the port from which it was sent (the driver opens one
 * socket for each), with its id and its question (RFC 5452 section 9).
 */
import type { Rng } from '#common/rng';
import { copyBytes, sameAddress } from '../../wire/address.ts';
import {
  DNS_CLASS_IN,
  DNS_FLAG,
  DNS_RCODE,
  DNS_TYPE,
  type DnsQuestion,
  encodeHeaderOnly,
  findEdns,
  flagsOf,
  nameBytes,
  type OwnRecord,
  parseQuestion,
  readRecords,
  setId,
  truncate,
  withEdns,
} from '../../wire/dns.ts';
import { cacheKey, DnsCache } from './cache.ts';
import { addressData, canonicalName, type NameTable } from './names.ts';
import {
  acceptableRcode,
  answer,
  type DnsClient,
  type DnsTransport,
  type Query,
  readQuery,
  refuseTooLong,
  replyLimit,
} from './query.ts';
import type { DnsQueryLog } from './query-log.ts';
import { type Upstream, UpstreamSet } from './upstreams.ts';

/** Most queries being forwarded at once. */
export const PENDING_MAX = 2048;
/** Most queries that one client may have waiting, so that it cannot take all of the above. */
export const PENDING_PER_CLIENT_MAX = 1024;
/** Most clients that wait for the same answer. */
export const WAITERS_MAX = 256;
/** How long until the next server is asked as well. */
export const ATTEMPT_MS = 1500;
/** How often servers are asked for one query, in all. */
export const ATTEMPTS_MAX = 6;
/** After this long a query is answered with SERVFAIL; stub resolvers give up after 5 to 10 s. */
export const QUERY_MS = 9000;
/** Answers of our own are true only now. */
const OWN_TTL_S = 0;

/** A query to an upstream server, for the driver to send from a socket of its own. */
export interface DnsExchange {
  readonly id: number;
  readonly upstream: Upstream;
  readonly transport: DnsTransport;
  readonly message: Uint8Array;
}

/** What the resolver asks of its driver. Results come back by {@link DnsResolver.answered} and {@link DnsResolver.failed}, never from within these calls. */
export interface DnsDriver {
  send(exchange: DnsExchange): void;
  /** The exchange is over: its socket can be closed. Also called after its answer was taken. */
  close(exchange: DnsExchange): void;
}

/** Addresses that a name was answered with, for policies by name. */
export type AnswerObserver = (name: string, addresses: readonly Uint8Array[], ttlSeconds: number) => void;

/** How a resolver is made. */
export interface DnsResolverOptions {
  names: NameTable;
  driver: DnsDriver;
  rng: Rng;
  observer?: AnswerObserver;
  /** False for names that must not be asked upstream: such a query is refused. */
  mayAsk?: (name: string, client: DnsClient) => boolean;
  /** Notes every well-formed question and its answer. */
  log?: DnsQueryLog;
}

/** What one client is told besides, or instead of, what all are. */
export interface ClientView {
  /** Asked instead of the others. */
  upstreams: readonly Upstream[] | undefined;
  names: readonly (readonly [name: string, addresses: readonly Uint8Array[]])[];
}

interface Waiter {
  client: DnsClient;
  id: number;
}

interface Attempt extends DnsExchange {
  pending: Pending;
}

interface Pending {
  key: string;
  cacheKey: string | undefined;
  query: Uint8Array;
  question: DnsQuestion;
  transport: DnsTransport;
  waiters: Waiter[];
  attempts: Set<Attempt>;
  asked: number;
  upstreams: UpstreamSet;
  retryAt: number;
  deadlineAt: number;
  /** What to answer when nothing better comes: a server's refusal, or a truncated answer that could not be completed. */
  fallback: Uint8Array | undefined;
}

/** The server. */
export class DnsResolver {
  readonly #names: NameTable;
  readonly #driver: DnsDriver;
  readonly #rng: Rng;
  readonly #observer: AnswerObserver | undefined;
  readonly #mayAsk: (name: string, client: DnsClient) => boolean;
  readonly #log: DnsQueryLog | undefined;
  readonly #upstreams = new UpstreamSet();
  readonly #clients = new Map<
    string,
    { upstreams: UpstreamSet | undefined; names: Map<string, readonly Uint8Array[]> }
  >();
  readonly #cache = new DnsCache();
  readonly #pending = new Map<string, Pending>();
  readonly #attempts = new Map<number, Attempt>();
  readonly #perClient = new Map<string, number>();
  #lastExchange = 0;
  readonly #counters: Record<string, number> = {
    dns_queries_udp: 0,
    dns_queries_tcp: 0,
    dns_malformed: 0,
    dns_answered_here: 0,
    dns_forwarded: 0,
    dns_upstream_queries: 0,
    dns_upstream_tcp_retries: 0,
    dns_upstream_failures: 0,
    dns_upstream_rejected: 0,
    dns_over_limit: 0,
    dns_denied: 0,
    dns_servfail: 0,
  };

  constructor(options: DnsResolverOptions) {
    this.#names = options.names;
    this.#driver = options.driver;
    this.#rng = options.rng;
    this.#observer = options.observer;
    this.#mayAsk = options.mayAsk ?? (() => true);
    this.#log = options.log;
  }

  /** Counters by name, and the number of entries cached. */
  get counters(): Record<string, number> {
    return {
      ...this.#counters,
      ...this.#cache.counters,
      dns_cache_entries: this.#cache.size,
      dns_pending: this.#pending.size,
    };
  }

  #count(counter: string): void {
    this.#counters[counter]!++;
  }

  /** Replaces the upstream servers. What was cached came from others and is forgotten. */
  setUpstreams(upstreams: readonly Upstream[]): void {
    if (this.#upstreams.set(upstreams)) this.#cache.clear();
  }

  /** Replaces what one client is told, by its {@link DnsClient.id}; undefined: what all are. */
  setClient(id: string, view: ClientView | undefined): void {
    if (view === undefined) return void this.#clients.delete(id);
    const upstreams = view.upstreams && new UpstreamSet();
    upstreams?.set(view.upstreams ?? []);
    const names = new Map(view.names.map(([name, addresses]) => [canonicalName(name), addresses]));
    this.#clients.set(id, { upstreams, names });
  }

  /** The upstream servers in use. */
  upstreams(): readonly Upstream[] {
    return this.#upstreams.list();
  }

  /** Takes the query in `buf[off..end)`. The bytes are only used during the call. */
  receive(now: number, buf: Uint8Array, off: number, end: number, client: DnsClient): void {
    this.#count(client.transport === 'udp' ? 'dns_queries_udp' : 'dns_queries_tcp');
    // An answer is never answered: two servers could be set on each other.
    if (end - off < 12 || flagsOf(buf, off) & DNS_FLAG.response) {
      this.#count('dns_malformed');
      return;
    }
    const query = readQuery(buf, off, end, client);
    if (!query) {
      this.#count('dns_malformed');
      client.reply(encodeHeaderOnly((buf[off]! << 8) | buf[off + 1]!, flagsOf(buf, off), DNS_RCODE.formErr));
      return;
    }
    if (this.#log) query.client = this.#log.watch(query);
    const own = this.#answerHere(now, query);
    if (own) {
      this.#count('dns_answered_here');
      query.client.reply(truncate(own, replyLimit(query)) ?? own);
    } else if (this.#mayAsk(query.question.name, client)) this.#forward(now, query);
    else {
      this.#count('dns_denied');
      query.client.reply(answer(query, DNS_RCODE.refused));
    }
  }

  /** What can be said without asking anybody; undefined: forward. */
  #answerHere(now: number, query: Query): Uint8Array | undefined {
    const { question, edns, client } = query;
    if (question.opcode !== 0) return answer(query, DNS_RCODE.notImp);
    // A transfer is many messages, and no business of a stub resolver.
    if (question.type === DNS_TYPE.axfr || question.type === DNS_TYPE.ixfr)
      return answer(query, DNS_RCODE.refused);
    if (question.class !== DNS_CLASS_IN) return undefined;
    const records = this.#ownRecords(now, question, client);
    if (!records) return undefined;
    // RFC 6891 section 6.1.3.
    if (edns && edns.version !== 0) return answer(query, DNS_RCODE.badVers);
    return records === 'unknown-here'
      ? answer(query, DNS_RCODE.nxDomain)
      : answer(query, DNS_RCODE.noError, records);
  }

  #ownRecords(
    now: number,
    question: DnsQuestion,
    client: DnsClient,
  ): OwnRecord[] | 'unknown-here' | undefined {
    const { name, type } = question;
    const record = (recordType: number, data: Uint8Array | undefined): OwnRecord[] =>
      data ? [{ type: recordType, ttlSeconds: OWN_TTL_S, data }] : [];
    const reverse = this.#names.reverse(now, name);
    if (reverse === 'unknown-here') return reverse;
    if (reverse) {
      const isAsked = type === DNS_TYPE.ptr || type === DNS_TYPE.any;
      return isAsked ? reverse.flatMap((target) => record(DNS_TYPE.ptr, nameBytes(target))) : [];
    }
    const own = this.#clients.get(client.id)?.names.get(canonicalName(name));
    const all = this.#names.lookup(now, name, type);
    // A name that this network has is this network's; the client's other networks come after.
    const known = (!all || all === 'unknown-here') && own ? { addresses: own } : all;
    if (!known || known === 'unknown-here') return known;
    // A known name without this type: NOERROR and no records (RFC 2308 section 2.2).
    return [DNS_TYPE.a, DNS_TYPE.aaaa]
      .filter((wanted) => type === wanted || type === DNS_TYPE.any)
      .flatMap((wanted) =>
        known.addresses.flatMap((address) => record(wanted, addressData(address, wanted))),
      );
  }

  #forward(now: number, query: Query): void {
    const { buf, off, question, edns, client } = query;
    const upstreams = this.#clients.get(client.id)?.upstreams;
    // Others get no answers of servers that are not theirs.
    const key = query.isPlain && !upstreams ? cacheKey(question, edns?.dnssecOk ?? false) : undefined;
    const cached = key === undefined ? undefined : this.#cache.answer(now, key, buf, off, question);
    if (cached) {
      const whole = edns ? withEdns(cached, 0, edns.dnssecOk) : cached;
      client.reply(truncate(whole, replyLimit(query)) ?? whole);
      return;
    }
    const waiter = { client, id: question.id };
    const pendingKey = `${upstreams ? client.id : ''} ${client.transport} ${latin1(buf, off + 2, query.end)}`;
    const same = this.#pending.get(pendingKey);
    const waiting = this.#perClient.get(client.id) ?? 0;
    if (
      waiting >= PENDING_PER_CLIENT_MAX ||
      (same ? same.waiters.length >= WAITERS_MAX : this.#pending.size >= PENDING_MAX)
    ) {
      this.#count('dns_over_limit');
      client.reply(answer(query, DNS_RCODE.servFail));
      return;
    }
    this.#perClient.set(client.id, waiting + 1);
    if (same) {
      same.waiters.push(waiter);
      return;
    }
    const pending: Pending = {
      key: pendingKey,
      cacheKey: key,
      query: copyBytes(buf, off, query.end),
      question: { ...question, end: question.end - off },
      transport: client.transport,
      waiters: [waiter],
      attempts: new Set(),
      asked: 0,
      upstreams: upstreams ?? this.#upstreams,
      retryAt: now,
      deadlineAt: now + QUERY_MS,
      fallback: undefined,
    };
    this.#count('dns_forwarded');
    this.#pending.set(pendingKey, pending);
    this.#askNext(now, pending);
  }

  /** Asks the next server, or ends the query when there is none to wait for. */
  #askNext(now: number, pending: Pending): void {
    const servers = pending.upstreams.choose(now, pending.question.name);
    const busy = new Set([...pending.attempts].map((attempt) => attempt.upstream));
    const server =
      pending.asked < ATTEMPTS_MAX && servers.length > 0
        ? (servers.find((candidate) => !busy.has(candidate)) ?? servers[pending.asked % servers.length])
        : undefined;
    if (server) {
      pending.asked++;
      pending.retryAt = now + (server.timeoutMs ?? ATTEMPT_MS);
      this.#ask(pending, server, pending.transport);
      return;
    }
    pending.retryAt = Number.POSITIVE_INFINITY;
    if (pending.attempts.size === 0) this.#finish(now, pending, undefined);
  }

  #ask(pending: Pending, upstream: Upstream, transport: DnsTransport): void {
    const message = pending.query.slice();
    setId(message, this.#rng.uint32() & 0xffff);
    this.#lastExchange++;
    const attempt: Attempt = { id: this.#lastExchange, upstream, transport, message, pending };
    pending.attempts.add(attempt);
    this.#attempts.set(attempt.id, attempt);
    this.#count('dns_upstream_queries');
    this.#driver.send(attempt);
  }

  #closeAttempt(attempt: Attempt): void {
    attempt.pending.attempts.delete(attempt);
    this.#attempts.delete(attempt.id);
    this.#driver.close(attempt);
  }

  /**
   * A message, `buf[off..off+len)`, has come for an exchange, from `addr` (16 bytes at addrOff) and `port`. What does not
   * fit is dropped and the exchange goes on. The bytes are only used during the call.
   */
  answered(
    now: number,
    exchangeId: number,
    buf: Uint8Array,
    off: number,
    len: number,
    addr: Uint8Array,
    addrOff: number,
    port: number,
  ): void {
    const attempt = this.#attempts.get(exchangeId);
    if (!attempt) return;
    const { upstream, pending } = attempt;
    const message = copyBytes(buf, off, off + len);
    const isFromServer = port === upstream.port && sameAddress(addr, addrOff, upstream.address, 0);
    const rcode = isFromServer ? acceptableRcode(message, attempt.message, pending.question) : undefined;
    if (rcode === undefined) {
      this.#count('dns_upstream_rejected');
      return;
    }
    const isTruncated = (flagsOf(message) & DNS_FLAG.truncated) !== 0 && attempt.transport === 'udp';
    this.#closeAttempt(attempt);
    if (isTruncated) {
      pending.fallback ??= message;
      this.#count('dns_upstream_tcp_retries');
      this.#ask(pending, upstream, 'tcp');
      return;
    }
    if (rcode === DNS_RCODE.servFail || rcode === DNS_RCODE.refused || rcode === DNS_RCODE.notImp) {
      pending.upstreams.failed(now, upstream);
      pending.fallback ??= message;
      this.#askOther(now, pending);
      return;
    }
    pending.upstreams.succeeded(upstream);
    this.#finish(now, pending, message);
  }

  /** An exchange came to nothing: refused, unreachable, closed before its answer. */
  failed(now: number, exchangeId: number): void {
    const attempt = this.#attempts.get(exchangeId);
    if (!attempt) return;
    this.#count('dns_upstream_failures');
    attempt.pending.upstreams.failed(now, attempt.upstream);
    this.#closeAttempt(attempt);
    this.#askOther(now, attempt.pending);
  }

  /** A server has said that it cannot: asks the others now, each once. */
  #askOther(now: number, pending: Pending): void {
    if (pending.asked < pending.upstreams.choose(now, pending.question.name).length)
      this.#askNext(now, pending);
    else if (pending.attempts.size === 0) this.#finish(now, pending, undefined);
  }

  /** Ends a query with an upstream's answer, or without one. */
  #finish(now: number, pending: Pending, message: Uint8Array | undefined): void {
    for (const attempt of [...pending.attempts]) this.#closeAttempt(attempt);
    this.#pending.delete(pending.key);
    const query = asQuery(pending);
    if (message) this.#learn(now, pending, message);
    const result = message ?? pending.fallback ?? answer(query, DNS_RCODE.servFail);
    if (!message) this.#count('dns_servfail');
    for (const { client, id } of pending.waiters) {
      const left = (this.#perClient.get(client.id) ?? 1) - 1;
      if (left > 0) this.#perClient.set(client.id, left);
      else this.#perClient.delete(client.id);
      const limit = replyLimit({ ...query, client });
      const whole = result.slice();
      // What came over TCP in place of a truncated answer says TC no more; what is a fallback still does.
      setId(whole, id);
      client.reply(truncate(whole, limit) ?? refuseTooLong(whole));
    }
  }

  #learn(now: number, pending: Pending, message: Uint8Array): void {
    const question = parseQuestion(message, 0, message.length);
    if (!question) return;
    if (pending.cacheKey !== undefined) this.#cache.store(now, pending.cacheKey, message, question);
    if (!this.#observer) return;
    const addresses: Uint8Array[] = [];
    let ttlSeconds = Number.POSITIVE_INFINITY;
    for (const record of readRecords(message, 0, question.end, message.length) ?? []) {
      if (record.section !== 'answer') continue;
      const len = record.end - record.dataOff;
      const isAddress =
        (record.type === DNS_TYPE.a && len === 4) || (record.type === DNS_TYPE.aaaa && len === 16);
      if (!isAddress) continue;
      const address = new Uint8Array(16);
      if (len === 4) address.fill(0xff, 10, 12);
      address.set(message.subarray(record.dataOff, record.end), 16 - len);
      addresses.push(address);
      ttlSeconds = Math.min(ttlSeconds, record.ttlSeconds);
    }
    if (addresses.length > 0) this.#observer(question.name, addresses, ttlSeconds);
  }

  /** Does what is due. */
  poll(now: number): void {
    for (const pending of [...this.#pending.values()]) {
      if (pending.deadlineAt <= now) {
        for (const { upstream } of pending.attempts) pending.upstreams.failed(now, upstream);
        this.#finish(now, pending, undefined);
      } else if (pending.retryAt <= now) {
        for (const { upstream } of pending.attempts) pending.upstreams.failed(now, upstream);
        this.#askNext(now, pending);
      }
    }
  }

  /** When poll() has something to do, or Infinity. */
  pollAt(): number {
    let at = Number.POSITIVE_INFINITY;
    for (const pending of this.#pending.values()) at = Math.min(at, pending.retryAt, pending.deadlineAt);
    return at;
  }

  /** Drops all queries unanswered and closes their exchanges. */
  close(): void {
    for (const attempt of [...this.#attempts.values()]) this.#closeAttempt(attempt);
    this.#pending.clear();
    this.#perClient.clear();
  }
}

function asQuery(pending: Pending): Query {
  const { query, question, waiters } = pending;
  const records = readRecords(query, 0, question.end, query.length) ?? [];
  return {
    buf: query,
    off: 0,
    end: query.length,
    question,
    edns: findEdns(query, records),
    isPlain: pending.cacheKey !== undefined,
    client: waiters[0]!.client,
  };
}

function latin1(buf: Uint8Array, off: number, end: number): string {
  let text = '';
  for (let i = off; i < end; i++) text += String.fromCharCode(buf[i]!);
  return text;
}
