/**
 * A daemon for each worker that runs end-to-end test files, shared by all tests that do not end it: files run side by side, and each
 * sees only its own doings. Afterwards they must have left nothing on the machine.
 */
import type { TestProject } from 'vitest/node';
import { unmet } from '../requirements.ts';
import { type DaemonAddress, TestDaemon } from './daemon.ts';
import { litterOf } from './litter.ts';

declare module 'vitest' {
  export interface ProvidedContext {
    /** The shared daemons: as many as there are workers. */
    daemons: DaemonAddress[];
  }
}

/** What every end-to-end test needs. */
export const E2E_NEEDS: string[] = ['root', '/dev/net/tun', '/dev/fuse', 'docker', 'curl'];

export async function setup(project: TestProject): Promise<(() => Promise<void>) | undefined> {
  // The tests themselves say what is missing.
  if (unmet(E2E_NEEDS).length > 0) return undefined;
  const daemons = await Promise.all(
    Array.from({ length: project.config.maxWorkers }, () =>
      TestDaemon.launch(undefined, ['--dashboard', '127.0.0.1:0']),
    ),
  );
  project.provide(
    'daemons',
    daemons.map(({ address }) => address),
  );
  return async () => {
    const failures = await Promise.all(daemons.map(endingOf));
    if (failures.some(Boolean)) throw new Error(failures.filter(Boolean).join('\n'));
  };
}

/** Ends a daemon. @returns what was wrong with its end, if anything. */
async function endingOf(daemon: TestDaemon): Promise<string | undefined> {
  const code = await daemon.stop();
  const litter = litterOf(daemon.address);
  if (code !== 0) return `a shared daemon ended with ${code}:\n${daemon.log}`;
  if (litter.length > 0) return `a shared daemon left on the machine:\n  ${litter.join('\n  ')}`;
  TestDaemon.forget(daemon.address);
  return undefined;
}
