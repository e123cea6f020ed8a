import { expect, it } from 'vitest';
import { ManualClock } from '#common/clock';
import { HealthMonitor, newHealth, probeArgs } from './health.ts';
import type { HealthConfig, HealthState } from './types.ts';

const SECOND = 1e9;

/** A monitor whose probes a test answers; `turn` lets pending promises run. */
function monitor(config: HealthConfig): {
  clock: ManualClock;
  answers: (number | 'never')[];
  states: HealthState[];
  advance(seconds: number): Promise<void>;
  stop(): void;
  probes: () => number;
} {
  const clock = new ManualClock();
  const answers: (number | 'never')[] = [];
  const states: HealthState[] = [];
  let probes = 0;
  const made = new HealthMonitor(config, newHealth(), {
    clock,
    stamp: () => new Date(clock.wallMs()).toISOString(),
    probe(signal) {
      probes++;
      const answer = answers.shift() ?? 0;
      if (answer !== 'never') return Promise.resolve({ exitCode: answer, output: `code ${answer}` });
      return new Promise((resolve) =>
        signal.addEventListener('abort', () => resolve({ exitCode: 137, output: '' })),
      );
    },
    changed: (state) => void states.push(state),
  });
  const turn = async (): Promise<void> => {
    for (let n = 0; n < 10; n++) await Promise.resolve();
  };
  return {
    clock,
    answers,
    states,
    probes: () => probes,
    stop: () => made.stop(),
    async advance(seconds) {
      for (let n = 0; n < seconds * 2; n++) {
        clock.advance(500);
        await turn();
      }
    },
  };
}

const status = (states: HealthState[]): string =>
  states.map((s) => `${s.Status}/${s.FailingStreak}`).join(' ');

it('is healthy after the first success and unhealthy after so many failures in a row', async () => {
  const m = monitor({ Interval: SECOND, Retries: 2 });
  m.answers.push(0, 1, 0, 1, 1, 0);
  await m.advance(6);
  expect(status(m.states)).toBe('healthy/0 healthy/1 healthy/0 healthy/1 unhealthy/2 healthy/0');
});

it('in the start period failures count nothing, probes come at the start interval, and success ends it', async () => {
  const m = monitor({ Interval: 10 * SECOND, StartPeriod: 5 * SECOND, StartInterval: SECOND, Retries: 1 });
  m.answers.push(1, 1, 0, 1);
  await m.advance(3);
  expect(status(m.states)).toBe('starting/0 starting/0 healthy/0');
  await m.advance(10);
  expect(status(m.states.slice(3))).toBe('unhealthy/1');
});

it('a probe that takes too long is ended and counts as a failure', async () => {
  const m = monitor({ Interval: SECOND, Timeout: 2 * SECOND, Retries: 1 });
  m.answers.push('never');
  await m.advance(3);
  expect(m.states.at(-1)).toMatchObject({
    Status: 'unhealthy',
    Log: [{ ExitCode: -1, Output: 'Health check exceeded timeout (2s)' }],
  });
});

it('keeps the last five results', async () => {
  const m = monitor({ Interval: SECOND });
  m.answers.push(1, 2, 3, 4, 5, 6, 7);
  await m.advance(7);
  expect(m.states.at(-1)!.Log.map((l) => l.ExitCode)).toEqual([3, 4, 5, 6, 7]);
});

it('stops: no probe comes after, and one under way is ended without a result', async () => {
  const m = monitor({ Interval: SECOND });
  m.answers.push('never');
  await m.advance(1);
  m.stop();
  await m.advance(100);
  expect([m.probes(), m.states.length]).toEqual([1, 0]);
});

it.each([
  [undefined, undefined],
  [{ Test: ['NONE'] }, undefined],
  [{ Test: [] }, undefined],
  [{ Test: ['CMD', 'a', 'b'] }, ['a', 'b']],
  [{ Test: ['CMD-SHELL', 'a b'] }, ['/bin/sh', '-c', 'a b']],
])('the command of %j', (config, expected) => {
  expect(probeArgs(config, undefined)).toEqual(expected);
});
