/**
 * Preloaded into the tests (`node --import`) by `npm run trust` and `npm run fuzz`: property tests take their seed and their
 * number of runs, or their time, from outside unless they say it themselves, and tell how many inputs they tried.
 *
 * DRYDOCK_FUZZ_SEED, DRYDOCK_FUZZ_RUNS, DRYDOCK_FUZZ_SECONDS: numbers; seconds go before runs. DRYDOCK_TEST_TALLY: the file for
 * figures, see test/support/tally.ts.
 */
import { appendFileSync } from 'node:fs';

const { DRYDOCK_FUZZ_SEED, DRYDOCK_FUZZ_RUNS, DRYDOCK_FUZZ_SECONDS, DRYDOCK_TEST_TALLY } = process.env;

if (DRYDOCK_TEST_TALLY || DRYDOCK_FUZZ_SECONDS) {
  const fc = await import('fast-check');
  const report = (details) => {
    if (DRYDOCK_TEST_TALLY)
      appendFileSync(
        DRYDOCK_TEST_TALLY,
        `${JSON.stringify({ what: 'inputs', count: details.numRuns, seed: details.seed })}\n`,
      );
    if (details.failed) throw new Error(fc.defaultReportMessage(details), { cause: details.errorInstance });
  };
  fc.configureGlobal({
    seed: Number(DRYDOCK_FUZZ_SEED),
    ...(DRYDOCK_FUZZ_SECONDS
      ? { numRuns: Number.MAX_SAFE_INTEGER, interruptAfterTimeLimit: Number(DRYDOCK_FUZZ_SECONDS) * 1000 }
      : { numRuns: Number(DRYDOCK_FUZZ_RUNS) }),
    reporter: report,
  });
}
