/** `drydock fsck`. */
import type { Command } from 'commander';
import { explain } from '#common/command-help';
import { DrydockError } from '#common/errors';
import { startProgress } from '#common/progress';
import { DEFAULTS } from '../config-options.ts';
import { type FsckReport, fsck } from '../store/fsck.ts';
import { lockDataRoot } from '../store/lock.ts';
import { addFormat, type Format, paint, print } from './format.ts';

/** Fills the command. */
export function defineFsck(command: Command): void {
  addFormat(command)
    .option('--data-root <path>', 'the data to look at', DEFAULTS.dataRoot)
    .option('--repair', 'also do what each finding names as its repair')
    .action(async (options: { dataRoot: string; repair?: boolean; format: Format }) => {
      const lock = await lockDataRoot(options.dataRoot).catch((error: unknown) => {
        if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
        throw new DrydockError(
          'ERR_BAD_ARGUMENT',
          `there is no data root at ${options.dataRoot}: see --data-root`,
        );
      });
      const bar = startProgress();
      try {
        const report = await fsck(options.dataRoot, bar.report).finally(bar.end);
        const repaired = options.repair === true;
        if (repaired) for (const each of report.damage) await each.mend();
        print(options.format, plain(report, repaired), () => text(report, repaired));
        if (!repaired && report.damage.length > 0) process.exitCode = 1;
      } finally {
        await lock.putBack();
      }
    });
  explain(command, {
    examples: [
      { text: 'is everything that the daemon keeps as it should be?', command: 'sudo drydock fsck' },
      { text: 'give up what is damaged, keep the rest', command: 'sudo drydock fsck --repair' },
    ],
    exitCodes: { 1: 'something is damaged, and was not repaired' },
    files: { [DEFAULTS.dataRoot]: 'images, containers, volumes and networks' },
  });
}

/** The report as data: without the functions. */
function plain({ damage, ...rest }: FsckReport, repaired: boolean): object {
  return { ...rest, damage: damage.map(({ path, text, repair }) => ({ path, text, repair, repaired })) };
}

function text({ checked, damage, leftovers }: FsckReport, repaired: boolean): string {
  const { blobs, blobBytes, images, layers, containers } = checked;
  return [
    ...damage.flatMap(({ path, text: what, repair }) => [
      `${paint(31, 'damaged')}    ${path}`,
      `             ${what}`,
      `             ${repaired ? 'done' : 'repair'}: ${repair}`,
    ]),
    ...leftovers.flatMap(({ path, text: what }) => [
      `${paint(33, 'left over')}  ${path}`,
      `             ${what}`,
    ]),
    `looked at ${blobs} blobs (${blobBytes} bytes), ${images} images, ${layers} layers, ${containers} containers`,
    `${damage.length} damaged${damage.length > 0 && !repaired ? ': --repair does what is named' : ''}`,
    `${leftovers.length} left over by a killed daemon${leftovers.length > 0 ? ': its next start removes them' : ''}`,
  ].join('\n');
}
