/** The command line's reference in Markdown, from the commands. */
import { EXIT_CODES } from '#common/command-help';
import { withPlacesOfRoot } from '../places.ts';
import { type CommandFacts, everyCommand } from './describe.ts';

const cell = (text: string): string => text.replaceAll('|', '\\|').replaceAll('<', '&lt;');

function table(head: [string, string], rows: readonly [string, string][]): string {
  return [
    `| ${head.join(' | ')} |`,
    '|---|---|',
    ...rows.map(([name, text]) => `| \`${name.replaceAll('|', '\\|')}\` | ${cell(text)} |`),
    '',
  ].join('\n');
}

/** The whole page. */
export function referencePage(program: CommandFacts): string {
  const sections = [...everyCommand(program)].map(section);
  return withPlacesOfRoot(`# Command line

Made from the commands themselves by \`npm run docs\`; \`drydock COMMAND --help\` and the man pages say the same.

${sections.join('\n')}
## Exit codes

${table(
  ['code', 'meaning'],
  Object.entries(EXIT_CODES).map(([code, text]) => [code, text]),
)}`);
}

function section(facts: CommandFacts): string {
  const { help } = facts;
  const parts = [`## ${facts.path.join(' ')}\n`, `${facts.summary}.\n`, `\`${facts.usage}\`\n`];
  if (facts.commands.length > 0)
    parts.push(
      table(
        ['command', 'does'],
        facts.commands.map(({ path, summary }) => [path.join(' '), summary]),
      ),
    );
  if (facts.arguments.length > 0)
    parts.push(
      table(
        ['argument', 'is'],
        facts.arguments.map(({ name, text }) => [name, text]),
      ),
    );
  parts.push(
    table(
      ['option', 'does'],
      facts.options.map(({ flags, text }) => [flags, text]),
    ),
  );
  if (help?.exitCodes)
    parts.push(
      table(
        ['exit code', 'besides those below'],
        Object.entries(help.exitCodes).map(([code, text]) => [code, text]),
      ),
    );
  if (help?.environment) parts.push(table(['variable', 'does'], Object.entries(help.environment)));
  if (help?.files) parts.push(table(['file', 'is for'], Object.entries(help.files)));
  if (help)
    parts.push(
      `\`\`\`sh\n${help.examples.map(({ text, command }) => `# ${text}\n${command}`).join('\n')}\n\`\`\`\n`,
    );
  return parts.join('\n');
}
