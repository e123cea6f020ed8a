/** `drydock daemon`: options in, a running daemon, signals, a banner that says how to go on. */
import { type Command, Option } from 'commander';
import { explain } from '#common/command-help';
import { DrydockError, errorMessage } from '#common/errors';
import { startProgress } from '#common/progress';
import { systemErrorText } from '#common/system-error';
import { notifyManager } from './activation.ts';
import { effectiveConfig, type PartialConfig, readConfigFile } from './config.ts';
import { CONFIG_FILE_DEFAULT, type DaemonConfig, type DaemonOption, OPTIONS } from './config-options.ts';
import { valueOfFlag } from './config-values.ts';
import { FOREIGN_OPTIONS, judgeForeign } from './foreign-options.ts';
import { type DaemonLog, jsonLog, textLog } from './log.ts';
import { findProgram } from './platform.ts';

/** Gives the command every option of the table. */
export function defineDaemon(command: Command, version: string): void {
  command
    .option('--config-file <file>', `daemon.json to read (default ${CONFIG_FILE_DEFAULT}, when it is there)`)
    .option('--validate', 'check the configuration and exit');
  for (const option of OPTIONS) if (option.flags !== '') command.addOption(commanderOption(option));
  for (const { flag, bare } of FOREIGN_OPTIONS)
    if (flag) command.addOption(foreignOption(flag, bare === true));
  command.action(async () => runDaemon(command, version));
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
  // As Go's flags, a switch may be written `--icc` and `--icc=false`.
  const made = new Option(option.kind === 'flag' ? `${option.flags} [bool]` : option.flags, option.help);
  if (option.kind === 'flag') made.preset('true');
  return made.argParser((value: string, before: unknown) =>
    valueOfFlag(option.kind, option.flags, value, before),
  );
}

/** One of dockerd's that is only known by name: a switch may be written `--icc` and `--icc=false`. */
function foreignOption(flag: string, bare: boolean): Option {
  return new Option(`--${flag} ${bare ? '[value]' : '<value>'}`).hideHelp();
}

/** What the command line says; commander's own defaults (true for `--no-x`) are not. */
function given(command: Command, flags: string): unknown {
  const name = new Option(flags).attributeName();
  return command.getOptionValueSource(name) === 'cli' ? command.getOptionValue(name) : undefined;
}

/** Values that flags set, by field of the configuration. */
function flagValues(command: Command): PartialConfig {
  const found: PartialConfig = {};
  for (const option of OPTIONS) {
    if (option.flags === '') continue;
    const value = given(command, option.flags);
    if (value !== undefined) found[option.field] = value;
  }
  return found;
}

async function loadConfig(command: Command, warn: (text: string) => void): Promise<DaemonConfig> {
  const named = command.getOptionValue('configFile') as string | undefined;
  const foreign = FOREIGN_OPTIONS.flatMap((option) => {
    const value = option.flag && given(command, `--${option.flag}`);
    return value === undefined || value === '' ? [] : [{ option, value }];
  });
  for (const warning of judgeForeign(foreign, 'flag')) warn(warning);
  const file = await readConfigFile(named ?? CONFIG_FILE_DEFAULT, named !== undefined, warn);
  return effectiveConfig(flagValues(command), file, process.env);
}

async function runDaemon(command: Command, version: string): Promise<void> {
  const warnings: string[] = [];
  const config = await loadConfig(command, (text) => warnings.push(text));
  if (command.getOptionValue('validate') === true) {
    for (const warning of warnings) console.error(`warning: ${warning}`);
    console.log('configuration OK');
    return;
  }
  if (process.platform === 'linux' && process.getuid?.() !== 0) {
    const { runInUserNamespace } = await import('./rootless.ts');
    await runInUserNamespace((text) => console.error(`drydock: ${text}`));
  }
  const bar = startProgress();
  const log =
    config.logFormat === 'json'
      ? await jsonLog(config.logLevel)
      : textLog(config.logLevel, bar.print, Date.now);
  for (const warning of warnings) log.warn({}, warning);
  // Loaded now, so that --help and --validate don't wait for it.
  const { returnLargeBuffers } = await import('#common/native/allocator');
  returnLargeBuffers();
  const { openDaemon } = await import('./index.ts');
  const stopped = stopSignal(log);
  const daemon = await openDaemon(config, version, log, bar.report)
    .catch((error) => throwStartError(error, config))
    .finally(bar.end);
  for (const line of daemon.recovered) log.info({}, `cleaned up after a killed daemon: ${line}`);
  const manager = process.env.NOTIFY_SOCKET ?? '';
  delete process.env.NOTIFY_SOCKET;
  tellManager(manager, 'READY=1', log);
  process.stdout.write(banner(daemon.addresses, daemon.hostImage, version, daemon.dashboard));
  process.on('SIGHUP', () => {
    void loadConfig(command, (text) => log.warn({}, text))
      .then((next) => {
        daemon.reload(next);
        log.setLevel(next.logLevel);
        log.info({}, 'configuration reloaded');
      })
      .catch((error) => log.error({}, `configuration not reloaded: ${errorMessage(error)}`));
  });
  const signal = await stopped;
  tellManager(manager, 'STOPPING=1', log);
  log.info({ signal }, 'stopping: containers first (once more to stop at once)');
  await daemon.close();
  log.info({}, 'stopped');
  process.exit(0);
}

/** What the operating system refused at the start is about the daemon's folders, which it does not always name. */
function throwStartError(error: unknown, { dataRoot, execRoot }: DaemonConfig): never {
  const text = error instanceof DrydockError ? undefined : systemErrorText(error);
  if (text === undefined) throw error;
  throw new DrydockError(
    'ERR_START',
    `the daemon's data (--data-root ${dataRoot}, --exec-root ${execRoot}) could not be set up: ${text}`,
    { cause: error },
  );
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
export function banner(
  addresses: string[],
  image: string | undefined,
  version: string,
  dashboard?: string,
): string {
  const [address = ''] = addresses;
  const name = image?.replace(/:latest$/, '') ?? 'IMAGE';
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
