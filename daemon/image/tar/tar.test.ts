import fc from 'fast-check';
import { unpackTar } from 'modern-tar';
import { describe, expect, it } from 'vitest';
import { inputs } from '../../../test/support/fuzz/inputs.ts';
import { emitHeader, makeHeader, padding, parsePax, parseTime, type TarHeader, trailer } from './header.ts';
import { TarReader } from './reader.ts';

interface Read {
  header: TarHeader;
  parts: { position: number; bytes: Buffer }[];
}

/** Reads an archive in chunks of the given size. */
function read(
  archive: Buffer,
  chunkBytes = archive.length || 1,
  limits?: ConstructorParameters<typeof TarReader>[1],
): Read[] {
  const entries: Read[] = [];
  const reader = new TarReader(
    {
      entry: (header) => void entries.push({ header, parts: [] }),
      data: (bytes, position) => void entries.at(-1)!.parts.push({ position, bytes: Buffer.from(bytes) }),
      end() {},
    },
    limits,
  );
  for (let at = 0; at < archive.length; at += chunkBytes) reader.push(archive.subarray(at, at + chunkBytes));
  reader.finish();
  return entries;
}

/** The file's content, with zeros in its holes. */
function content({ header, parts }: Read): Buffer {
  const bytes = Buffer.alloc(header.size);
  for (const part of parts) part.bytes.copy(bytes, part.position);
  return bytes;
}

function pack(...entries: [TarHeader, Buffer?][]): Buffer {
  return Buffer.concat([
    ...entries.flatMap(([header, data = Buffer.alloc(0)]) => [
      emitHeader(header),
      data,
      padding(data.length),
    ]),
    trailer(),
  ]);
}

const file = (name: string, text: string): [TarHeader, Buffer] => [
  makeHeader({ name, type: 'file', size: text.length }),
  Buffer.from(text, 'latin1'),
];

/** A block as other tars write it: fields at their places, checksum computed. */
function rawBlock(fields: [offset: number, text: string][]): Buffer {
  const block = Buffer.alloc(512);
  for (const [offset, text] of fields) block.write(text, offset, 'latin1');
  block.write('        ', 148, 'latin1');
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
}

const paxEntry = (records: string, block: Buffer, data = ''): Buffer =>
  Buffer.concat([
    rawBlock([
      [0, 'pax'],
      [100, '0000644'],
      [124, records.length.toString(8).padStart(11, '0')],
      [156, 'x'],
      [257, 'ustar\x0000'],
    ]),
    Buffer.from(records, 'latin1'),
    padding(records.length),
    block,
    Buffer.from(data, 'latin1'),
    padding(data.length),
    trailer(),
  ]);

const record = (key: string, value: string): string => {
  const rest = ` ${key}=${value}\n`;
  let length = rest.length;
  while (String(length).length + rest.length !== length) length = String(length).length + rest.length;
  return `${length}${rest}`;
};

const headers: fc.Arbitrary<TarHeader> = fc
  .record({
    name: fc.string({
      unit: fc.integer({ min: 1, max: 255 }).map((code) => String.fromCharCode(code)),
      minLength: 1,
      maxLength: 300,
    }),
    type: fc.constantFrom<TarHeader['type']>('file', 'directory', 'symlink', 'link', 'char', 'block', 'fifo'),
    mode: fc.integer({ min: 0, max: 0o7777 }),
    uid: fc.integer({ min: 0, max: 2 ** 32 - 2 }),
    gid: fc.integer({ min: 0, max: 2 ** 32 - 2 }),
    mtimeSeconds: fc.integer({ min: -(2 ** 40), max: 2 ** 40 }),
    mtimeNanoseconds: fc.integer({ min: 0, max: 999_999_999 }),
    linkName: fc.string({
      unit: fc.integer({ min: 1, max: 255 }).map((code) => String.fromCharCode(code)),
      maxLength: 200,
    }),
    major: fc.integer({ min: 0, max: 4095 }),
    minor: fc.integer({ min: 0, max: 1 << 20 }),
    xattrs: fc
      .dictionary(fc.stringMatching(/^user\.[a-z]{1,8}$/), fc.uint8Array({ minLength: 1, maxLength: 60 }), {
        maxKeys: 3,
      })
      .map((entries) => new Map(Object.entries(entries))),
  })
  .map((fields) => ({ ...makeHeader({ name: 'x', type: 'file' }), ...fields }))
  // A name with a slash at its end is a directory's, whatever its type says.
  .filter((header) => !header.name.endsWith('/'));

describe('the tar codec', () => {
  it('writes a plain entry as the literal bytes of ustar', () => {
    const block = emitHeader(
      makeHeader({ name: 'dir/a.txt', type: 'file', size: 5, mode: 0o640, uid: 7, gid: 8, mtimeSeconds: 9 }),
    );
    expect(block.length).toBe(512);
    expect(block.toString('latin1').replace(/\0+/g, '|')).toBe(
      'dir/a.txt|0000640|0000007|0000010|00000000005|00000000011|010745| 0|ustar|00|0000000|0000000|',
    );
  });

  it('reads what it has written, in chunks of any size', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(headers, fc.uint8Array({ maxLength: 1500 })), { maxLength: 4 }),
        fc.integer({ min: 1, max: 2000 }),
        (entries, chunk) => {
          const written = entries.map(([header, data]): [TarHeader, Buffer] =>
            header.type === 'file'
              ? [{ ...header, size: data.length }, Buffer.from(data)]
              : [header, Buffer.alloc(0)],
          );
          const found = read(pack(...written), chunk);
          expect(found.map(({ header }) => header)).toMatchObject(
            written.map(([{ xattrs, ...header }]) => header as object),
          );
          found.forEach((entry, index) => {
            expect(content(entry)).toEqual(written[index]![1]);
            const plain = (xattrs: Map<string, Uint8Array>): object =>
              Object.fromEntries(
                [...xattrs].map(([key, value]) => [key, Buffer.from(value).toString('hex')]),
              );
            expect(plain(entry.header.xattrs)).toEqual(plain(written[index]![0].xattrs));
          });
        },
      ),
      { numRuns: inputs(60) },
    );
  });

  it('never throws anything but ERR_BAD_ARCHIVE, whatever bytes it is given', () => {
    fc.assert(
      fc.property(
        headers,
        fc.array(fc.tuple(fc.integer({ min: 0, max: 2047 }), fc.integer({ min: 0, max: 255 })), {
          maxLength: 8,
        }),
        (header, flips) => {
          const archive = pack([header], file('b', 'data'));
          for (const [at, byte] of flips) archive[at % archive.length] = byte;
          try {
            read(archive, 100);
          } catch (error) {
            expect(error).toMatchObject({ code: 'ERR_BAD_ARCHIVE' });
          }
        },
      ),
    );
  });

  it('is understood by another implementation', async () => {
    const long = `${'d/'.repeat(80)}ü`;
    const archive = pack(
      [makeHeader({ name: 'dir/', type: 'directory', mode: 0o1777 })],
      [
        makeHeader({
          name: Buffer.from(long).toString('latin1'),
          type: 'file',
          size: 3,
          uid: 3_000_000,
          mtimeSeconds: 10,
        }),
        Buffer.from('abc'),
      ],
      [makeHeader({ name: 'l', type: 'symlink', linkName: '../x' })],
    );
    const entries = await unpackTar(archive);
    expect(
      entries.map(({ header }) => [
        header.name.replace(/\/$/, ''),
        header.type,
        header.uid,
        header.linkname ?? '',
      ]),
    ).toEqual([
      ['dir', 'directory', 0, ''],
      [long, 'file', 3_000_000, ''],
      ['l', 'symlink', 0, '../x'],
    ]);
    expect(Buffer.from(entries[1]!.data!).toString()).toBe('abc');
  });

  it('reads GNU long names, base-256 numbers and the seventies’ directories', () => {
    const long = 'n'.repeat(150);
    const archive = Buffer.concat([
      rawBlock([
        [0, '././@LongLink'],
        [100, '0000644'],
        [124, (151).toString(8).padStart(11, '0')],
        [156, 'L'],
        [257, 'ustar  \0'],
      ]),
      Buffer.from(`${long}\0`),
      padding(151),
      rawBlock([
        [0, 'n'.repeat(100)],
        [100, '0000600'],
        [108, '\x80\0\0\0\0\x2d\xc6\xc0'],
        [124, '0'],
        [156, '0'],
        [257, 'ustar  \0'],
      ]),
      rawBlock([
        [0, 'old/'],
        [100, '0000755'],
        [124, '0'],
      ]),
      trailer(),
    ]);
    const [first, second] = read(archive);
    expect(first!.header).toMatchObject({ name: long, uid: 3_000_000, type: 'file' });
    expect(second!.header).toMatchObject({ name: 'old/', type: 'directory' });
  });

  it('reads the prefix of ustar names', () => {
    const archive = Buffer.concat([
      rawBlock([
        [0, 'b'],
        [124, '0'],
        [156, '0'],
        [257, 'ustar\x0000'],
        [345, 'a/long/way'],
      ]),
      trailer(),
    ]);
    expect(read(archive)[0]!.header.name).toBe('a/long/way/b');
  });

  it('keeps a negative time with its fraction', () => {
    expect(parseTime('-1.5')).toEqual({ seconds: -2, nanoseconds: 500_000_000 });
    expect(parseTime('12.000000001')).toEqual({ seconds: 12, nanoseconds: 1 });
    expect(parseTime('x')).toBeUndefined();
  });
});

describe('sparse files', () => {
  const sparse = (at: number, offset: number, length: number): [number, string][] => [
    [at, offset.toString(8).padStart(11, '0')],
    [at + 12, length.toString(8).padStart(11, '0')],
  ];

  it('of old GNU archives, with a continued map, come out with their holes', () => {
    const fields: [number, string][] = [
      [0, 's'],
      [124, (5).toString(8).padStart(11, '0')],
      [156, 'S'],
      [257, 'ustar  \0'],
      [482, '\x01'],
      [483, (9000).toString(8).padStart(11, '0')],
    ];
    for (let i = 0; i < 4; i++) fields.push(...sparse(386 + i * 24, i * 1000, 1));
    const map = Buffer.alloc(512);
    for (const [at, text] of sparse(0, 8999, 1)) map.write(text, at, 'latin1');
    const archive = Buffer.concat([rawBlock(fields), map, Buffer.from('abcde'), padding(5), trailer()]);
    const expected = Buffer.alloc(9000);
    [0, 1000, 2000, 3000, 8999].forEach((at, i) => void expected.write('abcde'[i]!, at));
    const [entry] = read(archive, 7);
    expect(entry!.header.name).toBe('s');
    expect(content(entry!).equals(expected)).toBe(true);
    expect(entry!.parts.reduce((sum, part) => sum + part.bytes.length, 0)).toBe(5);
  });

  const plain = (stored: number): Buffer =>
    rawBlock([
      [0, 'GNUSparseFile.0/s'],
      [124, stored.toString(8).padStart(11, '0')],
      [156, '0'],
      [257, 'ustar\x0000'],
    ]);

  it('of pax format 1.0, 0.1 and 0.0 come out with their holes', () => {
    const map = '2\n100\n2\n200\n1\n'.padEnd(512, '\0');
    const common = record('GNU.sparse.name', 's') + record('GNU.sparse.realsize', '300');
    const one = record('GNU.sparse.major', '1') + record('GNU.sparse.minor', '0') + common;
    const zeroOne =
      record('GNU.sparse.size', '300') +
      record('GNU.sparse.name', 's') +
      record('GNU.sparse.map', '100,2,200,1');
    const zero =
      record('GNU.sparse.size', '300') +
      record('GNU.sparse.offset', '100') +
      record('GNU.sparse.numbytes', '2') +
      record('GNU.sparse.offset', '200') +
      record('GNU.sparse.numbytes', '1');
    const expected = Buffer.alloc(300);
    expected.write('ab', 100);
    expected.write('c', 200);
    for (const archive of [
      paxEntry(one, plain(515), `${map}abc`),
      paxEntry(zeroOne, plain(3), 'abc'),
      paxEntry(zero, plain(3), 'abc'),
    ]) {
      const [entry] = read(archive, 33);
      expect(content(entry!).equals(expected)).toBe(true);
    }
  });

  it.each([
    ['overlapping', '1.0', '2\n100\n2\n101\n1\n'],
    ['beyond the end', '1.0', '1\n299\n3\n'],
    ['not matching the data', '1.0', '1\n0\n2\n'],
    ['not numbers', '1.0', 'x\n0\n2\n'],
    ['endless', '1.0', '9999999\n0\n'],
  ])('with a map %s are refused', (_what, _format, map) => {
    const records =
      record('GNU.sparse.major', '1') +
      record('GNU.sparse.minor', '0') +
      record('GNU.sparse.realsize', '300');
    const archive = paxEntry(records, plain(515), `${map.padEnd(512, '\0')}abc`);
    expect(() => read(archive)).toThrow(expect.objectContaining({ code: 'ERR_BAD_ARCHIVE' }));
  });
});

describe('broken archives', () => {
  const good = pack(file('a', 'hello'));

  it.each([
    ['cut in a header', good.subarray(0, 300)],
    ['cut in data', good.subarray(0, 514)],
    ['with a wrong checksum', Buffer.from(good).fill(0x41, 0, 1).fill(0x42, 1, 2)],
    [
      'with a negative size',
      rawBlock([
        [0, 'a'],
        [124, '\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff'],
        [156, '0'],
      ]),
    ],
    [
      'with an unknown type',
      rawBlock([
        [0, 'a'],
        [124, '0'],
        [156, 'Z'],
      ]),
    ],
    [
      'with a huge extended header',
      rawBlock([
        [0, 'a'],
        [124, '77777777777'],
        [156, 'x'],
      ]),
    ],
    [
      'with a malformed pax record',
      paxEntry(
        '99 path=x\n',
        rawBlock([
          [0, 'a'],
          [124, '0'],
          [156, '0'],
        ]),
      ),
    ],
    [
      'with a bad pax number',
      paxEntry(
        record('uid', '-1'),
        rawBlock([
          [0, 'a'],
          [124, '0'],
          [156, '0'],
        ]),
      ),
    ],
    [
      'with a NUL in a name',
      paxEntry(
        record('path', 'a\0b'),
        rawBlock([
          [0, 'a'],
          [124, '0'],
          [156, '0'],
        ]),
      ),
    ],
    ['of random bytes', Buffer.alloc(1024, 0x5a)],
  ])('%s are refused', (_what, archive) => {
    expect(() => read(archive)).toThrow(expect.objectContaining({ code: 'ERR_BAD_ARCHIVE' }));
  });

  it('without the end mark are read', () => {
    expect(read(good.subarray(0, 1024))).toHaveLength(1);
    expect(read(Buffer.alloc(0))).toHaveLength(0);
  });

  it('with too many entries are refused', () => {
    expect(() =>
      read(pack(file('a', ''), file('b', ''), file('c', '')), 100, { entriesMax: 2, extendedBytesMax: 1000 }),
    ).toThrow('more than 2 entries');
  });

  it('have no malformed pax records accepted', () => {
    expect(parsePax(Buffer.from('6 a=b\n'))).toEqual([['a', Buffer.from('b')]]);
    for (const bytes of ['6 a=b', '7 a=b\n', 'x a=b\n', '6  a=b\n', '4 a\n', '-6 a=b\n', '0 a=b\n'])
      expect(parsePax(Buffer.from(bytes))).toBeUndefined();
  });
});
