/** `drydock doctor`. */
import { writeFile } from 'node:fs/promises';
import type { Command } from 'commander';
import { explain } from '#common/command-help';
import { DrydockError } from '#common/errors';
import { startProgress } from '#common/progress';
import { CONFIG_FILE_DEFAULT } from '../../config-options.ts';
import { addFormat, type Format, paint, print } from '../format.ts';
import { makeBundle } from './bundle.ts';
import { type Finding, thisHost } from './host.ts';
import { examine } from './probes.ts';

/** Fills the command. */
export function defineDoctor(command: Command, version: string): void {
  addFormat(command)
    .option(
      '--bundle <file>',
      'also write what a bug report needs, with secrets removed; - is standard output',
    )
    .option(
      '--probe',
      'on a Mac: try what only a Mac can tell about its jails, and print the answers as JSON',
    )
    .action(async ({ format, bundle, probe }: { format: Format; bundle?: string; probe?: true }) => {
      if (probe) return printProbes();
      const host = thisHost();
      const bar = startProgress();
      const findings = await examine(host, bar.report).finally(bar.end);
      if (bundle !== undefined) {
        const text = `${JSON.stringify(await makeBundle(host, version, findings), null, 2)}\n`;
        if (bundle === '-') process.stdout.write(text);
        else await writeFile(bundle, text, { mode: 0o600 });
      }
      if (bundle !== '-') print(format, findings, doctorText);
      if (bundle !== undefined && bundle !== '-' && format === 'text')
        process.stdout.write(`\n${bundle} is written. Read it before you send it.\n`);
      if (findings.some(({ status }) => status === 'fail')) process.exitCode = 1;
    });
  explain(command, {
    examples: [
      { text: 'look at everything', command: 'sudo drydock doctor' },
      {
        text: 'only what is wrong, for a script',
        command: `drydock doctor --format json | jq '.[] | select(.status != "ok")'`,
      },
      { text: 'a file for a bug report', command: 'sudo drydock doctor --bundle report.json' },
      { text: 'what a Mac says to the open questions', command: 'sudo drydock doctor --probe >probe.json' },
    ],
    exitCodes: { 1: 'a check failed: the daemon cannot run, or not as it should' },
    files: { [CONFIG_FILE_DEFAULT]: "the daemon's configuration, which is checked" },
  });
}

/** @throws DrydockError ERR_PLATFORM elsewhere than on a Mac */
async function printProbes(): Promise<void> {
  if (process.platform !== 'darwin')
    throw new DrydockError(
      'ERR_PLATFORM',
      `--probe asks what only macOS can answer, and this is ${process.platform}. See docs/macos.md for the questions.`,
    );
  const [{ askAll, thisMac }, { DarwinCalls }] = await Promise.all([
    import('../../runtime/darwin/probe/index.ts'),
    import('#common/native/darwin/calls'),
  ]);
  process.stdout.write(`${JSON.stringify(await askAll(thisMac(new DarwinCalls())), null, 2)}\n`);
}

const COLOURS = { ok: 32, warn: 33, fail: 31 } as const;

/** The report for people: a line for each check, its fix below it. */
export function doctorText(findings: readonly Finding[]): string {
  const parts = [...new Set(findings.map(({ part }) => part))];
  const width = Math.max(...findings.map(({ name }) => name.length));
  const lines = parts.flatMap((part) => [
    '',
    paint(1, part),
    ...findings
      .filter((finding) => finding.part === part)
      .flatMap(({ name, status, text, fix }) => [
        `  ${paint(COLOURS[status], status.padEnd(4))}  ${name.padEnd(width)}  ${text}`,
        ...(fix === undefined ? [] : [`        ${' '.repeat(width)}  ${fix}`]),
      ]),
  ]);
  const count = (wanted: string): number => findings.filter(({ status }) => status === wanted).length;
  return [
    ...lines.slice(1),
    '',
    `${count('ok')} ok, ${count('warn')} warnings, ${count('fail')} failed`,
  ].join('\n');
}
