/**
 * Every parser of the netstack against hostile input: a corpus of what has hurt others, mutations of it, and noise. A parser of bytes
 * never throws and never looks beyond its end; a parser of text says what is wrong with an error that has a code. A parser
 * that is not in the tables below fails the first test.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { DrydockError } from '#common/errors';
import { parseEndpoint, parseSshTarget } from '../../netstack/api/forwarder.ts';
import { parseExcludes, parseUpstreamProxy } from '../../netstack/api/http-proxy.ts';
import { parsePortText } from '../../netstack/api/vpnkit-ports.ts';
import { compilePattern } from '../../netstack/config.ts';
import { parseNetFile, parsePolicyFile } from '../../netstack/config-file.ts';
import * as vpnkit from '../../netstack/config-vpnkit.ts';
import { compileFilter } from '../../netstack/link/capture-filter.ts';
import { parseLinkUrl } from '../../netstack/link/link-url.ts';
import { readQuery } from '../../netstack/service/dns/query.ts';
import * as upstreams from '../../netstack/service/dns/upstreams.ts';
import { readAccepted } from '../../netstack/service/socket-forwards.ts';
import * as units from '../../netstack/units.ts';
import * as address from '../../netstack/wire/address.ts';
import { parseArp } from '../../netstack/wire/arp.ts';
import * as dhcp from '../../netstack/wire/dhcp.ts';
import * as dhcpv6 from '../../netstack/wire/dhcpv6.ts';
import * as dns from '../../netstack/wire/dns.ts';
import { parseEthernet } from '../../netstack/wire/ethernet.ts';
import { parseIcmp } from '../../netstack/wire/icmp.ts';
import { parseIcmpv6 } from '../../netstack/wire/icmpv6.ts';
import { parseIpv4Header } from '../../netstack/wire/ipv4.ts';
import { parseFragment, parseIpv6Header, walkExtensions } from '../../netstack/wire/ipv6.ts';
import { type MembershipSink, readIgmp, readMld } from '../../netstack/wire/membership.ts';
import { parseNeighbor, parseRouter, parseRouterSolicitation } from '../../netstack/wire/ndp.ts';
import { parseNinep } from '../../netstack/wire/ninep.ts';
import { parseNtp } from '../../netstack/wire/ntp.ts';
import { parseTcp, TcpSegment } from '../../netstack/wire/tcp.ts';
import { readClientHello } from '../../netstack/wire/tls.ts';
import { parseUdp } from '../../netstack/wire/udp.ts';
import { inputs } from '../support/fuzz/inputs.ts';

type ParseBytes = (buf: Uint8Array, off: number, end: number) => unknown;
const ofWhole =
  (parse: (bytes: Uint8Array) => unknown): ParseBytes =>
  (buf, off, end) =>
    parse(buf.subarray(off, end));
const client = { transport: 'udp', id: '', reply() {} } as const;
/** What a reader of memberships tells. */
const members =
  (read: (buf: Uint8Array, off: number, end: number, sink: MembershipSink) => boolean): ParseBytes =>
  (buf, off, end) => {
    const told: string[] = [];
    const note =
      (word: string) =>
      (group?: Uint8Array): void =>
        void told.push(`${word} ${group?.join('.')}`);
    return [read(buf, off, end, { wanted: note('+'), unwanted: note('-'), query: note('?') }), told];
  };

const BYTES: Record<string, ParseBytes> = {
  parseArp,
  parseEthernet,
  parseIcmp,
  parseIcmpv6: (buf, off, end) => parseIcmpv6(buf, off, end, new Uint8Array(32), 0, new Uint8Array(32), 16),
  parseIpv4Header,
  parseIpv6Header,
  walkExtensions: (buf, off, end) => walkExtensions(buf, off, off, end, off < end ? buf[off]! : 0),
  // Its caller has looked that it is whole.
  parseFragment: (buf, off, end) => (end - off >= 8 ? parseFragment(buf, off) : undefined),
  readIgmp: members(readIgmp),
  // Its caller has read ICMPv6's eight bytes.
  readMld: (buf, off, end) => (end - off >= 8 ? members(readMld)(buf, off, end) : undefined),
  parseNeighbor: (buf, off, end) => parseNeighbor(buf, off, end, true),
  parseRouter: (buf, off, end) => parseRouter(0, buf, off, end),
  parseRouterSolicitation,
  parseNinep,
  parseNtp,
  parseTcp: (buf, off, end) => {
    const seg = new TcpSegment();
    if (!parseTcp(buf, off, end, seg)) return false;
    const { payload, payloadOff, payloadEnd, ...fields } = seg;
    return { ...fields, payload: payload.slice(payloadOff, payloadEnd) };
  },
  readClientHello: ofWhole((bytes) => readClientHello(bytes, bytes.length)),
  parseUdp,
  parseDhcp: dhcp.parseDhcp,
  readByte: ofWhole(dhcp.readByte),
  readUint16: ofWhole(dhcp.readUint16),
  readUint32: ofWhole(dhcp.readUint32),
  readText: ofWhole(dhcp.readText),
  readClientFqdn: ofWhole(dhcp.readClientFqdn),
  parseDhcpv6: dhcpv6.parseDhcpv6,
  parseDhcpv6Relay: dhcpv6.parseDhcpv6Relay,
  parseDhcpv6Options: dhcpv6.parseDhcpv6Options,
  parseIaNa: ofWhole(dhcpv6.parseIaNa),
  parseIaAddress: ofWhole(dhcpv6.parseIaAddress),
  readOptionRequest: ofWhole(dhcpv6.readOptionRequest),
  parseQuestion: dns.parseQuestion,
  readName: (buf, off, end) => dns.readName(buf, off, off, end),
  // Its caller has read the question.
  readRecords: (buf, off, end) => (end - off >= 12 ? dns.readRecords(buf, off, off + 12, end) : undefined),
  readQuery: (buf, off, end) => {
    const query = readQuery(buf, off, end, client);
    return query && [query.question, query.edns, query.isPlain, query.end - off];
  },
  readAccepted: ofWhole(readAccepted),
};

const TEXT: Record<string, (text: string) => unknown> = {
  ...units,
  parseIpv4: address.parseIpv4,
  parseIpv6: address.parseIpv6,
  parseAddress: address.parseAddress,
  parseMac: address.parseMac,
  parseEndpoint: (text) => parseEndpoint(text),
  parseSshTarget,
  parseUpstreamProxy,
  parseExcludes,
  parsePortText,
  parseNetFile,
  parsePolicyFile,
  compilePattern: (text) => compilePattern(text, 'x'),
  compileFilter,
  parseLinkUrl: (text) => parseLinkUrl('qemu', text),
  parseUpstream: upstreams.parseUpstream,
  parseResolvConf: upstreams.parseResolvConf,
  parseSearchDomains: upstreams.parseSearchDomains,
  parseVpnkitHttp: vpnkit.parseVpnkitHttp,
  parseVpnkitDns: vpnkit.parseVpnkitDns,
  parseVpnkitDhcp: vpnkit.parseVpnkitDhcp,
  parseGatewayForwards: vpnkit.parseGatewayForwards,
  parseSocketForwards: vpnkit.parseSocketForwards,
  parsePortForwards: (text) => vpnkit.parsePortForwards('tcp', text),
  parseHostsFile: vpnkit.parseHostsFile,
};

/** Not parsers of what others say: files read, values that a parser in the tables has read. */
const OTHERS = new Set(['readOnly', 'readResolvConf', 'readText', 'readVpnkitHttp', 'parseYaml']);

const hex = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text.replaceAll(/\s/g, ''), 'hex'));

/** Messages that are right, so that mutations get far, and wrong in ways that are known to hurt. */
const HOSTILE_BYTES: Uint8Array[] = [
  // ARP request; IPv4 with options; IPv6 with hop-by-hop headers in a row, and one of length zero.
  hex('0001 0800 0604 0001 0242ac110002 ac110002 000000000000 ac110001'),
  hex('4f00 003c 1234 4000 4006 0000 ac110002 08080808 8303 0000 4404 0000 0701 0000 94040000'),
  hex(`6000 0000 0100 0040 ${'fe'.repeat(32)} ${'0000 0104 0000 0000'.repeat(40)}`),
  hex(`${'00'.repeat(1)}ff${'00'.repeat(6)}`),
  // TCP: options of length 0, 1 and beyond the header; a data offset of 15 in 20 bytes; SACK of odd length.
  hex('1388 0050 0000 0001 0000 0000 a002 ffff 0000 0000 0200 0402 0101 080a 0000 0000 0000 0000 0303 07'),
  hex('1388 0050 0000 0001 0000 0000 f010 ffff 0000 0000'),
  hex('1388 0050 0000 0001 0000 0000 7010 ffff 0000 0000 0505 0000 0001 0000'),
  // NDP: options of length zero; a route of its own end.
  hex(`${'2001'.repeat(8)} 0100 0000 0000 0000`),
  hex('0000 0000 0000 0000 0304 4080 ffff ffff ffff ffff 0000 0000 fd00 0000 0000 0000 0000 0000 0000 0000'),
  // IGMPv3 and MLDv2 reports that announce more records and sources than they have.
  hex('2200 0000 0000 ffff 0400 ffff e000 00fb'),
  hex('8f00 0000 0000 ffff 04ff 0001 ff02 0000 0000 0000 0000 0000 0000 00fb'),
  // DHCP: an option beyond the end, an overload that is overloaded, a domain name that points at itself.
  hex(`0101 0600 1234 5678 ${'00'.repeat(28 + 64 + 128 + 12 - 12)} 6382 5363 3501 01 3401 03 77 02 c000 ff`),
  hex(`0101 0600 ${'00'.repeat(232)} 6382 5363 3d ff 01`),
  hex(`00 00 00 c000 51 04 05 00 00 c0`),
  // DHCPv6: a relay in a relay in a relay, options that lie about their length.
  hex(`0c 00 ${'fe80'.repeat(16)} 0009 0026 0c 01 ${'fe80'.repeat(16)} 0009 ffff`),
  hex('01 123456 0003 000c 0000 0001 0000 0000 0000 0000 0005 ffff 0001 0000 0006 0003 0017 00'),
  // DNS: a name that points at itself, at its neighbour and back, forward, past the end; 127 labels; 65535 records.
  hex('1234 0100 0001 0000 0000 0000 c00c 0001 0001'),
  hex('1234 0100 0001 0000 0000 0000 01 61 c00f 01 62 c00c 0001 0001'),
  hex('1234 0100 0001 ffff ffff ffff 03777777 00 0001 0001 c00c 0029 1000 0000 0000 ffff'),
  hex(
    `1234 0100 0001 0000 0000 0001 ${'01 61'.repeat(127)} 00 0001 0001 00 0029 ffff 0000 8000 0004 000a 0000`,
  ),
  hex(`1234 0100 0001 0000 0000 0000 ${'3f'}${'61'.repeat(63)}${'ff'}00 0001 0001`),
  // NTP of mode 3; 9P with a count and a string beyond the message.
  hex(`e3 00 06 ec ${'00'.repeat(44)}`),
  hex('13 00 00 00 64 ff ff 00 20 00 00 ff ff 39 50 32 30 30 30'),
  hex('0d 00 00 00 6e 01 00 00 00 00 00 ff ff'),
  // TLS: a hello in records of one byte, an extension beyond the hello, a length of all ones.
  hex(`${'16 0301 0001 01'} ${'16 0301 0001 00'.repeat(8)}`),
  hex(
    `16 0301 0040 01 00003c 0303 ${'00'.repeat(32)} 00 0002 1301 01 00 ffff 0000 0010 000e 00 000b 6578616d706c65`,
  ),
  hex('16 0301 ffff 01 ffffff'),
  Uint8Array.from([17, 0, ...Buffer.from('{"accepted":true}')]),
];

const HOSTILE_TEXT: string[] = [
  '',
  '\0',
  '192.168.127.2:22',
  '[::1]:80-90',
  'fd00::1%eth0/64#53',
  '/corp.example/10.0.0.1#53',
  'tcp:127.0.0.1:8080:tcp:172.17.0.2:80',
  'unix:!!!:unix:====',
  'ssh-tunnel://core@192.168.127.2:22/run/x?key=%ff&passphrase=%',
  'http://%zz:%@h:99999',
  'http://%:%ff@h:80',
  'tcp port 443 and (host 10.0.0.1 or not net fd00::/8)',
  'stack: { dns: [{ name: a., records: [{ regexp: "(a+)+$", ip: 1.2.3.4 }] }] }',
  'a: &a [*a]',
  `a: &a [x]\n${Array.from({ length: 30 }, (_, i) => `b${i}: &b${i} [${`*${i ? `b${i - 1}` : 'a'},`.repeat(9)}]`).join('\n')}`,
  '{"__proto__": {"listen": []}, "constructor": 1}',
  '!!js/function "x"',
  'nameserver 10.0.0.1#5353\nzone a b\ntimeout 99999999999\norder -1',
  '10.0.0.1 a.test A.TEST # x\n::1 a.test',
  '[{"protocol":"tcp","dst_prefix":"10.0.0.0/8","dst_port":0,"path":"/run/x"}]',
  '5%',
  '1e999ms',
  '999999999999999999G',
];
/** Pieces that are repeated until a parser that recurses or goes back would notice. */
const PIECES = [
  '(',
  '[',
  '{"a":',
  '- ',
  'not ',
  'a.',
  ':',
  '::',
  '/',
  '%',
  ' ',
  '\n',
  '0',
  '9',
  '*,',
  'a: b\n',
  '\\',
  '"',
];
const REPEATS = 5000;

const mutated = (corpus: readonly Uint8Array[]): fc.Arbitrary<Uint8Array> =>
  fc
    .tuple(
      fc.constantFrom(...corpus),
      fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 6 }),
      fc.nat(),
      fc.constantFrom(...corpus),
      fc.nat(2),
    )
    .map(([bytes, changes, cut, other, kind]) => {
      const copy =
        kind === 0
          ? bytes.slice(0, cut % (bytes.length + 1))
          : kind === 1
            ? bytes.slice()
            : Uint8Array.from([...bytes, ...other]);
      for (const [at, value] of changes) if (copy.length > 0) copy[at % copy.length] = value;
      return copy;
    });
const bytesOf = fc.oneof(
  mutated(HOSTILE_BYTES),
  fc.uint8Array({ maxLength: 300 }),
  fc.constantFrom(...HOSTILE_BYTES),
);
const textOf = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 80 }),
  fc.constantFrom(...HOSTILE_TEXT),
  fc
    .tuple(fc.constantFrom(...HOSTILE_TEXT), fc.nat(), fc.string({ maxLength: 4 }))
    .map(
      ([text, at, piece]) =>
        text.slice(0, at % (text.length + 1)) + piece + text.slice(at % (text.length + 1)),
    ),
);

/** Runs a parser; an error must have a code and a sentence. */
function tryText(parse: (text: string) => unknown, text: string): void {
  try {
    parse(text);
  } catch (error) {
    if (!(error instanceof DrydockError)) throw error;
    expect(error.message).not.toBe('');
  }
}

test('every parser is in the tables', () => {
  const root = join(import.meta.dirname, '../../netstack');
  const files = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter(
    (name) => name.endsWith('.ts') && !name.endsWith('.test.ts'),
  );
  const found = files.flatMap((name) =>
    [
      ...readFileSync(join(root, name), 'utf8').matchAll(
        /^export (?:async )?function ((?:parse|read|compile)\w*)/gm,
      ),
    ].map(([, parser]) => parser!),
  );
  const known = new Set([...Object.keys(BYTES), ...Object.keys(TEXT), ...OTHERS]);
  expect(found.filter((parser) => !known.has(parser))).toEqual([]);
});

describe('bytes', () => {
  test.each(Object.entries(BYTES))('%s never throws, nor sees what is beyond its end', (_name, parse) => {
    fc.assert(
      fc.property(bytesOf, fc.nat(7), (bytes, off) => {
        const around = (fill: number): Uint8Array => {
          const buf = new Uint8Array(off + bytes.length + 64).fill(fill);
          buf.set(bytes, off);
          return buf;
        };
        const end = off + bytes.length;
        expect(parse(around(0xff), off, end)).toEqual(parse(around(0), off, end));
      }),
      { numRuns: inputs(400), examples: HOSTILE_BYTES.map((bytes) => [bytes, 3]) },
    );
  });
});

describe('text', () => {
  test.each(Object.entries(TEXT))('%s says what is wrong, and nothing else', (_name, parse) => {
    fc.assert(
      fc.property(textOf, (text) => tryText(parse, text)),
      { numRuns: inputs(300), examples: HOSTILE_TEXT.map((text) => [text]) },
    );
    for (const piece of PIECES) tryText(parse, piece.repeat(REPEATS));
  });
});
