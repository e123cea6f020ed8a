import { mkdtemp, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { CacheMounts } from './cache-mounts.ts';

describe('folders of RUN --mount=type=cache', () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'drydock-cache-mounts-'));
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  const open = async (): Promise<CacheMounts> => {
    const mounts = new CacheMounts(folder, () => 1000);
    await mounts.open();
    return mounts;
  };
  const use = async (mounts: CacheMounts, name: string): Promise<string> => {
    const owner = { uid: process.getuid!(), gid: process.getgid!() };
    const { signal } = new AbortController();
    const wish = { name, sharing: 'shared', owner, mode: 0o755, signal } as const;
    const { path, release } = await mounts.acquire(wish);
    await writeFile(join(path, 'kept'), name);
    await release();
    return path;
  };
  const names = async (mounts: CacheMounts): Promise<string[]> =>
    (await mounts.list()).map(({ name }) => name).sort();

  it('are there again after a restart, with what builds have put into them', async () => {
    const path = await use(await open(), 'npm');
    const again = await open();
    expect(await again.list()).toMatchObject([{ name: 'npm', uses: 1, sizeBytes: 3, inUse: false }]);
    expect(await use(again, 'npm')).toBe(path);
    expect(await again.list()).toMatchObject([{ uses: 2 }]);
  });

  it('do not come back when their removal was cut short, and one whose record is damaged is given up', async () => {
    const mounts = await open();
    const [gone, torn] = [await use(mounts, 'gone'), await use(mounts, 'torn')];
    await use(mounts, 'whole');
    await rename(join(gone, '..'), join(folder, `.removing-${'0'.repeat(64)}`));
    await writeFile(join(torn, '..', 'cache.json'), '{"name":');
    const again = await open();
    expect(await names(again)).toEqual(['whole']);
    expect(await readdir(folder)).toHaveLength(1);
    expect(await again.remove((await again.list())[0]!.id)).toBe(true);
    expect(await readdir(folder)).toEqual([]);
  });
});
