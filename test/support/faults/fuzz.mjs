/**
 * Preloaded into the tests (`node --import`) by `npm run trust`: property tests take their seed and their number of runs
 * from outside, unless they say it themselves, and tell how many inputs they tried.
 *
 * DRYDOCK_FUZZ_SEED, DRYDOCK_FUZZ_RUNS: numbers. DRYDOCK_TEST_TALLY: the file for figures, see test/support/tally.ts.
 */
import { appendFileSync } from 'node:fs';

const { DRYDOCK_FUZZ_SEED, DRYDOCK_FUZZ_RUNS, DRYDOCK_TEST_TALLY } = process.env;

if (DRYDOCK_TEST_TALLY) {
  const fc = await import('fast-check');
  const report = (details) => {
    appendFileSync(
      DRYDOCK_TEST_TALLY,
      `${JSON.stringify({ what: 'inputs', count: details.numRuns, seed: details.seed })}\n`,
    );
    if (details.failed) throw new Error(fc.defaultReportMessage(details));
  };
  fc.configureGlobal({
    seed: Number(DRYDOCK_FUZZ_SEED),
    numRuns: Number(DRYDOCK_FUZZ_RUNS),
    reporter: report,
  });
}
