/**
 * Threads for archives. Each does one job and ends, since its root has become the container's; but starting one takes longer than a
 * small copy, so after a job the next one is made ready, and waits for a while: copies come in rows.
 */
import { Worker } from 'node:worker_threads';
import type { Clock, Timer } from '#common/clock';
import { compiledEntry } from '#common/entry';

const IDLE_MS_MAX = 10_000;

/** See the module's head. */
export class ArchiveThreads {
  readonly #clock: Clock;
  #waiting: Worker | undefined;
  #expiry: Timer | undefined;
  #closed = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** A thread that waits for its job. */
  take(): Worker {
    this.#expiry?.cancel();
    const thread = this.#waiting ?? this.#start();
    this.#waiting = undefined;
    thread.ref();
    thread.once('exit', () => this.#prepare());
    return thread;
  }

  #start(): Worker {
    return new Worker(compiledEntry('daemon/archive/worker'), {
      name: 'drydock-archive',
      trackUnmanagedFds: false,
    });
  }

  /** Makes the next one ready, when the last is over: not earlier, so as not to compete with it. */
  #prepare(): void {
    if (this.#closed || this.#waiting) return;
    const thread = this.#start();
    thread.unref();
    // One that can't start leaves the next copy to start its own, which tells why.
    thread.once('error', () => {
      if (this.#waiting === thread) this.#waiting = undefined;
    });
    this.#waiting = thread;
    this.#expiry = this.#clock.arm(this.#clock.now() + IDLE_MS_MAX, () => void this.#drop());
  }

  async #drop(): Promise<void> {
    const thread = this.#waiting;
    this.#waiting = undefined;
    await thread?.terminate();
  }

  /** Ends the one that waits. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#expiry?.cancel();
    await this.#drop();
  }
}
