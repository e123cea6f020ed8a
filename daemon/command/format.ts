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
