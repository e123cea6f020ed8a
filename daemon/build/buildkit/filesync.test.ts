import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { TarReader } from '../../image/tar/reader.ts';
import { ArchiveLayout } from './filesync.ts';
import { FrameReader, frame } from './grpc.ts';
import { Packet, type Stat } from './messages.ts';

const DIRECTORY = 2 ** 31 + 0o755;
const SYMLINK = 2 ** 27 + 0o777;
const stat = (path: string, more: Partial<Stat> = {}): Stat => ({
  ...{ path, mode: 0o644, uid: 0, gid: 0, size: 0, modTime: 0n, linkname: '', devmajor: 0, devminor: 0 },
  xattrs: new Map(),
  ...more,
});

/** What is in the archive that a layout describes, with data of files all zero. */
function entriesOf(stats: Stat[]): string[] {
  const layout = new ArchiveLayout();
  const places = stats.flatMap((each) => layout.describe(each) ?? []);
  const archive = Buffer.alloc(layout.length + 1024);
  for (const { header, offset } of places) header.copy(archive, offset);
  const found: string[] = [];
  const reader = new TarReader({
    entry: ({ name, type, linkName, size }) => void found.push(`${type} ${name} ${linkName} ${size}`),
    data: () => {},
    end: () => {},
  });
  reader.push(archive);
  reader.finish();
  return found;
}

describe('files that a client sends', () => {
  it('become an archive with everything at its place', () => {
    const described = [
      stat('a', { mode: DIRECTORY }),
      stat('a/b', { size: 700 }),
      stat('a/c', { linkname: 'a/b' }),
      stat('s', { mode: SYMLINK, linkname: '../../etc' }),
      stat('socket', { mode: 2 ** 24 + 0o644 }),
    ];
    expect(entriesOf(described)).toEqual([
      'directory a  0',
      'file a/b  700',
      'link a/c a/b 0',
      'symlink s ../../etc 0',
    ]);
  });

  it.each([
    ['an absolute path', [stat('/etc/passwd')]],
    ['a path out of the folder', [stat('..')]],
    ['a path with .. inside', [stat('a', { mode: DIRECTORY }), stat('a/../../b')]],
    ['an empty path', [stat('')]],
    ['a name with a zero byte', [stat('a\0b')]],
    ['a file below a symlink', [stat('a', { mode: SYMLINK, linkname: '/etc' }), stat('a/b')]],
    ['a file below a folder that was not described', [stat('a/b')]],
    ['the same path twice', [stat('a'), stat('a')]],
    ['paths out of order', [stat('b'), stat('a')]],
    ['a hard link to nothing', [stat('a', { linkname: '/etc/passwd' })]],
    ['a negative size', [stat('a', { size: -1 })]],
    ['more bytes than any disk has', [stat('a', { size: 2 ** 52 })]],
  ])('%s is refused', (_what, stats) => {
    expect(() => entriesOf(stats)).toThrow(/the client sent/);
  });

  it('data is written inside its own file, whatever the client sends', () => {
    fc.assert(
      fc.property(
        fc.array(fc.nat(2000), { minLength: 1, maxLength: 8 }),
        fc.array(fc.tuple(fc.nat(10), fc.nat(3000)), { maxLength: 40 }),
        (sizes, pieces) => {
          const layout = new ArchiveLayout();
          const ends = sizes.map((size, i) => {
            const { header, offset } = layout.describe(stat(`f${i}`, { size }))!;
            return { start: offset + header.length, end: offset + header.length + size };
          });
          for (const [id, length] of pieces) {
            let place: ReturnType<ArchiveLayout['data']>;
            try {
              place = layout.data(id, length);
            } catch {
              continue; // a file that is not there or has no data
            }
            expect(place.offset).toBeGreaterThanOrEqual(ends[id]!.start);
            expect(place.offset + place.length).toBeLessThanOrEqual(ends[id]!.end);
          }
        },
      ),
    );
  });

  it('a file that is shorter than described is an error, a longer one is cut', () => {
    const layout = new ArchiveLayout();
    layout.describe(stat('a', { size: 10 }));
    expect(layout.data(0, 4).length).toBe(4);
    expect(() => layout.complete(0)).toThrow(/4 bytes of "a", which had 10/);
    expect(layout.data(0, 100).length).toBe(6);
    layout.complete(0);
    expect(layout.pending()).toEqual([]);
  });
});

describe('messages', () => {
  it('any bytes decode to a packet or throw an error', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        try {
          Packet.decode(bytes);
        } catch (error) {
          expect(error).toBeInstanceOf(Error);
        }
      }),
    );
  });

  it('a packet survives encoding', () => {
    fc.assert(
      fc.property(
        ...[fc.string(), fc.nat(0xffffffff), fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n), fc.uint8Array()],
        (path, mode, modTime, data) => {
          const described = stat(path, { mode, modTime, xattrs: new Map([['user.x', data]]) });
          const decoded = Packet.decode(Packet.encode({ type: 2, stat: described, ID: 7, data }));
          expect(decoded.stat).toEqual(described);
          expect([...decoded.data]).toEqual([...data]);
        },
      ),
    );
  });

  it('are cut the same however the stream is', () => {
    fc.assert(
      fc.property(
        fc.array(fc.uint8Array({ maxLength: 50 }), { maxLength: 8 }),
        fc.integer({ min: 1, max: 20 }),
        (messages, step) => {
          const stream = Buffer.concat(messages.map((each) => frame(each)));
          const reader = new FrameReader();
          const found: Buffer[] = [];
          for (let at = 0; at < stream.length; at += step)
            found.push(...reader.push(stream.subarray(at, at + step)));
          expect(found.map((each) => [...each])).toEqual(messages.map((each) => [...each]));
        },
      ),
    );
  });

  it('that are oversized or compressed are refused', () => {
    expect(() => new FrameReader().push(Buffer.from([0, 0xff, 0xff, 0xff, 0xff]))).toThrow(/larger than/);
    expect(() => new FrameReader().push(Buffer.from([1, 0, 0, 0, 0]))).toThrow(/compressed/);
  });
});
