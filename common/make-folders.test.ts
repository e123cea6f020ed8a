import { mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { makeFolders } from './make-folders.ts';

let base: string;
beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), 'drydock-folders-'));
});
afterEach(() => rmSync(base, { recursive: true }));

it('makes what is missing, tells the first of it, and is content with what is there', async () => {
  const path = join(base, 'a/b/c');
  expect(await makeFolders(path, 0o710)).toBe(join(base, 'a'));
  expect(statSync(path).mode & 0o777).toBe(0o710);
  expect(await makeFolders(path)).toBeUndefined();
  const both = await Promise.all([makeFolders(join(base, 'x/y')), makeFolders(join(base, 'x/y'))]);
  expect(both).toContain(join(base, 'x'));
});

it('ends with the reason where no folder can be made, as below /proc', async () => {
  await expect(makeFolders('/proc/nowhere/at/all')).rejects.toMatchObject({
    code: 'ENOENT',
    path: '/proc/nowhere',
  });
});

it('does not take a file, or a link that leads nowhere, for a folder', async () => {
  writeFileSync(join(base, 'file'), '');
  symlinkSync(join(base, 'absent'), join(base, 'link'));
  await expect(makeFolders(join(base, 'file'))).rejects.toMatchObject({ code: 'EEXIST' });
  await expect(makeFolders(join(base, 'file/x'))).rejects.toMatchObject({ code: 'ENOTDIR' });
  await expect(makeFolders(join(base, 'link/x'))).rejects.toMatchObject({ code: 'EEXIST' });
});
