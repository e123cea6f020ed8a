/** Ethernet and ARP, with raw frames. */
import { expect } from 'vitest';
import { MAC_BROADCAST, parseIpv4, parseMac, putMac } from '../../netstack/wire/address.ts';
import type { ArpRepr } from '../../netstack/wire/arp.ts';
import { ETHERTYPE_IPV4 } from '../../netstack/wire/ethernet.ts';
import { PROTOCOL_UDP } from '../../netstack/wire/ipv4.ts';
import {
  address,
  Bench,
  GATEWAY,
  GATEWAY_MAC,
  GUEST,
  GUEST_MAC,
  macBytes,
  SERVER,
} from '../support/netstack/bench.ts';
import {
  arpFrame,
  bytes,
  concat,
  frame,
  ipPacket,
  pattern,
  udpDatagram,
} from '../support/netstack/frames.ts';
import { conform } from './conform.ts';

const OTHER_MAC = 0x020000000099;

function arp(fields: Partial<ArpRepr> & { dst?: number; src?: number }): Uint8Array {
  const { dst, src, ...repr } = fields;
  return arpFrame(dst ?? MAC_BROADCAST, src ?? repr.senderMac ?? GUEST_MAC, {
    op: 1,
    senderMac: GUEST_MAC,
    senderIp: parseIpv4(GUEST)!,
    targetMac: 0,
    targetIp: parseIpv4(GATEWAY)!,
    ...repr,
  });
}

/** A UDP packet in a frame that the case makes. */
function inFrame(dst: number, src: number, tag: number, type = ETHERTYPE_IPV4): Uint8Array {
  const datagram = udpDatagram(GUEST, 5000, SERVER, 9000, bytes('x'));
  return frame({ dst, src, type, tag }, ipPacket(GUEST, SERVER, PROTOCOL_UDP, datagram));
}

conform('Ethernet', [
  [
    'IEEE 802.3 clause 4.2.9',
    'frames to another station are ignored',
    () => {
      const bench = new Bench();
      bench.exchange(inFrame(OTHER_MAC, GUEST_MAC, -1));
      expect(bench.host.datagrams).toEqual([]);
      expect(bench.count('ethernetNotForUs')).toBe(1);
    },
  ],
  [
    'IEEE 802.3 clause 3.2.6',
    'a frame whose type field is a length is dropped',
    () => {
      const bench = new Bench();
      expect(bench.exchange(inFrame(GATEWAY_MAC, GUEST_MAC, -1, 46))).toEqual([]);
      expect(bench.count('ethernetRunts')).toBe(1);
    },
  ],
  [
    'IEEE 802.3 clause 4.2.4.2.2',
    'a frame shorter than its header is dropped',
    () => {
      const bench = new Bench();
      for (let len = 10; len < 24; len++) bench.deliver(inFrame(GATEWAY_MAC, GUEST_MAC, -1).slice(0, len));
      expect(bench.count('ethernetRunts')).toBe(14);
    },
  ],
  [
    'IEEE 802.3 clause 3.2.8',
    'padding behind the IP packet is no part of it',
    () => {
      const bench = new Bench();
      bench.exchange(concat(inFrame(GATEWAY_MAC, GUEST_MAC, -1), pattern(30)));
      expect(bench.host.datagrams[0]?.sent[0]?.payload).toEqual(bytes('x'));
    },
  ],
  [
    'IEEE 802.1Q clause 6.9',
    'a priority tag (VLAN 0) is no VLAN: the frame is taken',
    () => {
      const bench = new Bench();
      bench.exchange(inFrame(GATEWAY_MAC, GUEST_MAC, 0xe000));
      expect(bench.host.datagrams[0]?.sent).toHaveLength(1);
    },
  ],
  [
    'IEEE 802.1Q clause 6.9',
    'a frame of a VLAN is not for the untagged network',
    () => {
      const bench = new Bench();
      bench.exchange(inFrame(GATEWAY_MAC, GUEST_MAC, 12));
      expect(bench.host.datagrams).toEqual([]);
      expect(bench.count('ethernetVlanDropped')).toBe(1);
    },
  ],
  [
    'IEEE 802.3 clause 3.2.5',
    'a group address as source is dropped',
    () => {
      const bench = new Bench();
      bench.exchange(inFrame(GATEWAY_MAC, 0x01005e000001, -1), inFrame(GATEWAY_MAC, MAC_BROADCAST, -1));
      expect(bench.count('ethernetBadSource')).toBe(2);
    },
  ],
  [
    'IEEE 802.1D clause 7.8',
    'a frame that claims to come from the gateway itself is dropped',
    () => {
      const bench = new Bench();
      bench.exchange(inFrame(GATEWAY_MAC, GATEWAY_MAC, -1));
      expect(bench.count('ethernetBadSource')).toBe(1);
    },
  ],
  [
    'RFC 894',
    'an unknown EtherType is counted and dropped',
    () => {
      const bench = new Bench();
      expect(bench.exchange(inFrame(GATEWAY_MAC, GUEST_MAC, -1, 0x88cc))).toEqual([]);
      expect(bench.count('ethernetUnknownType')).toBe(1);
    },
  ],
  [
    'RFC 1122 section 3.3.6',
    'a unicast IP packet in a broadcast frame is dropped',
    () => {
      const bench = new Bench();
      bench.exchange(inFrame(MAC_BROADCAST, GUEST_MAC, -1));
      expect(bench.host.datagrams).toEqual([]);
      expect(bench.count('ipMartianDestination')).toBe(1);
    },
  ],
]);

conform('ARP', [
  [
    'RFC 826',
    'a request for the gateway gets a reply to the asker alone',
    () => {
      const [reply] = new Bench().exchange(arp({}));
      expect(reply?.ethernet).toMatchObject({ dst: GUEST_MAC, src: GATEWAY_MAC });
      expect(reply?.arp).toEqual({
        op: 2,
        senderMac: GATEWAY_MAC,
        senderIp: parseIpv4(GATEWAY)!,
        targetMac: GUEST_MAC,
        targetIp: parseIpv4(GUEST)!,
      });
    },
  ],
  [
    'RFC 826',
    'a unicast request is answered too',
    () => expect(new Bench().exchange(arp({ dst: GATEWAY_MAC }))).toHaveLength(1),
  ],
  [
    'RFC 826',
    'a request for another address is not answered: no proxy ARP',
    () => expect(new Bench().exchange(arp({ targetIp: parseIpv4('10.0.2.77')! }))).toEqual([]),
  ],
  [
    'RFC 826',
    'a request for an address outside the subnet is not answered',
    () => expect(new Bench().exchange(arp({ targetIp: parseIpv4(SERVER)! }))).toEqual([]),
  ],
  [
    'RFC 826',
    'a packet of another hardware type, or cut short, is counted and dropped',
    () => {
      const bench = new Bench();
      const bad = arp({});
      bad[10 + 14 + 1] = 6;
      bench.exchange(bad, arp({}).slice(0, 10 + 14 + 27));
      expect(bench.count('arpMalformed')).toBe(2);
    },
  ],
  [
    'RFC 826',
    'who asks for the gateway is learned',
    () => {
      const bench = new Bench();
      bench.exchange(arp({}));
      expect(bench.count('neighbours')).toBe(1);
    },
  ],
  [
    'RFC 826',
    "others' questions make no entries",
    () => {
      const bench = new Bench();
      bench.exchange(arp({ targetIp: parseIpv4('10.0.2.77')! }));
      expect(bench.count('neighbours')).toBe(0);
    },
  ],
  [
    'RFC 5227 section 2.1.1',
    'a probe for the gateway address is told that it is taken',
    () => {
      const [reply] = new Bench().exchange(arp({ senderIp: 0 }));
      expect(reply?.arp).toMatchObject({ op: 2, senderMac: GATEWAY_MAC, targetIp: 0 });
    },
  ],
  [
    'RFC 5227 section 2.1.1',
    'a probe for a free address is not answered',
    () => expect(new Bench().exchange(arp({ senderIp: 0, targetIp: parseIpv4('10.0.2.77')! }))).toEqual([]),
  ],
  [
    'RFC 5227 section 2.3',
    'the gateway announces its address twice, two seconds apart',
    () => {
      const bench = new Bench({ announcements: true });
      const first = bench.turn();
      expect(first).toHaveLength(1);
      expect(first[0]?.ethernet.dst).toBe(MAC_BROADCAST);
      expect(first[0]?.arp).toMatchObject({
        op: 1,
        senderIp: parseIpv4(GATEWAY)!,
        targetIp: parseIpv4(GATEWAY)!,
      });
      bench.advance(1999);
      expect(bench.link.take()).toEqual([]);
      bench.advance(1);
      expect(bench.link.take()).toHaveLength(1);
      bench.advance(60_000);
      expect(bench.link.take()).toEqual([]);
    },
  ],
  [
    'RFC 5227 section 2.4',
    'a claim to the gateway address is answered by one announcement',
    () => {
      const bench = new Bench();
      const claim = arp({ senderIp: parseIpv4(GATEWAY)!, senderMac: OTHER_MAC });
      const [defence] = bench.exchange(claim);
      expect(defence?.ethernet.dst).toBe(MAC_BROADCAST);
      expect(defence?.arp).toMatchObject({ senderMac: GATEWAY_MAC, senderIp: parseIpv4(GATEWAY)! });
      expect(bench.count('arpConflicts')).toBe(1);
    },
  ],
  [
    'RFC 5227 section 2.4 (c)',
    'it is defended at most once in ten seconds',
    () => {
      const bench = new Bench();
      const claim = arp({
        senderIp: parseIpv4(GATEWAY)!,
        senderMac: OTHER_MAC,
        targetIp: parseIpv4('10.0.2.99')!,
      });
      expect(bench.exchange(claim, claim, claim)).toHaveLength(1);
      bench.advance(10_000);
      expect(bench.exchange(claim)).toHaveLength(1);
    },
  ],
  [
    'RFC 5227 section 2.4',
    'a claim to the gateway address is not learned',
    () => {
      const bench = new Bench();
      bench.exchange(arp({ senderIp: parseIpv4(GATEWAY)!, senderMac: OTHER_MAC }));
      expect(bench.count('neighbours')).toBe(0);
    },
  ],
  [
    'RFC 826',
    'a sender that is not the station of the frame is not believed',
    () => {
      const bench = new Bench();
      expect(bench.exchange(arp({ senderMac: OTHER_MAC, src: GUEST_MAC }))).toEqual([]);
      expect(bench.count('arpMalformed')).toBe(1);
    },
  ],
  [
    'RFC 1812 section 3.3.2',
    'a sender outside the subnet is neither learned nor answered',
    () => {
      const bench = new Bench();
      expect(bench.exchange(arp({ senderIp: parseIpv4('192.168.7.7')! }))).toEqual([]);
      expect(bench.count('neighbours')).toBe(0);
    },
  ],
  [
    'RFC 5227 section 4',
    'an unsolicited reply makes no entry',
    () => {
      const bench = new Bench();
      bench.exchange(arp({ op: 2, dst: GATEWAY_MAC }));
      expect(bench.count('neighbours')).toBe(0);
    },
  ],
  [
    'RFC 5227 section 3',
    'an announcement is learned',
    () => {
      const bench = new Bench();
      bench.exchange(arp({ targetIp: parseIpv4(GUEST)! }));
      expect(bench.count('neighbours')).toBe(1);
    },
  ],
  [
    'RFC 5227 section 2.3',
    'another station that announces the address right after its holder was heard is believed at its second announcement',
    () => {
      const bench = new Bench();
      const other = parseMac('02:00:00:00:00:99')!;
      const announce = (senderMac: number): void => {
        bench.exchange(
          arpFrame(MAC_BROADCAST, senderMac, {
            op: 1,
            senderMac,
            senderIp: parseIpv4(GUEST)!,
            targetMac: 0,
            targetIp: parseIpv4(GUEST)!,
          }),
        );
      };
      const dialled = (): number | undefined => {
        bench.stack.dial(address(GUEST), 0, 80, {
          connected() {},
          readable() {},
          writable() {},
          failed() {},
        });
        return bench.turn().find(({ tcp }) => tcp)?.ethernet.dst;
      };
      announce(GUEST_MAC);
      bench.advance(500);
      announce(other);
      expect(dialled()).toBe(GUEST_MAC);
      expect(bench.count('neighbourSpoofed')).toBe(1);
      // ANNOUNCE_INTERVAL later.
      bench.advance(2000);
      announce(other);
      expect(dialled()).toBe(other);
    },
  ],
  [
    'RFC 826',
    'a guest that is to be dialled is asked for by broadcast',
    () => {
      const bench = new Bench();
      bench.stack.dial(address(GUEST), 0, 80, { connected() {}, readable() {}, writable() {}, failed() {} });
      const [question] = bench.turn();
      expect(question?.ethernet.dst).toBe(MAC_BROADCAST);
      expect(question?.arp).toMatchObject({ op: 1, targetIp: parseIpv4(GUEST)! });
      const [syn] = bench.exchange(bench.arpReply());
      expect(syn?.ethernet.dst).toBe(GUEST_MAC);
      expect(syn?.tcp?.destinationPort).toBe(80);
    },
  ],
  [
    'RFC 1122 section 2.3.2.1',
    'it is asked for three times, a second apart, and then given up',
    () => {
      const bench = new Bench();
      const failures: string[] = [];
      bench.stack.dial(address(GUEST), 0, 80, {
        connected() {},
        readable() {},
        writable() {},
        failed: (error) => failures.push(error),
      });
      let questions = bench.turn().length;
      for (let second = 0; second < 5; second++) {
        bench.advance(1000);
        questions += bench.link.take().length;
      }
      expect(questions).toBe(3);
      expect(failures).toEqual(['EHOSTUNREACH']);
      expect(bench.count('tcpFlows')).toBe(0);
      expect(bench.count('neighbours')).toBe(0);
    },
  ],
  [
    'RFC 1122 section 2.3.2.2',
    'packets wait for the answer, the newest three of them',
    () => {
      const bench = new Bench();
      const socket = bench.stack.bindUdp({ port: 53 }, { datagram() {} });
      if (typeof socket === 'string') throw new Error(socket);
      for (let i = 0; i < 5; i++) socket.send(Uint8Array.of(i), 0, 1, address(GUEST), 0, 1234);
      expect(bench.turn()).toHaveLength(1);
      const datagrams = bench.exchange(bench.arpReply());
      expect(datagrams.map((each) => each.payload[0])).toEqual([2, 3, 4]);
      expect(bench.count('neighbourQueueDropped')).toBe(2);
    },
  ],
  [
    'RFC 1122 section 2.3.2.1',
    'an old entry is used, and confirmed by a unicast question',
    () => {
      const bench = new Bench();
      bench.introduce();
      bench.advance(31_000);
      const socket = bench.stack.bindUdp({ port: 53 }, { datagram() {} });
      if (typeof socket === 'string') throw new Error(socket);
      socket.send(bytes('a'), 0, 1, address(GUEST), 0, 1234);
      const frames = bench.turn();
      expect(frames.map((each) => each.ethernet.dst)).toEqual([GUEST_MAC, GUEST_MAC]);
      expect(frames.filter((each) => each.arp)).toHaveLength(1);
      bench.exchange(bench.arpReply());
      bench.advance(10_000);
      expect(bench.count('neighbours')).toBe(1);
    },
  ],
  [
    'RFC 1122 section 2.3.2.1',
    'an entry that nobody confirms is forgotten',
    () => {
      const bench = new Bench();
      bench.introduce();
      bench.advance(31_000);
      const socket = bench.stack.bindUdp({ port: 53 }, { datagram() {} });
      if (typeof socket === 'string') throw new Error(socket);
      socket.send(bytes('a'), 0, 1, address(GUEST), 0, 1234);
      for (let second = 0; second < 4; second++) bench.advance(1000);
      expect(bench.count('neighbours')).toBe(0);
    },
  ],
  [
    'RFC 1122 section 2.3.2.1',
    'an entry that is not used is forgotten after ten minutes',
    () => {
      const bench = new Bench();
      bench.introduce();
      bench.advance(600_001);
      expect(bench.count('neighbours')).toBe(0);
    },
  ],
  [
    'RFC 826',
    'a station that changed its MAC address is believed after a moment',
    () => {
      const bench = new Bench();
      bench.introduce();
      bench.introduce(GUEST, OTHER_MAC);
      expect(bench.count('neighbourSpoofed')).toBe(1);
      bench.advance(1001);
      const [reply] = bench.introduce(GUEST, OTHER_MAC);
      expect(reply?.ethernet.dst).toBe(OTHER_MAC);
    },
  ],
  [
    'RFC 2827',
    'a bound address cannot be claimed by another station',
    () => {
      const bench = new Bench();
      bench.stack.bindGuest(address(GUEST), macBytes(GUEST_MAC));
      bench.advance(100_000);
      expect(bench.introduce(GUEST, OTHER_MAC)).toEqual([]);
      expect(bench.count('neighbourSpoofed')).toBe(1);
      expect(bench.introduce()).toHaveLength(1);
    },
  ],
  [
    'RFC 2827',
    'a packet with a source bound to another station is dropped',
    () => {
      const bench = new Bench();
      bench.stack.bindGuest(address(GUEST), macBytes(OTHER_MAC));
      bench.exchange(bench.udp(SERVER, 9000, bytes('x')));
      expect(bench.count('ipSpoofed')).toBe(1);
      expect(bench.host.datagrams).toEqual([]);
      bench.stack.bindGuest(address(GUEST), undefined);
      bench.exchange(bench.udp(SERVER, 9000, bytes('x')));
      expect(bench.host.datagrams).toHaveLength(1);
    },
  ],
  [
    'RFC 826',
    'the cache is bounded: the oldest entry gives way, bound ones stay',
    () => {
      const bench = new Bench({ stack: { ipv4: { address: parseIpv4('10.0.0.1')!, prefixLength: 8 } } });
      bench.stack.bindGuest(address('10.99.99.99'), macBytes(OTHER_MAC));
      for (let i = 0; i < 3000; i++) {
        const senderIp = parseIpv4('10.1.0.0')! + i;
        bench.deliver(arp({ senderIp, senderMac: 0x020000100000 + i, targetIp: parseIpv4('10.0.0.1')! }));
      }
      expect(bench.count('neighbours')).toBe(2048);
      expect(bench.count('neighbourEvicted')).toBe(3001 - 2048);
      bench.link.take();
      const stolen = arp({ senderIp: parseIpv4('10.99.99.99')!, targetIp: parseIpv4('10.0.0.1')! });
      expect(bench.exchange(stolen)).toEqual([]);
    },
  ],
]);

/** Keeps the helper's bytes honest: the frame carries the MAC addresses that it says. */
conform('frames of the suite', [
  [
    'IEEE 802.3 clause 3.2.3',
    'addresses stand in network order',
    () => {
      const raw = new Uint8Array(6);
      putMac(raw, 0, GUEST_MAC);
      expect([...inFrame(GATEWAY_MAC, GUEST_MAC, -1).subarray(16, 22)]).toEqual([...raw]);
    },
  ],
]);
