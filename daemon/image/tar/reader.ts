/**
 * A tar reader as a machine: chunks of any size in, entries and their data out, synchronously. It holds one header
 * block and at most one bounded extended header; file data passes through untouched and unbuffered.
 *
 * Sparse files (GNU type `S`, and the pax forms 0.0, 0.1 and 1.0) come out as data at positions; the holes are what
 * is never given. See GNU tar manual, "Storing Sparse Files".
 */
import { assert, DrydockError } from '#common/errors';
import {
  BLOCK,
  entryType,
  isZeroBlock,
  parseHeader,
  parseNumber,
  parsePax,
  parseTime,
  type RawHeader,
  type TarHeader,
} from './header.ts';

/** What an archive may ask for before it is refused. */
export interface TarLimits {
  /** Bytes of one extended header (long name, pax records, sparse map). */
  extendedBytesMax: number;
  /** Entries of one archive. */
  entriesMax: number;
}

/** Linux allows 64 KiB per extended attribute and a few of them per file; a megabyte is beyond honest use. */
export const TAR_LIMITS: TarLimits = { extendedBytesMax: 1 << 20, entriesMax: 4_000_000 };

/** Where entries go. For each: `entry`, then `data` zero or more times if it is a file, then `end`. */
export interface TarSink {
  entry(header: TarHeader): void;
  /** @param position where in the file these bytes belong. The bytes are valid only during the call. */
  data(bytes: Buffer, position: number): void;
  end(): void;
}

interface Segment {
  offset: number;
  length: number;
}

/** Entries of this kind describe the next one. */
const EXTENDED_FLAGS = new Set(['x', 'g', 'L', 'K']);
/** The format of the sparse map in front of the data. */
const SPARSE_1_0 = '1.0';

/** The error for an archive that is broken or hostile. */
export function badArchive(reason: string): DrydockError {
  return new DrydockError(
    'ERR_BAD_ARCHIVE',
    `invalid tar archive: ${reason}. Nothing of it was kept; make the archive again or fetch it anew.`,
  );
}

/** Reads one archive. After an error it must not be used any more. */
export class TarReader {
  readonly #sink: TarSink;
  readonly #limits: TarLimits;
  readonly #block = Buffer.alloc(BLOCK);
  #have = 0;
  #state: 'header' | 'extended' | 'sparse-block' | 'sparse-map' | 'data' | 'padding' | 'done' = 'header';
  #zeroBlocks = 0;
  #entries = 0;
  #header: RawHeader | undefined;
  #extended: Buffer[] = [];
  #extendedFlag = '';
  /** Bytes left of data or extended header, and of padding after it. */
  #left = 0;
  #padding = 0;
  #pax = new Map<string, Buffer>();
  #paxSparse: Segment[] = [];
  #longName: string | undefined;
  #longLink: string | undefined;
  #segments: Segment[] | undefined;
  #segment = 0;
  #position = 0;

  constructor(sink: TarSink, limits: TarLimits = TAR_LIMITS) {
    this.#sink = sink;
    this.#limits = limits;
  }

  /** Whether the archive's end mark has been seen. */
  get done(): boolean {
    return this.#state === 'done';
  }

  /** Takes the next bytes. @throws DrydockError ERR_BAD_ARCHIVE, and whatever the sink throws. */
  push(chunk: Buffer): void {
    let offset = 0;
    while (offset < chunk.length) {
      if (this.#state === 'done') return;
      if (this.#state === 'data' || this.#state === 'extended') offset = this.#body(chunk, offset);
      else if (this.#state === 'padding') {
        const skip = Math.min(this.#padding, chunk.length - offset);
        this.#padding -= skip;
        offset += skip;
        if (this.#padding === 0) this.#state = 'header';
      } else offset = this.#collectBlock(chunk, offset);
    }
  }

  /** The input has ended. @throws DrydockError ERR_BAD_ARCHIVE when it ended inside an entry. */
  finish(): void {
    // Archives without the two zero blocks are common enough (and read by every tar) when they end between entries.
    const between = this.#state === 'header' && this.#have === 0 && this.#header === undefined;
    const lastPadding = this.#state === 'padding' && this.#header === undefined;
    if (this.#state !== 'done' && !between && !lastPadding)
      throw badArchive('it ends in the middle of an entry');
  }

  #collectBlock(chunk: Buffer, offset: number): number {
    const take = Math.min(BLOCK - this.#have, chunk.length - offset);
    chunk.copy(this.#block, this.#have, offset, offset + take);
    this.#have += take;
    if (this.#have === BLOCK) {
      this.#have = 0;
      if (this.#state === 'header') this.#headerBlock();
      else if (this.#state === 'sparse-block') this.#oldSparseBlock();
      else this.#sparseMapBlock();
    }
    return offset + take;
  }

  #headerBlock(): void {
    const block = this.#block;
    if (isZeroBlock(block)) {
      if (++this.#zeroBlocks === 2) this.#state = 'done';
      return;
    }
    this.#zeroBlocks = 0;
    const raw = parseHeader(block);
    if (!raw) throw badArchive('a header block has a wrong checksum or bad numbers');
    if (raw.stored < 0) throw badArchive('an entry has a negative size');
    if (++this.#entries > this.#limits.entriesMax)
      throw badArchive(`it has more than ${this.#limits.entriesMax} entries`);
    if (EXTENDED_FLAGS.has(raw.flag)) {
      if (raw.stored > this.#limits.extendedBytesMax)
        throw badArchive(
          `an extended header has ${raw.stored} bytes (limit ${this.#limits.extendedBytesMax})`,
        );
      this.#extendedFlag = raw.flag;
      this.#extended = [];
      this.#startBody('extended', raw.stored);
      return;
    }
    const type = entryType(raw.flag);
    if (!type) throw badArchive(`an entry has the unknown type ${JSON.stringify(raw.flag)}`);
    this.#header = raw;
    if (raw.flag === 'S') {
      this.#segments = [];
      this.#readOldSparse(386, 4);
      raw.size = parseNumber(block, 483, 12) ?? -1;
      if (block[482]) this.#state = 'sparse-block';
      else this.#begin();
    } else this.#begin();
  }

  /** A continuation block of a GNU sparse map: 21 pairs, and whether another block follows. */
  #oldSparseBlock(): void {
    this.#readOldSparse(0, 21);
    if (!this.#block[504]) this.#begin();
  }

  #readOldSparse(start: number, count: number): void {
    for (let i = 0; i < count; i++) {
      const at = start + i * 24;
      if (this.#block[at] === 0 && this.#block[at + 12] === 0) break;
      const offset = parseNumber(this.#block, at, 12);
      const length = parseNumber(this.#block, at + 12, 12);
      if (offset === undefined || length === undefined) throw badArchive('a sparse map has bad numbers');
      this.#addSegment(offset, length);
    }
  }

  #addSegment(offset: number, length: number): void {
    this.#segments!.push({ offset, length });
    if (this.#segments!.length * 24 > this.#limits.extendedBytesMax)
      throw badArchive('a sparse map is too long');
  }

  /** The header is complete: extended headers are applied, and the entry's data begins. */
  #begin(): void {
    const header = this.#header!;
    this.#applyExtended(header);
    if (header.type !== 'file') header.size = header.stored = 0;
    if (this.#pax.get('GNU.sparse.major')?.toString() === '1') {
      if (this.#sparseVersion() !== SPARSE_1_0) throw badArchive('a sparse file has an unknown format');
      this.#segments = [];
      this.#extended = [];
      this.#left = header.stored;
      this.#padding = (BLOCK - (header.stored % BLOCK)) % BLOCK;
      this.#state = 'sparse-map';
      return;
    }
    this.#announce(header.stored);
  }

  #sparseVersion(): string {
    return `${this.#pax.get('GNU.sparse.major')}.${this.#pax.get('GNU.sparse.minor')}`;
  }

  /** Format 1.0: decimal lines (count, then offset and length of each) in front of the data, padded to whole blocks. */
  #sparseMapBlock(): void {
    this.#extended.push(Buffer.from(this.#block));
    if (this.#extended.length * BLOCK > this.#limits.extendedBytesMax)
      throw badArchive('a sparse map is too long');
    this.#left -= BLOCK;
    if (this.#left < 0) throw badArchive('a sparse map is longer than its entry');
    const map = Buffer.concat(this.#extended);
    const lines = map.toString('latin1').split('\n');
    const count = Number(lines[0]);
    if (!/^\d+$/.test(lines[0]!) && lines.length > 1) throw badArchive('a sparse map has bad numbers');
    if (lines.length - 1 < 1 + 2 * count || lines.length === 1) return; // more blocks follow
    for (let i = 0; i < count; i++) {
      const pair = [lines[1 + 2 * i]!, lines[2 + 2 * i]!];
      if (!pair.every((number) => /^\d{1,16}$/.test(number)))
        throw badArchive('a sparse map has bad numbers');
      this.#addSegment(Number(pair[0]), Number(pair[1]));
    }
    this.#extended = [];
    this.#announce(this.#left);
  }

  #announce(stored: number): void {
    const header = this.#header!;
    if (this.#segments) this.#checkSegments(header.size, stored);
    this.#segment = 0;
    this.#position = this.#segments?.[0]?.offset ?? 0;
    this.#sink.entry(header);
    this.#pax = new Map();
    this.#paxSparse = [];
    this.#longName = this.#longLink = undefined;
    this.#startBody('data', stored);
  }

  #checkSegments(size: number, stored: number): void {
    let last = 0;
    let total = 0;
    for (const { offset, length } of this.#segments!) {
      if (offset < last || length < 0 || offset + length > size)
        throw badArchive('a sparse map is out of order');
      last = offset + length;
      total += length;
    }
    if (total !== stored) throw badArchive('a sparse map does not match its data');
  }

  #startBody(state: 'data' | 'extended', length: number): void {
    this.#state = state;
    this.#left = length;
    this.#padding = (BLOCK - (length % BLOCK)) % BLOCK;
    if (length === 0) this.#endBody();
  }

  #body(chunk: Buffer, offset: number): number {
    const take = Math.min(this.#left, chunk.length - offset);
    if (this.#state === 'extended') this.#extended.push(Buffer.from(chunk.subarray(offset, offset + take)));
    else this.#deliver(chunk, offset, offset + take);
    this.#left -= take;
    if (this.#left === 0) this.#endBody();
    return offset + take;
  }

  #deliver(chunk: Buffer, start: number, end: number): void {
    if (!this.#segments) {
      this.#sink.data(chunk.subarray(start, end), this.#position);
      this.#position += end - start;
      return;
    }
    let offset = start;
    while (offset < end) {
      const segment = this.#segments[this.#segment];
      assert(segment, 'data beyond the sparse map');
      const take = Math.min(segment.offset + segment.length - this.#position, end - offset);
      if (take === 0) {
        this.#position = this.#segments[++this.#segment]?.offset ?? 0;
        continue;
      }
      this.#sink.data(chunk.subarray(offset, offset + take), this.#position);
      this.#position += take;
      offset += take;
    }
  }

  #endBody(): void {
    if (this.#state === 'data') {
      this.#header = undefined;
      this.#segments = undefined;
      this.#sink.end();
    } else this.#extendedHeader();
    this.#state = this.#padding > 0 ? 'padding' : 'header';
  }

  #extendedHeader(): void {
    const bytes = Buffer.concat(this.#extended);
    this.#extended = [];
    const untilNul = (): string =>
      bytes.toString('latin1', 0, bytes.indexOf(0) < 0 ? bytes.length : bytes.indexOf(0));
    if (this.#extendedFlag === 'L') this.#longName = untilNul();
    else if (this.#extendedFlag === 'K') this.#longLink = untilNul();
    else {
      const records = parsePax(bytes);
      if (!records) throw badArchive('a pax header has a malformed record');
      // Global records (of git archive, for one) say nothing about single entries that we use.
      if (this.#extendedFlag === 'x') for (const [key, value] of records) this.#paxRecord(key, value);
    }
  }

  #paxRecord(key: string, value: Buffer): void {
    // Format 0.0 repeats its keys, so the map is collected here.
    if (key === 'GNU.sparse.offset') this.#paxSparse.push({ offset: Number(value), length: 0 });
    else if (key === 'GNU.sparse.numbytes' && this.#paxSparse.length > 0)
      this.#paxSparse.at(-1)!.length = Number(value);
    else if (value.length === 0) this.#pax.delete(key);
    else this.#pax.set(key, value);
  }

  #applyExtended(header: RawHeader): void {
    if (this.#longName !== undefined) header.name = this.#longName;
    if (this.#longLink !== undefined) header.linkName = this.#longLink;
    const string = (key: string): string | undefined => this.#pax.get(key)?.toString('latin1');
    const number = (key: string): number | undefined => {
      const digits = string(key);
      if (digits === undefined) return undefined;
      if (!/^\d{1,16}$/.test(digits) || Number(digits) > Number.MAX_SAFE_INTEGER)
        throw badArchive(`a pax header has a bad ${key}`);
      return Number(digits);
    };
    header.name = string('path') ?? header.name;
    header.linkName = string('linkpath') ?? header.linkName;
    header.uid = number('uid') ?? header.uid;
    header.gid = number('gid') ?? header.gid;
    const size = number('size');
    if (size !== undefined) {
      header.stored = size;
      if (header.flag !== 'S') header.size = size;
    }
    if (this.#pax.has('mtime')) {
      const time = parseTime(string('mtime')!);
      if (!time) throw badArchive('a pax header has a bad mtime');
      header.mtimeSeconds = time.seconds;
      header.mtimeNanoseconds = time.nanoseconds;
    }
    for (const [key, value] of this.#pax)
      if (key.startsWith('SCHILY.xattr.')) header.xattrs.set(key.slice('SCHILY.xattr.'.length), value);
    this.#applyPaxSparse(header, number, string);
    if (header.name.includes('\0') || header.linkName.includes('\0'))
      throw badArchive('a name contains a NUL');
    // pax archives of directories may keep the regular type flag.
    if (header.type === 'file' && header.flag !== 'S' && header.name.endsWith('/')) header.type = 'directory';
  }

  #applyPaxSparse(
    header: RawHeader,
    number: (key: string) => number | undefined,
    string: (key: string) => string | undefined,
  ): void {
    header.name = string('GNU.sparse.name') ?? header.name;
    const size = number('GNU.sparse.realsize') ?? number('GNU.sparse.size');
    if (size !== undefined) header.size = size;
    const map = string('GNU.sparse.map');
    if (map !== undefined) {
      const numbers = map.split(',').map(Number);
      if (numbers.length % 2 === 1 || numbers.some((n) => !Number.isSafeInteger(n)))
        throw badArchive('a sparse map has bad numbers');
      this.#segments = [];
      for (let i = 0; i < numbers.length; i += 2) this.#addSegment(numbers[i]!, numbers[i + 1]!);
    } else if (this.#paxSparse.length > 0) {
      if (this.#paxSparse.some(({ offset, length }) => !Number.isSafeInteger(offset + length)))
        throw badArchive('a sparse map has bad numbers');
      this.#segments = [];
      for (const { offset, length } of this.#paxSparse) this.#addSegment(offset, length);
    }
  }
}
