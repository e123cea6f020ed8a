/**
 * The state of one opendir(3): directory records that were read from the host but not yet taken by the kernel.
 *
 * The kernel asks by a cookie, the host's own of the record before. As long as it reads on, records come from the
 * buffer; any other cookie (rewinddir, seekdir, a listing that goes on after removals) drops the buffer and moves the
 * host's descriptor. A record that doesn't fit a reply stays for the next one.
 */
import type { HostFs } from '../backing/host-fs.ts';
import type { Memory } from '../memory.ts';

/** Offsets in a record (linux_dirent64). */
const COOKIE = 8;
const RECORD_LENGTH = 16;
const TYPE = 18;
export const RECORD_NAME = 19;

export class DirStream {
  readonly #host: HostFs;
  readonly #fd: number;
  readonly buffer: Memory;
  /** Start of the current record, and end of what is in the buffer. */
  at = 0;
  #end = 0;
  /** The cookie behind the last record taken. */
  #low = 0;
  #high = 0;

  constructor(host: HostFs, fd: number, buffer: Memory) {
    this.#host = host;
    this.#fd = fd;
    this.buffer = buffer;
  }

  /** Goes to the record behind the one with this cookie; 0 or a negative error. */
  seek(low: number, high: number): number {
    if (low === this.#low && high === this.#high) return 0;
    this.at = 0;
    this.#end = 0;
    const result = this.#host.seekDir(this.#fd, low, high);
    if (result < 0) return result;
    this.#low = low;
    this.#high = high;
    return 0;
  }

  /** Makes sure that there is a record at `at`; 1, 0 at the end of the directory, or a negative error. */
  fill(): number {
    if (this.at < this.#end) return 1;
    const count = this.#host.readDir(this.#fd, this.buffer);
    if (count <= 0) return count;
    this.at = 0;
    this.#end = count;
    return 1;
  }

  /** Length of the current record's name. */
  nameLength(): number {
    const bytes = this.buffer.bytes;
    let end = this.at + RECORD_NAME;
    while (bytes[end] !== 0) end++;
    return end - this.at - RECORD_NAME;
  }

  /** File type of the current record, as in the upper four bits of a mode. */
  type(): number {
    return this.buffer.bytes[this.at + TYPE]!;
  }

  /** Index of the current record's first word: inode in two, cookie in two. */
  word(): number {
    return this.at >> 2;
  }

  /** Takes the current record. */
  next(): void {
    const word = (this.at + COOKIE) >> 2;
    this.#low = this.buffer.words[word]!;
    this.#high = this.buffer.words[word + 1]!;
    const bytes = this.buffer.bytes;
    this.at += bytes[this.at + RECORD_LENGTH]! | (bytes[this.at + RECORD_LENGTH + 1]! << 8);
  }
}
