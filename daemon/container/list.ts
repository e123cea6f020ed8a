/** Filters of `docker ps` and of `docker container prune`. Pure but for the lookups that are passed in. */
import { DrydockError } from '#common/errors';
import { labelMatches } from '../events/bus.ts';
import { goBool } from '../go-text.ts';
import type { Container } from './container.ts';
import type { ContainerRecord } from './types.ts';

/** Filters of GET /containers/json. */
export const LIST_FILTERS: ReadonlySet<string> = new Set([
  'ancestor',
  'before',
  'expose',
  'exited',
  'health',
  'id',
  'is-task',
  'isolation',
  'label',
  'name',
  'network',
  'publish',
  'since',
  'status',
  'volume',
]);

const STATUSES = new Set(['created', 'running', 'paused', 'restarting', 'removing', 'exited', 'dead']);

/** What some filters need to know. */
export interface ListLookups {
  find(reference: string): Container;
  /** Ids of an image and of all images below it, by reference; undefined when there is none. */
  imageIds(reference: string): Promise<Set<string> | undefined>;
  networkId(reference: string): string;
}

/** Compiles filters to a test. @throws ERR_BAD_PARAMETER for values that make no sense */
export async function containerPredicate(
  filters: Map<string, string[]>,
  lookups: ListLookups,
): Promise<(record: ContainerRecord) => boolean> {
  const tests: ((record: ContainerRecord) => boolean)[] = [];
  for (const [name, values] of filters) tests.push(await predicate(name, values, lookups));
  return (record) => tests.every((test) => test(record));
}

function bad(name: string, value: string, why?: string): DrydockError {
  return new DrydockError('ERR_BAD_PARAMETER', `invalid filter '${name}=${value}'${why ? `: ${why}` : ''}`);
}

async function predicate(
  name: string,
  values: string[],
  lookups: ListLookups,
): Promise<(record: ContainerRecord) => boolean> {
  const any =
    (test: (record: ContainerRecord, value: string) => boolean) =>
    (record: ContainerRecord): boolean =>
      values.some((value) => test(record, value));
  switch (name) {
    case 'id':
      return any((r, v) => r.id.startsWith(v));
    case 'name': {
      const patterns = values.map((value) => nameTest(value));
      return (r) => patterns.some((test) => test(r.name));
    }
    case 'label':
      return (r) => values.every((v) => labelMatches(r.config.Labels ?? {}, v));
    case 'status':
      for (const value of values) if (!STATUSES.has(value)) throw bad(name, value);
      return any((r, v) => r.state.status === v);
    case 'exited':
      for (const value of values)
        if (!/^-?\d+$/.test(value))
          throw bad(name, value, `strconv.Atoi: parsing ${JSON.stringify(value)}: invalid syntax`);
      return any((r, v) => r.state.status === 'exited' && r.state.exitCode === Number(v));
    case 'health':
      for (const value of values)
        if (!['starting', 'healthy', 'unhealthy', 'none'].includes(value)) throw bad(name, value);
      return any((r, v) => (r.state.health?.Status ?? 'none') === v);
    case 'before':
    case 'since': {
      const { created } = lookups.find(values[0]!).record;
      return (r) => (name === 'before' ? r.created < created : r.created > created);
    }
    case 'ancestor': {
      const sets = await Promise.all(values.map((value) => lookups.imageIds(value)));
      return (r) => sets.some((set) => set?.has(r.imageId));
    }
    case 'network':
      return any((r, v) =>
        Object.keys(r.networks).some((n) => n === v || lookups.networkId(n).startsWith(v)),
      );
    case 'volume':
      return any((r, v) => r.mounts.some((m) => m.Destination === v || m.Source === v || m.Name === v));
    case 'expose':
      for (const value of values) checkPort(name, value);
      return any((r, v) => Object.keys(r.config.ExposedPorts ?? {}).some((p) => portMatches(p, v)));
    case 'publish':
      for (const value of values) checkPort(name, value);
      return any((r, v) => Object.keys(r.hostConfig.PortBindings ?? {}).some((p) => portMatches(p, v)));
    case 'is-task':
      for (const value of values) if (goBool(value) === undefined) throw bad(name, `[${values.join(' ')}]`);
      return () => !values.some((value) => goBool(value));
    case 'isolation':
      return any((r, v) => (r.hostConfig.Isolation || 'default') === v);
    default:
      return () => true;
  }
}

/** A regular expression on the name with and without its slash, as in moby; a text that is none matches as it is. */
function nameTest(value: string): (name: string) => boolean {
  try {
    const pattern = new RegExp(value);
    return (name) => pattern.test(`/${name}`) || pattern.test(name);
  } catch {
    return (name) => name.includes(value);
  }
}

function checkPort(name: string, value: string): void {
  if (!/^\d{1,5}(-\d{1,5})?(\/[a-z]+)?$/.test(value))
    throw new DrydockError(
      'ERR_BAD_PARAMETER',
      `error while looking up for ${name} ${value}: invalid port: 80, 80/udp and 80-90/tcp are the forms`,
    );
}

/** `80/tcp` against `80`, `80/tcp`, `80-90/udp`. */
function portMatches(port: string, wanted: string): boolean {
  const [number = '', protocol = 'tcp'] = port.split('/');
  const [range = '', wantedProtocol = 'tcp'] = wanted.split('/');
  const [first = '', last = first] = range.split('-');
  return protocol === wantedProtocol && Number(number) >= Number(first) && Number(number) <= Number(last);
}
