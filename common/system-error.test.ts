import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { systemErrorText } from './system-error.ts';

function errorOf(act: () => unknown): unknown {
  try {
    act();
  } catch (error) {
    return error;
  }
  throw new Error('nothing failed');
}

it("says of the operating system's errors what failed, why, and what to do", () => {
  expect(systemErrorText(errorOf(() => writeFileSync('/no/such/report.json', '')))).toBe(
    'open /no/such/report.json failed: there is no such file or folder. Make it, or correct the path.',
  );
  expect(systemErrorText(errorOf(() => readFileSync('/')))).toMatch(/: it is a folder\. Name a file\.$/);
  expect(systemErrorText(errorOf(() => mkdirSync('/proc/nowhere')))).toBe(
    'mkdir /proc/nowhere failed: no folder can be made there. Use another place.',
  );
  const full = Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });
  expect(systemErrorText(full)).toMatch(/^ENOSPC: no space left on device, write: the disk is full.*df/);
});

it('leaves other errors alone', () => {
  expect(systemErrorText(new Error('x'))).toBeUndefined();
  expect(systemErrorText(undefined)).toBeUndefined();
});
