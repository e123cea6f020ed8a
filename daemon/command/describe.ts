/** A command's tree as plain data: what man pages, completions and the reference are made from. */
import type { Argument, Command, Option } from 'commander';
import { type CommandHelp, explanationOf } from '#common/command-help';

/** One option. */
export interface OptionFacts {
  /** As in help: `-H, --host <address>`. */
  flags: string;
  /** `--host`, and `-H` where there is one. */
  names: string[];
  /** Name of its value, or undefined for a switch. */
  value: string | undefined;
  choices: readonly string[];
  /** What it is for, with its default. */
  text: string;
}

/** One argument. */
export interface ArgumentFacts {
  name: string;
  text: string;
  required: boolean;
  choices: readonly string[];
}

/** A command with its subcommands. */
export interface CommandFacts {
  /** `['drydock', 'fs', 'mount']`. */
  path: string[];
  summary: string;
  usage: string;
  arguments: ArgumentFacts[];
  options: OptionFacts[];
  help: CommandHelp | undefined;
  commands: CommandFacts[];
}

function optionFacts(option: Option): OptionFacts {
  const value = /[<[]([^>\]]+)[>\]]/.exec(option.flags)?.[1];
  const known = option.defaultValue !== undefined && option.defaultValue !== false && !option.negate;
  const choices = option.argChoices ?? [];
  const notes = [
    ...(choices.length > 0 ? [choices.join(', ')] : []),
    ...(known ? [`default: ${option.defaultValueDescription ?? String(option.defaultValue)}`] : []),
  ];
  return {
    flags: option.flags,
    names: [option.short, option.long].filter((name) => name !== undefined),
    value,
    choices,
    text: `${option.description}${notes.length > 0 ? ` (${notes.join('; ')})` : ''}`,
  };
}

function argumentFacts(argument: Argument): ArgumentFacts {
  return {
    name: argument.name(),
    text: argument.description,
    required: argument.required,
    choices: argument.argChoices ?? [],
  };
}

/** Describes `command` and everything below it. */
export function describeCommand(command: Command, above: readonly string[] = []): CommandFacts {
  const path = [...above, command.name()];
  const help = command.createHelp();
  const commands = help.visibleCommands(command).filter((sub) => sub.name() !== 'help');
  return {
    path,
    summary: command.description(),
    usage: `${path.join(' ')} ${command.usage()}`.replace(' [command]', ' COMMAND'),
    arguments: command.registeredArguments.map(argumentFacts),
    options: help.visibleOptions(command).map(optionFacts),
    help: explanationOf(command),
    commands: commands.map((sub) => describeCommand(sub, path)),
  };
}

/** A command and all below it, in the order of help. */
export function* everyCommand(facts: CommandFacts): Generator<CommandFacts> {
  yield facts;
  for (const sub of facts.commands) yield* everyCommand(sub);
}
