/**
 * A ring of bytes addressed by sequence number: the byte with sequence number s is at s modulo the capacity, a power of
 * two, so that there is no head or tail to keep. The owner knows which range is filled. The block comes from the pool, may
 * be absent, and is replaced by a larger one when more must fit.
 */
import type { Buffers } from './buffer-pool.ts';

const NO_BLOCK: Uint8Array = new Uint8Array(0);

export class Ring {
  readonly #pool: Buffers;
  #block: Uint8Array = NO_BLOCK;

  constructor(pool: Buffers) {
    this.#pool = pool;
  }

  get block(): Uint8Array {
    return this.#block;
  }

  get capacity(): number {
    return this.#block.length;
  }

  /** Where the byte `seq` is in the block. */
  at(seq: number): number {
    return seq & (this.#block.length - 1);
  }

  /** How many of `len` bytes from `seq` lie together before the wrap. */
  contiguous(seq: number, len: number): number {
    return Math.min(len, this.#block.length - (seq & (this.#block.length - 1)));
  }

  /** Makes room for at least `bytes`, keeping the range [from, from + filled). False: the pool has no more. */
  reserve(bytes: number, from: number, filled: number): boolean {
    if (bytes <= this.#block.length) return true;
    const block = this.#pool.acquire(bytes);
    if (!block) return false;
    for (let done = 0; done < filled; ) {
      const seq = (from + done) | 0;
      const target = seq & (block.length - 1);
      const count = Math.min(this.contiguous(seq, filled - done), block.length - target);
      copyBytes(block, target, this.#block, this.at(seq), count);
      done += count;
    }
    this.release();
    this.#block = block;
    return true;
  }

  /** Copies `len` bytes from `seq` out, across the wrap. */
  copyOut(seq: number, len: number, target: Uint8Array): void {
    const first = this.contiguous(seq, len);
    copyBytes(target, 0, this.#block, this.at(seq), first);
    if (first < len) copyBytes(target, first, this.#block, 0, len - first);
  }

  /** Copies bytes in at `seq`. They must fit. */
  write(seq: number, source: Uint8Array, off: number, len: number): void {
    const first = this.contiguous(seq, len);
    copyBytes(this.#block, this.at(seq), source, off, first);
    if (first < len) copyBytes(this.#block, 0, source, off + first, len - first);
  }

  /** Gives the block back. What was in it is gone. */
  release(): void {
    if (this.#block === NO_BLOCK) return;
    this.#pool.release(this.#block);
    this.#block = NO_BLOCK;
  }
}

/** Below this many bytes a loop is faster than making a view for set(). */
const LOOP_BYTES_MAX = 32;

function copyBytes(
  target: Uint8Array,
  targetOff: number,
  source: Uint8Array,
  sourceOff: number,
  len: number,
): void {
  if (len <= LOOP_BYTES_MAX) {
    for (let i = 0; i < len; i++) target[targetOff + i] = source[sourceOff + i]!;
    return;
  }
  target.set(source.subarray(sourceOff, sourceOff + len), targetOff);
}
