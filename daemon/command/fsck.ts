/** `drydock fsck`. */
import type { Command } from 'commander';
import { explain } from '#common/command-help';
import { DrydockError } from '#common/errors';
import { plainText } from '#common/plain-text';
import { startProgress } from '#common/progress';
import { DEFAULTS } from '../config-options.ts';
import { type FsckReport, fsck } from '../store/fsck.ts';
import { rootsWithin } from '../store/fsck-places.ts';
import { lockDataRoot } from '../store/lock.ts';
import { addFormat, type Format, paint, print } from './format.ts';

/** Fills the command. */
export function defineFsck(command: Command): void {
  addFormat(command)
    .option('--data-root <path>', 'the data to look at', DEFAULTS.dataRoot)
    .option('--repair', 'also do what each finding names as its repair')
    .option(
      '--layers',
      'also compare unpacked layers with their archives, which takes as long as unpacking them',
    )
    .action(async (options: { dataRoot: string; repair?: boolean; layers?: boolean; format: Format }) => {
      const reports: FsckReport[] = [];
      const repaired = options.repair === true;
      for (const root of await rootsWithin(options.dataRoot))
        reports.push(await check(root, repaired, options.layers === true));
      const report = sum(reports);
      print(options.format, plain(report, repaired), () => text(report, repaired));
      if (!repaired && report.damage.length > 0) process.exitCode = 1;
    });
  explain(command, {
    examples: [
      { text: 'is everything that the daemon keeps as it should be?', command: 'sudo drydock fsck' },
      { text: 'is every file of every image what it was?', command: 'sudo drydock fsck --layers' },
      { text: 'give up what is damaged, keep the rest', command: 'sudo drydock fsck --repair' },
    ],
    exitCodes: { 1: 'something is damaged, and was not repaired' },
    files: { [DEFAULTS.dataRoot]: 'images, containers, volumes and networks' },
  });
}

/** Verifies one data root, and repairs it where that is asked for. */
async function check(root: string, repairs: boolean, layers: boolean): Promise<FsckReport> {
  const lock = await lockDataRoot(root).catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    throw new DrydockError('ERR_BAD_ARGUMENT', `there is no data root at ${root}: see --data-root`);
  });
  const bar = startProgress();
  try {
    const report = await fsck(root, { progress: bar.report, layers }).finally(bar.end);
    if (repairs) for (const each of report.damage) await each.mend();
    return report;
  } finally {
    await lock.putBack();
  }
}

/** The reports of several data roots as one. */
function sum(reports: readonly FsckReport[]): FsckReport {
  const checked = { blobs: 0, blobBytes: 0, images: 0, layers: 0, containers: 0 };
  for (const report of reports)
    for (const kind of Object.keys(checked) as (keyof typeof checked)[])
      checked[kind] += report.checked[kind];
  const all = <T>(pick: (report: FsckReport) => T[]): T[] => reports.flatMap(pick);
  return {
    checked,
    damage: all(({ damage }) => damage),
    leftovers: all(({ leftovers }) => leftovers),
    strays: all(({ strays }) => strays),
  };
}

/** The report as data: without the functions. */
function plain({ damage, ...rest }: FsckReport, repaired: boolean): object {
  return { ...rest, damage: damage.map(({ path, text, repair }) => ({ path, text, repair, repaired })) };
}

function text({ checked, damage, leftovers, strays }: FsckReport, repaired: boolean): string {
  const { blobs, blobBytes, images, layers, containers } = checked;
  return [
    ...damage.flatMap(({ path, text: what, repair }) => [
      `${paint(31, 'damaged')}    ${plainText(path)}`,
      `             ${plainText(what)}`,
      `             ${repaired ? 'done' : 'repair'}: ${repair}`,
    ]),
    ...leftovers.flatMap(({ path, text: what }) => [
      `${paint(33, 'left over')}  ${plainText(path)}`,
      `             ${plainText(what)}`,
    ]),
    ...strays.flatMap(({ path, text: what }) => [
      `${paint(33, 'not ours')}   ${path}`,
      `             ${what}`,
    ]),
    `looked at ${blobs} blobs (${blobBytes} bytes), ${images} images, ${layers} layers, ${containers} containers`,
    `${damage.length} damaged${damage.length > 0 && !repaired ? ': --repair does what is named' : ''}`,
    `${leftovers.length} left over by a killed daemon${leftovers.length > 0 ? ': its next start removes them' : ''}`,
  ].join('\n');
}
