/** Waiting for a state of the kernel that announces itself by no event that Node could wait for. */
import type { Clock } from '#common/clock';
import { DrydockError } from '#common/errors';

const POLL_MS_MIN = 1;
const POLL_MS_MAX = 50;

/**
 * Looks until `done` holds, at growing intervals.
 *
 * @throws DrydockError ERR_TIMEOUT naming `what` after `timeoutMs`.
 */
export async function waitUntil(
  clock: Clock,
  what: string,
  timeoutMs: number,
  done: () => boolean,
): Promise<void> {
  const deadline = clock.now() + timeoutMs;
  for (let pauseMs = POLL_MS_MIN; !done(); pauseMs = Math.min(pauseMs * 2, POLL_MS_MAX)) {
    if (clock.now() > deadline) throw new DrydockError('ERR_TIMEOUT', `Waited ${timeoutMs} ms for ${what}.`);
    const wakeMs = clock.now() + pauseMs;
    await new Promise<void>((resolve) => clock.arm(wakeMs, resolve));
  }
}
