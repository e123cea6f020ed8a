/**
 * Threads for archives. Starting one takes longer than a small copy, so one that has done its job waits for the next for a
 * while: copies come in rows. Each does one job at a time.
 */
import { Worker } from 'node:worker_threads';
import type { Clock, Timer } from '#common/clock';
import { compiledEntry } from '#common/entry';
import type { ArchiveJob, FromArchive, ToArchive } from './worker.ts';

const IDLE_MS_MAX = 10_000;

/** A thread, and what it has said that nobody has taken yet. */
export class ArchiveThread {
  readonly #worker: Worker;
  readonly #answers: FromArchive[] = [];
  #wake = (): void => {};
  #busy = false;
  #gone = false;

  constructor() {
    this.#worker = new Worker(compiledEntry('daemon/archive/worker'), {
      name: 'drydock-archive',
      execArgv: [],
      trackUnmanagedFds: false,
    });
    this.#worker.on('message', (answer: FromArchive) => this.#take(answer));
    this.#worker.on('error', (error) => this.#lost(error.message));
    this.#worker.on('exit', () => this.#lost('the thread has ended'));
  }

  #take(answer: FromArchive): void {
    if (answer.type === 'end' || answer.type === 'failed') this.#busy = false;
    this.#answers.push(answer);
    this.#wake();
  }

  #lost(message: string): void {
    this.#gone = true;
    this.#take({ type: 'failed', code: undefined, message });
  }

  /** Whether it can do a job. */
  get usable(): boolean {
    return !this.#gone;
  }

  /** Starts a job. While it has one, the thread keeps the process alive. */
  begin(job: ArchiveJob): void {
    this.#busy = true;
    this.#answers.length = 0;
    this.#worker.ref();
    this.#worker.postMessage(job);
  }

  send(message: ToArchive, transferred: ArrayBuffer[] = []): void {
    this.#worker.postMessage(message, transferred);
  }

  /** What it says next. */
  async answer(): Promise<FromArchive> {
    while (this.#answers.length === 0)
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    return this.#answers.shift()!;
  }

  /** Ends what it still does, and waits until it has let go of the container's files. */
  async settle(): Promise<void> {
    if (this.#busy) this.send({ type: 'abort' });
    while (this.#busy) await this.answer();
    this.#worker.unref();
  }

  async end(): Promise<void> {
    await this.#worker.terminate();
  }
}

/** See the module's head. */
export class ArchiveThreads {
  readonly #clock: Clock;
  #waiting: ArchiveThread | undefined;
  #expiry: Timer | undefined;
  #closed = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** A thread without a job; it is to be released. */
  take(): ArchiveThread {
    this.#expiry?.cancel();
    const thread = this.#waiting?.usable ? this.#waiting : new ArchiveThread();
    this.#waiting = undefined;
    return thread;
  }

  /** Takes a thread back, whether it has finished its job or not. */
  async release(thread: ArchiveThread): Promise<void> {
    await thread.settle();
    if (this.#closed || this.#waiting || !thread.usable) return void thread.end();
    this.#waiting = thread;
    this.#expiry = this.#clock.arm(this.#clock.now() + IDLE_MS_MAX, () => void this.#drop());
  }

  async #drop(): Promise<void> {
    const thread = this.#waiting;
    this.#waiting = undefined;
    await thread?.end();
  }

  /** Ends the one that waits. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#expiry?.cancel();
    await this.#drop();
  }
}
