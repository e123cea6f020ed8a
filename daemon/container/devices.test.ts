import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { devicesOf } from './devices.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'drydock-devices-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

describe('devices of the host', () => {
  const wish = (hostPath: string) => ({ hostPath, path: '/dev/mine', access: 'rw' });

  it('a folder stands for the devices below it, and for nothing else there', () => {
    expect(devicesOf([wish('/dev/zero'), wish('/dev/net')])).toEqual([
      wish('/dev/zero'),
      { hostPath: '/dev/net/tun', path: '/dev/mine/tun', access: 'rw' },
    ]);
  });

  it('a link is followed to its device, but those in a folder lead nowhere', () => {
    mkdirSync(join(folder, 'sub'));
    symlinkSync('/dev/null', join(folder, 'sub', 'null'));
    symlinkSync('/dev', join(folder, 'all'));
    expect(devicesOf([wish(join(folder, 'sub', 'null'))])).toHaveLength(1);
    expect(() => devicesOf([wish(folder)])).toThrow('not a device node');
  });

  it.each([
    ['none', 'no such file or directory'],
    ['', 'not a device node'],
  ])('%j in a folder without any is %s', (name, reason) => {
    expect(() => devicesOf([wish(join(folder, name))])).toThrow(
      `error gathering device information while adding custom device ${JSON.stringify(join(folder, name))}: ${reason}`,
    );
  });
});
