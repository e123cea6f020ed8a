/**
 * Calls that wait for a disk (writing a file to it, reading what isn't in memory), made by another thread than the one
 * that serves the mount, so that one of them doesn't keep everybody else waiting. The thread that makes a call also
 * writes the reply to the device, which any thread may. Only calls that change nothing: a change is told to all but the
 * mount that it came by, and it is the serving thread's number that says which (notify/).
 *
 * A table in memory that all of them share: serving threads fill a free slot, helpers empty it. Order doesn't matter,
 * for a caller who cares waits for its answer. A full table refuses, and the serving thread does the call itself.
 */

/** Which call a job is, with its operands in this order. */
export const SYNC = 1; // fd, whether data only
export const SYNC_ALL = 2; // root
export const READ = 3; // fd, position, size

/** Calls that wait or run, for all mounts of a process. */
export const JOBS_MAX = 64;
const OPERANDS_MAX = 3;

const FREE = 0;
const FILLING = 1;
const READY = 2;
const TAKEN = 3;

/** Words at the start: changes counted, so that somebody may wait for one. */
const PUTS = 0;
const DONES = 1;
const HEAD_WORDS = 2;
/** Words of a slot: state, device, call. */
const DEVICE = 1;
const CALL = 2;
const SLOT_WORDS = 4;

/** One call to make, and to whom to answer. */
export interface Job {
  /** Descriptor of the FUSE device that the request came by. */
  device: number;
  call: number;
  /** The request's number. */
  unique: number;
  operands: number[];
}

export class Jobs {
  readonly shared: SharedArrayBuffer;
  readonly #words: Int32Array;
  /** Of each slot: unique and operands. */
  readonly #numbers: Float64Array;

  constructor(shared?: SharedArrayBuffer) {
    const words = HEAD_WORDS + JOBS_MAX * SLOT_WORDS;
    const numbers = JOBS_MAX * (1 + OPERANDS_MAX);
    this.shared = shared ?? new SharedArrayBuffer(words * 4 + numbers * 8);
    this.#words = new Int32Array(this.shared, 0, words);
    this.#numbers = new Float64Array(this.shared, words * 4, numbers);
  }

  /** Serving thread: leaves a call to the helpers; false if there is no room. */
  put(device: number, call: number, unique: number, ...operands: number[]): boolean {
    for (let slot = 0; slot < JOBS_MAX; slot++) {
      const at = HEAD_WORDS + slot * SLOT_WORDS;
      if (Atomics.compareExchange(this.#words, at, FREE, FILLING) !== FREE) continue;
      this.#words[at + DEVICE] = device;
      this.#words[at + CALL] = call;
      this.#numbers.set([unique, ...operands], slot * (1 + OPERANDS_MAX));
      Atomics.store(this.#words, at, READY);
      Atomics.add(this.#words, PUTS, 1);
      Atomics.notify(this.#words, PUTS, 1);
      return true;
    }
    return false;
  }

  /** Serving thread: waits until no call of this device is under way, since its descriptors are about to be closed. */
  drain(device: number): void {
    for (;;) {
      const seen = Atomics.load(this.#words, DONES);
      if (!this.#busy(device)) return;
      Atomics.wait(this.#words, DONES, seen);
    }
  }

  /** Helper: waits for a call and makes it by `perform`. */
  next(perform: (job: Job) => void): void {
    for (;;) {
      const seen = Atomics.load(this.#words, PUTS);
      for (let slot = 0; slot < JOBS_MAX; slot++) {
        const at = HEAD_WORDS + slot * SLOT_WORDS;
        if (Atomics.compareExchange(this.#words, at, READY, TAKEN) !== READY) continue;
        const [unique = 0, ...operands] = this.#numbers.slice(
          slot * (1 + OPERANDS_MAX),
          (slot + 1) * (1 + OPERANDS_MAX),
        );
        perform({ device: this.#words[at + DEVICE]!, call: this.#words[at + CALL]!, unique, operands });
        Atomics.store(this.#words, at, FREE);
        Atomics.add(this.#words, DONES, 1);
        Atomics.notify(this.#words, DONES);
        return;
      }
      Atomics.wait(this.#words, PUTS, seen);
    }
  }

  #busy(device: number): boolean {
    for (let slot = 0; slot < JOBS_MAX; slot++) {
      const at = HEAD_WORDS + slot * SLOT_WORDS;
      const state = Atomics.load(this.#words, at);
      if (state !== FREE && state !== FILLING && this.#words[at + DEVICE] === device) return true;
    }
    return false;
  }
}
