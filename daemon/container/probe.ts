/** Running the command of a health check in its container. */
import type { Readable } from 'node:stream';
import { DrydockError } from '#common/errors';
import { HEALTH_OUTPUT_BYTES_MAX } from '../limits.ts';
import type { Container } from './container.ts';
import { execProcess } from './spec.ts';

const SIGKILL = 9;

/** Runs a probe to its end; it is killed when the signal says so. */
export async function runProbe(
  { jail, record }: Container,
  args: string[],
  signal: AbortSignal,
): Promise<{ exitCode: number; output: string }> {
  if (!jail) throw new DrydockError('ERR_NOT_RUNNING', 'the container has ended');
  const wish = { args, env: [], cwd: '', user: '', terminal: false, stdin: false, privileged: false };
  const process = await jail.exec(execProcess(record, wish));
  const kill = (): void => process.kill(SIGKILL);
  signal.addEventListener('abort', kill);
  if (signal.aborted) kill();
  const [stdout, stderr, exit] = await Promise.all([
    headOf(process.stdout),
    process.stderr ? headOf(process.stderr) : '',
    process.exited,
  ]);
  signal.removeEventListener('abort', kill);
  return { exitCode: exit.code, output: stdout + stderr };
}

/** The first bytes of a stream, as text; the rest is read and dropped. */
async function headOf(stream: Readable): Promise<string> {
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    if (bytes < HEALTH_OUTPUT_BYTES_MAX) parts.push(chunk);
    bytes += chunk.length;
  }
  return Buffer.concat(parts).toString('utf8', 0, HEALTH_OUTPUT_BYTES_MAX);
}
