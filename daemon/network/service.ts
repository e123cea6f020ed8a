/**
 * Docker networks over our stack. A bridge network is one userspace network in a worker of its own, made when its first
 * container starts and ended with its last; `host` and `none` need none. This service keeps the networks' records, gives
 * running containers their endpoints and published ports, and takes them away again.
 */
import { isIPv4, isIPv6 } from 'node:net';
import type { Clock } from '#common/clock';
import { DrydockError, errorCode, errorMessage } from '#common/errors';
import type { Log } from '#common/log';
import type { Rng } from '#common/rng';
import type { Attachment, Network, NetworkOptions, PublishedPort } from '#netstack';
import type { AddressPool } from '../config-values.ts';
import { newId } from '../container/names.ts';
import type { ContainerRecord, EndpointSettings } from '../container/types.ts';
import type { EventBus } from '../events/bus.ts';
import type { RecordFolder } from '../store/record-folder.ts';
import { formatGuestPort, type PortWish, portWishes } from './ports.ts';
import {
  type CreateNetworkRequest,
  HOST_BINDING_OPTION,
  isIsolated,
  MTU_OPTION,
  type NetworkFacts,
  type NetworkRecord,
  newNetwork,
  PREDEFINED,
  type SubnetConfig,
} from './record.ts';
import {
  addressesOf,
  contains,
  formatAddress,
  parseAddress,
  parseRange,
  parseSubnet,
  type Subnet,
} from './subnets.ts';
import { chooseSubnet6, contains6, randomSubnet6 } from './subnets6.ts';

/** What the service works with. */
export interface NetworkDeps {
  records: RecordFolder<NetworkRecord>;
  createNetwork: (options: NetworkOptions) => Promise<Network>;
  hostSubnets: () => Promise<string[]>;
  /** Of networks that name none; 0 leaves it to the stack. */
  mtuBytes: number;
  /** The default network; undefined: there is none. */
  defaultNetwork: CreateNetworkRequest | undefined;
  pools: readonly AddressPool[];
  /** What new networks of a driver get unless they say otherwise. */
  optionsByDriver: Readonly<Record<string, Record<string, string>>>;
  events: EventBus;
  clock: Clock;
  rng: Rng;
  log: Log;
}

/** A container on a network while it runs. */
export interface Endpoint {
  attachment: Attachment;
  settings: EndpointSettings;
  containerName: string;
}

/** A network that runs. */
export interface RunningNetwork {
  name: string;
  network: Network;
  names: Record<string, string>;
}

interface Live {
  network: Promise<Network>;
  endpoints: Map<string, Endpoint>;
  /** Addresses that an attachment under way is about to get. */
  reserved: Set<string>;
}

/** Host names that lead to the host's loopback in every network, as Docker Desktop's. */
const HOST_NAMES = ['host.docker.internal', 'gateway.docker.internal'];

/** Docker's networks. */
export class NetworkService {
  readonly #deps: NetworkDeps;
  #networks: Map<string, NetworkRecord> = new Map();
  readonly #live = new Map<string, Live>();
  /** By container. */
  readonly #ports = new Map<string, { wish: PortWish; port: PublishedPort }[]>();

  constructor(deps: NetworkDeps) {
    this.#deps = deps;
  }

  /** Loads what is on disk and makes the predefined networks that are missing. */
  async open(): Promise<void> {
    const { records, unfinished, damaged } = await this.#deps.records.load();
    for (const key of unfinished) await this.#deps.records.remove(key);
    for (const key of damaged)
      this.#deps.log.error({ network: key }, 'the record of a network is damaged: see drydock fsck');
    this.#networks = records;
    for (const [Name, Driver] of Object.entries(PREDEFINED)) {
      if (Name === 'bridge') await this.#openDefault();
      else if (!this.list().some((n) => n.name === Name))
        await this.#add(newNetwork({ Name, Driver }, this.#facts([])));
    }
  }

  /** Makes the default network, anew when the daemon is configured otherwise than when it was made. */
  async #openDefault(): Promise<void> {
    const wanted = this.#deps.defaultNetwork;
    const before = this.list().find((n) => n.name === 'bridge');
    const configured = JSON.stringify(wanted);
    if (before && before.configured === configured) return;
    if (before) {
      this.#networks.delete(before.id);
      await this.#deps.records.remove(before.id);
    }
    if (!wanted) return;
    const hasSubnet = wanted.IPAM?.Config?.some(({ Subnet = '' }) => !Subnet.includes(':'));
    const facts = this.#facts(hasSubnet ? this.#ownSubnets() : await this.#usedSubnets());
    // Its containers' addresses are chosen for them, wherever its subnet comes from.
    await this.#add({ ...newNetwork(wanted, facts), userSubnet: false, configured });
  }

  #facts(used: Subnet[]): NetworkFacts {
    const { rng } = this.#deps;
    return {
      used6: this.list().flatMap((n) => configOf(n, 6)?.Subnet ?? []),
      pools: this.#deps.pools,
      freshSubnet6: () =>
        chooseSubnet6(
          this.list().flatMap((n) => configOf(n, 6)?.Subnet ?? []),
          this.#deps.pools,
        ) ?? randomSubnet6(rng),
      id: newId(this.#deps.rng),
      created: new Date(this.#deps.clock.wallMs()).toISOString(),
      used,
    };
  }

  async #usedSubnets(): Promise<Subnet[]> {
    const host = (await this.#deps.hostSubnets()).flatMap((text) => {
      try {
        return [parseSubnet(text)];
      } catch {
        return [];
      }
    });
    return [...host, ...this.#ownSubnets()];
  }

  #ownSubnets(): Subnet[] {
    return this.list().flatMap((n) => {
      const config = configOf(n, 4);
      return config ? [parseSubnet(config.Subnet)] : [];
    });
  }

  async #add(record: NetworkRecord): Promise<void> {
    await this.#deps.records.save(record.id, record);
    this.#networks.set(record.id, record);
  }

  /** All networks, oldest first. */
  list(): NetworkRecord[] {
    return [...this.#networks.values()].sort((a, b) => (a.created < b.created ? -1 : 1));
  }

  /** Finds by name, id or unique id prefix. @throws ERR_NETWORK_NOT_FOUND, ERR_AMBIGUOUS_ID */
  find(reference: string): NetworkRecord {
    const all = this.list();
    const exact = all.find((n) => n.id === reference || n.name === reference);
    if (exact) return exact;
    const matches = reference === '' ? [] : all.filter((n) => n.id.startsWith(reference));
    if (matches.length === 1) return matches[0]!;
    if (matches.length > 1)
      throw new DrydockError(
        'ERR_AMBIGUOUS_ID',
        `network ${reference} is ambiguous (${matches.length} matches found on ID prefix)`,
      );
    throw new DrydockError('ERR_NETWORK_NOT_FOUND', `network ${reference} not found`);
  }

  /** Makes a user network. @returns the record and warnings */
  async create(request: CreateNetworkRequest): Promise<NetworkRecord> {
    const name = request.Name ?? '';
    if (Object.hasOwn(PREDEFINED, name))
      throw new DrydockError('ERR_FORBIDDEN', `operation is not permitted on predefined ${name} network`);
    if (this.list().some((n) => n.name === name))
      throw new DrydockError('ERR_CONFLICT', `network with name ${name} already exists`);
    const wanted = request.IPAM?.Config?.length ? this.#ownSubnets() : await this.#usedSubnets();
    const options = { ...this.#deps.optionsByDriver[request.Driver || 'bridge'], ...request.Options };
    const record = newNetwork({ ...request, Options: options }, this.#facts(wanted));
    await this.#add(record);
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
    this.#networks.delete(record.id);
    await this.#closeIfUnused(record);
    await this.#deps.records.remove(record.id);
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
    return Object.keys(record.networks).flatMap((name) => configOf(this.find(name), 4)?.Gateway ?? []);
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
    const config = configOf(record, 4)!;
    const config6 = configOf(record, 6);
    const options: NetworkOptions = {
      name: record.name,
      subnet: config.Subnet,
      gateway: config.Gateway,
      ...(config6 && { subnet6: config6.Subnet, gateway6: config6.Gateway }),
      internal: record.internal,
      isolated: isIsolated(record),
      log: this.#deps.log.child({ network: record.name }),
    };
    const mtu = Number(record.options[MTU_OPTION] ?? this.#deps.mtuBytes);
    if (mtu > 0) options.mtuBytes = mtu;
    const network = this.#deps.createNetwork(options).then(async (made) => {
      await made.setHostNames(Object.fromEntries(HOST_NAMES.map((name) => [name, made.gateway])));
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
    if (record.name === 'bridge' && this.#networks.has(record.id)) return;
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
        names[attachment.address] = containerName;
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

  /** Attaches a container to one network. */
  async attach(record: ContainerRecord, name: string, asked: EndpointSettings, pid: number): Promise<void> {
    const network = this.find(name);
    const endpointId = newId(this.#deps.rng);
    const fixed = { ...asked, NetworkID: network.id, EndpointID: endpointId };
    if (network.driver !== 'bridge') return;
    checkAddress(network, asked);
    const links = asked.Links?.length ?? (network.predefined ? record.hostConfig.Links?.length : 0);
    if (links && isIsolated(network))
      throw new DrydockError(
        'ERR_NOT_IMPLEMENTED',
        `network ${network.name} keeps its containers apart, so links lead nowhere: leave --link out, or put both on another network`,
      );
    const live = this.#liveOf(network);
    const names = dnsNames(record, asked);
    const address = asked.IPAMConfig?.IPv4Address || this.#restrictedAddress(network, live);
    if (address) live.reserved.add(address);
    let attachment: Attachment;
    try {
      attachment = await (await live.network).attach({
        pid,
        interfaceName: this.#interfaceName(record.id),
        names,
        ...(address && { address }),
        ...(asked.IPAMConfig?.IPv6Address && { address6: asked.IPAMConfig.IPv6Address }),
        ...(asked.MacAddress && { mac: asked.MacAddress }),
      });
    } finally {
      if (address) live.reserved.delete(address);
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
    live.endpoints.set(record.id, { attachment, settings, containerName: record.name });
    this.#event('connect', network, { container: record.id });
  }

  /** The next address of a network with --ip-range or --aux-address; without them the stack chooses. */
  #restrictedAddress(network: NetworkRecord, live: Live): string | undefined {
    const config = configOf(network, 4)!;
    if (!config.IPRange && !config.AuxiliaryAddresses) return undefined;
    const subnet = parseSubnet(config.Subnet);
    const last = formatAddress(subnet.base + 2 ** (32 - subnet.prefix) - 1);
    const taken = new Set([
      formatAddress(subnet.base),
      last,
      config.Gateway,
      ...Object.values(config.AuxiliaryAddresses ?? {}),
      ...live.reserved,
      ...[...live.endpoints.values()].map((e) => e.attachment.address),
    ]);
    for (const address of addressesOf(config.IPRange ? parseRange(config.IPRange) : subnet))
      if (!taken.has(address)) return address;
    throw new DrydockError(
      'ERR_FORBIDDEN',
      `no available IPv4 addresses on this network's address pools: ${network.name}`,
    );
  }

  /** `eth0` and up: the first number that the container does not use yet. */
  #interfaceName(containerId: string): string {
    const used = new Set<string>();
    for (const live of this.#live.values()) {
      const endpoint = live.endpoints.get(containerId);
      if (endpoint) used.add(endpoint.attachment.interfaceName);
    }
    for (let n = 0; ; n++) if (!used.has(`eth${n}`)) return `eth${n}`;
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

  async #publish(record: ContainerRecord): Promise<void> {
    const { PortBindings, PublishAllPorts = false } = record.hostConfig;
    const wishes = portWishes(PortBindings, record.config.ExposedPorts, PublishAllPorts);
    if (wishes.length === 0) return;
    const place = this.#publishingEndpoint(record);
    if (!place) return;
    const opened: { wish: PortWish; port: PublishedPort }[] = [];
    this.#ports.set(record.id, opened);
    for (const wish of wishes)
      await this.#open(
        record,
        { ...wish, hostAddress: wish.hostAddress || place.bindAddress },
        place,
        opened,
      );
  }

  /** Ports lead to the first network that is not internal. */
  #publishingEndpoint(
    record: ContainerRecord,
  ): { network: Promise<Network>; endpoint: Endpoint; bindAddress: string } | undefined {
    for (const name of Object.keys(record.networks)) {
      const network = this.find(name);
      const live = this.#live.get(network.id);
      const endpoint = live?.endpoints.get(record.id);
      const bindAddress = network.options[HOST_BINDING_OPTION] ?? '';
      if (live && endpoint && !network.internal) return { network: live.network, endpoint, bindAddress };
    }
    return undefined;
  }

  async #open(
    record: ContainerRecord,
    wish: PortWish,
    place: { network: Promise<Network>; endpoint: Endpoint },
    opened: { wish: PortWish; port: PublishedPort }[],
  ): Promise<void> {
    const network = await place.network;
    const { address, ipv6 } = place.endpoint.attachment;
    const open = (hostAddress: string, hostPort: number): Promise<PublishedPort> =>
      network.publish({
        protocol: wish.guest.protocol,
        hostAddress,
        hostPort,
        // A client of IPv6 meets the guest's own IPv6 address, where it has one.
        guestAddress: hostAddress.includes(':') ? (ipv6?.address ?? address) : address,
        guestPort: wish.guest.port,
      });
    const addresses = wish.hostAddress === '' ? ['0.0.0.0', '::'] : [wish.hostAddress];
    for (let hostPort = wish.hostFirst; ; hostPort++) {
      try {
        const first = await open(addresses[0]!, hostPort);
        opened.push({ wish, port: first });
        if (addresses[1] !== undefined) {
          const second = await open(addresses[1], first.hostPort).catch(ignoreMissingFamily);
          if (second) opened.push({ wish, port: second });
        }
        return;
      } catch (error) {
        if (errorCode(error) === 'ERR_PORT_IN_USE' && hostPort < wish.hostLast) continue;
        throw publishFailure(record, place.endpoint, wish, hostPort, error);
      }
    }
  }

  /** Ends all networks. */
  async close(): Promise<void> {
    const all = [...this.#live.values()];
    this.#live.clear();
    await Promise.allSettled(all.map(async (live) => (await live.network).close()));
  }
}

/** A host without IPv6 publishes on IPv4 alone, as dockerd. */
function ignoreMissingFamily(error: unknown): undefined {
  if (errorCode(error) === 'ERR_ADDRESS_NOT_AVAILABLE') return undefined;
  throw error;
}

function publishFailure(
  record: ContainerRecord,
  endpoint: Endpoint,
  wish: PortWish,
  hostPort: number,
  error: unknown,
): DrydockError {
  const where = `${wish.hostAddress || '0.0.0.0'}:${hostPort}`;
  const reason =
    errorCode(error) === 'ERR_PORT_IN_USE'
      ? `Bind for ${where} failed: port is already allocated`
      : errorMessage(error);
  return new DrydockError(
    'ERR_PUBLISH',
    `driver failed programming external connectivity on endpoint ${record.name} (${endpoint.settings.EndpointID}): ${reason}`,
    { cause: error },
  );
}

/** Names by which others on the network find a container: its name, its aliases, its short id. */
export function dnsNames(record: ContainerRecord, asked: EndpointSettings): string[] {
  return [
    ...new Set([record.name, ...(asked.Aliases ?? []), record.id.slice(0, 12), record.config.Hostname ?? '']),
  ].filter((name) => name !== '');
}

/** A network's subnet of one family. */
export function configOf(network: NetworkRecord, family: 4 | 6): SubnetConfig | undefined {
  return network.ipam.Config.find((config) => config.Subnet.includes(':') === (family === 6));
}

/** Refuses fixed addresses where docker does. */
export function checkAddress(network: NetworkRecord, asked: EndpointSettings): void {
  const { IPv4Address: address = '', IPv6Address: address6 = '' } = asked.IPAMConfig ?? {};
  const bad = (text: string): DrydockError =>
    new DrydockError('ERR_BAD_PARAMETER', `invalid endpoint settings: ${text}`);
  if (address === '' && address6 === '') return;
  if (address !== '' && !isIPv4(address)) throw bad(`invalid IPv4 address: ${address}`);
  if (address6 !== '' && !isIPv6(address6)) throw bad(`invalid IPv6 address: ${address6}`);
  if (network.predefined) throw bad('user specified IP address is supported on user defined networks only');
  if (!network.userSubnet)
    throw bad(
      'user specified IP address is supported only when connecting to networks with user configured subnets',
    );
  const config = configOf(network, 4);
  if (address !== '' && !(config && contains(parseSubnet(config.Subnet), parseAddress(address)!)))
    throw bad(`no configured subnet contains IP address ${address}`);
  const config6 = configOf(network, 6);
  if (address6 !== '' && !(config6 && contains6(config6.Subnet, address6)))
    throw bad(`no configured subnet contains IP address ${address6}`);
}
