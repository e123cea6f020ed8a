import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { inputs } from '../../test/support/fuzz/inputs.ts';
import {
  emitTcp,
  formatTcp,
  parseTcp,
  TCP_ACK,
  TCP_HEADER_LEN,
  TCP_HEADER_LEN_MAX,
  TCP_PSH,
  TCP_SYN,
  TcpSegment,
  tcpHeaderLen,
} from './tcp.ts';

// A SYN of Linux: MSS 1460, SACK permitted, timestamps, window scale 7.
// biome-ignore format: bytes as on the wire
const LINUX_SYN = Uint8Array.of(
  0x9c, 0x40, 0x00, 0x50, 0xde, 0xad, 0xbe, 0xef, 0x00, 0x00, 0x00, 0x00, 0xa0, 0x02, 0xfa, 0xf0, 0x00, 0x00, 0x00, 0x00,
  0x02, 0x04, 0x05, 0xb4, 0x04, 0x02, 0x08, 0x0a, 0x11, 0x22, 0x33, 0x44, 0x00, 0x00, 0x00, 0x00, 0x01, 0x03, 0x03, 0x07,
);

function header(options: number[], payload = 0): Uint8Array {
  const bytes = new Uint8Array(TCP_HEADER_LEN + options.length + payload);
  bytes.set(options, TCP_HEADER_LEN);
  bytes[12] = ((TCP_HEADER_LEN + options.length) >> 2) << 4;
  bytes[13] = TCP_ACK;
  return bytes;
}

function parsed(bytes: Uint8Array): TcpSegment {
  const seg = new TcpSegment();
  expect(parseTcp(bytes, 0, bytes.length, seg)).toBe(true);
  return seg;
}

describe('parseTcp', () => {
  test('reads a SYN as Linux sends it', () => {
    const seg = parsed(LINUX_SYN);
    expect(seg).toMatchObject({
      sourcePort: 40000,
      destinationPort: 80,
      sequence: 0xdeadbeef | 0,
      acknowledgment: 0,
      flags: TCP_SYN,
      window: 64240,
      mss: 1460,
      windowScale: 7,
      sackPermitted: true,
      hasTimestamps: true,
      timestamp: 0x11223344,
      timestampEcho: 0,
      sackCount: 0,
      payloadOff: 40,
      payloadEnd: 40,
    });
  });

  test('writes the same SYN byte for byte', () => {
    const bytes = new Uint8Array(LINUX_SYN.length);
    const seg = parsed(LINUX_SYN);
    expect(tcpHeaderLen(seg)).toBe(40);
    expect(emitTcp(seg, bytes, 0)).toBe(40);
    expect(bytes).toEqual(LINUX_SYN);
  });

  test('reads at an offset, and points at the payload in place', () => {
    const frame = new Uint8Array(100);
    frame.set(header([], 8), 34);
    const seg = new TcpSegment();
    expect(parseTcp(frame, 34, 62, seg)).toBe(true);
    expect([seg.payload === frame, seg.payloadOff, seg.payloadEnd]).toEqual([true, 54, 62]);
  });

  test.each([
    ['no bytes', new Uint8Array(0)],
    ['19 bytes', header([]).subarray(0, 19)],
    ['a data offset of four words', header([]).fill(0x40, 12, 13)],
    ['a data offset beyond the end', header([]).fill(0xf0, 12, 13)],
  ])('%s is no segment', (_what, bytes) => {
    expect(parseTcp(bytes, 0, bytes.length, new TcpSegment())).toBe(false);
  });

  test('an end beyond the buffer is no segment', () => {
    expect(parseTcp(header([]), 0, 21, new TcpSegment())).toBe(false);
  });

  test.each([
    ['of length 0', [2, 0, 5, 180]],
    ['of length 1', [2, 1, 5, 180]],
    ['that runs over the end', [2, 8, 5, 180]],
    ['without a length', [1, 1, 1, 2]],
  ])('an option %s ends the options, not the segment (RFC 9293 MUST-7)', (_what, options) => {
    expect(parsed(header(options)).mss).toBe(0);
  });

  test('an unknown option is skipped (RFC 9293 MUST-6)', () => {
    expect(parsed(header([254, 4, 0, 0, 2, 4, 5, 180])).mss).toBe(1460);
  });

  test.each([
    ['MSS', [2, 5, 5, 180, 0, 1, 1, 1]],
    ['window scale', [3, 4, 7, 0]],
    ['SACK permitted', [4, 3, 0, 1]],
    ['timestamps', [8, 9, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1]],
    ['SACK', [5, 9, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1]],
  ])('a %s option of a wrong length counts as absent', (_what, options) => {
    expect(parsed(header(options))).toMatchObject({
      mss: 0,
      windowScale: -1,
      sackPermitted: false,
      hasTimestamps: false,
      sackCount: 0,
    });
  });

  test('what follows the end-of-options mark is padding', () => {
    expect(parsed(header([0, 1, 2, 4, 5, 180, 0, 0])).mss).toBe(0);
  });

  test('a window scale above 14 is 14 (RFC 7323 section 2.3)', () => {
    expect(parsed(header([3, 3, 200, 0])).windowScale).toBe(14);
  });

  test('options of the segment before do not stay', () => {
    const seg = parsed(LINUX_SYN);
    parseTcp(header([]), 0, TCP_HEADER_LEN, seg);
    expect(seg).toMatchObject({ mss: 0, windowScale: -1, sackPermitted: false, hasTimestamps: false });
  });
});

const int32 = fc.integer({ min: -0x80000000, max: 0x7fffffff });
const segments = fc
  .record({
    sourcePort: fc.nat(0xffff),
    destinationPort: fc.nat(0xffff),
    sequence: int32,
    acknowledgment: int32,
    flags: fc.nat(0xff),
    window: fc.nat(0xffff),
    urgentPointer: fc.nat(0xffff),
    mss: fc.nat(0xffff),
    windowScale: fc.integer({ min: -1, max: 14 }),
    sackPermitted: fc.boolean(),
    hasTimestamps: fc.boolean(),
    timestamp: int32,
    timestampEcho: int32,
    blocks: fc.array(int32, { maxLength: 4 }),
  })
  .map(({ blocks, ...fields }) => {
    const seg = Object.assign(new TcpSegment(), fields);
    if (!seg.hasTimestamps) seg.timestamp = seg.timestampEcho = 0;
    // What fits: SACK and the options of a SYN are not on one segment.
    if (seg.mss || seg.windowScale >= 0 || seg.sackPermitted) return seg;
    seg.sackCount = Math.min(blocks.length, seg.hasTimestamps ? 3 : 4);
    for (let i = 0; i < seg.sackCount; i++) seg.sack.set([blocks[i]!, blocks[i]! ^ 0x5555], 2 * i);
    return seg;
  });

describe('properties', () => {
  test('what is emitted parses to the same', () => {
    fc.assert(
      fc.property(segments, (seg) => {
        const bytes = new Uint8Array(TCP_HEADER_LEN_MAX);
        const len = emitTcp(seg, bytes, 0);
        expect(len).toBe(tcpHeaderLen(seg));
        expect(len % 4).toBe(0);
        const back = new TcpSegment();
        expect(parseTcp(bytes, 0, len, back)).toBe(true);
        expect({ ...back, payload: 0, payloadOff: 0, payloadEnd: 0 }).toEqual({
          ...seg,
          payload: 0,
          payloadOff: 0,
          payloadEnd: 0,
        });
      }),
      { numRuns: inputs(2000) },
    );
  });

  test('no bytes make the parser throw or point outside of them', () => {
    const seg = new TcpSegment();
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 80 }), fc.nat(20), (bytes, off) => {
        if (!parseTcp(bytes, off, bytes.length, seg)) return;
        expect(seg.payloadOff).toBeGreaterThanOrEqual(off + TCP_HEADER_LEN);
        expect(seg.payloadOff).toBeLessThanOrEqual(seg.payloadEnd);
        expect(seg.payloadEnd).toBe(bytes.length);
        expect(seg.sackCount).toBeLessThanOrEqual(4);
        expect(seg.windowScale).toBeLessThanOrEqual(14);
      }),
      { numRuns: inputs(5000) },
    );
  });
});

test('formatTcp says what a person wants to know', () => {
  const seg = parsed(LINUX_SYN);
  expect(formatTcp(seg)).toBe(
    '40000 > 80 [S] seq 3735928559 win 64240 mss 1460 wscale 7 sackOK ts 287454020/0 len 0',
  );
  const ack = parsed(header([1, 1, 5, 10, 0, 0, 0, 9, 0, 0, 0, 12], 3));
  ack.flags |= TCP_PSH;
  expect(formatTcp(ack)).toBe('0 > 0 [PA] seq 0 ack 0 win 0 sack 9-12 len 3');
});
