import { describe, expect, test } from 'vitest';
import { seededRng } from '#common/rng';
import { InitialSequence, SipHash } from './initial-sequence.ts';

describe('SipHash', () => {
  // First rows of the reference implementation's vectors for SipHash-2-4: key 00 01 .. 0f, message 00 01 .. (n - 1).
  test.each([
    [0, '310e0edd47db6f72'],
    [1, 'fd67dc93c539f874'],
    [2, '5a4fa9d909806c0d'],
    [3, '2d7efbd796666785'],
    [4, 'b7877127e09427cf'],
    [7, '37d1018bf50002ab'],
    [8, '6224939a79f5f593'],
    [15, 'e545be4961ca29a1'],
  ])('has the low half of the reference value for %i bytes', (len, hex) => {
    const bytes = Uint8Array.from({ length: 16 }, (_, i) => i);
    const hash = new SipHash(bytes).hash32(bytes, len) >>> 0;
    const expected = Number.parseInt(hex.slice(0, 8).match(/../g)!.reverse().join(''), 16);
    expect(hash.toString(16)).toBe(expected.toString(16));
  });

  test('wants a key of 16 bytes', () => {
    expect(() => new SipHash(new Uint8Array(15))).toThrow('16 bytes');
  });
});

describe('InitialSequence (RFC 6528)', () => {
  const address = Uint8Array.from({ length: 32 }, (_, i) => i);
  const next = (isn: InitialSequence, now: number, port: number): number =>
    isn.next(now, address, 0, 80, address, 16, port);

  test('advances by one every 4 µs for the same connection', () => {
    const isn = new InitialSequence(seededRng(1));
    expect((next(isn, 1000, 5000) - next(isn, 0, 5000)) | 0).toBe(250_000);
  });

  test('differs between connections and between secrets', () => {
    const one = new InitialSequence(seededRng(1));
    const two = new InitialSequence(seededRng(2));
    const values = [next(one, 0, 5000), next(one, 0, 5001), next(two, 0, 5000), next(two, 0, 5001)];
    expect(new Set(values).size).toBe(4);
  });

  test('is a signed 32-bit integer, also after a long time', () => {
    const value = next(new InitialSequence(seededRng(3)), 1e12, 1);
    expect(value).toBe(value | 0);
  });
});
