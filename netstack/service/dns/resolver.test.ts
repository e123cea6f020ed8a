import * as dnsPacket from 'dns-packet';
import fc from 'fast-check';
import { beforeEach, describe, expect, test } from 'vitest';
import { seededRng } from '#common/rng';
import { inputs } from '../../../test/support/fuzz/inputs.ts';
import { mapped, parseAddress, parseIpv4 } from '../../wire/address.ts';
import { NameTable } from './names.ts';
import type { DnsClient } from './query.ts';
import {
  ATTEMPT_MS,
  type DnsExchange,
  DnsResolver,
  PENDING_MAX,
  PENDING_PER_CLIENT_MAX,
  QUERY_MS,
} from './resolver.ts';
import { parseUpstream, type Upstream } from './upstreams.ts';

const SUBNET = parseAddress('172.17.0.0')!;

function upstream(text: string, more: Partial<Upstream> = {}): Upstream {
  return { ...parseUpstream(text)!, ...more };
}

/** What dns-packet gives, with what its types leave out. */
type Decoded = dnsPacket.DecodedPacket & { rcode: string };

/** A resolver, what it sent upstream, and its clients' answers, decoded by another implementation. */
class Bench {
  now = 0;
  readonly sent: DnsExchange[] = [];
  readonly open = new Set<number>();
  readonly replies: Decoded[] = [];
  readonly rawReplies: Uint8Array[] = [];
  readonly learned: [string, string[], number][] = [];
  readonly names = new NameTable({
    domain: 'lan.test',
    isLocal: (address) => [10, 11, 12, 13].every((i) => address[i] === SUBNET[i]),
  });
  readonly resolver = new DnsResolver({
    names: this.names,
    rng: seededRng(1),
    observer: (name, addresses, ttl) => this.learned.push([name, addresses.map((a) => a.join('.')), ttl]),
    driver: {
      send: (exchange) => {
        this.sent.push(exchange);
        this.open.add(exchange.id);
      },
      close: (exchange) => void this.open.delete(exchange.id),
    },
  });

  constructor(...upstreams: Upstream[]) {
    this.resolver.setUpstreams(upstreams);
  }

  client(transport: 'udp' | 'tcp' = 'udp', id = '172.17.0.2'): DnsClient {
    return {
      transport,
      id,
      reply: (message) => {
        this.rawReplies.push(message);
        this.replies.push(dnsPacket.decode(Buffer.from(message)) as Decoded);
      },
    };
  }

  ask(name: string, type: string, options: object = {}, client: DnsClient = this.client()): void {
    const bytes = dnsPacket.encode({
      type: 'query',
      id: 0x1234,
      flags: dnsPacket.RECURSION_DESIRED,
      questions: [{ type: type as 'A', name }],
      ...options,
    });
    this.resolver.receive(this.now, bytes, 0, bytes.length, client);
  }

  /** Answers an exchange as its server would. */
  answer(exchange: DnsExchange, packet: dnsPacket.Packet, from: Upstream = exchange.upstream): void {
    const query = dnsPacket.decode(Buffer.from(exchange.message));
    const bytes = dnsPacket.encode({
      type: 'response',
      id: query.id!,
      questions: query.questions!,
      ...packet,
      flags: dnsPacket.RECURSION_DESIRED | dnsPacket.RECURSION_AVAILABLE | (packet.flags ?? 0),
    });
    this.resolver.answered(this.now, exchange.id, bytes, 0, bytes.length, from.address, 0, from.port);
  }

  advance(ms: number): void {
    this.now += ms;
    this.resolver.poll(this.now);
  }

  get last(): Decoded {
    return this.replies.at(-1)!;
  }
}

const A = (name: string, data: string, ttl = 60): dnsPacket.Answer => ({ type: 'A', name, data, ttl });
const SOA = (name: string, minimum: number, ttl = 3600): dnsPacket.Answer => ({
  type: 'SOA',
  name,
  ttl,
  data: { mname: 'ns.test', rname: 'admin.test', serial: 1, refresh: 1, retry: 1, expire: 1, minimum },
});

describe('names of the network', () => {
  let bench: Bench;
  beforeEach(() => {
    bench = new Bench(upstream('192.0.2.53'));
    bench.names.setGuest('web', ['web', 'www'], [parseAddress('172.17.0.2')!]);
    bench.names.setHostNames([['host.docker.internal', [parseAddress('172.17.0.1')!]]]);
  });

  test.each(['web', 'WEB', 'www', 'web.lan.test'])("%s has the guest's address", (name) => {
    bench.ask(name, 'A');
    expect(bench.last).toMatchObject({ id: 0x1234, rcode: 'NOERROR', answers: [{ data: '172.17.0.2' }] });
    expect(bench.last.questions![0]!.name).toBe(name);
    expect(bench.sent).toEqual([]);
  });

  test('a known name without an IPv6 address is NOERROR and empty, not NXDOMAIN', () => {
    bench.ask('web', 'AAAA');
    expect(bench.last).toMatchObject({ rcode: 'NOERROR', answers: [], flag_aa: true });
    bench.ask('web', 'MX');
    expect(bench.last).toMatchObject({ rcode: 'NOERROR', answers: [] });
  });

  test('a guest with both families answers each by its type', () => {
    bench.names.setGuest('web', ['web'], [parseAddress('172.17.0.2')!, parseAddress('fd00::2')!]);
    bench.ask('web', 'AAAA');
    expect(bench.last.answers).toMatchObject([{ type: 'AAAA', data: 'fd00::2' }]);
    bench.ask('web', 'ANY');
    expect(bench.last.answers!.map((answer) => answer.type)).toEqual(['A', 'AAAA']);
  });

  test('a name shared by two guests has both addresses', () => {
    bench.names.setGuest('api-2', ['web'], [parseAddress('172.17.0.3')!]);
    bench.ask('web', 'A');
    expect(bench.last.answers!.map((answer) => (answer as { data: string }).data)).toEqual([
      '172.17.0.2',
      '172.17.0.3',
    ]);
  });

  test('names follow their guest: renamed, then gone', () => {
    bench.names.setGuest('web', ['web2'], [parseAddress('172.17.0.2')!]);
    bench.ask('web', 'A');
    expect(bench.last.rcode).toBe('NXDOMAIN');
    bench.ask('web2', 'A');
    expect(bench.last.answers).toHaveLength(1);
    bench.names.setGuest('web', [], []);
    bench.ask('web2', 'A');
    expect(bench.last.rcode).toBe('NXDOMAIN');
  });

  test('reverse names of guests and of the host are known', () => {
    bench.ask('2.0.17.172.in-addr.arpa', 'PTR');
    expect(bench.last.answers).toMatchObject([{ type: 'PTR', data: 'web.lan.test' }]);
    bench.ask('1.0.17.172.in-addr.arpa', 'PTR');
    expect(bench.last.answers).toMatchObject([{ type: 'PTR', data: 'host.docker.internal' }]);
  });

  test.each([
    ['unknown', 'A'],
    ['unknown', 'AAAA'],
    ['unknown', 'UNKNOWN_65'],
    ['unknown.lan.test', 'A'],
    ['lan.test', 'TXT'],
    ['unknown.docker.internal', 'A'],
    ['secret.onion', 'A'],
    ['99.0.17.172.in-addr.arpa', 'PTR'],
  ])('%s %s is internal: it does not exist, and is asked nowhere', (name, type) => {
    bench.ask(name, type);
    expect(bench.last.rcode).toBe('NXDOMAIN');
    expect(bench.sent).toEqual([]);
  });

  test.each([
    ['example.com', 'A'],
    ['com', 'NS'],
    ['', 'NS'],
    ['9.9.9.9.in-addr.arpa', 'PTR'],
    ['metadata.google.internal', 'A'],
  ])('"%s" %s is a question for the outside', (name, type) => {
    bench.ask(name, type);
    expect(bench.replies).toEqual([]);
    expect(bench.sent).toHaveLength(1);
  });

  test('RFC 6761 6.3: localhost is the loopback, and stays here', () => {
    bench.ask('localhost', 'A');
    expect(bench.last.answers).toMatchObject([{ data: '127.0.0.1' }]);
    bench.ask('x.localhost', 'AAAA');
    expect(bench.last.answers).toMatchObject([{ data: '::1' }]);
  });

  test('a zone answers by record, by pattern, by default, and closest zone first', () => {
    const address = (text: string): Uint8Array => mapped(parseIpv4(text)!);
    bench.names.addZone({
      name: 'crc.testing.',
      records: [
        { name: 'api', address: address('10.0.0.1') },
        { pattern: /^x.*/, address: address('10.0.0.2') },
      ],
      defaultAddress: address('10.0.0.9'),
    });
    bench.names.addZone({ name: 'apps.crc.testing', records: [{ name: 'a', address: address('10.0.0.3') }] });
    const dataOf = (name: string): string | undefined => {
      bench.ask(name, 'A');
      return (bench.last.answers![0] as { data: string } | undefined)?.data ?? bench.last.rcode;
    };
    expect(dataOf('api.crc.testing')).toBe('10.0.0.1');
    expect(dataOf('xyz.crc.testing')).toBe('10.0.0.2');
    expect(dataOf('other.crc.testing')).toBe('10.0.0.9');
    expect(dataOf('a.apps.crc.testing')).toBe('10.0.0.3');
    expect(dataOf('b.apps.crc.testing')).toBe('NXDOMAIN');
    bench.names.addZone({ name: 'crc.testing', records: [{ name: 'api', address: address('10.0.0.4') }] });
    expect(dataOf('api.crc.testing')).toBe('10.0.0.4');
    expect(dataOf('xyz.crc.testing')).toBe('10.0.0.2');
    expect(dataOf('other.crc.testing')).toBe('NXDOMAIN');
  });

  test('RFC 6891 6.1.1: EDNS is answered with EDNS, and only then; 6.1.3: another version is BADVERS', () => {
    const opt = (version: number): object => ({
      additionals: [
        {
          type: 'OPT',
          name: '.',
          udpPayloadSize: 4096,
          extendedRcode: 0,
          ednsVersion: version,
          flags: 0,
          flag_do: false,
          options: [],
        },
      ],
    });
    bench.ask('web', 'A');
    expect(bench.last.additionals).toEqual([]);
    bench.ask('web', 'A', opt(0));
    expect(bench.last.additionals).toMatchObject([{ type: 'OPT', udpPayloadSize: 1232 }]);
    bench.ask('web', 'A', opt(1));
    expect(bench.last.additionals).toMatchObject([{ type: 'OPT', extendedRcode: 1 }]);
  });

  test('RFC 1035 4.1.1: another opcode is NOTIMP, a question that cannot be read FORMERR, a transfer REFUSED', () => {
    bench.ask('web', 'A', { flags: 2 << 11 });
    expect(bench.last.rcode).toBe('NOTIMP');
    bench.resolver.receive(
      0,
      Uint8Array.from([7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 63]),
      0,
      13,
      bench.client(),
    );
    expect(bench.last).toMatchObject({ id: 0x0707, rcode: 'FORMERR', questions: [] });
    bench.ask('example.com', 'AXFR');
    expect(bench.last.rcode).toBe('REFUSED');
  });

  test('an answer is never answered', () => {
    bench.ask('web', 'A', { type: 'response' });
    expect(bench.replies).toEqual([]);
  });
});

describe('forwarding', () => {
  let bench: Bench;
  beforeEach(() => {
    bench = new Bench(upstream('192.0.2.1'), upstream('192.0.2.2'));
  });

  test('a query goes out byte for byte with another id, and its answer comes back so', () => {
    bench.ask('Example.com', 'TXT', {
      additionals: [
        {
          type: 'OPT',
          name: '.',
          udpPayloadSize: 1400,
          extendedRcode: 0,
          ednsVersion: 0,
          flags: 0x8000,
          flag_do: true,
          options: [],
        },
      ],
    });
    const [exchange] = bench.sent;
    expect(exchange!.transport).toBe('udp');
    const out = dnsPacket.decode(Buffer.from(exchange!.message));
    expect(out.questions).toMatchObject([{ name: 'Example.com', type: 'TXT' }]);
    expect(out.additionals).toMatchObject([{ udpPayloadSize: 1400, flag_do: true }]);
    bench.answer(exchange!, {
      answers: [{ type: 'TXT', name: 'Example.com', data: ['x'], ttl: 5 }],
      additionals: [{ type: 'A', name: 'glue.test', data: '192.0.2.9', ttl: 7 }],
    });
    expect(bench.last).toMatchObject({
      id: 0x1234,
      answers: [{ type: 'TXT', ttl: 5 }],
      additionals: [{ ttl: 7 }],
    });
    expect(bench.open.size).toBe(0);
  });

  test('RFC 5452 9: another source, another id, another question is no answer', () => {
    bench.ask('example.com', 'A');
    const [exchange] = bench.sent;
    const good: dnsPacket.Packet = { answers: [A('example.com', '192.0.2.80')] };
    bench.answer(exchange!, good, upstream('192.0.2.66'));
    bench.answer(exchange!, good, upstream('192.0.2.1#5353'));
    bench.answer(exchange!, { ...good, id: exchange!.message[1]! ^ 1 });
    bench.answer(exchange!, { ...good, questions: [{ type: 'A', name: 'example.org' }] });
    bench.answer(exchange!, { ...good, type: 'query' });
    expect(bench.replies).toEqual([]);
    expect(bench.resolver.counters.dns_upstream_rejected).toBe(5);
    bench.answer(exchange!, good);
    expect(bench.last.answers).toHaveLength(1);
  });

  test('a silent server: the next is asked too, and whichever answers first wins', () => {
    bench.ask('example.com', 'A');
    bench.advance(ATTEMPT_MS - 1);
    expect(bench.sent).toHaveLength(1);
    bench.advance(1);
    expect(bench.sent.map((exchange) => exchange.upstream.address[15])).toEqual([1, 2]);
    bench.answer(bench.sent[0]!, { answers: [A('example.com', '192.0.2.80')] });
    expect(bench.replies).toHaveLength(1);
    expect(bench.open.size).toBe(0);
  });

  test('a server that was silent is asked last for a while', () => {
    bench.ask('example.com', 'A');
    bench.advance(ATTEMPT_MS);
    bench.answer(bench.sent[1]!, { answers: [A('example.com', '192.0.2.80')] });
    bench.ask('example.org', 'A');
    expect(bench.sent[2]!.upstream.address[15]).toBe(2);
  });

  test('SERVFAIL of one server is not the end: the next is asked at once', () => {
    bench.ask('example.com', 'A');
    bench.answer(bench.sent[0]!, { flags: 2 });
    expect(bench.replies).toEqual([]);
    bench.answer(bench.sent[1]!, { answers: [A('example.com', '192.0.2.80')] });
    expect(bench.last.rcode).toBe('NOERROR');
  });

  test('SERVFAIL of all servers is passed on', () => {
    bench.ask('example.com', 'A');
    bench.answer(bench.sent[0]!, { flags: 2 });
    bench.resolver.failed(bench.now, bench.sent[1]!.id);
    expect(bench.last.rcode).toBe('SERVFAIL');
  });

  test('NXDOMAIN is an answer', () => {
    bench.ask('nothere.example', 'A');
    bench.answer(bench.sent[0]!, { flags: 3, authorities: [SOA('example', 30)] });
    expect(bench.last).toMatchObject({ rcode: 'NXDOMAIN', authorities: [{ type: 'SOA' }] });
    expect(bench.sent).toHaveLength(1);
  });

  test('without a server there is SERVFAIL at once, and the next query works when there is one', () => {
    bench.resolver.setUpstreams([]);
    bench.ask('example.com', 'A');
    expect(bench.last.rcode).toBe('SERVFAIL');
    bench.resolver.setUpstreams([upstream('192.0.2.3')]);
    bench.ask('example.com', 'A');
    expect(bench.sent).toHaveLength(1);
  });

  test('when nobody answers, the client is told in time', () => {
    bench.ask('example.com', 'A');
    while (bench.replies.length === 0) bench.advance(Math.max(1, bench.resolver.pollAt() - bench.now));
    expect(bench.now).toBeLessThanOrEqual(QUERY_MS);
    expect(bench.last.rcode).toBe('SERVFAIL');
    expect(bench.open.size).toBe(0);
    expect(bench.resolver.pollAt()).toBe(Number.POSITIVE_INFINITY);
  });

  test('RFC 7766 5: a truncated answer is asked again over TCP; the client gets what fits, with TC', () => {
    bench.ask('big.example', 'TXT');
    bench.answer(bench.sent[0]!, { flags: dnsPacket.TRUNCATED_RESPONSE });
    expect(bench.sent[1]!).toMatchObject({ transport: 'tcp', upstream: bench.sent[0]!.upstream });
    const answers = Array.from({ length: 20 }, (_, i) => ({
      type: 'TXT' as const,
      name: 'big.example',
      ttl: 60,
      data: [String(i).repeat(60)],
    }));
    bench.answer(bench.sent[1]!, { answers });
    expect(bench.rawReplies[0]!.length).toBeLessThanOrEqual(512);
    expect(bench.last.flag_tc).toBe(true);
    expect(bench.last.answers!.length).toBeGreaterThan(1);
    bench.ask('big.example', 'TXT', {}, bench.client('tcp'));
    expect(bench.last).toMatchObject({ flag_tc: false });
    expect(bench.last.answers).toHaveLength(20);
    expect(bench.sent).toHaveLength(2);
  });

  test('a truncated answer that cannot be completed is better than none', () => {
    bench.ask('big.example', 'TXT');
    bench.answer(bench.sent[0]!, { flags: dnsPacket.TRUNCATED_RESPONSE });
    bench.resolver.failed(bench.now, bench.sent[1]!.id);
    bench.resolver.failed(bench.now, bench.sent[2]!.id);
    expect(bench.last.flag_tc).toBe(true);
  });

  test('a query over TCP is asked over TCP', () => {
    bench.ask('example.com', 'A', {}, bench.client('tcp'));
    expect(bench.sent[0]!.transport).toBe('tcp');
  });

  test('servers for a domain get its names, and only those; the longest domain wins', () => {
    bench.resolver.setUpstreams([
      upstream('192.0.2.1'),
      upstream('10.0.0.1', { domains: ['corp.example'] }),
      upstream('10.0.0.2', { domains: ['lab.corp.example'] }),
    ]);
    for (const name of ['example.com', 'corp.example', 'x.lab.corp.example', 'notcorp.example'])
      bench.ask(name, 'A');
    expect(bench.sent.map((exchange) => exchange.upstream.address.slice(12).join('.'))).toEqual([
      '192.0.2.1',
      '10.0.0.1',
      '10.0.0.2',
      '192.0.2.1',
    ]);
  });

  test('identical queries share one upstream query, and each gets its own id back', () => {
    bench.ask('example.com', 'A', { id: 1 }, bench.client('udp', 'a'));
    bench.ask('example.com', 'A', { id: 2 }, bench.client('udp', 'b'));
    expect(bench.sent).toHaveLength(1);
    bench.answer(bench.sent[0]!, { answers: [A('example.com', '192.0.2.80')] });
    expect(bench.replies.map((reply) => reply.id)).toEqual([1, 2]);
  });

  test('one client cannot take all places; others are still served', () => {
    for (let i = 0; i < PENDING_MAX; i++) bench.ask(`n${i}.example`, 'A');
    expect(bench.sent).toHaveLength(PENDING_PER_CLIENT_MAX);
    expect(bench.replies).toHaveLength(PENDING_MAX - PENDING_PER_CLIENT_MAX);
    expect(bench.last.rcode).toBe('SERVFAIL');
    bench.ask('other.example', 'A', {}, bench.client('udp', '172.17.0.3'));
    expect(bench.sent).toHaveLength(PENDING_PER_CLIENT_MAX + 1);
    bench.advance(QUERY_MS);
    expect(bench.resolver.counters.dns_pending).toBe(0);
  });

  test('addresses of answers are told to the observer under the name that was asked', () => {
    bench.ask('www.example.com', 'A');
    bench.answer(bench.sent[0]!, {
      answers: [
        { type: 'CNAME', name: 'www.example.com', data: 'cdn.example.net', ttl: 60 },
        A('cdn.example.net', '192.0.2.80', 20),
      ],
    });
    expect(bench.learned).toEqual([['www.example.com', ['0.0.0.0.0.0.0.0.0.0.255.255.192.0.2.80'], 20]]);
  });
});

describe('cache', () => {
  let bench: Bench;
  beforeEach(() => {
    bench = new Bench(upstream('192.0.2.1'));
  });

  test("an answer serves until its TTL ends, counting down, with the asker's id and spelling", () => {
    bench.ask('example.com', 'A');
    bench.answer(bench.sent[0]!, { answers: [A('example.com', '192.0.2.80', 60)] });
    bench.advance(10_000);
    bench.ask('EXAMPLE.com', 'A', { id: 77 });
    expect(bench.last).toMatchObject({
      id: 77,
      questions: [{ name: 'EXAMPLE.com' }],
      answers: [{ ttl: 50 }],
    });
    expect(bench.sent).toHaveLength(1);
    bench.advance(50_000);
    bench.ask('example.com', 'A');
    expect(bench.sent).toHaveLength(2);
  });

  test('the lowest TTL of a message decides, and TTL 0 is not kept', () => {
    bench.ask('example.com', 'A');
    bench.answer(bench.sent[0]!, {
      answers: [A('example.com', '192.0.2.80', 60), A('example.com', '192.0.2.81', 5)],
    });
    bench.advance(6000);
    bench.ask('example.com', 'A');
    expect(bench.sent).toHaveLength(2);
    bench.answer(bench.sent[1]!, { answers: [A('example.com', '192.0.2.80', 0)] });
    bench.ask('example.com', 'A');
    expect(bench.sent).toHaveLength(3);
  });

  test.each([
    ['NXDOMAIN', 3],
    ['no data', 0],
  ])("RFC 2308 5: %s is kept for the lesser of the SOA's TTL and minimum", (_, rcode) => {
    bench.ask('no.example', 'AAAA');
    bench.answer(bench.sent[0]!, { flags: rcode, authorities: [SOA('example', 30, 3600)] });
    bench.advance(29_000);
    bench.ask('no.example', 'AAAA');
    expect(bench.sent).toHaveLength(1);
    expect(bench.last.authorities).toMatchObject([{ type: 'SOA', ttl: 3571 }]);
    bench.advance(1000);
    bench.ask('no.example', 'AAAA');
    expect(bench.sent).toHaveLength(2);
  });

  test('RFC 2308 5: absence without a SOA is not kept', () => {
    bench.ask('no.example', 'A');
    bench.answer(bench.sent[0]!, { flags: 3 });
    bench.ask('no.example', 'A');
    expect(bench.sent).toHaveLength(2);
  });

  test('an asker without EDNS gets no OPT from the cache, one with EDNS gets ours', () => {
    const opt = {
      type: 'OPT',
      name: '.',
      udpPayloadSize: 4096,
      extendedRcode: 0,
      ednsVersion: 0,
      flags: 0,
      flag_do: false,
      options: [],
    };
    bench.ask('example.com', 'A', { additionals: [opt] });
    bench.answer(bench.sent[0]!, {
      answers: [A('example.com', '192.0.2.80')],
      additionals: [opt as unknown as dnsPacket.Answer],
    });
    expect(bench.last.additionals).toHaveLength(1);
    bench.ask('example.com', 'A');
    expect(bench.last.additionals).toEqual([]);
    bench.ask('example.com', 'A', { additionals: [opt] });
    expect(bench.last.additionals).toMatchObject([{ udpPayloadSize: 1232 }]);
    expect(bench.sent).toHaveLength(1);
  });

  test("a client-subnet option makes an answer the asker's own", () => {
    const opt = {
      type: 'OPT',
      name: '.',
      udpPayloadSize: 4096,
      extendedRcode: 0,
      ednsVersion: 0,
      flags: 0,
      flag_do: false,
      options: [{ code: 'CLIENT_SUBNET', ip: '198.51.100.0', sourcePrefixLength: 24 }],
    };
    bench.ask('example.com', 'A', { additionals: [opt] });
    bench.answer(bench.sent[0]!, { answers: [A('example.com', '192.0.2.80')] });
    bench.ask('example.com', 'A');
    expect(bench.sent).toHaveLength(2);
  });

  test('what other servers said is forgotten when the servers change', () => {
    bench.ask('example.com', 'A');
    bench.answer(bench.sent[0]!, { answers: [A('example.com', '192.0.2.80')] });
    bench.resolver.setUpstreams([upstream('192.0.2.1')]);
    bench.ask('example.com', 'A');
    expect(bench.sent).toHaveLength(1);
    bench.resolver.setUpstreams([upstream('192.0.2.9')]);
    bench.ask('example.com', 'A');
    expect(bench.sent).toHaveLength(2);
  });
});

describe('hostile bytes', () => {
  test('no query and no answer makes the resolver throw, or leaves it waiting for ever', () => {
    const bytes = fc.uint8Array({ maxLength: 80 });
    const mutated = fc
      .tuple(fc.nat(), fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 6 }), fc.nat(120))
      .map(([, edits, cut]) => {
        const message = Uint8Array.from(
          dnsPacket.encode({
            type: 'query',
            id: 3,
            flags: dnsPacket.RECURSION_DESIRED,
            questions: [{ type: 'A', name: 'a.example.com' }],
            answers: [
              A('a.example.com', '192.0.2.80'),
              { type: 'CNAME', name: 'x.a.example.com', data: 'b.example.com', ttl: 3 },
            ],
            authorities: [SOA('example.com', 3)],
          }),
        );
        for (const [at, value] of edits) message[at % message.length] = value;
        return message.slice(0, Math.max(0, message.length - (cut > 100 ? cut - 100 : 0)));
      });
    fc.assert(
      fc.property(fc.array(fc.oneof(bytes, mutated), { maxLength: 8 }), (messages) => {
        const bench = new Bench(upstream('192.0.2.1'));
        const silent: DnsClient = { transport: 'udp', id: 'x', reply: () => {} };
        for (const message of messages) {
          bench.resolver.receive(bench.now, message, 0, message.length, silent);
          for (const exchange of [...bench.sent]) {
            const reply = message.slice();
            reply.set(exchange.message.subarray(0, Math.min(2, reply.length)));
            if (reply.length > 2) reply[2]! |= 0x80;
            const { address, port } = exchange.upstream;
            bench.resolver.answered(bench.now, exchange.id, reply, 0, reply.length, address, 0, port);
          }
        }
        for (let i = 0; i < 10; i++) bench.advance(QUERY_MS);
        return bench.resolver.counters.dns_pending === 0 && bench.open.size === 0;
      }),
      { numRuns: inputs(500) },
    );
  });
});

describe('what one client is told', () => {
  const own = upstream('10.9.9.9');
  let bench: Bench;
  beforeEach(() => {
    bench = new Bench(upstream('10.0.0.1'));
    bench.names.setGuest('x', ['shared'], [mapped(parseIpv4('172.17.0.9')!)]);
    bench.resolver.setClient('172.17.0.5', {
      upstreams: [own],
      names: ['shared', 'Private'].map((name) => [name, [mapped(parseIpv4('172.18.0.3')!)]]),
    });
  });
  const ask = (id: string, name: string): void => bench.ask(name, 'A', {}, bench.client('udp', id));

  test('are names of its own, after those of the network', () => {
    ask('172.17.0.5', 'private');
    expect(bench.last.answers).toMatchObject([{ data: '172.18.0.3' }]);
    ask('172.17.0.5', 'shared');
    expect(bench.last.answers).toMatchObject([{ data: '172.17.0.9' }]);
    ask('172.17.0.6', 'private');
    expect(bench.last.rcode).toBe('NXDOMAIN');
  });

  test('are answers of its own servers, which others never get', () => {
    ask('172.17.0.5', 'site.test');
    ask('172.17.0.6', 'site.test');
    expect(bench.sent.map(({ upstream: { address } }) => address[15])).toEqual([9, 1]);
    bench.answer(bench.sent[0]!, { answers: [A('site.test', '1.1.1.1')] });
    expect(bench.replies).toHaveLength(1);
    bench.answer(bench.sent[1]!, { answers: [A('site.test', '2.2.2.2')] });
    expect(bench.last.answers).toMatchObject([{ data: '2.2.2.2' }]);
    ask('172.17.0.5', 'site.test');
    expect(bench.sent).toHaveLength(3);
  });

  test('is forgotten with it', () => {
    bench.resolver.setClient('172.17.0.5', undefined);
    ask('172.17.0.5', 'private');
    expect(bench.last.rcode).toBe('NXDOMAIN');
  });
});
