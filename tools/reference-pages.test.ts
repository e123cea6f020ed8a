import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { DrydockError } from '#common/errors';
import { answerFor } from '../daemon/api/errors.ts';

const root = new URL('../', import.meta.url);
const read = (path: string): string => readFileSync(new URL(path, root), 'utf8');

/** Codes of errors that the sources name. */
function codesOfSources(): string[] {
  const files = ['common', 'netstack', 'fsbridge', 'daemon'].flatMap((folder) =>
    readdirSync(new URL(folder, root), { recursive: true, encoding: 'utf8' })
      .filter((path) => path.endsWith('.ts') && !path.endsWith('.test.ts'))
      .map((path) => `${folder}/${path}`),
  );
  const codes = files.flatMap((path) =>
    [...read(path).matchAll(/'(ERR_[A-Z0-9_]+)'/g)].map(([, code]) => code!),
  );
  return [...new Set(codes)].sort();
}

describe('docs/reference/errors.md', () => {
  const sections = read('docs/reference/errors.md').split(/^## /m).slice(1);
  const rows = sections.flatMap((section) =>
    [...section.matchAll(/^\| `(ERR_\w+)` \| (.+) \|$/gm)].map(([, code, rest]) => ({
      code: code!,
      cells: rest!.split(' | '),
      isApi: section.startsWith('The Engine API'),
    })),
  );

  it('has every code of an error once, with its cause and its remedy: add a line for a new one', () => {
    expect(rows.map(({ code }) => code).sort()).toEqual(codesOfSources());
    for (const { code, cells, isApi } of rows) {
      expect(cells.length, code).toBe(isApi ? 3 : 2);
      for (const cell of cells) expect(cell.trim().length, code).toBeGreaterThan(2);
    }
  });

  it('tells the status with which the API answers', () => {
    for (const { code, cells, isApi } of rows)
      if (isApi)
        expect(`${code} ${cells[0]}`).toBe(`${code} ${answerFor(new DrydockError(code, '')).status}`);
  });
});

it('docs/reference/limits.md is what the constants are: run `npm run docs` after a change of one', () => {
  const tool = fileURLToPath(new URL('limits-page.mjs', import.meta.url));
  const script = `import(process.argv[1]).then((page) => process.stdout.write(page.limitsPage(new URL(process.argv[2]))))`;
  const { stdout } = spawnSync(process.execPath, ['-e', script, tool, root.href], { encoding: 'utf8' });
  expect(stdout).toBe(read('docs/reference/limits.md'));
  expect(stdout.match(/^\| `/gm)!.length).toBeGreaterThan(50);
});
