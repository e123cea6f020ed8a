/** The process of a trial of `drydock doctor --probe`: see runtime/darwin/probe/trial.ts. A line for each outcome. */
import { writeSync } from 'node:fs';
import { errorMessage } from '#common/errors';
import { DarwinCalls } from '#common/native/darwin/calls';
import { runTrial, type Trial } from '../runtime/darwin/probe/trial.ts';

try {
  const trial = JSON.parse(process.argv[2] ?? '') as Trial;
  await runTrial(new DarwinCalls(), trial, (outcome) => writeSync(1, `${outcome}\n`));
} catch (error) {
  writeSync(2, `${errorMessage(error)}\n`);
  process.exitCode = 1;
}
