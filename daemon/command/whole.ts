/** The package's version, and the whole program as data: for the build, which writes pages from it. */
import { readFileSync } from 'node:fs';
import { type CommandFacts, describeCommand } from './describe.ts';
import { createProgram } from './program.ts';

/** The version in package.json. */
export function packageVersion(): string {
  const up = import.meta.url.includes('/dist/') ? '../../../package.json' : '../../package.json';
  return (JSON.parse(readFileSync(new URL(up, import.meta.url), 'utf8')) as { version: string }).version;
}

/** Every command. */
export async function wholeProgram(): Promise<{ program: CommandFacts; version: string }> {
  const version = packageVersion();
  return { program: describeCommand(await createProgram(version)), version };
}
