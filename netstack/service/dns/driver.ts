/**
 * Sends a resolver's upstream queries by the host's sockets: each from a socket of its own, so that the system gives it
 * an unpredictable port (RFC 5452 section 9.2) and a late answer finds nobody.
 */
import type { Closable, Host } from '../../flow/host.ts';
import { isMapped } from '../../wire/address.ts';
import type { DnsDriver, DnsExchange, DnsResolver } from './resolver.ts';
import { streamQuery } from './stream.ts';

/** Makes the driver of a resolver that is made after it. */
export class HostDnsDriver implements DnsDriver {
  readonly #host: Host;
  readonly #now: () => number;
  readonly #open = new Map<number, Closable>();
  /** Exchanges that failed within send(): reported by the next poll(), as the contract wants. */
  readonly #stillborn: number[] = [];
  #resolver: DnsResolver | undefined;

  constructor(host: Host, now: () => number) {
    this.#host = host;
    this.#now = now;
  }

  /** Says where results go. */
  attach(resolver: DnsResolver): void {
    this.#resolver = resolver;
  }

  send(exchange: DnsExchange): void {
    const socket = exchange.transport === 'udp' ? this.#sendDatagram(exchange) : this.#connect(exchange);
    if (socket) this.#open.set(exchange.id, socket);
    else this.#stillborn.push(exchange.id);
  }

  #sendDatagram(exchange: DnsExchange): Closable | undefined {
    const { address, port } = exchange.upstream;
    const family = isMapped(address, 0) ? 4 : 6;
    const socket = this.#host.openDatagram(family, undefined, 0, 0, {
      datagram: (buf, off, len, addr, addrOff, fromPort) =>
        this.#resolver?.answered(this.#now(), exchange.id, buf, off, len, addr, addrOff, fromPort),
      icmpError: () => this.#resolver?.failed(this.#now(), exchange.id),
      failed: () => this.#resolver?.failed(this.#now(), exchange.id),
    });
    if (typeof socket === 'string') return undefined;
    const error = socket.send(exchange.message, 0, exchange.message.length, address, 0, port, 0, 0);
    if (error === undefined) return socket;
    socket.close();
    return undefined;
  }

  #connect(exchange: DnsExchange): Closable | undefined {
    const { address, port } = exchange.upstream;
    const stream = this.#host.connect(
      address,
      0,
      port,
      0,
      0,
      streamQuery(exchange, () => stream as Exclude<typeof stream, string>, {
        answered: (message) =>
          this.#resolver?.answered(this.#now(), exchange.id, message, 0, message.length, address, 0, port),
        failed: () => this.#resolver?.failed(this.#now(), exchange.id),
      }),
    );
    return typeof stream === 'string' ? undefined : stream;
  }

  close(exchange: DnsExchange): void {
    this.#open.get(exchange.id)?.close();
    this.#open.delete(exchange.id);
  }

  /** Reports what failed at once. */
  poll(now: number): void {
    for (const id of this.#stillborn.splice(0)) this.#resolver?.failed(now, id);
  }

  /** When poll() has something to do: at once, or Infinity. */
  pollAt(): number {
    return this.#stillborn.length > 0 ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY;
  }
}
