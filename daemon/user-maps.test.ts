import { describe, expect, it } from 'vitest';
import { remappedFolder, remappedUsers } from './user-maps.ts';

const files = {
  passwd:
    'root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/:/bin/sh\ndockremap:x:999:990::/:/bin/false\nlone:x:7:7::/:\n',
  group: 'root:x:0:\nann:x:1000:\nstaff:x:50:\ndockremap:x:990:\n',
  subuid: 'ann:100000:1000\n# odd\nann:x:y\n1000:300000:5\ndockremap:200000:65536\n',
  subgid: 'ann:400000:1000\nstaff:500000:10\n990:600000:65536\n',
};

describe('userns-remap', () => {
  it('gives containers the numbers of a user and of the group with its name, one range after the other', () => {
    const maps = remappedUsers('ann', files);
    expect(maps).toEqual({
      uids: [
        { inside: 0, outside: 100_000, length: 1000 },
        { inside: 1000, outside: 300_000, length: 5 },
      ],
      gids: [{ inside: 0, outside: 400_000, length: 1000 }],
    });
    expect(remappedFolder(maps)).toBe('100000.400000');
  });

  it('takes numbers, and a group of its own', () => {
    expect(remappedUsers('1000:50', files)).toMatchObject({
      uids: [{ outside: 100_000 }, { outside: 300_000 }],
      gids: [{ outside: 500_000 }],
    });
  });

  it('means dockremap by default', () => {
    expect(remappedFolder(remappedUsers('default', files))).toBe('200000.600000');
  });

  it.each([
    ['nobody', /there is no user nobody/],
    ['lone', /\/etc\/subuid has no numbers for the user lone: .*lone:100000:65536/],
    ['ann:wheel', /there is no group wheel/],
    ['ann:', /is not user or user:group/],
  ])('says of %s what is missing', (wish, message) => {
    expect(() => remappedUsers(wish, files)).toThrow(message);
  });

  it('says how to make the default user', () => {
    expect(() => remappedUsers('default', { ...files, passwd: '' })).toThrow(/useradd --system/);
  });
});
