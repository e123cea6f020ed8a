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
      ecn: (['off', 'accept', 'request'] as const)[below(rng, 3)]!,
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
    mark: uniform(rng) < 0.5 ? 0 : uniform(rng) * 0.5,
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

/** Mbit/s of a megabyte, the mean of three, in virtual time, over a wire of 100 Mbit/s and 10 ms round trip that drops at random. */
function throughput(loss: number, bufferBytes: number, sack: boolean): number {
  const wire = { ...perfectWire, loss, delayMs: 5, rate: 12_500, queueBytes: 250_000 };
  const config = {
    receiveBytesInitial: bufferBytes,
    receiveBytesMax: bufferBytes,
    sendBytesInitial: bufferBytes,
    sendBytesMax: bufferBytes,
    timeWaitMs: 0,
    sack,
  };
  const end = { ...plainEnd, config };
  const seeds = [1, 2, 3];
  let ms = 0;
  for (const seed of seeds) {
    const sim = new TcpSim(seed, wire, { ...end, bytes: 1_000_000 }, end);
    sim.run(LIMIT_MS);
    sim.verify();
    ms += sim.now;
  }
  return (seeds.length * 8000) / ms;
}

// A change here is a change of TCP's behaviour: better or worse, it is to be meant.
test('throughput by loss and buffer', () => {
  const buffers = [8, 32, 128, 512];
  const lines = [`loss      ${buffers.map((kib) => `${kib} KiB`.padStart(8)).join('')}   512 KiB, no SACK`];
  for (const loss of [0, 0.001, 0.01, 0.03, 0.1]) {
    const row = buffers
      .map((kib) =>
        throughput(loss, kib * 1024, true)
          .toFixed(2)
          .padStart(8),
      )
      .join('');
    const noSack = throughput(loss, 512 * 1024, false)
      .toFixed(2)
      .padStart(8);
    lines.push(`${(100 * loss).toFixed(1).padStart(5)} %   ${row}   ${noSack}`);
  }
  expect(`\n${lines.join('\n')}\n`).toMatchInlineSnapshot(`
    "
    loss         8 KiB  32 KiB 128 KiB 512 KiB   512 KiB, no SACK
      0.0 %       5.03   23.64   63.41   63.15       7.43
      0.1 %       5.00   22.87   37.96   41.37       8.64
      1.0 %       4.70   15.30   16.13   16.13      17.80
      3.0 %       3.45    7.84   10.83   10.83       9.07
     10.0 %       0.91    1.83    1.91    1.91       4.28
    "
  `);
});
