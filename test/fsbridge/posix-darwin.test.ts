/** The host on macOS, by a C library that is played (test/support/darwin-files.ts). */
import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { DarwinFs } from '../../fsbridge/backing/posix-darwin.ts';
import { allocate, type Memory } from '../../fsbridge/memory.ts';
import * as S from '../../fsbridge/wire/stat.ts';
import { type DarwinFiles, darwinFiles } from '../support/darwin-files.ts';

const [ENOENT, EEXIST, EINVAL, ERANGE, ENODATA, EOPNOTSUPP, ESTALE] = [2, 17, 22, 34, 61, 95, 116];
const [O_RDWR, O_TRUNC] = [2, 0o1000];
const [NOREPLACE, EXCHANGE, WHITEOUT] = [1, 2, 4];

describe('the host on macOS', () => {
  let folder: string;
  let library: DarwinFiles;
  let host: DarwinFs;
  let memory: Memory;
  beforeEach(() => {
    folder = fs.realpathSync(fs.mkdtempSync(join(tmpdir(), 'drydock-darwin-')));
    library = darwinFiles();
    host = new DarwinFs(folder, library);
    memory = allocate(1 << 15);
  });
  afterEach(() => {
    host.close(host.root);
    expect([...library.open]).toEqual([]);
    fs.rmSync(folder, { recursive: true });
  });
  const path = (name: string): string => join(folder, name);
  const put = (text: string): number => memory.bytes.write(text, 0, 'latin1');
  /** Names from a cookie on, each with the cookie behind it. */
  const names = (fd: number): [name: string, cookie: number][] => {
    const found: [string, number][] = [];
    for (let count = 1; count > 0; ) {
      count = host.readDir(fd, memory);
      for (let at = 0; at < count; at += memory.bytes.readUInt16LE(at + 16)) {
        const end = memory.bytes.indexOf(0, at + 19);
        found.push([memory.bytes.toString('latin1', at + 19, end), memory.words[(at >> 2) + 2]!]);
      }
    }
    return found;
  };

  it('tells what Node tells of a file, folder, link and pipe', () => {
    fs.writeFileSync(path('file'), 'content');
    fs.mkdirSync(path('dir'));
    fs.symlinkSync('file', path('link'));
    expect(host.mknod(host.root, 'pipe', 0o010600)).toBe(0);
    for (const name of ['file', 'dir', 'link', 'pipe']) {
      expect(host.statAt(host.root, name)).toBe(0);
      const found = fs.lstatSync(path(name), { bigint: true });
      const { stat } = host;
      expect(stat[S.MODE], name).toBe(Number(found.mode));
      expect(S.uint64(stat, S.INO)).toBe(Number(found.ino));
      expect(S.uint64(stat, S.SIZE)).toBe(Number(found.size));
      expect(stat[S.NLINK]).toBe(Number(found.nlink));
      for (const [word, ns] of [
        [S.MTIME, found.mtimeNs],
        [S.CTIME, found.ctimeNs],
        [S.BTIME, found.birthtimeNs],
      ] as const)
        expect(BigInt(S.uint64(stat, word)) * 1_000_000_000n + BigInt(stat[word + 2]!)).toBe(ns);
    }
    expect(host.statAt(host.root, 'none')).toBe(-ENOENT);
    expect(host.readLink(host.root, 'link', memory, 0)).toBe(4);
    expect(memory.bytes.toString('latin1', 0, 4)).toBe('file');
  });

  it('opens regular files only, never through a link, and truncates what it opened', () => {
    fs.writeFileSync(path('file'), 'content');
    fs.symlinkSync('file', path('link'));
    host.mknod(host.root, 'pipe', 0o010600);
    expect(host.open(host.root, 'link', 0)).toBeLessThan(0);
    expect(host.open(host.root, 'pipe', 0)).toBe(-ESTALE);
    const fd = host.open(host.root, 'file', O_RDWR | O_TRUNC);
    expect(host.stat[S.SIZE]).toBe(0);
    expect(host.write(fd, memory, 0, put('new'), 0)).toBe(3);
    expect(host.sync(fd)).toBe(0);
    expect(fs.readFileSync(path('file'), 'utf8')).toBe('new');
    host.close(fd);
  });

  it('opens an open file again under its present name, and not what took its place', () => {
    const fd = host.create(host.root, 'a', O_RDWR, 0o600);
    fs.renameSync(path('a'), path('b'));
    const again = host.open(fd, '', 0);
    expect(again).toBeGreaterThan(0);
    host.close(again);
    fs.unlinkSync(path('b'));
    expect(host.open(fd, '', 0)).toBeLessThan(0);
    host.close(fd);
  });

  it('lists from any cookie on, as the folder was at the start', () => {
    const expected = ['.', '..', ...Array.from({ length: 600 }, (_, i) => `name-${i}`)].sort();
    for (const name of expected.slice(2)) fs.writeFileSync(path(name), '');
    const fd = host.openDir(host.root);
    const all = names(fd);
    expect(all.map(([name]) => name).sort()).toEqual(expected);
    for (const [name] of all.slice(2, 300)) fs.unlinkSync(path(name));
    host.seekDir(fd, all[400]![1]);
    expect(names(fd)).toEqual(all.slice(401));
    host.seekDir(fd, 0);
    expect(names(fd)).toHaveLength(602 - 298);
    host.close(fd);
  });

  it('renames as asked: over, never over, both, and without what macOS lacks', () => {
    fs.writeFileSync(path('a'), 'a');
    fs.writeFileSync(path('b'), 'b');
    const { root } = host;
    expect(host.rename(root, 'a', root, 'b', NOREPLACE)).toBe(-EEXIST);
    expect(host.rename(root, 'a', root, 'b', EXCHANGE)).toBe(0);
    expect(fs.readFileSync(path('a'), 'utf8')).toBe('b');
    expect(host.rename(root, 'a', root, 'b', WHITEOUT)).toBe(-EINVAL);
    expect(host.rename(root, 'a', root, 'b', 0)).toBe(0);
    expect(fs.readdirSync(folder)).toEqual(['b']);
  });

  it('sets times, one of them, or now', () => {
    fs.writeFileSync(path('file'), '');
    const time = (seconds: number, ns: number): Uint32Array => Uint32Array.of(seconds, 0, ns);
    const OMIT = 0x3ffffffe;
    expect(host.utimens(host.root, 'file', time(1000, 0), time(2000, 500_000_000))).toBe(0);
    expect(fs.statSync(path('file'))).toMatchObject({ atimeMs: 1_000_000, mtimeMs: 2_000_500 });
    const fd = host.open(host.root, 'file', 0);
    expect(host.utimens(fd, '', time(0, OMIT), time(3000, 0))).toBe(0);
    expect(fs.statSync(path('file'))).toMatchObject({ atimeMs: 1_000_000, mtimeMs: 3_000_000 });
    host.close(fd);
  });

  it('keeps extended attributes, told by size, made or replaced as asked', () => {
    fs.writeFileSync(path('file'), '');
    const { root } = host;
    expect(host.setXattr(root, 'file', 'user.x', memory, 0, put('value'), 1)).toBe(0);
    expect(host.setXattr(root, 'file', 'user.x', memory, 0, 5, 1)).toBe(-EEXIST);
    expect(host.getXattr(root, 'file', 'user.x', memory, 0, 0)).toBe(5);
    expect(host.getXattr(root, 'file', 'user.x', memory, 0, 2)).toBe(-ERANGE);
    expect(host.getXattr(root, 'file', 'user.y', memory, 0, 0)).toBe(-ENODATA);
    expect(host.listXattr(root, 'file', memory, 0, 100)).toBe(7);
    expect(host.removeXattr(root, 'file', 'user.x')).toBe(0);
    expect(host.listXattr(root, 'file', memory, 0, 0)).toBe(0);
  });

  it('refuses what the wire has no operation for', () => {
    expect([host.createUnnamed(), host.seek(), host.allocate(), host.copyRange()]).toEqual(
      Array(4).fill(-EOPNOTSUPP),
    );
    expect(host.mknod(host.root, 'device', 0o020600)).toBe(-1);
  });
});
