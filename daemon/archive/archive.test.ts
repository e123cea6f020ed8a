import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { baseName, goMode, statPath } from './archive.ts';

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'drydock-archive-'));
  await mkdir(join(root, 'etc'));
  await writeFile(join(root, 'etc/passwd'), 'x');
  await symlink('/etc', join(root, 'abs'));
  await symlink('../../../etc/passwd', join(root, 'chain'));
});
afterEach(() => rm(root, { recursive: true, force: true }));

it.each([
  [0o100644, 0o644],
  [0o041777, 2 ** 31 + 2 ** 20 + 0o777],
  [0o120777, 2 ** 27 + 0o777],
  [0o104755, 2 ** 23 + 0o755],
  [0o102755, 2 ** 22 + 0o755],
  [0o020666, 2 ** 26 + 2 ** 21 + 0o666],
  [0o060660, 2 ** 26 + 0o660],
  [0o010600, 2 ** 25 + 0o600],
  [0o140755, 2 ** 24 + 0o755],
])('a mode of lstat %o in Go’s bits', (mode, expected) => {
  expect(goMode(mode)).toBe(expected);
});

it.each([
  ['/a/b', 'b'],
  ['/a/b/', 'b'],
  ['/a/b/.', '.'],
  ['/', '/'],
])('the name of %s is %s', (path, expected) => {
  expect(baseName(path)).toBe(expected);
});

describe('what is at a path', () => {
  it('a link at the end is told as a link, with where it leads inside the container', async () => {
    expect(await statPath({ root, path: '/abs', maps: undefined }, '')).toMatchObject({
      name: 'abs',
      linkTarget: '/etc',
    });
    expect(await statPath({ root, path: '/chain', maps: undefined }, '')).toMatchObject({
      linkTarget: '/etc/passwd',
    });
  });

  it('a link on the way is followed inside the container, and at the end when the path says so', async () => {
    expect(await statPath({ root, path: '/abs/passwd', maps: undefined }, '')).toMatchObject({
      name: 'passwd',
      size: 1,
    });
    expect((await statPath({ root, path: '/abs/', maps: undefined }, '')).mode).toBeGreaterThan(2 ** 31);
  });

  it('what is missing is told with the text that is given; a file is no folder', async () => {
    await expect(statPath({ root, path: '/etc/none', maps: undefined }, 'Could not find it')).rejects.toThrow(
      'Could not find it',
    );
    await expect(statPath({ root, path: '/etc/passwd/', maps: undefined }, '')).rejects.toThrow(
      /not a directory/,
    );
  });
});
