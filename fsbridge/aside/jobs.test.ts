import { describe, expect, it } from 'vitest';
import { JOBS_MAX, type Job, Jobs, READ, SYNC, SYNC_ALL } from './jobs.ts';

describe('calls left to helpers', () => {
  it('reach one helper each, whole, by way of the shared memory alone', () => {
    const jobs = new Jobs();
    const helper = new Jobs(jobs.shared);
    const made: Job[] = [];
    expect(jobs.put(7, READ, 2 ** 40, 10, 2 ** 50, 4096)).toBe(true);
    expect(jobs.put(8, SYNC_ALL, 3, 12)).toBe(true);
    for (let i = 0; i < 2; i++) helper.next((job) => made.push(job));
    expect(made).toEqual([
      { device: 7, call: READ, unique: 2 ** 40, operands: [10, 2 ** 50, 4096] },
      expect.objectContaining({ device: 8, call: SYNC_ALL, unique: 3 }),
    ]);
  });

  it('are refused once as many wait as there is room for, and taken again when one is made', () => {
    const jobs = new Jobs();
    for (let i = 0; i < JOBS_MAX; i++) expect(jobs.put(7, SYNC, i, 1, 0)).toBe(true);
    expect(jobs.put(7, SYNC, 100, 1, 0)).toBe(false);
    jobs.next(() => {});
    expect(jobs.put(7, SYNC, 100, 1, 0)).toBe(true);
  });

  it('hold up the end of their own mount only', () => {
    const jobs = new Jobs();
    jobs.put(7, SYNC, 1, 1, 0);
    jobs.drain(8);
    jobs.next(() => {});
    jobs.drain(7);
  });
});
