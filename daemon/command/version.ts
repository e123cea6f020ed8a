/** `drydock version`. */
import type { Command } from 'commander';
import { explain } from '#common/command-help';
import { addFormat, type Format, print } from './format.ts';

/** Fills the command. */
export function defineVersion(command: Command, version: string): void {
  addFormat(command).action(({ format }: { format: Format }) => {
    const facts = { version, node: process.version, platform: process.platform, arch: process.arch };
    print(format, facts, () => `drydock ${version} (node ${facts.node}, ${facts.platform} ${facts.arch})`);
  });
  explain(command, {
    examples: [
      { text: 'what to put into a report', command: 'drydock version' },
      { text: 'for a script', command: 'drydock version --format json' },
    ],
  });
}
