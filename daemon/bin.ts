#!/usr/bin/env node
/** The `drydock` program. Each command loads its part only when it is called, so that `drydock version` is quick. */
import { readFileSync } from 'node:fs';
import { Command } from 'commander';
import { errorMessage } from '#common/errors';

const version = (
  JSON.parse(
    readFileSync(
      new URL(import.meta.url.includes('/dist/') ? '../../package.json' : '../package.json', import.meta.url),
      'utf8',
    ),
  ) as { version: string }
).version;

const program = new Command('drydock').description(
  'Containers on the host itself, without a Linux VM under them',
);
program
  .command('version')
  .description('print the version')
  .action(() =>
    console.log(`drydock ${version} (node ${process.version}, ${process.platform} ${process.arch})`),
  );

/** Parts with commands of their own; the named one alone is loaded, all for help. */
const parts: Record<string, () => Promise<void>> = {
  daemon: async () => (await import('./cli.ts')).addDaemonCommand(program, version),
  net: async () => (await import('#netstack/cli')).addNetCommand(program, version),
  fs: async () => (await import('#fsbridge/cli')).addFsCommand(program),
};
const [wanted = ''] = process.argv.slice(2);
if (wanted !== 'version')
  for (const name of Object.hasOwn(parts, wanted) ? [wanted] : Object.keys(parts)) await parts[name]!();

try {
  await program.parseAsync();
} catch (error) {
  console.error(`drydock: ${errorMessage(error)}`);
  process.exit(1);
}
