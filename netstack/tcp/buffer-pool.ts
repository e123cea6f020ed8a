/**
 * Blocks of memory for the rings of all connections of a stack. A connection holds a block only while bytes are in it,
 * so that ten thousand idle ones hold none, and a busy one gets back the block whose lines are still in the cache
 * (last in, first out). Sizes are powers of two.
 *
 * The pool has a limit. At the limit a connection gets no block: it reads nothing from its host socket, or drops the
 * segment as a kernel short of memory does, and the peer sends it again.
 */
import { assert } from '#common/errors';
import { BLOCK_BYTES_MAX, BLOCK_BYTES_MIN } from './limits.ts';

export interface BufferPoolOptions {
  /** Most bytes handed out at once. */
  bytesMax: number;
  /** Most bytes of free blocks kept for reuse; beyond it they go to the garbage collector. */
  keptBytesMax: number;
  /** Where memory comes from; default: the heap. A native host may give memory at fixed addresses. */
  allocate?: (bytes: number) => Uint8Array;
}

/** The power of two that holds `bytes`, within the pool's block sizes. */
export function blockBytesFor(bytes: number): number {
  assert(bytes <= BLOCK_BYTES_MAX, 'a block of the pool is large enough');
  if (bytes <= BLOCK_BYTES_MIN) return BLOCK_BYTES_MIN;
  return 1 << (32 - Math.clz32(bytes - 1));
}

/** What connections need of a pool: the pool itself, or a guest's share of it. */
export interface Buffers {
  /** Bytes in the hands of connections. */
  readonly usedBytes: number;
  /** True when whoever can do without more should. */
  readonly scarce: boolean;
  /** A block of at least `bytes` with arbitrary contents, or undefined at the limit. */
  acquire(bytes: number): Uint8Array | undefined;
  /** Gives a block back; its holder must not touch it again. */
  release(block: Uint8Array): void;
}

/** A part of a pool: so much of it and no more, so that one guest cannot hold the memory of all. */
export class BufferShare implements Buffers {
  readonly #pool: BufferPool;
  readonly #bytesMax: number;
  #usedBytes = 0;

  constructor(pool: BufferPool, bytesMax: number) {
    this.#pool = pool;
    this.#bytesMax = bytesMax;
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  get scarce(): boolean {
    return this.#usedBytes * 2 > this.#bytesMax || this.#pool.scarce;
  }

  acquire(bytes: number): Uint8Array | undefined {
    if (this.#usedBytes + blockBytesFor(bytes) > this.#bytesMax) {
      this.#pool.refusals++;
      return undefined;
    }
    const block = this.#pool.acquire(bytes);
    if (block) this.#usedBytes += block.length;
    return block;
  }

  release(block: Uint8Array): void {
    this.#usedBytes -= block.length;
    this.#pool.release(block);
  }
}

export class BufferPool implements Buffers {
  readonly #bytesMax: number;
  readonly #keptBytesMax: number;
  readonly #allocate: (bytes: number) => Uint8Array;
  /** Free blocks by the logarithm of their size. */
  readonly #free: Uint8Array[][] = Array.from({ length: 32 }, () => []);
  #usedBytes = 0;
  #keptBytes = 0;
  /** How often a block was refused. */
  refusals = 0;

  constructor(options: BufferPoolOptions) {
    this.#bytesMax = options.bytesMax;
    this.#keptBytesMax = options.keptBytesMax;
    this.#allocate = options.allocate ?? ((bytes) => new Uint8Array(bytes));
  }

  /** Bytes in the hands of connections. */
  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** Bytes of free blocks kept for reuse. */
  get keptBytes(): number {
    return this.#keptBytes;
  }

  /** True when more than half is used: whoever can do without more should. */
  get scarce(): boolean {
    return this.#usedBytes * 2 > this.#bytesMax;
  }

  /** A block of at least `bytes` with arbitrary contents, or undefined at the limit. */
  acquire(bytes: number): Uint8Array | undefined {
    const size = blockBytesFor(bytes);
    if (this.#usedBytes + size > this.#bytesMax) {
      this.refusals++;
      return undefined;
    }
    this.#usedBytes += size;
    const block = this.#free[31 - Math.clz32(size)]!.pop();
    if (!block) return this.#allocate(size);
    this.#keptBytes -= size;
    return block;
  }

  /** Gives a block back; its holder must not touch it again. */
  release(block: Uint8Array): void {
    this.#usedBytes -= block.length;
    assert(this.#usedBytes >= 0, 'a block goes back to the pool once');
    if (this.#keptBytes + block.length > this.#keptBytesMax) return;
    this.#keptBytes += block.length;
    this.#free[31 - Math.clz32(block.length)]!.push(block);
  }
}
