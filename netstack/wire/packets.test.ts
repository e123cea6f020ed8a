/** Every codec against literal bytes, and against any bytes: never throws, and reads what it writes. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { inputs } from '../../test/support/fuzz/inputs.ts';
import { parseIpv6 } from './address.ts';
import { ARP_LEN, emitArp, formatArp, parseArp } from './arp.ts';
import { emitEthernet, formatEthernet, parseEthernet, sizeEthernet } from './ethernet.ts';
import { emitIcmp, formatIcmp, parseIcmp } from './icmp.ts';
import { emitIcmpv6, formatIcmpv6, parseIcmpv6 } from './icmpv6.ts';
import { emitIpv4, formatIpv4Header, IPV4_LEN, ipv4OptionsAllowed, parseIpv4Header } from './ipv4.ts';
import {
  emitFragment,
  emitIpv6,
  FRAGMENT_LEN,
  formatIpv6Header,
  IPV6_LEN,
  parseFragment,
  parseIpv6Header,
  walkExtensions,
} from './ipv6.ts';
import {
  emitNeighbor,
  emitRouter,
  multicastMac,
  parseNeighbor,
  parseRouter,
  parseRouterSolicitation,
  putSolicitedNode,
  routerWord,
  sizeNeighbor,
  sizeRouter,
} from './ndp.ts';
import { emitUdp, formatUdp, parseUdp } from './udp.ts';

function hex(text: string): Uint8Array {
  const clean = text.replaceAll(/\s/g, '');
  return Uint8Array.from({ length: clean.length / 2 }, (_, i) =>
    Number.parseInt(clean.slice(i * 2, i * 2 + 2), 16),
  );
}

const uint8 = fc.nat(0xff);
const uint16 = fc.nat(0xffff);
const uint32 = fc.nat(0xffffffff);
const mac = fc.nat(0xffffffffffff);
const address = fc.uint8Array({ minLength: 16, maxLength: 16 });
const junk = fc.uint8Array({ maxLength: 120 });

describe('Ethernet', () => {
  const plain = hex('ffffffffffff 020000000015 0806');
  const tagged = hex('020000000001 020000000015 8100 a00c 0800');

  it('parses and emits a plain header', () => {
    const repr = { dst: 0xffffffffffff, src: 0x020000000015, type: 0x0806, tag: -1 };
    expect(parseEthernet(plain, 0, 14)).toEqual(repr);
    const out = new Uint8Array(14);
    emitEthernet(repr, out, 0);
    expect(out).toEqual(plain);
    expect(formatEthernet(repr)).toBe('02:00:00:00:00:15 > ff:ff:ff:ff:ff:ff type 0x0806');
  });

  it('parses and emits an 802.1Q tag', () => {
    const repr = parseEthernet(tagged, 0, 18)!;
    expect(repr).toMatchObject({ type: 0x0800, tag: 0xa00c });
    const out = new Uint8Array(sizeEthernet(repr));
    emitEthernet(repr, out, 0);
    expect(out).toEqual(tagged);
    expect(formatEthernet(repr)).toContain('vlan 12');
  });

  it('refuses runts, cut tags and 802.3 lengths', () => {
    expect(parseEthernet(plain, 0, 13)).toBeUndefined();
    expect(parseEthernet(tagged, 0, 17)).toBeUndefined();
    expect(parseEthernet(hex('ffffffffffff 020000000015 05ff'), 0, 14)).toBeUndefined();
  });

  it('reads what it writes', () => {
    fc.assert(
      fc.property(
        mac,
        mac,
        fc.integer({ min: 0x600, max: 0xffff }),
        fc.option(uint16),
        (dst, src, type, tag) => {
          fc.pre(type !== 0x8100);
          const repr = { dst, src, type, tag: tag ?? -1 };
          const buf = new Uint8Array(sizeEthernet(repr));
          emitEthernet(repr, buf, 0);
          expect(parseEthernet(buf, 0, buf.length)).toEqual(repr);
        },
      ),
    );
  });
});

describe('ARP (RFC 826)', () => {
  const request = hex('0001 0800 06 04 0001 020000000015 0a00020f 000000000000 0a000201');
  const repr = {
    op: 1,
    senderMac: 0x020000000015,
    senderIp: 0x0a00020f,
    targetMac: 0,
    targetIp: 0x0a000201,
  };

  it('parses and emits a request', () => {
    expect(parseArp(request, 0, ARP_LEN)).toEqual(repr);
    const out = new Uint8Array(ARP_LEN);
    emitArp(repr, out, 0);
    expect(out).toEqual(request);
    expect(formatArp(repr)).toBe('who-has 10.0.2.1 tell 10.0.2.15 (02:00:00:00:00:15)');
    expect(formatArp({ ...repr, op: 2 })).toBe('10.0.2.15 is-at 02:00:00:00:00:15');
  });

  it('refuses other hardware, protocols, lengths and operations', () => {
    for (const at of [0, 1, 2, 3, 4, 5, 6, 7]) {
      const bad = request.slice();
      bad[at]! ^= 0x10;
      expect(parseArp(bad, 0, ARP_LEN), `byte ${at}`).toBeUndefined();
    }
    expect(parseArp(request, 0, ARP_LEN - 1)).toBeUndefined();
  });

  it('reads what it writes', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 2 }),
        mac,
        uint32,
        mac,
        uint32,
        (op, senderMac, senderIp, targetMac, targetIp) => {
          const written = { op, senderMac, senderIp, targetMac, targetIp };
          const buf = new Uint8Array(ARP_LEN);
          emitArp(written, buf, 0);
          expect(parseArp(buf, 0, ARP_LEN)).toEqual(written);
        },
      ),
    );
  });
});

describe('IPv4 (RFC 791)', () => {
  // A ping of 84 bytes as Linux sends it, with its checksum.
  const header = hex('45 00 0054 1c46 4000 40 01 b09f ac10000a c0a80101');

  it('parses and emits a header', () => {
    const repr = {
      headerLen: 20,
      totalLen: 84,
      tos: 0,
      ident: 0x1c46,
      dontFragment: true,
      moreFragments: false,
      fragmentOffset: 0,
      ttl: 64,
      protocol: 1,
      src: 0xac10000a,
      dst: 0xc0a80101,
    };
    const out = new Uint8Array(20);
    emitIpv4(repr, out, 0);
    expect(out).toEqual(header);
    const packet = new Uint8Array(84);
    packet.set(out);
    expect(parseIpv4Header(packet, 0, 84)).toEqual(repr);
    expect(formatIpv4Header(repr)).toBe('172.16.0.10 > 192.168.1.1 protocol 1 ttl 64 length 84');
  });

  it('checks the example of a known checksum', () => {
    const known = hex('4500 0073 0000 4000 4011 b861 c0a80001 c0a800c7');
    expect(parseIpv4Header(known, 0, 20)).toBeUndefined();
    const packet = new Uint8Array(0x73);
    packet.set(known);
    expect(parseIpv4Header(packet, 0, packet.length)).toMatchObject({ protocol: 17, totalLen: 0x73 });
    packet[8] = 63;
    expect(parseIpv4Header(packet, 0, packet.length)).toBeUndefined();
  });

  it.each([
    ['a router alert and padding', '94 04 0000 00000000', true],
    ['no-operations', '01 01 01 00', true],
    ['a record route', '07 07 04 00000000 00', true],
    ['loose source routing', '83 07 04 c0a80001 00', false],
    ['strict source routing', '89 07 04 c0a80001 00', false],
    ['an option longer than the header', '07 20 04 00', false],
    ['an option of length 1', '07 01 00 00', false],
    ['an option without a length', '01 01 01 07', false],
  ])('judges options: %s', (_name, options, allowed) => {
    const bytes = hex(options);
    const buf = new Uint8Array(20 + bytes.length);
    buf.set(bytes, 20);
    expect(ipv4OptionsAllowed(buf, 0, buf.length)).toBe(allowed);
  });

  it('reads what it writes', () => {
    const repr = fc.record({
      headerLen: fc.constant(IPV4_LEN),
      totalLen: fc.integer({ min: 20, max: 100 }),
      tos: uint8,
      ident: uint16,
      dontFragment: fc.boolean(),
      moreFragments: fc.boolean(),
      fragmentOffset: fc.nat(0x1fff).map((units) => units * 8),
      ttl: uint8,
      protocol: uint8,
      src: uint32,
      dst: uint32,
    });
    fc.assert(
      fc.property(repr, (written) => {
        const buf = new Uint8Array(100);
        emitIpv4(written, buf, 0);
        expect(parseIpv4Header(buf, 0, 100)).toEqual(written);
      }),
    );
  });
});

describe('IPv6 (RFC 8200)', () => {
  const packet = hex(
    '6 1234567 0008 3a ff fe80000000000000 0000000000000001 ff020000000000000000000000000002 8500 0000 00000000',
  );

  it('parses and emits a header', () => {
    const repr = { trafficClass: 0x12, flowLabel: 0x34567, payloadLen: 8, nextHeader: 58, hopLimit: 255 };
    expect(parseIpv6Header(packet, 0, packet.length)).toEqual(repr);
    const out = new Uint8Array(IPV6_LEN);
    emitIpv6(repr, parseIpv6('fe80::1')!, 0, parseIpv6('ff02::2')!, 0, out, 0);
    expect(out).toEqual(packet.slice(0, IPV6_LEN));
    expect(formatIpv6Header(repr, packet, 0)).toBe('fe80::1 > ff02::2 next 58 hops 255 length 8');
  });

  it('refuses short packets, other versions and lengths beyond the frame', () => {
    expect(parseIpv6Header(packet, 0, 39)).toBeUndefined();
    expect(parseIpv6Header(packet, 0, packet.length - 1)).toBeUndefined();
    expect(parseIpv6Header(hex('45'.padEnd(80, '0')), 0, 40)).toBeUndefined();
  });

  it.each([
    ['nothing before the upper layer', 17, '', 'upper', 17, 0],
    ['padding in hop-by-hop options', 0, '11 00 01 04 00000000', 'upper', 17, 0],
    ['an unknown option to be skipped', 60, '11 00 1e 04 00000000', 'upper', 17, 0],
    ['an unknown option that discards', 60, '11 00 5e 04 00000000', 'drop', 0, 0],
    ['an unknown option that reports', 60, '11 00 9e 04 00000000', 'problem', 0, 2],
    ['an option beyond its header', 60, '11 00 1e 08 00000000', 'problem', 0, 0],
    ['routing with segments left', 43, '11 00 00 01 00000000', 'problem', 0, 0],
    ['routing that is done', 43, '11 00 00 00 00000000', 'upper', 17, 0],
    ['hop-by-hop options not at the start', 60, '00 00 01 04 00000000 11 00 01 04 00000000', 'problem', 0, 1],
    ['a fragment header', 44, '11 00 0008 00000001', 'fragment', 17, 0],
    ['no next header', 59, '', 'none', 59, 0],
    ['a header that is cut', 60, '11 01 01 04 00000000', 'problem', 0, 0],
  ])('walks over %s', (_name, next, headers, kind, protocol, code) => {
    const bytes = hex(headers);
    const buf = new Uint8Array(40 + bytes.length);
    buf.set(bytes, 40);
    expect(walkExtensions(buf, 0, 40, buf.length, next)).toMatchObject({ kind, protocol, code });
  });

  it('gives up on a chain of more headers than any sane sender makes', () => {
    const buf = new Uint8Array(40 + 8 * 12);
    for (let i = 0; i < 12; i++) buf.set(hex('3c 00 01 04 00000000'), 40 + 8 * i);
    expect(walkExtensions(buf, 0, 40, buf.length, 60).kind).toBe('drop');
  });

  it('reads the fragment headers it writes', () => {
    fc.assert(
      fc.property(uint8, fc.nat(0x1fff), fc.boolean(), uint32, (nextHeader, units, more, ident) => {
        const repr = { nextHeader, offset: units * 8, more, ident };
        const buf = new Uint8Array(FRAGMENT_LEN);
        emitFragment(repr, buf, 0);
        expect(parseFragment(buf, 0)).toEqual(repr);
      }),
    );
  });

  it('reads what it writes', () => {
    fc.assert(
      fc.property(
        uint8,
        fc.nat(0xfffff),
        uint8,
        uint8,
        address,
        address,
        (trafficClass, flowLabel, nextHeader, hopLimit, src, dst) => {
          const repr = { trafficClass, flowLabel, payloadLen: 4, nextHeader, hopLimit };
          const buf = new Uint8Array(44);
          emitIpv6(repr, src, 0, dst, 0, buf, 0);
          expect(parseIpv6Header(buf, 0, 44)).toEqual(repr);
          expect(buf.slice(8, 24)).toEqual(src);
          expect(buf.slice(24, 40)).toEqual(dst);
        },
      ),
    );
  });
});

describe('ICMP (RFC 792)', () => {
  const echo = hex('08 00 f7ac 0001 0002 6161 62');

  it('parses and emits an echo request of odd length', () => {
    const out = echo.slice();
    emitIcmp({ type: 8, code: 0, rest: 0x10002 }, echo, 8, 3, out, 0);
    expect(parseIcmp(out, 0, out.length)).toEqual({ type: 8, code: 0, rest: 0x10002 });
    // 0x0800 + 0x0001 + 0x0002 + 0x6161 + 0x6200 = 0xcb64
    expect((out[2]! << 8) | out[3]!).toBe(~0xcb64 & 0xffff);
    expect(formatIcmp({ type: 8, code: 0, rest: 0x10002 })).toBe('icmp echo request id 1 seq 2');
    expect(formatIcmp({ type: 3, code: 1, rest: 0 })).toBe('icmp type 3 code 1');
  });

  it('refuses a wrong checksum and a short message', () => {
    expect(parseIcmp(echo, 0, echo.length)).toBeUndefined();
    expect(parseIcmp(echo, 0, 7)).toBeUndefined();
  });

  it('reads what it writes', () => {
    fc.assert(
      fc.property(uint8, uint8, uint32, junk, (type, code, rest, body) => {
        const buf = new Uint8Array(8 + body.length);
        buf.set(body, 8);
        emitIcmp({ type, code, rest }, body, 0, body.length, buf, 0);
        expect(parseIcmp(buf, 0, buf.length)).toEqual({ type, code, rest });
      }),
    );
  });
});

describe('ICMPv6 (RFC 4443)', () => {
  it('reads what it writes, and the checksum covers the addresses', () => {
    fc.assert(
      fc.property(uint8, uint8, uint32, junk, address, address, (type, code, rest, body, src, dst) => {
        const buf = new Uint8Array(8 + body.length);
        buf.set(body, 8);
        emitIcmpv6({ type, code, rest }, src, 0, dst, 0, body, 0, body.length, buf, 0);
        expect(parseIcmpv6(buf, 0, buf.length, src, 0, dst, 0)).toEqual({ type, code, rest });
        const other = src.slice();
        other[5]! ^= 1;
        expect(parseIcmpv6(buf, 0, buf.length, other, 0, dst, 0)).toBeUndefined();
      }),
    );
    expect(formatIcmpv6({ type: 129, code: 0, rest: 5 })).toBe('icmp6 echo reply id 0 seq 5');
    expect(formatIcmpv6({ type: 2, code: 0, rest: 1280 })).toBe('icmp6 type 2 code 0');
  });
});

describe('neighbour discovery (RFC 4861)', () => {
  const target = parseIpv6('fe80::15')!;

  it('parses and emits a solicitation with its source', () => {
    const bytes = hex('fe800000000000000000000000000015 01 01 020000000015');
    const repr = { target, mac: 0x020000000015 };
    expect(parseNeighbor(bytes, 0, bytes.length, true)).toEqual(repr);
    expect(parseNeighbor(bytes, 0, bytes.length, false)).toEqual({ target, mac: -1 });
    const out = new Uint8Array(sizeNeighbor(repr));
    emitNeighbor(repr, true, out, 0);
    expect(out).toEqual(bytes);
  });

  it('refuses options of length zero or beyond the end, and multicast targets', () => {
    expect(
      parseNeighbor(hex('fe800000000000000000000000000015 01 00 020000000015'), 0, 24, true),
    ).toBeUndefined();
    expect(
      parseNeighbor(hex('fe800000000000000000000000000015 01 02 020000000015'), 0, 24, true),
    ).toBeUndefined();
    expect(parseNeighbor(hex('ff020000000000000000000000000015'), 0, 16, true)).toBeUndefined();
  });

  it('knows the source of a router solicitation', () => {
    const bytes = hex('0101 020000000015');
    expect(parseRouterSolicitation(bytes, 0, 8)).toBe(0x020000000015);
    expect(parseRouterSolicitation(bytes, 0, 0)).toBe(-1);
    expect(parseRouterSolicitation(bytes, 0, 7)).toBeUndefined();
  });

  it('reads the router advertisements it writes', () => {
    const label = fc.stringMatching(/^[a-z][a-z0-9-]{0,12}$/);
    const domain = fc.array(label, { minLength: 1, maxLength: 3 }).map((labels) => labels.join('.'));
    const repr = fc.record({
      hopLimit: uint8,
      managed: fc.boolean(),
      other: fc.boolean(),
      lifetimeSeconds: uint16,
      mac,
      mtuBytes: uint32,
      prefix: address,
      prefixLength: fc.nat(128),
      autonomous: fc.boolean(),
      validSeconds: uint32,
      preferredSeconds: uint32,
      dnsServers: fc.array(address, { maxLength: 3 }),
      searchDomains: fc.array(domain, { maxLength: 3 }),
    });
    fc.assert(
      fc.property(repr, (written) => {
        const buf = new Uint8Array(sizeRouter(written));
        emitRouter(written, buf, 0);
        expect(parseRouter(routerWord(written), buf, 0, buf.length)).toEqual(written);
      }),
    );
  });

  it('makes solicited-node addresses and their Ethernet addresses', () => {
    const out = new Uint8Array(16);
    putSolicitedNode(parseIpv6('2001:db8::1:800:200e:8c6c')!, 0, out, 0);
    expect(out).toEqual(parseIpv6('ff02::1:ff0e:8c6c'));
    expect(multicastMac(out, 0)).toBe(0x3333ff0e8c6c);
  });
});

describe('UDP (RFC 768)', () => {
  const bytes = hex('1388 2328 000c 0000 61626364');

  it('parses and emits a header', () => {
    const repr = { srcPort: 5000, dstPort: 9000, len: 12, checksum: 0 };
    expect(parseUdp(bytes, 0, 12)).toEqual(repr);
    const out = new Uint8Array(8);
    emitUdp(repr, out, 0);
    expect(out).toEqual(bytes.slice(0, 8));
    expect(formatUdp(repr)).toBe('udp 5000 > 9000 length 4');
  });

  it('refuses lengths below the header or beyond the packet', () => {
    expect(parseUdp(bytes, 0, 11)).toBeUndefined();
    expect(parseUdp(hex('1388 2328 0007 0000'), 0, 8)).toBeUndefined();
  });
});

it('no parser throws on any bytes', () => {
  fc.assert(
    fc.property(junk, fc.nat(20), fc.nat(0xff), (bytes, off, next) => {
      const end = bytes.length;
      const at = Math.min(off, end);
      parseEthernet(bytes, at, end);
      parseArp(bytes, at, end);
      parseIpv4Header(bytes, at, end);
      parseIpv6Header(bytes, at, end);
      walkExtensions(bytes, at, at, end, next);
      parseIcmp(bytes, at, end);
      parseNeighbor(bytes, at, end, true);
      parseRouterSolicitation(bytes, at, end);
      parseRouter(0, bytes, at, end);
      parseUdp(bytes, at, end);
    }),
    { numRuns: inputs(3000) },
  );
});
