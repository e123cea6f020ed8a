/** IPv4 and ICMP, with raw frames. */
import { expect } from 'vitest';
import { IPV4_BROADCAST, MAC_BROADCAST, put16, put32 } from '../../netstack/wire/address.ts';
import { complement, sum } from '../../netstack/wire/checksum.ts';
import { PROTOCOL_ICMP, PROTOCOL_TCP, PROTOCOL_UDP } from '../../netstack/wire/ipv4.ts';
import { TCP_ACK, TCP_SYN } from '../../netstack/wire/tcp.ts';
import { address, Bench, GATEWAY, GUEST, SERVER } from '../support/netstack/bench.ts';
import {
  bytes,
  concat,
  type Decoded,
  icmpMessage,
  ipPacket,
  pattern,
  tcpSegment,
  udpDatagram,
} from '../support/netstack/frames.ts';
import { type Case, conform } from './conform.ts';

/** An IPv4 packet whose header a case has spoiled, with its checksum made right again unless it says otherwise. */
function spoiled(packet: Uint8Array, spoil: (packet: Uint8Array) => void, fix = true): Uint8Array {
  spoil(packet);
  if (fix) {
    const headerLen = (packet[0]! & 0xf) * 4;
    put16(packet, 10, 0);
    put16(packet, 10, complement(sum(packet, 0, headerLen)));
  }
  return packet;
}

function datagram(src = GUEST, dst = SERVER): Uint8Array {
  return ipPacket(src, dst, PROTOCOL_UDP, udpDatagram(src, 5000, dst, 9000, bytes('x')));
}

/** A packet with options between header and payload. */
function withOptions(options: number[]): Uint8Array {
  const plain = datagram();
  const packet = concat(plain.subarray(0, 20), Uint8Array.from(options), plain.subarray(20));
  return spoiled(packet, () => {
    packet[0] = 0x40 | (5 + options.length / 4);
    put16(packet, 2, packet.length);
  });
}

/** A case that expects a packet to be dropped without a word, and counted. */
function dropped(rule: string, claim: string, counter: string, packet: () => Uint8Array): Case {
  return [
    rule,
    claim,
    () => {
      const bench = new Bench();
      expect(bench.exchange(bench.ip(packet()))).toEqual([]);
      expect(bench.count(counter)).toBe(1);
      expect(bench.host.open).toBe(0);
    },
  ];
}

/** The ICMP error in a list of frames of which it is the only one. */
function onlyError(frames: Decoded[]): Decoded {
  expect(frames).toHaveLength(1);
  expect(frames[0]?.checksumRight).toBe(true);
  return frames[0]!;
}

conform('IPv4 headers', [
  dropped('RFC 1122 section 3.2.1.1', 'another version is dropped', 'ipMalformed', () =>
    spoiled(datagram(), (packet) => put16(packet, 0, 0x5500)),
  ),
  dropped('RFC 1122 section 3.2.1.2', 'a wrong header checksum is dropped', 'ipMalformed', () =>
    spoiled(datagram(), (packet) => put16(packet, 10, 0x1234), false),
  ),
  dropped('RFC 791 section 3.1', 'a header length below five words is dropped', 'ipMalformed', () =>
    spoiled(datagram(), (packet) => packet.fill(0x44, 0, 1)),
  ),
  dropped('RFC 791 section 3.1', 'a total length beyond the frame is dropped', 'ipMalformed', () =>
    spoiled(datagram(), (packet) => put16(packet, 2, packet.length + 1)),
  ),
  dropped('RFC 791 section 3.1', 'a total length below the header length is dropped', 'ipMalformed', () =>
    spoiled(datagram(), (packet) => put16(packet, 2, 19)),
  ),
  dropped('RFC 7126 section 4.3', 'loose source routing is refused', 'ipOptionsRefused', () =>
    withOptions([131, 7, 4, 10, 0, 0, 1, 0]),
  ),
  dropped('RFC 7126 section 4.4', 'strict source routing is refused', 'ipOptionsRefused', () =>
    withOptions([137, 7, 4, 10, 0, 0, 1, 0]),
  ),
  dropped('RFC 1122 section 3.2.1.8', 'an option beyond the header is refused', 'ipOptionsRefused', () =>
    withOptions([7, 40, 4, 0]),
  ),
  [
    'RFC 1122 section 3.2.1.8',
    'other options are skipped',
    () => {
      const bench = new Bench();
      bench.exchange(bench.ip(withOptions([1, 148, 4, 0, 0, 0, 0, 0])));
      expect(bench.host.datagrams[0]?.sent[0]?.payload).toEqual(bytes('x'));
    },
  ],
  [
    'RFC 2474 section 3',
    'differentiated services and ECN bits are no reason to drop',
    () => {
      const bench = new Bench();
      bench.exchange(bench.ip(spoiled(datagram(), (packet) => packet.fill(0xbb, 1, 2))));
      expect(bench.host.datagrams[0]?.sent).toHaveLength(1);
    },
  ],
  [
    'RFC 6864 section 4.1',
    'segments that are sent are atomic: "don\'t fragment" and no identification',
    () => {
      const bench = new Bench();
      bench.exchange(bench.tcp(SERVER, { flags: TCP_SYN, sequence: 1 }));
      bench.host.streams[0]!.accept();
      expect(bench.turn()[0]?.ipv4).toMatchObject({ dontFragment: true, ident: 0 });
    },
  ],
  [
    'RFC 1700',
    'what the gateway sends itself has a TTL of 64',
    () => {
      const bench = new Bench();
      expect(bench.exchange(bench.ping(GATEWAY, pattern(8)))[0]?.ipv4?.ttl).toBe(64);
    },
  ],
]);

conform('IPv4 source addresses', [
  ...[
    ['RFC 1122 section 3.2.1.3 (g)', 'loopback', '127.0.0.1'],
    ['RFC 1122 section 3.2.1.3 (a)', 'no address, except to a DHCP server', '0.0.0.0'],
    ['RFC 1122 section 3.2.1.3 (b)', 'a host of "this network"', '0.1.2.3'],
    ['RFC 1122 section 3.2.1.3 (c)', 'limited broadcast', '255.255.255.255'],
    ['RFC 1122 section 3.2.1.3 (d)', 'broadcast of the subnet', '10.0.2.255'],
    ['RFC 1122 section 3.2.1.3', 'the number of the subnet', '10.0.2.0'],
    ['RFC 1112 section 7.2', 'multicast', '224.0.0.5'],
    ['RFC 1112 section 4', 'a reserved address', '240.0.0.1'],
    ['RFC 2827', 'an address of another network', '192.168.7.7'],
    ['RFC 2827', 'an address outside', SERVER],
    ['RFC 793 land attack', 'the gateway itself', GATEWAY],
  ].map(([rule, what, src]) =>
    dropped(rule!, `a packet from ${what} (${src}) is dropped`, 'ipMartianSource', () => datagram(src)),
  ),
  [
    'CERT CA-1997-28 land attack',
    'a SYN from the gateway to itself is dropped',
    () => {
      const bench = new Bench();
      const segment = tcpSegment(GATEWAY, GATEWAY, {
        sourcePort: 80,
        destinationPort: 80,
        flags: TCP_SYN,
      });
      expect(bench.exchange(bench.ip(ipPacket(GATEWAY, GATEWAY, PROTOCOL_TCP, segment)))).toEqual([]);
      expect(bench.host.streams).toEqual([]);
    },
  ],
  [
    'RFC 2131 section 4.1',
    'a client without an address reaches no DHCP server but ours',
    () => {
      const bench = new Bench();
      for (const dst of [SERVER, GATEWAY]) {
        const packet = ipPacket(
          '0.0.0.0',
          dst,
          PROTOCOL_UDP,
          udpDatagram('0.0.0.0', 68, dst, 67, bytes('x')),
        );
        expect(bench.exchange(bench.ip(packet))).toEqual([]);
      }
      expect(bench.host.open).toBe(0);
      expect(bench.count('ipMartianSource')).toBe(2);
    },
  ],
  [
    'RFC 2131 section 4.1',
    'a DHCP client without an address is heard by the server',
    () => {
      const bench = new Bench();
      const heard: string[] = [];
      bench.stack.bindUdp(
        { port: 67 },
        {
          datagram: (_now, buf, off, len) => heard.push(String.fromCharCode(...buf.subarray(off, off + len))),
        },
      );
      const discover = udpDatagram('0.0.0.0', 68, '255.255.255.255', 67, bytes('discover'));
      const packet = ipPacket('0.0.0.0', '255.255.255.255', PROTOCOL_UDP, discover);
      bench.exchange(bench.ip(packet, undefined, MAC_BROADCAST));
      expect(heard).toEqual(['discover']);
    },
  ],
]);

conform('IPv4 destinations', [
  ...[
    ['RFC 1122 section 3.2.1.3 (g)', 'loopback', '127.0.0.1'],
    ['RFC 1122 section 3.2.1.3 (a)', '"this network"', '0.0.0.0'],
    ['RFC 1112 section 4', 'a reserved address', '250.1.2.3'],
  ].map(([rule, what, dst]) =>
    dropped(rule!, `a packet to ${what} (${dst}) is dropped`, 'ipMartianDestination', () =>
      datagram(GUEST, dst),
    ),
  ),
  [
    'RFC 1812 section 5.2.7.1',
    'a packet to another guest by way of the gateway is answered "host unreachable"',
    () => {
      const bench = new Bench();
      const error = onlyError(bench.exchange(bench.udp('10.0.2.99', 9000, bytes('x'))));
      expect(error.icmp).toMatchObject({ type: 3, code: 1 });
      expect(bench.host.open).toBe(0);
    },
  ],
  [
    'RFC 1122 section 3.2.2.1',
    'an unknown protocol is answered "protocol unreachable"',
    () => {
      const bench = new Bench();
      const error = onlyError(bench.exchange(bench.ip(ipPacket(GUEST, GATEWAY, 132, pattern(20)))));
      expect(error).toMatchObject({ src: GATEWAY, icmp: { type: 3, code: 2 } });
    },
  ],
  [
    'RFC 1812 section 5.3.5',
    'a directed broadcast is not forwarded',
    () => {
      const bench = new Bench();
      bench.exchange(bench.udp('10.0.2.255', 9000, bytes('x'), { dstMac: MAC_BROADCAST }));
      expect(bench.host.open).toBe(0);
      expect(bench.count('ipMulticastDropped')).toBe(1);
    },
  ],
  [
    'RFC 1112 section 6',
    'multicast is not forwarded unless asked for',
    () => {
      const bench = new Bench();
      bench.exchange(bench.udp('239.255.255.250', 1900, bytes('x'), { dstMac: 0x01005e7ffffa }));
      expect(bench.host.open).toBe(0);
      expect(bench.count('ipMulticastDropped')).toBe(1);
    },
  ],
  [
    'RFC 9293 section 3.10.7.2 (1122 section 4.2.3.10)',
    'a SYN to a broadcast address is ignored',
    () => {
      const bench = new Bench();
      const segment = tcpSegment(GUEST, '255.255.255.255', {
        sourcePort: 1,
        destinationPort: 2,
        flags: TCP_SYN,
      });
      const packet = ipPacket(GUEST, '255.255.255.255', PROTOCOL_TCP, segment);
      expect(bench.exchange(bench.ip(packet, undefined, MAC_BROADCAST))).toEqual([]);
      expect(bench.host.open).toBe(0);
    },
  ],
]);

conform('TTL', [
  [
    'RFC 1812 section 5.3.1',
    'a packet to the outside with a TTL of 1 is answered "time exceeded" by the gateway',
    () => {
      const bench = new Bench();
      const error = onlyError(bench.exchange(bench.udp(SERVER, 33434, bytes('probe'), { ttl: 1 })));
      expect(error).toMatchObject({ src: GATEWAY, dst: GUEST, icmp: { type: 11, code: 0, rest: 0 } });
      expect(bench.host.open).toBe(0);
    },
  ],
  [
    'RFC 1812 section 5.3.1',
    'a TTL of 0 likewise',
    () =>
      expect(new Bench().exchange(new Bench().udp(SERVER, 33434, bytes('p'), { ttl: 0 }))).toHaveLength(1),
  ],
  [
    'RFC 1122 section 3.2.1.7',
    'a packet to the gateway itself may have a TTL of 1',
    () => {
      const bench = new Bench();
      expect(bench.exchange(bench.ping(GATEWAY, pattern(8), { ttl: 1 }))[0]?.icmp?.type).toBe(0);
    },
  ],
  [
    'RFC 1812 section 5.3.1',
    'the gateway is one hop: UDP leaves with one less',
    () => {
      const bench = new Bench();
      bench.exchange(bench.udp(SERVER, 33434, bytes('p'), { ttl: 5 }));
      expect(bench.host.datagrams[0]?.sent[0]?.ttl).toBe(4);
    },
  ],
  [
    'RFC 1812 section 5.3.1',
    'an echo request leaves with one less',
    () => {
      const bench = new Bench();
      bench.exchange(bench.ping(SERVER, pattern(8), { ttl: 5 }));
      expect(bench.host.pings[0]?.sent[0]?.ttl).toBe(4);
    },
  ],
  [
    'RFC 1812 section 5.3.1',
    'a SYN leaves with one less',
    () => {
      const bench = new Bench();
      bench.exchange(bench.tcp(SERVER, { flags: TCP_SYN }, undefined, { ttl: 5 }));
      expect(bench.host.streams[0]?.ttl).toBe(4);
    },
  ],
  [
    'RFC 1812 section 5.3.1',
    'an answer arrives with one less than at the host',
    () => {
      const bench = new Bench();
      bench.exchange(bench.udp(SERVER, 9000, bytes('p')));
      bench.host.datagrams[0]!.receive(SERVER, 9000, bytes('a'), 57);
      expect(bench.turn()[0]?.ipv4?.ttl).toBe(56);
    },
  ],
  [
    'RFC 792',
    'a router on the way is shown as the sender of "time exceeded", with the datagram it is about',
    () => {
      const bench = new Bench();
      bench.exchange(bench.udp(SERVER, 33434, bytes('p'), { ttl: 3, srcPort: 4444 }));
      bench.host.datagrams[0]!.icmp(
        { kind: 'ttl-exceeded', mtuBytes: 0, offender: address('203.0.113.9') },
        SERVER,
        33434,
      );
      const error = onlyError(bench.turn());
      expect(error).toMatchObject({ src: '203.0.113.9', dst: GUEST, icmp: { type: 11, code: 0 } });
      // The quotation: guest > server, UDP 4444 > 33434.
      expect([...error.payload.subarray(12, 24)]).toEqual([
        ...[10, 0, 2, 15],
        ...[198, 51, 100, 7],
        ...[4444 >> 8, 4444 & 255, 33434 >> 8, 33434 & 255],
      ]);
    },
  ],
  [
    'RFC 792',
    'a reporter that cannot be shown (loopback) is the gateway',
    () => {
      const bench = new Bench();
      bench.exchange(bench.udp(SERVER, 33434, bytes('p')));
      bench.host.datagrams[0]!.icmp(
        { kind: 'ttl-exceeded', mtuBytes: 0, offender: address('127.0.0.1') },
        SERVER,
        33434,
      );
      expect(onlyError(bench.turn()).src).toBe(GATEWAY);
    },
  ],
  [
    'RFC 792',
    'traceroute over TCP: "time exceeded" for a SYN quotes its sequence number',
    () => {
      const bench = new Bench();
      bench.exchange(bench.tcp(SERVER, { flags: TCP_SYN, sequence: 0x11223344 }, undefined, { ttl: 2 }));
      bench.host.streams[0]!.fail('EHOSTUNREACH', {
        kind: 'ttl-exceeded',
        mtuBytes: 0,
        offender: address('203.0.113.9'),
      });
      const error = onlyError(bench.turn());
      expect(error).toMatchObject({ src: '203.0.113.9', icmp: { type: 11 } });
      expect([...error.payload.subarray(20, 28)]).toEqual([
        6000 >> 8,
        6000 & 255,
        0,
        80,
        0x11,
        0x22,
        0x33,
        0x44,
      ]);
    },
  ],
  [
    'RFC 792',
    'traceroute by echo: "time exceeded" quotes identifier and sequence number',
    () => {
      const bench = new Bench();
      bench.exchange(bench.ping(SERVER, pattern(8), { ttl: 3, ident: 0x1234, sequence: 5 }));
      const offender = address('203.0.113.9');
      bench.host.pings[0]!.icmp({ kind: 'ttl-exceeded', mtuBytes: 0, offender }, 5, SERVER);
      const error = onlyError(bench.turn());
      expect(error.src).toBe('203.0.113.9');
      expect([error.payload[9], error.payload[20], ...error.payload.subarray(24, 28)]).toEqual([
        1, 8, 0x12, 0x34, 0, 5,
      ]);
    },
  ],
]);

conform('ICMP echo', [
  [
    'RFC 792',
    'the gateway answers with identifier, sequence number and data',
    () => {
      const bench = new Bench();
      const reply = onlyError(bench.exchange(bench.ping(GATEWAY, pattern(100), { ident: 9, sequence: 77 })));
      expect(reply).toMatchObject({ src: GATEWAY, dst: GUEST, icmp: { type: 0, rest: (9 << 16) | 77 } });
      expect(reply.payload).toEqual(pattern(100));
    },
  ],
  [
    'RFC 1122 section 3.2.2.6',
    'an echo request without data is answered',
    () => expect(new Bench().exchange(new Bench().ping(GATEWAY, new Uint8Array(0)))).toHaveLength(1),
  ],
  [
    'RFC 1122 section 3.2.2',
    'a wrong ICMP checksum is dropped',
    () => {
      const bench = new Bench();
      const message = icmpMessage({ type: 8, code: 0, rest: 1 }, pattern(8));
      message[9]! ^= 1;
      expect(bench.exchange(bench.ip(ipPacket(GUEST, GATEWAY, PROTOCOL_ICMP, message)))).toEqual([]);
      expect(bench.count('icmpMalformed')).toBe(1);
    },
  ],
  [
    'RFC 1122 section 3.2.2.6',
    'an echo request to a broadcast address is ignored',
    () => {
      const bench = new Bench();
      expect(bench.exchange(bench.ping('10.0.2.255', pattern(8), { dstMac: MAC_BROADCAST }))).toEqual([]);
    },
  ],
  [
    'truthful echo',
    'an echo request to the outside is answered only by its target',
    () => {
      const bench = new Bench();
      expect(bench.exchange(bench.ping(SERVER, pattern(56)))).toEqual([]);
      bench.advance(10_000);
      expect(bench.link.take()).toEqual([]);
      expect(bench.host.pings[0]?.sent).toEqual([
        { sequence: 1, address: SERVER, ttl: 63, payload: pattern(56) },
      ]);
    },
  ],
  [
    'RFC 5508 REQ-1',
    "the target's reply comes back under the guest's identifier",
    () => {
      const bench = new Bench();
      bench.exchange(bench.ping(SERVER, pattern(56), { ident: 0xbeef, sequence: 3 }));
      bench.host.pings[0]!.reply(3, SERVER, pattern(56), 50);
      const reply = onlyError(bench.turn());
      expect(reply).toMatchObject({ src: SERVER, dst: GUEST, icmp: { type: 0, rest: 0xbeef0003 } });
      expect(reply.ipv4?.ttl).toBe(49);
      expect(reply.payload).toEqual(pattern(56));
    },
  ],
  [
    'RFC 5508 REQ-1',
    'one socket serves all targets of an identifier',
    () => {
      const bench = new Bench();
      bench.exchange(bench.ping(SERVER, pattern(8)), bench.ping('203.0.113.1', pattern(8), { sequence: 2 }));
      expect(bench.host.pings).toHaveLength(1);
      expect(bench.host.pings[0]?.sent.map((each) => each.address)).toEqual([SERVER, '203.0.113.1']);
    },
  ],
  [
    'RFC 5508 REQ-2',
    'an identifier is forgotten after a minute of silence, not before',
    () => {
      const bench = new Bench();
      bench.exchange(bench.ping(SERVER, pattern(8)));
      bench.advance(59_000);
      bench.host.pings[0]!.reply(1, SERVER, pattern(8));
      bench.advance(30_000);
      expect(bench.host.pings[0]?.isClosed).toBe(false);
      bench.exchange(bench.ping(SERVER, pattern(8), { sequence: 2 }));
      bench.advance(60_001);
      expect(bench.host.pings[0]?.isClosed).toBe(true);
    },
  ],
  [
    'RFC 1122 section 3.2.2.1',
    'a target that cannot be reached is reported',
    () => {
      const bench = new Bench();
      bench.exchange(bench.ping(SERVER, pattern(8)));
      bench.host.pings[0]!.icmp({ kind: 'host-unreachable', mtuBytes: 0, offender: undefined }, 1, SERVER);
      expect(onlyError(bench.turn())).toMatchObject({ src: GATEWAY, icmp: { type: 3, code: 1 } });
    },
  ],
  [
    'RFC 1122 section 3.2.2.1',
    'a send that fails at once is reported about the packet itself',
    () => {
      const bench = new Bench();
      bench.exchange(bench.ping(SERVER, pattern(8)));
      bench.host.pings[0]!.error = 'ENETUNREACH';
      expect(onlyError(bench.exchange(bench.ping(SERVER, pattern(8)))).icmp).toMatchObject({
        type: 3,
        code: 0,
      });
    },
  ],
  [
    'limits',
    'identifiers are bounded per guest, the least recently used one gives way',
    () => {
      const bench = new Bench();
      for (let ident = 0; ident < 300; ident++) bench.deliver(bench.ping(SERVER, pattern(8), { ident }));
      expect(bench.count('pings')).toBe(256);
      expect(bench.count('pingsEvicted')).toBe(44);
      expect(bench.host.pings[0]?.isClosed).toBe(true);
      expect(bench.host.pings[299]?.isClosed).toBe(false);
    },
  ],
  [
    'limits',
    'a host without ping sockets is silence',
    () => {
      const bench = new Bench();
      bench.host.exhausted = 'EMFILE';
      expect(bench.exchange(bench.ping(SERVER, pattern(8)))).toEqual([]);
      expect(bench.count('guests')).toBe(0);
    },
  ],
]);

conform('ICMP errors', [
  [
    'RFC 1812 section 4.3.2.3',
    'an error quotes as much as fits in 576 bytes',
    () => {
      const bench = new Bench({ stack: { hostLoopback: false } });
      const error = onlyError(bench.exchange(bench.udp(GATEWAY, 9, pattern(1000))));
      expect(error.ipv4?.totalLen).toBe(576);
      expect(error.icmp).toMatchObject({ type: 3, code: 3 });
    },
  ],
  [
    'RFC 792',
    'a short packet is quoted whole',
    () => {
      const bench = new Bench({ stack: { hostLoopback: false } });
      const packet = bench.udp(GATEWAY, 9, bytes('abc'));
      expect(onlyError(bench.exchange(packet)).payload).toEqual(packet.slice(24));
    },
  ],
  [
    'RFC 1122 section 3.2.2',
    'no error answers an error',
    () => {
      const bench = new Bench();
      const message = icmpMessage({ type: 3, code: 1, rest: 0 }, datagram());
      expect(bench.exchange(bench.ip(ipPacket(GUEST, SERVER, PROTOCOL_ICMP, message, { ttl: 1 })))).toEqual(
        [],
      );
    },
  ],
  [
    'RFC 1122 section 3.2.2',
    'no error answers a fragment but the first',
    () => {
      const bench = new Bench();
      const packet = ipPacket(GUEST, SERVER, PROTOCOL_UDP, pattern(64), { ttl: 1, fragmentOffset: 64 });
      expect(bench.exchange(bench.ip(packet))).toEqual([]);
    },
  ],
  [
    'RFC 1122 section 3.2.2',
    'no error answers a packet to a group',
    () => {
      const bench = new Bench();
      const packet = ipPacket(GUEST, '255.255.255.255', 132, pattern(20));
      expect(bench.exchange(bench.ip(packet, undefined, MAC_BROADCAST))).toEqual([]);
    },
  ],
  [
    'RFC 1812 section 4.3.2.8',
    'errors are limited: a burst of 200, then 1000 a second',
    () => {
      const bench = new Bench();
      const probe = bench.udp(SERVER, 33434, bytes('p'), { ttl: 1 });
      const burst = bench.exchange(...Array.from({ length: 300 }, () => probe));
      expect(burst).toHaveLength(200);
      expect(bench.count('icmpErrorsSuppressed')).toBe(100);
      bench.advance(50);
      expect(bench.exchange(...Array.from({ length: 300 }, () => probe))).toHaveLength(50);
    },
  ],
  ...(
    [
      ['port-unreachable', 3, 3],
      ['host-unreachable', 3, 1],
      ['net-unreachable', 3, 0],
      ['prohibited', 3, 13],
      ['ttl-exceeded', 11, 0],
    ] as const
  ).map(
    ([kind, type, code]): Case => [
      'RFC 792',
      `${kind} of a host's socket is relayed as type ${type} code ${code}`,
      () => {
        const bench = new Bench();
        bench.exchange(bench.udp(SERVER, 9000, bytes('x')));
        bench.host.datagrams[0]!.icmp({ kind, mtuBytes: 0, offender: address(SERVER) }, SERVER, 9000);
        expect(onlyError(bench.turn())).toMatchObject({ src: SERVER, icmp: { type, code, rest: 0 } });
      },
    ],
  ),
  [
    'RFC 1191 section 4',
    '"too big" of a host\'s socket carries the next-hop MTU',
    () => {
      const bench = new Bench();
      bench.exchange(bench.udp(SERVER, 9000, pattern(1400), { dontFragment: true }));
      bench.host.datagrams[0]!.icmp(
        { kind: 'too-big', mtuBytes: 1280, offender: address('203.0.113.9') },
        SERVER,
        9000,
      );
      expect(onlyError(bench.turn())).toMatchObject({
        src: '203.0.113.9',
        icmp: { type: 3, code: 4, rest: 1280 },
      });
    },
  ],
  [
    'RFC 1191 section 6.4',
    'a guest\'s "too big" about a segment makes the following segments smaller',
    () => {
      const bench = new Bench();
      const { sequence, acknowledgment } = bench.open();
      bench.host.streams[0]!.push(pattern(2000));
      expect(Math.max(...bench.turn().map((each) => each.payload.length))).toBe(1460);
      const quoted = ipPacket(
        SERVER,
        GUEST,
        PROTOCOL_TCP,
        tcpSegment(SERVER, GUEST, { sourcePort: 80, destinationPort: 6000, sequence: acknowledgment }),
      ).slice(0, 28);
      const tooBig = icmpMessage({ type: 3, code: 4, rest: 1000 }, quoted);
      const again = bench.exchange(bench.ip(ipPacket(GUEST, SERVER, PROTOCOL_ICMP, tooBig)));
      expect(again.length).toBeGreaterThan(0);
      expect(Math.max(...again.map((each) => each.ipv4!.totalLen))).toBeLessThanOrEqual(1000);
      expect(sequence).toBe(1001);
      // RFC 1191 section 6.3: one that tells of a wider hop comes late, or is a lie.
      const wider = icmpMessage({ type: 3, code: 4, rest: 1400 }, quoted);
      bench.exchange(bench.ip(ipPacket(GUEST, SERVER, PROTOCOL_ICMP, wider)));
      const acknowledged = { sequence, acknowledgment: (acknowledgment + 2000) | 0, flags: TCP_ACK };
      bench.exchange(bench.tcp(SERVER, acknowledged));
      bench.host.streams[0]!.push(pattern(3000));
      expect(Math.max(...bench.turn().map((each) => each.ipv4!.totalLen))).toBe(1000);
    },
  ],
  [
    'RFC 5927 section 7',
    'a "too big" that quotes a packet of another is ignored',
    () => {
      const bench = new Bench();
      const { acknowledgment } = bench.open();
      const quoted = ipPacket(
        SERVER,
        '10.0.2.99',
        PROTOCOL_TCP,
        tcpSegment(SERVER, '10.0.2.99', { sourcePort: 80, destinationPort: 6000, sequence: acknowledgment }),
      ).slice(0, 28);
      const tooBig = icmpMessage({ type: 3, code: 4, rest: 600 }, quoted);
      bench.exchange(bench.ip(ipPacket(GUEST, SERVER, PROTOCOL_ICMP, tooBig)));
      bench.host.streams[0]!.push(pattern(1460));
      expect(bench.turn()[0]?.payload).toHaveLength(1460);
    },
  ],
  [
    'RFC 5927 section 5',
    'a guest\'s "unreachable" does not end an established connection',
    () => {
      const bench = new Bench();
      const { acknowledgment } = bench.open();
      const quoted = ipPacket(
        SERVER,
        GUEST,
        PROTOCOL_TCP,
        tcpSegment(SERVER, GUEST, { sourcePort: 80, destinationPort: 6000, sequence: acknowledgment }),
      ).slice(0, 28);
      const unreachable = icmpMessage({ type: 3, code: 3, rest: 0 }, quoted);
      bench.exchange(bench.ip(ipPacket(GUEST, SERVER, PROTOCOL_ICMP, unreachable)));
      expect(bench.count('tcpFlows')).toBe(1);
    },
  ],
  [
    'RFC 792',
    'redirects, source quench and timestamps are ignored',
    () => {
      const bench = new Bench();
      for (const type of [4, 5, 13, 17]) {
        const message = icmpMessage({ type, code: 0, rest: 0 }, datagram());
        expect(bench.exchange(bench.ip(ipPacket(GUEST, GATEWAY, PROTOCOL_ICMP, message)))).toEqual([]);
      }
    },
  ],
  [
    'RFC 792',
    'an error with a cut quotation is ignored',
    () => {
      const bench = new Bench();
      for (const len of [0, 4, 20, 27]) {
        const message = icmpMessage({ type: 3, code: 4, rest: 500 }, datagram().slice(0, len));
        bench.exchange(bench.ip(ipPacket(GUEST, GATEWAY, PROTOCOL_ICMP, message)));
      }
      expect(bench.count('icmpErrorsIn')).toBe(4);
    },
  ],
]);

conform('literal numbers of the suite', [
  [
    'RFC 919',
    'limited broadcast is all ones',
    () => {
      const buf = new Uint8Array(4);
      put32(buf, 0, IPV4_BROADCAST);
      expect([...buf]).toEqual([255, 255, 255, 255]);
    },
  ],
]);
