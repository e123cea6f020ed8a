import { randomFillSync } from 'node:crypto';

/** A source of randomness that is passed in, so that a simulation replays from its seed. */
export interface Rng {
  /** A uniform integer in [0, 2^32). */
  uint32(): number;
  /** Fills `target` and returns it. */
  fill(target: Uint8Array): Uint8Array;
}

/** Randomness that nobody can predict: initial sequence numbers, ids, transaction ids. */
export const cryptoRng: Rng = (() => {
  const pool = new Uint32Array(64);
  let left = 0;
  return {
    uint32: () => {
      if (left === 0) {
        randomFillSync(pool);
        left = pool.length;
      }
      return pool[--left]!;
    },
    fill: (target) => randomFillSync(target),
  };
})();

/** A fast generator with a seed (mulberry32): for simulations and tests only, never for secrets. */
export function seededRng(seed: number): Rng {
  let state = seed >>> 0;
  const uint32 = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  };
  return {
    uint32,
    fill(target) {
      for (let i = 0; i < target.length; i++) target[i] = uint32() >>> 24;
      return target;
    },
  };
}

/** A uniform number in [0, 1). */
export function uniform(rng: Rng): number {
  return rng.uint32() / 0x1_0000_0000;
}

/** A uniform integer in [0, n), for n up to 2^32; the bias is below n / 2^32. */
export function below(rng: Rng, n: number): number {
  return Math.floor(uniform(rng) * n);
}
