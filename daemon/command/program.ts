/**
 * The tree of `drydock`'s commands. A command's module is loaded only when the command is called, or when somebody wants to see
 * all of them (man pages, completions): `drydock --help` needs the summaries of this table alone.
 */
import { Command, type CommanderError } from 'commander';
import { EXIT_CODES } from '#common/command-help';

/** A command of the first level. */
interface CommandEntry {
  name: string;
  summary: string;
  /** Gives the command its options, subcommands and action. `whole` makes the program with everything loaded. */
  load: (command: Command, version: string, whole: () => Promise<Command>) => Promise<void>;
}

/** All commands, in the order in which help lists them. */
export const COMMANDS: readonly CommandEntry[] = [
  {
    name: 'daemon',
    summary: 'run the engine: answers the docker CLI on a socket',
    load: async (command, version) => (await import('../cli.ts')).defineDaemon(command, version),
  },
  {
    name: 'net',
    summary: "run a network in userspace by itself, with gvproxy's flags and control API",
    load: async (command, version) => {
      (await import('#netstack/cli')).defineNet(command, version);
      (await import('./top.ts')).defineTop(command);
    },
  },
  {
    name: 'fs',
    summary: 'serve a folder at another place, in userspace',
    load: async (command) => (await import('#fsbridge/cli')).defineFs(command),
  },
  {
    name: 'doctor',
    summary: 'tell whether this machine can run containers, and what to do where it cannot',
    load: async (command, version) => (await import('./doctor/index.ts')).defineDoctor(command, version),
  },
  {
    name: 'fsck',
    summary: "verify what the daemon keeps on disk, and repair what can't be used",
    load: async (command) => (await import('./fsck.ts')).defineFsck(command),
  },
  {
    name: 'context',
    summary: "let the docker CLI know this daemon: entries in docker's store of contexts",
    load: async (command) => (await import('./context.ts')).defineContext(command),
  },
  {
    name: 'service',
    summary: 'run the daemon as a service of systemd or launchd',
    load: async (command) => (await import('./service/index.ts')).defineService(command),
  },
  {
    name: 'completion',
    summary: 'print the completion script of a shell',
    load: async (command, _version, whole) =>
      (await import('./completion.ts')).defineCompletion(command, whole),
  },
  {
    name: 'version',
    summary: 'print the version',
    load: async (command, version) => (await import('./version.ts')).defineVersion(command, version),
  },
];

/** Names and exit codes in a line each, below `drydock --help`. */
function closingWords(): string {
  const exits = Object.entries(EXIT_CODES).map(([code, text]) => `  ${code}  ${text}`);
  return [
    '',
    'Examples:',
    '  # is this machine able to run containers, and what is missing?',
    '  drydock doctor',
    '  # run the engine in this terminal',
    '  sudo drydock daemon',
    '  # point the docker CLI at it',
    '  drydock context create && docker context use drydock',
    '',
    'Exit codes:',
    ...exits,
    '',
    'drydock COMMAND --help tells the options of a command and shows examples.',
  ].join('\n');
}

/** Headings in bold where colours are wanted: commander looks at NO_COLOR, FORCE_COLOR and the terminal. */
const bold = (text: string): string => `\u001b[1m${text}\u001b[22m`;

function emptyProgram(version: string): Command {
  return (
    new Command('drydock')
      .description('Containers on the host itself, without a Linux VM under them')
      .version(version, '--version', 'print the number of the version')
      .configureHelp({ styleTitle: bold, styleCommandText: bold })
      .addHelpText('after', closingWords)
      .showHelpAfterError('drydock --help tells the commands and options.')
      .exitOverride()
      // Else flags behind a command that look like the program's own would be taken for them.
      .enablePositionalOptions()
  );
}

/**
 * The program with every command named, and those of `wanted` loaded.
 * @param wanted undefined loads all
 */
export async function createProgram(version: string, wanted?: readonly string[]): Promise<Command> {
  const program = emptyProgram(version);
  for (const { name, summary, load } of COMMANDS) {
    const command = program
      .command(name)
      .description(summary)
      .showHelpAfterError(`drydock ${name} --help tells the options and shows examples.`);
    if (!wanted || wanted.includes(name)) await load(command, version, () => createProgram(version));
  }
  return program;
}

/** The exit code for commander's errors: help and version are none. */
export function usageExitCode(error: CommanderError): number {
  return error.exitCode === 0 ? 0 : 2;
}
