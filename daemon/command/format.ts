/** `--format`: how a command that prints data prints it. */
import { type Command, Option } from 'commander';

/** For people, or for programs: one JSON document. */
export type Format = 'text' | 'json';

/** Adds `--format` to a command. */
export function addFormat(command: Command): Command {
  return command.addOption(
    new Option('--format <format>', 'text for people, json for programs')
      .choices(['text', 'json'])
      .default('text'),
  );
}

/** Prints `data` as JSON, or what `text` makes of it. */
export function print<T>(format: Format, data: T, text: (data: T) => string): void {
  process.stdout.write(`${format === 'json' ? JSON.stringify(data, null, 2) : text(data).trimEnd()}\n`);
}

/** Text in a colour or weight (an SGR code of ECMA-48) where standard output is a terminal that shows it, and NO_COLOR is not set. */
export function paint(code: number, text: string): string {
  const { NO_COLOR, FORCE_COLOR } = process.env;
  const wanted = FORCE_COLOR ? FORCE_COLOR !== '0' : !NO_COLOR && process.stdout.isTTY === true;
  return wanted ? `\u001b[${code}m${text}\u001b[0m` : text;
}
