import { expect, test } from 'vitest';
import { hostError } from './errors.ts';

test.each([
  // A machine or a process without descriptors, buffers or memory: something is given up, and what wants one waits.
  ['EMFILE', 'EMFILE'],
  ['ENFILE', 'EMFILE'],
  ['ENOBUFS', 'EMFILE'],
  ['ENOMEM', 'EMFILE'],
  ['ECONNREFUSED', 'ECONNREFUSED'],
  ['EHOSTDOWN', 'EHOSTUNREACH'],
  ['EPERM', 'EACCES'],
  ['EAFNOSUPPORT', 'ENETUNREACH'],
  ['ENOTTY', 'EIO'],
  [undefined, 'EIO'],
])('%s is %s to a flow', (name, error) => {
  expect(hostError(name)).toBe(error);
});
