/**
 * How often each operation was asked for and how long the server took, in memory that the server's thread writes and
 * its owner reads. Times go into buckets whose bounds grow by a quarter of an octave, so that a quantile is right to
 * 19 % whatever the range, and recording one costs a logarithm and two additions.
 */
import { OPCODE_LIMIT } from './wire/opcode.ts';

/** Buckets for an octave. */
const STEPS = 4;
/** The first is for what took less than a microsecond, the last for everything above a minute. */
const BUCKETS = 1 + STEPS * 26;

/** What is known of one operation. Times are those in the server, in microseconds, and never too low. */
export interface OperationStats {
  count: number;
  /** Half of the requests took at most this long. */
  p50Us: number;
  /** 99 in 100 requests took at most this long. */
  p99Us: number;
}

/** Bytes of memory that statistics need. */
export const STATISTICS_BYTES: number = OPCODE_LIMIT * BUCKETS * 4;

export class Statistics {
  readonly #buckets: Uint32Array;

  /** @param shared memory for STATISTICS_BYTES from `offset`, of this object's own unless given. */
  constructor(shared: ArrayBufferLike = new ArrayBuffer(STATISTICS_BYTES), offset = 0) {
    this.#buckets = new Uint32Array(shared, offset, OPCODE_LIMIT * BUCKETS);
  }

  record(opcode: number, elapsedMs: number): void {
    if (opcode >= OPCODE_LIMIT) return;
    const us = elapsedMs * 1000;
    const bucket = us < 1 ? 0 : Math.min(BUCKETS - 1, 1 + Math.floor(Math.log2(us) * STEPS));
    this.#buckets[opcode * BUCKETS + bucket]!++;
  }

  /** Undefined for an operation that was never asked for. */
  of(opcode: number): OperationStats | undefined {
    const own = this.#buckets.subarray(opcode * BUCKETS, (opcode + 1) * BUCKETS);
    const count = own.reduce((sum, each) => sum + each, 0);
    if (count === 0) return undefined;
    return { count, p50Us: quantileUs(own, count * 0.5), p99Us: quantileUs(own, count * 0.99) };
  }
}

/** The upper bound, in microseconds, of the bucket that holds the request of this rank. */
function quantileUs(buckets: Uint32Array, rank: number): number {
  let seen = 0;
  let index = 0;
  while (index < BUCKETS - 1) {
    seen += buckets[index]!;
    if (seen >= rank) break;
    index++;
  }
  return Math.round(2 ** (index / STEPS) * 10) / 10;
}
