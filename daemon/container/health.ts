/**
 * Healthchecks: a probe now and then, and what its results add up to. The rules are a pure function (moby:
 * daemon/health.go); the monitor adds time.
 */
import type { Clock, Timer } from '#common/clock';
import { errorMessage } from '#common/errors';
import { HEALTH_LOG_MAX, HEALTH_OUTPUT_BYTES_MAX } from '../limits.ts';
import type { HealthConfig, HealthState } from './types.ts';

const DEFAULTS = {
  intervalMs: 30_000,
  timeoutMs: 30_000,
  startPeriodMs: 0,
  startIntervalMs: 5_000,
  retries: 3,
};

/** What a probe said. Exit code 0 is healthy; -1 is a probe that could not be run or took too long. */
export interface ProbeResult {
  startedAt: string;
  endedAt: string;
  exitCode: number;
  output: string;
}

/** The probe's command, or undefined when there is none. `shell` is for CMD-SHELL. */
export function probeArgs(
  config: HealthConfig | undefined,
  shell: string[] | undefined,
): string[] | undefined {
  const [kind, ...rest] = config?.Test ?? [];
  if (kind === 'CMD' && rest.length > 0) return rest;
  if (kind === 'CMD-SHELL' && rest.length > 0)
    return [...(shell?.length ? shell : ['/bin/sh', '-c']), rest.join(' ')];
  return undefined;
}

/** The state before the first probe. */
export function newHealth(): HealthState {
  return { Status: 'starting', FailingStreak: 0, Log: [] };
}

/** The state after a probe. Failures within the start period of a container that was never healthy count nothing. */
export function afterProbe(
  state: HealthState,
  result: ProbeResult,
  rules: { retries: number; inStartPeriod: boolean },
): HealthState {
  const entry = {
    Start: result.startedAt,
    End: result.endedAt,
    ExitCode: result.exitCode,
    Output: result.output.slice(0, HEALTH_OUTPUT_BYTES_MAX),
  };
  const Log = [...state.Log, entry].slice(-HEALTH_LOG_MAX);
  if (result.exitCode === 0) return { Status: 'healthy', FailingStreak: 0, Log };
  if (state.Status === 'starting' && rules.inStartPeriod) return { ...state, Log };
  const FailingStreak = state.FailingStreak + 1;
  return { Status: FailingStreak >= rules.retries ? 'unhealthy' : state.Status, FailingStreak, Log };
}

/** What a monitor works with. */
export interface HealthDeps {
  clock: Clock;
  /** Wall time as text. */
  stamp(): string;
  /** Runs the probe once. Must end when the signal is aborted. */
  probe(signal: AbortSignal): Promise<{ exitCode: number; output: string }>;
  changed(state: HealthState, before: HealthState['Status']): void;
}

/** Probes one running container until it is stopped. */
export class HealthMonitor {
  readonly #deps: HealthDeps;
  readonly #times: typeof DEFAULTS;
  readonly #startedMs: number;
  #state: HealthState;
  #timer: Timer | undefined;
  #probing: AbortController | undefined;
  #stopped = false;

  constructor(config: HealthConfig, state: HealthState, deps: HealthDeps) {
    const ms = (nano: number | undefined, missing: number): number => (nano ? nano / 1e6 : missing);
    this.#times = {
      intervalMs: ms(config.Interval, DEFAULTS.intervalMs),
      timeoutMs: ms(config.Timeout, DEFAULTS.timeoutMs),
      startPeriodMs: ms(config.StartPeriod, DEFAULTS.startPeriodMs),
      startIntervalMs: ms(config.StartInterval, DEFAULTS.startIntervalMs),
      retries: config.Retries || DEFAULTS.retries,
    };
    this.#deps = deps;
    this.#state = state;
    this.#startedMs = deps.clock.now();
    this.#next();
  }

  #inStartPeriod(): boolean {
    return this.#deps.clock.now() - this.#startedMs < this.#times.startPeriodMs;
  }

  #next(): void {
    const { clock } = this.#deps;
    const { intervalMs, startIntervalMs } = this.#times;
    const waitMs = this.#state.Status === 'starting' && this.#inStartPeriod() ? startIntervalMs : intervalMs;
    this.#timer = clock.arm(clock.now() + waitMs, () => void this.#run());
  }

  async #run(): Promise<void> {
    const startedAt = this.#deps.stamp();
    const result = await this.#probeInTime();
    if (this.#stopped) return;
    const before = this.#state.Status;
    this.#state = afterProbe(
      this.#state,
      { startedAt, endedAt: this.#deps.stamp(), ...result },
      { retries: this.#times.retries, inStartPeriod: this.#inStartPeriod() },
    );
    this.#deps.changed(this.#state, before);
    this.#next();
  }

  async #probeInTime(): Promise<{ exitCode: number; output: string }> {
    const { clock } = this.#deps;
    const { timeoutMs } = this.#times;
    const probing = new AbortController();
    this.#probing = probing;
    let late = false;
    const timer = clock.arm(clock.now() + timeoutMs, () => {
      late = true;
      probing.abort();
    });
    try {
      const result = await this.#deps.probe(probing.signal);
      return late ? { exitCode: -1, output: `Health check exceeded timeout (${timeoutMs / 1000}s)` } : result;
    } catch (error) {
      return { exitCode: -1, output: errorMessage(error) };
    } finally {
      timer.cancel();
      this.#probing = undefined;
    }
  }

  /** Ends the monitor, and a probe that is under way. */
  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
    this.#probing?.abort();
  }
}
