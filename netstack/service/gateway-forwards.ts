/**
 * Ports of the gateway that lead elsewhere than to the same port of the host's loopback (VPNKit's gateway forwards). To the
 * stack they are ports of the loopback; this host leads them on, and shows what comes back as coming from there.
 */
import type {
  DatagramSink,
  Host,
  HostDatagram,
  HostError,
  HostIcmpError,
  HostStream,
  StreamSink,
} from '../flow/host.ts';
import { HostLayer } from '../flow/host-layer.ts';
import { mapped, sameAddress } from '../wire/address.ts';

const LOOPBACK: Uint8Array = mapped(0x7f000001);

/** A port, and where it leads; addresses are 16 bytes. */
export interface ForwardRule {
  protocol: 'tcp' | 'udp';
  port: number;
  address: Uint8Array;
  targetPort: number;
}

/** A host some of whose loopback's ports are elsewhere. */
export class ForwardedHost extends HostLayer {
  readonly #tcp: ReadonlyMap<number, ForwardRule>;
  readonly #udp: ReadonlyMap<number, ForwardRule>;

  constructor(inner: Host, rules: readonly ForwardRule[]) {
    super(inner);
    const of = (protocol: 'tcp' | 'udp'): Map<number, ForwardRule> =>
      new Map(rules.filter((rule) => rule.protocol === protocol).map((rule) => [rule.port, rule]));
    this.#tcp = of('tcp');
    this.#udp = of('udp');
  }

  connect(
    addr: Uint8Array,
    addrOff: number,
    port: number,
    ttl: number,
    trafficClass: number,
    sink: StreamSink,
  ): HostStream | HostError {
    const rule = sameAddress(addr, addrOff, LOOPBACK, 0) ? this.#tcp.get(port) : undefined;
    return rule
      ? this.inner.connect(rule.address, 0, rule.targetPort, ttl, trafficClass, sink)
      : this.inner.connect(addr, addrOff, port, ttl, trafficClass, sink);
  }

  override openDatagram(
    family: 4 | 6,
    addr: Uint8Array | undefined,
    addrOff: number,
    port: number,
    sink: DatagramSink,
  ): HostDatagram | HostError {
    if (this.#udp.size === 0 || family === 6)
      return this.inner.openDatagram(family, addr, addrOff, port, sink);
    const forwarded = new ForwardedDatagram(this.#udp, sink);
    const socket = this.inner.openDatagram(family, addr, addrOff, port, forwarded);
    if (typeof socket === 'string') return socket;
    forwarded.attach(socket);
    return forwarded;
  }
}

/** A socket that remembers by which forwards it has spoken: answers from there are the loopback's. */
class ForwardedDatagram implements HostDatagram, DatagramSink {
  readonly #rules: ReadonlyMap<number, ForwardRule>;
  readonly #sink: DatagramSink;
  readonly #used = new Set<ForwardRule>();
  #socket: HostDatagram | undefined;

  constructor(rules: ReadonlyMap<number, ForwardRule>, sink: DatagramSink) {
    this.#rules = rules;
    this.#sink = sink;
  }

  attach(socket: HostDatagram): void {
    this.#socket = socket;
  }

  get port(): number {
    return this.#socket!.port;
  }

  send(
    buf: Uint8Array,
    off: number,
    len: number,
    addr: Uint8Array,
    addrOff: number,
    port: number,
    ttl: number,
    trafficClass: number,
  ): HostError | undefined {
    const rule = sameAddress(addr, addrOff, LOOPBACK, 0) ? this.#rules.get(port) : undefined;
    if (!rule) return this.#socket!.send(buf, off, len, addr, addrOff, port, ttl, trafficClass);
    this.#used.add(rule);
    return this.#socket!.send(buf, off, len, rule.address, 0, rule.targetPort, ttl, trafficClass);
  }

  close(): void {
    this.#socket?.close();
  }

  #ruleOf(addr: Uint8Array, addrOff: number, port: number): ForwardRule | undefined {
    for (const rule of this.#used)
      if (rule.targetPort === port && sameAddress(rule.address, 0, addr, addrOff)) return rule;
    return undefined;
  }

  datagram(
    buf: Uint8Array,
    off: number,
    len: number,
    addr: Uint8Array,
    addrOff: number,
    port: number,
    ttl: number,
    trafficClass: number,
  ): void {
    const rule = this.#ruleOf(addr, addrOff, port);
    if (rule) this.#sink.datagram(buf, off, len, LOOPBACK, 0, rule.port, ttl, trafficClass);
    else this.#sink.datagram(buf, off, len, addr, addrOff, port, ttl, trafficClass);
  }

  icmpError(
    error: HostIcmpError,
    addr: Uint8Array,
    addrOff: number,
    port: number,
    buf: Uint8Array,
    off: number,
    len: number,
  ): void {
    const rule = this.#ruleOf(addr, addrOff, port);
    if (rule) this.#sink.icmpError(error, LOOPBACK, 0, rule.port, buf, off, len);
    else this.#sink.icmpError(error, addr, addrOff, port, buf, off, len);
  }

  failed(error: HostError): void {
    this.#sink.failed(error);
  }
}
