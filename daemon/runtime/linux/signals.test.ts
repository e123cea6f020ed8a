import { expect, it } from 'vitest';
import { signalNumber } from './signals.ts';

it.each([
  ['SIGKILL', 9],
  ['kill', 9],
  ['15', 15],
  [15, 15],
  ['SIGRTMIN+3', 37],
  ['RTMAX', 64],
  ['RTMAX-1', 63],
])('%s is %i', (signal, number) => expect(signalNumber(signal)).toBe(number));

it.each(['', '0', '65', 'SIGNOPE', '9x', 'RTMIN+99', '-9', 'CONSTRUCTOR'])('%j is refused', (signal) => {
  expect(() => signalNumber(signal)).toThrow(/Invalid signal/);
});
