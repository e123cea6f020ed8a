/**
 * What a test needs from the machine. Where it is missing, a developer's run skips with the reason; a run that must prove
 * everything (DRYDOCK_TEST_ALL=1, as in CI) fails instead, so that nothing is passed by not being run.
 */
import { accessSync, constants, existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';

/** True when nothing may be skipped. */
export const mustRunAll: boolean = process.env.DRYDOCK_TEST_ALL === '1';

/** The full path of a program on PATH, or undefined. */
export function findProgram(name: string): string | undefined {
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin'];
  return folders
    .map((folder) => join(folder, name))
    .find((path) => {
      try {
        accessSync(path, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
}

/** A need: `root`, a device such as `/dev/fuse`, or a program's name. */
export type Need = string;

/** Says of each need that is not met what is missing and how to get it. */
export function unmet(needs: Need[]): string[] {
  const reasons: string[] = [];
  for (const need of needs) {
    if (need === 'root') {
      if (process.getuid?.() !== 0) reasons.push('needs root: run with sudo');
    } else if (need.startsWith('/')) {
      if (!existsSync(need)) reasons.push(`needs ${need}, which this machine does not have`);
    } else if (!findProgram(need)) {
      reasons.push(`needs the program ${need}: install it`);
    }
  }
  return reasons;
}

/**
 * For `describe.skipIf(lacking('root', 'curl'))`: true when something is missing and may be skipped.
 * @throws Error where nothing may be skipped.
 */
export function lacking(...needs: Need[]): boolean {
  const reasons = unmet(needs);
  if (reasons.length === 0) return false;
  if (mustRunAll) throw new Error(reasons.join('; '));
  console.warn(`skipped: ${reasons.join('; ')}`);
  return true;
}
