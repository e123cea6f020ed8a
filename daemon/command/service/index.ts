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

/** A service that was installed or removed, for programs. */
function planFacts({ manager, settings, files }: ServicePlan): object {
  return {
    manager,
    scope: settings.user ? 'user' : 'system',
    socket: settings.socketPath,
    wellKnownSocket: settings.wellKnown,
    dataRoot: settings.dataRoot,
    files: files.map(({ path }) => path),
  };
}

function runInstall(
  flags: ScopeFlags & { default?: true; group?: string; print?: true; format: Format },
): void {
  const made = plan(flags);
  if (flags.print) {
    print(flags.format, made.files, (files) =>
      files.map(({ path, text }) => `# ${path}\n${text}`).join('\n'),
    );
    return;
  }
  install(thisServiceHost(), made);
  const { socketPath, wellKnown } = made.settings;
  print(flags.format, planFacts(made), () =>
    [
      `The service runs, and answers on unix://${socketPath}`,
      wellKnown === undefined
        ? 'Let docker know it: drydock context create && docker context use drydock'
        : `Clients that look at ${wellKnown} find it too.`,
    ].join('\n'),
  );
}

function runUninstall(flags: ScopeFlags & { purge?: true; format: Format }): void {
  const made = plan({ ...flags, default: true });
  const isPurged = flags.purge === true;
  const wasInstalled = uninstall(thisServiceHost(), made, isPurged);
  print(flags.format, { ...planFacts(made), installed: wasInstalled, purged: isPurged }, () => {
    if (!wasInstalled)
      return `There was no service${isPurged ? '; its data are gone' : ', and nothing was changed'}.`;
    return isPurged
      ? 'The service, its images, containers and volumes are gone.'
      : `The service is gone. Images, containers and volumes stay in ${made.settings.dataRoot}; --purge removes them.`;
  });
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
  const installed = addFormat(
    addUser(command.command('install').description('start the daemon now and at every boot')),
  )
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
  const removed = addFormat(
    addUser(command.command('uninstall').description('stop the service and remove all that install made')),
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
  const logs = addFormat(addUser(command.command('logs').description('show what the service has logged')))
    .addOption(
      new Option('-n, --lines <number>', 'how many lines, the last ones').argParser(whole).default(100),
    )
    .option('-f, --follow', 'go on until Ctrl-C')
    .action((flags: ScopeFlags & { lines: number; follow?: true; format: Format }) => {
      const { lines, follow, format } = flags;
      process.exitCode =
        thisServiceHost().show(plan(flags).logs({ lines, follow: follow === true, format })) ?? 1;
    });
  explain(logs, {
    examples: [
      { text: 'why it does not start', command: 'drydock service logs' },
      { text: 'as it goes', command: 'drydock service logs --follow' },
      {
        text: "a JSON document a line, as systemd's journal has them",
        command: 'drydock service logs --format json',
      },
    ],
  });
}
