#!/usr/bin/env node
/** The `drydock` program: loads the command that is called, and tells errors by exit codes. */
import '#common/small-heap';
import { CommanderError } from 'commander';
import { DrydockError, errorCode, errorMessage } from '#common/errors';
import { systemErrorText } from '#common/system-error';
import { createProgram, usageExitCode } from './command/program.ts';
import { packageVersion } from './command/whole.ts';

// `drydock ... | head`: whoever reads has seen enough.
process.stdout.on('error', (error) => {
  if (errorCode(error) !== 'EPIPE') throw error;
  process.exit(0);
});
try {
  const args = process.argv.slice(2);
  // `drydock help net` is `drydock net --help`.
  const program = await createProgram(packageVersion(), args.slice(0, args[0] === 'help' ? 2 : 1));
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) process.exitCode = usageExitCode(error);
  else {
    // The code is what docs/reference/errors.md is looked up by; the operating system's are errno(3)'s.
    const text = error instanceof DrydockError ? undefined : systemErrorText(error);
    const code = error instanceof DrydockError || text !== undefined ? ` (${errorCode(error)})` : '';
    console.error(`drydock: ${text ?? errorMessage(error)}${code}`);
    process.exit(1);
  }
}
