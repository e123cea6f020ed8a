/**
 * The tar codec: 512-byte header blocks and pax records to plain values and back, as pure functions over bytes.
 *
 * An own codec, because image layers need what the tar packages leave out: names and extended attributes as bytes,
 * device numbers, GNU and pax sparse maps, nanosecond times, ids above 2^21, and a bound on every header.
 * POSIX.1-2017 pax, "ustar Interchange Format" and "pax Extended Header"; GNU tar manual, "Basic Tar Format".
 */
import type { ByteString } from '#common/native/layer-fs';

export const BLOCK = 512;
const ZERO_BLOCK: Buffer = Buffer.alloc(BLOCK);

export type EntryType = 'file' | 'directory' | 'symlink' | 'link' | 'char' | 'block' | 'fifo';

/** One entry of an archive. Names are byte strings: one char (0-255) per byte. */
export interface TarHeader {
  name: ByteString;
  type: EntryType;
  /** Permission bits with setuid, setgid and sticky; no file type. */
  mode: number;
  uid: number;
  gid: number;
  /** Bytes of the file as it will be on disk, holes included. 0 for everything but files. */
  size: number;
  mtimeSeconds: number;
  /** The part below a second. */
  mtimeNanoseconds: number;
  linkName: ByteString;
  major: number;
  minor: number;
  xattrs: Map<ByteString, Uint8Array>;
}

/** Raw header block: `flag` is the type flag's char, `stored` the bytes of data that follow it in the archive. */
export interface RawHeader extends TarHeader {
  flag: string;
  stored: number;
}

const TYPES: Record<string, EntryType> = {
  '0': 'file',
  '\0': 'file',
  '7': 'file',
  S: 'file',
  '1': 'link',
  '2': 'symlink',
  '3': 'char',
  '4': 'block',
  '5': 'directory',
  '6': 'fifo',
};
const FLAGS: Record<EntryType, string> = {
  file: '0',
  link: '1',
  symlink: '2',
  char: '3',
  block: '4',
  directory: '5',
  fifo: '6',
};

/** The type of an entry by its flag; undefined for one that this codec does not know. */
export function entryType(flag: string): EntryType | undefined {
  return Object.hasOwn(TYPES, flag) ? TYPES[flag] : undefined;
}

function text(block: Buffer, start: number, length: number): ByteString {
  const field = block.subarray(start, start + length);
  const end = field.indexOf(0);
  return field.toString('latin1', 0, end < 0 ? length : end);
}

/** Octal digits, or the GNU base-256 form when the first bit is set. Undefined when it is neither or too big. */
export function parseNumber(block: Buffer, start: number, length: number): number | undefined {
  const first = block[start]!;
  if (first & 0x80) {
    // Two's complement, the marker bit being part of the sign.
    let number = first & 0x40 ? BigInt(first) - 0x100n : BigInt(first & 0x7f);
    for (let i = 1; i < length; i++) number = number * 256n + BigInt(block[start + i]!);
    return number <= Number.MAX_SAFE_INTEGER && number >= Number.MIN_SAFE_INTEGER
      ? Number(number)
      : undefined;
  }
  const digits = text(block, start, length).trim();
  if (digits === '') return 0;
  return /^[0-7]+$/.test(digits) ? Number.parseInt(digits, 8) : undefined;
}

/** POSIX: the sum of all bytes with the checksum field as blanks. Some old archives summed signed bytes. */
function checksumMatches(block: Buffer): boolean {
  let unsigned = 0;
  let signed = 0;
  for (let i = 0; i < BLOCK; i++) {
    const byte = i >= 148 && i < 156 ? 0x20 : block[i]!;
    unsigned += byte;
    signed += byte > 127 ? byte - 256 : byte;
  }
  const stated = parseNumber(block, 148, 8);
  return stated === unsigned || stated === signed;
}

/** Whether the block is all zero: two of them end an archive. */
export function isZeroBlock(block: Buffer): boolean {
  return block.equals(ZERO_BLOCK);
}

/** Parses one header block of exactly 512 bytes. Undefined when it is not one. */
export function parseHeader(block: Buffer): RawHeader | undefined {
  if (!checksumMatches(block)) return undefined;
  const number = (start: number, length: number): number => parseNumber(block, start, length) ?? Number.NaN;
  let name = text(block, 0, 100);
  const flag = String.fromCharCode(block[156]!);
  // POSIX archives split long names; GNU's own magic has other things in that place.
  if (block.toString('latin1', 257, 263) === 'ustar\0') {
    const prefix = text(block, 345, 155);
    if (prefix !== '') name = `${prefix}/${name}`;
  }
  const stored = number(124, 12);
  const header: RawHeader = {
    name,
    // Archives of the seventies have no directories, only names with a slash at the end.
    type: (flag === '\0' || flag === '0') && name.endsWith('/') ? 'directory' : (TYPES[flag] ?? 'file'),
    mode: number(100, 8) & 0o7777,
    uid: number(108, 8),
    gid: number(116, 8),
    size: stored,
    mtimeSeconds: number(136, 12),
    mtimeNanoseconds: 0,
    linkName: text(block, 157, 100),
    major: parseNumber(block, 329, 8) ?? 0,
    minor: parseNumber(block, 337, 8) ?? 0,
    xattrs: new Map(),
    flag,
    stored,
  };
  for (const field of [header.uid, header.gid, header.stored, header.mtimeSeconds])
    if (Number.isNaN(field)) return undefined;
  return header;
}

/** Parses pax records (`LENGTH KEY=VALUE\n`). Undefined when a record is malformed. */
export function parsePax(bytes: Buffer): [key: ByteString, value: Buffer][] | undefined {
  const records: [ByteString, Buffer][] = [];
  let offset = 0;
  while (offset < bytes.length) {
    const space = bytes.indexOf(0x20, offset);
    if (space < 0 || space - offset > 10) return undefined;
    const digits = bytes.toString('latin1', offset, space);
    const end = offset + Number(digits);
    if (!/^\d+$/.test(digits) || end > bytes.length || end <= space || bytes[end - 1] !== 0x0a)
      return undefined;
    const equals = bytes.indexOf(0x3d, space + 1);
    if (equals < 0 || equals >= end) return undefined;
    records.push([bytes.toString('latin1', space + 1, equals), bytes.subarray(equals + 1, end - 1)]);
    offset = end;
  }
  return records;
}

function paxRecord(key: ByteString, value: ByteString): ByteString {
  const rest = ` ${key}=${value}\n`;
  let length = rest.length + 1;
  while (length !== String(length).length + rest.length) length = String(length).length + rest.length;
  return `${length}${rest}`;
}

/** An octal field with its terminating NUL; undefined when the number does not fit. */
function octal(number: number, length: number): string | undefined {
  const digits = number.toString(8);
  return number >= 0 && digits.length < length ? `${digits.padStart(length - 1, '0')}\0` : undefined;
}

function emitBlock(header: TarHeader, flag: string, stored: number): Buffer {
  const block = Buffer.alloc(BLOCK);
  block.write(header.name.slice(0, 100), 0, 'latin1');
  block.write(octal(header.mode, 8)!, 100, 'latin1');
  block.write(octal(header.uid, 8) ?? octal(0, 8)!, 108, 'latin1');
  block.write(octal(header.gid, 8) ?? octal(0, 8)!, 116, 'latin1');
  block.write(octal(stored, 12) ?? octal(0, 12)!, 124, 'latin1');
  block.write(octal(header.mtimeSeconds, 12) ?? octal(0, 12)!, 136, 'latin1');
  block.write('        ', 148, 'latin1');
  block.write(flag, 156, 'latin1');
  block.write(header.linkName.slice(0, 100), 157, 'latin1');
  block.write('ustar\x0000', 257, 'latin1');
  block.write(octal(header.major, 8) ?? octal(0, 8)!, 329, 'latin1');
  block.write(octal(header.minor, 8) ?? octal(0, 8)!, 337, 'latin1');
  let sum = 0;
  for (const byte of block) sum += byte;
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
}

/** Everything that a plain header block cannot say, as pax records. */
function paxRecords(header: TarHeader): ByteString {
  const isAscii = (name: ByteString): boolean => /^[\x20-\x7e]*$/.test(name);
  let records = '';
  const fits = (number: number, length: number): boolean => octal(number, length) !== undefined;
  if (header.name.length > 100 || !isAscii(header.name)) records += paxRecord('path', header.name);
  if (header.linkName.length > 100 || !isAscii(header.linkName))
    records += paxRecord('linkpath', header.linkName);
  if (!fits(header.uid, 8)) records += paxRecord('uid', String(header.uid));
  if (!fits(header.gid, 8)) records += paxRecord('gid', String(header.gid));
  if (!fits(header.size, 12)) records += paxRecord('size', String(header.size));
  if (header.mtimeNanoseconds !== 0 || !fits(header.mtimeSeconds, 12))
    records += paxRecord('mtime', formatTime(header.mtimeSeconds, header.mtimeNanoseconds));
  for (const key of [...header.xattrs.keys()].sort())
    records += paxRecord(`SCHILY.xattr.${key}`, Buffer.from(header.xattrs.get(key)!).toString('latin1'));
  return records;
}

/** Seconds with a fraction, without trailing zeros. A negative time counts down from zero as a whole. */
function formatTime(seconds: number, nanoseconds: number): string {
  const total = BigInt(seconds) * 1_000_000_000n + BigInt(nanoseconds);
  const magnitude = total < 0n ? -total : total;
  const fraction = String(magnitude % 1_000_000_000n)
    .padStart(9, '0')
    .replace(/0+$/, '');
  return `${total < 0n ? '-' : ''}${magnitude / 1_000_000_000n}${fraction && `.${fraction}`}`;
}

/** Parses a pax time; undefined when it is not one. Rounds down to whole nanoseconds. */
export function parseTime(value: string): { seconds: number; nanoseconds: number } | undefined {
  const match = /^(-?)(\d{1,15})(?:\.(\d*))?$/.exec(value);
  if (!match) return undefined;
  const magnitude = BigInt(match[2]!) * 1_000_000_000n + BigInt((match[3] ?? '').slice(0, 9).padEnd(9, '0'));
  const total = match[1] ? -magnitude : magnitude;
  const nanoseconds = ((total % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n;
  return { seconds: Number((total - nanoseconds) / 1_000_000_000n), nanoseconds: Number(nanoseconds) };
}

/** The header of an entry as bytes: one block, or a pax header before it when needed. The same value gives the same bytes. */
export function emitHeader(header: TarHeader): Buffer {
  const block = emitBlock(header, FLAGS[header.type], header.type === 'file' ? header.size : 0);
  const records = paxRecords(header);
  if (records === '') return block;
  const pax = emitBlock(
    {
      ...header,
      name: `PaxHeaders/${header.name}`.slice(0, 100).replace(/[^\x20-\x7e]/g, '?'),
      linkName: '',
      mode: 0o644,
      uid: 0,
      gid: 0,
      mtimeSeconds: 0,
    },
    'x',
    records.length,
  );
  return Buffer.concat([pax, Buffer.from(records, 'latin1'), padding(records.length), block]);
}

/** The zeros that fill the last block of `size` bytes of data. */
export function padding(size: number): Buffer {
  return Buffer.alloc((BLOCK - (size % BLOCK)) % BLOCK);
}

/** The two zero blocks at the end of an archive. */
export function trailer(): Buffer {
  return Buffer.alloc(2 * BLOCK);
}

/** A header with everything ordinary filled in. */
export function makeHeader(fields: Partial<TarHeader> & { name: ByteString; type: EntryType }): TarHeader {
  return {
    mode: fields.type === 'directory' ? 0o755 : 0o644,
    uid: 0,
    gid: 0,
    size: 0,
    mtimeSeconds: 0,
    mtimeNanoseconds: 0,
    linkName: '',
    major: 0,
    minor: 0,
    xattrs: new Map(),
    ...fields,
  };
}
