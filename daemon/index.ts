/**
 * The daemon: puts the parts together, in the order in which they need each other, and takes them apart in reverse.
 * This is the public surface of `drydock/daemon`.
 */
import { mkdir, readFile, rm, rmdir, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '#common/clock';
import { DrydockError, errorCode } from '#common/errors';
import type { UserMaps } from '#common/id-map';
import { type Log, nullLog } from '#common/log';
import { makeFolders } from '#common/make-folders';
import type { Progress } from '#common/progress';
import { cryptoRng } from '#common/rng';
import { inUserNamespace } from '#common/user-namespace';
import { mountFolder, sweepMounts } from '#fsbridge';
import { createNetstack } from '#netstack';
import { listenAddresses, type ServedApi, serveApi } from './api/index.ts';
import { Builds } from './build/service.ts';
import { instanceOf, parseHost } from './config.ts';
import { type DaemonConfig, OPTIONS } from './config-options.ts';
import { viewRoutes } from './dashboard/routes.ts';
import { serveDashboard } from './dashboard/server.ts';
import { EventBus } from './events/bus.ts';
import { ensureHostImage, openImages, type StorageDriver } from './image/index.ts';
import type { Image } from './image/store.ts';
import { EngineMetrics, serveMetrics } from './metrics.ts';
import { ProxiedJails } from './network/proxied/jails.ts';
import { withJails } from './network/proxied/network.ts';
import { noStack } from './network/proxied/no-stack.ts';
import {
  carriesPackets,
  cutConnections,
  hasHostImage,
  hostSubnets,
  requirements,
  serveNames,
  servesFolders,
} from './platform.ts';
import { createRuntime } from './runtime/index.ts';
import { containerDefaults, createServices, registryOptions, type Services } from './services.ts';
import { lockDataRoot } from './store/lock.ts';
import { readIdFiles, remappedFolder, remappedUsers } from './user-maps.ts';

export { type Log, nullLog } from '#common/log';
/** The options' defaults, for a {@link DaemonConfig} that says only what is different. */
export { type DaemonConfig, DEFAULTS } from './config-options.ts';

/** A running daemon. */
export interface Daemon {
  /** Addresses that answer, in the form of DOCKER_HOST. */
  readonly addresses: string[];
  /** Name of the image that needs no registry, where there is one. */
  readonly hostImage: string | undefined;
  /** URL of the web page with its token, where one is served. */
  readonly dashboard: string | undefined;
  /** What was found and cleaned up of a daemon that was killed. */
  readonly recovered: string[];
  /** Takes over what may change while the daemon runs. */
  reload(config: DaemonConfig): void;
  /** Stops all containers and frees everything. */
  close(): Promise<void>;
}

/** Things to undo, the last one first. */
class Undo {
  readonly #steps: [string, () => Promise<unknown> | unknown][] = [];
  readonly #log: Log;

  constructor(log: Log) {
    this.#log = log;
  }

  add(what: string, step: () => Promise<unknown> | unknown): void {
    this.#steps.push([what, step]);
  }

  async run(): Promise<void> {
    for (const [what, step] of this.#steps.splice(0).reverse())
      try {
        await step();
      } catch (error) {
        this.#log.error({ step: what, error }, 'a step of the shutdown failed');
      }
  }
}

/**
 * Starts a daemon in this process.
 * @param version what clients are told
 * @param progress told how far a first start's work has come
 * @throws DrydockError ERR_REQUIREMENTS, ERR_DATA_ROOT_IN_USE, ERR_LISTEN and others, with nothing left behind
 */
export async function openDaemon(
  config: DaemonConfig,
  version: string,
  log: Log = nullLog,
  progress: Progress = () => {},
): Promise<Daemon> {
  const missing = requirements().filter((requirement) => !requirement.met);
  if (missing.length > 0)
    throw new DrydockError('ERR_REQUIREMENTS', missing.map((requirement) => requirement.remedy).join('\n'));
  const undo = new Undo(log);
  try {
    return await open(remapped(config), version, log, undo, progress);
  } catch (error) {
    await undo.run();
    throw error;
  }
}

/** A configuration whose data is apart from that of other users of containers: the owners of files differ. */
interface RemappedConfig extends DaemonConfig {
  userMaps: UserMaps | undefined;
}

function remapped(config: DaemonConfig): RemappedConfig {
  if (config.usernsRemap === '') return { ...config, userMaps: undefined };
  const userMaps = remappedUsers(config.usernsRemap, readIdFiles());
  return { ...config, userMaps, dataRoot: join(config.dataRoot, remappedFolder(userMaps)) };
}

async function open(
  config: RemappedConfig,
  version: string,
  log: Log,
  undo: Undo,
  progress: Progress,
): Promise<Daemon> {
  const { dataRoot, execRoot } = config;
  if (config.liveRestore && inUserNamespace)
    throw new DrydockError(
      'ERR_BAD_CONFIG',
      "live-restore: containers of an ordinary user's daemon end with it: start the daemon as root, or without this option",
    );
  // First, since a mistake in it need not wait for the rest.
  const addresses = listenAddresses(config.hosts);
  await makeFolders(dataRoot, 0o710);
  await makeFolders(execRoot, 0o710);
  const lock = await lockDataRoot(dataRoot);
  undo.add('release the data root', () => lock.release());
  if (config.pidfile !== '') {
    await writeFile(config.pidfile, `${process.pid}\n`);
    undo.add('remove the pid file', () => rm(config.pidfile, { force: true }));
  }
  const { services, hostImage } = await openServices(config, version, log, undo, progress);
  const { context, recovered } = services;
  if (lock.abandoned && recovered.length === 0) recovered.push('nothing was left over');
  let live: DaemonConfig = config;
  const image = await hostImage;
  const metrics = new EngineMetrics();
  if (config.metricsAddr !== '') {
    const served = await serveMetrics(metricsAddress(config.metricsAddr), metrics, context);
    undo.add('close the metrics', () => served.close());
    log.info({ url: served.url }, 'metrics are served');
  }
  const dashboard = config.dashboard === '' ? undefined : await serveDashboard(context, config);
  if (dashboard) undo.add('close the dashboard', () => dashboard.close());
  const api: ServedApi = await serveApi(context, config, addresses, [metrics.plugin, viewRoutes]);
  // Clients that are connected see their containers end before their connections do.
  undo.add('close the API', () => api.close());
  undo.add('stop containers', () => context.containers.shutdown(live.shutdownTimeoutS));
  undo.add('refuse clients', () => api.refuse());
  void context.containers.startByPolicy();
  return {
    addresses: api.addresses,
    dashboard: dashboard?.url,
    hostImage: image?.tags[0],
    recovered: lock.abandoned ? recovered : [],
    reload(next) {
      const taken = OPTIONS.filter(({ reload }) => reload).map(({ field }) => [field, next[field]]);
      live = { ...live, ...Object.fromEntries(taken) };
      services.reload(live);
      context.events.emit('daemon', 'reload', services.id, reloadAttributes(live));
    },
    close: () => undo.run(),
  };
}

/** What the event of a reload tells, as dockerd's. */
function reloadAttributes(config: DaemonConfig): Record<string, string> {
  const reloaded = OPTIONS.filter(({ reload, key }) => reload && key !== 'log-level');
  const values = reloaded.map(({ key, field }): [string, string] => {
    const value = config[field];
    return [key, typeof value === 'object' ? JSON.stringify(value) : String(value)];
  });
  return { ...Object.fromEntries(values), 'live-restore': String(config.liveRestore), name: hostname() };
}

function metricsAddress(text: string): { host: string; port: number } {
  const address = parseHost(`tcp://${text}`);
  if (address.kind !== 'tcp') throw new DrydockError('ERR_BAD_CONFIG', `invalid metrics-addr: ${text}`);
  return address;
}

/** Opens what touches the host, and the services over it. */
async function openServices(
  config: RemappedConfig,
  version: string,
  log: Log,
  undo: Undo,
  progress: Progress,
): Promise<{ services: Services; hostImage: Promise<Image | undefined> }> {
  const { dataRoot, execRoot, userMaps } = config;
  const clock = systemClock;
  const events = new EventBus(clock);
  const opened = await openImages({
    dataRoot,
    log,
    clock,
    userMaps,
    ...(config.storageDriver && { driver: config.storageDriver as StorageDriver }),
    registry: registryOptions(config),
    onEvent: (event) => events.emit('image', event.action, event.id, event.attributes),
  });
  // A worker's work, beside all that follows.
  const hostImage = hasHostImage
    ? ensureHostImage(opened.images, log, clock, progress)
    : Promise.resolve(undefined);
  hostImage.catch(() => {}); // told where it is awaited
  undo.add('close the image store', async () => {
    await Promise.allSettled([hostImage]);
    await opened.close();
  });
  const folders = {
    scratch: join(dataRoot, 'build'),
    secrets: join(execRoot, 'build'),
    cache: join(dataRoot, 'build-cache'),
  };
  const builds = new Builds(opened.images, opened.roots, folders, clock);
  await builds.open();
  const { runtimes, defaultRuntime } = config;
  const proxied = new ProxiedJails(cryptoRng, await serveNames());
  const runtime = createRuntime({
    instance: instanceOf(dataRoot),
    execRoot,
    log,
    clock,
    runtimes,
    defaultRuntime,
    liveRestore: config.liveRestore,
    proxied,
  });
  await runtime.open();
  undo.add('close the runtime', () => runtime.close());
  const mountsFolder = join(execRoot, 'mounts');
  await mkdir(mountsFolder, { recursive: true, mode: 0o710 });
  undo.add('remove the folder of mounts', async () => {
    for (const path of await sweepMounts(mountsFolder)) log.warn({ path }, 'a mount was left over');
    await rmdir(mountsFolder).catch((error) => {
      // What containers need that go on stays.
      if (!config.liveRestore || errorCode(error) !== 'ENOTEMPTY') throw error;
    });
  });
  const unmounted = (await sweepMounts(mountsFolder)).map((path) => `unmounted ${path}`);
  const services = await createServices({
    config,
    version,
    id: await daemonId(dataRoot),
    images: opened.images,
    roots: opened.roots,
    builds,
    driverStatus: opened.driverStatus,
    userMaps,
    reloadRegistries: (options) => opened.reloadRegistries(options),
    containerDefaults: await containerDefaults(config),
    runtime,
    createNetstack: withJails(proxied, carriesPackets ? createNetstack : noStack),
    hostSubnets,
    cutConnections,
    mountFolder,
    bindsFolders: !servesFolders,
    mountsFolder,
    events,
    clock,
    rng: cryptoRng,
    log,
  });
  undo.add('close the networks', () => services.context.networks.close());
  undo.add('close the threads of archives', () => services.context.archiveThreads.close());
  services.recovered.unshift(...unmounted);
  return { services, hostImage };
}

/** The daemon's identity, made at the first start and kept with its data. */
async function daemonId(dataRoot: string): Promise<string> {
  const path = join(dataRoot, 'engine-id');
  const known = (await readFile(path, 'utf8').catch(() => '')).trim();
  if (known !== '') return known;
  const hex = Buffer.from(cryptoRng.fill(new Uint8Array(16))).toString('hex');
  const id = hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
  await writeFile(path, `${id}\n`);
  return id;
}
