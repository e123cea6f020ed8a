import { describe, expect, it } from 'vitest';
import { historyOf, type ImageQuery, selectImages, sharedBytes } from './listing.ts';
import type { Image } from './store.ts';

const image = (id: string, fields: Partial<Image> = {}): Image => ({
  id,
  tags: [],
  digests: [],
  config: {},
  architecture: 'amd64',
  os: 'linux',
  created: '2024-01-01T00:00:00Z',
  history: [],
  diffIds: [],
  layerBytes: [],
  sizeBytes: 0,
  ...fields,
});
const query = (fields: Partial<ImageQuery> = {}): ImageQuery => ({
  all: false,
  dangling: undefined,
  labels: [],
  references: [],
  createdBefore: undefined,
  createdAfter: undefined,
  ...fields,
});

const IMAGES = [
  image('base', { tags: ['a:1', 'example.com/x/a:2'], created: '2024-01-01T00:00:00Z' }),
  image('step', { parent: 'base', created: '2024-01-02T00:00:00Z' }),
  image('top', {
    parent: 'step',
    tags: ['b:latest'],
    created: '2024-01-03T00:00:00Z',
    config: { Labels: { k: 'v' } },
  }),
  image('lost', { created: '2024-01-04T00:00:00Z' }),
  image('byDigest', { digests: [`c@sha256:${'a'.repeat(64)}`], created: '2024-01-05T00:00:00Z' }),
];

describe('docker images', () => {
  it.each(['[', '[]a', 'a\\', '[a-', '[-a]'])('refuses the pattern %s, as Go does', (pattern) => {
    expect(() => selectImages(IMAGES, query({ references: [pattern] }))).toThrow('syntax error in pattern');
  });

  it.each<[what: string, fields: Partial<ImageQuery>, ids: string[]]>([
    ['hides what others were built on and has no name', {}, ['base', 'top', 'lost', 'byDigest']],
    ['shows everything with --all', { all: true }, ['base', 'step', 'top', 'lost', 'byDigest']],
    ['by a pattern with a class', { references: ['[^b-z]'] }, ['base']],
    ['by a pattern with an escape', { references: ['\\b:l?t*'] }, ['top']],
    ['of dangling ones', { dangling: true }, ['lost']],
    ['of those that are not dangling', { dangling: false }, ['base', 'step', 'top', 'byDigest']],
    ['with a label', { labels: ['k'] }, ['top']],
    ['with a label and its value', { labels: ['k=v'] }, ['top']],
    ['with another value', { labels: ['k=w'] }, []],
    ['of a name', { references: ['a'] }, ['base']],
    ['of a name and tag', { references: ['b:latest'] }, ['top']],
    ['of a pattern', { references: ['?:*'] }, ['base', 'top']],
    ['of a pattern that stops at slashes', { references: ['*.com/*'] }, []],
    ['of a pattern with slashes', { references: ['*/x/*:2'] }, ['base']],
    ['made before another', { createdBefore: '2024-01-02T00:00:00Z' }, ['base']],
    ['made after another', { createdAfter: '2024-01-03T00:00:00Z' }, ['lost', 'byDigest']],
  ])('%s', (_what, fields, ids) => {
    expect(selectImages(IMAGES, query(fields)).map(({ id }) => id)).toEqual(ids);
  });

  it('shows of an image only the names that were asked for', () => {
    expect(selectImages(IMAGES, query({ references: ['*/*/*'] }))[0]!.tags).toEqual(['example.com/x/a:2']);
  });

  it('counts what images share', () => {
    const shared = sharedBytes([
      image('a', { diffIds: ['x', 'y'], layerBytes: [10, 1] }),
      image('b', { diffIds: ['x', 'x', 'z'], layerBytes: [10, 10, 2] }),
    ]);
    expect([...shared]).toEqual([
      ['a', 10],
      ['b', 20],
    ]);
  });
});

describe('docker history', () => {
  it('is newest first, with the sizes of layers and the ids of what is here', () => {
    const step = { created: '2024-01-01T00:00:01Z' };
    const top = image('top', {
      tags: ['b:1'],
      parent: 'base',
      layerBytes: [100, 7],
      history: [
        { ...step, created_by: 'base', comment: 'c' },
        { ...step, created_by: 'env', empty_layer: true },
        { created_by: 'run' },
      ],
    });
    expect(historyOf(top, (child) => (child.id === 'top' ? IMAGES[0] : undefined))).toEqual([
      { Id: 'top', Created: 0, CreatedBy: 'run', Tags: ['b:1'], Size: 7, Comment: '' },
      {
        Id: 'base',
        Created: 1704067201,
        CreatedBy: 'env',
        Tags: ['a:1', 'example.com/x/a:2'],
        Size: 0,
        Comment: '',
      },
      { Id: '<missing>', Created: 1704067201, CreatedBy: 'base', Tags: null, Size: 100, Comment: 'c' },
    ]);
  });
});
