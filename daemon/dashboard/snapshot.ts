/** What goes on in the daemon at one moment, as data: for the web page and for `drydock net top`. It only reads. */
import type { DnsLogEntry, FlowInfo, LeaseInfo } from '#netstack';
import type { ApiContext } from '../api/context.ts';
import { statusText } from '../container/inspect.ts';

/** A network that runs. */
export interface NetworkView {
  name: string;
  subnet: string;
  gateway: string;
  /** Names of containers by address. */
  names: Record<string, string>;
  flows: FlowInfo[];
  leases: LeaseInfo[];
  dns: Pick<DnsLogEntry, 'guest' | 'name' | 'type' | 'outcome' | 'answers' | 'tookMs'>[];
  denied: {
    guest: string;
    target: string;
    protocol: string;
    name: string | undefined;
    count: number;
    idleMs: number;
  }[];
}

/** A folder that is served to a container, and what it was asked. */
export interface FolderView {
  container: string;
  destination: string;
  source: string;
  operations: { name: string; count: number; p50Us: number; p99Us: number }[];
}

/** A container in a line. */
export interface ContainerView {
  id: string;
  name: string;
  image: string;
  state: string;
  status: string;
}

/** All of it. */
export interface Snapshot {
  version: string;
  /** Milliseconds since the Unix epoch. */
  timeMs: number;
  containers: ContainerView[];
  networks: NetworkView[];
  folders: FolderView[];
}

async function networkViews(context: ApiContext): Promise<NetworkView[]> {
  const running = await context.networks.running();
  return Promise.all(
    running.map(async ({ name, network, names }) => {
      const [flows, leases, dns, denied] = await Promise.all([
        network.flows(),
        network.leases(),
        network.dnsLog(),
        network.denied(),
      ]);
      return { name, subnet: network.subnet, gateway: network.gateway, names, flows, leases, dns, denied };
    }),
  );
}

async function folderViews(context: ApiContext): Promise<FolderView[]> {
  const names = new Map(context.containers.list().map(({ id, name }) => [id, name]));
  return Promise.all(
    context.mounts.served().map(async ({ containerId, destination, mount }) => ({
      container: names.get(containerId) ?? containerId.slice(0, 12),
      destination,
      source: mount.source,
      operations: Object.entries(await mount.stats()).map(([name, stats]) => ({ name, ...stats })),
    })),
  );
}

/** Looks at everything. */
export async function takeSnapshot(context: ApiContext): Promise<Snapshot> {
  const timeMs = context.clock.wallMs();
  const [networks, folders] = await Promise.all([networkViews(context), folderViews(context)]);
  return {
    version: context.version,
    timeMs,
    containers: context.containers.list().map(({ record }) => ({
      id: record.id.slice(0, 12),
      name: record.name,
      image: record.config.Image ?? '',
      state: record.state.status,
      status: statusText(record, timeMs),
    })),
    networks,
    folders,
  };
}
