/** `drydock daemon`: options in, a running daemon, signals, a banner that says how to go on. */
import { type Command, Option } from 'commander';
import { explain } from '#common/command-help';
import { DrydockError, errorMessage } from '#common/errors';
import { notifyManager } from './activation.ts';
import {
  CONFIG_FILE_DEFAULT,
  type DaemonConfig,
  type DaemonOption,
  effectiveConfig,
  OPTIONS,
  type PartialConfig,
  readConfigFile,
} from './config.ts';
import { FOREIGN_OPTIONS, judgeForeign } from './foreign-options.ts';
import { type DaemonLog, jsonLog, textLog } from './log.ts';
import { findProgram } from './platform.ts';

/** Gives the command every option of the table. */
export function defineDaemon(command: Command, version: string): void {
  command
    .option('--config-file <file>', `daemon.json to read (default ${CONFIG_FILE_DEFAULT}, when it is there)`)
    .option('--validate', 'check the configuration and exit');
  for (const option of OPTIONS) command.addOption(commanderOption(option));
  for (const { flag, bare } of FOREIGN_OPTIONS)
    if (flag) command.addOption(foreignOption(flag, bare === true));
  command.action(async (flags: Record<string, unknown>) => runDaemon(flags, version));
  explain(command, {
    examples: [
      { text: 'run in this terminal; Ctrl-C stops it and its containers', command: 'sudo drydock daemon' },
      {
        text: 'a second one beside it, with a socket and state of its own',
        command:
          'sudo drydock daemon -H unix:///run/second/docker.sock --data-root /var/lib/second --exec-root /run/second',
      },
      { text: 'check a configuration file', command: 'drydock daemon --config-file daemon.json --validate' },
    ],
    exitCodes: { 130: 'a second SIGINT or SIGTERM ended it at once; the next start cleans up' },
    files: { [CONFIG_FILE_DEFAULT]: 'options that are not given as flags; SIGHUP reads it again' },
  });
}

function commanderOption(option: DaemonOption): Option {
  const made = new Option(option.flags, option.help);
  if (option.kind === 'list')
    made.argParser((value: string, before: string[] | undefined) => [...(before ?? []), value]);
  if (option.kind === 'map' || option.kind === 'programs')
    made.argParser((value: string, before: Record<string, string> | undefined) => {
      const at = value.indexOf('=');
      return { ...before, [at < 0 ? value : value.slice(0, at)]: at < 0 ? '' : value.slice(at + 1) };
    });
  if (option.kind === 'number')
    made.argParser((value: string) => {
      if (!/^\d+$/.test(value))
        throw new DrydockError('ERR_BAD_CONFIG', `${option.flags}: ${value} is not a number`);
      return Number(value);
    });
  return made;
}

/** Commander takes `--no-x` for the negation of a switch that is on unless told otherwise. */
function isGiven(flags: Record<string, unknown>, flag: string): boolean {
  const value = flags[new Option(`--${flag}`).attributeName()];
  return value !== undefined && !(flag.startsWith('no-') && value === true);
}

/** One of dockerd's that is only known by name: a switch may be written `--icc` and `--icc=false`. */
function foreignOption(flag: string, bare: boolean): Option {
  const short = flag === 'bridge' ? '-b, ' : '';
  return new Option(`${short}--${flag} ${bare ? '[value]' : '<value>'}`).hideHelp();
}

/** Values that flags set, by field of the configuration. */
function flagValues(flags: Record<string, unknown>): PartialConfig {
  const found: PartialConfig = {};
  for (const option of OPTIONS) {
    const value = flags[new Option(option.flags).attributeName()];
    if (value !== undefined) found[option.field] = value;
  }
  return found;
}

async function loadConfig(
  flags: Record<string, unknown>,
  warn: (text: string) => void,
): Promise<DaemonConfig> {
  const named = flags.configFile as string | undefined;
  const foreign = FOREIGN_OPTIONS.filter(({ flag }) => flag && isGiven(flags, flag));
  for (const warning of judgeForeign(foreign, 'flag')) warn(warning);
  const file = await readConfigFile(named ?? CONFIG_FILE_DEFAULT, named !== undefined, warn);
  return effectiveConfig(flagValues(flags), file);
}

async function runDaemon(flags: Record<string, unknown>, version: string): Promise<void> {
  const warnings: string[] = [];
  const config = await loadConfig(flags, (text) => warnings.push(text));
  if (flags.validate === true) {
    for (const warning of warnings) console.error(`warning: ${warning}`);
    console.log('configuration OK');
    return;
  }
  const log =
    config.logFormat === 'json'
      ? await jsonLog(config.logLevel)
      : textLog(config.logLevel, (line) => process.stderr.write(line), Date.now);
  for (const warning of warnings) log.warn({}, warning);
  // Loaded now, so that --help and --validate don't wait for it.
  const { openDaemon } = await import('./index.ts');
  const stopped = stopSignal(log);
  const daemon = await openDaemon(config, version, log);
  for (const line of daemon.recovered) log.info({}, `cleaned up after a killed daemon: ${line}`);
  const manager = process.env.NOTIFY_SOCKET ?? '';
  delete process.env.NOTIFY_SOCKET;
  tellManager(manager, 'READY=1', log);
  process.stdout.write(banner(daemon.addresses, daemon.hostImage, version, daemon.dashboard));
  process.on('SIGHUP', () => {
    loadConfig(flags, (text) => log.warn({}, text)).then(
      (next) => {
        log.setLevel(next.logLevel);
        daemon.reload(next);
        log.info({}, 'configuration reloaded');
      },
      (error) => log.error({}, `configuration not reloaded: ${errorMessage(error)}`),
    );
  });
  const signal = await stopped;
  tellManager(manager, 'STOPPING=1', log);
  log.info({ signal }, 'stopping: containers first (once more to stop at once)');
  await daemon.close();
  log.info({}, 'stopped');
  process.exit(0);
}

function tellManager(address: string, state: 'READY=1' | 'STOPPING=1', log: DaemonLog): void {
  if (address === '') return;
  try {
    notifyManager(address, state);
  } catch (error) {
    log.warn({ address, error: errorMessage(error) }, `the service manager could not be told ${state}`);
  }
}

/** Resolves at the first SIGTERM or SIGINT; the second ends the process at once. */
function stopSignal(log: DaemonLog): Promise<string> {
  return new Promise((resolve) => {
    let asked = false;
    const handle = (signal: string): void => {
      if (asked) {
        log.warn({}, 'stopped at once: the next start will clean up');
        process.exit(130);
      }
      asked = true;
      resolve(signal);
    };
    process.on('SIGTERM', () => handle('SIGTERM'));
    process.on('SIGINT', () => handle('SIGINT'));
  });
}

/** What a newcomer reads when the daemon is ready. */
export function banner(addresses: string[], image: string, version: string, dashboard?: string): string {
  const [address = ''] = addresses;
  const name = image.replace(/:latest$/, '');
  const lines = [
    '',
    `Drydock ${version} is ready. In another terminal:`,
    '',
    `  export DOCKER_HOST=${address}`,
    `  docker run --rm -it ${name} bash`,
    '',
  ];
  for (const other of addresses.slice(1)) lines.push(`It also answers on ${other}`);
  if (dashboard !== undefined) lines.push(`See what goes on: ${dashboard}`, '');
  if (!findProgram('docker'))
    lines.push(
      'There is no docker CLI in PATH: install one (Debian and Ubuntu: apt-get install docker.io; Alpine: apk add docker-cli),',
      'or talk to the API with: curl --unix-socket PATH http://localhost/version',
      '',
    );
  return `${lines.join('\n')}\n`;
}
