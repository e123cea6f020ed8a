/**
 * DNS over a byte stream (RFC 7766, RFC 1035 section 4.2.2): each message behind its length. Both ends are here, the server's
 * for clients that connect and the client's for upstream queries, and both work over any {@link HostStream}: a guest's
 * connection inside the stack, or a native socket.
 *
 * A server's connection takes several queries at once and answers them in whatever order they are ready. A client that
 * does not read its answers, or says nothing, is cut off.
 */
import type { HostError, HostStream, StreamSink } from '../../flow/host.ts';
import { formatAddress } from '../../wire/address.ts';
import { DNS_HEADER_LEN, DNS_LEN_MAX } from '../../wire/dns.ts';
import type { DnsExchange, DnsResolver } from './resolver.ts';

/** Most connections of clients at once, and of one client. */
export const DNS_CONNECTIONS_MAX = 256;
export const DNS_CONNECTIONS_PER_CLIENT_MAX = 32;
/** A connection without a query for this long is closed (RFC 7766 section 6.2.3 suggests seconds). */
export const DNS_IDLE_MS = 30_000;
/** Answers that a client has not read, at most. */
export const DNS_UNREAD_BYTES_MAX: number = 256 * 1024;

/** Cuts a stream of bytes into messages. */
class Deframer {
  #buffer = new Uint8Array(1024);
  #filled = 0;

  /**
   * Reads what the stream has; calls `message` for each complete one, until it says false: the stream is closed and must not
   * be touched. Returns false at the end of the stream.
   */
  read(stream: HostStream, message: (bytes: Uint8Array) => boolean): boolean {
    for (;;) {
      if (this.#filled === this.#buffer.length) this.#grow();
      const count = stream.read(this.#buffer, this.#filled, this.#buffer.length - this.#filled);
      if (count <= 0) return count === 0;
      this.#filled += count;
      if (!this.#drain(message)) return true;
    }
  }

  #drain(message: (bytes: Uint8Array) => boolean): boolean {
    let at = 0;
    while (this.#filled - at >= 2) {
      const end = at + 2 + ((this.#buffer[at]! << 8) | this.#buffer[at + 1]!);
      if (end > this.#filled) break;
      if (!message(this.#buffer.slice(at + 2, end))) return false;
      at = end;
    }
    this.#buffer.copyWithin(0, at, this.#filled);
    this.#filled -= at;
    return true;
  }

  #grow(): void {
    const larger = new Uint8Array(Math.min(this.#buffer.length * 4, DNS_LEN_MAX + 2));
    larger.set(this.#buffer);
    this.#buffer = larger;
  }
}

/** Writes messages to a stream as it takes them. */
class Framer {
  readonly #queue: Uint8Array[] = [];
  #off = 0;
  unreadBytes = 0;

  push(message: Uint8Array): void {
    const framed = new Uint8Array(message.length + 2);
    framed[0] = message.length >>> 8;
    framed[1] = message.length;
    framed.set(message, 2);
    this.#queue.push(framed);
    this.unreadBytes += framed.length;
  }

  /** Gives the stream what it takes. */
  flush(stream: HostStream): void {
    for (let head = this.#queue[0]; head; head = this.#queue[0]) {
      const wanted = head.length - this.#off;
      const taken = stream.write(head, this.#off, wanted);
      this.#off += taken;
      this.unreadBytes -= taken;
      if (taken < wanted) return;
      this.#queue.shift();
      this.#off = 0;
    }
  }
}

interface Connection {
  readonly client: string;
  close(): void;
  readonly lastUsedAt: number;
}

/** The server's side: accepts connections and feeds the resolver. */
export class DnsStreamServer {
  readonly #resolver: DnsResolver;
  readonly #now: () => number;
  readonly #connections = new Set<Connection>();
  readonly counters: Record<string, number> = { dns_connections: 0, dns_connections_refused: 0 };

  constructor(resolver: DnsResolver, now: () => number) {
    this.#resolver = resolver;
    this.#now = now;
  }

  /** Takes a connection; undefined when there are too many. The caller then refuses it. */
  accepted(stream: HostStream, addr: Uint8Array, addrOff: number): StreamSink | undefined {
    const client = formatAddress(addr, addrOff);
    let ofClient = 0;
    for (const other of this.#connections) if (other.client === client) ofClient++;
    if (this.#connections.size >= DNS_CONNECTIONS_MAX || ofClient >= DNS_CONNECTIONS_PER_CLIENT_MAX) {
      this.counters.dns_connections_refused!++;
      return undefined;
    }
    this.counters.dns_connections!++;
    return this.#serve(stream, client);
  }

  #serve(stream: HostStream, client: string): StreamSink {
    const deframer = new Deframer();
    const framer = new Framer();
    let isOpen = true;
    let isEnding = false;
    let waiting = 0;
    const connection = {
      client,
      lastUsedAt: this.#now(),
      close: (): void => {
        isOpen = false;
        this.#connections.delete(connection);
        stream.close();
      },
    };
    const flush = (): void => {
      framer.flush(stream);
      if (isEnding && waiting === 0 && framer.unreadBytes === 0) connection.close();
    };
    const asker = {
      transport: 'tcp' as const,
      id: client,
      reply: (message: Uint8Array): void => {
        waiting--;
        if (!isOpen) return;
        framer.push(message);
        if (framer.unreadBytes > DNS_UNREAD_BYTES_MAX) connection.close();
        else flush();
      },
    };
    this.#connections.add(connection);
    return {
      connected: () => {},
      readable: () => {
        if (!isOpen || isEnding) return;
        const now = this.#now();
        connection.lastUsedAt = now;
        const more = deframer.read(stream, (bytes) => {
          if (bytes.length < DNS_HEADER_LEN) return true;
          waiting++;
          this.#resolver.receive(now, bytes, 0, bytes.length, asker);
          return isOpen;
        });
        // The client has said all; what it asked is still answered.
        if (!more && isOpen) {
          isEnding = true;
          flush();
        }
      },
      writable: () => {
        if (isOpen) flush();
      },
      failed: () => {
        isOpen = false;
        this.#connections.delete(connection);
      },
    };
  }

  /** Closes connections that have been idle for too long. */
  poll(now: number): void {
    for (const connection of [...this.#connections])
      if (connection.lastUsedAt + DNS_IDLE_MS <= now) connection.close();
  }

  /** When poll() has something to do, or Infinity. */
  pollAt(): number {
    let at = Number.POSITIVE_INFINITY;
    for (const { lastUsedAt } of this.#connections) at = Math.min(at, lastUsedAt + DNS_IDLE_MS);
    return at;
  }

  /** Closes every connection. */
  close(): void {
    for (const connection of [...this.#connections]) connection.close();
  }
}

/** Results of {@link streamQuery}. */
export interface StreamQuerySink {
  answered(message: Uint8Array): void;
  failed(): void;
}

/** The client's side: one query on a connection of its own. The sink to give to Host.connect(). */
export function streamQuery(
  exchange: DnsExchange,
  stream: () => HostStream,
  result: StreamQuerySink,
): StreamSink {
  const deframer = new Deframer();
  const framer = new Framer();
  framer.push(exchange.message);
  return {
    connected: () => framer.flush(stream()),
    writable: () => framer.flush(stream()),
    readable: () => {
      // One query, one answer: whatever comes first decides, and may close the stream.
      const more = deframer.read(stream(), (message) => {
        result.answered(message);
        return false;
      });
      if (!more) result.failed();
    },
    failed: (_error: HostError) => result.failed(),
  };
}
