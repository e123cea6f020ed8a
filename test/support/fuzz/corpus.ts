/**
 * Property tests with a corpus: what has once failed is a file, and is tried first in each run. After that come as many generated
 * inputs as a run in CI has time for, always the same ones; `npm run fuzz` tries others for as long as one likes and keeps what fails.
 */
import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { inputs } from './inputs.ts';

const ROOT = fileURLToPath(new URL('../../corpus', import.meta.url));
const SEED = 20_240_601;

/** Inputs that are kept, each a JSON file. */
export interface Corpus<T> {
  folder: string;
  inputs: [T][];
}

/** The corpus of a name. */
export function corpusOf<T>(name: string): Corpus<T> {
  const folder = join(ROOT, name);
  const files = readdirSync(folder)
    .filter((file) => file.endsWith('.json'))
    .sort();
  return { folder, inputs: files.map((file) => [JSON.parse(readFileSync(join(folder, file), 'utf8')) as T]) };
}

/** How long a test with {@link fuzzed} may take: its inputs, and what it takes to make a failing one small. */
export const FUZZ_TIMEOUT_MS: number = 120_000 + 2000 * Number(process.env.DRYDOCK_FUZZ_SECONDS ?? 0);

/** Checks a property with its corpus and with `runs` inputs, or for as long as `npm run fuzz` says. */
export async function fuzzed<T>(
  corpus: Corpus<T>,
  property: fc.IAsyncProperty<[T]>,
  runs: number,
): Promise<void> {
  const { DRYDOCK_FUZZ_SECONDS, DRYDOCK_FUZZ_SEED } = process.env;
  const details = await fc.check(property, {
    seed: Number(DRYDOCK_FUZZ_SEED ?? SEED),
    examples: corpus.inputs,
    numRuns: inputs(runs),
    ...(DRYDOCK_FUZZ_SECONDS && { interruptAfterTimeLimit: Number(DRYDOCK_FUZZ_SECONDS) * 1000 }),
  });
  if (!details.failed || details.counterexample === null) return;
  if (DRYDOCK_FUZZ_SECONDS) keep(corpus, details.counterexample[0]);
  throw new Error(fc.defaultReportMessage(details), { cause: details.errorInstance });
}

function keep<T>({ folder }: Corpus<T>, input: T): void {
  const text = `${JSON.stringify(input, undefined, 2)}\n`;
  mkdirSync(folder, { recursive: true });
  const path = join(folder, `${createHash('sha256').update(text).digest('hex').slice(0, 12)}.json`);
  writeFileSync(path, text);
  console.error(`kept as ${basename(folder)}/${basename(path)}: it is tried first in each run from now on`);
}
