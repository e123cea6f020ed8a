/** The metrics that docs/reference/metrics.md tells of, for the tests that look at what is exposed. */
import { readFileSync } from 'node:fs';

/** Name and kind (`counter`, `gauge`, `histogram`) of those under the heading `## part`, in order. */
export function documentedMetrics(part: string): string[][] {
  const page = readFileSync(new URL('../../docs/reference/metrics.md', import.meta.url), 'utf8');
  const section = page.split(/^## /m).find((text) => text.startsWith(`${part}\n`)) ?? '';
  return [...section.matchAll(/^\| `(\w+)` \| (\w+)/gm)].map(([, ...row]) => row).sort();
}
