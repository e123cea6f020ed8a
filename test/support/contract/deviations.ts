/** Where the descriptions and a dockerd differ. Clients know dockerd, so its answer is the right one. */
import type { Deviation } from './client.ts';

/** Statuses that dockerd answers and that some description leaves out. */
const STATUSES: Record<string, number[]> = {
  'GET /containers/{id}/logs': [400],
  'GET /distribution/{name}/json': [404],
  'GET /images/json': [400],
  'GET /images/{name}/get': [404],
  'GET /networks': [400],
  'GET /volumes': [400],
  'POST /containers/prune': [400],
  'POST /containers/{id}/exec': [400],
  'POST /containers/{id}/pause': [409],
  'POST /containers/{id}/rename': [400],
  'POST /containers/{id}/resize': [409],
  'POST /containers/{id}/unpause': [409],
  'POST /exec/{id}/start': [101],
  'POST /images/prune': [400],
  'POST /containers/{id}/start': [400],
  'POST /networks/create': [400, 409],
  'POST /networks/prune': [400],
  'POST /volumes/create': [400, 404],
  'POST /volumes/prune': [400],
  'DELETE /containers/{id}': [409],
  'DELETE /networks/{id}': [403],
  'GET /events': [400],
  'POST /build': [400],
  'POST /containers/{id}/kill': [400, 409],
  'POST /containers/{id}/wait': [400],
  'POST /plugins/{name}/disable': [404],
  'POST /plugins/{name}/enable': [404],
  // What this daemon says it does not do.
  'GET /images/search': [501],
  'GET /plugins/privileges': [501],
  'POST /plugins/create': [501],
  'POST /plugins/pull': [501],
  'POST /swarm/init': [501],
  'POST /swarm/join': [501],
};

const of = (operation: string, fault: RegExp): Deviation => ({
  operation: new RegExp(`^${operation.replaceAll(/[{}/]/g, '\\$&')}$`),
  fault,
});

/** What the descriptions of versions before 1.40 have wrong. */
const OLD: Record<string, RegExp[]> = {
  'GET /containers/{id}/json': [
    /^\/ExecIDs: must be string$/,
    /^\/HostConfig\/PidsLimit: must be integer$/,
    /^\/HostConfig\/PortBindings\/\S+: must be object$/,
    /^\/HostConfig\/RestartPolicy\/Name: must be equal/,
    /^\/NetworkSettings\/Ports(\/\S+)?: must be array/,
  ],
  'GET /info': [/^\/Plugins\/\w+: must be array/],
};

export const DEVIATIONS: readonly Deviation[] = [
  ...Object.entries(STATUSES).flatMap(([operation, statuses]) =>
    statuses.map((status) => of(operation, new RegExp(`^status ${status}: `))),
  ),
  ...Object.entries(OLD).flatMap(([operation, faults]) => faults.map((fault) => of(operation, fault))),
  // The oldest descriptions had other statuses for a node without swarm and for conflicts than any dockerd since.
  { operation: /^\w+ \/(nodes|services|tasks|secrets|configs|swarm)/, fault: /^status 503: / },
  // Fields of events before 1.22, which every dockerd sends until 1.52.
  of('GET /events', /^\/(status|id|from): is not documented$/),
  of('GET /info', /^\/GenericResources: must be array$/),
  // Ours.
  of('GET /info', /^\/JailReports: is not documented$/),
  // No isolation, on Linux.
  { operation: /^GET \/(info|containers\/\{id\}\/json)$/, fault: /\/Isolation: must be equal/ },
  // Kept after it left the API with 1.45: docker-compose 1.x speaks the newest version and reads it.
  of('GET /images/{name}/json', /^\/ContainerConfig: is not documented$/),
  // What dockerd told clients before 1.42 although their descriptions had only its parts, BuildCache.
  of('GET /system/df', /^\/BuilderSize: is not documented$/),
  // Pointers that point nowhere.
  of(
    'GET /containers/{id}/json',
    /^\/HostConfig\/(MemorySwappiness|OomKillDisable): must be (integer|number|boolean)$/,
  ),
  of('GET /exec/{id}/json', /^\/ExitCode: must be (integer|number)$/),
];
