/** The pages of the documentation and their fenced blocks. */
import { readdirSync, readFileSync } from 'node:fs';

/** The folder of the repository. */
export const repository: URL = new URL('../../../', import.meta.url);

/** The text of a page. @param path from the repository's folder */
export const readPage = (path: string): string => readFileSync(new URL(path, repository), 'utf8');

/** All pages, from the repository's folder. */
export function allPages(): string[] {
  const docs = readdirSync(new URL('docs/', repository), { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('.md'))
    .map((path) => `docs/${path}`)
    .sort();
  return ['README.md', 'CONTRIBUTING.md', 'ARCHITECTURE.md', ...docs];
}

/** A fenced block: what stands behind its fence, its text, and the paragraph below it. */
export interface Fence {
  info: string;
  text: string;
  below: string;
}

/** All fenced blocks of a page. */
export function fences(markdown: string): Fence[] {
  return [...markdown.matchAll(/^```(.*)\n([\s\S]*?)^```\n\n?([^\n]*)/gm)].map(
    ([, info = '', text = '', below = '']) => ({ info: info.trim(), text, below }),
  );
}
