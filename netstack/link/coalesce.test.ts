import { describe, expect, test } from 'vitest';
import { get16, get32, put16, put32 } from '../wire/address.ts';
import { Coalescer } from './coalesce.ts';
import { type Link, VNET_HDR_LEN } from './link.ts';
import { SoftwareOffload } from './offload.ts';

const IP = VNET_HDR_LEN + 14;
const MSS = 1448;

/** A super-frame as a TAP gives it, cut into the plain frames that a machine's wire carries. */
function segments(options: {
  ipv6?: boolean;
  payloadLen: number;
  push?: boolean;
  sequence?: number;
}): Uint8Array[] {
  const { ipv6 = false, payloadLen, push = true, sequence = 0xffff_ff00 } = options;
  const tcp = IP + (ipv6 ? 40 : 20);
  const frame = new Uint8Array(tcp + 32 + payloadLen);
  frame[0] = 1;
  frame[1] = ipv6 ? 4 : 1;
  frame[4] = MSS & 255;
  frame[5] = MSS >>> 8;
  put16(frame, VNET_HDR_LEN + 12, ipv6 ? 0x86dd : 0x0800);
  if (ipv6) {
    frame[IP] = 0x60;
    frame[IP + 6] = 6;
    for (let i = 0; i < 32; i++) frame[IP + 8 + i] = i * 7 + 1;
  } else {
    frame[IP] = 0x45;
    put16(frame, IP + 6, 0x4000);
    frame[IP + 8] = 64;
    frame[IP + 9] = 6;
    put32(frame, IP + 12, 0xac110002);
    put32(frame, IP + 16, 0x08080808);
  }
  put16(frame, tcp, 40_000);
  put16(frame, tcp + 2, 443);
  put32(frame, tcp + 4, sequence);
  put32(frame, tcp + 8, 77);
  frame[tcp + 12] = 8 << 4;
  frame[tcp + 13] = push ? 0x18 : 0x10;
  put16(frame, tcp + 14, 500);
  for (let i = 0; i < payloadLen; i++) frame[tcp + 32 + i] = i * 31 + 7;
  return cut(frame);
}

function cut(frame: Uint8Array): Uint8Array[] {
  const frames: Uint8Array[] = [];
  const link: Link = {
    mtuBytes: 1500,
    offload: false,
    send(head, headOff, headLen, body, bodyOff, bodyLen) {
      const bytes = new Uint8Array(headLen + bodyLen);
      bytes.set(head.subarray(headOff, headOff + headLen));
      if (body) bytes.set(body.subarray(bodyOff, bodyOff + bodyLen), headLen);
      frames.push(bytes);
      return true;
    },
    flush() {},
    start() {},
    close() {},
  };
  new SoftwareOffload(link).send(frame, 0, frame.length, undefined, 0, 0);
  return frames;
}

/** What comes out when `frames` are a batch. */
function coalesce(frames: readonly Uint8Array[]): Uint8Array[] {
  const out: Uint8Array[] = [];
  const coalescer = new Coalescer({ frame: (buf, off, end) => out.push(buf.slice(off, end)) });
  for (const frame of frames) coalescer.frame(frame, 0, frame.length);
  coalescer.flush();
  return out;
}

describe('coalescing', () => {
  test.each([false, true])(
    'merges the segments of one connection into a frame that cuts into the same (IPv6: %s)',
    (ipv6) => {
      const plain = segments({ ipv6, payloadLen: 10 * MSS + 99 });
      const merged = coalesce(plain);
      expect(merged).toHaveLength(1);
      expect(merged[0]![0]).toBe(1);
      expect(get16(merged[0]!, ipv6 ? IP + 4 : IP + 2)).toBe(merged[0]!.length - IP - (ipv6 ? 40 : 0));
      const again = cut(merged[0]!);
      expect(again).toEqual(plain);
    },
  );

  test('holds nothing back beyond the batch, a PSH or a short segment', () => {
    const out: number[] = [];
    const coalescer = new Coalescer({ frame: (_buf, off, end) => out.push(end - off) });
    const [first, last] = segments({ payloadLen: MSS + 5 });
    coalescer.frame(first!, 0, first!.length);
    expect(out).toHaveLength(0);
    coalescer.frame(last!, 0, last!.length);
    expect(out).toEqual([first!.length + 5]);
    coalescer.frame(last!, 0, last!.length);
    expect(out).toHaveLength(2);
    coalescer.frame(first!, 0, first!.length);
    coalescer.flush();
    expect(out).toHaveLength(3);
  });

  test('never makes a packet longer than IP can say', () => {
    const plain = [
      ...segments({ payloadLen: 40 * MSS, push: false, sequence: 1 }),
      ...segments({ payloadLen: 20 * MSS, sequence: 1 + 40 * MSS }),
    ];
    const merged = coalesce(plain);
    expect(merged.flatMap(cut).map((frame) => get32(frame, IP + 24))).toEqual(
      plain.map((frame) => get32(frame, IP + 24)),
    );
    for (const frame of merged) expect(frame.length - IP).toBeLessThanOrEqual(65_535);
    expect(merged).toHaveLength(2);
  });

  const change: [string, (frame: Uint8Array) => unknown][] = [
    ['of another connection', (frame) => put16(frame, IP + 20, 40_001)],
    ['with another acknowledgment', (frame) => put32(frame, IP + 28, 78)],
    ['with another window', (frame) => put16(frame, IP + 34, 501)],
    ['with another option', (frame) => frame.fill(9, IP + 45, IP + 46)],
    ['with FIN', (frame) => frame.fill(0x11, IP + 33, IP + 34)],
    ['out of sequence', (frame) => put32(frame, IP + 24, 5)],
    ['with another TTL', (frame) => frame.fill(63, IP + 8, IP + 9)],
    ['with a congestion mark', (frame) => frame.fill(3, IP + 1, IP + 2)],
    ['that is a fragment', (frame) => put16(frame, IP + 6, 0x2000)],
    ['with IP options', (frame) => frame.fill(0x46, IP, IP + 1)],
    ['that is damaged', (frame) => put16(frame, IP + 100, 1 ^ get16(frame, IP + 100))],
  ];
  test.each(change)('leaves a segment alone %s', (_what, spoil) => {
    const plain = segments({ payloadLen: 3 * MSS });
    spoil(plain[1]!);
    const out = coalesce(plain);
    expect(out).toContainEqual(plain[0]);
    expect(out).toContainEqual(plain[1]);
  });

  test('a damaged first segment spoils no other', () => {
    const plain = segments({ payloadLen: 3 * MSS });
    plain[0]![IP + 100]! ^= 1;
    const out = coalesce(plain);
    expect(out[0]).toEqual(plain[0]);
    expect(cut(out[1]!)).toEqual(plain.slice(1));
  });
});
