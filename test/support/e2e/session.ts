/** What every end-to-end test file starts with: the shared daemon, and whether the machine can run it. */
import { describe, inject } from 'vitest';
import { lacking } from '../requirements.ts';
import { Docker, dockerClis } from './daemon.ts';
import { E2E_NEEDS } from './shared-daemon.ts';

/** `describe` for tests that need the shared daemon; skipped with the reason where the machine lacks something. */
export const describeE2e: typeof describe.skip = describe.skipIf(
  lacking(...E2E_NEEDS),
) as typeof describe.skip;

/** The docker CLI against the shared daemon of this worker. */
export function sharedDocker(): Docker {
  return new Docker(inject('daemons')[Number(process.env.VITEST_POOL_ID) - 1]!);
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
