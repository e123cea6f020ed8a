import { expect, it } from 'vitest';
import { insideId, mapText, outsideId } from './id-map.ts';

const RANGES = [
  { inside: 0, outside: 100_000, length: 1000 },
  { inside: 1000, outside: 500_000, length: 10 },
];

it('maps numbers into a namespace and out of it', () => {
  for (const [inside, outside] of [
    [0, 100_000],
    [999, 100_999],
    [1000, 500_000],
    [1009, 500_009],
  ] as const) {
    expect(outsideId(RANGES, inside)).toBe(outside);
    expect(insideId(RANGES, outside)).toBe(inside);
  }
});

it('has no number outside for one that is not mapped, and shows what is foreign as nobody', () => {
  expect(outsideId(RANGES, 1010)).toBeUndefined();
  expect(insideId(RANGES, 0)).toBe(65_534);
});

it('changes nothing where there is no map', () => {
  expect([outsideId(undefined, 7), insideId(undefined, 7)]).toEqual([7, 7]);
});

it('is written as the kernel reads it', () => {
  expect(mapText(RANGES)).toBe('0 100000 1000\n1000 500000 10\n');
});
