/** `drydock fs`: the bridge alone, as bindfs is used. */
import { type Command, InvalidArgumentError, Option } from 'commander';
import { explain } from '#common/command-help';
import { errorMessage } from '#common/errors';
import type { Log } from '#common/log';
import { type IdRange, parseIdRange } from './policy/id-map.ts';
import type { Consistency, OwnershipMode } from './policy/options.ts';
import type { OperationStats } from './statistics.ts';

type Format = 'text' | 'json';

interface MountFlags {
  readOnly?: true;
  consistency: Consistency;
  ownership: OwnershipMode;
  mapUser?: IdRange[];
  mapGroup?: IdRange[];
  devices?: true;
  passthrough: boolean;
  trace?: string;
  stats?: true;
  format: Format;
}

/** A log of warnings and errors on standard error, one line each. */
function stderrLog(): Log {
  const line = (fields: object, message: string): void => {
    process.stderr.write(`drydock fs: ${message} ${JSON.stringify(fields)}\n`);
  };
  const log: Log = { debug() {}, info() {}, warn: line, error: line, child: () => log };
  return log;
}

/** Lines of columns under a heading. */
function table(rows: string[][]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows
    .map(
      (row) =>
        `${row
          .map((cell, column) => cell.padEnd(widths[column]!))
          .join('  ')
          .trimEnd()}\n`,
    )
    .join('');
}

/** The busiest operation first. */
function statsText(stats: Record<string, OperationStats>, format: Format): string {
  if (format === 'json') return `${JSON.stringify(stats)}\n`;
  const rows = Object.entries(stats)
    .sort(([, a], [, b]) => b.count - a.count)
    .map(([name, { count, p50Us, p99Us }]) => [name, String(count), String(p50Us), String(p99Us)]);
  return table([['OPERATION', 'COUNT', 'P50 US', 'P99 US'], ...rows]);
}

/** Mounts and serves until the mount ends or a signal asks to end it. */
async function mountUntilSignal(source: string, target: string, flags: MountFlags): Promise<void> {
  // Loaded now, so that help does not wait for native code.
  const { mountFolder } = await import('./mount/mount.ts');
  const mount = await mountFolder({
    source,
    target,
    readOnly: flags.readOnly === true,
    consistency: flags.consistency,
    ownership: flags.ownership,
    uidMap: flags.mapUser ?? [],
    gidMap: flags.mapGroup ?? [],
    devices: flags.devices === true,
    passthrough: flags.passthrough,
    ...(flags.trace !== undefined && { trace: flags.trace }),
    log: stderrLog(),
  });
  process.stdout.write(`${mount.source} is at ${mount.target}; Ctrl-C or umount ends it.\n`);
  const end = (): void => void mount.unmount();
  const tell = async (): Promise<void> =>
    void process.stderr.write(statsText(await mount.stats(), flags.format));
  process.once('SIGINT', end);
  process.once('SIGTERM', end);
  process.on('SIGUSR2', tell);
  await mount.ended;
  process.off('SIGINT', end);
  process.off('SIGTERM', end);
  process.off('SIGUSR2', tell);
  if (flags.stats === true) process.stdout.write(statsText(await mount.stats(), flags.format));
}

async function printStatus({ format }: { format: Format }): Promise<void> {
  const { mountStatus } = await import('./mount/status.ts');
  const found = await mountStatus();
  const rows = found.map(({ source, target, readOnly, state }) => [
    source,
    target,
    readOnly ? 'ro' : 'rw',
    state,
  ]);
  const text =
    format === 'json'
      ? `${JSON.stringify(found)}\n`
      : table([['SOURCE', 'TARGET', 'ACCESS', 'STATE'], ...rows]);
  process.stdout.write(text);
}

/** A repeatable option of ranges of ids. */
function idRanges(flags: string, what: string): Option {
  return new Option(flags, what).argParser((text: string, known: IdRange[] = []) => {
    try {
      return [...known, parseIdRange(text, known)];
    } catch (error) {
      throw new InvalidArgumentError(errorMessage(error));
    }
  });
}

function formatOption(): Option {
  return new Option('--format <format>', 'how to print').choices(['text', 'json']).default('text');
}

/** Gives `fs` its subcommands. */
export function defineFs(fs: Command): void {
  const mount = fs
    .command('mount')
    .description('mount SOURCE (a folder or a file) on TARGET and serve it in the foreground')
    .argument('<source>', 'existing folder or file')
    .argument('<target>', 'existing folder, or file if the source is one')
    .option('-r, --read-only', 'refuse changes')
    .addOption(
      new Option('--consistency <mode>', 'what the kernel may answer from memory')
        .choices(['consistent', 'cached', 'delegated'])
        .default('consistent'),
    )
    .addOption(
      new Option('--ownership <mode>', 'show the owners of the host, or to every caller itself (as osxfs)')
        .choices(['host', 'caller'])
        .default('host'),
    )
    .addOption(idRanges('--map-user <inside:host:count>', 'users with another number inside; repeatable'))
    .addOption(idRanges('--map-group <inside:host:count>', 'groups with another number inside; repeatable'))
    .option('--devices', 'allow mknod of device nodes (they can never be opened through the mount)')
    .option('--no-passthrough', 'serve the data of files here instead of letting the kernel do it')
    .option('--trace <file>', 'append a line of JSON for each request (slow)')
    .option(
      '--stats',
      'print count, median and 99th percentile by operation at the end, as SIGUSR2 does at any time',
    )
    .addOption(formatOption())
    .action(mountUntilSignal);
  explain(mount, {
    examples: [
      { text: 'a second view of a folder', command: 'sudo drydock fs mount ~/src /mnt/src' },
      {
        text: 'nobody may change it there, and every user sees the files as their own',
        command: 'sudo drydock fs mount --read-only --ownership caller ~/src /mnt/src',
      },
    ],
  });
  const status = fs
    .command('status')
    .description('list the folders that are served now, by whom ever, and whether their servers answer')
    .addOption(formatOption())
    .action(printStatus);
  explain(status, {
    examples: [
      { text: 'what is served where', command: 'drydock fs status' },
      { text: 'the same for a script', command: 'drydock fs status --format json' },
    ],
  });
}
