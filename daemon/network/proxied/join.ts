/** Two streams as one connection. */
import type { Duplex } from 'node:stream';

/** Carries bytes both ways, each end's close included, until both have closed. */
export function join(one: Duplex, other: Duplex): void {
  for (const [from, to] of [
    [one, other],
    [other, one],
  ] as const) {
    from.on('error', () => to.destroy());
    from.once('close', () => to.destroy());
    from.pipe(to);
  }
  if (one.destroyed) other.destroy();
}
