import { expect, it } from 'vitest';
import { rootlessMaps } from './rootless.ts';

const user = { uid: 1000, gid: 1001 };
const files = {
  passwd: 'ann:x:1000:1001::/home/ann:/bin/sh\n',
  group: 'ann:x:1001:\n',
  subuid: 'ann:100000:65536\n1000:300000:10\n',
  subgid: 'ann:200000:65536\n',
};

it('makes the user root, and its subordinate numbers the others', () => {
  expect(rootlessMaps(user, files, () => true)).toEqual({
    uids: [
      { inside: 0, outside: 1000, length: 1 },
      { inside: 1, outside: 100_000, length: 65_536 },
      { inside: 65_537, outside: 300_000, length: 10 },
    ],
    gids: [
      { inside: 0, outside: 1001, length: 1 },
      { inside: 1, outside: 200_000, length: 65_536 },
    ],
  });
});

it('has root only where there are no numbers, or nothing that may map them, and says how to get more', () => {
  const only = {
    uids: [{ inside: 0, outside: 1000, length: 1 }],
    gids: [{ inside: 0, outside: 1001, length: 1 }],
  };
  expect(rootlessMaps(user, { ...files, subgid: '' }, () => true)).toEqual({
    ...only,
    warning: expect.stringMatching(/usermod --add-subuids .* ann/),
  });
  expect(rootlessMaps(user, files, (program) => program !== 'newgidmap')).toEqual({
    ...only,
    warning: expect.stringMatching(/apt-get install uidmap/),
  });
  expect(rootlessMaps(user, { ...files, passwd: '', subuid: '' }, () => true).warning).toMatch(/for 1000 /);
});
