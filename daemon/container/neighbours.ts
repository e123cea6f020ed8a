/**
 * What a container can look up of others: its own addresses and its links by /etc/hosts, the names on its networks by
 * their DNS. It asks the DNS of its first network, which is told the names on the others whenever a neighbour comes or
 * goes.
 */
import { chown } from 'node:fs/promises';
import type { UserMaps } from '#common/id-map';
import { ownerOnDisk, ROOT } from '../image/owners.ts';
import type { NetworkService } from '../network/service.ts';
import type { Container } from './container.ts';
import {
  type DnsDefaults,
  etcPaths,
  hostsText,
  type NameServers,
  nameServers,
  writeEtcFiles,
  writeInPlace,
} from './files.ts';
import { isAlive } from './lifecycle.ts';
import { findLinks, linkEnvironment, linkHosts } from './links.ts';

/** What the service works with. */
export interface NeighbourDeps {
  networks: NetworkService;
  dns: DnsDefaults;
  /** How the users of containers are those of the machine, when they are others. */
  userMaps: UserMaps | undefined;
  hostGateways: readonly string[];
  /** A container's folder under the data root. */
  folderOf(id: string): string;
  find(reference: string): Container;
  all(): Container[];
}

/** /etc files of containers. */
export class Neighbours {
  readonly #deps: NeighbourDeps;

  constructor(deps: NeighbourDeps) {
    this.#deps = deps;
  }

  /** A container in another's network shares that one's files, as in docker. */
  #owner(container: Container): Container {
    const mode = container.record.hostConfig.NetworkMode ?? '';
    return mode.startsWith('container:') ? this.#deps.find(mode.slice('container:'.length)) : container;
  }

  #ownsFiles(container: Container): boolean {
    return this.#owner(container) === container;
  }

  /** Host paths of a container's files. */
  paths(container: Container): ReturnType<typeof etcPaths> {
    return etcPaths(this.#deps.folderOf(this.#owner(container).id));
  }

  /**
   * Writes the files of a container that is about to start; its addresses are not known yet. One in another's network has that
   * one's files and host name, as in docker.
   */
  async prepare(container: Container): Promise<void> {
    const owner = this.#owner(container);
    if (owner !== container) {
      const { Hostname = '', Domainname = '' } = owner.record.config;
      Object.assign(container.record.config, { Hostname, Domainname });
      return;
    }
    const { dns, folderOf, userMaps } = this.#deps;
    await writeEtcFiles(folderOf(container.id), container.record, this.#servers(container), dns);
    if (!userMaps) return;
    const { uid, gid } = ownerOnDisk(ROOT, userMaps);
    for (const path of Object.values(this.paths(container))) await chown(path, uid, gid);
  }

  #servers({ record }: Container): NameServers {
    const { networks, dns } = this.#deps;
    return nameServers(
      record,
      networks.gateways(record),
      (address) => networks.isNeighbour(record, address),
      dns,
    );
  }

  #links(container: Container): ReturnType<typeof findLinks> {
    const { find, networks } = this.#deps;
    return findLinks(container.record, {
      find: (reference) => find(reference).record,
      endpoint: (record, network) => networks.settings(record)[network],
    });
  }

  /** Variables that a container gets from its links. @throws when a link can't be made */
  environment(container: Container): string[] {
    return linkEnvironment(this.#links(container).environment, container.name);
  }

  /** Writes /etc/hosts of a container that is attached to its networks, and tells their DNS what it alone may know. */
  async write(container: Container): Promise<void> {
    const { record } = container;
    if (!this.#ownsFiles(container) || record.hostConfig.NetworkMode === 'host') return;
    const settings = this.#deps.networks.settings(record);
    const lines = linkHosts(this.#links(container).hosts);
    await writeInPlace(
      this.paths(container).hosts,
      hostsText(record, settings, lines, this.#deps.hostGateways),
    );
    await this.#deps.networks.setResolving(record, this.#servers(container).forwarded);
  }

  /** A container has come or gone, or changed its networks: those who know it by their files learn of it. */
  async changed(container: Container): Promise<void> {
    for (const other of this.#deps.all()) {
      const { record } = other;
      const several = Object.keys(record.networks).length > 1;
      const linked = Object.values(record.networks).some((settings) => (settings.Links?.length ?? 0) > 0);
      if (isAlive(record.state.status) && (other === container || several || linked)) await this.write(other);
    }
  }
}
