/**
 * Reads the console sessions of the documentation, and runs them: in a ```console block a line that starts with `$ ` is a
 * command, and what follows is its output. `...` in the output stands for any text.
 */
import { spawn } from 'node:child_process';
import { finish } from './daemon.ts';
import { fences } from './pages.ts';

/** One command of a session and what the documentation says it prints. */
export interface Step {
  command: string;
  output: string;
}

/** All steps of the ```console blocks. A command goes on in the next line behind a backslash. */
export function consoleSteps(markdown: string): Step[] {
  const steps: Step[] = [];
  for (const { info, text } of fences(markdown)) {
    if (info !== 'console') continue;
    for (const part of `\n${text}`.split('\n$ ').slice(1)) {
      const [, command, output] = /^((?:.*\\\n)*.*)\n?([\s\S]*)$/.exec(part)!;
      steps.push({ command: command!, output: output!.trimEnd() });
    }
  }
  return steps;
}

/** A pattern that `output` as documented stands for: exact but for `...` and the amount of white space. */
export function outputPattern(output: string): RegExp {
  const exact = output
    .split('...')
    .map((text) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&').replace(/\s+/g, '\\s+'))
    .join('[\\s\\S]*');
  return new RegExp(`^\\s*${exact}\\s*$`);
}

/** A guide that takes longer waits for something in vain. */
const STEPS_MS_MAX = 50_000;

/**
 * Types the steps into one shell, as a reader does: variables, the folder and background jobs live from step to step.
 * @returns what each step printed on both streams
 */
export async function runSteps(
  steps: readonly Step[],
  options: { cwd: string; env: NodeJS.ProcessEnv },
): Promise<string[]> {
  const mark = `--- step ${process.hrtime.bigint()} ---`;
  const script = steps.map(({ command }) => `${command}\necho '${mark}'\n`).join('');
  const shell = spawn('bash', ['-c', `exec 2>&1\n${script}`], { ...options, stdio: 'pipe', detached: true });
  const limit = setTimeout(() => process.kill(-shell.pid!, 'SIGKILL'), STEPS_MS_MAX);
  const { stdout } = await finish(shell);
  clearTimeout(limit);
  return stdout.split(`${mark}\n`).slice(0, steps.length);
}
