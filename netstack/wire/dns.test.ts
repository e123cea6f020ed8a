import * as dnsPacket from 'dns-packet';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { inputs } from '../../test/support/fuzz/inputs.ts';
import { parseAddress } from './address.ts';
import {
  encodeAnswer,
  findEdns,
  nameBytes,
  parseQuestion,
  readName,
  readRecords,
  reverseAddress,
  truncate,
  withEdns,
  withoutEdns,
} from './dns.ts';

/** `dig example.com A` with EDNS0 and a cookie, from a capture. */
const QUERY = Uint8Array.from([
  0x9b, 0x2f, 0x01, 0x20, 0, 1, 0, 0, 0, 0, 0, 1, 7, 0x65, 0x78, 0x61, 0x6d, 0x70, 0x6c, 0x65, 3, 0x63, 0x6f,
  0x6d, 0, 0, 1, 0, 1, 0, 0, 0x29, 0x04, 0xd0, 0, 0, 0, 0, 0, 12, 0, 10, 0, 8, 0xb9, 0x3a, 0x5e, 0x14, 0x41,
  0x78, 0x60, 0x2c,
]);

const label = fc.string({ minLength: 1, maxLength: 20, unit: fc.constantFrom(...'abcXYZ019-_') });
const domain = fc.array(label, { minLength: 1, maxLength: 6 }).map((labels) => labels.join('.'));

describe('questions', () => {
  test('a query is read with its EDNS', () => {
    const question = parseQuestion(QUERY, 0, QUERY.length)!;
    expect(question).toEqual({
      id: 0x9b2f,
      flags: 0x120,
      opcode: 0,
      rcode: 0,
      name: 'example.com',
      type: 1,
      class: 1,
      end: 29,
    });
    const records = readRecords(QUERY, 0, question.end, QUERY.length)!;
    expect(findEdns(QUERY, records)).toMatchObject({
      udpLen: 1232,
      version: 0,
      dnssecOk: false,
      optionCodes: [10],
    });
  });

  test('names of dns-packet are read as it reads them, in lower case', () => {
    fc.assert(
      fc.property(domain, fc.nat(20), (name, off) => {
        const bytes = dnsPacket.encode({ id: 1, type: 'query', questions: [{ name, type: 'A' }] });
        const shifted = new Uint8Array(off + bytes.length);
        shifted.set(bytes, off);
        expect(parseQuestion(shifted, off, shifted.length)!.name).toBe(name.toLowerCase());
      }),
    );
  });

  test('a name goes through bytes unchanged, whatever its labels hold', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ minLength: 1, maxLength: 63 }), { maxLength: 3 }), (labels) => {
        const bytes = Uint8Array.from([...labels.flatMap((bytes) => [bytes.length, ...bytes]), 0]);
        const lower = bytes.map((byte) => (byte >= 65 && byte <= 90 ? byte + 32 : byte));
        for (let at = 0; at < bytes.length; at += bytes[at]! + 1) lower[at] = bytes[at]!;
        expect(nameBytes(readName(bytes, 0, 0, bytes.length)!.name)).toEqual(lower);
      }),
    );
  });

  test('two different names are never the same text', () => {
    const dotted = readName(Uint8Array.of(3, 0x61, 0x2e, 0x62, 0), 0, 0, 5)!.name;
    expect(dotted).not.toBe(readName(Uint8Array.of(1, 0x61, 1, 0x62, 0), 0, 0, 5)!.name);
  });

  test.each([
    ['a pointer to itself', [0xc0, 0]],
    ['a pointer forwards', [0xc0, 2, 0]],
    ['two pointers in a ring', [1, 0x61, 0xc0, 4, 0xc0, 0], 4],
    ['a label that runs out', [5, 0x61]],
    ['no end', [1, 0x61]],
    ['a reserved label type', [0x80, 0]],
  ])('%s is no name', (_, bytes, at = 0) => {
    expect(readName(Uint8Array.from(bytes), 0, at, bytes.length)).toBeUndefined();
  });

  test('RFC 1035 2.3.4: a name longer than 255 bytes is none, also through pointers', () => {
    const long = [...Array.from({ length: 4 }, () => [62, ...new Array<number>(62).fill(0x61)]).flat(), 0];
    expect(readName(Uint8Array.from(long), 0, 0, long.length)!.name).toHaveLength(251);
    const longer = Uint8Array.from([...long, 1, 0x61, 1, 0x61, 0xc0, 0]);
    expect(readName(longer, 0, long.length, longer.length)).toBeUndefined();
    expect(nameBytes(`a.${readName(longer, 0, 0, longer.length)!.name}.a`)).toBeUndefined();
  });
});

describe('records', () => {
  const answers: dnsPacket.Answer[] = [
    { type: 'CNAME', name: 'a.example', data: 'b.example', ttl: 1 },
    { type: 'A', name: 'b.example', data: '192.0.2.1', ttl: 2 },
    { type: 'TXT', name: 'b.example', data: ['x'.repeat(200)], ttl: 3 },
    { type: 'TXT', name: 'b.example', data: ['y'.repeat(200)], ttl: 4 },
    { type: 'TXT', name: 'b.example', data: ['z'.repeat(200)], ttl: 5 },
  ];
  const opt = {
    type: 'OPT',
    name: '.',
    udpPayloadSize: 1232,
    flags: 0x8000,
    options: [],
  } as unknown as dnsPacket.Answer;
  const message = (...additionals: dnsPacket.Answer[]): Uint8Array =>
    Uint8Array.from(
      dnsPacket.encode({
        id: 1,
        type: 'response',
        questions: [{ name: 'a.example', type: 'TXT' }],
        answers,
        additionals,
      }),
    );
  const recordsOf = (bytes: Uint8Array) =>
    readRecords(bytes, 0, parseQuestion(bytes, 0, bytes.length)!.end, bytes.length);

  test('are walked with their sections and TTLs', () => {
    const records = recordsOf(message(opt))!;
    expect(records.map((record) => [record.section, record.type, record.ttlSeconds])).toEqual([
      ['answer', 5, 1],
      ['answer', 1, 2],
      ['answer', 16, 3],
      ['answer', 16, 4],
      ['answer', 16, 5],
      ['additional', 41, 0x8000],
    ]);
  });

  test('a message that ends before its records do has none', () => {
    const whole = message(opt);
    const end = parseQuestion(whole, 0, whole.length)!.end;
    for (let len = end; len < whole.length; len++)
      expect(recordsOf(whole.slice(0, len) as Uint8Array) ?? []).toEqual([]);
  });

  test('RFC 2181 9: a message is cut between records, says so, and keeps its OPT', () => {
    const cut = truncate(message(opt), 512)!;
    expect(cut.length).toBeLessThanOrEqual(512);
    const decoded = dnsPacket.decode(Buffer.from(cut));
    expect(decoded).toMatchObject({ flag_tc: true, additionals: [{ type: 'OPT' }] });
    expect(decoded.answers!.map((answer) => answer.type)).toEqual(['CNAME', 'A', 'TXT']);
    expect(truncate(message(), 5000)).toEqual(message());
    expect(truncate(message(), 20)).toBeUndefined();
  });

  test('an OPT is put on and taken off', () => {
    const bare = message();
    const dressed = withEdns(bare, 1, true);
    const edns = findEdns(dressed, recordsOf(dressed)!)!;
    expect(edns).toMatchObject({ dnssecOk: true, extendedRcode: 1, version: 0 });
    expect(withoutEdns(dressed, edns)).toEqual(bare);
  });

  test('an answer of ours is what dns-packet expects', () => {
    const question = parseQuestion(QUERY, 0, QUERY.length)!;
    const bytes = encodeAnswer(
      QUERY,
      0,
      question,
      [{ type: 1, ttlSeconds: 9, data: Uint8Array.of(192, 0, 2, 1) }],
      { rcode: 0, authoritative: true, edns: { dnssecOk: false } },
    );
    expect(dnsPacket.decode(Buffer.from(bytes))).toMatchObject({
      id: 0x9b2f,
      type: 'response',
      flag_aa: true,
      flag_rd: true,
      flag_ra: true,
      questions: [{ name: 'example.com' }],
      answers: [{ name: 'example.com', type: 'A', ttl: 9, data: '192.0.2.1' }],
      additionals: [{ type: 'OPT', udpPayloadSize: 1232 }],
    });
  });

  test('no bytes make the readers throw', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 120 }), fc.nat(600), (bytes, limit) => {
        const header = Uint8Array.from([0, 1, 0x81, 0x80, 0, 1, 0, 1, 0, 1, 0, 1, ...bytes]);
        for (const input of [bytes, header]) {
          const question = parseQuestion(input, 0, input.length);
          const records = question && readRecords(input, 0, question.end, input.length);
          if (records) findEdns(input, records);
          const cut = truncate(input, limit);
          if (cut) expect(cut.length).toBeLessThanOrEqual(Math.max(limit, 12));
        }
      }),
      { numRuns: inputs(2000) },
    );
  });
});

describe('reverse names', () => {
  test.each([
    ['2.0.17.172.in-addr.arpa', [172, 17, 0, 2]],
    ['02.0.17.172.in-addr.arpa', undefined],
    ['256.0.17.172.in-addr.arpa', undefined],
    ['0.17.172.in-addr.arpa', undefined],
    ['example.com', undefined],
  ])('%s stands for %j', (name, address) => {
    expect(reverseAddress(name)).toEqual(address && Uint8Array.from(address));
  });

  test('RFC 3596 2.5: an IPv6 address is its nibbles, backwards', () => {
    const name = `${'2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2'}.ip6.arpa`;
    expect(reverseAddress(name)).toEqual(parseAddress('2001:db8::2'));
    expect(reverseAddress(name.replace('8.b', 'g.b'))).toBeUndefined();
  });
});
