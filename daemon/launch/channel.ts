/** The launcher's end of its channel to the daemon. */
import { readSync, writeSync } from 'node:fs';
import { errorMessage } from '#common/errors';
import { LaunchFailure } from './failure.ts';
import { CONTROL_FD, type FromLauncher, type ToLauncher } from './protocol.ts';

/** A specification with a large environment is some hundred kilobytes. */
const READ_BYTES = 65_536;

let pending = '';

/** Waits for the daemon's next line. Ends the process when the daemon is gone. */
export function receive<T = ToLauncher>(): T {
  const chunk = Buffer.alloc(READ_BYTES);
  const parts: Buffer[] = [];
  while (!pending.includes('\n')) {
    const length = readSync(CONTROL_FD, chunk, 0, READ_BYTES, null);
    if (length === 0) process.exit(0);
    parts.push(Buffer.from(chunk.subarray(0, length)));
    // 10 is the line's end, which UTF-8 has nowhere else.
    if (chunk.subarray(0, length).includes(10)) pending = Buffer.concat(parts).toString();
  }
  const end = pending.indexOf('\n');
  const line = pending.slice(0, end);
  pending = pending.slice(end + 1);
  return JSON.parse(line);
}

export function send(message: FromLauncher): void {
  writeSync(CONTROL_FD, `${JSON.stringify(message)}\n`);
}

/** Runs a launcher, and says which step failed if one does. */
export function speakUntilTheEnd(run: () => never): void {
  try {
    run();
  } catch (error) {
    const failure =
      error instanceof LaunchFailure ? error : new LaunchFailure('step', 'launch', '', errorMessage(error));
    const { kind, step: name, code, message } = failure;
    send({ type: 'failed', kind, step: name, code, message });
    process.exit(1);
  }
}
