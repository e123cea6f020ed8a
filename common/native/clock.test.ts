import { expect, test } from 'vitest';
import { hostClockQuality } from './clock.ts';

test('the quality of the clock is sane', () => {
  const { synchronised, errorMaxMs } = hostClockQuality();
  expect(typeof synchronised).toBe('boolean');
  expect(errorMaxMs).toBeGreaterThanOrEqual(0);
  // The kernel stops counting at 16 seconds (NTP_PHASE_LIMIT).
  expect(errorMaxMs).toBeLessThanOrEqual(16_000);
});
