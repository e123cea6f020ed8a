/**
 * A request as the kernel sends it: a header of 40 bytes, a struct that depends on the operation, then names that end
 * with NUL, or data. One Request object is filled anew for each request, for nothing on the hot path may allocate.
 *
 * Names are byte strings: strings with one character per byte (latin1), since file names are bytes and need not be
 * valid UTF-8. What a container may choose is checked here: a name that is empty, `.`, `..` or holds a slash or NUL
 * never reaches an operation, so that an operation can hand it to the host as one component.
 */
import type { Memory } from '../memory.ts';

/** Bytes of struct fuse_in_header and fuse_out_header. */
export const IN_HEADER_BYTES = 40;
export const OUT_HEADER_BYTES = 16;

const TWO_32 = 0x1_0000_0000;
const SLASH = 0x2f;
const DOT = 0x2e;

export class Request {
  bytes: Buffer;
  words: Uint32Array;
  /** Address of the first byte for native calls. */
  address = 0;
  length = 0;
  opcode = 0;
  /** Identifies the request; a reply and an interrupt name it. */
  unique = 0;
  nodeId = 0;
  uid = 0;
  gid = 0;
  /** Thread id of the caller in the server's pid namespace, 0 if it isn't visible there. */
  pid = 0;

  constructor(memory: Memory) {
    this.bytes = memory.bytes;
    this.words = memory.words;
    this.address = memory.address;
  }

  /** Reads the header of the request of `length` bytes in `memory`; false if it isn't one. */
  parse(memory: Memory, length: number): boolean {
    const words = memory.words;
    if (length < IN_HEADER_BYTES || words[0] !== length) return false;
    this.bytes = memory.bytes;
    this.words = words;
    this.address = memory.address;
    this.length = length;
    this.opcode = words[1]!;
    this.unique = words[2]! + words[3]! * TWO_32;
    this.nodeId = words[4]! + words[5]! * TWO_32;
    this.uid = words[6]!;
    this.gid = words[7]!;
    this.pid = words[8]!;
    return true;
  }

  /** The 32-bit field at `offset` of the operation's struct. */
  u32(offset: number): number {
    return this.words[(IN_HEADER_BYTES + offset) >> 2]!;
  }

  /** The 64-bit field at `offset`; exact below 2^53, and above it never below 2^53. */
  u64(offset: number): number {
    const at = (IN_HEADER_BYTES + offset) >> 2;
    return this.words[at]! + this.words[at + 1]! * TWO_32;
  }

  /** The name at `offset` as one path component, or undefined if it isn't a legal one. */
  name(offset: number): string | undefined {
    const start = IN_HEADER_BYTES + offset;
    const end = this.#nameEnd(start);
    const size = end - start;
    if (size <= 0 || end >= this.length) return undefined;
    const bytes = this.bytes;
    if (bytes[start] === DOT && (size === 1 || (size === 2 && bytes[start + 1] === DOT))) return undefined;
    return bytes.toString('latin1', start, end);
  }

  /** The string at `offset`, of any content (the target of a symbolic link, an attribute's name), or undefined. */
  text(offset: number): string | undefined {
    const start = IN_HEADER_BYTES + offset;
    const end = this.bytes.indexOf(0, start);
    return end < start || end >= this.length ? undefined : this.bytes.toString('latin1', start, end);
  }

  /** The offset behind `name`, which is at `offset`, and its NUL. */
  after(offset: number, name: string): number {
    return offset + name.length + 1;
  }

  /** Index of the NUL that ends the component at `start`, or -1 when a slash or the end comes first. */
  #nameEnd(start: number): number {
    const bytes = this.bytes;
    for (let at = start; at < this.length; at++) {
      const byte = bytes[at]!;
      if (byte === 0) return at;
      if (byte === SLASH) return -1;
    }
    return -1;
  }
}
