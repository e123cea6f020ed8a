/**
 * `drydock completion SHELL`: a script that completes commands, options and their values. It is made from the commands themselves
 * and holds everything, so that pressing TAB starts no program.
 */
import { Argument, type Command } from 'commander';
import { explain } from '#common/command-help';
import { type CommandFacts, describeCommand, everyCommand, type OptionFacts } from './describe.ts';

/** Shells with a script. */
const SHELLS = ['bash', 'zsh', 'fish'] as const;
type Shell = (typeof SHELLS)[number];

/** Fills the command. */
export function defineCompletion(command: Command, whole: () => Promise<Command>): void {
  command
    .addArgument(new Argument('<shell>', 'whose script').choices(SHELLS))
    .action(async (shell: Shell) => {
      process.stdout.write(completionScript(shell, describeCommand(await whole())));
    });
  explain(command, {
    examples: [
      {
        text: 'for one user, in bash',
        command:
          'mkdir -p ~/.local/share/bash-completion/completions && drydock completion bash > ~/.local/share/bash-completion/completions/drydock',
      },
      { text: 'in this shell only', command: 'source <(drydock completion bash)' },
      {
        text: 'zsh: a folder of fpath',
        command: 'mkdir -p ~/.zfunc && drydock completion zsh > ~/.zfunc/_drydock',
      },
      {
        text: 'fish',
        command:
          'mkdir -p ~/.config/fish/completions && drydock completion fish > ~/.config/fish/completions/drydock.fish',
      },
    ],
  });
}

/** What a value is, by the name that help gives it. */
function valueKind({ value = '', choices }: OptionFacts): 'choices' | 'file' | 'folder' | 'text' {
  if (choices.length > 0) return 'choices';
  if (value === 'folder' || value === 'prefix') return 'folder';
  return value === 'file' || value === 'path' ? 'file' : 'text';
}

/** The script of one shell for the program whose facts are given. */
export function completionScript(shell: Shell, program: CommandFacts): string {
  return { bash: bashScript, zsh: zshScript, fish: fishScript }[shell](program);
}

const longOptions = (options: OptionFacts[]): OptionFacts[] =>
  options.filter(({ names }) => names.some((name) => name.startsWith('--')));

function bashScript(program: CommandFacts): string {
  const cases = [...everyCommand(program)].map((facts) => bashCase(facts));
  const paths = [...everyCommand(program)].slice(1).map(({ path }) => `'${path.slice(1).join(' ')}'`);
  return `# bash completion of drydock; made by: drydock completion bash
_drydock() {
  local current="\${COMP_WORDS[COMP_CWORD]}" previous="\${COMP_WORDS[COMP_CWORD-1]}" command='' word
  local -i at
  COMPREPLY=()
  for ((at = 1; at < COMP_CWORD; at++)); do
    word="\${COMP_WORDS[at]}"
    case "\${command:+$command }$word" in
      ${paths.join('|')}) command="\${command:+$command }$word" ;;
    esac
  done
  case "$command" in
${cases.join('')}  esac
}
complete -o default -F _drydock drydock
`;
}

function bashCase(facts: CommandFacts): string {
  const rules = longOptions(facts.options)
    .filter((option) => option.value !== undefined)
    .map((option) => {
      const kind = valueKind(option);
      const names = option.names.join('|');
      if (kind === 'choices')
        return `        ${names}) COMPREPLY=($(compgen -W '${option.choices.join(' ')}' -- "$current")); return ;;\n`;
      if (kind === 'folder') return `        ${names}) COMPREPLY=($(compgen -d -- "$current")); return ;;\n`;
      if (kind === 'file') return `        ${names}) COMPREPLY=($(compgen -f -- "$current")); return ;;\n`;
      return `        ${names}) return ;;\n`;
    });
  const names = facts.options.flatMap((option) => option.names);
  const words = [
    ...facts.commands.map(({ path }) => path.at(-1)!),
    ...facts.arguments.flatMap(({ choices }) => choices),
  ];
  return `    '${facts.path.slice(1).join(' ')}')
      case "$previous" in
${rules.join('')}        *) ;;
      esac
      if [[ "$current" == -* ]]; then COMPREPLY=($(compgen -W '${names.join(' ')}' -- "$current"))
      else COMPREPLY=($(compgen -W '${words.join(' ')}' -- "$current")); fi ;;
`;
}

/** Inside single quotes. */
const quoted = (text: string): string => text.replaceAll("'", "'\\''");
/** And between zsh's brackets and colons. */
const zshText = (text: string): string => quoted(text.replace(/[[\]:\\]/g, '\\$&'));

function zshScript(program: CommandFacts): string {
  return `#compdef drydock
# zsh completion of drydock; made by: drydock completion zsh
${[...everyCommand(program)].map(zshFunction).join('')}if [ "$funcstack[1]" = "_drydock" ]; then _drydock "$@"; else compdef _drydock drydock; fi
`;
}

const zshName = (path: readonly string[]): string => `_${path.join('_')}`;

function zshFunction(facts: CommandFacts): string {
  const specs = longOptions(facts.options).map((option) => {
    const kind = valueKind(option);
    const actions = {
      choices: `(${option.choices.join(' ')})`,
      file: '_files',
      folder: '_files -/',
      text: '',
    };
    const value = option.value === undefined ? '' : `:${zshText(option.value)}:${actions[kind]}`;
    return option.names.map((name) => `    '*${name}[${zshText(option.text)}]${value}' \\\n`).join('');
  });
  if (facts.commands.length === 0) {
    const words = facts.arguments.map(({ name, choices }, i) =>
      choices.length > 0
        ? `    '${i + 1}:${name}:(${choices.join(' ')})' \\\n`
        : `    '${i + 1}:${name}:_files' \\\n`,
    );
    return `${zshName(facts.path)}() {\n  _arguments \\\n${specs.join('')}${words.join('')}    && return 0\n}\n`;
  }
  const subs = facts.commands.map(({ path, summary }) => `    '${path.at(-1)}:${zshText(summary)}'\n`);
  const calls = facts.commands.map(({ path }) => `        ${path.at(-1)}) ${zshName(path)} ;;\n`);
  return `${zshName(facts.path)}() {
  local line state
  local -a commands=(
${subs.join('')}  )
  _arguments -C \\
${specs.join('')}    '1: :->command' '*:: :->rest' && return 0
  case $state in
    command) _describe 'command' commands ;;
    rest)
      case $line[1] in
${calls.join('')}      esac ;;
  esac
}
`;
}

function fishScript(program: CommandFacts): string {
  const lines = [...everyCommand(program)].flatMap(fishLines);
  return `# fish completion of drydock; made by: drydock completion fish
complete -c drydock -f
${lines.join('\n')}
`;
}

/** Rules hold when all words of the command's path were typed and none of its subcommands was. */
function fishLines(facts: CommandFacts): string[] {
  const words = facts.path.slice(1);
  const below = facts.commands.map(({ path }) => path.at(-1)!);
  const conditions = [
    ...words.map((word) => `__fish_seen_subcommand_from ${word}`),
    ...(below.length > 0 ? [`not __fish_seen_subcommand_from ${below.join(' ')}`] : []),
  ];
  const head = `complete -c drydock${conditions.length > 0 ? ` -n '${conditions.join('; and ')}'` : ''}`;
  return [
    ...facts.commands.map(({ path, summary }) => `${head} -a ${path.at(-1)} -d '${quoted(summary)}'`),
    ...facts.arguments
      .filter(({ choices }) => choices.length > 0)
      .map(({ choices, text }) => `${head} -a '${choices.join(' ')}' -d '${quoted(text)}'`),
    ...longOptions(facts.options).map((option) => {
      const names = option.names.map((name) =>
        name.startsWith('--') ? `-l ${name.slice(2)}` : `-s ${name.slice(1)}`,
      );
      const kind = valueKind(option);
      const values = {
        choices: ` -x -a '${option.choices.join(' ')}'`,
        file: ' -r -F',
        folder: " -x -a '(__fish_complete_directories)'",
        text: ' -x',
      };
      return `${head} ${names.join(' ')}${option.value === undefined ? '' : values[kind]} -d '${quoted(option.text)}'`;
    }),
  ];
}
