/** Multicast groups between guests and the host's networks: IGMP, MLD, and the datagrams. */
import { expect } from 'vitest';
import { get16, get32 } from '../../netstack/wire/address.ts';
import { complement, sum } from '../../netstack/wire/checksum.ts';
import { parseIcmpv6 } from '../../netstack/wire/icmpv6.ts';
import { PROTOCOL_UDP } from '../../netstack/wire/ipv4.ts';
import {
  MLD_DONE,
  MLD_QUERY,
  MLD_REPORT_1,
  MLD_REPORT_2,
  PROTOCOL_IGMP,
} from '../../netstack/wire/membership.ts';
import { NDP_HOP_LIMIT } from '../../netstack/wire/ndp.ts';
import { address, Bench, GATEWAY6_LOCAL, GUEST, GUEST6_LOCAL } from '../support/netstack/bench.ts';
import { bytes, concat, type Decoded, ipPacket } from '../support/netstack/frames.ts';
import { conform } from './conform.ts';

const MDNS = '224.0.0.251';
const MDNS6 = 'ff02::fb';
const MDNS_MAC = 0x0100_5e00_00fb;
const MDNS6_MAC = 0x3333_0000_00fb;
const LAN = '192.0.2.77';
const PORT = 5353;

/** A gateway that relays mDNS of both families. */
function relaying(announcements = false): Bench {
  return new Bench({
    ipv6: true,
    announcements,
    stack: {
      relayedGroups: [
        { addr: address(MDNS), port: PORT },
        { addr: address(MDNS6), port: PORT },
      ],
    },
  });
}

const four = (text: string): Uint8Array => address(text).subarray(12);

function igmp(
  bench: Bench,
  body: Uint8Array,
  fields: { src?: string; dst?: string; ttl?: number } = {},
): Uint8Array {
  const message = body.slice();
  const value = complement(sum(message, 0, message.length));
  message[2] = value >> 8;
  message[3] = value & 255;
  const { src = GUEST, dst = '224.0.0.22', ttl = 1 } = fields;
  return bench.ip(ipPacket(src, dst, PROTOCOL_IGMP, message, { ttl }), undefined, 0x0100_5e00_0016);
}

/** A report of IGMPv3 with one record. */
function report3(bench: Bench, type: number, group: string, sources: string[] = []): Uint8Array {
  const head = Uint8Array.of(0x22, 0, 0, 0, 0, 0, 0, 1);
  const record = Uint8Array.of(type, 0, 0, sources.length);
  return igmp(bench, concat(head, record, four(group), ...sources.map(four)));
}

function mld(
  bench: Bench,
  type: number,
  body: Uint8Array,
  fields: { src?: string; ttl?: number; rest?: number } = {},
): Uint8Array {
  return bench.icmpv6('ff02::16', { type, code: 0, rest: fields.rest ?? 0 }, body, {
    src: fields.src ?? GUEST6_LOCAL,
    ttl: fields.ttl ?? 1,
    dstMac: 0x3333_0000_0016,
  });
}

const isQuery = ({ protocol, ipPayload }: Decoded): boolean =>
  protocol === PROTOCOL_IGMP && ipPayload[0] === 0x11;
const isQuery6 = ({ ipv6, ipPayload }: Decoded): boolean =>
  ipv6?.nextHeader === 0 && ipPayload[8] === MLD_QUERY;
const joined = (bench: Bench): string[] =>
  bench.host.groups.filter(({ isClosed }) => !isClosed).map((each) => each.address);

conform('the querier', [
  [
    'RFC 3376 section 8.6',
    'asks at once, after a quarter of the interval, and then every 125 seconds',
    () => {
      const bench = relaying(true);
      const asked: number[] = [];
      for (let second = 0; second <= 300; second++) {
        if (bench.turn().some(isQuery)) asked.push(second);
        bench.now += 1000;
      }
      expect(asked).toEqual([0, 32, 157, 282]);
    },
  ],
  [
    'RFC 3376 section 4, RFC 2236 section 2',
    'with a TTL of 1, the router alert option and internetwork control',
    () => {
      const bench = relaying(true);
      const query = bench.turn().find(isQuery)!;
      expect(query).toMatchObject({ dst: '224.0.0.1', ethernet: { dst: 0x0100_5e00_0001 } });
      expect(query.ipv4).toMatchObject({ ttl: 1, headerLen: 24, tos: 0xc0 });
      expect(sum(query.ipPayload, 0, query.ipPayload.length)).toBe(0xffff);
      expect([query.ipPayload[1], get32(query.ipPayload, 4), query.ipPayload[9]]).toEqual([100, 0, 125]);
    },
  ],
  [
    'RFC 3810 section 5',
    'in MLD from a link-local address, with a hop limit of 1 and the router alert',
    () => {
      const bench = relaying(true);
      const query = bench.turn().find(isQuery6)!;
      expect(query).toMatchObject({ src: GATEWAY6_LOCAL, dst: 'ff02::1', ipv6: { hopLimit: 1 } });
      expect([...query.ipPayload.subarray(0, 8)]).toEqual([58, 0, 5, 2, 0, 0, 1, 0]);
      expect(get16(query.ipPayload, 8 + 4)).toBe(10_000);
      expect(query.ipPayload).toHaveLength(8 + 28);
      const message = query.ipPayload.subarray(8);
      expect(
        parseIcmpv6(message, 0, message.length, address(GATEWAY6_LOCAL), 0, address('ff02::1'), 0),
      ).toBeDefined();
    },
  ],
  [
    'RFC 3376 section 6.6.2',
    'is silent while a querier with a lower address asks, and back when that one is gone',
    () => {
      const bench = new Bench({
        stack: {
          ipv4: { address: 0x0a00_0264, prefixLength: 24 },
          relayedGroups: [{ addr: address(MDNS), port: PORT }],
        },
      });
      const query = Uint8Array.of(0x11, 100, 0, 0, 0, 0, 0, 0);
      bench.exchange(igmp(bench, query, { src: '10.0.2.15', dst: '224.0.0.1' }));
      bench.advance(254_000);
      expect(bench.link.take()).toHaveLength(0);
      bench.now += 2000;
      expect(bench.turn().filter(isQuery)).toHaveLength(1);
      bench.exchange(igmp(bench, query, { src: '10.0.2.200', dst: '224.0.0.1' }));
      bench.now += 125_000;
      expect(bench.turn().filter(isQuery)).toHaveLength(1);
    },
  ],
  [
    'section 1',
    'without relayed groups there is none, and reports are of no interest',
    () => {
      const bench = new Bench({ ipv6: true, announcements: true });
      bench.exchange(report3(bench, 4, MDNS), mld(bench, MLD_REPORT_1, address(MDNS6)));
      bench.now += 125_000;
      expect(bench.turn().filter((each) => isQuery(each) || isQuery6(each))).toEqual([]);
      expect(bench.host.groups).toEqual([]);
    },
  ],
]);

conform('membership', [
  [
    'RFC 3376 section 4.2.12',
    'a report of every version joins the group on the host, once',
    () => {
      const reports = (bench: Bench): Uint8Array[] => [
        igmp(bench, concat(Uint8Array.of(0x12, 0, 0, 0), four(MDNS)), { dst: MDNS }),
        igmp(bench, concat(Uint8Array.of(0x16, 0, 0, 0), four(MDNS)), { dst: MDNS }),
        report3(bench, 2, MDNS),
        report3(bench, 4, MDNS),
        report3(bench, 1, MDNS, ['192.0.2.1']),
        report3(bench, 5, MDNS, ['192.0.2.1']),
      ];
      for (let i = 0; i < 6; i++) {
        const bench = relaying();
        bench.exchange(reports(bench)[i]!);
        expect([i, joined(bench)]).toEqual([i, [MDNS]]);
      }
      const bench = relaying();
      bench.exchange(...reports(bench));
      expect(bench.host.groups).toHaveLength(1);
      expect(bench.host.groups[0]!.refreshes).toBe(5);
      expect(bench.count('groups')).toBe(1);
    },
  ],
  [
    'RFC 3810 section 5.2',
    'so do reports of MLD',
    () => {
      const record = concat(Uint8Array.of(4, 0, 0, 0), address(MDNS6));
      for (const [type, body, rest] of [
        [MLD_REPORT_1, address(MDNS6), 0],
        [MLD_REPORT_2, record, 1],
      ] as const) {
        const bench = relaying();
        bench.exchange(mld(bench, type, body, { rest }));
        expect(joined(bench)).toEqual([MDNS6]);
      }
    },
  ],
  [
    'RFC 3376 section 8.4',
    'a group that nobody reports for 260 seconds is left',
    () => {
      const bench = relaying();
      bench.exchange(report3(bench, 4, MDNS));
      bench.advance(250_000);
      bench.exchange(report3(bench, 2, MDNS));
      bench.advance(259_000);
      expect(joined(bench)).toEqual([MDNS]);
      bench.advance(1000);
      expect(joined(bench)).toEqual([]);
    },
  ],
  [
    'RFC 3376 section 6.4.2',
    'when one leaves the others are asked, and the group is left unless one answers',
    () => {
      for (const [leave, group] of [
        [
          (bench: Bench) =>
            igmp(bench, concat(Uint8Array.of(0x17, 0, 0, 0), four(MDNS)), { dst: '224.0.0.2' }),
          MDNS,
        ],
        [(bench: Bench) => report3(bench, 3, MDNS), MDNS],
        [(bench: Bench) => mld(bench, MLD_DONE, address(MDNS6)), MDNS6],
      ] as const) {
        const bench = relaying();
        const join = (): Uint8Array =>
          group === MDNS ? report3(bench, 4, MDNS) : mld(bench, MLD_REPORT_1, address(MDNS6));
        bench.exchange(join());
        expect(bench.exchange(leave(bench)).filter((each) => isQuery(each) || isQuery6(each))).toHaveLength(
          1,
        );
        bench.advance(1000);
        bench.exchange(join());
        bench.advance(5000);
        expect(joined(bench)).toEqual([group]);
        bench.exchange(leave(bench));
        bench.advance(2000);
        expect(joined(bench)).toEqual([]);
      }
    },
  ],
  [
    'section 4',
    'groups that are not relayed leave no trace, however many are reported',
    () => {
      const bench = relaying();
      for (let i = 0; i < 1000; i++) bench.exchange(report3(bench, 4, `239.1.${i >> 8}.${i & 255}`));
      expect(bench.host.groups).toEqual([]);
      expect(bench.count('groupMessagesIn')).toBe(1000);
    },
  ],
  [
    'RFC 3376 section 4, RFC 3810 section 5.2.13',
    'what is routed, cut short, wrongly summed or not from the link is counted and dropped',
    () => {
      const bench = relaying();
      const v2 = concat(Uint8Array.of(0x16, 0, 0, 0), four(MDNS));
      const wrong = igmp(bench, v2);
      wrong[wrong.length - 1]! ^= 1;
      const head = Uint8Array.of(0x22, 0, 0, 0, 0, 0, 0xff, 0xff);
      bench.exchange(
        igmp(bench, v2, { ttl: 2 }),
        igmp(bench, v2.subarray(0, 6)),
        wrong,
        igmp(bench, head),
        mld(bench, MLD_REPORT_1, address(MDNS6), { ttl: NDP_HOP_LIMIT }),
        mld(bench, MLD_REPORT_1, address(MDNS6), { src: 'fd00:2::15' }),
        mld(bench, MLD_REPORT_1, address(MDNS6).subarray(0, 8)),
        mld(bench, MLD_REPORT_2, new Uint8Array(4), { rest: 9 }),
      );
      expect([bench.count('groupMalformed'), joined(bench)]).toEqual([8, []]);
      bench.exchange(report3(bench, 4, MDNS));
      expect(joined(bench)).toEqual([MDNS]);
    },
  ],
  [
    'close',
    'the end of the stack leaves all groups',
    () => {
      const bench = relaying();
      bench.exchange(report3(bench, 4, MDNS), mld(bench, MLD_REPORT_1, address(MDNS6)));
      expect(joined(bench)).toEqual([MDNS, MDNS6]);
      bench.stack.close();
      expect(joined(bench)).toEqual([]);
    },
  ],
]);

conform('datagrams of relayed groups', [
  [
    'RFC 1112 section 6.4, RFC 6762 section 11',
    'reach the link with their source and TTL',
    () => {
      const bench = relaying();
      bench.exchange(report3(bench, 4, MDNS));
      bench.host.groups[0]!.receive(LAN, PORT, bytes('announcement'), 255);
      const [sent] = bench.turn();
      expect(sent).toMatchObject({ src: LAN, dst: MDNS, ethernet: { dst: MDNS_MAC }, checksumRight: true });
      expect([sent?.ipv4?.ttl, sent?.udp?.srcPort, sent?.udp?.dstPort]).toEqual([255, PORT, PORT]);
      expect(sent?.payload).toEqual(bytes('announcement'));
      expect(bench.count('groupDatagramsIn')).toBe(1);
    },
  ],
  [
    'RFC 4007 section 9',
    'over IPv6 a link-local source of another link is shown as the gateway',
    () => {
      const bench = relaying();
      bench.exchange(mld(bench, MLD_REPORT_1, address(MDNS6)));
      bench.host.groups[0]!.receive('fe80::77', PORT, bytes('a'), 255);
      bench.host.groups[0]!.receive('2001:db8::77', PORT, bytes('b'), 255);
      const sent = bench.turn();
      expect(sent.map(({ src }) => src)).toEqual([GATEWAY6_LOCAL, '2001:db8::77']);
      expect(sent[0]).toMatchObject({ dst: MDNS6, ethernet: { dst: MDNS6_MAC }, checksumRight: true });
    },
  ],
  [
    'RFC 2827',
    "do not come from the guests' subnet or from loopback",
    () => {
      const bench = relaying();
      bench.exchange(report3(bench, 4, MDNS));
      for (const source of [GUEST, '127.0.0.1']) bench.host.groups[0]!.receive(source, PORT, bytes('a'));
      expect(bench.turn()).toEqual([]);
      expect(bench.count('ipMartianSource')).toBe(2);
    },
  ],
  [
    'RFC 6762 section 5.1',
    "a guest's link-local question to a group goes out, and a link-local answer comes back",
    () => {
      const bench = relaying();
      bench.exchange(
        bench.udp(MDNS6, PORT, bytes('q'), { src: GUEST6_LOCAL, ttl: 255, srcPort: PORT, dstMac: MDNS6_MAC }),
      );
      const [mapping] = bench.host.datagrams;
      expect(mapping?.sent[0]).toMatchObject({ address: MDNS6, port: PORT });
      mapping!.receive('fe80::77', PORT, bytes('answer'), 255);
      const [answer] = bench.turn();
      expect(answer).toMatchObject({ src: GATEWAY6_LOCAL, dst: GUEST6_LOCAL, protocol: PROTOCOL_UDP });
    },
  ],
]);
