import fc from 'fast-check';
import { expect, it } from 'vitest';
import { Statistics } from './statistics.ts';
import { LOOKUP, OPCODE_LIMIT, READ } from './wire/opcode.ts';

it('an operation that was never asked for has no statistics', () => {
  expect(new Statistics().of(LOOKUP)).toBeUndefined();
});

it('operations are told apart, and unknown ones are left out', () => {
  const statistics = new Statistics();
  statistics.record(LOOKUP, 0.01);
  statistics.record(READ, 5);
  statistics.record(READ, 5);
  statistics.record(OPCODE_LIMIT, 1);
  expect(statistics.of(LOOKUP)?.count).toBe(1);
  expect(statistics.of(READ)?.count).toBe(2);
});

it('a quantile is at least the true one, and at most 19 % above', () => {
  const times = fc.array(fc.double({ min: 1, max: 6e7, noNaN: true }), { minLength: 1, maxLength: 200 });
  fc.assert(
    fc.property(times, (us) => {
      const statistics = new Statistics();
      for (const each of us) statistics.record(READ, each / 1000);
      const sorted = [...us].sort((a, b) => a - b);
      const found = statistics.of(READ)!;
      for (const [value, share] of [
        [found.p50Us, 0.5],
        [found.p99Us, 0.99],
      ] as const) {
        const truth = sorted[Math.ceil(us.length * share) - 1]!;
        // Bounds are told to a tenth of a microsecond.
        expect(value).toBeGreaterThanOrEqual(truth - 0.06);
        expect(value).toBeLessThanOrEqual(truth * 2 ** 0.25 + 0.06);
      }
    }),
  );
});
