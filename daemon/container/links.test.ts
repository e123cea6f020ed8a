import { expect, it } from 'vitest';
import { newState } from './lifecycle.ts';
import { findLinks, type LinkLookups, linkEnvironment, linkHosts, parseLink } from './links.ts';
import type { ContainerRecord } from './types.ts';

function record(name: string, changes: Partial<ContainerRecord> = {}): ContainerRecord {
  return {
    id: 'e'.repeat(64),
    name,
    created: '',
    imageId: '',
    config: {
      Hostname: 'host-of-it',
      ExposedPorts: { '5432/tcp': {}, '53/udp': {} },
      Env: ['PATH=/x', 'A=b'],
    },
    hostConfig: { NetworkMode: 'bridge' },
    args: [],
    mounts: [],
    networks: {},
    state: { ...newState(), status: 'running' },
    ...changes,
  };
}

const lookups = (other: ContainerRecord): LinkLookups => ({
  find: () => other,
  endpoint: (_, network) =>
    network === 'bridge' || network === 'mine' ? { IPAddress: '172.17.0.9' } : undefined,
});

it.each([
  ['db', { name: 'db', alias: 'db' }],
  ['db:store', { name: 'db', alias: 'store' }],
  ['/db:/web/store', { name: 'db', alias: 'store' }],
])('%s', (text, expected) => {
  expect(parseLink(text)).toEqual(expected);
});

it.each([':x', 'a:b:c', ''])('%j is no link', (text) => {
  expect(() => parseLink(text)).toThrow(/bad format for links/);
});

it('a link on the default network: hosts and environment', () => {
  const links = findLinks(
    record('web', { hostConfig: { NetworkMode: 'bridge', Links: ['db:my-db'] } }),
    lookups(record('db')),
  );
  expect(linkHosts(links.hosts)).toEqual(['172.17.0.9\tmy-db host-of-it db']);
  expect(linkEnvironment(links.environment, 'web')).toEqual([
    'MY_DB_PORT=udp://172.17.0.9:53',
    'MY_DB_PORT_53_UDP=udp://172.17.0.9:53',
    'MY_DB_PORT_53_UDP_ADDR=172.17.0.9',
    'MY_DB_PORT_53_UDP_PORT=53',
    'MY_DB_PORT_53_UDP_PROTO=udp',
    'MY_DB_PORT_5432_TCP=tcp://172.17.0.9:5432',
    'MY_DB_PORT_5432_TCP_ADDR=172.17.0.9',
    'MY_DB_PORT_5432_TCP_PORT=5432',
    'MY_DB_PORT_5432_TCP_PROTO=tcp',
    'MY_DB_NAME=/web/my-db',
    'MY_DB_ENV_A=b',
  ]);
});

it('a link on a user network: hosts only, and nothing yet for what does not run there', () => {
  const web = (network: string): ContainerRecord =>
    record('web', { hostConfig: { NetworkMode: network }, networks: { [network]: { Links: ['db'] } } });
  const links = findLinks(web('mine'), lookups(record('db')));
  expect([links.hosts.length, links.environment.length]).toEqual([1, 0]);
  expect(findLinks(web('other'), lookups(record('db'))).hosts).toEqual([]);
  expect(findLinks(web('mine'), lookups(record('db', { state: newState() }))).hosts).toEqual([]);
});

it('a link on the default network to what does not run is refused', () => {
  const web = record('web', { hostConfig: { NetworkMode: 'bridge', Links: ['db'] } });
  expect(() => findLinks(web, lookups(record('db', { state: newState() })))).toThrow(
    'Cannot link to a non running container: /db AS /web/db',
  );
});
