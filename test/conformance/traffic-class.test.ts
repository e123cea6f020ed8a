/** Differentiated services and ECN of guests' packets on the host's side, and back; what ICMP errors quote. */
import { expect } from 'vitest';
import { get16 } from '../../netstack/wire/address.ts';
import { PROTOCOL_UDP } from '../../netstack/wire/ipv4.ts';
import { TCP_ACK, TCP_SYN } from '../../netstack/wire/tcp.ts';
import { address, Bench, GUEST, GUEST6, SERVER, SERVER6 } from '../support/netstack/bench.ts';
import { bytes, type IpFields, ipPacket, pattern, udpDatagram } from '../support/netstack/frames.ts';
import { conform } from './conform.ts';

/** Expedited forwarding (RFC 3246), with an ECN-capable transport. */
const EXPEDITED = 0xba;

/** A datagram of 1,200 bytes in two fragments with these ECN fields. */
function fragments(bench: Bench, first: number, second: number): void {
  const whole = udpDatagram(GUEST, 5000, SERVER, 9000, pattern(1200));
  const part = (from: number, to: number, fields: IpFields): Uint8Array =>
    bench.ip(ipPacket(GUEST, SERVER, PROTOCOL_UDP, whole.subarray(from, to), { ident: 7, ...fields }));
  bench.exchange(
    part(0, 800, { moreFragments: true, trafficClass: first }),
    part(800, whole.length, { fragmentOffset: 800, trafficClass: second }),
  );
}

conform('differentiated services and ECN', [
  [
    'RFC 2474 section 3',
    "a guest's datagram goes out with its traffic class, and the answer comes in with the peer's",
    () => {
      const bench = new Bench();
      bench.exchange(bench.udp(SERVER, 9000, bytes('q'), { trafficClass: EXPEDITED }));
      expect(bench.host.datagrams[0]?.sent[0]?.trafficClass).toBe(EXPEDITED);
      bench.host.datagrams[0]!.receive(SERVER, 9000, bytes('a'), 60, 0x2b);
      bench.host.datagrams[0]!.receive(SERVER, 9000, bytes('b'), 60, 0);
      expect(bench.turn().map(({ ipv4 }) => ipv4?.tos)).toEqual([0x2b, 0]);
    },
  ],
  [
    'RFC 2474 section 3',
    'the same over IPv6',
    () => {
      const bench = new Bench({ ipv6: true });
      bench.exchange(bench.udp(SERVER6, 9000, bytes('q'), { src: GUEST6, trafficClass: EXPEDITED }));
      expect(bench.host.datagrams[0]?.sent[0]?.trafficClass).toBe(EXPEDITED);
      bench.host.datagrams[0]!.receive(SERVER6, 9000, bytes('a'), 60, 0x2b);
      expect(bench.turn()[0]?.ipv6?.trafficClass).toBe(0x2b);
    },
  ],
  [
    'RFC 2474 section 3',
    'a connection goes out with the services of its SYN, and follows what the guest says later; ECN stays with each side',
    () => {
      const bench = new Bench();
      const open = { sourcePort: 6000, destinationPort: 80 };
      bench.exchange(
        bench.tcp(SERVER, { ...open, flags: TCP_SYN, sequence: 1000 }, undefined, { trafficClass: 0x48 }),
      );
      const stream = bench.host.streams[0]!;
      expect(stream.trafficClass).toBe(0x48);
      stream.accept();
      const [synAck] = bench.turn();
      const acknowledgment = (synAck!.tcp!.sequence + 1) | 0;
      const ack = { ...open, flags: TCP_ACK, sequence: 1001, acknowledgment };
      bench.exchange(bench.tcp(SERVER, ack, undefined, { trafficClass: EXPEDITED }));
      expect(stream.trafficClass).toBe(EXPEDITED & 0xfc);
    },
  ],
  [
    'RFC 3168 section 5.3',
    'a mark on one fragment is a mark on the datagram',
    () => {
      const bench = new Bench();
      fragments(bench, 2, 3);
      expect(bench.host.datagrams[0]?.sent[0]?.trafficClass).toBe(3);
    },
  ],
  [
    'RFC 3168 section 5.3',
    'a mark beside a fragment that cannot be marked loses the datagram',
    () => {
      const bench = new Bench();
      fragments(bench, 0, 3);
      expect(bench.host.open).toBe(0);
      expect(bench.count('ipReassemblyRefused')).toBe(1);
    },
  ],
]);

conform('what errors of the host quote', [
  [
    'RFC 1812 section 4.3.2.3',
    "the guest's own datagram, as much as fits 576 bytes",
    () => {
      const bench = new Bench();
      bench.exchange(bench.udp(SERVER, 9000, pattern(2000)));
      const error = { kind: 'ttl-exceeded', mtuBytes: 0, offender: address('203.0.113.9') } as const;
      bench.host.datagrams[0]!.icmp(error, SERVER, 9000, pattern(2000));
      const [reply] = bench.turn();
      expect(reply?.ipv4?.totalLen).toBe(576);
      const quote = reply!.payload;
      expect([get16(quote, 2), get16(quote, 24)]).toEqual([2028, 2008]);
      expect(quote.subarray(28)).toEqual(pattern(2000).subarray(0, quote.length - 28));
    },
  ],
  [
    'RFC 4443 section 2.4 (c)',
    'over IPv6 as much as fits the least MTU',
    () => {
      const bench = new Bench({ ipv6: true });
      bench.exchange(bench.udp(SERVER6, 9000, pattern(100), { src: GUEST6 }));
      const error = { kind: 'too-big', mtuBytes: 1280, offender: address('2001:db8::1') } as const;
      bench.host.datagrams[0]!.icmp(error, SERVER6, 9000, pattern(3000));
      const [reply] = bench.turn();
      expect(reply).toMatchObject({ src: '2001:db8::1', icmpv6: { type: 2, rest: 1280 } });
      expect(40 + reply!.ipv6!.payloadLen).toBe(1280);
      expect(reply!.payload.subarray(48)).toEqual(pattern(3000).subarray(0, reply!.payload.length - 48));
    },
  ],
  [
    'RFC 792',
    "an echo request's payload too",
    () => {
      const bench = new Bench();
      bench.exchange(bench.ping(SERVER, pattern(40), { ident: 9, sequence: 4 }));
      const error = { kind: 'host-unreachable', mtuBytes: 0, offender: undefined } as const;
      bench.host.pings[0]!.icmp(error, 4, SERVER, pattern(40));
      const [reply] = bench.turn();
      expect([...reply!.payload.subarray(24, 28)]).toEqual([0, 9, 0, 4]);
      expect(reply!.payload.subarray(28)).toEqual(pattern(40));
    },
  ],
]);
