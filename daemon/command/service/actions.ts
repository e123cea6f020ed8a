/** install, uninstall and status over a plan and a machine. */
import { join } from 'node:path';
import { DrydockError } from '#common/errors';
import { type EngineFacts, getEngine } from '../doctor/host.ts';
import type { ServiceHost } from './host.ts';
import type { CommandLine, ServicePlan } from './plan.ts';

/** What `drydock service status` tells. */
export interface ServiceStatus {
  manager: ServicePlan['manager'];
  scope: 'system' | 'user';
  installed: boolean;
  /** Started at boot or login. */
  enabled: boolean;
  /** The manager's own word, such as `active` or `failed`. */
  state: string;
  pid: number | undefined;
  socket: string;
  /** Who answers there. */
  engine: EngineFacts | undefined;
}

/** Runs a command of the service manager. @throws ERR_SERVICE_MANAGER */
function order(host: ServiceHost, command: CommandLine): void {
  const { status, stderr } = host.run(command);
  if (status === 0) return;
  const absent =
    status === undefined || /not been booted with systemd|Failed to connect to bus/.test(stderr)
      ? ' Is it the service manager of this machine? Without one, run `drydock daemon` by what starts your programs.'
      : '';
  throw new DrydockError('ERR_SERVICE_MANAGER', `${command.join(' ')} failed: ${stderr.trim()}.${absent}`);
}

/** The socket that every client tries must not be another engine's. @throws ERR_SERVICE_DEFAULT_TAKEN */
function requireFree(host: ServiceHost, { settings }: ServicePlan): void {
  const { wellKnown, socketPath } = settings;
  const found = wellKnown === undefined ? undefined : host.look(wellKnown);
  if (found === undefined || (found.kind === 'link' && found.text === socketPath)) return;
  throw new DrydockError(
    'ERR_SERVICE_DEFAULT_TAKEN',
    `${wellKnown} is there already, of another engine. Stop that (systemctl disable --now docker.service docker.socket, or quit ` +
      'Docker Desktop or colima), or leave --default out and use: drydock context create',
  );
}

/**
 * Writes the files and starts the service; when the manager refuses, everything is taken back.
 * @throws ERR_REQUIREMENTS, ERR_SERVICE_PROGRAM, ERR_SERVICE_DEFAULT_TAKEN, ERR_SERVICE_MANAGER
 */
export function install(host: ServiceHost, plan: ServicePlan): void {
  const missing = host.missing(plan.settings.user);
  if (missing.length > 0)
    throw new DrydockError('ERR_REQUIREMENTS', `the service could not run here:\n${missing.join('\n')}`);
  if (host.program.includes('/_npx/'))
    throw new DrydockError(
      'ERR_SERVICE_PROGRAM',
      'npx keeps this program in a cache that npm may clear at any time. Install it first: npm install -g drydock',
    );
  requireFree(host, plan);
  // A job that launchd knows already keeps its old settings, so it goes first; systemd restarts what it knows.
  if (plan.manager === 'launchd' && plan.files.some(({ path }) => host.look(path)))
    for (const command of plan.stop) host.run(command);
  try {
    for (const { path, text } of plan.files) host.write(path, text);
    for (const command of plan.start) order(host, command);
  } catch (error) {
    for (const command of plan.stop) host.run(command);
    removeUnits(host, plan);
    throw error;
  }
}

/**
 * Removing a folder removes what is mounted in it: folders of the host, while their containers run. proc_pid_mountinfo(5): the fifth field is
 * where, with a space as \\040.
 * @throws ERR_SERVICE_BUSY
 */
function requireUnmounted(host: ServiceHost, folder: string): void {
  const lines = (host.look('/proc/self/mountinfo')?.text ?? '').split('\n');
  const places = lines.map((line) => (line.split(' ')[4] ?? '').replaceAll('\\040', ' '));
  const held = places.find((place) => place === folder || place.startsWith(`${folder}/`));
  if (held !== undefined)
    throw new DrydockError(
      'ERR_SERVICE_BUSY',
      `${held} is mounted: containers go on there. The service was stopped, and nothing was removed. Stop them (with live-restore, ` +
        'start the daemon for that), and try again.',
    );
}

/**
 * Ends the service and removes its files. Where there is none, only data that are to go are removed.
 * @param purge also images, containers and volumes
 * @returns whether there was a service
 * @throws ERR_SERVICE_BUSY, ERR_SERVICE_DATA
 */
export function uninstall(host: ServiceHost, plan: ServicePlan, purge: boolean): boolean {
  const { socketPath, execRoot, dataRoot, logPath } = plan.settings;
  const isInstalled = plan.files.some(({ path }) => host.look(path));
  if (isInstalled) {
    for (const command of plan.stop) host.run(command);
    for (const folder of [execRoot, ...(purge ? [dataRoot] : [])]) requireUnmounted(host, folder);
    removeUnits(host, plan);
    host.remove(socketPath);
    host.remove(execRoot);
    if (logPath !== '') host.remove(logPath);
  } else if (purge && host.look(socketPath))
    throw new DrydockError(
      'ERR_SERVICE_BUSY',
      `${socketPath} is there, so a daemon runs that is no service. Nothing was removed. Stop it, and try again.`,
    );
  if (purge && host.look(dataRoot)) removeData(host, dataRoot);
  return isInstalled;
}

/** What the manager knows of the service, and the link to its socket. */
function removeUnits(host: ServiceHost, plan: ServicePlan): void {
  const { socketPath, wellKnown } = plan.settings;
  for (const { path } of plan.files) host.remove(path);
  for (const command of plan.forget) host.run(command);
  const link = wellKnown === undefined ? undefined : host.look(wellKnown);
  if (wellKnown !== undefined && link?.kind === 'link' && link.text === socketPath) host.remove(wellKnown);
}

/** @throws ERR_SERVICE_BUSY, ERR_SERVICE_DATA */
function removeData(host: ServiceHost, dataRoot: string): void {
  requireUnmounted(host, dataRoot);
  // What every daemon leaves in its folder: nothing else is removed by this name.
  if (!host.look(join(dataRoot, 'engine-id')))
    throw new DrydockError(
      'ERR_SERVICE_DATA',
      `${dataRoot} does not look like a daemon's data, so it was left. Remove it yourself.`,
    );
  host.remove(dataRoot);
}

/** How the service is now. */
export async function status(host: ServiceHost, plan: ServicePlan): Promise<ServiceStatus> {
  const { stdout } = host.run(plan.show);
  const { socketPath, user } = plan.settings;
  const common = {
    manager: plan.manager,
    scope: user ? 'user' : 'system',
    installed: plan.files.every(({ path }) => host.look(path)),
    socket: socketPath,
    engine: await getEngine(socketPath),
  } as const;
  if (plan.manager === 'launchd') {
    const pid = /^\s*pid = (\d+)$/m.exec(stdout)?.[1];
    const state = /^\s*state = (.+)$/m.exec(stdout)?.[1] ?? 'not loaded';
    return { ...common, enabled: common.installed, state, pid: pid === undefined ? undefined : Number(pid) };
  }
  const fact = (name: string): string => new RegExp(`^${name}=(.*)$`, 'm').exec(stdout)?.[1] ?? '';
  const pid = Number(fact('MainPID'));
  return {
    ...common,
    enabled: fact('UnitFileState') === 'enabled',
    state: fact('ActiveState') || 'unknown',
    pid: pid > 0 ? pid : undefined,
  };
}
