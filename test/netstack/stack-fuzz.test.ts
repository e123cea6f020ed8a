/**
 * The whole machine under hostile frames: it never throws, what it remembers is bounded, and when the storm is over it
 * forgets. A failure names its seed; `SEED=n npx vitest run test/netstack/stack-fuzz` replays it.
 */
import { describe, expect, it } from 'vitest';
import { below, type Rng, seededRng, uniform } from '#common/rng';
import { VNET_HDR_LEN } from '../../netstack/link/link.ts';
import { put16 } from '../../netstack/wire/address.ts';
import { complement, sum } from '../../netstack/wire/checksum.ts';
import { ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6 } from '../../netstack/wire/ethernet.ts';
import { NEXT_FRAGMENT } from '../../netstack/wire/ipv6.ts';
import { TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN } from '../../netstack/wire/tcp.ts';
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
import {
  concat,
  frame,
  icmpMessage,
  ipPacket,
  pattern,
  tcpSegment,
  udpDatagram,
} from '../support/netstack/frames.ts';

const SEEDS = 60;
const FRAMES = 1500;

/** Everything that a guest can make the stack hold, and the most it may. */
const BOUNDS: Record<string, number> = {
  tcpFlows: 65_536,
  udpMappings: 8192,
  pings: 1024,
  neighbours: 2048,
  reassemblyBytes: 8 * 1024 * 1024 + 65_536,
  tcpBufferBytes: 512 * 1024 * 1024,
};

function makeBench(seed: number, offload: boolean): Bench {
  const bench = new Bench({ ipv6: true, offload, seed });
  const quiet = { connected() {}, readable() {}, writable() {}, failed() {} };
  bench.stack.bindUdp({ port: 53 }, { datagram() {}, icmpError() {} });
  bench.stack.listenTcp(53, { accepted: () => quiet });
  return bench;
}

function checkBounds(bench: Bench): void {
  const { counters } = bench.stack;
  for (const [name, most] of Object.entries(BOUNDS)) expect(counters[name], name).toBeLessThanOrEqual(most);
}

/** Lets time pass until everything that times out has. */
function calmDown(bench: Bench): void {
  for (const stream of bench.host.streams) if (!stream.isClosed && !stream.isReset) stream.fail('ETIMEDOUT');
  for (let minute = 0; minute < 300; minute++) bench.advance(60_000);
  for (const name of [
    'tcpFlows',
    'udpMappings',
    'pings',
    'guests',
    'neighbours',
    'reassemblyBytes',
    'tcpBufferBytes',
  ])
    expect(bench.count(name), name).toBe(0);
  expect(bench.host.open).toBe(0);
}

/** A sane frame of any kind, to be spoiled. */
function saneFrame(bench: Bench, rng: Rng): Uint8Array {
  const port = 1 + below(rng, 4);
  const payload = pattern(below(rng, 60));
  switch (below(rng, 9)) {
    case 0:
      return bench.udp([SERVER, GATEWAY][below(rng, 2)]!, [53, 9000][below(rng, 2)]!, payload, {
        srcPort: port,
      });
    case 1:
      return bench.tcp(
        [SERVER, GATEWAY][below(rng, 2)]!,
        {
          sourcePort: port,
          destinationPort: [53, 80][below(rng, 2)]!,
          flags: below(rng, 256),
          sequence: rng.uint32() | 0,
          acknowledgment: rng.uint32() | 0,
          mss: below(rng, 2) * below(rng, 65_536),
          windowScale: below(rng, 2) ? below(rng, 15) : -1,
          hasTimestamps: below(rng, 2) === 0,
        },
        payload,
      );
    case 2:
      return bench.ping([SERVER, GATEWAY][below(rng, 2)]!, payload, { ident: port });
    case 3:
      return bench.arpReply();
    case 4:
      return bench.ip(ipPacket(GUEST6, SERVER6, 17, udpDatagram(GUEST6, port, SERVER6, 53, payload)));
    case 5:
      return bench.icmpv6(
        GATEWAY6,
        { type: below(rng, 256), code: below(rng, 3), rest: rng.uint32() },
        payload,
        {
          ttl: 255,
        },
      );
    case 6: {
      const quoted = ipPacket(
        SERVER,
        GUEST,
        6,
        tcpSegment(SERVER, GUEST, { sourcePort: 80, destinationPort: port }),
      );
      const message = icmpMessage({ type: 3, code: below(rng, 16), rest: rng.uint32() }, quoted);
      return bench.ip(ipPacket(GUEST, SERVER, 1, message));
    }
    case 7:
      return bench.ip(
        ipPacket(GUEST, SERVER, below(rng, 256), pattern(8 * below(rng, 20)), {
          ident: below(rng, 4),
          moreFragments: below(rng, 2) === 0,
          fragmentOffset: 8 * below(rng, 100),
        }),
      );
    default: {
      const header = Uint8Array.of(17, 0, below(rng, 4), below(rng, 256), 0, 0, 0, below(rng, 4));
      return bench.ip(ipPacket(GUEST6, SERVER6, NEXT_FRAGMENT, concat(header, pattern(8 * below(rng, 20)))));
    }
  }
}

/** Flips bytes, cuts or lengthens; sometimes with the header's checksum made right again, so that it gets further. */
function spoil(whole: Uint8Array, rng: Rng): Uint8Array {
  let spoiled: Uint8Array = whole.slice();
  for (let i = below(rng, 4); i > 0; i--) spoiled[below(rng, spoiled.length)] = below(rng, 256);
  if (below(rng, 4) === 0) spoiled = spoiled.slice(0, below(rng, spoiled.length + 1));
  if (below(rng, 8) === 0) spoiled = concat(spoiled, pattern(below(rng, 40)));
  if (below(rng, 2) === 0 && spoiled.length >= 44 && spoiled[24]! >>> 4 === 4) {
    const headerLen = (spoiled[24]! & 0xf) * 4;
    put16(spoiled, 34, 0);
    if (24 + headerLen <= spoiled.length) put16(spoiled, 34, complement(sum(spoiled, 24, headerLen)));
  }
  return spoiled;
}

function storm(seed: number): void {
  const rng = seededRng(seed);
  const bench = makeBench(seed, seed % 2 === 0);
  bench.host.onConnect = () =>
    ([undefined, 'accept', 'ECONNREFUSED', 'EHOSTUNREACH'] as const)[below(rng, 4)];
  for (let i = 0; i < FRAMES; i++) {
    const sane = saneFrame(bench, rng);
    const whole = uniform(rng) < 0.3 ? sane : spoil(sane, rng);
    if (whole.length < VNET_HDR_LEN) continue;
    bench.deliver(whole);
    if (below(rng, 10) === 0) {
      bench.advance(below(rng, 3) ? below(rng, 20) : below(rng, 5000));
      bench.host.settle();
      bench.link.full = below(rng, 10) === 0;
      bench.link.take();
    }
  }
  bench.link.full = false;
  checkBounds(bench);
  calmDown(bench);
}

describe('hostile frames', () => {
  it(`${SEEDS} storms of ${FRAMES} frames leave nothing behind`, () => {
    const only = process.env.SEED;
    const [first, last] = only ? [Number(only), Number(only)] : [1, SEEDS];
    for (let seed = first; seed <= last; seed++) {
      try {
        storm(seed);
      } catch (error) {
        throw new Error(`seed ${seed}: ${String(error)}`, { cause: error });
      }
    }
  }, 60_000);

  it('frames of any bytes behind a right Ethernet header', () => {
    const rng = seededRng(99);
    const bench = makeBench(1, false);
    for (let i = 0; i < 20_000; i++) {
      const type = [ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, below(rng, 65_536)][below(rng, 4)]!;
      const payload = rng.fill(new Uint8Array(below(rng, 100)));
      if (payload.length > 0) payload[0] = type === ETHERTYPE_IPV6 ? 0x60 : 0x45;
      bench.deliver(frame({ dst: GATEWAY_MAC, src: GUEST_MAC, type, tag: -1 }, payload));
    }
    checkBounds(bench);
    calmDown(bench);
  });
});

/** Attacks by name: each is delivered, and then a sane exchange must still work. */
const ATTACKS: [name: string, frames: (bench: Bench) => Uint8Array[]][] = [
  [
    'land (CVE-1999-0016)',
    (bench) => [
      bench.ip(
        ipPacket(
          GATEWAY,
          GATEWAY,
          6,
          tcpSegment(GATEWAY, GATEWAY, { sourcePort: 139, destinationPort: 139, flags: TCP_SYN }),
        ),
      ),
    ],
  ],
  [
    'ping of death (CVE-1999-0128)',
    (bench) =>
      [0, 1480, 65_120].map((fragmentOffset) =>
        bench.ip(
          ipPacket(GUEST, GATEWAY, 1, pattern(1480), {
            ident: 1,
            moreFragments: fragmentOffset < 60_000,
            fragmentOffset,
          }),
        ),
      ),
  ],
  [
    'teardrop (CVE-1999-0015)',
    (bench) => [
      bench.ip(ipPacket(GUEST, GATEWAY, 17, pattern(36), { ident: 242, moreFragments: true })),
      bench.ip(ipPacket(GUEST, GATEWAY, 17, pattern(4), { ident: 242, fragmentOffset: 24 })),
    ],
  ],
  [
    'bonk: the same offset twice with other lengths',
    (bench) => [
      bench.ip(
        ipPacket(GUEST, GATEWAY, 17, pattern(64), { ident: 3, moreFragments: true, fragmentOffset: 32 }),
      ),
      bench.ip(ipPacket(GUEST, GATEWAY, 17, pattern(128), { ident: 3, fragmentOffset: 32 })),
    ],
  ],
  [
    'rose: the first and the last byte of the largest datagram',
    (bench) =>
      Array.from({ length: 500 }, (_, ident) => [
        bench.ip(ipPacket(GUEST, GATEWAY, 17, pattern(8), { ident, moreFragments: true })),
        bench.ip(ipPacket(GUEST, GATEWAY, 17, pattern(8), { ident, fragmentOffset: 65_000 })),
      ]).flat(),
  ],
  [
    'smurf: echo to a broadcast',
    (bench) => [bench.ping('10.0.2.255', pattern(8), { dstMac: 0xffffffffffff })],
  ],
  [
    'fraggle: UDP echo to a broadcast',
    (bench) => [bench.udp('10.0.2.255', 7, pattern(8), { dstMac: 0xffffffffffff })],
  ],
  [
    'xmas, null and FIN scans',
    (bench) => [0xff, 0, TCP_FIN].map((flags) => bench.tcp(GATEWAY, { destinationPort: 22, flags })),
  ],
  [
    'WinNuke: urgent data',
    (bench) => [bench.tcp(SERVER, { flags: TCP_ACK | 0x20, urgentPointer: 3 }, pattern(3))],
  ],
  [
    'blind RST and SYN in a window',
    (bench) =>
      Array.from({ length: 200 }, (_, i) =>
        bench.tcp(SERVER, { flags: i % 2 ? TCP_RST : TCP_SYN, sequence: 1001 + 97 * i }),
      ),
  ],
  [
    'options of length zero',
    (bench) => {
      const packet = concat(ipPacket(GUEST, SERVER, 17, new Uint8Array(0)), new Uint8Array(8));
      packet[0] = 0x47;
      packet[20] = 7;
      put16(packet, 2, 28);
      put16(packet, 10, 0);
      put16(packet, 10, complement(sum(packet, 0, 28)));
      return [bench.ip(packet)];
    },
  ],
  [
    'IPv6 routing header of type 0 (RFC 5095)',
    (bench) => {
      const header = concat(Uint8Array.of(17, 4, 0, 2, 0, 0, 0, 0), address(GATEWAY6), address(GUEST6));
      return [bench.ip(ipPacket(GUEST6, GATEWAY6, 43, header))];
    },
  ],
  [
    'a long chain of extension headers',
    (bench) => {
      const headers = Array.from({ length: 150 }, () => Uint8Array.of(60, 0, 1, 4, 0, 0, 0, 0));
      return [bench.ip(ipPacket(GUEST6, GATEWAY6, 60, concat(...headers)))];
    },
  ],
  [
    'neighbour discovery options of length zero',
    (bench) => [
      bench.icmpv6(GATEWAY6, { type: 135, code: 0, rest: 0 }, concat(address(GATEWAY6), new Uint8Array(8)), {
        ttl: 255,
      }),
    ],
  ],
  [
    'a virtio_net_hdr that lies',
    (bench) => {
      const whole = bench.udp(SERVER, 9000, pattern(100));
      whole.fill(0xff, 0, 10);
      const small = bench.udp(SERVER, 9000, pattern(100));
      small[0] = 1;
      small[1] = 5;
      small[4] = 1;
      return [whole, small];
    },
  ],
  [
    'a TCP header that is all options',
    (bench) => {
      const whole = concat(bench.tcp(SERVER, { flags: TCP_SYN }), new Uint8Array(40).fill(2));
      put16(whole, 26, 80);
      put16(whole, 34, 0);
      put16(whole, 34, complement(sum(whole, 24, 20)));
      whole[56] = 0xf0;
      whole[0] = 1;
      return [whole];
    },
  ],
  [
    '"too big" with an MTU of 0 and of 1',
    (bench) =>
      [0, 1].map((rest) => {
        const quoted = ipPacket(
          SERVER,
          GUEST,
          6,
          tcpSegment(SERVER, GUEST, { sourcePort: 80, destinationPort: 6000 }),
        );
        return bench.ip(ipPacket(GUEST, SERVER, 1, icmpMessage({ type: 3, code: 4, rest }, quoted)));
      }),
  ],
  [
    'an ICMP error that quotes an error that quotes an error',
    (bench) => {
      let message = icmpMessage({ type: 3, code: 1, rest: 0 }, ipPacket(SERVER, GUEST, 17, pattern(8)));
      for (let i = 0; i < 10; i++)
        message = icmpMessage({ type: 3, code: 1, rest: 0 }, ipPacket(SERVER, GUEST, 1, message));
      return [bench.ip(ipPacket(GUEST, SERVER, 1, message))];
    },
  ],
];

describe('attacks by name', () => {
  it.each(ATTACKS)('%s', (_name, frames) => {
    const bench = makeBench(5, true);
    bench.open();
    for (const whole of frames(bench)) bench.deliver(whole);
    bench.turn();
    const echoed = bench.exchange(bench.ping(GATEWAY, pattern(32)));
    expect(echoed.at(-1)).toMatchObject({ src: GATEWAY, icmp: { type: 0 } });
    bench.host.streams[0]!.push(pattern(100));
    const carried = bench.turn().reduce((len, each) => len + (each.tcp ? each.payload.length : 0), 0);
    expect(carried).toBe(100);
    checkBounds(bench);
  });
});
