/**
 * What a mount's owner and its server thread share: the thread blocks in the kernel and has no event loop to send a
 * message to. Words of shared memory, each written by one side only.
 */
import { OPCODE_LIMIT } from '../wire/opcode.ts';

/** Set by the owner: end the loop at the next request. */
const STOP = 0;
/** Set by the thread just before it closes the device: the number may be another file's from then on. */
const CLOSED = 1;
const COUNTS = 2;
const WORDS = COUNTS + OPCODE_LIMIT;

export interface Control {
  readonly shared: SharedArrayBuffer;
  /** Requests by opcode. */
  readonly counts: Uint32Array;
  stop(): void;
  stopped(): boolean;
  close(): void;
  closed(): boolean;
}

/** A view of shared memory, new unless given. */
export function control(shared: SharedArrayBuffer = new SharedArrayBuffer(WORDS * 4)): Control {
  const words = new Int32Array(shared);
  return {
    shared,
    counts: new Uint32Array(shared, COUNTS * 4, OPCODE_LIMIT),
    stop: () => void Atomics.store(words, STOP, 1),
    stopped: () => Atomics.load(words, STOP) !== 0,
    close: () => void Atomics.store(words, CLOSED, 1),
    closed: () => Atomics.load(words, CLOSED) !== 0,
  };
}
