/**
 * Docker networks over our stack. A bridge network is one userspace network in a worker of its own, made when its first
 * container starts and ended with its last; `host` and `none` need none. This service gives running containers
 * their endpoints and published ports, and takes them away again.
 */
import { DrydockError } from '#common/errors';
import type { Attachment, NetworkOptions } from '#netstack';
import { newId } from '../container/names.ts';
import type { ContainerRecord, EndpointSettings } from '../container/types.ts';
import type { EventBus } from '../events/bus.ts';
import { type Attached, type AttachedEndpoint, outlivesDaemon } from './attached.ts';
import { checkAddress, configOf, dnsNames, type Endpoint, isOn, restrictedAddress } from './endpoint.ts';
import type { CreateNetwork, EngineNetwork } from './engine-network.ts';
import { bridgeOptions, endpointOptions } from './options.ts';
import { formatGuestPort, type PortWish, portWishes } from './ports.ts';
import { type OpenPort, openPort, type PublishPlace } from './publish.ts';
import type { CreateNetworkRequest, NetworkRecord } from './record.ts';
import { NetworkRecords, type NetworkRecordsDeps } from './records.ts';

/** What the service works with. */
export interface NetworkDeps extends NetworkRecordsDeps {
  createNetstack: CreateNetwork;
  /** Resets a container's connections but those that are spared, by the other end's address. */
  cutConnections: (pid: number, spared: (address: string) => boolean) => Promise<void>;
  /** Of networks that name none; 0 leaves it to the stack. */
  mtuBytes: number;
  events: EventBus;
}

/** A network that runs. */
export interface RunningNetwork {
  name: string;
  network: EngineNetwork;
  names: Record<string, string>;
}

interface Live {
  network: Promise<EngineNetwork>;
  endpoints: Map<string, Endpoint>;
  /** Addresses that an attachment under way is about to get. */
  reserved: Set<string>;
}

/** Leaves room below for networks that are joined later. */
const METRIC_FIRST = 100;

/** Host names that lead to the host's loopback in every network, as Docker Desktop's. */
const HOST_NAMES = ['host.docker.internal', 'gateway.docker.internal'];

/** Docker's networks. */
export class NetworkService {
  readonly #deps: NetworkDeps;
  readonly #records: NetworkRecords;
  readonly #live = new Map<string, Live>();
  /** By container. */
  readonly #ports = new Map<string, OpenPort[]>();

  constructor(deps: NetworkDeps) {
    this.#deps = deps;
    this.#records = new NetworkRecords(deps);
  }

  /** Loads what is on disk and makes the predefined networks that are missing. */
  open(): Promise<void> {
    return this.#records.open();
  }

  /** All networks, oldest first. */
  list(): NetworkRecord[] {
    return this.#records.list();
  }

  /** Finds by name, id or unique id prefix. @throws ERR_NETWORK_NOT_FOUND, ERR_AMBIGUOUS_ID */
  find(reference: string): NetworkRecord {
    return this.#records.find(reference);
  }

  /** Makes a user network. */
  async create(request: CreateNetworkRequest): Promise<NetworkRecord> {
    const record = await this.#records.create(request);
    this.#event('create', record);
    return record;
  }

  /** Removes a user network. @param users ids of containers, also stopped ones, that name it @throws ERR_FORBIDDEN */
  async remove(reference: string): Promise<void> {
    const record = this.find(reference);
    if (record.predefined)
      throw new DrydockError(
        'ERR_FORBIDDEN',
        `${record.name} is a pre-defined network and cannot be removed`,
      );
    if (record.configuration && this.list().some(({ configFrom }) => configFrom === record.name))
      throw new DrydockError(
        'ERR_FORBIDDEN',
        `error while removing network: configuration network "${record.name}" is in use`,
      );
    const endpoints = this.#live.get(record.id)?.endpoints;
    if (endpoints && endpoints.size > 0) {
      const users = [...endpoints.values()].map(
        (e) => `name:"${e.containerName}" id:"${e.settings.EndpointID?.slice(0, 12)}"`,
      );
      throw new DrydockError(
        'ERR_FORBIDDEN',
        `error while removing network: network ${record.name} has active endpoints (${users.join(', ')})`,
      );
    }
    await this.#records.remove(record, () => this.#closeIfUnused(record));
    this.#event('destroy', record);
  }

  #event(action: string, record: NetworkRecord, attributes: Record<string, string> = {}): void {
    this.#deps.events.emit('network', action, record.id, {
      name: record.name,
      type: record.driver,
      ...attributes,
    });
  }

  /** Endpoints of the containers that run on a network, by container id. */
  endpoints(networkId: string): ReadonlyMap<string, Endpoint> {
    return this.#live.get(networkId)?.endpoints ?? new Map();
  }

  /** How a container is on its networks: what was asked, with what a running one got. */
  settings(record: ContainerRecord): Record<string, EndpointSettings> {
    return Object.fromEntries(
      Object.entries(record.networks).map(([name, asked]) => {
        const network = this.list().find((n) => n.name === name || n.id === name);
        const live = network && this.#live.get(network.id)?.endpoints.get(record.id);
        return [name, live?.settings ?? { ...asked, NetworkID: network?.id ?? '' }];
      }),
    );
  }

  /** Addresses of the name servers of a container's networks. */
  gateways(record: ContainerRecord): string[] {
    return Object.keys(record.networks).flatMap((name) => {
      const network = this.find(name);
      return (configOf(network, 4) ?? configOf(network, 6))?.Gateway ?? [];
    });
  }

  /** Whether an address is on one of a container's own networks. */
  isNeighbour(record: ContainerRecord, address: string): boolean {
    return Object.keys(record.networks).some((name) => isOn(this.find(name), address));
  }

  /**
   * Tells the DNS of a running container's networks what it answers this container alone: names of its other networks, and
   * which servers to ask for it.
   */
  async setResolving(record: ContainerRecord, upstreams: string[] | undefined): Promise<void> {
    const networks = Object.keys(record.networks).map((name) => this.endpoints(this.find(name).id));
    for (const own of networks) {
      const names: Record<string, string[]> = {};
      for (const other of networks)
        for (const [id, { settings }] of other) {
          if (other === own || id === record.id) continue;
          const addresses = [settings.IPAddress, settings.GlobalIPv6Address].flatMap((text) => text || []);
          for (const name of settings.DNSNames ?? []) names[name] = [...(names[name] ?? []), ...addresses];
        }
      await own.get(record.id)?.attachment.setResolving({ names, ...(upstreams && { upstreams }) });
    }
  }

  /** Real ports of a running container, in the form of NetworkSettings.Ports. */
  ports(containerId: string): Record<string, { HostIp: string; HostPort: string }[]> {
    const found: Record<string, { HostIp: string; HostPort: string }[]> = {};
    for (const { wish, port } of this.#ports.get(containerId) ?? []) {
      const key = formatGuestPort(wish.guest);
      found[key] ??= [];
      found[key].push({ HostIp: port.hostAddress, HostPort: String(port.hostPort) });
    }
    return found;
  }

  #liveOf(record: NetworkRecord): Live {
    const existing = this.#live.get(record.id);
    if (existing) return existing;
    const config = configOf(record, 4);
    const config6 = configOf(record, 6);
    const options: NetworkOptions = {
      name: record.name,
      ...(config && { subnet: config.Subnet, gateway: config.Gateway }),
      ...(config6 && { subnet6: config6.Subnet, gateway6: config6.Gateway }),
      internal: record.internal,
      isolated: bridgeOptions(record.options).apart,
      log: this.#deps.log.child({ network: record.name }),
    };
    const { mtuBytes } = bridgeOptions(record.options);
    if (mtuBytes || this.#deps.mtuBytes) options.mtuBytes = mtuBytes || this.#deps.mtuBytes;
    const network = this.#deps.createNetstack(options).then(async (made) => {
      const gateway = config ? made.gateway : config6!.Gateway;
      await made.setHostNames(Object.fromEntries(HOST_NAMES.map((name) => [name, gateway])));
      return made;
    });
    const live: Live = { network, endpoints: new Map(), reserved: new Set() };
    this.#live.set(record.id, live);
    network.catch(() => this.#live.delete(record.id));
    return live;
  }

  async #closeIfUnused(record: NetworkRecord): Promise<void> {
    const live = this.#live.get(record.id);
    if (!live || live.endpoints.size > 0) return;
    // The default network stays: most containers use it, and its thread takes a while to start.
    if (record.name === 'bridge' && this.#records.has(record)) return;
    this.#live.delete(record.id);
    await (await live.network).close();
  }

  /** Networks that run, with the names of the containers on them by address. */
  async running(): Promise<RunningNetwork[]> {
    const found = this.list().map(async (record) => {
      const live = this.#live.get(record.id);
      const network = await live?.network.catch(() => undefined);
      if (!live || !network) return [];
      const names: Record<string, string> = {};
      for (const { attachment, containerName } of live.endpoints.values()) {
        if (attachment.address) names[attachment.address] = containerName;
        if (attachment.ipv6) names[attachment.ipv6.address] = containerName;
      }
      return [{ name: record.name, network, names }];
    });
    return (await Promise.all(found)).flat();
  }

  /** Starts the default network's worker ahead of its first use. */
  async warm(): Promise<void> {
    const bridge = this.list().find((n) => n.name === 'bridge');
    if (bridge) await this.#liveOf(bridge).network;
  }

  /**
   * Attaches a container that is about to run to all its networks and opens its ports. On failure nothing is left.
   * @param pid a process in the container's network namespace
   */
  async start(record: ContainerRecord, pid: number): Promise<void> {
    try {
      // The network with the highest priority becomes eth0, whose default route is used.
      const byPriority = Object.entries(record.networks).sort(
        ([, a], [, b]) => (b.GwPriority ?? 0) - (a.GwPriority ?? 0),
      );
      for (const [name, asked] of byPriority) await this.attach(record, name, asked, pid);
      await this.#publish(record);
    } catch (error) {
      await this.stop(record);
      throw error;
    }
  }

  /** What a running container has on its networks, for {@link restore}. */
  attached(record: ContainerRecord): Attached {
    const endpoints = Object.keys(record.networks).flatMap((network): AttachedEndpoint[] => {
      const endpoint = this.#live.get(this.find(network).id)?.endpoints.get(record.id);
      if (!endpoint) return [];
      const { settings, metric, attachment } = endpoint;
      return [{ network, settings, metric, interfaceName: attachment.interfaceName }];
    });
    const ports = (this.#ports.get(record.id) ?? []).map(({ wish, port: { hostPort } }) => ({
      wish,
      hostPort,
    }));
    // Both families of a port are opened together.
    const isFirst = ({ wish }: { wish: PortWish }, index: number): boolean =>
      ports.findIndex((other) => other.wish === wish) === index;
    return { endpoints, ports: ports.filter(isFirst) };
  }

  /**
   * Attaches a container anew that was attached by an earlier daemon, with the same addresses and ports. What can't be had
   * any more is logged, and the container goes on without. Connections that went through that daemon are cut.
   */
  async restore(record: ContainerRecord, pid: number, { endpoints, ports }: Attached): Promise<void> {
    const { log } = this.#deps;
    const failed =
      (what: string) =>
      (error: unknown): void =>
        log.error({ container: record.id, error }, `${what} of a container that goes on is lost`);
    for (const before of endpoints)
      await this.attach(record, before.network, record.networks[before.network] ?? {}, pid, before).catch(
        failed(`the network ${before.network}`),
      );
    const place = await this.#publishPlace(record);
    const opened: OpenPort[] = [];
    this.#ports.set(record.id, opened);
    for (const { wish, hostPort } of place ? ports : [])
      await openPort(place!, { ...wish, hostFirst: hostPort, hostLast: hostPort }, opened).catch(
        failed(`the published port ${hostPort}`),
      );
    const networks = endpoints.map(({ network }) => this.find(network));
    if (networks.length > 0)
      await this.#deps
        .cutConnections(pid, (address) => outlivesDaemon(address, networks))
        .catch((error) =>
          log.warn(
            { container: record.id, error },
            'connections that went through the last daemon could not be reset',
          ),
        );
  }

  /** Attaches a container to one network. @param before what it had there under an earlier daemon */
  async attach(
    record: ContainerRecord,
    name: string,
    asked: EndpointSettings,
    pid: number,
    before?: AttachedEndpoint,
  ): Promise<void> {
    const network = this.find(name);
    if (network.configuration)
      throw new DrydockError('ERR_FORBIDDEN', 'cannot create endpoint on configuration-only network');
    const endpointId = before?.settings.EndpointID ?? newId(this.#deps.rng);
    const fixed = { ...asked, NetworkID: network.id, EndpointID: endpointId };
    if (network.driver !== 'bridge') return;
    checkAddress(network, asked);
    const links = asked.Links?.length ?? (network.predefined ? record.hostConfig.Links?.length : 0);
    if (links && bridgeOptions(network.options).apart)
      throw new DrydockError(
        'ERR_NOT_IMPLEMENTED',
        `network ${network.name} keeps its containers apart, so links lead nowhere: leave --link out, or put both on another network`,
      );
    const live = this.#liveOf(network);
    const names = dnsNames(record, asked);
    const taken = [
      ...live.reserved,
      ...[...live.endpoints.values()].flatMap(({ attachment }) => [
        attachment.address,
        attachment.ipv6?.address ?? '',
      ]),
    ];
    const address =
      before?.settings.IPAddress || asked.IPAMConfig?.IPv4Address || restrictedAddress(network, 4, taken);
    const address6 =
      before?.settings.GlobalIPv6Address ||
      asked.IPAMConfig?.IPv6Address ||
      restrictedAddress(network, 6, taken);
    const reserved = [address, address6].flatMap((each) => each || []);
    const mac = before?.settings.MacAddress || asked.MacAddress;
    const { interfaceName: wished, sysctls } = endpointOptions(asked);
    const interfaceName = before?.interfaceName ?? wished ?? this.#interfaceName(record.id, network);
    const metric = before?.metric ?? this.#metric(record, asked);
    for (const each of reserved) live.reserved.add(each);
    let attachment: Attachment;
    try {
      attachment = await (await live.network).attach({
        pid,
        interfaceName,
        metric,
        names,
        ...(address && { address }),
        ...(address6 && { address6 }),
        ...(mac && { mac }),
        ...(asked.IPAMConfig?.LinkLocalIPs?.length && { linkLocal: asked.IPAMConfig.LinkLocalIPs }),
        ...(sysctls && { settings: sysctls(interfaceName) }),
      });
    } finally {
      for (const each of reserved) live.reserved.delete(each);
    }
    const settings: EndpointSettings = {
      ...fixed,
      Gateway: network.internal ? '' : attachment.gateway,
      IPAddress: attachment.address,
      IPPrefixLen: attachment.prefixLength,
      MacAddress: attachment.mac,
      ...(attachment.ipv6 && {
        GlobalIPv6Address: attachment.ipv6.address,
        GlobalIPv6PrefixLen: attachment.ipv6.prefixLength,
        IPv6Gateway: network.internal ? '' : attachment.ipv6.gateway,
      }),
      DNSNames: names,
    };
    live.endpoints.set(record.id, { attachment, settings, containerName: record.name, metric });
    if (!before) this.#event('connect', network, { container: record.id });
  }

  /** Endpoints of a running container, on all its networks. */
  #endpointsOf(containerId: string): Endpoint[] {
    return [...this.#live.values()].flatMap((live) => live.endpoints.get(containerId) ?? []);
  }

  /** `eth0` and up: the first number that the container does not use yet. */
  #interfaceName(containerId: string, network: NetworkRecord): string {
    const used = new Set(this.#endpointsOf(containerId).map(({ attachment }) => attachment.interfaceName));
    const { interfacePrefix } = bridgeOptions(network.options);
    for (let n = 0; ; n++) if (!used.has(`${interfacePrefix}${n}`)) return `${interfacePrefix}${n}`;
  }

  /** A network with a higher priority than all before it takes the default route over; others come after them. */
  #metric(record: ContainerRecord, asked: EndpointSettings): number {
    const others = this.#endpointsOf(record.id);
    if (others.length === 0) return METRIC_FIRST;
    const priority = Math.max(...others.map(({ settings }) => settings.GwPriority ?? 0));
    const metrics = others.map(({ metric }) => metric);
    return (asked.GwPriority ?? 0) > priority ? Math.min(...metrics) - 1 : Math.max(...metrics) + 1;
  }

  /** Takes a running container off one network. */
  async detach(record: ContainerRecord, network: NetworkRecord): Promise<void> {
    const live = this.#live.get(network.id);
    const endpoint = live?.endpoints.get(record.id);
    if (live && endpoint) {
      live.endpoints.delete(record.id);
      await endpoint.attachment.detach();
    }
    this.#event('disconnect', network, { container: record.id });
    await this.#closeIfUnused(network);
  }

  /** Frees all that start() gave. Idempotent; troubles are logged, since a container must be able to end. */
  async stop(record: ContainerRecord): Promise<void> {
    const log = this.#deps.log;
    for (const { port } of this.#ports.get(record.id) ?? [])
      await port.close().catch((error) => log.warn({ error }, 'published port could not be closed'));
    this.#ports.delete(record.id);
    for (const network of this.list()) {
      const live = this.#live.get(network.id);
      if (!live?.endpoints.has(record.id)) continue;
      await this.detach(record, network).catch((error) =>
        log.warn({ container: record.id, network: network.name, error }, 'endpoint could not be detached'),
      );
    }
  }

  /** A container's names have changed. */
  async renamed(record: ContainerRecord): Promise<void> {
    for (const [name, settings] of Object.entries(record.networks)) {
      const network = this.list().find((n) => n.name === name);
      const endpoint = network && this.#live.get(network.id)?.endpoints.get(record.id);
      if (!endpoint) continue;
      endpoint.containerName = record.name;
      await endpoint.attachment.setNames(dnsNames(record, settings));
    }
  }

  /** Opens a container's ports. */
  async #publish(record: ContainerRecord): Promise<void> {
    const { PortBindings, PublishAllPorts = false } = record.hostConfig;
    const wishes = portWishes(PortBindings, record.config.ExposedPorts, PublishAllPorts);
    const place = wishes.length > 0 ? await this.#publishPlace(record) : undefined;
    if (!place) return;
    const opened: OpenPort[] = [];
    this.#ports.set(record.id, opened);
    for (const wish of wishes) await openPort(place, wish, opened);
  }

  /** Where a container's ports lead: its first network that is not internal. */
  async #publishPlace(record: ContainerRecord): Promise<PublishPlace | undefined> {
    for (const name of Object.keys(record.networks)) {
      const network = this.find(name);
      const live = this.#live.get(network.id);
      const endpoint = live?.endpoints.get(record.id);
      if (!live || !endpoint || network.internal) continue;
      const { hostAddress } = bridgeOptions(network.options);
      return { network: await live.network, endpoint, hostAddress };
    }
    return undefined;
  }

  /** Ends all networks. */
  async close(): Promise<void> {
    const all = [...this.#live.values()];
    this.#live.clear();
    await Promise.allSettled(all.map(async (live) => (await live.network).close()));
  }
}
