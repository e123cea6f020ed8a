import { expect, it } from 'vitest';
import { goSize } from './go-text.ts';

it('reads sizes as docker does: whatever the letters, by powers of 1024, and nothing else', () => {
  const read = ['0', '64m', '1.5 GiB', '2KB', '3t', ' 7 ', '1p', '', 'm', '-1', '1e3', '1.m', '64 mm'].map(
    (text) => goSize(text),
  );
  const none = undefined;
  expect(read).toEqual([
    0,
    2 ** 26,
    1.5 * 2 ** 30,
    2048,
    3 * 2 ** 40,
    7,
    2 ** 50,
    none,
    none,
    none,
    none,
    none,
    none,
  ]);
});

it('reads sizes of logs by powers of 1000', () => {
  expect(['10m', '1.5GB', '4096', 'x'].map((text) => goSize(text, 1000))).toEqual([
    10_000_000,
    1_500_000_000,
    4096,
    undefined,
  ]);
});
