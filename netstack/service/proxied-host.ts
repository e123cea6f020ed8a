/**
 * A host whose connections may go by an HTTP proxy: transparently, so that guests need not know (as VPNKit's), and to the
 * explicit proxy that this network offers its guests at a port of the gateway.
 *
 * A transparent connection is a `CONNECT` (RFC 9110 section 9.3.6) to the upstream proxy, by the name under which the guest
 * knows the address if it asked our resolver, since proxies decide by name. The guest's connection is established when the
 * proxy says so: a proxy's refusal is a refused connection.
 *
 * The explicit proxy is a server of the main thread on a loopback port. Only connections that begin with its secret are
 * served there: the port is open to every user of this machine, the proxy and its credentials are not. The address of the
 * guest follows the secret, for the policy's log.
 */
import type { Host, HostError, HostStream, StreamSink } from '../flow/host.ts';
import { HostLayer } from '../flow/host-layer.ts';
import {
  ADDRESS_LEN,
  copyBytes,
  formatAddress,
  isMapped,
  mapped,
  sameAddress,
  samePrefix,
} from '../wire/address.ts';

import { GuardedStream } from './hello-guard.ts';
import type { EgressRules } from './policy.ts';
import { PrefacedStream, type ReadAnswer } from './prefaced-stream.ts';

const LOOPBACK: Uint8Array = mapped(0x7f000001);

/** Destinations that are reached directly. */
export interface ProxyExcludes {
  /** Names, and what is below them with a dot in front: `.local`. */
  names: string[];
  networks: { address: Uint8Array; prefixLength: number }[];
}

/** Destination ports that go by an upstream proxy without the guest's knowing. */
export interface TransparentRoute {
  ports: number[];
  address: Uint8Array;
  port: number;
  /** `Basic …`, or undefined for a proxy without a password. */
  authorization: string | undefined;
}

/** What goes by which proxy. */
export interface ProxyRoutes {
  transparent: TransparentRoute[];
  excludes: ProxyExcludes;
  /** At these ports nothing else is reached than these targets. */
  allowed?: { ports: number[]; targets: ProxyExcludes };
  explicit?: {
    /** Port of the gateway, and so of the host's loopback, at which guests know the proxy. */
    guestPort: number;
    /** Where it is. */
    hostPort: number;
    secret: Uint8Array;
  };
}

/** True for a destination that is not to go by a proxy. */
export function isExcluded(
  excludes: ProxyExcludes,
  name: string | undefined,
  addr: Uint8Array | undefined,
  off: number,
): boolean {
  if (addr && excludes.networks.some((net) => samePrefix(net.address, 0, addr, off, net.prefixLength)))
    return true;
  return (
    name !== undefined &&
    excludes.names.some((own) => (own.startsWith('.') ? name.endsWith(own) : name === own))
  );
}

/** A host with proxies before it. */
export class ProxiedHost extends HostLayer {
  readonly #policy: EgressRules;
  readonly #deferred: (() => void)[] = [];
  #routes: ProxyRoutes = { transparent: [], excludes: { names: [], networks: [] } };
  readonly counters: Record<string, number> = { proxy_transparent: 0, proxy_refused: 0, proxy_explicit: 0 };

  /** @param policy knows the names of addresses, and which connections must show their server's name */
  constructor(inner: Host, policy: EgressRules) {
    super(inner);
    this.#policy = policy;
  }

  /** True when poll() has something to do. */
  get pending(): boolean {
    return this.#deferred.length > 0;
  }

  /** Tells sinks what could not be told from within their own calls. */
  poll(): void {
    if (this.#deferred.length === 0) return;
    for (const later of this.#deferred.splice(0)) later();
  }

  /** Changes what goes by which proxy, for connections that begin from now on. */
  setRoutes(routes: ProxyRoutes): void {
    this.#routes = routes;
  }

  connect(
    addr: Uint8Array,
    addrOff: number,
    port: number,
    ttl: number,
    trafficClass: number,
    sink: StreamSink,
    guest?: Uint8Array,
  ): HostStream | HostError {
    if (this.#isProxy(addr, addrOff, port) || !this.#policy.awaitsHello(addr, addrOff, port))
      return this.#connect(addr, addrOff, port, ttl, trafficClass, sink, guest);
    const target = copyBytes(addr, addrOff, addrOff + ADDRESS_LEN);
    const guarded = new GuardedStream(sink, {
      allows: (name) => this.#policy.allowsHello(guest, target, 0, port, name),
      defer: (later) => void this.#deferred.push(later),
    });
    const inner = this.#connect(addr, addrOff, port, ttl, trafficClass, guarded, guest);
    if (typeof inner === 'string') return inner;
    guarded.attach(inner);
    return guarded;
  }

  #connect(
    addr: Uint8Array,
    addrOff: number,
    port: number,
    ttl: number,
    trafficClass: number,
    sink: StreamSink,
    guest: Uint8Array | undefined,
  ): HostStream | HostError {
    const { transparent, excludes, explicit, allowed } = this.#routes;
    if (explicit && this.#isProxy(addr, addrOff, port)) {
      this.counters.proxy_explicit!++;
      const preface = new Uint8Array(explicit.secret.length + ADDRESS_LEN);
      preface.set(explicit.secret);
      if (guest) preface.set(guest, explicit.secret.length);
      return this.#prefaced(LOOPBACK, explicit.hostPort, preface, undefined, 0, sink);
    }
    const route = transparent.find(({ ports }) => ports.includes(port));
    const restricted = allowed?.ports.includes(port) ? allowed : undefined;
    const name = (route ?? restricted) && this.#policy.nameOf(addr, addrOff);
    if (restricted && !isLoopback(addr, addrOff) && !isExcluded(restricted.targets, name, addr, addrOff)) {
      this.counters.proxy_refused!++;
      return 'ECONNREFUSED';
    }
    if (!route || isLoopback(addr, addrOff) || isExcluded(excludes, name, addr, addrOff))
      return this.inner.connect(addr, addrOff, port, ttl, trafficClass, sink);
    this.counters.proxy_transparent!++;
    const host = name ?? hostText(addr, addrOff);
    const head =
      `CONNECT ${host}:${port} HTTP/1.1\r\nHost: ${host}:${port}\r\n` +
      `${route.authorization === undefined ? '' : `Proxy-Authorization: ${route.authorization}\r\n`}\r\n`;
    return this.#prefaced(
      route.address,
      route.port,
      new TextEncoder().encode(head),
      readConnectAnswer,
      trafficClass,
      sink,
    );
  }

  /** True where guests have the explicit proxy, which asks the policy itself. */
  #isProxy(addr: Uint8Array, addrOff: number, port: number): boolean {
    return this.#routes.explicit?.guestPort === port && sameAddress(addr, addrOff, LOOPBACK, 0);
  }

  #prefaced(
    addr: Uint8Array,
    port: number,
    preface: Uint8Array,
    answer: ReadAnswer | undefined,
    trafficClass: number,
    sink: StreamSink,
  ): HostStream | HostError {
    const stream = new PrefacedStream(preface, answer, sink, () => {
      this.counters.proxy_refused!++;
    });
    const inner = this.inner.connect(addr, 0, port, 0, trafficClass, stream);
    if (typeof inner === 'string') return inner;
    stream.attach(inner);
    return stream;
  }
}

function isLoopback(addr: Uint8Array, off: number): boolean {
  return isMapped(addr, off) ? addr[off + 12] === 127 : formatAddress(addr, off) === '::1';
}

function hostText(addr: Uint8Array, off: number): string {
  const text = formatAddress(addr, off);
  return text.includes(':') ? `[${text}]` : text;
}

/** Reads the head of a proxy's answer to CONNECT (RFC 9112 section 4). */
function readConnectAnswer(bytes: Uint8Array): number | undefined {
  const end = headEnd(bytes);
  if (end < 0) return undefined;
  const status = String.fromCharCode(...bytes.subarray(0, Math.min(end, 12)));
  return /^HTTP\/1\.[01] 2\d\d$/.test(status) ? end : -1;
}

/** The offset behind the empty line that ends a head, or -1. */
function headEnd(bytes: Uint8Array): number {
  for (let i = 3; i < bytes.length; i++)
    if (bytes[i] === 10 && bytes[i - 1] === 13 && bytes[i - 2] === 10 && bytes[i - 3] === 13) return i + 1;
  return -1;
}
