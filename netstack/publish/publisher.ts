/**
 * Published ports: sockets of the host that lead to a guest.
 *
 * TCP: the stack relays an accepted stream, and dials the guest before a byte is taken from the client; a guest that
 * refuses resets the client. UDP: each client gets a socket inside the stack, so that a guest's answers find their way.
 *
 * The guest sees the client's own address and port, since the stack owns the guest's only wire and answers come back
 * through it whatever address they go to. Clients on the host's loopback, or of another family than the guest, are
 * shown as the gateway: a guest would not answer 127.0.0.1 through its wire.
 */
import type { Log } from '#common/log';
import type { Closable, Host, HostDatagram, HostError } from '../flow/host.ts';
import type { DialOptions, UdpService, UdpSocket } from '../flow/inside.ts';
import type { StackSurface } from '../stack.ts';
import { formatEndpoint, get32, isLoopbackIpv4, isLoopbackIpv6, isMapped } from '../wire/address.ts';

/** UDP clients of one published port at a time; beyond, the one that was silent longest makes room. */
const UDP_CLIENTS_MAX = 4096;
/** A UDP client is forgotten after this time without traffic (RFC 4787 REQ-5 asks for two minutes or more). */
const UDP_IDLE_MS = 180_000;
/** How often idle clients are looked for. */
const SWEEP_MS = 5_000;

/** A port to publish; addresses are 16 bytes. */
export interface PublishRule {
  protocol: 'tcp' | 'udp';
  hostAddr: Uint8Array;
  /** 0 takes any free one. */
  hostPort: number;
  guestAddr: Uint8Array;
  guestPort: number;
}

/** A port that is being published. */
export interface Publication extends Closable {
  /** The host's real port. */
  readonly port: number;
  readonly rule: PublishRule;
}

/** What all published ports have counted. */
export interface PublishCounters {
  tcpAccepted: number;
  udpClients: number;
  udpDropped: number;
}

/** The published ports of one network. */
export class Publisher {
  readonly counters: PublishCounters = { tcpAccepted: 0, udpClients: 0, udpDropped: 0 };
  readonly #host: Host;
  readonly #stack: StackSurface;
  readonly #log: Log;
  readonly #now: () => number;
  readonly #publications = new Set<Publication>();
  readonly #udp = new Set<UdpPublication>();
  #sweptMs = 0;

  constructor(parts: { host: Host; stack: StackSurface; log: Log; now: () => number }) {
    this.#host = parts.host;
    this.#stack = parts.stack;
    this.#log = parts.log;
    this.#now = parts.now;
  }

  /** Begins to listen; returns why that is impossible. */
  publish(rule: PublishRule): Publication | HostError {
    const publication = rule.protocol === 'tcp' ? this.#publishTcp(rule) : this.#publishUdp(rule);
    if (typeof publication !== 'string') this.#publications.add(publication);
    return publication;
  }

  #publishTcp(rule: PublishRule): Publication | HostError {
    const listener = this.#host.listen(rule.hostAddr, 0, rule.hostPort, {
      accepted: (stream, addr, off, port) => {
        this.counters.tcpAccepted++;
        const source: DialOptions = canShow(addr, off, rule.guestAddr)
          ? { sourceAddr: addr.slice(off, off + 16), sourcePort: port }
          : {};
        return this.#stack.relay(stream, rule.guestAddr, 0, rule.guestPort, source);
      },
    });
    if (typeof listener === 'string') return listener;
    const publication: Publication = {
      port: listener.port,
      rule,
      close: () => {
        this.#publications.delete(publication);
        listener.close();
      },
    };
    return publication;
  }

  #publishUdp(rule: PublishRule): Publication | HostError {
    const publication = new UdpPublication(rule, this.#stack, this.counters, this.#log);
    const family = isMapped(rule.hostAddr, 0) ? 4 : 6;
    const socket = this.#host.openDatagram(family, rule.hostAddr, 0, rule.hostPort, {
      datagram: (buf, off, len, addr, addrOff, port, _ttl, trafficClass) =>
        publication.fromClient(this.#now(), buf, off, len, addr, addrOff, port, trafficClass),
      // A client that has gone; its entry ages out.
      icmpError() {},
      failed: (error) => this.#log.warn({ error, port: rule.hostPort }, 'published UDP port failed'),
    });
    if (typeof socket === 'string') return socket;
    publication.open(socket);
    this.#udp.add(publication);
    publication.onClose = () => {
      this.#udp.delete(publication);
      this.#publications.delete(publication);
    };
    return publication;
  }

  /** Forgets silent UDP clients. Called at every turn of the loop. */
  poll(now: number): void {
    if (now - this.#sweptMs < SWEEP_MS) return;
    this.#sweptMs = now;
    for (const publication of this.#udp) publication.sweep(now);
  }

  close(): void {
    for (const publication of this.#publications) publication.close();
  }
}

function isLoopback(addr: Uint8Array, off: number): boolean {
  return isMapped(addr, off) ? isLoopbackIpv4(get32(addr, off + 12)) : isLoopbackIpv6(addr, off);
}

/** True when a guest at `guest` can be shown a client's own address: one of its family, and not of the host itself alone. */
function canShow(addr: Uint8Array, off: number, guest: Uint8Array): boolean {
  return isMapped(addr, off) === isMapped(guest, 0) && !isLoopback(addr, off);
}

interface Client {
  readonly inside: UdpSocket;
  seenMs: number;
}

/** One published UDP port. */
class UdpPublication implements Publication {
  readonly rule: PublishRule;
  onClose: () => void = () => {};
  readonly #stack: StackSurface;
  readonly #counters: PublishCounters;
  readonly #log: Log;
  /** In order of last use, the oldest first. */
  readonly #clients = new Map<string, Client>();
  #socket: HostDatagram | undefined;

  constructor(rule: PublishRule, stack: StackSurface, counters: PublishCounters, log: Log) {
    this.rule = rule;
    this.#stack = stack;
    this.#counters = counters;
    this.#log = log;
  }

  open(socket: HostDatagram): void {
    this.#socket = socket;
  }

  get port(): number {
    return this.#socket?.port ?? 0;
  }

  fromClient(
    now: number,
    buf: Uint8Array,
    off: number,
    len: number,
    addr: Uint8Array,
    addrOff: number,
    port: number,
    trafficClass: number,
  ): void {
    const key = formatEndpoint(addr, addrOff, port);
    let client = this.#clients.get(key);
    if (client) this.#clients.delete(key);
    else client = this.#admit(key, addr, addrOff, port);
    if (!client) return;
    client.seenMs = now;
    this.#clients.set(key, client);
    const { guestAddr, guestPort } = this.rule;
    if (!client.inside.send(buf, off, len, guestAddr, 0, guestPort, undefined, trafficClass))
      this.#counters.udpDropped++;
  }

  #admit(key: string, addr: Uint8Array, addrOff: number, port: number): Client | undefined {
    if (this.#clients.size >= UDP_CLIENTS_MAX) {
      const [oldestKey, oldest] = this.#clients.entries().next().value!;
      this.#clients.delete(oldestKey);
      oldest.inside.close();
    }
    const own = addr.slice(addrOff, addrOff + 16);
    const service: UdpService = {
      datagram: (now, buf, off, len, from) => {
        const client = this.#clients.get(key);
        if (client) client.seenMs = now;
        this.#socket?.send(buf, off, len, own, 0, port, 0, from.trafficClass);
      },
    };
    let inside: UdpSocket | HostError = 'EADDRINUSE';
    if (canShow(own, 0, this.rule.guestAddr)) inside = this.#stack.bindUdp({ addr: own, port }, service);
    // A client whose socket talks to two published ports keeps its address on the first only.
    if (inside === 'EADDRINUSE') inside = this.#stack.bindUdp({ port: 0 }, service);
    if (typeof inside === 'string') {
      this.#counters.udpDropped++;
      this.#log.warn({ client: key, error: inside }, 'no socket inside for a UDP client');
      return undefined;
    }
    this.#counters.udpClients++;
    return { inside, seenMs: 0 };
  }

  sweep(now: number): void {
    for (const [key, client] of this.#clients) {
      if (now - client.seenMs < UDP_IDLE_MS) continue;
      this.#clients.delete(key);
      client.inside.close();
    }
  }

  close(): void {
    this.#socket?.close();
    this.#socket = undefined;
    for (const client of this.#clients.values()) client.inside.close();
    this.#clients.clear();
    this.onClose();
  }
}
