/**
 * What a mount's owner and its server thread share: the thread blocks in the kernel and has no event loop to send a
 * message to. Words of shared memory, each written by one side only.
 */
import { STATISTICS_BYTES, Statistics } from '../statistics.ts';

/** Set by the owner: end the loop at the next request. */
const STOP = 0;
/** Set by the thread just before it closes the device: the number may be another file's from then on. */
const CLOSED = 1;
const FLAG_BYTES = 8;

export interface Control {
  readonly shared: SharedArrayBuffer;
  /** Written by the thread. */
  readonly statistics: Statistics;
  stop(): void;
  stopped(): boolean;
  close(): void;
  closed(): boolean;
}

/** A view of shared memory, new unless given. */
export function control(
  shared: SharedArrayBuffer = new SharedArrayBuffer(FLAG_BYTES + STATISTICS_BYTES),
): Control {
  const words = new Int32Array(shared, 0, FLAG_BYTES / 4);
  return {
    shared,
    statistics: new Statistics(shared, FLAG_BYTES),
    stop: () => void Atomics.store(words, STOP, 1),
    stopped: () => Atomics.load(words, STOP) !== 0,
    close: () => void Atomics.store(words, CLOSED, 1),
    closed: () => Atomics.load(words, CLOSED) !== 0,
  };
}
