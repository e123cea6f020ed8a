/**
 * Connections of guests that lead to a unix socket of the host instead of the internet, by their destination (VPNKit's `--forwards`,
 * src/hostnet/forwards.ml): a tunnel to a private network, say. The socket's server is told the destination in JSON behind
 * a 16-bit length, and answers in the same way whether it takes the connection; a no is a refused connection.
 */
import type { Host, HostError, HostStream, StreamSink } from '../flow/host.ts';
import { HostLayer } from '../flow/host-layer.ts';
import { formatAddress, samePrefix } from '../wire/address.ts';
import { PrefacedStream } from './prefaced-stream.ts';

/** Destinations, and where they lead. */
export interface SocketForwardRule {
  /** 16 bytes, and how many bits of them count. */
  address: Uint8Array;
  prefixLength: number;
  /** 0 is every port. */
  port: number;
  path: string;
}

/** Connects a unix socket as a host connects TCP ones. */
export type ConnectPath = (path: string, sink: StreamSink) => HostStream | HostError;

/** A host some of whose destinations are behind unix sockets. */
export class SocketForwards extends HostLayer {
  readonly #rules: readonly SocketForwardRule[];
  readonly #connectPath: ConnectPath;
  readonly counters: Record<string, number> = { socket_forwards: 0, socket_forwards_refused: 0 };

  constructor(inner: Host, rules: readonly SocketForwardRule[], connectPath: ConnectPath) {
    super(inner);
    this.#rules = rules;
    this.#connectPath = connectPath;
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
    const rule = this.#rules.find(
      (each) =>
        (each.port === 0 || each.port === port) &&
        samePrefix(each.address, 0, addr, addrOff, each.prefixLength),
    );
    if (!rule) return this.inner.connect(addr, addrOff, port, ttl, trafficClass, sink, guest);
    this.counters.socket_forwards!++;
    const request = {
      protocol: 'tcp',
      src_ip: guest ? formatAddress(guest, 0) : '0.0.0.0',
      src_port: 0,
      dst_ip: formatAddress(addr, addrOff),
      dst_port: port,
    };
    const stream = new PrefacedStream(message(JSON.stringify(request)), readAccepted, sink, () => {
      this.counters.socket_forwards_refused!++;
    });
    const inner = this.#connectPath(rule.path, stream);
    if (typeof inner === 'string') return inner;
    stream.attach(inner);
    return stream;
  }
}

function message(text: string): Uint8Array {
  const bytes = new TextEncoder().encode(text);
  const framed = new Uint8Array(2 + bytes.length);
  framed[0] = bytes.length;
  framed[1] = bytes.length >>> 8;
  framed.set(bytes, 2);
  return framed;
}

/** Reads `{"accepted":true}` behind its length. */
export function readAccepted(bytes: Uint8Array): number | undefined {
  if (bytes.length < 2) return undefined;
  const end = 2 + (bytes[0]! | (bytes[1]! << 8));
  if (bytes.length < end) return undefined;
  try {
    const answer: unknown = JSON.parse(new TextDecoder().decode(bytes.subarray(2, end)));
    return (answer as { accepted?: unknown } | null)?.accepted === true ? end : -1;
  } catch {
    return -1;
  }
}
