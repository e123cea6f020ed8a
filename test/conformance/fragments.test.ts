/** Fragmentation and reassembly of both families, with raw frames. */
import { expect } from 'vitest';
import { put16 } from '../../netstack/wire/address.ts';
import { PROTOCOL_UDP } from '../../netstack/wire/ipv4.ts';
import { emitFragment, FRAGMENT_LEN, NEXT_FRAGMENT } from '../../netstack/wire/ipv6.ts';
import {
  address,
  Bench,
  GATEWAY,
  GATEWAY_MAC,
  GATEWAY6,
  GUEST,
  GUEST_MAC,
  GUEST6,
  SERVER,
  SERVER6,
} from '../support/netstack/bench.ts';
import { bytes, concat, type Decoded, ipPacket, pattern, udpDatagram } from '../support/netstack/frames.ts';
import { type Case, conform } from './conform.ts';

/** A part of a datagram: where it begins and ends. */
type Part = readonly [start: number, end: number];

/** Both families behave alike, so most cases run for both. */
interface Family {
  name: string;
  guest: string;
  server: string;
  gateway: string;
  /** A fragment of `datagram` in a frame. */
  fragment(bench: Bench, datagram: Uint8Array, part: Part, more?: boolean, ident?: number): Uint8Array;
}

const FOUR: Family = {
  name: 'IPv4',
  guest: GUEST,
  server: SERVER,
  gateway: GATEWAY,
  fragment(bench, datagram, [start, end], more = end < datagram.length, ident = 77) {
    const fields = { ident, moreFragments: more, fragmentOffset: start };
    return bench.ip(ipPacket(GUEST, SERVER, PROTOCOL_UDP, datagram.slice(start, end), fields));
  },
};

const SIX: Family = {
  name: 'IPv6',
  guest: GUEST6,
  server: SERVER6,
  gateway: GATEWAY6,
  fragment(bench, datagram, [start, end], more = end < datagram.length, ident = 77) {
    const header = new Uint8Array(FRAGMENT_LEN);
    emitFragment({ nextHeader: PROTOCOL_UDP, offset: start, more, ident }, header, 0);
    const payload = concat(header, datagram.slice(start, end));
    return bench.ip(ipPacket(GUEST6, SERVER6, NEXT_FRAGMENT, payload));
  },
};

function makeBench(): Bench {
  return new Bench({ ipv6: true });
}

function datagramOf(family: Family, len: number): Uint8Array {
  return udpDatagram(family.guest, 5000, family.server, 9000, pattern(len));
}

/** What the host's sockets got. */
function received(bench: Bench): Uint8Array[] {
  return bench.host.datagrams.flatMap((socket) => socket.sent.map((each) => each.payload));
}

/** Cases for one family. */
function both(family: Family): Case[] {
  const rule = family.name === 'IPv4' ? 'RFC 791 section 3.2' : 'RFC 8200 section 4.5';
  const send = (bench: Bench, datagram: Uint8Array, ...parts: Part[]): Decoded[] =>
    bench.exchange(...parts.map((part) => family.fragment(bench, datagram, part)));
  return [
    [
      rule,
      `${family.name}: fragments in order are put together`,
      () => {
        const bench = makeBench();
        send(bench, datagramOf(family, 3000), [0, 1400], [1400, 2800], [2800, 3008]);
        expect(received(bench)).toEqual([pattern(3000)]);
        expect(bench.count('reassemblyBytes')).toBe(0);
      },
    ],
    [
      rule,
      `${family.name}: fragments in any order are put together`,
      () => {
        const bench = makeBench();
        send(bench, datagramOf(family, 3000), [2800, 3008], [0, 1400], [1400, 2800]);
        expect(received(bench)).toEqual([pattern(3000)]);
      },
    ],
    [
      rule,
      `${family.name}: the largest datagram is put together`,
      () => {
        const bench = makeBench();
        const datagram = datagramOf(family, 65507);
        const parts: Part[] = [];
        for (let at = 0; at < datagram.length; at += 1400)
          parts.push([at, Math.min(at + 1400, datagram.length)]);
        send(bench, datagram, ...parts);
        expect(received(bench)).toEqual([pattern(65507)]);
      },
    ],
    [
      rule,
      `${family.name}: fragments of different identifications are kept apart`,
      () => {
        const bench = makeBench();
        const one = datagramOf(family, 2000);
        const two = udpDatagram(family.guest, 5000, family.server, 9000, pattern(2000).reverse());
        bench.exchange(
          family.fragment(bench, one, [0, 1000], true, 1),
          family.fragment(bench, two, [0, 1000], true, 2),
          family.fragment(bench, two, [1000, 2008], false, 2),
          family.fragment(bench, one, [1000, 2008], false, 1),
        );
        expect(received(bench)).toEqual([pattern(2000).reverse(), pattern(2000)]);
      },
    ],
    [
      rule,
      `${family.name}: a duplicate fragment is skipped`,
      () => {
        const bench = makeBench();
        send(bench, datagramOf(family, 2000), [0, 1000], [0, 1000], [1000, 2008]);
        expect(received(bench)).toEqual([pattern(2000)]);
      },
    ],
    [
      'RFC 5722 section 4',
      `${family.name}: an overlap gives up the whole datagram, later fragments too`,
      () => {
        const bench = makeBench();
        send(bench, datagramOf(family, 2000), [0, 1000], [800, 1600], [1600, 2008], [1000, 1600]);
        expect(received(bench)).toEqual([]);
        expect(bench.count('ipReassemblyRefused')).toBe(1);
      },
    ],
    [
      'RFC 5722 section 4',
      `${family.name}: a fragment that covers another gives up the datagram`,
      () => {
        const bench = makeBench();
        send(bench, datagramOf(family, 2000), [800, 1600], [0, 1608], [1608, 2008]);
        expect(received(bench)).toEqual([]);
      },
    ],
    [
      rule,
      `${family.name}: fragments beyond the end that the last one gave are refused`,
      () => {
        const bench = makeBench();
        const datagram = datagramOf(family, 2000);
        bench.exchange(
          family.fragment(bench, datagram, [1000, 1200], false),
          family.fragment(bench, datagram, [1200, 2000], true),
          family.fragment(bench, datagram, [0, 1000], true),
        );
        expect(received(bench)).toEqual([]);
      },
    ],
    [
      rule,
      `${family.name}: two different ends give up the datagram`,
      () => {
        const bench = makeBench();
        const datagram = datagramOf(family, 2000);
        bench.exchange(
          family.fragment(bench, datagram, [1000, 1200], false),
          family.fragment(bench, datagram, [1600, 2008], false),
          family.fragment(bench, datagram, [0, 1000], true),
        );
        expect(received(bench)).toEqual([]);
      },
    ],
    [
      rule,
      `${family.name}: an incomplete datagram is reported after a minute, if its start has come`,
      () => {
        const bench = makeBench();
        send(bench, datagramOf(family, 2000), [0, 1000]);
        bench.advance(59_999);
        expect(bench.link.take()).toEqual([]);
        bench.advance(1);
        const [error] = bench.turn();
        if (family === FOUR) expect(error?.icmp).toMatchObject({ type: 11, code: 1 });
        else expect(error?.icmpv6).toMatchObject({ type: 3, code: 1 });
        expect(error?.dst).toBe(family.guest);
        expect(bench.count('reassemblyBytes')).toBe(0);
      },
    ],
    [
      rule,
      `${family.name}: without its start nothing is reported`,
      () => {
        const bench = makeBench();
        send(bench, datagramOf(family, 2000), [1000, 2008]);
        bench.advance(60_000);
        expect(bench.turn()).toEqual([]);
        expect(bench.count('ipReassemblyTimeouts')).toBe(1);
      },
    ],
    [
      'limits',
      `${family.name}: fragments of one datagram are bounded`,
      () => {
        const bench = makeBench();
        const datagram = datagramOf(family, 8000);
        // Every other piece, so that none can be joined.
        for (let at = 0; at + 8 < datagram.length; at += 16)
          bench.deliver(family.fragment(bench, datagram, [at, at + 8], true));
        expect(bench.count('ipReassemblyRefused')).toBe(1);
        expect(bench.count('reassemblyBytes')).toBe(0);
      },
    ],
    [
      'limits',
      `${family.name}: a flood of first fragments holds a bounded memory`,
      () => {
        const bench = makeBench();
        const datagram = datagramOf(family, 2000);
        for (let ident = 0; ident < 10_000; ident++)
          bench.deliver(family.fragment(bench, datagram, [0, 1000], true, ident));
        expect(bench.count('reassemblyBytes')).toBeLessThanOrEqual(2 * 1024 * 1024 + 8192);
        expect(bench.count('ipReassemblyEvicted')).toBeGreaterThan(9000);
        // The newest datagram can still be completed.
        bench.deliver(family.fragment(bench, datagram, [1000, 2008], false, 9999));
        expect(received(bench)).toEqual([pattern(2000)]);
        bench.advance(60_000);
        expect(bench.count('reassemblyBytes')).toBe(0);
      },
    ],
    [
      rule,
      `${family.name}: an answer above the MTU goes to the guest in fragments`,
      () => {
        const bench = makeBench();
        const small = udpDatagram(family.guest, 5000, family.server, 9000, bytes('q'));
        bench.exchange(bench.ip(ipPacket(family.guest, family.server, PROTOCOL_UDP, small)));
        bench.host.datagrams[0]!.receive(family.server, 9000, pattern(4000));
        const frames = bench.turn();
        expect(frames).toHaveLength(3);
        for (const each of frames) expect(each.ipPayload.length).toBeLessThanOrEqual(1480);
        expect(bench.count('ipFragmentsOut')).toBe(3);
        // What comes out is what a guest puts together: give it back to a second stack as its own.
        const parts = frames.map((each) => (family === FOUR ? each.ipPayload : each.ipPayload.slice(8)));
        const whole = concat(...parts);
        expect(whole.slice(8)).toEqual(pattern(4000));
        const check = udpDatagram(family.server, 9000, family.guest, 5000, pattern(4000));
        expect(whole).toEqual(check);
      },
    ],
    [
      rule,
      `${family.name}: fragments that are sent have multiples of 8 bytes, but the last`,
      () => {
        const bench = makeBench();
        const small = udpDatagram(family.guest, 5000, family.server, 9000, bytes('q'));
        bench.exchange(bench.ip(ipPacket(family.guest, family.server, PROTOCOL_UDP, small)));
        bench.host.datagrams[0]!.receive(family.server, 9000, pattern(3333));
        const lengths = bench.turn().map((each) => each.ipPayload.length);
        for (const len of lengths.slice(0, -1)) expect(len % 8).toBe(0);
      },
    ],
  ];
}

conform('fragments of both families', [...both(FOUR), ...both(SIX)]);

conform('IPv4 fragments', [
  [
    'RFC 791 section 3.2',
    'fragments of different protocols are kept apart',
    () => {
      const bench = makeBench();
      const datagram = datagramOf(FOUR, 2000);
      const fields = { ident: 77, fragmentOffset: 1000 };
      bench.exchange(
        FOUR.fragment(bench, datagram, [0, 1000]),
        bench.ip(ipPacket(GUEST, SERVER, 6, datagram.slice(1000), fields)),
      );
      expect(received(bench)).toEqual([]);
    },
  ],
  [
    'RFC 791 section 3.2',
    'a fragment that is no multiple of 8 and not the last is refused',
    () => {
      const bench = makeBench();
      bench.exchange(FOUR.fragment(bench, datagramOf(FOUR, 2000), [0, 1001], true));
      expect(bench.count('ipReassemblyRefused')).toBe(1);
    },
  ],
  [
    'CVE-1999-0128 "ping of death"',
    'a fragment that reaches beyond 65535 bytes is refused',
    () => {
      const bench = makeBench();
      const packet = ipPacket(GUEST, SERVER, PROTOCOL_UDP, pattern(400), { ident: 5, fragmentOffset: 65528 });
      bench.exchange(bench.ip(packet));
      expect(bench.count('ipReassemblyRefused')).toBe(1);
      expect(bench.count('reassemblyBytes')).toBe(0);
    },
  ],
  [
    'RFC 1858 section 3',
    'a tiny first fragment makes no difference: the datagram is judged whole',
    () => {
      const bench = makeBench();
      const datagram = datagramOf(FOUR, 100);
      bench.exchange(FOUR.fragment(bench, datagram, [0, 8]), FOUR.fragment(bench, datagram, [8, 108]));
      expect(received(bench)).toEqual([pattern(100)]);
    },
  ],
  [
    'RFC 791 section 3.2',
    'an empty fragment is refused',
    () => {
      const bench = makeBench();
      bench.exchange(FOUR.fragment(bench, datagramOf(FOUR, 100), [0, 0], true));
      expect(bench.count('ipReassemblyRefused')).toBe(1);
    },
  ],
  [
    'RFC 1122 section 3.3.3',
    'a large ping of the gateway is answered in fragments',
    () => {
      const bench = makeBench();
      const ping = bench.ping(GATEWAY, pattern(4000));
      const message = ping.slice(44);
      const frames: Uint8Array[] = [];
      for (let at = 0; at < message.length; at += 1480) {
        const part = message.slice(at, at + 1480);
        const moreFragments = at + 1480 < message.length;
        frames.push(
          bench.ip(ipPacket(GUEST, GATEWAY, 1, part, { ident: 9, moreFragments, fragmentOffset: at })),
        );
      }
      const replies = bench.exchange(...frames);
      expect(replies).toHaveLength(3);
      const whole = concat(...replies.map((each) => each.ipPayload));
      expect(whole[0]).toBe(0);
      expect(whole.slice(8)).toEqual(pattern(4000));
    },
  ],
  [
    'RFC 791 section 3.2',
    'fragments that are sent share an identification, and the next datagram has another',
    () => {
      const bench = makeBench();
      bench.exchange(bench.udp(SERVER, 9000, bytes('q')));
      const [socket] = bench.host.datagrams;
      socket!.receive(SERVER, 9000, pattern(3000));
      socket!.receive(SERVER, 9000, pattern(3000));
      const idents = bench.turn().map((each) => each.ipv4!.ident);
      expect(new Set(idents.slice(0, 3)).size).toBe(1);
      expect(new Set(idents).size).toBe(2);
    },
  ],
  [
    'RFC 768',
    'a datagram with a wrong checksum is dropped after reassembly',
    () => {
      const bench = makeBench();
      const datagram = datagramOf(FOUR, 2000);
      datagram[1500]! ^= 1;
      bench.exchange(FOUR.fragment(bench, datagram, [0, 1000]), FOUR.fragment(bench, datagram, [1000, 2008]));
      expect(received(bench)).toEqual([]);
      expect(bench.count('udpMalformed')).toBe(1);
    },
  ],
  [
    'limits',
    "one guest's flood does not cost another its datagrams",
    () => {
      const bench = makeBench();
      const datagram = udpDatagram('10.0.2.16', 5000, SERVER, 9000, pattern(2000));
      const part = (start: number, end: number): Uint8Array =>
        bench.ip(
          ipPacket('10.0.2.16', SERVER, PROTOCOL_UDP, datagram.slice(start, end), {
            ident: 1,
            moreFragments: end < datagram.length,
            fragmentOffset: start,
          }),
        );
      bench.deliver(part(0, 1000));
      const flood = datagramOf(FOUR, 2000);
      for (let ident = 0; ident < 2000; ident++)
        bench.deliver(FOUR.fragment(bench, flood, [0, 1000], true, ident));
      bench.deliver(part(1000, 2008));
      expect(received(bench)).toEqual([pattern(2000)]);
    },
  ],
  [
    'virtio 1.2 section 5.1.6.2',
    'checksums of fragments are made in software, also where the link would do it',
    () => {
      const bench = new Bench({ offload: true });
      bench.exchange(bench.udp(SERVER, 9000, bytes('q')));
      bench.host.datagrams[0]!.receive(SERVER, 9000, pattern(3000));
      const raw = bench.link.sent.slice();
      const whole = concat(...bench.turn().map((each) => each.ipPayload));
      expect(raw.every((frame) => frame[0] === 0)).toBe(true);
      expect(whole).toEqual(udpDatagram(SERVER, 9000, GUEST, 5000, pattern(3000)));
    },
  ],
]);

/** An IPv6 fragment whose headers a case writes itself. */
function raw6(bench: Bench, offset: number, more: boolean, next: number, payload: Uint8Array): Uint8Array {
  const header = new Uint8Array(FRAGMENT_LEN);
  emitFragment({ nextHeader: next, offset, more, ident: 5 }, header, 0);
  return bench.ip(ipPacket(GUEST6, SERVER6, NEXT_FRAGMENT, concat(header, payload)), GUEST_MAC, GATEWAY_MAC);
}

conform('IPv6 fragments', [
  [
    'RFC 8200 section 4.5',
    'a fragment that is no multiple of 8 and not the last is a parameter problem of the length field',
    () => {
      const bench = makeBench();
      const [error] = bench.exchange(raw6(bench, 0, true, PROTOCOL_UDP, pattern(1001)));
      expect(error?.icmpv6).toEqual({ type: 4, code: 0, rest: 4 });
    },
  ],
  [
    'RFC 8200 section 4.5',
    'a fragment that reaches beyond 65535 bytes is a parameter problem of its offset',
    () => {
      const bench = makeBench();
      const [error] = bench.exchange(raw6(bench, 65528, false, PROTOCOL_UDP, pattern(100)));
      expect(error?.icmpv6).toEqual({ type: 4, code: 0, rest: 42 });
    },
  ],
  [
    'RFC 6946 section 4',
    'an atomic fragment is a packet of its own, whatever else has its identification',
    () => {
      const bench = makeBench();
      const other = datagramOf(SIX, 2000);
      bench.exchange(SIX.fragment(bench, other, [0, 1000], true, 5));
      bench.exchange(raw6(bench, 0, false, PROTOCOL_UDP, datagramOf(SIX, 20)));
      expect(received(bench)).toEqual([pattern(20)]);
      bench.exchange(SIX.fragment(bench, other, [1000, 2008], false, 5));
      expect(received(bench)).toHaveLength(2);
    },
  ],
  [
    'RFC 7112 section 5',
    'a first fragment without the upper header is answered and dropped',
    () => {
      const bench = makeBench();
      // Destination options that would be continued in the next fragment.
      const [error] = bench.exchange(raw6(bench, 0, true, 60, Uint8Array.of(17, 9, 1, 4, 0, 0, 0, 0)));
      expect(error?.icmpv6).toMatchObject({ type: 4, code: 3 });
      expect(bench.count('reassemblyBytes')).toBe(0);
    },
  ],
  [
    'RFC 7112 section 5',
    'nor one whose TCP header is cut',
    () => {
      const bench = makeBench();
      const [error] = bench.exchange(raw6(bench, 0, true, 6, pattern(16)));
      expect(error?.icmpv6).toMatchObject({ type: 4, code: 3 });
    },
  ],
  [
    'RFC 8200 section 4.5',
    'extension headers behind the fragment header are walked after reassembly',
    () => {
      const bench = makeBench();
      const options = Uint8Array.of(17, 0, 1, 4, 0, 0, 0, 0);
      const whole = concat(options, datagramOf(SIX, 1000));
      bench.exchange(
        raw6(bench, 0, true, 60, whole.slice(0, 512)),
        raw6(bench, 512, false, 60, whole.slice(512)),
      );
      expect(received(bench)).toEqual([pattern(1000)]);
    },
  ],
  [
    'RFC 8200 section 4.5',
    'a fragment header in a reassembled packet is refused',
    () => {
      const bench = makeBench();
      const nested = new Uint8Array(24);
      nested[0] = PROTOCOL_UDP;
      put16(nested, 2, 8);
      bench.exchange(raw6(bench, 0, true, 44, nested), raw6(bench, 24, false, 44, pattern(24)));
      expect(bench.count('ipReassemblyRefused')).toBe(1);
      expect(received(bench)).toEqual([]);
    },
  ],
  [
    'RFC 8200 section 5',
    'the smallest MTU of 1280 is enough',
    () => {
      const bench = new Bench({ ipv6: true, mtuBytes: 1280 });
      const small = udpDatagram(GUEST6, 5000, SERVER6, 9000, bytes('q'));
      bench.exchange(bench.ip(ipPacket(GUEST6, SERVER6, PROTOCOL_UDP, small)));
      bench.host.datagrams[0]!.receive(SERVER6, 9000, pattern(1300));
      const frames = bench.turn();
      expect(frames.length).toBe(2);
      for (const each of frames) expect(each.ipv6!.payloadLen).toBeLessThanOrEqual(1240);
    },
  ],
  [
    'RFC 4443 section 2.4',
    'the gateway that stands for many reports with its own address',
    () => {
      const bench = makeBench();
      const [error] = bench.exchange(raw6(bench, 0, true, PROTOCOL_UDP, pattern(1001)));
      expect(address(error!.src)).toEqual(address(GATEWAY6));
    },
  ],
]);
