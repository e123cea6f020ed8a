/**
 * What a service is made of on this machine, as data: its files, and the commands of the service manager that start it, end it and tell
 * of it. install and uninstall work it off, so what one makes the other removes.
 */
import { join } from 'node:path';
import { DrydockError } from '#common/errors';
import { effectiveConfig, parseConfigFile } from '../../config.ts';
import { CONFIG_FILE_DEFAULT, type DaemonConfig, DEFAULTS } from '../../config-options.ts';
import type { Format } from '../format.ts';
import { LAUNCHD_LABEL, launchdPlist, type ServiceSettings, serviceUnit, socketUnit } from './files.ts';
import type { ServiceHost } from './host.ts';

/** What the user asked for. */
export interface ServiceWish {
  user: boolean;
  default: boolean;
  group: string | undefined;
}

/** How to print the log. */
export interface LogWish {
  /** How many, the last ones. */
  lines: number;
  /** Goes on until it is interrupted. */
  follow: boolean;
  /** `json` prints a document a line. */
  format: Format;
}

/** A program and its arguments. */
export type CommandLine = readonly string[];

/** A service on one machine. */
export interface ServicePlan {
  manager: 'systemd' | 'launchd';
  settings: ServiceSettings;
  files: readonly { path: string; text: string }[];
  /** In order, once the files are there. */
  start: readonly CommandLine[];
  /** In order, before the files go; one that fails has nothing to stop. */
  stop: readonly CommandLine[];
  /** Once the files are gone. */
  forget: readonly CommandLine[];
  /** Prints the service's state. */
  show: CommandLine;
  /** Prints its log. @throws ERR_SERVICE_LOG */
  logs(wish: LogWish): CommandLine;
}

const UNITS = ['drydock.socket', 'drydock.service'];

/**
 * The machine's configuration file over the defaults: it says where data are, and must leave to the service where to listen.
 * @throws ERR_SERVICE_CONFIG, ERR_BAD_CONFIG
 */
function machineConfig(host: ServiceHost): DaemonConfig {
  const text = host.look(CONFIG_FILE_DEFAULT)?.text;
  if (text === undefined) return DEFAULTS;
  const config = effectiveConfig({}, parseConfigFile(text));
  if (config.hosts.join() !== DEFAULTS.hosts.join())
    throw new DrydockError(
      'ERR_SERVICE_CONFIG',
      `${CONFIG_FILE_DEFAULT} has "hosts", but a service's socket is the service manager's. Remove that key from the file.`,
    );
  return config;
}

function settingsOf(host: ServiceHost, wish: ServiceWish): ServiceSettings {
  const { node, program, home, env, platform } = host;
  const common = { node, program, user: wish.user, group: wish.group };
  const { dataRoot, execRoot } = wish.user ? DEFAULTS : machineConfig(host);
  if (platform === 'darwin') {
    const own = join(home, '.drydock');
    return {
      ...common,
      // A user's path must fit into sun_path, which has 104 bytes on macOS.
      socketPath: wish.user ? join(own, 'run/docker.sock') : '/var/run/drydock/docker.sock',
      dataRoot: wish.user ? join(own, 'data') : dataRoot,
      execRoot: wish.user ? join(own, 'run') : execRoot,
      wellKnown: wish.default ? '/var/run/docker.sock' : undefined,
      logPath: wish.user ? join(home, 'Library/Logs/drydock.log') : '/var/log/drydock.log',
    };
  }
  if (!wish.user)
    return {
      ...common,
      socketPath: DEFAULTS.hosts[0]!.replace('unix://', ''),
      dataRoot,
      execRoot,
      wellKnown: wish.default ? '/run/docker.sock' : undefined,
      logPath: '',
    };
  const runtime = env.XDG_RUNTIME_DIR;
  if (!runtime)
    throw new DrydockError(
      'ERR_SERVICE_USER',
      'XDG_RUNTIME_DIR is not set, so this is no session of a systemd user. Log in as that user, not by su or sudo.',
    );
  return {
    ...common,
    socketPath: join(runtime, 'drydock/docker.sock'),
    dataRoot: join(env.XDG_DATA_HOME || join(home, '.local/share'), 'drydock'),
    execRoot: join(runtime, 'drydock'),
    wellKnown: wish.default ? join(runtime, 'docker.sock') : undefined,
    logPath: '',
  };
}

/** The service of this machine. @throws ERR_SERVICE_PLATFORM, ERR_SERVICE_USER, ERR_SERVICE_CONFIG, ERR_BAD_CONFIG */
export function planService(host: ServiceHost, wish: ServiceWish): ServicePlan {
  if (wish.user && wish.group !== undefined)
    throw new DrydockError(
      'ERR_SERVICE_USER',
      "--group is for the machine's service: a user's socket is the user's.",
    );
  if (host.platform === 'linux') return systemdPlan(host, wish);
  if (host.platform === 'darwin') return launchdPlan(host, wish);
  throw new DrydockError(
    'ERR_SERVICE_PLATFORM',
    `There is no service manager for ${host.platform} here: systemd and launchd are known.`,
  );
}

function systemdPlan(host: ServiceHost, wish: ServiceWish): ServicePlan {
  const settings = settingsOf(host, wish);
  const folder = wish.user
    ? join(host.env.XDG_CONFIG_HOME || join(host.home, '.config'), 'systemd/user')
    : '/etc/systemd/system';
  const scope = wish.user ? ['--user'] : [];
  const systemctl = (...args: string[]): CommandLine => ['systemctl', ...scope, ...args];
  return {
    manager: 'systemd',
    settings,
    files: [
      { path: join(folder, 'drydock.socket'), text: socketUnit(settings) },
      { path: join(folder, 'drydock.service'), text: serviceUnit(settings) },
    ],
    start: [systemctl('daemon-reload'), systemctl('enable', ...UNITS), systemctl('restart', ...UNITS)],
    stop: [systemctl('disable', '--now', ...UNITS)],
    forget: [systemctl('daemon-reload'), systemctl('reset-failed', ...UNITS)],
    show: systemctl(
      'show',
      'drydock.service',
      '--property=LoadState,ActiveState,SubState,MainPID,UnitFileState',
    ),
    logs: ({ lines, follow, format }) => [
      'journalctl',
      ...scope,
      '--unit=drydock.service',
      `--lines=${lines}`,
      ...(format === 'json' ? ['--output=json'] : []),
      ...(follow ? ['--follow'] : ['--no-pager']),
    ],
  };
}

function launchdPlan(host: ServiceHost, wish: ServiceWish): ServicePlan {
  const settings = settingsOf(host, wish);
  const folder = wish.user ? join(host.home, 'Library/LaunchAgents') : '/Library/LaunchDaemons';
  const domain = wish.user ? `gui/${host.uid}` : 'system';
  const path = join(folder, `${LAUNCHD_LABEL}.plist`);
  return {
    manager: 'launchd',
    settings,
    files: [{ path, text: launchdPlist(settings) }],
    start: [['launchctl', 'bootstrap', domain, path]],
    stop: [['launchctl', 'bootout', `${domain}/${LAUNCHD_LABEL}`]],
    forget: [],
    show: ['launchctl', 'print', `${domain}/${LAUNCHD_LABEL}`],
    logs({ lines, follow, format }) {
      if (format === 'json')
        throw new DrydockError(
          'ERR_SERVICE_LOG',
          `launchd keeps the log as the daemon writes it. For JSON set "log-format": "json" in ${CONFIG_FILE_DEFAULT}.`,
        );
      return ['tail', '-n', String(lines), ...(follow ? ['-F'] : []), settings.logPath];
    },
  };
}
