import { expect, test } from 'vitest';
import { parseChance, parseDescriptor, parseDurationMs, parseSizeBytes } from './units.ts';

test.each([
  ['0', 0],
  ['0.05', 0.05],
  ['5%', 0.05],
  ['0.1%', 0.001],
  ['100%', 1],
  ['1', 1],
  // 5 could be meant as 5 % or as 500 %.
  ['5', undefined],
  ['101%', undefined],
  ['-1%', undefined],
  ['.5', undefined],
  ['1e-3', undefined],
  ['%', undefined],
  ['', undefined],
])('the chance "%s" is %s', (text, chance) => {
  expect(parseChance(text)).toEqual(chance);
});

test.each([
  ['0', 0],
  ['20ms', 20],
  ['1.5s', 1500],
  ['500us', 0.5],
  // Milliseconds here, microseconds to tc.
  ['20', undefined],
  ['-1ms', undefined],
  ['1m', undefined],
  ['ms', undefined],
  ['', undefined],
])('the duration "%s" is %s ms', (text, durationMs) => {
  expect(parseDurationMs(text)).toEqual(durationMs);
});

test.each([
  ['65536', 65536],
  ['64K', 65536],
  ['64k', 65536],
  ['10M', 10_485_760],
  ['1G', 1_073_741_824],
  ['1.5M', undefined],
  ['10MB', undefined],
  ['-1', undefined],
  ['999999999999999G', undefined],
  ['', undefined],
])('the size "%s" is %s bytes', (text, bytes) => {
  expect(parseSizeBytes(text)).toEqual(bytes);
});

test.each([
  ['fd:0', 0],
  ['fd:17', 17],
  ['fd:', undefined],
  ['fd:-1', undefined],
  ['/fd:3', undefined],
])('%j is descriptor %s', (text, number) => {
  expect(parseDescriptor(text)).toBe(number);
});
