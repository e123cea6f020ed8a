/** `drydock service`: the daemon as a service of systemd or launchd. */
import { type Command, InvalidArgumentError, Option } from 'commander';
import { explain } from '#common/command-help';
import { addFormat, type Format, print } from '../format.ts';
import { install, type ServiceStatus, status, uninstall } from './actions.ts';
import { thisServiceHost } from './host.ts';
import { planService, type ServicePlan } from './plan.ts';

interface ScopeFlags {
  user?: true;
}

const plan = (flags: ScopeFlags & { default?: true; group?: string }): ServicePlan =>
  planService(thisServiceHost(), {
    user: flags.user === true,
    default: flags.default === true,
    group: flags.group,
  });

const addUser = (command: Command): Command =>
  command.option('--user', 'the service of the calling user instead of the machine');

function runInstall(flags: ScopeFlags & { default?: true; group?: string; print?: true }): void {
  const made = plan(flags);
  if (flags.print) {
    for (const { path, text } of made.files) process.stdout.write(`# ${path}\n${text}\n`);
    return;
  }
  install(thisServiceHost(), made);
  const { socketPath, wellKnown } = made.settings;
  process.stdout.write(`The service runs, and answers on unix://${socketPath}\n`);
  process.stdout.write(
    wellKnown === undefined
      ? 'Let docker know it: drydock context create && docker context use drydock\n'
      : `Clients that look at ${wellKnown} find it too.\n`,
  );
}

function runUninstall(flags: ScopeFlags & { purge?: true }): void {
  const made = plan({ ...flags, default: true });
  uninstall(thisServiceHost(), made, flags.purge === true);
  process.stdout.write(
    flags.purge
      ? 'The service, its images, containers and volumes are gone.\n'
      : `The service is gone. Images, containers and volumes stay in ${made.settings.dataRoot}; --purge removes them.\n`,
  );
}

function statusText(facts: ServiceStatus): string {
  const { manager, scope, installed, enabled, state, pid, socket, engine } = facts;
  if (!installed)
    return `not installed as a ${scope} service of ${manager}; do it with: drydock service install`;
  const process = pid === undefined ? '' : `, process ${pid}`;
  const answer = engine ? `${engine.name} ${engine.version} answers` : 'nobody answers';
  return [
    `${manager} (${scope})  ${state}${process}`,
    `started by itself  ${enabled ? 'yes' : 'no'}`,
    `unix://${socket}  ${answer}`,
  ].join('\n');
}

const whole = (text: string): number => {
  if (!/^\d{1,7}$/.test(text)) throw new InvalidArgumentError('a whole number is wanted.');
  return Number(text);
};

/** Fills the command. */
export function defineService(command: Command): void {
  const installed = addUser(command.command('install').description('start the daemon now and at every boot'))
    .option('--default', 'also answer on /var/run/docker.sock, where clients look that know no contexts')
    .option('-G, --group <group>', "group that may use the machine's socket (default: root)")
    .option('--print', "print the service manager's files and change nothing")
    .action(runInstall);
  explain(installed, {
    examples: [
      { text: 'for this machine', command: 'sudo drydock service install' },
      {
        text: 'in place of dockerd, for the members of a group',
        command: 'sudo drydock service install --default --group docker',
      },
      { text: 'what would be installed', command: 'drydock service install --print' },
    ],
    files: {
      '/etc/systemd/system/drydock.socket': "systemd's socket, which starts the daemon",
      '/etc/systemd/system/drydock.service': "systemd's service; a user's are in ~/.config/systemd/user",
      '/Library/LaunchDaemons/org.drydock.daemon.plist':
        "launchd's job; a user's is in ~/Library/LaunchAgents",
    },
  });
  const removed = addUser(
    command.command('uninstall').description('stop the service and remove all that install made'),
  )
    .option('--purge', 'also remove all images, containers and volumes')
    .action(runUninstall);
  explain(removed, {
    examples: [
      { text: 'undo service install; images and volumes stay', command: 'sudo drydock service uninstall' },
      { text: 'leave nothing', command: 'sudo drydock service uninstall --purge' },
    ],
  });
  const shown = addFormat(
    addUser(command.command('status').description('tell whether the service runs and answers')),
  );
  shown.action(async (flags: ScopeFlags & { format: Format }) => {
    const facts = await status(thisServiceHost(), plan(flags));
    print(flags.format, facts, statusText);
    if (!facts.engine) process.exitCode = 3;
  });
  explain(shown, {
    examples: [
      { text: 'at a glance', command: 'drydock service status' },
      { text: 'for a script', command: 'drydock service status --format json' },
    ],
    exitCodes: { 3: 'nobody answers on its socket' },
  });
  const logs = addUser(command.command('logs').description('show what the service has logged'))
    .addOption(
      new Option('-n, --lines <number>', 'how many lines, the last ones').argParser(whole).default(100),
    )
    .option('-f, --follow', 'go on until Ctrl-C')
    .action((flags: ScopeFlags & { lines: number; follow?: true }) => {
      process.exitCode = thisServiceHost().show(plan(flags).logs(flags.lines, flags.follow === true)) ?? 1;
    });
  explain(logs, {
    examples: [
      { text: 'why it does not start', command: 'drydock service logs' },
      { text: 'as it goes', command: 'drydock service logs --follow' },
    ],
  });
}
