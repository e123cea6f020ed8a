/** Two whole stacks over bad wires. A failure names its seed; `SEED=n npx vitest run test/sim/two-stacks` replays it. */
import { expect, test } from 'vitest';
import { below } from '#common/rng';
import { TwoStacks } from './two-stacks.ts';

const SEEDS = 10_000;

function simulate(seed: number): TwoStacks {
  const sim = new TwoStacks(seed);
  const connections = 1 + below(sim.rng, 3);
  for (let i = 0; i < connections; i++) sim.connect([below(sim.rng, 12_000), below(sim.rng, 12_000)]);
  sim.run();
  return sim;
}

test(`${SEEDS} runs of two stacks: every byte accounted for, no state left`, () => {
  const only = process.env.SEED;
  const [first, last] = only ? [Number(only), Number(only)] : [1, SEEDS];
  for (let seed = first; seed <= last; seed++) {
    try {
      simulate(seed).verify();
    } catch (error) {
      throw new Error(`seed ${seed}: ${String(error)}`, { cause: error });
    }
  }
}, 240_000);

test('the same seed gives the same run', () => {
  const [one, two] = [simulate(77), simulate(77)];
  expect([two.now, two.frames]).toEqual([one.now, one.frames]);
});
