import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { KEEP_ID } from '../backing/host-fs.ts';
import { IdMap, OVERFLOW_ID, parseIdRange } from './id-map.ts';

describe('maps of ids', () => {
  it('without ranges all ids stay what they are', () => {
    const map = new IdMap([]);
    expect([map.toHost(0), map.toInside(1000), map.toHost(KEEP_ID)]).toEqual([0, 1000, KEEP_ID]);
  });

  it('what is mapped comes back the same, and what is not has no id on the other side', () => {
    const map = new IdMap([parseIdRange('0:100000:10'), parseIdRange('1000:1000:1')]);
    fc.assert(
      fc.property(fc.nat(200_000), (id) => {
        const host = map.toHost(id);
        if (id < 10 || id === 1000) expect(map.toInside(host)).toBe(id);
        else expect(host).toBe(-1);
      }),
    );
    expect(map.toInside(5)).toBe(OVERFLOW_ID);
  });

  it.each(['', '0', '0:1', '0:1:0', 'a:1:1', '0:-1:1', '0:4294967295:1', '0:0:1:1'])(
    'refuses "%s"',
    (text) => {
      expect(() => parseIdRange(text)).toThrow(`The map of ids "${text}"`);
    },
  );

  it('refuses ranges that overlap on either side', () => {
    const known = [parseIdRange('0:100000:10')];
    expect(() => parseIdRange('9:5:1', known)).toThrow('overlaps');
    expect(() => parseIdRange('10:100009:1', known)).toThrow('overlaps');
    expect(parseIdRange('10:100010:1', known).host).toBe(100_010);
  });
});
