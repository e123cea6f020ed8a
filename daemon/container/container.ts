/** One container in the daemon's memory: its record and everything that lives only while the daemon does. */
import type { Clock, Timer } from '#common/clock';
import type { Jail, JailProcess } from '../runtime/runtime.ts';
import type { HealthMonitor } from './health.ts';
import { ProcessIo } from './io.ts';
import { RestartPolicy } from './lifecycle.ts';
import type { ContainerLog } from './logs.ts';
import { Turns } from './turns.ts';
import type { ContainerRecord } from './types.ts';

/** What a client of POST /containers/ID/wait waits for. */
export type WaitCondition = 'not-running' | 'next-exit' | 'removed';

/** The answer of wait. */
export interface WaitResult {
  StatusCode: number;
  Error?: { Message: string };
}

/** A container. */
export class Container {
  readonly record: ContainerRecord;
  readonly log: ContainerLog | undefined;
  readonly io: ProcessIo = new ProcessIo();
  readonly turns: Turns = new Turns();
  readonly restarts: RestartPolicy = new RestartPolicy();
  jail: Jail | undefined;
  process: JailProcess | undefined;
  /** Probes the current run. */
  health: HealthMonitor | undefined;
  /** When the current run began, on the monotonic clock. */
  startedMs = 0;
  /** The start that a restart policy has scheduled. */
  restartTimer: Timer | undefined;
  /** Resolves when the current run has ended and all its resources are free. */
  ended: Promise<void> = Promise.resolve();
  removed = false;
  /** A user asked for the end of this run: no policy starts it again. */
  stopping = false;
  /** `docker restart` is under way: --rm must wait. */
  restartAsked = false;
  readonly #waiters = new Set<{ condition: WaitCondition; resolve: (result: WaitResult) => void }>();

  constructor(record: ContainerRecord, log: ContainerLog | undefined) {
    this.record = record;
    this.log = log;
  }

  get id(): string {
    return this.record.id;
  }

  get name(): string {
    return this.record.name;
  }

  /** Whether a process runs, is frozen, or waits to be restarted: what wait's `not-running` waits out. */
  get up(): boolean {
    return ['running', 'paused', 'restarting'].includes(this.record.state.status);
  }

  /** Resolves when the condition holds, or never when the signal is aborted first. */
  wait(condition: WaitCondition, signal: AbortSignal): Promise<WaitResult> {
    return new Promise((resolve) => {
      const { state } = this.record;
      if (condition === 'not-running' && !this.up) return resolve(this.#result(state.error));
      const waiter = { condition, resolve };
      this.#waiters.add(waiter);
      signal.addEventListener('abort', () => this.#waiters.delete(waiter), { once: true });
    });
  }

  #result(error: string): WaitResult {
    return {
      StatusCode: this.record.state.exitCode,
      ...(error !== '' && { Error: { Message: error } }),
    };
  }

  /** Whether the container's run has ended, all freed, within a time. */
  async endedWithin(clock: Clock, ms: number): Promise<boolean> {
    let timer = { cancel: (): void => {} };
    const timeout = new Promise<boolean>((resolve) => {
      timer = clock.arm(clock.now() + ms, () => resolve(false));
    });
    const ended = this.ended.then(
      () => true,
      () => true,
    );
    try {
      return await Promise.race([ended, timeout]);
    } finally {
      timer.cancel();
    }
  }

  /**
   * Tells clients that the container's process has ended, or that a start has failed, whose reason is told to who has asked
   * for it: the CLI would tell it twice. Those that wait for `not-running` are told also when a policy will start it again
   * (moby: State.SetRestarting).
   */
  notifyExit(): void {
    for (const waiter of this.#waiters) {
      if (waiter.condition === 'removed') continue;
      this.#waiters.delete(waiter);
      waiter.resolve(this.#result(''));
    }
  }

  /** Tells all clients that the container is gone. */
  notifyRemoved(): void {
    this.removed = true;
    for (const waiter of this.#waiters) waiter.resolve(this.#result(''));
    this.#waiters.clear();
  }
}
