import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';

const root = new URL('../', import.meta.url);
const read = (path: string): string => readFileSync(new URL(path, root), 'utf8');

it('every threat of the threat model names a test that is there', () => {
  const rows = read('docs/threat-model.md')
    .split('\n')
    .filter((line) => line.startsWith('| ') && !/^\| (threat|---) /.test(line));
  expect(rows.length).toBeGreaterThan(30);
  for (const row of rows) {
    const [, , , cell = ''] = row.split(' | ').join('|').split('|');
    const [, path = '', title = ''] = /^`([^`]+)`: (.+?) *$/.exec(cell.trim()) ?? [];
    expect(path, row).not.toBe('');
    expect(read(path), row).toContain(title);
  }
});
