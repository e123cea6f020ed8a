/**
 * ICMP from guests: echo requests to the gateway are answered here, those to the outside are forwarded as real pings, and errors
 * about our own packets go to the flow they are about, if they quote it rightly.
 */
import type { StackContext } from '../flow/context.ts';
import type { HostIcmpError } from '../flow/host.ts';
import type { Pings } from '../flow/pings.ts';
import type { TcpFlows } from '../flow/tcp-flows.ts';
import type { InsideUdp } from '../udp/inside.ts';
import { get16, get32, putMapped } from '../wire/address.ts';
import {
  emitIcmp,
  ICMP_ECHO_REPLY,
  ICMP_ECHO_REQUEST,
  ICMP_LEN,
  ICMP_PARAMETER_PROBLEM,
  ICMP_TIME_EXCEEDED,
  ICMP_UNREACHABLE,
  isIcmpError,
  parseIcmp,
  UNREACHABLE_FRAGMENTATION,
  UNREACHABLE_NET,
  UNREACHABLE_PORT,
  UNREACHABLE_PROHIBITED,
} from '../wire/icmp.ts';
import { PROTOCOL_ICMP, PROTOCOL_TCP, PROTOCOL_UDP } from '../wire/ipv4.ts';
import type { DestinationKind } from './addressing.ts';
import { Route } from './output.ts';
import type { Packet } from './packet.ts';

/** Who hears of errors. */
export interface ErrorTargets {
  readonly tcp: TcpFlows;
  readonly udp: InsideUdp;
}

/** Gives an error to the flow of ours whose packet it quotes: from `own`:`ownPort` to `guest`:`guestPort`. */
export function deliverError(
  targets: ErrorTargets,
  error: HostIcmpError,
  protocol: number,
  own: Uint8Array,
  ownPort: number,
  guest: Uint8Array,
  guestPort: number,
): void {
  if (protocol === PROTOCOL_TCP) targets.tcp.icmpError(error, guest, guestPort, own, ownPort);
  else if (protocol === PROTOCOL_UDP) targets.udp.icmpError(error, own, ownPort, guest, guestPort);
}

/** The shared meaning of an ICMP error, or undefined for one that means nothing here. */
function kindOf(type: number, code: number): HostIcmpError['kind'] | undefined {
  if (type === ICMP_TIME_EXCEEDED) return 'ttl-exceeded';
  if (type === ICMP_PARAMETER_PROBLEM || type !== ICMP_UNREACHABLE) return undefined;
  switch (code) {
    case UNREACHABLE_FRAGMENTATION:
      return 'too-big';
    case UNREACHABLE_PORT:
      return 'port-unreachable';
    case UNREACHABLE_NET:
      return 'net-unreachable';
    case UNREACHABLE_PROHIBITED:
    case 9:
    case 10:
      return 'prohibited';
    default:
      return 'host-unreachable';
  }
}

export class IcmpInput {
  readonly #context: StackContext;
  readonly #pings: Pings;
  readonly #targets: ErrorTargets;
  readonly #route = new Route();
  readonly #quotedSrc = new Uint8Array(16);
  readonly #quotedDst = new Uint8Array(16);

  constructor(context: StackContext, pings: Pings, targets: ErrorTargets) {
    this.#context = context;
    this.#pings = pings;
    this.#targets = targets;
  }

  input(packet: Packet, kind: DestinationKind): void {
    const { counters } = this.#context;
    const { buf, payloadOff, end } = packet;
    const icmp = parseIcmp(buf, payloadOff, end);
    if (!icmp) {
      counters.icmpMalformed++;
      return;
    }
    if (icmp.type === ICMP_ECHO_REQUEST) {
      if (kind === 'own' || kind === 'host') this.#answer(packet, icmp.rest);
      else if (kind === 'outside') this.#pings.forward(packet, icmp.rest);
      // Echo requests to groups are not answered (RFC 1122 section 3.2.2.6 allows it; smurf attacks want it).
      return;
    }
    if (isIcmpError(icmp.type) && kind !== 'group') this.#error(packet, icmp.type, icmp.code, icmp.rest);
  }

  #answer(packet: Packet, rest: number): void {
    const { output, counters } = this.#context;
    const bodyOff = packet.payloadOff + ICMP_LEN;
    const bodyLen = packet.end - bodyOff;
    const route = this.#route;
    route.mac = packet.srcMac;
    route.src = packet.dst;
    route.dst = packet.src;
    const repr = { type: ICMP_ECHO_REPLY, code: 0, rest };
    emitIcmp(repr, packet.buf, bodyOff, bodyLen, output.head, output.upperOff(true));
    output.packet(route, PROTOCOL_ICMP, ICMP_LEN, -1, packet.buf, bodyOff, bodyLen);
    counters.icmpEchoAnswered++;
  }

  /** An error quotes the packet that caused it: one of ours to this guest, or it is forged. */
  #error(packet: Packet, type: number, code: number, rest: number): void {
    this.#context.counters.icmpErrorsIn++;
    const { buf } = packet;
    const quote = packet.payloadOff + ICMP_LEN;
    const headerLen = (buf[quote]! & 0xf) * 4;
    const kind = kindOf(type, code);
    if (!kind || packet.end - quote < headerLen + 8 || buf[quote]! >>> 4 !== 4 || headerLen < 20) return;
    if (get32(buf, quote + 16) !== packet.srcIpv4) return;
    putMapped(this.#quotedSrc, 0, get32(buf, quote + 12));
    putMapped(this.#quotedDst, 0, get32(buf, quote + 16));
    const upper = quote + headerLen;
    const error: HostIcmpError = {
      kind,
      mtuBytes: kind === 'too-big' ? rest & 0xffff : 0,
      offender: packet.src.slice(),
    };
    deliverError(
      this.#targets,
      error,
      buf[quote + 9]!,
      this.#quotedSrc,
      get16(buf, upper),
      this.#quotedDst,
      get16(buf, upper + 2),
    );
  }
}
