import { mkdir, mkdtemp, readdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { nullLog } from '#common/log';
import { resolveInRoot } from '../mounts/rootpath.ts';
import { lockDataRoot } from './lock.ts';
import { ID_KEY, RecordFolder } from './record-folder.ts';
import { removeTree } from './remove-tree.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'drydock-store-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

describe('removing a folder', () => {
  it('takes all that is in it, whatever its name, and nothing that its links lead to', async () => {
    const doomed = join(folder, 'doomed');
    await mkdir(join(doomed, 'a', 'b'), { recursive: true });
    await writeFile(Buffer.concat([Buffer.from(`${doomed}/a/`), Buffer.of(0xff, 0xfe)]), '');
    await mkdir(join(folder, 'kept'));
    await writeFile(join(folder, 'kept', 'file'), '');
    await symlink(join(folder, 'kept'), join(doomed, 'a', 'link'));
    await removeTree(doomed);
    expect(await readdir(folder)).toEqual(['kept']);
    expect(await readdir(join(folder, 'kept'))).toEqual(['file']);
    await expect(removeTree(doomed)).resolves.toBeUndefined();
  });
});

describe('records on disk', () => {
  it('are found again; what a crash left half-made, and what was damaged, are told apart', async () => {
    const records = new RecordFolder<{ n: number }>(join(folder, 'r'), 'x.json');
    await records.load();
    await records.save('a', { n: 1 });
    await mkdir(join(folder, 'r', 'half'));
    await mkdir(join(folder, 'r', 'torn'));
    await writeFile(join(folder, 'r', 'torn', 'x.json'), '{"n":');
    const again = await new RecordFolder<{ n: number }>(join(folder, 'r'), 'x.json').load();
    expect([...again.records]).toEqual([['a', { n: 1 }]]);
    expect(again.unfinished).toEqual(['half']);
    expect(again.damaged).toEqual(['torn']);
  });

  it('are gone whole: a removal that a crash cut short is finished at the next load', async () => {
    const records = new RecordFolder<{ n: number }>(join(folder, 'r'), 'x.json');
    await records.save('a', { n: 1 });
    await rename(join(folder, 'r', 'a'), join(folder, 'r', '.removing-a'));
    const again = await records.load();
    expect([...again.records.keys(), ...again.unfinished, ...again.damaged]).toEqual([]);
    expect(await readdir(join(folder, 'r'))).toEqual([]);
  });

  it('what others have put beside them is told by its path, and left alone', async () => {
    const warned: object[] = [];
    const log = { ...nullLog, warn: (fields: object) => warned.push(fields) };
    const id = 'a'.repeat(64);
    const records = new RecordFolder<{ n: number }>(join(folder, 'r'), 'x.json', { key: ID_KEY, log });
    await records.save(id, { n: 1 });
    await writeFile(join(folder, 'r', 'notes.txt'), 'mine');
    await mkdir(join(folder, 'r', 'lost+found'));
    const again = await records.load();
    expect([...again.records.keys(), ...again.unfinished, ...again.damaged]).toEqual([id]);
    expect(warned).toEqual(
      expect.arrayContaining(['notes.txt', 'lost+found'].map((name) => ({ path: join(folder, 'r', name) }))),
    );
    expect((await readdir(join(folder, 'r'))).sort()).toEqual([id, 'lost+found', 'notes.txt']);
  });

  it('of many saves at once the last one is there when any of them has resolved last', async () => {
    const records = new RecordFolder<{ n: number }>(join(folder, 'r'), 'x.json');
    await records.load();
    await Promise.all(Array.from({ length: 50 }, (_, n) => records.save('a', { n })));
    expect(JSON.parse(await readFile(join(folder, 'r', 'a', 'x.json'), 'utf8'))).toEqual({ n: 49 });
    expect(await readdir(join(folder, 'r', 'a'))).toEqual(['x.json']);
    await records.remove('a');
    expect(await readdir(join(folder, 'r'))).toEqual([]);
  });
});

describe('the lock of a data root', () => {
  it('is refused while its owner lives, with the owner’s process', async () => {
    const lock = await lockDataRoot(folder);
    expect(lock.abandoned).toBe(false);
    await expect(lockDataRoot(folder)).rejects.toThrow(new RegExp(`process ${process.pid}`));
    await lock.release();
    await (await lockDataRoot(folder)).release();
    expect(await readdir(folder)).toEqual([]);
  });

  it.each([
    ['a process that is gone', '4194304 1'],
    ['a process number that another has now', `${process.pid} 1`],
    ['nonsense', 'x'],
  ])('is taken over from %s', async (_, text) => {
    await writeFile(join(folder, 'daemon.lock'), text);
    // One that only looks leaves the mark to the next.
    await (await lockDataRoot(folder)).putBack();
    const lock = await lockDataRoot(folder);
    expect(lock.abandoned).toBe(true);
    await lock.release();
  });
});

describe('a path of a container on the host', () => {
  it.each([
    ['/a/b', 'a/b'],
    ['../../etc/passwd', 'etc/passwd'],
    ['/up/etc', 'etc'],
    ['/abs/x', 'etc/x'],
    ['/chain', 'etc/x'],
    ['/missing/../a', 'a'],
  ])('%s stays inside: %s', async (path, expected) => {
    await mkdir(join(folder, 'etc'));
    await symlink('../../../../../..', join(folder, 'up'));
    await symlink('/etc', join(folder, 'abs'));
    await symlink('/abs/../abs/x', join(folder, 'chain'));
    expect(await resolveInRoot(folder, path)).toBe(join(folder, expected));
  });

  it('a loop of links is an error', async () => {
    await symlink('/b', join(folder, 'a'));
    await symlink('/a', join(folder, 'b'));
    await expect(resolveInRoot(folder, '/a')).rejects.toThrow(/too many levels of symbolic links/);
  });
});
