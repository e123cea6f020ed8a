/** One daemon for all end-to-end tests that do not end it; afterwards it must have left nothing on the machine. */
import type { TestProject } from 'vitest/node';
import { unmet } from '../requirements.ts';
import { type DaemonAddress, TestDaemon } from './daemon.ts';
import { litterOf } from './litter.ts';

declare module 'vitest' {
  export interface ProvidedContext {
    daemon: DaemonAddress;
  }
}

/** What every end-to-end test needs. */
export const E2E_NEEDS: string[] = ['root', '/dev/net/tun', '/dev/fuse', 'docker', 'curl'];

export async function setup(project: TestProject): Promise<(() => Promise<void>) | undefined> {
  // The tests themselves say what is missing.
  if (unmet(E2E_NEEDS).length > 0) return undefined;
  const daemon = await TestDaemon.launch(undefined, ['--dashboard', '127.0.0.1:0']);
  project.provide('daemon', daemon.address);
  return async () => {
    const code = await daemon.stop();
    const litter = litterOf(daemon.address);
    if (code !== 0) throw new Error(`the shared daemon ended with ${code}:\n${daemon.log}`);
    if (litter.length > 0)
      throw new Error(`the shared daemon left on the machine:\n  ${litter.join('\n  ')}`);
    TestDaemon.forget(daemon.address);
  };
}
