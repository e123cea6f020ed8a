/**
 * The networks that exist: found, made and removed, by their records on disk. What runs on them is the service's.
 */
import type { Clock } from '#common/clock';
import { DrydockError } from '#common/errors';
import type { Log } from '#common/log';
import type { Rng } from '#common/rng';
import type { AddressPool } from '../config-values.ts';
import { newId } from '../container/names.ts';
import type { RecordFolder } from '../store/record-folder.ts';
import { fromConfiguration } from './config-only.ts';
import { configOf } from './endpoint.ts';
import {
  type CreateNetworkRequest,
  type NetworkFacts,
  type NetworkRecord,
  newNetwork,
  PREDEFINED,
} from './record.ts';
import { parseSubnet, type Subnet } from './subnets.ts';
import { chooseSubnet6, randomSubnet6 } from './subnets6.ts';

/** What networks are made from. */
export interface NetworkRecordsDeps {
  records: RecordFolder<NetworkRecord>;
  hostSubnets: () => Promise<string[]>;
  /** The default network; undefined: there is none. */
  defaultNetwork: CreateNetworkRequest | undefined;
  pools: readonly AddressPool[];
  /** What new networks of a driver get unless they say otherwise. */
  optionsByDriver: Readonly<Record<string, Record<string, string>>>;
  clock: Clock;
  rng: Rng;
  log: Log;
}

/** See the module's head. */
export class NetworkRecords {
  readonly #deps: NetworkRecordsDeps;
  #networks: Map<string, NetworkRecord> = new Map();

  constructor(deps: NetworkRecordsDeps) {
    this.#deps = deps;
  }

  /** Loads what is on disk and makes the predefined networks that are missing. */
  async open(): Promise<void> {
    const { records, unfinished } = await this.#deps.records.load();
    for (const key of unfinished) await this.#deps.records.remove(key);
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

  /** Makes a user network. @throws ERR_FORBIDDEN, ERR_CONFLICT and what the request deserves */
  async create(request: CreateNetworkRequest): Promise<NetworkRecord> {
    const name = request.Name ?? '';
    if (Object.hasOwn(PREDEFINED, name) || name === 'default')
      throw new DrydockError('ERR_FORBIDDEN', `operation is not permitted on predefined ${name} network `);
    if (this.list().some((n) => n.name === name))
      throw new DrydockError('ERR_CONFLICT', `network with name ${name} already exists`);
    const { ConfigFrom, Driver } = request;
    const configured = ConfigFrom?.Network
      ? fromConfiguration(
          request,
          this.list().find((n) => n.name === ConfigFrom.Network),
        )
      : { ...request, Options: { ...this.#deps.optionsByDriver[Driver || 'bridge'], ...request.Options } };
    const wanted = configured.IPAM?.Config?.length ? this.#ownSubnets() : await this.#usedSubnets();
    const record = newNetwork(configured, this.#facts(wanted));
    await this.#add(record);
    return record;
  }

  has({ id }: NetworkRecord): boolean {
    return this.#networks.has(id);
  }

  /** Takes a network off the books; `close` ends what runs of it before its record goes. */
  async remove({ id }: NetworkRecord, close: () => Promise<void>): Promise<void> {
    this.#networks.delete(id);
    await close();
    await this.#deps.records.remove(id);
  }
}
