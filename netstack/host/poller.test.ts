import { beforeEach, expect, it } from 'vitest';
import type { Readiness } from '#common/native/readiness';
import { Poller } from './poller.ts';

/** Time-outs that were asked for, and what each of them brings. */
let asked: number[];
let answers: number[];

const readiness: Readiness = {
  add() {},
  modify() {},
  remove() {},
  wait(timeoutMs) {
    asked.push(timeoutMs);
    return answers.shift() ?? 0;
  },
  eventFd: () => 0,
  eventTag: () => 0,
  eventMask: () => 0,
  close() {},
};

beforeEach(() => {
  asked = [];
  answers = [];
});

/** No machine is so slow that a look takes this long. */
const ALERT_MS = 10_000;

it('sleeps at once until an answer has come soon, and looks for the next before it sleeps', () => {
  const poller = new Poller(readiness, ALERT_MS);
  answers = [0, 1];
  poller.wait(70);
  expect(asked).toEqual([0, 70]);
  asked = [];
  answers = [0, 0, 0, 1];
  poller.wait(70);
  expect(asked).toEqual([0, 0, 0, 0]);
});

it('never looks where staying awake is not wanted', () => {
  const poller = new Poller(readiness, 0);
  for (let i = 0; i < 3; i++) {
    asked = [];
    answers = [0, 1];
    poller.wait(70);
    expect(asked).toEqual([0, 70]);
  }
});

it('does not sleep while something is deferred', () => {
  const poller = new Poller(readiness, ALERT_MS);
  poller.defer(() => {});
  poller.wait(70);
  expect(asked).toEqual([0]);
});
