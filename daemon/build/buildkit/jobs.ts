/**
 * Builds by BuildKit's control API. One build is several calls, which name it by its reference: Solve, which ends with the
 * result; Status, which tells of the steps; and, when the client runs the frontend itself, calls of the gateway in
 * between, the last of which (Return) says which result it is.
 */
import { randomUUID } from 'node:crypto';
import type { Clock } from '#common/clock';
import { DrydockError } from '#common/errors';
import type { Lease } from '../../image/library.ts';
import type { Session } from './sessions.ts';
import { Trace } from './trace.ts';

/** Calls of one build may come in any order: each waits this long for Solve. */
const MEETING_MS_MAX = 5_000;
/** An ended build is remembered for a Status that comes late. */
const KEPT_MS = 10_000;

/** A result that calls of the gateway may name. */
export type JobResult = { kind: 'image'; imageId: string } | { kind: 'folder'; path: string };

/** One build under way. */
export class Job {
  readonly ref: string;
  readonly session: Session;
  readonly scratchPath: string;
  readonly signal: AbortSignal;
  readonly entitlements: ReadonlySet<string>;
  readonly lease: Lease;
  readonly trace: Trace;
  readonly #results = new Map<string, JobResult>();
  readonly #history: Uint8Array[] = [];
  readonly #listeners = new Set<() => void>();
  #ended = false;
  /** Called by the gateway: the client's own frontend is through. */
  settle!: { resolve(result: JobResult | undefined): void; reject(error: Error): void };
  readonly returned: Promise<JobResult | undefined>;

  constructor(
    parts: Pick<Job, 'ref' | 'session' | 'scratchPath' | 'signal' | 'entitlements' | 'lease'>,
    clock: Clock,
  ) {
    this.ref = parts.ref;
    this.session = parts.session;
    this.scratchPath = parts.scratchPath;
    this.signal = parts.signal;
    this.entitlements = parts.entitlements;
    this.lease = parts.lease;
    this.trace = new Trace(clock, parts.ref, (message) => {
      this.#history.push(message);
      this.#wake();
    });
    this.returned = new Promise((resolve, reject) => {
      this.settle = { resolve, reject };
    });
    this.returned.catch(() => {});
  }

  /** Keeps a result. Returns the name for it. */
  addResult(result: JobResult): string {
    const id = randomUUID();
    this.#results.set(id, result);
    return id;
  }

  /** @throws ERR_SESSION for a name of another build */
  result(id: string): JobResult {
    const result = this.#results.get(id);
    if (!result) throw new DrydockError('ERR_SESSION', `no such ref: ${id}`);
    return result;
  }

  end(): void {
    this.#ended = true;
    this.#wake();
  }

  #wake(): void {
    for (const listener of this.#listeners) listener();
  }

  /** Everything that was and will be told of the build, to its end. */
  async *messages(signal: AbortSignal): AsyncGenerator<Uint8Array> {
    for (let at = 0; ; ) {
      while (at < this.#history.length) yield this.#history[at++]!;
      if (this.#ended || signal.aborted) return;
      await new Promise<void>((resolve) => {
        const settle = (): void => {
          this.#listeners.delete(settle);
          signal.removeEventListener('abort', settle);
          resolve();
        };
        this.#listeners.add(settle);
        signal.addEventListener('abort', settle);
      });
    }
  }
}

/** All builds by reference. */
export class Jobs {
  readonly #clock: Clock;
  readonly #jobs = new Map<string, Job>();
  readonly #refused = new Set<string>();
  readonly #waiting = new Set<() => void>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** @throws ERR_CONFLICT when there is a build with this reference */
  add(job: Job): void {
    if (this.#jobs.has(job.ref)) throw new DrydockError('ERR_CONFLICT', `job ID ${job.ref} exists`);
    this.#jobs.set(job.ref, job);
    for (const wake of this.#waiting) wake();
  }

  /** There will be no build with this reference: nobody need wait for it. */
  refuse(ref: string): void {
    this.#refused.add(ref);
    for (const wake of this.#waiting) wake();
    this.#clock.arm(this.#clock.now() + KEPT_MS, () => this.#refused.delete(ref));
  }

  /** Ends a build for those who listen, and forgets it in a while. */
  end(job: Job): void {
    job.end();
    this.#clock.arm(this.#clock.now() + KEPT_MS, () => {
      if (this.#jobs.get(job.ref) === job) this.#jobs.delete(job.ref);
    });
  }

  /** The build with this reference, which may be about to come. @throws ERR_SESSION */
  async get(ref: string, signal: AbortSignal): Promise<Job> {
    const until = this.#clock.now() + MEETING_MS_MAX;
    for (;;) {
      const job = this.#jobs.get(ref);
      if (job) return job;
      if (signal.aborted || this.#refused.has(ref) || this.#clock.now() >= until)
        throw new DrydockError('ERR_SESSION', `no such job ${ref}`);
      await new Promise<void>((resolve) => {
        const settle = (): void => {
          this.#waiting.delete(settle);
          signal.removeEventListener('abort', settle);
          timer.cancel();
          resolve();
        };
        const timer = this.#clock.arm(until, settle);
        this.#waiting.add(settle);
        signal.addEventListener('abort', settle);
      });
    }
  }
}
