/** What every end-to-end test file starts with: the shared daemon, and whether the machine can run it. */
import { closeSync, openSync } from 'node:fs';
import { dirname } from 'node:path';
import { describe, inject } from 'vitest';
import { flock } from '#common/native/fs';
import { lacking } from '../requirements.ts';
import { type DaemonAddress, Docker, dockerClis } from './daemon.ts';
import { E2E_NEEDS } from './shared-daemon.ts';

/** `describe` for tests that need the shared daemon; skipped with the reason where the machine lacks something. */
export const describeE2e: typeof describe.skip = describe.skipIf(
  lacking(...E2E_NEEDS),
) as typeof describe.skip;

const LOCK_EXCLUSIVE_NO_WAIT = 2 | 4;
const CLAIM_MS = 60_000;
let mine: DaemonAddress | undefined;

/**
 * The docker CLI against a shared daemon that only this worker uses: a lock that ends with its process says so. (The
 * runner's number of a worker may be given twice for a moment.)
 */
export function sharedDocker(): Docker {
  const endMs = Date.now() + CLAIM_MS;
  while (mine === undefined) {
    mine = inject('daemons').find(({ dataRoot }) => {
      const fd = openSync(`${dirname(dataRoot)}/worker.lock`, 'w');
      if (flock(fd, LOCK_EXCLUSIVE_NO_WAIT) === 0) return true;
      closeSync(fd);
      return false;
    });
    if (Date.now() > endMs) throw new Error('every shared daemon is in use');
    // The worker before may still be ending.
    if (mine === undefined) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50);
  }
  return new Docker(mine);
}

/** Each CLI under test with a short name for test titles. */
export const clis: { name: string; cli: string }[] = dockerClis.map((cli) => ({
  name: cli.replace(/^.*\/(docker[^/]*)\/.*$/, '$1'),
  cli,
}));

let serial = 0;

/** A name that no other test uses. */
export function uniqueName(prefix: string): string {
  return `${prefix}-${process.pid}-${++serial}`;
}
