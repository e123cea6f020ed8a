import { describe, expect, it } from 'vitest';
import { Alertness } from './alertness.ts';

describe('how long a server stays awake', () => {
  it('is not at all before anything came', () => {
    expect(new Alertness(0.05).ms).toBe(0);
  });

  it('is the limit once a request came soon, though the server had to be woken', () => {
    const alertness = new Alertness(0.05);
    alertness.waited(0.09);
    expect(alertness.ms).toBe(0.05);
  });

  it('is half as long after each wait in vain, and soon nothing', () => {
    const alertness = new Alertness(0.05);
    alertness.waited(0.03);
    const seen = Array.from({ length: 4 }, () => {
      alertness.waited(20);
      return alertness.ms;
    });
    expect(seen).toEqual([0.025, 0.0125, 0, 0]);
  });

  it('is never with a limit of nothing', () => {
    const alertness = new Alertness(0);
    alertness.waited(0.001);
    expect(alertness.ms).toBe(0);
  });
});
