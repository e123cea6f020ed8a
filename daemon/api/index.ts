/** The whole API: its plugins, and the listeners on which they answer. */
import { readFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { DrydockError } from '#common/errors';
import { makeFolders } from '#common/make-folders';
import { choosePassed, takePassedSockets } from '../activation.ts';
import { parseHost } from '../config.ts';
import type { DaemonConfig } from '../config-options.ts';
import { API_GRACE_MS } from '../limits.ts';
import { archiveRoutes } from './archive.ts';
import { buildRoutes } from './build.ts';
import { containerStreamRoutes } from './container-streams.ts';
import { containerRoutes } from './containers.ts';
import type { ApiContext } from './context.ts';
import { imageRoutes } from './images.ts';
import { type ListenAddress, type Listener, type ListenOptions, listen } from './listen.ts';
import { networkRoutes } from './networks.ts';
import { type ApiPlugin, createApi } from './server.ts';
import { systemRoutes } from './system.ts';
import { volumeRoutes } from './volumes.ts';

/** Every resource of the Engine API. */
export const apiPlugins: readonly ApiPlugin[] = [
  systemRoutes,
  containerRoutes,
  containerStreamRoutes,
  archiveRoutes,
  imageRoutes,
  buildRoutes,
  networkRoutes,
  volumeRoutes,
];

/** The API while it is served. */
export interface ServedApi {
  addresses: string[];
  /** Takes no more clients. */
  refuse(): void;
  close(): Promise<void>;
}

/** Opens listeners at all addresses. @throws ERR_LISTEN; then none is left open */
export async function serveApi(
  context: ApiContext,
  config: DaemonConfig,
  addresses: readonly ListenAddress[],
  more: readonly ApiPlugin[],
): Promise<ServedApi> {
  const app = createApi(context, [...more, ...apiPlugins]);
  await app.ready();
  const options: ListenOptions = {
    tls: config.tls
      ? { cert: config.tlsCert, key: config.tlsKey, ca: config.tlsVerify ? config.tlsCaCert : undefined }
      : undefined,
    groupId: config.group === '' ? undefined : await groupId(config.group),
  };
  const listeners: Listener[] = [];
  const close = async (): Promise<void> => {
    await Promise.all(listeners.map((listener) => listener.close(API_GRACE_MS)));
    await app.close();
  };
  try {
    for (const address of addresses) {
      if (address.kind === 'unix') await makeFolders(dirname(address.path), 0o755);
      if (address.kind === 'tcp' && !config.tls)
        context.log.warn(
          { address: `${address.host}:${address.port}` },
          'the API is served over TCP without TLS: whoever reaches this port is root on this host',
        );
      listeners.push(await listen(app, address, options));
    }
  } catch (error) {
    await close();
    throw error;
  }
  return {
    addresses: listeners.map((listener) => listener.address),
    refuse() {
      for (const listener of listeners) listener.refuse();
    },
    close,
  };
}

/**
 * What --host means, with the sockets that a service manager passed; takes those over, so it is called once.
 * @throws ERR_LISTEN when `fd://` names none of them
 */
export function listenAddresses(hosts: readonly string[]): ListenAddress[] {
  const passed = takePassedSockets(process.env, process.pid);
  return hosts.map(parseHost).flatMap((address): ListenAddress[] => {
    if (address.kind !== 'fd') return [address];
    return choosePassed(passed, address.which).map(({ fd }) => ({ kind: 'passed', fd }));
  });
}

async function groupId(name: string): Promise<number> {
  if (/^\d+$/.test(name)) return Number(name);
  const line = (await readFile('/etc/group', 'utf8')).split('\n').find((text) => text.startsWith(`${name}:`));
  if (!line)
    throw new DrydockError('ERR_BAD_CONFIG', `there is no group ${name}: create it, or leave --group out`);
  return Number(line.split(':')[2]);
}
