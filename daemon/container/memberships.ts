/** `docker network connect`, `disconnect` and `rm --link`: whom a container can reach, changed after its creation. */
import { DrydockError } from '#common/errors';
import { checkAddress, checkEndpoint } from '../network/endpoint.ts';
import type { NetworkRecord } from '../network/record.ts';
import type { NetworkService } from '../network/service.ts';
import type { Container } from './container.ts';
import { isAlive } from './lifecycle.ts';
import { parseLink } from './links.ts';
import type { Neighbours } from './neighbours.ts';
import type { ContainerRecord, EndpointSettings } from './types.ts';

/** What the service works with. */
export interface MembershipDeps {
  networks: NetworkService;
  neighbours: Neighbours;
  all(): Container[];
  save(container: Container): Promise<void>;
  /** @throws ERR_SHUTTING_DOWN when the daemon ends */
  assertWorking(): void;
}

/** Containers on networks. */
export class Memberships {
  readonly #deps: MembershipDeps;

  constructor(deps: MembershipDeps) {
    this.#deps = deps;
  }

  /** Joins a container to a network, while it runs too. */
  async connect(container: Container, network: NetworkRecord, asked: EndpointSettings): Promise<void> {
    this.#deps.assertWorking();
    const { networks } = this.#deps;
    const { record } = container;
    checkJoinable(record, network);
    checkEndpoint(network.name, asked);
    checkAddress(network, asked);
    const isMember = Object.hasOwn(record.networks, network.name);
    // As in dockerd, one that doesn't run is asked to be what it is.
    if (isMember && !isAlive(record.state.status)) return;
    if (isMember)
      throw new DrydockError(
        'ERR_FORBIDDEN',
        `endpoint with name ${record.name} already exists in network ${network.name}`,
      );
    await container.turns.take(async () => {
      if (isAlive(record.state.status))
        await networks.attach(record, network.name, asked, container.jail!.pid);
      record.networks[network.name] = asked;
      await this.#deps.save(container);
      await this.#deps.neighbours.changed(container);
    });
  }

  /** Takes a container off a network. */
  async disconnect(container: Container, network: NetworkRecord): Promise<void> {
    const { record } = container;
    if (record.hostConfig.NetworkMode === 'host' && network.driver === 'host')
      throw new DrydockError(
        'ERR_BAD_PARAMETER',
        'cannot disconnect container from host network - container was created in host network mode',
      );
    if (!Object.hasOwn(record.networks, network.name))
      throw new DrydockError(
        'ERR_NOT_CONNECTED',
        `container ${container.id} is not connected to network ${network.name}`,
      );
    await container.turns.take(async () => {
      if (isAlive(record.state.status)) await this.#deps.networks.detach(record, network);
      delete record.networks[network.name];
      await this.#deps.save(container);
      await this.#deps.neighbours.changed(container);
    });
  }

  /**
   * Names by which other containers link to one, `/web/db`. What is returned answers for any number of containers: the
   * links are gathered once for a whole list.
   */
  linkNames(): (container: Container) => string[] {
    const links = this.#deps.all().flatMap(({ record }) =>
      (record.hostConfig.Links ?? []).map((link) => {
        const { name, alias } = parseLink(link);
        return { name, path: `/${record.name}/${alias}` };
      }),
    );
    return (container) =>
      links
        .filter(({ name }) => name === container.name || container.id.startsWith(name))
        .map(({ path }) => path);
  }

  /** Removes a link of a container by the name that it has there. @throws ERR_CONTAINER_NOT_FOUND */
  async unlink(container: Container, alias: string): Promise<void> {
    await container.turns.take(async () => {
      const { hostConfig } = container.record;
      const links = hostConfig.Links ?? [];
      const rest = links.filter((text) => parseLink(text).alias !== alias);
      if (rest.length === links.length)
        throw new DrydockError('ERR_CONTAINER_NOT_FOUND', `No such container: ${container.name}/${alias}`);
      hostConfig.Links = rest;
      await this.#deps.save(container);
      await this.#deps.neighbours.changed(container);
    });
  }
}

/** Which containers can join which networks after their creation. */
function checkJoinable(record: ContainerRecord, network: NetworkRecord): void {
  const mode = record.hostConfig.NetworkMode ?? '';
  if (mode !== 'host' && network.driver === 'host')
    throw new DrydockError(
      'ERR_BAD_PARAMETER',
      'cannot connect container to host network - container must be created in host network mode',
    );
  if (mode.startsWith('container:') || mode === 'host')
    throw new DrydockError(
      'ERR_BAD_PARAMETER',
      'container sharing network namespace with another container or host cannot be connected to any other network',
    );
  if (mode === 'none' || network.name === 'none')
    throw new DrydockError(
      'ERR_BAD_PARAMETER',
      'container cannot be connected to multiple networks with one of the networks in private (none) mode',
    );
}
