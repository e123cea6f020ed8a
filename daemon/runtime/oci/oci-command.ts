/** The command line of an OCI runtime, and what it says of its failures. */
import { spawn } from 'node:child_process';
import { DrydockError } from '#common/errors';

/** The program, and what comes before its subcommand. */
export type Command = readonly [string, ...string[]];

/** Runs a short command of the runtime. */
export function runToEnd(
  [program, ...before]: Command,
  args: string[],
): Promise<{ code: number; output: string }> {
  return new Promise((resolve) => {
    const child = spawn(program, [...before, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    child.stdout.on('data', (chunk) => (output += chunk));
    child.stderr.on('data', (chunk) => (output += chunk));
    child.on('error', (error) => resolve({ code: 127, output: error.message }));
    child.on('close', (code) => resolve({ code: code ?? 255, output }));
  });
}

/** @throws DrydockError ERR_OCI_RUNTIME for one that is not there */
export async function requireRuntime(command: Command): Promise<void> {
  const { code, output } = await runToEnd(command, ['--version']);
  if (code !== 0)
    throw new DrydockError(
      'ERR_OCI_RUNTIME',
      `The OCI runtime ${command[0]} cannot be run (${output.trim()}): install it or correct its path.`,
    );
}

/** The runtime's own words with docker's prefix and the codes of our own runtime. */
export function ociError(message: string, prefix: string): DrydockError {
  const text = message
    .replace(/^(runc|crun|exec|run|create)[a-z ]* failed: /, '')
    .replace(/^unable to start container process: /, '')
    // crun's wording, which docker's CLI would not know for exit code 127.
    .replace(
      /executable file `(.*)` not found in \$PATH.*/,
      'exec: "$1": executable file not found in $$PATH',
    );
  const full = `${prefix}: ${text}: unknown`;
  if (/unable to find (user|group) /.test(message)) return new DrydockError('ERR_USER_NOT_FOUND', message);
  if (/executable file not found|no such file or directory/i.test(text))
    return new DrydockError('ERR_EXEC_NOT_FOUND', full);
  if (/permission denied|is a directory/i.test(text)) return new DrydockError('ERR_EXEC_PERMISSION', full);
  return new DrydockError('ERR_JAIL', full);
}
