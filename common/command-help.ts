/**
 * What a command's help says beyond its options: examples, exit codes, files, environment. It is kept with the command, so that
 * `--help`, the man page and the reference say the same.
 */
import type { Command } from 'commander';

/** The part of a command's help that teaches. */
export interface CommandHelp {
  /** What to type, and why, in this order: the simplest first. */
  examples: readonly { text: string; command: string }[];
  /** Exit codes besides {@link EXIT_CODES}. */
  exitCodes?: Readonly<Record<number, string>>;
  environment?: Readonly<Record<string, string>>;
  files?: Readonly<Record<string, string>>;
}

/** Exit codes that every command has. */
export const EXIT_CODES: Readonly<Record<number, string>> = {
  0: 'done',
  1: 'it failed; the reason and what to do about it are on standard error',
  2: 'the command line has a mistake',
};

const helps = new WeakMap<Command, CommandHelp>();

/** Adds examples and the rest to the help of `command`. */
export function explain(command: Command, help: CommandHelp): void {
  helps.set(command, help);
  command.addHelpText('after', () => `\n${helpText(help)}`);
}

/** What {@link explain} was given, or undefined. */
export function explanationOf(command: Command): CommandHelp | undefined {
  return helps.get(command);
}

function table(rows: readonly [string, string][]): string {
  const width = Math.max(...rows.map(([name]) => name.length));
  return rows.map(([name, text]) => `  ${name.padEnd(width)}  ${text}\n`).join('');
}

function helpText(help: CommandHelp): string {
  const parts = help.examples.map(({ text, command }) => `  # ${text}\n  ${command}\n`);
  let all = `Examples:\n${parts.join('')}`;
  const exits = Object.entries({ ...EXIT_CODES, ...help.exitCodes });
  if (help.environment) all += `\nEnvironment:\n${table(Object.entries(help.environment))}`;
  if (help.files) all += `\nFiles:\n${table(Object.entries(help.files))}`;
  return `${all}\nExit codes:\n${table(exits)}`.trimEnd();
}
