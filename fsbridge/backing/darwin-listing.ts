/**
 * One opendir(3) on macOS. Nothing there gives names with positions that can be returned to, which the wire's cookies
 * are; so the folder is read whole at its start, and a cookie counts the entries of that reading. Entries are packed as
 * getattrlistbulk(2) does: length, the set of attributes returned, a reference to the name, the file's number.
 */
import { CONSTANTS, STRUCTS } from '#common/native/darwin/abi';
import type { DarwinLibrary } from '#common/native/darwin/library';
import type { Memory } from '../memory.ts';
import { fromDarwin } from '../wire/errno-darwin.ts';

const ATTR = CONSTANTS['sys/attr.h'];
const { size: LIST_LEN, fields: LIST } = STRUCTS['struct attrlist'];
const { size: REFERENCE_LEN, fields: REFERENCE } = STRUCTS.attrreference_t;

const READ_BYTES = 64 << 10;
/** In an entry: the name's reference behind the length and the set of attributes, then the number. */
const NAME_AT = 4 + STRUCTS.attribute_set_t.size;
const NUMBER_AT = NAME_AT + REFERENCE_LEN;
/** Linux's record before the name: inode, cookie, length, type. */
const RECORD_NAME = 19;
const INO_BYTES = 8;

interface Entry {
  /** Eight bytes. */
  number: Buffer;
  name: Buffer;
}

export class DarwinListing {
  readonly #library: DarwinLibrary;
  readonly #fd: number;
  #entries: Entry[] | undefined;
  #next = 0;

  /** @param fd of the folder, at its start. */
  constructor(library: DarwinLibrary, fd: number) {
    this.#library = library;
    this.#fd = fd;
  }

  /** Goes behind the entry with this cookie; 0 reads the folder anew. 0 or a negative error. */
  seek(cookie: number): number {
    this.#next = cookie;
    if (cookie !== 0) return 0;
    this.#entries = undefined;
    return Number(this.#library.function('lseek')(this.#fd, 0, 0)) < 0 ? this.#failure() : 0;
  }

  /** Fills `into` as HostFs.readDir does. */
  read(into: Memory): number {
    const result = this.#entries === undefined ? this.#load() : 0;
    const entries = this.#entries ?? [];
    if (result < 0) return result;
    const { bytes } = into;
    let at = 0;
    for (; this.#next < entries.length; this.#next++) {
      const { number, name } = entries[this.#next]!;
      const length = (RECORD_NAME + name.length + 1 + 7) & ~7;
      if (at + length > bytes.length) break;
      bytes.fill(0, at, at + length);
      number.copy(bytes, at);
      bytes.writeUInt32LE(this.#next + 1, at + INO_BYTES);
      bytes.writeUInt16LE(length, at + 2 * INO_BYTES);
      name.copy(bytes, at + RECORD_NAME);
      at += length;
    }
    return at;
  }

  #failure(): number {
    return -fromDarwin(this.#library.errno());
  }

  #load(): number {
    const wanted = Buffer.alloc(LIST_LEN);
    wanted.writeUInt16LE(ATTR.ATTR_BIT_MAP_COUNT, LIST.bitmapcount);
    const attributes = ATTR.ATTR_CMN_RETURNED_ATTRS + ATTR.ATTR_CMN_NAME + ATTR.ATTR_CMN_FILEID;
    wanted.writeUInt32LE(attributes, LIST.commonattr);
    const packed = Buffer.alloc(READ_BYTES);
    // Of the folder and what is above it, which it leaves out, nobody asks the number.
    const entries: Entry[] = ['.', '..'].map((name) => ({
      number: Buffer.alloc(INO_BYTES, 0xff),
      name: Buffer.from(name),
    }));
    for (;;) {
      const call = this.#library.function('getattrlistbulk');
      const count: number = call(this.#fd, wanted, packed, packed.length, ATTR.FSOPT_PACK_INVAL_ATTRS);
      if (count < 0) return this.#failure();
      if (count === 0) break;
      for (let i = 0, at = 0; i < count; i++, at += packed.readUInt32LE(at))
        entries.push(entryAt(packed, at));
    }
    this.#entries = entries;
    return 0;
  }
}

function entryAt(packed: Buffer, at: number): Entry {
  const reference = at + NAME_AT;
  const start = reference + packed.readInt32LE(reference + REFERENCE.attr_dataoffset);
  // The length counts the NUL.
  const end = start + packed.readUInt32LE(reference + REFERENCE.attr_length) - 1;
  return {
    number: Buffer.from(packed.subarray(at + NUMBER_AT, at + NUMBER_AT + INO_BYTES)),
    name: Buffer.from(packed.subarray(start, end)),
  };
}
