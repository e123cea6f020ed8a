/** Man pages from the commands (man(7) macros), one for each command: drydock(1), drydock-net(1), drydock-fs-mount(1). */
import { EXIT_CODES } from '#common/command-help';
import { withPlacesOfRoot } from '../places.ts';
import { type CommandFacts, everyCommand } from './describe.ts';

/** A page: `drydock-net.1`, and its source. */
interface ManPage {
  name: string;
  text: string;
}

/** Text in roff: a backslash and a line's first dot or quote would be requests, and a plain `-` a hyphen. */
function roff(text: string): string {
  return withPlacesOfRoot(text)
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replace(/^([.'])/gm, '\\&$1');
}

const heading = (title: string): string => `.SH ${title}\n`;
const entry = (term: string, text: string): string => `.TP\n\\fB${roff(term)}\\fP\n${roff(text)}\n`;

/** All pages of a program. @param date of the pages, such as `2026-11-24` */
export function manPages(program: CommandFacts, version: string, date: string): ManPage[] {
  const all = [...everyCommand(program)];
  return all.map((facts) => ({
    name: `${facts.path.join('-')}.1`,
    text: manPage(facts, all, version, date),
  }));
}

function manPage(facts: CommandFacts, all: CommandFacts[], version: string, date: string): string {
  const name = facts.path.join('-');
  const { help } = facts;
  const parts = [
    `.TH ${name.toUpperCase()} 1 "${date}" "drydock ${version}" "Drydock"\n`,
    `${heading('NAME')}${roff(name)} \\- ${roff(facts.summary)}\n`,
    `${heading('SYNOPSIS')}.B ${roff(facts.usage)}\n`,
  ];
  if (facts.arguments.length > 0)
    parts.push(heading('ARGUMENTS'), ...facts.arguments.map((a) => entry(a.name, a.text)));
  if (facts.commands.length > 0)
    parts.push(
      heading('COMMANDS'),
      ...facts.commands.map(({ path, summary }) => entry(`${path.join('-')}(1)`, summary)),
    );
  parts.push(heading('OPTIONS'), ...facts.options.map(({ flags, text }) => entry(flags, text)));
  if (help?.environment)
    parts.push(heading('ENVIRONMENT'), ...Object.entries(help.environment).map(([n, t]) => entry(n, t)));
  if (help?.files) parts.push(heading('FILES'), ...Object.entries(help.files).map(([n, t]) => entry(n, t)));
  parts.push(
    heading('EXIT STATUS'),
    ...Object.entries({ ...EXIT_CODES, ...help?.exitCodes }).map(([code, text]) => entry(code, text)),
  );
  if (help) {
    const examples = help.examples.map(
      ({ text, command }) => `${roff(text)}:\n.PP\n.RS\n.nf\n${roff(command)}\n.fi\n.RE\n`,
    );
    parts.push(heading('EXAMPLES'), examples.join('.PP\n'));
  }
  const others = all.filter((other) => other !== facts).map(({ path }) => `${path.join('-')}(1)`);
  parts.push(heading('SEE ALSO'), `${roff(others.join(', '))}\n`);
  return parts.join('');
}
