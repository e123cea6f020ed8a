/**
 * The services by themselves, over ordinary sockets: a DNS forwarder with names of its own, an NTP server, DHCP and DHCPv6
 * servers (standalone-dhcp.ts). The machines are those of a network (netstack/service); here are only the sockets and
 * timers that they want.
 */
import { createSocket, type RemoteInfo } from 'node:dgram';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { systemClock, type Timer } from '#common/clock';
import { errorCode } from '#common/errors';
import { cryptoRng } from '#common/rng';
import type { HostError, HostStream, StreamSink } from '../flow/host.ts';
import type { NameTable } from '../service/dns/names.ts';
import { type DnsDriver, type DnsExchange, DnsResolver } from '../service/dns/resolver.ts';
import { DnsStreamServer, streamQuery } from '../service/dns/stream.ts';
import type { Upstream } from '../service/dns/upstreams.ts';
import { type ClockQuality, NtpServer } from '../service/ntp-server.ts';
import { formatAddress, isMapped, parseAddress } from '../wire/address.ts';
import { bindError, bindUdp, closeUdp, type RunningService } from './standalone-socket.ts';

/** Bytes that a stream may have waiting before it takes no more. */
const WRITE_BYTES_MAX: number = 256 * 1024;

export { hostClockQuality } from '#common/native/clock';
export { NameTable, type NameTableOptions, type Zone, type ZoneRecord } from '../service/dns/names.ts';
export { parseResolvConf, parseUpstream, type Upstream } from '../service/dns/upstreams.ts';
export { LeasePool, type LeasePoolOptions, type LeaseRecord } from '../service/lease-pool.ts';
export { formatIpv4, parseIpv4 } from '../wire/address.ts';
export { type RunningDhcp6, type ServeDhcp6Options, serveDhcp, serveDhcp6 } from './standalone-dhcp.ts';
export type { RunningService } from './standalone-socket.ts';

/** A stream of Node's as the machines want it: pulled, and pushed until it takes no more. */
class NodeStream implements HostStream {
  readonly #socket: Socket;
  #kept: Buffer | undefined;
  #isEnded = false;
  #isBlocked = false;

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  /** Leads events to the machine's side. */
  serve(sink: StreamSink): void {
    this.#socket
      .on('connect', () => sink.connected())
      .on('readable', () => sink.readable())
      .on('end', () => {
        this.#isEnded = true;
        sink.readable();
      })
      .on('drain', () => {
        if (this.#isBlocked) sink.writable();
        this.#isBlocked = false;
      })
      .on('error', (error) => sink.failed((errorCode(error) ?? 'EIO') as HostError));
  }

  read(buf: Uint8Array, off: number, len: number): number {
    const chunk = this.#kept ?? (this.#socket.read() as Buffer | null);
    if (!chunk) return this.#isEnded ? -1 : 0;
    const count = Math.min(len, chunk.length);
    buf.set(chunk.subarray(0, count), off);
    this.#kept = count < chunk.length ? chunk.subarray(count) : undefined;
    return count;
  }

  write(buf: Uint8Array, off: number, len: number): number {
    if (this.#socket.writableLength > WRITE_BYTES_MAX) {
      this.#isBlocked = true;
      return 0;
    }
    this.#socket.write(Buffer.from(buf.subarray(off, off + len)));
    return len;
  }

  shutdown(): void {
    this.#socket.end();
  }

  reset(): void {
    this.#socket.resetAndDestroy();
  }

  close(): void {
    this.#socket.destroySoon();
  }
}

/** Upstream queries by Node's sockets, each from one of its own. */
class NodeDnsDriver implements DnsDriver {
  readonly #open = new Map<number, () => void>();
  readonly #turn: () => void;
  resolver: DnsResolver | undefined;

  /** @param turn called after each event, to look at the timers again */
  constructor(turn: () => void) {
    this.#turn = turn;
  }

  send(exchange: DnsExchange): void {
    if (exchange.transport === 'udp') this.#sendDatagram(exchange);
    else this.#connect(exchange);
  }

  #sendDatagram({ id, upstream, message }: DnsExchange): void {
    const socket = createSocket(isMapped(upstream.address, 0) ? 'udp4' : 'udp6');
    this.#open.set(id, () => socket.close());
    socket.on('message', (answer: Buffer, from: RemoteInfo) => {
      const addr = parseAddress(from.address);
      if (addr) this.resolver?.answered(systemClock.now(), id, answer, 0, answer.length, addr, 0, from.port);
      this.#turn();
    });
    socket.on('error', () => this.#fail(id));
    // Connected, so that an ICMP error of a closed port is told.
    socket.connect(upstream.port, formatAddress(upstream.address, 0), (error?: Error) => {
      if (error || !this.#open.has(id)) return;
      socket.send(message);
    });
  }

  #connect(exchange: DnsExchange): void {
    const { id, upstream } = exchange;
    const { address, port } = upstream;
    const socket = connect({ host: formatAddress(address, 0), port });
    const stream = new NodeStream(socket);
    this.#open.set(id, () => socket.destroy());
    stream.serve(
      streamQuery(exchange, () => stream, {
        answered: (message) => {
          this.resolver?.answered(systemClock.now(), id, message, 0, message.length, address, 0, port);
          this.#turn();
        },
        failed: () => this.#fail(id),
      }),
    );
  }

  #fail(id: number): void {
    if (this.#open.has(id)) this.resolver?.failed(systemClock.now(), id);
    this.#turn();
  }

  close(exchange: DnsExchange): void {
    const close = this.#open.get(exchange.id);
    this.#open.delete(exchange.id);
    close?.();
  }
}

/** How a DNS server by itself is made. */
export interface ServeDnsOptions {
  address: string;
  port: number;
  names: NameTable;
  upstreams: readonly Upstream[];
}

/** A DNS server by itself. */
export interface RunningDns extends RunningService {
  /** For changing the upstream servers, and for counters. */
  readonly resolver: DnsResolver;
}

/**
 * Serves DNS over UDP and TCP.
 * @throws DrydockError ERR_SERVICE_BIND
 */
export async function serveDns(options: ServeDnsOptions): Promise<RunningDns> {
  const now = (): number => systemClock.now();
  let timer: Timer | undefined;
  const turn = (): void => {
    timer?.cancel();
    const at = Math.min(resolver.pollAt(), streams.pollAt());
    if (at === Number.POSITIVE_INFINITY) return;
    timer = systemClock.arm(at, () => {
      resolver.poll(now());
      streams.poll(now());
      turn();
    });
  };
  const driver = new NodeDnsDriver(turn);
  const resolver = new DnsResolver({ names: options.names, driver, rng: cryptoRng });
  driver.resolver = resolver;
  resolver.setUpstreams(options.upstreams);
  const streams = new DnsStreamServer(resolver, now);

  const tcp: Server = createServer({ allowHalfOpen: true }, (socket) => {
    const addr = parseAddress(socket.remoteAddress ?? '');
    const stream = new NodeStream(socket);
    const sink = addr && streams.accepted(stream, addr, 0);
    if (!sink) {
      socket.resetAndDestroy();
      return;
    }
    stream.serve({
      ...sink,
      readable: () => {
        sink.readable();
        turn();
      },
    });
  });
  tcp.listen(options.port, options.address);
  await once(tcp, 'listening').catch((error: unknown) => {
    throw bindError('DNS', options.address, options.port, error);
  });
  const { port } = tcp.address() as AddressInfo;
  const udp = await bindUdp('DNS', options.address, port).catch((error: unknown) => {
    tcp.close();
    throw error;
  });
  udp.on('message', (query: Buffer, from: RemoteInfo) => {
    resolver.receive(now(), query, 0, query.length, {
      transport: 'udp',
      id: from.address,
      reply: (message) => udp.send(message, from.port, from.address),
    });
    turn();
  });
  return {
    port,
    resolver,
    async close() {
      timer?.cancel();
      streams.close();
      resolver.close();
      await Promise.all([closeUdp(udp), new Promise((resolve) => tcp.close(resolve))]);
    },
  };
}

/**
 * Serves the time of this host by NTP.
 * @throws DrydockError ERR_SERVICE_BIND
 */
export async function serveNtp(options: {
  address: string;
  port: number;
  quality: () => ClockQuality;
}): Promise<RunningService> {
  const server = new NtpServer({
    wallMs: () => systemClock.wallMs(),
    quality: options.quality,
    referenceId: 0x7f000001,
  });
  const socket = await bindUdp('NTP', options.address, options.port);
  socket.on('message', (request: Buffer, from: RemoteInfo) => {
    const reply = server.receive(request, 0, request.length);
    if (reply) socket.send(reply, from.port, from.address);
  });
  return { port: socket.address().port, close: () => closeUdp(socket) };
}
