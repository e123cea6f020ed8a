/** IPv6, ICMPv6 and neighbour discovery, with raw frames. */
import { expect } from 'vitest';
import { formatAddress, parseMac } from '../../netstack/wire/address.ts';
import { ETHERTYPE_IPV6 } from '../../netstack/wire/ethernet.ts';
import { PROTOCOL_ICMP, PROTOCOL_TCP, PROTOCOL_UDP } from '../../netstack/wire/ipv4.ts';
import {
  emitNeighbor,
  multicastMac,
  NA_OVERRIDE,
  NA_ROUTER,
  NA_SOLICITED,
  parseNeighbor,
  parseRouter,
  putSolicitedNode,
  sizeNeighbor,
} from '../../netstack/wire/ndp.ts';
import { TCP_ACK, TCP_RST, TCP_SYN } from '../../netstack/wire/tcp.ts';
import {
  address,
  Bench,
  type BenchOptions,
  GATEWAY_MAC,
  GATEWAY6,
  GATEWAY6_LOCAL,
  GUEST_MAC,
  GUEST6,
  GUEST6_LOCAL,
  macBytes,
  SERVER,
  SERVER6,
} from '../support/netstack/bench.ts';
import {
  addr,
  bytes,
  concat,
  type Decoded,
  frame,
  icmpMessage,
  icmpv6Message,
  ipPacket,
  pattern,
  tcpSegment,
  udpDatagram,
} from '../support/netstack/frames.ts';
import { type Case, conform } from './conform.ts';

const OTHER_MAC = 0x020000000099;
const NONE = '::';
const ALL_NODES = 'ff02::1';
const ALL_ROUTERS = 'ff02::2';
const MAC_ALL_NODES = 0x333300000001;
const MAC_ALL_ROUTERS = 0x333300000002;

function makeBench(options: BenchOptions = {}): Bench {
  return new Bench({ ipv6: true, ...options });
}

function solicitedNode(text: string): { ip: string; mac: number } {
  const group = new Uint8Array(16);
  putSolicitedNode(addr(text), 0, group, 0);
  return { ip: formatAddress(group, 0), mac: multicastMac(group, 0) };
}

interface Solicitation {
  src?: string;
  dst?: string;
  dstMac?: number;
  srcMac?: number;
  /** Source link-layer option; -1: none. */
  mac?: number;
  ttl?: number;
}

function solicit(bench: Bench, target: string, fields: Solicitation = {}): Uint8Array {
  const group = solicitedNode(target);
  const repr = { target: addr(target), mac: fields.mac ?? fields.srcMac ?? GUEST_MAC };
  const body = new Uint8Array(sizeNeighbor(repr));
  emitNeighbor(repr, true, body, 0);
  return bench.icmpv6(fields.dst ?? group.ip, { type: 135, code: 0, rest: 0 }, body, {
    src: fields.src ?? GUEST6_LOCAL,
    dstMac: fields.dstMac ?? group.mac,
    ...(fields.srcMac === undefined ? {} : { srcMac: fields.srcMac }),
    ttl: fields.ttl ?? 255,
  });
}

function advertise(
  bench: Bench,
  target: string,
  flags: number,
  fields: { dst?: string; dstMac?: number; srcMac?: number; mac?: number } = {},
): Uint8Array {
  const repr = { target: addr(target), mac: fields.mac ?? fields.srcMac ?? GUEST_MAC };
  const body = new Uint8Array(sizeNeighbor(repr));
  emitNeighbor(repr, false, body, 0);
  return bench.icmpv6(fields.dst ?? GATEWAY6_LOCAL, { type: 136, code: 0, rest: flags >>> 0 }, body, {
    src: target,
    dstMac: fields.dstMac ?? GATEWAY_MAC,
    ...(fields.srcMac === undefined ? {} : { srcMac: fields.srcMac }),
    ttl: 255,
  });
}

function routerSolicit(bench: Bench, src: string, mac: number, ttl = 255): Uint8Array {
  const option = mac < 0 ? new Uint8Array(0) : concat(Uint8Array.of(1, 1), macBytes(mac));
  return bench.icmpv6(ALL_ROUTERS, { type: 133, code: 0, rest: 0 }, option, {
    src,
    dstMac: MAC_ALL_ROUTERS,
    ttl,
  });
}

/** The advertisement of a router in a frame. */
function routerOf(each: Decoded): ReturnType<typeof parseRouter> {
  expect(each.icmpv6?.type).toBe(134);
  return parseRouter(each.icmpv6!.rest, each.payload, 0, each.payload.length);
}

function udp6(bench: Bench, dst: string, payload: Uint8Array, src = GUEST6, ttl = 64): Uint8Array {
  return bench.ip(ipPacket(src, dst, PROTOCOL_UDP, udpDatagram(src, 5000, dst, 9000, payload), { ttl }));
}

function martian(rule: string, what: string, src: string, dst: string, counter: string): Case {
  return [
    rule,
    `a packet ${what} (${src} > ${dst}) is dropped`,
    () => {
      const bench = makeBench();
      bench.exchange(udp6(bench, dst, bytes('x'), src));
      expect(bench.host.open).toBe(0);
      expect(bench.count(counter)).toBe(1);
    },
  ];
}

conform('IPv6', [
  [
    'RFC 8200',
    'without IPv6 configured its frames are of an unknown type',
    () => {
      const bench = new Bench();
      expect(bench.exchange(udp6(bench, SERVER6, bytes('x')))).toEqual([]);
      expect(bench.count('ethernetUnknownType')).toBe(1);
    },
  ],
  [
    'RFC 8200 section 3',
    'UDP goes out by a socket of the host, and the answer comes back',
    () => {
      const bench = makeBench();
      bench.exchange(udp6(bench, SERVER6, bytes('q')));
      expect(bench.host.datagrams[0]?.sent).toEqual([
        { address: SERVER6, port: 9000, ttl: 63, trafficClass: 0, payload: bytes('q') },
      ]);
      bench.host.datagrams[0]!.receive(SERVER6, 9000, bytes('a'), 40);
      const [answer] = bench.turn();
      expect(answer).toMatchObject({ src: SERVER6, dst: GUEST6, checksumRight: true });
      expect(answer?.ipv6?.hopLimit).toBe(39);
      expect(answer?.payload).toEqual(bytes('a'));
    },
  ],
  [
    'RFC 8200 section 3',
    'TCP goes out by a socket of the host',
    () => {
      const bench = makeBench();
      const segment = tcpSegment(GUEST6, SERVER6, {
        sourcePort: 6000,
        destinationPort: 80,
        flags: TCP_SYN,
        sequence: 5,
        mss: 1440,
      });
      bench.exchange(bench.ip(ipPacket(GUEST6, SERVER6, PROTOCOL_TCP, segment)));
      expect(bench.host.streams[0]).toMatchObject({ address: SERVER6, port: 80, ttl: 63 });
      bench.host.streams[0]!.accept();
      const [synAck] = bench.turn();
      expect(synAck).toMatchObject({ src: SERVER6, dst: GUEST6, checksumRight: true });
      expect(synAck?.tcp).toMatchObject({ flags: TCP_SYN | TCP_ACK, acknowledgment: 6, mss: 1440 });
    },
  ],
  [
    'RFC 8200 section 3',
    "the gateway stands for the host's loopback",
    () => {
      const bench = makeBench();
      bench.exchange(udp6(bench, GATEWAY6, bytes('q')));
      expect(bench.host.datagrams[0]?.sent[0]).toMatchObject({ address: '::1', ttl: 0 });
      bench.host.datagrams[0]!.receive('::1', 9000, bytes('a'));
      expect(bench.turn()[0]?.src).toBe(GATEWAY6);
    },
  ],
  [
    'RFC 4291 section 2.5.6',
    'also at its link-local address, and answers from there',
    () => {
      const bench = makeBench();
      bench.exchange(udp6(bench, GATEWAY6_LOCAL, bytes('q'), GUEST6_LOCAL));
      bench.host.datagrams[0]!.receive('::1', 9000, bytes('a'));
      expect(bench.turn()[0]).toMatchObject({ src: GATEWAY6_LOCAL, dst: GUEST6_LOCAL });
    },
  ],
  martian('RFC 4291 section 2.5.3', 'from loopback', '::1', SERVER6, 'ipMartianSource'),
  martian('RFC 4291 section 2.5.2', 'from no address', NONE, SERVER6, 'ipMartianSource'),
  martian('RFC 4291 section 2.7', 'from a multicast address', 'ff02::1', SERVER6, 'ipMartianSource'),
  martian('RFC 2827', 'from another network', '2001:db8:9::1', SERVER6, 'ipMartianSource'),
  martian('RFC 2827', 'from the gateway itself', GATEWAY6, SERVER6, 'ipMartianSource'),
  martian('RFC 4291 section 2.5.3', 'to loopback', GUEST6, '::1', 'ipMartianDestination'),
  martian('RFC 4291 section 2.5.2', 'to no address', GUEST6, NONE, 'ipMartianDestination'),
  martian(
    'RFC 4007 section 9',
    'from a link-local address to the outside',
    GUEST6_LOCAL,
    SERVER6,
    'ipMartianSource',
  ),
  [
    'RFC 4038 section 4.2',
    'a mapped address as destination never crosses',
    () => {
      const bench = makeBench();
      const packet = ipPacket(GUEST6, SERVER6, PROTOCOL_UDP, udpDatagram(GUEST6, 1, SERVER6, 2, bytes('x')));
      packet.set(addr(SERVER), 24);
      expect(bench.exchange(bench.ip(packet))).toEqual([]);
      expect(bench.host.open).toBe(0);
      expect(bench.count('ipMartianDestination')).toBe(1);
    },
  ],
  [
    'RFC 4038 section 4.2',
    'a mapped address as source never crosses, though an IPv4 guest has it',
    () => {
      const bench = makeBench();
      const packet = ipPacket(GUEST6, SERVER6, PROTOCOL_UDP, udpDatagram(GUEST6, 1, SERVER6, 2, bytes('x')));
      packet.set(addr('10.0.2.15'), 8);
      bench.exchange(bench.ip(packet));
      expect(bench.host.open).toBe(0);
      expect(bench.count('ipMartianSource')).toBe(1);
    },
  ],
  [
    'RFC 4443 section 3.1',
    'a packet to another guest by way of the gateway is answered "address unreachable"',
    () => {
      const bench = makeBench();
      const [error] = bench.exchange(udp6(bench, 'fd00:2::99', bytes('x')));
      expect(error?.icmpv6).toMatchObject({ type: 1, code: 3 });
    },
  ],
  [
    'RFC 4443 section 3.3',
    'a hop limit of 1 to the outside is answered "time exceeded" by the gateway',
    () => {
      const bench = makeBench();
      const [error] = bench.exchange(udp6(bench, SERVER6, bytes('x'), GUEST6, 1));
      expect(error).toMatchObject({ src: GATEWAY6, dst: GUEST6, icmpv6: { type: 3, code: 0, rest: 0 } });
    },
  ],
  [
    'RFC 4443 section 3.4',
    'an unknown next header is a parameter problem that points to it',
    () => {
      const bench = makeBench();
      const [error] = bench.exchange(bench.ip(ipPacket(GUEST6, GATEWAY6, 132, pattern(20))));
      expect(error?.icmpv6).toEqual({ type: 4, code: 1, rest: 6 });
    },
  ],
  [
    'RFC 4443 section 3.4',
    'behind an extension header it points there',
    () => {
      const bench = makeBench();
      const payload = concat(Uint8Array.of(132, 0, 1, 4, 0, 0, 0, 0), pattern(20));
      const [error] = bench.exchange(bench.ip(ipPacket(GUEST6, GATEWAY6, 60, payload)));
      expect(error?.icmpv6).toEqual({ type: 4, code: 1, rest: 40 });
    },
  ],
  [
    'RFC 8200 section 4.2',
    'an unknown option of action 10 is reported, with its place',
    () => {
      const bench = makeBench();
      const payload = concat(Uint8Array.of(17, 0, 0x9e, 4, 0, 0, 0, 0), pattern(20));
      const [error] = bench.exchange(bench.ip(ipPacket(GUEST6, SERVER6, 60, payload)));
      expect(error?.icmpv6).toEqual({ type: 4, code: 2, rest: 42 });
    },
  ],
  [
    'RFC 8200 section 4.2',
    'an unknown option of action 01 is silence',
    () => {
      const bench = makeBench();
      const payload = concat(Uint8Array.of(17, 0, 0x5e, 4, 0, 0, 0, 0), pattern(20));
      expect(bench.exchange(bench.ip(ipPacket(GUEST6, SERVER6, 60, payload)))).toEqual([]);
    },
  ],
  [
    'RFC 8200 section 4.2',
    'an option of action 11 in a packet to a group is silence, of action 10 is reported',
    () => {
      const bench = makeBench();
      const packet = (option: number): Uint8Array => {
        const payload = concat(Uint8Array.of(17, 0, option, 4, 0, 0, 0, 0), pattern(20));
        return bench.ip(ipPacket(GUEST6, ALL_NODES, 60, payload), GUEST_MAC, MAC_ALL_NODES);
      };
      expect(bench.exchange(packet(0xde))).toEqual([]);
      expect(bench.exchange(packet(0x9e))[0]?.icmpv6).toMatchObject({ type: 4, code: 2 });
    },
  ],
  [
    'RFC 5095',
    'a routing header of type 0 with segments left is a parameter problem',
    () => {
      const bench = makeBench();
      const routing = concat(Uint8Array.of(17, 2, 0, 1, 0, 0, 0, 0), addr('fd00:2::99'));
      const [error] = bench.exchange(bench.ip(ipPacket(GUEST6, GATEWAY6, 43, concat(routing, pattern(20)))));
      expect(error?.icmpv6).toEqual({ type: 4, code: 0, rest: 42 });
    },
  ],
  [
    'RFC 8200 section 4.4',
    'a routing header that is done is skipped',
    () => {
      const bench = makeBench();
      const datagram = udpDatagram(GUEST6, 5000, SERVER6, 9000, bytes('x'));
      const payload = concat(Uint8Array.of(17, 0, 0, 0, 0, 0, 0, 0), datagram);
      bench.exchange(bench.ip(ipPacket(GUEST6, SERVER6, 43, payload)));
      expect(bench.host.datagrams[0]?.sent[0]?.payload).toEqual(bytes('x'));
    },
  ],
  [
    'RFC 8200 section 4.3',
    'hop-by-hop options behind another header are a parameter problem',
    () => {
      const bench = makeBench();
      const payload = concat(
        Uint8Array.of(0, 0, 1, 4, 0, 0, 0, 0),
        Uint8Array.of(17, 0, 1, 4, 0, 0, 0, 0),
        pattern(20),
      );
      const [error] = bench.exchange(bench.ip(ipPacket(GUEST6, SERVER6, 60, payload)));
      expect(error?.icmpv6).toEqual({ type: 4, code: 1, rest: 40 });
    },
  ],
  [
    'RFC 8200 section 4.7',
    '"no next header" is silence',
    () => {
      const bench = makeBench();
      expect(bench.exchange(bench.ip(ipPacket(GUEST6, GATEWAY6, 59, pattern(4))))).toEqual([]);
    },
  ],
  [
    'RFC 8200 section 8.1',
    'UDP without a checksum is dropped',
    () => {
      const bench = makeBench();
      const datagram = udpDatagram(GUEST6, 5000, SERVER6, 9000, bytes('x'), 0);
      bench.exchange(bench.ip(ipPacket(GUEST6, SERVER6, PROTOCOL_UDP, datagram)));
      expect(bench.host.open).toBe(0);
      expect(bench.count('udpMalformed')).toBe(1);
    },
  ],
  [
    'RFC 4443 section 2.1',
    'ICMP for IPv4 in an IPv6 packet is an unknown protocol',
    () => {
      const bench = makeBench();
      const echo = icmpMessage({ type: 8, code: 0, rest: 1 }, pattern(8));
      const [error] = bench.exchange(bench.ip(ipPacket(GUEST6, GATEWAY6, PROTOCOL_ICMP, echo)));
      expect(error?.icmpv6).toMatchObject({ type: 4, code: 1 });
    },
  ],
  [
    'RFC 9293 section 3.10.7.1',
    'a segment for no connection gets a RST over IPv6 too',
    () => {
      const bench = makeBench();
      const segment = tcpSegment(GUEST6, SERVER6, {
        sourcePort: 1,
        destinationPort: 2,
        flags: TCP_ACK,
        acknowledgment: 99,
      });
      const [reset] = bench.exchange(bench.ip(ipPacket(GUEST6, SERVER6, PROTOCOL_TCP, segment)));
      expect(reset?.tcp).toMatchObject({ flags: TCP_RST, sequence: 99 });
      expect(reset?.checksumRight).toBe(true);
    },
  ],
]);

conform('ICMPv6', [
  [
    'RFC 4443 section 4.2',
    'the gateway answers an echo request from the address that was asked',
    () => {
      for (const own of [GATEWAY6, GATEWAY6_LOCAL]) {
        const bench = makeBench();
        const src = own === GATEWAY6 ? GUEST6 : GUEST6_LOCAL;
        const echo = bench.icmpv6(own, { type: 128, code: 0, rest: 0x70009 }, pattern(56), { src });
        const [reply] = bench.exchange(echo);
        expect(reply).toMatchObject({ src: own, dst: src, icmpv6: { type: 129, code: 0, rest: 0x70009 } });
        expect(reply?.payload).toEqual(pattern(56));
      }
    },
  ],
  [
    'RFC 4443 section 2.3',
    'a wrong checksum is dropped',
    () => {
      const bench = makeBench();
      const message = icmpv6Message(GUEST6, GATEWAY6, { type: 128, code: 0, rest: 1 }, pattern(8));
      message[10]! ^= 1;
      expect(bench.exchange(bench.ip(ipPacket(GUEST6, GATEWAY6, 58, message)))).toEqual([]);
      expect(bench.count('icmpMalformed')).toBe(1);
    },
  ],
  [
    'RFC 4443 section 4.2',
    'an echo request to the outside is a real ping of its target',
    () => {
      const bench = makeBench();
      const echo = bench.icmpv6(SERVER6, { type: 128, code: 0, rest: 0x70009 }, pattern(56), { ttl: 9 });
      expect(bench.exchange(echo)).toEqual([]);
      expect(bench.host.pings[0]?.sent).toEqual([
        { sequence: 9, address: SERVER6, ttl: 8, payload: pattern(56) },
      ]);
      bench.host.pings[0]!.reply(9, SERVER6, pattern(56), 33);
      const [reply] = bench.turn();
      expect(reply).toMatchObject({ src: SERVER6, icmpv6: { type: 129, rest: 0x70009 } });
      expect(reply?.ipv6?.hopLimit).toBe(32);
    },
  ],
  [
    'RFC 4291 section 2.5.2',
    'an echo request from no address has nobody to be answered',
    () => {
      const bench = makeBench();
      const echo = bench.icmpv6(GATEWAY6, { type: 128, code: 0, rest: 1 }, pattern(8), { src: NONE });
      expect(bench.exchange(echo)).toEqual([]);
      expect(bench.count('ipMartianSource')).toBe(1);
    },
  ],
  [
    'RFC 4443 section 4.2',
    'an echo request to a group is not answered',
    () => {
      const bench = makeBench();
      const echo = bench.icmpv6(ALL_NODES, { type: 128, code: 0, rest: 1 }, pattern(8), {
        dstMac: MAC_ALL_NODES,
      });
      expect(bench.exchange(echo)).toEqual([]);
    },
  ],
  ...(
    [
      ['port-unreachable', 1, 4, 0],
      ['host-unreachable', 1, 3, 0],
      ['net-unreachable', 1, 0, 0],
      ['prohibited', 1, 1, 0],
      ['ttl-exceeded', 3, 0, 0],
      ['too-big', 2, 0, 1280],
    ] as const
  ).map(
    ([kind, type, code, word]): Case => [
      'RFC 4443 section 3',
      `${kind} of a host's socket is relayed as type ${type} code ${code}`,
      () => {
        const bench = makeBench();
        bench.exchange(udp6(bench, SERVER6, bytes('x')));
        const offender = addr('2001:db8:1::1');
        bench.host.datagrams[0]!.icmp({ kind, mtuBytes: word, offender }, SERVER6, 9000);
        const [error] = bench.turn();
        expect(error).toMatchObject({ src: '2001:db8:1::1', icmpv6: { type, code, rest: word } });
        // The quotation: UDP from the guest to the server.
        expect(error?.payload[6]).toBe(17);
        expect([...error!.payload.subarray(40, 44)]).toEqual([5000 >> 8, 5000 & 255, 9000 >> 8, 9000 & 255]);
      },
    ],
  ),
  [
    'RFC 4443 section 2.4 (c)',
    'an error quotes as much as fits in 1280 bytes',
    () => {
      const bench = makeBench({ stack: { hostLoopback: false } });
      const [error] = bench.exchange(udp6(bench, GATEWAY6, pattern(1400)));
      expect(error?.icmpv6).toMatchObject({ type: 1, code: 4 });
      expect(error!.ipv6!.payloadLen + 40).toBe(1280);
    },
  ],
  [
    'RFC 4443 section 2.4 (e.1)',
    'no error answers an error',
    () => {
      const bench = makeBench();
      const message = bench.icmpv6(SERVER6, { type: 1, code: 0, rest: 0 }, pattern(60), { ttl: 1 });
      expect(bench.exchange(message)).toEqual([]);
    },
  ],
  [
    'RFC 8201 section 4',
    'a guest\'s "packet too big" makes the following segments smaller',
    () => {
      const bench = makeBench();
      const syn = { sourcePort: 6000, destinationPort: 80, flags: TCP_SYN, sequence: 1000, mss: 1440 };
      bench.exchange(bench.ip(ipPacket(GUEST6, SERVER6, 6, tcpSegment(GUEST6, SERVER6, syn))));
      bench.host.streams[0]!.accept();
      const acknowledgment = (bench.turn()[0]!.tcp!.sequence + 1) | 0;
      const ack = { sourcePort: 6000, destinationPort: 80, flags: TCP_ACK, sequence: 1001, acknowledgment };
      bench.exchange(bench.ip(ipPacket(GUEST6, SERVER6, 6, tcpSegment(GUEST6, SERVER6, ack))));
      bench.host.streams[0]!.push(pattern(2000));
      expect(Math.max(...bench.turn().map((each) => each.payload.length))).toBe(1440);
      const quoted = ipPacket(
        SERVER6,
        GUEST6,
        6,
        tcpSegment(SERVER6, GUEST6, { sourcePort: 80, destinationPort: 6000, sequence: acknowledgment }),
      );
      const again = bench.exchange(bench.icmpv6(SERVER6, { type: 2, code: 0, rest: 1280 }, quoted));
      expect(again.length).toBeGreaterThan(0);
      for (const each of again) expect(each.ipv6!.payloadLen + 40).toBeLessThanOrEqual(1280);
    },
  ],
]);

conform('neighbour solicitations', [
  ...[GATEWAY6, GATEWAY6_LOCAL].map(
    (target): Case => [
      'RFC 4861 section 7.2.4',
      `a solicitation of ${target} is answered to the asker`,
      () => {
        const bench = makeBench();
        const [answer] = bench.exchange(solicit(bench, target));
        expect(answer).toMatchObject({ src: target, dst: GUEST6_LOCAL });
        expect(answer?.ethernet.dst).toBe(GUEST_MAC);
        expect(answer?.ipv6?.hopLimit).toBe(255);
        expect(answer?.icmpv6).toMatchObject({
          type: 136,
          rest: (NA_ROUTER | NA_SOLICITED | NA_OVERRIDE) >>> 0,
        });
        expect(parseNeighbor(answer!.payload, 0, answer!.payload.length, false)).toEqual({
          target: addr(target),
          mac: GATEWAY_MAC,
        });
      },
    ],
  ),
  [
    'RFC 4861 section 7.2.4',
    'a unicast solicitation (unreachability detection) is answered',
    () => {
      const bench = makeBench();
      const unicast = solicit(bench, GATEWAY6, { dst: GATEWAY6, dstMac: GATEWAY_MAC, src: GUEST6 });
      expect(bench.exchange(unicast)[0]?.icmpv6?.type).toBe(136);
    },
  ],
  [
    'RFC 4861 section 7.2.3',
    'a solicitation of another address is not answered',
    () => {
      const bench = makeBench();
      expect(bench.exchange(solicit(bench, 'fd00:2::77'))).toEqual([]);
    },
  ],
  [
    'RFC 4861 section 7.1.1',
    'one that came through a router (hop limit below 255) is dropped',
    () => {
      const bench = makeBench();
      expect(bench.exchange(solicit(bench, GATEWAY6, { ttl: 254 }))).toEqual([]);
      expect(bench.count('ndpMalformed')).toBe(1);
    },
  ],
  [
    'RFC 4861 section 7.1.1',
    'one with a code other than 0 is dropped',
    () => {
      const bench = makeBench();
      const body = new Uint8Array(16);
      body.set(addr(GATEWAY6));
      const message = bench.icmpv6(GATEWAY6, { type: 135, code: 1, rest: 0 }, body, { ttl: 255 });
      expect(bench.exchange(message)).toEqual([]);
      expect(bench.count('ndpMalformed')).toBe(1);
    },
  ],
  [
    'RFC 4861 section 4.6',
    'an option of length 0 discards it',
    () => {
      const bench = makeBench();
      const body = concat(addr(GATEWAY6), Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0));
      bench.exchange(bench.icmpv6(GATEWAY6, { type: 135, code: 0, rest: 0 }, body, { ttl: 255 }));
      expect(bench.count('ndpMalformed')).toBe(1);
    },
  ],
  [
    'RFC 4862 section 5.4.3',
    'a probe (from no address) of the gateway address is told to all that it is taken',
    () => {
      const bench = makeBench();
      const [answer] = bench.exchange(solicit(bench, GATEWAY6, { src: NONE, mac: -1 }));
      expect(answer).toMatchObject({ dst: ALL_NODES, icmpv6: { type: 136 } });
      expect(answer?.ethernet.dst).toBe(MAC_ALL_NODES);
      expect(answer!.icmpv6!.rest & NA_SOLICITED).toBe(0);
    },
  ],
  [
    'RFC 4862 section 5.4.3',
    "a guest's probe of its own address is not answered",
    () => {
      const bench = makeBench();
      expect(bench.exchange(solicit(bench, GUEST6, { src: NONE, mac: -1 }))).toEqual([]);
    },
  ],
  [
    'RFC 4861 section 7.1.1',
    'a probe with a source link-layer option is dropped',
    () => {
      const bench = makeBench();
      expect(bench.exchange(solicit(bench, GATEWAY6, { src: NONE, mac: GUEST_MAC }))).toEqual([]);
      expect(bench.count('ndpMalformed')).toBe(1);
    },
  ],
  [
    'RFC 4861 section 7.2.3',
    'who asks is learned',
    () => {
      const bench = makeBench();
      bench.exchange(solicit(bench, GATEWAY6, { src: GUEST6 }));
      expect(bench.count('neighbours')).toBe(1);
      const socket = bench.stack.bindUdp({ port: 53 }, { datagram() {} });
      if (typeof socket === 'string') throw new Error(socket);
      socket.send(bytes('a'), 0, 1, address(GUEST6), 0, 1234);
      expect(bench.turn()[0]).toMatchObject({ src: GATEWAY6, dst: GUEST6 });
    },
  ],
  [
    'RFC 4861 section 11.1',
    'a source link-layer option that is not the station of the frame is not believed',
    () => {
      const bench = makeBench();
      expect(bench.exchange(solicit(bench, GATEWAY6, { mac: OTHER_MAC }))).toEqual([]);
      expect(bench.count('neighbours')).toBe(0);
    },
  ],
  [
    'RFC 4861 section 7.2.2',
    'a guest that is to be dialled is asked for at its solicited-node group',
    () => {
      const bench = makeBench();
      const quiet = { connected() {}, readable() {}, writable() {}, failed() {} };
      bench.stack.dial(address(GUEST6), 0, 80, quiet);
      const [question] = bench.turn();
      const group = solicitedNode(GUEST6);
      expect(question).toMatchObject({ src: GATEWAY6, dst: group.ip, icmpv6: { type: 135 } });
      expect(question?.ethernet.dst).toBe(group.mac);
      const [syn] = bench.exchange(advertise(bench, GUEST6, NA_SOLICITED | NA_OVERRIDE, { dst: GATEWAY6 }));
      expect(syn).toMatchObject({ src: GATEWAY6, dst: GUEST6 });
      expect(syn?.tcp?.flags).toBe(TCP_SYN);
    },
  ],
  [
    'RFC 4861 section 7.2.2',
    'after three questions it is given up',
    () => {
      const bench = makeBench();
      const failures: string[] = [];
      bench.stack.dial(address(GUEST6), 0, 80, {
        connected() {},
        readable() {},
        writable() {},
        failed: (error) => failures.push(error),
      });
      for (let second = 0; second < 4; second++) bench.advance(1000);
      expect(bench.link.take()).toHaveLength(3);
      expect(failures).toEqual(['EHOSTUNREACH']);
    },
  ],
]);

conform('neighbour advertisements', [
  [
    'RFC 4861 section 7.1.2',
    'a solicited one to a group is dropped',
    () => {
      const bench = makeBench();
      bench.exchange(advertise(bench, GUEST6, NA_SOLICITED, { dst: ALL_NODES, dstMac: MAC_ALL_NODES }));
      expect(bench.count('ndpMalformed')).toBe(1);
    },
  ],
  [
    'RFC 4861 section 7.2.5',
    'a solicited one that nobody asked for makes no entry',
    () => {
      const bench = makeBench();
      bench.exchange(advertise(bench, GUEST6, NA_SOLICITED | NA_OVERRIDE));
      expect(bench.count('neighbours')).toBe(0);
    },
  ],
  [
    'RFC 4861 section 7.2.6',
    'an unsolicited one tells of a new address',
    () => {
      const bench = makeBench();
      bench.exchange(advertise(bench, GUEST6, NA_OVERRIDE, { dst: ALL_NODES, dstMac: MAC_ALL_NODES }));
      expect(bench.count('neighbours')).toBe(1);
    },
  ],
  [
    'RFC 4862 section 5.4.4',
    'a claim to the gateway address is answered by a defence to all, at most every ten seconds',
    () => {
      const bench = makeBench();
      const repr = { target: addr(GATEWAY6), mac: OTHER_MAC };
      const body = new Uint8Array(sizeNeighbor(repr));
      emitNeighbor(repr, false, body, 0);
      const claim = bench.icmpv6(ALL_NODES, { type: 136, code: 0, rest: NA_OVERRIDE }, body, {
        src: 'fe80::99',
        dstMac: MAC_ALL_NODES,
        srcMac: OTHER_MAC,
        ttl: 255,
      });
      const [defence, ...more] = bench.exchange(claim, claim);
      expect(defence).toMatchObject({ dst: ALL_NODES, icmpv6: { type: 136 } });
      expect(more).toEqual([]);
      expect(bench.count('arpConflicts')).toBe(2);
    },
  ],
  [
    'RFC 2827',
    'a bound address cannot be claimed by another station',
    () => {
      const bench = makeBench();
      bench.stack.bindGuest(address(GUEST6), macBytes(GUEST_MAC));
      bench.advance(100_000);
      const claim = advertise(bench, GUEST6, NA_OVERRIDE, {
        dst: ALL_NODES,
        dstMac: MAC_ALL_NODES,
        srcMac: OTHER_MAC,
      });
      bench.exchange(claim);
      // The packet itself has a source that is bound to another.
      expect(bench.count('ipSpoofed')).toBe(1);
    },
  ],
]);

conform('router advertisements', [
  [
    'RFC 4861 section 6.2.4',
    'the first three come sixteen seconds apart, then some minutes',
    () => {
      const bench = makeBench({ announcements: true });
      const at: number[] = [];
      for (let second = 0; second < 2000; second++) {
        bench.advance(second === 0 ? 0 : 1000);
        const count = bench.turn().filter((each) => each.icmpv6?.type === 134).length;
        for (let i = 0; i < count; i++) at.push(second);
      }
      expect(at.slice(0, 3)).toEqual([0, 16, 32]);
      for (let i = 3; i < at.length; i++) {
        expect(at[i]! - at[i - 1]!).toBeGreaterThanOrEqual(200);
        expect(at[i]! - at[i - 1]!).toBeLessThanOrEqual(600);
      }
      expect(at.length).toBeGreaterThan(5);
    },
  ],
  [
    'RFC 4861 section 6.2.3, RFC 8106',
    'they tell prefix, MTU, DNS server and search list',
    () => {
      const bench = makeBench({
        announcements: true,
        stack: {
          ipv6: {
            address: addr(GATEWAY6),
            prefixLength: 64,
            router: { searchDomains: ['docker.internal'], other: true },
          },
        },
      });
      const router = bench
        .exchange(routerSolicit(bench, GUEST6_LOCAL, GUEST_MAC))
        .filter((each) => each.icmpv6?.type === 134 && each.dst === GUEST6_LOCAL)
        .map(routerOf)[0];
      expect(router).toMatchObject({
        mac: GATEWAY_MAC,
        mtuBytes: 1500,
        hopLimit: 64,
        lifetimeSeconds: 1800,
        managed: false,
        other: true,
        prefix: addr('fd00:2::'),
        prefixLength: 64,
        autonomous: true,
        dnsServers: [addr(GATEWAY6)],
        searchDomains: ['docker.internal'],
      });
    },
  ],
  [
    'RFC 4861 section 6.1.2',
    'their source is the link-local address, their hop limit 255',
    () => {
      const bench = makeBench();
      const [router] = bench.exchange(routerSolicit(bench, GUEST6_LOCAL, GUEST_MAC));
      expect(router?.src).toBe(GATEWAY6_LOCAL);
      expect(router?.ipv6?.hopLimit).toBe(255);
      expect(router?.ethernet.dst).toBe(GUEST_MAC);
    },
  ],
  [
    'RFC 4861 section 6.2.6',
    'a solicitation from no address is answered to all, at most every three seconds',
    () => {
      const bench = makeBench();
      bench.advance(3000);
      bench.link.take();
      const [router, ...more] = bench.exchange(
        routerSolicit(bench, NONE, -1),
        routerSolicit(bench, NONE, -1),
      );
      expect(router).toMatchObject({ dst: ALL_NODES });
      expect(more).toEqual([]);
      expect(bench.exchange(routerSolicit(bench, NONE, -1))).toEqual([]);
      bench.advance(3000);
      expect(bench.turn()[0]).toMatchObject({ dst: ALL_NODES, icmpv6: { type: 134 } });
    },
  ],
  [
    'RFC 4861 section 6.1.1',
    'a solicitation that came through a router, or from no address with an option, is dropped',
    () => {
      const bench = makeBench();
      expect(bench.exchange(routerSolicit(bench, GUEST6_LOCAL, GUEST_MAC, 64))).toEqual([]);
      expect(bench.exchange(routerSolicit(bench, NONE, GUEST_MAC))).toEqual([]);
      expect(bench.count('ndpMalformed')).toBe(2);
    },
  ],
  [
    'RFC 4862 section 5.5.3',
    'a prefix that is no 64 bits long is not offered for SLAAC',
    () => {
      const bench = new Bench({ stack: { ipv6: { address: addr(GATEWAY6), prefixLength: 112 } } });
      const [router] = bench.exchange(routerSolicit(bench, GUEST6_LOCAL, GUEST_MAC));
      expect(routerOf(router!)).toMatchObject({ prefixLength: 112, autonomous: false });
    },
  ],
  [
    'RFC 4862 section 5.4.2',
    'the gateway looks for duplicates of its own addresses at the start',
    () => {
      const bench = makeBench({ announcements: true });
      const probes = bench.turn().filter((each) => each.icmpv6?.type === 135);
      expect(probes.map((each) => each.src)).toEqual([NONE, NONE]);
      const targets = probes.map((each) => parseNeighbor(each.payload, 0, each.payload.length, true)?.target);
      expect(targets).toEqual([addr(GATEWAY6_LOCAL), addr(GATEWAY6)]);
    },
  ],
  [
    'RFC 3315 section 13',
    'a service hears what is sent to a group, and answers from the link-local address',
    () => {
      const bench = makeBench();
      const socket = bench.stack.bindUdp(
        { port: 547 },
        {
          datagram: (_now, buf, off, len, from) => {
            if (typeof socket === 'string') throw new Error(socket);
            socket.send(buf, off, len, from.addr, 0, from.port, from.mac);
          },
        },
      );
      const solicitation = udpDatagram(GUEST6_LOCAL, 546, 'ff02::1:2', 547, bytes('solicit'));
      const packet = ipPacket(GUEST6_LOCAL, 'ff02::1:2', PROTOCOL_UDP, solicitation);
      const [answer] = bench.exchange(
        frame({ dst: 0x333300010002, src: GUEST_MAC, type: ETHERTYPE_IPV6, tag: -1 }, packet),
      );
      expect(answer).toMatchObject({ src: GATEWAY6_LOCAL, dst: GUEST6_LOCAL });
      expect(answer?.udp).toMatchObject({ srcPort: 547, dstPort: 546 });
      expect(parseMac('02:00:00:00:00:15')).toBe(answer?.ethernet.dst);
    },
  ],
]);
