/** Whole stacks against each other over bad wires. A failure names its seed; `SEED=n npx vitest run test/sim/stack` replays it. */
import { expect, test } from 'vitest';
import { below, type Rng, seededRng, uniform } from '#common/rng';
import { type SimOptions, StackSim } from './stack-sim.ts';

const SEEDS = Number(process.env.SEEDS ?? 10_000);

function randomOptions(rng: Rng): SimOptions {
  const offload = below(rng, 3) === 0;
  return {
    wire: {
      loss: uniform(rng) < 0.3 ? 0 : uniform(rng) * 0.2,
      duplicate: uniform(rng) * 0.1,
      reorder: uniform(rng) < 0.5 ? 0 : uniform(rng) * 0.3,
      corrupt: offload || uniform(rng) < 0.5 ? 0 : uniform(rng) * 0.1,
      delayMs: uniform(rng) * 20,
      jitterMs: uniform(rng) < 0.5 ? 0 : uniform(rng) * 10,
    },
    ipv6: below(rng, 2) === 0,
    offload,
    mtuBytes: [1280, 1500, 9000, 65_520][below(rng, 4)]!,
    connections: below(rng, 4) ? 1 : 2,
    bytesMax: 1 + below(rng, 10_000),
    datagrams: below(rng, 3),
  };
}

/** A whole run from one number. */
function simulate(seed: number): StackSim {
  const sim = new StackSim(seed, randomOptions(seededRng(Math.imul(seed, 7919))));
  sim.run();
  return sim;
}

test(`${SEEDS} seeded runs of two stacks: every byte in order, everything closed, nothing left`, () => {
  const only = process.env.SEED;
  const [first, last] = only ? [Number(only), Number(only)] : [1, SEEDS];
  let retries = 0;
  for (let seed = first; seed <= last; seed++) {
    try {
      const sim = simulate(seed);
      sim.verify();
      retries += sim.retries;
    } catch (error) {
      throw new Error(`seed ${seed}: ${String(error)}`, { cause: error });
    }
  }
  // Some clients lose all their questions for the neighbour; those too get every byte in the end.
  if (!only && SEEDS >= 10_000) expect(retries).toBeGreaterThan(0);
}, 300_000);

test('the same seed gives the same run', () => {
  const [one, two] = [simulate(42), simulate(42)];
  expect([one.now, one.frames, one.echoes]).toEqual([two.now, two.frames, two.echoes]);
  expect(one.sides[0].stack.counters).toEqual(two.sides[0].stack.counters);
});

test('on a good wire every datagram is echoed, in fragments or not', () => {
  const wire = { loss: 0, duplicate: 0, reorder: 0, corrupt: 0, delayMs: 1, jitterMs: 0 };
  const sim = new StackSim(7, {
    wire,
    ipv6: true,
    mtuBytes: 1500,
    offload: false,
    connections: 1,
    bytesMax: 1000,
    datagrams: 20,
  });
  sim.run();
  sim.verify();
  expect(sim.echoes).toBe(40);
  expect(sim.sides[0].stack.counters.ipReassembled).toBeGreaterThan(0);
});
