/** How many inputs property tests try: few in CI, more where `npm run trust` or `npm run fuzz` says so. */

const { DRYDOCK_FUZZ_SECONDS, DRYDOCK_FUZZ_RUNS } = process.env;

/** The number of inputs of a property that has `usual` ones in CI. With a time instead of a number, it is the time that ends it. */
export function inputs(usual: number): number {
  return DRYDOCK_FUZZ_SECONDS ? Number.MAX_SAFE_INTEGER : Math.max(usual, Number(DRYDOCK_FUZZ_RUNS ?? 0));
}
