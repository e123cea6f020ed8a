import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough, Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '#common/clock';
import { lacking } from '../../test/support/requirements.ts';
import { emitHeader, makeHeader, trailer } from '../image/tar/header.ts';
import { type Place, readArchive, writeArchive } from './archive.ts';
import { ArchiveThreads } from './threads.ts';

describe.skipIf(lacking('root'))('a thread for archives', () => {
  const threads = new ArchiveThreads(systemClock);
  const options = { replace: true, owner: undefined };
  let place: Place;
  beforeEach(() => {
    place = { root: mkdtempSync(join(tmpdir(), 'drydock-archive-')), path: '/', maps: undefined };
  });
  afterEach(() => rmSync(place.root, { recursive: true, force: true }));
  afterAll(() => threads.close());

  const archiveOf = (name: string): Buffer =>
    Buffer.concat([emitHeader(makeHeader({ name, type: 'file' })), trailer()]);
  const threadCount = (): number => readdirSync('/proc/self/task').length;
  /** What is open below the root. */
  const openFiles = (): string[] =>
    readdirSync('/proc/self/fd').flatMap((fd) => {
      try {
        return realpathSync(`/proc/self/fd/${fd}`).startsWith(place.root) ? [fd] : [];
      } catch {
        return [];
      }
    });

  it('does one job after the other, each in the root of its own container', async () => {
    await writeArchive(threads, place, Readable.from([archiveOf('first')]), options);
    const before = threadCount();
    const other = { ...place, root: mkdtempSync(join(tmpdir(), 'drydock-archive-')) };
    try {
      expect((await buffer(readArchive(threads, place))).includes('first')).toBe(true);
      await writeArchive(threads, other, Readable.from([archiveOf('second')]), options);
      const archive = await buffer(readArchive(threads, other));
      expect([archive.includes('second'), archive.includes('first')]).toEqual([true, false]);
    } finally {
      rmSync(other.root, { recursive: true });
    }
    expect(threadCount()).toBe(before);
    expect(openFiles()).toEqual([]);
  });

  it('lets go of the tree when a copy is broken off, and does the next one', async () => {
    const upload = new PassThrough();
    const copying = writeArchive(threads, place, upload, options);
    upload.write(emitHeader(makeHeader({ name: 'half', type: 'file', size: 8 << 20 })));
    upload.write(Buffer.alloc(2 << 20));
    upload.destroy(new Error('the client has gone'));
    await expect(copying).rejects.toThrow('the client has gone');
    expect(openFiles()).toEqual([]);

    writeFileSync(join(place.root, 'large'), Buffer.alloc(16 << 20));
    const download = readArchive(threads, place);
    download.once('data', () => download.destroy());
    await once(download, 'close');
    expect(openFiles()).toEqual([]);

    await writeArchive(threads, place, Readable.from([archiveOf('next')]), options);
    expect(readFileSync(join(place.root, 'next')).length).toBe(0);
  });

  it('tells what is wrong with an archive, and lets go of the tree', async () => {
    const garbage = Readable.from([Buffer.alloc(1024, 'garbage')]);
    await expect(writeArchive(threads, place, garbage, options)).rejects.toMatchObject({
      code: 'ERR_BAD_ARCHIVE',
    });
    expect(openFiles()).toEqual([]);
  });
});
