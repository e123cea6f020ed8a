/** `drydock fs`: the bridge alone, as bindfs is used. */
import { type Command, Option } from 'commander';
import { explain } from '#common/command-help';
import type { Log } from '#common/log';
import type { Consistency, OwnershipMode } from './policy/options.ts';

interface MountFlags {
  readOnly?: true;
  consistency: Consistency;
  ownership: OwnershipMode;
  devices?: true;
  passthrough: boolean;
  stats?: true;
}

/** A log of warnings and errors on standard error, one line each. */
function stderrLog(): Log {
  const line = (fields: object, message: string): void => {
    process.stderr.write(`drydock fs: ${message} ${JSON.stringify(fields)}\n`);
  };
  const log: Log = { debug() {}, info() {}, warn: line, error: line, child: () => log };
  return log;
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
    devices: flags.devices === true,
    passthrough: flags.passthrough,
    log: stderrLog(),
  });
  process.stdout.write(`${mount.source} is at ${mount.target}; Ctrl-C or umount ends it.\n`);
  const end = (): void => void mount.unmount();
  process.once('SIGINT', end);
  process.once('SIGTERM', end);
  await mount.ended;
  process.off('SIGINT', end);
  process.off('SIGTERM', end);
  if (flags.stats === true) {
    const counts = Object.entries(await mount.stats()).sort((a, b) => b[1] - a[1]);
    for (const [operation, count] of counts) process.stdout.write(`${operation}\t${count}\n`);
  }
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
    .option('--devices', 'allow mknod of device nodes (they can never be opened through the mount)')
    .option('--no-passthrough', 'serve the data of files here instead of letting the kernel do it')
    .option('--stats', 'print the number of requests by operation at the end')
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
}
