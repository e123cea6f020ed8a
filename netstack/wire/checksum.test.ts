import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { inputs } from '../../test/support/fuzz/inputs.ts';
import { mapped, parseIpv6 } from './address.ts';
import { complement, fold, pseudo, pseudoIpv4, pseudoIpv6, sum } from './checksum.ts';

/** RFC 1071 section 4.1, word by word. */
function slowSum(bytes: Uint8Array): number {
  let total = 0;
  for (let i = 0; i < bytes.length; i += 2) total += (bytes[i]! << 8) | (bytes[i + 1] ?? 0);
  while (total > 0xffff) total = (total & 0xffff) + Math.floor(total / 0x10000);
  return total;
}

describe('the Internet checksum (RFC 1071)', () => {
  it('sums the example of section 3', () => {
    expect(sum(Uint8Array.of(0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7), 0, 8)).toBe(0xddf2);
  });

  it('is the same at any place, length and parity as word by word', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), fc.nat(9), fc.nat(9), (bytes, before, shift) => {
        const memory = new Uint8Array(shift + before + bytes.length + 8).fill(0xa5);
        const view = memory.subarray(shift);
        view.set(bytes, before);
        expect(sum(view, before, bytes.length)).toBe(slowSum(bytes));
      }),
      { numRuns: inputs(2000) },
    );
  });

  it('is exact for the largest packet of the largest bytes', () => {
    const bytes = new Uint8Array(65535).fill(0xff);
    for (const off of [0, 1, 2, 3])
      expect(sum(bytes, off, 65535 - 3)).toBe(slowSum(bytes.subarray(off, off + 65532)));
  });

  it('works at the end of memory that is no multiple of four', () => {
    const bytes = Uint8Array.from({ length: 131 }, (_, i) => i);
    expect(sum(bytes, 0, 131)).toBe(slowSum(bytes));
    expect(sum(bytes, 1, 130)).toBe(slowSum(bytes.subarray(1)));
  });

  it('switches between buffers', () => {
    const a = new Uint8Array(128).fill(1);
    const b = new Uint8Array(128).fill(2);
    expect([sum(a, 0, 128), sum(b, 0, 128), sum(a, 0, 128)]).toEqual([slowSum(a), slowSum(b), slowSum(a)]);
  });

  it('folds sums of any size', () => {
    expect(fold(0)).toBe(0);
    expect(fold(0x10000)).toBe(1);
    expect(fold(0x1ffff)).toBe(1);
    expect(fold(0xffff_ffff)).toBe(0xffff);
    expect(fold(2 ** 40)).toBe(256);
    expect(complement(0xffff)).toBe(0);
  });
});

describe('pseudo headers', () => {
  it('of IPv4 are the same from numbers and from mapped addresses', () => {
    const header = pseudo(true, mapped(0x0a000001), 0, mapped(0xc0a80001), 0, 17, 100);
    expect(header).toBe(pseudoIpv4(0x0a000001, 0xc0a80001, 17, 100));
    expect(fold(header)).toBe(0x0a00 + 1 + 0xc0a8 + 1 + 17 + 100);
  });

  it('of IPv6 cover lengths above 16 bits', () => {
    const a = parseIpv6('::1')!;
    expect(pseudoIpv6(a, 0, a, 0, 58, 0x12345)).toBe(1 + 1 + 58 + 1 + 0x2345);
  });
});
