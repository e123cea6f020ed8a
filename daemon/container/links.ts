/**
 * Links, docker's oldest way to name a neighbour: lines in /etc/hosts on any network, and environment variables on the
 * default one (moby: daemon/links). Pure.
 */
import { DrydockError, errorCode } from '#common/errors';
import { isAlive } from './lifecycle.ts';
import type { ContainerRecord, EndpointSettings } from './types.ts';

/** A neighbour by the name that the linking container has for it. */
export interface Link {
  alias: string;
  /** The neighbour's address on the shared network. */
  address: string;
  record: ContainerRecord;
}

/** What links need to know of other containers. */
export interface LinkLookups {
  find(reference: string): ContainerRecord;
  endpoint(record: ContainerRecord, network: string): EndpointSettings | undefined;
}

/** `name:alias`, `name`; either may begin with a slash. */
export function parseLink(text: string): { name: string; alias: string } {
  const [name = '', alias = name, ...rest] = text.replace(/^\//, '').split(':');
  if (name === '' || alias === '' || rest.length > 0)
    throw new DrydockError('ERR_BAD_PARAMETER', `bad format for links: ${text}`);
  return { name, alias: alias.slice(alias.lastIndexOf('/') + 1) };
}

/**
 * Finds the neighbours of a container. On a user network those that don't run are left out: their line comes when they start.
 * @throws ERR_BAD_PARAMETER, ERR_CONTAINER_NOT_FOUND when one of the default network is missing
 */
export function findLinks(
  record: ContainerRecord,
  lookups: LinkLookups,
): { hosts: Link[]; environment: Link[] } {
  const found = { hosts: [] as Link[], environment: [] as Link[] };
  const add = (text: string, network: string, withEnvironment: boolean): void => {
    const { name, alias } = parseLink(text);
    const other = lookups.find(name);
    if (!isAlive(other.state.status))
      throw new DrydockError(
        'ERR_BAD_PARAMETER',
        `Cannot link to a non running container: /${other.name} AS /${record.name}/${alias}`,
      );
    const address = lookups.endpoint(other, network)?.IPAddress;
    if (!address)
      throw new DrydockError(
        'ERR_BAD_PARAMETER',
        `Cannot link to /${other.name}, as it does not belong to the network ${network}`,
      );
    const link = { alias, address, record: other };
    found.hosts.push(link);
    if (withEnvironment) found.environment.push(link);
  };
  const mode = record.hostConfig.NetworkMode ?? '';
  for (const text of record.hostConfig.Links ?? []) add(text, mode, mode === 'bridge');
  for (const [network, settings] of Object.entries(record.networks))
    for (const text of settings.Links ?? []) if (runsOn(text, network, lookups)) add(text, network, false);
  return found;
}

function runsOn(text: string, network: string, lookups: LinkLookups): boolean {
  try {
    const other = lookups.find(parseLink(text).name);
    return isAlive(other.state.status) && lookups.endpoint(other, network)?.IPAddress !== undefined;
  } catch (error) {
    if (errorCode(error) === 'ERR_CONTAINER_NOT_FOUND') return false;
    throw error;
  }
}

/** Lines of /etc/hosts. */
export function linkHosts(links: Link[]): string[] {
  return links.map(({ alias, address, record }) => {
    const names = new Set([alias, record.config.Hostname || record.id.slice(0, 12), record.name]);
    return `${address}\t${[...names].join(' ')}`;
  });
}

/** Variables of the linking container: where the neighbour's ports are, and the neighbour's own environment. */
export function linkEnvironment(links: Link[], name: string): string[] {
  return links.flatMap(({ alias, address, record }) => {
    const prefix = alias.toUpperCase().replaceAll('-', '_');
    const ports = Object.keys(record.config.ExposedPorts ?? {}).sort(
      (a, b) => Number.parseInt(a, 10) - Number.parseInt(b, 10),
    );
    const entries = ports.flatMap((key, index) => {
      const [port = '', protocol = 'tcp'] = key.split('/');
      const url = `${protocol}://${address}:${port}`;
      const own = `${prefix}_PORT_${port}_${protocol.toUpperCase()}`;
      return [
        ...(index === 0 ? [`${prefix}_PORT=${url}`] : []),
        `${own}=${url}`,
        `${own}_ADDR=${address}`,
        `${own}_PORT=${port}`,
        `${own}_PROTO=${protocol}`,
      ];
    });
    const environment = (record.config.Env ?? [])
      .filter((entry) => entry.includes('=') && !/^(HOME|PATH)=/.test(entry))
      .map((entry) => `${prefix}_ENV_${entry}`);
    return [...entries, `${prefix}_NAME=/${name}/${alias}`, ...environment];
  });
}
