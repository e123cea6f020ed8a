/** Ten thousand short transfers over bad wires. A failure names its seed; `SEED=n npx vitest run test/sim/tcp` replays it. */
import { expect, test } from 'vitest';
import { below, type Rng, seededRng, uniform } from '#common/rng';
import { type EndOptions, ethernetPath, perfectWire, plainEnd, TcpSim, tapPath } from './tcp-sim.ts';

const SEEDS = 10_000;
/** Virtual time after which a transfer counts as stuck. */
const LIMIT_MS = 3_600_000;

function randomEnd(rng: Rng): EndOptions {
  return {
    ...plainEnd,
    bytes: below(rng, 60_000),
    path: below(rng, 2) ? tapPath : ethernetPath,
    direct: below(rng, 2) === 0,
    takeBytes: below(rng, 3) ? Number.POSITIVE_INFINITY : 1 + below(rng, 5000),
    config: {
      sack: below(rng, 4) > 0,
      timestamps: below(rng, 3) > 0,
      windowScaling: below(rng, 4) > 0,
      receiveBytesInitial: 4096 << below(rng, 7),
      directBytesMin: 1,
      nagle: below(rng, 4) === 0,
      // The wire may be silent for long, but it is never cut.
      userTimeoutMs: LIMIT_MS,
      handshakeMsMax: LIMIT_MS,
      rtoMsMax: 10_000,
    },
  };
}

/** A whole run from one number. */
function simulate(seed: number): TcpSim {
  const rng = seededRng(Math.imul(seed, 7919));
  const wire = {
    ...perfectWire,
    loss: uniform(rng) < 0.3 ? 0 : uniform(rng) * 0.25,
    duplicate: uniform(rng) * 0.1,
    reorder: uniform(rng) < 0.5 ? 0 : uniform(rng) * 0.3,
    delayMs: uniform(rng) * 20,
    jitterMs: uniform(rng) < 0.5 ? 0 : uniform(rng) * 10,
  };
  const sim = new TcpSim(seed, wire, randomEnd(rng), randomEnd(rng));
  sim.run(LIMIT_MS);
  return sim;
}

test(`${SEEDS} seeded transfers: every byte in order, both ends closed, nothing left`, () => {
  const only = process.env.SEED;
  const [first, last] = only ? [Number(only), Number(only)] : [1, SEEDS];
  for (let seed = first; seed <= last; seed++) {
    try {
      simulate(seed).verify();
    } catch (error) {
      throw new Error(`seed ${seed}: ${String(error)}`, { cause: error });
    }
  }
}, 120_000);

test('the same seed gives the same run', () => {
  const one = simulate(4711);
  const two = simulate(4711);
  expect(two.now).toBe(one.now);
  expect(two.segments).toBe(one.segments);
  expect(two.a.context.counters).toEqual(one.a.context.counters);
});
