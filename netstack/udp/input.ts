/** UDP from guests: judged, then given to a socket inside the stack or to the mapping that leads out. */
import type { StackContext } from '../flow/context.ts';
import type { DestinationKind } from '../ip/addressing.ts';
import type { Packet } from '../ip/packet.ts';
import { fold, pseudo, sum } from '../wire/checksum.ts';
import { PROTOCOL_UDP } from '../wire/ipv4.ts';
import { parseUdp, type UdpRepr } from '../wire/udp.ts';
import type { Groups } from './groups.ts';
import type { InsideUdp } from './inside.ts';
import type { UdpNat } from './nat.ts';

export class UdpInput {
  readonly #context: StackContext;
  readonly #inside: InsideUdp;
  readonly #nat: UdpNat;
  readonly #groups: Groups;

  constructor(context: StackContext, inside: InsideUdp, nat: UdpNat, groups: Groups) {
    this.#groups = groups;
    this.#context = context;
    this.#inside = inside;
    this.#nat = nat;
  }

  input(packet: Packet, kind: DestinationKind): void {
    const { counters, errors, hostLoopback, now } = this.#context;
    const header = parseUdp(packet.buf, packet.payloadOff, packet.end);
    if (!header || header.dstPort === 0 || !this.#checksumRight(packet, header)) {
      counters.udpMalformed++;
      return;
    }
    if (this.#inside.deliver(packet, header, kind === 'own' || kind === 'group')) return;
    // A client without an address speaks to the DHCP server, and nothing can answer it elsewhere.
    if (packet.ipv4 && packet.srcIpv4 === 0) {
      counters.ipMartianSource++;
      return;
    }
    if (kind === 'group' && !this.#groups.isRelayed(packet.dst, header.dstPort)) {
      counters.ipMulticastDropped++;
      return;
    }
    // A source port of zero asks for no answer (RFC 768), and no mapping can give one.
    if (header.srcPort === 0) {
      counters.udpMalformed++;
      return;
    }
    const ours = kind === 'own' || kind === 'host';
    if (ours && !hostLoopback) {
      counters.udpInsideUnreachable++;
      errors.answer(now, packet, 'port-unreachable');
      return;
    }
    this.#nat.forward(packet, header, ours);
  }

  #checksumRight(packet: Packet, header: UdpRepr): boolean {
    const { ipv4, trusted, src, dst, buf, payloadOff } = packet;
    if (trusted) return true;
    // RFC 768: none was made. IPv6 has no such thing (RFC 8200 section 8.1).
    if (header.checksum === 0) return ipv4;
    const total = pseudo(ipv4, src, 0, dst, 0, PROTOCOL_UDP, header.len) + sum(buf, payloadOff, header.len);
    return fold(total) === 0xffff;
  }
}
