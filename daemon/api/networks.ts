/** /networks */
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { DrydockError } from '#common/errors';
import type { Container } from '../container/container.ts';
import type { EndpointSettings } from '../container/types.ts';
import { labelMatches } from '../events/bus.ts';
import { goBool } from '../go-text.ts';
import { ignoredOptions } from '../network/options.ts';
import type { CreateNetworkRequest, NetworkRecord } from '../network/record.ts';
import { pruneTest } from './containers.ts';
import type { ApiContext } from './context.ts';
import { badParameter } from './errors.ts';
import { booleanFilter, filters, jsonBody, text } from './query.ts';
import { connectBody, createNetworkBody } from './schema.ts';
import { apiVersion } from './server.ts';

const LIST_FILTERS: ReadonlySet<string> = new Set([
  'dangling',
  'driver',
  'id',
  'label',
  'name',
  'scope',
  'type',
]);

/** Registers the routes. */
export function networkRoutes(app: FastifyInstance, context: ApiContext): void {
  const { networks, containers } = context;
  for (const url of ['/networks', '/networks/']) app.get(url, async (request) => list(context, request));
  app.get('/networks/:id', async (request) => inspect(context, request));
  app.post('/networks/create', { schema: { body: createNetworkBody } }, async (request, reply) => {
    const body = jsonBody(request) as CreateNetworkRequest;
    // Before 1.48 clients knew no networks without IPv4.
    if (apiVersion(request) < 48) delete body.EnableIPv4;
    const record = await networks.create(body);
    return reply.code(201).send({ Id: record.id, Warning: ignoredOptions(body.Options) });
  });
  app.delete('/networks/:id', async (request, reply) => {
    await networks.remove((request.params as { id: string }).id);
    return reply.code(204).send();
  });
  app.post('/networks/:id/connect', { schema: { body: connectBody } }, async (request, reply) => {
    const body = jsonBody(request) as { Container?: string; EndpointConfig?: EndpointSettings };
    const network = networks.find((request.params as { id: string }).id);
    await containers.memberships.connect(
      memberOf(context, body.Container),
      network,
      body.EndpointConfig ?? {},
    );
    return reply.code(200).send();
  });
  app.post('/networks/:id/disconnect', { schema: { body: connectBody } }, async (request, reply) => {
    const body = jsonBody(request) as { Container?: string; Force?: boolean };
    const network = networks.find((request.params as { id: string }).id);
    await containers.memberships.disconnect(memberOf(context, body.Container), network);
    return reply.code(200).send();
  });
  app.post('/networks/prune', (request) => prune(context, request));
}

function memberOf(context: ApiContext, reference = ''): Container {
  if (reference === '') throw badParameter('invalid name or ID supplied: ""');
  return context.containers.find(reference);
}

function inspect(context: ApiContext, request: FastifyRequest): object {
  const verbose = text(request, 'verbose');
  if (verbose !== '' && goBool(verbose) === undefined)
    throw badParameter(
      `invalid value for verbose: ${verbose}: strconv.ParseBool: parsing ${JSON.stringify(verbose)}: invalid syntax`,
    );
  const { id } = request.params as { id: string };
  const scope = text(request, 'scope');
  if (scope !== '' && scope !== 'local')
    throw new DrydockError('ERR_NETWORK_NOT_FOUND', `network ${id} not found`);
  return networkView(context, context.networks.find(id), true);
}

function used(context: ApiContext, record: NetworkRecord): boolean {
  return (
    context.networks.endpoints(record.id).size > 0 ||
    context.containers.list().some((c) => Object.hasOwn(c.record.networks, record.name))
  );
}

function list(context: ApiContext, request: FastifyRequest): object[] {
  const found = filters(request, LIST_FILTERS);
  const any = (name: string, test: (value: string) => boolean): boolean =>
    found.get(name)?.some(test) ?? true;
  for (const type of found.get('type') ?? [])
    if (type !== 'custom' && type !== 'builtin') throw badParameter(`invalid filter: 'type'='${type}'`);
  const dangling = booleanFilter(found, 'dangling');
  return context.networks
    .list()
    .filter(
      (n) =>
        any('id', (v) => n.id.startsWith(v)) &&
        any('name', (v) => n.name.includes(v)) &&
        any('driver', (v) => n.driver === v) &&
        any('scope', (v) => v === 'local') &&
        any('type', (v) => n.predefined === (v === 'builtin')) &&
        (found.get('label') ?? []).every((v) => labelMatches(n.labels, v)) &&
        (dangling === undefined || dangling === (!n.predefined && !used(context, n))),
    )
    .map((n) => networkView(context, n, false));
}

function networkView(context: ApiContext, record: NetworkRecord, endpoints: boolean): object {
  const members = endpoints ? [...context.networks.endpoints(record.id)] : [];
  return {
    Name: record.name,
    Id: record.id,
    Created: record.created,
    Scope: 'local',
    Driver: record.driver,
    EnableIPv4: record.withoutIPv4 !== true,
    EnableIPv6: record.enableIPv6 === true,
    IPAM: {
      Driver: record.ipam.Driver,
      Options: record.ipam.Options,
      Config: record.driver === 'bridge' ? record.ipam.Config : (record.configuration?.IPAM?.Config ?? null),
    },
    Internal: record.internal,
    Attachable: record.attachable,
    Ingress: false,
    ConfigFrom: { Network: record.configFrom ?? '' },
    ConfigOnly: record.configuration !== undefined,
    Containers: Object.fromEntries(
      members.map(([id, { containerName, settings }]) => [
        id,
        {
          Name: containerName,
          EndpointID: settings.EndpointID ?? '',
          MacAddress: settings.MacAddress ?? '',
          IPv4Address: settings.IPAddress ? `${settings.IPAddress}/${settings.IPPrefixLen}` : '',
          IPv6Address: settings.GlobalIPv6Address
            ? `${settings.GlobalIPv6Address}/${settings.GlobalIPv6PrefixLen}`
            : '',
        },
      ]),
    ),
    Options: record.options,
    Labels: record.labels,
  };
}

const PRUNE_FILTERS: ReadonlySet<string> = new Set(['until', 'label', 'label!']);

async function prune(context: ApiContext, request: FastifyRequest): Promise<object> {
  const matches = pruneTest(request, context.clock.wallMs(), PRUNE_FILTERS);
  const removed: string[] = [];
  for (const record of context.networks.list()) {
    if (
      record.predefined ||
      record.configuration ||
      used(context, record) ||
      !matches(record.created, record.labels)
    )
      continue;
    await context.networks.remove(record.id);
    removed.push(record.name);
  }
  context.events.emit('network', 'prune', '', { reclaimed: '0' });
  return { NetworksDeleted: removed };
}
