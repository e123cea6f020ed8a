import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseDockerfile } from './dockerfile.ts';
import { ignoreMatcher } from './ignore.ts';
import { cleanPath, parseOwner } from './sources.ts';
import { expandText, expandWord } from './words.ts';

const parse = (text: string) =>
  parseDockerfile(text).instructions.map(({ name, text: rest }) => [name, rest]);

describe('a Dockerfile', () => {
  it.each<[what: string, text: string, instructions: string[][]]>([
    [
      'of two lines',
      'FROM a\nRUN b',
      [
        ['FROM', 'a'],
        ['RUN', 'b'],
      ],
    ],
    [
      'in small letters and with blanks around',
      '  from a  \n\n\trun  b c ',
      [
        ['FROM', 'a'],
        ['RUN', 'b c'],
      ],
    ],
    [
      'with Windows line ends',
      'FROM a\r\nRUN b\r\n',
      [
        ['FROM', 'a'],
        ['RUN', 'b'],
      ],
    ],
    ['with a byte order mark', '\ufeffFROM a', [['FROM', 'a']]],
    [
      'with comments',
      '# c\nFROM a\n  # d\nRUN b # not a comment',
      [
        ['FROM', 'a'],
        ['RUN', 'b # not a comment'],
      ],
    ],
    [
      'with continuations',
      'FROM a\nRUN b \\\n  c \\  \n  d',
      [
        ['FROM', 'a'],
        ['RUN', 'b   c   d'],
      ],
    ],
    ['with comments and empty lines in continuations', 'RUN a \\\n# c\n\n  b', [['RUN', 'a   b']]],
    [
      'whose last line continues',
      'FROM a\nRUN b \\',
      [
        ['FROM', 'a'],
        ['RUN', 'b'],
      ],
    ],
    [
      'with another escape character',
      '# escape=`\nFROM a\nRUN b `\n c\\',
      [
        ['FROM', 'a'],
        ['RUN', 'b  c\\'],
      ],
    ],
  ])('%s is read', (_what, text, instructions) => {
    expect(parse(text)).toEqual(instructions);
  });

  it('has flags apart from its arguments, and HEALTHCHECK keeps them', () => {
    const { instructions } = parseDockerfile(
      'FROM --platform=linux/arm64 a\nCOPY --from=x --chown=1:2 --link a b\nHEALTHCHECK --interval=5s CMD x',
    );
    expect(instructions.map(({ flags, text }) => [flags, text])).toEqual([
      [[['platform', 'linux/arm64']], 'a'],
      [
        [
          ['from', 'x'],
          ['chown', '1:2'],
          ['link', 'true'],
        ],
        'a b',
      ],
      [[], '--interval=5s CMD x'],
    ]);
  });

  it('has here-documents, with tabs taken off and quotes noticed', () => {
    const [run, copy] = parseDockerfile(
      'RUN <<A cat <<-"B"\nx $y\nA\n\t\tz\n\tB\nCOPY <<C /c\nC\n',
    ).instructions;
    expect(run!.heredocs).toEqual([
      { name: 'A', expand: true, content: 'x $y\n' },
      { name: 'B', expand: false, content: 'z\n' },
    ]);
    expect(copy!.heredocs).toEqual([{ name: 'C', expand: true, content: '' }]);
    expect(parseDockerfile('RUN echo $((1<<3)) <<<x').instructions[0]!.heredocs).toEqual([]);
  });

  it.each([
    ['', 'the Dockerfile cannot be empty'],
    ['# only\n', 'the Dockerfile cannot be empty'],
    ['FROM a\nFOO b', 'dockerfile parse error on line 2: unknown instruction: FOO'],
    ['RUN <<A\nx', 'dockerfile parse error on line 1: unterminated heredoc A'],
    ['# escape=x\nFROM a', 'dockerfile parse error on line 1: invalid ESCAPE "x". Must be ` or \\'],
  ])('%j is refused: %s', (text, message) => {
    expect(() => parseDockerfile(text)).toThrow(
      expect.objectContaining({ code: 'ERR_BAD_DOCKERFILE', message }),
    );
  });

  it('never makes the parser throw anything else', () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom(...'FROM RUN<-A"\\\n#=`$x ') }), (text) => {
        try {
          parseDockerfile(text);
        } catch (error) {
          expect(error).toMatchObject({ code: 'ERR_BAD_DOCKERFILE' });
        }
      }),
    );
  });
});

describe('words', () => {
  const variables = new Map([
    ['A', 'a'],
    ['EMPTY', ''],
    ['LONG_1', 'l'],
  ]);
  // After buildkit's shell/envVarTest.
  it.each([
    ['hello', 'hello'],
    ["he'll'o", 'hello'],
    ['"$A"', 'a'],
    ["'$A'", '$A'],
    ['"he\\"$A"', 'he"a'],
    ['"\\x"', '\\x'],
    ['he\\$A', 'he$A'],
    ['$A$A', 'aa'],
    ['${A}b', 'ab'],
    ['$Ab', ''],
    ['$LONG_1x', ''],
    ['${LONG_1}x', 'lx'],
    ['$', '$'],
    ['$.', '$.'],
    ['a\\', 'a\\'],
    ['${NONE:-x$A}', 'xa'],
    ['${EMPTY:-x}', 'x'],
    ['${EMPTY-x}', ''],
    ['${NONE-x}', 'x'],
    ['${A:+y}', 'y'],
    ['${EMPTY:+y}', ''],
    ['${EMPTY+y}', 'y'],
    ['${A:?no}', 'a'],
    ['${NONE:-${A}}', 'a'],
  ])('%s is %s', (word, value) => {
    expect(expandWord(word, variables)).toBe(value);
  });

  it.each(["'x", '"x', '${A', '${', '${A:x}', '${NONE:?message}', '${NONE?}'])('%s is refused', (word) => {
    expect(() => expandWord(word, variables)).toThrow(
      expect.objectContaining({ code: 'ERR_BAD_DOCKERFILE' }),
    );
  });

  it('in text keep their quotes', () => {
    expect(expandText('"$A" \'${A}\' \\$A \\n', variables)).toBe('"a" \'a\' $A \\n');
  });
});

describe('.dockerignore', () => {
  it.each<[rules: string, ignored: string[], kept: string[]]>([
    ['*.md', ['a.md'], ['d/a.md', 'a.mdx']],
    ['**/*.md', ['a.md', 'd/e/a.md'], ['a.txt']],
    ['d', ['d', 'd/x/y'], ['e/d']],
    ['/d/', ['d/x'], ['e']],
    ['*\n!a.txt', ['b', 'd/a.txt'], ['a.txt']],
    ['d\n!d/keep\nd/keep/not', ['d/x', 'd/keep/not'], ['d/keep', 'd/keep/y']],
    ['# c\n\n  x  ', ['x'], ['# c']],
    ['a?c\n[x-z]1', ['abc', 'y1'], ['ac', 'a/c', 'w1']],
    ['d/**/x', ['d/x', 'd/e/f/x'], ['x']],
    ['d/**', ['d/a', 'd/a/b'], ['e']],
    ['[z-a]\n[', [], ['a', '[']],
  ])('%j', (rules, ignored, kept) => {
    const matches = ignoreMatcher(rules);
    for (const path of ignored) expect([path, matches(path)]).toEqual([path, true]);
    for (const path of kept) expect([path, matches(path)]).toEqual([path, false]);
  });
});

describe('sources', () => {
  it('stay below the root', () => {
    expect(['/a/../../b', '..', './x//y', '/'].map(cleanPath)).toEqual(['b', '', 'x/y', '']);
  });

  it('are owned by numbers, or by names of the image', () => {
    const read = (path: string): string =>
      path === '/etc/passwd' ? 'root:x:0:0\nu:x:7:8:::\n' : 'g:x:9:\nu:x:10:\n';
    expect(parseOwner('1:2', read)).toEqual({ uid: 1, gid: 2 });
    expect(parseOwner('5', read)).toEqual({ uid: 5, gid: 5 });
    expect(parseOwner('u', read)).toEqual({ uid: 7, gid: 10 });
    expect(parseOwner('u:g', read)).toEqual({ uid: 7, gid: 9 });
    expect(() => parseOwner('nobody', read)).toThrow("can't find uid for user nobody");
  });
});
