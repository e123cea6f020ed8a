/** UDP: the translation of RFC 4787, sockets inside the stack, limits. */
import { expect } from 'vitest';
import { EgressRules } from '../../netstack/service/policy.ts';
import { MAC_BROADCAST } from '../../netstack/wire/address.ts';
import { PROTOCOL_UDP } from '../../netstack/wire/ipv4.ts';
import { TCP_ACK, TCP_RST, TCP_SYN } from '../../netstack/wire/tcp.ts';
import { address, Bench, GATEWAY, GATEWAY_MAC, GUEST, GUEST_MAC, SERVER } from '../support/netstack/bench.ts';
import { bytes, concat, icmpMessage, ipPacket, pattern, udpDatagram } from '../support/netstack/frames.ts';
import { conform } from './conform.ts';

const PEER = '203.0.113.5';
const NEIGHBOUR = '10.0.2.16';

conform('UDP datagrams', [
  [
    'RFC 768',
    'a checksum of zero says that there is none',
    () => {
      const bench = new Bench();
      bench.exchange(bench.udp(SERVER, 9000, bytes('x'), { checksum: 0 }));
      expect(bench.host.datagrams[0]?.sent[0]?.payload).toEqual(bytes('x'));
    },
  ],
  [
    'RFC 768',
    'a wrong checksum is dropped',
    () => {
      const bench = new Bench();
      bench.exchange(bench.udp(SERVER, 9000, bytes('x'), { checksum: 0x1234 }));
      expect(bench.host.open).toBe(0);
      expect(bench.count('udpMalformed')).toBe(1);
    },
  ],
  [
    'RFC 768',
    'a checksum that comes out as zero is sent as all ones',
    () => {
      const bench = new Bench();
      bench.exchange(bench.udp(SERVER, 9000, bytes('x')));
      // Two bytes of payload can make the sum anything: look for those that make it zero.
      const base = udpDatagram(SERVER, 9000, GUEST, 5000, Uint8Array.of(0, 0));
      const sumOfBase = (base[6]! << 8) | base[7]!;
      bench.host.datagrams[0]!.receive(SERVER, 9000, Uint8Array.of(sumOfBase >> 8, sumOfBase & 255));
      const [answer] = bench.turn();
      expect(answer?.udp?.checksum).toBe(0xffff);
      expect(answer?.checksumRight).toBe(true);
    },
  ],
  [
    'RFC 768',
    'an empty datagram passes both ways',
    () => {
      const bench = new Bench();
      bench.exchange(bench.udp(SERVER, 9000, new Uint8Array(0)));
      expect(bench.host.datagrams[0]?.sent[0]?.payload).toHaveLength(0);
      bench.host.datagrams[0]!.receive(SERVER, 9000, new Uint8Array(0));
      expect(bench.turn()[0]?.udp?.len).toBe(8);
    },
  ],
  [
    'RFC 768',
    'a length beyond the packet is dropped, padding behind it is cut',
    () => {
      const bench = new Bench();
      const datagram = udpDatagram(GUEST, 5000, SERVER, 9000, bytes('abcd'), 0);
      const short = datagram.slice();
      short[5] = 200;
      bench.exchange(bench.ip(ipPacket(GUEST, SERVER, PROTOCOL_UDP, short)));
      expect(bench.count('udpMalformed')).toBe(1);
      bench.exchange(bench.ip(ipPacket(GUEST, SERVER, PROTOCOL_UDP, concat(datagram, pattern(9)))));
      expect(bench.host.datagrams[0]?.sent[0]?.payload).toEqual(bytes('abcd'));
    },
  ],
  [
    'RFC 768',
    'ports of zero are refused',
    () => {
      const bench = new Bench();
      bench.exchange(bench.udp(SERVER, 0, bytes('x')), bench.udp(SERVER, 9000, bytes('x'), { srcPort: 0 }));
      expect(bench.host.open).toBe(0);
      expect(bench.count('udpMalformed')).toBe(2);
    },
  ],
  [
    'virtio 1.2 section 5.1.6.2',
    'a checksum that the link vouches for (NEEDS_CSUM) is not verified',
    () => {
      const bench = new Bench({ offload: true });
      const whole = bench.udp(SERVER, 9000, bytes('x'), { checksum: 0x1234 });
      whole[0] = 1;
      bench.exchange(whole);
      expect(bench.host.datagrams[0]?.sent).toHaveLength(1);
    },
  ],
  [
    'virtio 1.2 section 5.1.6.2',
    'on a link with offload the checksum is left to the link',
    () => {
      const bench = new Bench({ offload: true });
      bench.exchange(bench.udp(SERVER, 9000, bytes('x')));
      bench.host.datagrams[0]!.receive(SERVER, 9000, bytes('answer'));
      const [raw] = bench.link.sent;
      expect(raw?.[0]).toBe(1);
      expect(bench.turn()[0]?.checksumRight).toBe(true);
    },
  ],
  [
    'virtio 1.2 section 5.1.6 (USO)',
    'a super-frame of several datagrams is taken apart',
    () => {
      const bench = new Bench({ offload: true });
      const whole = bench.udp(SERVER, 9000, pattern(2500), { checksum: 0 });
      whole[0] = 1;
      whole[1] = 5;
      whole[4] = 1000 & 255;
      whole[5] = 1000 >> 8;
      bench.exchange(whole);
      const sent = bench.host.datagrams[0]!.sent.map((each) => each.payload);
      expect(sent.map((each) => each.length)).toEqual([1000, 1000, 500]);
      expect(concat(...sent)).toEqual(pattern(2500));
    },
  ],
  [
    'RFC 2675',
    'a datagram above the IPv4 limit is not sent',
    () => {
      const bench = new Bench();
      bench.exchange(bench.udp(SERVER, 9000, bytes('x')));
      bench.host.datagrams[0]!.receive(SERVER, 9000, pattern(65_508));
      expect(bench.turn()).toEqual([]);
      expect(bench.count('ipTooLarge')).toBe(1);
      bench.host.datagrams[0]!.receive(SERVER, 9000, pattern(65_507));
      expect(bench.turn().length).toBe(45);
    },
  ],
]);

conform('UDP mappings', [
  [
    'RFC 4787 REQ-1',
    'one guest port has one mapping for all destinations',
    () => {
      const bench = new Bench();
      bench.exchange(
        bench.udp(SERVER, 9000, bytes('a')),
        bench.udp(PEER, 9001, bytes('b')),
        bench.udp(SERVER, 9002, bytes('c')),
      );
      expect(bench.host.datagrams).toHaveLength(1);
      expect(bench.host.datagrams[0]?.sent.map((each) => `${each.address}:${each.port}`)).toEqual([
        `${SERVER}:9000`,
        `${PEER}:9001`,
        `${SERVER}:9002`,
      ]);
    },
  ],
  [
    'RFC 4787 REQ-1',
    'different ports and different guests have mappings of their own',
    () => {
      const bench = new Bench();
      bench.exchange(
        bench.udp(SERVER, 9000, bytes('a'), { srcPort: 1 }),
        bench.udp(SERVER, 9000, bytes('b'), { srcPort: 2 }),
        bench.udp(SERVER, 9000, bytes('c'), { src: NEIGHBOUR, srcPort: 1 }),
      );
      expect(bench.host.datagrams).toHaveLength(3);
    },
  ],
  [
    'RFC 4787 REQ-8',
    'an answer from somebody else reaches the guest (endpoint-independent filtering)',
    () => {
      const bench = new Bench();
      bench.exchange(bench.udp(SERVER, 9000, bytes('a')));
      bench.host.datagrams[0]!.receive(PEER, 4321, bytes('hello'));
      const [answer] = bench.turn();
      expect(answer).toMatchObject({ src: PEER, dst: GUEST });
      expect(answer?.udp).toMatchObject({ srcPort: 4321, dstPort: 5000 });
    },
  ],
  [
    'RFC 4787 REQ-5',
    'an unanswered mapping lives for two minutes, not less',
    () => {
      const bench = new Bench();
      bench.exchange(bench.udp(SERVER, 9000, bytes('a')));
      bench.advance(119_999);
      expect(bench.host.datagrams[0]?.isClosed).toBe(false);
      bench.advance(1);
      expect(bench.host.datagrams[0]?.isClosed).toBe(true);
      expect(bench.count('udpMappingsExpired')).toBe(1);
      expect(bench.count('guests')).toBe(0);
    },
  ],
  [
    'RFC 4787 REQ-5 (c)',
    'an answered one lives for five minutes',
    () => {
      const bench = new Bench();
      bench.exchange(bench.udp(SERVER, 9000, bytes('a')));
      bench.host.datagrams[0]!.receive(SERVER, 9000, bytes('b'));
      bench.advance(299_999);
      expect(bench.host.datagrams[0]?.isClosed).toBe(false);
      bench.advance(1);
      expect(bench.host.datagrams[0]?.isClosed).toBe(true);
    },
  ],
  [
    'RFC 4787 REQ-5 (a)',
    'one that asked DNS only, and was answered, is short-lived',
    () => {
      const bench = new Bench();
      bench.exchange(bench.udp(SERVER, 53, bytes('a')));
      bench.host.datagrams[0]!.receive(SERVER, 53, bytes('b'));
      bench.advance(15_000);
      expect(bench.host.datagrams[0]?.isClosed).toBe(true);
    },
  ],
  [
    'RFC 4787 REQ-6',
    'packets from inside keep it alive',
    () => {
      const bench = new Bench();
      for (let i = 0; i < 10; i++) {
        bench.exchange(bench.udp(SERVER, 9000, bytes('a')));
        bench.advance(110_000);
      }
      expect(bench.host.datagrams).toHaveLength(1);
      expect(bench.host.datagrams[0]?.isClosed).toBe(false);
    },
  ],
  [
    'RFC 4787 REQ-6',
    'packets from outside keep it alive',
    () => {
      const bench = new Bench();
      bench.exchange(bench.udp(SERVER, 9000, bytes('a')));
      for (let i = 0; i < 10; i++) {
        bench.host.datagrams[0]!.receive(SERVER, 9000, bytes('b'));
        bench.advance(290_000);
      }
      expect(bench.host.datagrams[0]?.isClosed).toBe(false);
    },
  ],
  [
    'RFC 4787 REQ-12',
    'an ICMP error does not end it',
    () => {
      const bench = new Bench();
      bench.exchange(bench.udp(SERVER, 9000, bytes('a')));
      const error = { kind: 'port-unreachable', mtuBytes: 0, offender: undefined } as const;
      bench.host.datagrams[0]!.icmp(error, SERVER, 9000);
      expect(bench.turn()[0]?.icmp).toMatchObject({ type: 3, code: 3 });
      expect(bench.host.datagrams[0]?.isClosed).toBe(false);
    },
  ],
  [
    'RFC 1122 section 4.1.3.3',
    'a closed port of the host is answered by the real error',
    () => {
      const bench = new Bench();
      bench.exchange(bench.udp(GATEWAY, 9000, bytes('a')));
      const error = { kind: 'port-unreachable', mtuBytes: 0, offender: address('127.0.0.1') } as const;
      bench.host.datagrams[0]!.icmp(error, '127.0.0.1', 9000);
      const [reply] = bench.turn();
      expect(reply).toMatchObject({ src: GATEWAY, icmp: { type: 3, code: 3 } });
      // It quotes the packet to the gateway, as the guest sent it.
      expect([...reply!.payload.subarray(16, 20)]).toEqual([10, 0, 2, 1]);
    },
  ],
  [
    'RFC 1122 section 4.1.3.3',
    "without the host's loopback a port of the gateway without a service is unreachable",
    () => {
      const bench = new Bench({ stack: { hostLoopback: false } });
      const [reply] = bench.exchange(bench.udp(GATEWAY, 9000, bytes('a')));
      expect(reply?.icmp).toMatchObject({ type: 3, code: 3 });
      expect(bench.host.open).toBe(0);
    },
  ],
  ...(
    [
      ['EHOSTUNREACH', 1],
      ['ENETUNREACH', 0],
      ['EACCES', 13],
      ['ECONNREFUSED', 3],
    ] as const
  ).map(
    ([error, code]) =>
      [
        'RFC 1812 section 4.3.3.1',
        `a send that fails with ${error} is answered by unreachable code ${code}`,
        () => {
          const bench = new Bench();
          bench.exchange(bench.udp(SERVER, 9000, bytes('a')));
          bench.host.datagrams[0]!.error = error;
          const packet = bench.udp(SERVER, 9000, bytes('again'));
          const [reply] = bench.exchange(packet);
          expect(reply?.icmp).toMatchObject({ type: 3, code });
          expect(reply?.payload).toEqual(packet.slice(24));
        },
      ] as const,
  ),
  [
    'RFC 2827',
    'an answer that seems to come from the guests’ subnet never crosses',
    () => {
      const bench = new Bench();
      bench.exchange(bench.udp(SERVER, 9000, bytes('a')));
      for (const from of [NEIGHBOUR, GATEWAY, '0.0.0.0', '255.255.255.255', '224.0.0.1'])
        bench.host.datagrams[0]!.receive(from, 9000, bytes('b'));
      expect(bench.turn()).toEqual([]);
      expect(bench.count('ipMartianSource')).toBe(5);
    },
  ],
  [
    'RFC 4787 REQ-1',
    'answers follow the guest to its new station',
    () => {
      const bench = new Bench();
      bench.exchange(bench.udp(SERVER, 9000, bytes('a')));
      const datagram = udpDatagram(GUEST, 5000, SERVER, 9000, bytes('b'));
      bench.exchange(bench.ip(ipPacket(GUEST, SERVER, PROTOCOL_UDP, datagram), 0x020000000099));
      bench.host.datagrams[0]!.receive(SERVER, 9000, bytes('c'));
      expect(bench.turn()[0]?.ethernet.dst).toBe(0x020000000099);
    },
  ],
  [
    'RFC 4787 REQ-5',
    'a socket that fails ends its mapping, and the next datagram makes a new one',
    () => {
      const bench = new Bench();
      bench.exchange(bench.udp(SERVER, 9000, bytes('a')));
      bench.host.datagrams[0]!.sink.failed('EIO');
      expect(bench.count('udpMappings')).toBe(0);
      bench.exchange(bench.udp(SERVER, 9000, bytes('a')));
      expect(bench.host.datagrams).toHaveLength(2);
    },
  ],
  [
    'limits',
    'mappings of a guest are bounded: its least recently used one gives way',
    () => {
      const bench = new Bench();
      for (let srcPort = 1; srcPort <= 4096; srcPort++)
        bench.deliver(bench.udp(SERVER, 9000, bytes('a'), { srcPort }));
      bench.deliver(bench.udp(SERVER, 9000, bytes('a'), { srcPort: 1 }));
      bench.deliver(bench.udp(SERVER, 9000, bytes('a'), { srcPort: 5000 }));
      expect(bench.count('udpMappings')).toBe(4096);
      expect(bench.host.datagrams[0]?.isClosed).toBe(false);
      expect(bench.host.datagrams[1]?.isClosed).toBe(true);
    },
  ],
  [
    'limits',
    "one guest's flood of 50,000 ports takes nothing from another",
    () => {
      const bench = new Bench();
      bench.deliver(bench.udp(SERVER, 9000, bytes('a'), { src: NEIGHBOUR }));
      for (let i = 0; i < 50_000; i++) bench.deliver(bench.udp(SERVER, 9000, bytes('a'), { srcPort: 1 + i }));
      expect(bench.count('udpMappings')).toBe(4097);
      expect(bench.host.datagrams[0]?.isClosed).toBe(false);
      expect(bench.host.open).toBe(4097);
      bench.advance(120_000);
      expect(bench.host.open).toBe(0);
      expect(bench.count('guests')).toBe(0);
    },
  ],
  [
    'limits',
    'when all guests together have too many, the one with the most gives way',
    () => {
      const bench = new Bench();
      bench.deliver(bench.udp(SERVER, 9000, bytes('a'), { src: '10.0.2.20' }));
      for (const src of ['10.0.2.21', '10.0.2.22'])
        for (let srcPort = 1; srcPort <= 4096; srcPort++)
          bench.deliver(bench.udp(SERVER, 9000, bytes('a'), { src, srcPort }));
      expect(bench.count('udpMappings')).toBe(8192);
      expect(bench.host.datagrams[0]?.isClosed).toBe(false);
      expect(bench.count('udpMappingsEvicted')).toBe(1);
    },
  ],
  [
    'limits',
    'when the process has no descriptors left, the guest with the most gives one up',
    () => {
      const bench = new Bench();
      bench.host.socketsMax = 50;
      for (let srcPort = 1; srcPort <= 80; srcPort++)
        bench.deliver(bench.udp(SERVER, 9000, bytes('a'), { srcPort }));
      expect(bench.host.open).toBe(50);
      bench.exchange(bench.udp(SERVER, 9000, bytes('b'), { src: NEIGHBOUR }));
      bench.exchange(bench.ping(SERVER, pattern(8), { src: NEIGHBOUR }));
      bench.exchange(bench.tcp(SERVER, { flags: TCP_SYN, sequence: 1 }, undefined, { src: NEIGHBOUR }));
      expect(bench.host.open).toBe(50);
      expect(bench.count('udpMappings')).toBe(48);
      expect(bench.host.datagrams.at(-1)?.isClosed).toBe(false);
      expect(bench.host.pings[0]?.isClosed).toBe(false);
      expect(bench.host.streams[0]?.isClosed).toBe(false);
    },
  ],
  [
    'limits',
    'a host without sockets is silence, and nothing is remembered',
    () => {
      const bench = new Bench();
      bench.host.exhausted = 'EMFILE';
      expect(bench.exchange(bench.udp(SERVER, 9000, bytes('a')))).toEqual([]);
      expect(bench.count('udpMappings')).toBe(0);
      expect(bench.count('guests')).toBe(0);
    },
  ],
  [
    'egress policy',
    'what may not leave is answered "administratively prohibited", and is counted',
    () => {
      const asked: number[] = [];
      const egress = {
        allows: (
          _protocol: number,
          _guest: Uint8Array,
          _off: number,
          _addr: Uint8Array,
          _o: number,
          port: number,
        ) => {
          asked.push(port);
          return port !== 25;
        },
      };
      const bench = new Bench({ stack: { egress } });
      const [reply] = bench.exchange(bench.udp(SERVER, 25, bytes('a')));
      expect(reply?.icmp).toMatchObject({ type: 3, code: 13 });
      expect(bench.count('egressDenied')).toBe(1);
      bench.exchange(bench.udp(SERVER, 9000, bytes('a')), bench.udp(SERVER, 9000, bytes('b')));
      expect(bench.host.datagrams.flatMap((each) => each.sent)).toHaveLength(2);
      // Asked once for the same destination in a row.
      expect(asked).toEqual([25, 9000]);
    },
  ],
  [
    'RFC 6762 section 6.7',
    'a relayed group is asked one hop far, and who answers the asker reaches the guest',
    () => {
      const relayedGroups = [{ addr: address('224.0.0.251'), port: 5353 }];
      const bench = new Bench({ stack: { relayedGroups } });
      const dstMac = 0x01005e0000fb;
      bench.exchange(bench.udp('224.0.0.251', 5353, bytes('query'), { dstMac, ttl: 255 }));
      expect(bench.host.datagrams[0]?.sent).toEqual([
        { address: '224.0.0.251', port: 5353, ttl: 0, trafficClass: 0, payload: bytes('query') },
      ]);
      bench.host.datagrams[0]!.receive('192.168.1.9', 5353, bytes('answer'));
      expect(bench.turn()[0]).toMatchObject({ src: '192.168.1.9', dst: GUEST, udp: { dstPort: 5000 } });
      // Other ports and groups stay where they are.
      bench.exchange(bench.udp('224.0.0.251', 5354, bytes('x'), { dstMac }));
      bench.exchange(bench.udp('224.0.0.252', 5353, bytes('x'), { dstMac: 0x01005e0000fc }));
      expect(bench.host.datagrams.flatMap((each) => each.sent)).toHaveLength(1);
      expect(bench.count('ipMulticastDropped')).toBe(2);
    },
  ],
  [
    'docker rm',
    'a guest that has left leaves no mapping',
    () => {
      const bench = new Bench();
      bench.exchange(bench.udp(SERVER, 9000, bytes('a')), bench.ping(SERVER, pattern(8)));
      bench.exchange(bench.udp(SERVER, 9000, bytes('a'), { src: NEIGHBOUR }));
      bench.stack.forgetGuest(address(GUEST));
      expect(bench.host.open).toBe(1);
      expect(bench.count('udpMappings')).toBe(1);
      expect(bench.count('pings')).toBe(0);
    },
  ],
]);

function bind(
  bench: Bench,
  port: number,
  addr?: string,
): { socket: { port: number; close(): void }; heard: string[] } {
  const heard: string[] = [];
  const socket = bench.stack.bindUdp(
    { port, ...(addr === undefined ? {} : { addr: address(addr) }) },
    {
      datagram: (_now, buf, off, len) => heard.push(String.fromCharCode(...buf.subarray(off, off + len))),
      icmpError: (error) => heard.push(error.kind),
    },
  );
  if (typeof socket === 'string') throw new Error(socket);
  return { socket, heard };
}

conform('UDP sockets inside', [
  [
    'service',
    "a service at the gateway is asked instead of the host's loopback",
    () => {
      const bench = new Bench();
      const { heard } = bind(bench, 53);
      bench.exchange(bench.udp(GATEWAY, 53, bytes('question')), bench.udp(GATEWAY, 54, bytes('other')));
      expect(heard).toEqual(['question']);
      expect(bench.host.datagrams.flatMap((each) => each.sent).map((each) => each.port)).toEqual([54]);
    },
  ],
  [
    'service',
    'a port of the gateway is not the same port of others',
    () => {
      const bench = new Bench();
      const { heard } = bind(bench, 53);
      bench.exchange(bench.udp(SERVER, 53, bytes('question')));
      expect(heard).toEqual([]);
      expect(bench.host.datagrams).toHaveLength(1);
    },
  ],
  [
    'service',
    'a port is bound once; a closed one can be bound again',
    () => {
      const bench = new Bench();
      const { socket } = bind(bench, 53);
      expect(bench.stack.bindUdp({ port: 53 }, { datagram() {} })).toBe('EADDRINUSE');
      socket.close();
      expect(bind(bench, 53).socket.port).toBe(53);
    },
  ],
  [
    'RFC 6335 section 6',
    'port 0 is a free dynamic port, another for each',
    () => {
      const bench = new Bench();
      const ports = [bind(bench, 0), bind(bench, 0)].map((each) => each.socket.port);
      expect(ports[0]).toBeGreaterThanOrEqual(49152);
      expect(ports[0]).not.toBe(ports[1]);
    },
  ],
  [
    'published port',
    'a socket that stands for a client outside gets the answers to it, before any mapping',
    () => {
      const bench = new Bench();
      bench.introduce();
      const { socket, heard } = bind(bench, 7777, PEER);
      const sender = bench.stack.bindUdp({ port: 7778, addr: address(PEER) }, { datagram() {} });
      if (typeof sender === 'string') throw new Error(sender);
      sender.send(bytes('hi'), 0, 2, address(GUEST), 0, 80);
      expect(bench.turn()[0]).toMatchObject({ src: PEER, dst: GUEST, udp: { srcPort: 7778, dstPort: 80 } });
      bench.exchange(bench.udp(PEER, 7777, bytes('answer')));
      expect(heard).toEqual(['answer']);
      expect(bench.host.open).toBe(0);
      socket.close();
      bench.exchange(bench.udp(PEER, 7777, bytes('late')));
      expect(bench.host.datagrams).toHaveLength(1);
    },
  ],
  [
    'RFC 1122 section 4.1.3.3',
    "a guest's closed port is told to the socket",
    () => {
      const bench = new Bench();
      bench.introduce();
      const { heard } = bind(bench, 7777, PEER);
      const quoted = ipPacket(PEER, GUEST, PROTOCOL_UDP, udpDatagram(PEER, 7777, GUEST, 80, bytes('hi')));
      const message = icmpMessage({ type: 3, code: 3, rest: 0 }, quoted);
      bench.exchange(bench.ip(ipPacket(GUEST, PEER, 1, message)));
      expect(heard).toEqual(['port-unreachable']);
    },
  ],
  [
    'published port',
    'a guest that does not exist is told to the socket',
    () => {
      const bench = new Bench();
      const heard: string[] = [];
      const socket = bench.stack.bindUdp(
        { port: 53 },
        { datagram() {}, icmpError: (error) => heard.push(error.kind) },
      );
      if (typeof socket === 'string') throw new Error(socket);
      socket.send(bytes('a'), 0, 1, address('10.0.2.200'), 0, 1234);
      for (let second = 0; second < 4; second++) bench.advance(1000);
      expect(heard).toEqual(['host-unreachable']);
    },
  ],
  [
    'service',
    'it sends only to guests and groups',
    () => {
      const bench = new Bench();
      const socket = bench.stack.bindUdp({ port: 53 }, { datagram() {} });
      if (typeof socket === 'string') throw new Error(socket);
      for (const to of [SERVER, GATEWAY, '127.0.0.1', '10.0.2.0'])
        expect(socket.send(bytes('a'), 0, 1, address(to), 0, 1)).toBe(false);
      expect(socket.send(bytes('a'), 0, 1, address('255.255.255.255'), 0, 68)).toBe(true);
      expect(socket.send(bytes('a'), 0, 1, address('10.0.2.255'), 0, 68)).toBe(true);
      expect(socket.send(bytes('a'), 0, 1, address('224.0.0.251'), 0, 5353)).toBe(true);
      expect(bench.turn().map((each) => each.ethernet.dst)).toEqual([
        MAC_BROADCAST,
        MAC_BROADCAST,
        0x01005e0000fb,
      ]);
    },
  ],
  [
    'RFC 2131 section 4.1',
    'a given MAC address needs no ARP',
    () => {
      const bench = new Bench();
      const socket = bench.stack.bindUdp({ port: 67 }, { datagram() {} });
      if (typeof socket === 'string') throw new Error(socket);
      const mac = Uint8Array.of(2, 0, 0, 0, 0, 0x15);
      socket.send(bytes('offer'), 0, 5, address(GUEST), 0, 68, mac);
      const [offer] = bench.turn();
      expect(offer?.ethernet).toMatchObject({ dst: GUEST_MAC, src: GATEWAY_MAC });
      expect(offer).toMatchObject({ src: GATEWAY, dst: GUEST });
    },
  ],
  [
    'service',
    'an answer above the MTU is sent in fragments',
    () => {
      const bench = new Bench();
      bench.introduce();
      const socket = bench.stack.bindUdp({ port: 53 }, { datagram() {} });
      if (typeof socket === 'string') throw new Error(socket);
      expect(socket.send(pattern(4000), 0, 4000, address(GUEST), 0, 1234)).toBe(true);
      expect(bench.turn()).toHaveLength(3);
    },
  ],
  [
    'gvproxy host address',
    'another address of the subnet leads to the host, and answers from there',
    () => {
      const bench = new Bench({ stack: { hostAddresses: new Map([[0x0a0002fe, 0x7f000001]]) } });
      const host = '10.0.2.254';
      const { heard } = bind(bench, 53);
      bench.exchange(bench.udp(host, 53, bytes('q')), bench.udp(GATEWAY, 99, bytes('q'), { srcPort: 9 }));
      expect(heard).toEqual([]);
      const [socket] = bench.host.datagrams;
      expect(socket?.sent[0]).toMatchObject({ address: '127.0.0.1', port: 53 });
      socket!.receive('127.0.0.1', 53, bytes('a'));
      expect(bench.turn()[0]).toMatchObject({ src: host, dst: GUEST });
      expect(bench.exchange(bench.ping(host, pattern(8)))[0]).toMatchObject({ src: host, icmp: { type: 0 } });
    },
  ],
  [
    "gvproxy's nat",
    'the policy decides about an address that leads elsewhere by where it leads, for TCP and UDP',
    () => {
      const rules = new EgressRules(() => 0);
      rules.set({ default: 'allow', rules: [{ action: 'deny', cidr: '10.9.9.9/32', port: '80' }] });
      const leads = { hostAddresses: new Map([[0x0a0002fe, 0x0a090909]]), egress: rules };
      const bench = new Bench({ stack: leads });
      const there = '10.0.2.254';
      expect(bench.exchange(bench.udp(there, 80, bytes('q')))[0]).toMatchObject({
        icmp: { type: 3, code: 13 },
      });
      const syn = { flags: TCP_SYN, sequence: 1, sourcePort: 6000 };
      expect(bench.exchange(bench.tcp(there, { ...syn, destinationPort: 80 }))[0]?.tcp?.flags).toBe(
        TCP_RST | TCP_ACK,
      );
      expect([bench.host.datagrams.filter(({ sent }) => sent.length > 0), bench.host.streams]).toEqual([
        [],
        [],
      ]);
      expect(rules.denied()).toMatchObject([
        { target: '10.9.9.9:80', protocol: 'udp' },
        { target: '10.9.9.9:80', protocol: 'tcp' },
      ]);
      bench.exchange(bench.udp(there, 81, bytes('q')), bench.tcp(there, { ...syn, destinationPort: 81 }));
      expect(bench.host.datagrams.flatMap(({ sent }) => sent)).toMatchObject([
        { address: '10.9.9.9', port: 81 },
      ]);
      expect(bench.host.streams).toHaveLength(1);
    },
  ],
]);
