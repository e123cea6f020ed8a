/** What guests have asked the DNS server lately, and how it ended: for people who look at a network. A ring; it never grows. */
import { DNS_RCODE, DNS_TYPE } from '../../wire/dns.ts';
import type { DnsClient, Query } from './query.ts';

/** Questions that are remembered. */
export const DNS_LOG_ENTRIES_MAX = 200;

/** One question. */
export interface DnsLogEntry {
  /** Monotonic time of the question. */
  readonly at: number;
  /** Address of who asked. */
  readonly guest: string;
  readonly name: string;
  /** `A`, `AAAA`, or a type's number. */
  readonly type: string;
  /** `NOERROR`, `NXDOMAIN`, or a code's number; `pending` before there is one. */
  outcome: string;
  /** Records in the answer. */
  answers: number;
  /** Time to the answer. */
  tookMs: number | undefined;
}

/** The name of a number of one of the tables of wire/dns.ts, in capitals, or the number. */
function nameOf(table: Readonly<Record<string, number>>, number: number): string {
  const found = Object.entries(table).find(([, value]) => value === number);
  return found ? found[0].toUpperCase() : String(number);
}

/** The latest questions. */
export class DnsQueryLog {
  readonly #now: () => number;
  readonly #ring: DnsLogEntry[] = [];
  #next = 0;

  constructor(now: () => number) {
    this.#now = now;
  }

  /** Notes a question; the client that it returns notes the answer. */
  watch({ client, question }: Query): DnsClient {
    const at = this.#now();
    const entry: DnsLogEntry = {
      at,
      guest: client.id,
      name: question.name,
      type: nameOf(DNS_TYPE, question.type),
      outcome: 'pending',
      answers: 0,
      tookMs: undefined,
    };
    this.#ring[this.#next] = entry;
    this.#next = (this.#next + 1) % DNS_LOG_ENTRIES_MAX;
    return {
      transport: client.transport,
      id: client.id,
      reply: (message) => {
        // RFC 1035 section 4.1.1: RCODE is the low half of byte 3, ANCOUNT bytes 6 and 7.
        entry.outcome = nameOf(DNS_RCODE, message[3]! & 15);
        entry.answers = (message[6]! << 8) | message[7]!;
        entry.tookMs = this.#now() - at;
        client.reply(message);
      },
    };
  }

  /** Latest last. */
  entries(): readonly DnsLogEntry[] {
    return [...this.#ring.slice(this.#next), ...this.#ring.slice(0, this.#next)];
  }
}
