import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { copyFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { nullLog } from '#common/log';
import { type CloneFile, chooseDriver, type StorageDriver } from './storage-driver.ts';

let dataRoot: string;
beforeEach(() => {
  dataRoot = mkdtempSync(`${tmpdir()}/drydock-driver-`);
});
afterEach(() => rmSync(dataRoot, { recursive: true }));

const clones: CloneFile = (from, to) => copyFile(from, to);
const refuses: CloneFile = async () => {
  throw new Error('ENOTSUP');
};

describe('the storage driver of a Mac', () => {
  const choose = (wanted: StorageDriver | undefined, cloneFile: CloneFile): Promise<StorageDriver> =>
    chooseDriver(dataRoot, wanted, { platform: 'darwin', cloneFile }, nullLog);

  it('is apfs where files can be cloned, else vfs, and vfs for whoever asks for it', async () => {
    expect(await choose(undefined, clones)).toBe('apfs');
    expect(await choose(undefined, refuses)).toBe('vfs');
    expect(await choose('vfs', clones)).toBe('vfs');
    expect(readdirSync(dataRoot)).toEqual([]);
  });

  it('is refused with the reason when it was asked for and does not work', async () => {
    await expect(choose('apfs', refuses)).rejects.toMatchObject({
      code: 'ERR_STORAGE_DRIVER',
      message: expect.stringContaining('apfs does not work in this data root (ENOTSUP)'),
    });
    const elsewhere = chooseDriver(dataRoot, 'apfs', { platform: 'linux', cloneFile: clones }, nullLog);
    await expect(elsewhere).rejects.toThrow('it is for macOS');
  });
});
