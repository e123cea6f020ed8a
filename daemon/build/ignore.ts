/**
 * .dockerignore patterns (moby/patternmatcher): `*`, `?`, `[...]` within a part of the path, `**` over several, `!` to
 * take back; the last pattern that matches decides, and what matches a folder matches all below it. Pure functions.
 */

/** The patterns of a .dockerignore, in order and cleaned; `!` stays at the front of an exception. */
export function ignorePatterns(text: string): string[] {
  return text
    .replace(/^\ufeff/, '')
    .split(/\r?\n/)
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => {
      const isException = line.startsWith('!');
      const pattern = (isException ? line.slice(1).trim() : line)
        .replace(/^\/+|\/+$/g, '')
        .replace(/^(\.\/)+/, '');
      return `${isException ? '!' : ''}${pattern}`;
    });
}

/** A test for paths (with slashes, relative): whether they are left out of the context. */
export function ignoreMatcher(text: string): (path: string) => boolean {
  const rules = ignorePatterns(text).map((pattern) => {
    const isException = pattern.startsWith('!');
    return { isException, test: patternTest(isException ? pattern.slice(1) : pattern) };
  });
  return (path) => {
    const parts = path.split('/');
    let isIgnored = false;
    for (const { isException, test } of rules) {
      const matches = parts.some((_, index) => test(parts.slice(0, index + 1).join('/')));
      if (matches) isIgnored = !isException;
    }
    return isIgnored;
  };
}

/** One glob pattern as a test for whole paths. `**` stands for any number of parts. */
export function patternTest(pattern: string): (path: string) => boolean {
  let source = '';
  for (let at = 0; at < pattern.length; at++) {
    const char = pattern[at]!;
    if (pattern.startsWith('**', at)) {
      const hasSlash = pattern[at + 2] === '/';
      source += hasSlash ? '(?:.*/)?' : '.*';
      at += hasSlash ? 2 : 1;
    } else if (char === '*') source += '[^/]*';
    else if (char === '?') source += '[^/]';
    else if (char === '[') {
      const end = pattern.indexOf(']', at + 2);
      if (end < 0) return () => false;
      source += `[${pattern.slice(at + 1, end).replace(/\\/g, '\\\\')}]`;
      at = end;
    } else if (char === '\\' && at + 1 < pattern.length) source += quote(pattern[++at]!);
    else source += quote(char);
  }
  let expression: RegExp;
  try {
    expression = new RegExp(`^${source}$`, 's');
  } catch {
    return () => false; // a range that makes no sense matches nothing
  }
  return (path) => expression.test(path);
}

function quote(char: string): string {
  return char.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}
