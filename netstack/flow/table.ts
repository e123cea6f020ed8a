/**
 * A hash table of flows and other things that are found by addresses and ports. Its key is two endpoints, each an address
 * of 16 bytes and a port; a thing with one endpoint leaves the other empty. Entries are chained through their own `nextInBucket`,
 * so a look-up allocates nothing and makes no string.
 *
 * Guests choose ports and, in their subnet, addresses: the hash is keyed by a random seed so that none can fill one bucket.
 */
import type { Rng } from '#common/rng';
import { copyAddress, get32, sameAddress } from '../wire/address.ts';

/** The endpoint of things that have only one. */
export const NO_ADDRESS: Uint8Array = new Uint8Array(16);

const BUCKETS_MIN = 64;

/** What can be in a table: extend it by the thing itself. The key does not change while it is in a table. */
export interface Entry {
  readonly near: Uint8Array;
  readonly nearPort: number;
  readonly far: Uint8Array;
  readonly farPort: number;
  /** The table's own. */
  nextInBucket: Entry | undefined;
}

/** A copy of an address, for a key. */
export function keyAddress(addr: Uint8Array, off: number): Uint8Array {
  const copy = new Uint8Array(16);
  copyAddress(addr, off, copy, 0);
  return copy;
}

export class Table<E extends Entry> {
  readonly #seed: number;
  #buckets: (E | undefined)[];
  #size = 0;

  constructor(rng: Rng) {
    this.#seed = rng.uint32() | 0;
    this.#buckets = new Array(BUCKETS_MIN).fill(undefined);
  }

  get size(): number {
    return this.#size;
  }

  #bucketOf(
    near: Uint8Array,
    nearOff: number,
    nearPort: number,
    far: Uint8Array,
    farOff: number,
    farPort: number,
  ): number {
    let hash = this.#seed;
    // Murmur3's mixing; the first half of an IPv4 address in the mapped form is zero, so it is folded in with the second.
    for (let i = 0; i < 8; i += 4) {
      hash = mix(hash, get32(near, nearOff + i + 8) ^ Math.imul(get32(near, nearOff + i), 0x9e3779b1));
      hash = mix(hash, get32(far, farOff + i + 8) ^ Math.imul(get32(far, farOff + i), 0x9e3779b1));
    }
    hash = mix(hash, (nearPort << 16) | farPort);
    hash ^= hash >>> 16;
    hash = Math.imul(hash, 0x85ebca6b);
    hash ^= hash >>> 13;
    return hash & (this.#buckets.length - 1);
  }

  /** The entry with this key, or undefined. */
  find(
    near: Uint8Array,
    nearOff: number,
    nearPort: number,
    far: Uint8Array = NO_ADDRESS,
    farOff = 0,
    farPort = 0,
  ): E | undefined {
    const bucket = this.#bucketOf(near, nearOff, nearPort, far, farOff, farPort);
    let entry = this.#buckets[bucket];
    while (entry) {
      if (
        entry.nearPort === nearPort &&
        entry.farPort === farPort &&
        sameAddress(entry.near, 0, near, nearOff) &&
        sameAddress(entry.far, 0, far, farOff)
      )
        return entry;
      entry = entry.nextInBucket as E | undefined;
    }
    return undefined;
  }

  /** Adds an entry whose key is not in the table. */
  add(entry: E): void {
    if (this.#size >= this.#buckets.length) this.#resize(this.#buckets.length * 2);
    this.#insert(entry);
    this.#size++;
  }

  /** Takes an entry out; false if it was not there. */
  remove(entry: E): boolean {
    const { near, nearPort, far, farPort } = entry;
    const bucket = this.#bucketOf(near, 0, nearPort, far, 0, farPort);
    let previous: E | undefined;
    for (let at = this.#buckets[bucket]; at; at = at.nextInBucket as E | undefined) {
      if (at === entry) {
        if (previous) previous.nextInBucket = entry.nextInBucket;
        else this.#buckets[bucket] = entry.nextInBucket as E | undefined;
        entry.nextInBucket = undefined;
        this.#size--;
        if (this.#size * 8 < this.#buckets.length && this.#buckets.length > BUCKETS_MIN)
          this.#resize(this.#buckets.length / 2);
        return true;
      }
      previous = at;
    }
    return false;
  }

  /** All entries. The table must not change meanwhile: spread it to change it. */
  *[Symbol.iterator](): Generator<E, void> {
    for (const head of this.#buckets)
      for (let entry = head; entry; entry = entry.nextInBucket as E | undefined) yield entry;
  }

  #insert(entry: E): void {
    const { near, nearPort, far, farPort } = entry;
    const bucket = this.#bucketOf(near, 0, nearPort, far, 0, farPort);
    entry.nextInBucket = this.#buckets[bucket];
    this.#buckets[bucket] = entry;
  }

  #resize(buckets: number): void {
    const entries = [...this];
    this.#buckets = new Array(buckets).fill(undefined);
    for (const entry of entries) this.#insert(entry);
  }
}

function mix(hash: number, word: number): number {
  let k = Math.imul(word, 0xcc9e2d51);
  k = (k << 15) | (k >>> 17);
  const h = hash ^ Math.imul(k, 0x1b873593);
  return (Math.imul((h << 13) | (h >>> 19), 5) + 0xe6546b64) | 0;
}
