import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseGroup, parsePasswd, resolveIdentity } from './users.ts';

const passwd = parsePasswd(
  'root:x:0:0:root:/root:/bin/sh\n# comment:x:1:1::/:\nbroken\nneg:x:-1:0::/:\nbig:x:4294967295:0::/:\n' +
    'bob:x:1000:1001:Bob:/home/bob:/bin/sh\n1234:x:77:77::/seven:\nnohome:x:5:5:::\n',
);
const group = parseGroup('root:x:0:\nbob:x:1001:\nstaff:x:50:bob,alice\naudio:x:29:alice\nshort:x:60\n');

describe('passwd and group files', () => {
  it('give their well-formed lines', () => {
    expect(passwd.map(({ name }) => name)).toEqual(['root', 'bob', '1234', 'nohome']);
    expect(group.find(({ name }) => name === 'staff')).toEqual({
      name: 'staff',
      gid: 50,
      members: ['bob', 'alice'],
    });
  });

  it('never make the parsers throw', () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        parsePasswd(text);
        parseGroup(text);
      }),
    );
  });
});

describe('a user', () => {
  it.each([
    ['', [], { uid: 0, gid: 0, groups: [0], home: '/root' }],
    ['bob', [], { uid: 1000, gid: 1001, groups: [1001, 50], home: '/home/bob' }],
    ['1000', [], { uid: 1000, gid: 1001, groups: [1001, 50], home: '/home/bob' }],
    ['bob:audio', [], { uid: 1000, gid: 29, groups: [29], home: '/home/bob' }],
    ['bob:5555', [], { uid: 1000, gid: 5555, groups: [5555], home: '/home/bob' }],
    [':audio', [], { uid: 0, gid: 29, groups: [29], home: '/root' }],
    ['31337', [], { uid: 31337, gid: 0, groups: [0], home: '/' }],
    // A name made of digits counts before the number.
    ['1234', [], { uid: 77, gid: 77, groups: [77], home: '/seven' }],
    ['nohome', [], { uid: 5, gid: 5, groups: [5], home: '/' }],
    ['bob', ['audio', '50', '99'], { uid: 1000, gid: 1001, groups: [1001, 50, 29, 99], home: '/home/bob' }],
  ])('%j with groups %j', (user, groups, identity) => {
    expect(resolveIdentity(user, groups, passwd, group)).toEqual(identity);
  });

  it.each([
    ['alice', [], 'unable to find user alice: no matching entries in passwd file'],
    ['4294967295', [], 'unable to find user 4294967295: no matching entries in passwd file'],
    ['-5', [], 'unable to find user -5: no matching entries in passwd file'],
    ['bob:nobody', [], 'unable to find group nobody: no matching entries in group file'],
    ['bob', ['nobody'], 'unable to find group nobody: no matching entries in group file'],
  ])('%j with groups %j is not there', (user, groups, message) => {
    expect(() => resolveIdentity(user, groups, passwd, group)).toThrow(message);
  });
});
