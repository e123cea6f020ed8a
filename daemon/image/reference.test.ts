import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { formatFamiliar, formatNormal, isDigest, parseReference, parseTagged } from './reference.ts';

const HEX = 'a'.repeat(64);

// After the tables of distribution/reference (reference_test.go, normalize_test.go).
const VALID: [text: string, normal: string, familiar: string][] = [
  ['alpine', 'docker.io/library/alpine', 'alpine'],
  ['alpine:3.20', 'docker.io/library/alpine:3.20', 'alpine:3.20'],
  ['library/alpine', 'docker.io/library/alpine', 'alpine'],
  ['docker.io/library/alpine:latest', 'docker.io/library/alpine:latest', 'alpine:latest'],
  ['docker.io/alpine', 'docker.io/library/alpine', 'alpine'],
  ['index.docker.io/a/b', 'docker.io/a/b', 'a/b'],
  ['a/b', 'docker.io/a/b', 'a/b'],
  ['library/a/b', 'docker.io/library/a/b', 'library/a/b'],
  ['localhost/a', 'localhost/a', 'localhost/a'],
  ['localhost:5000/a:b', 'localhost:5000/a:b', 'localhost:5000/a:b'],
  ['127.0.0.1:5000/a/b/c', '127.0.0.1:5000/a/b/c', '127.0.0.1:5000/a/b/c'],
  ['[::1]:5000/a', '[::1]:5000/a', '[::1]:5000/a'],
  ['ghcr.io/a/b', 'ghcr.io/a/b', 'ghcr.io/a/b'],
  ['Example/a', 'Example/a', 'Example/a'],
  ['xn--n3h.com/a:t', 'xn--n3h.com/a:t', 'xn--n3h.com/a:t'],
  [`a@sha256:${HEX}`, `docker.io/library/a@sha256:${HEX}`, `a@sha256:${HEX}`],
  [`a:t@sha256:${HEX}`, `docker.io/library/a:t@sha256:${HEX}`, `a:t@sha256:${HEX}`],
  ['a__b/c-d---e.f', 'docker.io/a__b/c-d---e.f', 'a__b/c-d---e.f'],
  ['a:_x.Y-9', 'docker.io/library/a:_x.Y-9', 'a:_x.Y-9'],
  [`a:${'t'.repeat(128)}`, `docker.io/library/a:${'t'.repeat(128)}`, `a:${'t'.repeat(128)}`],
];

const INVALID = [
  '',
  ':tag',
  'a:',
  'a:.x',
  `a:${'t'.repeat(129)}`,
  'a@',
  'a@sha256:abc',
  `a@sha256:${'A'.repeat(64)}`,
  `a@md5:${HEX}`,
  'A',
  'a/B',
  'a//b',
  '/a',
  'a/',
  '-a',
  'a-',
  'a___b',
  'a..b',
  'a/../b',
  '../a',
  'https://a/b',
  'a b',
  'a\n',
  HEX,
  `${'a'.repeat(250)}/bbbbbb`,
  'example.com:x/a',
  '-example.com/a',
];

describe('image references', () => {
  it.each(VALID)('%s is %s, shown as %s', (text, normal, familiar) => {
    const reference = parseReference(text);
    expect(formatNormal(reference)).toBe(normal);
    expect(formatFamiliar(reference)).toBe(familiar);
  });

  it.each(INVALID)('%j is refused with a reason', (text) => {
    expect(() => parseReference(text)).toThrow(
      expect.objectContaining({
        code: 'ERR_BAD_REFERENCE',
        message: expect.stringMatching(/^invalid reference format: ./),
      }),
    );
  });

  it('gives a name without tag and digest the tag latest', () => {
    expect(formatFamiliar(parseTagged('a'))).toBe('a:latest');
    expect(formatFamiliar(parseTagged('a:b'))).toBe('a:b');
    expect(parseTagged(`a@sha256:${HEX}`).tag).toBeUndefined();
  });

  it('never throws anything but its own error, and parses what it has formatted to the same', () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom(...'aZ0.:/@-_[]s ') }), (text) => {
        let reference: ReturnType<typeof parseReference>;
        try {
          reference = parseReference(text);
        } catch (error) {
          expect(error).toMatchObject({ code: 'ERR_BAD_REFERENCE' });
          return;
        }
        expect(parseReference(formatNormal(reference))).toEqual(reference);
        expect(parseReference(formatFamiliar(reference))).toEqual(reference);
      }),
    );
  });

  it('knows digests by algorithm, length and case', () => {
    expect(isDigest(`sha256:${HEX}`)).toBe(true);
    expect(isDigest(`sha512:${HEX}${HEX}`)).toBe(true);
    for (const text of [
      `sha256:${HEX}a`,
      `sha256:${'A'.repeat(64)}`,
      `:${HEX}`,
      `constructor:${HEX}`,
      'sha256:',
    ])
      expect(isDigest(text)).toBe(false);
  });
});
