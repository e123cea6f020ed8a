import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { entryComponents } from './entry-path.ts';

describe('names in archives', () => {
  it.each([
    ['', []],
    ['.', []],
    ['/', []],
    ['./', []],
    ['a/b', ['a', 'b']],
    ['/a/b/', ['a', 'b']],
    ['./a//b', ['a', 'b']],
    ['a/../b', ['b']],
    ['a/..', []],
    ['..a/b..', ['..a', 'b..']],
  ])('%j is %j', (name, components) => {
    expect(entryComponents(name)).toEqual(components);
  });

  it.each(['..', '../a', '/..', 'a/../..', './../a', 'a/b/../../../c', 'x'.repeat(256), 'a/'.repeat(3000)])(
    'refuses %.20s',
    (name) => {
      expect(() => entryComponents(name)).toThrow(expect.objectContaining({ code: 'ERR_BAD_ARCHIVE' }));
    },
  );

  it('never yields a component that means something else than a name', () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom(...'./ab\xff') }), (name) => {
        let components: string[] = [];
        try {
          components = entryComponents(name);
        } catch {
          return;
        }
        for (const component of components) expect(component).toMatch(/^(?!\.{1,2}$)[^/]+$/);
      }),
    );
  });
});
