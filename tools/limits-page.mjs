// The reference of limits in Markdown, from the constants themselves: those with a doc comment that are exported by the files below.
import { readFileSync } from 'node:fs';

const PARTS = [
  [
    'The daemon',
    ['daemon/limits.ts', 'daemon/image/layers.ts', 'daemon/image/extract.ts', 'daemon/image/config-file.ts'],
  ],
  ['Networks', ['netstack/limits.ts']],
  ['TCP of networks', ['netstack/tcp/limits.ts']],
  [
    'File servers',
    [
      'fsbridge/ops/init.ts',
      'fsbridge/node/locks.ts',
      'fsbridge/node/dirs.ts',
      'fsbridge/notify/exchange.ts',
    ],
  ],
];
const CONSTANT =
  /((?:\/\*\*(?:(?!\*\/)[\s\S])*\*\/\n)?)export const ([A-Z0-9_]+)(?:: number)? = ([\d_ */+<]+);/g;
const UNITS = [
  ['GiB', 2 ** 30],
  ['MiB', 2 ** 20],
  ['KiB', 2 ** 10],
];

/** `8 MiB`, `2 s`, `4,096`, by what the name says it is. */
function quantity(name, value) {
  const number = value.toLocaleString('en');
  if (/_BYTES/.test(name)) {
    const [unit, size] = UNITS.find(([, size]) => value >= size && value % size === 0) ?? ['bytes', 1];
    return `${value / size} ${unit}`;
  }
  if (name.endsWith('_MS')) return value >= 1000 ? `${value / 1000} s` : `${number} ms`;
  return name.endsWith('_S') ? `${number} s` : number;
}

const sentence = (comment) =>
  comment
    .replace(/^\/\*\*|\*\/\s*$/g, '')
    .replace(/\n \*/g, ' ')
    .replace(/\s+/g, ' ')
    .replaceAll('|', '\\|')
    .trim();

/** @param root the repository's folder, a URL */
export function limitsPage(root) {
  const sections = PARTS.map(([title, files]) => {
    let meaning = '';
    const rows = files.flatMap((file) =>
      [...readFileSync(new URL(file, root), 'utf8').matchAll(CONSTANT)].flatMap(
        ([, comment, name, expression]) => {
          // A constant right below another shares its comment.
          meaning = sentence(comment) || meaning;
          const value = Function(`return ${expression}`)();
          return [`| \`${name}\` | ${quantity(name, value)} | ${meaning} |`];
        },
      ),
    );
    return `## ${title}\n\n| limit | is | what it bounds, and what happens there |\n|---|---|---|\n${rows.join('\n')}\n`;
  });
  return `# Limits

Made from the constants in the code by \`npm run docs\`. They protect the host and do not change at run time; what can be configured is in
[cli.md](cli.md) and [net.md](net.md). What happens at a network's limit is counted ([metrics.md](metrics.md)).

${sections.join('\n')}`;
}
