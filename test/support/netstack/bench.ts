/**
 * A stack on a bench: a memory link, a scripted host, a clock that moves by hand, and a guest that sends and reads frames.
 */
import { nullLog } from '#common/log';
import { seededRng } from '#common/rng';
import { Stack, type StackOptions } from '../../../netstack/stack.ts';
import { MAC_BROADCAST, parseIpv4, parseMac, putMac } from '../../../netstack/wire/address.ts';
import { ARP_REPLY, ARP_REQUEST } from '../../../netstack/wire/arp.ts';
import { ETHERTYPE_IPV4, ETHERTYPE_IPV6 } from '../../../netstack/wire/ethernet.ts';
import { ICMP_ECHO_REQUEST } from '../../../netstack/wire/icmp.ts';
import type { Icmpv6Repr } from '../../../netstack/wire/icmpv6.ts';
import { PROTOCOL_ICMP, PROTOCOL_TCP, PROTOCOL_UDP } from '../../../netstack/wire/ipv4.ts';
import { NEXT_ICMPV6 } from '../../../netstack/wire/ipv6.ts';
import { TCP_ACK, TCP_SYN, type TcpSegment } from '../../../netstack/wire/tcp.ts';
import {
  addr,
  arpFrame,
  type Decoded,
  decode,
  frame,
  type IpFields,
  icmpMessage,
  icmpv6Message,
  ipPacket,
  tcpSegment,
  udpDatagram,
} from './frames.ts';
import { MemoryLink, type MemoryLinkOptions } from './memory-link.ts';
import { ScriptedHost } from './scripted-host.ts';

export const GATEWAY = '10.0.2.1';
export const GATEWAY_MAC: number = parseMac('02:00:00:00:00:01')!;
export const GUEST = '10.0.2.15';
export const GUEST_MAC: number = parseMac('02:00:00:00:00:15')!;
/** A server outside (TEST-NET-2, RFC 5737). */
export const SERVER = '198.51.100.7';
export const GATEWAY6 = 'fd00:2::1';
/** Made from {@link GATEWAY_MAC} (RFC 4291 appendix A). */
export const GATEWAY6_LOCAL = 'fe80::ff:fe00:1';
export const GUEST6 = 'fd00:2::15';
export const GUEST6_LOCAL = 'fe80::15';
/** A server outside (RFC 3849). */
export const SERVER6 = '2001:db8::7';

function macBytes(mac: number): Uint8Array {
  const buf = new Uint8Array(6);
  putMac(buf, 0, mac);
  return buf;
}

export interface BenchOptions extends MemoryLinkOptions {
  stack?: Partial<StackOptions>;
  seed?: number;
  /** The gateway speaks IPv6 too. */
  ipv6?: boolean;
  /** Keep the gateway's first announcements in the list of sent frames. */
  announcements?: boolean;
}

export class Bench {
  readonly link: MemoryLink;
  readonly host: ScriptedHost = new ScriptedHost();
  readonly stack: Stack;
  now = 1000;

  constructor(options: BenchOptions = {}) {
    this.link = new MemoryLink(options);
    this.stack = new Stack({
      host: this.host,
      link: this.link,
      rng: seededRng(options.seed ?? 1),
      log: nullLog,
      mac: macBytes(GATEWAY_MAC),
      ipv4: { address: parseIpv4(GATEWAY)!, prefixLength: 24 },
      ...(options.ipv6 ? { ipv6: { address: addr(GATEWAY6), prefixLength: 64 } } : {}),
      ...options.stack,
    });
    if (options.announcements) return;
    // ARP announces twice, the router three times in the beginning; what follows comes minutes later.
    for (const ms of [0, 2000, 14_000, 16_000]) this.advance(ms);
    this.link.take();
  }

  /** Moves time and gives the stack its turn. */
  advance(ms: number): void {
    this.now += ms;
    this.stack.poll(this.now);
  }

  /** Gives the stack a frame without a turn. */
  deliver(whole: Uint8Array): void {
    this.stack.receive(this.now, whole, 0, whole.length);
  }

  /** Gives the stack frames and a turn, and returns what it sends. */
  exchange(...frames: Uint8Array[]): Decoded[] {
    for (const whole of frames) this.deliver(whole);
    return this.turn();
  }

  /** Gives the stack a turn and returns what it has sent since the last one. */
  turn(): Decoded[] {
    this.host.settle();
    this.stack.poll(this.now);
    return this.link.take().map(decode);
  }

  /** An IP packet of a guest in a frame to the gateway. */
  ip(packet: Uint8Array, srcMac: number = GUEST_MAC, dstMac: number = GATEWAY_MAC): Uint8Array {
    const type = packet[0]! >>> 4 === 6 ? ETHERTYPE_IPV6 : ETHERTYPE_IPV4;
    return frame({ dst: dstMac, src: srcMac, type, tag: -1 }, packet);
  }

  udp(
    dst: string,
    dstPort: number,
    payload: Uint8Array,
    fields: IpFields & { src?: string; srcPort?: number; checksum?: number; dstMac?: number } = {},
  ): Uint8Array {
    const src = fields.src ?? GUEST;
    const datagram = udpDatagram(src, fields.srcPort ?? 5000, dst, dstPort, payload, fields.checksum);
    return this.ip(ipPacket(src, dst, PROTOCOL_UDP, datagram, fields), GUEST_MAC, fields.dstMac);
  }

  tcp(
    dst: string,
    segment: Partial<TcpSegment>,
    payload?: Uint8Array,
    fields: IpFields & { src?: string; srcMac?: number } = {},
  ): Uint8Array {
    const src = fields.src ?? GUEST;
    const bytes = tcpSegment(src, dst, { sourcePort: 6000, destinationPort: 80, ...segment }, payload);
    return this.ip(ipPacket(src, dst, PROTOCOL_TCP, bytes, fields), fields.srcMac);
  }

  ping(
    dst: string,
    payload: Uint8Array,
    fields: IpFields & { src?: string; ident?: number; sequence?: number; dstMac?: number } = {},
  ): Uint8Array {
    const rest = (((fields.ident ?? 7) << 16) | (fields.sequence ?? 1)) >>> 0;
    const message = icmpMessage({ type: ICMP_ECHO_REQUEST, code: 0, rest }, payload);
    const src = fields.src ?? GUEST;
    return this.ip(
      ipPacket(src, dst, PROTOCOL_ICMP, message, { ttl: fields.ttl ?? 64 }),
      GUEST_MAC,
      fields.dstMac,
    );
  }

  /** An ICMPv6 message of the guest; neighbour discovery wants a hop limit of 255. */
  icmpv6(
    dst: string,
    repr: Icmpv6Repr,
    body: Uint8Array,
    fields: IpFields & { src?: string; dstMac?: number; srcMac?: number } = {},
  ): Uint8Array {
    const src = fields.src ?? GUEST6;
    const message = icmpv6Message(src, dst, repr, body);
    return this.ip(ipPacket(src, dst, NEXT_ICMPV6, message, fields), fields.srcMac, fields.dstMac);
  }

  /** The guest asks who has the gateway's address, so that the gateway knows the guest. */
  introduce(ip: string = GUEST, mac: number = GUEST_MAC): Decoded[] {
    return this.exchange(
      arpFrame(MAC_BROADCAST, mac, {
        op: ARP_REQUEST,
        senderMac: mac,
        senderIp: parseIpv4(ip)!,
        targetMac: 0,
        targetIp: parseIpv4(GATEWAY)!,
      }),
    );
  }

  /** The guest's answer to the gateway's question. */
  arpReply(ip: string = GUEST, mac: number = GUEST_MAC): Uint8Array {
    return arpFrame(GATEWAY_MAC, mac, {
      op: ARP_REPLY,
      senderMac: mac,
      senderIp: parseIpv4(ip)!,
      targetMac: GATEWAY_MAC,
      targetIp: parseIpv4(GATEWAY)!,
    });
  }

  /** Opens a connection from the guest and returns the guest's next sequence number and the peer's. */
  open(dst: string = SERVER, port = 80, sourcePort = 6000): { sequence: number; acknowledgment: number } {
    const ports = { sourcePort, destinationPort: port };
    this.exchange(this.tcp(dst, { ...ports, flags: TCP_SYN, sequence: 1000, mss: 1460 }));
    this.host.streams.at(-1)!.accept();
    const [synAck] = this.turn();
    const acknowledgment = (synAck!.tcp!.sequence + 1) | 0;
    this.exchange(this.tcp(dst, { ...ports, flags: TCP_ACK, sequence: 1001, acknowledgment }));
    return { sequence: 1001, acknowledgment };
  }

  /** A counter of the stack. */
  count(name: string): number {
    const value = this.stack.counters[name];
    if (value === undefined) throw new Error(`no counter ${name}`);
    return value;
  }
}

/** 16 bytes of an address, for calls of the stack. */
export const address: (text: string) => Uint8Array = addr;
export { macBytes };
