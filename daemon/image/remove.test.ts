import { describe, expect, it } from 'vitest';
import { planRemoval, type RemovalFacts } from './remove.ts';

const ID = `sha256:${'a'.repeat(64)}`;
const CHILD = `sha256:${'b'.repeat(64)}`;
const PARENT = `sha256:${'c'.repeat(64)}`;
const DIGEST = `sha256:${'d'.repeat(64)}`;
const name = (text: string): string => `docker.io/library/${text}`;

interface World {
  names?: string[];
  children?: string[];
  parent?: string;
  users?: { id: string; running: boolean }[];
}

const facts = ({ names = [], children = [], parent, users = [] }: World): RemovalFacts => ({
  referencesOf: (id) => (id === ID ? names.map(name) : []),
  childrenOf: (id) => (id === ID ? children : id === PARENT ? [ID] : []),
  parentOf: (id) => (id === ID ? parent : undefined),
  users: (id) => (id === ID ? users : []),
});

const running = { id: 'f'.repeat(64), running: true };
const stopped = { id: 'e'.repeat(64), running: false };
const plain = { force: false, prune: true };
const forced = { force: true, prune: true };

// After moby's rules; see the module.
const PLANS: [
  what: string,
  world: World,
  by: string | undefined,
  options: typeof plain,
  untag: string[],
  gone: string[],
][] = [
  ['the only name', { names: ['a:1'] }, 'a:1', plain, ['a:1'], [ID]],
  ['one name of two', { names: ['a:1', 'a:2'] }, 'a:1', plain, ['a:1'], []],
  [
    'a name with digests of its repository',
    { names: ['a:1', `a@${DIGEST}`] },
    'a:1',
    plain,
    ['a:1', `a@${DIGEST}`],
    [ID],
  ],
  [
    'a name beside a digest of another repository',
    { names: ['a:1', `b@${DIGEST}`] },
    'a:1',
    plain,
    ['a:1'],
    [],
  ],
  ['the id of an image with one name', { names: ['a:1'] }, undefined, plain, ['a:1'], [ID]],
  ['the id of an image without names', {}, undefined, plain, [], [ID]],
  ['the id by force, with two names', { names: ['a:1', 'b:1'] }, undefined, forced, ['a:1', 'b:1'], [ID]],
  ['the name of an image with children', { names: ['a:1'], children: [CHILD] }, 'a:1', plain, ['a:1'], []],
  ['the name of a used image by force', { names: ['a:1'], users: [running] }, 'a:1', forced, ['a:1'], []],
  [
    'the name of a stopped container’s image by force',
    { names: ['a:1'], users: [stopped] },
    'a:1',
    forced,
    ['a:1'],
    [ID],
  ],
  [
    'one name of a used image with two',
    { names: ['a:1', 'b:1'], users: [running] },
    'a:1',
    plain,
    ['a:1'],
    [],
  ],
  [
    'the id of a stopped container’s image by force',
    { names: ['a:1'], users: [stopped] },
    undefined,
    forced,
    ['a:1'],
    [ID],
  ],
  [
    'an image with a parent that nothing needs',
    { names: ['a:1'], parent: PARENT },
    'a:1',
    plain,
    ['a:1'],
    [ID, PARENT],
  ],
  [
    'an image with a parent, without pruning',
    { names: ['a:1'], parent: PARENT },
    'a:1',
    { force: false, prune: false },
    ['a:1'],
    [ID],
  ],
];

const CONFLICTS: [
  what: string,
  world: World,
  by: string | undefined,
  options: typeof plain,
  message: string,
][] = [
  [
    'the only name of a used image',
    { names: ['a:1'], users: [stopped] },
    'a:1',
    plain,
    'unable to remove repository reference "a:1" (must force) - container eeeeeeeeeeee is using its referenced image aaaaaaaaaaaa',
  ],
  [
    'the id of an image with two names',
    { names: ['a:1', 'b:1'] },
    undefined,
    plain,
    'unable to delete aaaaaaaaaaaa (must be forced) - image is referenced in multiple repositories',
  ],
  [
    'the id of a stopped container’s image',
    { names: ['a:1'], users: [stopped] },
    undefined,
    plain,
    'unable to delete aaaaaaaaaaaa (must be forced) - image is being used by stopped container eeeeeeeeeeee',
  ],
  [
    'the id of a running container’s image by force',
    { users: [running] },
    undefined,
    forced,
    'unable to delete aaaaaaaaaaaa (cannot be forced) - image is being used by running container ffffffffffff',
  ],
  [
    'the id of an image with children',
    { children: [CHILD] },
    undefined,
    forced,
    'unable to delete aaaaaaaaaaaa (cannot be forced) - image has dependent child images',
  ],
];

describe('docker rmi', () => {
  it.each(PLANS)('of %s', (_what, world, by, options, untag, gone) => {
    expect(planRemoval(facts(world), ID, by && name(by), options)).toEqual({
      untag: untag.map(name),
      delete: gone,
    });
  });

  it.each(CONFLICTS)('of %s is refused', (_what, world, by, options, message) => {
    expect(() => planRemoval(facts(world), ID, by && name(by), options)).toThrow(
      expect.objectContaining({ code: 'ERR_IMAGE_CONFLICT', message: `conflict: ${message}` }),
    );
  });
});
